//! The plan: what it makes, what it removes, and that it comes to rest.

use std::collections::{BTreeMap, HashSet};
use std::time::Instant;

use domain::{
    ImageRecord, PoolPolicy, Purpose, RepoName, SandboxId, SandboxRecord, SandboxState, SessionId, WarmupId,
};
use pool::{Action, PoolInput, PoolPlan, RepoInput, RetireReason, plan, surge};
use proptest::prelude::*;

use crate::make::{MAX_AGE, at, image, member, policy, repo};

const DAY: i64 = 86_400;

/// The rows of some repos, and what the plan's executor would do to them.
struct World {
    now: i64,
    rows: BTreeMap<SandboxId, SandboxRecord>,
    repos: Vec<Repo>,
    starting_limit: u32,
    /// Sandboxes that start for others than the pool.
    starting_elsewhere: u32,
    serial: u128,
}

struct Repo {
    name: RepoName,
    policy: PoolPolicy,
    current: Option<ImageRecord>,
    warmups: u32,
    backoff_until: Option<i64>,
    paused: bool,
    unhealthy: HashSet<SandboxId>,
}

impl World {
    fn new(policies: &[PoolPolicy]) -> Self {
        let of = |(i, policy): (usize, &PoolPolicy)| {
            let name = repo(&format!("acme/r{i}"));
            let current = Some(image(&name, 1));
            let unhealthy = HashSet::new();
            Repo {
                name,
                policy: policy.clone(),
                current,
                warmups: 0,
                backoff_until: None,
                paused: false,
                unhealthy,
            }
        };
        let repos = policies.iter().enumerate().map(of).collect();
        Self { now: 0, rows: BTreeMap::new(), repos, starting_limit: 1000, starting_elsewhere: 0, serial: 0 }
    }

    fn add(&mut self, repo: usize, image: u128, state: SandboxState, created: i64) -> SandboxId {
        self.serial += 1;
        let row = member(self.serial, &self.repos[repo].name, image, state, created);
        let id = row.id;
        self.rows.insert(id, row);
        id
    }

    fn plan(&self) -> PoolPlan {
        let is_starting =
            |r: &&SandboxRecord| matches!(r.state, SandboxState::Creating | SandboxState::Starting);
        let input = PoolInput {
            repos: self
                .repos
                .iter()
                .map(|r| RepoInput {
                    repo: r.name.clone(),
                    spec: &r.policy,
                    current: r.current.as_ref(),
                    members: self.rows.values().filter(|m| m.repo == r.name).collect(),
                    unhealthy: r.unhealthy.clone(),
                    reserved: r.warmups,
                    backoff_until: r.backoff_until.map(at),
                    paused: r.paused,
                })
                .collect(),
            starting_limit: self.starting_limit,
            starting_now: self.starting_elsewhere + self.rows.values().filter(is_starting).count() as u32,
        };
        plan(at(self.now), &input)
    }

    /// What an executor that meets no trouble does.
    fn apply(&mut self, plan: &PoolPlan) {
        for action in plan.actions() {
            match action {
                Action::CreateMember { repo, image } => {
                    let index = self.repos.iter().position(|r| r.name == *repo).unwrap();
                    let id = self.add(index, 0, SandboxState::Creating, self.now);
                    self.rows.get_mut(&id).unwrap().image = Some(*image);
                }
                Action::RetireMember { sandbox, .. } => {
                    self.rows.get_mut(sandbox).unwrap().state = SandboxState::Stopping;
                }
            }
        }
    }

    fn step(&mut self) -> PoolPlan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    /// All that is on its way becomes ready.
    fn boot(&mut self) {
        for row in self.rows.values_mut() {
            if matches!(row.state, SandboxState::Creating | SandboxState::Starting) {
                row.state = SandboxState::Warm;
            }
        }
    }

    fn count(&self, repo: usize, state: SandboxState) -> u32 {
        let name = &self.repos[repo].name;
        self.rows.values().filter(|m| m.repo == *name && m.state == state).count() as u32
    }

    fn live(&self, repo: usize) -> u32 {
        [SandboxState::Creating, SandboxState::Starting, SandboxState::Warm]
            .into_iter()
            .map(|s| self.count(repo, s))
            .sum()
    }
}

fn creates(plan: &PoolPlan) -> usize {
    plan.actions().filter(|a| matches!(a, Action::CreateMember { .. })).count()
}

fn retired(plan: &PoolPlan) -> Vec<(SandboxId, RetireReason)> {
    let of = |a: &Action| match a {
        Action::RetireMember { sandbox, why } => Some((*sandbox, *why)),
        Action::CreateMember { .. } => None,
    };
    plan.actions().filter_map(of).collect()
}

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
    world.repos[1].paused = true;
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
        current: Some(&current),
        members: vec![&stranger, &session],
        unhealthy: HashSet::from([stranger.id, session.id]),
        reserved: 0,
        backoff_until: None,
        paused: false,
    };
    let plan = plan(at(DAY), &PoolInput { repos: vec![input], starting_limit: 9, starting_now: 1 });
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

