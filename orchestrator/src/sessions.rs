//! The session engine: from the claim to the last snapshot.
//!
//! Each live session has one task, its driver, which brings the session to what its record says: a bound sandbox,
//! a synced tree, an end. Handlers write intent into the record, poke the driver and answer; a restart loads the
//! records and starts the same drivers, so recovery is not a path of its own (F5, F17, F33).

mod create;
mod drive;
mod end;
mod phases;
mod prompts;
pub(crate) mod token;
mod use_of;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use domain::ports::{AgentLink, Mirrors};
use domain::{
    Branch, EndReason, Error, Identity, RepoName, Result, SandboxId, SessionEvent, SessionId, SessionRecord,
    SessionState, SharedClock, SnapshotId, TraceContext, WarmupId,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use store::{SessionLogs, Store, Tx};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, info, warn};

use crate::demand::Demands;
use crate::fleet::{Fleet, FleetEvent, after};
use crate::idempotency::Idempotency;
use crate::live::{Guard, Live};
use crate::metrics::Metrics;
use crate::quotas::{Quotas, Seat};
use crate::repos::Repos;
use crate::rollout::Rollout;
use crate::room::Room;
use crate::traces::{Span, Tracer, kinds};
use crate::warmups::Warmups;

pub use create::Created;
pub use use_of::{ExecOrder, LINK_WAIT};

/// From acceptance to a bound sandbox; then the launch has failed.
const LAUNCH_DEADLINE: Duration = Duration::from_secs(180);
/// Quiesce, capture and release; a capture that fails is tried again within it.
const END_DEADLINE: Duration = Duration::from_secs(1800);
/// Cold starts at a time; more wait their turn, in order.
const COLD_STARTS: usize = 8;
/// Sessions that may wait for a cold start; more are told to come back (F37).
const COLD_QUEUE: usize = 256;
/// What an idle session has left at least after a restart.
const RECONNECT_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// Activity moves the stored deadline at most this often.
const ACTIVITY_GRAIN: i64 = 15;

/// What a client asks for.
#[derive(Debug, Clone)]
pub struct NewSession {
    pub repo: RepoName,
    pub user: Identity,
    /// The branch to start from; the repo's own when not given.
    pub base: Option<Branch>,
    /// The branch to work on: taken up where it exists upstream, else made from `base`.
    pub branch: Option<Branch>,
    pub warmup: Option<WarmupId>,
    pub snapshot: Option<SnapshotId>,
    pub parent: Option<SessionId>,
    pub timeout: Option<Duration>,
    /// `Some(None)` means never.
    pub idle_end: Option<Option<Duration>>,
    pub env: BTreeMap<String, String>,
    /// Where what is done for it stands.
    pub trace: Option<TraceContext>,
}

/// For how long after they used a session people count as prompting.
const PROMPTING_SECONDS: i64 = 5 * 60;

/// When a session that was loaded was last used, as its stored deadline says it: a restart prolongs no life (F33).
/// Its agent gets a minute to connect, because a command that runs is use.
fn last_active(record: &SessionRecord, now: Timestamp) -> Timestamp {
    let Some(idle) = record.idle_end_seconds.filter(|_| record.state == SessionState::Active) else {
        return now;
    };
    let idle = SignedDuration::from_secs(i64::try_from(idle).unwrap_or(i64::MAX));
    let stored = record.deadline.checked_sub(idle).unwrap_or(now);
    let grace = now.checked_sub(idle.saturating_sub(RECONNECT_GRACE)).unwrap_or(now);
    stored.max(grace).min(now)
}

/// One live session.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub repo: RepoName,
    record: Live<SessionRecord>,
    /// The agent's connection, once bound to this session.
    bound: watch::Sender<Option<Arc<dyn AgentLink>>>,
    /// Moves with every change of the record.
    changed: watch::Sender<u64>,
    /// Held while the agent is told whose the session is and who prompts: it hears of changes in their order.
    telling: tokio::sync::Mutex<()>,
    poke: Notify,
    /// Cancelled when the session begins to end.
    leaving: CancellationToken,
    /// Unix seconds of the last request for it.
    last_active: AtomicI64,
    /// When the claim arrived, for the ready histogram; only for sessions made by this process.
    born: Option<tokio::time::Instant>,
    /// Its place among those of its user and its repo, until it has ended.
    seat: std::sync::Mutex<Option<Seat>>,
    retry_sync: std::sync::atomic::AtomicBool,
    discard: std::sync::atomic::AtomicBool,
}

