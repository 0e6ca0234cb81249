//! What runs, when, and as whom: the phases of a recipe. Each is a list of commands; an image build runs some of
//! them, each start of a sandbox and each session others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Base, CommitId, RepoSpec};

/// A shell command of a phase, with what it needs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// A line for `sh -c`.
    pub run: String,
    /// The longest it may take; the recipe's `step_timeout` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// Its environment, over the recipe's. Not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Names of the recipe's secrets that it gets as environment variables. Only commands of builds get any.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// The account in the sandbox that it runs as, a name or a number; root when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Where it runs; relative to the workspace, which it is when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    /// In `update` only: paths in the repository, with `*`, `?` and `**`. Where git sync of a session changes one of
    /// them, the command runs in the session, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// In `warm` only: its failure fails the build.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
}

impl Command {
    /// A plain line.
    pub fn new(run: impl Into<String>) -> Self {
        Self { run: run.into(), ..Self::default() }
    }

    /// Where it runs, as an absolute path.
    pub fn directory(&self, workspace: &str) -> String {
        directory(self.workdir.as_deref(), workspace)
    }

    /// Whether both do the same, whenever they do it.
    pub fn same_deed(&self, other: &Self) -> bool {
        let plain = |c: &Self| Self { timeout: None, inputs: Vec::new(), required: false, ..c.clone() };
        plain(self) == plain(other)
    }
}

impl From<&str> for Command {
    fn from(run: &str) -> Self {
        Self::new(run)
    }
}

/// A program that runs as long as its sandbox does: a database, a development server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Names it in logs; each once.
    pub name: String,
    /// A line for `sh -c` that stays in the foreground.
    pub run: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    pub ready: Ready,
    /// Where false, nothing waits for it, and its end is no failure.
    #[serde(default = "yes")]
    pub required: bool,
}

fn yes() -> bool {
    true
}

impl Default for Service {
    fn default() -> Self {
        Self {
            name: String::new(),
            run: String::new(),
            env: BTreeMap::new(),
            user: None,
            workdir: None,
            ready: Ready::default(),
            required: true,
        }
    }
}

impl Service {
    /// Where it runs, as an absolute path.
    pub fn directory(&self, workspace: &str) -> String {
        directory(self.workdir.as_deref(), workspace)
    }
}

/// When a service is ready: all that is given must hold. Where nothing is, it is ready when it has been started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// A shell command that must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// A TCP port of the sandbox that must take connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// A text that a line of its output must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// From its start until all of that holds.
    pub timeout: Duration,
}

impl Ready {
    pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
}

impl Default for Ready {
    fn default() -> Self {
        Self { command: None, port: None, log: None, timeout: Self::DEFAULT_TIMEOUT }
    }
}

/// What runs at each stage of an image's and a sandbox's life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Phases {
    /// On a full build, after the clone; the first failure fails the build.
    pub setup: Vec<Command>,
    /// On every build; and in a session, where its git sync changed the `inputs` of a command.
    pub update: Vec<Command>,
    /// Fills caches: the first build and test run. A failure is recorded, and fatal where it is `required`.
    pub warm: Vec<Command>,
    /// Must succeed in a sandbox booted from the new image.
    pub verify: Vec<Command>,
    /// Once per session, when its tree is there and before its writes may begin.
    pub prepare: Vec<Command>,
    /// At each start of a sandbox.
    pub start: Vec<Command>,
    /// Run as long as the sandbox does, from each start on.
    pub services: Vec<Service>,
}

impl Phases {
    /// The commands of every phase that consists of commands, with the phase's key.
    pub fn commands(&self) -> impl Iterator<Item = (&'static str, &Command)> {
        let Self { setup, update, warm, verify, prepare, start, services: _ } = self;
        let all = [
            ("setup", setup),
            ("update", update),
            ("warm", warm),
            ("verify", verify),
            ("prepare", prepare),
            ("start", start),
        ];
        all.into_iter().flat_map(|(key, list)| list.iter().map(move |command| (key, command)))
    }
}

/// What a file in the repository says about its image: any part of a recipe. What is empty is not set.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RecipePart {
    pub base: Option<Base>,
    pub env: BTreeMap<String, String>,
    pub phases: Phases,
}

/// A part of a recipe that a repository may be let set. The words are the keys of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RecipeKey {
    Base,
    Env,
    /// Not a key of the file: its commands may name secrets.
    Secrets,
    Setup,
    Update,
    Warm,
    Verify,
    Prepare,
    Start,
    Services,
}

