//! Keys, and whose they are.

use domain::{AuditEntry, KeyRecord, Reach};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::Holder;

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// What people call it.
    pub name: String,
    /// `read-only`, `client`, `operator` or `admin`.
    pub role: String,
    /// The repos that it may use, `owner/name`; all of them when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repos: Option<Vec<String>>,
    /// How long it is good; until it is revoked when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_seconds: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeyView {
    pub id: String,
    pub name: String,
    /// `read-only`, `client`, `operator` or `admin`.
    pub role: String,
    /// The repos that it is limited to; null for all.
    pub repos: Option<Vec<String>>,
    pub created_at: Timestamp,
    /// The name of the key that it was made with.
    pub created_by: String,
    pub expires_at: Option<Timestamp>,
    /// To the minute, after a restart.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

fn repos(reach: &Reach) -> Option<Vec<String>> {
    reach.only().map(|repos| repos.iter().map(ToString::to_string).collect())
}

impl From<&KeyRecord> for KeyView {
    fn from(r: &KeyRecord) -> Self {
        Self {
            id: r.id.to_string(),
            name: r.name.clone(),
            role: r.role.to_string(),
            repos: repos(&r.reach),
            created_at: r.created_at,
            created_by: r.created_by.clone(),
            expires_at: r.expires_at,
            last_used_at: r.last_used_at,
            revoked_at: r.revoked_at,
        }
    }
}

/// A key that was made just now.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeKey {
    /// What to send as `Authorization: Bearer …`. It is shown here and never again.
    pub key: String,
    #[serde(flatten)]
    pub view: KeyView,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WhoView {
    pub name: String,
    /// Absent for the installation's own key and for tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    pub role: String,
    /// The repos that it is limited to; null for all.
    pub repos: Option<Vec<String>>,
    /// Who it is among people: the login of sessions. Of a token alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// When it opens nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
}

impl From<&Holder> for WhoView {
    fn from(h: &Holder) -> Self {
        Self {
            name: h.name.clone(),
            id: h.key().map(|id| id.to_string()),
            role: h.role.to_string(),
            repos: repos(&h.reach),
            login: h.person.as_ref().map(|p| p.login.clone()),
            expires_at: h.expires_at,
        }
    }
}

/// One line of the audit log.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuditView {
    /// Its number: they grow with time and are never given twice.
    pub seq: u64,
    pub at: Timestamp,
    /// The name of the key, `oidc:ISSUER#SUBJECT` of a token, or the client of a page's token; `(nobody)` where no key or token was accepted.
    pub who: String,
    /// Null for the installation's own key, for tokens and for pages.
    pub key: Option<String>,
    /// The user of the session that it was about; else who did it, where a token says so.
    pub user: Option<String>,
    /// Where the request came from: address and port, or `unix`.
    pub from: String,
    /// Method and route, as this description writes them.
    pub action: String,
    /// The path that was asked for, without its query.
    pub subject: String,
    /// The id of what came of it.
    pub made: Option<String>,
    /// `done`, `refused`, `denied` or `failed`.
    pub outcome: String,
    /// The HTTP status of the answer.
    pub status: u16,
    /// How many requests it stands for. The first refusal of a kind is a line of its own; those after it within a minute share one.
    pub times: u32,
}

impl AuditView {
    pub fn of(seq: u64, entry: &AuditEntry) -> Self {
        let outcome = entry.outcome().to_owned();
        let AuditEntry { at, who, key, user, from, action, subject, made, status, times } = entry.clone();
        Self {
            seq,
            at,
            who,
            key: key.map(|k| k.to_string()),
            user,
            from,
            action,
            subject,
            made,
            outcome,
            status,
            times,
        }
    }
}
