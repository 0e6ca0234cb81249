//! What came of sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    pub sessions: u64,
    pub sessions_by_launch: BTreeMap<String, u64>,
    pub sessions_by_state: BTreeMap<String, u64>,
    pub pull_requests_by_state: BTreeMap<String, u64>,
    pub snapshots_by_state: BTreeMap<String, u64>,
    pub people: u64,
    /// Live sessions, by repo.
    pub live_by_repo: BTreeMap<String, u64>,
    /// People who used a session within the last five minutes.
    pub prompting: PromptingView,
    /// What came of the sessions of the last `days` days.
    pub outcomes: OutcomesView,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PromptingView {
    pub people: u64,
    pub by_repo: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutcomesView {
    pub days: u32,
    pub total: OutcomeView,
    pub by_repo: BTreeMap<String, OutcomeView>,
    pub by_user: BTreeMap<String, OutcomeView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// Sessions that were started.
    pub sessions: u64,
    /// Of those, the ones with a pull request.
    pub with_pull_request: u64,
    /// Of those, the ones that led to a merged pull request: the first measure of all this.
    pub with_merged: u64,
    pub pull_requests: u64,
    pub open: u64,
    pub merged: u64,
    pub closed: u64,
    /// Of the pull requests that have ended, the share that somebody had approved.
    pub approval_rate: Option<f64>,
    /// How often the commits of one changed after it was opened, on average.
    pub revisions: Option<f64>,
    /// From the beginning of a session to its pull request, the median.
    pub seconds_to_pull_request: Option<f64>,
    /// From there to the merge, the median.
    pub seconds_to_merge: Option<f64>,
}

impl From<&crate::stats::Outcome> for OutcomeView {
    fn from(o: &crate::stats::Outcome) -> Self {
        Self {
            sessions: o.sessions,
            with_pull_request: o.with_pull_request,
            with_merged: o.with_merged,
            pull_requests: o.pull_requests,
            open: o.open,
            merged: o.merged,
            closed: o.closed,
            approval_rate: o.approval_rate,
            revisions: o.revisions,
            seconds_to_pull_request: o.to_pull_request,
            seconds_to_merge: o.to_merge,
        }
    }
}
