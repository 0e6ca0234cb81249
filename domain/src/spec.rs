//! What the operator wants of each repo, after the configuration file has been read and checked. Policy crates
//! take these types and never see YAML.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Branch, Phases, RecipePart, RepoName, RepositoryFile, TreePath};

/// A configured repository: its recipe, pool policy and limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RepoSpec {
    pub name: RepoName,
    /// Where the git program clones from and pushes to: `https://…`, `http://…`, `ssh://…` or a path.
    pub url: String,
    /// The branch that images are built from and that sessions start from unless they say otherwise.
    pub branch: Branch,
    /// Where the tree lies inside a sandbox; absolute.
    pub workspace: String,
    pub image: Recipe,
    pub rollout: RolloutPolicy,
    pub pool: PoolPolicy,
    pub session: SessionPolicy,
    pub pushes: PushPolicy,
    pub pulls: PullPolicy,
    pub resources: Resources,
    pub network: Network,
}

/// What a session may push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PushPolicy {
    /// The largest file, in bytes.
    pub max_file: u64,
    /// What becomes of a push that brings what looks like a secret.
    pub secrets: OnSecret,
    /// Paths, as patterns, where such things are meant to be: the keys of tests.
    pub expected_in: Vec<String>,
}

impl Default for PushPolicy {
    /// GitHub takes no larger files.
    fn default() -> Self {
        Self { max_file: 100 << 20, secrets: OnSecret::Refuse, expected_in: Vec::new() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnSecret {
    Refuse,
    /// It is pushed, and said.
    Warn,
    /// Nobody looks.
    Allow,
}

/// What pull requests of a repo's sessions say. In both texts `{title}`, `{body}`, `{commits}`, `{session}`, `{user}`,
/// `{people}`, `{branch}` and `{base}` stand for what they name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullPolicy {
    pub title: String,
    pub body: String,
}

impl PullPolicy {
    /// What may stand in braces.
    pub const PLACES: [&str; 8] = ["title", "body", "commits", "session", "user", "people", "branch", "base"];
}

impl Default for PullPolicy {
    fn default() -> Self {
        Self { title: "{title}".into(), body: "{body}".into() }
    }
}

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Recipe {
    pub base: Base,
    /// Cron, five fields: when the tick looks at the branch.
    pub schedule: String,
    /// The IANA time zone that the schedule is meant in.
    pub timezone: String,
    /// What runs in builds, at starts and in sessions.
    pub phases: Phases,
    /// An image older than this is rebuilt even when nothing changed.
    pub max_age: Duration,
    /// How many images to keep, the current one included; at least 1.
    pub keep: u32,
    /// Environment of all build steps and of what runs for sessions. Not for secrets.
    pub env: BTreeMap<String, String>,
    /// What commands of builds may ask for by name, and where each is found. The values are read for each build.
    pub secrets: BTreeMap<String, SecretSource>,
    /// PEM files that go into the image's trust store.
    pub ca_certificates: Vec<PathBuf>,
    /// The longest one command may take that says nothing else.
    pub step_timeout: Duration,
    /// What the repository may say of its own image.
    pub repository_file: RepositoryFile,
}

impl Recipe {
    /// A recipe that only has a base; everything else as it is when nothing is configured.
    pub fn of(base: Base) -> Self {
        Self {
            base,
            schedule: "*/30 * * * *".into(),
            timezone: "UTC".into(),
            phases: Phases::default(),
            max_age: Duration::from_secs(24 * 3600),
            keep: 3,
            env: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ca_certificates: Vec::new(),
            step_timeout: Duration::from_secs(30 * 60),
            repository_file: RepositoryFile::default(),
        }
    }
}

/// How an image that passed its check comes to be what all sandboxes start from, and how it stops being that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RolloutPolicy {
    /// `None` makes it current at once.
    pub canary: Option<CanaryPolicy>,
    /// So many sandboxes in which it failed, within an hour, demote an image; 0 never does (F22).
    pub demote_after: u32,
}

impl Default for RolloutPolicy {
    fn default() -> Self {
        Self { canary: None, demote_after: 3 }
    }
}

/// A share of the sandboxes tries a new image first.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CanaryPolicy {
    /// Of members and of sessions: more than 0, less than 1.
    pub share: f64,
    /// It becomes current once so many sessions began well on it,
    pub sessions: u32,
    /// or after this time.
    pub longest: Duration,
}

/// Where a secret is found; never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretSource {
    /// An environment variable of Hotbed's own process.
    Env(String),
    /// A file of Hotbed's host.
    File(PathBuf),
}

