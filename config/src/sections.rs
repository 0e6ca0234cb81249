//! The shape of `hotbed.yaml`: its sections, keys and defaults. The doc comments are the reference and the schema.

use domain::{
    Base, Dockerfile, Import, ImportKind, RecipeKey, RepositoryFile, RolloutPolicy, TreePath, Winner,
};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Serialize};

use crate::phases::{PhaseKeys, PhaseSection, ServiceSection};
use crate::values::{
    BranchName, BranchPattern, ByteSize, Cpus, Days, DockerHost, Env, FilePath, GitUrl, HostPattern, Hours,
    HttpUrl, ImageReference, ListenAddress, Needle, NetworkName, Origin, PackageName, Period, Rate, Repo,
    RuntimeName, Schedule, SecretRef, Secrets, SetName, Suite, TreeFile, Workspace, Zone, parse,
};

/// The default of a key, parsed from what one would write. A test reads every default, so none can fail later.
fn written<T: crate::values::Text>(text: &str) -> T {
    match parse(text) {
        Ok(value) => value,
        Err(reason) => unreachable!("the default `{text}`: {reason}"),
    }
}

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "hotbed.yaml")]
pub(crate) struct File {
    /// Where the API listens: an address and port, or `unix:/path` (owner and group may connect). Every route but health and readiness needs an API key; the connection itself is not encrypted. A change needs a restart.
    #[serde(default = "default_listen")]
    pub listen: ListenAddress,
    /// Hotbed's own files: database, session logs, mirrors, sockets. A relative path is below the directory of this file. A change needs a restart.
    #[serde(default = "default_state_dir")]
    pub state_dir: FilePath,
    /// What sandboxes run on. A change needs a restart.
    #[serde(default)]
    pub backend: BackendSection,
    /// Where images are pushed, for other hosts and for this one when it has lost them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<RegistrySection>,
    /// Where pull requests are opened: `local`, or `{ github: … }`. A change needs a restart.
    #[serde(default)]
    pub forge: ForgeSection,
    /// What all sandboxes together may use: sessions and builds first, then warm-ups, then pools.
    #[serde(default)]
    pub budget: BudgetSection,
    /// How this host builds images.
    #[serde(default)]
    pub builds: BuildsSection,
    /// How long what is over is kept.
    #[serde(default)]
    pub retention: RetentionSection,
    /// What announcements of sessions may use, and who may make them.
    #[serde(default)]
    pub warmups: WarmupsSection,
    /// PEM files that go into the trust store of every image, before those of the repo.
    #[serde(default)]
    pub ca_certificates: Vec<FilePath>,
    /// What repos get that do not say otherwise. Mappings merge key by key, anything else is replaced; `base` and `network` are replaced as a whole.
    #[serde(default)]
    pub defaults: DefaultsSection,
    /// The repositories.
    pub repos: Vec<RepoSection>,
}

fn default_listen() -> ListenAddress {
    written("127.0.0.1:7070")
}
fn default_state_dir() -> FilePath {
    written("/var/lib/hotbed")
}

/// What sandboxes run on: exactly one of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "backend")]
pub(crate) enum BackendSection {
    /// A Docker engine.
    Docker(DockerSection),
    /// A Kubernetes cluster. Refused by this version.
    Kubernetes(KubernetesSection),
}

impl Default for BackendSection {
    fn default() -> Self {
        Self::Docker(DockerSection::default())
    }
}

/// A Docker engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "docker")]
pub(crate) struct DockerSection {
    /// The engine's address. When not given: `DOCKER_HOST`, `/var/run/docker.sock`, then the socket of a rootless engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<DockerHost>,
    /// The OCI runtime of all sandboxes; the engine's own default when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeName>,
    /// The name of the network that is made for `network: bridge`. Not acted on by this version, which names it after the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<NetworkName>,
}