impl Session {
    /// `born` is when its claim arrived.
    fn new(record: SessionRecord, born: Option<tokio::time::Instant>, seat: Seat) -> Arc<Self> {
        let now = record.created_at;
        Self::since(record, born, now, seat)
    }

    /// One that an earlier process left, taken up `now`.
    fn loaded(record: SessionRecord, now: Timestamp, seat: Seat) -> Arc<Self> {
        Self::since(record, None, now, seat)
    }

    fn since(
        record: SessionRecord,
        born: Option<tokio::time::Instant>,
        now: Timestamp,
        seat: Seat,
    ) -> Arc<Self> {
        let leaving = CancellationToken::new();
        let last_active = last_active(&record, now);
        if matches!(record.state, SessionState::Ending | SessionState::Ended) {
            leaving.cancel();
        }
        Arc::new(Self {
            id: record.id,
            repo: record.repo.clone(),
            record: Live::new(record),
            bound: watch::Sender::new(None),
            changed: watch::Sender::new(0),
            telling: tokio::sync::Mutex::default(),
            poke: Notify::new(),
            leaving,
            last_active: AtomicI64::new(last_active.as_second()),
            born,
            seat: std::sync::Mutex::new(Some(seat)),
            retry_sync: false.into(),
            discard: false.into(),
        })
    }

    pub fn record(&self) -> Arc<SessionRecord> {
        self.record.view()
    }

    /// It is over: others may have its place.
    fn leave_seat(&self) {
        self.seat.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    }

    fn lock(&self) -> Guard<'_, SessionRecord> {
        self.record.lock()
    }

    /// Waits until `ready` holds for the record, or `deadline` passes; answers the record either way.
    pub async fn wait_until(
        &self,
        deadline: Duration,
        ready: impl Fn(&SessionRecord) -> bool,
    ) -> Arc<SessionRecord> {
        let mut changed = self.changed.subscribe();
        let _ = tokio::time::timeout(deadline, changed.wait_for(|_| ready(&self.lock()))).await;
        self.record()
    }
}

pub struct Sessions {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) repos: Arc<Repos>,
    pub(crate) mirrors: Arc<dyn Mirrors>,
    pub(crate) warmups: Arc<Warmups>,
    pub(crate) store: Store,
    pub(crate) logs: SessionLogs,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) idempotency: Arc<Idempotency>,
    demands: Arc<Demands>,
    room: Arc<Room>,
    rollout: Arc<Rollout>,
    quotas: Arc<Quotas>,
    tracer: Arc<Tracer>,
    live: DashMap<SessionId, Arc<Session>>,
    by_sandbox: DashMap<SandboxId, SessionId>,
    cold: Arc<Semaphore>,
    cold_waiting: std::sync::atomic::AtomicUsize,
    /// One attempt to capture what was kept is under way.
    rescuing: std::sync::atomic::AtomicBool,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sessions({} live)", self.live.len())
    }
}

/// What the engine stands on.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub mirrors: Arc<dyn Mirrors>,
    pub warmups: Arc<Warmups>,
    pub store: Store,
    pub logs: SessionLogs,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub idempotency: Arc<Idempotency>,
    pub demands: Arc<Demands>,
    pub room: Arc<Room>,
    pub rollout: Arc<Rollout>,
    pub quotas: Arc<Quotas>,
    pub tracer: Arc<Tracer>,
}

/// Gives the lines of a session's driver the id of its trace.
fn log_of(record: &SessionRecord) -> tracing::Span {
    match &record.trace {
        Some(trace) => tracing::error_span!("session", trace_id = format!("{:032x}", trace.trace_id())),
        None => tracing::Span::none(),
    }
}

/// A line for a session's log; it never holds anyone up, and a full queue costs the line.
pub fn post(logs: &SessionLogs, session: SessionId, kind: &str, data: Value) {
    if let Err(e) = logs.post(session, kind, data) {
        warn!(%session, kind, error = %e.chain(), "a line of a session's log was dropped");
    }
}

