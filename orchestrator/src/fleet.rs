//! The sandboxes of this instance: their records, their agents' connections, and the one rule of ownership.
//!
//! A sandbox is ours while an entry of it stands here. The entry is made, and its row written, before the engine
//! is asked (F1); it goes when the engine no longer has the sandbox. Pool, sweep and sessions all ask this map and
//! nothing else (F9). What the engine reports is observed and compared by [`Fleet::reconcile`], which is also what
//! start-up does: there is no second path after a crash.

mod admission;
mod environment;
mod idle;
mod reconcile;
mod stopping;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dashmap::DashMap;
use domain::ports::{AgentLink, Backend, StartSandbox};
use domain::wire::{Boot, RELAY_PORT, SESSION_DIR};
use domain::{
    CommitId, Digest, Error, ImageId, ImageRecord, Launch, Purpose, RepoName, RepoSpec, Result, SandboxEvent,
    SandboxId, SandboxRecord, SandboxState, SessionId, SharedClock, WarmupId,
};
use jiff::{SignedDuration, Timestamp};
use pool::{MissReason, Shelf, Want};
use sha2::{Digest as _, Sha256};
use store::{Store, Tx};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::live::{Guard, Live};
use crate::metrics::Metrics;
use crate::spared::Spared;

pub use environment::{Environment, Silent};
pub use reconcile::ReconcileReport;

/// From the row to the agent's first answer; a base that must be unpacked first is not in it.
pub const START_DEADLINE: Duration = Duration::from_secs(120);
/// How long a removal may hang before it is tried again.
const STOP_DEADLINE: Duration = Duration::from_secs(120);
/// How long a shutdown waits for calls to the engine.
const QUIET: Duration = Duration::from_secs(5);
/// A claimed member is replaced this much later: the engine's work is not to be in the way of bind, sync and first
/// command, and a new member takes longer than that anyway.
const REPLACE_AFTER: Duration = Duration::from_millis(100);
/// A warm member without its agent for this long is unhealthy.
pub const SILENT_FOR: Duration = Duration::from_secs(30);

/// What a sandbox is wanted for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its id, where whoever orders must know it before it is made.
    pub id: Option<SandboxId>,
    pub source: Digest,
    pub image: Option<ImageId>,
    pub commit: Option<CommitId>,
    pub purpose: Purpose,
    pub gate_open: bool,
    /// Only builds reach the network when the repo's sessions don't; `None`: as the repo says.
    pub network: Option<domain::Network>,
    pub env: BTreeMap<String, String>,
}

impl Order {
    /// A sandbox that users may get, from an image: its gate is shut, its network the repo's.
    pub fn of_image(image: &ImageRecord, purpose: Purpose, env: BTreeMap<String, String>) -> Self {
        Self {
            id: None,
            source: image.digest.clone(),
            image: Some(image.id),
            commit: Some(image.commit.clone()),
            purpose,
            gate_open: false,
            network: None,
            env,
        }
    }
}

/// The connection of a sandbox, as waiters see it.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    pub link: Option<Arc<dyn AgentLink>>,
    /// The sandbox is stopping or gone, for this reason; no link will come.
    pub over: Option<String>,
    /// When the link was lost, or the record loaded.
    silent_since: Option<tokio::time::Instant>,
    /// How what runs beside its user's work stands.
    pub environment: Environment,
    /// While its services are started: when they must be ready.
    coming_up_until: Option<tokio::time::Instant>,
}

/// One sandbox.
#[derive(Debug)]
pub struct Entry {
    pub id: SandboxId,
    pub repo: RepoName,
    pub purpose: Purpose,
    record: Live<SandboxRecord>,
    presence: watch::Sender<Presence>,
    /// A call to the engine's `start` is under way in this process.
    starting: std::sync::atomic::AtomicBool,
    /// When the engine last said to this process that it has started.
    started_at: Mutex<Option<tokio::time::Instant>>,
    /// A call to the engine's `stop` is under way in this process.
    stopping: std::sync::atomic::AtomicBool,
    /// Starts of an exited sandbox by this process, and when the last one was.
    restarts: Mutex<(u32, Option<tokio::time::Instant>)>,
    /// What its image says of itself.
    note: Mutex<Option<Arc<domain::ImageNote>>>,
    /// Its agent showed another token than the record's, and none is connected.
    refused: std::sync::atomic::AtomicBool,
}

