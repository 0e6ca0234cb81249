//! What is left of sessions: snapshots and pull requests.

use domain::{PullRequestRecord, SnapshotRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::word;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    pub id: String,
    pub session: String,
    pub repo: String,
    /// `end` or `demand`.
    pub kind: String,
    /// `capturing`, `ready`, `failed` or `removing`.
    pub state: String,
    pub digest: Option<String>,
    pub commit: Option<String>,
    pub branch: String,
    pub size: Option<u64>,
    pub created_at: Timestamp,
    pub error: Option<String>,
}

impl From<&SnapshotRecord> for SnapshotView {
    fn from(r: &SnapshotRecord) -> Self {
        Self {
            id: r.id.to_string(),
            session: r.session.to_string(),
            repo: r.repo.to_string(),
            kind: r.kind.as_str().into(),
            state: word(&r.state),
            digest: r.digest.as_ref().map(ToString::to_string),
            commit: r.commit.as_ref().map(ToString::to_string),
            branch: r.branch.to_string(),
            size: r.size,
            created_at: r.created_at,
            error: r.error.clone(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPullRequest {
    /// The first commit's subject when not given.
    pub title: Option<String>,
    /// The repo's template when not given.
    pub body: Option<String>,
    /// The branch to merge into; the session's base when not given.
    pub base: Option<String>,
    #[serde(default)]
    pub draft: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PullRequestView {
    pub id: String,
    pub session: String,
    pub repo: String,
    /// `pending`, `open`, `merged`, `closed` or `refused`.
    pub state: String,
    pub number: Option<u64>,
    pub url: Option<String>,
    pub head: String,
    pub head_commit: Option<String>,
    pub base: String,
    pub title: String,
    pub body: String,
    pub draft: bool,
    pub author: String,
    pub created_at: Timestamp,
    pub error: Option<String>,
    pub opened_at: Option<Timestamp>,
    pub merged_at: Option<Timestamp>,
    /// Reviewers whose last word is an approval.
    pub approvals: usize,
    /// Reviewers whose last word is that something has to change.
    pub changes_requested: usize,
    /// How often its commits changed after it was opened.
    pub revisions: u32,
}

impl From<&PullRequestRecord> for PullRequestView {
    fn from(r: &PullRequestRecord) -> Self {
        Self {
            id: r.id.to_string(),
            session: r.session.to_string(),
            repo: r.repo.to_string(),
            state: word(&r.state),
            number: r.number,
            url: r.url.clone(),
            head: r.head.to_string(),
            head_commit: r.head_commit.as_ref().map(ToString::to_string),
            base: r.base.to_string(),
            title: r.title.clone(),
            body: r.body.clone(),
            draft: r.draft,
            author: r.author.clone(),
            created_at: r.created_at,
            error: r.error.clone(),
            opened_at: r.opened_at,
            merged_at: r.merged_at,
            approvals: r.reviews.approvals(),
            changes_requested: r.reviews.changes_requested(),
            revisions: r.revisions,
        }
    }
}
