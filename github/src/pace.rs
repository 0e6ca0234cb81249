//! How fast Hotbed asks: one queue for each installation and each user, writes at least a second apart, nothing
//! asked while a limit holds.
//!
//! [`Pace`] is the judgement, a value without a clock; [`Lanes`] makes calls wait for it. A wait that is longer than
//! a call may spend is not waited for: the call fails at once and says how long, and whoever keeps the outbox asks
//! again then.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ports::UserToken;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::failure::SECONDARY_WAIT;

/// Between two calls that change something.
const BETWEEN_WRITES: Duration = Duration::from_secs(1);
/// How long a call itself waits for its turn.
const PATIENCE: Duration = Duration::from_secs(15);
/// Calls of one lane at a time; GitHub counts a hundred as abuse.
const AT_ONCE: usize = 8;
/// Calls of one lane that may wait.
const WAITING: usize = 64;
/// Where a limit without a time stops growing.
const LONGEST: Duration = Duration::from_secs(15 * 60);
/// Lanes that are kept when nobody uses them: users come and go.
const LANES: usize = 4096;

/// Whose limits a call uses up.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum LaneKey {
    /// The App itself, by its JSON web token.
    App,
    Installation(u64),
    /// A user: the account where it is known, else one token of it.
    Account(String),
    Token(u64),
    /// Sign-in: no authority but the client's.
    SignIn,
}

/// Where a lane stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Nothing is asked before.
    closed_until: Option<Instant>,
    last_write: Option<Instant>,
    /// Limits without a time in a row.
    strikes: u32,
}

/// What an answer says about the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// It went through; `spent` when nothing is left until then.
    Fine { spent: Option<Duration> },
    /// A limit; `wait` where GitHub named a time.
    Limited { wait: Option<Duration> },
}

impl Pace {
    /// How long the next call has to wait.
    pub fn wait(&self, now: Instant, write: bool) -> Duration {
        let closed = self.closed_until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let spaced = match self.last_write {
            Some(last) if write => (last + BETWEEN_WRITES).saturating_duration_since(now),
            _ => Duration::ZERO,
        };
        closed.max(spaced)
    }

    pub fn began(&mut self, now: Instant, write: bool) {
        if write {
            self.last_write = Some(now);
        }
    }

    /// Takes in an answer; says how long the lane is closed now.
    pub fn heard(&mut self, now: Instant, signal: Signal) -> Option<Duration> {
        let wait = match signal {
            Signal::Fine { spent } => {
                self.strikes = 0;
                spent?
            }
            Signal::Limited { wait: Some(wait) } => wait,
            Signal::Limited { wait: None } => {
                let wait = SECONDARY_WAIT * 2u32.saturating_pow(self.strikes.min(8));
                self.strikes += 1;
                wait.min(LONGEST)
            }
        };
        let until = now + wait;
        // A call that was under way before the limit must not shorten it.
        self.closed_until = Some(self.closed_until.map_or(until, |earlier| earlier.max(until)));
        Some(wait)
    }
}

#[derive(Debug)]
struct Lane {
    pace: Mutex<Pace>,
    calls: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Lane {
    fn pace(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All lanes of one GitHub.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    lanes: Mutex<HashMap<LaneKey, Arc<Lane>>>,
    hasher: RandomState,
}

/// A call's turn. The next of its lane comes when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    lane: Arc<Lane>,
    _held: Vec<OwnedSemaphorePermit>,
}

/// Why a call does not get its turn now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// The lane is closed for this long.
    Closed(Duration),
    /// Too many wait already.
    Crowded,
}

impl Lanes {
    pub fn user(&self, token: &UserToken) -> LaneKey {
        match token.account() {
            Some(account) => LaneKey::Account(account.to_ascii_lowercase()),
            // A token is not kept as a key; what tells two apart is enough.
            None => LaneKey::Token(self.hasher.hash_one(token.expose())),
        }
    }

