//! Pools in simulated time: arrivals go in, and out come hit rate, waiting, idle hours and memory.
//!
//! It is the real [`plan`] that decides and the real [`rank`] that hands out; simulated are the engine (a start takes
//! a lead time that was measured) and the clock. So it answers what a policy would have done with recorded traffic,
//! and it is what proves the planner. Pure: the same scenario gives the same outcome.

mod event;
mod outcome;
mod rule;
pub mod study;
pub mod svg;
pub mod traffic;

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use domain::{
    Budget, BuildId, Digest, ImageId, ImageRecord, ImageState, PoolPolicy, Purpose, RepoName, Resources,
    SandboxId, SandboxRecord, SandboxState,
};
use jiff::{SignedDuration, Timestamp};

use crate::budget::{Usage, holds};
use crate::claim::{Want, rank};
use crate::forecast::Lead;
use crate::habits::{Habits, draw, learn};
use crate::history::{History, begin_of, minute_of};
use crate::plan::{Action, PoolInput, RepoInput, plan};
use crate::target::Demand;

use event::{Event, Events};
pub use outcome::{Outcome, Point};
pub use rule::Rule;

/// When nothing happens a plan is made this often.
const TICK: SignedDuration = SignedDuration::from_secs(15);
/// What happens together is answered by one plan, as the server does it.
const REPLAN_AFTER: SignedDuration = SignedDuration::from_millis(100);
/// How often habits are learnt anew.
const LEARN_EVERY: SignedDuration = SignedDuration::from_hours(24);
/// How long a member is still there when it is to go.
const STOPPING: SignedDuration = SignedDuration::from_secs(1);
const MIN_REMAINING_LIFE: Duration = Duration::from_secs(60);

/// The claims of a history from the minute of `begin` on, before `end`. Only their minutes are known: as many as chance may
/// bring are spread over their minute, and what is more than that comes at once.
pub fn arrivals(history: &History, begin: Timestamp, end: Timestamp) -> Vec<Timestamp> {
    // The minute that `end` is in has begun.
    let (first, last) = (minute_of(begin), minute_of(end) + 1);
    let at = |seconds: f64| begin_of(first) + SignedDuration::from_millis((seconds * 1000.0) as i64);
    let spread = crate::habits::arrivals(history, first, last).into_iter().map(at);
    spread.filter(|at| (begin..end).contains(at)).collect()
}

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Scenario {
    pub begin: Timestamp,
    pub end: Timestamp,
    pub repos: Vec<SimRepo>,
    pub budget: Budget,
    /// Sandboxes that may be starting before a refill waits, and cold starts at once.
    pub starts: u32,
    pub cold_starts: u32,
    /// How long a session keeps its sandbox.
    pub session: Duration,
    /// Of the outcome's points.
    pub resolution: Duration,
}

/// One repo and its claims.
#[derive(Debug, Clone)]
pub struct SimRepo {
    pub name: RepoName,
    pub policy: PoolPolicy,
    pub size: Resources,
    /// What was known when the simulation begins.
    pub past: History,
    /// When claims come, in order.
    pub arrivals: Vec<Timestamp>,
    /// Lead times that a start takes one of, in seconds.
    pub leads: Vec<f64>,
}

/// Lets a rule keep the pools of a scenario.
pub fn run(scenario: &Scenario, rule: Rule) -> Outcome {
    let mut sim = Sim::new(scenario, rule);
    sim.run();
    sim.outcome
}

struct Repo<'a> {
    given: &'a SimRepo,
    /// The policy as the rule has it now.
    policy: PoolPolicy,
    history: History,
    habits: Habits,
    lead: Lead,
    image: ImageRecord,
    members: Vec<SandboxRecord>,
    next_arrival: usize,
    sessions: u32,
    target: u32,
    rule: rule::State,
}

/// A session that has no sandbox yet.
struct Cold {
    repo: usize,
    since: Timestamp,
}

