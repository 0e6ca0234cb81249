//! The end of a session and its snapshots: capture before destroy, row before deed (F39).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::ports::{CaptureKind, CaptureSpec, Captured};
use domain::wire::Quiesce;
use domain::{
    EndReason, Error, Result, SandboxState, SessionEvent, SessionRecord, SessionState, SnapshotId,
    SnapshotKind, SnapshotRecord, SnapshotState,
};
use serde_json::json;
use snapshots::{EndFacts, Step, Steps};
use store::Tx;
use tracing::{debug, warn};

use super::{END_DEADLINE, Session, Sessions};
use crate::fleet::{Entry, after};
use crate::traces::kinds;

/// Commands get this long to end by themselves.
const GRACE: Duration = Duration::from_secs(5);
/// One capture. Longer than the engine's own deadline, which thaws what it had frozen.
const CAPTURE_DEADLINE: Duration = Duration::from_secs(720);
/// A sandbox whose capture failed for good is tried again this much later.
const KEPT_FOR: Duration = Duration::from_secs(3600);

impl Sessions {
    /// Decides that a session ends and writes it down; its driver does the rest. `discard` gives up what the
    /// sandbox holds, which only its user may ask for.
    pub async fn decide_end(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reason: EndReason,
        discard: bool,
    ) -> Result<Arc<SessionRecord>> {
        self.decide_end_if(session, reason, discard, |_| true).await
    }

    /// As [`Sessions::decide_end`], if the record as it stands is still due; else nothing happens.
    pub(super) async fn decide_end_if(
        self: &Arc<Self>,
        session: &Arc<Session>,
        reason: EndReason,
        discard: bool,
        due: impl FnOnce(&SessionRecord) -> bool,
    ) -> Result<Arc<SessionRecord>> {
        let now = self.clock.now();
        let mut conflict = None;
        let mut spared = false;
        let record = self
            .update(session, true, |r| match r.state.after(SessionEvent::EndDecided) {
                Some(_) if !due(r) => {
                    spared = true;
                    None
                }
                Some(next) => {
                    r.state = next;
                    r.end = Some(reason);
                    r.deadline = after(now, END_DEADLINE);
                    Some(("ending", json!({"reason": reason})))
                }
                None => {
                    conflict = Some(r.state);
                    None
                }
            })
            .await?;
        // One that can't be captured is given up only on its user's word.
        if conflict == Some(SessionState::Ending) && discard {
            session.discard.store(true, Ordering::Release);
            session.poke.notify_one();
            return Ok(record);
        }
        if spared {
            return Ok(record);
        }
        if let Some(state) = conflict {
            return Err(Error::conflict(format!("session {} is {} already", session.id, state.as_str())));
        }
        session.discard.store(discard, Ordering::Release);
        session.leaving.cancel();
        session.poke.notify_one();
        Ok(record)
    }

    /// The driver's part of an end: does what the plan says. Called again until the session is `Ended`.
    pub(super) async fn finish(self: &Arc<Self>, session: &Arc<Session>) {
        let record = session.record();
        let entry = record.sandbox.and_then(|id| self.fleet.get(id));
        let plan = if session.discard.load(Ordering::Acquire) {
            Steps { steps: vec![Step::Release, Step::Finish], why: "discarded by its user" }
        } else {
            match self.plan_end(&record, entry.as_deref()).await {
                Ok(plan) => plan,
                Err(e) => return warn!(session = %session.id, error = %e.chain(), "could not plan an end"),
            }
        };
        debug!(session = %session.id, %plan, "end");
        let span = self.span(&kinds::END, &record);
        if let Err(e) = span.around(self.follow(session, &record, entry.as_ref(), &plan)).await {
            warn!(session = %session.id, error = %e.chain(), "an end did not come through; it will be tried again");
        }
    }

