//! What holds for every plan, whatever the records, the traffic, the orders and the budget are.

use std::collections::HashSet;
use std::time::Duration;

use domain::{Budget, PoolOrderKind, PoolPolicy, SandboxState, WarmupId};
use pool::{Action, Bunches, Habits, History, RetireReason, Usage, holds, surge};
use proptest::prelude::*;

use crate::make::{at, image, order, policy};
use crate::world::{World, creates, retired};

const REPOS: usize = 3;

/// What one repo is like besides its rows.
#[derive(Debug, Clone)]
struct Traits {
    min: u32,
    more: u32,
    warmups: u32,
    trouble: u8,
    /// GiB of memory of one member.
    memory: u64,
    /// Claims in the last minutes, with how many minutes ago they were.
    claims: Vec<(i64, u32)>,
    rate: Option<f64>,
    idle_after: bool,
    /// An image that is tried, and its share.
    canary: Option<(u128, f64)>,
}

prop_compose! {
    fn traits()(
        min in 0u32..6, more in 0u32..8, warmups in 0u32..3, trouble in 0u8..10, memory in 1u64..5,
        claims in prop::collection::vec((0i64..40, 1u32..8), 0..6),
        rate in prop::option::of(prop::sample::select(vec![0.5, 0.9, 0.99, 0.999])),
        idle_after in any::<bool>(),
        canary in prop::option::of((2u128..4, prop::sample::select(vec![0.1, 0.2, 0.5, 0.9]))),
    ) -> Traits {
        Traits { min, more, warmups, trouble, memory, claims, rate, idle_after, canary }
    }
}

prop_compose! {
    fn rows()(rows in prop::collection::vec(
        (0..REPOS, 1u128..4, prop::sample::select(SandboxState::ALL.to_vec()), 0i64..30_000, 0u8..6), 0..40,
    )) -> Vec<(usize, u128, SandboxState, i64, u8)> { rows }
}

prop_compose! {
    fn worlds(limited: bool)(
        rows in rows(),
        traits in prop::collection::vec(traits(), REPOS),
        starting_limit in 0u32..12,
        starting_elsewhere in 0u32..4,
        now in 0i64..40_000,
        budget in (prop::option::of(0u64..60), prop::option::of(0u64..40)),
        sessions in 0u64..10,
    ) -> World {
        let of = |t: &Traits| PoolPolicy {
            target_hit_rate: t.rate,
            idle_after: t.idle_after.then_some(Duration::from_secs(1800)),
            ..policy(t.min, t.min + t.more)
        };
        let mut world = World::new(&traits.iter().map(of).collect::<Vec<_>>());
        world.starting_limit = starting_limit;
        world.starting_elsewhere = starting_elsewhere;
        world.now = now;
        if limited {
            let (memory, sandboxes) = budget;
            world.budget = Budget { memory: memory.map(|n| n << 30), cpu_millis: None, sandboxes };
            world.sessions = Usage { memory: sessions << 30, cpu_millis: 0, sandboxes: sessions };
        }
        for (repo, t) in world.repos.iter_mut().zip(&traits) {
            repo.warmups = t.warmups;
            repo.canary = t.canary.map(|(n, share)| (image(&repo.name, n), share));
            repo.size.memory = t.memory << 30;
            let mut history = History::since(at(now - 90_000));
            t.claims.iter().for_each(|(ago, n)| history.add(at(now - ago * 60), *n));
            repo.history = Some(history);
            repo.habits = Habits { bunches: Bunches { share: 0.2, size: 1.0 + f64::from(t.min) }, ..Habits::default() };
            let limits = PoolOrderKind::Set { min: Some(t.more), max: None, until: at(now + 60) };
            match t.trouble {
                0 => repo.current = None,
                1 => repo.pause(),
                2 => repo.backoff_until = Some(now + 1),
                3 => repo.order = Some(order(&repo.name, PoolOrderKind::Drain)),
                4 => repo.order = Some(order(&repo.name, limits)),
                5 => repo.order = Some(order(&repo.name, PoolOrderKind::Resume)),
                _ => {}
            }
        }
        for (repo, image, state, created, mark) in rows {
            let id = world.add(repo, image, state, created);
            match mark {
                0 => world.rows.get_mut(&id).unwrap().reserved = Some(WarmupId::from_u128(id.to_string().len() as u128)),
                1 => { world.repos[repo].unhealthy.insert(id); }
                _ => {}
            }
        }
        world
    }
}

fn starting(world: &World) -> u32 {
    (0..REPOS).map(|i| world.count(i, SandboxState::Creating) + world.count(i, SandboxState::Starting)).sum()
}

