//! Where events wait until they are moved into their session's own file: one database for all sessions.
//!
//! Making a session's file costs fifteen times what an event costs. A claim writes its first lines within
//! milliseconds and nobody reads them then, so they are set down here, many sessions in one transaction, and the
//! files are made afterwards at leisure. An event that is here has its number already; it survives the process as
//! it would in its file, and one that is in both (a crash came between) counts once.

use std::path::{Path, PathBuf};

use domain::{Result, SessionId};
use jiff::Timestamp;
use rusqlite::{Connection, params};

use crate::{failure, files, schema};

const SCHEMA: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS events (
        session TEXT NOT NULL, seq INTEGER NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL,
        PRIMARY KEY (session, seq)
    ) STRICT, WITHOUT ROWID;";

/// One event with its number.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Numbered {
    pub seq: u64,
    pub at: Timestamp,
    pub kind: String,
    pub data: String,
}

impl Numbered {
    pub fn bytes(&self) -> usize {
        self.kind.len() + self.data.len()
    }
}

/// What a journal holds, by session, in order.
pub(super) type Left = Vec<(SessionId, Vec<Numbered>)>;

pub(super) struct Journal {
    conn: Connection,
}

impl Journal {
    /// Opens it and answers what an earlier process left in it, by session, in order. One that a loss of power
    /// damaged is put aside: it held the last second of some logs, and nothing else waits for it.
    pub fn open(path: &Path) -> Result<(Self, Left)> {
        match Self::try_open(path) {
            Ok(opened) => Ok(opened),
            Err(e) => {
                tracing::error!(error = %e.chain(), "the journal of session logs can't be read; a new one is begun");
                put_aside(path)?;
                Self::try_open(path)
            }
        }
    }

    fn try_open(path: &Path) -> Result<(Self, Left)> {
        drop(files::private_file(path)?);
        let failed = |e| failure::sql(format!("open the journal {}", path.display()), e);
        let conn = schema::connect(path)?;
        conn.execute_batch(SCHEMA).map_err(failed)?;
        let left = left(&conn).map_err(failed)?;
        Ok((Self { conn }, left))
    }

    /// Sets down events of many sessions, all or none.
    pub fn write<'a>(
        &mut self,
        events: impl Iterator<Item = (SessionId, &'a Numbered)>,
    ) -> rusqlite::Result<()> {
        let tx = self.conn.transaction()?;
        {
            let mut insert = tx.prepare_cached(
                "INSERT INTO events(session, seq, at, kind, data) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?;
            for (session, event) in events {
                let (session, at) = (session.to_string(), event.at.to_string());
                insert.execute(params![session, event.seq as i64, at, event.kind, event.data])?;
            }
        }
        tx.commit()
    }

    /// Their events are in their own files now, or unwanted.
    pub fn forget(&mut self, sessions: &[SessionId]) -> rusqlite::Result<()> {
        let tx = self.conn.transaction()?;
        {
            let mut delete = tx.prepare_cached("DELETE FROM events WHERE session = ?1")?;
            for session in sessions {
                delete.execute([session.to_string()])?;
            }
        }
        tx.commit()
    }

    pub fn close(self) {
        if let Err((_, e)) = self.conn.close() {
            tracing::warn!(error = %e, "close the journal of session logs");
        }
    }
}

fn left(conn: &Connection) -> rusqlite::Result<Left> {
    let mut stmt = conn.prepare("SELECT session, seq, at, kind, data FROM events ORDER BY session, seq")?;
    let mut rows = stmt.query([])?;
    let mut left = Left::new();
    while let Some(row) = rows.next()? {
        let unreadable = |column: usize, what: &str| {
            rusqlite::Error::InvalidColumnType(column, what.to_owned(), rusqlite::types::Type::Text)
        };
        let session = row.get::<_, String>(0)?.parse().map_err(|_| unreadable(0, "session"))?;
        let event = Numbered {
            seq: row.get::<_, i64>(1)? as u64,
            at: row.get::<_, String>(2)?.parse().map_err(|_| unreadable(2, "at"))?,
            kind: row.get(3)?,
            data: row.get(4)?,
        };
        match left.last_mut().filter(|(last, _)| *last == session) {
            Some((_, events)) => events.push(event),
            None => left.push((session, vec![event])),
        }
    }
    Ok(left)
}

/// Keeps a damaged file for whoever wants to look, in place of an earlier one.
fn put_aside(path: &Path) -> Result<()> {
    let with = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    files::remove(&with("-wal"))?;
    files::remove(&with("-shm"))?;
    std::fs::rename(path, with(".damaged"))
        .map_err(|e| failure::io(format!("put {} aside", path.display()), e))
}
