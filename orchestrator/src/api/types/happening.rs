//! Something that has happened, as it is streamed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::feed::{Happening, News};

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct HappeningView {
    /// Its number: they grow, across restarts, too.
    pub seq: u64,
    pub at: Timestamp,
    /// What it is: `session_started`, `build_ended`, …
    pub kind: String,
    pub repo: Option<String>,
    pub session: Option<String>,
    /// The id or name of what else it was about: a build, an image, a pull request, a task.
    pub subject: Option<String>,
    /// How it went, in one word or number.
    pub outcome: Option<String>,
    /// The same for people.
    pub words: String,
}

impl From<&Happening> for HappeningView {
    fn from(happening: &Happening) -> Self {
        let News { kind, repo, session, subject, outcome, words } = happening.news.clone();
        Self {
            seq: happening.seq,
            at: happening.at,
            kind: kind.as_str().into(),
            repo: repo.map(|r| r.to_string()),
            session: session.map(|s| s.to_string()),
            subject,
            outcome,
            words,
        }
    }
}
