//! The planner against simple rules, each at all of its settings: how many idle hours does which share of claims cost?

use std::time::Duration;

use domain::{Budget, PoolPolicy, Resources};
use jiff::{SignedDuration, Timestamp};

use super::svg::{Axis, Chart, Look, Series};
use super::traffic::{Traffic, office_week};
use super::{Outcome, Rule, Scenario, SimRepo, run};
use crate::history::History;

/// One rule with its outcomes, from careless to careful.
#[derive(Debug, Clone)]
pub struct Curve {
    pub name: &'static str,
    pub points: Vec<Setting>,
}

/// One rule at one setting.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Setting {
    pub setting: f64,
    pub hit_rate: f64,
    pub idle_hours: f64,
}

impl Curve {
    /// Idle hours at exactly this hit rate, between the two settings around it; `None` where the rule does not come
    /// there. The cheapest way counts.
    pub fn idle_hours_at(&self, rate: f64) -> Option<f64> {
        let between = self.points.windows(2).filter_map(|w| {
            let (a, b) = if w[0].hit_rate <= w[1].hit_rate { (w[0], w[1]) } else { (w[1], w[0]) };
            let part = (rate - a.hit_rate) / (b.hit_rate - a.hit_rate);
            (a.hit_rate < rate && rate <= b.hit_rate)
                .then_some(a.idle_hours + part * (b.idle_hours - a.idle_hours))
        });
        between.min_by(f64::total_cmp)
    }
}

/// A week of one repo after five weeks that are known: single claims and bursts of six by the hours of an office.
/// 4,000 claims; starts take about half a minute.
pub fn office(seed: u64) -> Scenario {
    const WEEKS: u32 = 6;
    let minutes = WEEKS * 7 * 24 * 60;
    let first = monday();
    let begin = first + SignedDuration::from_hours(24 * 7 * 5);
    let arrivals = Traffic::new(seed, first)
        .poisson(minutes, |m| 1.5 * office_week(m))
        .bursts(minutes, 6.0, 10.0, |m| office_week(m) / 45.0)
        .arrivals();
    let policy = PoolPolicy { min: 0, max: 60, target_hit_rate: Some(0.99), ..PoolPolicy::default() };
    let leads = vec![24.0, 26.0, 27.0, 28.0, 29.0, 30.0, 31.0, 32.0, 34.0, 38.0];
    Scenario {
        begin,
        end: begin + SignedDuration::from_hours(24 * 7),
        repos: vec![repo("acme/api", policy, first, begin, arrivals, leads)],
        budget: Budget::default(),
        starts: 16,
        cold_starts: 8,
        session: Duration::from_secs(20 * 60),
        resolution: Duration::from_secs(600),
    }
}

