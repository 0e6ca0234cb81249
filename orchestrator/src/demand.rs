//! What pools are sized by: who came when, how long members took, what operators have ordered.
//!
//! A claim adds one to a counter in memory and nothing else. Plans take the counters over; every few seconds what has
//! changed is written, a few rows at a time, so that no claim waits behind it; `kill -9` costs those seconds. What the
//! past teaches (`pool::learn`) takes a processor up to a quarter of a second for each repo, so it is learnt on a thread
//! of its own, one repo after the other.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{
    DemandHour, DemandRecord, LeadTimes, PoolOrder, PoolPolicy, RepoName, RepoSpec, Result, SharedClock,
};
use jiff::{SignedDuration, Timestamp};
use pool::{Demand, Habits, History, Lead, learn};
use store::{Store, Tx};
use tracing::info;

use crate::fleet::after;

/// Rows in one transaction: claims share the writer, and wait for no more than this.
const ROWS_AT_ONCE: usize = 64;
/// How often old hours are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// What was learnt from enough claims stands this long, and what was not for this long.
const LEARN_EVERY: Duration = Duration::from_secs(24 * 3600);
const LEARN_AGAIN: Duration = Duration::from_secs(1800);
/// How long one run of learning may begin with another repo.
const LEARN_FOR: Duration = Duration::from_millis(500);
/// Minutes that wait for a plan, which comes every second. More are counted into the last one.
const WAITING_MINUTES: usize = 24 * 60;

/// What the store knew at the start.
#[derive(Debug, Default)]
pub struct LoadedDemand {
    pub records: Vec<DemandRecord>,
    pub hours: Vec<DemandHour>,
    pub orders: Vec<PoolOrder>,
}

/// See the file's own words.
pub struct Demands {
    store: Store,
    clock: SharedClock,
    /// Claims by the minute that no plan has seen yet. The lock of the claim path: held for one addition.
    arrived: Mutex<HashMap<RepoName, Vec<(Timestamp, u32)>>>,
    repos: Mutex<HashMap<RepoName, Watched>>,
    forgot_at: Mutex<Option<Timestamp>>,
}

impl std::fmt::Debug for Demands {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demands")
    }
}

/// What is known of one repo.
#[derive(Debug, Default)]
pub struct Watched {
    history: History,
    lead: LeadTimes,
    habits: Habits,
    learnt: Option<Learnt>,
    order: Option<PoolOrder>,
    /// Hours whose counts are not written as they are, and whether the rest of it is not.
    unwritten_hours: BTreeSet<i64>,
    unwritten: bool,
}

/// When it was learnt, and under which policy: under another one it is no longer true.
#[derive(Debug)]
struct Learnt {
    at: Timestamp,
    policy: PoolPolicy,
}

impl Watched {
    fn since(now: Timestamp) -> Self {
        let lead = LeadTimes { watched_since: Some(now), samples: Vec::new() };
        Self { history: History::since(now), lead, unwritten: true, ..Self::default() }
    }

    /// What a plan looks at.
    pub fn demand(&self) -> Demand<'_> {
        Demand { history: Some(&self.history), lead: Lead::from(&self.lead), habits: self.habits }
    }

    /// The latest order that is still in force.
    pub fn order(&self, now: Timestamp) -> Option<&PoolOrder> {
        self.order.as_ref().filter(|order| order.in_force(now))
    }

    fn count(&mut self, at: Timestamp, claims: u32) {
        self.history.add(at, claims);
        self.unwritten_hours.insert(hour_of(at));
    }

    fn is_due(&self, policy: &PoolPolicy, now: Timestamp) -> bool {
        let stands = if self.habits.lesson.is_some() { LEARN_EVERY } else { LEARN_AGAIN };
        let current = |learnt: &Learnt| learnt.policy == *policy && now < after(learnt.at, stands);
        policy.target_hit_rate.is_some() && !self.learnt.as_ref().is_some_and(current)
    }
}

/// Everything that is recorded of a repo's traffic, for whoever replays it.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded {
    pub watched_since: Option<Timestamp>,
    pub lead: LeadTimes,
    /// Minutes in which somebody came, and how many.
    pub minutes: Vec<(Timestamp, u32)>,
}