    async fn plan_end(&self, record: &SessionRecord, entry: Option<&Entry>) -> Result<Steps> {
        let taken = self.store.snapshots_of(record.id).await?;
        let failed = taken.iter().filter(|s| s.kind == SnapshotKind::End && s.state == SnapshotState::Failed);
        let attempts = failed.clone().count() as u32;
        let last_attempt = failed.map(|s| s.created_at).max();
        let sandbox = entry.map(Entry::record);
        let facts = EndFacts {
            session: record,
            sandbox: sandbox.as_deref(),
            snapshots: &taken,
            attempts,
            last_attempt,
        };
        Ok(snapshots::end_plan(self.clock.now(), &facts))
    }

    async fn follow(
        self: &Arc<Self>,
        session: &Arc<Session>,
        record: &SessionRecord,
        entry: Option<&Arc<Entry>>,
        plan: &Steps,
    ) -> Result<()> {
        for step in &plan.steps {
            match (step, entry) {
                (Step::Quiesce { stop }, Some(entry)) => self.quiesce(session, entry, *stop).await,
                // Row, deed and row are one step of ours: see `capture`.
                (Step::Capture { row, pause }, Some(entry)) => {
                    let again = match row {
                        Some(id) => self.store.snapshot(*id).await?,
                        None => None,
                    };
                    if let Err(e) = self.capture(record, entry, SnapshotKind::End, again, *pause).await {
                        self.keep(session, entry, &e).await?;
                        return Err(e);
                    }
                }
                // Past its deadline it ends all the same; the sandbox stays, and the capture is tried on (F39).
                (Step::Wait { .. }, _) if self.clock.now() >= record.deadline => {
                    let trouble = record.trouble.clone();
                    return self.close(session, trouble).await;
                }
                (Step::Wait { .. }, _) => return Ok(()),
                (Step::Release, Some(entry)) => self.fleet.stop(entry.id, plan.why).await?,
                (Step::Finish, _) => return self.close(session, None).await,
                (Step::WriteRow { .. } | Step::Record, _) | (_, None) => {}
            }
        }
        Ok(())
    }

    async fn quiesce(&self, session: &Session, entry: &Entry, stop: bool) {
        let Some(link) = entry.link() else { return };
        let order = Quiesce { stop, grace_ms: if stop { GRACE.as_millis() as u64 } else { 0 } };
        if let Err(e) = link.quiesce(&order).await {
            // A capture of a filesystem in motion is better than none.
            warn!(session = %session.id, error = %e.chain(), "could not quiesce");
        }
    }

    /// The session is over; `trouble` says what stays wrong.
    async fn close(self: &Arc<Self>, session: &Arc<Session>, trouble: Option<String>) -> Result<()> {
        let now = self.clock.now();
        self.update(session, true, |r| {
            r.state = r.state.after(SessionEvent::Released)?;
            r.ended_at = Some(now);
            if r.end != Some(EndReason::LaunchFailed) {
                // What was wrong on the way and came right is no trouble any more.
                r.trouble = trouble;
            }
            Some(("ended", json!({"reason": r.end})))
        })
        .await?;
        self.forget(session);
        Ok(())
    }

    /// A capture failed: the sandbox is kept as it is until a later one works, and the session says so.
    async fn keep(self: &Arc<Self>, session: &Arc<Session>, entry: &Arc<Entry>, e: &Error) -> Result<()> {
        let why = format!("the capture failed, the sandbox is kept: {}", e.chain());
        self.fleet.keep(entry, &why, after(self.clock.now(), KEPT_FOR)).await?;
        self.update(session, true, |r| {
            r.trouble = Some(why);
            None
        })
        .await
        .map(drop)
    }

