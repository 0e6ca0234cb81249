//! The claims of one repo by the minute, for some weeks.
//!
//! An hour in which nobody came takes no space, one in which somebody came takes 120 bytes.

use std::collections::BTreeMap;

use domain::{DemandHour, RepoName};
use jiff::Timestamp;

use crate::count::Bunches;

/// Minutes since 1970 UTC.
pub(crate) type Minute = i64;

pub(crate) const HOUR: Minute = 60;
pub(crate) const DAY: Minute = 24 * HOUR;
pub(crate) const WEEK: Minute = 7 * DAY;

type Hour = [u16; HOUR as usize];

/// See the file's own words.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    hours: BTreeMap<i64, Box<Hour>>,
    /// Since when claims are counted: what was before is not known to have been none.
    since: Option<Minute>,
}

pub(crate) fn minute_of(at: Timestamp) -> Minute {
    at.as_second().div_euclid(60)
}

pub(crate) fn begin_of(minute: Minute) -> Timestamp {
    Timestamp::from_second(minute.saturating_mul(60)).unwrap_or(Timestamp::MAX)
}

impl History {
    /// What is older is forgotten: the week that is looked back on, and four before it that were looked back on then.
    pub const WEEKS: i64 = 5;

    pub fn since(at: Timestamp) -> Self {
        Self { hours: BTreeMap::new(), since: Some(minute_of(at)) }
    }

    /// Claims that have come.
    pub fn add(&mut self, at: Timestamp, claims: u32) {
        self.add_minute(minute_of(at), claims);
    }

    /// An hour as it was stored.
    pub fn add_hour(&mut self, hour: &DemandHour) {
        for (minute, claims) in hour.minutes.iter().filter(|(m, _)| i64::from(*m) < HOUR) {
            self.add_minute(hour.hour.saturating_mul(HOUR) + i64::from(*minute), *claims);
        }
    }

    fn add_minute(&mut self, minute: Minute, claims: u32) {
        if claims == 0 {
            return;
        }
        self.since = Some(self.since.map_or(minute, |since| since.min(minute)));
        let hour = self.hours.entry(minute.div_euclid(HOUR)).or_insert_with(|| Box::new([0; 60]));
        let slot = &mut hour[minute.rem_euclid(HOUR) as usize];
        *slot = slot.saturating_add(u16::try_from(claims).unwrap_or(u16::MAX));
    }

    /// The hour of `at` as it is to be stored; `None` when nobody came in it.
    pub fn hour(&self, repo: &RepoName, at: Timestamp) -> Option<DemandHour> {
        let hour = minute_of(at).div_euclid(HOUR);
        let minutes = self.hours.get(&hour)?.iter().zip(0u8..).filter(|(n, _)| **n > 0);
        Some(DemandHour {
            repo: repo.clone(),
            hour,
            minutes: minutes.map(|(n, m)| (m, u32::from(*n))).collect(),
        })
    }

    /// Drops what is older than [`History::WEEKS`].
    pub fn forget(&mut self, now: Timestamp) {
        let oldest = (minute_of(now) - Self::WEEKS * WEEK).div_euclid(HOUR);
        self.hours = self.hours.split_off(&oldest);
    }

    /// The last minute in which somebody came, as its beginning.
    pub fn last_claim(&self) -> Option<Timestamp> {
        let (hour, minutes) = self.hours.last_key_value()?;
        let last = minutes.iter().rposition(|n| *n > 0)?;
        Some(begin_of(hour * HOUR + last as Minute))
    }

    pub fn watched_since(&self) -> Option<Timestamp> {
        self.since.map(begin_of)
    }

    pub(crate) fn begins(&self) -> Option<Minute> {
        self.since
    }

    /// Claims from the minute `from` on, before `to`.
    pub(crate) fn claims(&self, from: Minute, to: Minute) -> u32 {
        let first = from.div_euclid(HOUR);
        let hours = self.hours.range(first..=(to - 1).div_euclid(HOUR).max(first));
        let mut sum = 0;
        for (hour, minutes) in hours {
            let start = hour * HOUR;
            let cut = |m: Minute| (m - start).clamp(0, HOUR) as usize;
            let part = minutes.get(cut(from)..cut(to)).unwrap_or_default();
            sum += part.iter().map(|n| u32::from(*n)).sum::<u32>();
        }
        sum
    }

    /// The claims of each of the minutes before `to`, the last one last.
    pub(crate) fn last_minutes<const N: usize>(&self, to: Minute) -> [u32; N] {
        let mut out = [0; N];
        let from = to - N as Minute;
        for (hour, minutes) in self.hours.range(from.div_euclid(HOUR)..=(to - 1).div_euclid(HOUR)) {
            for (n, at) in minutes.iter().zip(hour * HOUR..) {
                if let Some(slot) = usize::try_from(at - from).ok().and_then(|i| out.get_mut(i)) {
                    *slot = u32::from(*n);
                }
            }
        }
        out
    }

