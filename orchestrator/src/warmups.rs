//! Warm-ups: a keystroke reserves a member and brings it to the wanted branch while the user types. Nothing
//! personal goes into it (F56). The handler writes one row and answers; everything else happens behind.

use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use domain::ports::Mirrors;
use domain::wire::{SyncMode, SyncRequest};
use domain::{
    Branch, Error, Purpose, RepoName, RepoSpec, Result, SandboxId, SharedClock, WarmupId, WarmupRecord,
    WarmupState,
};
use pool::Want;
use store::{Store, Tx};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::fleet::{Fleet, Order, after};
use crate::metrics::Metrics;
use crate::repos::Repos;

/// Live warm-ups at a time: they have a budget of their own (F56).
const MAX_LIVE: usize = 64;
/// Bringing a reserved member to the branch may take this long.
const SYNC_LIMIT: Duration = Duration::from_secs(60);

pub struct Warmups {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    store: Store,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    live: DashMap<WarmupId, WarmupRecord>,
    by_client: DashMap<(String, RepoName), WarmupId>,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Warmups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Warmups({} live)", self.live.len())
    }
}

impl Warmups {
    pub fn new(
        fleet: Arc<Fleet>,
        repos: Arc<Repos>,
        mirrors: Arc<dyn Mirrors>,
        store: Store,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        loaded: Vec<WarmupRecord>,
    ) -> Arc<Self> {
        let (live, by_client) = (DashMap::new(), DashMap::new());
        for record in loaded {
            by_client.insert((record.client.clone(), record.repo.clone()), record.id);
            live.insert(record.id, record);
        }
        Arc::new(Self {
            fleet,
            repos,
            mirrors,
            store,
            clock,
            metrics,
            live,
            by_client,
            tasks: TaskTracker::new(),
        })
    }

    /// Announces a session. The same client and repo again only move the expiry; another branch re-syncs the same
    /// reservation.
    ///
    /// Errors: `NotFound` (repo), `Exhausted` (the budget of warm-ups is spent).
    pub async fn announce(
        self: &Arc<Self>,
        repo: &RepoName,
        branch: Option<Branch>,
        client: &str,
    ) -> Result<WarmupRecord> {
        let spec = self.repos.spec(repo)?;
        let now = self.clock.now();
        let branch = branch.unwrap_or_else(|| spec.branch.clone());
        let expires_at = after(now, spec.pool.warmup_ttl);
        // One look-up decides, under its lock: a thousand keystrokes at once make one warm-up (F55).
        let slot = self.by_client.entry((client.to_owned(), repo.clone()));
        let known = match &slot {
            Slot::Occupied(slot) => self.live.get_mut(slot.get()),
            Slot::Vacant(_) => None,
        };
        if let Some(mut record) = known {
            record.expires_at = expires_at;
            let moved = record.branch != branch;
            record.branch = branch;
            let copy = record.clone();
            drop(record);
            drop(slot);
            if moved {
                let receipt = self.store.submit(Tx::new().warmup(&copy));
                receipt.await?;
                self.prepare(spec, copy.clone());
            }
            return Ok(copy);
        }
        if self.live.len() >= MAX_LIVE {
            return Err(Error::exhausted(format!("{MAX_LIVE} warm-ups are live already")));
        }
        let record = WarmupRecord {
            id: WarmupId::new(),
            repo: repo.clone(),
            client: client.to_owned(),
            branch,
            sandbox: None,
            state: WarmupState::Live,
            created_at: now,
            expires_at,
        };
        self.live.insert(record.id, record.clone());
        match slot {
            Slot::Occupied(mut slot) => {
                slot.insert(record.id);
            }
            Slot::Vacant(slot) => {
                slot.insert(record.id);
            }
        }
        self.store.submit(Tx::new().warmup(&record)).await?;
        self.prepare(spec, record.clone());
        Ok(record)
    }

