//! How many members a repo shall have, before the budget is asked; each number with its reason.

use std::fmt;

use domain::{PoolOrder, PoolOrderKind, PoolPolicy};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::count::Count;
use crate::forecast::{Forecast, Lead, Source, Views};
use crate::habits::Habits;
use crate::history::History;
use crate::life::later;
use crate::window::{is_open, words, zone_of};

/// What is known of a repo's traffic.
#[derive(Debug, Clone, Copy, Default)]
pub struct Demand<'a> {
    pub history: Option<&'a History>,
    pub lead: Lead,
    pub habits: Habits,
}

/// How many members a repo shall have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    /// What the plan works towards: what is wanted, less what the budget has no room for.
    pub members: u32,
    #[serde(flatten)]
    pub terms: Terms,
}

/// What a target is made of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Terms {
    /// For the claims that are expected.
    pub expected: Option<Expected>,
    pub floor: Floor,
    /// For warm-ups that are live, beside the larger of the two above.
    pub warmups: u32,
    pub max: u32,
    /// All of it together.
    pub wanted: u32,
    /// Members above what is wanted are kept up to this many: they were wanted a few minutes ago.
    pub kept: u32,
}

/// The members that expected claims ask for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Expected {
    pub members: u32,
    /// What was expected in the last minutes, at its highest.
    pub kept: u32,
    pub forecast: Forecast,
    pub lead: Lead,
    pub habits: Habits,
    /// More claims than `members` in one lead time are expected with at most these odds.
    pub odds: f64,
    pub target_hit_rate: f64,
}

/// The least that is kept whatever the traffic is, and who says so.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Floor {
    pub members: u32,
    #[serde(flatten)]
    pub why: FloorReason,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "why", rename_all = "snake_case")]
pub enum FloorReason {
    /// The policy's `min`.
    Min,
    /// A window of the week, in words.
    Window { window: String },
    /// An operator's order.
    Order { by: String, reason: String, until: Timestamp },
    /// Nobody came since then, and that is longer than `idle_after`.
    Idle { since: Timestamp },
    /// An operator drains the pool.
    Drained,
}

/// What is wanted for one repo. `order` is the limits that an operator has set, if they are still in force.
pub fn target(
    now: Timestamp,
    policy: &PoolPolicy,
    demand: &Demand<'_>,
    warmups: u32,
    order: Option<&PoolOrder>,
) -> Target {
    let (min, max) = limits(now, order);
    let max = max.unwrap_or(policy.max);
    let floor = floor(now, policy, demand, min.map(|(n, order)| (n.min(max), order)));
    let idle = matches!(floor.why, FloorReason::Idle { .. });
    let expected = if idle { None } else { expected(now, policy, demand, max) };
    let (forecast, kept) = expected.as_ref().map_or((0, 0), |e| (e.members, e.kept));
    let all = |n: u32| n.max(floor.members).saturating_add(warmups).min(max);
    let (wanted, kept) = (all(forecast), all(kept));
    Target { members: wanted, terms: Terms { expected, floor, warmups, max, wanted, kept } }
}

/// A pool that is emptied: what is held for warm-ups stays.
pub(crate) fn drained(policy: &PoolPolicy, held: u32) -> Target {
    let floor = Floor { members: 0, why: FloorReason::Drained };
    let wanted = held.min(policy.max);
    let (max, kept) = (policy.max, wanted);
    Target { members: wanted, terms: Terms { expected: None, floor, warmups: held, max, wanted, kept } }
}

type Ordered<'a> = Option<(u32, &'a PoolOrder)>;

fn limits(now: Timestamp, order: Option<&PoolOrder>) -> (Ordered<'_>, Option<u32>) {
    match order {
        Some(order) => match order.kind {
            PoolOrderKind::Set { min, max, until } if now < until => (min.map(|n| (n, order)), max),
            _ => (None, None),
        },
        None => (None, None),
    }
}

fn floor(now: Timestamp, policy: &PoolPolicy, demand: &Demand<'_>, ordered: Ordered<'_>) -> Floor {
    if let Some((members, PoolOrder { kind: PoolOrderKind::Set { until, .. }, by, why, .. })) = ordered {
        let why = FloorReason::Order { by: by.clone(), reason: why.clone(), until: *until };
        return Floor { members, why };
    }
    if let Some(since) = idle_since(now, policy, demand) {
        return Floor { members: 0, why: FloorReason::Idle { since } };
    }
    // A window's members shall be ready when it opens, so it is asked for what is open one lead time from now, too.
    let soon = SignedDuration::try_from_secs_f64(demand.lead.seconds).unwrap_or_default();
    let soon = now.checked_add(soon).unwrap_or(now);
    let open = policy.windows.iter().filter(|w| w.min > policy.min && (is_open(w, now) || is_open(w, soon)));
    match open.max_by_key(|w| w.min) {
        Some(window) => Floor { members: window.min, why: FloorReason::Window { window: words(window) } },
        None => Floor { members: policy.min, why: FloorReason::Min },
    }
}

/// Since when nobody came, where that is long enough.
fn idle_since(now: Timestamp, policy: &PoolPolicy, demand: &Demand<'_>) -> Option<Timestamp> {
    let (history, idle_after) = (demand.history?, policy.idle_after?);
    // Of a claim only its minute is known: it came at the end of it, at the latest.
    let last = history.last_claim().map(|minute| minute + SignedDuration::from_mins(1));
    let since = last.or_else(|| history.watched_since())?;
    (later(since, idle_after) <= now).then_some(since)
}

