//! One stateful fake for each port. For tests and benchmarks only: the feature that brings them is enabled by
//! dev-dependencies alone.

mod agent;
mod backend;
mod clock;
mod sealed;

pub use agent::{FakeAgent, FakeAgentOptions, FakeCommand};
pub use backend::{FakeBackend, Fault};
pub use clock::ManualClock;
pub use sealed::FakeSealed;