/// A Kubernetes cluster. Refused by this version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "kubernetes")]
pub(crate) struct KubernetesSection {
    /// Where the pods are.
    pub namespace: SetName,
}

/// Where images are pushed, for other hosts and for this one when it has lost them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "registry")]
pub(crate) struct RegistrySection {
    /// What the images' names begin with: `HOST/PATH`. The repo's name is added, and the image's id as tag.
    pub push: ImageReference,
    /// Who pushes and pulls there; nobody in particular when not given.
    #[serde(default)]
    pub user: Option<String>,
    /// The user's password or token.
    #[serde(default)]
    pub password: Option<SecretRef>,
}

/// Where pull requests are opened: one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "forge")]
pub(crate) enum ForgeSection {
    /// Hotbed's own record of pull requests; nothing leaves the host but git.
    #[default]
    Local,
    /// GitHub, or GitHub Enterprise Server: a GitHub App that is installed on every repo.
    Github(Box<GithubSection>),
}

/// A GitHub App. It reads the repositories and hears of them by webhooks (`POST /v1/webhooks/github`); what is pushed and opened is the user's own. Every repo's `url` is its address there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "github")]
pub(crate) struct GithubSection {
    /// The App's id.
    #[schemars(range(min = 1))]
    pub app_id: u64,
    /// The App's private key, PEM.
    pub private_key: SecretRef,
    /// The secret that webhooks are signed with.
    pub webhook_secret: SecretRef,
    /// The secret before, which is good as well while the two are exchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_webhook_secret: Option<SecretRef>,
    /// The address of the API. Of GitHub Enterprise Server: `https://HOST/api/v3`.
    #[serde(default = "default_api_url")]
    pub api_url: HttpUrl,
    /// The address of the web site: sign-in and pages.
    #[serde(default = "default_web_url")]
    pub web_url: HttpUrl,
    /// The address of git over HTTP; `web_url` when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_url: Option<HttpUrl>,
    /// How users sign in. Without it only tokens that a client hands over with a session push and open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<GithubUsersSection>,
}

/// How users sign in: by device (`hotbed login`), by the web, or with a personal access token. What they sign in with is sealed in the state directory, under a key that lies elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "github users")]
pub(crate) struct GithubUsersSection {
    /// The App's client id.
    #[schemars(length(min = 1))]
    pub client_id: String,
    /// The App's client secret. The sign-in by the web needs it, the one by device does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<SecretRef>,
    /// What tokens are sealed with: 32 bytes, base64 or hexadecimal, as `openssl rand -base64 32` makes them. Several, one a line: the first one seals, all open.
    pub vault_key: SecretRef,
}

fn default_api_url() -> HttpUrl {
    written("https://api.github.com")
}
fn default_web_url() -> HttpUrl {
    written("https://github.com")
}

/// What all sandboxes together may use. What is not given is not limited. Sessions and builds come first; pools share what they leave, where one more sandbox saves most waiting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "budget")]
pub(crate) struct BudgetSection {
    /// Memory of all sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processors of all sandboxes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// How many sandboxes there may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sandboxes: Option<u32>,
}

/// How this host builds images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "builds")]
pub(crate) struct BuildsSection {
    /// Builds that run at once, over all repos; of one repo there is never more than one.
    #[schemars(range(min = 1, max = 64))]
    pub at_once: u32,
}

impl Default for BuildsSection {
    fn default() -> Self {
        Self { at_once: 2 }
    }
}

/// How long what is over is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "retention")]
pub(crate) struct RetentionSection {
    /// Logs of builds, counted from their end. That of the build of an image that is kept stays.
    pub build_log_age: Period,
    /// How many logs of builds there may be; the oldest go first.
    pub build_logs: u32,
    /// Logs of sessions, counted from their end. That of a session with an open pull request stays.
    pub session_log_age: Period,
    /// How many logs of sessions there may be; the oldest that have ended go first.
    pub session_logs: u32,
    /// Images, snapshots and mirror of a repo that is no longer configured, counted from when it was first missing. They stay while one of its sessions lives, and pinned images stay until they are unpinned.
    pub removed_repos: Period,
}

