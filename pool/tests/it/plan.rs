//! The plan: what it makes, what it removes, and that it comes to rest.

use std::collections::HashSet;

use domain::{Purpose, SandboxState, SessionId, WarmupId};
use pool::{Demand, PoolInput, RepoInput, RetireReason, plan, surge};

use crate::make::{MAX_AGE, SIZE, at, image, member, policy, repo};
use crate::world::{World, creates, retired};

const DAY: i64 = 86_400;

/// F1: however often it is asked while nothing has become ready, it makes the target and no more.
#[test]
fn what_is_in_flight_counts() {
    let mut world = World::new(&[policy(5, 20)]);
    for _ in 0..50 {
        world.step();
    }
    assert_eq!(world.live(0), 5);
    assert_eq!(world.count(0, SandboxState::Creating), 5);
}

#[test]
fn the_plan_says_what_and_why() {
    let mut world = World::new(&[policy(3, 20), policy(1, 1)]);
    world.starting_limit = 2;
    world.repos[1].current = None;
    world.add(0, 1, SandboxState::Warm, 0);
    world.add(0, 9, SandboxState::Starting, 0);
    let text = world.plan().to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "acme/r0: target 3 (min 3); has 1 warm, 1 starting, 0 creating (0 reserved, 1 stale); all there or on its way; create 2; retire 1 (superseded_image)",
            "acme/r1: target 1 (min 1); has 0 warm, 0 starting, 0 creating (0 reserved, 0 stale); no current image",
        ]
    );
    world.starting_limit = 1;
    assert!(
        world.plan().to_string().contains("1 missing, the limit of parallel starts is reached"),
        "{}",
        world.plan()
    );
}

/// F15: from 20 to 1 leaves 1; only idle members go, those on their way first; what is claimed or held stays.
#[test]
fn scaling_down_converges() {
    let mut world = World::new(&[policy(20, 20)]);
    let claimed = world.add(0, 1, SandboxState::Claimed, 0);
    world.rows.get_mut(&claimed).unwrap().session = Some(SessionId::from_u128(1));
    world.step();
    world.boot();
    assert_eq!(world.count(0, SandboxState::Warm), 20);
    let held = *world.rows.keys().nth(3).unwrap();
    world.rows.get_mut(&held).unwrap().reserved = Some(WarmupId::from_u128(1));
    let booting = world.add(0, 1, SandboxState::Starting, 0);

    world.repos[0].policy.min = 1;
    world.repos[0].warmups = 1;
    let plan = world.step();
    let gone = retired(&plan);
    assert_eq!(gone.len(), 19);
    assert!(gone.iter().all(|(_, why)| *why == RetireReason::AboveTarget));
    assert!(gone.iter().any(|(id, _)| *id == booting));
    assert!(gone.iter().all(|(id, _)| *id != held && *id != claimed));
    assert_eq!(world.live(0), 2, "one idle, one held");

    world.repos[0].warmups = 0;
    world.rows.get_mut(&held).unwrap().reserved = None;
    world.step();
    assert_eq!(world.live(0), 1);
    assert!(world.plan().is_settled());
}

/// A canary gets its share of a full pool without one ready member less, keeps it while both kinds are claimed, and
/// loses it when it is no longer tried.
#[test]
fn a_canary_has_its_share() {
    let mut world = World::new(&[policy(10, 20)]);
    world.settle();
    let name = world.repos[0].name.clone();
    world.repos[0].canary = Some((image(&name, 2), 0.2));
    let of = |world: &World, n: u128| {
        let live =
            |m: &&domain::SandboxRecord| !matches!(m.state, SandboxState::Gone | SandboxState::Claimed);
        let image = Some(domain::ImageId::from_u128(n));
        world.rows.values().filter(live).filter(|m| m.image == image).count()
    };
    for _ in 0..6 {
        world.step();
        assert!(world.count(0, SandboxState::Warm) >= 10, "{}", world.plan());
        world.boot();
    }
    assert!(world.plan().is_settled(), "{}", world.plan());
    assert_eq!((of(&world, 1), of(&world, 2)), (8, 2));
    // Whichever is claimed, its successor is of the same kind.
    for n in [2, 1, 2] {
        let image = Some(domain::ImageId::from_u128(n));
        let warm = |m: &&mut domain::SandboxRecord| m.image == image && m.state == SandboxState::Warm;
        world.rows.values_mut().find(warm).unwrap().state = SandboxState::Claimed;
        let plan = world.step();
        assert_eq!((creates(&plan), retired(&plan).len()), (1, 0), "{plan}");
        world.boot();
        assert_eq!((of(&world, 1), of(&world, 2)), (8, 2));
    }
    world.repos[0].canary = None;
    world.settle();
    assert_eq!((of(&world, 1), of(&world, 2)), (10, 0));
    // Too small for a share.
    world.repos[0].policy.min = 1;
    world.settle();
    world.repos[0].canary = Some((image(&name, 2), 0.5));
    assert!(world.plan().is_settled());
}

