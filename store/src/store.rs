//! The store as the rest of Hotbed sees it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::{
    AbsenceRecord, BuildId, BuildRecord, CadenceRecord, DemandHour, DemandRecord, ImageId, ImageRecord,
    InstanceId, KeyRecord, PoolOrder, PullRequestId, PullRequestRecord, RepoName, Result, SandboxId,
    SandboxRecord, SessionId, SessionRecord, SessionState, SharedClock, SnapshotId, SnapshotRecord, WarmupId,
    WarmupRecord, WarmupState,
};
use jiff::Timestamp;
use rusqlite::Connection;
use serde::Serialize;
use tokio::sync::oneshot;

use crate::lock::DirLock;
use crate::page::{Page, Paged, SessionFilter, SnapshotFilter};
use crate::read::{self, Readers};
use crate::receipt::Receipt;
use crate::rows::{Idempotency, Row, decode, word};
use crate::tx::Tx;
use crate::writer::{IDEMPOTENCY_KEPT, QUEUE, Unit, Work, Writer, stopped};
use crate::{backup, failure, files, schema};

/// The durable records of one installation. Cheap to clone. Dropping the last handle blocks until the writer has
/// committed what waits, milliseconds as a rule; [`Store::close`] does the same without blocking.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    // Before the writer, so that no connection outlives the directory's lock.
    readers: Readers,
    writer: Writer,
    instance: InstanceId,
    secret: [u8; 32],
    restored_at: Option<Timestamp>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("instance", &self.0.instance).finish_non_exhaustive()
    }
}

/// What lives, as it was when the store was opened. Each list oldest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Loaded {
    /// All that are not gone.
    pub sandboxes: Vec<SandboxRecord>,
    /// All that have not ended.
    pub sessions: Vec<SessionRecord>,
    pub images: Vec<ImageRecord>,
    /// All that have not ended.
    pub builds: Vec<BuildRecord>,
    pub snapshots: Vec<SnapshotRecord>,
    /// The outbox, and those that are open: what there is still something to do about.
    pub pull_requests: Vec<PullRequestRecord>,
    /// Live ones, also those whose time has run out meanwhile.
    pub warmups: Vec<WarmupRecord>,
    /// Of every repo of which something is left and that was not configured.
    pub absences: Vec<AbsenceRecord>,
    /// Of every repo that was ever configured.
    pub cadences: Vec<CadenceRecord>,
    /// Of every repo that was ever configured.
    pub demands: Vec<DemandRecord>,
    /// The hours in which somebody came; of each repo oldest first.
    pub demand_hours: Vec<DemandHour>,
    /// The latest of each repo, those that are over included.
    pub pool_orders: Vec<PoolOrder>,
    /// All there ever were.
    pub api_keys: Vec<KeyRecord>,
    /// Younger than 24 hours.
    pub idempotency: Vec<Idempotency>,
}

/// Counts over all rows. The keys of the maps are the states' own words (`warm`, `merged`, …).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StoreStats {
    pub sessions: u64,
    pub sessions_by_launch: BTreeMap<String, u64>,
    pub sessions_by_state: BTreeMap<String, u64>,
    /// Different users of sessions that have not ended.
    pub people: u64,
    pub pull_requests_by_state: BTreeMap<String, u64>,
    pub snapshots_by_state: BTreeMap<String, u64>,
    pub images_by_state: BTreeMap<String, u64>,
    pub builds_by_state: BTreeMap<String, u64>,
}

/// How many sessions somebody has started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCount {
    pub repo: RepoName,
    pub login: String,
    pub count: u64,
}

/// A pull request, and the session that it came of.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionPull {
    pub record: PullRequestRecord,
    /// The session's user.
    pub login: String,
    /// When the session began.
    pub began: Timestamp,
}

/// What the writer has done since the store was opened: how many commits, and in how many transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct WriteCounts {
    pub commits: u64,
    pub transactions: u64,
}

macro_rules! one {
    ($($name:ident: $id:ident -> $record:ident;)*) => {$(
        #[doc = concat!("The `", stringify!($record), "` of this id, whatever its state.")]
        pub async fn $name(&self, id: $id) -> Result<Option<$record>> {
            self.0.readers.with(move |conn| read::one(conn, id)).await
        }
    )*};
}

