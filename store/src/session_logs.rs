//! The append-only log of each session: one SQLite file, events numbered from 1 without gaps.
//!
//! One thread writes all of them and holds the open files, so that opening one is never on a caller's path. The
//! events of a new session that nobody reads yet lie in a journal that all share, and its file is made a second
//! later, or at once when somebody asks. A follower reads from the file and is only *woken* by the writer: a slow
//! one falls behind by itself and blocks nobody, and there is one source of events, so catching up and following
//! live can't disagree.
//!
//! The store's lock on the state directory covers these files too: open the store first.

mod draft;
mod journal;
mod read;
mod write;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;

use domain::{Error, Result, SessionId, SharedClock};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use crate::{failure, files};

use journal::Journal;

/// The longest event, as JSON.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;
/// Events that may wait for the log thread, and their bytes.
const QUEUE: usize = 8192;
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Events that a follower takes from the file at a time.
const STRIDE: usize = 256;

/// One entry of a session's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogEvent {
    /// From 1, one by one.
    pub seq: u64,
    /// When it was appended, by the injected clock.
    pub at: Timestamp,
    pub kind: String,
    pub data: serde_json::Value,
}

/// The logs of all sessions. Cheap to clone; the last handle dropped lets the log thread finish.
#[derive(Clone)]
pub struct SessionLogs(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    clock: SharedClock,
}

/// What the log thread, readers and followers share.
struct Shared {
    dir: PathBuf,
    /// The way to the log thread; `None` once the last handle is gone.
    queue: RwLock<Option<SyncSender<Job>>>,
    queued: AtomicUsize,
    news: Mutex<News>,
    idle: Mutex<read::Idle>,
    /// Sessions of which events lie in the journal: who reads one has it settled first.
    unsettled: Mutex<HashSet<SessionId>>,
}

/// Who waits for which session: the number of its last event, where it is known.
#[derive(Default)]
struct News {
    sessions: HashMap<SessionId, watch::Sender<u64>>,
    closed: bool,
}

struct Entry {
    session: SessionId,
    at: Timestamp,
    kind: String,
    data: String,
    reply: Option<oneshot::Sender<Result<u64>>>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.kind.len() + self.data.len()
    }
}

enum Job {
    Append(Entry),
    /// Move what the journal has of it into its own file.
    Settle(SessionId, oneshot::Sender<Result<()>>),
    Remove(SessionId, oneshot::Sender<Result<()>>),
    Close(oneshot::Sender<()>),
}

impl std::fmt::Debug for SessionLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionLogs").field("dir", &self.0.shared.dir).finish_non_exhaustive()
    }
}

impl SessionLogs {
    /// Makes `<dir>/sessions` where it is missing and starts the log thread. Blocks for a few milliseconds.
    pub fn open(dir: &Path, clock: SharedClock) -> Result<Self> {
        let (journal, left) = Journal::open(&dir.join("session-journal.db"))?;
        let dir = dir.join("sessions");
        files::private_dir(&dir)?;
        let draft = draft::Draft::new()?;
        let (queue, jobs) = sync_channel(QUEUE);
        let shared = Arc::new(Shared {
            dir,
            queue: RwLock::new(Some(queue)),
            queued: AtomicUsize::new(0),
            news: Mutex::default(),
            idle: Mutex::default(),
            unsettled: Mutex::new(left.iter().map(|(session, _)| *session).collect()),
        });
        let mine = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("session-logs".into())
            .spawn(move || write::run(&mine, draft, journal, left, jobs))
            .map_err(|e| failure::io("start the log thread", e))?;
        Ok(Self(Arc::new(Handle { shared, thread: Some(thread), clock })))
    }

    /// Appends and does not wait. Events of one caller keep their order, also mixed with [`Self::append`].
    ///
    /// # Errors
    /// `Exhausted` when too much waits already, `Invalid` when the event is longer than [`MAX_EVENT_BYTES`],
    /// `Unavailable` after [`Self::close`]: in each case it is not in the log. What fails later is logged.
    pub fn post(&self, session: SessionId, kind: &str, data: serde_json::Value) -> Result<()> {
        self.submit(session, kind, &data, None)
    }

