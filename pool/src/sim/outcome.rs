//! What a simulation came to.

use jiff::Timestamp;
use serde::Serialize;

/// Sums over all repos.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Outcome {
    pub claims: u32,
    /// Claims that found a member.
    pub hits: u32,
    /// Claims that even an empty pool would have had no room for.
    pub refused: u32,
    pub idle_seconds: f64,
    /// Bytes of all sandboxes, those that stop included.
    pub peak_memory: u64,
    pub created: u32,
    /// Idle members that were removed.
    pub retired: u32,
    pub plans: u64,
    #[serde(skip)]
    pub points: Vec<Point>,
    #[serde(skip)]
    waits: Vec<f64>,
}

/// How things stood at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    pub at: Timestamp,
    pub target: u32,
    pub warm: u32,
    /// Since the beginning.
    pub claims: u32,
    pub hits: u32,
}

impl Outcome {
    pub(super) fn waited(&mut self, seconds: f64) {
        self.waits.push(seconds);
    }

    pub(super) fn end(&mut self) {
        self.waits.sort_unstable_by(f64::total_cmp);
    }

    /// The share of claims that found a member; 1 where nobody came.
    pub fn hit_rate(&self) -> f64 {
        if self.claims == 0 { 1.0 } else { f64::from(self.hits) / f64::from(self.claims) }
    }

    pub fn idle_hours(&self) -> f64 {
        self.idle_seconds / 3600.0
    }

    /// Seconds that a claim waited for its sandbox, by nearest rank: `0.99` is the slowest but one in a hundred.
    pub fn waiting(&self, part: f64) -> f64 {
        let rank = (part * self.waits.len() as f64).ceil() as usize;
        self.waits.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    }
}
