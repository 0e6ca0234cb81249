//! Pull requests: a durable outbox. The row is written, then the forge is asked; asked again after a crash or a
//! time-out it finds what it opened before (F52). What becomes of them then is told by the forge ([`life`]); what they say
//! follows the branch ([`rewording`]).

mod life;
mod rewording;
mod words;

use std::sync::Arc;
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use domain::ports::{CommitLine, Forge, Mirrors, NewPullRequest, PullRequestOutcome, UserToken};
use domain::{
    Asked, Branch, Error, ErrorKind, PullRequestId, PullRequestRecord, PullRequestState, RepoName, Result,
    Reviews, SessionId, SessionRecord, SharedClock, TraceContext, TreePath, Words,
};
use jiff::Timestamp;
use serde_json::json;
use store::{SessionLogs, Store, Tx};
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::github::People;
use crate::github::people::Held;
use crate::metrics::Metrics;
use crate::repos::Repos;
use crate::traces::{Tracer, kinds};

/// One question to the forge.
const FORGE_DEADLINE: Duration = Duration::from_secs(60);

/// A look at the branch that it is drawn from.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);
/// Commits that a pull request is drawn from, at most.
const DRAWN_FROM: usize = 200;
/// The longest template that is taken from a repository, in bytes.
const MAX_TEMPLATE: usize = 64 * 1024;
/// Where GitHub looks for one.
const TEMPLATES: [&str; 6] = [
    ".github/pull_request_template.md",
    ".github/PULL_REQUEST_TEMPLATE.md",
    "pull_request_template.md",
    "PULL_REQUEST_TEMPLATE.md",
    "docs/pull_request_template.md",
    "docs/PULL_REQUEST_TEMPLATE.md",
];

/// What a client says of a pull request. What it leaves out is drawn from the branch.
#[derive(Debug, Clone, Default)]
pub struct PullOrder {
    pub title: Option<String>,
    pub body: Option<String>,
    pub base: Option<Branch>,
    pub draft: bool,
    /// Where the wish stands; at the session's place when not given.
    pub trace: Option<TraceContext>,
}

/// What one pull request is about: there is one for each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Subject {
    repo: RepoName,
    head: Branch,
    base: Branch,
}

impl Subject {
    fn of(record: &PullRequestRecord) -> Self {
        Self { repo: record.repo.clone(), head: record.head.clone(), base: record.base.clone() }
    }
}

/// What the outbox stands on.
pub struct Parts {
    pub forge: Arc<dyn Forge>,
    /// Whose authority the forge wants; `None` for one that wants none.
    pub people: Option<Arc<People>>,
    pub repos: Arc<Repos>,
    pub mirrors: Arc<dyn Mirrors>,
    pub store: Store,
    pub logs: SessionLogs,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub tracer: Arc<Tracer>,
}

pub struct Pulls {
    forge: Arc<dyn Forge>,
    people: Option<Arc<People>>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    store: Store,
    logs: SessionLogs,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    pending: DashMap<PullRequestId, PullRequestRecord>,
    /// Those that are to say something else, and since when.
    rewordings: DashMap<PullRequestId, Timestamp>,
    /// The newest pull request of each subject, while it is wished for or open.
    by_subject: DashMap<Subject, PullRequestId>,
    /// What the forge is being asked about now: one question at a time about one subject.
    asking: Arc<DashSet<Subject>>,
    /// Told whenever one of them has been answered.
    answered: Arc<Notify>,
    /// Those whose life goes on at the forge.
    open: life::Open,
}

/// What a branch has to say.
#[derive(Debug, Default)]
struct Drawn {
    /// What it has and its base has not, newest first.
    commits: Vec<CommitLine>,
    /// The repository's own template, where it is wanted.
    template: Option<String>,
}

/// The right to ask about a subject. Given back when dropped.
struct Turn {
    subject: Subject,
    asking: Arc<DashSet<Subject>>,
    answered: Arc<Notify>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.asking.remove(&self.subject);
        self.answered.notify_waiters();
    }
}

impl std::fmt::Debug for Pulls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pulls")
    }
}

