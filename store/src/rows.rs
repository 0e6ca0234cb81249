//! How each record lies in its table: the columns that are asked for, the body, and what a power loss may cost.

use domain::{
    AbsenceRecord, BuildId, BuildRecord, CadenceRecord, DemandHour, DemandRecord, Error, ImageId,
    ImageRecord, ImageState, KeyId, KeyRecord, PoolOrder, PullRequestId, PullRequestRecord, RepoName, Result,
    SandboxId, SandboxRecord, SandboxState, SessionId, SessionRecord, SessionState, SnapshotId,
    SnapshotRecord, SnapshotState, WarmupId, WarmupRecord,
};
use jiff::Timestamp;
use rusqlite::types::Value;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The answer that a key of idempotency leads to. Kept for 24 hours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    pub key: String,
    /// Method and path pattern; with `key` it names the row, so one key used on two routes is two rows.
    pub route: String,
    /// What the body of the request was, so that another body under one key is refused (F7).
    pub body_hash: String,
    /// The id of what was made.
    pub resource: String,
    pub created_at: Timestamp,
}

/// A record with a table of its own.
pub(crate) trait Row: Serialize + DeserializeOwned + Send + 'static {
    type Id: std::fmt::Display + std::str::FromStr + PartialEq + Send + 'static;
    const TABLE: &'static str;
    const UPSERT: &'static str;
    const REMOVE: &'static str;
    const ONE: &'static str;

    fn id(&self) -> Self::Id;
    fn created_at(&self) -> Timestamp;
    /// Between `id` and `created_at`, in the order of `UPSERT`.
    fn columns(&self) -> Vec<Value>;
    /// Whether losing this write with the power would lose what a user made, or an order that can't be given twice.
    fn outlives_power(&self) -> bool;
    /// Whether a rule of the table needs it to be applied after the other rows of its Tx.
    fn after_others(&self) -> bool {
        false
    }
    /// What can't be read back must not be written.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// The word of a state as it stands in the body, so that column and body can't disagree.
pub(crate) fn word<T: Serialize>(state: T) -> String {
    match serde_json::to_value(state) {
        Ok(serde_json::Value::String(word)) => word,
        // States are enums without data; were one not, its JSON would still be a value to compare with.
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}

fn text(value: impl std::fmt::Display) -> Value {
    Value::Text(value.to_string())
}

/// One row read back. `id` is the row's own column, whatever the body says.
pub(crate) fn decode<R: Row>(id: &str, body: &str) -> Result<R> {
    let damaged = || Error::permanent(format!("row {id} of table {} does not hold what it should", R::TABLE));
    let record: R = serde_json::from_str(body).map_err(|e| damaged().caused_by(e))?;
    if record.id().to_string() != id {
        return Err(damaged().caused_by(format!("its body is that of {}", record.id())));
    }
    Ok(record)
}

macro_rules! row {
    ($record:ident, $id:ident, $table:literal, [$($column:literal),*], $columns:expr, $outlives:expr $(, { $($more:item)* })?) => {
        impl Row for $record {
            type Id = $id;
            const TABLE: &'static str = $table;
            const UPSERT: &'static str = concat!(
                "INSERT INTO ", $table, "(id", $(", ", $column,)* ", created_at, body) VALUES(?1",
                row!(@marks $($column),*), ") ON CONFLICT(id) DO UPDATE SET ",
                $($column, " = excluded.", $column, ", ",)*
                "created_at = excluded.created_at, body = excluded.body"
            );
            const REMOVE: &'static str = concat!("DELETE FROM ", $table, " WHERE id = ?1");
            const ONE: &'static str = concat!("SELECT body FROM ", $table, " WHERE id = ?1");

            fn id(&self) -> $id {
                self.id
            }
            fn created_at(&self) -> Timestamp {
                self.created_at
            }
            fn columns(&self) -> Vec<Value> {
                let columns: fn(&Self) -> Vec<Value> = $columns;
                columns(self)
            }
            fn outlives_power(&self) -> bool {
                let outlives: fn(&Self) -> bool = $outlives;
                outlives(self)
            }
            $($($more)*)?
        }
    };
    (@marks $a:literal, $b:literal) => { ", ?2, ?3, ?4, ?5" };
    (@marks $a:literal, $b:literal, $c:literal) => { ", ?2, ?3, ?4, ?5, ?6" };
    (@marks $a:literal, $b:literal, $c:literal, $d:literal) => { ", ?2, ?3, ?4, ?5, ?6, ?7" };
}

