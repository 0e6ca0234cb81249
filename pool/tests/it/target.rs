//! What a target is made of, and that it says so.

use std::time::Duration;

use domain::{PoolOrderKind, PoolPolicy, SandboxState, Window};
use pool::{Demand, Floor, FloorReason, Habits, History, Lead, Source, target};

use crate::make::{at, order, policy, repo};
use crate::world::World;

const LEAD: Lead = Lead { seconds: 40.0, samples: 30 };

fn demand(history: &History) -> Demand<'_> {
    Demand { history: Some(history), lead: LEAD, habits: Habits::default() }
}

fn forecasting(min: u32, max: u32) -> PoolPolicy {
    PoolPolicy { target_hit_rate: Some(0.99), ..policy(min, max) }
}

/// `per` claims in each of the last `minutes`.
fn steady(minutes: i64, per: u32) -> History {
    let mut h = History::since(at(-90_000));
    (0..minutes).for_each(|m| h.add(at(-m * 60), per));
    h
}

/// The smallest number that is exceeded in a lead time with at most the odds: here the mean is 1.4, of which a Poisson
/// count is over 4 with 1.4 % and over 5 with 0.3 %.
#[test]
fn it_is_the_smallest_that_serves_the_share() {
    let h = steady(120, 2);
    let t = target(at(59), &forecasting(0, 20), &demand(&h), 0, None);
    let expected = t.terms.expected.as_ref().unwrap();
    assert!((1.3..1.5).contains(&expected.forecast.count.mean()), "{expected:?}");
    assert_eq!((t.members, expected.forecast.source), (5, Source::Recent { ago: 0 }));
    let careless = PoolPolicy { target_hit_rate: Some(0.8), ..forecasting(0, 20) };
    assert_eq!(target(at(59), &careless, &demand(&h), 0, None).members, 2);
    let learnt = Demand { habits: Habits { odds: Some(0.0005), ..Habits::default() }, ..demand(&h) };
    assert_eq!(target(at(59), &forecasting(0, 20), &learnt, 0, None).members, 7);
}

#[test]
fn the_larger_of_floor_and_forecast_and_warm_ups_beside() {
    let h = steady(120, 2);
    let members =
        |min, max, warmups| target(at(59), &forecasting(min, max), &demand(&h), warmups, None).members;
    assert_eq!([members(0, 20, 0), members(3, 20, 0), members(9, 20, 0)], [5, 5, 9]);
    assert_eq!([members(0, 20, 2), members(9, 20, 2), members(9, 10, 2)], [7, 11, 10]);
    let fixed = target(at(0), &policy(3, 20), &demand(&h), 1, None);
    assert_eq!((fixed.members, fixed.to_string()), (4, "min 3 and 1 for warm-ups".into()));
}

/// Nothing is kept for a repo where nobody came for `idle_after`, also if nobody ever came; the first claim ends it.
#[test]
fn an_idle_repo_scales_to_zero() {
    let policy = PoolPolicy { idle_after: Some(Duration::from_secs(3600)), ..forecasting(2, 9) };
    let mut h = History::since(at(0));
    let at_minute = |h: &History, m: i64, warmups| target(at(m * 60), &policy, &demand(h), warmups, None);
    assert_eq!(at_minute(&h, 59, 0).members, 2);
    let idle = at_minute(&h, 60, 0);
    assert_eq!((idle.members, idle.to_string()), (0, format!("none, because nobody came since {}", at(0))));
    assert_eq!(at_minute(&h, 60, 1).members, 1, "a warm-up is the sign that somebody comes");
    h.add(at(100 * 60), 1);
    assert!(at_minute(&h, 100, 0).members >= 2);
    assert_eq!(at_minute(&h, 161, 0).members, 0);
}

