//! Something that has happened, as it is streamed.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::feed::{Happening, News};

/// One server-sent event of the whole installation, as it is framed.
#[derive(ToSchema)]
#[allow(dead_code)] // read by the description alone
pub struct HappeningFrame {
    /// The number; `Last-Event-ID` takes it. `lost` has none.
    #[schema(nullable = false)]
    id: Option<String>,
    /// The kind, or `lost`.
    event: String,
    /// A `HappeningView`, or the `LostView` of `lost`, as JSON.
    #[schema(content_media_type = "application/json")]
    data: String,
}

/// That what came behind `after` and before `next` is no longer remembered: the `data` of the event `lost`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LostView {
    pub after: u64,
    pub next: u64,
}

/// Something that has happened, in the installation: the `data` of a server-sent event.
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