    /// A snapshot on demand: the processes go on, frozen only while the filesystem is taken.
    pub async fn snapshot(self: &Arc<Self>, session: &Arc<Session>) -> Result<SnapshotRecord> {
        let record = session.record();
        let entry = record.sandbox.and_then(|id| self.fleet.get(id));
        let sandbox = entry.as_deref().map(Entry::record);
        let taken = self.store.snapshots_of(session.id).await?;
        let plan = snapshots::capture_plan(&record, sandbox.as_deref(), &taken)?;
        let Some(entry) = entry else {
            return Err(Error::gone(format!("the sandbox of {} is gone", session.id)));
        };
        for step in plan.steps {
            match step {
                Step::Quiesce { stop } => self.quiesce(session, &entry, stop).await,
                Step::Capture { pause, .. } => {
                    return self.capture(&record, &entry, SnapshotKind::Demand, None, pause).await;
                }
                _ => {}
            }
        }
        Err(Error::permanent(format!("the plan of a snapshot of {} captures nothing", session.id)))
    }

    /// Row, deed, row. On failure the source is as it was and the row says what went wrong. `again` is the row of a
    /// capture that a crash interrupted.
    async fn capture(
        &self,
        record: &SessionRecord,
        entry: &Arc<Entry>,
        kind: SnapshotKind,
        again: Option<SnapshotRecord>,
        pause: bool,
    ) -> Result<SnapshotRecord> {
        let begun = tokio::time::Instant::now();
        let now = self.clock.now();
        let mut span = self.span(&kinds::SNAPSHOT, record);
        span.set(kinds::OF, kind.as_str());
        let head = match entry.link() {
            Some(link) => link.info().await.ok().and_then(|i| i.head),
            None => None,
        };
        let sandbox = entry.record();
        let new = || SnapshotRecord {
            id: SnapshotId::new(),
            session: record.id,
            repo: record.repo.clone(),
            kind,
            state: SnapshotState::Capturing,
            digest: None,
            source: sandbox.source.clone(),
            commit: head.clone(),
            branch: record.branch.clone(),
            size: None,
            created_at: now,
            deadline: after(now, CAPTURE_DEADLINE),
            error: None,
        };
        let mut snapshot = again.unwrap_or_else(new);
        snapshot.commit = head.clone();
        span.show(kinds::SNAPSHOT_ID, snapshot.id);
        snapshot.deadline = after(now, CAPTURE_DEADLINE);
        self.store.commit(Tx::new().snapshot(&snapshot)).await?;
        let how = CaptureSpec {
            kind: CaptureKind::Snapshot,
            name: snapshot.id.to_string(),
            env: Default::default(),
            // Of a repo that has left the configuration the image itself says it.
            workdir: self.repos.get(&record.repo).map(|spec| spec.workspace.clone()),
            pause,
        };
        let captured = match tokio::time::timeout(
            CAPTURE_DEADLINE,
            self.fleet.backend().capture(entry.id, &how),
        )
        .await
        {
            Ok(captured) => captured,
            Err(_) => Err(Error::timeout(format!("capture {}", entry.id))),
        };
        match captured {
            Ok(Captured { digest, size }) => {
                snapshot.state = SnapshotState::Ready;
                snapshot.digest = Some(digest);
                snapshot.size = Some(size);
                self.store.commit(Tx::new().snapshot(&snapshot).durable()).await?;
                self.metrics.snapshot(kind, begun.elapsed(), size);
                super::post(
                    &self.logs,
                    record.id,
                    "snapshot",
                    json!({"id": snapshot.id, "kind": kind, "bytes": size}),
                );
                Ok(snapshot)
            }
            Err(e) => {
                span.fail(e.kind());
                snapshot.state = SnapshotState::Failed;
                snapshot.error = Some(e.chain());
                self.store.commit(Tx::new().snapshot(&snapshot)).await?;
                super::post(
                    &self.logs,
                    record.id,
                    "snapshot_failed",
                    json!({"id": snapshot.id, "error": e.chain()}),
                );
                Err(e)
            }
        }
    }

