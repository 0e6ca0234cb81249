//! How long the logs of what is over are kept.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// By age, and by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogPolicy {
    /// Since what it is the log of has ended.
    pub max_age: Duration,
    /// How many there may be. The oldest go first.
    pub most: usize,
}

/// What to do with one log, where they are looked at from the oldest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogVerdict {
    Remove,
    Keep,
    /// Keep it, and all that are younger.
    Enough,
}

impl LogPolicy {
    /// `left` is how many there are, without those that were removed already. `over` is when it ended; nothing where it
    /// has not, or is kept for another reason.
    pub fn verdict(
        &self,
        now: Timestamp,
        left: usize,
        created_at: Timestamp,
        over: Option<Timestamp>,
    ) -> LogVerdict {
        let max_age = SignedDuration::try_from(self.max_age).unwrap_or(SignedDuration::MAX);
        let too_old = |at: Timestamp| now.duration_since(at) >= max_age;
        let too_many = left > self.most;
        match over {
            Some(_) if too_many => LogVerdict::Remove,
            Some(ended) if too_old(ended) => LogVerdict::Remove,
            _ if too_many || too_old(created_at) => LogVerdict::Keep,
            _ => LogVerdict::Enough,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hours: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours)
    }

    /// Runs the policy over logs, oldest first; answers who stays, and how many were looked at.
    fn run(now: i64, logs: &[(i64, Option<i64>)], policy: LogPolicy) -> (Vec<i64>, usize) {
        let (mut left, mut looked) = (logs.len(), 0);
        let mut stay: Vec<i64> = logs.iter().map(|(created, _)| *created).collect();
        for (created, ended) in logs {
            looked += 1;
            match policy.verdict(at(now), left, at(*created), ended.map(at)) {
                LogVerdict::Remove => {
                    left -= 1;
                    stay.retain(|c| c != created);
                }
                LogVerdict::Keep => {}
                LogVerdict::Enough => break,
            }
        }
        (stay, looked)
    }

    #[test]
    fn the_old_and_the_many_go_and_what_is_not_over_stays() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let logs = [(0, Some(1)), (2, None), (3, Some(50)), (40, Some(41)), (60, Some(61)), (70, Some(71))];
        let aged = LogPolicy { max_age: hours(24), most: 100 };
        // At 80: what ended before 56 goes; the last but one ends the look.
        assert_eq!(run(80, &logs, aged), (vec![2, 60, 70], 5));
        let few = LogPolicy { max_age: hours(10_000), most: 3 };
        assert_eq!(run(80, &logs, few), (vec![2, 60, 70], 5));
        let none = LogPolicy { max_age: hours(10_000), most: 0 };
        assert_eq!(run(80, &logs, none), (vec![2], 6));
        assert_eq!(run(1, &[(0, Some(5))], aged), (vec![0], 1), "a clock that went back removes nothing");
    }
}