impl Entry {
    fn new(record: SandboxRecord) -> Arc<Self> {
        let silent_since = Some(tokio::time::Instant::now());
        Arc::new(Self {
            id: record.id,
            repo: record.repo.clone(),
            purpose: record.purpose,
            record: Live::new(record),
            presence: watch::Sender::new(Presence { silent_since, ..Presence::default() }),
            starting: std::sync::atomic::AtomicBool::new(false),
            started_at: Mutex::default(),
            stopping: std::sync::atomic::AtomicBool::new(false),
            restarts: Mutex::default(),
            note: Mutex::default(),
            refused: std::sync::atomic::AtomicBool::new(false),
        })
    }

    pub fn record(&self) -> Arc<SandboxRecord> {
        self.record.view()
    }

    pub fn state(&self) -> SandboxState {
        self.lock().state
    }

    /// The session that holds it.
    pub fn session(&self) -> Option<SessionId> {
        self.lock().session
    }

    pub fn link(&self) -> Option<Arc<dyn AgentLink>> {
        self.presence.borrow().link.clone()
    }

    pub fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// Whether it is stopping or gone for exactly this reason.
    pub fn ended_as(&self, reason: &str) -> bool {
        self.presence.borrow().over.as_deref() == Some(reason)
    }

    /// Waits for the agent. `Gone` when the sandbox ends first, `Timeout` after `deadline`; or later, where the agent
    /// is there and the services of a member are being started.
    pub async fn wait_link(&self, deadline: Duration) -> Result<Arc<dyn AgentLink>> {
        let mut presence = self.presence.subscribe();
        let until = tokio::time::Instant::now() + deadline;
        let came = loop {
            let ready =
                presence.wait_for(|p| p.over.is_some() || p.link.as_ref().is_some_and(|l| !l.is_closed()));
            let later = self.presence.borrow().coming_up_until.filter(|at| *at > until);
            match tokio::time::timeout_at(later.unwrap_or(until), ready).await {
                // It may have begun to come up in the meantime.
                Err(_) if self.presence.borrow().coming_up_until > later.or(Some(until)) => {}
                came => break came.map(|p| p.map(|p| p.clone())),
            }
        };
        match came {
            Ok(Ok(p)) => match (&p.over, &p.link) {
                (None, Some(link)) => Ok(link.clone()),
                (over, _) => Err(Error::gone(format!(
                    "sandbox {} has ended: {}",
                    self.id,
                    over.as_deref().unwrap_or("no reason given")
                ))),
            },
            Ok(Err(_)) => Err(Error::gone(format!("sandbox {} has ended", self.id))),
            Err(_) => {
                Err(Error::timeout(format!("wait for the agent of {}: nothing within {deadline:?}", self.id)))
            }
        }
    }

    fn started_at(&self) -> Option<tokio::time::Instant> {
        *self.started_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether an exited sandbox may be started again now: at once, then after 2, 4, 8 … seconds, at most 5 minutes.
    /// The session's own time limit is the way out of one that never stays up (F36).
    fn may_restart(&self) -> bool {
        let mut restarts = self.restarts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (count, last) = *restarts;
        let pause = Duration::from_secs(1 << count.min(8)).min(Duration::from_secs(300));
        if count > 0 && last.is_some_and(|at| at.elapsed() < pause) {
            return false;
        }
        *restarts = (count + 1, Some(tokio::time::Instant::now()));
        true
    }

    fn lock(&self) -> Guard<'_, SandboxRecord> {
        self.record.lock()
    }
}

/// Not handed out yet, and not on its way out.
fn is_unclaimed(state: SandboxState) -> bool {
    matches!(state, SandboxState::Creating | SandboxState::Starting | SandboxState::Warm)
}

/// A sandbox whose row is not written yet. Put its record into a transaction, then [`Fleet::launch`] it.
#[must_use = "commit the record, then launch it, or forget it"]
pub struct Prepared {
    pub entry: Arc<Entry>,
    pub record: SandboxRecord,
    start: StartSandbox,
}

