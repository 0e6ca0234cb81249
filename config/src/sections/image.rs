//! How images are made, tried and kept.

use domain::{RecipeKey, RepositoryFile, RolloutPolicy, Winner};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BaseSection, written};
use crate::phases::{PhaseKeys, PhaseSection, ServiceSection};
use crate::values::{Env, FilePath, Period, Rate, Schedule, Secrets, Zone};

/// How images are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "image")]
pub(crate) struct ImageSection {
    /// Where an image starts. Needed, here or in `defaults`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<BaseSection>,
    /// When the tick looks at the branch: cron, five fields; `@daily` and the like. Repos with one schedule are spread over up to 15 minutes after it.
    pub schedule: Schedule,
    /// The time zone that the schedule is meant in.
    pub timezone: Zone,
    /// Run on a full build, after the clone; the first failure fails the build.
    pub setup: PhaseSection,
    /// Run on every build; make them safe to repeat. On a full build, one that `setup` has in the same words is left out.
    pub update: PhaseSection,
    /// Fill caches: the first build and test run. A failure is recorded; it fails the build where the command is `required`.
    pub warm: PhaseSection,
    /// Must succeed in a sandbox booted from the new image, whose services are ready.
    pub verify: PhaseSection,
    /// Run once per session, after its git sync and before its writes may begin. A failure is stated in the session and does not end it.
    pub prepare: PhaseSection,
    /// Run at each start of a sandbox, before the services.
    pub start: PhaseSection,
    /// Programs that run as long as the sandbox does.
    pub services: Vec<ServiceSection>,
    /// An image older than this is rebuilt even when nothing changed.
    pub max_age: Period,
    /// How many images to keep, the current one included.
    #[schemars(range(min = 1))]
    pub keep: u32,
    /// A share of the sandboxes tries a new image first. Without it an image is current once it has passed its check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanarySection>,
    /// An image that fails in so many sandboxes within an hour, where its services don't come up or its own `prepare` fails, is demoted, and the one before it is current again. `0` never does that.
    pub demote_after: u32,
    /// The longest that one command may take that has no `timeout` of its own.
    pub step_timeout: Period,
    /// Environment of build steps and of what runs for sessions. It ends up in images: not for secrets.
    pub env: Env,
    /// Secrets of builds by name, each `{ env: … }` or `{ file: … }`. A command gets those that it names, as environment variables. Another value makes another image.
    pub secrets: Secrets,
    /// PEM files that go into the image's trust store.
    pub ca_certificates: Vec<FilePath>,
    /// What the repository may say of its own image, in its `.hotbed.yaml`.
    pub repository_file: RepositoryFileSection,
}

impl Default for ImageSection {
    fn default() -> Self {
        Self {
            base: None,
            schedule: written("*/30 * * * *"),
            timezone: Zone::default(),
            setup: PhaseSection::default(),
            update: PhaseSection::default(),
            warm: PhaseSection::default(),
            verify: PhaseSection::default(),
            prepare: PhaseSection::default(),
            start: PhaseSection::default(),
            services: Vec::new(),
            max_age: Period::hours(24),
            keep: 3,
            canary: None,
            demote_after: RolloutPolicy::default().demote_after,
            step_timeout: Period::minutes(30),
            env: Env::default(),
            secrets: Secrets::default(),
            ca_certificates: Vec::new(),
            repository_file: RepositoryFileSection::default(),
        }
    }
}

/// How a new image is tried before it is current.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "canary")]
pub(crate) struct CanarySection {
    /// The share of sandboxes and sessions that try it: more than 0, less than 1. A pool of one is too small for a share: there only cold starts try it.
    pub share: Rate,
    /// It becomes current once so many sessions began well on it,
    #[schemars(range(min = 1))]
    pub sessions: u32,
    /// or after this time, when it has not been demoted. Meanwhile the tick builds no other.
    pub longest: Period,
}

impl Default for CanarySection {
    fn default() -> Self {
        Self { share: Rate(0.2), sessions: 5, longest: Period::minutes(20) }
    }
}

/// What a repository may say of its own image, in a file `.hotbed.yaml` at its root. It is read at the commit that is built.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "repository_file")]
pub(crate) struct RepositoryFileSection {
    /// Whether the file is looked at.
    pub read: bool,
    /// Whose word counts where both set a key. What is not used is named in the build's log.
    pub wins: WinnerSection,
    /// What it may set; anything else in it fails the build. `secrets` lets its commands name secrets, `base` lets it choose where the image starts.
    pub may_set: Vec<RecipeKeySection>,
}

impl Default for RepositoryFileSection {
    fn default() -> Self {
        let may_set = RepositoryFile::default().may_set.into_iter().map(RecipeKeySection).collect();
        Self { read: true, wins: WinnerSection::Operator, may_set }
    }
}

impl RepositoryFileSection {
    pub fn settings(&self) -> RepositoryFile {
        RepositoryFile {
            read: self.read,
            wins: match self.wins {
                WinnerSection::Operator => Winner::Operator,
                WinnerSection::Repository => Winner::Repository,
            },
            may_set: self.may_set.iter().map(|k| k.0).collect(),
        }
    }
}

/// Whose word counts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum WinnerSection {
    /// What hotbed.yaml says.
    Operator,
    /// What the repository says.
    Repository,
}

/// A part of a recipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RecipeKeySection(pub RecipeKey);

impl crate::values::Text for RecipeKeySection {
    const EXPECTED: &'static str = "a part of a recipe: `base`, `env`, `secrets`, `setup`, `update`, `warm`, `verify`, `prepare`, `start` or `services`";

    fn parse(text: &str) -> Result<Self, crate::de::Reason> {
        let key = RecipeKey::ALL.into_iter().find(|k| k.as_str() == text);
        key.map(Self).ok_or_else(|| crate::values::not(text, "a part of a recipe"))
    }
}

impl std::fmt::Display for RecipeKeySection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.as_str())
    }
}

crate::values::text_values! {
    RecipeKeySection, "recipe-key", "string";
}

impl ImageSection {
    pub fn phases(&self) -> PhaseKeys<'_> {
        PhaseKeys {
            setup: &self.setup,
            update: &self.update,
            warm: &self.warm,
            verify: &self.verify,
            prepare: &self.prepare,
            start: &self.start,
            services: &self.services,
        }
    }
}
