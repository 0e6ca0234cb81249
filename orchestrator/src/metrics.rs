//! The numbers that dashboards and alerts stand on. Names and labels are those of the design; labels are fixed
//! words or a configured repo's name, never an id.

mod by_repo;
pub mod catalogue;
mod events;
mod process;
mod told;

use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;

use by_repo::{ByRepo, Tally};
use catalogue::{Book, Described, Histograms, Pages, Section, Traced, TracedHistograms, Values, labels};
use domain::ports::CaptureKind;
use domain::{
    BuildState, EndReason, ErrorKind, Launch, Phase, RepoName, SandboxState, SessionState, SnapshotKind,
};
use jiff::Timestamp;
use pool::MissReason;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::quotas::QUOTAS;
use crate::rollout::VERDICTS;

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
/// Seconds of a build's phases. Few, because every repo has one set of them for each phase.
const BUILD: [f64; 5] = [1.0, 10.0, 60.0, 300.0, 1800.0];
/// Seconds, for what people take: a minute to a month.
const DAYS: [f64; 8] = [60.0, 600.0, 3600.0, 14400.0, 86400.0, 259200.0, 604800.0, 2592000.0];
const COMMITS: [f64; 8] = [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 100.0, 1000.0];

/// How a build ends.
const BUILD_RESULTS: [BuildState; 4] =
    [BuildState::Succeeded, BuildState::Unchanged, BuildState::Failed, BuildState::Superseded];
pub const WARMUP_OUTCOMES: [&str; 3] = ["hit", "expired", "withdrawn"];
pub const PULL_RESULTS: [&str; 6] = ["opened", "found", "refused", "by_hand", "updated", "update_refused"];
/// What becomes of a pull request after it was opened.
const PULL_ENDS: [&str; 2] = ["merged", "closed"];
/// What becomes of a delivery of a webhook.
const WEBHOOK_RESULTS: [&str; 5] = ["taken", "repeated", "forged", "refused", "failed"];
pub const OUTBOX_KINDS: [&str; 1] = ["pull_request"];
pub const QUEUES: [&str; 3] = ["cold_start", "build", "webhook"];
/// What a request asks for, where a promise is about it; else whether it reads or changes something.
pub const API_GROUPS: [&str; 8] =
    ["warmup", "session", "exec", "file", "pull_request", "webhook", "read", "change"];
/// What becomes of a span.
const SPAN_RESULTS: [&str; 3] = ["exported", "failed", "dropped"];
const ORPHAN_KINDS: [&str; 2] = ["sandbox", "capture"];
const TOKEN_KINDS: [&str; 3] = ["api", "agent", "webhook"];
const SANDBOX_STATES: [SandboxState; 6] = [
    SandboxState::Creating,
    SandboxState::Starting,
    SandboxState::Warm,
    SandboxState::Claimed,
    SandboxState::Kept,
    SandboxState::Stopping,
];
const CAPTURE_KINDS: [CaptureKind; 3] = [CaptureKind::Base, CaptureKind::Image, CaptureKind::Snapshot];
const BACKENDS: Values = Values::Others("the kind of engine: `docker`, `given`");
const TASKS: Values = Values::Others("a background task");

fn launches() -> Values {
    Values::words(Launch::ALL, Launch::as_str)
}

fn snapshot_kinds() -> Values {
    Values::words([SnapshotKind::End, SnapshotKind::Demand], SnapshotKind::as_str)
}

/// What a sandbox is for, in the words of `hotbed_sandboxes`.
pub const PURPOSES: [&str; 3] = ["pool", "session", "build"];

/// Every series of `hotbed_sandboxes`.
pub fn sandbox_series() -> impl Iterator<Item = (&'static str, &'static str)> {
    PURPOSES.into_iter().flat_map(|purpose| SANDBOX_STATES.into_iter().map(move |s| (purpose, s.as_str())))
}

fn purposes() -> Values {
    Values::Words(PURPOSES.to_vec())
}

fn disks() -> Values {
    Values::Words(vec!["state", "engine"])
}

