//! How much of Hotbed one user and one repo may hold at a time. Counted in memory and taken before anything else is
//! done for a session: a hundred claims at the limit get exactly what is left.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::QuotaSettings;
use domain::{Error, RepoName, Result};

use crate::metrics::Metrics;

/// What there is a quota of, in the words of `hotbed_quota_refusals_total`.
pub const QUOTAS: [&str; 3] = ["user_sessions", "repo_sessions", "repo_warmups"];
/// When somebody who was refused may try again: something has to end first.
const AGAIN_IN: Duration = Duration::from_secs(10);

pub struct Quotas {
    held: Mutex<Held>,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Held {
    limits: QuotaSettings,
    user_sessions: Counts<String>,
    repo_sessions: Counts<RepoName>,
    repo_warmups: Counts<RepoName>,
}

/// What is held, by whom; nobody holds nothing.
struct Counts<K>(HashMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Clone> Counts<K> {
    fn of(&self, who: &K) -> u32 {
        self.0.get(who).copied().unwrap_or(0)
    }

    fn add(&mut self, who: &K) {
        *self.0.entry(who.clone()).or_insert(0) += 1;
    }

    fn drop_one(&mut self, who: &K) {
        if let Some(n) = self.0.get_mut(who) {
            *n -= 1;
            if *n == 0 {
                self.0.remove(who);
            }
        }
    }
}

/// A place that is held until this is dropped.
pub struct Seat {
    quotas: Arc<Quotas>,
    of: Of,
}

enum Of {
    Session { user: String, repo: RepoName },
    Warmup(RepoName),
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seat")
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.quotas.held();
        match &self.of {
            Of::Session { user, repo } => {
                held.user_sessions.drop_one(user);
                held.repo_sessions.drop_one(repo);
            }
            Of::Warmup(repo) => held.repo_warmups.drop_one(repo),
        }
    }
}

/// Logins are one whatever their case.
fn of_session(login: &str, repo: &RepoName) -> Of {
    Of::Session { user: login.to_ascii_lowercase(), repo: repo.clone() }
}

impl Quotas {
    pub fn new(limits: QuotaSettings, metrics: Arc<Metrics>) -> Arc<Self> {
        let held = Held { limits, ..Held::default() };
        Arc::new(Self { held: Mutex::new(held), metrics })
    }

    /// Other limits from now on. Who holds more keeps it.
    pub fn set(&self, limits: QuotaSettings) {
        self.held().limits = limits;
    }

    /// A place for a session, if its user and its repo have one left.
    ///
    /// Errors: `Exhausted`, naming the quota.
    pub fn session(self: &Arc<Self>, login: &str, repo: &RepoName) -> Result<Seat> {
        let of = of_session(login, repo);
        let full = self.held().take(&of);
        match full {
            None => Ok(Seat { quotas: self.clone(), of }),
            Some(("user_sessions", n)) => Err(self.refuse(repo, "user_sessions", format!(
                "`{login}` has {n} live sessions, as many as `quotas.sessions_per_user` allows: end one, or wait until one has ended"
            ))),
            Some((_, n)) => Err(self.refuse(repo, "repo_sessions", format!(
                "{repo} has {n} live sessions, as many as `quotas.sessions_per_repo` allows: wait until one has ended"
            ))),
        }
    }

    /// A place for a warm-up.
    ///
    /// Errors: `Exhausted`.
    pub fn warmup(self: &Arc<Self>, repo: &RepoName) -> Result<Seat> {
        let of = Of::Warmup(repo.clone());
        let full = self.held().take(&of);
        match full {
            None => Ok(Seat { quotas: self.clone(), of }),
            Some((quota, n)) => Err(self.refuse(
                repo,
                quota,
                format!("{repo} has {n} live warm-ups, as many as `quotas.warmups_per_repo` allows"),
            )),
        }
    }

    /// The place of a session that was there before, whatever the limits are now.
    pub fn session_again(self: &Arc<Self>, login: &str, repo: &RepoName) -> Seat {
        self.again(of_session(login, repo))
    }

