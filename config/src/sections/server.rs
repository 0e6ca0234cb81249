//! What the server as a whole has: its backend, registry, budget, and how long it keeps what is over.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written;
use crate::values::{
    ByteSize, Cpus, DockerHost, FilePath, Headers, HttpUrl, ImageReference, NetworkName, Origin, Period,
    RuntimeName, SecretRef, ServiceName, SetName, Share,
};

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
    /// Lines of the audit log.
    pub audit_age: Period,
    /// How many lines the audit log may have; the oldest go first.
    pub audit_entries: u32,
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
            audit_age: written("365d"),
            audit_entries: 1_000_000,
            removed_repos: written("7d"),
        }
    }
}

/// TLS for the API: 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tls")]
pub(crate) struct TlsSection {
    /// A PEM file with the server's certificate and those between it and its authority. A relative path is below the directory of this file.
    pub certificate: FilePath,
    /// A PEM file with its private key, readable by Hotbed's user alone.
    pub key: FilePath,
}

/// Where spans are sent: what was done for one request, from the announcement of a session to its pull request, here and in the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "tracing")]
pub(crate) struct TracingSection {
    /// An OpenTelemetry collector that takes OTLP over HTTP, as protobuf: `http://collector:4318`. `/v1/traces` is added where the address has no path.
    pub endpoint: HttpUrl,
    /// What the traces are shown under.
    #[serde(default = "default_service_name")]
    pub service_name: ServiceName,
    /// The share of traces that begin here which is kept. A client that sends `traceparent` decides for its own.
    #[serde(default = "default_sample")]
    pub sample: Share,
    /// How many traces a second are kept at most, whoever began them.
    #[serde(default = "default_traces_per_second")]
    #[schemars(range(min = 1))]
    pub per_second: u32,
    /// Headers that the collector asks for, by name, such as `authorization`. Each is a secret.
    #[serde(default)]
    pub headers: Headers,
}

fn default_service_name() -> ServiceName {
    written("hotbed")
}
fn default_sample() -> Share {
    Share(1.0)
}
fn default_traces_per_second() -> u32 {
    50
}

/// How much one user and one repo may hold at a time. What is not given is not limited. Who is refused gets 503 and when to come back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "quotas")]
pub(crate) struct QuotasSection {
    /// Live sessions of one user, over all repos; a session is live until it has ended and was captured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sessions_per_user: Option<u32>,
    /// Live sessions of one repo.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub sessions_per_repo: Option<u32>,
    /// Live warm-ups of one repo.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub warmups_per_repo: Option<u32>,
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