impl Pulls {
    pub fn new(parts: Parts, loaded: Vec<PullRequestRecord>) -> Arc<Self> {
        let Parts { forge, people, repos, mirrors, store, logs, clock, metrics, tracer } = parts;
        let rewordings = loaded.iter().filter_map(|r| Some((r.id, r.rewording.as_ref()?.since))).collect();
        let by_subject = loaded.iter().map(|r| (Subject::of(r), r.id)).collect();
        let (pending, open): (Vec<_>, Vec<_>) =
            loaded.into_iter().partition(|r| r.state == PullRequestState::Pending);
        let pending = pending.into_iter().map(|r| (r.id, r)).collect();
        Arc::new(Self {
            open: life::Open::new(&open),
            forge,
            people,
            repos,
            mirrors,
            store,
            logs,
            clock,
            metrics,
            tracer,
            pending,
            rewordings,
            by_subject,
            asking: Arc::default(),
            answered: Arc::default(),
        })
    }

    /// Writes the wish down and asks the forge. A forge that can't be reached leaves it `pending`, to be asked again. Where
    /// there is one of the session's branch already, it is that one, and says what is asked for now.
    ///
    /// # Errors
    /// `Invalid` for a title that is none, `Timeout` while the forge keeps another question about it waiting.
    pub async fn open(
        &self,
        session: &SessionRecord,
        order: PullOrder,
        key: Option<&crate::idempotency::Guard>,
    ) -> Result<PullRequestRecord> {
        if let Some(title) = &order.title
            && (title.trim().is_empty() || title.chars().count() > 256)
        {
            return Err(Error::invalid("`title` is empty or longer than 256 characters"));
        }
        let base = order.base.unwrap_or_else(|| session.base.clone());
        let subject = Subject { repo: session.repo.clone(), head: session.branch.clone(), base };
        let _turn = self.turn(&subject).await?;
        let asked = Asked { title: order.title, body: order.body };
        let trace = order.trace.or_else(|| session.trace.clone());
        match self.under_way(&subject).await? {
            Some(there) => self.ask_for_more(session, there, asked, key).await,
            None => self.open_new(session, subject, asked, order.draft, trace, key).await,
        }
    }

    async fn open_new(
        &self,
        session: &SessionRecord,
        subject: Subject,
        asked: Asked,
        draft: bool,
        trace: Option<TraceContext>,
        key: Option<&crate::idempotency::Guard>,
    ) -> Result<PullRequestRecord> {
        let words = self.words(session, &subject.base, &asked).await;
        let record = PullRequestRecord {
            id: PullRequestId::new(),
            session: session.id,
            repo: session.repo.clone(),
            state: PullRequestState::Pending,
            number: None,
            url: None,
            head: session.branch.clone(),
            head_commit: None,
            base: subject.base.clone(),
            title: words.title,
            body: words.body,
            draft,
            author: session.user.login.clone(),
            created_at: self.clock.now(),
            error: None,
            opened_at: None,
            merged_at: None,
            life: None,
            reviews: Reviews::default(),
            revisions: 0,
            asked,
            said: None,
            rewording: None,
            trace,
        };
        self.store.commit(keyed(Tx::new().pull_request(&record).durable(), key, record.id)).await?;
        self.by_subject.insert(subject, record.id);
        self.pending.insert(record.id, record.clone());
        self.ask_alone(record, false).await
    }

    /// It is asked for again: what is said this time counts.
    async fn ask_for_more(
        &self,
        session: &SessionRecord,
        there: PullRequestRecord,
        asked: Asked,
        key: Option<&crate::idempotency::Guard>,
    ) -> Result<PullRequestRecord> {
        let asked = Asked {
            title: asked.title.or_else(|| there.asked.title.clone()),
            body: asked.body.or_else(|| there.asked.body.clone()),
        };
        let words = self.words(session, &there.base, &asked).await;
        let mut record = there;
        if record.asked != asked || key.is_some() {
            record.asked = asked.clone();
            self.store.commit(keyed(Tx::new().durable(), key, record.id)).await?;
            record = if record.state == PullRequestState::Pending {
                record
            } else {
                self.amend(record.id, |r| r.asked = asked.clone()).await?
            };
        }
        let record = self.reword(record, words, true).await?;
        if record.state == PullRequestState::Pending {
            self.ask_alone(record, true).await
        } else {
            Ok(record)
        }
    }

