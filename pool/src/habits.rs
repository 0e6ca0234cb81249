//! What a repo's past teaches about it: how much its claims bunch, and how careful its pool has to be.
//!
//! The target's rule looks at one lead time: it keeps a further member while the chance that all others are taken in
//! it is above some odds. Which odds lead to which share of served claims over a week depends on the repo's nights,
//! weekends and bunches; so it is tried: [`learn`] replays the weeks that are known, minute by minute, under odds from
//! careless to careful, and takes the most careless ones that would have served the share that is wanted.

use std::collections::VecDeque;

use domain::PoolPolicy;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::count::Bunches;
use crate::forecast::{Forecast, Lead, Views};
use crate::history::{DAY, HOUR, History, Minute, WEEK, begin_of, minute_of};
use crate::window::{is_open, zone_of};

/// Fewer claims than this teach nothing.
const ENOUGH: u32 = 30;
/// Odds that are tried: from four times those of the policy on, each 0.6 times the one before.
const TRIED: usize = 32;
/// The one that is as the policy has it, nearly.
const AS_GIVEN: usize = 3;

/// What is known of a repo's ways. The default is of one that is not known yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Habits {
    /// How its claims come together.
    pub bunches: Bunches,
    /// The odds at which one more member is one too many; `1 - target_hit_rate` until the past teaches better ones.
    pub odds: Option<f64>,
    pub lesson: Option<Lesson>,
}

impl Default for Habits {
    fn default() -> Self {
        Self { bunches: Bunches::NONE, odds: None, lesson: None }
    }
}

/// What the replayed weeks were like under the odds that were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Lesson {
    pub weeks: f64,
    pub claims: u32,
    pub hits: u32,
    /// The same under the odds as the policy has them.
    pub hits_before: u32,
    pub idle_hours: f64,
}

/// Looks at all that is known before `now`. `starts` is how many members may be made at once.
pub fn learn(history: &History, policy: &PoolPolicy, lead: Lead, starts: u32, now: Timestamp) -> Habits {
    let end = minute_of(now);
    let width = (lead.seconds / 60.0).ceil() as Minute;
    let bunches = history.bunches(width, end);
    let habits = Habits { bunches, ..Habits::default() };
    let (Some(rate), Some(begins)) = (policy.target_hit_rate, history.begins()) else { return habits };
    // A first day knows no night yet.
    let begin = begins.max(end - History::WEEKS * WEEK);
    let claims = history.claims(begin, end);
    if claims < ENOUGH || end - begin < DAY {
        return habits;
    }
    let wanted = 1.0 - rate;
    let odds: [f64; TRIED] =
        std::array::from_fn(|i| (wanted * 0.6f64.powi(i as i32 - AS_GIVEN as i32)).min(0.5));
    let targets = targets(history, policy, lead, bunches, &odds, begin, end);
    let arrivals = arrivals(history, begin, end);
    let replay = |i: usize| Replay::run(&targets, i, &arrivals, lead, starts);
    let allowed = (wanted * f64::from(claims)) as u32;
    // From careless to careful: each step serves at least as many, or nearly.
    let runs: Vec<Replay> = (0..TRIED).map(replay).collect();
    let enough = runs.iter().position(|run| run.missed <= allowed).unwrap_or(TRIED - 1);
    let run = &runs[enough];
    let odds = match enough.checked_sub(1) {
        // Between the two the odds are where the line from one to the other meets what is allowed.
        Some(before) => {
            let (more, fewer) = (f64::from(runs[before].missed), f64::from(run.missed));
            let part = ((more - f64::from(allowed)) / (more - fewer).max(1.0)).clamp(0.0, 1.0);
            odds[before] * (odds[enough] / odds[before]).powf(part)
        }
        None => odds[0],
    };
    let lesson = Lesson {
        claims,
        weeks: (end - begin) as f64 / WEEK as f64,
        hits: claims - run.missed.min(claims),
        hits_before: claims - runs[AS_GIVEN].missed.min(claims),
        idle_hours: run.idle_seconds / 3600.0,
    };
    Habits { bunches, odds: Some(odds), lesson: Some(lesson) }
}

