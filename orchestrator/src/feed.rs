//! What happens in the whole installation, live: a ring in memory that anybody may follow from any number that it still
//! has. Telling it something costs a lock and a push, and waits for nobody; who reads too slowly misses what the ring no
//! longer has, and is told so. Nothing is kept across a restart: the session logs and the audit log are for that.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{RepoName, SessionId, SharedClock};
use futures_util::{Stream, stream};
use jiff::Timestamp;
use tokio::sync::watch;

/// What is remembered: some minutes of a busy installation.
const MOST: usize = 4096;
/// What is taken from the ring at a time.
const BATCH: usize = 64;

/// What may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    SessionStarted,
    SessionReady,
    SyncFailed,
    SessionEnded,
    BuildStarted,
    BuildEnded,
    ImageCurrent,
    ImageJudged,
    PoolTarget,
    WarmupEnded,
    PullRequest,
    Task,
    Engine,
}

impl Kind {
    pub const ALL: [Self; 13] = [
        Self::SessionStarted,
        Self::SessionReady,
        Self::SyncFailed,
        Self::SessionEnded,
        Self::BuildStarted,
        Self::BuildEnded,
        Self::ImageCurrent,
        Self::ImageJudged,
        Self::PoolTarget,
        Self::WarmupEnded,
        Self::PullRequest,
        Self::Task,
        Self::Engine,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionStarted => "session_started",
            Self::SessionReady => "session_ready",
            Self::SyncFailed => "sync_failed",
            Self::SessionEnded => "session_ended",
            Self::BuildStarted => "build_started",
            Self::BuildEnded => "build_ended",
            Self::ImageCurrent => "image_current",
            Self::ImageJudged => "image_judged",
            Self::PoolTarget => "pool_target",
            Self::WarmupEnded => "warmup_ended",
            Self::PullRequest => "pull_request",
            Self::Task => "task",
            Self::Engine => "engine",
        }
    }
}

impl std::str::FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(|kind| kind.as_str()).collect();
            format!("`{text}` is nothing that happens: expected one of {}", all.join(", "))
        })
    }
}

/// Something that has happened, before it has its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub kind: Kind,
    /// Where, if it was in one repo.
    pub repo: Option<RepoName>,
    pub session: Option<SessionId>,
    /// The id or name of what else it was about.
    pub subject: Option<String>,
    /// How it went, in one word or number.
    pub outcome: Option<String>,
    /// The same for people.
    pub words: String,
}

impl News {
    pub fn of(kind: Kind) -> Self {
        Self { kind, repo: None, session: None, subject: None, outcome: None, words: String::new() }
    }

    pub fn in_repo(kind: Kind, repo: &RepoName) -> Self {
        Self { repo: Some(repo.clone()), ..Self::of(kind) }
    }

    #[must_use]
    pub fn session(mut self, id: SessionId) -> Self {
        self.session = Some(id);
        self
    }

    #[must_use]
    pub fn subject(mut self, subject: impl ToString) -> Self {
        self.subject = Some(subject.to_string());
        self
    }

    #[must_use]
    pub fn outcome(mut self, outcome: impl ToString) -> Self {
        self.outcome = Some(outcome.to_string());
        self
    }

    #[must_use]
    pub fn words(mut self, words: impl Into<String>) -> Self {
        self.words = words.into();
        self
    }
}

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Happening {
    pub seq: u64,
    pub at: Timestamp,
    pub news: News,
}

/// What a follower gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Happened(Arc<Happening>),
    /// What came behind `after` and before `next` is no longer there.
    Lost {
        after: u64,
        next: u64,
    },
}

pub struct Feed {
    ring: Mutex<Ring>,
    /// The number of the last one.
    moved: watch::Sender<u64>,
    clock: SharedClock,
}

struct Ring {
    all: VecDeque<Arc<Happening>>,
    /// The number of the next one.
    next: u64,
}

impl std::fmt::Debug for Feed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Feed(up to {})", self.ring().next - 1)
    }
}

impl Feed {
    /// Numbers go on from the moment of the start in microseconds, so those of an earlier process are smaller.
    pub fn new(clock: SharedClock) -> Arc<Self> {
        let next = u64::try_from(clock.now().as_microsecond()).unwrap_or(0).max(1);
        let ring = Ring { all: VecDeque::new(), next };
        Arc::new(Self { ring: Mutex::new(ring), moved: watch::Sender::new(next - 1), clock })
    }

    pub fn tell(&self, news: News) {
        let at = self.clock.now();
        let mut ring = self.ring();
        let seq = ring.next;
        ring.next += 1;
        if ring.all.len() == MOST {
            ring.all.pop_front();
        }
        ring.all.push_back(Arc::new(Happening { seq, at, news }));
        // Under the lock: the number never goes back.
        self.moved.send_replace(seq);
    }

    /// The number of the last one.
    pub fn last(&self) -> u64 {
        self.ring().next - 1
    }