labels! {
    OfRepo { repo: String }
    RepoResult { repo: String, result: &'static str }
    RepoPhase { repo: String, phase: &'static str }
    RepoState { repo: String, state: &'static str }
    RepoVerdict { repo: String, verdict: &'static str }
    RepoReason { repo: String, reason: &'static str }
    RepoOutcome { repo: String, outcome: &'static str }
    RepoLaunch { repo: String, launch: &'static str }
    RepoPurpose { repo: String, purpose: &'static str }
    PurposeState { purpose: &'static str, state: &'static str }
    OfLaunch { launch: &'static str }
    OfState { state: &'static str }
    OfEnd { end: &'static str }
    RepoQuota { repo: String, quota: &'static str }
    RepoEnd { repo: String, end: &'static str }
    OfResult { result: &'static str }
    OfKind { kind: &'static str }
    OfTask { task: &'static str }
    OfQueue { queue: &'static str }
    OfDisk { disk: &'static str }
    DiskOf { disk: &'static str, of: &'static str }
    OfBackend { backend: &'static str }
    BackendCall { backend: &'static str, call: &'static str }
    BackendKind { backend: &'static str, kind: &'static str }
    RouteStatus { route: String, status: u16 }
    OfGroup { group: &'static str }
    OfVersion { version: &'static str }
}

type FloatGauge = Gauge<f64, AtomicU64>;
type FloatCounter = Counter<f64, AtomicU64>;

/// All metrics of one process.
pub struct Metrics {
    sections: Vec<Box<dyn Section>>,
    process: Registry,
    described: Vec<Described>,
    backend: &'static str,
    told: told::Told,
    pub image_age: ByRepo<OfRepo, FloatGauge>,
    pub image_age_target: ByRepo<OfRepo, FloatGauge>,
    pub image_commits_behind: ByRepo<OfRepo, Gauge>,
    image_builds: ByRepo<RepoResult, Counter>,
    image_build_seconds: ByRepo<RepoPhase, Tally>,
    image_missed_ticks: ByRepo<OfRepo, Counter>,
    image_failures: ByRepo<OfRepo, Counter>,
    image_verdicts: ByRepo<RepoVerdict, Counter>,
    image_pushes: ByRepo<RepoResult, Counter>,
    pub images_unpushed: Gauge,
    pub image_last_success: ByRepo<OfRepo, FloatGauge>,
    pub pool_sandboxes: ByRepo<RepoState, Gauge>,
    pub pool_target: ByRepo<OfRepo, Gauge>,
    pub pool_wanted: ByRepo<OfRepo, Gauge>,
    pool_arrivals: ByRepo<OfRepo, Counter>,
    pool_hits: ByRepo<OfRepo, Counter>,
    pool_refill_seconds: ByRepo<OfRepo, Tally>,
    pool_misses: ByRepo<RepoReason, Counter>,
    pool_idle_seconds: ByRepo<OfRepo, FloatCounter>,
    pub pool_behind: ByRepo<OfRepo, Gauge>,
    pool_catch_up: Histogram,
    /// What claims cost behind their answers (F20).
    pub pool_plans: Counter,
    pub session_wakes: Counter,
    store_commits: Counter,
    git_fetches: Counter,
    git_fetches_spared: Counter,
    warmups: ByRepo<RepoOutcome, Counter>,
    pub warmups_live: Gauge,
    warmup_saved_seconds: ByRepo<OfRepo, FloatCounter>,
    warmup_wasted_seconds: ByRepo<OfRepo, FloatCounter>,
    session_starts: ByRepo<RepoLaunch, Counter>,
    session_claim: TracedHistograms<OfLaunch>,
    session_ready: TracedHistograms<OfLaunch>,
    session_ends: Family<OfEnd, Counter>,
    pub sessions: Family<OfState, Gauge>,
    sync_seconds: TracedHistograms<OfResult>,
    sync_lag: Histogram,
    gate_wait: Histogram,
    exec: Traced,
    snapshot_seconds: Histograms<OfKind>,
    snapshot_bytes: Histograms<OfKind>,
    pull_requests: Family<OfResult, Counter>,
    pull_ends: ByRepo<RepoEnd, Counter>,
    pulls_approved: ByRepo<OfRepo, Counter>,
    sessions_merged: ByRepo<OfRepo, Counter>,
    pull_open: Histogram,
    pull_merge: Histogram,
    pull_revisions: Histogram,
    pub people_prompting: ByRepo<OfRepo, Gauge>,
    webhooks: Family<OfResult, Counter>,
    pub outbox_pending: Family<OfKind, Gauge>,
    pub outbox_oldest: Family<OfKind, FloatGauge>,
    backend_call: Histograms<BackendCall>,
    backend_errors: Family<BackendKind, Counter>,
    backend_up: Family<OfBackend, Gauge>,
    pub sandboxes: Family<PurposeState, Gauge>,
    pub sandbox_seconds: ByRepo<RepoPurpose, FloatCounter>,
    pub reserved_memory: Gauge,
    pub reserved_cpus: FloatGauge,
    pub budget_memory: Gauge,
    pub budget_cpus: FloatGauge,
    pub captured_bytes: Family<OfKind, Gauge>,
    pub queue_length: Family<OfQueue, Gauge>,
    orphans: Family<OfKind, Counter>,
    spared: Family<OfKind, Gauge>,
    tokens_refused: Family<OfKind, Counter>,
    quota_refusals: ByRepo<RepoQuota, Counter>,
    audit_lost: Counter,
    spans: Family<OfResult, Counter>,
    pub disk_free_bytes: Family<OfDisk, Gauge>,
    pub disk_free_ratio: Family<DiskOf, FloatGauge>,
    api_requests: Family<RouteStatus, Counter>,
    api_seconds: Histograms<OfGroup>,
    task_success: Family<OfTask, FloatGauge>,
    task_interval: Family<OfTask, FloatGauge>,
    task_failures: Family<OfTask, Counter>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Metrics {
    /// `backend` is the label of the engine calls: `docker`, `given`.
    pub fn new(backend: &'static str, now: Timestamp) -> Self {
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process::new(now)));
        let mut b = Book::new();
        let version: Family<OfVersion, Gauge> =
            b.family("build_info", "1, with the version of this Hotbed", [Values::Others("a version")]);
        version.get_or_create(&OfVersion { version: env!("CARGO_PKG_VERSION") }).set(1);
        Self {
            told: told::Told::default(),
            image_age: b.by_repo("image_age_seconds", "Age of the current image", []),
            image_age_target: b.by_repo(
                "image_age_target_seconds",
                "Age at which an image is built anew even if nothing changed (`image.max_age`)",
                [],
            ),
            image_commits_behind: b.by_repo(
                "image_commits_behind",
                "Commits between the current image and the tip, as of the mirror",
                [],
            ),
            image_builds: b.by_repo(
                "image_builds",
                "Image builds that ended, by result",
                [Values::words(BUILD_RESULTS, BuildState::as_str)],
            ),
            image_build_seconds: b.histograms_by_repo(
                "image_build_seconds",
                "Duration of build phases",
                &BUILD,
                [Values::words(Phase::ALL, Phase::as_str)],
            ),
            image_missed_ticks: b.by_repo(
                "image_missed_ticks",
                "Ticks of schedules that passed unseen and were answered by a later one",
                [],
            ),
            image_failures: b.by_repo(
                "image_failures",
                "Sandboxes in which an image failed: its services did not come up, or its `prepare` failed",
                [],
            ),
            image_verdicts: b.by_repo(
                "image_verdicts",
                "What became of images that were tried or that failed in sandboxes",
                [Values::Words(VERDICTS.to_vec())],
            ),
            image_pushes: b.by_repo(
                "image_pushes",
                "Images sent to the registry, or not",
                [Values::Words(vec!["pushed", "failed"])],
            ),
            images_unpushed: b.one("images_unpushed", "Images that wait to be sent to the registry"),
            image_last_success: b.by_repo(
                "image_last_success_timestamp_seconds",
                "When the current image was last built or found unchanged",
                [],
            ),
            pool_sandboxes: b.by_repo(
                "pool_sandboxes",
                "Members of the pool, by state",
                [Values::Words(vec!["warm", "starting", "creating"])],
            ),
            pool_target: b.by_repo("pool_target", "Members that the pool works towards", []),
            pool_wanted: b.by_repo(
                "pool_wanted",
                "Members that the pool would have where the budget had room for all",
                [],
            ),
            pool_arrivals: b.by_repo("pool_arrivals", "Claims that could have used a member", []),
            pool_hits: b.by_repo("pool_hits", "Claims that found one", []),
            pool_refill_seconds: b.histograms_by_repo(
                "pool_refill_seconds",
                "From the decision to a ready member",
                &COARSE,
                [],
            ),
            pool_misses: b.by_repo(
                "pool_misses",
                "Claims that found no member, by reason",
                [Values::words(MissReason::ALL, MissReason::as_str)],
            ),
            pool_idle_seconds: b.by_repo("pool_idle_sandbox_seconds", "Time that members spent waiting", []),
            pool_behind: b.by_repo(
                "pool_sandboxes_behind",
                "Ready members that are not at the tip of their branch, as of the mirror",
                [],
            ),
            pool_catch_up: b.histogram(
                "pool_catch_up_seconds",
                "From seeing a branch move to a ready member at its tip",
                &COARSE,
            ),
            pool_plans: b.one("pool_plans", "Plans of the pool that were carried out"),
            session_wakes: b.one("session_wakes", "Times that a session's driver was woken"),
            store_commits: b.one("store_commits", "Commits to the store"),
            git_fetches: b.one("git_fetches", "Fetches from upstream"),
            git_fetches_spared: b.one(
                "git_fetches_spared",
                "Looks at upstream that showed that there was nothing to fetch",
            ),
            warmups: b.by_repo(
                "warmups",
                "Warm-ups that ended, by outcome",
                [Values::Words(WARMUP_OUTCOMES.to_vec())],
            ),
            warmups_live: b.one("warmups_live", "Warm-ups that are live"),
            warmup_saved_seconds: b.by_repo(
                "warmup_saved_seconds",
                "Preparation that was done before the session came",
                [],
            ),
            warmup_wasted_seconds: b.by_repo(
                "warmup_wasted_seconds",
                "Time that members were held for a session that never came",
                [],
            ),
            session_starts: b.by_repo("session_starts", "Sessions started, by launch", [launches()]),
            session_claim: b.traced_histograms(
                "session_claim_seconds",
                "From the request to the durable claim",
                &FINE,
                [launches()],
            ),
            session_ready: b.traced_histograms(
                "session_ready_seconds",
                "From the request to the open write gate",
                &FINE,
                [launches()],
            ),
            session_ends: b.family(
                "session_ends",
                "Sessions that ended, by the reason",
                [Values::words(EndReason::ALL, EndReason::as_str)],
            ),
            sessions: b.family(
                "sessions",
                "Live sessions, by state",
                [Values::words(
                    SessionState::ALL.into_iter().filter(|s| !s.is_end()),
                    SessionState::as_str,
                )],
            ),
            sync_seconds: b.traced_histograms(
                "sync_seconds",
                "Duration of git sync, by result",
                &FINE,
                [Values::Words(vec!["synced", "failed"])],
            ),
            sync_lag: b.histogram(
                "sync_lag_commits",
                "Commits between a sandbox and the tip when sync began",
                &COMMITS,
            ),
            gate_wait: b.histogram("gate_wait_seconds", "Time that API writes waited at the gate", &FINE),
            exec: b.traced_histogram("exec_seconds", "Duration of commands that were waited for", &FINE),
            snapshot_seconds: b.histograms(
                "snapshot_seconds",
                "Duration of captures, by kind",
                &COARSE,
                [snapshot_kinds()],
            ),
            snapshot_bytes: b.histograms(
                "snapshot_bytes",
                "Size of captures, by kind",
                &BYTES,
                [snapshot_kinds()],
            ),
            pull_requests: b.family(
                "pull_requests",
                "Pull requests asked for, by result",
                [Values::Words(PULL_RESULTS.to_vec())],
            ),
            pull_ends: b.by_repo(
                "pull_request_ends",
                "Pull requests of sessions that were merged or closed, each time; by repo",
                [Values::Words(PULL_ENDS.to_vec())],
            ),
            pulls_approved: b.by_repo(
                "pull_requests_approved",
                "Pull requests of sessions that ended with somebody's approval; by repo",
                [],
            ),
            sessions_merged: b.by_repo(
                "sessions_merged",
                "Sessions that led to a merged pull request; by repo",
                [],
            ),
            pull_open: b.histogram(
                "pull_request_open_seconds",
                "From the beginning of a session to its pull request",
                &DAYS,
            ),
            pull_revisions: b.histogram(
                "pull_request_revisions",
                "How often the commits of a pull request had changed when it ended",
                &COMMITS,
            ),
            people_prompting: b.by_repo(
                "people_prompting",
                "People who used a session within the last five minutes; by repo",
                [],
            ),
            pull_merge: b.histogram(
                "pull_request_merge_seconds",
                "From the opening of a pull request to its merge",
                &DAYS,
            ),
            webhooks: b.family(
                "webhooks",
                "Deliveries of webhooks, by what became of them",
                [Values::Words(WEBHOOK_RESULTS.to_vec())],
            ),
            outbox_pending: b.family(
                "outbox_pending",
                "What waits to be told to the outside, by kind",
                [Values::Words(OUTBOX_KINDS.to_vec())],
            ),
            outbox_oldest: b.family(
                "outbox_oldest_seconds",
                "How long the oldest of these has waited; 0 when none waits",
                [Values::Words(OUTBOX_KINDS.to_vec())],
            ),
            backend_call: b.histograms(
                "backend_call_seconds",
                "Duration of engine calls",
                &COARSE,
                [BACKENDS, Values::Others("a verb of the engine's port")],
            ),
            backend_errors: b.family(
                "backend_errors",
                "Failed engine calls, by kind",
                [BACKENDS, Values::words(ErrorKind::ALL, ErrorKind::as_str)],
            ),
            backend_up: b.family(
                "backend_up",
                "1 when the engine answered the last comparison of records and engine, else 0",
                [BACKENDS],
            ),
            sandboxes: b.family(
                "sandboxes",
                "Sandboxes, by what they are for and their state",
                [purposes(), Values::words(SANDBOX_STATES, SandboxState::as_str)],
            ),
            sandbox_seconds: b.by_repo(
                "sandbox_seconds",
                "Time that sandboxes existed, by what they were for; looked at every 15 s",
                [purposes()],
            ),
            reserved_memory: b
                .one("reserved_memory_bytes", "Memory that the sandboxes there are may use together"),
            reserved_cpus: b.one("reserved_cpus", "Processors that the sandboxes there are may use together"),
            budget_memory: b.one("budget_memory_bytes", "Memory that all sandboxes may use; 0 is no limit"),
            budget_cpus: b.one("budget_cpus", "Processors that all sandboxes may use; 0 is no limit"),
            captured_bytes: b.family(
                "captured_bytes",
                "What the engine keeps for this instance: sizes of all captures, shared layers counted each time",
                [Values::words(CAPTURE_KINDS, CaptureKind::as_str)],
            ),
            queue_length: b.family(
                "queue_length",
                "What waits for its turn",
                [Values::Words(QUEUES.to_vec())],
            ),
            orphans: b.family(
                "orphans",
                "What the engine had of this instance without a record, each time it was found",
                [Values::Words(ORPHAN_KINDS.to_vec())],
            ),
            spared: b.family(
                "spared",
                "What the engine has without a record and is left alone since the state was restored from a copy",
                [Values::Words(ORPHAN_KINDS.to_vec())],
            ),
            tokens_refused: b.family(
                "tokens_refused",
                "Keys and tokens that were not accepted, by whose they were",
                [Values::Words(TOKEN_KINDS.to_vec())],
            ),
            quota_refusals: b.by_repo(
                "quota_refusals",
                "Sessions and warm-ups that were refused because a user or a repo had its share, by the quota",
                [Values::Words(QUOTAS.to_vec())],
            ),
            audit_lost: b
                .one("audit_lost", "Lines of the audit log that were lost because the store took none for long"),
            spans: b.family(
                "trace_spans",
                "Spans of traces: sent to the collector, refused by it or unsent because it was away, or dropped because too many waited",
                [Values::Words(SPAN_RESULTS.to_vec())],
            ),
            disk_free_bytes: b.family("disk_free_bytes", "Room left on a disk", [disks()]),
            disk_free_ratio: b.family(
                "disk_free_ratio",
                "Share of a disk that is left, of its bytes and of its inodes",
                [disks(), Values::Words(vec!["bytes", "inodes"])],
            ),
            api_requests: b.family(
                "api_requests",
                "Requests of the API that were answered",
                [Values::Others("a path of the API, or `none`"), Values::Others("an HTTP status")],
            ),
            api_seconds: b.histograms(
                "api_request_seconds",
                "How long requests of the API took until the head of their answer, by what was asked",
                &FINE,
                [Values::Words(API_GROUPS.to_vec())],
            ),
            task_success: b.family(
                "task_last_success_timestamp_seconds",
                "When a background task last ended well",
                [TASKS],
            ),
            task_interval: b.family(
                "task_interval_seconds",
                "How often a background task runs when nothing pokes it",
                [TASKS],
            ),
            task_failures: b.family("task_failures", "Runs of background tasks that failed", [TASKS]),
            backend,
            process,
            described: b.described,
            sections: b.sections,
        }
    }

    /// What there is to know of every metric.
    pub fn described(&self) -> Vec<Described> {
        self.described.iter().cloned().chain(process::described()).collect()
    }

    /// Series that are there from the start, so that a rate over the first hour is one.
    pub fn announce(&self) {
        for end in EndReason::ALL {
            let _ = self.session_ends.get_or_create(&OfEnd { end: end.as_str() });
        }
        for launch in Launch::ALL {
            let _ = self.session_claim.get_or_create(&OfLaunch { launch: launch.as_str() });
            let _ = self.session_ready.get_or_create(&OfLaunch { launch: launch.as_str() });
        }
        for group in API_GROUPS {
            let _ = self.api_seconds.get_or_create(&OfGroup { group });
        }
        for kind in ErrorKind::ALL {
            let of = BackendKind { backend: self.backend, kind: kind.as_str() };
            let _ = self.backend_errors.get_or_create(&of);
        }
        for kind in ORPHAN_KINDS {
            let _ = self.orphans.get_or_create(&OfKind { kind });
            let _ = self.spared.get_or_create(&OfKind { kind });
        }
        for kind in TOKEN_KINDS {
            let _ = self.tokens_refused.get_or_create(&OfKind { kind });
        }
        for result in PULL_RESULTS {
            let _ = self.pull_requests.get_or_create(&OfResult { result });
        }
        for result in SPAN_RESULTS {
            let _ = self.spans.get_or_create(&OfResult { result });
        }
        for result in WEBHOOK_RESULTS {
            let _ = self.webhooks.get_or_create(&OfResult { result });
        }
    }

    /// The text that Prometheus reads.
    pub fn encode(&self) -> String {
        let mut all = String::new();
        self.pages(&mut |page| all.push_str(&page));
        all
    }

    /// The same, page by page. `hand_on` must not wait: what is written may be locked meanwhile.
    pub fn pages(&self, hand_on: &mut dyn FnMut(String)) {
        let mut out = Pages::to(hand_on);
        let sections = self.sections.iter().try_for_each(|section| section.write(&mut out));
        if sections.and_then(|()| text::encode(out.page(), &self.process)).is_err() {
            let _ = writeln!(out.page(), "# encoding failed");
        }
        out.end();
    }

    /// A series for every launch, reason, result and outcome from the start, so that a rate over the first hour is
    /// one.
    pub fn announce_repo(&self, repo: &RepoName) {
        let name = || repo.to_string();
        for launch in Launch::ALL {
            let _ = self.session_starts.get_or_create(&RepoLaunch { repo: name(), launch: launch.as_str() });
        }
        for reason in MissReason::ALL {
            let _ = self.pool_misses.get_or_create(&RepoReason { repo: name(), reason: reason.as_str() });
        }
        for result in BUILD_RESULTS {
            let _ = self.image_builds.get_or_create(&RepoResult { repo: name(), result: result.as_str() });
        }
        for result in ["pushed", "failed"] {
            let _ = self.image_pushes.get_or_create(&RepoResult { repo: name(), result });
        }
        for counters in [&self.image_missed_ticks, &self.image_failures, &self.pool_arrivals, &self.pool_hits]
        {
            let _ = counters.get_or_create(&OfRepo { repo: name() });
        }
        for quota in QUOTAS {
            let _ = self.quota_refusals.get_or_create(&RepoQuota { repo: name(), quota });
        }
        for verdict in VERDICTS {
            let _ = self.image_verdicts.get_or_create(&RepoVerdict { repo: name(), verdict });
        }
        for outcome in WARMUP_OUTCOMES {
            let _ = self.warmups.get_or_create(&RepoOutcome { repo: name(), outcome });
        }
        for seconds in [&self.warmup_saved_seconds, &self.warmup_wasted_seconds] {
            let _ = seconds.get_or_create(&OfRepo { repo: name() });
        }
    }

    /// The present of a repo that is no longer configured is nobody's business; its counters stay.
    pub fn forget_repo(&self, repo: &RepoName) {
        let of = OfRepo { repo: repo.to_string() };
        for gauges in [&self.image_age, &self.image_age_target, &self.image_last_success] {
            gauges.remove(&of);
        }
        self.image_commits_behind.remove(&of);
        self.pool_target.remove(&of);
        self.pool_wanted.remove(&of);
        self.pool_behind.remove(&of);
        self.people_prompting.remove(&of);
        for state in ["warm", "starting", "creating"] {
            self.pool_sandboxes.remove(&RepoState { repo: repo.to_string(), state });
        }
    }
}

/// As Prometheus writes a moment.
pub fn seconds(at: Timestamp) -> f64 {
    at.as_millisecond() as f64 / 1000.0
}
