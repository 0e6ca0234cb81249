//! The rows of some repos, and what the plan's executor would do to them.

use std::collections::{BTreeMap, HashSet};

use domain::{
    Budget, ImageRecord, PoolOrder, PoolOrderKind, PoolPolicy, RepoName, Resources, SandboxId, SandboxRecord,
    SandboxState,
};
use pool::{
    Action, Canary, Demand, Habits, History, Lead, PoolInput, PoolPlan, RepoInput, RetireReason, Usage, plan,
};

use crate::make::{SIZE, at, image, member, order, repo};

pub struct World {
    pub now: i64,
    pub rows: BTreeMap<SandboxId, SandboxRecord>,
    pub repos: Vec<Repo>,
    pub starting_limit: u32,
    /// Sandboxes that start for others than the pool.
    pub starting_elsewhere: u32,
    pub budget: Budget,
    /// What sessions take besides the claimed members that have rows here.
    pub sessions: Usage,
    serial: u128,
}

pub struct Repo {
    pub name: RepoName,
    pub policy: PoolPolicy,
    pub size: Resources,
    pub history: Option<History>,
    pub habits: Habits,
    pub order: Option<PoolOrder>,
    pub current: Option<ImageRecord>,
    /// With its share.
    pub canary: Option<(ImageRecord, f64)>,
    pub warmups: u32,
    pub backoff_until: Option<i64>,
    pub unhealthy: HashSet<SandboxId>,
}

impl Repo {
    pub fn pause(&mut self) {
        self.order = Some(order(&self.name, PoolOrderKind::Pause));
    }
}

impl World {
    pub fn new(policies: &[PoolPolicy]) -> Self {
        let of = |(i, policy): (usize, &PoolPolicy)| {
            let name = repo(&format!("acme/r{i}"));
            Repo {
                current: Some(image(&name, 1)),
                canary: None,
                name,
                policy: policy.clone(),
                size: SIZE,
                history: None,
                habits: Habits::default(),
                order: None,
                warmups: 0,
                backoff_until: None,
                unhealthy: HashSet::new(),
            }
        };
        Self {
            now: 0,
            rows: BTreeMap::new(),
            repos: policies.iter().enumerate().map(of).collect(),
            starting_limit: 1000,
            starting_elsewhere: 0,
            budget: Budget::default(),
            sessions: Usage::default(),
            serial: 0,
        }
    }

    pub fn add(&mut self, repo: usize, image: u128, state: SandboxState, created: i64) -> SandboxId {
        self.serial += 1;
        let row = member(self.serial, &self.repos[repo].name, image, state, created);
        let id = row.id;
        self.rows.insert(id, row);
        id
    }

    /// What the rows of these states take.
    fn usage(&self, of: impl Fn(SandboxState) -> bool) -> Usage {
        let size = |m: &SandboxRecord| {
            let repo = self.repos.iter().find(|r| r.name == m.repo).expect("a repo of this World");
            Usage::one(&repo.size)
        };
        self.rows.values().filter(|m| of(m.state)).map(size).sum()
    }

    /// All that is there, whoever has it.
    pub fn taken(&self) -> Usage {
        self.sessions.plus(self.usage(|s| s != SandboxState::Gone))
    }

    pub fn plan(&self) -> PoolPlan {
        let is_starting =
            |r: &&SandboxRecord| matches!(r.state, SandboxState::Creating | SandboxState::Starting);
        let input = PoolInput {
            repos: self
                .repos
                .iter()
                .map(|r| RepoInput {
                    repo: r.name.clone(),
                    spec: &r.policy,
                    size: r.size,
                    demand: Demand {
                        history: r.history.as_ref(),
                        lead: Lead { seconds: 30.0, samples: 9 },
                        habits: r.habits,
                    },
                    order: r.order.as_ref(),
                    current: r.current.as_ref(),
                    canary: r.canary.as_ref().map(|(image, share)| Canary { image, share: *share }),
                    members: self.rows.values().filter(|m| m.repo == r.name).collect(),
                    unhealthy: r.unhealthy.clone(),
                    reserved: r.warmups,
                    backoff_until: r.backoff_until.map(at),
                })
                .collect(),
            starting_limit: self.starting_limit,
            starting_now: self.starting_elsewhere + self.rows.values().filter(is_starting).count() as u32,
            budget: self.budget,
            used: self.sessions.plus(self.usage(|s| matches!(s, SandboxState::Claimed | SandboxState::Kept))),
            leaving: self.usage(|s| s == SandboxState::Stopping),
        };
        plan(at(self.now), &input)
    }

    /// What an executor that meets no trouble does.
    pub fn apply(&mut self, plan: &PoolPlan) {
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

    pub fn step(&mut self) -> PoolPlan {
        let plan = self.plan();
        self.apply(&plan);
        plan
    }

    /// All that is on its way becomes ready, and all that leaves is gone.
    pub fn boot(&mut self) {
        for row in self.rows.values_mut() {
            match row.state {
                SandboxState::Creating | SandboxState::Starting => row.state = SandboxState::Warm,
                SandboxState::Stopping => row.state = SandboxState::Gone,
                _ => {}
            }
        }
    }

    /// Rounds until nothing is left to do; how many it took.
    pub fn settle(&mut self) -> u32 {
        for round in 0..200 {
            let settled = self.step().is_settled();
            let moving = |r: &SandboxRecord| {
                matches!(r.state, SandboxState::Creating | SandboxState::Starting | SandboxState::Stopping)
            };
            if settled && !self.rows.values().any(moving) {
                return round;
            }
            self.boot();
        }
        panic!("it does not come to rest: {}", self.plan())
    }

    pub fn count(&self, repo: usize, state: SandboxState) -> u32 {
        let name = &self.repos[repo].name;
        self.rows.values().filter(|m| m.repo == *name && m.state == state).count() as u32
    }

    pub fn live(&self, repo: usize) -> u32 {
        [SandboxState::Creating, SandboxState::Starting, SandboxState::Warm]
            .into_iter()
            .map(|s| self.count(repo, s))
            .sum()
    }
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let rows: Vec<_> =
            self.rows.values().map(|r| (r.id, &r.repo, r.image, r.state, r.created_at, r.reserved)).collect();
        write!(
            f,
            "now {} limit {} {:?} {:?} rows {rows:#?}",
            self.now, self.starting_limit, self.budget, self.sessions
        )?;
        write!(f, "\n{}", self.plan())
    }
}

pub fn creates(plan: &PoolPlan) -> usize {
    plan.actions().filter(|a| matches!(a, Action::CreateMember { .. })).count()
}

pub fn retired(plan: &PoolPlan) -> Vec<(SandboxId, RetireReason)> {
    let of = |a: &Action| match a {
        Action::RetireMember { sandbox, why } => Some((*sandbox, *why)),
        Action::CreateMember { .. } => None,
    };
    plan.actions().filter_map(of).collect()
}
