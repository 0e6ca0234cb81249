//! One budget over all pools, as a plan spends it.

use domain::{Budget, SandboxState};
use pool::{History, RetireReason, Usage};

use crate::make::{SIZE, at, image, policy};
use crate::world::{World, creates, retired};

const GIB: u64 = 1 << 30;

fn gib(n: u64) -> Budget {
    Budget { memory: Some(n * GIB), ..Budget::default() }
}

fn sessions(n: u32) -> Usage {
    Usage::one(&SIZE).times(n)
}

/// A session that has no room takes it from idle members, where least is lost: the busy repo keeps its own.
#[test]
fn a_session_takes_from_idle_members_where_least_is_lost() {
    let mut world = World::new(&[policy(2, 9), policy(2, 9)]);
    let mut busy = History::since(at(-90_000));
    for minute in 0..30 {
        busy.add(at(-minute * 60), 1);
    }
    world.repos[0].history = Some(busy);
    world.budget = gib(6);
    world.sessions = sessions(2);
    world.settle();
    assert_eq!([world.live(0), world.live(1)], [2, 2], "no forecast yet, so the floors fill the budget");
    world.repos[0].policy.target_hit_rate = Some(0.99);
    world.sessions = sessions(3);
    let plan = world.step();
    let gone = retired(&plan);
    assert_eq!(gone.len(), 1, "{plan}");
    assert_eq!(gone[0].1, RetireReason::AboveTarget);
    assert_eq!([world.live(0), world.live(1)], [2, 1], "{plan}");
    assert!(plan.repos[1].to_string().contains("min 2, the budget has room for 1"), "{plan}");
    // What leaves is still there: nothing more is given up for the same session, and nothing is made in its place.
    assert!(world.plan().is_settled(), "{}", world.plan());
}

/// F14: what sessions need is never taken by a refill; when they end the pools come back.
#[test]
fn sessions_come_before_pools() {
    let mut world = World::new(&[policy(4, 4)]);
    world.budget = gib(5);
    world.sessions = sessions(5);
    assert_eq!(creates(&world.plan()), 0);
    assert_eq!(world.plan().repos[0].target.members, 0);
    world.sessions = sessions(3);
    world.settle();
    assert_eq!(world.live(0), 2);
    world.sessions = sessions(0);
    world.settle();
    assert_eq!(world.live(0), 4);
}

/// What is still leaving takes room: nothing starts before it is gone.
#[test]
fn starts_wait_for_what_leaves() {
    let mut world = World::new(&[policy(2, 2)]);
    world.budget = gib(2);
    world.add(0, 1, SandboxState::Stopping, 0);
    let plan = world.step();
    assert_eq!(creates(&plan), 1);
    assert!(plan.to_string().contains("1 missing, waiting for room in the budget"), "{plan}");
    world.boot();
    assert_eq!(creates(&world.step()), 1);
}

/// A new image while the budget is full to the brim: members go a few at a time before their successors, because
/// otherwise there would never be one.
#[test]
fn a_full_budget_does_not_stop_a_roll() {
    let mut world = World::new(&[policy(4, 4), policy(2, 2)]);
    world.budget = gib(6);
    world.settle();
    let name = world.repos[0].name.clone();
    world.repos[0].current = Some(image(&name, 2));
    let mut lowest = 6;
    for _ in 0..30 {
        let plan = world.step();
        lowest = lowest.min(world.count(0, SandboxState::Warm));
        if plan.is_settled() {
            break;
        }
        world.boot();
    }
    assert_eq!(lowest, 3, "one at a time");
    assert_eq!((world.live(0), world.live(1)), (4, 2));
    let fresh =
        world.rows.values().filter(|m| m.state == SandboxState::Warm && m.image == Some(image(&name, 2).id));
    assert_eq!(fresh.count(), 4);
}
