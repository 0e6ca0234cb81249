//! What has happened, counted: one function for each event.

use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{
    BuildState, ErrorKind, Phase, PullRequestRecord, PullRequestState, RepoName, SandboxRecord,
    SessionRecord, SnapshotKind, SyncPhase, TraceContext, WarmupRecord, WarmupState,
};
use http::Method;
use jiff::Timestamp;
use pool::MissReason;

use super::catalogue::Example;
use super::{
    BackendCall, BackendKind, Metrics, OfBackend, OfEnd, OfGroup, OfKind, OfLaunch, OfRepo, OfResult, OfTask,
    RepoEnd, RepoLaunch, RepoOutcome, RepoPhase, RepoQuota, RepoReason, RepoResult, RepoVerdict, RouteStatus,
    seconds,
};

impl Metrics {
    pub fn session_started(&self, record: &SessionRecord, took: Duration) {
        let launch = record.launch.as_str();
        self.session_starts.get_or_create(&RepoLaunch { repo: record.repo.to_string(), launch }).inc();
        let trace = Example::of(record.trace.as_ref());
        self.session_claim.get_or_create(&OfLaunch { launch }).observe(took.as_secs_f64(), trace, None);
        self.tell_started(record);
    }

    pub fn session_ready(&self, record: &SessionRecord, took: Duration) {
        let trace = Example::of(record.trace.as_ref());
        self.session_ready.get_or_create(&OfLaunch { launch: record.launch.as_str() }).observe(
            took.as_secs_f64(),
            trace,
            None,
        );
        self.tell_ready(record, took.as_secs_f64());
    }

    pub fn session_ended(&self, record: &SessionRecord) {
        if let Some(end) = record.end {
            self.session_ends.get_or_create(&OfEnd { end: end.as_str() }).inc();
        }
        self.tell_ended(record);
    }

    pub fn synced(&self, record: &SessionRecord, took: Duration) {
        let result = if record.sync.phase == SyncPhase::Synced { "synced" } else { "failed" };
        let trace = Example::of(record.trace.as_ref());
        self.sync_seconds.get_or_create(&OfResult { result }).observe(took.as_secs_f64(), trace, None);
        if let Some(lag) = record.sync.lag_commits {
            self.sync_lag.observe(f64::from(lag));
        }
        self.tell_synced(record);
    }

    pub fn gate_waited(&self, took: Duration) {
        self.gate_wait.observe(took.as_secs_f64());
    }

    pub fn exec_ended(&self, seconds: f64, trace: Option<&TraceContext>) {
        self.exec.observe(seconds, Example::of(trace), None);
    }

    pub fn pool_miss(&self, repo: &RepoName, reason: MissReason) {
        self.pool_misses.get_or_create(&RepoReason { repo: repo.to_string(), reason: reason.as_str() }).inc();
    }

    /// Somebody came who could use a member.
    pub fn pool_arrival(&self, repo: &RepoName) {
        self.pool_arrivals.get_or_create(&OfRepo { repo: repo.to_string() }).inc();
    }

