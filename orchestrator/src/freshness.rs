//! The task `pool_freshen`: keeps idle members worth having, at the tip of their branch and warm rather than alive.
//!
//! The upstream of a repo with idle members is asked once in a while (`pool.fresh_within`), and at once when a push is
//! announced; what others have fetched meanwhile is seen without asking. Members that are behind are synced in place,
//! a few at a time, with the gate shut and nobody bound. Each member is asked now and then whether it is well; one that
//! is not is retired, and the pool makes another. All of it is bounded, and none of it on the claim path, which only
//! reads the tip that was last seen.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::ports::Mirrors;
use domain::wire::KeepWarm;
use domain::{
    Branch, CommitId, Error, ImageId, RepoName, RepoSpec, Result, SandboxId, SandboxRecord, SandboxState,
};
use futures_util::{StreamExt, stream};
use pool::RetireReason;
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::fleet::{Entry, Fleet};
use crate::metrics::{Metrics, OfRepo};
use crate::repos::{HandedOut, Repos};

/// How often the task looks whether anything is due.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Repos whose upstream is asked at once; each may be a fetch.
const REPOS_AT_ONCE: usize = 2;
/// Members synced at once over all repos, of one repo in one run, and how long one may take: a session that claims it
/// meanwhile waits for the end of it.
const SYNCS_AT_ONCE: usize = 2;
const SYNCS_OF_A_REPO: usize = 16;
const SYNC_LIMIT: Duration = Duration::from_secs(20);
/// A member that could not be synced is left alone for this long, or until the branch moves again.
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// How often a member is asked whether it is well, how many in one run and at once, and how long it may take.
const ASK_EVERY: Duration = Duration::from_secs(60);
const ASKED_IN_A_RUN: usize = 256;
const ASKED_AT_ONCE: usize = 8;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Failures in a row that make a member unhealthy.
const FAILURES: u32 = 2;
/// What one member of each image, in turn, does for the page cache: all share the files that they were started from.
const KEEP_WARM: KeepWarm = KeepWarm { max_bytes: 256 << 20, max_ms: 1_000 };

type Members = HashMap<RepoName, Vec<Arc<SandboxRecord>>>;

#[derive(Debug, Default)]
struct State {
    /// When upstream was last asked.
    looked: HashMap<RepoName, Instant>,
    /// When the branch was last seen to move.
    moved: HashMap<RepoName, Instant>,
    /// Its tip, and as of which generation of the mirror.
    tips: HashMap<RepoName, (u64, Branch, CommitId)>,
    members: HashMap<SandboxId, Health>,
    /// When files of an image were last kept.
    kept: HashMap<ImageId, Instant>,
}

/// What is known of one idle member.
#[derive(Debug, Clone, Default)]
struct Health {
    asked: Option<Instant>,
    failures: u32,
    /// It could not be brought to this commit, and when.
    stuck: Option<(CommitId, Instant)>,
}

pub struct Freshness {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
}

impl std::fmt::Debug for Freshness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Freshness")
    }
}

