//! What is done to a session's filesystem when it is captured, ended, restored and at last forgotten.
//!
//! Promises: pure policy over records. A sandbox is released only after its capture is recorded as ready, or where
//! nothing in it can be a user's (F39); a restore starts from the user's own tree or says why it can't; what
//! something live or kept stands on is never collected.
//! Left to others: doing the steps, writing the records, calling the engine.

mod end;
mod lineage;
mod logs;
mod restore;
mod retain;

pub use end::{EndFacts, Step, Steps, capture_plan, end_plan, retry_after};
pub use lineage::{Lineage, Node, lineage};
pub use logs::{LogPolicy, LogVerdict};
pub use restore::{Start, latest, restore_choice};
pub use retain::{RetentionPolicy, collect};