    pub fn pool_hit(&self, repo: &RepoName) {
        self.pool_hits.get_or_create(&OfRepo { repo: repo.to_string() }).inc();
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

    /// A ready member was brought to the tip, this long after the branch was seen to move.
    pub fn pool_caught_up(&self, after: Duration) {
        self.pool_catch_up.observe(after.as_secs_f64());
    }

    /// It is over, and its state says how.
    pub fn warmup_ended(&self, record: &WarmupRecord, now: Timestamp) {
        let repo = record.repo.to_string();
        let outcome = record.state.as_str();
        self.warmups.get_or_create(&RepoOutcome { repo: repo.clone(), outcome }).inc();
        let (seconds, of) = match record.state {
            WarmupState::Hit => (record.saved(now), &self.warmup_saved_seconds),
            _ => (record.wasted(now), &self.warmup_wasted_seconds),
        };
        of.get_or_create(&OfRepo { repo }).inc_by(seconds);
        self.tell_warmup(record);
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

    /// `verdict` is one of [`crate::rollout::VERDICTS`].
    pub fn image_judged(&self, repo: &RepoName, verdict: &'static str) {
        self.image_verdicts.get_or_create(&RepoVerdict { repo: repo.to_string(), verdict }).inc();
        self.tell_judged(repo, verdict);
    }

    /// An image failed in one more sandbox.
    pub fn image_failed(&self, repo: &RepoName) {
        self.image_failures.get_or_create(&OfRepo { repo: repo.to_string() }).inc();
    }

    pub fn image_pushed(&self, repo: &RepoName, ok: bool) {
        let result = if ok { "pushed" } else { "failed" };
        self.image_pushes.get_or_create(&RepoResult { repo: repo.to_string(), result }).inc();
    }

    pub fn snapshot(&self, kind: SnapshotKind, took: Duration, bytes: u64) {
        let kind = OfKind { kind: kind.as_str() };
        self.snapshot_seconds.get_or_create(&kind).observe(took.as_secs_f64());
        self.snapshot_bytes.get_or_create(&kind).observe(bytes as f64);
    }

    /// A delivery of a webhook; `result` is `taken`, `repeated`, `forged`, `refused` or `failed`.
    pub fn webhook(&self, result: &'static str) {
        self.webhooks.get_or_create(&OfResult { result }).inc();
    }

    /// The forge has told that a pull request is in another state.
    pub fn pull_request_became(&self, record: &PullRequestRecord) {
        let end = match record.state {
            PullRequestState::Merged => "merged",
            PullRequestState::Closed => "closed",
            _ => return,
        };
        let repo = record.repo.to_string();
        self.pull_ends.get_or_create(&RepoEnd { repo: repo.clone(), end }).inc();
        self.pull_revisions.observe(f64::from(record.revisions));
        if record.reviews.approvals() > 0 {
            self.pulls_approved.get_or_create(&OfRepo { repo }).inc();
        }
        if let (Some(opened), Some(merged)) = (record.opened_at, record.merged_at) {
            self.pull_merge.observe(merged.duration_since(opened).as_secs_f64().max(0.0));
        }
    }

    /// A session has its pull request, so long after it began.
    pub fn pull_request_opened_after(&self, took: jiff::SignedDuration) {
        self.pull_open.observe(took.as_secs_f64().max(0.0));
    }

    /// A session has led to a merged pull request, its first.
    pub fn session_merged(&self, repo: &RepoName) {
        self.sessions_merged.get_or_create(&OfRepo { repo: repo.to_string() }).inc();
    }

    /// `result` is `opened`, `found`, `refused` or `by_hand`.
    pub fn pull_request(&self, result: &'static str) {
        self.pull_requests.get_or_create(&OfResult { result }).inc();
    }

    /// A call of the engine has ended; `failed` is the kind of its error.
    pub fn backend_called(&self, call: &'static str, took: Duration, failed: Option<ErrorKind>) {
        let backend = self.backend;
        self.backend_call.get_or_create(&BackendCall { backend, call }).observe(took.as_secs_f64());
        if let Some(kind) = failed {
            self.backend_errors.get_or_create(&BackendKind { backend, kind: kind.as_str() }).inc();
        }
    }

    /// What others have counted since the start.
    pub fn counted_elsewhere(&self, commits: u64, fetches: u64, spared: u64) {
        self.store_commits.inner().store(commits, Ordering::Relaxed);
        self.git_fetches.inner().store(fetches, Ordering::Relaxed);
        self.git_fetches_spared.inner().store(spared, Ordering::Relaxed);
    }

    pub fn set_budget(&self, budget: domain::Budget) {
        self.budget_memory.set(budget.memory.unwrap_or(0) as i64);
        self.budget_cpus.set(budget.cpu_millis.unwrap_or(0) as f64 / 1000.0);
    }

    /// Whether the engine answered when it was last asked what it has.
    pub fn backend_answered(&self, up: bool) {
        self.backend_up.get_or_create(&OfBackend { backend: self.backend }).set(up.into());
        self.tell_engine(up);
    }

    /// `kind` is `sandbox` or `capture`.
    pub fn set_spared(&self, kind: &'static str, count: usize) {
        self.spared.get_or_create(&OfKind { kind }).set(count as i64);
    }

    pub fn orphan(&self, kind: &'static str) {
        self.orphans.get_or_create(&OfKind { kind }).inc();
    }

    /// `kind` says whose it was: `api` or `agent`.
    pub fn token_refused(&self, kind: &'static str) {
        self.tokens_refused.get_or_create(&OfKind { kind }).inc();
    }

    /// `quota` is one of [`crate::quotas::QUOTAS`].
    pub fn quota_refused(&self, repo: &RepoName, quota: &'static str) {
        self.quota_refusals.get_or_create(&RepoQuota { repo: repo.to_string(), quota }).inc();
    }

    /// `result` is `exported`, `failed` or `dropped`.
    pub fn spans_left(&self, result: &'static str, spans: u64) {
        self.spans.get_or_create(&OfResult { result }).inc_by(spans);
    }

    pub fn audit_lost(&self) {
        self.audit_lost.inc();
    }

    /// `route` is a path of the API as it is written down, with its placeholders.
    pub fn api_answered(&self, method: &Method, route: &str, status: u16, took: Duration) {
        self.api_seconds.get_or_create(&OfGroup { group: group(method, route) }).observe(took.as_secs_f64());
        self.api_requests.get_or_create(&RouteStatus { route: route.to_owned(), status }).inc();
    }

    pub fn task_starts(&self, task: &'static str, every: Duration) {
        self.task_interval.get_or_create(&OfTask { task }).set(every.as_secs_f64());
        let _ = self.task_failures.get_or_create(&OfTask { task });
    }

    pub fn task_done(&self, task: &'static str, now: Timestamp) {
        self.task_success.get_or_create(&OfTask { task }).set(seconds(now));
        self.tell_task(task, false);
    }

    pub fn task_failed(&self, task: &'static str) {
        self.task_failures.get_or_create(&OfTask { task }).inc();
        self.tell_task(task, true);
    }
}

/// One of [`super::API_GROUPS`].
fn group(method: &Method, route: &str) -> &'static str {
    match (method, route) {
        (&Method::POST, "/v1/warmups") => "warmup",
        (&Method::POST, "/v1/sessions") => "session",
        (&Method::POST, "/v1/webhooks/github") => "webhook",
        (&Method::POST, route) if route.ends_with("/exec") => "exec",
        (&Method::POST, route) if route.ends_with("/pull-requests") => "pull_request",
        (_, route) if route.contains("/files") => "file",
        (method, _) if method.is_safe() => "read",
        _ => "change",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::API_GROUPS;

    #[test]
    fn requests_are_told_apart_by_what_is_promised_of_them() {
        let of = |method: &str, route| group(&Method::from_bytes(method.as_bytes()).unwrap(), route);
        let seen = [
            of("POST", "/v1/warmups"),
            of("POST", "/v1/sessions"),
            of("POST", "/v1/sessions/{id}/exec"),
            of("PUT", "/v1/sessions/{id}/files/{*path}"),
            of("POST", "/v1/sessions/{id}/pull-requests"),
            of("POST", "/v1/webhooks/github"),
            of("GET", "/v1/sessions/{id}/exec/{exe}"),
            of("DELETE", "/v1/warmups/{id}"),
        ];
        assert_eq!(seen, API_GROUPS);
        assert_eq!(of("BREW", "none"), "change");
    }

    #[test]
    fn an_observation_names_the_trace_that_is_kept() {
        let metrics = Metrics::new("given", Timestamp::UNIX_EPOCH);
        let kept: TraceContext = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".parse().unwrap();
        metrics.exec_ended(0.3, Some(&kept.clone().unsampled()));
        metrics.exec_ended(0.3, None);
        assert!(!metrics.encode().contains("trace_id"));
        metrics.exec_ended(0.3, Some(&kept));
        let text = metrics.encode();
        let named: Vec<_> = text.lines().filter(|l| l.contains("trace_id")).collect();
        assert_eq!(
            named,
            [
                r##"hotbed_exec_seconds_bucket{le="0.5"} 3 # {trace_id="4bf92f3577b34da6a3ce929d0e0e4736"} 0.3"##
            ]
        );
    }
}
