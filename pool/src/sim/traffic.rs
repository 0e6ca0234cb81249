//! Claims as repos have them, made up: by chance, in bursts, by day and week, in one hour for all.

use jiff::{SignedDuration, Timestamp};

use crate::habits::draw;

/// A source of claims that look like chance and are the same for the same seed.
#[derive(Debug, Clone)]
pub struct Traffic {
    seed: u64,
    begin: Timestamp,
    arrivals: Vec<Timestamp>,
}

impl Traffic {
    pub fn new(seed: u64, begin: Timestamp) -> Self {
        Self { seed: seed << 32, begin, arrivals: Vec::new() }
    }

    fn draw(&mut self) -> f64 {
        self.seed += 1;
        draw(self.seed)
    }

    /// Single claims; `rate` is the claims a minute at each minute since the beginning.
    #[must_use]
    pub fn poisson(mut self, minutes: u32, rate: impl Fn(u32) -> f64) -> Self {
        for minute in 0..minutes {
            for _ in 0..self.count(rate(minute)) {
                let second = self.draw() * 60.0;
                self.add(minute, second);
            }
        }
        self
    }

    /// Several claims within some seconds, such as a program that starts agents side by side. `rate` is the bursts a
    /// minute; a burst has `size` claims in the mean, mostly few and sometimes many.
    #[must_use]
    pub fn bursts(mut self, minutes: u32, size: f64, seconds: f64, rate: impl Fn(u32) -> f64) -> Self {
        for minute in 0..minutes {
            for _ in 0..self.count(rate(minute)) {
                let first = self.draw() * 60.0;
                self.add(minute, first);
                while self.draw() > 1.0 / size {
                    let later = self.draw() * seconds;
                    self.add(minute, first + later);
                }
            }
        }
        self
    }

    /// In order.
    pub fn arrivals(mut self) -> Vec<Timestamp> {
        self.arrivals.sort_unstable();
        self.arrivals
    }

    fn add(&mut self, minute: u32, second: f64) {
        let ms = i64::from(minute) * 60_000 + (second * 1000.0) as i64;
        self.arrivals.push(self.begin + SignedDuration::from_millis(ms));
    }

    /// A Poisson number.
    fn count(&mut self, mean: f64) -> u32 {
        let limit = (-mean).exp();
        let (mut n, mut product) = (0, self.draw());
        while product > limit {
            n += 1;
            product *= self.draw();
        }
        n
    }
}

/// The working week of an office: how busy a minute is, from 0 to about 1. The first minute is Monday, midnight. Two
/// humps on working days, little at night, an eighth at weekends.
pub fn office_week(minute: u32) -> f64 {
    let (day, hour) = (minute / 1440 % 7, f64::from(minute % 1440) / 60.0);
    let hump = |at: f64| (-((hour - at) / 2.2).powi(2)).exp();
    let workday = 0.02 + hump(10.5) + 0.9 * hump(15.0);
    if day < 5 { workday } else { workday * 0.12 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_claims() {
        let make = |seed| {
            Traffic::new(seed, Timestamp::UNIX_EPOCH)
                .poisson(600, |m| 2.0 * office_week(m))
                .bursts(600, 5.0, 10.0, |_| 0.02)
                .arrivals()
        };
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
        assert!(make(1).is_sorted());
    }

    #[test]
    fn the_means_are_what_was_asked_for() {
        let poisson = Traffic::new(7, Timestamp::UNIX_EPOCH).poisson(10_000, |_| 0.7).arrivals().len();
        assert!((6_700..7_300).contains(&poisson), "{poisson}");
        let bursts = Traffic::new(8, Timestamp::UNIX_EPOCH).bursts(10_000, 6.0, 10.0, |_| 0.1).arrivals();
        assert!((5_400..6_600).contains(&bursts.len()), "{}", bursts.len());
    }
}