impl Store {
    /// Takes the lock of the state directory, makes it (mode 0700) and its database (0600) where they are missing,
    /// brings an older database forward and loads what lives.
    ///
    /// # Errors
    /// `Conflict` when another server holds the directory; `Permanent` when the database is of a newer Hotbed, is
    /// damaged or can't be opened; `Exhausted` when the disk is full.
    pub async fn open(dir: &Path, clock: SharedClock) -> Result<(Self, Loaded)> {
        let dir = dir.to_owned();
        let done = tokio::task::spawn_blocking(move || Self::open_blocking(&dir, clock));
        done.await.map_err(|e| failure::join("open the store", e))?
    }

    fn open_blocking(dir: &Path, clock: SharedClock) -> Result<(Self, Loaded)> {
        files::private_dir(dir)?;
        let lock = DirLock::take(dir)?;
        backup::refuse_half_restored(dir)?;
        let path: PathBuf = dir.join("hotbed.db");
        drop(files::private_file(&path)?);
        let mut conn = schema::connect_writer(&path)?;
        let birth = schema::birth(&mut conn)?;
        let loaded = load(&conn, clock.now())?;
        let restored_at = schema::restored_at(&conn)?;
        let writer = Writer::start(conn, path.clone(), clock, QUEUE, lock)?;
        let readers = Readers::new(path);
        let inner = Inner { writer, readers, instance: birth.instance, secret: birth.secret, restored_at };
        Ok((Self(Arc::new(inner)), loaded))
    }

    /// Commits `tx` whole or not at all; resolves when it is committed to the degree asked for. From the first poll
    /// on it is committed even when the caller goes away.
    ///
    /// # Errors
    /// `Exhausted` when the queue or the disk is full; `Conflict` when it breaks a rule of the database (two
    /// current images of one repo); `Unavailable` after [`Store::close`].
    pub async fn commit(&self, tx: Tx) -> Result<()> {
        self.submit(tx).await
    }

    /// As [`Store::commit`], but `tx` is in the queue when this returns: two that are submitted one after the other
    /// are committed in that order. For callers that change a record under a lock and await after it.
    pub fn submit(&self, tx: Tx) -> Receipt {
        self.hand_in(tx, Writer::send)
    }

    /// As [`Store::submit`], for the few that a person waits for: where the writer has nothing to do, it is
    /// committed on this thread before this returns, in the order of all others. That takes tens of microseconds,
    /// and never waits for a disk: what is durable goes into the queue.
    pub fn submit_at_once(&self, tx: Tx) -> Receipt {
        self.hand_in(tx, Writer::send_or_do)
    }

    fn hand_in(&self, tx: Tx, send: fn(&Writer, Unit) -> Result<()>) -> Receipt {
        match tx.into_parts() {
            Err(e) => Receipt::known(Err(e)),
            Ok((ops, _)) if ops.is_empty() => Receipt::known(Ok(())),
            Ok((ops, durable)) => {
                let (reply, answer) = oneshot::channel();
                match send(&self.0.writer, Unit { work: Work::Apply(ops), durable, reply }) {
                    Ok(()) => Receipt::waiting(answer),
                    Err(e) => Receipt::known(Err(e)),
                }
            }
        }
    }

