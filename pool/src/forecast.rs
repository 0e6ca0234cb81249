//! How many claims are to be expected while one member is made: from the claims of the last minutes, and from those
//! at the same time of earlier weeks.
//!
//! Each view is an estimate with its doubt. Of a rate that was seen in few claims little is known (Gamma-Poisson, with
//! the prior that stands for half an occasion), and claims that come in bunches are less certain than chance; both
//! widen the count, so that little knowledge asks for more members and not for fewer.

use domain::LeadTimes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use crate::count::{Bunches, Count};
use crate::history::{HOUR, History, Minute, minute_of};
use crate::window::weeks_before;

/// Lengths of the recent past, in minutes: the shorter sees a surge at once, the longer is the surer one.
const RECENT: [usize; 2] = [5, 20];
/// What was expected this many minutes ago is still kept, though no more is made for it. So a pool falls slowly and
/// mostly by its claims, and does not swing with each claim that leaves the window.
const KEPT: usize = 15;
/// A recent past counts where it is less likely than this after what the season leads to expect; otherwise it is what
/// chance makes of the usual, and each single claim at night would look like a surge. One per cent costs a hundredth more
/// idle hours at the same hit rate (18 simulated weeks of an office; better in one group of six, worse in two).
const UNUSUAL: f64 = 0.002;
/// The hour of earlier weeks begins this many minutes before the same moment, and so ends 40 minutes after it: what
/// comes is of more interest than what has been.
const SEASON_BEFORE: Minute = 20;
const SEASON_WEEKS: i64 = 4;
/// The half occasion of the prior.
const PRIOR: f64 = 0.5;

/// How long it takes from the decision to make a member until it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lead {
    /// The 95th percentile of what was measured.
    pub seconds: f64,
    /// How many starts were measured; none means that the time is assumed.
    pub samples: u32,
}

impl Default for Lead {
    fn default() -> Self {
        Self { seconds: 30.0, samples: 0 }
    }
}

impl From<&LeadTimes> for Lead {
    fn from(times: &LeadTimes) -> Self {
        match times.p95() {
            // A clock that stood still measured nothing.
            Some(p95) => Self { seconds: p95.as_secs_f64().max(0.01), samples: times.samples.len() as u32 },
            None => Self::default(),
        }
    }
}

/// What an estimate rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Some minutes, and how long ago they ended.
    Recent { ago: u32 },
    /// The same hour of this many earlier weeks.
    Season { weeks: u32 },
}

/// One view of what is to come.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    pub source: Source,
    /// Claims that were seen, and in how many minutes.
    pub claims: u32,
    pub minutes: f64,
    pub per_minute: f64,
    /// Claims to be expected within one lead time.
    pub count: Count,
}

impl Forecast {
    fn new(source: Source, (claims, minutes): Seen, lead: Lead, bunches: Bunches) -> Option<Self> {
        if claims == 0 {
            // Nobody is known to come; the floor is for those who are not known.
            return None;
        }
        let seen = f64::from(claims) / bunches.per_occasion() + PRIOR;
        let occasions = seen / minutes * lead.seconds / 60.0;
        let count = Count { occasions, seen, bunches };
        let per_minute = seen * bunches.per_occasion() / minutes;
        Some(Self { source, claims, minutes, per_minute, count })
    }
}

/// Every view of what is to come. The one that asks for most counts.
pub(crate) struct Views {
    season: Option<Forecast>,
    /// Of each recent past: now, and at its highest.
    recent: [[Option<Forecast>; 2]; 2],
}

impl Views {
    /// What was to be expected at `now`.
    pub fn new(history: &History, now: Timestamp, zone: &TimeZone, lead: Lead, bunches: Bunches) -> Self {
        let season = Season::new(history, now, zone, 1..=SEASON_WEEKS, Minute::MAX);
        Self::of(season, history, now, lead, bunches)
    }

    /// What would have been expected at `now`, had all weeks before `end` been known but the one around it.
    pub fn afterwards(
        history: &History,
        now: Timestamp,
        zone: &TimeZone,
        lead: Lead,
        bunches: Bunches,
        end: Minute,
    ) -> Self {
        // Earlier weeks first; later ones where there are too few.
        let weeks = (1..=SEASON_WEEKS).chain((1..=SEASON_WEEKS).map(|week| -week));
        let season = Season::new(history, now, zone, weeks, end);
        Self::of(season, history, now, lead, bunches)
    }