    /// Every minute with claims from `from` on, before `to`.
    pub(crate) fn busy_minutes(&self, from: Minute, to: Minute) -> impl Iterator<Item = (Minute, u32)> {
        self.hours
            .range(from.div_euclid(HOUR)..)
            .flat_map(|(hour, minutes)| minutes.iter().zip(hour * HOUR..))
            .filter(move |(n, at)| **n > 0 && (from..to).contains(at))
            .map(|(n, at)| (at, u32::from(*n)))
    }

    /// Everything that is known, by the minute.
    pub fn arrivals(&self) -> impl Iterator<Item = (Timestamp, u32)> {
        self.busy_minutes(Minute::MIN / 2, Minute::MAX / 2).map(|(minute, n)| (begin_of(minute), n))
    }

    /// How claims bunch within `width` minutes, from all hours before `to`.
    ///
    /// Within an hour the first three cumulants of the counts are alike when everybody comes alone. Bunches of a
    /// geometric size raise the second and, three times the mean size as much, the third; so the two tell how many
    /// bunches there are and how large. Few claims say little: it begins at nobody bunching and leaves that as claims
    /// come.
    pub(crate) fn bunches(&self, width: Minute, to: Minute) -> Bunches {
        /// As many claims by chance as would halve what is observed.
        const DOUBT: f64 = 20.0;
        const LARGEST: f64 = 100.0;
        let width = width.clamp(1, HOUR / 4) as usize;
        let [mut first, mut second, mut third] = [DOUBT; 3];
        for (_, minutes) in self.hours.range(..to.div_euclid(HOUR)) {
            let counts = || minutes.chunks_exact(width).map(|c| c.iter().map(|n| f64::from(*n)).sum::<f64>());
            let n = counts().count() as f64;
            let mean = counts().sum::<f64>() / n;
            let moment = |power| counts().map(|c| (c - mean).powi(power)).sum::<f64>();
            first += mean * n;
            second += moment(2) * n / (n - 1.0);
            third += moment(3) * n * n / ((n - 1.0) * (n - 2.0));
        }
        let (wider, skewer) = (second - first, third - first);
        if wider <= 0.05 * first {
            return Bunches::NONE;
        }
        // At least so large that all claims together can make up the width.
        let size = (skewer / wider / 3.0).max(1.0 + wider / (2.0 * first)).min(LARGEST);
        let stop = 1.0 / size;
        let bunches = wider * stop * stop / (2.0 * (1.0 - stop));
        let alone = (first - bunches * size).max(0.0);
        Bunches { share: bunches / (bunches + alone), size }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::traffic::Traffic;

    fn at(minute: i64) -> Timestamp {
        begin_of(30_000_000 + minute)
    }

    #[test]
    fn counts_over_the_borders_of_hours() {
        let mut h = History::since(at(0));
        for m in 0..200 {
            h.add(at(m), 1);
        }
        h.add(at(70), 4);
        let from = 30_000_000;
        assert_eq!(h.claims(from + 10, from + 150), 144);
        assert_eq!((h.claims(from + 70, from + 71), h.claims(from + 71, from + 71)), (5, 0));
        let last: [u32; 90] = h.last_minutes(from + 100);
        assert_eq!((last.iter().sum::<u32>(), last[60], last[89]), (94, 5, 1));
        assert_eq!(h.last_claim(), Some(at(199)));
        assert_eq!(h.busy_minutes(from + 69, from + 72).collect::<Vec<_>>().len(), 3);
    }

    #[test]
    fn an_hour_is_stored_and_read_back() {
        let repo: RepoName = "acme/api".parse().unwrap();
        let mut h = History::since(at(0));
        h.add(at(3), 2);
        h.add(at(3), 1);
        h.add(at(61), 1);
        let mut back = History::since(at(0));
        for m in [3, 61] {
            back.add_hour(&h.hour(&repo, at(m)).unwrap());
        }
        assert_eq!(back, h);
        assert_eq!(h.hour(&repo, at(500)), None);
    }

    #[test]
    fn five_weeks_are_kept() {
        let mut h = History::since(at(0));
        h.add(at(0), 1);
        h.add(at(WEEK), 1);
        h.forget(at(5 * WEEK - HOUR));
        assert_eq!(h.arrivals().count(), 2);
        h.forget(at(5 * WEEK + HOUR));
        assert_eq!(h.arrivals().count(), 1);
        assert_eq!(h.watched_since(), Some(at(0)), "that nobody came before is still known");
    }

    #[test]
    fn bunches_are_told_from_chance() {
        let begin = begin_of(0);
        let (poisson, mixed) = (Traffic::new(3, begin), Traffic::new(3, begin));
        let of = |arrivals: Vec<Timestamp>| {
            let mut h = History::since(begin);
            arrivals.into_iter().for_each(|at| h.add(at, 1));
            h.bunches(1, 20_000)
        };
        let alone = of(poisson.poisson(20_000, |m| 0.2 + f64::from(m % 600) / 600.0).arrivals());
        assert!(alone.per_occasion() < 1.05, "{alone:?}");
        let some = of(mixed.poisson(20_000, |_| 0.4).bursts(20_000, 6.0, 5.0, |_| 0.04).arrivals());
        assert!((0.05..0.15).contains(&some.share) && (4.5..7.5).contains(&some.size), "{some:?}");
        assert_eq!(of(Vec::new()), Bunches::NONE);
    }
}