impl Default for RetentionSection {
    fn default() -> Self {
        Self {
            build_log_age: written("30d"),
            build_logs: 5_000,
            session_log_age: written("90d"),
            session_logs: 20_000,
            removed_repos: written("7d"),
        }
    }
}

/// What announcements of sessions (warm-ups) may use, and who may make them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "warmups")]
pub(crate) struct WarmupsSection {
    /// How many may be live at a time, over all repos; each holds a sandbox. More are told to come back.
    #[schemars(range(max = 10000))]
    pub live: u32,
    /// How many announcements a second one API key, or one page's token, may make.
    #[schemars(range(min = 1))]
    pub per_second: u32,
    /// Origins whose web pages may announce from the browser, with a token made by `POST /v1/warmups/tokens`. None: no page may.
    pub origins: Vec<Origin>,
}

impl Default for WarmupsSection {
    fn default() -> Self {
        Self { live: 64, per_second: 2000, origins: Vec::new() }
    }
}

/// What repos get that do not say otherwise.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "defaults")]
pub(crate) struct DefaultsSection {
    /// The branch that images are built from and that sessions start from unless they say otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<BranchName>,
    /// Where the tree lies in a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// How images are made.
    #[serde(default)]
    pub image: ImageSection,
    /// How many sandboxes are kept warm.
    #[serde(default)]
    pub pool: PoolSection,
    /// When sessions end, and what they work on.
    #[serde(default)]
    pub session: SessionSection,
    /// What one sandbox may use.
    #[serde(default)]
    pub resources: ResourcesSection,
    /// What a sandbox can reach.
    #[serde(default)]
    pub network: NetworkSection,
}

/// One repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "repo")]
pub(crate) struct RepoSection {
    /// `owner/name`. Each name once; case makes no difference.
    #[schemars(required)]
    pub name: Option<Repo>,
    /// Where git clones from and pushes to. Never with a user, password or token.
    #[schemars(required)]
    pub url: Option<GitUrl>,
    /// The branch that images are built from and that sessions start from unless they say otherwise.
    #[serde(default = "default_branch")]
    pub branch: BranchName,
    /// Where the tree lies in a sandbox.
    #[serde(default = "default_workspace")]
    pub workspace: Workspace,
    /// How images are made.
    #[serde(default)]
    pub image: ImageSection,
    /// How many sandboxes are kept warm.
    #[serde(default)]
    pub pool: PoolSection,
    /// When sessions end, and what they work on.
    #[serde(default)]
    pub session: SessionSection,
    /// What one sandbox may use.
    #[serde(default)]
    pub resources: ResourcesSection,
    /// What a sandbox can reach besides Hotbed itself.
    #[serde(default)]
    pub network: NetworkSection,
}

fn default_branch() -> BranchName {
    written("main")
}
fn default_workspace() -> Workspace {
    written("/workspace")
}

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

/// Where an image starts: an image reference, or one of the made ones.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "base")]
pub(crate) enum BaseSection {
    /// An image reference, pulled when it is not there.
    Reference(ImageReference),
    Made(MadeBase),
}

/// A base that is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "made_base")]
pub(crate) enum MadeBase {
    /// A root filesystem of a distribution's packages; needs no registry.
    Packages(PackagesSection),
    /// A Dockerfile in the repository, built by the engine from the tree at the commit. Its path, or more.
    Dockerfile(DockerfileChoice),
    /// A `devcontainer.json` in the repository: its image or Dockerfile, environment and commands. `hotbed recipe import` shows what it gives.
    Devcontainer(TreeFile),
    /// A `.cursor/environment.json` in the repository, likewise.
    Cursor(TreeFile),
    /// A `.gitpod.yml` in the repository, likewise.
    Gitpod(TreeFile),
}