    fn of(season: Option<Season>, history: &History, now: Timestamp, lead: Lead, bunches: Bunches) -> Self {
        let minutes = Recent::new(history, now);
        let view = |(ago, seen): (u32, Seen)| {
            let unusual = season.is_none_or(|s| s.chance_of(seen, bunches) < UNUSUAL);
            Forecast::new(Source::Recent { ago }, seen, lead, bunches).filter(|_| unusual)
        };
        let recent = RECENT.map(|window| [(0, minutes.last(window)), minutes.busiest(window)].map(view));
        let season = season.and_then(|s| {
            Forecast::new(Source::Season { weeks: s.weeks }, (s.claims, s.minutes()), lead, bunches)
        });
        Self { season, recent }
    }

    /// For what members are made.
    pub fn present(&self) -> impl Iterator<Item = Forecast> {
        let [short, long] = self.recent.map(|[now, _]| now);
        [short, long, self.season].into_iter().flatten()
    }

    /// For what members are kept, besides.
    pub fn past(&self) -> impl Iterator<Item = Forecast> {
        self.recent.map(|[_, highest]| highest).into_iter().flatten()
    }
}

/// Claims, and the minutes in which they came.
type Seen = (u32, f64);

/// The minutes behind us.
struct Recent {
    /// This minute is the last one.
    minutes: [u32; Self::LENGTH],
    /// The part of this minute that is over.
    begun: f64,
}

impl Recent {
    const LENGTH: usize = RECENT[1] + KEPT + 1;

    fn new(history: &History, now: Timestamp) -> Self {
        let begun = now.as_second().rem_euclid(60) as f64 / 60.0;
        Self { minutes: history.last_minutes(minute_of(now) + 1), begun }
    }

    /// The whole minutes of a window and the one that has only begun.
    fn last(&self, window: usize) -> Seen {
        (self.ending(window, 0), window as f64 + self.begun)
    }

    /// The busiest window, and how many minutes ago it ended.
    fn busiest(&self, window: usize) -> (u32, Seen) {
        let whole = window as f64 + 1.0;
        let ended = (1..=KEPT).map(|ago| (ago as u32, (self.ending(window, ago), whole)));
        // Of those that are alike the latest.
        ended.fold((0, self.last(window)), |best, next| if next.1.0 > best.1.0 { next } else { best })
    }

    fn ending(&self, window: usize, ago: usize) -> u32 {
        let last = Self::LENGTH - 1 - ago;
        self.minutes[last - window..=last].iter().sum()
    }
}

/// The same hour of earlier weeks.
#[derive(Debug, Clone, Copy)]
struct Season {
    claims: u32,
    weeks: u32,
}

impl Season {
    /// Of the given weeks those that are known and over at `end`, as many as count. `None` where there is not one.
    fn new(
        history: &History,
        now: Timestamp,
        zone: &TimeZone,
        weeks: impl Iterator<Item = i64>,
        end: Minute,
    ) -> Option<Self> {
        let begins = history.begins()?;
        let hours = weeks
            .map(|week| minute_of(weeks_before(now, week, zone)) - SEASON_BEFORE)
            .filter(|from| *from >= begins && *from + HOUR <= end)
            .take(SEASON_WEEKS as usize);
        let (mut claims, mut weeks) = (0, 0);
        for from in hours {
            claims += history.claims(from, from + HOUR);
            weeks += 1;
        }
        (weeks > 0).then_some(Self { claims, weeks })
    }

    fn minutes(self) -> f64 {
        f64::from(self.weeks) * HOUR as f64
    }

