//! How long what is over is kept: the logs of builds and sessions, and what is left of repos that are no longer in the
//! configuration. The collector does the deeds; this says what they are.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use domain::{
    AbsenceRecord, BuildId, ImageState, PullRequestState, RepoName, Result, SessionId, SharedClock,
};
use git::MirrorSet;
use jiff::SignedDuration;
use snapshots::{LogPolicy, LogVerdict};
use store::{BuildLogs, Page, SessionLogs, Store, Tx};
use tracing::{info, warn};

use crate::api::types::RemovalView;
use crate::fleet::Fleet;
use crate::repos::Repos;
use crate::sessions::Sessions;

/// Logs that are looked at in one run; the rest waits for the next.
const AT_A_TIME: usize = 2_000;

pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub sessions: Arc<Sessions>,
    pub mirrors: MirrorSet,
    pub store: Store,
    pub build_logs: BuildLogs,
    pub session_logs: SessionLogs,
    pub clock: SharedClock,
}

pub struct Retention {
    parts: Parts,
    settings: RwLock<config::RetentionSettings>,
    /// Repos of which something is left and that are not configured, as their rows have it.
    absent: Mutex<BTreeMap<RepoName, AbsenceRecord>>,
}

impl std::fmt::Debug for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Retention")
    }
}

/// A log that is kept no longer.
enum OldLog {
    Build(BuildId, u64, RepoName),
    Session(SessionId, u64, RepoName),
}

impl Retention {
    pub fn new(parts: Parts, settings: config::RetentionSettings, absences: Vec<AbsenceRecord>) -> Arc<Self> {
        let absent = absences.into_iter().map(|a| (a.repo.clone(), a)).collect();
        Arc::new(Self { parts, settings: RwLock::new(settings), absent: Mutex::new(absent) })
    }