struct Sim<'a> {
    scenario: &'a Scenario,
    rule: Rule,
    now: Timestamp,
    events: Events,
    repos: Vec<Repo<'a>>,
    waiting: VecDeque<Cold>,
    cold_starting: u32,
    /// What sessions use, and what is on its way out.
    used: Usage,
    leaving: Usage,
    replan_at: Option<Timestamp>,
    serial: u128,
    outcome: Outcome,
}

impl<'a> Sim<'a> {
    fn new(scenario: &'a Scenario, rule: Rule) -> Self {
        let repos = scenario.repos.iter().zip(1..).map(|(given, n)| Repo::new(given, n)).collect();
        let mut sim = Self {
            scenario,
            rule,
            now: scenario.begin,
            events: Events::default(),
            repos,
            waiting: VecDeque::new(),
            cold_starting: 0,
            used: Usage::default(),
            leaving: Usage::default(),
            replan_at: None,
            serial: 0,
            outcome: Outcome::default(),
        };
        for repo in 0..sim.repos.len() {
            sim.schedule_arrival(repo);
        }
        sim.events.push(sim.now, Event::Learn);
        sim.events.push(sim.now, Event::Tick);
        sim.events.push(sim.now, Event::Sample);
        sim
    }

    fn run(&mut self) {
        // What is full at the beginning costs nobody a miss: it was a pool before, too.
        self.learn();
        self.plan();
        for repo in &mut self.repos {
            repo.members.iter_mut().for_each(|m| m.state = SandboxState::Warm);
        }
        while let Some((at, event)) = self.events.pop() {
            if at >= self.scenario.end {
                break;
            }
            self.advance(at);
            match event {
                Event::Arrival(repo) => self.arrive(repo),
                Event::MemberReady(repo, id) => self.ready(repo, id),
                Event::ColdReady(repo, since) => {
                    self.cold_starting -= 1;
                    self.outcome.waited(at.duration_since(since).as_secs_f64());
                    self.begin_session(repo);
                }
                Event::MemberGone(repo) => self.leaving = self.less(self.leaving, repo),
                Event::SessionEnds(repo) => {
                    self.repos[repo].sessions -= 1;
                    self.used = self.less(self.used, repo);
                }
                Event::Tick => self.events.push(at + TICK, Event::Tick),
                Event::Learn => {
                    self.learn();
                    self.events.push(at + LEARN_EVERY, Event::Learn);
                }
                Event::Sample => {
                    self.sample();
                    let next = SignedDuration::try_from(self.scenario.resolution).unwrap_or(TICK);
                    self.events.push(at + next, Event::Sample);
                    continue;
                }
                Event::Plan => {
                    self.replan_at = None;
                    self.plan();
                    continue;
                }
            }
            self.start_cold();
            if self.replan_at.is_none() {
                self.replan_at = Some(at + REPLAN_AFTER);
                self.events.push(at + REPLAN_AFTER, Event::Plan);
            }
        }
        self.advance(self.scenario.end);
        self.outcome.end();
    }

    /// Time passes, and what waits warm costs.
    fn advance(&mut self, to: Timestamp) {
        let seconds = to.duration_since(self.now).as_secs_f64();
        let warm: usize = self.repos.iter().map(|r| r.warm()).sum();
        self.outcome.idle_seconds += warm as f64 * seconds;
        self.now = to;
    }

    fn less(&self, usage: Usage, repo: usize) -> Usage {
        let one = self.repos[repo].size();
        Usage {
            memory: usage.memory - one.memory,
            cpu_millis: usage.cpu_millis - one.cpu_millis,
            sandboxes: usage.sandboxes - 1,
        }
    }

    fn schedule_arrival(&mut self, repo: usize) {
        let Repo { given, next_arrival, .. } = &mut self.repos[repo];
        while let Some(at) = given.arrivals.get(*next_arrival) {
            *next_arrival += 1;
            if *at >= self.scenario.begin {
                self.events.push(*at, Event::Arrival(repo));
                return;
            }
        }
    }