    /// What a pull request of this session would say. A branch that can't be looked at keeps no wish from being written
    /// down: less is drawn from it then.
    async fn words(&self, session: &SessionRecord, base: &Branch, asked: &Asked) -> Words {
        let drawn = self.drawn(session, base, asked).await.unwrap_or_else(|e| {
            warn!(session = %session.id, error = %e.chain(), "a pull request is worded without its commits");
            Drawn::default()
        });
        self.word(session, base, asked, &drawn)
    }

    fn word(&self, session: &SessionRecord, base: &Branch, asked: &Asked, drawn: &Drawn) -> Words {
        let policy = self.repos.spec(&session.repo).map(|spec| spec.pulls.clone()).unwrap_or_default();
        let template = drawn.template.as_deref();
        words::words(asked, &policy, &words::Facts { session, base, commits: &drawn.commits, template })
    }

    async fn drawn(&self, session: &SessionRecord, base: &Branch, asked: &Asked) -> Result<Drawn> {
        let looked = tokio::time::timeout(LOOK_DEADLINE, self.branch(session, base, asked)).await;
        looked.unwrap_or_else(|_| Err(Error::timeout("look at a session's branch")))
    }

    async fn branch(&self, session: &SessionRecord, base: &Branch, asked: &Asked) -> Result<Drawn> {
        let (repo, head) = (&session.repo, &session.branch);
        if self.mirrors.tip(repo, head).await?.is_none() {
            // Pushed by somebody else, past Hotbed.
            self.mirrors.refresh(repo).await?;
        }
        let tips = (self.mirrors.tip(repo, base).await?, self.mirrors.tip(repo, head).await?);
        let (Some(from), Some(to)) = tips else { return Ok(Drawn::default()) };
        let template = if asked.body.is_none() { self.template(repo, &from).await } else { None };
        let commits = self.mirrors.log(repo, &from, &to, DRAWN_FROM).await?;
        Ok(Drawn { commits, template })
    }

    /// The repository's own template. One that can't be read is none.
    async fn template(&self, repo: &RepoName, at: &domain::CommitId) -> Option<String> {
        for path in TEMPLATES {
            let path: TreePath = path.parse().ok()?;
            if let Ok(Some(text)) = self.mirrors.read(repo, at, &path, MAX_TEMPLATE).await {
                return Some(String::from_utf8_lossy(&text).into_owned());
            }
        }
        None
    }

    /// How many wait to be told to the forge, and since when the oldest does.
    pub fn pending(&self) -> (usize, Option<Timestamp>) {
        let opened = self.pending.iter().map(|r| r.created_at).min();
        let changed = self.rewordings.iter().map(|r| *r.value()).min();
        (self.pending.len() + self.rewordings.len(), opened.into_iter().chain(changed).min())
    }

    /// Asks again for what waits.
    pub async fn flush(&self) {
        let waiting: Vec<_> = self.pending.iter().map(|r| Subject::of(&r)).collect();
        for subject in waiting {
            if let Err(e) = self.ask_again(&subject).await {
                warn!(error = %e.chain(), "could not record a pull request");
            }
        }
        self.flush_rewordings().await;
    }

    async fn ask_again(&self, subject: &Subject) -> Result<()> {
        let _turn = self.turn(subject).await?;
        // It may have been answered since.
        match self.under_way(subject).await? {
            Some(record) if record.state == PullRequestState::Pending => {
                self.ask_alone(record, true).await.map(drop)
            }
            _ => Ok(()),
        }
    }

