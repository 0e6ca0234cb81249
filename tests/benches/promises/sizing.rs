//! Figures of the planner, which needs neither server nor engine: how long a plan takes, and how many idle hours it
//! saves against a pool of fixed size.

use std::collections::HashSet;
use std::time::Instant;

use domain::{
    Budget, Digest, Error, ImageId, ImageRecord, ImageState, PoolPolicy, Purpose, Resources, Result,
    SandboxId, SandboxRecord, SandboxState,
};
use jiff::{SignedDuration, Timestamp};
use pool::sim::study::{compare, monday, office};
use pool::{Demand, Habits, History, Lead, PoolInput, RepoInput, Usage, plan};

use crate::report::{Report, Target, note};

const REPOS: u128 = 1_000;
const MEMBERS_EACH: u128 = 10;
const PLANS: usize = 200;
/// Weeks of the study; each has claims of its own.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=8;

/// 1,000 repos with traffic of their own, 10,000 members, and a budget that has no room for all of them.
pub fn plan_1000_repos(report: &mut Report) -> Result<()> {
    let now = monday() + SignedDuration::from_hours(11);
    let policy = PoolPolicy { max: 40, target_hit_rate: Some(0.99), ..PoolPolicy::default() };
    let size = Resources { cpu_millis: 1000, memory: 1 << 30, pids: 256 };
    let images = (1..=REPOS).map(image).collect::<Result<Vec<_>>>()?;
    let histories: Vec<_> = (0..REPOS).map(|n| history(now, n as i64)).collect();
    let members: Vec<Vec<_>> = images.iter().zip(1..).map(|(image, n)| members(image, n, now)).collect();
    let input = PoolInput {
        repos: (images.iter().zip(&histories).zip(&members))
            .map(|((image, history), members)| RepoInput {
                repo: image.repo.clone(),
                spec: &policy,
                size,
                demand: Demand {
                    history: Some(history),
                    lead: Lead { seconds: 20.0, samples: 64 },
                    habits: Habits::default(),
                },
                order: None,
                current: Some(image),
                canary: None,
                members: members.iter().collect(),
                unhealthy: HashSet::new(),
                reserved: 0,
                backoff_until: None,
            })
            .collect(),
        starting_limit: 4,
        starting_now: 0,
        budget: Budget { memory: Some(9_000 << 30), ..Budget::default() },
        used: Usage::default(),
        leaving: Usage::default(),
    };
    let mut samples = Vec::with_capacity(PLANS);
    for _ in 0..PLANS {
        let begun = Instant::now();
        let decided = plan(now, &input);
        samples.push(begun.elapsed().as_secs_f64() * 1e3);
        if decided.repos.len() != REPOS as usize {
            return Err(Error::permanent("a plan forgot a repo"));
        }
    }
    report.row("plan_1000_repos", "ms", &samples, Target::both(20.0, 20.0));
    Ok(())
}

/// Idle hours of the planner for one of the best fixed pool, when both serve 99 % of the same claims.
pub fn idle_hours_ratio(report: &mut Report) -> Result<()> {
    let curves = compare(&SEEDS.map(office).collect::<Vec<_>>());
    let hours = |name: &str| {
        let curve = curves.iter().find(|c| c.name == name);
        curve.and_then(|c| c.idle_hours_at(0.99))
    };
    for curve in &curves {
        match curve.idle_hours_at(0.99) {
            Some(hours) => note(format!("{}: {hours:.0} idle hours at 99 %", curve.name)),
            None => note(format!("{}: does not come to 99 %", curve.name)),
        }
    }
    let (Some(planner), Some(fixed)) = (hours("planner"), hours("fixed size")) else {
        return Err(Error::permanent("the planner or the fixed pool does not come to 99 %"));
    };
    report.row("idle_hours_ratio_best_fixed", "ratio", &[planner / fixed], Target::p50(0.6));
    Ok(())
}

fn image(n: u128) -> Result<ImageRecord> {
    let digest: Digest = parsed(&format!("sha256:{n:064x}"))?;
    Ok(ImageRecord {
        id: ImageId::from_u128(n),
        repo: parsed(&format!("bench/r{n}"))?,
        state: ImageState::Current,
        digest: digest.clone(),
        commit: parsed(&format!("{n:040x}"))?,
        branch: parsed("main")?,
        generation: 1,
        fingerprint: String::new(),
        base_digest: digest,
        parent: None,
        build: domain::BuildId::from_u128(n),
        agent_version: String::new(),
        size: 0,
        created_at: monday(),
        verified_at: monday(),
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    })
}

fn parsed<T: std::str::FromStr>(text: &str) -> Result<T> {
    text.parse().map_err(|_| Error::permanent(format!("read `{text}`")))
}

/// Five weeks, a few claims in each hour; some repos are busier.
fn history(now: Timestamp, n: i64) -> History {
    let mut history = History::since(now - SignedDuration::from_hours(5 * 168));
    for hour in 0..5 * 168 {
        for i in 0..=n % 7 {
            let ago = SignedDuration::from_mins(hour * 60 + (i * 13 + n) % 60);
            history.add(now - ago, 1);
        }
    }
    history
}

fn members(image: &ImageRecord, n: u128, now: Timestamp) -> Vec<SandboxRecord> {
    let one = |i: u128| SandboxRecord {
        id: SandboxId::from_u128(n * MEMBERS_EACH + i),
        repo: image.repo.clone(),
        purpose: Purpose::Pool,
        state: SandboxState::Warm,
        image: Some(image.id),
        source: image.digest.clone(),
        commit: None,
        engine_id: None,
        token_hash: String::new(),
        session: None,
        reserved: None,
        created_at: now - SignedDuration::from_mins(10),
        ready_at: Some(now),
        claimed_at: None,
        deadline: Timestamp::MAX,
        reason: None,
        up: true,
    };
    (0..MEMBERS_EACH).map(one).collect()
}
