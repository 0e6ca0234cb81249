//! What to keep warm and whom to hand out.
//!
//! Promises: [`plan`], [`target`], [`learn`] and [`rank`] are pure; they see records, the past and the time, and answer
//! what to do and why. The [`Shelf`] is the same ranking kept as an index in memory, so that a claim is a few lookups
//! under a short lock, and the handshake between a claim and a retirement.
//! Left to others: writing rows, calling the engine, counting claims, deciding when to plan. Whoever executes a plan
//! asks [`Shelf::withdraw`] before each retirement, and leaves alone what a claim took in the meantime (F4).

mod budget;
mod claim;
mod count;
mod forecast;
mod fresh;
mod habits;
mod history;
mod life;
mod plan;
mod room;
mod shelf;
pub mod sim;
mod target;
mod window;

pub use budget::{Usage, holds};
pub use claim::{MissReason, Pick, Want, rank};
pub use count::{Bunches, Count};
pub use forecast::{Forecast, Lead, Source};
pub use fresh::behind;
pub use habits::{Habits, Lesson, learn};
pub use history::History;
pub use life::{MIN_REMAINING_LIFE, expires_at, replaced_from};
pub use plan::{Action, Canary, Have, PoolInput, PoolPlan, RepoInput, RepoPlan, RetireReason, plan, surge};
pub use room::Taken;
pub use shelf::{Counts, Shelf};
pub use target::{Demand, Expected, Floor, FloorReason, Target, Terms, target};