    fn arrive(&mut self, repo: usize) {
        self.schedule_arrival(repo);
        let now = self.now;
        self.repos[repo].history.add(now, 1);
        self.outcome.claims += 1;
        let one = self.repos[repo].size();
        let Repo { given, image, members, policy, .. } = &mut self.repos[repo];
        let allowed = [image.id];
        let want = Want {
            repo: &given.name,
            allowed: &allowed,
            warmup: None,
            tip: None,
            now,
            min_remaining_life: MIN_REMAINING_LIFE,
            member_max_age: policy.member_max_age,
        };
        match rank(members.iter(), &want) {
            Ok(pick) => {
                members.retain(|m| m.id != pick.sandbox);
                self.outcome.hits += 1;
                self.outcome.waited(0.0);
                self.used = self.used.plus(one);
                self.begin_session(repo);
            }
            Err(_) if !holds(&self.scenario.budget, self.used.plus(one)) => self.outcome.refused += 1,
            Err(_) => {
                // It counts against the budget from now on, so that pools make room for it.
                self.used = self.used.plus(one);
                self.waiting.push_back(Cold { repo, since: now });
            }
        }
    }

    fn begin_session(&mut self, repo: usize) {
        self.repos[repo].sessions += 1;
        let length = SignedDuration::try_from(self.scenario.session).unwrap_or(SignedDuration::MAX);
        self.events.push(self.now + length, Event::SessionEnds(repo));
    }

    /// Cold sessions start in turn, as soon as what pools gave up has gone.
    fn start_cold(&mut self) {
        while self.cold_starting < self.scenario.cold_starts
            && let Some(next) = self.waiting.front()
        {
            let next_size = self.repos[next.repo].size();
            if !holds(&self.scenario.budget, self.there().plus(next_size)) {
                return;
            }
            let (repo, since) = (next.repo, next.since);
            self.waiting.pop_front();
            self.cold_starting += 1;
            let ready = self.now + self.lead_time(repo);
            self.events.push(ready, Event::ColdReady(repo, since));
        }
    }

    /// Everything that is there, which sessions that wait for a place are not.
    fn there(&self) -> Usage {
        let members = self.repos.iter().map(|r| r.size().times(r.members.len() as u32)).sum::<Usage>();
        let all = self.used.plus(self.leaving).plus(members);
        self.waiting.iter().fold(all, |all, waits| self.less(all, waits.repo))
    }

    fn ready(&mut self, repo: usize, id: SandboxId) {
        let repo = &mut self.repos[repo];
        // One that was retired meanwhile is not there any more.
        if let Some(member) = repo.members.iter_mut().find(|m| m.id == id && m.state != SandboxState::Warm) {
            member.state = SandboxState::Warm;
            member.ready_at = Some(self.now);
        }
    }

    fn lead_time(&mut self, repo: usize) -> SignedDuration {
        self.serial += 1;
        let leads = &self.repos[repo].given.leads;
        let at = (draw(self.serial as u64) * leads.len() as f64) as usize;
        let seconds = leads.get(at).copied().unwrap_or_else(|| Lead::default().seconds);
        SignedDuration::try_from_secs_f64(seconds).unwrap_or(TICK)
    }

    fn learn(&mut self) {
        for repo in &mut self.repos {
            if self.rule == Rule::Plan {
                repo.habits =
                    learn(&repo.history, &repo.given.policy, repo.lead, self.scenario.starts, self.now);
            }
        }
    }

    fn plan(&mut self) {
        for repo in &mut self.repos {
            let seen = rule::Seen {
                history: &repo.history,
                lead: repo.lead,
                sessions: repo.sessions,
                now: self.now,
            };
            repo.policy = self.rule.policy(&repo.given.policy, &seen, &mut repo.rule);
        }
        let booting: usize = self.repos.iter().map(|r| r.members.len() - r.warm()).sum();
        let input = PoolInput {
            repos: self.repos.iter().map(Repo::input).collect(),
            starting_limit: self.scenario.starts,
            starting_now: booting as u32 + self.cold_starting,
            budget: self.scenario.budget,
            used: self.used,
            leaving: self.leaving,
        };
        let decided = plan(self.now, &input);
        drop(input);
        self.outcome.plans += 1;
        for (index, repo) in decided.repos.into_iter().enumerate() {
            self.repos[index].target = repo.target.members;
            for action in repo.actions {
                match action {
                    Action::CreateMember { .. } => self.create(index),
                    Action::RetireMember { sandbox, .. } => self.retire(index, sandbox),
                }
            }
        }
        self.outcome.peak_memory = self.outcome.peak_memory.max(self.there().memory);
    }

