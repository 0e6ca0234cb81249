//! Who may use the API: keys' rates, pages of other origins, tokens of an identity provider.

use domain::Role;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written;
use crate::settings::{OidcSettings, RoleRule, SigningAlgorithm, UserRule};
use crate::values::{FilePath, IssuerUrl, Origin, Period};

/// Who may use the API, and how often. Keys are made with `hotbed key create`; the installation's own is `api.key` in `state_dir`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "access")]
pub(crate) struct AccessSection {
    /// How many requests a second one key (or one person with a token) may make, a second's worth at once. The installation's own key is not held to it.
    #[schemars(range(min = 1))]
    pub per_second: u32,
    /// Origins whose web pages may call the whole API from a browser, with a key or token that they have. None: no page may. A page of `warmups.origins` may announce and nothing else.
    pub origins: Vec<Origin>,
    /// Identity providers whose tokens are taken beside keys (`Authorization: Bearer …`). None: no token is.
    pub oidc: Vec<OidcSection>,
}

impl Default for AccessSection {
    fn default() -> Self {
        Self { per_second: 1000, origins: Vec::new(), oidc: Vec::new() }
    }
}

/// An OpenID Connect provider. A token of it is taken when its signature, `iss`, `aud`, `exp`, `nbf` and `iat` are right and a rule gives it a role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "oidc")]
pub(crate) struct OidcSection {
    /// What `iss` says, to the letter. Its keys are found through `/.well-known/openid-configuration` below it.
    pub issuer: IssuerUrl,
    /// Whom a token must be for: one of these is in `aud`.
    #[schemars(length(min = 1))]
    pub audiences: Vec<String>,
    /// What a token may be signed with. Never nothing, never a shared secret.
    #[serde(default = "default_algorithms")]
    #[schemars(length(min = 1))]
    pub algorithms: Vec<AlgorithmSection>,
    /// A file with the provider's public keys (JWKS), read again when it changes, where it can't be asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<FilePath>,
    /// What gives a role. Of the rules that fit the highest role counts; where none does the token opens nothing.
    #[schemars(length(min = 1))]
    pub roles: Vec<RoleRuleSection>,
    /// The claim that lists the repos its holder may use, `owner/name` each; where a token has none, it may use none. An `admin` is not held to it. Not given: all repos.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repos_claim: Option<String>,
    /// The claim that says who somebody is: the login of sessions, and so what quotas count. It must be one that its holder can't choose, for what is signed in at the forge is found by it.
    #[serde(default = "default_name_claim")]
    #[schemars(length(min = 1))]
    pub name_claim: String,
    /// Whose sessions a holder with the role `client` may start: his own (`claim`), or those of whomever a request names (`request`).
    #[serde(default)]
    pub user: UserRuleSection,
    /// How far clocks may be apart.
    #[serde(default = "default_leeway")]
    pub leeway: Period,
}

/// What a token is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum AlgorithmSection {
    /// RSA, PKCS 1.5, SHA-256.
    RS256,
    /// RSA, PKCS 1.5, SHA-384.
    RS384,
    /// RSA, PKCS 1.5, SHA-512.
    RS512,
    /// RSA, PSS, SHA-256.
    PS256,
    /// RSA, PSS, SHA-384.
    PS384,
    /// RSA, PSS, SHA-512.
    PS512,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl AlgorithmSection {
    fn settings(self) -> SigningAlgorithm {
        match self {
            Self::RS256 => SigningAlgorithm::Rs256,
            Self::RS384 => SigningAlgorithm::Rs384,
            Self::RS512 => SigningAlgorithm::Rs512,
            Self::PS256 => SigningAlgorithm::Ps256,
            Self::PS384 => SigningAlgorithm::Ps384,
            Self::PS512 => SigningAlgorithm::Ps512,
            Self::ES256 => SigningAlgorithm::Es256,
            Self::ES384 => SigningAlgorithm::Es384,
            Self::EdDSA => SigningAlgorithm::EdDsa,
        }
    }
}

/// Gives a role to whoever has one of the values in a claim.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "role_rule")]
pub(crate) struct RoleRuleSection {
    /// The claim: a text, or a list of texts; of `scope` and `scp` each word counts. A claim within a claim is written with dots: `realm_access.roles`.
    #[schemars(length(min = 1))]
    pub claim: String,
    /// Its values, to the letter; one is enough.
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
    /// The role.
    pub role: RoleSection,
}

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub(crate) enum RoleSection {
    /// Look.
    ReadOnly,
    /// Work: sessions.
    Client,
    /// Run it: builds, images, pools.
    Operator,
    /// Say who may.
    Admin,
}

impl RoleSection {
    fn role(self) -> Role {
        match self {
            Self::ReadOnly => Role::ReadOnly,
            Self::Client => Role::Client,
            Self::Operator => Role::Operator,
            Self::Admin => Role::Admin,
        }
    }
}

/// Whose word on the user of a session counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum UserRuleSection {
    /// The token's.
    #[default]
    Claim,
    /// The request's.
    Request,
}

fn default_algorithms() -> Vec<AlgorithmSection> {
    vec![AlgorithmSection::RS256, AlgorithmSection::ES256, AlgorithmSection::EdDSA]
}
fn default_name_claim() -> String {
    "preferred_username".into()
}
fn default_leeway() -> Period {
    written("60s")
}

impl OidcSection {
    /// The keys that must not be empty, each with what is empty in it.
    pub fn empty(&self) -> Vec<&'static str> {
        let blank = |texts: &[String]| texts.is_empty() || texts.iter().any(|t| t.trim().is_empty());
        let mut out = Vec::new();
        for (key, wrong) in [
            ("audiences", blank(&self.audiences)),
            ("algorithms", self.algorithms.is_empty()),
            (
                "roles",
                self.roles.is_empty()
                    || self.roles.iter().any(|r| r.claim.trim().is_empty() || blank(&r.values)),
            ),
            ("repos_claim", self.repos_claim.as_ref().is_some_and(|c| c.trim().is_empty())),
            ("name_claim", self.name_claim.trim().is_empty()),
        ] {
            if wrong {
                out.push(key);
            }
        }
        out
    }

    pub fn settings(&self, resolve: impl Fn(&FilePath) -> std::path::PathBuf) -> OidcSettings {
        OidcSettings {
            issuer: self.issuer.0.clone(),
            audiences: self.audiences.clone(),
            algorithms: self.algorithms.iter().map(|a| a.settings()).collect(),
            jwks: self.jwks.as_ref().map(resolve),
            roles: self
                .roles
                .iter()
                .map(|r| RoleRule { claim: r.claim.clone(), values: r.values.clone(), role: r.role.role() })
                .collect(),
            repos_claim: self.repos_claim.clone(),
            name_claim: self.name_claim.clone(),
            user: match self.user {
                UserRuleSection::Claim => UserRule::Claim,
                UserRuleSection::Request => UserRule::Request,
            },
            leeway: self.leeway.0,
        }
    }
}