    /// Tries again to capture what was kept; released once that worked. Called by the reaper, which does not wait
    /// for it: a capture may take minutes, and deadlines of others go on (F47).
    pub fn rescue_kept(self: &Arc<Self>) {
        if self.rescuing.swap(true, Ordering::AcqRel) {
            return;
        }
        let me = self.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = me.rescue() => {}
                () = me.stop.cancelled() => {}
            }
            me.rescuing.store(false, Ordering::Release);
        });
    }

    async fn rescue(self: &Arc<Self>) {
        let now = self.clock.now();
        for entry in self.fleet.entries() {
            let sandbox = entry.record();
            if sandbox.state != SandboxState::Kept || sandbox.deadline > now {
                continue;
            }
            let Some(id) = sandbox.session else { continue };
            let tried = async {
                let mut record = SessionRecord::clone(&*self.record(id).await?);
                if !record.state.is_end() {
                    // Its driver tries.
                    return Ok(());
                }
                self.capture(&record, &entry, SnapshotKind::End, None, true).await?;
                record.trouble = None;
                self.store.commit(Tx::new().session(&record)).await?;
                self.fleet.stop(entry.id, "captured after all").await
            };
            if let Err(e) = tried.await {
                warn!(session = %id, sandbox = %entry.id, error = %e.chain(), "a kept sandbox still can't be captured");
                let until = after(now, KEPT_FOR);
                if let Err(e) = self.fleet.keep(&entry, &e.chain(), until).await {
                    warn!(session = %id, error = %e.chain(), "could not record a kept sandbox");
                }
            }
        }
    }

    /// Freezes the processes of a session in memory.
    pub async fn pause(self: &Arc<Self>, session: &Arc<Session>) -> Result<Arc<SessionRecord>> {
        self.freeze(session, SessionEvent::PauseDone).await
    }

    pub async fn resume(self: &Arc<Self>, session: &Arc<Session>) -> Result<Arc<SessionRecord>> {
        self.freeze(session, SessionEvent::ResumeDone).await
    }

    async fn freeze(
        self: &Arc<Self>,
        session: &Arc<Session>,
        event: SessionEvent,
    ) -> Result<Arc<SessionRecord>> {
        let record = session.record();
        let (Some(_), Some(sandbox)) = (record.state.after(event), record.sandbox) else {
            return Err(Error::conflict(format!("session {} is {}", session.id, record.state.as_str())));
        };
        let pause = event == SessionEvent::PauseDone;
        if pause {
            self.fleet.backend().pause(sandbox).await?;
        } else {
            self.fleet.backend().resume(sandbox).await?;
        }
        let now = self.clock.now();
        let changed = self
            .update(session, false, |r| {
                r.state = r.state.after(event)?;
                if let Some(idle) = r.idle_end_seconds {
                    r.deadline = after(now, Duration::from_secs(idle)).min(r.expires_at);
                }
                Some((if pause { "paused" } else { "resumed" }, json!({})))
            })
            .await?;
        self.touch(session);
        session.poke.notify_one();
        Ok(changed)
    }

    /// Moves the time limit; never into the past, never beyond a week from now.
    pub async fn extend(
        self: &Arc<Self>,
        session: &Arc<Session>,
        by: Duration,
    ) -> Result<Arc<SessionRecord>> {
        let now = self.clock.now();
        let limit = after(now, Duration::from_secs(7 * 24 * 3600));
        let mut refused = None;
        let record = self
            .update(session, true, |r| {
                let wanted = after(r.expires_at, by);
                if wanted > limit {
                    refused = Some(Error::invalid(format!(
                        "that would let it run until {wanted}, the limit is {limit}"
                    )));
                    return None;
                }
                // F34: one that is ending is not prolonged.
                if !matches!(r.state, SessionState::Active | SessionState::Waiting | SessionState::Paused) {
                    refused = Some(Error::conflict(format!("session {} is {}", r.id, r.state.as_str())));
                    return None;
                }
                r.expires_at = wanted;
                Some(("extended", json!({"until": wanted})))
            })
            .await?;
        refused.map_or(Ok(record), Err)
    }
}
