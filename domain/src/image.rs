//! Images and the builds that make them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{Branch, BuildId, CommitId, Digest, ImageId, RepoName, SandboxId, SessionId};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageState {
    /// Captured, not checked yet. Never handed out (F21).
    Candidate,
    /// Passed its check, and is tried by a share of the sandboxes before it becomes current. At most one per repo.
    Canary,
    /// What new sandboxes of the repo start from. At most one per repo.
    Current,
    /// Was current, or passed its check while a pinned one was; kept for roll-back and promotion.
    Superseded,
    /// Failed its check.
    Rejected,
    /// Passed its check and failed in sessions. Handed out no more, unless an operator promotes it (F22).
    Demoted,
    /// To be removed from the engine; once it is gone there the row goes too.
    Removing,
}

/// The durable row of an image. Keyed by digest, never by tag (F28).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    pub id: ImageId,
    pub repo: RepoName,
    pub state: ImageState,
    pub digest: Digest,
    /// HEAD of the workspace inside, verified after boot (F25).
    pub commit: CommitId,
    pub branch: Branch,
    /// Grows by one with every promotion of the repo (F24).
    pub generation: u64,
    /// Covers recipe, base digest, certificates: a change forces a full build (F26).
    pub fingerprint: String,
    pub base_digest: Digest,
    /// The image it was built on; `None` for a full build.
    pub parent: Option<ImageId>,
    pub build: BuildId,
    /// The agent that was inside when it was captured.
    pub agent_version: String,
    pub size: u64,
    pub created_at: Timestamp,
    /// When the tick last found that nothing had changed.
    pub verified_at: Timestamp,
    /// An operator keeps it: it is not collected, and while it is current nothing takes its place by itself.
    #[serde(default)]
    pub pinned: bool,
    /// Where a registry has it.
    #[serde(default)]
    pub shipped: Option<Shipped>,
    /// Sandboxes in which it failed since it was promoted, oldest first; a bounded number of them.
    #[serde(default)]
    pub failures: Vec<ImageFailure>,
    /// Sessions that began well on it while it was a canary.
    #[serde(default)]
    pub went_well: u32,
}

/// An image failed in a sandbox that was, or was to be, somebody's: its services did not come up, or its own
/// `prepare` failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFailure {
    pub at: Timestamp,
    pub sandbox: SandboxId,
    /// `None` where it was a member of the pool that nobody had claimed.
    pub session: Option<SessionId>,
    /// In words, with the phase.
    pub why: String,
}

/// An image in a registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shipped {
    /// `host[:port]/path`.
    pub repository: String,
    /// Of the manifest: what the registry knows it by. The engine's own digest is another.
    pub digest: Digest,
}

impl Shipped {
    /// `repository@digest`, which can't come to mean another image.
    pub fn reference(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    Schedule,
    Api,
    Push,
    /// The first image of a repo.
    Missing,
}

impl Trigger {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Api => "api",
            Self::Push => "push",
            Self::Missing => "missing",
        }
    }
}

/// The steps of a build, in their order. Labels of `hotbed_image_build_seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Resolve the tip and refresh the mirror.
    Resolve,
    /// Read what the repository says of its own image.
    Recipe,
    /// Make or pull the base.
    Base,
    /// Start the sandbox to build in.
    Boot,
    /// Certificates into the trust store.
    Trust,
    /// Clone, or sync of the tree that is there.
    Clone,
    Setup,
    Update,
    Warm,
    Capture,
    /// Boot the capture, compare HEAD, run `verify`.
    Check,
    Promote,
}

