//! What has happened, told to whoever listens ([`Feed`]), beside being counted. What comes by the hundred in a second
//! (misses of a pool, requests, refusals) is counted alone; what lasts is told when it begins and when it ends.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use domain::{
    BuildRecord, ImageRecord, PullRequestRecord, PullRequestState, RepoName, SessionRecord, SyncPhase,
    WarmupRecord,
};

use super::{Metrics, OfRepo};
use crate::feed::{Feed, Kind, News};

/// Who listens, and what was told to last.
#[derive(Default)]
pub(super) struct Told {
    feed: OnceLock<Arc<Feed>>,
    /// Tasks whose last run failed, and the engine's name while it does not answer.
    failing: Mutex<BTreeSet<&'static str>>,
}

impl Metrics {
    /// From now on what happens is told here, too.
    pub fn tell_to(&self, feed: Arc<Feed>) {
        let _ = self.told.feed.set(feed);
    }

    /// Nothing is made up where nobody listens.
    fn tell(&self, news: impl FnOnce() -> News) {
        if let Some(feed) = self.told.feed.get() {
            feed.tell(news());
        }
    }

    /// Whether this is new: it failed and has not before, or it goes well again.
    fn turns(&self, what: &'static str, fails: bool) -> bool {
        let mut failing = self.told.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if fails { failing.insert(what) } else { failing.remove(what) }
    }

    pub(super) fn tell_started(&self, record: &SessionRecord) {
        self.tell(|| {
            let words = format!("for {}, on {}", record.user.login, record.branch);
            of(Kind::SessionStarted, record).outcome(record.launch.as_str()).words(words)
        });
    }

    pub(super) fn tell_ready(&self, record: &SessionRecord, seconds: f64) {
        self.tell(|| {
            let words = format!("writes pass, {seconds:.2} s after it was asked for");
            of(Kind::SessionReady, record).outcome(record.sync.phase.as_str()).words(words)
        });
    }

    pub(super) fn tell_synced(&self, record: &SessionRecord) {
        if record.sync.phase == SyncPhase::Failed {
            let why = record.sync.error.clone().unwrap_or_default();
            self.tell(|| of(Kind::SyncFailed, record).outcome("failed").words(why));
        }
    }

    pub(super) fn tell_ended(&self, record: &SessionRecord) {
        self.tell(|| {
            let end = record.end.map_or("unknown", |end| end.as_str());
            of(Kind::SessionEnded, record).outcome(end).words(record.trouble.clone().unwrap_or_default())
        });
    }

    pub(super) fn tell_warmup(&self, record: &WarmupRecord) {
        self.tell(|| {
            let news = News::in_repo(Kind::WarmupEnded, &record.repo).subject(record.id);
            news.outcome(record.state.as_str()).words(format!("of {}", record.client))
        });
    }

    /// A build has its turn.
    pub fn build_began(&self, record: &BuildRecord) {
        self.tell(|| {
            let by = record.by.as_ref().map_or(String::new(), |by| format!(", for {by}"));
            let news = News::in_repo(Kind::BuildStarted, &record.repo).subject(record.id);
            news.outcome(record.trigger.as_str()).words(format!("caused by {}{by}", record.trigger.as_str()))
        });
    }

    /// A build that had its turn has ended.
    pub fn build_over(&self, record: &BuildRecord) {
        self.tell(|| {
            let words = record.error.as_ref().or(record.decision.as_ref()).cloned().unwrap_or_default();
            let news = News::in_repo(Kind::BuildEnded, &record.repo).subject(record.id);
            news.outcome(record.state.as_str()).words(words)
        });
    }

    /// Another image of the repo is the one that sessions get.
    pub fn image_current(&self, image: &ImageRecord) {
        self.tell(|| {
            let news = News::in_repo(Kind::ImageCurrent, &image.repo).subject(image.id);
            news.outcome(image.generation).words(format!("at commit {:.12}", image.commit.to_string()))
        });
    }

    pub(super) fn tell_judged(&self, repo: &RepoName, verdict: &'static str) {
        self.tell(|| News::in_repo(Kind::ImageJudged, repo).outcome(verdict));
    }

    /// What a pool works towards, and why.
    pub fn pool_aims(&self, repo: &RepoName, target: u32, why: impl FnOnce() -> String) {
        let gauge = self.pool_target.get_or_create(&OfRepo { repo: repo.to_string() }).clone();
        let before = gauge.set(target.into());
        if before != i64::from(target) {
            self.tell(|| News::in_repo(Kind::PoolTarget, repo).outcome(target).words(why()));
        }
    }

    /// A pull request is in another state, or has failed.
    pub fn pull_request_stands(&self, record: &PullRequestRecord) {
        self.tell(|| {
            let state = match record.state {
                PullRequestState::Pending => "pending",
                PullRequestState::Open => "open",
                PullRequestState::Merged => "merged",
                PullRequestState::Closed => "closed",
                PullRequestState::Refused => "refused",
            };
            let words = record.error.clone().or_else(|| record.url.clone()).unwrap_or_default();
            let news = News::in_repo(Kind::PullRequest, &record.repo).session(record.session);
            news.subject(record.id).outcome(state).words(words)
        });
    }

    pub(super) fn tell_task(&self, task: &'static str, failed: bool) {
        if self.turns(task, failed) {
            let (outcome, words) = match failed {
                true => ("failed", "a background task fails; the log says why"),
                false => ("recovered", "the background task goes well again"),
            };
            self.tell(|| News::of(Kind::Task).subject(task).outcome(outcome).words(words));
        }
    }

    pub(super) fn tell_engine(&self, up: bool) {
        if self.turns("the engine", !up) {
            let words = if up { "the engine answers again" } else { "the engine does not answer" };
            let outcome = if up { "up" } else { "down" };
            self.tell(|| News::of(Kind::Engine).subject(self.backend).outcome(outcome).words(words));
        }
    }
}

fn of(kind: Kind, record: &SessionRecord) -> News {
    News::in_repo(kind, &record.repo).session(record.id)
}
