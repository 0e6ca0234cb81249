//! What happens in simulated time, in order.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use domain::SandboxId;
use jiff::Timestamp;

/// Repos are named by their number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    Arrival(usize),
    MemberReady(usize, SandboxId),
    /// The sandbox of a cold session is ready; it has waited since then.
    ColdReady(usize, Timestamp),
    MemberGone(usize),
    SessionEnds(usize),
    Learn,
    Plan,
    Tick,
    Sample,
}

/// A queue by time; of one moment, by order of entry.
#[derive(Debug, Default)]
pub struct Events {
    heap: BinaryHeap<Reverse<(Timestamp, u64, Event)>>,
    entered: u64,
}

impl Events {
    pub fn push(&mut self, at: Timestamp, event: Event) {
        self.entered += 1;
        self.heap.push(Reverse((at, self.entered, event)));
    }

    pub fn pop(&mut self) -> Option<(Timestamp, Event)> {
        self.heap.pop().map(|Reverse((at, _, event))| (at, event))
    }
}
