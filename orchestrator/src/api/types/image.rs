//! Repos, their builds and their images.

use domain::{BuildRecord, ImageRecord};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{PoolView, word};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBuild {
    /// Who asks, for the record: at most 200 bytes, in whatever words.
    #[serde(default)]
    pub by: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PhaseView {
    pub phase: String,
    pub seconds: f64,
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BuildView {
    pub id: String,
    pub repo: String,
    /// `queued`, `running`, `succeeded`, `unchanged`, `failed` or `superseded`.
    pub state: String,
    /// `schedule`, `push`, `api` or `missing`: what asked for it.
    pub trigger: String,
    /// Who asked, in the caller's own words.
    pub by: Option<String>,
    /// What was decided: a full build and why, a build on another image, nothing.
    pub decision: Option<String>,
    /// The phase it is in or ended in.
    pub phase: Option<String>,
    /// Seconds in that phase, while it runs.
    pub phase_seconds: Option<f64>,
    pub phases: Vec<PhaseView>,
    /// Seconds from its start until its end, or until now.
    pub elapsed_seconds: Option<f64>,
    pub commit: Option<String>,
    /// The image that it was built on; absent for a full build.
    pub parent: Option<String>,
    pub base_digest: Option<String>,
    pub fingerprint: Option<String>,
    /// What it made, or found unchanged.
    pub image: Option<String>,
    /// Bytes of the image, all layers.
    pub size: Option<u64>,
    /// Steps that failed without failing the build.
    pub warnings: Vec<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When its present state must have been left; it is given up then.
    pub deadline: Timestamp,
    /// The newer request that took its place.
    pub superseded_by: Option<String>,
    pub error: Option<String>,
}

impl BuildView {
    /// As it stands at `now`.
    pub fn at(now: Timestamp, r: &BuildRecord) -> Self {
        let until = r.ended_at.unwrap_or(now);
        let since = |at: Timestamp| until.duration_since(at).as_secs_f64().max(0.0);
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: r.state.as_str().into(),
            trigger: r.trigger.as_str().into(),
            by: r.by.clone(),
            decision: r.decision.clone(),
            phase: r.phase.map(|p| p.as_str().into()),
            phase_seconds: r.phase_since.filter(|_| !r.state.is_end()).map(since),
            phases: r
                .phases
                .iter()
                .map(|p| PhaseView {
                    phase: p.phase.as_str().into(),
                    seconds: p.seconds,
                    exit_code: p.exit_code,
                })
                .collect(),
            elapsed_seconds: r.started_at.map(since),
            commit: r.commit.as_ref().map(ToString::to_string),
            parent: r.parent.map(|i| i.to_string()),
            base_digest: r.base_digest.as_ref().map(ToString::to_string),
            fingerprint: r.fingerprint.clone(),
            image: r.image.map(|i| i.to_string()),
            size: r.size,
            warnings: r.warnings.clone(),
            created_at: r.created_at,
            started_at: r.started_at,
            ended_at: r.ended_at,
            deadline: r.deadline,
            superseded_by: r.superseded_by.map(|b| b.to_string()),
            error: r.error.clone(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    pub id: String,
    pub repo: String,
    /// `candidate`, `canary`, `current`, `superseded`, `rejected`, `demoted` or `removing`.
    pub state: String,
    pub digest: String,
    pub commit: String,
    pub branch: String,
    pub generation: u64,
    pub build: String,
    /// The image that it was built on; absent for a full build.
    pub parent: Option<String>,
    pub base_digest: String,
    /// Of what it was made of: recipe, base, certificates.
    pub fingerprint: String,
    pub agent_version: String,
    /// Bytes, all layers.
    pub size: u64,
    /// Kept by an operator.
    pub pinned: bool,
    /// Where a registry has it: `repository@digest`.
    pub registry: Option<String>,
    /// Sandboxes in which it failed since it was promoted, the latest of them, oldest first.
    #[serde(default)]
    pub failures: Vec<ImageFailureView>,
    /// Sessions that began well on it while it was a canary.
    pub went_well: u32,
    pub created_at: Timestamp,
    pub verified_at: Timestamp,
}

/// An image's services did not come up in a sandbox, or its `prepare` failed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageFailureView {
    pub at: Timestamp,
    pub sandbox: String,
    /// Absent for a member of the pool that nobody had claimed.
    pub session: Option<String>,
    pub why: String,
}

impl From<&domain::ImageFailure> for ImageFailureView {
    fn from(f: &domain::ImageFailure) -> Self {
        Self {
            at: f.at,
            sandbox: f.sandbox.to_string(),
            session: f.session.map(|s| s.to_string()),
            why: f.why.clone(),
        }
    }
}

/// Something that the collector would remove.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RemovalView {
    /// `image`, `snapshot`, `mirror`, `build_log` or `session_log`.
    pub kind: String,
    pub id: String,
    pub repo: String,
    pub size: Option<u64>,
}

impl From<&ImageRecord> for ImageView {
    fn from(r: &ImageRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: word(&r.state),
            digest: r.digest.to_string(),
            commit: r.commit.to_string(),
            branch: r.branch.to_string(),
            generation: r.generation,
            build: r.build.to_string(),
            parent: r.parent.map(|i| i.to_string()),
            base_digest: r.base_digest.to_string(),
            fingerprint: r.fingerprint.clone(),
            agent_version: r.agent_version.clone(),
            size: r.size,
            pinned: r.pinned,
            registry: r.shipped.as_ref().map(domain::Shipped::reference),
            failures: r.failures.iter().map(ImageFailureView::from).collect(),
            went_well: r.went_well,
            created_at: r.created_at,
            verified_at: r.verified_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepoView {
    pub name: String,
    pub url: String,
    pub branch: String,
    pub image: Option<ImageView>,
    /// The image that is tried by a share of the sandboxes.
    pub canary: Option<ImageView>,
    /// Seconds since the current image was captured.
    pub image_age_seconds: Option<i64>,
    /// Commits that the branch has and the image has not, as of the last look; only where one repo is read.
    pub commits_behind: Option<u32>,
    pub pool: Option<PoolView>,
    /// The build that runs or waits.
    pub build: Option<BuildView>,
}