impl Phase {
    pub const ALL: [Self; 12] = [
        Self::Resolve,
        Self::Recipe,
        Self::Base,
        Self::Boot,
        Self::Trust,
        Self::Clone,
        Self::Setup,
        Self::Update,
        Self::Warm,
        Self::Capture,
        Self::Check,
        Self::Promote,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Recipe => "recipe",
            Self::Base => "base",
            Self::Boot => "boot",
            Self::Trust => "trust",
            Self::Clone => "clone",
            Self::Setup => "setup",
            Self::Update => "update",
            Self::Warm => "warm",
            Self::Capture => "capture",
            Self::Check => "check",
            Self::Promote => "promote",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    pub phase: Phase,
    pub seconds: f64,
    /// The exit code of the last command, where the phase runs commands.
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BuildState {
    Queued,
    Running,
    /// A new image is current.
    Succeeded,
    /// Nothing had changed; the image was verified and not rebuilt.
    Unchanged,
    Failed,
    /// A newer request of the same repo took its place before it began.
    Superseded,
}

impl BuildState {
    pub fn is_end(self) -> bool {
        matches!(self, Self::Succeeded | Self::Unchanged | Self::Failed | Self::Superseded)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Superseded => "superseded",
        }
    }
}

/// The durable row of a build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    pub id: BuildId,
    pub repo: RepoName,
    pub state: BuildState,
    pub trigger: Trigger,
    /// Who asked, in the caller's own words.
    #[serde(default)]
    pub by: Option<String>,
    pub phase: Option<Phase>,
    #[serde(default)]
    pub phase_since: Option<Timestamp>,
    pub phases: Vec<PhaseReport>,
    pub commit: Option<CommitId>,
    /// What was decided to do, in words: a full build and why, a build on another image, nothing.
    #[serde(default)]
    pub decision: Option<String>,
    /// The image that it was built on; `None` for a full build.
    #[serde(default)]
    pub parent: Option<ImageId>,
    #[serde(default)]
    pub base_digest: Option<Digest>,
    #[serde(default)]
    pub fingerprint: Option<String>,
    /// What was made, or found unchanged.
    pub image: Option<ImageId>,
    /// Bytes of the captured image, all layers.
    #[serde(default)]
    pub size: Option<u64>,
    /// Steps that failed and are not fatal, in words.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The request that took its place.
    #[serde(default)]
    pub superseded_by: Option<BuildId>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When this state must have been left (F24, F27, F36).
    pub deadline: Timestamp,
    /// What failed, in words, with the last lines that the step printed.
    pub error: Option<String>,
}

impl BuildRecord {
    /// A build that was asked for just now. `deadline` is when it must have begun.
    pub fn queued(
        repo: RepoName,
        trigger: Trigger,
        by: Option<String>,
        now: Timestamp,
        deadline: Timestamp,
    ) -> Self {
        Self {
            id: BuildId::new(),
            repo,
            state: BuildState::Queued,
            trigger,
            by,
            phase: None,
            phase_since: None,
            phases: Vec::new(),
            commit: None,
            decision: None,
            parent: None,
            base_digest: None,
            fingerprint: None,
            image: None,
            size: None,
            warnings: Vec::new(),
            superseded_by: None,
            created_at: now,
            started_at: None,
            ended_at: None,
            deadline,
            error: None,
        }
    }
}

/// The durable row of a repo of which something is left and that is not in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbsenceRecord {
    pub repo: RepoName,
    /// When it was first seen to be missing.
    pub since: Timestamp,
}

/// A push that was heard of and not looked at yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushNote {
    /// The newest that was announced.
    pub commit: CommitId,
    /// When the first and the last of them were.
    pub first: Timestamp,
    pub last: Timestamp,
}

/// The durable row of a repo's cadence: what of its schedule has been answered, how its builds went, what was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CadenceRecord {
    pub repo: RepoName,
    /// The tick that was last answered.
    pub last_tick: Option<Timestamp>,
    /// Builds that failed in a row, and when the last of them ended.
    pub failures: u32,
    pub last_failure: Option<Timestamp>,
    pub push: Option<PushNote>,
    /// When the row was first written.
    pub created_at: Timestamp,
}

impl CadenceRecord {
    pub fn new(repo: RepoName, now: Timestamp) -> Self {
        Self { repo, last_tick: None, failures: 0, last_failure: None, push: None, created_at: now }
    }
}
