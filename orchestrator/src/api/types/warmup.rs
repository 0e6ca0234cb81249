//! Announcements.

use domain::WarmupRecord;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::word;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    pub repo: String,
    /// The branch that the session will start from; the repo's own when not given.
    pub branch: Option<String>,
    /// Whoever types: a tab, a chat, a draft. With the repo it is the key of the warm-up.
    pub client: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmupView {
    pub id: String,
    pub repo: String,
    pub branch: String,
    pub client: String,
    /// `live`, `hit`, `expired` or `withdrawn`.
    pub state: String,
    /// A member is reserved.
    pub reserved: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// When the member that it holds was ready and at the tip of the branch; null while that is being seen to.
    pub prepared_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

impl From<&WarmupRecord> for WarmupView {
    fn from(r: &WarmupRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            branch: r.branch.to_string(),
            client: r.client.clone(),
            state: word(&r.state),
            reserved: r.sandbox.is_some(),
            created_at: r.created_at,
            expires_at: r.expires_at,
            prepared_at: r.prepared_at,
            ended_at: r.ended_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWarmupToken {
    /// Whose warm-ups it is for: what the page will send as `client`.
    pub client: String,
    /// Of which repo; of any when not given.
    pub repo: Option<String>,
    /// How long it is good, at most a day; an hour when not given.
    pub seconds: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmupToken {
    pub token: String,
    pub expires_at: Timestamp,
}