/// The window's members are asked for one lead time before it opens, by the clock of its own zone.
#[test]
fn a_window_raises_the_floor_in_time() {
    let window = Window { days: [true; 7], from: 480, to: 1140, zone: "Europe/Berlin".into(), min: 6 };
    let policy = PoolPolicy { windows: vec![window], ..policy(1, 9) };
    let h = History::default();
    let local = |text: &str| text.parse::<jiff::Zoned>().unwrap().timestamp();
    let members = |t: &str| target(local(t), &policy, &demand(&h), 0, None).members;
    assert_eq!(members("2026-11-20T07:59:19[Europe/Berlin]"), 1);
    assert_eq!(members("2026-11-20T07:59:20[Europe/Berlin]"), 6);
    assert_eq!(members("2026-07-20T18:59:59[Europe/Berlin]"), 6);
    assert_eq!(members("2026-07-20T19:00:00[Europe/Berlin]"), 1);
    let open = target(local("2026-07-20T12:00:00[Europe/Berlin]"), &policy, &demand(&h), 0, None);
    assert_eq!(open.to_string(), "min 6 by the window mon-sun 08:00-19:00 Europe/Berlin");
}

/// An operator's limits count until their time is over, over idleness and windows as well.
#[test]
fn an_order_counts_while_it_lasts() {
    let policy = PoolPolicy { idle_after: Some(Duration::from_secs(60)), ..policy(1, 4) };
    let h = History::since(at(-9999));
    let set = |min, max| order(&repo("acme/api"), PoolOrderKind::Set { min, max, until: at(60) });
    let members = |s, order| target(at(s), &policy, &demand(&h), 0, Some(&order)).members;
    assert_eq!(members(59, set(Some(3), None)), 3);
    assert_eq!(members(60, set(Some(3), None)), 0, "it ends by itself");
    assert_eq!(members(0, set(Some(7), None)), 4, "max stands");
    assert_eq!(members(0, set(Some(7), Some(9))), 7, "unless it is raised, too");
    let t = target(at(0), &policy, &demand(&h), 0, Some(&set(Some(3), None)));
    assert!(t.to_string().starts_with("min 3 by order of ada until "), "{t}");
    let Floor { members: 3, why: FloorReason::Order { by, reason, .. } } = t.terms.floor else {
        panic!("{t:?}")
    };
    assert_eq!((by.as_str(), reason.as_str()), ("ada", "the demo"));
}

#[test]
fn a_drained_pool_keeps_only_what_is_held() {
    let mut world = World::new(&[policy(4, 9)]);
    world.settle();
    let name = world.repos[0].name.clone();
    world.repos[0].order = Some(order(&name, PoolOrderKind::Drain));
    let plan = world.step();
    assert_eq!(
        plan.to_string(),
        "acme/r0: target 0 (none, because the pool is drained); has 4 warm, 0 starting, 0 creating (0 reserved, 0 stale); drained; retire 4 (above_target)"
    );
    world.settle();
    assert_eq!(world.live(0), 0);
    world.repos[0].order = Some(order(&name, PoolOrderKind::Resume));
    world.settle();
    assert_eq!(world.count(0, SandboxState::Warm), 4);
}

/// Each term in words and as data, for `hotbed pool explain`.
#[test]
fn every_number_has_its_reason() {
    let h = steady(120, 2);
    let t = target(at(59), &forecasting(3, 20), &demand(&h), 2, None);
    assert_eq!(t.to_string(), "5 for 2.09 claims a minute, min 3 and 2 for warm-ups");
    let words = t.terms.explain().join("\n");
    for part in [
        "5 for claims: more than 5 in one lead time are expected with odds of at most 0.0100",
        "12 claims in the last 6 minutes: 2.09 a minute",
        "a lead time is 40.0 s: the slowest but one in twenty of 30 starts",
        "they come one by one",
        "too few claims to learn better odds from",
        "min 3",
        "2 for live warm-ups",
        "at most 20",
    ] {
        assert!(words.contains(part), "{part} is not in\n{words}");
    }
    let data = serde_json::to_value(&t).unwrap();
    assert_eq!(data["members"], 7);
    assert_eq!(data["expected"]["forecast"]["source"]["recent"]["ago"], 0);
    assert_eq!(data["floor"]["why"], "min");
}
