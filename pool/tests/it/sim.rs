//! The planner proved in simulated time, on traffic of several kinds.

use std::time::Duration;

use domain::{Budget, PoolPolicy};
use jiff::{SignedDuration, Timestamp};
use pool::sim::study::{Curve, TRIALS, costs, monday, office, one_week, repo};
use pool::sim::svg;
use pool::sim::traffic::{Traffic, office_week};
use pool::sim::{Outcome, Rule, Scenario, SimRepo, run};

const DAY: u32 = 1440;
const LEADS: [f64; 4] = [18.0, 20.0, 20.0, 22.0];

fn forecasting(min: u32, max: u32) -> PoolPolicy {
    PoolPolicy { min, max, target_hit_rate: Some(0.98), ..PoolPolicy::default() }
}

fn after(minutes: u32) -> Timestamp {
    monday() + SignedDuration::from_mins(i64::from(minutes))
}

/// One repo from the minute `begin` on; what came before is known.
fn scenario(begin: u32, end: u32, policy: PoolPolicy, arrivals: Vec<Timestamp>) -> Scenario {
    let repos = vec![repo("acme/api", policy, monday(), after(begin), arrivals, LEADS.to_vec())];
    Scenario {
        begin: after(begin),
        end: after(end),
        repos,
        budget: Budget::default(),
        starts: 8,
        cold_starts: 8,
        session: Duration::from_secs(1200),
        resolution: Duration::from_secs(60),
    }
}

/// Claims and hits from one minute of the simulation to another.
fn between(outcome: &Outcome, from: usize, to: usize) -> (u32, u32) {
    let (a, b) = (outcome.points[from], outcome.points[to]);
    (b.claims - a.claims, b.hits - a.hits)
}

#[test]
fn the_same_scenario_has_the_same_outcome() {
    let arrivals = Traffic::new(1, monday()).poisson(300, |_| 1.0).arrivals();
    let s = scenario(60, 300, forecasting(0, 20), arrivals);
    assert_eq!(run(&s, Rule::Plan), run(&s, Rule::Plan));
}

/// Steady traffic by chance: what is promised is held, and after the first day learnt.
#[test]
fn poisson_claims_find_a_member() {
    let arrivals = Traffic::new(2, monday()).poisson(2 * DAY, |_| 1.0).arrivals();
    let outcome = run(&scenario(DAY, 2 * DAY, forecasting(0, 20), arrivals), Rule::Plan);
    assert!(outcome.claims > 1300 && outcome.hit_rate() > 0.965, "{} {}", outcome.claims, outcome.hit_rate());
    assert!(outcome.idle_hours() < 24.0 * 3.5, "{}", outcome.idle_hours());
}

/// Nothing swings: of steady traffic few members are made that nobody claims.
#[test]
fn steady_traffic_does_not_make_the_pool_flap() {
    let arrivals = Traffic::new(3, monday()).poisson(9 * DAY, |_| 0.7).arrivals();
    let outcome = run(&scenario(8 * DAY, 9 * DAY, forecasting(0, 20), arrivals), Rule::Plan);
    // Members that nobody claimed within their life are replaced as well.
    assert!(f64::from(outcome.retired) < 0.05 * f64::from(outcome.claims), "{outcome:?}");
}

/// The day and the week: before the morning's first claims the pool is there, because Monday last week was busy, too;
/// at night it costs next to nothing.
#[test]
fn the_morning_is_known_from_last_week() {
    let week = 7 * DAY;
    let arrivals = Traffic::new(4, monday()).poisson(week + DAY, |m| 2.0 * office_week(m)).arrivals();
    let outcome = run(&scenario(week, week + DAY, forecasting(0, 20), arrivals), Rule::Plan);
    let (claims, hits) = between(&outcome, 7 * 60, 10 * 60);
    assert!(claims > 100 && f64::from(hits) >= 0.95 * f64::from(claims), "{hits} of {claims}");
    let warm = |hour: usize| outcome.points[hour * 60].warm;
    assert!(warm(10) >= 3 && warm(3) <= 1, "{} {}", warm(10), warm(3));
}

/// A viral hour: thirty times the usual. The pool is large enough within minutes, and small again an hour later.
#[test]
fn a_viral_hour_is_met_and_left_behind() {
    let rate = |m: u32| if (600..660).contains(&(m - m / DAY * DAY)) && m >= 2 * DAY { 6.0 } else { 0.2 };
    let arrivals = Traffic::new(5, monday()).poisson(2 * DAY + 800, rate).arrivals();
    let outcome = run(&scenario(2 * DAY + 540, 2 * DAY + 800, forecasting(1, 40), arrivals), Rule::Plan);
    let (claims, hits) = between(&outcome, 66, 120);
    assert!(claims > 250 && f64::from(hits) > 0.95 * f64::from(claims), "{hits} of {claims}");
    let targets: Vec<_> = outcome.points.iter().map(|p| p.target).collect();
    assert!(targets[62] > targets[60], "it rises in the first minute: {targets:?}");
    assert!(targets[65] > 2 * targets[55], "{targets:?}");
    assert!(outcome.points[119].warm > 3 && outcome.points[200].warm <= targets[55] + 1, "{targets:?}");
}

