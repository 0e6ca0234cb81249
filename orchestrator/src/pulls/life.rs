//! What becomes of pull requests at the forge: told by it, and asked for, because what is told may be missed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dashmap::DashMap;
use domain::{
    Error, ErrorKind, How, News, PullRequestId, PullRequestRecord, PullRequestState, RepoName, Result, Review,
};
use store::{Page, Tx};
use tokio::sync::Mutex as Turns;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::Pulls;

/// How often the forge is asked about one that it tells nothing of; less often the more there are of them.
const ASK_EVERY: Duration = Duration::from_secs(5 * 60);
const EACH: Duration = Duration::from_secs(2);
/// After it was opened, its first report may still be on its way.
const FIRST: Duration = Duration::from_secs(60);
/// Questions in one run.
const ASKED_IN_A_RUN: usize = 50;

/// Those that are open, and when the forge is asked about each.
#[derive(Debug, Default)]
pub(super) struct Open {
    due: DashMap<(RepoName, u64), Instant>,
    /// One report at a time: each is read, judged and written.
    turn: Turns<()>,
}

impl Open {
    pub(super) fn new(records: &[PullRequestRecord]) -> Self {
        let open = Self::default();
        for record in records {
            // What happened while Hotbed was away is asked for at once.
            open.ask_in(record, Duration::ZERO);
        }
        open
    }

    /// Follows it for as long as it is open.
    pub(super) fn note(&self, record: &PullRequestRecord) {
        match (record.number, record.state) {
            (Some(_), PullRequestState::Open) => self.ask_in(record, FIRST),
            (Some(number), _) => drop(self.due.remove(&(record.repo.clone(), number))),
            (None, _) => {}
        }
    }

    fn ask_in(&self, record: &PullRequestRecord, wait: Duration) {
        if let Some(number) = record.number {
            self.due.insert((record.repo.clone(), number), Instant::now() + wait);
        }
    }

    /// Those that are due, and puts off their next time.
    fn take_due(&self) -> Vec<(RepoName, u64)> {
        let now = Instant::now();
        let pause = ASK_EVERY.max(EACH * u32::try_from(self.due.len()).unwrap_or(u32::MAX));
        let mut due: Vec<_> =
            self.due.iter().filter(|d| *d.value() <= now).map(|d| (*d.value(), d.key().clone())).collect();
        due.sort();
        due.truncate(ASKED_IN_A_RUN);
        for (_, key) in &due {
            if let Some(mut at) = self.due.get_mut(key) {
                *at = now + pause;
            }
        }
        due.into_iter().map(|(_, key)| key).collect()
    }
}

impl Pulls {
    /// The forge tells of a pull request. One that was not asked for here is nobody's business.
    pub async fn hear(&self, repo: &RepoName, number: u64, news: News) -> Result<()> {
        self.change(repo, number, |record| record.hear(news.clone())).await
    }

    /// A reviewer has spoken.
    pub async fn reviewed(&self, repo: &RepoName, number: u64, review: &Review) -> Result<()> {
        self.change(repo, number, |record| record.reviews.absorb(review)).await
    }

    /// Changes one row, in turn with what the forge tells.
    pub(super) async fn amend(
        &self,
        id: PullRequestId,
        change: impl FnOnce(&mut PullRequestRecord),
    ) -> Result<PullRequestRecord> {
        let _turn = self.open.turn.lock().await;
        let record = self.store.pull_request(id).await?;
        let mut record = record.ok_or_else(|| Error::not_found(format!("pull request {id}")))?;
        change(&mut record);
        self.store.commit(Tx::new().pull_request(&record).durable()).await?;
        self.tell(&record);
        Ok(record)
    }

    async fn change(
        &self,
        repo: &RepoName,
        number: u64,
        change: impl Fn(&mut PullRequestRecord) -> bool,
    ) -> Result<()> {
        let _turn = self.open.turn.lock().await;
        let mut counted = false;
        let mut merged = BTreeSet::new();
        for mut record in self.store.pull_requests_numbered(repo, number).await? {
            let before = record.state;
            if !change(&mut record) {
                continue;
            }
            self.store.commit(Tx::new().pull_request(&record).durable()).await?;
            if record.state != before {
                info!(session = %record.session, %repo, number, state = ?record.state, "pull request moved on");
                // Asked for twice, it is one pull request all the same.
                if !std::mem::replace(&mut counted, true) {
                    self.metrics.pull_request_became(&record);
                }
                if record.state == PullRequestState::Merged
                    && merged.insert(record.session)
                    && self.is_first_merge(&record).await?
                {
                    self.metrics.session_merged(repo);
                }
            }
            self.open.note(&record);
            self.tell(&record);
        }
        Ok(())
    }

    /// Whether no other pull request of the session was merged before.
    async fn is_first_merge(&self, record: &PullRequestRecord) -> Result<bool> {
        let page = Page { after: None, limit: 200 };
        let all = self.store.pull_requests(None, Some(record.session), page).await?.items;
        let other = |p: &PullRequestRecord| {
            p.state == PullRequestState::Merged && (&p.repo, p.number) != (&record.repo, record.number)
        };
        Ok(!all.iter().any(other))
    }

    /// The `pull_poll` task: asks about those that are open, each once in a while. What was missed is made up for.
    pub async fn look(self: &Arc<Self>) -> Result<()> {
        for (repo, number) in self.open.take_due() {
            match self.forge.pull_request(&repo, number).await {
                Ok(Some(view)) => self.hear(&repo, number, News::of(&view, How::Asked)).await?,
                // A forge where they have no life of their own.
                Ok(None) => drop(self.open.due.remove(&(repo, number))),
                Err(e) if e.kind().is_retryable() => return Err(e),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    debug!(%repo, number, error = %e.chain(), "a pull request can't be seen");
                }
                Err(e) => warn!(%repo, number, error = %e.chain(), "could not look at a pull request"),
            }
        }
        Ok(())
    }
}
