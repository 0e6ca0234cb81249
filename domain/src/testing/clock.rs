//! A clock that stands still until it is told to move.

use std::sync::Mutex;
use std::time::Duration;

use jiff::Timestamp;

use crate::Clock;

#[derive(Debug)]
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    pub fn at(now: Timestamp) -> Self {
        Self(Mutex::new(now))
    }

    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().expect("clock lock");
        *now = now.checked_add(jiff::SignedDuration::try_from(by).expect("duration")).expect("in range");
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().expect("clock lock")
    }
}
