//! Warm-ups: a keystroke reserves a member and brings it to the wanted branch while the user types. Nothing
//! personal goes into it (F56). The handler writes one row for a new warm-up and none for a repeat, which only moves
//! the expiry; everything else happens behind.
//!
//! Renewal, claim and end of one warm-up meet under one lock, and their rows are submitted under it or after it in
//! that order: a warm-up that has ended is never renewed, and one that was renewed in time does not end (F34).

mod prepare;
mod token;

use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use domain::ports::Mirrors;
use domain::{
    Branch, Error, RepoName, RepoSpec, Result, SandboxId, SandboxState, SharedClock, TraceContext, WarmupId,
    WarmupRecord, WarmupState,
};
use jiff::{SignedDuration, Timestamp};
use store::{Receipt, Store, Tx};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::fleet::{Fleet, after};
use crate::metrics::Metrics;
use crate::repos::Repos;
use crate::traces::{Tracer, kinds};

use crate::quotas::{Quotas, Seat};
use crate::rate::Rate;
pub use token::{Grant, TokenError, is_token};

/// What the operator allows; from the configuration, and changed with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Live warm-ups at a time: they have a budget of their own (F56).
    pub live: usize,
    /// Announcements a second, of one API key or one browser's token.
    pub per_second: u32,
    /// The origins of web pages that may announce from a browser.
    pub origins: Vec<String>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { live: 64, per_second: 2000, origins: Vec::new() }
    }
}

/// How long warm-ups that are over are kept, and seconds between two looks for older ones.
const KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
const PRUNE_EVERY: i64 = 3600;
/// Times that a member which went away is replaced by another.
const REPLACEMENTS: u32 = 3;

/// One live warm-up.
#[derive(Debug)]
struct Warm {
    record: WarmupRecord,
    /// The row is behind the record.
    unwritten: bool,
    work: Work,
    replaced: u32,
    /// Its place among those of its repo.
    _seat: Seat,
}

impl Warm {
    fn new(record: WarmupRecord, seat: Seat) -> Self {
        Self { record, unwritten: false, work: Work::Idle, replaced: 0, _seat: seat }
    }
}

/// Whether somebody is preparing its member: one at a time, whatever is typed meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Idle,
    Busy,
    /// What is wanted has changed since it began.
    BusyAgain,
}

pub struct Warmups {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    store: Store,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    limits: RwLock<Limits>,
    quotas: Arc<Quotas>,
    rate: Rate,
    live: DashMap<WarmupId, Warm>,
    /// As long as `live`, and exact under a storm of announcements.
    places: AtomicUsize,
    by_client: DashMap<(String, RepoName), WarmupId>,
    /// Unix seconds.
    next_prune: AtomicI64,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Warmups {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Warmups({} live)", self.live.len())
    }
}

/// What warm-ups stand on.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub mirrors: Arc<dyn Mirrors>,
    pub store: Store,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub tracer: Arc<Tracer>,
    pub limits: Limits,
    pub quotas: Arc<Quotas>,
    pub stop: CancellationToken,
}