    /// As [`Quotas::session_again`].
    pub fn warmup_again(self: &Arc<Self>, repo: &RepoName) -> Seat {
        self.again(Of::Warmup(repo.clone()))
    }

    fn again(self: &Arc<Self>, of: Of) -> Seat {
        self.held().add(&of);
        Seat { quotas: self.clone(), of }
    }

    fn refuse(&self, repo: &RepoName, quota: &'static str, words: String) -> Error {
        self.metrics.quota_refused(repo, quota);
        Error::exhausted(words).retry_after(AGAIN_IN)
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn add(&mut self, of: &Of) {
        match of {
            Of::Session { user, repo } => {
                self.user_sessions.add(user);
                self.repo_sessions.add(repo);
            }
            Of::Warmup(repo) => self.repo_warmups.add(repo),
        }
    }

    /// Takes a place in every quota that counts it, or in none: then the one that has none left, and how many hold one.
    fn take(&mut self, of: &Of) -> Option<(&'static str, u32)> {
        let full = self.full(of);
        if full.is_none() {
            self.add(of);
        }
        full
    }

    /// The quota that has no place left, and how many hold one.
    fn full(&self, of: &Of) -> Option<(&'static str, u32)> {
        let limits = &self.limits;
        let over = |quota, n: u32, limit: Option<u32>| limit.filter(|limit| n >= *limit).map(|_| (quota, n));
        match of {
            Of::Session { user, repo } => {
                over("user_sessions", self.user_sessions.of(user), limits.sessions_per_user)
                    .or_else(|| over("repo_sessions", self.repo_sessions.of(repo), limits.sessions_per_repo))
            }
            Of::Warmup(repo) => over("repo_warmups", self.repo_warmups.of(repo), limits.warmups_per_repo),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(user: u32, repo: u32) -> Arc<Quotas> {
        let limits = QuotaSettings {
            sessions_per_user: Some(user),
            sessions_per_repo: Some(repo),
            warmups_per_repo: Some(1),
        };
        Quotas::new(limits, Arc::new(Metrics::new("given", jiff::Timestamp::UNIX_EPOCH)))
    }

    #[test]
    fn a_place_is_given_back_and_every_quota_counts() {
        let (api, web): (RepoName, RepoName) = ("acme/api".parse().unwrap(), "acme/web".parse().unwrap());
        let quotas = quotas(2, 3);
        let first = quotas.session("ada", &api).unwrap();
        let _second = quotas.session("Ada", &web).unwrap();
        let refused = quotas.session("ADA", &api).unwrap_err();
        assert_eq!(refused.kind(), domain::ErrorKind::Exhausted);
        assert!(refused.to_string().contains("sessions_per_user") && refused.wait().is_some(), "{refused}");
        drop(first);
        let _third = quotas.session("ada", &api).unwrap();
        let _others = [quotas.session("bob", &api).unwrap(), quotas.session("cleo", &api).unwrap()];
        let refused = quotas.session("dora", &api).unwrap_err();
        assert!(refused.to_string().contains("sessions_per_repo"), "{refused}");
        quotas.session("dora", &web).unwrap();
        // What is there stays, whatever is allowed now; no new one comes.
        quotas.set(QuotaSettings { sessions_per_user: Some(1), ..QuotaSettings::default() });
        let _again = quotas.session_again("ada", &api);
        assert!(quotas.session("ada", &api).is_err());
        quotas.set(QuotaSettings::default());
        quotas.session("ada", &api).unwrap();
    }

    #[test]
    fn warmups_have_a_quota_of_their_own() {
        let api: RepoName = "acme/api".parse().unwrap();
        let quotas = quotas(1, 1);
        let _session = quotas.session("ada", &api).unwrap();
        let warmup = quotas.warmup(&api).unwrap();
        assert!(quotas.warmup(&api).unwrap_err().to_string().contains("warmups_per_repo"));
        drop(warmup);
        quotas.warmup(&api).unwrap();
    }
}
