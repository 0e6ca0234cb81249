//! The pool reconciler, `pool_fill`: gathers facts, asks the pure plan, does what it says. Woken by a poke or a
//! timer, one run at a time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Error, Purpose, RepoName, Result, SandboxRecord, SandboxState, SharedClock};
use jiff::Timestamp;
use pool::{Action, Canary, Demand, PoolInput, PoolPlan, RepoInput};
use tracing::{debug, info, warn};

use crate::demand::Demands;
use crate::fleet::{Entry, Fleet, Order, after};
use crate::metrics::{Metrics, OfRepo, RepoState};
use crate::repos::Repos;
use crate::room::Room;

/// Sandboxes of any kind that may be starting at once; the refill takes only what others leave (F14).
pub const STARTING_LIMIT: u32 = 4;
const BACKOFF_MIN: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
struct Trouble {
    failures: u32,
    until: Timestamp,
}

pub struct Pools {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    demands: Arc<Demands>,
    room: Arc<Room>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    trouble: Arc<Mutex<HashMap<RepoName, Trouble>>>,
    last: Mutex<PoolPlan>,
    idle_since: Mutex<Option<Timestamp>>,
    starting_limit: AtomicU32,
}

impl std::fmt::Debug for Pools {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pools")
    }
}

/// What pools are kept with.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub demands: Arc<Demands>,
    pub room: Arc<Room>,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

