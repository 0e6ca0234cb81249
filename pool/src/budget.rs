//! One budget for all sandboxes, and which members it is spent on.
//!
//! Sessions come first: what they use or wait for is not there for pools. Then members that live warm-ups wait for,
//! then what operators have asked for by `min`, windows and orders, and what is left goes where one more member saves
//! most expected waiting for what it takes.

use std::collections::BinaryHeap;

use domain::{Budget, Resources};
use serde::Serialize;

use crate::count::{Count, Reach};

/// What sandboxes take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    pub sandboxes: u64,
}

impl Usage {
    /// One sandbox of this size.
    pub fn one(resources: &Resources) -> Self {
        Self { memory: resources.memory, cpu_millis: resources.cpu_millis.into(), sandboxes: 1 }
    }

    #[must_use]
    pub fn times(self, n: u32) -> Self {
        let n = u64::from(n);
        Self {
            memory: self.memory.saturating_mul(n),
            cpu_millis: self.cpu_millis.saturating_mul(n),
            sandboxes: self.sandboxes.saturating_mul(n),
        }
    }

    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory: self.memory.saturating_add(other.memory),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            sandboxes: self.sandboxes.saturating_add(other.sandboxes),
        }
    }
}

impl std::iter::Sum for Usage {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Self::plus)
    }
}

/// Whether all of `usage` is within the budget.
pub fn holds(budget: &Budget, usage: Usage) -> bool {
    let within = |limit: Option<u64>, used: u64| limit.is_none_or(|limit| used <= limit);
    within(budget.memory, usage.memory)
        && within(budget.cpu_millis, usage.cpu_millis)
        && within(budget.sandboxes, usage.sandboxes)
}

/// The part of the budget that a sandbox takes, by what it takes most of; bytes where only memory is limited.
fn part(budget: &Budget, size: Usage) -> f64 {
    let of = |limit: Option<u64>, used: u64| limit.map_or(0.0, |limit| used as f64 / limit.max(1) as f64);
    of(budget.memory, size.memory)
        .max(of(budget.cpu_millis, size.cpu_millis))
        .max(of(budget.sandboxes, size.sandboxes))
        .max(f64::MIN_POSITIVE)
}

/// What a repo would spend, and what for.
#[derive(Debug, Clone)]
pub(crate) struct Bid {
    /// One member.
    pub size: Usage,
    /// Members that stay whatever the budget is: held ones, and those of a pool that is paused.
    pub fixed: u32,
    pub warmups: u32,
    pub floor: u32,
    pub wanted: u32,
    /// Members that are there, for their place is only given to one that is worth clearly more.
    pub there: u32,
    /// Claims in one lead time.
    pub count: Count,
}

/// A member that is there is worth this much more than one that would have to be made.
const INERTIA: f64 = 1.25;

/// A repo's next member, as the heap orders them: by class, then by what it saves for what it takes.
#[derive(Debug)]
struct Next {
    class: u8,
    worth: f64,
    /// Less of its floor is more; then the order of the input.
    filled: f64,
    bid: usize,
    n: u32,
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Next {}
impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Next {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.class.cmp(&other.class))
            .then(self.worth.total_cmp(&other.worth))
            .then(other.filled.total_cmp(&self.filled))
            .then(other.bid.cmp(&self.bid))
    }
}

/// How many members each bid gets when `used` is taken by others. Everybody gets what they want where it fits.
pub(crate) fn share(budget: &Budget, used: Usage, bids: &[Bid]) -> Vec<u32> {
    let all = |n: fn(&Bid) -> u32| bids.iter().map(|b| b.size.times(n(b))).sum::<Usage>();
    if holds(budget, used.plus(all(|b| b.wanted.max(b.fixed)))) {
        return bids.iter().map(|b| b.wanted).collect();
    }
    let mut spent = used.plus(all(|b| b.fixed));
    let mut granted: Vec<u32> = bids.iter().map(|b| b.fixed.min(b.wanted)).collect();
    let mut values: Vec<Value> = bids.iter().map(Value::new).collect();
    let mut heap: BinaryHeap<Next> =
        (0..bids.len()).filter_map(|i| values[i].next(budget, &bids[i], i, granted[i] + 1)).collect();
    while let Some(next) = heap.pop() {
        let bid = &bids[next.bid];
        let more = spent.plus(bid.size);
        if !holds(budget, more) {
            // The smaller members of others may still fit.
            continue;
        }
        spent = more;
        granted[next.bid] = next.n;
        heap.extend(values[next.bid].next(budget, bid, next.bid, next.n + 1));
    }
    granted
}

/// What each further member of a repo is worth.
struct Value {
    reach: Reach,
    /// `reach` has answered for this many.
    walked: u32,
    chance: f64,
}

impl Value {
    fn new(bid: &Bid) -> Self {
        Self { reach: bid.count.reach(), walked: 0, chance: 1.0 }
    }

