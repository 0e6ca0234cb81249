//! The words of Hotbed: ids, records, state machines, the ports (traits) and the agent's wire types.
//!
//! This crate does no IO and knows no adapter. Everything else points here; it points at nothing.

mod access;
mod audit;
mod clock;
mod demand;
mod error;
mod glob;
mod ids;
mod image;
mod names;
pub mod ports;
mod pull_request;
mod recipe;
pub mod redact;
mod sandbox;
mod session;
mod spec;
#[cfg(feature = "testing")]
pub mod testing;
mod trace;
mod tree_path;
pub mod wire;

pub use access::{KeyRecord, Reach, Role};
pub use audit::AuditEntry;
pub use clock::{Clock, SharedClock, SystemClock};
pub use demand::{DemandHour, DemandRecord, LeadTimes, PoolOrder, PoolOrderKind};
pub use error::{Error, ErrorKind, Result};
pub use glob::glob_matches;
pub use ids::{
    BuildId, ExecId, ImageId, InstanceId, KeyId, ParseIdError, PullRequestId, SandboxId, SessionId,
    SnapshotId, WarmupId,
};
pub use image::{
    AbsenceRecord, BuildRecord, BuildState, CadenceRecord, ImageFailure, ImageRecord, ImageState, Phase,
    PhaseReport, PushNote, Shipped, Trigger,
};
pub use names::{Branch, CommitId, Digest, NameError, RepoName};
pub use pull_request::{Absorbed, How, Life, News, Review, Reviews, Verdict};
pub use recipe::{
    Command, IMAGE_NOTE, ImageNote, Phases, Ready, RecipeKey, RecipePart, RepositoryFile, Service, Winner,
};
pub use sandbox::{Purpose, SandboxEvent, SandboxRecord, SandboxState};
pub use session::{
    Asked, EndReason, ExecRef, Launch, Prompter, PullRequestRecord, PullRequestState, Rewording,
    SessionEvent, SessionRecord, SessionState, SnapshotKind, SnapshotRecord, SnapshotState, SyncPhase,
    SyncState, WarmupRecord, WarmupState, Words,
};
pub use spec::{
    Base, Budget, CanaryPolicy, Dockerfile, Identity, Import, ImportKind, Imported, Network, OnSecret,
    PoolPolicy, PullPolicy, PushPolicy, Recipe, RepoSpec, Resources, RolloutPolicy, SecretSource,
    SessionPolicy, Window,
};
pub use trace::{NoTraceParent, TraceContext};
pub use tree_path::TreePath;
