//! What leaves a session: pushes and pull requests.

use domain::{OnSecret, PullPolicy, PushPolicy};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::written;
use crate::values::{ByteSize, PullText, TreePattern};

/// What a session may push. It is looked at before upstream sees it; what is refused stays in the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "pushes")]
pub(crate) struct PushesSection {
    /// The largest file. GitHub takes none over 100MiB.
    pub max_file: ByteSize,
    /// What becomes of a push that brings what looks like a secret: a private key, a token in its issuer's form.
    pub secrets: OnSecretSection,
    /// Where such things are meant to be, such as `tests/keys/**`.
    pub expected_in: Vec<TreePattern>,
}

impl Default for PushesSection {
    fn default() -> Self {
        let PushPolicy { max_file, .. } = PushPolicy::default();
        Self { max_file: ByteSize(max_file), secrets: OnSecretSection::Refuse, expected_in: Vec::new() }
    }
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub(crate) enum OnSecretSection {
    /// It is refused as a whole, with file, line and kind.
    Refuse,
    /// It is pushed, and said.
    Warn,
    /// Nobody looks.
    Allow,
}

impl PushesSection {
    pub fn settings(&self) -> PushPolicy {
        PushPolicy {
            max_file: self.max_file.0,
            secrets: match self.secrets {
                OnSecretSection::Refuse => OnSecret::Refuse,
                OnSecretSection::Warn => OnSecret::Warn,
                OnSecretSection::Allow => OnSecret::Allow,
            },
            expected_in: self.expected_in.iter().map(|pattern| pattern.0.clone()).collect(),
        }
    }
}

/// What pull requests say. In both texts `{title}` and `{body}` stand for what was asked for, or drawn from the commits and the repository's `pull_request_template.md`; `{commits}`, `{session}`, `{user}`, `{people}`, `{branch}` and `{base}` for what they name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "pull_requests")]
pub(crate) struct PullRequestsSection {
    /// The title.
    pub title: PullText,
    /// The text below it.
    pub body: PullText,
}

impl Default for PullRequestsSection {
    fn default() -> Self {
        let PullPolicy { title, body } = PullPolicy::default();
        Self { title: written(&title), body: written(&body) }
    }
}

impl PullRequestsSection {
    pub fn settings(&self) -> PullPolicy {
        PullPolicy { title: self.title.0.clone(), body: self.body.0.clone() }
    }
}
