//! Who may use the API: what somebody may do, and with which repos.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{KeyId, RepoName};

/// What the holder of a key may do. Each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look: states, logs, metrics. No file of a session and no output of a command.
    ReadOnly,
    /// Work: announce, start and use sessions, take snapshots, open pull requests, sign users in.
    Client,
    /// Run it: builds, images, pools.
    Operator,
    /// Say who may: keys, and what was done with them.
    Admin,
}

impl Role {
    pub const ALL: [Self; 4] = [Self::ReadOnly, Self::Client, Self::Operator, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Client => "client",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no role: expected read-only, client, operator or admin"))
    }
}

/// Which repos somebody may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// All there are and will be, and what concerns the installation as a whole.
    #[default]
    All,
    /// These, and nothing else.
    Only(BTreeSet<RepoName>),
}

impl Reach {
    pub fn covers(&self, repo: &RepoName) -> bool {
        match self {
            Self::All => true,
            Self::Only(repos) => repos.contains(repo),
        }
    }

    /// The repos, where they are counted.
    pub fn only(&self) -> Option<&BTreeSet<RepoName>> {
        match self {
            Self::All => None,
            Self::Only(repos) => Some(repos),
        }
    }
}

/// The durable row of an API key. The key itself is shown once and kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub id: KeyId,
    /// What people call it; of the keys that are in force no two have the same.
    pub name: String,
    pub role: Role,
    pub reach: Reach,
    /// SHA-256 of the key, in hexadecimal. A key has 256 random bits, so nothing slower would make it safer.
    pub hash: String,
    pub created_at: Timestamp,
    /// The name of the key that it was made with.
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    /// To the minute; written behind.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

impl KeyRecord {
    pub fn is_good(&self, now: Timestamp) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_those_before_it_may() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().unwrap_err().contains("expected read-only"));
    }

    #[test]
    fn a_reach_of_some_covers_no_other() {
        let (api, web): (RepoName, RepoName) = ("acme/api".parse().unwrap(), "acme/web".parse().unwrap());
        assert!(Reach::All.covers(&api));
        let some = Reach::Only([api.clone()].into());
        assert!(some.covers(&api) && !some.covers(&web));
        assert!(!Reach::Only(BTreeSet::new()).covers(&api));
    }
}
