//! The shape of `hotbed.yaml`: its sections, keys and defaults. The doc comments are the reference and the schema.

mod access;
mod base;
mod forge;
mod image;
mod out;
mod sandbox;
mod server;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::access::{AccessSection, OidcSection, RoleRuleSection};
pub(crate) use self::base::{BaseSection, DockerfileSection, PackagesSection};
pub(crate) use self::forge::{ForgeSection, GithubSection, GithubUsersSection};
pub(crate) use self::image::{CanarySection, ImageSection, RepositoryFileSection};
pub(crate) use self::out::{PullRequestsSection, PushesSection};
pub(crate) use self::sandbox::{
    IdleSection, NetworkSection, PoolSection, ResourcesSection, SessionSection, WindowSection,
};
pub(crate) use self::server::{
    BackendSection, BudgetSection, BuildsSection, DockerSection, KubernetesSection, QuotasSection,
    RegistrySection, RetentionSection, TlsSection, TracingSection, WarmupsSection,
};
use crate::values::{BranchName, FilePath, GitUrl, ListenAddress, Repo, Workspace, parse};

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
    /// Where the API listens: an address and port, or `unix:/path` (owner and group may connect). Every route but health and readiness needs an API key; the connection itself is encrypted with `tls`. A change needs a restart.
    #[serde(default = "default_listen")]
    pub listen: ListenAddress,
    /// TLS for the API, where it listens on an address and port. Whether there is any, and which files, needs a restart; what is in them is read again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSection>,
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
    /// Who may use the API, and how often.
    #[serde(default)]
    pub access: AccessSection,
    /// How much one user and one repo may hold at a time.
    #[serde(default)]
    pub quotas: QuotasSection,
    /// What announcements of sessions may use, and who may make them.
    #[serde(default)]
    pub warmups: WarmupsSection,
    /// Where spans are sent; nowhere when not given. A change needs a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSection>,
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
    /// What a session may push.
    #[serde(default)]
    pub pushes: PushesSection,
    /// What pull requests say.
    #[serde(default)]
    pub pull_requests: PullRequestsSection,
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
    /// What a session may push.
    #[serde(default)]
    pub pushes: PushesSection,
    /// What pull requests say.
    #[serde(default)]
    pub pull_requests: PullRequestsSection,
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
