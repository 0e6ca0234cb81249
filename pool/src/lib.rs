//! What to keep warm and whom to hand out.
//!
//! Promises: [`plan`] and [`rank`] are pure; they see records and the time, and answer what to do and why. The
//! [`Shelf`] is the same ranking kept as an index in memory, so that a claim is a few lookups under a short lock,
//! and the handshake between a claim and a retirement.
//! Left to others: writing rows, calling the engine, deciding when to plan. Whoever executes a plan asks
//! [`Shelf::withdraw`] before each retirement, and leaves alone what a claim took in the meantime (F4).

mod claim;
mod life;
mod plan;
mod shelf;

pub use claim::{MissReason, Pick, Want, rank};
pub use life::{expires_at, replaced_from};
pub use plan::{
    Action, Have, PoolInput, PoolPlan, RepoInput, RepoPlan, RetireReason, Target, plan, surge, target,
};
pub use shelf::{Counts, Shelf};
