//! The log thread: it owns the queue's end, the open files and the journal.

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use domain::{Error, Result, SessionId};
use rusqlite::{Connection, params};

use super::draft::Draft;
use super::journal::{Journal, Left, Numbered};
use super::{Entry, Job, Shared};
use crate::{failure, files, schema};

/// Files held open; beyond it the one unused for longest is closed, which costs milliseconds.
const OPEN: usize = 64;
/// Events in one round over the sessions.
const BATCH: usize = 1024;
/// How long events lie in the journal at least, unless somebody asks: most sessions write their first lines within
/// it, and then their file is written once.
const LINGER: Duration = Duration::from_secs(1);
/// Files made in one go, and the part of this thread's time that making them may take: a quarter. The rest is for
/// events, and for whoever else wants the processor after a burst of claims.
const SETTLED_AT_ONCE: usize = 16;
const REST: u32 = 3;
/// More than this in the journal, and files are made without pause.
const JOURNAL_BYTES: usize = 32 * 1024 * 1024;

/// What the name of a file ends with that is not made yet.
const UNFINISHED: &str = "tmp";

/// Removes what an earlier process had not finished: its events are in the journal.
fn tidy(dir: &Path) -> Result<()> {
    let io = |e| failure::io(format!("tidy {}", dir.display()), e);
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == UNFINISHED) {
            files::remove(&path)?;
        }
    }
    Ok(())
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

/// Events of a session that lie in the journal and not yet in its file.
struct Aside {
    events: Vec<Numbered>,
    since: Instant,
}

struct Logs<'a> {
    shared: &'a Shared,
    draft: Draft,
    open: HashMap<SessionId, Log>,
    closer: Closer,
    /// Counts uses, to tell which was used last.
    uses: u64,
    journal: Journal,
    aside: HashMap<SessionId, Aside>,
    /// Those of `aside`, the oldest first; a session that was settled since may still stand here.
    turns: VecDeque<SessionId>,
    aside_bytes: usize,
    /// No file is made at leisure before this.
    rested: Instant,
}

