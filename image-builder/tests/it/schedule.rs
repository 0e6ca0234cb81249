//! When a repo is due.

use std::time::Duration;

use domain::{ErrorKind, ImageState, PushNote, RepoSpec, Trigger};
use image_builder::{Due, RepoBuildState, Schedule, Tick, push_due, retry_after};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use crate::make::{at, commit, image, spec};

fn due(now: Timestamp, spec: &RepoSpec, state: &RepoBuildState<'_>) -> domain::Result<Due> {
    image_builder::due(now, spec, &Schedule::of(spec)?, state)
}

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

#[test]
fn five_fields_and_nothing_else() {
    for good in ["*/30 * * * *", "0 3 * * 1-5", "@hourly", "0 0 29 2 *", "15,45 8-18 * * MON-FRI"] {
        assert!(good.parse::<Schedule>().is_ok(), "{good}");
    }
    for bad in [
        "",
        "* * * *",
        "* * * * * *",
        "61 * * * *",
        "5,,6 * * * *",
        ",5 * * * *",
        "0 0 30 2 *",
        "noon",
        "@never",
    ] {
        let err = bad.parse::<Schedule>().unwrap_err();
        assert_eq!(err.kind(), ErrorKind::Invalid, "{bad}");
        assert!(err.chain().contains(bad), "{}", err.chain());
    }
}

/// Repos are spread over the time to the next tick, at most a quarter of an hour, each always the same.
#[test]
fn ticks_are_spread() {
    for (text, bound) in [("*/30 * * * *", 900), ("* * * * *", 60), ("0 3 * * *", 900)] {
        let schedule = schedule(text);
        let tick = schedule.after(at(0)).unwrap();
        let offsets: Vec<_> = (0..200)
            .map(|n| {
                let repo = format!("acme/r{n}").parse().unwrap();
                let answered = schedule.answered_at(tick, &repo);
                assert_eq!(answered, schedule.answered_at(tick, &repo));
                answered.duration_since(tick).as_secs()
            })
            .collect();
        assert!(offsets.iter().all(|o| (0..bound).contains(o)), "{offsets:?}");
        let early = offsets.iter().filter(|o| **o < bound / 2).count();
        assert!((60..140).contains(&early), "spread evenly: {early} of 200 in the first half");
    }
}

fn now(due: Due) -> Tick {
    match due {
        Due::Now(tick) => tick,
        other => panic!("not due: {other:?}"),
    }
}

#[test]
fn a_repo_without_an_image_is_due_at_once_and_one_that_runs_is_not() {
    let spec = spec();
    let state = RepoBuildState { last_tick: Some(at(0)), ..Default::default() };
    assert_eq!(now(due(at(1), &spec, &state).unwrap()).trigger, Trigger::Missing);
    let running = RepoBuildState { running: true, ..state };
    assert_eq!(due(at(1), &spec, &running).unwrap(), Due::Running);
}

/// A failing repo is tried again after 1, 2, 4 … 30 minutes, whatever its schedule says.
#[test]
fn failures_back_off() {
    let waits: Vec<_> = (0..9).map(|n| retry_after(n).as_secs() / 60).collect();
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30, 30, 30]);
    assert_eq!(retry_after(u32::MAX), Duration::from_secs(1800));
    let (spec, current) = (spec(), image(1, 1, ImageState::Current));
    let state = RepoBuildState {
        last_tick: Some(at(0)),
        failures: 3,
        last_failure: Some(at(100)),
        current: Some(&current),
        running: false,
    };
    assert!(matches!(due(at(339), &spec, &state).unwrap(), Due::Later { at: when, .. } if when == at(340)));
    let tick = now(due(at(340), &spec, &state).unwrap());
    assert_eq!((tick.at, tick.trigger), (at(0), Trigger::Schedule));
    // A failure noted by a clock that ran far ahead does not stop the repo.
    let ahead = RepoBuildState { last_failure: Some(at(10_000_000)), ..state };
    now(due(at(340), &spec, &ahead).unwrap());
}

/// A clock that was years ahead and is put right does not stop a repo for years.
#[test]
fn a_great_step_back_is_not_waited_out() {
    let (spec, current) = (spec(), image(1, 1, ImageState::Current));
    let years = 3 * 365 * 86_400;
    let state = RepoBuildState { last_tick: Some(at(years)), current: Some(&current), ..Default::default() };
    let tick = now(due(at(0), &spec, &state).unwrap());
    assert!(tick.why.contains("the clock went back"), "{}", tick.why);
    assert!(tick.at <= at(0));
}

const ZONES: [&str; 5] =
    ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Sao_Paulo"];

/// The evenings before clocks change: none, Berlin twice, New York twice, Lord Howe (by half an hour) twice.
const CHANGES: [&str; 7] = [
    "2027-01-15T08:00:00Z",
    "2027-03-27T20:00:00Z",
    "2027-10-30T20:00:00Z",
    "2027-03-13T20:00:00Z",
    "2027-11-06T20:00:00Z",
    "2027-04-03T08:00:00Z",
    "2027-10-02T08:00:00Z",
];

