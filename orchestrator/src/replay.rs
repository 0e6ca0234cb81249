//! A policy against arrivals that have been: what `hotbed pool replay` computes. Pure, by the planner's own simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use config::Config;
use domain::{Error, PoolPolicy, RepoName, Resources, Result};
use jiff::{SignedDuration, Timestamp};
use pool::History;
use pool::sim::{Outcome, Rule, Scenario, SimRepo, arrivals, run};
use serde::Serialize;

/// As the server has it.
const STARTS: u32 = crate::pools::STARTING_LIMIT;
const COLD_STARTS: u32 = 8;
/// More arrivals are more than a simulation of seconds can bear.
const MOST: usize = 5_000_000;
/// Points of a plot.
const RESOLUTION: Duration = Duration::from_secs(600);

/// The traffic of one repo.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub history: History,
    /// The moments, where they are known and not only their minutes.
    pub moments: Option<Vec<Timestamp>>,
    /// Lead times that were measured, in seconds.
    pub leads: Vec<f64>,
}

/// What is replayed, but for the policy.
#[derive(Debug, Clone)]
pub struct Replay {
    pub traffic: BTreeMap<RepoName, Traffic>,
    pub begin: Timestamp,
    pub end: Timestamp,
    /// How long a session keeps its sandbox.
    pub session: Duration,
    /// The lead time of repos of which none was measured.
    pub lead: Duration,
}

/// What a policy came to.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub policy: String,
    pub claims: u32,
    pub hits: u32,
    pub hit_rate: f64,
    /// Claims that the budget had no place for.
    pub refused: u32,
    pub waiting_p50_seconds: f64,
    pub waiting_p99_seconds: f64,
    pub idle_hours: f64,
    pub peak_memory: u64,
}

impl Row {
    pub fn new(policy: &str, outcome: &Outcome) -> Self {
        Self {
            policy: policy.to_owned(),
            claims: outcome.claims,
            hits: outcome.hits,
            hit_rate: outcome.hit_rate(),
            refused: outcome.refused,
            waiting_p50_seconds: outcome.waiting(0.5),
            waiting_p99_seconds: outcome.waiting(0.99),
            idle_hours: outcome.idle_hours(),
            peak_memory: outcome.peak_memory,
        }
    }
}

impl Replay {
    /// The traffic under the policies of `config`. A repo that it does not name has no pool.
    pub fn scenario(&self, config: &Config) -> Scenario {
        let mut named: BTreeMap<_, _> = config
            .repos()
            .iter()
            .map(|spec| (spec.name.clone(), (spec.pool.clone(), spec.resources)))
            .collect();
        let none = || {
            let policy = PoolPolicy { min: 0, max: 0, ..PoolPolicy::default() };
            (policy, Resources { cpu_millis: 1000, memory: 1 << 30, pids: 1024 })
        };
        let names: BTreeSet<_> = named.keys().chain(self.traffic.keys()).cloned().collect();
        let repos = names.into_iter().map(|name| {
            let (policy, size) = named.remove(&name).unwrap_or_else(none);
            self.repo(name, policy, size)
        });
        Scenario {
            begin: self.begin,
            end: self.end,
            repos: repos.collect(),
            budget: config.settings().budget,
            starts: STARTS,
            cold_starts: COLD_STARTS,
            session: self.session,
            resolution: RESOLUTION,
        }
    }

    fn repo(&self, name: RepoName, policy: PoolPolicy, size: Resources) -> SimRepo {
        let traffic = self.traffic.get(&name).cloned().unwrap_or_default();
        let since = traffic.history.watched_since().unwrap_or(self.begin).min(self.begin);
        let mut past = History::since(since);
        let before = traffic.history.arrivals().filter(|(at, _)| *at < self.begin);
        before.for_each(|(at, claims)| past.add(at, claims));
        let arrivals = match traffic.moments {
            Some(moments) => moments.into_iter().filter(|at| (self.begin..self.end).contains(at)).collect(),
            None => arrivals(&traffic.history, self.begin, self.end),
        };
        let leads = if traffic.leads.is_empty() { vec![self.lead.as_secs_f64()] } else { traffic.leads };
        SimRepo { name, policy, size, past, arrivals, leads }
    }
}

/// Lets the planner keep the pools of a scenario.
pub fn outcome(scenario: &Scenario) -> Outcome {
    run(scenario, Rule::Plan)
}