/// Where an image starts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    /// An image reference, pulled when it is not there.
    Reference(String),
    /// A root filesystem made from the distribution's packages; needs no registry.
    Packages { suite: String, include: Vec<String> },
    /// Built by the engine from the repository's tree at the commit.
    Dockerfile(Dockerfile),
    /// What another tool's file in the repository says; its recipe lies under that of Hotbed's own files.
    Import(Import),
}

/// A Dockerfile in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dockerfile {
    pub path: TreePath,
    /// The directory that it copies from.
    pub context: TreePath,
    /// The stage that is built; the last one when not given.
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
}

/// Another tool's file in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Import {
    pub kind: ImportKind,
    pub path: TreePath,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImportKind {
    /// `devcontainer.json`.
    Devcontainer,
    /// `.cursor/environment.json`.
    Cursor,
    /// `.gitpod.yml`.
    Gitpod,
}

impl ImportKind {
    pub const ALL: [Self; 3] = [Self::Devcontainer, Self::Cursor, Self::Gitpod];

    /// Its key in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Devcontainer => "devcontainer",
            Self::Cursor => "cursor",
            Self::Gitpod => "gitpod",
        }
    }

    /// Where the tool itself looks for the file, in its order.
    pub fn places(self) -> &'static [&'static str] {
        match self {
            Self::Devcontainer => &[".devcontainer/devcontainer.json", ".devcontainer.json"],
            Self::Cursor => &[".cursor/environment.json"],
            Self::Gitpod => &[".gitpod.yml"],
        }
    }
}

/// What an import gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Imported {
    pub part: RecipePart,
    /// What the file says and Hotbed can't do, each in words with its line.
    pub unsupported: Vec<String>,
}

/// How many sandboxes of a repo are kept warm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolPolicy {
    /// Never fewer than this, but for a repo that is idle.
    pub min: u32,
    /// Never more than this.
    pub max: u32,
    /// The share of claims that shall find a warm sandbox; `None` keeps `min` whatever the traffic is.
    pub target_hit_rate: Option<f64>,
    /// Parts of the week that raise `min`.
    pub windows: Vec<Window>,
    /// A repo without a claim for this long keeps nothing warm.
    pub idle_after: Option<Duration>,
    /// A member older than this is replaced.
    pub member_max_age: Duration,
    /// How long a warm-up holds its member after the last keystroke.
    pub warmup_ttl: Duration,
    /// How long a move of the branch may stay unseen by waiting members, where no push announces it.
    pub fresh_within: Duration,
}

/// One member, no forecast: what a test or a benchmark changes from.
impl Default for PoolPolicy {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            target_hit_rate: None,
            windows: Vec::new(),
            idle_after: None,
            member_max_age: Duration::from_secs(6 * 3600),
            warmup_ttl: Duration::from_secs(120),
            fresh_within: Duration::from_secs(60),
        }
    }
}

/// A part of the week that raises a pool's `min`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The days on which it begins, Monday first.
    pub days: [bool; 7],
    /// Minutes after midnight by the zone's own clock. Where `to` is not after `from` it ends on the next day.
    pub from: u16,
    pub to: u16,
    /// A time zone of the IANA database.
    pub zone: String,
    /// What `min` is raised to.
    pub min: u32,
}

/// What all sandboxes together may use; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes.
    pub memory: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_millis: Option<u64>,
    /// How many there may be.
    pub sandboxes: Option<u64>,
}

/// When a session ends without being asked to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionPolicy {
    /// From the claim to the end, whatever happens.
    pub timeout: Duration,
    /// Without a request or a running command for this long, it ends; `None` means never.
    pub idle_end: Option<Duration>,
    /// The branch a session works on; `{session}` is replaced by the session's short id.
    pub branch_pattern: String,
    /// How long git sync may take before the gate's wait ends in `failed`.
    pub sync_timeout: Duration,
}

/// What one sandbox may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resources {
    /// Thousandths of a CPU.
    pub cpu_millis: u32,
    /// Bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// What a sandbox can reach besides Hotbed itself, which it always reaches through its agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// Nothing.
    None,
    /// A bridge of Hotbed's own, without traffic between sandboxes.
    Bridge,
    /// An existing network of the engine, by name.
    Named(String),
}

/// The person a session works for. Commits carry this name and address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The forge's account name.
    pub login: String,
    /// Name on commits.
    pub name: String,
    /// Address on commits.
    pub email: String,
}