/// A fixed time comes once a day, also on the two days on which the clocks skip or repeat it; an interval goes on.
#[test]
fn ticks_over_a_change_of_the_clocks() {
    let ticks = |text: &str, from: &str, until: &str| {
        let schedule = Schedule::in_zone(text, "Europe/Berlin").unwrap();
        let (from, until): (Timestamp, Timestamp) = (from.parse().unwrap(), until.parse().unwrap());
        let all = std::iter::successors(schedule.after(from), |t| schedule.after(*t));
        all.take_while(|t| *t <= until).map(|t| t.to_string()).collect::<Vec<_>>()
    };
    // 28 March 2027: 02:00 becomes 03:00 at 01:00 UTC. What would come at 02:30 comes at once after the gap.
    let spring = ("2027-03-27T23:00:00Z", "2027-03-28T22:00:00Z");
    assert_eq!(ticks("30 2 * * *", spring.0, spring.1), ["2027-03-28T01:00:00Z"]);
    assert_eq!(ticks("0 3 * * *", spring.0, spring.1), ["2027-03-28T01:00:00Z"]);
    assert_eq!(ticks("*/30 * * * *", spring.0, spring.1).len(), 46);
    // 31 October 2027: 03:00 becomes 02:00 at 01:00 UTC. 02:30 is there twice and is answered the first time.
    let autumn = ("2027-10-30T22:00:00Z", "2027-10-31T23:00:00Z");
    assert_eq!(ticks("30 2 * * *", autumn.0, autumn.1), ["2027-10-31T00:30:00Z"]);
    assert_eq!(ticks("*/30 * * * *", autumn.0, autumn.1).len(), 50);
    // A summer's day in its own zone.
    assert_eq!(ticks("0 3 * * *", "2027-07-01T00:00:00Z", "2027-07-02T00:00:00Z"), ["2027-07-01T01:00:00Z"]);
}

/// Looking back finds the same ticks as looking forward, through every change of the clocks.
#[test]
fn looking_back_agrees_with_looking_forward() {
    for zone in ZONES {
        for text in ["30 2 * * *", "0 3 * * *", "*/30 * * * *", "15 1,2 * * *", "0 0 * * *", "7 */2 * * *"] {
            let schedule = Schedule::in_zone(text, zone).unwrap();
            for start in CHANGES {
                let from: Timestamp = start.parse().unwrap();
                let mut last = schedule.until(from).unwrap();
                for minute in (1..15 * 60).step_by(7) {
                    let now = from.checked_add(SignedDuration::from_mins(minute)).unwrap();
                    while let Some(next) = schedule.after(last).filter(|t| *t <= now) {
                        last = next;
                    }
                    assert_eq!(schedule.until(now), Some(last), "{text} in {zone} at {now}");
                }
            }
        }
    }
}

#[test]
fn an_unknown_zone_is_named() {
    let error = Schedule::in_zone("0 3 * * *", "Europe/Berlim").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.chain().contains("Europe/Berlim"), "{}", error.chain());
}

/// Pushes that follow each other are one look, soon after the last of them, and never later than a minute after the
/// first.
#[test]
fn pushes_are_debounced() {
    let push = |first, last| PushNote { commit: commit(1), first: at(first), last: at(last) };
    assert!(!push_due(at(4), &push(0, 0)));
    assert!(push_due(at(5), &push(0, 0)));
    assert!(!push_due(at(14), &push(0, 10)));
    assert!(push_due(at(15), &push(0, 10)));
    assert!(!push_due(at(59), &push(0, 58)));
    assert!(push_due(at(60), &push(0, 58)));
    // Noted by a clock that was ahead.
    assert!(push_due(at(0), &push(1000, 1000)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever the clock does within a day, forwards or back: no tick is answered twice, each answer comes no
    /// earlier than its tick, and every tick between two answers is counted as missed; where it says `Later`, it is
    /// due at that moment and not a second earlier.
    #[test]
    fn ticks_are_answered_once_and_none_is_lost(
        text in prop::sample::select(vec!["*/30 * * * *", "* * * * *", "0 * * * *", "0 3 * * *", "30 2 * * *", "7,11 */2 * * 1-5"]),
        zone in prop::sample::select(ZONES.to_vec()),
        start in prop::sample::select(CHANGES.to_vec()),
        name in 0u32..1000,
        steps in prop::collection::vec(prop_oneof![
            5 => 1i64..4000, 1 => -80_000i64..0, 1 => 0i64..80_000,
        ], 1..60),
    ) {
        let mut spec = spec();
        spec.name = format!("acme/r{name}").parse().unwrap();
        spec.image.schedule = text.into();
        spec.image.timezone = zone.into();
        let (schedule, current) = (Schedule::of(&spec).unwrap(), image(1, 1, ImageState::Current));
        let mut clock: Timestamp = start.parse().unwrap();
        let mut last: Option<Timestamp> = None;
        for step in steps {
            let next = clock.checked_add(SignedDuration::from_secs(step)).unwrap();
            // Back by less than a day in all, seen from the last answer.
            clock = last.map_or(next, |l| next.max(l.checked_sub(SignedDuration::from_hours(23)).unwrap()));
            let ask = |now, last| due(now, &spec, &RepoBuildState { last_tick: last, current: Some(&current), ..Default::default() }).unwrap();
            match ask(clock, last) {
                Due::Now(tick) => {
                    prop_assert!(tick.at <= clock);
                    prop_assert_eq!(schedule.until(tick.at), Some(tick.at), "it is a tick of the schedule");
                    if let Some(last) = last {
                        prop_assert!(tick.at > last, "answered twice");
                        let mut between = 0;
                        let mut t = schedule.after(last).unwrap();
                        while t < tick.at { between += 1; t = schedule.after(t).unwrap(); }
                        prop_assert_eq!(t, tick.at);
                        prop_assert_eq!(tick.missed, between.min(1000));
                    }
                    last = Some(tick.at);
                    prop_assert!(matches!(ask(clock, last), Due::Later { .. }), "asked again at once");
                }
                Due::Later { at: when, .. } => {
                    prop_assert!(when > clock);
                    prop_assert!(matches!(ask(when, last), Due::Now(_)));
                    let before = when.checked_sub(SignedDuration::from_secs(1)).unwrap();
                    if before > clock {
                        prop_assert!(matches!(ask(before, last), Due::Later { .. }), "due before it said");
                    }
                }
                Due::Running => prop_assert!(false),
            }
        }
    }
}