/// A Dockerfile: its path, or with what it needs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub(crate) enum DockerfileChoice {
    Path(TreeFile),
    Full(DockerfileSection),
}

/// A Dockerfile in the repository.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "dockerfile")]
pub(crate) struct DockerfileSection {
    /// Where it lies.
    pub path: TreeFile,
    /// The directory that it copies from. `.` is the repository's root. What its `.dockerignore` names is left out.
    #[serde(default = "root_of_tree")]
    pub context: TreeFile,
    /// The stage that is built; the last one when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Needle>,
    /// Arguments of the build. They end up in the image's history: not for secrets.
    #[serde(default)]
    pub args: Env,
}

fn root_of_tree() -> TreeFile {
    written(".")
}

impl<'de> Deserialize<'de> for DockerfileChoice {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct DockerfileVisitor;
        impl<'de> Visitor<'de> for DockerfileVisitor {
            type Value = DockerfileChoice;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a path in the repository, or `{ path: …, context: …, target: …, args: … }`")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<DockerfileChoice, E> {
                parse(text).map(DockerfileChoice::Path).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DockerfileChoice, A::Error> {
                DockerfileSection::deserialize(MapAccessDeserializer::new(map)).map(DockerfileChoice::Full)
            }
        }
        d.deserialize_any(DockerfileVisitor)
    }
}

impl DockerfileChoice {
    fn dockerfile(&self) -> Dockerfile {
        match self {
            Self::Path(path) => Dockerfile {
                path: path.0.clone(),
                context: TreePath::root(),
                target: None,
                args: Default::default(),
            },
            Self::Full(full) => Dockerfile {
                path: full.path.0.clone(),
                context: full.context.0.clone(),
                target: full.target.as_ref().map(|t| t.0.clone()),
                args: full.args.0.clone(),
            },
        }
    }
}

/// A root filesystem of a distribution's packages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "packages")]
pub(crate) struct PackagesSection {
    /// The suite.
    pub suite: Suite,
    /// Packages besides the minimal system. `git` is needed in a sandbox.
    #[serde(default)]
    pub include: Vec<PackageName>,
}

impl BaseSection {
    pub fn base(&self) -> Base {
        match self {
            Self::Reference(reference) => Base::Reference(reference.0.clone()),
            Self::Made(MadeBase::Packages(PackagesSection { suite, include })) => Base::Packages {
                suite: suite.0.clone(),
                include: include.iter().map(|p| p.0.clone()).collect(),
            },
            Self::Made(MadeBase::Dockerfile(choice)) => Base::Dockerfile(choice.dockerfile()),
            Self::Made(MadeBase::Devcontainer(file)) => import_of(ImportKind::Devcontainer, file),
            Self::Made(MadeBase::Cursor(file)) => import_of(ImportKind::Cursor, file),
            Self::Made(MadeBase::Gitpod(file)) => import_of(ImportKind::Gitpod, file),
        }
    }
}

fn import_of(kind: ImportKind, file: &TreeFile) -> Base {
    Base::Import(Import { kind, path: file.0.clone() })
}

impl<'de> Deserialize<'de> for BaseSection {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct BaseVisitor;
        const EXPECTED: &str =
            "an image reference such as `debian:bookworm`, or `{ packages: { suite: …, include: […] } }`";
        impl<'de> Visitor<'de> for BaseVisitor {
            type Value = BaseSection;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(EXPECTED)
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<BaseSection, E> {
                parse(text).map(BaseSection::Reference).map_err(E::custom)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<BaseSection, A::Error> {
                let made = MadeBase::deserialize(MapAccessDeserializer::new(&mut map))?;
                match map.next_key::<String>()? {
                    None => Ok(BaseSection::Made(made)),
                    Some(_) => Err(de::Error::custom("a base is one thing, and here stand two")),
                }
            }
        }
        d.deserialize_any(BaseVisitor)
    }
}