/// A pool of ten thousand idle members is planned in a few milliseconds (a debug build gets ten times that).
#[test]
fn ten_thousand_members_are_planned_quickly() {
    let mut world = World::new(&[policy(5000, 10_000), policy(5000, 10_000)]);
    for i in 0..10_000 {
        world.add(i % 2, 1, SandboxState::Warm, (i as i64 * 7919) % 10_000);
    }
    let time = |world: &World| {
        let begin = Instant::now();
        let plan = world.plan();
        (begin.elapsed(), plan)
    };
    let (settled, plan) = time(&world);
    assert!(plan.is_settled());
    for r in &mut world.repos {
        r.policy.min = 10;
    }
    let (shrinking, plan) = time(&world);
    assert_eq!(retired(&plan).len(), 9980);
    println!("10,000 members: settled {settled:?}, scaling down {shrinking:?}");
    let bound = std::time::Duration::from_millis(if cfg!(debug_assertions) { 200 } else { 20 });
    assert!(settled < bound && shrinking < bound, "{settled:?} {shrinking:?}");
}

fn states() -> impl Strategy<Value = SandboxState> {
    prop::sample::select(SandboxState::ALL.to_vec())
}

prop_compose! {
    fn rows()(rows in prop::collection::vec((0usize..3, 1u128..4, states(), 0i64..30_000, 0u8..6), 0..40))
        -> Vec<(usize, u128, SandboxState, i64, u8)> { rows }
}

prop_compose! {
    fn worlds()(
        rows in rows(),
        limits in prop::collection::vec((0u32..6, 0u32..8, 0u32..3, 0u8..8), 3),
        starting_limit in 0u32..12,
        starting_elsewhere in 0u32..4,
        now in 0i64..40_000,
    ) -> World {
        let policies: Vec<_> = limits.iter().map(|(min, more, ..)| policy(*min, min + more)).collect();
        let mut world = World::new(&policies);
        world.starting_limit = starting_limit;
        world.starting_elsewhere = starting_elsewhere;
        world.now = now;
        for (i, (_, _, warmups, trouble)) in limits.iter().enumerate() {
            let repo = &mut world.repos[i];
            repo.warmups = *warmups;
            match trouble {
                0 => repo.current = None,
                1 => repo.paused = true,
                2 => repo.backoff_until = Some(now + 1),
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

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<_> =
            self.rows.values().map(|r| (r.id, &r.repo, r.image, r.state, r.created_at, r.reserved)).collect();
        write!(f, "now {} limit {} rows {rows:#?}\n{}", self.now, self.starting_limit, self.plan())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Whatever the records: planning on the plan's own result gives nothing to do; nothing claimed, kept or
    /// already ending is retired (F4); nothing is retired twice; creation stays within target, surge and limit
    /// (F1); what a warm-up holds goes only when it can't serve.
    #[test]
    fn plans_are_idempotent_and_within_bounds(mut world in worlds()) {
        let before: Vec<_> = (0..3).map(|i| world.live(i)).collect();
        let plan = world.plan();
        let mut seen = HashSet::new();
        for (id, why) in retired(&plan) {
            let row = &world.rows[&id];
            prop_assert!(seen.insert(id));
            prop_assert!(matches!(row.state, SandboxState::Creating | SandboxState::Starting | SandboxState::Warm));
            prop_assert!(row.reserved.is_none() || !why.spares_reserved());
        }
        prop_assert_eq!(plan.clone(), world.plan(), "it is pure");
        world.apply(&plan);
        for (i, repo) in plan.repos.iter().enumerate() {
            let made = repo.actions.iter().filter(|a| matches!(a, Action::CreateMember { .. })).count();
            if made > 0 {
                prop_assert!(world.live(i) <= repo.target.members + surge(repo.target.members));
            } else {
                prop_assert!(world.live(i) <= before[i]);
            }
            prop_assert!(repo.target.members <= world.repos[i].policy.max);
        }
        let starting: u32 = (0..3).map(|i| world.count(i, SandboxState::Creating) + world.count(i, SandboxState::Starting)).sum();
        if creates(&plan) > 0 {
            prop_assert!(starting + world.starting_elsewhere <= world.starting_limit);
        }
        let again = world.plan();
        prop_assert!(again.is_settled(), "first:\n{}\nagain:\n{}", plan, again);
    }

    /// From any records, with everything that starts becoming ready, the pool comes to its target and rests; while
    /// it gets there, the ready ones never fall below what there was or the target, save for those that could serve
    /// nobody.
    #[test]
    fn every_pool_comes_to_rest(mut world in worlds()) {
        world.starting_limit = world.starting_limit.max(1) + world.starting_elsewhere;
        for repo in &mut world.repos {
            repo.backoff_until = None;
            repo.paused = false;
        }
        world.step();
        for round in 0..200 {
            world.boot();
            let ready: Vec<_> = (0..3).map(|i| world.count(i, SandboxState::Warm)).collect();
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
                prop_assert!(world.live(i) >= repo.target.members);
                prop_assert!(world.live(i) <= repo.target.members + surge(repo.target.members) + repo.have.reserved);
                if repo.have.reserved == 0 {
                    prop_assert_eq!((world.live(i), repo.have.stale), (repo.target.members, 0));
                }
            }
        }
    }
}