    /// Waits until nobody else asks about this subject: two wishes for one pull request find one (F52).
    async fn turn(&self, subject: &Subject) -> Result<Turn> {
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
        let waited = tokio::time::timeout(FORGE_DEADLINE, turn).await;
        waited.map_err(|_| {
            Error::timeout(format!(
                "the forge keeps another question about {} of {} waiting; ask again",
                subject.head, subject.repo
            ))
        })?;
        let (asking, answered) = (self.asking.clone(), self.answered.clone());
        Ok(Turn { subject: subject.clone(), asking, answered })
    }

    /// The pull request of a subject that is wished for or open.
    async fn under_way(&self, subject: &Subject) -> Result<Option<PullRequestRecord>> {
        let Some(id) = self.by_subject.get(subject).map(|id| *id) else { return Ok(None) };
        if let Some(pending) = self.pending.get(&id) {
            return Ok(Some(pending.clone()));
        }
        let record = self.store.pull_request(id).await?;
        let record = record.filter(|r| r.state == PullRequestState::Open);
        if record.is_none() {
            self.by_subject.remove_if(subject, |_, known| *known == id);
        }
        Ok(record)
    }

    fn subjects_of(&self, repo: &RepoName, head: &Branch) -> Vec<Subject> {
        let of = |s: &Subject| s.repo == *repo && s.head == *head;
        self.by_subject.iter().filter(|e| of(e.key())).map(|e| e.key().clone()).collect()
    }

    /// Asks the forge; the caller holds the turn. `again` says that an earlier answer may have been lost.
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
        let mut span = self.tracer.child(&kinds::PULL_REQUEST, record.trace.as_ref());
        span.show(kinds::SESSION, record.session);
        span.show(kinds::REPO, &record.repo);
        let asked = tokio::time::timeout(FORGE_DEADLINE, self.ask_as_user(record.session, &new)).await;
        match asked.unwrap_or_else(|_| Err(Error::timeout("open a pull request"))) {
            Ok(Answer { outcome: PullRequestOutcome::ByHand { link }, why }) => {
                record.state = PullRequestState::Refused;
                record.error = Some(format!("{why}; open it at {link} once the branch is pushed"));
                record.url = Some(link);
                self.metrics.pull_request("by_hand");
                span.set(kinds::RESULT, "by_hand");
            }
            Ok(Answer { outcome: PullRequestOutcome::Opened(opened), .. }) => {
                record.state = PullRequestState::Open;
                record.number = Some(opened.number);
                record.url = Some(opened.url);
                record.head_commit = Some(opened.head_commit);
                record.opened_at = Some(opened.opened_at);
                record.error = None;
                // One that was there before says what somebody else had it say.
                record.said =
                    opened.created.then(|| Words { title: record.title.clone(), body: record.body.clone() });
                let result = if opened.created { "opened" } else { "found" };
                self.metrics.pull_request(result);
                span.set(kinds::RESULT, result);
                span.set(kinds::NUMBER, opened.number as i64);
                if opened.created
                    && let Ok(Some(session)) = self.store.session(record.session).await
                {
                    let took = opened.opened_at.duration_since(session.created_at);
                    self.metrics.pull_request_opened_after(took);
                }
                info!(session = %record.session, repo = %record.repo, number = opened.number, "pull request open");
            }
            Err(e) if e.kind().is_retryable() => {
                span.fail(e.kind());
                record.error = Some(e.chain());
                self.pending.insert(record.id, record.clone());
                self.store.commit(Tx::new().pull_request(&record)).await?;
                return Ok(record);
            }
            Err(e) => {
                span.fail(e.kind());
                record.state = PullRequestState::Refused;
                record.error = Some(e.chain());
                self.metrics.pull_request("refused");
                span.set(kinds::RESULT, "refused");
            }
        }
        drop(span);
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
        self.metrics.pull_request_stands(record);
    }
}

fn keyed(tx: Tx, key: Option<&crate::idempotency::Guard>, id: PullRequestId) -> Tx {
    match key {
        Some(key) => tx.idempotency(&key.row(&id.to_string())),
        None => tx,
    }
}

/// What the forge said, and why it was asked without a token, if it was.
struct Answer {
    outcome: PullRequestOutcome,
    why: String,
}
