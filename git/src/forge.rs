//! The forge for repositories without GitHub: a pull request is a number and an address of Hotbed's own, and it
//! is opened only where it means something, by the real references.
//!
//! Where pull requests are recorded is the [`Ledger`]'s business. Merging is nobody's business here.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::{Forge, Mirrors, NewPullRequest, OpenedPullRequest, PullRequestOutcome, UserToken};
use domain::{Branch, CommitId, Error, RepoName, Result, SharedClock};

/// The record of opened pull requests.
#[async_trait]
pub trait Ledger: Send + Sync + fmt::Debug {
    /// The open pull request of this head and base.
    async fn find_open(
        &self,
        repo: &RepoName,
        head: &Branch,
        base: &Branch,
    ) -> Result<Option<OpenedPullRequest>>;

    /// A number that this repo has not given to a pull request yet. Gaps are fine.
    async fn next_number(&self, repo: &RepoName) -> Result<u64>;

    /// Writes a new pull request down, or answers the open one of the same head and base when another call was
    /// faster. A ledger that is written only by the caller, one call at a time, need not do anything.
    async fn record(&self, new: &NewPullRequest, opened: OpenedPullRequest) -> Result<OpenedPullRequest> {
        let _ = new;
        Ok(opened)
    }
}

pub struct LocalForge {
    mirrors: Arc<dyn Mirrors>,
    ledger: Arc<dyn Ledger>,
    clock: SharedClock,
    base_url: String,
}

impl fmt::Debug for LocalForge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LocalForge({})", self.base_url)
    }
}

impl LocalForge {
    /// `base_url` is where Hotbed's API is reached, with or without a slash at its end.
    pub fn new(
        mirrors: Arc<dyn Mirrors>,
        ledger: Arc<dyn Ledger>,
        clock: SharedClock,
        base_url: impl Into<String>,
    ) -> Self {
        let mut base_url = base_url.into();
        base_url.truncate(base_url.trim_end_matches('/').len());
        Self { mirrors, ledger, clock, base_url }
    }

    async fn tip(&self, repo: &RepoName, branch: &Branch) -> Result<CommitId> {
        let tip = self.mirrors.tip(repo, branch).await?;
        tip.ok_or_else(|| Error::invalid(format!("branch {branch} of {repo} does not exist upstream")))
    }
}

#[async_trait]
impl Forge for LocalForge {
    async fn open_pull_request(
        &self,
        _: Option<&UserToken>,
        new: &NewPullRequest,
    ) -> Result<PullRequestOutcome> {
        let NewPullRequest { repo, head, base, .. } = new;
        if let Some(there) = self.ledger.find_open(repo, head, base).await? {
            return Ok(PullRequestOutcome::Opened(OpenedPullRequest { created: false, ..there }));
        }
        if head == base {
            return Err(Error::invalid(format!("head and base are the same branch, {head}")));
        }
        self.mirrors.refresh(repo).await?;
        let base_commit = self.tip(repo, base).await?;
        let head_commit = self.tip(repo, head).await?;
        match self.mirrors.distance(repo, &base_commit, &head_commit).await? {
            Some(0) => return Err(Error::invalid(format!("no commits between {base} and {head}"))),
            None => return Err(Error::invalid(format!("{head} has no history in common with {base}"))),
            Some(_) => {}
        }
        let number = self.ledger.next_number(repo).await?;
        let url = format!("{}/v1/pull-requests/{repo}/{number}", self.base_url);
        let opened =
            OpenedPullRequest { number, url, head_commit, created: true, opened_at: self.clock.now() };
        self.ledger.record(new, opened).await.map(PullRequestOutcome::Opened)
    }
}
