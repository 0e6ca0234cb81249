//! What goes wrong on purpose.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Barrier;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Mischief {
    /// Answered with this instead of being worked off: status, headers, body.
    Answer(u16, Vec<(String, String)>, String),
    /// Worked off, and then answered with this status: the deed is done and nobody is told.
    DoneThen(u16),
    /// Worked off, and then the connection breaks before the answer is there.
    DoneThenSilence,
    /// Worked off after this long.
    Delay(Duration),
    /// Answered once all that are to meet here have been worked off.
    Meet(Meeting),
    /// The answer breaks off after so many bytes of its body.
    CutAfter(u64),
    /// A secondary limit, with or without a time.
    SecondaryLimit { retry_after: Option<u64> },
}

/// Where requests wait for each other.
#[derive(Debug, Clone)]
pub struct Meeting(Arc<Barrier>);

impl Meeting {
    pub fn of(requests: usize) -> Self {
        Self(Arc::new(Barrier::new(requests)))
    }

    pub(crate) async fn come(&self) {
        self.0.wait().await;
    }
}

impl PartialEq for Meeting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A mischief, where it strikes and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// `GET`, `POST`, …; empty for all.
    pub method: String,
    /// A part of the path.
    pub path: String,
    /// How many requests it strikes.
    pub times: u32,
    pub what: Mischief,
}

impl Fault {
    /// Strikes once.
    pub fn once(method: &str, path: &str, what: Mischief) -> Self {
        Self::many(1, method, path, what)
    }

    pub fn many(times: u32, method: &str, path: &str, what: Mischief) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), times, what }
    }

    pub(crate) fn strikes(&self, method: &str, path: &str) -> bool {
        self.times > 0 && (self.method.is_empty() || self.method == method) && path.contains(&self.path)
    }
}