pub(super) fn run(shared: &Shared, draft: Draft, journal: Journal, left: Left, jobs: Receiver<Job>) {
    // Here, where there may be thousands of files and nobody waits for the start.
    if let Err(e) = tidy(&shared.dir) {
        tracing::warn!(error = %e.chain(), "tidy the session logs");
    }
    let mut logs = Logs {
        shared,
        draft,
        open: HashMap::new(),
        closer: Closer::start(),
        uses: 0,
        journal,
        aside: HashMap::new(),
        turns: VecDeque::new(),
        aside_bytes: 0,
        rested: Instant::now(),
    };
    for (session, events) in left {
        logs.put_aside(session, events);
    }
    let mut closing = None;
    while closing.is_none() {
        let first = match logs.next_turn() {
            None => jobs.recv().map_err(RecvTimeoutError::from),
            Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        let mut next = match first {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut round = Round::default();
        while let Some(job) = next {
            match job {
                Job::Append(entry) => round.push(entry),
                Job::Settle(session, reply) => {
                    logs.append(std::mem::take(&mut round));
                    let _ = reply.send(logs.settle(&[session]));
                }
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
        logs.settle_at_leisure();
    }
    drop(jobs);
    let all: Vec<_> = logs.aside.keys().copied().collect();
    if let Err(e) = logs.settle(&all) {
        tracing::error!(error = %e.chain(), "events stay in the journal of session logs until the next start");
    }
    shared.idle().close();
    let Logs { open, closer, journal, .. } = logs;
    drop((open, closer));
    journal.close();
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

/// Whoever waits for events that have just been numbered.
type Replies = Vec<(u64, tokio::sync::oneshot::Sender<Result<u64>>)>;

fn number(entries: Vec<Entry>, last: u64) -> (Vec<Numbered>, Replies) {
    let (mut events, mut replies) = (Vec::with_capacity(entries.len()), Vec::new());
    for (seq, entry) in (last + 1..).zip(entries) {
        replies.extend(entry.reply.map(|reply| (seq, reply)));
        events.push(Numbered { seq, at: entry.at, kind: entry.kind, data: entry.data });
    }
    (events, replies)
}

/// Tells those who wait, and the log of Hotbed itself where nobody does.
fn lose(session: SessionId, events: &[Numbered], replies: Replies, error: &Error) {
    let posted = events.len() - replies.len();
    if posted > 0 {
        tracing::error!(%session, events = posted, error = %error.chain(), "events of a session's log are lost");
    }
    for (_, reply) in replies {
        let _ = reply.send(Err(Error::new(error.kind(), error.chain())));
    }
}

/// Writes events into a log's database; the number of the last.
pub(super) fn insert<'e>(
    conn: &Connection,
    events: impl Iterator<Item = &'e Numbered>,
) -> rusqlite::Result<Option<u64>> {
    let mut insert = conn.prepare_cached("INSERT INTO events(seq, at, kind, data) VALUES(?1, ?2, ?3, ?4)")?;
    let mut last = None;
    for event in events {
        insert.execute(params![event.seq as i64, event.at.to_string(), event.kind, event.data])?;
        last = Some(event.seq);
    }
    Ok(last)
}

impl Logs<'_> {
    fn append(&mut self, round: Round) {
        let bytes: usize = round.sessions.iter().flat_map(|(_, entries)| entries).map(Entry::bytes).sum();
        let mut aside = Vec::new();
        for (session, entries) in round.sessions {
            match self.last_aside(session) {
                Some(last) => aside.push((session, last, entries)),
                None => self.append_to_file(session, entries),
            }
        }
        self.set_down(aside);
        self.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The number of the last event of a session whose events go to the journal; `None` for one whose file takes
    /// them: somebody follows it, or it is there already.
    fn last_aside(&mut self, session: SessionId) -> Option<u64> {
        let last = self.aside.get(&session).and_then(|a| a.events.last()).map(|e| e.seq);
        let straight = self.shared.is_watched(session)
            || last.is_none()
                && (self.open.contains_key(&session) || has_content(&self.shared.path(session)));
        if straight { None } else { Some(last.unwrap_or(0)) }
    }

    /// Sets events down in the journal, those of all sessions in one transaction.
    fn set_down(&mut self, sessions: Vec<(SessionId, u64, Vec<Entry>)>) {
        if sessions.is_empty() {
            return;
        }
        let number = |(session, last, entries)| {
            let (events, replies) = number(entries, last);
            (session, events, replies)
        };
        let all: Vec<_> = sessions.into_iter().map(number).collect();
        let rows = all.iter().flat_map(|(session, events, _)| events.iter().map(|e| (*session, e)));
        match self.journal.write(rows) {
            Ok(()) => {
                for (session, events, replies) in all {
                    let last = events.last().map_or(0, |e| e.seq);
                    // Before anybody learns of them, so that who reads has them settled first.
                    self.shared.unsettled().insert(session);
                    self.put_aside(session, events);
                    self.shared.announce(session, last);
                    for (seq, reply) in replies {
                        let _ = reply.send(Ok(seq));
                    }
                }
            }
            Err(e) => {
                let error = failure::sql("append to the journal of session logs", e);
                for (session, events, replies) in all {
                    lose(session, &events, replies, &error);
                }
            }
        }
    }

    fn put_aside(&mut self, session: SessionId, events: Vec<Numbered>) {
        self.aside_bytes += events.iter().map(Numbered::bytes).sum::<usize>();
        let aside = self.aside.entry(session).or_insert_with(|| {
            self.turns.push_back(session);
            Aside { events: Vec::new(), since: Instant::now() }
        });
        aside.events.extend(events);
    }

    /// When the next file is to be made at leisure.
    fn next_turn(&self) -> Option<Instant> {
        let oldest = self.turns.iter().find_map(|session| self.aside.get(session))?;
        Some(if self.aside_bytes > JOURNAL_BYTES {
            Instant::now()
        } else {
            self.rested.max(oldest.since + LINGER)
        })
    }

    /// Makes some files, and then leaves the processor to others for a while.
    fn settle_at_leisure(&mut self) {
        let begun = Instant::now();
        if self.next_turn().is_none_or(|at| at > begun) {
            return;
        }
        let mut due = Vec::new();
        while due.len() < SETTLED_AT_ONCE
            && let Some(session) = self.turns.pop_front()
        {
            if self.aside.contains_key(&session) {
                due.push(session);
            }
        }
        if let Err(e) = self.settle(&due) {
            tracing::error!(error = %e.chain(), "could not move events into a session's log; they wait in the journal");
            // Behind the others, and not at once.
            for session in due {
                if let Some(aside) = self.aside.get_mut(&session) {
                    aside.since = Instant::now();
                    self.turns.push_back(session);
                }
            }
        }
        self.rested = Instant::now() + begun.elapsed() * REST;
    }

    /// Moves what the journal has of these sessions into their files; the first error, after all were tried.
    fn settle(&mut self, sessions: &[SessionId]) -> Result<()> {
        let (mut settled, mut result) = (Vec::new(), Ok(()));
        for session in sessions {
            let Some(aside) = self.aside.remove(session) else { continue };
            match self.move_in(*session, &aside.events) {
                Ok(()) => {
                    self.aside_bytes -= aside.events.iter().map(Numbered::bytes).sum::<usize>();
                    settled.push(*session);
                }
                Err(e) => {
                    self.aside.insert(*session, aside);
                    result = result.and(Err(e));
                }
            }
        }
        if !settled.is_empty() {
            if let Err(e) = self.journal.forget(&settled) {
                // They stand in both, which the next start sees.
                tracing::warn!(error = %e, "take events out of the journal of session logs");
            }
            let mut unsettled = self.shared.unsettled();
            for session in &settled {
                unsettled.remove(session);
            }
        }
        result
    }

    /// Writes numbered events into the session's file; those that are in it already stay as they are.
    fn move_in(&mut self, session: SessionId, events: &[Numbered]) -> Result<()> {
        if !self.open.contains_key(&session) && !has_content(&self.shared.path(session)) {
            return self.make_file(session, events);
        }
        let last = self.log(session)?.last;
        self.write(session, events.iter().filter(|e| e.seq > last))
    }

    /// A new file with its first events, written whole under another name and renamed into place, so that a reader
    /// never sees one that is half made.
    fn make_file(&mut self, session: SessionId, events: &[Numbered]) -> Result<()> {
        let io = |e| failure::io(format!("make the log of {session}"), e);
        let bytes = self.draft.file(events.iter());
        let bytes = bytes.map_err(|e| failure::sql(format!("make the log of {session}"), e))?;
        let path = self.shared.path(session);
        let new = path.with_extension(UNFINISHED);
        let mut file = files::private_file(&new)?;
        let made = file.set_len(0).and_then(|()| file.write_all(&bytes));
        let made = made.and_then(|()| std::fs::rename(&new, &path)).map_err(io);
        if made.is_err() {
            let _ = files::remove(&new);
        }
        made
    }

    /// Straight into the session's own file.
    fn append_to_file(&mut self, session: SessionId, entries: Vec<Entry>) {
        let last = self.settle(&[session]).and_then(|()| Ok(self.log(session)?.last));
        let (events, replies) = number(entries, *last.as_ref().unwrap_or(&0));
        let written = last.and_then(|last| {
            self.write(session, events.iter())?;
            Ok(last + events.len() as u64)
        });
        match written {
            Ok(last) => {
                self.shared.announce(session, last);
                for (seq, reply) in replies {
                    let _ = reply.send(Ok(seq));
                }
            }
            Err(error) => {
                // Begin anew with the file the next time: what went wrong may have been the connection.
                self.open.remove(&session);
                lose(session, &events, replies, &error);
            }
        }
    }

    /// All of `events` in one transaction.
    fn write<'e>(&mut self, session: SessionId, events: impl Iterator<Item = &'e Numbered>) -> Result<()> {
        let failed = |e| failure::sql(format!("append to the log of {session}"), e);
        let log = self.log(session)?;
        if log.fresh {
            log.conn.execute_batch("PRAGMA synchronous=OFF").map_err(failed)?;
        }
        let inserted = || -> rusqlite::Result<_> {
            let tx = log.conn.transaction()?;
            let last = insert(&tx, events)?;
            tx.commit().map(|()| last)
        };
        if let Some(last) = inserted().map_err(failed)? {
            log.last = last;
        }
        if std::mem::take(&mut log.fresh) {
            log.conn.execute_batch("PRAGMA synchronous=NORMAL").map_err(failed)?;
        }
        Ok(())
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

    fn open_file(&mut self, session: SessionId) -> Result<Log> {
        let path = self.shared.path(session);
        if !has_content(&path) {
            self.make_file(session, &[])?;
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
        if let Some(aside) = self.aside.remove(&session) {
            self.aside_bytes -= aside.events.iter().map(Numbered::bytes).sum::<usize>();
            let failed = |e| failure::sql(format!("remove the log of {session} from the journal"), e);
            self.journal.forget(&[session]).map_err(failed)?;
            self.shared.unsettled().remove(&session);
        }
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
