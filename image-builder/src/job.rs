//! What a build is given and what it answers: the job, the port to the world, the outcome and the failure.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{AgentLink, Captured};
use domain::{
    Branch, BuildId, CommitId, Digest, Error, ErrorKind, ImageId, ImageRecord, Phase, PhaseReport, Purpose,
    RepoName, RepoSpec, Result, SandboxId,
};
use jiff::Timestamp;

use crate::recipe::CommitRecipe;
use crate::redact::BuildSecret;

/// A build to run.
#[derive(Debug, Clone)]
pub struct BuildJob {
    pub build: BuildId,
    /// The id that the image will have.
    pub image: ImageId,
    pub spec: RepoSpec,
    /// The repo's current image, as of now.
    pub current: Option<ImageRecord>,
    /// Builds of the repo that failed in a row.
    pub failures: u32,
    /// The contents of `ca_certificates`, in their order.
    pub ca_certificates: Vec<Vec<u8>>,
    /// What commands may ask for by name.
    pub secrets: Vec<BuildSecret>,
    /// The protocol of the agent that sandboxes are started with.
    pub agent_protocol: u32,
    pub now: Timestamp,
    pub limits: Limits,
}

/// How long things may take. A step's commands have `step_timeout` of the recipe, each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub resolve: Duration,
    pub base: Duration,
    /// Until the agent has answered.
    pub boot: Duration,
    pub sync: Duration,
    pub capture: Duration,
    /// One call of the agent, or one report of progress.
    pub call: Duration,
    /// One release or discard.
    pub release: Duration,
    /// The whole build, cleaning up excepted.
    pub total: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        Self {
            resolve: minutes(5),
            base: minutes(30),
            boot: minutes(3),
            sync: minutes(15),
            capture: minutes(15),
            call: Duration::from_secs(30),
            release: minutes(1),
            total: minutes(180),
        }
    }
}

/// What the builder needs of the world. Calls have deadlines of their own; the builder's [`Limits`] stand behind
/// them, and where one of those passes the call is dropped.
#[async_trait]
pub trait Workshop: Send + Sync {
    /// Brings the mirror up to date and answers the tip of the branch.
    async fn resolve(&self, repo: &RepoName, branch: &Branch) -> Result<CommitId>;

    /// The recipe of `commit`: the operator's, with what the repository says of its own image, and what is imported
    /// from another tool's file. Its base is none that is still to be imported. `NotFound`, or `Invalid` with file,
    /// line and column of each thing that is wrong.
    async fn recipe(&self, spec: &RepoSpec, commit: &CommitId) -> Result<CommitRecipe>;

    /// Makes or pulls the base, and says in the log what it does where that takes long. Never asked for an import.
    async fn base(&self, spec: &RepoSpec, commit: &CommitId, log: &dyn BuildLog) -> Result<Captured>;

    /// Writes the row of `sandbox`, starts it from `source` and waits for its agent. The gate is open.
    async fn boot(
        &self,
        sandbox: SandboxId,
        source: &Digest,
        purpose: Purpose,
        spec: &RepoSpec,
    ) -> Result<Arc<dyn AgentLink>>;

    /// Captures the sandbox under the name of `image`; `env` and the workspace as working directory go into the
    /// capture's configuration.
    async fn capture(
        &self,
        sandbox: SandboxId,
        image: ImageId,
        spec: &RepoSpec,
        env: &BTreeMap<String, String>,
    ) -> Result<Captured>;

    /// Ends a sandbox. Called for each that [`Workshop::boot`] was called with, also where that failed or was
    /// dropped; what is not there is fine.
    async fn release(&self, sandbox: SandboxId);

    /// Removes what was captured under the name of `image`. Called after the release, whenever a capture was begun
    /// and the build failed; `captured` is `None` where the answer was lost (F23).
    async fn discard(&self, image: ImageId, captured: Option<&Captured>);

    /// A phase has begun (`None`) or ended, well or not.
    async fn phase(&self, build: &BuildId, phase: Phase, report: Option<PhaseReport>);
}

/// Where a build's log goes while it is written. Never waits: what can't be kept is dropped.
pub trait BuildLog: Send + Sync {
    fn write(&self, bytes: &[u8]);
}

/// How a build ended, when it did not fail.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildOutcome {
    /// The current image is what a build would have made. See [`crate::verified`].
    Unchanged { commit: CommitId, phases: Vec<PhaseReport> },
    /// An image that has passed its check. See [`crate::promote`].
    Built(Built),
}

/// A captured and checked image.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    pub image: ImageId,
    pub commit: CommitId,
    pub captured: Captured,
    pub fingerprint: String,
    pub base_digest: Digest,
    /// The image it was built on.
    pub parent: Option<ImageId>,
    /// What was decided, in words.
    pub decision: String,
    pub agent_version: String,
    pub phases: Vec<PhaseReport>,
    /// Steps that failed and are not fatal, in words.
    pub warnings: Vec<String>,
}

/// Why a build failed. `Display` is one line; [`BuildFailure::report`] has the output too.
#[derive(Debug)]
pub struct BuildFailure {
    pub phase: Phase,
    pub kind: ErrorKind,
    /// What happened, in words.
    pub what: String,
    /// The command that failed, where it was one.
    pub command: Option<String>,
    pub exit_code: Option<i32>,
    /// The last lines that it printed.
    pub tail: Vec<String>,
    /// The commit that was being built, once it was known.
    pub commit: Option<CommitId>,
    pub phases: Vec<PhaseReport>,
    pub source: Option<Error>,
}

impl BuildFailure {
    /// The one line, the causes and the last lines: for the build's record.
    pub fn report(&self) -> String {
        let mut out = self.to_string();
        if let Some(source) = &self.source {
            out += ": ";
            out += &source.chain();
        }
        for line in &self.tail {
            out += "\n  ";
            out += line;
        }
        out
    }
}

impl fmt::Display for BuildFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.phase.as_str(), self.what)
    }
}

impl std::error::Error for BuildFailure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|e| e as _)
    }
}
