//! The one thread that writes. It takes everything that waits, applies it in one transaction in the order of
//! arrival, and then answers all of it: under load the price of a commit is shared.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::{Error, Result, SharedClock};
use jiff::Timestamp;
use rusqlite::{Connection, params_from_iter};
use tokio::sync::oneshot;

use crate::checkpoint::{Checkpointer, checkpoint};
use crate::failure;
use crate::tx::Op;

/// Commits that may wait. At the slowest disk seen (4 ms for a sync) it drains in well under a second.
pub(crate) const QUEUE: usize = 4096;
/// Commits in one transaction: it bounds how long the first waits for the last.
const BATCH: usize = 256;
/// Commits between two checkpoints.
const CHECKPOINT_AFTER: usize = 512;
/// How long keys of idempotency are kept, and how often old ones are looked for.
pub(crate) const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(24 * 3600);
const PRUNE_EVERY: Duration = Duration::from_secs(600);

pub(crate) enum Work {
    Apply(Vec<Op>),
    /// Count a scope up by one.
    Count(String),
}

pub(crate) struct Unit {
    pub work: Work,
    pub durable: bool,
    pub reply: oneshot::Sender<Result<u64>>,
}

enum Job {
    Unit(Unit),
    Close(oneshot::Sender<()>),
}

/// How much the writer has done since it was started.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub commits: AtomicU64,
    pub transactions: AtomicU64,
}

/// The handle of the writer. Dropping it lets the writer finish what waits, and waits for that.
pub(crate) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    pub done: Arc<Done>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    /// The commit is with the kernel: it survives the process.
    Normal,
    /// The commit is on the disk: it survives the machine.
    Full,
}

