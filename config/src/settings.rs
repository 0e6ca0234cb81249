//! What Hotbed itself is told by the configuration, as types without YAML. What concerns a repo is
//! [`domain::RepoSpec`].

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use domain::{Budget, Role, SecretSource};
use serde::Serialize;

use crate::values::ListenAddress;

/// Everything that is not about one repo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Settings {
    /// Where the API listens.
    pub listen: ListenAddress,
    pub tls: Option<TlsSettings>,
    /// Hotbed's own files; absolute when the directory of the configuration file is.
    pub state_dir: PathBuf,
    /// The Docker engine: the one backend of this version.
    pub docker: DockerSettings,
    pub registry: Option<RegistrySettings>,
    pub forge: ForgeSettings,
    /// What all sandboxes together may use.
    pub budget: Budget,
    pub builds: BuildSettings,
    pub access: AccessSettings,
    pub quotas: QuotaSettings,
    pub warmups: WarmupSettings,
    pub retention: RetentionSettings,
    /// `None` where nothing is traced.
    pub tracing: Option<TracingSettings>,
}

/// Where spans are sent.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TracingSettings {
    /// The whole address.
    pub endpoint: String,
    pub service_name: String,
    /// Above 0, at most 1.
    pub sample: f64,
    /// Traces a second, at least 1.
    pub per_second: u32,
    /// By their names, in lower case.
    pub headers: BTreeMap<String, SecretSource>,
}

/// Where images are pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RegistrySettings {
    /// What the names of pushed images begin with: `host[:port]/path`.
    pub push: String,
    /// A user, and where the password is found.
    pub login: Option<(String, SecretSource)>,
}

/// A Docker engine; `None` leaves the choice to the adapter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct DockerSettings {
    /// `unix:///path` or `tcp://host:port`.
    pub host: Option<String>,
    /// The OCI runtime of all sandboxes.
    pub runtime: Option<String>,
    /// The name of the network that is made for `domain::Network::Bridge`. Not acted on by this version.
    pub network: Option<String>,
}

/// Where pull requests are opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ForgeSettings {
    /// Hotbed's own record.
    Local,
    /// A GitHub App.
    Github(Box<GithubSettings>),
}

/// A GitHub App, and where its GitHub is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GithubSettings {
    pub app_id: u64,
    pub private_key: SecretSource,
    /// The newest first.
    pub webhook_secrets: Vec<SecretSource>,
    /// Without a slash at the end, as the others.
    pub api_url: String,
    pub web_url: String,
    pub git_url: String,
    /// `None` where nobody signs in.
    pub users: Option<GithubUsers>,
}

/// How users sign in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GithubUsers {
    pub client_id: String,
    pub client_secret: Option<SecretSource>,
    pub vault_key: SecretSource,
}

/// How this host builds images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BuildSettings {
    /// Builds that run at once, over all repos; at least 1.
    pub at_once: u32,
}

impl Default for BuildSettings {
    fn default() -> Self {
        Self { at_once: 2 }
    }
}

/// Where the API's certificate and its key are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsSettings {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Who may use the API, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AccessSettings {
    /// Requests a second, by one holder.
    pub per_second: u32,
    /// Whose web pages may call the API.
    pub origins: Vec<String>,
    pub oidc: Vec<OidcSettings>,
}

impl Default for AccessSettings {
    fn default() -> Self {
        Self { per_second: 1000, origins: Vec::new(), oidc: Vec::new() }
    }
}

/// A provider whose tokens are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OidcSettings {
    /// `https`, or on this machine.
    pub issuer: String,
    pub audiences: Vec<String>,
    pub algorithms: Vec<SigningAlgorithm>,
    /// Where its keys are, when it is not asked for them.
    pub jwks: Option<PathBuf>,
    pub roles: Vec<RoleRule>,
    pub repos_claim: Option<String>,
    pub name_claim: String,
    pub user: UserRule,
    pub leeway: Duration,
}

/// Gives a role to whoever has one of the values in a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleRule {
    /// Its name; dots lead into it.
    pub claim: String,
    pub values: Vec<String>,
    pub role: Role,
}

/// Whose word on the user of a session counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UserRule {
    Claim,
    Request,
}

/// What tokens are signed with: always a pair of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum SigningAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// How much one user and one repo may hold at a time; `None` is not limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QuotaSettings {
    pub sessions_per_user: Option<u32>,
    pub sessions_per_repo: Option<u32>,
    pub warmups_per_repo: Option<u32>,
}

/// What warm-ups may use, and which web pages may announce them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WarmupSettings {
    /// Live at a time.
    pub live: u32,
    /// Announcements a second, by one key.
    pub per_second: u32,
    pub origins: Vec<String>,
}

/// How long what is over is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RetentionSettings {
    pub build_log_age: Duration,
    pub build_logs: u32,
    pub session_log_age: Duration,
    pub session_logs: u32,
    pub audit_age: Duration,
    pub audit_entries: u32,
    /// What is left of repos that are no longer configured.
    pub removed_repos: Duration,
}

impl Default for RetentionSettings {
    fn default() -> Self {
        let days = |n: u64| Duration::from_secs(n * 24 * 3600);
        Self {
            build_log_age: days(30),
            build_logs: 5_000,
            session_log_age: days(90),
            session_logs: 20_000,
            audit_age: days(365),
            audit_entries: 1_000_000,
            removed_repos: days(7),
        }
    }
}