    /// Waiting saved by the `n`th member in each second: the chance that a lead time has that many claims. (Each
    /// saves about a lead time, and that is how long the chance is taken over.)
    fn next(&mut self, budget: &Budget, bid: &Bid, index: usize, n: u32) -> Option<Next> {
        if n > bid.wanted {
            return None;
        }
        let pooled = n.saturating_sub(bid.warmups);
        while self.walked < pooled {
            self.walked += 1;
            self.chance = self.reach.next();
        }
        let class = match n {
            n if n <= bid.warmups => 2,
            n if n <= bid.warmups.saturating_add(bid.floor) => 1,
            _ => 0,
        };
        let inertia = if n <= bid.there { INERTIA } else { 1.0 };
        let worth = self.chance * inertia / part(budget, bid.size);
        let filled = f64::from(pooled) / f64::from(bid.floor.max(1));
        Some(Next { class, worth, filled, bid: index, n })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::Bunches;

    const GIB: u64 = 1 << 30;

    fn bid(memory: u64, floor: u32, wanted: u32, mean: f64) -> Bid {
        Bid {
            size: Usage { memory, cpu_millis: 1000, sandboxes: 1 },
            fixed: 0,
            warmups: 0,
            floor,
            wanted,
            there: 0,
            count: Count { occasions: mean, seen: 1e6, bunches: Bunches::NONE },
        }
    }

    fn memory(gib: u64) -> Budget {
        Budget { memory: Some(gib * GIB), ..Budget::default() }
    }

    #[test]
    fn where_all_fits_all_get_what_they_want() {
        let bids = [bid(GIB, 1, 5, 2.0), bid(2 * GIB, 0, 3, 1.0)];
        assert_eq!(share(&memory(11), Usage::default(), &bids), [5, 3]);
        assert_eq!(share(&Budget::default(), bids[0].size.times(99), &bids), [5, 3]);
        assert_ne!(share(&memory(11), bids[0].size, &bids), [5, 3]);
    }

    #[test]
    fn what_saves_more_waiting_for_its_bytes_comes_first() {
        // The same traffic, and one needs four times as much memory.
        let bids = [bid(4 * GIB, 0, 4, 2.0), bid(GIB, 0, 4, 2.0)];
        assert_eq!(share(&memory(8), Usage::default(), &bids), [1, 4]);
        // A fourth member of the busy one is worth more than a first one where nearly nobody comes.
        let bids = [bid(GIB, 0, 2, 0.01), bid(GIB, 0, 6, 5.0)];
        assert_eq!(share(&memory(6), Usage::default(), &bids), [0, 6]);
    }

    #[test]
    fn what_was_asked_for_comes_before_what_is_forecast() {
        let bids = [bid(GIB, 3, 3, 0.0), bid(GIB, 0, 9, 8.0)];
        assert_eq!(share(&memory(8), Usage::default(), &bids), [3, 5]);
        let dead = [bid(GIB, 4, 4, 0.0), bid(GIB, 2, 2, 0.0), bid(GIB, 0, 1, 0.1)];
        assert_eq!(share(&memory(3), Usage::default(), &dead), [2, 1, 0], "alike in parts");
        let mut warm = bid(GIB, 0, 2, 0.0);
        warm.warmups = 2;
        assert_eq!(share(&memory(3), Usage::default(), &[dead[0].clone(), warm]), [1, 2]);
    }

    #[test]
    fn processors_and_numbers_count_as_well() {
        let bids = [bid(GIB, 0, 9, 5.0)];
        let cpus = Budget { cpu_millis: Some(3500), ..Budget::default() };
        assert_eq!(share(&cpus, Usage::default(), &bids), [3]);
        let number = Budget { sandboxes: Some(4), ..memory(99) };
        assert_eq!(share(&number, bids[0].size, &bids), [3]);
    }

    #[test]
    fn what_is_held_is_counted_and_not_taken() {
        let mut held = bid(GIB, 0, 2, 0.0);
        held.fixed = 5;
        assert_eq!(share(&memory(6), Usage::default(), &[held, bid(GIB, 0, 4, 3.0)]), [2, 1]);
    }

    /// Two repos that are worth the same do not take a place from each other in turn.
    #[test]
    fn places_are_not_passed_to_and_fro() {
        let mut bids = [bid(GIB, 0, 4, 2.0), bid(GIB, 0, 4, 2.2)];
        assert_eq!(share(&memory(4), Usage::default(), &bids), [2, 2]);
        bids[0].there = 3;
        bids[1].there = 1;
        let at_rest = share(&memory(4), Usage::default(), &bids);
        bids[0].there = at_rest[0];
        bids[1].there = at_rest[1];
        assert_eq!(share(&memory(4), Usage::default(), &bids), at_rest);
    }
}
