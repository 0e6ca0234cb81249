//! What is kept of a repo's traffic, so that its pool can be sized from it: claims by the minute, how long members took
//! to become ready, and what operators have ordered for a while.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::RepoName;

/// The claims of one repo within one hour, by the minute. An hour without claims has no record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandHour {
    pub repo: RepoName,
    /// Hours since 1970 UTC.
    pub hour: i64,
    /// Minute of the hour and claims in it, ascending; minutes without claims are left out.
    pub minutes: Vec<(u8, u32)>,
}

/// How long the sandboxes of a repo took from the decision to make one until its agent answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LeadTimes {
    /// Since when the repo's claims are counted.
    pub watched_since: Option<Timestamp>,
    /// Milliseconds, the latest last, at most [`LeadTimes::KEPT`].
    pub samples: Vec<u32>,
}

impl DemandHour {
    /// When the hour began.
    pub fn begins_at(&self) -> Timestamp {
        Timestamp::from_second(self.hour.saturating_mul(3600)).unwrap_or(Timestamp::MIN)
    }
}

impl LeadTimes {
    /// Enough for a 95th percentile that one outlier does not make, few enough to follow a change within a day.
    pub const KEPT: usize = 64;

    pub fn add(&mut self, took: Duration) {
        if self.samples.len() >= Self::KEPT {
            self.samples.remove(0);
        }
        self.samples.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
    }

    /// The 95th percentile by nearest rank; `None` before the first sample.
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted = self.samples.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).map(|ms| Duration::from_millis(u64::from(*ms)))
    }
}

/// What is kept of one repo's traffic beside its hours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemandRecord {
    pub repo: RepoName,
    #[serde(flatten)]
    pub lead: LeadTimes,
}

/// What an operator has ordered for a repo's pool. The latest order of a repo that is still in force counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolOrder {
    pub repo: RepoName,
    #[serde(flatten)]
    pub kind: PoolOrderKind,
    pub at: Timestamp,
    pub by: String,
    pub why: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum PoolOrderKind {
    /// Other limits than the policy's, for a while.
    Set { min: Option<u32>, max: Option<u32>, until: Timestamp },
    /// Nothing is made, replaced or scaled down.
    Pause,
    /// Nothing is made, and what is idle goes.
    Drain,
    /// The policy alone counts again.
    Resume,
}

impl PoolOrder {
    /// Whether it still says something at `now`: one to resume says nothing, and one for a while is over then.
    pub fn in_force(&self, now: Timestamp) -> bool {
        match self.kind {
            PoolOrderKind::Set { until, .. } => now < until,
            PoolOrderKind::Pause | PoolOrderKind::Drain => true,
            PoolOrderKind::Resume => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lead_times_keep_the_latest_and_answer_their_percentile() {
        let mut lead = LeadTimes::default();
        assert_eq!(lead.p95(), None);
        lead.add(Duration::from_millis(700));
        assert_eq!(lead.p95(), Some(Duration::from_millis(700)));
        for ms in 1..=100 {
            lead.add(Duration::from_millis(ms));
        }
        assert_eq!((lead.samples.len(), lead.samples[0]), (LeadTimes::KEPT, 37));
        assert_eq!(lead.p95(), Some(Duration::from_millis(97)));
    }
}