    /// Appends and resolves to the event's number when it is committed (it survives the process, not the power).
    /// The event takes its place in the order of events when the call is made, before anything is awaited.
    ///
    /// # Errors
    /// As [`Self::post`], and `Exhausted` when the disk is full.
    pub fn append(
        &self,
        session: SessionId,
        kind: &str,
        data: serde_json::Value,
    ) -> impl Future<Output = Result<u64>> + Send + 'static + use<> {
        let (reply, answer) = oneshot::channel();
        let sent = self.submit(session, kind, &data, Some(reply));
        async move {
            sent?;
            answer.await.map_err(|_| closed())?
        }
    }

    fn submit(
        &self,
        session: SessionId,
        kind: &str,
        data: &serde_json::Value,
        reply: Option<oneshot::Sender<Result<u64>>>,
    ) -> Result<()> {
        let data = without_secrets(data);
        let entry = Entry { session, at: self.0.clock.now(), kind: kind.to_owned(), data, reply };
        let bytes = entry.bytes();
        if bytes > MAX_EVENT_BYTES {
            return Err(Error::invalid(format!(
                "append to the log of {session}: the event `{}` has {bytes} bytes, expected at most {MAX_EVENT_BYTES}",
                kind.chars().take(80).collect::<String>()
            )));
        }
        let queued = self.0.shared.queued.fetch_add(bytes, Ordering::Relaxed);
        let sent =
            if queued + bytes > QUEUE_BYTES { Err(full()) } else { self.0.shared.push(Job::Append(entry)) };
        if sent.is_err() {
            self.0.shared.queued.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }

    /// Up to `limit` events after number `after`, in order. It may return fewer although there are more, when they
    /// are long; an empty answer means that there are none (yet). A session without a log has none.
    pub async fn read(&self, session: SessionId, after: u64, limit: usize) -> Result<Vec<LogEvent>> {
        read::events(Arc::clone(&self.0.shared), session, after, limit).await
    }

    /// The number of the last event; 0 when there is none.
    pub async fn last(&self, session: SessionId) -> Result<u64> {
        read::last(Arc::clone(&self.0.shared), session).await
    }

    /// All events after number `after`: those in the file, then new ones as they are committed, without gap or
    /// duplicate. It ends when the log is removed or all logs are closed, or after its first error.
    pub fn follow(&self, session: SessionId, after: u64) -> BoxStream<'static, Result<LogEvent>> {
        struct Follower {
            shared: Arc<Shared>,
            news: watch::Receiver<u64>,
            after: u64,
            ready: VecDeque<LogEvent>,
        }
        let shared = Arc::clone(&self.0.shared);
        let news = shared.subscribe(session);
        let follower = Follower { shared, news, after, ready: VecDeque::new() };
        stream::try_unfold(follower, move |mut me| async move {
            loop {
                if let Some(event) = me.ready.pop_front() {
                    me.after = event.seq;
                    return Ok(Some((event, me)));
                }
                // First note what is known, then read: what comes in between wakes us again.
                let ended = me.news.has_changed().is_err();
                me.news.borrow_and_update();
                let events = read::events(Arc::clone(&me.shared), session, me.after, STRIDE).await?;
                me.ready = events.into();
                if me.ready.is_empty() {
                    if ended {
                        return Ok(None);
                    }
                    // An error means that it ended while we waited: the next round reads what is left and sees that.
                    let _ = me.news.changed().await;
                }
            }
        })
        .boxed()
    }

    /// The logs that lie in files, the oldest session first, with their bytes on disk.
    pub async fn list(&self) -> Result<Vec<(SessionId, u64)>> {
        let dir = self.0.shared.dir.clone();
        let listed = tokio::task::spawn_blocking(move || {
            files::list(&dir, |name| name.strip_suffix(".db")?.parse::<SessionId>().ok())
        });
        listed.await.map_err(|e| failure::join("list the logs of sessions", e))?
    }

    /// Removes the log, after what was appended before. Its followers end. An event appended later begins a new
    /// log from number 1.
    pub async fn remove(&self, session: SessionId) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.0.shared.push(Job::Remove(session, reply))?;
        answer.await.map_err(|_| closed())?
    }

    /// Ends it for all handles: commits what waits and closes all files; followers read to the end and end.
    pub async fn close(self) {
        let (reply, done) = oneshot::channel();
        if self.0.shared.push(Job::Close(reply)).is_ok() {
            let _ = done.await;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn push(&self, job: Job) -> Result<()> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = &*queue else { return Err(closed()) };
        queue.try_send(job).map_err(|e| match e {
            TrySendError::Full(_) => full(),
            TrySendError::Disconnected(_) => closed(),
        })
    }

    /// Has what the journal holds of a session moved into its own file, so that the file is all there is.
    async fn settle(&self, session: SessionId) -> Result<()> {
        if !self.unsettled().contains(&session) {
            return Ok(());
        }
        let (reply, done) = oneshot::channel();
        self.push(Job::Settle(session, reply))?;
        done.await.map_err(|_| closed())?
    }

    /// Whether somebody follows it.
    fn is_watched(&self, session: SessionId) -> bool {
        self.news().sessions.get(&session).is_some_and(|sender| sender.receiver_count() > 0)
    }

    fn unsettled(&self) -> MutexGuard<'_, HashSet<SessionId>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, session: SessionId) -> PathBuf {
        self.dir.join(format!("{session}.db"))
    }

    fn subscribe(&self, session: SessionId) -> watch::Receiver<u64> {
        let mut news = self.news();
        if news.closed {
            // The sender is gone at once, which is what an ended log looks like.
            return watch::channel(0).1;
        }
        // Those that nobody waits for any more go here, so that the map is never longer than twice what is in use.
        if news.sessions.len() >= 64 && news.sessions.len() == news.sessions.capacity() {
            news.sessions.retain(|_, sender| sender.receiver_count() > 0);
        }
        news.sessions.entry(session).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn announce(&self, session: SessionId, last: u64) {
        if let Some(sender) = self.news().sessions.get(&session) {
            sender.send_replace(last);
        }
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, read::Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An event as it is written. Most hold nothing that is secret, and are looked at once.
fn without_secrets(data: &serde_json::Value) -> String {
    let text = data.to_string();
    if matches!(domain::redact::redact(&text), std::borrow::Cow::Borrowed(_)) {
        return text;
    }
    // By its texts: what a cut is made of must not end the JSON.
    let mut data = data.clone();
    domain::redact::redact_json(&mut data);
    data.to_string()
}

fn full() -> Error {
    Error::exhausted("append to a session's log: too many events wait for the disk")
}

fn closed() -> Error {
    Error::unavailable("append to a session's log: the logs are closed")
}
