//! Where pull requests are opened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written;
use crate::values::{HttpUrl, SecretRef};

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