    /// Everything behind a number, without end; 0 begins with the oldest there is.
    pub fn follow(self: &Arc<Self>, after: u64) -> impl Stream<Item = Heard> + Send + use<> {
        let (feed, moved) = (self.clone(), self.moved.subscribe());
        let state = (feed, moved, after, VecDeque::new());
        stream::unfold(state, |(feed, mut moved, mut after, mut batch)| async move {
            loop {
                if let Some(heard) = batch.pop_front() {
                    return Some((heard, (feed, moved, after, batch)));
                }
                moved.mark_unchanged();
                (batch, after) = feed.behind(after, BATCH);
                if batch.is_empty() && moved.changed().await.is_err() {
                    return None;
                }
            }
        })
    }

    /// What there is behind a number now.
    pub fn now(&self, after: u64) -> Vec<Heard> {
        self.behind(after, MOST).0.into()
    }

    /// Some of what is behind a number, and the number that the next look begins with.
    fn behind(&self, after: u64, most: usize) -> (VecDeque<Heard>, u64) {
        let ring = self.ring();
        let oldest = ring.next - ring.all.len() as u64;
        let mut batch = VecDeque::new();
        // In this order: whoever asks may name a number that has none behind it.
        let missed = after >= ring.next || after + 1 < oldest;
        let from = if missed { oldest } else { after + 1 };
        if missed && after > 0 {
            batch.push_back(Heard::Lost { after, next: oldest });
        }
        let skip = usize::try_from(from - oldest).unwrap_or(usize::MAX);
        batch.extend(ring.all.iter().skip(skip).take(most).cloned().map(Heard::Happened));
        let told = batch.iter().filter(|h| matches!(h, Heard::Happened(_))).count() as u64;
        (batch, from - 1 + told)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use domain::testing::ManualClock;
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    fn feed() -> Arc<Feed> {
        Feed::new(Arc::new(ManualClock::at(Timestamp::from_second(1).unwrap())))
    }

    fn tell(feed: &Feed, n: usize) {
        for i in 0..n {
            feed.tell(News::of(Kind::Task).subject(i));
        }
    }

    /// What there is now, without waiting.
    fn now(feed: &Arc<Feed>, after: u64) -> Vec<Heard> {
        let mut all = Vec::new();
        let mut follower = Box::pin(feed.follow(after));
        while let Some(Some(heard)) = follower.next().now_or_never() {
            all.push(heard);
        }
        all
    }

    fn seqs(heard: &[Heard]) -> Vec<u64> {
        heard.iter().filter_map(|h| if let Heard::Happened(h) = h { Some(h.seq) } else { None }).collect()
    }

    #[test]
    fn it_is_followed_from_any_number_that_is_there() {
        let feed = feed();
        assert!(now(&feed, 0).is_empty());
        tell(&feed, 200);
        let all = seqs(&now(&feed, 0));
        assert_eq!((all.len(), all[0], all[199]), (200, 1_000_000, feed.last()));
        assert!(all.is_sorted_by(|a, b| a + 1 == *b));
        assert_eq!(seqs(&now(&feed, all[150])), all[151..]);
        assert!(now(&feed, feed.last()).is_empty());
    }

    #[test]
    fn what_is_lost_is_said() {
        let feed = feed();
        tell(&feed, MOST + 10);
        let oldest = 1_000_010;
        // Of a process before; of this one, but too old; of one whose clock was ahead.
        for after in [7, 1_000_003, u64::MAX - 1, u64::MAX] {
            let heard = now(&feed, after);
            assert_eq!(heard[0], Heard::Lost { after, next: oldest });
            assert_eq!((seqs(&heard).len(), seqs(&heard)[0]), (MOST, oldest));
        }
        assert_eq!(now(&feed, oldest - 1).len(), MOST, "nothing is lost");
        assert_eq!(now(&feed, 0).len(), MOST);
    }

    #[test]
    fn who_is_slow_misses_and_who_waits_is_woken() {
        let feed = feed();
        let mut slow = Box::pin(feed.follow(feed.last()));
        assert!(slow.next().now_or_never().is_none());
        tell(&feed, 1);
        assert!(matches!(slow.next().now_or_never(), Some(Some(Heard::Happened(h))) if h.seq == 1_000_000));
        tell(&feed, MOST * 2);
        let heard = slow.next().now_or_never().flatten();
        assert_eq!(heard, Some(Heard::Lost { after: 1_000_000, next: 1_000_001 + MOST as u64 }));
        let waker = futures_util::task::noop_waker();
        let mut cx = std::task::Context::from_waker(&waker);
        let mut idle = Box::pin(feed.follow(feed.last()));
        assert!(matches!(idle.poll_next_unpin(&mut cx), Poll::Pending));
        tell(&feed, 1);
        assert!(matches!(idle.poll_next_unpin(&mut cx), Poll::Ready(Some(_))));
    }

    #[test]
    fn every_kind_has_its_word() {
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
        assert!("nothing".parse::<Kind>().unwrap_err().contains("expected one of session_started"));
    }
}