impl Sessions {
    /// The session's branch has moved upstream.
    pub fn pushed(&self, push: &git::PushEvent) {
        let data = json!({"branch": push.branch, "old": push.old, "new": push.new});
        post(&self.logs, push.session, "pushed", data);
        if let Some(session) = self.live(push.session) {
            self.touch(&session);
        }
    }

    /// Notes that a token of the user's is handed over for a session: after a restart it is known what is missing.
    pub async fn token_handed(&self, id: SessionId) -> Result<()> {
        let session = self.require(id).await?;
        if session.record().token_handed {
            return Ok(());
        }
        self.update(&session, false, |record| {
            record.token_handed = true;
            Some(("user_token", json!({"state": "handed_over"})))
        })
        .await
        .map(drop)
    }

    /// The live sessions whose handed-over tokens went with the process before this one; each says so in its log.
    pub fn without_their_tokens(&self) -> Vec<SessionId> {
        let bereft: Vec<_> =
            self.all().into_iter().filter(|s| s.record().token_handed).map(|s| s.id).collect();
        for id in &bereft {
            let data = json!({"state": "gone", "error": crate::github::people::gone(*id)});
            post(&self.logs, *id, "user_token", data);
        }
        bereft
    }

    /// Takes up the sessions that live; [`Sessions::start`] sets their drivers going.
    pub fn new(parts: Parts, loaded: Vec<SessionRecord>, stop: CancellationToken) -> Arc<Self> {
        let Parts {
            fleet,
            repos,
            mirrors,
            warmups,
            store,
            logs,
            clock,
            metrics,
            idempotency,
            demands,
            room,
            rollout,
            quotas,
            tracer,
        } = parts;
        let now = clock.now();
        let (live, by_sandbox) = (DashMap::new(), DashMap::new());
        for record in loaded {
            if let Some(sandbox) = record.sandbox {
                by_sandbox.insert(sandbox, record.id);
            }
            let seat = quotas.session_again(&record.user.login, &record.repo);
            live.insert(record.id, Session::loaded(record, now, seat));
        }
        Arc::new(Self {
            fleet,
            repos,
            mirrors,
            warmups,
            store,
            logs,
            clock,
            metrics,
            idempotency,
            demands,
            room,
            rollout,
            quotas,
            tracer,
            live,
            by_sandbox,
            cold: Arc::new(Semaphore::new(COLD_STARTS)),
            cold_waiting: 0.into(),
            rescuing: false.into(),
            tasks: TaskTracker::new(),
            stop,
        })
    }