fn expected(now: Timestamp, policy: &PoolPolicy, demand: &Demand<'_>, max: u32) -> Option<Expected> {
    let (rate, history) = (policy.target_hit_rate?, demand.history?);
    let Demand { lead, habits, .. } = *demand;
    let odds = habits.odds.unwrap_or(1.0 - rate);
    let zone = zone_of(&policy.windows);
    let sized = |view: Forecast| (view.count.exceeded_at_most(odds, max), view);
    // Of two that ask for as many the first is the more recent one.
    let larger = |best: (u32, Forecast), next: (u32, Forecast)| if next.0 > best.0 { next } else { best };
    let views = Views::new(history, now, &zone, lead, habits.bunches);
    let made = views.present().map(sized).reduce(larger);
    let kept = views.past().map(sized).reduce(larger);
    let (members, forecast) = made.or(kept.map(|(_, view)| (0, view)))?;
    let kept = kept.map_or(members, |(n, _)| n.max(members));
    Some(Expected { members, kept, forecast, lead, habits, odds, target_hit_rate: rate })
}

impl Terms {
    /// Claims to be expected in one lead time, for what a member is worth.
    pub(crate) fn count(&self) -> Count {
        self.expected.as_ref().map_or(Count::NONE, |e| e.forecast.count)
    }

    /// Each term as a sentence.
    pub fn explain(&self) -> Vec<String> {
        let mut out = Vec::new();
        if let Some(expected) = &self.expected {
            out.extend(expected.explain());
        }
        out.push(self.floor.explain());
        if self.warmups > 0 {
            out.push(format!("{} for live warm-ups", self.warmups));
        }
        out.push(format!("at most {}", self.max));
        if self.kept > self.wanted {
            out.push(format!("up to {} are kept, because they were wanted a few minutes ago", self.kept));
        }
        out
    }
}

impl Expected {
    fn explain(&self) -> Vec<String> {
        let Self { members, forecast: f, lead, habits, odds, target_hit_rate, .. } = self;
        let seen = match f.source {
            Source::Recent { ago: 0 } => format!("{} claims in the last {:.0} minutes", f.claims, f.minutes),
            Source::Recent { ago } => {
                format!("{} claims in the {:.0} minutes up to {ago} minutes ago", f.claims, f.minutes)
            }
            Source::Season { weeks } => {
                format!("{} claims in the same hour of {weeks} earlier weeks", f.claims)
            }
        };
        let measured = match lead.samples {
            0 => "assumed, as none was measured yet".to_owned(),
            n => format!("the slowest but one in twenty of {n} starts"),
        };
        let mut out = vec![
            format!(
                "{members} for claims: more than {members} in one lead time are expected with odds of at most {odds:.4}"
            ),
            format!("{seen}: {:.2} a minute, so {:.2} in a lead time", f.per_minute, f.count.mean()),
            format!("a lead time is {:.1} s: {measured}", lead.seconds),
            match habits.bunches {
                b if b.share > 0.0 => {
                    format!("{:.0} % of the time not one comes but {:.1} together", b.share * 100.0, b.size)
                }
                _ => "they come one by one".to_owned(),
            },
        ];
        out.push(match habits.lesson {
            Some(lesson) => format!(
                "odds of {odds:.4} instead of {:.4}, because in the last {:.1} weeks they would have served {} of {} \
                 claims with {:.0} idle hours; the others {}",
                1.0 - target_hit_rate,
                lesson.weeks,
                lesson.hits,
                lesson.claims,
                lesson.idle_hours,
                lesson.hits_before
            ),
            None => "too few claims to learn better odds from".to_owned(),
        });
        out
    }
}

impl Floor {
    fn explain(&self) -> String {
        let n = self.members;
        match &self.why {
            FloorReason::Min => format!("min {n}"),
            FloorReason::Window { window } => format!("min {n} by the window {window}"),
            FloorReason::Order { by, reason, until } => {
                format!("min {n} by order of {by} until {until}: {reason}")
            }
            FloorReason::Idle { since } => format!("none, because nobody came since {since}"),
            FloorReason::Drained => "none, because the pool is drained".to_owned(),
        }
    }
}

impl Target {
    /// Each term as a sentence, and what the budget has made of it.
    pub fn explain(&self) -> Vec<String> {
        let mut out = self.terms.explain();
        if self.members < self.terms.wanted {
            out.push(format!(
                "{} are wanted, and the budget has room for {}",
                self.terms.wanted, self.members
            ));
        }
        out
    }
}

/// In one line.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Terms { expected, floor, warmups, max, wanted, .. } = &self.terms;
        match expected {
            Some(e) if e.members > floor.members => {
                let rate = e.forecast.per_minute;
                write!(f, "{} for {rate:.2} claims a minute, {}", e.members, floor.explain())?;
            }
            _ => write!(f, "{}", floor.explain())?,
        }
        if *warmups > 0 {
            write!(f, " and {warmups} for warm-ups")?;
        }
        let asked = expected.as_ref().map_or(0, |e| e.members).max(floor.members).saturating_add(*warmups);
        if *wanted < asked {
            write!(f, ", max {max}")?;
        }
        if self.members < *wanted {
            write!(f, ", the budget has room for {}", self.members)?;
        }
        Ok(())
    }
}