    fn create(&mut self, repo: usize) {
        let ready = self.now + self.lead_time(repo);
        let id = SandboxId::from_u128(self.serial);
        let now = self.now;
        let Repo { given, image, members, .. } = &mut self.repos[repo];
        members.push(SandboxRecord {
            id,
            repo: given.name.clone(),
            purpose: Purpose::Pool,
            state: SandboxState::Starting,
            image: Some(image.id),
            source: image.digest.clone(),
            commit: None,
            engine_id: None,
            token_hash: String::new(),
            session: None,
            reserved: None,
            created_at: now,
            ready_at: None,
            claimed_at: None,
            deadline: Timestamp::MAX,
            reason: None,
            up: false,
        });
        self.outcome.created += 1;
        self.events.push(ready, Event::MemberReady(repo, id));
    }

    fn retire(&mut self, repo: usize, id: SandboxId) {
        self.repos[repo].members.retain(|m| m.id != id);
        self.outcome.retired += 1;
        self.leaving = self.leaving.plus(self.repos[repo].size());
        self.events.push(self.now + STOPPING, Event::MemberGone(repo));
    }

    fn sample(&mut self) {
        let sum = |of: fn(&Repo<'_>) -> u32| self.repos.iter().map(of).sum();
        self.outcome.points.push(Point {
            at: self.now,
            target: sum(|r| r.target),
            warm: sum(|r| r.warm() as u32),
            claims: self.outcome.claims,
            hits: self.outcome.hits,
        });
    }
}

impl<'a> Repo<'a> {
    fn new(given: &'a SimRepo, n: u128) -> Self {
        let mut leads = domain::LeadTimes::default();
        for seconds in given.leads.iter().rev().take(domain::LeadTimes::KEPT) {
            leads.add(Duration::try_from_secs_f64(*seconds).unwrap_or_default());
        }
        Self {
            given,
            policy: given.policy.clone(),
            history: given.past.clone(),
            habits: Habits::default(),
            lead: Lead::from(&leads),
            image: image(&given.name, n),
            members: Vec::new(),
            next_arrival: 0,
            sessions: 0,
            target: 0,
            rule: rule::State::default(),
        }
    }

    fn size(&self) -> Usage {
        Usage::one(&self.given.size)
    }

    fn warm(&self) -> usize {
        self.members.iter().filter(|m| m.state == SandboxState::Warm).count()
    }

    fn input(&self) -> RepoInput<'_> {
        RepoInput {
            repo: self.given.name.clone(),
            spec: &self.policy,
            size: self.given.size,
            demand: Demand { history: Some(&self.history), lead: self.lead, habits: self.habits },
            order: None,
            current: Some(&self.image),
            canary: None,
            members: self.members.iter().collect(),
            unhealthy: HashSet::new(),
            reserved: 0,
            backoff_until: None,
        }
    }
}

/// An image that nothing but the plan looks at.
fn image(repo: &RepoName, n: u128) -> ImageRecord {
    let digest: Digest = match format!("sha256:{n:064x}").parse() {
        Ok(digest) => digest,
        Err(e) => unreachable!("64 digits are a digest: {e}"),
    };
    let (commit, branch) = match ("0".repeat(40).parse(), "main".parse()) {
        (Ok(commit), Ok(branch)) => (commit, branch),
        _ => unreachable!("40 zeros are a commit's id and `main` is a branch"),
    };
    ImageRecord {
        id: ImageId::from_u128(n),
        repo: repo.clone(),
        state: ImageState::Current,
        digest: digest.clone(),
        commit,
        branch,
        generation: 1,
        fingerprint: String::new(),
        base_digest: digest,
        parent: None,
        build: BuildId::from_u128(n),
        agent_version: String::new(),
        size: 0,
        created_at: Timestamp::UNIX_EPOCH,
        verified_at: Timestamp::UNIX_EPOCH,
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    }
}
