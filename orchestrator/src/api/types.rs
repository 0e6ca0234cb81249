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
pub use self::happening::HappeningView;
pub use self::image::{BuildView, ImageFailureView, ImageView, PhaseView, RemovalView, RepoView, StartBuild};
pub use self::pool::{
    Arrivals, ExpectedView, FloorView, GiveOrder, LessonView, MinuteView, OrderView, OrderWord, PoolTerms,
    PoolView,
};
pub use self::result::{OpenPullRequest, PullRequestView, SnapshotView};
pub use self::session::{
    CreateSession, Extend, Fork, Prompt, SessionView, SyncAction, SyncAgain, SyncView, Token, User,
};
pub use self::stats::{OutcomeView, OutcomesView, PromptingView, Stats};
pub use self::user::{
    BeginDeviceSignIn, BeginWebSignIn, DeviceSignInPoll, DeviceSignInView, FinishWebSignIn, HandToken,
    UserView, WebSignInView,
};
pub use self::warmup::{Announce, NewWarmupToken, WarmupToken, WarmupView};

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