/// How many sandboxes are kept warm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "pool")]
pub(crate) struct PoolSection {
    /// Never fewer than this, while the budget has room and the repo is not idle. Without `target_hit_rate` it is what is kept.
    #[schemars(range(max = 10000))]
    pub min: u32,
    /// Never more than this.
    #[schemars(range(max = 10000))]
    pub max: u32,
    /// The share of sessions that should find a warm sandbox: more than 0, less than 1. With it the pool follows the repo's traffic between `min` and `max`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_hit_rate: Option<Rate>,
    /// Parts of the week that raise `min`. The time zone of the first one also says what "the same hour of earlier weeks" is.
    pub schedule: Vec<WindowSection>,
    /// A warm sandbox older than this is replaced.
    pub member_max_age: Period,
    /// How long a warm-up holds its sandbox after the last keystroke.
    pub warmup_ttl: Period,
    /// How often upstream is asked whether the branch has moved while sandboxes wait, so that they follow it. Each look is a fetch; an announced push needs none.
    pub fresh_within: Period,
    /// A repo without a session for this long keeps no warm sandboxes, until somebody comes or an operator orders some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_after: Option<Period>,
}

impl Default for PoolSection {
    fn default() -> Self {
        Self {
            min: 1,
            max: 10,
            target_hit_rate: None,
            schedule: Vec::new(),
            member_max_age: Period::hours(6),
            warmup_ttl: Period::minutes(2),
            fresh_within: Period::minutes(1),
            idle_after: None,
        }
    }
}

/// A part of the week that raises a pool's `min`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "window")]
pub(crate) struct WindowSection {
    /// The days.
    #[serde(default)]
    pub days: Days,
    /// The part of the day; over midnight where the end is before the start.
    pub hours: Hours,
    /// Whose days and hours these are.
    #[serde(default)]
    pub timezone: Zone,
    /// What `min` is raised to.
    #[schemars(range(max = 10000))]
    pub min: u32,
}

/// When sessions end, and what they work on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "session")]
pub(crate) struct SessionSection {
    /// A session ends this long after its claim, whatever happens.
    pub timeout: Period,
    /// What idleness leads to.
    pub idle: IdleSection,
    /// The branch that a session works on; `{session}` is replaced by its short id.
    pub branch_pattern: BranchPattern,
    /// How long git sync may take before the write gate's wait ends in a failure.
    pub sync_timeout: Period,
}

impl Default for SessionSection {
    fn default() -> Self {
        Self {
            timeout: Period::hours(4),
            idle: IdleSection::default(),
            branch_pattern: written("hotbed/{session}"),
            sync_timeout: Period::seconds(60),
        }
    }
}

/// What idleness (no request, no running command) leads to. What is not given does not happen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "idle")]
pub(crate) struct IdleSection {
    /// The sandbox is paused after this long. Not acted on by this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<Period>,
    /// The session ends after this long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<Period>,
}

/// What one sandbox may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "resources")]
pub(crate) struct ResourcesSection {
    /// Processors.
    pub cpus: Cpus,
    /// Memory; without swap. At least 64MiB.
    pub memory: ByteSize,
    /// Processes and threads.
    #[schemars(range(min = 32))]
    pub pids: u32,
}

impl Default for ResourcesSection {
    fn default() -> Self {
        Self { cpus: Cpus(2000), memory: ByteSize(4 << 30), pids: 1024 }
    }
}

/// What a sandbox can reach besides Hotbed itself: one of these.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "network")]
pub(crate) enum NetworkSection {
    /// Nothing.
    None,
    /// Everything the host reaches, on a network of Hotbed's own, without traffic between sandboxes.
    #[default]
    Bridge,
    /// An existing network of the engine, by name.
    Use(NetworkName),
    /// Only these hosts. Refused by this version, which can't enforce it.
    Egress(Vec<HostPattern>),
}
