//! A set of changes that is applied whole or not at all. It is made, and turned into JSON, on the caller's thread;
//! the writer only binds and steps.

use domain::{
    AbsenceRecord, BuildId, BuildRecord, CadenceRecord, DemandHour, DemandRecord, Error, ImageId,
    ImageRecord, KeyId, KeyRecord, PoolOrder, PullRequestId, PullRequestRecord, RepoName, Result, SandboxId,
    SandboxRecord, SessionId, SessionRecord, SnapshotId, SnapshotRecord, WarmupId, WarmupRecord,
};
use jiff::Timestamp;
use rusqlite::types::Value;

use crate::rows::{Idempotency, Row};

/// One statement, ready to be bound.
#[derive(Debug)]
pub(crate) struct Op {
    pub table: &'static str,
    pub id: String,
    pub sql: &'static str,
    pub params: Vec<Value>,
    /// Applied after the others: see [`Tx::push`].
    last: bool,
}

impl Op {
    pub fn new(table: &'static str, id: String, sql: &'static str, params: Vec<Value>) -> Self {
        Self { table, id, sql, params, last: false }
    }
}

/// Collects upserts and removals. Where one row is named twice, the later word counts.
#[must_use = "a Tx does nothing until it is committed"]
#[derive(Debug, Default)]
pub struct Tx {
    ops: Vec<Op>,
    durable: bool,
    wrong: Option<Error>,
}

const IDEMPOTENCY_UPSERT: &str = "INSERT INTO idempotency(key, route, created_at, body) VALUES(?1, ?2, ?3, ?4) \
     ON CONFLICT(key, route) DO UPDATE SET created_at = excluded.created_at, body = excluded.body";
const SEALED_UPSERT: &str =
    "INSERT INTO sealed(name, body) VALUES(?1, ?2) ON CONFLICT(name) DO UPDATE SET body = excluded.body";
const SEALED_REMOVE: &str = "DELETE FROM sealed WHERE name = ?1";
const DEMAND_FORGET: &str = "DELETE FROM demand_hours WHERE created_at < ?1";
const IDEMPOTENCY_REMOVE: &str = "DELETE FROM idempotency WHERE key = ?1 AND route = ?2";

macro_rules! kinds {
    ($($upsert:ident, $remove:ident: $record:ident, $id:ident;)*) => {$(
        #[doc = concat!("Writes the row of this `", stringify!($record), "`, new or not.")]
        pub fn $upsert(self, record: &$record) -> Self {
            self.upsert(record)
        }

        #[doc = concat!("Removes the row of this `", stringify!($record), "`; one that is not there is removed already.")]
        pub fn $remove(self, id: $id) -> Self {
            self.remove::<$record>(id)
        }
    )*};
}

impl Tx {
    pub fn new() -> Self {
        Self::default()
    }

    kinds! {
        sandbox, remove_sandbox: SandboxRecord, SandboxId;
        session, remove_session: SessionRecord, SessionId;
        image, remove_image: ImageRecord, ImageId;
        build, remove_build: BuildRecord, BuildId;
        snapshot, remove_snapshot: SnapshotRecord, SnapshotId;
        pull_request, remove_pull_request: PullRequestRecord, PullRequestId;
        warmup, remove_warmup: WarmupRecord, WarmupId;
        absence, remove_absence: AbsenceRecord, RepoName;
        cadence, remove_cadence: CadenceRecord, RepoName;
        demand, remove_demand: DemandRecord, RepoName;
        pool_order, remove_pool_order: PoolOrder, RepoName;
        api_key, remove_api_key: KeyRecord, KeyId;
    }

    /// Writes the claims of an hour as they are known now.
    pub fn demand_hour(self, hour: &DemandHour) -> Self {
        self.upsert(hour)
    }

    /// Removes the hours that began before `oldest`, of every repo.
    pub fn forget_demand(mut self, oldest: Timestamp) -> Self {
        let params = vec![Value::Integer(oldest.as_microsecond())];
        let id = format!("before {oldest}");
        self.push(Op { table: "demand_hours", id, sql: DEMAND_FORGET, params, last: true });
        self
    }