impl Pools {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { fleet, repos, demands, room, clock, metrics } = parts;
        Arc::new(Self {
            fleet,
            repos,
            demands,
            room,
            clock,
            metrics,
            trouble: Arc::default(),
            last: Mutex::default(),
            idle_since: Mutex::default(),
            starting_limit: AtomicU32::new(STARTING_LIMIT),
        })
    }

    /// The plan of the last run, for `hotbed pool` and the API.
    pub fn last_plan(&self) -> PoolPlan {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many sandboxes may be starting at once before the refill waits.
    pub fn set_starting_limit(&self, limit: u32) {
        self.starting_limit.store(limit, Ordering::Relaxed);
    }

    pub fn starting_limit(&self) -> u32 {
        self.starting_limit.load(Ordering::Relaxed)
    }

    /// The plan for the facts of this moment; changes nothing.
    pub fn plan(&self) -> PoolPlan {
        let now = self.clock.now();
        let specs = self.repos.all();
        let records = self.fleet.unclaimed();
        let mut members: HashMap<&RepoName, Vec<&SandboxRecord>> = HashMap::new();
        let mut starting = 0;
        for record in &records {
            if matches!(record.state, SandboxState::Creating | SandboxState::Starting) {
                starting += 1;
            }
            if record.purpose == Purpose::Pool {
                members.entry(&record.repo).or_default().push(record);
            }
        }
        let images: HashMap<_, _> =
            specs.iter().map(|s| (s.name.clone(), self.repos.handed_out(&s.name))).collect();
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let taken = self.room.taken();
        self.demands.look(&specs, |watched| {
            let repos = specs.iter().map(|spec| {
                let members = members.remove(&spec.name).unwrap_or_default();
                let watched = watched.get(&spec.name);
                RepoInput {
                    repo: spec.name.clone(),
                    spec: &spec.pool,
                    size: spec.resources,
                    demand: watched.map_or_else(Demand::default, |w| w.demand()),
                    order: watched.and_then(|w| w.order(now)),
                    current: images[&spec.name].current.as_ref(),
                    canary: (images[&spec.name].canary.as_ref().zip(spec.rollout.canary))
                        .map(|(image, policy)| Canary { image, share: policy.share }),
                    reserved: members.iter().filter(|m| m.reserved.is_some()).count() as u32,
                    members,
                    unhealthy: HashSet::new(),
                    backoff_until: trouble.get(&spec.name).map(|t| t.until),
                }
            });
            let input = PoolInput {
                repos: repos.collect(),
                starting_limit: self.starting_limit(),
                starting_now: starting,
                budget: self.room.budget(),
                used: taken.used,
                leaving: taken.leaving,
            };
            pool::plan(now, &input)
        })
    }

    /// As [`Pools::plan`]. Thousands of members take milliseconds to look at, which the threads that answer claims
    /// don't have.
    pub async fn plan_aside(self: &Arc<Self>) -> Result<PoolPlan> {
        let me = self.clone();
        let planning = tokio::task::spawn_blocking(move || me.plan());
        planning.await.map_err(|e| Error::permanent("a bug: a plan ended in a panic").caused_by(e))
    }

    /// One run.
    pub async fn fill(self: &Arc<Self>) {
        let plan = match self.plan_aside().await {
            Ok(plan) => plan,
            Err(e) => return warn!(error = %e.chain(), "the pool could not be planned"),
        };
        self.metrics.pool_plans.inc();
        if !plan.is_settled() {
            debug!(%plan, "pool plan");
        }
        for action in plan.actions() {
            match action {
                Action::CreateMember { repo, image } => self.create(repo, *image).await,
                Action::RetireMember { sandbox, why } => match self.fleet.retire(*sandbox, *why).await {
                    Ok(true) => info!(sandbox = %sandbox, reason = why.as_str(), "member retired"),
                    Ok(false) => {}
                    Err(e) => warn!(sandbox = %sandbox, error = %e.chain(), "could not retire a member"),
                },
            }
        }
        self.retire_unconfigured().await;
        self.measure(&plan);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = plan;
    }

    /// Members of repos that the configuration no longer names serve nobody.
    async fn retire_unconfigured(&self) {
        let configured: HashSet<_> = self.repos.all().iter().map(|s| s.name.clone()).collect();
        let left = |r: &Arc<SandboxRecord>| r.purpose == Purpose::Pool && !configured.contains(&r.repo);
        for record in self.fleet.unclaimed().into_iter().filter(left) {
            info!(sandbox = %record.id, repo = %record.repo, "its repo is no longer configured");
            if let Err(e) = self.fleet.retire(record.id, pool::RetireReason::AboveTarget).await {
                warn!(sandbox = %record.id, error = %e.chain(), "could not retire a member");
            }
        }
    }

    async fn create(self: &Arc<Self>, repo: &RepoName, image: domain::ImageId) {
        let (Some(spec), Some(image)) = (self.repos.get(repo), self.repos.handed_out(repo).get(image)) else {
            return;
        };
        let order = Order::of_image(&image, Purpose::Pool, self.repos.trust_env(repo));
        // The plan saw a place for it; a session may have taken it since.
        let Some(prepared) = self.room.make(&spec, || self.fleet.prepare(&spec, order)) else { return };
        match self.fleet.write_and_launch(prepared).await {
            Ok(entry) => {
                let me = self.clone();
                let repo = repo.clone();
                tokio::spawn(async move {
                    match entry.wait_link(crate::fleet::START_DEADLINE).await {
                        Ok(_) => me.succeeded(&repo, &entry),
                        // Retired or claimed away on purpose is no failure of the repo's.
                        Err(_) if pool::RetireReason::ALL.iter().any(|r| entry.ended_as(r.as_str())) => {}
                        Err(e) => me.failed(&repo, &e.chain()),
                    }
                });
            }
            Err(e) => self.failed(repo, &e.chain()),
        }
    }

    fn succeeded(&self, repo: &RepoName, entry: &Entry) {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).remove(repo);
        let record = entry.record();
        let took = record.ready_at.map(|at| at.duration_since(record.created_at));
        if let Some(took) = took.and_then(|took| Duration::try_from(took).ok()) {
            self.demands.was_ready(repo, took);
        }
    }

    /// Backs this repo off; the others go on.
    fn failed(&self, repo: &RepoName, why: &str) {
        let now = self.clock.now();
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        // Several that were started together fail together: that is one failure.
        if trouble.get(repo).is_some_and(|t| now < t.until) {
            return;
        }
        let failures = trouble.get(repo).map_or(0, |t| t.failures) + 1;
        let pause = BACKOFF_MIN.saturating_mul(1 << failures.min(10)).min(BACKOFF_MAX);
        trouble.insert(repo.clone(), Trouble { failures, until: after(now, pause) });
        warn!(%repo, failures, pause_seconds = pause.as_secs(), why, "a member could not be started");
    }

    fn measure(&self, plan: &PoolPlan) {
        let now = self.clock.now();
        let mut since = self.idle_since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.map_or(0.0, |t| now.duration_since(t).as_secs_f64().max(0.0));
        *since = Some(now);
        for repo in &plan.repos {
            let name = repo.repo.to_string();
            let of = OfRepo { repo: name.clone() };
            self.metrics.pool_aims(&repo.repo, repo.target.members, || repo.target.to_string());
            self.metrics.pool_wanted.get_or_create(&of).set(repo.target.terms.wanted.into());
            for (state, n) in
                [("warm", repo.have.warm), ("starting", repo.have.starting), ("creating", repo.have.creating)]
            {
                self.metrics
                    .pool_sandboxes
                    .get_or_create(&RepoState { repo: name.clone(), state })
                    .set(n.into());
            }
            self.metrics.pool_idled(&repo.repo, elapsed * f64::from(repo.have.warm));
        }
    }
}