impl Demands {
    pub fn new(store: Store, clock: SharedClock, loaded: LoadedDemand) -> Arc<Self> {
        let mut repos: HashMap<RepoName, Watched> = HashMap::new();
        for record in loaded.records {
            let watched = repos.entry(record.repo).or_default();
            if let Some(since) = record.lead.watched_since {
                watched.history = History::since(since);
            }
            watched.lead = record.lead;
        }
        for hour in loaded.hours {
            repos.entry(hour.repo.clone()).or_default().history.add_hour(&hour);
        }
        for order in loaded.orders {
            let watched = repos.entry(order.repo.clone()).or_default();
            watched.order = Some(order);
        }
        Arc::new(Self {
            store,
            clock,
            arrived: Mutex::default(),
            repos: Mutex::new(repos),
            forgot_at: Mutex::default(),
        })
    }

    /// Somebody came who could have used a member of this pool. Nothing here waits for anything.
    pub fn arrived(&self, repo: &RepoName) {
        let now = self.clock.now();
        let minute = Timestamp::from_second(now.as_second().div_euclid(60) * 60).unwrap_or(now);
        let mut arrived = lock(&self.arrived);
        let Some(minutes) = arrived.get_mut(repo) else {
            arrived.insert(repo.clone(), vec![(minute, 1)]);
            return;
        };
        let full = minutes.len() >= WAITING_MINUTES;
        match minutes.last_mut() {
            Some((at, claims)) if *at == minute || full => *claims = claims.saturating_add(1),
            _ => minutes.push((minute, 1)),
        }
    }

    /// A member was ready this long after it was decided on.
    pub fn was_ready(&self, repo: &RepoName, took: Duration) {
        let mut repos = lock(&self.repos);
        if let Some(watched) = repos.get_mut(repo) {
            watched.lead.add(took);
            watched.unwritten = true;
        }
    }

    /// Shows what is known of each repo, those included that are configured since now.
    pub fn look<T>(&self, specs: &[Arc<RepoSpec>], look: impl FnOnce(&HashMap<RepoName, Watched>) -> T) -> T {
        let mut repos = self.up_to_date();
        let now = self.clock.now();
        for spec in specs {
            if !repos.contains_key(&spec.name) {
                repos.insert(spec.name.clone(), Watched::since(now));
            }
            let watched = repos.get_mut(&spec.name).filter(|w| w.lead.watched_since.is_none());
            // An order or an hour was there, and no record: it was lost with the power.
            if let Some(watched) = watched {
                watched.lead.watched_since = Some(watched.history.watched_since().unwrap_or(now));
                watched.unwritten = true;
            }
        }
        look(&repos)
    }

    /// The arrivals of a repo since `from`.
    pub fn recorded(&self, repo: &RepoName, from: Timestamp) -> Recorded {
        let repos = self.up_to_date();
        let Some(watched) = repos.get(repo) else {
            return Recorded { watched_since: None, lead: LeadTimes::default(), minutes: Vec::new() };
        };
        Recorded {
            watched_since: watched.history.watched_since(),
            lead: watched.lead.clone(),
            minutes: watched.history.arrivals().filter(|(at, _)| *at >= from).collect(),
        }
    }