/// Arrivals as people write them down: a line each, a time and a repo, and after them how many came where it was not
/// one. Commas are as good as blanks; lines that begin with `#` say nothing.
pub fn read(file: &str, text: &str) -> Result<BTreeMap<RepoName, Traffic>> {
    let mut moments: BTreeMap<RepoName, Vec<Timestamp>> = BTreeMap::new();
    let mut all = 0usize;
    for (number, line) in (1..).zip(text.lines()) {
        let wrong = |what: String| Error::invalid(format!("{file}:{number}: {what}"));
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let fields: Vec<&str> = line.split([',', ' ', '\t']).filter(|f| !f.is_empty()).collect();
        let (at, repo, claims) = match fields[..] {
            [at, repo] => (at, repo, "1"),
            [at, repo, claims] => (at, repo, claims),
            _ => {
                return Err(wrong(format!(
                    "`{line}` is not an arrival: expected a time and a repo, such as `2026-11-20T09:00:00Z acme/api`"
                )));
            }
        };
        let at: Timestamp = at.parse().map_err(|_| {
            wrong(format!("`{at}` is not a time: expected one with its zone, such as `2026-11-20T09:00:00Z`"))
        })?;
        let repo: RepoName = repo.parse().map_err(|e| wrong(format!("`{repo}` is not a repo: {e}")))?;
        let claims: usize = claims
            .parse()
            .map_err(|_| wrong(format!("`{claims}` is not a number of claims: expected 1 or more")))?;
        all = all.saturating_add(claims);
        if all > MOST {
            return Err(wrong(format!("these are more than {MOST} arrivals: replay a part of them")));
        }
        moments.entry(repo).or_default().extend(std::iter::repeat_n(at, claims));
    }
    if moments.is_empty() {
        return Err(Error::invalid(format!("{file} holds no arrivals")));
    }
    let traffic = |mut moments: Vec<Timestamp>| {
        moments.sort_unstable();
        let mut history = History::since(moments.first().copied().unwrap_or_default());
        moments.iter().for_each(|at| history.add(*at, 1));
        Traffic { history, moments: Some(moments), leads: Vec::new() }
    };
    Ok(moments.into_iter().map(|(repo, moments)| (repo, traffic(moments))).collect())
}

/// From when to when: all of the traffic, or the last part of it.
pub fn span(
    traffic: &BTreeMap<RepoName, Traffic>,
    last: Option<Duration>,
    end: Option<Timestamp>,
) -> Result<(Timestamp, Timestamp)> {
    let all = || traffic.values().flat_map(|t| t.history.arrivals().map(|(at, _)| at));
    let (Some(first), Some(latest)) = (all().min(), all().max()) else {
        return Err(Error::invalid("there are no arrivals to replay"));
    };
    let end = end.unwrap_or(latest + SignedDuration::from_hours(1));
    let begin = match last {
        Some(last) => {
            SignedDuration::try_from(last).ok().and_then(|l| end.checked_sub(l).ok()).unwrap_or(first)
        }
        None => first,
    };
    match all().any(|at| (begin..end).contains(&at)) {
        true => Ok((begin, end)),
        false => Err(Error::invalid(format!("nobody came between {begin} and {end}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn arrivals_are_read_by_the_line() {
        let text = "# a day\n2026-11-20T09:00:10Z acme/api\n\n2026-11-20T08:00:00Z,acme/web,3\n";
        let read = read("a.csv", text).unwrap();
        let moments = |name: &str| read[&name.parse::<RepoName>().unwrap()].moments.clone().unwrap();
        assert_eq!(moments("acme/api"), [at("2026-11-20T09:00:10Z")]);
        assert_eq!(moments("acme/web").len(), 3);
        let (begin, end) = span(&read, None, None).unwrap();
        assert_eq!((begin, end), (at("2026-11-20T08:00:00Z"), at("2026-11-20T10:00:00Z")));
        let (begin, _) = span(&read, Some(Duration::from_secs(5400)), None).unwrap();
        assert_eq!(begin, at("2026-11-20T08:30:00Z"));
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, expected) in [
            ("2026-11-20T09:00:00Z acme/api\nyesterday acme/api\n", "a:2: `yesterday` is not a time"),
            ("2026-11-20T09:00:00Z api", "a:1: `api` is not a repo"),
            ("2026-11-20T09:00:00Z acme/api many", "a:1: `many` is not a number"),
            ("2026-11-20T09:00:00Z", "is not an arrival"),
            ("2026-11-20T09:00:00Z acme/api 6000000", "more than 5000000"),
            ("# nothing\n", "a holds no arrivals"),
        ] {
            let error = read("a", text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    /// What a larger pool serves more of, and what that costs.
    #[test]
    fn two_policies_are_told_apart() {
        let text: String = (0..120)
            .map(|i| format!("2026-11-20T{:02}:{:02}:00Z acme/api 2\n", 9 + i / 60, i % 60))
            .collect();
        let traffic = read("a", &text).unwrap();
        let (begin, end) = span(&traffic, None, None).unwrap();
        let minutes = Duration::from_secs(600);
        let replay = Replay { traffic, begin, end, session: minutes, lead: Duration::from_secs(20) };
        let outcome = |pool: &str| {
            let yaml = format!(
                "repos:\n  - {{ name: acme/api, url: /srv/api.git, image: {{ base: debian }}, pool: {pool} }}\n"
            );
            let config = Config::parse(&yaml, "hotbed.yaml", ".".as_ref()).unwrap();
            super::outcome(&replay.scenario(&config))
        };
        let (one, two) = (outcome("{ min: 1 }"), outcome("{ min: 2 }"));
        assert_eq!((one.claims, two.claims, two.hits), (240, 240, 240));
        assert_eq!(one.hits, 120, "the second of each pair finds none");
        assert!(one.idle_hours() < two.idle_hours() && one.waiting(0.99) > 15.0);
        assert!(two.peak_memory >= one.peak_memory && one.peak_memory > 0);
    }
}
