//! The audit log: a table that is added to, read in order, and shortened at its old end.

use domain::{AuditEntry, Error, Result};
use jiff::Timestamp;
use rusqlite::types::Value;

use crate::failure;
use crate::store::Store;
use crate::tx::{Op, Tx};

const TABLE: &str = "audit";
const INSERT: &str = "INSERT INTO audit(created_at, body) VALUES(?1, ?2)";
const FORGET_OLD: &str = "DELETE FROM audit WHERE created_at < ?1";
const FORGET_MANY: &str = "DELETE FROM audit WHERE seq <= (SELECT coalesce(max(seq), 0) FROM audit) - ?1";
/// The longest page.
const MOST: u32 = 500;

impl Tx {
    /// Adds lines, in this order.
    pub fn audit<'a>(mut self, entries: impl IntoIterator<Item = &'a AuditEntry>) -> Self {
        for (n, entry) in entries.into_iter().enumerate() {
            match serde_json::to_string(entry) {
                Ok(body) => {
                    let params = vec![Value::Integer(entry.at.as_microsecond()), Value::Text(body)];
                    self.push(Op::new(TABLE, format!("line {n}"), INSERT, params));
                }
                Err(e) => self.refuse(Error::permanent("write a line of the audit log").caused_by(e)),
            }
        }
        self
    }

    /// Forgets lines from before this moment, and all but the newest `most`.
    pub fn forget_audit(mut self, before: Timestamp, most: u32) -> Self {
        let old = vec![Value::Integer(before.as_microsecond())];
        self.push(Op::new(TABLE, format!("before {before}"), FORGET_OLD, old));
        self.push(Op::new(TABLE, "too many".into(), FORGET_MANY, vec![Value::Integer(most.into())]));
        self
    }
}

impl Store {
    /// Lines since a moment and behind a number, oldest first; each with its number. At most 500.
    pub async fn audit(&self, since: Timestamp, after: u64, limit: u32) -> Result<Vec<(u64, AuditEntry)>> {
        const SQL: &str =
            "SELECT seq, body FROM audit WHERE created_at >= ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
        let params = (since.as_microsecond(), after.cast_signed(), limit.min(MOST));
        let rows: Vec<(i64, String)> = self
            .read(move |conn| {
                let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
                conn.prepare_cached(SQL)
                    .and_then(|mut stmt| stmt.query_map(params, read)?.collect())
                    .map_err(|e| failure::sql("read the audit log", e))
            })
            .await?;
        let whole = |(seq, body): (i64, String)| {
            let entry = serde_json::from_str(&body).map_err(|e| {
                Error::permanent(format!("row {seq} of table {TABLE} does not hold what it should"))
                    .caused_by(e)
            })?;
            Ok((seq.unsigned_abs(), entry))
        };
        rows.into_iter().map(whole).collect()
    }
}