/// Under each of the odds: how many members are made, and how many are kept.
type Wanted = [(u16, u16); TRIED];

/// For each minute what the target would be.
fn targets(
    history: &History,
    policy: &PoolPolicy,
    lead: Lead,
    bunches: Bunches,
    odds: &[f64; TRIED],
    begin: Minute,
    end: Minute,
) -> Vec<Wanted> {
    let zone = zone_of(&policy.windows);
    let short = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let sized = |view: Forecast| {
        // One walk along the distribution answers for all odds, because they only get smaller.
        let mut reach = view.count.reach();
        let (mut n, mut chance) = (0, reach.next());
        odds.map(|odds| {
            while chance > odds && n < policy.max {
                n += 1;
                chance = reach.next();
            }
            short(n)
        })
    };
    let of_minute = |minute| {
        // A moment before it begins: what comes in it is not known yet.
        let now = begin_of(minute) - SignedDuration::from_secs(1);
        let open = policy.windows.iter().filter(|w| is_open(w, now)).map(|w| w.min);
        let floor = short(open.fold(policy.min, u32::max).min(policy.max));
        let mut out = [(floor, floor); TRIED];
        let views = Views::afterwards(history, now, &zone, lead, bunches, end);
        for made in views.present().map(sized) {
            out.iter_mut().zip(made).for_each(|(slot, n)| *slot = (slot.0.max(n), slot.1.max(n)));
        }
        for kept in views.past().map(sized) {
            out.iter_mut().zip(kept).for_each(|(slot, n)| slot.1 = slot.1.max(n));
        }
        out
    };
    (begin..end).map(of_minute).collect()
}

/// When within its minute a claim came is not kept. As many as chance may bring are spread over it, by numbers that
/// are the same at every run; what is more than that is taken to come at once, which is the hardest.
pub(crate) fn arrivals(history: &History, begin: Minute, end: Minute) -> Vec<f64> {
    let mut out = Vec::new();
    for (minute, claims) in history.busy_minutes(begin, end) {
        let hour = minute.div_euclid(HOUR) * HOUR;
        let usual = f64::from(history.claims(hour, hour + HOUR)) / HOUR as f64;
        let most = (usual + 2.0 * usual.sqrt()).max(1.0);
        let together = if f64::from(claims) > most { claims - usual as u32 } else { 1 };
        let start = (minute - begin) as f64 * 60.0;
        let draw = |i: u32| draw((minute as u64) << 16 | u64::from(i));
        let first = out.len();
        out.extend((0..claims).map(|i| start + 60.0 * draw(i.saturating_sub(together - 1))));
        out[first..].sort_unstable_by(f64::total_cmp);
    }
    out
}

/// A number from 0 to 1 that looks like chance (splitmix64).
pub(crate) fn draw(seed: u64) -> f64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// One pool by itself in simulated time: no images, no budget, nobody else's starts.
struct Replay {
    ready: u32,
    /// When those that are being made will be ready, earliest first.
    making: VecDeque<f64>,
    lead: f64,
    starts: usize,
    at: f64,
    missed: u32,
    idle_seconds: f64,
}

impl Replay {
    fn run(targets: &[Wanted], odds: usize, arrivals: &[f64], lead: Lead, starts: u32) -> Self {
        let mut me = Self {
            ready: targets.first().map_or(0, |t| u32::from(t[odds].0)),
            making: VecDeque::new(),
            lead: lead.seconds,
            starts: starts.max(1) as usize,
            at: 0.0,
            missed: 0,
            idle_seconds: 0.0,
        };
        let mut arrivals = arrivals.iter().copied().peekable();
        for (minute, target) in targets.iter().enumerate() {
            let (target, keep) = (u32::from(target[odds].0), u32::from(target[odds].1));
            let end = (minute + 1) as f64 * 60.0;
            me.give_up(keep);
            me.fill(target);
            while let Some(arrival) = arrivals.next_if(|a| *a < end) {
                me.advance(arrival);
                if me.ready > 0 {
                    me.ready -= 1;
                    me.fill(target);
                } else {
                    me.missed += 1;
                }
            }
            me.advance(end);
        }
        me
    }