    /// Sets the drivers of the loaded sessions going and listens to the fleet.
    pub fn start(self: &Arc<Self>, mut events: mpsc::UnboundedReceiver<FleetEvent>) {
        for session in self.all() {
            self.spawn_driver(session);
        }
        let me = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let Some(me) = me.upgrade() else { return };
                match event {
                    FleetEvent::Connected(sandbox) => {
                        if let Some(session) = me.of_sandbox(sandbox) {
                            session.poke.notify_one();
                        }
                    }
                    FleetEvent::Lost(sandbox, reason) => me.sandbox_lost(sandbox, &reason),
                    FleetEvent::Broken { sandbox, repo, image, why } => {
                        let rollout = me.rollout.clone();
                        me.tasks.spawn(async move { rollout.blame(&repo, image, sandbox, None, &why).await });
                    }
                    FleetEvent::ServiceEnded(sandbox, name) => {
                        if let Some(session) = me.of_sandbox(sandbox) {
                            post(&me.logs, session.id, "service_ended", json!({"service": name}));
                        }
                    }
                }
            }
        });
    }

    pub fn all(&self) -> Vec<Arc<Session>> {
        self.live.iter().map(|s| s.value().clone()).collect()
    }

    /// Who used a session within the last five minutes, by repo.
    pub fn prompting(&self) -> BTreeMap<RepoName, BTreeSet<String>> {
        let since = self.clock.now().as_second() - PROMPTING_SECONDS;
        let mut by_repo = BTreeMap::<RepoName, BTreeSet<String>>::new();
        for session in self.live.iter().filter(|s| s.last_active.load(Ordering::Relaxed) >= since) {
            let record = session.record();
            let people = by_repo.entry(record.repo.clone()).or_default();
            people.insert(record.committer().login.clone());
            let lately = record.prompters.iter().filter(|p| p.at.as_second() >= since);
            people.extend(lately.map(|p| p.who.login.clone()));
        }
        by_repo
    }

    pub fn live(&self, id: SessionId) -> Option<Arc<Session>> {
        self.live.get(&id).map(|s| s.value().clone())
    }

    pub fn of_sandbox(&self, id: SandboxId) -> Option<Arc<Session>> {
        let session = *self.by_sandbox.get(&id)?;
        self.live(session)
    }

    /// A session that has not ended; `Gone` for one that has, `NotFound` for one that never was.
    pub async fn require(&self, id: SessionId) -> Result<Arc<Session>> {
        if let Some(session) = self.live(id) {
            // Its end may be recorded, and it still on its way out of memory.
            if let Some(at) = session.lock().ended_at {
                return Err(Error::gone(format!("session {id} ended at {at}")));
            }
            return Ok(session);
        }
        match self.store.session(id).await? {
            Some(record) => Err(Error::gone(format!(
                "session {id} ended at {}",
                record.ended_at.map_or_else(|| "an unknown time".into(), |t| t.to_string())
            ))),
            None => Err(Error::not_found(format!("there is no session {id}"))),
        }
    }

    /// The record of any session, live or ended.
    pub async fn record(&self, id: SessionId) -> Result<Arc<SessionRecord>> {
        if let Some(session) = self.live(id) {
            return Ok(session.record());
        }
        let stored = self.store.session(id).await?;
        stored.map(Arc::new).ok_or_else(|| Error::not_found(format!("there is no session {id}")))
    }

    fn spawn_driver(self: &Arc<Self>, session: Arc<Session>) {
        let me = self.clone();
        session.poke.notify_one();
        let log = log_of(&session.lock());
        let drive = async move {
            loop {
                tokio::select! {
                    () = me.stop.cancelled() => return,
                    () = session.poke.notified() => {}
                }
                me.metrics.session_wakes.inc();
                me.converge(&session).await;
                if session.lock().state.is_end() {
                    return;
                }
            }
        };
        self.tasks.spawn(drive.instrument(log));
    }

    /// Changes the record and writes it; memory and disk in one order. The change tells what it did as a log line.
    async fn update(
        &self,
        session: &Session,
        durable: bool,
        change: impl FnOnce(&mut SessionRecord) -> Option<(&'static str, Value)>,
    ) -> Result<Arc<SessionRecord>> {
        let (record, receipt, line) = {
            let mut record = session.lock();
            let line = change(&mut record);
            let tx = Tx::new().session(&record);
            let receipt = self.store.submit(if durable { tx.durable() } else { tx });
            (record.view(), receipt, line)
        };
        let written = receipt.await;
        session.changed.send_modify(|n| *n += 1);
        if let Some((kind, data)) = line {
            post(&self.logs, session.id, kind, data);
        }
        written.map(|()| record)
    }

    /// Called by the reaper: ends what is past its time, and moves deadlines of what was active (F33).
    pub async fn expire(self: &Arc<Self>) {
        let now = self.clock.now();
        for session in self.all() {
            let record = session.record();
            match record.state {
                SessionState::Active | SessionState::Paused if record.expires_at <= now => {
                    // Looked at again under the record's lock: an extension may have come in between (F34).
                    let due = move |r: &SessionRecord| r.expires_at <= now;
                    if let Err(e) = self.decide_end_if(&session, EndReason::TimeLimit, false, due).await {
                        warn!(session = %session.id, error = %e.chain(), "could not end a session at its limit");
                    }
                }
                SessionState::Active => self.idle(&session, &record, now).await,
                SessionState::Waiting if record.deadline <= now => {
                    let trouble =
                        record.trouble.clone().unwrap_or_else(|| "no sandbox was ready in time".into());
                    self.launch_failed(&session, trouble).await;
                }
                SessionState::Ending => session.poke.notify_one(),
                _ => {}
            }
        }
    }

    /// Ends an idle session; moves the stored deadline of an active one.
    async fn idle(self: &Arc<Self>, session: &Arc<Session>, record: &SessionRecord, now: Timestamp) {
        let Some(idle) = record.idle_end_seconds else { return };
        let last = Timestamp::from_second(session.last_active.load(Ordering::Relaxed)).unwrap_or(now);
        let until = after(last, Duration::from_secs(idle)).min(record.expires_at);
        if until > record.deadline
            && until.as_second() - record.deadline.as_second() >= ACTIVITY_GRAIN.min(idle as i64)
        {
            let moved = self.update(session, false, |r| {
                r.deadline = until;
                None
            });
            if let Err(e) = moved.await {
                warn!(session = %session.id, error = %e.chain(), "could not move an idle deadline");
            }
            return;
        }
        if record.deadline.max(until) > now {
            return;
        }
        // A command that still runs is activity, too.
        let bound = session.bound.borrow().clone();
        if let Some(link) = bound
            && let Ok(info) = link.info().await
            && info.running > 0
        {
            session.last_active.store(now.as_second(), Ordering::Relaxed);
            return;
        }
        let unused = session.last_active.load(Ordering::Relaxed);
        let due = |_: &SessionRecord| {
            session.last_active.load(Ordering::Relaxed) == unused && unused <= last.as_second()
        };
        if let Err(e) = self.decide_end_if(session, EndReason::Idle, false, due).await {
            warn!(session = %session.id, error = %e.chain(), "could not end an idle session");
        }
    }

    /// The sandbox is gone and what was not captured with it (F19).
    fn sandbox_lost(self: &Arc<Self>, sandbox: SandboxId, reason: &str) {
        let Some(session) = self.of_sandbox(sandbox) else { return };
        let me = self.clone();
        let reason = reason.to_owned();
        self.tasks.spawn(async move {
            let noted = me.update(&session, true, |r| {
                if r.sandbox != Some(sandbox) {
                    // It has another one by now.
                    return None;
                }
                r.trouble = Some(reason.clone());
                if r.state == SessionState::Waiting {
                    // Nothing was handed out yet: the driver starts another one.
                    r.sandbox = None;
                    return Some(("sandbox_lost", json!({"reason": reason, "again": true})));
                }
                let next = r.state.after(SessionEvent::SandboxLost)?;
                r.state = next;
                // One that nobody was ever in took nothing with it: the end keeps its reason.
                if r.started_at.is_some() || r.end.is_none() {
                    r.end = Some(EndReason::SandboxLost);
                }
                r.ended_at = Some(me.clock.now());
                Some(("ended", json!({"reason": "sandbox_lost", "detail": reason})))
            });
            match noted.await {
                Ok(record) if record.state.is_end() => me.forget(&session),
                Ok(_) => session.poke.notify_one(),
                Err(e) => warn!(session = %session.id, error = %e.chain(), "could not record a lost sandbox"),
            }
        });
    }

    /// Takes an ended session out of memory and lets its followers know.
    fn forget(&self, session: &Arc<Session>) {
        session.leaving.cancel();
        session.bound.send_replace(None);
        let record = session.record();
        if let Some(sandbox) = record.sandbox {
            self.by_sandbox.remove(&sandbox);
        }
        self.live.remove(&session.id);
        session.leave_seat();
        self.metrics.session_ended(&record);
        self.trace_life(&record);
        session.changed.send_modify(|n| *n += 1);
        session.poke.notify_one();
        let end = record.end.map_or("", |e| e.as_str());
        info!(session = %session.id, repo = %record.repo, end, "session ended");
    }

    /// The whole of a session, in its trace.
    fn trace_life(&self, record: &SessionRecord) {
        let ended = record.ended_at.unwrap_or_else(|| self.clock.now());
        let trace = record.trace.as_ref();
        let mut span = self.tracer.past(&kinds::SESSION_LIFE, trace, record.created_at, ended);
        span.show(kinds::SESSION, record.id);
        span.show(kinds::REPO, &record.repo);
        span.set(kinds::LAUNCH, record.launch.as_str());
        if let Some(end) = record.end {
            span.set(kinds::RESULT, end.as_str());
        }
    }

    /// A span of a session's, below its place.
    fn span(&self, kind: &'static crate::traces::Kind, record: &SessionRecord) -> Span {
        let mut span = self.tracer.child(kind, record.trace.as_ref());
        span.show(kinds::SESSION, record.id);
        span
    }

    /// How many wait for their turn to start a sandbox.
    pub fn cold_waiting(&self) -> usize {
        self.cold_waiting.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Waits for the drivers to stop; they do when the stop token is cancelled.
    pub async fn quiet(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
