//! What happens behind an announcement: a member is reserved or made, and brought to the tip of the wanted branch
//! with its gate shut and nobody bound.

use std::sync::Arc;
use std::time::Duration;

use domain::{
    Error, ImageId, ImageRecord, Purpose, RepoSpec, Result, SandboxId, SandboxState, TraceContext, WarmupId,
    WarmupRecord,
};
use pool::{MIN_REMAINING_LIFE, Want};
use tracing::debug;

use super::{Warmups, Work};
use crate::fleet::{Entry, Order, START_DEADLINE};
use crate::traces::kinds;

/// Bringing a reserved member to the branch may take this long.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

impl Warmups {
    /// Has somebody see to it, in the background. Whatever is asked while one is at it is done in one more round.
    pub(super) fn prepare(self: &Arc<Self>, id: WarmupId) {
        let Some(mut warm) = self.live.get_mut(&id) else { return };
        if warm.work != Work::Idle {
            warm.work = Work::BusyAgain;
            return;
        }
        warm.work = Work::Busy;
        drop(warm);
        let me = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = me.prepare_all(id) => {}
                () = me.stop.cancelled() => {}
            }
        });
    }

    async fn prepare_all(self: &Arc<Self>, id: WarmupId) {
        while let Some(record) = self.get(id) {
            let mut span = self.tracer.child(&kinds::WARMUP_PREPARE, record.trace.as_ref());
            span.show(kinds::WARMUP, id);
            span.show(kinds::REPO, &record.repo);
            let here = span.context();
            if let Err(e) = span.around(self.prepare_once(&record, here)).await {
                debug!(warmup = %id, error = %e.chain(), "a warm-up could not be prepared");
            }
            let Some(mut warm) = self.live.get_mut(&id) else { return };
            match warm.work {
                Work::BusyAgain => warm.work = Work::Busy,
                _ => {
                    warm.work = Work::Idle;
                    return;
                }
            }
        }
    }

    async fn prepare_once(
        self: &Arc<Self>,
        warmup: &WarmupRecord,
        trace: Option<TraceContext>,
    ) -> Result<()> {
        let spec = self.repos.spec(&warmup.repo)?;
        let images = self.repos.offer(&spec, warmup.id.as_u128());
        let Some(entry) = self.hold(&spec, &images, warmup).await? else { return Ok(()) };
        self.fleet.pool_poke.notify_one();
        entry.wait_link(START_DEADLINE).await?;
        let mut refresh = self.tracer.child(&kinds::REFRESH, trace.as_ref());
        refresh.show(kinds::REPO, &spec.name);
        refresh.around(self.mirrors.refresh(&spec.name)).await?;
        let Some(tip) = self.mirrors.tip(&spec.name, &warmup.branch).await? else { return Ok(()) };
        if entry.session().is_some() {
            return Ok(());
        }
        if entry.record().commit.as_ref() != Some(&tip) {
            self.note(warmup.id, |r| r.begin(self.clock.now()));
            let begun = self.clock.now();
            let report = self.fleet.sync_idle(&entry, &warmup.branch, tip, SYNC_LIMIT).await?;
            self.tracer.agent_sync(trace.as_ref(), entry.id, (begun, self.clock.now()), &report);
        }
        self.note(warmup.id, |r| {
            // Else it is another one that is wanted by now, and one more round follows.
            if r.prepared_at.is_none() && r.branch == warmup.branch {
                r.prepared_at = Some(self.clock.now());
            }
        });
        Ok(())
    }

    /// The member that is held from now on; `None` when the warm-up has ended meanwhile.
    async fn hold(
        self: &Arc<Self>,
        spec: &RepoSpec,
        images: &[ImageRecord],
        warmup: &WarmupRecord,
    ) -> Result<Option<Arc<Entry>>> {
        let Some(image) = images.first() else { return Ok(None) };
        let allowed: Vec<_> = images.iter().map(|i| i.id).collect();
        let want = Want {
            repo: &spec.name,
            allowed: &allowed,
            warmup: Some(warmup.id),
            tip: None,
            now: self.clock.now(),
            // Still long enough to be claimed when it has been held to its end.
            min_remaining_life: MIN_REMAINING_LIFE + spec.pool.warmup_ttl,
            member_max_age: spec.pool.member_max_age,
        };
        let entry = match self.fleet.shelf().reserve(warmup.id, &want) {
            Ok(id) => self.fleet.get(id).ok_or_else(|| Error::gone(format!("sandbox {id} has ended")))?,
            Err(_) => match self.on_its_way(&allowed, warmup) {
                Some(entry) => return Ok(Some(entry)),
                None => return self.make(spec, image, warmup).await,
            },
        };
        if !self.point_at(warmup.id, entry.id) {
            // It ended while we looked: nobody holds the member any more.
            self.fleet.shelf().release_member(entry.id, warmup.id);
            return Ok(None);
        }
        if entry.record().reserved != Some(warmup.id) {
            self.fleet.set_reserved(&entry, Some(warmup.id)).await?;
        }
        self.let_go(warmup, entry.id).await?;
        Ok(Some(entry))
    }

    /// A member that was ordered for it and has not answered yet.
    fn on_its_way(&self, allowed: &[ImageId], warmup: &WarmupRecord) -> Option<Arc<Entry>> {
        let entry = self.fleet.get(warmup.sandbox?)?;
        let record = entry.record();
        let starting = matches!(record.state, SandboxState::Creating | SandboxState::Starting);
        let may = record.image.is_some_and(|i| allowed.contains(&i));
        (starting && record.reserved == Some(warmup.id) && may).then_some(entry)
    }

    async fn make(
        self: &Arc<Self>,
        spec: &RepoSpec,
        image: &ImageRecord,
        warmup: &WarmupRecord,
    ) -> Result<Option<Arc<Entry>>> {
        // Known before it is made, so that a session that comes meanwhile finds it (F55).
        let id = SandboxId::new();
        if !self.point_at(warmup.id, id) {
            return Ok(None);
        }
        let mut order = Order::of_image(image, Purpose::Pool, self.repos.trust_env(&spec.name));
        order.id = Some(id);
        let made = self.fleet.create_reserved(spec, order, warmup.id).await;
        self.let_go(warmup, id).await?;
        made.map(Some)
    }

    /// Notes which member is its own; false when it has ended.
    fn point_at(&self, warmup: WarmupId, sandbox: SandboxId) -> bool {
        self.note(warmup, |r| {
            let before = r.sandbox.replace(sandbox);
            if before.is_some_and(|before| before != sandbox) {
                r.begin(self.clock.now());
            }
        })
    }

    /// Changes the record of one that is live; it is written with the next renewals. False when it has ended.
    fn note(&self, warmup: WarmupId, change: impl FnOnce(&mut WarmupRecord)) -> bool {
        let Some(mut warm) = self.live.get_mut(&warmup) else { return false };
        change(&mut warm.record);
        warm.unwritten = true;
        true
    }

    /// Gives back what it held before, when it holds another one now.
    async fn let_go(&self, warmup: &WarmupRecord, now: SandboxId) -> Result<()> {
        match warmup.sandbox.filter(|before| *before != now) {
            Some(before) => self.free(before, warmup.id).await,
            None => Ok(()),
        }
    }
}