impl Warmups {
    pub fn new(parts: Parts, loaded: Vec<WarmupRecord>) -> Arc<Self> {
        let Parts { fleet, repos, mirrors, store, clock, metrics, tracer, limits, quotas, stop } = parts;
        let (live, by_client) = (DashMap::new(), DashMap::new());
        for record in loaded {
            by_client.insert((record.client.clone(), record.repo.clone()), record.id);
            let seat = quotas.warmup_again(&record.repo);
            live.insert(record.id, Warm::new(record, seat));
        }
        Arc::new(Self {
            fleet,
            repos,
            mirrors,
            store,
            clock,
            metrics,
            tracer,
            quotas,
            rate: Rate::new(limits.per_second),
            limits: RwLock::new(limits),
            places: AtomicUsize::new(live.len()),
            live,
            by_client,
            next_prune: AtomicI64::new(0),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// Takes up the preparation of what an earlier process left, and follows the images: what becomes current is
    /// what a warm-up's session will be given (F2).
    pub fn start(self: &Arc<Self>) {
        let me = self.clone();
        let mut promoted = self.repos.promoted.subscribe();
        self.tasks.spawn(async move {
            loop {
                for id in me.ids(|_| true) {
                    me.prepare(id);
                }
                tokio::select! {
                    () = me.stop.cancelled() => return,
                    changed = promoted.changed() => if changed.is_err() { return },
                }
            }
        });
    }

    pub fn limits(&self) -> Limits {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts new limits in force. What is live stays live.
    pub fn set_limits(&self, limits: Limits) {
        self.rate.set(limits.per_second);
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Whether pages of this origin may announce.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.limits.read().unwrap_or_else(PoisonError::into_inner).origins.iter().any(|o| o == origin)
    }

    /// A token that a page may hold.
    pub fn issue(&self, grant: &Grant) -> Result<String> {
        token::issue(&self.store.secret(), grant)
    }

    /// What a token lets its bearer do.
    pub fn grant(&self, token: &str) -> Result<Grant, TokenError> {
        token::read(&self.store.secret(), token, self.clock.now())
    }

    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// One that is live and announced again: only its expiry moves, and its branch where that is another. `None` where
    /// there is none to renew; then [`Warmups::announce`] makes one.
    ///
    /// Errors: `NotFound` (repo).
    pub fn repeat(
        self: &Arc<Self>,
        repo: &RepoName,
        branch: Option<&Branch>,
        client: &str,
    ) -> Result<Option<WarmupRecord>> {
        let spec = self.repos.spec(repo)?;
        let Some(id) = self.by_client.get(&(client.to_owned(), repo.clone())).map(|id| *id) else {
            return Ok(None);
        };
        Ok(self.renew_and_follow(id, &spec, branch.unwrap_or(&spec.branch)))
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
        trace: Option<TraceContext>,
    ) -> Result<WarmupRecord> {
        let spec = self.repos.spec(repo)?;
        let now = self.clock.now();
        let branch = branch.unwrap_or_else(|| spec.branch.clone());
        let (record, receipt, stale) = {
            // One look-up decides, under its lock: a thousand keystrokes at once make one warm-up (F55).
            let slot = self.by_client.entry((client.to_owned(), repo.clone()));
            if let Slot::Occupied(slot) = &slot
                && let Some(record) = self.renew_and_follow(*slot.get(), &spec, &branch)
            {
                return Ok(record);
            }
            let seat = self.quotas.warmup(repo)?;
            self.take_place()?;
            let record = WarmupRecord {
                id: WarmupId::new(),
                repo: repo.clone(),
                client: client.to_owned(),
                branch,
                sandbox: None,
                state: WarmupState::Live,
                created_at: now,
                expires_at: after(now, spec.pool.warmup_ttl),
                preparing_since: Some(now),
                prepared_at: None,
                ended_at: None,
                trace,
            };
            let receipt = self.store.submit(Tx::new().warmup(&record));
            self.live.insert(record.id, Warm::new(record.clone(), seat));
            let stale = match slot {
                Slot::Occupied(mut slot) => Some(slot.insert(record.id)),
                Slot::Vacant(slot) => {
                    slot.insert(record.id);
                    None
                }
            };
            (record, receipt, stale)
        };
        if let Some(stale) = stale {
            // Past its time, and nobody had looked yet.
            self.end(stale, WarmupState::Expired, |_| true).await?;
        }
        if let Err(e) = receipt.await {
            self.remove_if(record.id, |_| true);
            return Err(e);
        }
        self.prepare(record.id);
        Ok(record)
    }

    /// Moves the expiry of one that is live, and has its member follow where the branch is another. What is past its
    /// time has ended, whether or not anybody has looked since (F34).
    fn renew_and_follow(
        self: &Arc<Self>,
        id: WarmupId,
        spec: &RepoSpec,
        branch: &Branch,
    ) -> Option<WarmupRecord> {
        let now = self.clock.now();
        let (record, moved) = {
            let mut warm = self.live.get_mut(&id).filter(|w| w.record.expires_at > now)?;
            let moved = warm.record.branch != *branch;
            if moved {
                warm.record.branch = branch.clone();
                warm.record.begin(now);
            }
            warm.record.expires_at = after(now, spec.pool.warmup_ttl).max(warm.record.expires_at);
            warm.unwritten = true;
            (warm.record.clone(), moved)
        };
        if moved {
            self.prepare(id);
        }
        Some(record)
    }

    fn take_place(&self) -> Result<()> {
        let limit = self.limits.read().unwrap_or_else(PoisonError::into_inner).live;
        let free = |n: usize| (n < limit).then_some(n + 1);
        match self.places.fetch_update(Ordering::AcqRel, Ordering::Acquire, free) {
            Ok(_) => Ok(()),
            Err(n) => {
                Err(Error::exhausted(format!("{n} warm-ups are live already, `warmups.live` is {limit}")))
            }
        }
    }

    /// Live ones only; looking prolongs nothing.
    pub fn get(&self, id: WarmupId) -> Option<WarmupRecord> {
        self.live.get(&id).map(|w| w.record.clone())
    }

    /// The place of a live one in its trace.
    pub fn trace_of(&self, id: WarmupId) -> Option<Option<TraceContext>> {
        self.live.get(&id).map(|w| w.record.trace.clone())
    }

    /// The member that is held for a warm-up of this repo, ready or on its way.
    pub fn member(&self, id: WarmupId, repo: &RepoName) -> Option<SandboxId> {
        self.live.get(&id).filter(|w| w.record.repo == *repo)?.record.sandbox
    }

    pub fn live_count(&self) -> usize {
        self.places.load(Ordering::Relaxed)
    }

    /// The client changed its mind; what was reserved goes back to the pool untouched.
    pub async fn withdraw(&self, id: WarmupId) -> Result<WarmupRecord> {
        self.end(id, WarmupState::Withdrawn, |_| true)
            .await?
            .ok_or_else(|| Error::not_found(format!("there is no live warm-up {id}")))
    }

    /// A session of its repo took it, with the sandbox `claimed`. Memory only; the caller writes the row that comes
    /// back.
    pub fn hit(self: &Arc<Self>, id: WarmupId, repo: &RepoName, claimed: SandboxId) -> Option<WarmupRecord> {
        let mut record = self.remove_if(id, |r| r.repo == *repo)?;
        self.close(&mut record, WarmupState::Hit);
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

    /// Once a second: writes what repeats have moved, and ends what nobody announced again in time (F55).
    pub async fn expire(self: &Arc<Self>) {
        self.replace_lost();
        self.write_renewals().await;
        let now = self.clock.now();
        for id in self.ids(|r| r.expires_at <= now) {
            // Looked at again under the lock: a keystroke may have come in between (F34).
            if let Err(e) = self.end(id, WarmupState::Expired, |r| r.expires_at <= now).await {
                warn!(warmup = %id, error = %e.chain(), "could not end a warm-up");
            }
        }
        self.rate.forget_idle();
        self.free_forgotten().await;
        self.prune(now).await;
    }

    /// What is over is kept for a week, for whoever asks what warm-ups are worth.
    async fn prune(&self, now: Timestamp) {
        if now.as_second() < self.next_prune.load(Ordering::Relaxed) {
            return;
        }
        self.next_prune.store(now.as_second() + PRUNE_EVERY, Ordering::Relaxed);
        let before = now.checked_sub(KEPT).unwrap_or(Timestamp::MIN);
        if let Err(e) = self.store.commit(Tx::new().remove_old_warmups(before)).await {
            warn!(error = %e.chain(), "could not remove old warm-ups");
        }
    }

    fn ids(&self, wanted: impl Fn(&WarmupRecord) -> bool) -> Vec<WarmupId> {
        self.live.iter().filter(|w| wanted(&w.record)).map(|w| w.record.id).collect()
    }

    /// Looks for another member where the one that was held is gone.
    fn replace_lost(self: &Arc<Self>) {
        let there = |id: SandboxId| {
            self.fleet.get(id).is_some_and(|e| {
                matches!(e.state(), SandboxState::Creating | SandboxState::Starting | SandboxState::Warm)
            })
        };
        for id in self.ids(|r| r.sandbox.is_some_and(|s| !there(s))) {
            let lost = |w: &mut Warm| {
                w.replaced += u32::from(w.work == Work::Idle);
                w.work == Work::Idle && w.replaced <= REPLACEMENTS
            };
            if self.live.get_mut(&id).is_some_and(|mut w| lost(&mut w)) {
                self.prepare(id);
            }
        }
    }

    /// Each row is submitted under its warm-up's lock, so that it can't come after the row of its end. The writer
    /// puts them into one transaction.
    async fn write_renewals(&self) {
        let submit = |mut warm: dashmap::mapref::multiple::RefMutMulti<'_, WarmupId, Warm>| {
            let behind = std::mem::take(&mut warm.unwritten);
            behind.then(|| (warm.record.id, self.store.submit(Tx::new().warmup(&warm.record))))
        };
        let submitted: Vec<(WarmupId, Receipt)> = self.live.iter_mut().filter_map(submit).collect();
        for (id, receipt) in submitted {
            if let Err(e) = receipt.await {
                warn!(warmup = %id, error = %e.chain(), "could not write a renewed warm-up; it is tried again");
                if let Some(mut warm) = self.live.get_mut(&id) {
                    warm.unwritten = true;
                }
            }
        }
    }

    /// Members that are held for a warm-up that has ended: it took another one, or the process died in between.
    async fn free_forgotten(&self) {
        let fleet = self.fleet.clone();
        // Thousands of members take a millisecond to look at, which the threads that answer claims don't have.
        let reserved = tokio::task::spawn_blocking(move || {
            let held = fleet.unclaimed().into_iter().filter_map(|r| Some((r.id, r.reserved?)));
            held.collect::<Vec<_>>()
        });
        for (sandbox, warmup) in reserved.await.unwrap_or_default() {
            let is_its = |w: &Warm| w.record.sandbox == Some(sandbox) || w.work != Work::Idle;
            if self.live.get(&warmup).is_some_and(|w| is_its(&w)) {
                continue;
            }
            if let Err(e) = self.free(sandbox, warmup).await {
                warn!(%warmup, %sandbox, error = %e.chain(), "could not free a member");
            }
            self.fleet.pool_poke.notify_one();
        }
    }

    async fn end(
        &self,
        id: WarmupId,
        state: WarmupState,
        due: impl FnOnce(&WarmupRecord) -> bool,
    ) -> Result<Option<WarmupRecord>> {
        let Some(mut record) = self.remove_if(id, due) else { return Ok(None) };
        self.close(&mut record, state);
        let receipt = self.store.submit(Tx::new().warmup(&record));
        for sandbox in self.fleet.shelf().release(id) {
            self.free(sandbox, id).await?;
        }
        if let Some(sandbox) = record.sandbox {
            self.free(sandbox, id).await?;
        }
        self.fleet.pool_poke.notify_one();
        receipt.await?;
        Ok(Some(record))
    }

    /// Its end, in the record and in the counts.
    fn close(&self, record: &mut WarmupRecord, state: WarmupState) {
        let now = self.clock.now();
        record.state = state;
        record.ended_at = Some(now);
        self.metrics.warmup_ended(record, now);
        let trace = record.trace.as_ref();
        let mut span = self.tracer.past(&kinds::WARMUP_LIFE, trace, record.created_at, now);
        span.show(kinds::WARMUP, record.id);
        span.show(kinds::REPO, &record.repo);
        span.set(kinds::RESULT, state.as_str());
        if let Some(sandbox) = record.sandbox {
            span.show(kinds::SANDBOX, sandbox);
        }
    }

    async fn free(&self, sandbox: SandboxId, warmup: WarmupId) -> Result<()> {
        match self.fleet.get(sandbox) {
            Some(entry) if entry.record().reserved == Some(warmup) => {
                self.fleet.set_reserved(&entry, None).await?;
                // Its agent may have joined in between, with the record as it was.
                self.fleet.shelf().release_member(sandbox, warmup);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Waits for what is being prepared to stop; it does when the stop token is cancelled.
    pub async fn quiet(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn remove_if(&self, id: WarmupId, due: impl FnOnce(&WarmupRecord) -> bool) -> Option<WarmupRecord> {
        let (_, warm) = self.live.remove_if(&id, |_, w| due(&w.record))?;
        self.places.fetch_sub(1, Ordering::AcqRel);
        let record = warm.record;
        self.by_client.remove_if(&(record.client.clone(), record.repo.clone()), |_, of| *of == id);
        Some(record)
    }
}