    /// How likely so many claims are in so many minutes when all is as usual.
    fn chance_of(self, (claims, minutes): Seen, bunches: Bunches) -> f64 {
        let seen = f64::from(self.claims) / bunches.per_occasion() + PRIOR;
        let usual = Count { occasions: seen / self.minutes() * minutes, seen, bunches };
        let mut reach = usual.reach();
        (0..claims).map(|_| reach.next()).last().unwrap_or(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{WEEK, begin_of};

    const NOW: Minute = 30_000_000;
    const LEAD: Lead = Lead { seconds: 30.0, samples: 20 };

    fn all(h: &History, now: Minute) -> Vec<Forecast> {
        Views::new(h, begin_of(now), &TimeZone::UTC, LEAD, Bunches::NONE).present().collect()
    }

    fn largest(h: &History, now: Minute) -> u32 {
        all(h, now).iter().map(|f| f.count.exceeded_at_most(0.01, 1000)).max().unwrap_or(0)
    }

    #[test]
    fn nobody_came_and_nobody_is_expected() {
        assert_eq!(all(&History::since(begin_of(0)), NOW), []);
    }

    /// The doubt about a rate falls with the claims that it was seen in.
    #[test]
    fn little_data_is_doubted() {
        let seen = |claims: u32, minutes: f64, bunches| {
            Forecast::new(Source::Season { weeks: 1 }, (claims, minutes), LEAD, bunches).unwrap()
        };
        let (few, many) = (seen(1, 10.0, Bunches::NONE), seen(299, 2000.0, Bunches::NONE));
        assert!((few.per_minute - many.per_minute).abs() < 0.01);
        let three = |f: Forecast| {
            let mut reach = f.count.reach();
            [reach.next(), reach.next(), reach.next()][2]
        };
        assert!(three(few) > 2.0 * three(many), "{few:?} {many:?}");
        let bunched = seen(299, 2000.0, Bunches { share: 0.2, size: 4.0 });
        assert!((bunched.per_minute - many.per_minute).abs() < 0.01);
        assert!(three(bunched) > 2.0 * three(many), "{bunched:?}");
    }

    /// A surge counts in the minute in which it comes, and is kept for a while after its end.
    #[test]
    fn it_rises_at_once_and_falls_slowly() {
        let mut h = History::since(begin_of(NOW - 600));
        for m in 0..600 {
            h.add(begin_of(NOW - 600 + m), u32::from(m % 10 == 0));
        }
        let before = largest(&h, NOW);
        h.add(begin_of(NOW), 12);
        let surge = largest(&h, NOW);
        assert!(surge > before + 2, "{before} {surge}");
        let keep = |m: Minute| {
            let views = Views::new(&h, begin_of(m), &TimeZone::UTC, LEAD, Bunches::NONE);
            views
                .present()
                .chain(views.past())
                .map(|f| f.count.exceeded_at_most(0.01, 1000))
                .max()
                .unwrap_or(0)
        };
        let course: Vec<_> = (1..60).map(|m| (largest(&h, NOW + m), keep(NOW + m))).collect();
        assert!(course.iter().all(|(new, kept)| new <= kept), "{course:?}");
        assert!(course[..KEPT].iter().all(|(_, kept)| *kept >= surge - 1), "{surge} {course:?}");
        assert!(course[8].0 < surge - 1, "{surge} {course:?}");
        assert!(course.windows(2).all(|w| w[1].1 <= w[0].1), "nothing brings it up again: {course:?}");
        assert_eq!(course[40], (0, 0), "{course:?}");
    }

    /// The hour of earlier weeks is seen before it comes again; by the wall, also over a change of the clocks.
    #[test]
    fn the_same_hour_of_earlier_weeks_counts() {
        let mut h = History::since(begin_of(NOW - 4 * WEEK - HOUR));
        for week in 1..=4 {
            for m in 0..30 {
                h.add(begin_of(NOW - week * WEEK + m), 2);
            }
        }
        let found = all(&h, NOW - 15);
        assert_eq!(found.len(), 1, "the present is quiet");
        assert_eq!((found[0].source, found[0].claims), (Source::Season { weeks: 4 }, 200));
        assert!(all(&h, NOW + 60).is_empty());
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let mut h = History::since("2026-09-30T00:00:00Z".parse().unwrap());
        let nine =
            |day: &str| format!("{day}T09:00:00[Europe/Berlin]").parse::<jiff::Zoned>().unwrap().timestamp();
        h.add(nine("2026-10-01"), 1);
        h.add(nine("2026-10-22"), 5);
        let found: Vec<_> =
            Views::new(&h, nine("2026-10-29"), &zone, LEAD, Bunches::NONE).present().collect();
        assert_eq!(found[0].claims, 6, "{found:?}");
    }
}
