//! The files of new logs, put together in memory.
//!
//! To open a database, write a few rows and close it again costs ten times what the rows cost. So one database in
//! memory stays open, with nothing in it; the rows of a log are written into it, it is taken down as the bytes of a
//! file, and the rows are undone.

use domain::Result;
use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::journal::Numbered;
use crate::failure;

/// The two bytes of a database's header that say how it is written to: with a write-ahead log.
const MODE: std::ops::Range<usize> = 18..20;
const WRITE_AHEAD: [u8; 2] = [2, 2];

const SCHEMA: &str = "
    CREATE TABLE events (seq INTEGER PRIMARY KEY, at TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL) STRICT;
    PRAGMA user_version = 1;";

pub(super) struct Draft(Connection);

impl Draft {
    pub fn new() -> Result<Self> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_in_memory_with_flags(flags)
            .and_then(|conn| conn.execute_batch(SCHEMA).map(|()| Self(conn)))
            .map_err(|e| failure::sql("make an empty session log", e))
    }

    /// The bytes of a log that holds `events` and nothing else.
    pub fn file<'e>(&mut self, events: impl Iterator<Item = &'e Numbered>) -> rusqlite::Result<Vec<u8>> {
        // Undone where it is dropped: nothing of one session is left for the next one's file.
        let tx = self.0.transaction()?;
        super::write::insert(&tx, events)?;
        let mut bytes = tx.serialize(MAIN_DB)?.to_vec();
        bytes[MODE].copy_from_slice(&WRITE_AHEAD);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, data: &str) -> Numbered {
        Numbered { seq, at: "2026-01-01T00:00:00Z".parse().unwrap(), kind: "said".into(), data: data.into() }
    }

    fn holds(bytes: &[u8], text: &str) -> bool {
        bytes.windows(text.len()).any(|w| w == text.as_bytes())
    }

    /// What `SQLite` makes of a file: how it is written to, what is wrong with it, and its events.
    fn read(bytes: &[u8]) -> (String, String, Vec<(u64, String)>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.db");
        std::fs::write(&path, bytes).unwrap();
        let conn = crate::schema::connect(&path).unwrap();
        let text = |sql| conn.query_row(sql, [], |row| row.get(0)).unwrap();
        let mut stmt = conn.prepare("SELECT seq, data FROM events ORDER BY seq").unwrap();
        let rows = stmt.query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))).unwrap();
        (text("PRAGMA journal_mode"), text("PRAGMA integrity_check"), rows.map(|r| r.unwrap()).collect())
    }

    #[test]
    fn a_file_holds_its_own_session_and_nothing_of_the_one_before() {
        let mut draft = Draft::new().unwrap();
        let empty = draft.file([].iter()).unwrap();
        assert_eq!(read(&empty), ("wal".into(), "ok".into(), Vec::new()));

        // Long enough that it needs pages of its own, and to grow the database.
        let long = "first".repeat(20_000);
        let first = draft.file([event(1, &long), event(2, "first, too")].iter()).unwrap();
        assert_eq!(
            read(&first),
            ("wal".into(), "ok".into(), vec![(1, long.clone()), (2, "first, too".into())])
        );
        assert!(holds(&first, "first"));

        let second = draft.file([event(1, "second")].iter()).unwrap();
        assert_eq!(read(&second), ("wal".into(), "ok".into(), vec![(1, "second".into())]));
        assert!(!holds(&second, "first"), "what one session wrote is not in another's file");
        assert_eq!(second.len(), empty.len(), "nor is the room that it took");
        assert_eq!(draft.file([].iter()).unwrap(), empty);

        // A number twice is an error, and the next file is whole again.
        assert!(draft.file([event(1, "first"), event(1, "first")].iter()).is_err());
        assert_eq!(draft.file([].iter()).unwrap(), empty);
    }
}