impl RecipeKey {
    pub const ALL: [Self; 10] = [
        Self::Base,
        Self::Env,
        Self::Secrets,
        Self::Setup,
        Self::Update,
        Self::Warm,
        Self::Verify,
        Self::Prepare,
        Self::Start,
        Self::Services,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Env => "env",
            Self::Secrets => "secrets",
            Self::Setup => "setup",
            Self::Update => "update",
            Self::Warm => "warm",
            Self::Verify => "verify",
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Services => "services",
        }
    }
}

/// Whose word counts where both have set a key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Winner {
    #[default]
    Operator,
    Repository,
}

/// What the operator lets a repository say of its own image, in its `.hotbed.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryFile {
    /// Whether the file is looked at.
    pub read: bool,
    pub wins: Winner,
    /// Setting anything else is an error.
    pub may_set: BTreeSet<RecipeKey>,
}

impl RepositoryFile {
    /// Where the file lies.
    pub const PATH: &str = ".hotbed.yaml";
}

/// Everything that only runs in the repository's own sandboxes; neither where it starts nor which secrets it gets.
impl Default for RepositoryFile {
    fn default() -> Self {
        let theirs = |key: &RecipeKey| !matches!(key, RecipeKey::Base | RecipeKey::Secrets);
        Self {
            read: true,
            wins: Winner::Operator,
            may_set: RecipeKey::ALL.into_iter().filter(theirs).collect(),
        }
    }
}

/// Where an image says what runs in the sandboxes that are started from it.
pub const IMAGE_NOTE: &str = "/etc/hotbed/image.json";

/// What an image says of itself, in the file [`IMAGE_NOTE`] within it: a sandbox that is started from it, or from a
/// snapshot of such a sandbox, on whichever host, has with its files what belongs to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageNote {
    /// [`ImageNote::FORMAT`] of the Hotbed that wrote it.
    pub format: u32,
    /// The commit whose `update` was done last in this tree.
    pub commit: CommitId,
    pub workspace: String,
    /// The longest a command may take that says nothing else.
    pub step_timeout: Duration,
    /// `update`, `prepare`, `start` and `services`; what only builds do is not in it.
    pub phases: Phases,
}

impl ImageNote {
    /// Grows when an older reader would do the wrong thing.
    pub const FORMAT: u32 = 1;

    pub fn new(spec: &RepoSpec, commit: &CommitId) -> Self {
        let Phases { update, prepare, start, services, setup: _, warm: _, verify: _ } = &spec.image.phases;
        // What names no input is done in builds only, and what gets a secret may be done in no other place.
        let update = update.iter().filter(|c| !c.inputs.is_empty() && c.secrets.is_empty()).cloned();
        Self {
            format: Self::FORMAT,
            commit: commit.clone(),
            workspace: spec.workspace.clone(),
            step_timeout: spec.image.step_timeout,
            phases: Phases {
                update: update.collect(),
                prepare: prepare.clone(),
                start: start.clone(),
                services: services.clone(),
                ..Phases::default()
            },
        }
    }

    /// The longest that a start may take until its services are ready.
    pub fn start_limit(&self) -> Duration {
        let starts = self.phases.start.iter().map(|c| c.timeout.unwrap_or(self.step_timeout));
        let services = self.phases.services.iter().map(|s| s.ready.timeout);
        // The file may come from a session's snapshot, so its numbers are a user's.
        starts.chain(services).fold(Duration::ZERO, Duration::saturating_add).min(Self::MAX_START)
    }

    const MAX_START: Duration = Duration::from_secs(30 * 60);

    /// Whether anything runs at a start.
    pub fn starts_something(&self) -> bool {
        !(self.phases.start.is_empty() && self.phases.services.is_empty())
    }
}

fn directory(workdir: Option<&str>, workspace: &str) -> String {
    match workdir {
        None => workspace.to_owned(),
        Some(absolute) if absolute.starts_with('/') => absolute.to_owned(),
        Some(below) => format!("{workspace}/{below}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_command_is_short_in_json_too() {
        let command = Command::new("make");
        let json = serde_json::to_string(&command).unwrap();
        assert_eq!(json, r#"{"run":"make"}"#);
        assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command);
    }

    #[test]
    fn directories() {
        let at = |workdir: Option<&str>| {
            Command { workdir: workdir.map(Into::into), ..Command::default() }.directory("/workspace")
        };
        assert_eq!(at(None), "/workspace");
        assert_eq!(at(Some("web")), "/workspace/web");
        assert_eq!(at(Some("/opt")), "/opt");
    }
}