impl Freshness {
    pub fn new(
        fleet: Arc<Fleet>,
        repos: Arc<Repos>,
        mirrors: Arc<dyn Mirrors>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { fleet, repos, mirrors, metrics, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One run.
    pub async fn run(self: &Arc<Self>) -> Result<()> {
        let fleet = self.fleet.clone();
        // Thousands of members take a millisecond to look at, which the threads that answer claims don't have.
        let members = tokio::task::spawn_blocking(move || idle(&fleet))
            .await
            .map_err(|e| Error::permanent("look at the idle members").caused_by(e))?;
        self.forget_others(&members);
        self.look_upstream(&members).await;
        self.bring_to_tip(&members).await;
        self.ask(&members).await;
        self.keep_warm(&members).await;
        Ok(())
    }

    fn forget_others(&self, members: &Members) {
        let there: HashSet<_> = members.values().flatten().map(|m| m.id).collect();
        let images: HashSet<_> = members.values().flatten().filter_map(|m| m.image).collect();
        let mut state = self.state();
        state.members.retain(|id, _| there.contains(id));
        state.tips.retain(|repo, _| members.contains_key(repo));
        state.kept.retain(|id, _| images.contains(id));
    }

    /// Asks the upstream of each repo that has idle members, when its time has come or it was pushed to.
    async fn look_upstream(&self, members: &Members) {
        let (now, pushed) = (Instant::now(), self.repos.take_pushed());
        let due: Vec<Arc<RepoSpec>> = {
            let mut state = self.state();
            let mut due = |spec: &Arc<RepoSpec>| {
                let looked = state.looked.get(&spec.name);
                let due = members.contains_key(&spec.name)
                    && (pushed.contains(&spec.name)
                        || looked.is_none_or(|at| now - *at >= spec.pool.fresh_within));
                if due {
                    state.looked.insert(spec.name.clone(), now);
                }
                due
            };
            self.repos.all().into_iter().filter(|spec| due(spec)).collect()
        };
        let ask = |spec: Arc<RepoSpec>| async move {
            if let Err(e) = self.mirrors.refresh(&spec.name).await {
                debug!(repo = %spec.name, error = %e.chain(), "could not look at the branch");
            }
        };
        stream::iter(due).for_each_concurrent(REPOS_AT_ONCE, ask).await;
    }

    async fn bring_to_tip(self: &Arc<Self>, members: &Members) {
        let mut syncs = Vec::new();
        for spec in self.repos.all() {
            let Some(idle) = members.get(&spec.name) else {
                self.measure(&spec.name, 0);
                continue;
            };
            // As of the last fetch, whoever made it.
            let tip = match self.tip(&spec).await {
                Ok(Some(tip)) => tip,
                Ok(None) => continue,
                Err(e) => {
                    debug!(repo = %spec.name, error = %e.chain(), "could not read the branch");
                    continue;
                }
            };
            if self.repos.set_tip(&spec.name, &tip) {
                self.state().moved.insert(spec.name.clone(), Instant::now());
            }
            let HandedOut { current, canary } = self.repos.handed_out(&spec.name);
            let images: Vec<_> = current.into_iter().chain(canary).map(|i| i.id).collect();
            let behind = pool::behind(&tip, &images, idle.iter().map(Arc::as_ref));
            self.measure(&spec.name, behind.len());
            let state = self.state();
            let may = |id: &SandboxId| {
                let stuck = state.members.get(id).and_then(|h| h.stuck.as_ref());
                stuck.is_none_or(|(at, since)| *at != tip || since.elapsed() >= RETRY_AFTER)
            };
            let next = behind.into_iter().filter(may).take(SYNCS_OF_A_REPO);
            syncs.extend(next.map(|id| (spec.clone(), id, tip.clone())));
        }
        if syncs.len() >= SYNCS_OF_A_REPO {
            // More may be behind: go on after a rest.
            self.repos.push_poke.notify_one();
        }
        let sync = |(spec, id, tip)| self.sync(spec, id, tip);
        stream::iter(syncs).for_each_concurrent(SYNCS_AT_ONCE, sync).await;
    }

    /// The tip of a repo's branch as of the last fetch. It is read only where it may have moved: this is asked often.
    async fn tip(&self, spec: &RepoSpec) -> Result<Option<CommitId>> {
        let generation = self.mirrors.generation(&spec.name);
        let known = |(at, branch, tip): &(u64, Branch, CommitId)| {
            (Some(*at) == generation && *branch == spec.branch).then(|| tip.clone())
        };
        if let Some(tip) = self.state().tips.get(&spec.name).and_then(known) {
            return Ok(Some(tip));
        }
        let tip = self.mirrors.tip(&spec.name, &spec.branch).await?;
        if let (Some(at), Some(tip)) = (generation, &tip) {
            self.state().tips.insert(spec.name.clone(), (at, spec.branch.clone(), tip.clone()));
        }
        Ok(tip)
    }

    fn measure(&self, repo: &RepoName, behind: usize) {
        self.metrics.pool_behind.get_or_create(&OfRepo { repo: repo.to_string() }).set(behind as i64);
    }

    async fn sync(&self, spec: Arc<RepoSpec>, id: SandboxId, tip: CommitId) {
        let Some(entry) = self.fleet.get(id).filter(|e| is_idle(e)) else { return };
        let synced = self.fleet.sync_idle(&entry, &spec.branch, tip.clone(), SYNC_LIMIT);
        let synced = timeout(SYNC_LIMIT * 2, synced).await;
        match synced.unwrap_or_else(|_| Err(Error::timeout("sync an idle member"))) {
            Ok(_) => {
                let moved = self.state().moved.get(&spec.name).copied();
                if let Some(moved) = moved {
                    self.metrics.pool_caught_up(moved.elapsed());
                }
            }
            // It can be claimed all the same: its session syncs it, and says what is wrong.
            Err(e) if is_idle(&entry) => {
                debug!(sandbox = %id, repo = %spec.name, error = %e.chain(), "a member could not be brought to the tip");
                self.state().members.entry(id).or_default().stuck = Some((tip, Instant::now()));
            }
            Err(_) => {}
        }
    }

    /// Asks those that were not asked for a while whether they are well.
    async fn ask(&self, members: &Members) {
        let now = Instant::now();
        let due: Vec<_> = {
            let state = self.state();
            let due = |m: &&Arc<SandboxRecord>| {
                let asked = state.members.get(&m.id).and_then(|h| h.asked);
                asked.is_none_or(|at| now - at >= ASK_EVERY)
            };
            members.values().flatten().filter(due).map(|m| m.id).take(ASKED_IN_A_RUN).collect()
        };
        let ask = |id| async move {
            let Some(entry) = self.fleet.get(id).filter(|e| is_idle(e)) else { return };
            let answer = well(&entry).await;
            if is_idle(&entry) {
                self.note(&entry, answer).await;
            }
        };
        stream::iter(due).for_each_concurrent(ASKED_AT_ONCE, ask).await;
    }

    /// What came of asking a member.
    async fn note(&self, entry: &Entry, answer: Result<()>) {
        let failures = {
            let mut state = self.state();
            let health = state.members.entry(entry.id).or_default();
            health.failures = if answer.is_ok() { 0 } else { health.failures + 1 };
            // A failure is not left for a minute: the next run asks again.
            health.asked = answer.is_ok().then(Instant::now);
            health.failures
        };
        let Err(e) = answer else { return };
        debug!(sandbox = %entry.id, failures, error = %e.chain(), "a member is not well");
        if failures < FAILURES {
            return;
        }
        match self.fleet.retire(entry.id, RetireReason::Unhealthy).await {
            Ok(true) => {
                info!(sandbox = %entry.id, repo = %entry.repo, error = %e.chain(), "an unhealthy member is retired");
                self.fleet.pool_poke.notify_one();
            }
            // Claimed in between: its session will see.
            Ok(false) => {}
            Err(e) => warn!(sandbox = %entry.id, error = %e.chain(), "could not retire a member"),
        }
    }

    /// One member of each image has the kernel keep what a session reads first.
    async fn keep_warm(&self, members: &Members) {
        let now = Instant::now();
        let mut chosen = HashMap::new();
        {
            let mut state = self.state();
            for member in members.values().flatten() {
                let Some(image) = member.image else { continue };
                let kept = state.kept.get(&image);
                if !chosen.contains_key(&image) && kept.is_none_or(|at| now - *at >= ASK_EVERY) {
                    chosen.insert(image, member.id);
                }
            }
            state.kept.extend(chosen.keys().map(|image| (*image, now)));
        }
        for (image, id) in chosen {
            let link = self.fleet.get(id).filter(|e| is_idle(e)).and_then(|e| e.link());
            let Some(link) = link else { continue };
            match link.keep_warm(&KEEP_WARM).await {
                Ok(kept) => debug!(%image, files = kept.files, bytes = kept.bytes, "kept in the page cache"),
                Err(e) => debug!(%image, error = %e.chain(), "a member could not be kept warm"),
            }
        }
    }
}

fn is_idle(entry: &Entry) -> bool {
    entry.state() == SandboxState::Warm
}

/// Ready members that nobody has claimed, by repo.
fn idle(fleet: &Fleet) -> Members {
    let mut members: HashMap<_, Vec<_>> = HashMap::new();
    for record in fleet.unclaimed().into_iter().filter(|r| r.state == SandboxState::Warm) {
        members.entry(record.repo.clone()).or_default().push(record);
    }
    members
}

/// Its agent answers, its gate is shut, nobody is bound to it. One that dials anew is left to the reconciler, which
/// gives it half a minute.
async fn well(entry: &Entry) -> Result<()> {
    let Some(link) = entry.link() else { return Ok(()) };
    let info = timeout(ANSWER_WITHIN, link.info()).await;
    let info = info.map_err(|_| Error::timeout(format!("no answer within {ANSWER_WITHIN:?}")))??;
    if info.gate_open || info.bound.is_some() {
        return Err(Error::permanent("its gate is open or somebody is bound to it"));
    }
    Ok(())
}