/// Something the session engine must know of a sandbox.
#[derive(Debug, Clone)]
pub enum FleetEvent {
    /// The agent of a claimed sandbox has connected, for the first time or again.
    Connected(SandboxId),
    /// It ended without having been asked to.
    Lost(SandboxId, String),
    /// A service of a claimed sandbox ended, by this name.
    ServiceEnded(SandboxId, String),
    /// A member did not come up, and its image may be why.
    Broken { sandbox: SandboxId, repo: RepoName, image: ImageId, why: String },
}

pub struct Fleet {
    backend: Arc<dyn Backend>,
    store: Store,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    entries: DashMap<SandboxId, Arc<Entry>>,
    /// Those of them that are on their way to a claim. Nothing comes back into it: a claim is for good (F16).
    unclaimed: DashMap<SandboxId, Arc<Entry>>,
    shelf: Shelf,
    /// What agents are told to dial.
    dial: String,
    events: mpsc::UnboundedSender<FleetEvent>,
    relay: std::sync::OnceLock<Arc<dyn admission::RelayHandler>>,
    tasks: TaskTracker,
    /// The names of the images that builds are making: their captures have no row yet.
    building: dashmap::DashSet<String>,
    /// Poked whenever the pool may have to act.
    pub pool_poke: Arc<tokio::sync::Notify>,
    /// Whoever waits for a place in the budget hears of each sandbox that is gone.
    pub freed: tokio::sync::Notify,
    /// What a restore has brought back without a record.
    spared: Arc<Spared>,
    /// A poke for what was claimed is on its way.
    replacing: Arc<std::sync::atomic::AtomicBool>,
}

pub use admission::{Gatekeeper, RelayHandler};

impl std::fmt::Debug for Fleet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fleet({} sandboxes)", self.entries.len())
    }
}

impl Fleet {
    /// Takes up the records that live. Their agents will dial again by themselves.
    pub fn new(
        backend: Arc<dyn Backend>,
        store: Store,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        dial: String,
        loaded: Vec<SandboxRecord>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<FleetEvent>) {
        let (events, rx) = mpsc::unbounded_channel();
        let (entries, unclaimed) = (DashMap::new(), DashMap::new());
        for record in loaded {
            let (id, state) = (record.id, record.state);
            let entry = Entry::new(record);
            if is_unclaimed(state) {
                unclaimed.insert(id, entry.clone());
            }
            entries.insert(id, entry);
        }
        let spared = Arc::new(Spared::new(store.restored_at()));
        let fleet = Arc::new(Self {
            backend,
            store,
            clock,
            metrics,
            entries,
            unclaimed,
            shelf: Shelf::default(),
            dial,
            events,
            relay: std::sync::OnceLock::new(),
            tasks: TaskTracker::new(),
            building: dashmap::DashSet::new(),
            pool_poke: Arc::default(),
            freed: tokio::sync::Notify::new(),
            replacing: Arc::default(),
            spared,
        });
        (fleet, rx)
    }

    /// Who is left alone although no record knows it.
    pub(crate) fn spared(&self) -> &Arc<Spared> {
        &self.spared
    }

    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    pub fn get(&self, id: SandboxId) -> Option<Arc<Entry>> {
        self.entries.get(&id).map(|e| e.value().clone())
    }

    /// Every record.
    pub fn records(&self) -> Vec<Arc<SandboxRecord>> {
        self.entries.iter().map(|e| e.record()).collect()
    }

    /// The records of what nobody has claimed and nothing removes: for plans, which run often while sessions are
    /// many.
    pub fn unclaimed(&self) -> Vec<Arc<SandboxRecord>> {
        // First the entries, then their locks: who changes a record holds its lock and reaches for this index.
        let entries = self.unclaimed_entries();
        entries.iter().map(|e| e.record()).filter(|r| is_unclaimed(r.state)).collect()
    }

    fn unclaimed_entries(&self) -> Vec<Arc<Entry>> {
        self.unclaimed.iter().map(|e| e.value().clone()).collect()
    }

