//! Pull requests: a durable outbox. The row is written, then the forge is asked; asked again after a crash or a
//! time-out it finds what it opened before (F52). What becomes of them then is told by the forge ([`life`]).

mod life;

use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use domain::ports::{Forge, NewPullRequest, PullRequestOutcome, UserToken};
use domain::{
    Branch, Error, ErrorKind, PullRequestId, PullRequestRecord, PullRequestState, RepoName, Result, Reviews,
    SessionId, SessionRecord, SharedClock,
};
use jiff::Timestamp;
use serde_json::json;
use store::{SessionLogs, Store, Tx};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::github::People;
use crate::github::people::Held;
use crate::metrics::Metrics;

/// One question to the forge.
const FORGE_DEADLINE: Duration = Duration::from_secs(60);

/// What a client says of a pull request.
#[derive(Debug, Clone)]
pub struct PullOrder {
    pub title: String,
    pub body: String,
    pub base: Option<Branch>,
    pub draft: bool,
}

pub struct Pulls {
    forge: Arc<dyn Forge>,
    /// Whose authority the forge wants; `None` for one that wants none.
    people: Option<Arc<People>>,
    store: Store,
    logs: SessionLogs,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    pending: DashMap<PullRequestId, PullRequestRecord>,
    /// What the forge is being asked for now: one question at a time about one head and base.
    asking: DashSet<(RepoName, Branch, Branch)>,
    /// Told whenever one of them has been answered.
    answered: Notify,
    /// Those whose life goes on at the forge.
    open: life::Open,
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pulls")
    }
}

impl Pulls {
    pub fn new(
        forge: Arc<dyn Forge>,
        people: Option<Arc<People>>,
        store: Store,
        logs: SessionLogs,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        loaded: Vec<PullRequestRecord>,
    ) -> Arc<Self> {
        let (pending, open): (Vec<_>, Vec<_>) =
            loaded.into_iter().partition(|r| r.state == PullRequestState::Pending);
        let pending = pending.into_iter().map(|r| (r.id, r)).collect();
        Arc::new(Self {
            open: life::Open::new(&open),
            forge,
            people,
            store,
            logs,
            clock,
            metrics,
            pending,
            asking: DashSet::new(),
            answered: Notify::new(),
        })
    }

    /// Writes the wish down and asks the forge. A forge that can't be reached leaves it `pending`, to be asked again.
    pub async fn open(
        &self,
        session: &SessionRecord,
        order: PullOrder,
        key: Option<&crate::idempotency::Guard>,
    ) -> Result<PullRequestRecord> {
        if order.title.trim().is_empty() || order.title.len() > 256 {
            return Err(Error::invalid("`title` is empty or longer than 256 characters"));
        }
        let record = PullRequestRecord {
            id: PullRequestId::new(),
            session: session.id,
            repo: session.repo.clone(),
            state: PullRequestState::Pending,
            number: None,
            url: None,
            head: session.branch.clone(),
            head_commit: None,
            base: order.base.unwrap_or_else(|| session.base.clone()),
            title: order.title,
            body: order.body,
            draft: order.draft,
            author: session.user.login.clone(),
            created_at: self.clock.now(),
            error: None,
            opened_at: None,
            merged_at: None,
            life: None,
            reviews: Reviews::default(),
            revisions: 0,
        };
        let mut tx = Tx::new().pull_request(&record).durable();
        if let Some(key) = key {
            tx = tx.idempotency(&key.row(&record.id.to_string()));
        }
        self.store.commit(tx).await?;
        self.pending.insert(record.id, record.clone());
        self.ask(record, false).await
    }

    /// How many wait to be told to the forge, and since when the oldest does.
    pub fn pending(&self) -> (usize, Option<Timestamp>) {
        (self.pending.len(), self.pending.iter().map(|r| r.created_at).min())
    }

    /// Asks again for what waits.
    pub async fn flush(&self) {
        let waiting: Vec<_> = self.pending.iter().map(|r| r.key().to_owned()).collect();
        for id in waiting {
            // It may have been answered since.
            let Some(record) = self.pending.get(&id).map(|r| r.clone()) else { continue };
            if let Err(e) = self.ask(record, true).await {
                warn!(error = %e.chain(), "could not record a pull request");
            }
        }
    }

