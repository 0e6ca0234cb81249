//! The one desk where writes are made. A thread takes everything that waits, applies it in one transaction in the
//! order of arrival, and then answers all of it: under load the price of a commit is shared. Who finds the desk free
//! and nothing waiting may write by himself, and saves two changes of threads: see [`Writer::send_or_do`].

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::Duration;

use domain::{Error, Result, SharedClock};
use jiff::Timestamp;
use rusqlite::{Connection, params_from_iter};
use tokio::sync::oneshot;

use crate::checkpoint::{Checkpointer, checkpoint};
use crate::tx::Op;
use crate::{failure, schema};

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
    desk: Arc<Desk>,
    thread: Option<JoinHandle<()>>,
    pub done: Arc<Done>,
}

/// Where writes are made, by one at a time.
struct Desk {
    /// Nothing, once the store is closed.
    state: Mutex<Option<State>>,
    /// Units that were sent and are not answered yet. Raised before a unit is in the queue, lowered after its commit:
    /// who sees none knows that all that was sent before is committed.
    waiting: AtomicUsize,
}

impl Desk {
    fn take(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The desk, if nobody is at it and nothing waits for it.
    fn take_if_idle(&self) -> Option<MutexGuard<'_, Option<State>>> {
        let state = match self.state.try_lock() {
            Ok(state) => state,
            Err(TryLockError::Poisoned(state)) => state.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        (self.waiting.load(Ordering::Acquire) == 0).then_some(state)
    }
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
        let next_prune = clock.now();
        let state =
            State { conn, level: None, checkpointer, since: 0, clock, next_prune, done: Arc::clone(&done) };
        let desk = Arc::new(Desk { state: Mutex::new(Some(state)), waiting: AtomicUsize::new(0) });
        let own = Arc::clone(&desk);
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || {
                let closing = run(&own, &receiver);
                // Only now may another server come; and only then is `close` answered.
                drop(receiver);
                drop(keep);
                if let Some(reply) = closing {
                    let _ = reply.send(());
                }
            })
            .map_err(|e| failure::io("start the writer thread", e))?;
        Ok(Self { queue: Some(sender), desk, thread: Some(thread), done })
    }

    /// Puts it in the queue and does not wait.
    pub fn send(&self, unit: Unit) -> Result<()> {
        self.desk.waiting.fetch_add(1, Ordering::AcqRel);
        let sent = self.push(Job::Unit(unit));
        if sent.is_err() {
            self.desk.waiting.fetch_sub(1, Ordering::AcqRel);
        }
        sent
    }

    /// Commits it on this thread if nobody else is writing and nothing waits, and otherwise does as
    /// [`Writer::send`]. It never waits for a disk or another's lock: what is to be durable goes into the queue.
    pub fn send_or_do(&self, unit: Unit) -> Result<()> {
        if unit.durable {
            return self.send(unit);
        }
        let Some(mut desk) = self.desk.take_if_idle() else { return self.send(unit) };
        let Some(state) = desk.as_mut() else { return Err(stopped()) };
        match state.commit_at_once(unit) {
            Ok(()) => Ok(()),
            // Before the desk is left: what another sends in between must not overtake it.
            Err(unit) => self.send(unit),
        }
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

/// The thread's work, until it is told to close or nobody can send any more.
fn run(desk: &Desk, jobs: &Receiver<Job>) -> Option<oneshot::Sender<()>> {
    let mut closing = None;
    while closing.is_none() {
        let Ok(first) = jobs.recv() else { break };
        let mut at_desk = desk.take();
        let Some(state) = at_desk.as_mut() else { break };
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
        let count = batch.len();
        // What came before the first durable one need not wait for the disk. What came after it must, since a
        // log is durable up to a point and the order of arrival is kept.
        let rest = batch.split_off(batch.iter().position(|u| u.durable).unwrap_or(batch.len()));
        state.commit(batch, Level::Normal);
        state.commit(rest, Level::Full);
        desk.waiting.fetch_sub(count, Ordering::AcqRel);
        state.housekeep();
    }
    if let Some(state) = desk.take().take() {
        state.close();
    }
    closing
}

impl State {
    fn close(self) {
        let Self { conn, checkpointer, .. } = self;
        drop(checkpointer);
        if let Err(e) = checkpoint(&conn, "TRUNCATE") {
            tracing::error!(error = %e, "checkpoint the database at the end");
        }
        if let Err((_, e)) = conn.close() {
            tracing::error!(error = %e, "close the database");
        }
    }

    /// Commits and answers it, or gives it back where that would mean to wait: for another program that writes, or
    /// for a log that has grown too long.
    fn commit_at_once(&mut self, unit: Unit) -> Result<(), Unit> {
        if self.checkpointer.is_long() || self.conn.busy_timeout(Duration::ZERO).is_err() {
            return Err(unit);
        }
        let result = self.attempt(std::slice::from_ref(&unit), Level::Normal);
        if let Err(e) = self.conn.busy_timeout(schema::BUSY) {
            tracing::error!(error = %e, "set how long the database is waited for");
        }
        let answer = match result {
            Ok(values) => Ok(values.first().copied().unwrap_or_default()),
            Err((_, error)) if failure::is_busy(&error) => return Err(unit),
            Err((context, error)) => Err(failure::sql(context, error)),
        };
        // A caller that went away has its commit all the same.
        let _ = unit.reply.send(answer);
        self.since += 1;
        self.poke_checkpoint();
        Ok(())
    }

    fn poke_checkpoint(&mut self) {
        if self.since >= CHECKPOINT_AFTER {
            self.since = 0;
            self.checkpointer.poke();
        }
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
        self.poke_checkpoint();
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