/// A repo that nobody uses any more costs nothing once it is idle.
#[test]
fn a_dead_repo_scales_to_zero() {
    let policy = PoolPolicy { idle_after: Some(Duration::from_secs(4 * 3600)), ..forecasting(2, 20) };
    let arrivals = Traffic::new(6, monday()).poisson(DAY, |_| 0.5).arrivals();
    let outcome = run(&scenario(DAY, 2 * DAY, policy, arrivals), Rule::Plan);
    assert_eq!(outcome.claims, 0);
    assert!(outcome.points[200].warm >= 2);
    assert!(outcome.points[242..].iter().all(|p| p.warm == 0 && p.target == 0));
}

/// F13: claims at twice the rate of refill for a minute, then at half of it. Four may start at once and take 20 seconds,
/// so twelve a minute are refilled. Two lead times after the rate has fallen claims find members again, and go on to.
#[test]
fn f13_the_pool_recovers_within_two_lead_times() {
    let begin = 60;
    let arrivals = (0..10u32).flat_map(|minute| {
        let n = if minute == 0 { 24 } else { 6 };
        (0..n).map(move |i| after(begin + minute) + SignedDuration::from_millis(i * 60_000 / n))
    });
    let mut s = scenario(begin, begin + 10, forecasting(8, 8), arrivals.collect());
    s.repos[0].leads = vec![20.0];
    s.starts = 4;
    s.resolution = Duration::from_secs(1);
    let outcome = run(&s, Rule::Plan);
    let (claims, hits) = between(&outcome, 0, 60);
    assert!(hits < claims, "the minute is more than a refill can bear: {hits} of {claims}");
    let (claims, hits) = between(&outcome, 60 + 40, 599);
    assert_eq!(hits, claims, "two lead times later everybody finds one");
    assert!(outcome.points[300].warm >= 4, "{:?}", outcome.points[300]);
}

/// F20: what is planned is bounded by what happens: one plan for each event at most, and one for each tick.
#[test]
fn f20_the_work_per_claim_is_bounded() {
    let arrivals = Traffic::new(7, monday()).poisson(600, |_| 3.0).arrivals();
    let outcome = run(&scenario(60, 600, forecasting(2, 30), arrivals), Rule::Plan);
    let ticks = 540 * 4;
    // A claim, its session's end, and the readiness or end of what was made for it.
    let events = u64::from(outcome.claims) * 2 + u64::from(outcome.created + outcome.retired) * 2;
    assert!(outcome.plans <= ticks + events + 20, "{} {events}", outcome.plans);
}

/// F14: 200 repos, a tenth of them busy, and one budget that holds a fraction of what all would like. It is never
/// exceeded, and serves more claims than the same members shared out evenly.
#[test]
fn two_hundred_repos_share_one_budget() {
    let of = |i: u32| -> SimRepo {
        let rate = if i.is_multiple_of(10) { 0.5 } else { 0.004 };
        let arrivals = Traffic::new(100 + u64::from(i), monday()).poisson(400, |_| rate).arrivals();
        let name = format!("acme/r{i}");
        repo(&name, forecasting(0, 10), monday(), after(360), arrivals, LEADS.to_vec())
    };
    let mut s = scenario(360, 400, forecasting(0, 10), Vec::new());
    s.repos = (0..200).map(of).collect();
    s.session = Duration::from_secs(120);
    s.budget = Budget { memory: Some(60 << 30), ..Budget::default() };
    let planned = run(&s, Rule::Plan);
    assert!(planned.peak_memory <= 60 << 30, "{}", planned.peak_memory >> 30);
    // As many as there is room for, the same for each.
    let evenly = run(&s, Rule::Fixed(1));
    assert!(evenly.peak_memory <= 60 << 30);
    assert!(planned.hit_rate() > evenly.hit_rate() + 0.1, "{} {}", planned.hit_rate(), evenly.hit_rate());
}

/// The plot of `docs/pool-sizing.md` is what the planner does: its second part is drawn anew, and a point of its
/// curve is looked for in the first. `cargo run --release -p pool --example sizing docs/pool-sizing.svg` makes all of it anew.
#[test]
fn the_plot_of_the_page_is_the_planners() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/pool-sizing.svg");
    let kept = std::fs::read_to_string(path).unwrap();
    let inner = |document: &str| {
        let (_, rest) = document.split_once("translate(0 0)\">\n").unwrap();
        rest.rsplit_once("</g>").unwrap().0.to_owned()
    };
    let week = inner(&svg::document(&[one_week()]));
    assert!(week.matches("<path").count() > 10 && kept.contains(&week), "{path} has another week");
    // What it costs to serve 99 %, over all four weeks.
    let (planner, weeks) = (&TRIALS[0], (1..=4).map(office).collect::<Vec<_>>());
    let curve = Curve { name: planner.name, points: vec![planner.at(0.99, &weeks)] };
    let drawn = inner(&svg::document(&[costs(4, &[curve])]));
    let point = drawn.lines().find(|l| l.starts_with("<circle")).unwrap();
    assert!(kept.contains(point), "the planner is at {point} now: {path} is old");
}