row!(
    SandboxRecord,
    SandboxId,
    "sandboxes",
    ["repo", "state", "session"],
    |r| vec![text(&r.repo), text(word(r.state)), r.session.map_or(Value::Null, text)],
    // A kept sandbox is the only copy of a user's work.
    |r| r.state == SandboxState::Kept
);
row!(
    SessionRecord,
    SessionId,
    "sessions",
    ["repo", "state", "launch", "login"],
    |r| vec![text(&r.repo), text(word(r.state)), text(word(r.launch)), text(&r.user.login)],
    |r| r.state == SessionState::Ended
);
row!(
    ImageRecord,
    ImageId,
    "images",
    ["repo", "state"],
    |r| vec![text(&r.repo), text(word(r.state))],
    // Current decides what is started; Removing comes before a deed that can't be undone.
    |r| matches!(r.state, ImageState::Current | ImageState::Removing),
    {
        // The index on "one current image per repo" looks at every step, so the old one has to step down first.
        fn after_others(&self) -> bool {
            self.state == ImageState::Current
        }
    }
);
row!(
    BuildRecord,
    BuildId,
    "builds",
    ["repo", "state"],
    |r| vec![text(&r.repo), text(word(r.state))],
    |_| false,
    {
        // JSON has no such number; the row would be refused at the next start.
        fn check(&self) -> Result<()> {
            match self.phases.iter().find(|p| !p.seconds.is_finite()) {
                Some(p) => Err(Error::invalid(format!(
                    "write build {}: the seconds of phase {} are {}, expected a number",
                    self.id,
                    p.phase.as_str(),
                    p.seconds
                ))),
                None => Ok(()),
            }
        }
    }
);
row!(
    SnapshotRecord,
    SnapshotId,
    "snapshots",
    ["session", "repo", "state"],
    |r| vec![text(r.session), text(&r.repo), text(word(r.state))],
    |r| matches!(r.state, SnapshotState::Ready | SnapshotState::Removing)
);
row!(
    PullRequestRecord,
    PullRequestId,
    "pull_requests",
    ["session", "repo", "state"],
    |r| vec![text(r.session), text(&r.repo), text(word(r.state))],
    |_| true
);
row!(
    WarmupRecord,
    WarmupId,
    "warmups",
    ["repo", "state"],
    |r| vec![text(&r.repo), text(word(r.state))],
    |_| false
);

/// A row without columns to ask for. None of them is lost for good with the power: a tick that is answered again costs
/// a look, a minute of claims is one of thousands, and an operator sees that an order is not in force.
macro_rules! plain_row {
    ($record:ident, $id:ty, $table:literal, $of:expr, $created_at:expr) => {
        impl Row for $record {
            type Id = $id;
            const TABLE: &'static str = $table;
            const UPSERT: &'static str = concat!(
                "INSERT INTO ",
                $table,
                "(id, created_at, body) VALUES(?1, ?2, ?3) ON CONFLICT(id) DO UPDATE SET \
                 created_at = excluded.created_at, body = excluded.body"
            );
            const REMOVE: &'static str = concat!("DELETE FROM ", $table, " WHERE id = ?1");
            const ONE: &'static str = concat!("SELECT body FROM ", $table, " WHERE id = ?1");

            fn id(&self) -> $id {
                let of: fn(&Self) -> $id = $of;
                of(self)
            }
            fn created_at(&self) -> Timestamp {
                let created_at: fn(&Self) -> Timestamp = $created_at;
                created_at(self)
            }
            fn columns(&self) -> Vec<Value> {
                Vec::new()
            }
            fn outlives_power(&self) -> bool {
                false
            }
        }
    };
}

// One row for each repo: its name is the id.
plain_row!(AbsenceRecord, RepoName, "absence", |r| r.repo.clone(), |r| r.since);
plain_row!(CadenceRecord, RepoName, "cadence", |r| r.repo.clone(), |r| r.created_at);
plain_row!(DemandRecord, RepoName, "demand", |r| r.repo.clone(), |r| r
    .lead
    .watched_since
    .unwrap_or(Timestamp::MIN));
plain_row!(PoolOrder, RepoName, "pool_orders", |r| r.repo.clone(), |r| r.at);
// Who makes or revokes one asks for durability; when it was last used may be forgotten.
plain_row!(KeyRecord, KeyId, "api_keys", |r| r.id, |r| r.created_at);
// One row for each hour of a repo.
plain_row!(
    DemandHour,
    String,
    "demand_hours",
    |r| format!("{} {:08}", r.repo, r.hour),
    DemandHour::begins_at
);