impl Writer {
    /// `keep` is dropped when the last write is done: the lock of the directory.
    pub fn start(
        conn: Connection,
        path: PathBuf,
        clock: SharedClock,
        queue: usize,
        keep: impl Send + 'static,
    ) -> Result<Self> {
        let checkpointer = Checkpointer::start(path)?;
        let (sender, receiver) = sync_channel(queue);
        let done = Arc::new(Done::default());
        let count = Arc::clone(&done);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let next_prune = clock.now();
                let state =
                    State { conn, level: None, checkpointer, since: 0, clock, next_prune, done: count };
                let closing = state.run(&receiver);
                // Only now may another server come; and only then is `close` answered.
                drop(receiver);
                drop(keep);
                if let Some(reply) = closing {
                    let _ = reply.send(());
                }
            })
            .map_err(|e| failure::io("start the writer thread", e))?;
        Ok(Self { queue: Some(sender), thread: Some(thread), done })
    }

    /// Puts it in the queue and does not wait.
    pub fn send(&self, unit: Unit) -> Result<()> {
        self.push(Job::Unit(unit))
    }

    /// Resolves when all that was sent before is committed, the log is in the database, and the directory is free.
    pub fn close(&self) -> Result<oneshot::Receiver<()>> {
        let (reply, done) = oneshot::channel();
        self.push(Job::Close(reply))?;
        Ok(done)
    }

    fn push(&self, job: Job) -> Result<()> {
        let Some(queue) = &self.queue else { return Err(stopped()) };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => Error::exhausted(
                "the queue of the store's writer is full: commits arrive faster than the disk takes them",
            ),
            TrySendError::Disconnected(_) => stopped(),
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

pub(crate) fn stopped() -> Error {
    Error::unavailable("write to the database: the store is closed")
}

struct State {
    conn: Connection,
    level: Option<Level>,
    checkpointer: Checkpointer,
    /// Commits since the last checkpoint was asked for.
    since: usize,
    clock: SharedClock,
    next_prune: Timestamp,
    done: Arc<Done>,
}

/// What failed and while doing what.
type Failed = (String, rusqlite::Error);

impl State {
    fn run(mut self, jobs: &Receiver<Job>) -> Option<oneshot::Sender<()>> {
        let mut closing = None;
        while closing.is_none() {
            let Ok(first) = jobs.recv() else { break };
            let mut batch = Vec::new();
            let mut next = Some(first);
            while let Some(job) = next {
                match job {
                    Job::Unit(unit) => batch.push(unit),
                    Job::Close(reply) => {
                        closing = Some(reply);
                        break;
                    }
                }
                next = if batch.len() < BATCH { jobs.try_recv().ok() } else { None };
            }
            // What came before the first durable one need not wait for the disk. What came after it must, since a
            // log is durable up to a point and the order of arrival is kept.
            let rest = batch.split_off(batch.iter().position(|u| u.durable).unwrap_or(batch.len()));
            self.commit(batch, Level::Normal);
            self.commit(rest, Level::Full);
            self.housekeep();
        }
        let Self { conn, checkpointer, .. } = self;
        drop(checkpointer);
        if let Err(e) = checkpoint(&conn, "TRUNCATE") {
            tracing::error!(error = %e, "checkpoint the database at the end");
        }
        if let Err((_, e)) = conn.close() {
            tracing::error!(error = %e, "close the database");
        }
        closing
    }

    fn commit(&mut self, batch: Vec<Unit>, level: Level) {
        if batch.is_empty() {
            return;
        }
        self.since += batch.len();
        match self.attempt(&batch, level) {
            Ok(values) => {
                for (unit, value) in batch.into_iter().zip(values) {
                    // A caller that went away has its commit all the same.
                    let _ = unit.reply.send(Ok(value));
                }
            }
            // One bad statement must not fail its neighbours: each gets a transaction of its own.
            Err((_, error)) if batch.len() > 1 && !failure::is_device_failure(&error) => {
                for unit in batch {
                    let result = self.attempt(std::slice::from_ref(&unit), level);
                    let result = match result {
                        Ok(values) => Ok(values.first().copied().unwrap_or_default()),
                        Err((context, error)) => Err(failure::sql(context, error)),
                    };
                    let _ = unit.reply.send(result);
                }
            }
            Err((context, error)) => {
                let error = failure::sql(context, error);
                for unit in batch {
                    let copy = Error::new(error.kind(), error.chain());
                    let _ = unit.reply.send(Err(copy));
                }
            }
        }
    }

    /// All of `units` in one transaction, or nothing.
    fn attempt(&mut self, units: &[Unit], level: Level) -> Result<Vec<u64>, Failed> {
        self.set_level(level).map_err(|e| ("set the degree of durability".to_owned(), e))?;
        let result = apply(&self.conn, units);
        if result.is_ok() {
            self.done.commits.fetch_add(units.len() as u64, Ordering::Relaxed);
            self.done.transactions.fetch_add(1, Ordering::Relaxed);
        }
        if result.is_err() && !self.conn.is_autocommit() {
            // A full disk has rolled it back by itself; anything else has not.
            if let Err(e) = self.conn.execute_batch("ROLLBACK") {
                tracing::error!(error = %e, "roll back a failed transaction");
            }
        }
        result
    }

    fn set_level(&mut self, level: Level) -> rusqlite::Result<()> {
        if self.level != Some(level) {
            self.level = None;
            // It takes effect when it is compiled, so a cached statement would do nothing.
            self.conn.execute_batch(match level {
                Level::Normal => "PRAGMA synchronous=NORMAL",
                Level::Full => "PRAGMA synchronous=FULL",
            })?;
            self.level = Some(level);
        }
        Ok(())
    }

    fn housekeep(&mut self) {
        if self.since >= CHECKPOINT_AFTER {
            self.since = 0;
            self.checkpointer.poke();
        }
        if self.checkpointer.take_long()
            && let Err(e) = checkpoint(&self.conn, "PASSIVE")
        {
            tracing::error!(error = %e, "checkpoint a long log");
        }
        let now = self.clock.now();
        if now >= self.next_prune {
            self.next_prune = now.checked_add(PRUNE_EVERY).unwrap_or(Timestamp::MAX);
            let limit = now.checked_sub(IDEMPOTENCY_KEPT).unwrap_or(Timestamp::MIN).as_microsecond();
            let result = self.conn.execute("DELETE FROM idempotency WHERE created_at < ?1", [limit]);
            if let Err(e) = result {
                tracing::warn!(error = %e, "remove old keys of idempotency");
            }
        }
    }
}

fn apply(conn: &Connection, units: &[Unit]) -> Result<Vec<u64>, Failed> {
    let run = |sql| conn.prepare_cached(sql).and_then(|mut stmt| stmt.execute([]));
    run("BEGIN IMMEDIATE").map_err(|e| ("begin a transaction".to_owned(), e))?;
    let mut values = Vec::with_capacity(units.len());
    for unit in units {
        values.push(match &unit.work {
            Work::Apply(ops) => {
                for op in ops {
                    conn.prepare_cached(op.sql)
                        .and_then(|mut stmt| stmt.execute(params_from_iter(&op.params)))
                        .map_err(|e| (format!("write row {} of table {}", op.id, op.table), e))?;
                }
                0
            }
            Work::Count(scope) => conn
                .prepare_cached(
                    "INSERT INTO counters(scope, value) VALUES(?1, 1) \
                     ON CONFLICT(scope) DO UPDATE SET value = value + 1 RETURNING value",
                )
                .and_then(|mut stmt| stmt.query_row([scope], |row| row.get::<_, i64>(0)))
                .map_err(|e| (format!("count up {scope}"), e))? as u64,
        });
    }
    run("COMMIT").map_err(|e| (format!("commit {} changes", units.len()), e))?;
    Ok(values)
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
