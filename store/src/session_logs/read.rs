//! Reading the logs: connections of their own, under `spawn_blocking`.

use std::sync::Arc;

use domain::{Error, Result, SessionId};
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension};

use super::{LogEvent, Shared, write};
use crate::{failure, schema};

/// Connections kept for the next reader; beyond it the oldest is closed.
const IDLE: usize = 32;
/// A read stops after this many bytes of events, so that a page of long ones stays bearable.
const READ_BYTES: usize = 4 * 1024 * 1024;

/// Read connections that nobody uses just now.
#[derive(Default)]
pub(super) struct Idle {
    conns: Vec<(SessionId, Connection)>,
    /// Grows when a file is removed: a connection from before may be one to a file without a name.
    era: u64,
    closed: bool,
}

impl Idle {
    fn take(&mut self, session: SessionId) -> (Option<Connection>, u64) {
        let place = self.conns.iter().position(|(id, _)| *id == session);
        (place.map(|at| self.conns.remove(at).1), self.era)
    }

    /// Returns the connections to close, which the caller does without the lock.
    fn put(&mut self, session: SessionId, conn: Connection, era: u64) -> Option<Connection> {
        if self.closed || era != self.era {
            return Some(conn);
        }
        self.conns.push((session, conn));
        (self.conns.len() > IDLE).then(|| self.conns.remove(0).1)
    }

    pub fn forget(&mut self, session: SessionId) {
        self.era += 1;
        self.conns.retain(|(id, _)| *id != session);
    }

    pub fn close(&mut self) {
        self.closed = true;
        self.conns.clear();
    }
}

pub(super) async fn events(
    shared: Arc<Shared>,
    session: SessionId,
    after: u64,
    limit: usize,
) -> Result<Vec<LogEvent>> {
    shared.settle(session).await?;
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    with(shared, session, Vec::new(), move |conn| {
        let failed = |e| failure::sql(format!("read the log of {session}"), e);
        let mut stmt = conn
            .prepare_cached("SELECT seq, at, kind, data FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?2")
            .map_err(failed)?;
        let mut rows = stmt.query([after, limit]).map_err(failed)?;
        let (mut events, mut bytes) = (Vec::new(), 0);
        while let Some(row) = rows.next().map_err(failed)? {
            let seq = row.get::<_, i64>(0).map_err(failed)? as u64;
            let damaged = || {
                Error::permanent(format!("event {seq} of the log of {session} does not hold what it should"))
            };
            let at: String = row.get(1).map_err(failed)?;
            let at: Timestamp = at.parse().map_err(|e: jiff::Error| damaged().caused_by(e))?;
            let kind: String = row.get(2).map_err(failed)?;
            let data: String = row.get(3).map_err(failed)?;
            bytes += data.len();
            let data = serde_json::from_str(&data).map_err(|e| damaged().caused_by(e))?;
            events.push(LogEvent { seq, at, kind, data });
            if bytes >= READ_BYTES {
                break;
            }
        }
        Ok(events)
    })
    .await
}

pub(super) async fn last(shared: Arc<Shared>, session: SessionId) -> Result<u64> {
    shared.settle(session).await?;
    with(shared, session, 0, move |conn| {
        let last: Option<i64> = conn
            .prepare_cached("SELECT max(seq) FROM events")
            .and_then(|mut stmt| stmt.query_row([], |row| row.get(0)).optional())
            .map_err(|e| failure::sql(format!("read the log of {session}"), e))?
            .flatten();
        Ok(last.unwrap_or_default() as u64)
    })
    .await
}

/// `none` is the answer where the session has no log.
async fn with<T: Send + 'static>(
    shared: Arc<Shared>,
    session: SessionId,
    none: T,
    work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(move || {
        let (conn, era) = shared.idle().take(session);
        let conn = match conn {
            Some(conn) => conn,
            None => {
                let path = shared.path(session);
                if !write::has_content(&path) {
                    return Ok(none);
                }
                match schema::connect_reader(&path) {
                    Ok(conn) => conn,
                    // Removed in between.
                    Err(_) if !write::has_content(&path) => return Ok(none),
                    Err(e) => return Err(e),
                }
            }
        };
        let result = work(&conn);
        let spare = shared.idle().put(session, conn, era);
        drop(spare);
        result
    });
    done.await.map_err(|e| failure::join("read a session's log", e))?
}