    /// The histories, with all claims that have come.
    fn up_to_date(&self) -> MutexGuard<'_, HashMap<RepoName, Watched>> {
        let mut repos = lock(&self.repos);
        // Taken in one step: nobody who claims waits for what is done with them.
        let arrived = std::mem::take(&mut *lock(&self.arrived));
        for (repo, minutes) in arrived {
            let watched = repos.entry(repo).or_default();
            minutes.into_iter().for_each(|(at, claims)| watched.count(at, claims));
        }
        repos
    }

    // ---------------------------------------------------------------------------------------- orders

    /// The order of a repo that is in force.
    pub fn order_of(&self, repo: &RepoName) -> Option<PoolOrder> {
        let now = self.clock.now();
        lock(&self.repos).get(repo).and_then(|watched| watched.order(now)).cloned()
    }

    /// Puts an order in force, in place of any earlier one of its repo.
    pub async fn order(&self, order: PoolOrder) -> Result<()> {
        info!(repo = %order.repo, by = order.by, why = order.why, order = ?order.kind, "an order for a pool");
        let receipt = {
            // Under the lock, so that memory and disk hear two orders in the same order.
            let mut repos = lock(&self.repos);
            let receipt = self.store.submit(Tx::new().pool_order(&order));
            let watched = repos.entry(order.repo.clone()).or_default();
            watched.order = Some(order);
            receipt
        };
        receipt.await
    }

    // --------------------------------------------------------------------------------------- writing

    /// Writes what has changed since it was last written.
    pub async fn save(&self) -> Result<()> {
        let rows = self.unwritten();
        for (n, batch) in rows.chunks(ROWS_AT_ONCE).enumerate() {
            let tx = batch.iter().fold(Tx::new(), |tx, row| row.put(tx));
            if let Err(e) = self.store.commit(tx).await {
                self.write_again(&rows[n * ROWS_AT_ONCE..]);
                return Err(e);
            }
        }
        self.forget().await
    }

    fn unwritten(&self) -> Vec<Unwritten> {
        let mut out = Vec::new();
        for (repo, watched) in self.up_to_date().iter_mut() {
            if std::mem::take(&mut watched.unwritten) {
                let record = DemandRecord { repo: repo.clone(), lead: watched.lead.clone() };
                out.push(Unwritten::Record(record));
            }
            let hours = std::mem::take(&mut watched.unwritten_hours);
            let hours = hours.into_iter().filter_map(|hour| watched.history.hour(repo, begin_of(hour)));
            out.extend(hours.map(Unwritten::Hour));
        }
        out
    }

    /// What could not be written is to be written as it is then.
    fn write_again(&self, rows: &[Unwritten]) {
        let mut repos = lock(&self.repos);
        for row in rows {
            match row {
                Unwritten::Record(record) => {
                    repos.entry(record.repo.clone()).or_default().unwritten = true;
                }
                Unwritten::Hour(hour) => {
                    repos.entry(hour.repo.clone()).or_default().unwritten_hours.insert(hour.hour);
                }
            }
        }
    }

    /// Drops what is older than anybody looks back.
    async fn forget(&self) -> Result<()> {
        let now = self.clock.now();
        let recently = lock(&self.forgot_at).is_some_and(|at| now < after(at, FORGET_EVERY));
        if recently {
            return Ok(());
        }
        lock(&self.repos).values_mut().for_each(|watched| watched.history.forget(now));
        let weeks = SignedDuration::from_hours(History::WEEKS * 7 * 24);
        let oldest = begin_of(hour_of(now.checked_sub(weeks).unwrap_or(Timestamp::MIN)));
        self.store.commit(Tx::new().forget_demand(oldest)).await?;
        *lock(&self.forgot_at) = Some(now);
        Ok(())
    }

    // -------------------------------------------------------------------------------------- learning

    /// Learns what is due, one repo after the other, for a while. `starts` is how many members may start at once.
    pub async fn learn(&self, specs: &[Arc<RepoSpec>], starts: u32) -> Result<()> {
        let begun = tokio::time::Instant::now();
        for spec in specs {
            let now = self.clock.now();
            let policy = spec.pool.clone();
            let (history, lead) = {
                let repos = self.up_to_date();
                let Some(watched) = repos.get(&spec.name).filter(|w| w.is_due(&policy, now)) else {
                    continue;
                };
                (watched.history.clone(), Lead::from(&watched.lead))
            };
            let known = policy.clone();
            let learning = tokio::task::spawn_blocking(move || learn(&history, &known, lead, starts, now));
            let habits = learning
                .await
                .map_err(|e| domain::Error::permanent("a bug: learning ended in a panic").caused_by(e))?;
            if let Some(watched) = lock(&self.repos).get_mut(&spec.name) {
                watched.habits = habits;
                watched.learnt = Some(Learnt { at: now, policy });
            }
            if begun.elapsed() >= LEARN_FOR {
                break;
            }
        }
        Ok(())
    }
}

/// A row that is to be written.
enum Unwritten {
    Record(DemandRecord),
    Hour(DemandHour),
}

impl Unwritten {
    fn put(&self, tx: Tx) -> Tx {
        match self {
            Self::Record(record) => tx.demand(record),
            Self::Hour(hour) => tx.demand_hour(hour),
        }
    }
}

fn hour_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(3600)
}

fn begin_of(hour: i64) -> Timestamp {
    Timestamp::from_second(hour.saturating_mul(3600)).unwrap_or(Timestamp::MIN)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
