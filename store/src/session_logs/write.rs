//! The log thread: it owns the queue's end and the open files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use domain::{Error, Result, SessionId};
use rusqlite::{Connection, OpenFlags, params};

use super::{Entry, Job, Shared};
use crate::{failure, files, schema};

/// Files held open; beyond it the one unused for longest is closed, which costs milliseconds.
const OPEN: usize = 64;
/// Events in one round over the sessions.
const BATCH: usize = 1024;

const SCHEMA: &str = "
    PRAGMA synchronous = OFF;
    PRAGMA journal_mode = WAL;
    CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL) STRICT;
    PRAGMA user_version = 1;
    PRAGMA wal_checkpoint(TRUNCATE);";

/// The bytes of an empty log. A new log is this, written whole and renamed into place, so that a reader never sees
/// one that is half made; and it costs no statement.
pub(super) fn template(dir: &Path) -> Result<Vec<u8>> {
    let path = dir.join("template.tmp");
    for path in beside(&path) {
        files::remove(&path)?;
    }
    drop(files::private_file(&path)?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Connection::open_with_flags(&path, flags)
        .and_then(|conn| {
            conn.execute_batch(SCHEMA)?;
            conn.close().map_err(|(_, e)| e)
        })
        .map_err(|e| failure::sql(format!("make an empty log in {}", dir.display()), e))?;
    let bytes = std::fs::read(&path).map_err(|e| failure::io(format!("read {}", path.display()), e))?;
    files::remove(&path)?;
    Ok(bytes)
}

/// A log made just before a loss of power may be a name without content. It holds nothing, so it is made again.
pub(super) fn has_content(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.len() > 0)
}

/// A database and what SQLite lays beside it; those first, for without their database they mean nothing.
fn beside(path: &Path) -> [PathBuf; 3] {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    [with("-wal"), with("-shm"), path.to_owned()]
}

struct Log {
    conn: Connection,
    last: u64,
    used: u64,
    /// Its write-ahead log is about to be made. SQLite would sync the head of it, to tell the new log's beginning
    /// from an older one's rest; a fresh file has no rest, and the sync would cost this thread milliseconds.
    fresh: bool,
}

/// Closes files on a thread of its own: the last close of a file moves its write-ahead log into it and syncs both.
struct Closer {
    queue: Option<Sender<Closing>>,
    thread: Option<JoinHandle<()>>,
}

enum Closing {
    Close(Connection),
    /// Answered when all before it are closed.
    Barrier(Sender<()>),
}

impl Closer {
    fn start() -> Self {
        let (queue, work) = channel();
        let run = move || {
            for closing in work {
                match closing {
                    Closing::Close(conn) => close(conn),
                    Closing::Barrier(reply) => drop(reply.send(())),
                }
            }
        };
        match std::thread::Builder::new().name("session-logs-close".into()).spawn(run) {
            Ok(thread) => Self { queue: Some(queue), thread: Some(thread) },
            // Then files are closed on the log thread: slower, and no less right.
            Err(e) => {
                tracing::warn!(error = %e, "start the thread that closes session logs");
                Self { queue: None, thread: None }
            }
        }
    }

    fn close(&self, conn: Connection) {
        match &self.queue {
            // Should the thread be gone, the connection comes back and is closed by being dropped.
            Some(queue) => drop(queue.send(Closing::Close(conn))),
            None => close(conn),
        }
    }