    pub fn idempotency(mut self, row: &Idempotency) -> Self {
        match serde_json::to_string(row) {
            Ok(body) => {
                let params = vec![
                    Value::Text(row.key.clone()),
                    Value::Text(row.route.clone()),
                    Value::Integer(row.created_at.as_microsecond()),
                    Value::Text(body),
                ];
                self.push(Op {
                    table: "idempotency",
                    id: name(&row.key, &row.route),
                    sql: IDEMPOTENCY_UPSERT,
                    params,
                    last: false,
                });
            }
            Err(e) => {
                self.refuse(Error::permanent(format!("write idempotency key {}", row.key)).caused_by(e))
            }
        }
        self
    }

    pub fn remove_idempotency(mut self, key: &str, route: &str) -> Self {
        let params = vec![Value::Text(key.to_owned()), Value::Text(route.to_owned())];
        let id = name(key, route);
        self.push(Op { table: "idempotency", id, sql: IDEMPOTENCY_REMOVE, params, last: false });
        self
    }

    /// Writes a secret that somebody has sealed. It survives a loss of power: what it replaces is good no more.
    pub fn sealed(mut self, name: &str, sealed: Vec<u8>) -> Self {
        let params = vec![Value::Text(name.to_owned()), Value::Blob(sealed)];
        self.push(Op { table: "sealed", id: name.to_owned(), sql: SEALED_UPSERT, params, last: false });
        self.durable()
    }

    pub fn remove_sealed(mut self, name: &str) -> Self {
        let params = vec![Value::Text(name.to_owned())];
        self.push(Op { table: "sealed", id: name.to_owned(), sql: SEALED_REMOVE, params, last: false });
        self.durable()
    }

    /// Removes warm-ups that are over and were made before this moment.
    pub fn remove_old_warmups(mut self, before: Timestamp) -> Self {
        let params = vec![Value::Integer(before.as_microsecond())];
        self.push(Op {
            table: "warmups",
            id: "old ones".into(),
            sql: "DELETE FROM warmups WHERE state <> 'live' AND created_at < ?1",
            params,
            last: false,
        });
        self
    }

    /// Asks that it survives a loss of power, and not only a crash of the process. Kinds that always must (ADR
    /// 0002) ask for it themselves.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.wrong.is_none()
    }

    fn upsert<R: Row>(mut self, record: &R) -> Self {
        let id = record.id().to_string();
        let body = record.check().and_then(|()| {
            serde_json::to_string(record)
                .map_err(|e| Error::permanent(format!("write row {id} of table {}", R::TABLE)).caused_by(e))
        });
        match body {
            Ok(body) => {
                let mut params = vec![Value::Text(id.clone())];
                params.extend(record.columns());
                params.push(Value::Integer(record.created_at().as_microsecond()));
                params.push(Value::Text(body));
                self.durable |= record.outlives_power();
                let last = record.after_others();
                self.push(Op { table: R::TABLE, id, sql: R::UPSERT, params, last });
            }
            Err(e) => self.refuse(e),
        }
        self
    }

    fn remove<R: Row>(mut self, id: R::Id) -> Self {
        let id = id.to_string();
        let params = vec![Value::Text(id.clone())];
        self.push(Op { table: R::TABLE, id, sql: R::REMOVE, params, last: false });
        self
    }

    /// Keeps the later word about a row, and the order that the tables' rules need whatever the caller's was; the
    /// order of different rows within one transaction can't be seen from outside.
    pub(crate) fn push(&mut self, op: Op) {
        self.ops.retain(|o| o.table != op.table || o.id != op.id);
        let at = if op.last { self.ops.len() } else { self.ops.iter().take_while(|o| !o.last).count() };
        self.ops.insert(at, op);
    }

    pub(crate) fn refuse(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }

    pub(crate) fn into_parts(self) -> Result<(Vec<Op>, bool)> {
        match self.wrong {
            Some(error) => Err(error),
            None => Ok((self.ops, self.durable)),
        }
    }
}

fn name(key: &str, route: &str) -> String {
    format!("{key} on {route}")
}

#[cfg(test)]
impl Op {
    pub fn for_test(id: &str, body: &str) -> Self {
        let params = vec![Value::Text(id.into()), Value::Text(body.into())];
        Self { table: "t", id: id.into(), sql: "INSERT INTO t(id, body) VALUES(?1, ?2)", params, last: false }
    }
}