/// Nothing that is claimed, kept or already ending is retired (F4), nothing twice, nothing that is held unless it can
/// serve nobody; what is made is within target, surge, `max`, budget and the limit of starts (F1, F14); the plan's own
/// result leaves nothing to do; and the same facts make the same plan.
fn hold_bounds(world: &mut World) -> Result<(), TestCaseError> {
    let before: Vec<_> = (0..REPOS).map(|i| world.live(i)).collect();
    let plan = world.plan();
    prop_assert_eq!(&plan, &world.plan(), "it is pure");
    let mut seen = HashSet::new();
    for (id, why) in retired(&plan) {
        let row = &world.rows[&id];
        prop_assert!(seen.insert(id));
        let unclaimed =
            matches!(row.state, SandboxState::Creating | SandboxState::Starting | SandboxState::Warm);
        prop_assert!(unclaimed && (row.reserved.is_none() || !why.spares_reserved()));
    }
    world.apply(&plan);
    for (i, repo) in plan.repos.iter().enumerate() {
        let made = repo.actions.iter().any(|a| matches!(a, Action::CreateMember { .. }));
        let most = if made { repo.target.members + surge(repo.target.members) } else { before[i] };
        prop_assert!(world.live(i) <= most);
        prop_assert!(repo.target.members <= world.repos[i].policy.max);
    }
    if creates(&plan) > 0 {
        prop_assert!(starting(world) + world.starting_elsewhere <= world.starting_limit);
        prop_assert!(holds(&world.budget, world.taken()), "{:?} of {:?}", world.taken(), world.budget);
    }
    let again = world.plan();
    prop_assert!(again.is_settled(), "first:\n{}\nagain:\n{}", plan, again);
    Ok(())
}

/// With everything that starts becoming ready, everything that leaves gone and no trouble.
fn untroubled(world: &mut World) {
    world.starting_limit = world.starting_limit.max(1) + world.starting_elsewhere;
    for repo in &mut world.repos {
        repo.backoff_until = None;
        if repo.order.as_ref().is_some_and(|o| o.kind == PoolOrderKind::Pause) {
            repo.order = None;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn plans_are_idempotent_and_within_bounds(mut world in worlds(false)) {
        hold_bounds(&mut world)?;
    }

    #[test]
    fn plans_are_within_the_budget(mut world in worlds(true)) {
        hold_bounds(&mut world)?;
    }

    /// From any records the pool comes to its target and rests; while it gets there, the ready ones never fall below
    /// what there was or the target, save for those that could serve nobody.
    #[test]
    fn every_pool_comes_to_rest(mut world in worlds(false)) {
        untroubled(&mut world);
        world.step();
        for round in 0..200 {
            world.boot();
            let ready: Vec<_> = (0..REPOS).map(|i| world.count(i, SandboxState::Warm)).collect();
            let plan = world.step();
            for (i, repo) in plan.repos.iter().enumerate() {
                let useless = retired(&plan).iter().filter(|(id, why)| {
                    world.rows[id].repo == repo.repo && matches!(why, RetireReason::Unhealthy | RetireReason::NotReadyInTime)
                }).count() as u32;
                let floor = ready[i].min(repo.target.members).saturating_sub(useless);
                prop_assert!(world.count(i, SandboxState::Warm) >= floor, "{}", plan);
            }
            if plan.is_settled() { break; }
            prop_assert!(round < 199, "it does not come to rest: {}", plan);
        }
        for (i, repo) in world.plan().repos.iter().enumerate() {
            if world.repos[i].current.is_some() {
                let most = repo.target.members.max(repo.target.terms.kept);
                prop_assert!(world.live(i) >= repo.target.members);
                prop_assert!(world.live(i) <= most + surge(most) + repo.have.reserved);
                if repo.have.reserved == 0 {
                    prop_assert!(world.live(i) <= most && repo.have.stale == 0, "{}", repo);
                }
            }
        }
    }

    /// Under any budget it comes to rest as well; then all idle members fit into what sessions leave, as far as
    /// nobody holds them, and each pool has what its share is and nothing superseded.
    #[test]
    fn under_a_budget_it_comes_to_rest(mut world in worlds(true)) {
        untroubled(&mut world);
        world.settle();
        let plan = world.plan();
        let takes = world.taken();
        let held = plan.repos.iter().any(|r| r.have.reserved > 0) || world.repos.iter().any(|r| r.current.is_none());
        let idle: u32 = plan.repos.iter().map(|r| r.have.total()).sum();
        prop_assert!(idle == 0 || held || holds(&world.budget, takes), "{:?}", takes);
        for (i, repo) in plan.repos.iter().enumerate() {
            if world.repos[i].current.is_some() && !held {
                let most = repo.target.members.max(repo.target.terms.kept);
                prop_assert!((repo.target.members..=most).contains(&world.live(i)), "{}", repo);
                prop_assert_eq!(repo.have.stale, 0);
            }
        }
    }
}