/// A warm-up adds one, as long as `max` allows.
#[test]
fn warm_ups_raise_the_target() {
    let mut world = World::new(&[policy(1, 3)]);
    for (warmups, want) in [(0, 1), (1, 2), (2, 3), (50, 3)] {
        world.repos[0].warmups = warmups;
        world.step();
        assert_eq!(world.live(0), want, "{warmups} warm-ups");
    }
}

/// A new image: successors are ready before the old ones go, the pool never has fewer ready than its target, and
/// never more than target and surge.
#[test]
fn a_roll_keeps_the_floor() {
    for target in [1, 4, 9] {
        let mut world = World::new(&[policy(target, target)]);
        world.step();
        world.boot();
        let name = world.repos[0].name.clone();
        world.repos[0].current = Some(image(&name, 2));
        let mut rounds = 0;
        while !world.plan().is_settled() {
            world.step();
            assert!(world.count(0, SandboxState::Warm) >= target);
            assert!(world.live(0) <= target + surge(target));
            world.boot();
            rounds += 1;
            assert!(rounds < 100, "it comes to rest");
        }
        let fresh = world
            .rows
            .values()
            .filter(|m| m.state == SandboxState::Warm && m.image.unwrap() == image(&name, 2).id);
        assert_eq!(fresh.count() as u32, target);
        assert_eq!(world.live(0), target);
    }
}

/// Members that boot from a superseded image serve nobody: they go at once.
#[test]
fn a_roll_ends_what_still_boots() {
    let mut world = World::new(&[policy(4, 4)]);
    world.step();
    let name = world.repos[0].name.clone();
    world.repos[0].current = Some(image(&name, 2));
    let plan = world.step();
    assert_eq!((retired(&plan).len(), creates(&plan)), (4, 4));
    assert!(world.plan().is_settled());
}

/// Members of one age are replaced one by one in the last tenth of their life; what is over its age goes at once.
#[test]
fn the_aged_are_replaced_before_they_expire() {
    let mut world = World::new(&[policy(4, 8)]);
    world.step();
    world.boot();
    let max_age = MAX_AGE.as_secs() as i64;
    world.now = max_age * 9 / 10 - 1;
    assert!(world.plan().is_settled());
    world.now += 1;
    let plan = world.step();
    assert_eq!((retired(&plan).len(), creates(&plan)), (0, 1), "{plan}");
    world.boot();
    let plan = world.step();
    assert_eq!((retired(&plan).len(), creates(&plan)), (1, 1), "{plan}");
    world.boot();
    world.now = max_age;
    let plan = world.step();
    assert!(retired(&plan).iter().all(|(_, why)| *why == RetireReason::TooOld));
    assert_eq!(retired(&plan).len(), 3, "{plan}");
    assert_eq!(world.live(0), 4);
}

/// F36, F10: what is not ready at its deadline goes, held or not, and is replaced; so does what no longer answers.
#[test]
fn what_can_serve_nobody_goes_at_once() {
    let mut world = World::new(&[policy(2, 4)]);
    world.step();
    world.repos[0].policy.min = 1;
    world.repos[0].warmups = 1;
    let [a, b] = [0, 1].map(|i| *world.rows.keys().nth(i).unwrap());
    world.rows.get_mut(&a).unwrap().reserved = Some(WarmupId::from_u128(1));
    world.now = 119;
    assert!(world.plan().is_settled());
    world.now = 120;
    let plan = world.step();
    assert_eq!(retired(&plan), [(a, RetireReason::NotReadyInTime), (b, RetireReason::NotReadyInTime)]);
    assert_eq!(creates(&plan), 2);
    world.boot();
    let sick = *world.rows.keys().nth(2).unwrap();
    world.repos[0].unhealthy.insert(sick);
    let plan = world.step();
    assert_eq!(retired(&plan), [(sick, RetireReason::Unhealthy)]);
    assert_eq!(creates(&plan), 1);
}

