//! Deliveries of webhooks: kept before they are answered, worked later, remembered for a while so that a repeated one
//! is known. What they say is not for this crate to read.

use domain::{Error, Result};
use jiff::Timestamp;
use rusqlite::types::Value;

use crate::failure;
use crate::store::Store;
use crate::tx::{Op, Tx};

/// A delivery as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The sender's name for it, the same at each attempt.
    pub id: String,
    pub event: String,
    pub body: Vec<u8>,
    pub received_at: Timestamp,
}

const TABLE: &str = "deliveries";
/// One that is known already stays as it is, worked or not.
const INSERT: &str = "INSERT INTO deliveries(id, event, created_at, body) VALUES(?1, ?2, ?3, ?4) \
     ON CONFLICT(id) DO NOTHING";
const WORKED: &str = "UPDATE deliveries SET body = NULL WHERE id = ?1";
const FORGET: &str = "DELETE FROM deliveries WHERE created_at < ?1 AND body IS NULL";

impl Tx {
    /// Takes a delivery in. It survives a loss of power: its sender is told that it has arrived.
    pub fn delivery(mut self, delivery: Delivery) -> Self {
        let Delivery { id, event, body, received_at } = delivery;
        let params = vec![
            Value::Text(id.clone()),
            Value::Text(event),
            Value::Integer(received_at.as_microsecond()),
            Value::Blob(body),
        ];
        self.push(Op::new(TABLE, id, INSERT, params));
        self.durable()
    }

    /// A delivery has been worked, or given up: its body goes.
    pub fn delivery_worked(mut self, id: &str) -> Self {
        self.push(Op::new(TABLE, id.to_owned(), WORKED, vec![Value::Text(id.to_owned())]));
        self
    }

    /// Forgets deliveries that were worked and came before this moment.
    pub fn forget_deliveries(mut self, before: Timestamp) -> Self {
        let params = vec![Value::Integer(before.as_microsecond())];
        self.push(Op::new(TABLE, format!("before {before}"), FORGET, params));
        self
    }
}

impl Store {
    /// Deliveries that wait to be worked, in order of arrival, after one that was seen before; each with what it is
    /// asked for after.
    pub async fn deliveries_waiting(&self, after: i64, limit: u32) -> Result<Vec<(i64, Delivery)>> {
        const SQL: &str = "SELECT seq, id, event, created_at, body FROM deliveries \
             WHERE body IS NOT NULL AND seq > ?1 ORDER BY seq LIMIT ?2";
        let rows = self
            .read(move |conn| {
                let read = |row: &rusqlite::Row<'_>| {
                    let (id, event, at, body) = (row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?);
                    Ok((row.get::<_, i64>(0)?, (id, event, at, body)))
                };
                conn.prepare_cached(SQL)
                    .and_then(|mut stmt| stmt.query_map((after, limit), read)?.collect::<Result<Vec<_>, _>>())
                    .map_err(|e| failure::sql("list deliveries that wait", e))
            })
            .await?;
        let whole = |(seq, (id, event, at, body)): (i64, (String, String, i64, Vec<u8>))| {
            let received_at = Timestamp::from_microsecond(at).map_err(|e| {
                Error::permanent(format!("row {id} of table {TABLE} does not hold what it should"))
                    .caused_by(e)
            })?;
            Ok((seq, Delivery { id, event, body, received_at }))
        };
        rows.into_iter().map(whole).collect()
    }

    /// How many wait to be worked.
    pub async fn deliveries_unworked(&self) -> Result<usize> {
        self.read(|conn| {
            conn.prepare_cached("SELECT count(*) FROM deliveries WHERE body IS NOT NULL")
                .and_then(|mut stmt| stmt.query_row([], |row| row.get::<_, i64>(0)))
                .map(|count| count as usize)
                .map_err(|e| failure::sql("count deliveries that wait", e))
        })
        .await
    }

    /// The names of all deliveries that are remembered, with the times at which they came.
    pub async fn deliveries_known(&self) -> Result<Vec<(String, Timestamp)>> {
        self.read(|conn| {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, i64>(1)?));
            let rows: Vec<(String, i64)> = conn
                .prepare_cached("SELECT id, created_at FROM deliveries")
                .and_then(|mut stmt| stmt.query_map([], read)?.collect())
                .map_err(|e| failure::sql("list deliveries", e))?;
            let at = |us| Timestamp::from_microsecond(us).unwrap_or(Timestamp::UNIX_EPOCH);
            Ok(rows.into_iter().map(|(id, us)| (id, at(us))).collect())
        })
        .await
    }
}
