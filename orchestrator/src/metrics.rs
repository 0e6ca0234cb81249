//! The numbers that dashboards and alerts stand on. Names and labels are those of the design; labels are fixed
//! words or a configured repo's name, never an id.

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use domain::{
    BuildState, ErrorKind, Launch, Phase, RepoName, SandboxRecord, SessionRecord, SnapshotKind, SyncPhase,
};
use jiff::Timestamp;
use pool::MissReason;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Seconds; fits the promises in `docs/slo.md`: claims from 0.1 ms, cold starts up to minutes.
const FINE: [f64; 16] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 120.0];
/// Seconds, for what takes seconds to an hour.
const COARSE: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0];
/// Bytes, 1 MiB to 64 GiB.
const BYTES: [f64; 9] = [
    1048576.0,
    4194304.0,
    16777216.0,
    67108864.0,
    268435456.0,
    1073741824.0,
    4294967296.0,
    17179869184.0,
    68719476736.0,
];
const COMMITS: [f64; 8] = [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 1000.0];

macro_rules! labels {
    ($($name:ident { $($field:ident: $type:ty),* })*) => {$(
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub struct $name { $(pub $field: $type),* }
    )*};
}

labels! {
    OfRepo { repo: String }
    RepoResult { repo: String, result: &'static str }
    RepoPhase { repo: String, phase: &'static str }
    RepoState { repo: String, state: &'static str }
    RepoReason { repo: String, reason: &'static str }
    RepoOutcome { repo: String, outcome: &'static str }
    RepoLaunch { repo: String, launch: &'static str }
    OfLaunch { launch: &'static str }
    OfState { state: &'static str }
    OfResult { result: &'static str }
    OfKind { kind: &'static str }
    OfTask { task: &'static str }
    BackendCall { backend: &'static str, call: &'static str }
    BackendKind { backend: &'static str, kind: &'static str }
}

#[derive(Clone)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

type Histograms<L> = Family<L, Histogram, Buckets>;
type FloatGauge = Gauge<f64, AtomicU64>;

fn histograms<L: Clone + std::hash::Hash + Eq>(buckets: &'static [f64]) -> Histograms<L> {
    Family::new_with_constructor(Buckets(buckets))
}

/// All metrics of one process.
pub struct Metrics {
    registry: Registry,
    backend: &'static str,
    pub image_age: Family<OfRepo, FloatGauge>,
    pub image_commits_behind: Family<OfRepo, Gauge>,
    image_builds: Family<RepoResult, Counter>,
    image_build_seconds: Histograms<RepoPhase>,
    image_missed_ticks: Family<OfRepo, Counter>,
    pub image_last_success: Family<OfRepo, FloatGauge>,
    pub pool_sandboxes: Family<RepoState, Gauge>,
    pub pool_target: Family<OfRepo, Gauge>,
    pool_refill_seconds: Histograms<OfRepo>,
    pool_misses: Family<RepoReason, Counter>,
    pool_idle_seconds: Family<OfRepo, Counter<f64, AtomicU64>>,
    /// What claims cost behind their answers (F20).
    pub pool_plans: Counter,
    pub session_wakes: Counter,
    pub store_commits: Gauge,
    pub git_fetches: Gauge,
    warmups: Family<RepoOutcome, Counter>,
    session_starts: Family<RepoLaunch, Counter>,
    session_claim: Histograms<OfLaunch>,
    session_ready: Histograms<OfLaunch>,
    pub sessions: Family<OfState, Gauge>,
    sync_seconds: Histograms<OfResult>,
    sync_lag: Histogram,
    gate_wait: Histogram,
    exec: Histogram,
    snapshot_seconds: Histograms<OfKind>,
    snapshot_bytes: Histograms<OfKind>,
    pull_requests: Family<OfResult, Counter>,
    pub outbox_pending: Family<OfKind, Gauge>,
    backend_call: Histograms<BackendCall>,
    backend_errors: Family<BackendKind, Counter>,
    task_success: Family<OfTask, FloatGauge>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// `backend` is the label of the engine calls: `docker`, `fake`.
    pub fn new(backend: &'static str) -> Self {
        let mut m = Self {
            registry: Registry::with_prefix("hotbed"),
            backend,
            image_age: Family::default(),
            image_commits_behind: Family::default(),
            image_builds: Family::default(),
            image_build_seconds: histograms(&COARSE),
            image_missed_ticks: Family::default(),
            image_last_success: Family::default(),
            pool_sandboxes: Family::default(),
            pool_target: Family::default(),
            pool_refill_seconds: histograms(&COARSE),
            pool_misses: Family::default(),
            pool_idle_seconds: Family::default(),
            pool_plans: Counter::default(),
            session_wakes: Counter::default(),
            store_commits: Gauge::default(),
            git_fetches: Gauge::default(),
            warmups: Family::default(),
            session_starts: Family::default(),
            session_claim: histograms(&FINE),
            session_ready: histograms(&FINE),
            sessions: Family::default(),
            sync_seconds: histograms(&FINE),
            sync_lag: Histogram::new(COMMITS),
            gate_wait: Histogram::new(FINE),
            exec: Histogram::new(FINE),
            snapshot_seconds: histograms(&COARSE),
            snapshot_bytes: histograms(&BYTES),
            pull_requests: Family::default(),
            outbox_pending: Family::default(),
            backend_call: histograms(&COARSE),
            backend_errors: Family::default(),
            task_success: Family::default(),
        };
        m.register();
        m
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("image_age_seconds", "Age of the current image", self.image_age.clone());
        r.register(
            "image_commits_behind",
            "Commits between the current image and the tip",
            self.image_commits_behind.clone(),
        );
        r.register("image_builds", "Image builds that ended, by result", self.image_builds.clone());
        r.register("image_build_seconds", "Duration of build phases", self.image_build_seconds.clone());
        r.register(
            "image_missed_ticks",
            "Ticks of schedules that passed unseen and were answered by a later one",
            self.image_missed_ticks.clone(),
        );
        r.register(
            "image_last_success_timestamp_seconds",
            "When an image was last built or found unchanged",
            self.image_last_success.clone(),
        );
        r.register("pool_sandboxes", "Members of the pool, by state", self.pool_sandboxes.clone());
        r.register("pool_target", "Members that the pool wants", self.pool_target.clone());
        r.register(
            "pool_refill_seconds",
            "From the decision to a ready member",
            self.pool_refill_seconds.clone(),
        );
        r.register("pool_misses", "Claims that found no member, by reason", self.pool_misses.clone());
        r.register(
            "pool_idle_sandbox_seconds",
            "Time that members spent waiting",
            self.pool_idle_seconds.clone(),
        );
        r.register("pool_plans", "Plans of the pool that were carried out", self.pool_plans.clone());
        r.register("session_wakes", "Times that a session's driver was woken", self.session_wakes.clone());
        r.register("store_commits", "Commits since the start", self.store_commits.clone());
        r.register("git_fetches", "Fetches from upstream since the start", self.git_fetches.clone());
        r.register("warmups", "Warm-ups that ended, by outcome", self.warmups.clone());
        r.register("session_starts", "Sessions started, by launch", self.session_starts.clone());
        r.register(
            "session_claim_seconds",
            "From the request to the durable claim",
            self.session_claim.clone(),
        );
        r.register(
            "session_ready_seconds",
            "From the request to the open write gate",
            self.session_ready.clone(),
        );
        r.register("sessions", "Live sessions, by state", self.sessions.clone());
        r.register("sync_seconds", "Duration of git sync, by result", self.sync_seconds.clone());
        r.register(
            "sync_lag_commits",
            "Commits between a sandbox and the tip when sync began",
            self.sync_lag.clone(),
        );
        r.register("gate_wait_seconds", "Time that API writes waited at the gate", self.gate_wait.clone());
        r.register("exec_seconds", "Duration of commands", self.exec.clone());
        r.register("snapshot_seconds", "Duration of captures, by kind", self.snapshot_seconds.clone());
        r.register("snapshot_bytes", "Size of captures, by kind", self.snapshot_bytes.clone());
        r.register("pull_requests", "Pull requests asked for, by result", self.pull_requests.clone());
        r.register(
            "outbox_pending",
            "What waits to be told to the outside, by kind",
            self.outbox_pending.clone(),
        );
        r.register("backend_call_seconds", "Duration of engine calls", self.backend_call.clone());
        r.register("backend_errors", "Failed engine calls, by kind", self.backend_errors.clone());
        r.register(
            "task_last_success_timestamp_seconds",
            "When a background task last ended well",
            self.task_success.clone(),
        );
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(16 * 1024);
        if text::encode(&mut out, &self.registry).is_err() {
            let _ = writeln!(out, "# encoding failed");
        }
        out
    }

    pub fn session_started(&self, record: &SessionRecord, took: Duration) {
        let launch = record.launch.as_str();
        self.session_starts.get_or_create(&RepoLaunch { repo: record.repo.to_string(), launch }).inc();
        self.session_claim.get_or_create(&OfLaunch { launch }).observe(took.as_secs_f64());
    }

    pub fn session_ready(&self, record: &SessionRecord, took: Duration) {
        self.session_ready
            .get_or_create(&OfLaunch { launch: record.launch.as_str() })
            .observe(took.as_secs_f64());
    }

    pub fn session_ended(&self, _record: &SessionRecord) {}

    pub fn synced(&self, record: &SessionRecord, took: Duration) {
        let result = if record.sync.phase == SyncPhase::Synced { "synced" } else { "failed" };
        self.sync_seconds.get_or_create(&OfResult { result }).observe(took.as_secs_f64());
        if let Some(lag) = record.sync.lag_commits {
            self.sync_lag.observe(f64::from(lag));
        }
    }

    pub fn gate_waited(&self, took: Duration) {
        self.gate_wait.observe(took.as_secs_f64());
    }

    pub fn exec_ended(&self, seconds: f64) {
        self.exec.observe(seconds);
    }

    pub fn pool_miss(&self, repo: &RepoName, reason: MissReason) {
        self.pool_misses.get_or_create(&RepoReason { repo: repo.to_string(), reason: reason.as_str() }).inc();
    }

    /// A member answered for the first time.
    pub fn pool_ready(&self, record: &SandboxRecord, now: Timestamp) {
        if record.ready_at == Some(now) {
            let took = now.duration_since(record.created_at).as_secs_f64();
            self.pool_refill_seconds.get_or_create(&OfRepo { repo: record.repo.to_string() }).observe(took);
        }
    }

    pub fn pool_idled(&self, repo: &RepoName, seconds: f64) {
        self.pool_idle_seconds.get_or_create(&OfRepo { repo: repo.to_string() }).inc_by(seconds);
    }

    /// `outcome` is `hit`, `expired` or `withdrawn`.
    pub fn warmup_ended(&self, repo: &RepoName, outcome: &'static str) {
        self.warmups.get_or_create(&RepoOutcome { repo: repo.to_string(), outcome }).inc();
    }

    pub fn build_ended(&self, repo: &RepoName, state: BuildState) {
        self.image_builds.get_or_create(&RepoResult { repo: repo.to_string(), result: state.as_str() }).inc();
    }

    pub fn build_phase(&self, repo: &RepoName, phase: Phase, seconds: f64) {
        self.image_build_seconds
            .get_or_create(&RepoPhase { repo: repo.to_string(), phase: phase.as_str() })
            .observe(seconds);
    }

    pub fn ticks_missed(&self, repo: &RepoName, ticks: u32) {
        self.image_missed_ticks.get_or_create(&OfRepo { repo: repo.to_string() }).inc_by(ticks.into());
    }

    pub fn snapshot(&self, kind: SnapshotKind, took: Duration, bytes: u64) {
        let kind = OfKind { kind: kind.as_str() };
        self.snapshot_seconds.get_or_create(&kind).observe(took.as_secs_f64());
        self.snapshot_bytes.get_or_create(&kind).observe(bytes as f64);
    }

    /// `result` is `opened`, `found` or `refused`.
    pub fn pull_request(&self, result: &'static str) {
        self.pull_requests.get_or_create(&OfResult { result }).inc();
    }

    pub fn backend_called(&self, call: &'static str, took: Duration) {
        self.backend_call
            .get_or_create(&BackendCall { backend: self.backend, call })
            .observe(took.as_secs_f64());
    }

    pub fn backend_error(&self, kind: ErrorKind) {
        self.backend_errors.get_or_create(&BackendKind { backend: self.backend, kind: kind.as_str() }).inc();
    }

    pub fn task_done(&self, task: &'static str, now: Timestamp) {
        self.task_success.get_or_create(&OfTask { task }).set(now.as_millisecond() as f64 / 1000.0);
    }

    /// A series for every launch and reason from the start, so that a rate over the first hour is one.
    pub fn announce_repo(&self, repo: &RepoName) {
        for launch in Launch::ALL {
            let _ = self
                .session_starts
                .get_or_create(&RepoLaunch { repo: repo.to_string(), launch: launch.as_str() });
        }
        for reason in MissReason::ALL {
            let _ = self
                .pool_misses
                .get_or_create(&RepoReason { repo: repo.to_string(), reason: reason.as_str() });
        }
    }
}