    fn advance(&mut self, to: f64) {
        while let Some(ready_at) = self.making.front().copied().filter(|t| *t <= to) {
            self.making.pop_front();
            self.wait(ready_at);
            self.ready += 1;
        }
        self.wait(to);
    }

    fn wait(&mut self, to: f64) {
        self.idle_seconds += f64::from(self.ready) * (to - self.at);
        self.at = to;
    }

    fn give_up(&mut self, keep: u32) {
        let there = self.ready + self.making.len() as u32;
        self.ready -= there.saturating_sub(keep).min(self.ready);
    }

    fn fill(&mut self, target: u32) {
        for _ in self.ready + self.making.len() as u32..target {
            // The last of as many as may be made at once has to end first.
            let turn = self.making.len().checked_sub(self.starts).and_then(|i| self.making.get(i));
            let begin = turn.map_or(self.at, |t| t.max(self.at));
            self.making.push_back(begin + self.lead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: Minute = 30_000_000;
    const LEAD: Lead = Lead { seconds: 20.0, samples: 20 };

    fn policy(rate: f64) -> PoolPolicy {
        PoolPolicy { min: 0, max: 50, target_hit_rate: Some(rate), ..PoolPolicy::default() }
    }

    /// Days of eight busy hours, by chance.
    fn days(n: i64) -> History {
        let mut h = History::since(begin_of(BEGIN));
        for minute in (0..n * DAY).filter(|m| m % DAY < 480) {
            let claims = [0.6, 0.88, 0.97].iter().filter(|p| draw(minute as u64 * 7 + 1) > **p).count();
            h.add(begin_of(BEGIN + minute), claims as u32);
        }
        h
    }

    #[test]
    fn little_is_learnt_of_little() {
        let now = begin_of(BEGIN + DAY);
        assert_eq!(learn(&History::default(), &policy(0.99), LEAD, 4, now), Habits::default());
        let half_a_day = learn(&days(1), &policy(0.99), LEAD, 4, begin_of(BEGIN + DAY / 2));
        assert_eq!(half_a_day.odds, None);
    }

    /// What was chosen serves the share that is wanted, and the next more careless odds do not.
    #[test]
    fn the_odds_serve_what_is_wanted() {
        let h = days(7);
        let now = begin_of(BEGIN + WEEK);
        let mut last = f64::INFINITY;
        for rate in [0.9, 0.95, 0.99, 0.995] {
            let habits = learn(&h, &policy(rate), LEAD, 4, now);
            let lesson = habits.lesson.unwrap();
            let share = |hits: u32| f64::from(hits) / f64::from(lesson.claims);
            assert!(share(lesson.hits) >= rate, "{rate} {habits:?}");
            assert!(share(lesson.hits) < rate + 0.6 * (1.0 - rate), "not more than is wanted: {habits:?}");
            let odds = habits.odds.unwrap();
            assert!(odds <= last);
            last = odds;
        }
    }

    /// F14: where few may be made at once, the pool has to be larger for the same share.
    #[test]
    fn a_slow_refill_is_answered_by_care() {
        let mut h = days(7);
        for hour in 0..7 {
            h.add(begin_of(BEGIN + hour * DAY + 200), 12);
        }
        let at = |starts| learn(&h, &policy(0.97), LEAD, starts, begin_of(BEGIN + WEEK));
        let (few, many) = (at(1), at(50));
        assert!(few.odds < many.odds, "{few:?} {many:?}");
    }

    #[test]
    fn draws_are_spread() {
        let mean = (0..1000).map(draw).sum::<f64>() / 1000.0;
        assert!((0.47..0.53).contains(&mean), "{mean}");
    }
}