    /// How many are live.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    pub fn get(&self, id: WarmupId) -> Option<WarmupRecord> {
        self.live.get(&id).map(|r| r.clone())
    }

    /// The client changed its mind; what was reserved goes back to the pool untouched.
    pub async fn withdraw(&self, id: WarmupId) -> Result<WarmupRecord> {
        self.end(id, WarmupState::Withdrawn)
            .await?
            .ok_or_else(|| Error::not_found(format!("there is no live warm-up {id}")))
    }

    /// A session of its repo took it, with the sandbox `claimed`. Memory only; the caller writes the row that comes
    /// back.
    pub fn hit(self: &Arc<Self>, id: WarmupId, repo: &RepoName, claimed: SandboxId) -> Option<WarmupRecord> {
        if self.live.get(&id)?.repo != *repo {
            return None;
        }
        let mut record = self.take(id)?;
        record.state = WarmupState::Hit;
        self.metrics.warmup_ended(&record.repo, "hit");
        self.fleet.shelf().release(id);
        // What it held and the session did not take, because it was still starting, is the pool's again.
        if let Some(held) = record.sandbox.filter(|held| *held != claimed) {
            let me = self.clone();
            self.tasks.spawn(async move {
                if let Err(e) = me.free(held, id).await {
                    warn!(warmup = %id, error = %e.chain(), "could not give a member back to the pool");
                }
            });
        }
        Some(record)
    }

    /// Ends what nobody announced again in time (F55).
    pub async fn expire(&self) {
        let now = self.clock.now();
        let over: Vec<_> = self.live.iter().filter(|r| r.expires_at <= now).map(|r| r.id).collect();
        for id in over {
            if let Err(e) = self.end(id, WarmupState::Expired).await {
                warn!(warmup = %id, error = %e.chain(), "could not end a warm-up");
            }
        }
        self.free_forgotten().await;
    }

    /// Members that are held for a warm-up that has ended: it took another one, or the process died in between.
    async fn free_forgotten(&self) {
        for record in self.fleet.unclaimed() {
            let Some(warmup) = record.reserved.filter(|w| !self.live.contains_key(w)) else { continue };
            self.fleet.shelf().release(warmup);
            if let Err(e) = self.free(record.id, warmup).await {
                warn!(%warmup, sandbox = %record.id, error = %e.chain(), "could not free a member");
            }
            self.fleet.pool_poke.notify_one();
        }
    }

    async fn end(&self, id: WarmupId, state: WarmupState) -> Result<Option<WarmupRecord>> {
        let Some(mut record) = self.take(id) else { return Ok(None) };
        record.state = state;
        let outcome = if state == WarmupState::Expired { "expired" } else { "withdrawn" };
        self.metrics.warmup_ended(&record.repo, outcome);
        for sandbox in self.fleet.shelf().release(id) {
            self.free(sandbox, id).await?;
        }
        if let Some(sandbox) = record.sandbox {
            self.free(sandbox, id).await?;
        }
        self.fleet.pool_poke.notify_one();
        self.store.submit(Tx::new().warmup(&record)).await?;
        Ok(Some(record))
    }

    async fn free(&self, sandbox: SandboxId, warmup: WarmupId) -> Result<()> {
        match self.fleet.get(sandbox) {
            Some(entry) if entry.record().reserved == Some(warmup) => {
                self.fleet.set_reserved(&entry, None).await?;
                // Its agent may have joined in between, with the record as it was.
                self.fleet.shelf().release(warmup);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take(&self, id: WarmupId) -> Option<WarmupRecord> {
        let (_, record) = self.live.remove(&id)?;
        self.by_client.remove_if(&(record.client.clone(), record.repo.clone()), |_, of| *of == id);
        Some(record)
    }

    /// Reserves a member, or starts one, and syncs it to the branch. In the background.
    fn prepare(self: &Arc<Self>, spec: Arc<RepoSpec>, record: WarmupRecord) {
        let me = self.clone();
        self.tasks.spawn(async move {
            let id = record.id;
            if let Err(e) = me.prepare_now(&spec, record).await {
                debug!(warmup = %id, error = %e.chain(), "a warm-up could not be prepared");
            }
        });
    }

    async fn prepare_now(self: &Arc<Self>, spec: &RepoSpec, warmup: WarmupRecord) -> Result<()> {
        let Some(image) = self.repos.current_image(&spec.name) else { return Ok(()) };
        let allowed = [image.id];
        let want = Want {
            repo: &spec.name,
            allowed: &allowed,
            warmup: Some(warmup.id),
            tip: None,
            now: self.clock.now(),
            min_remaining_life: Duration::from_secs(60) + spec.pool.warmup_ttl,
            member_max_age: spec.pool.member_max_age,
        };
        let entry = match self.fleet.shelf().reserve(warmup.id, &want) {
            Ok(id) => self.fleet.get(id).ok_or_else(|| Error::gone(format!("sandbox {id} has ended")))?,
            Err(_) if warmup.sandbox.is_some() => return Ok(()),
            Err(_) => {
                let order = Order::of_image(&image, Purpose::Pool, self.repos.trust_env(&spec.name));
                self.fleet.create_reserved(spec, order, warmup.id).await?
            }
        };
        match self.live.get_mut(&warmup.id) {
            Some(mut live) => live.sandbox = Some(entry.id),
            None => {
                // It ended while we looked: nobody holds the member any more.
                self.fleet.shelf().release(warmup.id);
                return self.free(entry.id, warmup.id).await;
            }
        }
        if entry.record().reserved != Some(warmup.id) {
            self.fleet.set_reserved(&entry, Some(warmup.id)).await?;
        }
        self.fleet.pool_poke.notify_one();
        let link = entry.wait_link(crate::fleet::START_DEADLINE).await?;
        self.mirrors.refresh(&spec.name).await?;
        let Some(tip) = self.mirrors.tip(&spec.name, &warmup.branch).await? else { return Ok(()) };
        if entry.record().commit.as_ref() == Some(&tip) || entry.session().is_some() {
            return Ok(());
        }
        let request = SyncRequest {
            mode: SyncMode::Reset,
            repo: spec.name.to_string(),
            base: warmup.branch.clone(),
            branch: warmup.branch.clone(),
            commit: tip.clone(),
            timeout_ms: SYNC_LIMIT.as_millis() as u64,
            open_gate: false,
            session: None,
        };
        let report = link.sync(&request).await?;
        // While the user types: at the claim nothing of it is left to do.
        if let Some(note) = entry.note() {
            let mut note = (*note).clone();
            image_builder::update_tree(&*link, &mut note, &report.head, &crate::fleet::Silent).await?;
            entry.set_note(Some(note));
        }
        self.fleet.set_commit(&entry, report.head).await
    }
}
