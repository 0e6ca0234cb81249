//! What GitHub's answers say, read leniently: only what Hotbed uses, whatever else is or is not there.

use domain::ports::PullRequestView;
use domain::{Branch, CommitId, Error, PullRequestState, Result};
use jiff::Timestamp;
use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct InstallationRef {
    pub id: u64,
    #[serde(default)]
    pub permissions: std::collections::HashMap<String, String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct UserRef {
    pub id: u64,
    pub login: String,
    #[serde(default)]
    pub name: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct RepositoryBody {
    pub id: u64,
    pub full_name: String,
    #[serde(default)]
    pub default_branch: Option<String>,
    #[serde(default)]
    pub private: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PullBody {
    pub number: u64,
    pub html_url: String,
    pub state: String,
    #[serde(default)]
    pub draft: bool,
    #[serde(default)]
    pub merged: Option<bool>,
    #[serde(default)]
    pub merged_at: Option<Timestamp>,
    #[serde(default)]
    pub title: String,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(default)]
    pub user: Option<Login>,
    pub head: Side,
    pub base: Side,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Login {
    pub login: String,
    #[serde(default)]
    pub id: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Side {
    #[serde(rename = "ref")]
    pub branch: String,
    pub sha: String,
}

impl PullBody {
    pub fn state(&self) -> PullRequestState {
        if self.merged == Some(true) || self.merged_at.is_some() {
            PullRequestState::Merged
        } else if self.state == "closed" {
            PullRequestState::Closed
        } else {
            PullRequestState::Open
        }
    }

    pub fn head_commit(&self) -> Result<CommitId> {
        self.head.sha.parse().map_err(|e| odd(self.number, e))
    }

    pub fn view(&self) -> Result<PullRequestView> {
        let branch = |side: &Side| side.branch.parse::<Branch>().map_err(|e| odd(self.number, e));
        Ok(PullRequestView {
            number: self.number,
            url: self.html_url.clone(),
            state: self.state(),
            draft: self.draft,
            title: self.title.clone(),
            body: self.body.clone(),
            // An account that was deleted has no name any more.
            author: self.user.as_ref().map_or("ghost", |u| &u.login).to_owned(),
            head: branch(&self.head)?,
            head_commit: self.head_commit()?,
            base: branch(&self.base)?,
            opened_at: self.created_at,
            updated_at: self.updated_at,
            merged_at: self.merged_at,
        })
    }
}

fn odd(number: u64, e: domain::NameError) -> Error {
    Error::permanent(format!("GitHub shows pull request {number} in a way that is not understood"))
        .caused_by(e)
}