/// A repo in trouble makes nothing, and takes nothing from the others.
#[test]
fn a_repo_in_trouble_leaves_the_others_alone() {
    let mut world = World::new(&[policy(3, 3), policy(3, 3), policy(3, 3), policy(3, 3)]);
    world.repos[0].backoff_until = Some(60);
    world.repos[1].pause();
    world.repos[2].current = None;
    world.starting_limit = 3;
    let plan = world.step();
    let made: Vec<_> = plan.repos.iter().map(|r| r.actions.len()).collect();
    assert_eq!(made, [0, 0, 0, 3], "{plan}");
    world.boot();
    world.now = 60;
    assert_eq!(creates(&world.plan()), 3, "the backoff is over at its end");
}

/// F14: cold starts take their places first; what is left goes to the repo that has the least of what it needs.
#[test]
fn the_limit_of_starts_is_shared() {
    let mut world = World::new(&[policy(10, 10), policy(2, 2), policy(1, 1)]);
    world.starting_limit = 6;
    world.starting_elsewhere = 2;
    let plan = world.step();
    let made: Vec<_> = plan.repos.iter().map(|r| r.actions.len()).collect();
    assert_eq!(made, [2, 1, 1], "{plan}");
    assert!(world.plan().is_settled());
    world.starting_elsewhere = 7;
    world.boot();
    assert_eq!(creates(&world.plan()), 0, "no room while cold starts fill the limit");
}

/// F6: rows of other repos and purposes neither count nor go.
#[test]
fn foreign_rows_are_passed_over() {
    let name = repo("acme/api");
    let stranger = member(1, &repo("evil/api"), 1, SandboxState::Warm, 0);
    let mut session = member(2, &name, 1, SandboxState::Starting, 0);
    session.purpose = Purpose::Session(SessionId::from_u128(1));
    let (policy, current) = (policy(1, 1), image(&name, 1));
    let input = RepoInput {
        repo: name,
        spec: &policy,
        size: SIZE,
        demand: Demand::default(),
        order: None,
        current: Some(&current),
        canary: None,
        members: vec![&stranger, &session],
        unhealthy: HashSet::from([stranger.id, session.id]),
        reserved: 0,
        backoff_until: None,
    };
    let input = PoolInput { repos: vec![input], starting_limit: 9, starting_now: 1, ..PoolInput::default() };
    let plan = plan(at(DAY), &input);
    assert_eq!(creates(&plan), 1);
    assert_eq!(retired(&plan), []);
}

/// F13: claims at twice the rate of refill drain the pool; when they become fewer it recovers, because nothing
/// delays a refill but the limit of starts.
#[test]
fn the_pool_recovers_from_a_burst() {
    let mut world = World::new(&[policy(8, 8)]);
    world.starting_limit = 2;
    let mut misses = 0;
    // A member takes one round to start, so two per round are refilled.
    for round in 0..200 {
        world.now = round;
        let claims = if round < 100 { 4 } else { 1 };
        for _ in 0..claims {
            match world.rows.values_mut().find(|m| m.state == SandboxState::Warm) {
                Some(m) => m.state = SandboxState::Claimed,
                None => misses += 1,
            }
        }
        if round == 120 {
            assert_eq!(
                world.count(0, SandboxState::Warm),
                6,
                "full but for one just claimed and one on its way"
            );
            misses = 0;
        }
        world.boot();
        world.step();
        assert!(world.live(0) <= 8);
    }
    assert_eq!(misses, 0, "after the burst nobody misses");
}

/// Ten thousand idle members: nothing to do, and when they are too many only what is too many goes. How long that
/// takes is measured by `plan_1000_repos`.
#[test]
fn ten_thousand_members_are_planned() {
    let mut world = World::new(&[policy(5000, 10_000), policy(5000, 10_000)]);
    for i in 0..10_000 {
        world.add(i % 2, 1, SandboxState::Warm, (i as i64 * 7919) % 10_000);
    }
    assert!(world.plan().is_settled());
    for r in &mut world.repos {
        r.policy.min = 10;
    }
    assert_eq!(retired(&world.plan()).len(), 9980);
}
