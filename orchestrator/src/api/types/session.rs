//! Sessions, their sync and their people.

use std::collections::BTreeMap;

use domain::{EndReason, SessionRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

/// The person a session works for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The account name at the forge.
    pub login: String,
    /// Name on commits; the login when not given.
    #[serde(default)]
    pub name: Option<String>,
    /// Address on commits.
    #[serde(default)]
    pub email: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// `owner/name`, as configured. May be left out when `snapshot` or `parent` says it.
    pub repo: Option<String>,
    /// Whom it works for; needed with a key. With a token of an identity provider whoever that names, when not given.
    pub user: Option<User>,
    /// The branch to start from; the repo's own when not given.
    pub base: Option<String>,
    /// The branch to work on: taken up where it exists upstream, else made from `base`.
    pub branch: Option<String>,
    /// The warm-up that announced this session.
    pub warmup: Option<String>,
    /// Start from this snapshot.
    pub snapshot: Option<String>,
    /// Follow this ended session: start from its last snapshot, on its branch.
    pub parent: Option<String>,
    /// Time limit in seconds; the repo's when not given.
    pub timeout_seconds: Option<u64>,
    /// Ends after this many seconds without use; 0 means never; the repo's when not given.
    pub idle_seconds: Option<u64>,
    /// Environment of what runs in the session. Stored as it is: not for secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A token of the user's at GitHub, to push and open with: kept in memory for as long as the session lives, never
    /// stored, never shown, never in the sandbox.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub user_token: Option<Token>,
}

/// A secret on its way in: zeroed when dropped, shown by nothing.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Token(pub Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SyncView {
    /// `pending`, `running`, `synced`, `failed` or `stale`.
    pub phase: String,
    /// Whether writes to the workspace pass.
    pub gate: String,
    pub wanted: Option<String>,
    pub head: Option<String>,
    /// Commits between the sandbox and the tip when sync began.
    pub lag_commits: Option<u32>,
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    pub id: String,
    pub repo: String,
    /// `waiting`, `active`, `paused`, `ending` or `ended`.
    pub state: String,
    /// `warm`, `warmup`, `restore` or `cold`.
    pub launch: String,
    pub sandbox: Option<String>,
    pub image: Option<String>,
    /// Whose session it is: with his authority it pushes and opens pull requests.
    pub user: User,
    /// The login of who commits now: who prompted last.
    pub committer: String,
    /// The logins of who else has prompted, named in each commit.
    pub co_authors: Vec<String>,
    pub base: String,
    pub branch: String,
    pub sync: SyncView,
    pub snapshot: Option<String>,
    pub parent: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub end: Option<String>,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

impl From<&SessionRecord> for SyncView {
    fn from(r: &SessionRecord) -> Self {
        let s = &r.sync;
        Self {
            phase: s.phase.as_str().into(),
            gate: if s.phase.gate_is_open() { "open" } else { "shut" }.into(),
            wanted: s.wanted.as_ref().map(ToString::to_string),
            head: s.head.as_ref().map(ToString::to_string),
            lag_commits: s.lag_commits,
            error: s.error.clone(),
            started_at: s.started_at,
            ended_at: s.ended_at,
        }
    }
}

impl From<&SessionRecord> for SessionView {
    fn from(r: &SessionRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: r.state.as_str().into(),
            launch: r.launch.as_str().into(),
            sandbox: r.sandbox.map(|s| s.to_string()),
            image: r.image.map(|i| i.to_string()),
            user: User {
                login: r.user.login.clone(),
                name: Some(r.user.name.clone()),
                email: Some(r.user.email.clone()),
            },
            committer: r.committer().login.clone(),
            co_authors: r.co_authors().into_iter().map(|who| who.login).collect(),
            base: r.base.to_string(),
            branch: r.branch.to_string(),
            sync: r.into(),
            snapshot: r.snapshot.map(|s| s.to_string()),
            parent: r.parent.map(|s| s.to_string()),
            created_at: r.created_at,
            started_at: r.started_at,
            expires_at: r.expires_at,
            ended_at: r.ended_at,
            end: r.end.map(end_word),
            trouble: r.trouble.clone(),
        }
    }
}

fn end_word(end: EndReason) -> String {
    match end {
        EndReason::Requested => "requested",
        EndReason::TimeLimit => "time_limit",
        EndReason::Idle => "idle",
        EndReason::Shutdown => "shutdown",
        EndReason::LaunchFailed => "launch_failed",
        EndReason::SandboxLost => "sandbox_lost",
    }
    .into()
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Prompt {
    /// Who prompts from now on; needed with a key. With a token of an identity provider whoever that names, when not given.
    pub user: Option<User>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncAgain {
    /// `retry`, or `accept_stale` to open the gate on the tree as it is.
    pub action: SyncAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncAction {
    Retry,
    AcceptStale,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub seconds: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// Whom the fork works for; the same user when not given.
    pub user: Option<User>,
    /// The fork's own branch; a new one when not given.
    pub branch: Option<String>,
}

/// One server-sent event, as it is framed.
#[derive(ToSchema)]
#[allow(dead_code)] // read by the description alone
pub struct EventFrame {
    /// The sequence number; `Last-Event-ID` takes it.
    id: String,
    /// The kind.
    event: String,
    /// An `EventView`, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// One event of a session's log: the `data` of a server-sent event.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// They begin with 1 and have no gaps.
    pub seq: u64,
    pub at: Timestamp,
    /// What happened: `created`, `synced`, `exec_ended`, `ended` and so on.
    pub kind: String,
    /// What belongs to it, by kind.
    #[schema(value_type = Object)]
    pub data: serde_json::Value,
}

impl From<store::LogEvent> for EventView {
    fn from(e: store::LogEvent) -> Self {
        Self { seq: e.seq, at: e.at, kind: e.kind, data: e.data }
    }
}