    /// The next number of a scope, from 1. A number that was given is never given again, not after a loss of power
    /// either; one that was lost on the way to its caller is skipped.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub async fn next_number(&self, scope: &str) -> Result<u64> {
        let (reply, answer) = oneshot::channel();
        self.0.writer.send(Unit { work: Work::Count(scope.to_owned()), durable: true, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    /// Who owns what is labelled with it. Made at the first open.
    pub fn instance(&self) -> InstanceId {
        self.0.instance
    }

    /// When this state was put back from a copy: what the engine has of before and no row knows was made after the
    /// copy was taken, and may be somebody's work. Nothing once an operator has said that it is not
    /// ([`crate::backup::release`]).
    pub fn restored_at(&self) -> Option<Timestamp> {
        self.0.restored_at
    }

    /// A secret of this installation, to derive tokens from. Made at the first open.
    pub fn secret(&self) -> [u8; 32] {
        self.0.secret
    }

    one! {
        session: SessionId -> SessionRecord;
        sandbox: SandboxId -> SandboxRecord;
        build: BuildId -> BuildRecord;
        image: ImageId -> ImageRecord;
        snapshot: SnapshotId -> SnapshotRecord;
        warmup: WarmupId -> WarmupRecord;
        pull_request: PullRequestId -> PullRequestRecord;
    }

    /// # Errors
    /// `Invalid` for a cursor or limit that is wrong, as for the other lists.
    pub async fn sessions(&self, filter: SessionFilter, page: Page) -> Result<Paged<SessionRecord>> {
        // Most sessions have ended: for them walking the ids from the newest on finds a page at once, and the index
        // of states would sort them all. The `+` keeps SQLite from it.
        let state = if filter.state.is_some_and(SessionState::is_end) { "+state" } else { "state" };
        let wanted = vec![
            ("repo", filter.repos.as_deref().map(names)),
            (state, filter.state.map(word).map(one_of)),
            ("login", filter.user.map(one_of)),
        ];
        self.page(wanted, if filter.live_only { "state <> 'ended'" } else { "" }, page).await
    }

    pub async fn builds(&self, repo: Option<&RepoName>, page: Page) -> Result<Paged<BuildRecord>> {
        self.page(vec![("repo", repo.map(ToString::to_string).map(one_of))], "", page).await
    }

    /// Of these repos, or of all.
    pub async fn images(&self, repos: Option<&[RepoName]>, page: Page) -> Result<Paged<ImageRecord>> {
        self.page(vec![("repo", repos.map(names))], "", page).await
    }

    pub async fn snapshots(&self, filter: SnapshotFilter, page: Page) -> Result<Paged<SnapshotRecord>> {
        let wanted = vec![
            ("session", filter.session.map(|s| one_of(s.to_string()))),
            ("repo", filter.repos.as_deref().map(names)),
        ];
        self.page(wanted, "", page).await
    }

    /// All snapshots of one session; there are few.
    pub async fn snapshots_of(&self, session: SessionId) -> Result<Vec<SnapshotRecord>> {
        let filter = SnapshotFilter { session: Some(session), repos: None };
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let found = self.snapshots(filter.clone(), Page { after, limit: 200 }).await?;
            all.extend(found.items);
            after = found.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// Of these repos, or of all.
    pub async fn warmups(
        &self,
        repos: Option<&[RepoName]>,
        state: Option<WarmupState>,
        page: Page,
    ) -> Result<Paged<WarmupRecord>> {
        let wanted = vec![("repo", repos.map(names)), ("state", state.map(word).map(one_of))];
        self.page(wanted, "", page).await
    }

    pub async fn pull_requests(
        &self,
        repo: Option<&RepoName>,
        session: Option<SessionId>,
        page: Page,
    ) -> Result<Paged<PullRequestRecord>> {
        let wanted = vec![
            ("session", session.map(|s| one_of(s.to_string()))),
            ("repo", repo.map(|r| one_of(r.to_string()))),
        ];
        self.page(wanted, "", page).await
    }

    /// The pull requests of this number: more than one where several were asked for and one was opened.
    pub async fn pull_requests_numbered(
        &self,
        repo: &RepoName,
        number: u64,
    ) -> Result<Vec<PullRequestRecord>> {
        const SQL: &str = "SELECT id, body FROM pull_requests \
             WHERE repo = ?1 AND json_extract(body, '$.number') = ?2 ORDER BY id";
        let (repo, number) = (repo.to_string(), number.cast_signed());
        self.0.readers.with(move |conn| read::rows(conn, SQL, &[&repo, &number])).await
    }

    /// How many sessions of whom began since then, by repo.
    pub async fn session_counts(&self, since: Timestamp) -> Result<Vec<SessionCount>> {
        const SQL: &str =
            "SELECT repo, login, count(*) FROM sessions WHERE created_at >= ?1 GROUP BY repo, login";
        let rows: Vec<(String, String, i64)> = self
            .read(move |conn| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
                conn.prepare_cached(SQL)
                    .and_then(|mut stmt| stmt.query_map([since.as_microsecond()], read)?.collect())
                    .map_err(|e| failure::sql("count sessions", e))
            })
            .await?;
        rows.into_iter()
            .map(|(repo, login, n)| Ok(SessionCount { repo: named(&repo)?, login, count: n.unsigned_abs() }))
            .collect()
    }

    /// The pull requests that were asked for since then, oldest first, with whose session it was and when it began.
    pub async fn session_pulls(&self, since: Timestamp) -> Result<Vec<SessionPull>> {
        const SQL: &str = "SELECT p.id, p.body, s.login, s.created_at FROM pull_requests p \
             JOIN sessions s ON s.id = p.session WHERE p.created_at >= ?1 ORDER BY p.id";
        type Found = (String, String, String, i64);
        let rows: Vec<Found> = self
            .read(move |conn| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
                conn.prepare_cached(SQL)
                    .and_then(|mut stmt| stmt.query_map([since.as_microsecond()], read)?.collect())
                    .map_err(|e| failure::sql("list pull requests of sessions", e))
            })
            .await?;
        let whole = |(id, body, login, at): Found| {
            let record = decode::<PullRequestRecord>(&id, &body)?;
            let began = Timestamp::from_microsecond(at).unwrap_or(record.created_at);
            Ok(SessionPull { record, login, began })
        };
        rows.into_iter().map(whole).collect()
    }

    async fn page<R: Row>(
        &self,
        wanted: Vec<read::Wanted>,
        extra: &'static str,
        page: Page,
    ) -> Result<Paged<R>> {
        self.0.readers.with(move |conn| read::page(conn, &wanted, extra, &page)).await
    }

    /// A question to the database, on a connection that can't write.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.0.readers.with(question).await
    }