    fn lane(&self, key: LaneKey) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() >= LANES && !lanes.contains_key(&key) {
            let now = Instant::now();
            lanes.retain(|_, lane| Arc::strong_count(lane) > 1 || !lane.pace().wait(now, true).is_zero());
        }
        let fresh = || {
            Arc::new(Lane {
                pace: Mutex::default(),
                calls: Arc::new(Semaphore::new(AT_ONCE)),
                writes: Arc::new(Semaphore::new(1)),
                waiting: Arc::new(Semaphore::new(WAITING)),
            })
        };
        lanes.entry(key).or_insert_with(fresh).clone()
    }

    /// Waits for the turn of a call, in order of arrival.
    pub async fn turn(&self, key: LaneKey, write: bool) -> Result<Turn, NotNow> {
        let lane = self.lane(key);
        // A closed lane fails at once: waiting in its queue would only hide how long it takes.
        let wait = lane.pace().wait(Instant::now(), false);
        if wait > PATIENCE {
            return Err(NotNow::Closed(wait));
        }
        let in_queue = lane.waiting.clone().try_acquire_owned().map_err(|_| NotNow::Crowded)?;
        let queued = async {
            let mut held = Vec::with_capacity(2);
            if write {
                held.extend(lane.writes.clone().acquire_owned().await);
            }
            held.extend(lane.calls.clone().acquire_owned().await);
            loop {
                let wait = lane.pace().wait(Instant::now(), write);
                match wait {
                    Duration::ZERO => return Ok(held),
                    wait if wait > PATIENCE => return Err(NotNow::Closed(wait)),
                    wait => tokio::time::sleep(wait).await,
                }
            }
        };
        let held = tokio::time::timeout(PATIENCE, queued).await.unwrap_or(Err(NotNow::Crowded))?;
        drop(in_queue);
        lane.pace().began(Instant::now(), write);
        Ok(Turn { lane, _held: held })
    }
}

impl Turn {
    /// Takes in the answer. Says how long the lane is closed now, if it is.
    pub fn heard(&self, signal: Signal) -> Option<Duration> {
        self.lane.pace().heard(Instant::now(), signal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn writes_are_a_second_apart_and_reads_are_not() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait(now, true), Duration::ZERO);
        pace.began(now, true);
        assert_eq!(pace.wait(now, true), SECOND);
        assert_eq!(pace.wait(now, false), Duration::ZERO);
        assert_eq!(pace.wait(now + SECOND, true), Duration::ZERO);
    }

    #[test]
    fn a_limit_closes_the_lane_for_reads_too() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.heard(now, Signal::Limited { wait: Some(30 * SECOND) }), Some(30 * SECOND));
        assert_eq!(pace.wait(now, false), 30 * SECOND);
        // One that was under way when the limit came does not open it again.
        assert_eq!(pace.heard(now, Signal::Fine { spent: None }), None);
        assert_eq!(pace.wait(now + 29 * SECOND, false), SECOND);
        assert_eq!(pace.heard(now, Signal::Fine { spent: Some(90 * SECOND) }), Some(90 * SECOND));
        assert_eq!(pace.wait(now, false), 90 * SECOND);
    }

    #[test]
    fn limits_without_a_time_grow_until_something_goes_through() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let hit = |pace: &mut Pace| pace.heard(now, Signal::Limited { wait: None }).unwrap().as_secs();
        assert_eq!([hit(&mut pace), hit(&mut pace), hit(&mut pace)], [60, 120, 240]);
        for _ in 0..40 {
            hit(&mut pace);
        }
        assert_eq!(hit(&mut pace), 900);
        pace.heard(now, Signal::Fine { spent: None });
        assert_eq!(hit(&mut pace), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_lane_says_so_at_once_and_others_go_on() {
        let lanes = Lanes::default();
        let turn = lanes.turn(LaneKey::Installation(1), false).await.unwrap();
        turn.heard(Signal::Limited { wait: Some(60 * SECOND) });
        drop(turn);
        let began = Instant::now();
        let closed = lanes.turn(LaneKey::Installation(1), false).await.unwrap_err();
        assert!(matches!(closed, NotNow::Closed(wait) if wait <= 60 * SECOND), "{closed:?}");
        lanes.turn(LaneKey::Installation(2), true).await.unwrap();
        assert_eq!(began.elapsed(), Duration::ZERO);
        tokio::time::advance(60 * SECOND).await;
        lanes.turn(LaneKey::Installation(1), true).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn writes_of_one_lane_go_one_after_another() {
        let lanes = Arc::new(Lanes::default());
        let began = Instant::now();
        let writes = (0..5).map(|_| {
            let lanes = lanes.clone();
            tokio::spawn(async move {
                drop(lanes.turn(LaneKey::App, true).await.unwrap());
                Instant::now()
            })
        });
        let mut at = Vec::new();
        for write in writes.collect::<Vec<_>>() {
            at.push(write.await.unwrap().duration_since(began).as_secs());
        }
        at.sort_unstable();
        assert_eq!(at, [0, 1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_refused() {
        let lanes = Arc::new(Lanes::default());
        let _first = lanes.turn(LaneKey::App, true).await.unwrap();
        let mut waiting = tokio::task::JoinSet::new();
        for _ in 0..=WAITING {
            let lanes = lanes.clone();
            waiting.spawn(async move { lanes.turn(LaneKey::App, true).await.map(drop) });
        }
        let answers = waiting.join_all().await;
        assert!(answers.iter().all(|a| *a == Err(NotNow::Crowded)), "{answers:?}");
    }
}
