//! Timestamps come from an injected clock, so that tests can set them; durations come from `tokio::time`.

use std::sync::Arc;

use jiff::Timestamp;

/// Tells the time of day. Cheap to clone.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place that may ask
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
