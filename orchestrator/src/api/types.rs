//! What requests and answers look like. Kept apart from the records, so that a record can change without the API.

mod access;
mod difference;
mod exec;
mod happening;
mod image;
mod pool;
mod result;
mod session;
mod stats;
mod user;
mod warmup;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::access::{AuditView, CreateKey, KeyView, MadeKey, WhoView};
pub use self::difference::{
    CommitView, CommitsView, FileChangeView, FilesView, ImageDiffView, PackageChangeView, PackagesView,
    TallyView,
};
pub use self::exec::{Command, ExecView, ExitView, FileView, OutputLine, SendSignal, StartExec, Terminal};
pub use self::happening::{HappeningFrame, HappeningView, LostView};
pub use self::image::{BuildView, ImageFailureView, ImageView, PhaseView, RemovalView, RepoView, StartBuild};
pub use self::pool::{
    Arrivals, ExpectedView, FloorView, GiveOrder, LessonView, MinuteView, OrderView, OrderWord, PoolTerms,
    PoolView,
};
pub use self::result::{OpenPullRequest, PullRequestView, SnapshotView};
pub use self::session::{
    CreateSession, EventFrame, EventView, Extend, Fork, Prompt, SessionView, SyncAction, SyncAgain, SyncView,
    Token, User,
};
pub use self::stats::{OutcomeView, OutcomesView, PromptingView, Stats};
pub use self::user::{
    BeginDeviceSignIn, BeginWebSignIn, DeviceSignInPoll, DeviceSignInView, FinishWebSignIn, HandToken,
    UserView, WebSignInView,
};
pub use self::warmup::{Announce, NewWarmupToken, WarmupToken, WarmupView};

/// An error (RFC 9457). It is served as `application/problem+json`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:hotbed:problem:` and the kind: `invalid`, `not_found`, `conflict`, `gone`, `denied`, `unauthorized`, `locked`,
    /// `exhausted`, `unavailable`, `timeout` or `permanent`.
    #[serde(rename = "type")]
    #[schema(example = "urn:hotbed:problem:not_found")]
    pub kind: String,
    /// What the status is called.
    #[schema(example = "Not Found")]
    pub title: String,
    #[schema(example = 404)]
    pub status: u16,
    /// What was wrong with this request: the field, its value, what was expected.
    #[schema(example = "acme/none is not a configured repo")]
    pub detail: String,
}

/// Bytes as they are.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[allow(dead_code)] // read by the description alone
pub struct Binary(Vec<u8>);

/// One page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T: ToSchema> {
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The word that a fixed enum is written as.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        other => format!("{other:?}"),
    }
}
