//! With what upstream is spoken to: who gives it, and how long it holds. Where it comes from is the caller's to know.

use std::any::Any;
use std::fmt;

use async_trait::async_trait;
use domain::{RepoName, Result, SessionId};
use zeroize::Zeroizing;

/// What is done at upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// The whole of a repository is brought, once; it may take long ([`super::MirrorOptions::clone_deadline`]).
    Clone,
    /// Upstream is looked at, and what is new there is brought: often, and within [`super::MirrorOptions::fetch_deadline`].
    Fetch,
    Push,
}

/// Authority at upstream for one operation. It is dropped when the operation has ended.
pub struct Authority {
    pub(super) header: Zeroizing<String>,
    /// What is kept as long as it: a token that was made for this operation alone, and ends with it.
    held: Option<Box<dyn Any + Send + Sync>>,
    /// Whether other operations have the same.
    pub(super) shared: bool,
    /// Whether it covers files of workflows, where that is known.
    pub(super) workflows: Option<bool>,
}

impl Authority {
    /// A whole header line: `Authorization: Basic …`.
    pub fn new(header: impl Into<String>) -> Self {
        Self { header: Zeroizing::new(header.into()), held: None, shared: false, workflows: None }
    }

    /// Says whether upstream takes changes of workflow files by it.
    #[must_use]
    pub fn for_workflows(mut self, covered: Option<bool>) -> Self {
        self.workflows = covered;
        self
    }

    /// Drops `what` together with it.
    #[must_use]
    pub fn holding(mut self, what: impl Send + Sync + 'static) -> Self {
        self.held = Some(Box::new(what));
        self
    }

    /// What it holds, if it is one of these.
    pub fn held<T: 'static>(&self) -> Option<&T> {
        self.held.as_ref()?.downcast_ref()
    }

    /// Says that earlier operations had it too, so that upstream may have ended it meanwhile. Where it is refused,
    /// [`Credentials::refused`] is told, and the operation is tried once more with what is given then.
    #[must_use]
    pub fn shared(mut self) -> Self {
        self.shared = true;
        self
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.held.is_some() { "Authority(…, held)" } else { "Authority(…)" })
    }
}

/// Gives authority at upstream, for one operation at a time.
#[async_trait]
pub trait Credentials: Send + Sync + fmt::Debug {
    /// The authority, or `None` to go without. `session` is who pushes; others have none. It is asked anew for each
    /// operation, so that a token can't be too old (F50).
    async fn authority(
        &self,
        repo: &RepoName,
        operation: Operation,
        session: Option<SessionId>,
    ) -> Result<Option<Authority>>;

    /// Upstream did not take a push of this session: what it was given may be believed no longer.
    fn doubt(&self, session: SessionId) {
        let _ = session;
    }

    /// Upstream refused what is [shared](Authority::shared): it is not to be given again.
    async fn refused(&self, repo: &RepoName, authority: &Authority) {
        let _ = (repo, authority);
    }
}