    fn wait(&self) {
        let (reply, done) = channel();
        if let Some(queue) = &self.queue
            && queue.send(Closing::Barrier(reply)).is_ok()
        {
            let _ = done.recv();
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn close(conn: Connection) {
    if let Err((_, e)) = conn.close() {
        tracing::warn!(error = %e, "close a session's log");
    }
}

struct Logs<'a> {
    shared: &'a Shared,
    template: &'a [u8],
    open: HashMap<SessionId, Log>,
    closer: Closer,
    /// Counts uses, to tell which was used last.
    uses: u64,
}

pub(super) fn run(shared: &Shared, template: &[u8], jobs: Receiver<Job>) {
    let mut logs = Logs { shared, template, open: HashMap::new(), closer: Closer::start(), uses: 0 };
    let mut closing = None;
    while closing.is_none() {
        let Ok(first) = jobs.recv() else { break };
        let mut round = Round::default();
        let mut next = Some(first);
        while let Some(job) = next {
            match job {
                Job::Append(entry) => round.push(entry),
                Job::Remove(session, reply) => {
                    logs.append(std::mem::take(&mut round));
                    let _ = reply.send(logs.remove(session));
                }
                Job::Close(reply) => {
                    closing = Some(reply);
                    break;
                }
            }
            next = if round.len < BATCH { jobs.try_recv().ok() } else { None };
        }
        logs.append(round);
    }
    drop(jobs);
    shared.idle().close();
    drop(logs);
    {
        // With the senders gone the followers read to the end and end.
        let mut news = shared.news();
        news.closed = true;
        news.sessions.clear();
    }
    if let Some(reply) = closing {
        let _ = reply.send(());
    }
}

/// What waits, by session, in the order of arrival.
#[derive(Default)]
struct Round {
    sessions: Vec<(SessionId, Vec<Entry>)>,
    places: HashMap<SessionId, usize>,
    len: usize,
}

impl Round {
    fn push(&mut self, entry: Entry) {
        let sessions = &mut self.sessions;
        let place = *self.places.entry(entry.session).or_insert_with(|| {
            sessions.push((entry.session, Vec::new()));
            sessions.len() - 1
        });
        sessions[place].1.push(entry);
        self.len += 1;
    }
}

impl Logs<'_> {
    fn append(&mut self, round: Round) {
        for (session, entries) in round.sessions {
            let bytes = entries.iter().map(Entry::bytes).sum();
            match self.write(session, &entries) {
                Ok(last) => {
                    self.shared.announce(session, last);
                    let first = last + 1 - entries.len() as u64;
                    for (seq, entry) in (first..).zip(entries) {
                        if let Some(reply) = entry.reply {
                            let _ = reply.send(Ok(seq));
                        }
                    }
                }
                Err(error) => {
                    // Begin anew with the file the next time: what went wrong may have been the connection.
                    self.open.remove(&session);
                    let posted = entries.iter().filter(|e| e.reply.is_none()).count();
                    if posted > 0 {
                        tracing::error!(%session, events = posted, error = %error.chain(), "events of a session's log are lost");
                    }
                    for reply in entries.into_iter().filter_map(|e| e.reply) {
                        let _ = reply.send(Err(Error::new(error.kind(), error.chain())));
                    }
                }
            }
            self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// All of `entries` in one transaction; returns the number of the last.
    fn write(&mut self, session: SessionId, entries: &[Entry]) -> Result<u64> {
        let failed = |e| failure::sql(format!("append to the log of {session}"), e);
        let log = self.log(session)?;
        if log.fresh {
            log.conn.execute_batch("PRAGMA synchronous=OFF").map_err(failed)?;
        }
        let tx = log.conn.transaction().map_err(failed)?;
        let mut last = log.last;
        {
            let mut insert = tx
                .prepare_cached("INSERT INTO events(seq, at, kind, data) VALUES(?1, ?2, ?3, ?4)")
                .map_err(failed)?;
            for entry in entries {
                last += 1;
                insert
                    .execute(params![last as i64, entry.at.to_string(), entry.kind, entry.data])
                    .map_err(failed)?;
            }
        }
        tx.commit().map_err(failed)?;
        log.last = last;
        if std::mem::take(&mut log.fresh) {
            log.conn.execute_batch("PRAGMA synchronous=NORMAL").map_err(failed)?;
        }
        Ok(last)
    }

    fn log(&mut self, session: SessionId) -> Result<&mut Log> {
        self.uses += 1;
        let used = self.uses;
        if !self.open.contains_key(&session) {
            if self.open.len() >= OPEN
                && let Some(oldest) = self.open.iter().min_by_key(|(_, log)| log.used).map(|(id, _)| *id)
                && let Some(log) = self.open.remove(&oldest)
            {
                self.closer.close(log.conn);
            }
            let log = self.open_file(session)?;
            self.open.insert(session, log);
        }
        match self.open.get_mut(&session) {
            Some(log) => {
                log.used = used;
                Ok(log)
            }
            None => Err(Error::permanent(format!("open the log of {session}"))),
        }
    }

    fn open_file(&self, session: SessionId) -> Result<Log> {
        let path = self.shared.path(session);
        if !has_content(&path) {
            let new = path.with_extension("tmp");
            let failed = |e| failure::io(format!("make the log of {session}"), e);
            let mut file = files::private_file(&new)?;
            file.set_len(0).map_err(failed)?;
            std::io::Write::write_all(&mut file, self.template).map_err(failed)?;
            std::fs::rename(&new, &path).map_err(failed)?;
        }
        let [wal, ..] = beside(&path);
        let fresh = !wal.exists();
        let conn = schema::connect(&path)?;
        let last: i64 = conn
            .query_row("SELECT coalesce(max(seq), 0) FROM events", [], |row| row.get(0))
            .map_err(|e| failure::sql(format!("read the log of {session}"), e))?;
        Ok(Log { conn, last: last as u64, used: 0, fresh })
    }

    fn remove(&mut self, session: SessionId) -> Result<()> {
        self.open.remove(&session);
        // It may be on its way to be closed, and a close tidies up by the file's name.
        self.closer.wait();
        let mut result = Ok(());
        for path in beside(&self.shared.path(session)) {
            result = result.and(files::remove(&path));
        }
        self.shared.idle().forget(session);
        self.shared.news().sessions.remove(&session);
        result
    }
}