    /// Keeps the index in step with a record that has just changed.
    fn note_state(&self, id: SandboxId, state: SandboxState) {
        if !is_unclaimed(state) {
            self.unclaimed.remove(&id);
        }
    }

    /// Pokes the pool a moment after a claim; claims in between share the poke.
    fn replace_soon(&self) {
        use std::sync::atomic::Ordering::AcqRel;
        if self.replacing.swap(true, AcqRel) {
            return;
        }
        let (replacing, poke) = (self.replacing.clone(), self.pool_poke.clone());
        tokio::spawn(async move {
            tokio::time::sleep(REPLACE_AFTER).await;
            replacing.swap(false, AcqRel);
            poke.notify_one();
        });
    }

    pub fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.iter().map(|e| e.value().clone()).collect()
    }

    // ------------------------------------------------------------------------------------------ making

    /// Draws up a sandbox: id, token and record. Nothing is written or started yet.
    pub fn prepare(&self, spec: &RepoSpec, order: Order) -> Prepared {
        let now = self.clock.now();
        let id = order.id.unwrap_or_else(SandboxId::new);
        let (token, token_hash) = new_token();
        let record = SandboxRecord {
            id,
            repo: spec.name.clone(),
            purpose: order.purpose,
            state: SandboxState::Creating,
            image: order.image,
            source: order.source.clone(),
            commit: order.commit,
            engine_id: None,
            token_hash,
            session: match order.purpose {
                Purpose::Session(session) => Some(session),
                _ => None,
            },
            reserved: None,
            created_at: now,
            ready_at: None,
            claimed_at: None,
            deadline: after(now, START_DEADLINE),
            reason: None,
            up: false,
        };
        let mut env = image_builder::boot_env(spec);
        env.extend(order.env);
        let start = StartSandbox {
            id,
            repo: spec.name.clone(),
            source: order.source,
            resources: spec.resources,
            network: order.network.unwrap_or_else(|| spec.network.clone()),
            boot: Boot {
                sandbox: id,
                token,
                dial: self.dial.clone(),
                workspace: spec.workspace.clone(),
                gate_open: order.gate_open,
                relay_port: RELAY_PORT,
                session_dir: SESSION_DIR.into(),
                env,
            },
        };
        let entry = Entry::new(record.clone());
        entry.starting.store(true, std::sync::atomic::Ordering::Release);
        self.entries.insert(id, entry.clone());
        self.unclaimed.insert(id, entry.clone());
        Prepared { entry, record, start }
    }

    /// The row could not be written: nothing was started, nothing stays.
    pub fn forget(&self, prepared: Prepared) {
        self.entries.remove(&prepared.record.id);
        self.unclaimed.remove(&prepared.record.id);
        self.freed.notify_waiters();
    }

    /// Asks the engine, in the background; the entry's presence tells how it went.
    pub fn launch(self: &Arc<Self>, prepared: Prepared) {
        // It may have waited for its turn; its time to start begins now.
        prepared.entry.lock().deadline = after(self.clock.now(), START_DEADLINE);
        let fleet = self.clone();
        self.tasks.spawn(async move { fleet.start(prepared.entry, prepared.start, false).await });
    }

    /// Writes the row and launches.
    pub async fn create(self: &Arc<Self>, spec: &RepoSpec, order: Order) -> Result<Arc<Entry>> {
        let prepared = self.prepare(spec, order);
        self.write_and_launch(prepared).await
    }

    /// As [`Fleet::create`], of what is drawn up already.
    pub async fn write_and_launch(self: &Arc<Self>, prepared: Prepared) -> Result<Arc<Entry>> {
        let entry = prepared.entry.clone();
        // As it stands under its lock: a session may have taken it already, and its row must not be written over.
        let receipt = {
            let record = entry.lock();
            self.store.submit(Tx::new().sandbox(&record))
        };
        if let Err(e) = receipt.await {
            self.forget(prepared);
            return Err(e);
        }
        self.launch(prepared);
        Ok(entry)
    }

    /// As [`Fleet::create`], held for a warm-up from its first row on.
    pub async fn create_reserved(
        self: &Arc<Self>,
        spec: &RepoSpec,
        order: Order,
        warmup: WarmupId,
    ) -> Result<Arc<Entry>> {
        let prepared = self.prepare(spec, order);
        prepared.entry.lock().reserved = Some(warmup);
        self.write_and_launch(prepared).await
    }

    /// The tree of an unclaimed member has been brought to `commit`.
    pub async fn set_commit(&self, entry: &Arc<Entry>, commit: CommitId) -> Result<()> {
        self.shelf.set_commit(entry.id, commit.clone());
        let receipt = {
            let mut record = entry.lock();
            // Claimed in between: its row is for the claim to write, and its tree for the session to move.
            if !is_unclaimed(record.state) {
                return Ok(());
            }
            record.commit = Some(commit);
            self.store.submit(Tx::new().sandbox(&record))
        };
        receipt.await
    }

    /// With `again` it holds files that only this container has: no other is made in its place.
    async fn start(self: Arc<Self>, entry: Arc<Entry>, start: StartSandbox, again: bool) {
        if entry.state() == SandboxState::Stopping {
            // Ended before its turn came: nothing was made, so only the row has to go (F38).
            entry.starting.store(false, std::sync::atomic::Ordering::Release);
            return self.finish_stop(&entry).await;
        }
        let started = match again {
            true => self.backend.start_again(&start).await,
            false => self.backend.start(&start).await,
        };
        if started.is_ok() {
            let now = tokio::time::Instant::now();
            *entry.started_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(now);
        }
        entry.starting.store(false, std::sync::atomic::Ordering::Release);
        entry.presence.send_modify(|_| {});
        match started {
            Ok(engine_id) => {
                let noted = self
                    .apply(&entry, SandboxEvent::ContainerStarted, |r| r.engine_id = Some(engine_id))
                    .await;
                if let Err(e) = noted {
                    warn!(sandbox = %entry.id, error = %e.chain(), "could not record a started sandbox");
                }
                // Stopped while it was being made: the stop found nothing then.
                if matches!(entry.state(), SandboxState::Stopping) {
                    self.finish_stop(&entry).await;
                }
            }
            // Only the answer was lost: its agent says that it runs (F3).
            Err(e) if reconcile::lives(&entry).await && entry.state() != SandboxState::Stopping => {
                info!(sandbox = %entry.id, error = %e.chain(), "started, although the engine did not say so");
                if let Err(e) = self.apply(&entry, SandboxEvent::ContainerStarted, |_| {}).await {
                    warn!(sandbox = %entry.id, error = %e.chain(), "could not record a started sandbox");
                }
            }
            // Removed from outside, seen while it had only exited (F19).
            Err(e) if again && e.kind() == domain::ErrorKind::NotFound => {
                self.lost(&entry, "the engine no longer has it".into()).await;
            }
            Err(e) => {
                warn!(sandbox = %entry.id, repo = %entry.repo, error = %e.chain(), "could not start a sandbox");
                // A user's files are in a container that was made before: it is kept, and tried again (F39).
                let holds_work = {
                    let r = entry.lock();
                    r.session.is_some() && (r.engine_id.is_some() || r.ready_at.is_some())
                };
                if !holds_work {
                    self.lost(&entry, format!("it could not be started: {}", e.chain())).await;
                }
            }
        }
    }

    // ---------------------------------------------------------------------------------------- claiming

    /// Takes a warm member off the shelf, in memory. The caller writes the record that comes back in one
    /// transaction with whatever claims it; if that fails it must [`Fleet::stop`] the member (never shelve it
    /// again: F16).
    pub fn claim(
        &self,
        want: &Want<'_>,
        session: SessionId,
    ) -> Result<(Arc<Entry>, Arc<SandboxRecord>, Launch), MissReason> {
        loop {
            let pick = self.shelf.claim(want)?;
            let Some(entry) = self.get(pick.sandbox) else { continue };
            let now = self.clock.now();
            let mut record = entry.lock();
            if record.state != SandboxState::Warm {
                continue;
            }
            record.state = SandboxState::Claimed;
            record.session = Some(session);
            record.claimed_at = Some(now);
            let claimed = record.view();
            drop(record);
            self.note_state(entry.id, claimed.state);
            self.replace_soon();
            return Ok((entry, claimed, pick.launch()));
        }
    }

    /// Takes the member that a warm-up made for itself and that has not answered yet. As with [`Fleet::claim`] the
    /// caller writes the record that comes back.
    pub fn claim_starting(
        &self,
        held: SandboxId,
        warmup: WarmupId,
        allowed: &[ImageId],
        session: SessionId,
    ) -> Option<(Arc<Entry>, Arc<SandboxRecord>)> {
        let mine = |r: &SandboxRecord| {
            r.reserved == Some(warmup)
                && r.image.is_some_and(|i| allowed.contains(&i))
                && matches!(r.state, SandboxState::Creating | SandboxState::Starting)
        };
        let entry = self.get(held)?;
        let mut record = entry.lock();
        if !mine(&record) {
            return None;
        }
        record.state = SandboxState::Claimed;
        record.session = Some(session);
        record.claimed_at = Some(self.clock.now());
        let claimed = record.view();
        drop(record);
        self.note_state(entry.id, claimed.state);
        self.pool_poke.notify_one();
        Some((entry, claimed))
    }

    /// Marks a sandbox that is still starting, or a warm one outside the shelf, as claimed. For builds and cold starts.
    pub async fn claim_own(&self, entry: &Arc<Entry>) -> Result<()> {
        let now = self.clock.now();
        self.apply(entry, SandboxEvent::Claimed, |r| r.claimed_at = Some(now)).await.map(drop)
    }

    /// Reserves a member for a warm-up, or gives it back; kept in its record so that a restart knows it.
    pub async fn set_reserved(&self, entry: &Arc<Entry>, warmup: Option<WarmupId>) -> Result<()> {
        let receipt = {
            let mut record = entry.lock();
            record.reserved = warmup;
            self.store.submit(Tx::new().sandbox(&record))
        };
        receipt.await
    }

    // --------------------------------------------------------------------------------------- in common

    /// Applies an event to a record and writes it, in one order for memory and disk. An event that does not belong
    /// to the state changes nothing.
    async fn apply(
        &self,
        entry: &Arc<Entry>,
        event: SandboxEvent,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<Arc<SandboxRecord>> {
        let (record, receipt) = {
            let mut record = entry.lock();
            if let Some(next) = record.state.after(event) {
                record.state = next;
                change(&mut record);
                self.note_state(record.id, next);
            }
            (record.view(), self.store.submit(Tx::new().sandbox(&record)))
        };
        receipt.await?;
        Ok(record)
    }

    /// The capture of a session's sandbox failed for good: it is kept, frozen in place (F39).
    pub async fn keep(&self, entry: &Arc<Entry>, reason: &str, until: Timestamp) -> Result<()> {
        self.apply(entry, SandboxEvent::CaptureFailed, |r| {
            r.reason = Some(reason.to_owned());
            r.deadline = until;
        })
        .await
        .map(drop)
    }

    /// A build makes an image of this name; until the guard is dropped its capture belongs to somebody.
    pub fn building(self: &Arc<Self>, name: String) -> Building {
        self.building.insert(name.clone());
        Building { fleet: self.clone(), name }
    }

    pub fn is_building(&self, name: &str) -> bool {
        self.building.contains(name)
    }

    /// Waits until nothing that this fleet started is under way any more; not for ever, because the next start takes
    /// up what an engine that hangs makes of it.
    pub async fn quiet(&self) {
        self.tasks.close();
        if tokio::time::timeout(QUIET, self.tasks.wait()).await.is_err() {
            info!(calls = self.tasks.len(), "calls to the engine are still under way");
        }
        self.tasks.reopen();
    }
}

/// See [`Fleet::building`].
pub struct Building {
    fleet: Arc<Fleet>,
    name: String,
}

impl Drop for Building {
    fn drop(&mut self) {
        self.fleet.building.remove(&self.name);
    }
}

/// A fencing token and the hash of it that is stored.
fn new_token() -> (String, String) {
    let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
    let hash = hash_token(&token);
    (token, hash)
}

fn hash_token(token: &str) -> String {
    hex(&Sha256::digest(token.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

pub(crate) fn after(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|d| now.checked_add(d).ok()).unwrap_or(Timestamp::MAX)
}
