//! Who did what. A line is noted in memory when a request is answered, so nobody waits for it, and written behind: in
//! order, many at once, the last ones when the server ends.

mod refused;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use config::RetentionSettings;
use domain::{AuditEntry, Result, SharedClock};
use jiff::{SignedDuration, Timestamp};
use store::{Store, Tx};
use tokio::sync::Notify;
use tracing::warn;

use crate::metrics::Metrics;
use refused::Refused;

pub use refused::NOBODY;

/// Lines in one transaction.
const BATCH: usize = 256;
/// Lines that may wait while the store takes none. What comes then is counted and lost.
const MOST_WAITING: usize = 100_000;

pub struct Audit {
    waiting: Mutex<Vec<AuditEntry>>,
    refused: Mutex<Refused>,
    /// Wakes who writes when many wait.
    pub poke: Arc<Notify>,
    /// Transactions that were handed in: what the lines cost, together.
    commits: AtomicU64,
    settings: RwLock<RetentionSettings>,
    store: Store,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Audit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Audit({} lines wait)", self.waiting().len())
    }
}

impl Audit {
    pub fn new(
        settings: RetentionSettings,
        store: Store,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            waiting: Mutex::default(),
            refused: Mutex::default(),
            poke: Arc::default(),
            commits: AtomicU64::new(0),
            settings: RwLock::new(settings),
            store,
            clock,
            metrics,
        })
    }

    pub fn reconfigure(&self, settings: RetentionSettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    /// Something was done.
    pub fn note(&self, entry: AuditEntry) {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST_WAITING {
            self.metrics.audit_lost();
            return;
        }
        waiting.push(entry);
        if waiting.len() == BATCH {
            self.poke.notify_one();
        }
    }

    /// Something was refused for want of a key, a role or patience: a line of its own, or one with others of its kind.
    pub fn refused(&self, entry: AuditEntry) {
        let lines = self.refusals().take(entry);
        lines.into_iter().for_each(|line| self.note(line));
    }

    /// Writes down what waits.
    pub async fn write(&self) -> Result<()> {
        let due = self.refusals().due(self.clock.now());
        due.into_iter().for_each(|line| self.note(line));
        self.write_waiting().await
    }

    async fn write_waiting(&self) -> Result<()> {
        loop {
            let (batch, written) = {
                let mut waiting = self.waiting();
                if waiting.is_empty() {
                    return Ok(());
                }
                let many = waiting.len().min(BATCH);
                let batch: Vec<_> = waiting.drain(..many).collect();
                // Handed in under the lock: two writers keep the order.
                self.commits.fetch_add(1, Ordering::Relaxed);
                let written = self.store.submit(Tx::new().audit(&batch));
                (batch, written)
            };
            if let Err(e) = written.await {
                let mut waiting = self.waiting();
                waiting.splice(0..0, batch);
                waiting.sort_by_key(|entry| entry.at);
                return Err(e);
            }
        }
    }

    /// How many transactions the lines have cost so far.
    pub fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }

    /// Forgets what is kept no longer.
    pub async fn shorten(&self) -> Result<()> {
        let RetentionSettings { audit_age, audit_entries, .. } =
            *self.settings.read().unwrap_or_else(PoisonError::into_inner);
        let age = SignedDuration::try_from(audit_age).unwrap_or(SignedDuration::MAX);
        let before = self.clock.now().checked_sub(age).unwrap_or(Timestamp::MIN);
        self.store.commit(Tx::new().forget_audit(before, audit_entries)).await
    }

    /// Lines since a moment and behind a number, with those that were noted just now.
    pub async fn read(&self, since: Timestamp, after: u64, limit: u32) -> Result<Vec<(u64, AuditEntry)>> {
        self.tell_refusals();
        self.write_waiting().await?;
        self.store.audit(since, after, limit).await
    }

    /// Before the store is closed.
    pub async fn finish(&self) {
        self.tell_refusals();
        if let Err(e) = self.write_waiting().await {
            warn!(lines = self.waiting().len(), error = %e.chain(), "could not write the last lines of the audit log");
        }
    }

    /// Those that are counted have their line now.
    fn tell_refusals(&self) {
        let lines = self.refusals().close(self.clock.now());
        lines.into_iter().for_each(|line| self.note(line));
    }

    fn refusals(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<AuditEntry>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
