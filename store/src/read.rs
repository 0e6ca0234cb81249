//! Reads, on connections of their own under `spawn_blocking`. In WAL mode a reader never waits for the writer, and
//! one that begins after a commit sees it (F37).

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use domain::{Error, Result};
use rusqlite::types::{ToSql, Value};
use rusqlite::{Connection, OptionalExtension};
use tokio::sync::Semaphore;

use crate::page::{Page, Paged};
use crate::rows::{Row, decode};
use crate::{failure, schema};

/// More readers than cores only take turns; this many never exhaust the blocking threads.
const READERS: usize = 4;

#[derive(Debug, Clone)]
pub(crate) struct Readers {
    path: Arc<PathBuf>,
    idle: Arc<Mutex<Vec<Connection>>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub fn new(path: PathBuf) -> Self {
        Self {
            path: Arc::new(path),
            idle: Arc::new(Mutex::new(Vec::new())),
            permits: Arc::new(Semaphore::new(READERS)),
        }
    }

    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.permits)
            .acquire_owned()
            .await
            .map_err(|_| Error::unavailable("read the database: the store is closed"))?;
        let me = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let conn = match me.idle().pop() {
                Some(conn) => conn,
                None => schema::connect_reader(&me.path)?,
            };
            let result = work(&conn);
            me.idle().push(conn);
            drop(permit);
            result
        });
        done.await.map_err(|e| failure::join("read the database", e))?
    }

    /// Waits for the reads under way and closes the connections.
    pub async fn close(&self) {
        // An error means that another handle closed it before.
        if let Ok(all) = self.permits.acquire_many(READERS as u32).await {
            self.permits.close();
            drop(all);
        }
        self.idle().clear();
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The row of `id`, if there is one.
pub(crate) fn one<R: Row>(conn: &Connection, id: R::Id) -> Result<Option<R>> {
    let id = id.to_string();
    let body = conn
        .prepare_cached(R::ONE)
        .and_then(|mut stmt| stmt.query_row([&id], |row| row.get::<_, String>(0)).optional())
        .map_err(|e| failure::sql(format!("read row {id} of table {}", R::TABLE), e))?;
    body.map(|body| decode(&id, &body)).transpose()
}

/// All rows that `condition` (SQL, may be empty) lets through, oldest first.
pub(crate) fn all<R: Row>(conn: &Connection, condition: &str) -> Result<Vec<R>> {
    let filter = if condition.is_empty() { String::new() } else { format!(" WHERE {condition}") };
    let sql = format!("SELECT id, body FROM {}{filter} ORDER BY id", R::TABLE);
    rows(conn, &sql, &[])
}

/// A condition of a list: the column, and the values of which it must have one.
pub(crate) type Wanted = (&'static str, Option<Vec<String>>);

/// One page of the rows for which every given column has one of its values.
pub(crate) fn page<R: Row>(
    conn: &Connection,
    wanted: &[Wanted],
    extra: &str,
    page: &Page,
) -> Result<Paged<R>> {
    let take = page.take()?;
    let mut conditions: Vec<String> = Vec::new();
    let mut values: Vec<Value> = Vec::new();
    for (column, among) in wanted.iter().filter_map(|(column, among)| Some((column, among.as_ref()?))) {
        let first = values.len() + 1;
        values.extend(among.iter().cloned().map(Value::Text));
        conditions.push(match among.len() {
            1 => format!("{column} = ?{first}"),
            _ => {
                let marks: Vec<_> = (first..=values.len()).map(|n| format!("?{n}")).collect();
                format!("{column} IN ({})", marks.join(", "))
            }
        });
    }
    if !extra.is_empty() {
        conditions.push(extra.to_owned());
    }
    if let Some(last) = page.cursor::<R>()? {
        values.push(Value::Text(last.to_string()));
        conditions.push(format!("id < ?{}", values.len()));
    }
    let filter =
        if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
    // One more than asked for says whether there is a next page.
    let sql = format!("SELECT id, body FROM {}{filter} ORDER BY id DESC LIMIT {}", R::TABLE, take + 1);
    let params: Vec<&dyn ToSql> = values.iter().map(|v| v as &dyn ToSql).collect();
    let mut items = rows::<R>(conn, &sql, &params)?;
    let more = items.len() > take;
    items.truncate(take);
    let next = if more { items.last().map(|r| r.id().to_string()) } else { None };
    Ok(Paged { items, next })
}

pub(crate) fn rows<R: Row>(conn: &Connection, sql: &str, params: &[&dyn ToSql]) -> Result<Vec<R>> {
    let failed = |e| failure::sql(format!("read table {}", R::TABLE), e);
    let mut stmt = conn.prepare_cached(sql).map_err(failed)?;
    let mut rows = stmt.query(params).map_err(failed)?;
    let mut out = Vec::new();
    while let Some(row) = rows.next().map_err(failed)? {
        let id: String = row.get(0).map_err(failed)?;
        let body = row.get_ref(1).and_then(|v| v.as_str().map_err(Into::into)).map_err(|e| {
            Error::permanent(format!("row {id} of table {} does not hold what it should", R::TABLE))
                .caused_by(e)
        })?;
        out.push(decode(&id, body)?);
    }
    Ok(out)
}

/// Counts by the words of one column.
pub(crate) fn counts(
    conn: &Connection,
    table: &str,
    column: &str,
) -> Result<std::collections::BTreeMap<String, u64>> {
    conn.prepare_cached(&format!("SELECT {column}, count(*) FROM {table} GROUP BY {column}"))
        .and_then(|mut stmt| {
            stmt.query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)? as u64)))?.collect()
        })
        .map_err(|e| failure::sql(format!("count table {table}"), e))
}
