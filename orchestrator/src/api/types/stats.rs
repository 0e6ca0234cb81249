//! What came of sessions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use crate::stats::Outcome as OutcomeView;

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
