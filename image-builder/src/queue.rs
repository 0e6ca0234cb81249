//! Whose build begins next.
//!
//! Promises: one place in the line for each repo, and a repo goes to its end with each new request, so that all take
//! turns; a build that somebody waits for overtakes those of schedules, by a bounded time and never for ever.

use domain::{BuildId, RepoName, Trigger};
use jiff::{SignedDuration, Timestamp};

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub build: BuildId,
    pub repo: RepoName,
    pub trigger: Trigger,
    /// Since when the repo stands in the line: a newer request keeps the place of the one that it replaces.
    pub since: Timestamp,
}

/// How much earlier than it came a request counts. Nobody is overtaken by what came later than this after it.
pub fn head_start(trigger: Trigger) -> SignedDuration {
    match trigger {
        // Somebody waits for it, or nobody can work in the repo.
        Trigger::Api | Trigger::Missing => SignedDuration::from_mins(30),
        Trigger::Push => SignedDuration::from_mins(10),
        Trigger::Schedule => SignedDuration::ZERO,
    }
}

/// The request to begin next among `waiting`, those of repos that are being built left out.
pub fn next<'a>(
    waiting: impl IntoIterator<Item = &'a Waiting>,
    busy: impl Fn(&RepoName) -> bool,
) -> Option<&'a Waiting> {
    let place = |w: &&Waiting| {
        let since = w.since.checked_sub(head_start(w.trigger)).unwrap_or(w.since);
        (since, w.build)
    };
    waiting.into_iter().filter(|w| !busy(&w.repo)).min_by_key(place)
}