/// A Monday, midnight.
pub fn monday() -> Timestamp {
    Timestamp::from_second(1_791_158_400).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A repo whose arrivals before `begin` are known from `first` on. One member takes a GiB and a processor.
pub fn repo(
    name: &str,
    policy: PoolPolicy,
    first: Timestamp,
    begin: Timestamp,
    arrivals: Vec<Timestamp>,
    leads: Vec<f64>,
) -> SimRepo {
    let mut past = History::since(first);
    arrivals.iter().filter(|at| **at < begin).for_each(|at| past.add(*at, 1));
    let name = match name.parse() {
        Ok(name) => name,
        Err(e) => unreachable!("names of studies are fixed: {e}"),
    };
    let size = Resources { cpu_millis: 1000, memory: 1 << 30, pids: 256 };
    SimRepo { name, policy, size, past, arrivals, leads }
}

/// A rule that is tried, with its settings from careless to careful.
pub struct Trial {
    pub name: &'static str,
    pub settings: &'static [f64],
    rule: fn(f64) -> Rule,
}

pub const TRIALS: [Trial; 5] = [
    Trial { name: "planner", settings: &[0.94, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995], rule: |_| Rule::Plan },
    Trial {
        name: "fixed size",
        settings: &[3.0, 5.0, 7.0, 9.0, 11.0, 12.0, 13.0, 14.0, 16.0, 18.0],
        rule: |n| Rule::Fixed(n as u32),
    },
    Trial { name: "utilisation", settings: &[0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.5], rule: Rule::Utilisation },
    Trial { name: "EWMA", settings: &[4.0, 8.0, 12.0, 16.0, 24.0, 32.0, 48.0], rule: Rule::Ewma },
    Trial {
        name: "cron",
        settings: &[4.0, 8.0, 12.0, 16.0, 20.0, 26.0, 34.0],
        rule: |n| Rule::Cron(n as u32),
    },
];

impl Trial {
    /// The rule at one of its settings over all of the scenarios. The planner's setting is the share it is asked for.
    pub fn at(&self, setting: f64, scenarios: &[Scenario]) -> Setting {
        let rule = (self.rule)(setting);
        let outcome = |scenario: &Scenario| match rule {
            Rule::Plan => {
                let mut scenario = scenario.clone();
                scenario.repos.iter_mut().for_each(|r| r.policy.target_hit_rate = Some(setting));
                run(&scenario, rule)
            }
            _ => run(scenario, rule),
        };
        sum(setting, scenarios.iter().map(outcome))
    }

    fn curve(&self, scenarios: &[Scenario]) -> Curve {
        Curve { name: self.name, points: self.settings.iter().map(|s| self.at(*s, scenarios)).collect() }
    }
}

/// Every rule at its settings over all of the scenarios.
pub fn compare(scenarios: &[Scenario]) -> Vec<Curve> {
    TRIALS.iter().map(|trial| trial.curve(scenarios)).collect()
}

/// What is kept warm in the first of the weeks, by the planner and by a fixed size.
pub fn one_week() -> Chart {
    let scenario = office(1);
    let (planner, fixed) = (run(&scenario, Rule::Plan), run(&scenario, Rule::Fixed(12)));
    course("One of the weeks", &scenario, &[("planner", &planner), ("fixed at 12", &fixed)])
}

/// The costs of so many weeks.
pub fn costs(weeks: u64, curves: &[Curve]) -> Chart {
    let title = format!("{weeks} weeks of 4,000 claims each by office hours, with bursts of six");
    plot(&title, curves, 3000.0 * weeks as f64)
}

fn sum(setting: f64, outcomes: impl Iterator<Item = Outcome>) -> Setting {
    let (mut claims, mut hits, mut idle_hours) = (0, 0, 0.0);
    for outcome in outcomes {
        claims += outcome.claims;
        hits += outcome.hits;
        idle_hours += outcome.idle_hours();
    }
    Setting { setting, hit_rate: f64::from(hits) / f64::from(claims.max(1)), idle_hours }
}

/// The share of served claims by what it costs.
fn plot(title: &str, curves: &[Curve], highest: f64) -> Chart {
    let from = 0.93;
    let series = curves.iter().map(|curve| {
        let points = curve.points.iter().map(|p| (p.idle_hours, p.hit_rate));
        Series {
            name: curve.name.into(),
            points: points.filter(|(x, y)| *x <= highest && *y >= from).collect(),
            look: Look::Line,
        }
    });
    let mut hours = Axis::up_to("idle sandbox-hours", highest);
    hours.to = highest;
    hours.marks.retain(|(at, _)| *at <= highest);
    Chart {
        title: title.into(),
        x: hours,
        y: Axis {
            label: "claims that found a warm sandbox".into(),
            from,
            to: 1.0,
            marks: [93, 95, 97, 98, 99, 100].map(|p| (f64::from(p) / 100.0, format!("{p} %"))).to_vec(),
        },
        series: series.collect(),
    }
}

/// Warm members in the course of time for each outcome, over the claims.
pub fn course(title: &str, scenario: &Scenario, outcomes: &[(&str, &Outcome)]) -> Chart {
    let hours = |at: Timestamp| at.duration_since(scenario.begin).as_secs_f64() / 3600.0;
    let length = hours(scenario.end);
    let claims: Vec<(f64, f64)> = outcomes.first().map_or_else(Vec::new, |(_, outcome)| {
        outcome.points.windows(2).map(|w| (hours(w[0].at), f64::from(w[1].claims - w[0].claims))).collect()
    });
    let mut series = Vec::new();
    let mut highest = claims.iter().map(|(_, n)| *n).fold(1.0, f64::max);
    let minutes = scenario.resolution.as_secs() as f64 / 60.0;
    for (name, outcome) in outcomes {
        let points: Vec<_> = outcome.points.iter().map(|p| (hours(p.at), f64::from(p.warm))).collect();
        highest = points.iter().map(|(_, n)| *n).fold(highest, f64::max);
        series.push(Series { name: format!("warm, {name}"), points, look: Look::Steps });
    }
    series.insert(
        0,
        Series { name: format!("claims in {minutes:.0} minutes"), points: claims, look: Look::Area },
    );
    let every =
        [1.0, 2.0, 4.0, 6.0, 12.0, 24.0, 168.0].into_iter().find(|h| length / h <= 10.0).unwrap_or(720.0);
    let marks = (0..).map(|i| f64::from(i) * every).take_while(|h| *h < length);
    let words = |h: f64| {
        let at = scenario.begin + SignedDuration::from_secs((h * 3600.0) as i64);
        let format = if every < 24.0 { "%a %H:%M" } else { "%a %d %b" };
        (h, at.strftime(format).to_string())
    };
    Chart {
        title: title.into(),
        x: Axis { label: "UTC".into(), from: 0.0, to: length, marks: marks.map(words).collect() },
        y: Axis::up_to("sandboxes", highest),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_hours_are_read_off_between_settings() {
        let point = |hit_rate, idle_hours| Setting { setting: 0.0, hit_rate, idle_hours };
        let curve =
            Curve { name: "", points: vec![point(0.98, 100.0), point(0.99, 200.0), point(1.0, 400.0)] };
        assert_eq!(curve.idle_hours_at(0.99), Some(200.0));
        assert_eq!(curve.idle_hours_at(0.985).map(f64::round), Some(150.0));
        assert_eq!(curve.idle_hours_at(0.97), None);
    }

    #[test]
    fn the_study_begins_on_a_monday() {
        assert_eq!(monday().strftime("%a %H:%M:%S").to_string(), "Mon 00:00:00");
    }
}