    pub fn reconfigure(&self, settings: config::RetentionSettings) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> config::RetentionSettings {
        *self.settings.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn absent(&self) -> MutexGuard<'_, BTreeMap<RepoName, AbsenceRecord>> {
        self.absent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes which repos are gone from the configuration, and which are back. `with_snapshots` are those that have any.
    pub async fn note_absences(&self, with_snapshots: &HashSet<RepoName>) -> Result<()> {
        let mut left: BTreeSet<RepoName> = self.parts.mirrors.unconfigured().await?.into_iter().collect();
        left.extend(self.parts.repos.all_images().into_iter().map(|i| i.repo));
        left.extend(with_snapshots.iter().cloned());
        left.retain(|repo| self.parts.repos.get(repo).is_none());
        let now = self.parts.clock.now();
        let (gone, over): (Vec<_>, Vec<_>) = {
            let absent = self.absent();
            let gone = left.iter().filter(|repo| !absent.contains_key(*repo));
            let gone = gone.map(|repo| AbsenceRecord { repo: repo.clone(), since: now }).collect();
            (gone, absent.keys().filter(|repo| !left.contains(*repo)).cloned().collect())
        };
        if gone.is_empty() && over.is_empty() {
            return Ok(());
        }
        let tx = gone.iter().fold(Tx::new(), |tx, absence| tx.absence(absence));
        let tx = over.iter().fold(tx, |tx, repo| tx.remove_absence(repo.clone()));
        self.parts.store.commit(tx).await?;
        let mut absent = self.absent();
        for absence in gone {
            info!(repo = %absence.repo, "no longer in the configuration: what is left of it goes after a while");
            absent.insert(absence.repo.clone(), absence);
        }
        absent.retain(|repo, _| !over.contains(repo));
        Ok(())
    }

    /// Repos that have been out of the configuration for long, and of which nothing lives. What of them is left may go.
    pub fn abandoned(&self) -> BTreeSet<RepoName> {
        let grace = SignedDuration::try_from(self.settings().removed_repos).unwrap_or(SignedDuration::MAX);
        let now = self.parts.clock.now();
        let mut living: HashSet<RepoName> =
            self.parts.sessions.all().iter().map(|s| s.repo.clone()).collect();
        living.extend(self.parts.fleet.records().iter().map(|r| r.repo.clone()));
        let absent = self.absent();
        let long = absent.values().filter(|a| now.duration_since(a.since) >= grace);
        let dead = long.filter(|a| self.parts.repos.get(&a.repo).is_none() && !living.contains(&a.repo));
        dead.map(|a| a.repo.clone()).collect()
    }

    /// Removes the mirrors of abandoned repos of which nothing else is left.
    pub async fn drop_mirrors(&self, abandoned: &BTreeSet<RepoName>, with_snapshots: &HashSet<RepoName>) {
        for repo in abandoned {
            if !self.parts.repos.images(repo).is_empty() || with_snapshots.contains(repo) {
                continue;
            }
            match self.parts.mirrors.forget(repo).await {
                Ok(()) => info!(%repo, "removed the mirror of a repo that is no longer configured"),
                Err(e) => warn!(%repo, error = %e.chain(), "a mirror stays for now"),
            }
        }
    }

    /// Removes the logs that are kept no longer.
    pub async fn drop_logs(&self) -> Result<()> {
        let old = self.old_logs().await?;
        for log in &old {
            match log {
                OldLog::Build(id, ..) => self.parts.build_logs.remove(*id).await?,
                OldLog::Session(id, ..) => self.parts.session_logs.remove(*id).await?,
            }
        }
        if !old.is_empty() {
            info!(logs = old.len(), "removed old logs");
        }
        Ok(())
    }

    /// What [`Retention::drop_logs`] and [`Retention::drop_mirrors`] would remove, once nothing else is left of a repo.
    pub async fn due(&self) -> Result<Vec<RemovalView>> {
        let view = |kind: &str, id: String, repo: &RepoName, size| RemovalView {
            kind: kind.into(),
            id,
            repo: repo.to_string(),
            size,
        };
        let mut due: Vec<_> =
            self.abandoned().iter().map(|r| view("mirror", r.to_string(), r, None)).collect();
        due.extend(self.old_logs().await?.iter().map(|log| match log {
            OldLog::Build(id, size, repo) => view("build_log", id.to_string(), repo, Some(*size)),
            OldLog::Session(id, size, repo) => view("session_log", id.to_string(), repo, Some(*size)),
        }));
        Ok(due)
    }

    async fn old_logs(&self) -> Result<Vec<OldLog>> {
        let mut old = self.old_build_logs().await?;
        old.extend(self.old_session_logs().await?);
        Ok(old)
    }

    /// Ids grow with time, so the oldest come first and the first that is too young ends the look.
    async fn old_build_logs(&self) -> Result<Vec<OldLog>> {
        let settings = self.settings();
        let policy = LogPolicy { max_age: settings.build_log_age, most: settings.build_logs as usize };
        let now = self.parts.clock.now();
        let kept = self.parts.repos.all_images().into_iter().filter(|i| i.state != ImageState::Removing);
        let kept: HashSet<BuildId> = kept.map(|i| i.build).collect();
        let logs = self.parts.build_logs.list().await?;
        let mut left = logs.len();
        let mut old = Vec::new();
        for (id, size) in logs.into_iter().take(AT_A_TIME) {
            let Some(build) = self.parts.store.build(id).await? else { continue };
            let over = build.ended_at.filter(|_| !kept.contains(&id));
            match policy.verdict(now, left, build.created_at, over) {
                LogVerdict::Remove => old.push(OldLog::Build(id, size, build.repo)),
                LogVerdict::Keep => continue,
                LogVerdict::Enough => break,
            }
            left -= 1;
        }
        Ok(old)
    }

    async fn old_session_logs(&self) -> Result<Vec<OldLog>> {
        let settings = self.settings();
        let policy = LogPolicy { max_age: settings.session_log_age, most: settings.session_logs as usize };
        let now = self.parts.clock.now();
        let logs = self.parts.session_logs.list().await?;
        let mut left = logs.len();
        let mut old = Vec::new();
        for (id, size) in logs.into_iter().take(AT_A_TIME) {
            let Some(session) = self.parts.store.session(id).await? else { continue };
            match policy.verdict(now, left, session.created_at, session.ended_at) {
                LogVerdict::Enough => break,
                // A pull request that is under way has still something to say.
                LogVerdict::Remove if !self.has_open_pull_request(id).await? => {
                    old.push(OldLog::Session(id, size, session.repo));
                    left -= 1;
                }
                LogVerdict::Remove | LogVerdict::Keep => {}
            }
        }
        Ok(old)
    }

    async fn has_open_pull_request(&self, session: SessionId) -> Result<bool> {
        let page = Page { after: None, limit: 200 };
        let all = self.parts.store.pull_requests(None, Some(session), page).await?;
        let open = |state| matches!(state, PullRequestState::Pending | PullRequestState::Open);
        Ok(all.items.iter().any(|pr| open(pr.state)))
    }
}
