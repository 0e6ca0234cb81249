//! Hotbed's durable state, the only crate that names rusqlite.
//!
//! Promises: a resolved [`Store::commit`] survives `kill -9` of the process, and a loss of power where the
//! record's kind or [`Tx::durable`] asks for it (`docs/adr/0002-durability.md`); a [`Tx`] is applied whole or not
//! at all; a committed write is read at once (F37); nothing here blocks an async worker thread. [`SessionLogs`]
//! and [`BuildLogs`] keep what sessions and builds tell, and let any number of readers follow.
//!
//! Leaves to others: which state follows which (`domain`), what to do with what was loaded (the orchestrator's
//! recovery), and when old rows and logs are removed (retention).

mod audit;
pub mod backup;
mod build_logs;
mod checkpoint;
mod deliveries;
mod failure;
mod files;
mod lock;
mod page;
mod read;
mod receipt;
mod rows;
mod schema;
mod sealed;
mod session_logs;
mod store;
mod tx;
mod writer;

pub use build_logs::{BuildLogs, CUT_LIMIT};
pub use deliveries::Delivery;
pub use page::{Page, Paged, SessionFilter, SnapshotFilter};
pub use receipt::Receipt;
pub use rows::Idempotency;
pub use session_logs::{LogEvent, MAX_EVENT_BYTES, SessionLogs};
pub use store::{Loaded, SessionCount, SessionPull, Store, StoreStats, WriteCounts};
pub use tx::Tx;
