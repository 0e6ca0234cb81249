//! Which repos are due and why, what a build does, and what becomes of its result.
//!
//! Promises: [`due`], [`decide`], [`fingerprint`], [`steps`], [`promote`] and [`collect`] are pure. [`run_build`]
//! does the steps and nothing else: whatever happens, in whatever phase, the sandboxes it began are released, a
//! capture that did not pass its check is discarded, and a failure names the phase, the command and the last lines.
//! Left to others, behind [`Workshop`]: rows, the engine, mirrors, metrics; and when to ask what is due. A build
//! whose future is dropped cleans nothing up: the rows' deadlines do (F27).

mod command;
mod decide;
mod difference;
pub mod dockerfile;
mod fingerprint;
mod job;
mod live;
mod note;
mod packages;
mod promote;
mod queue;
mod recipe;
mod redact;
mod rollout;
mod run;
mod schedule;
mod steps;
mod trust;

pub use decide::{Decision, FullReason, MAX_CHAIN, decide, is_too_old};
pub use difference::{
    Change, Comparison, Difference, FileChange, Inventory, PackageChange, Tally, tells_packages,
};
pub use fingerprint::fingerprint;
pub use job::{BuildFailure, BuildJob, BuildLog, BuildOutcome, Built, Limits, Workshop};
pub use live::{bring_up, due_updates, prepare, service_ids, update_tree};
pub use note::{read_note, write_note};
pub use packages::PackageKind;
pub use promote::{before_current, collect, pin, promote, roll_back, verified};
pub use queue::{Waiting, head_start, next};
pub use recipe::CommitRecipe;
pub use redact::BuildSecret;
pub use rollout::{
    Blame, FAILURE_WINDOW, Trial, began_well, blame, failure_of, pass, trial, tries_canary, was_demoted,
};
pub use run::run_build;
pub use schedule::{Due, RepoBuildState, Schedule, Tick, due, push_due, retry_after};
pub use steps::{Start, Step, StepKind, steps};
pub use trust::{BUNDLE, boot_env, image_env, trust_env};