    pub async fn stats(&self) -> Result<StoreStats> {
        self.0.readers.with(stats).await
    }

    /// For metrics: commits per transaction say how well the writer groups.
    pub fn write_counts(&self) -> WriteCounts {
        let done = &self.0.writer.done;
        WriteCounts {
            commits: done.commits.load(Ordering::Relaxed),
            transactions: done.transactions.load(Ordering::Relaxed),
        }
    }

    /// Ends it for all handles: commits what waits, moves the log into the database and frees the directory. What
    /// is asked of a closed store is `Unavailable`.
    pub async fn close(self) {
        self.0.readers.close().await;
        if let Ok(done) = self.0.writer.close() {
            // An error means that the writer has ended already.
            let _ = done.await;
        }
    }
}

fn one_of(value: String) -> Vec<String> {
    vec![value]
}

fn names(repos: &[RepoName]) -> Vec<String> {
    repos.iter().map(ToString::to_string).collect()
}

fn named(repo: &str) -> Result<RepoName> {
    repo.parse().map_err(|e| {
        domain::Error::permanent("a row of table sessions does not hold what it should").caused_by(e)
    })
}

fn load(conn: &Connection, now: Timestamp) -> Result<Loaded> {
    Ok(Loaded {
        sandboxes: read::all(conn, "state <> 'gone'")?,
        sessions: read::all(conn, "state IN ('waiting', 'active', 'paused', 'ending')")?,
        images: read::all(conn, "")?,
        builds: read::all(conn, "state IN ('queued', 'running')")?,
        snapshots: read::all(conn, "")?,
        pull_requests: read::all(conn, "state IN ('pending', 'open')")?,
        warmups: read::all(conn, "state = 'live'")?,
        absences: read::all(conn, "")?,
        cadences: read::all(conn, "")?,
        demands: read::all(conn, "")?,
        demand_hours: read::all(conn, "")?,
        pool_orders: read::all(conn, "")?,
        api_keys: read::all(conn, "")?,
        idempotency: idempotency(conn, now)?,
    })
}

fn idempotency(conn: &Connection, now: Timestamp) -> Result<Vec<Idempotency>> {
    let failed = |e| failure::sql("read table idempotency", e);
    let limit = now.checked_sub(IDEMPOTENCY_KEPT).unwrap_or(Timestamp::MIN).as_microsecond();
    let mut stmt = conn
        .prepare("SELECT key, body FROM idempotency WHERE created_at >= ?1 ORDER BY created_at, key, route")
        .map_err(failed)?;
    let mut rows = stmt.query([limit]).map_err(failed)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let (key, body): (String, String) = (row.get(0).map_err(failed)?, row.get(1).map_err(failed)?);
        out.push(serde_json::from_str(&body).map_err(|e| {
            domain::Error::permanent(format!("row {key} of table idempotency does not hold what it should"))
                .caused_by(e)
        })?);
    }
    Ok(out)
}

fn stats(conn: &Connection) -> Result<StoreStats> {
    // One transaction, so that the numbers belong together.
    let tx = conn.unchecked_transaction().map_err(|e| failure::sql("begin to count", e))?;
    let people: i64 = tx
        .query_row("SELECT count(DISTINCT login) FROM sessions WHERE state <> 'ended'", [], |row| row.get(0))
        .map_err(|e| failure::sql("count the people", e))?;
    let sessions_by_state = read::counts(&tx, "sessions", "state")?;
    Ok(StoreStats {
        sessions: sessions_by_state.values().sum(),
        sessions_by_launch: read::counts(&tx, "sessions", "launch")?,
        sessions_by_state,
        people: people as u64,
        pull_requests_by_state: read::counts(&tx, "pull_requests", "state")?,
        snapshots_by_state: read::counts(&tx, "snapshots", "state")?,
        images_by_state: read::counts(&tx, "images", "state")?,
        builds_by_state: read::counts(&tx, "builds", "state")?,
    })
}
