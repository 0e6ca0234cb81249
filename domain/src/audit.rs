//! What somebody did, for who has to know later.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::KeyId;

/// One line of the audit log. It holds no secret and no body of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// The name of the key, or the client of a page's token; `(nobody)` where nobody was recognised.
    pub who: String,
    /// Absent for the installation's own key and for pages.
    pub key: Option<KeyId>,
    /// The user of the session that it was about.
    pub user: Option<String>,
    /// Where the request came from: address and port, or `unix`.
    pub from: String,
    /// Method and route, as the API's description writes them.
    pub action: String,
    /// The path that was asked for, without its query.
    pub subject: String,
    /// The id of what came of it.
    pub made: Option<String>,
    /// The HTTP status of the answer.
    pub status: u16,
    /// How many requests it stands for: refusals of a kind share a line.
    #[serde(default = "once")]
    pub times: u32,
}

/// Lines that were written before there was a count.
fn once() -> u32 {
    1
}

impl AuditEntry {
    /// How it ended, in a word.
    pub fn outcome(&self) -> &'static str {
        match self.status {
            ..400 => "done",
            401 | 403 => "denied",
            400..500 => "refused",
            _ => "failed",
        }
    }
}