    /// Asks the forge. While somebody else asks the same it waits, and then finds what was opened (F52). `again` says
    /// that an earlier answer may have been lost.
    async fn ask(&self, record: PullRequestRecord, again: bool) -> Result<PullRequestRecord> {
        let subject = (record.repo.clone(), record.head.clone(), record.base.clone());
        let turn = async {
            loop {
                let answered = self.answered.notified();
                tokio::pin!(answered);
                // Listening before looking: an answer in between is not missed.
                answered.as_mut().enable();
                if self.asking.insert(subject.clone()) {
                    return;
                }
                answered.await;
            }
        };
        if tokio::time::timeout(FORGE_DEADLINE, turn).await.is_err() {
            return Ok(record);
        }
        // It may have been answered while this waited.
        let done = match self.pending.get(&record.id).map(|r| r.clone()) {
            Some(record) => self.ask_alone(record, again).await,
            None => self.store.pull_request(record.id).await.map(|found| found.unwrap_or(record)),
        };
        self.asking.remove(&subject);
        self.answered.notify_waiters();
        done
    }

    async fn ask_alone(&self, mut record: PullRequestRecord, again: bool) -> Result<PullRequestRecord> {
        let new = NewPullRequest {
            repo: record.repo.clone(),
            head: record.head.clone(),
            base: record.base.clone(),
            title: record.title.clone(),
            body: record.body.clone(),
            draft: record.draft,
            author: record.author.clone(),
            unanswered_since: again.then_some(record.created_at),
        };
        let asked = tokio::time::timeout(FORGE_DEADLINE, self.ask_as_user(record.session, &new)).await;
        match asked.unwrap_or_else(|_| Err(Error::timeout("open a pull request"))) {
            Ok(Answer { outcome: PullRequestOutcome::ByHand { link }, why }) => {
                record.state = PullRequestState::Refused;
                record.error = Some(format!("{why}; open it at {link} once the branch is pushed"));
                record.url = Some(link);
                self.metrics.pull_request("by_hand");
            }
            Ok(Answer { outcome: PullRequestOutcome::Opened(opened), .. }) => {
                record.state = PullRequestState::Open;
                record.number = Some(opened.number);
                record.url = Some(opened.url);
                record.head_commit = Some(opened.head_commit);
                record.opened_at = Some(opened.opened_at);
                record.error = None;
                self.metrics.pull_request(if opened.created { "opened" } else { "found" });
                if opened.created
                    && let Ok(Some(session)) = self.store.session(record.session).await
                {
                    let took = opened.opened_at.duration_since(session.created_at);
                    self.metrics.pull_request_opened_after(took);
                }
                info!(session = %record.session, repo = %record.repo, number = opened.number, "pull request open");
            }
            Err(e) if e.kind().is_retryable() => {
                record.error = Some(e.chain());
                self.pending.insert(record.id, record.clone());
                self.store.commit(Tx::new().pull_request(&record)).await?;
                return Ok(record);
            }
            Err(e) => {
                record.state = PullRequestState::Refused;
                record.error = Some(e.chain());
                self.metrics.pull_request("refused");
            }
        }
        self.store.commit(Tx::new().pull_request(&record).durable()).await?;
        self.pending.remove(&record.id);
        self.open.note(&record);
        self.tell(&record);
        Ok(record)
    }

    /// Asks the forge with what the session's user has; where that is believed no longer, once more with what takes
    /// its place.
    async fn ask_as_user(&self, session: SessionId, new: &NewPullRequest) -> Result<Answer> {
        let ask = async |token: Option<&UserToken>| self.forge.open_pull_request(token, new).await;
        let without = async |why: String| Ok(Answer { outcome: ask(None).await?, why });
        let Some(people) = &self.people else { return without(String::new()).await };
        let token = match people.held(session, &new.author).await? {
            Held::Token(token) => token,
            Held::Nothing { why } => return without(why).await,
        };
        let refused = match ask(Some(&token)).await {
            Err(e) if e.kind() == ErrorKind::Denied => e,
            answer => return answer.map(|outcome| Answer { outcome, why: String::new() }),
        };
        match people.instead(session, &new.author, &token).await? {
            Some(Held::Token(newer)) if newer.expose() != token.expose() => {
                let outcome = ask(Some(&newer)).await?;
                Ok(Answer { outcome, why: String::new() })
            }
            Some(Held::Nothing { why }) => without(why).await,
            _ => Err(refused),
        }
    }

    /// A line in the session's log about how it stands.
    fn tell(&self, record: &PullRequestRecord) {
        let data = json!({
            "id": record.id, "state": record.state, "number": record.number, "url": record.url,
            "approvals": record.reviews.approvals(), "changes_requested": record.reviews.changes_requested(),
            "error": record.error,
        });
        crate::sessions::post(&self.logs, record.session, "pull_request", data);
    }
}

/// What the forge said, and why it was asked without a token, if it was.
struct Answer {
    outcome: PullRequestOutcome,
    why: String,
}
