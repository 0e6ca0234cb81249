//! The authority that git gets at GitHub: to read, a token of the App that reaches the one repository – made for a
//! clone and ended with it, or shared by the looks of an hour; to push, the session's user's own. Never the one for the
//! other.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use async_trait::async_trait;
use domain::{Error, RepoName, Result, SessionId};
use git::{Authority, Credentials, Operation};
use github::{Access, InstallationToken, Lease, git_header};

use super::Github;
use crate::repos::Repos;
use crate::sessions::Sessions;

/// How GitHub begins the tokens that users get by signing in to the App.
const OF_APP: &str = "ghu_";

/// [`Credentials`] of the mirrors. It is made before the repos and sessions that it asks, which are made known to it
/// when they are there.
#[derive(Clone)]
pub struct Upstream(Arc<Inner>);

struct Inner {
    github: Arc<Github>,
    known: OnceLock<(Arc<Repos>, Weak<Sessions>)>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Upstream")
    }
}

impl Upstream {
    pub fn new(github: Arc<Github>) -> Self {
        Self(Arc::new(Inner { github, known: OnceLock::new() }))
    }

    pub fn learn(&self, repos: Arc<Repos>, sessions: &Arc<Sessions>) {
        let _ = self.0.known.set((repos, Arc::downgrade(sessions)));
    }

    async fn to_push(&self, repo: &RepoName, session: SessionId) -> Result<Authority> {
        let (_, sessions) = self.0.known.get().ok_or_else(starting)?;
        let sessions = sessions.upgrade().ok_or_else(starting)?;
        let user = sessions.require(session).await?.record().user.login.clone();
        let token = self.0.github.people.to_push(session, &user).await?;
        // What a user's token of the App reaches is bounded by the App; of a personal one only GitHub knows.
        let workflows = if token.expose().starts_with(OF_APP) {
            self.0.github.app.lets_change_workflows(repo)
        } else {
            None
        };
        Ok(Authority::new(git_header(token.expose()).as_str()).for_workflows(workflows))
    }
}

#[async_trait]
impl Credentials for Upstream {
    async fn authority(
        &self,
        repo: &RepoName,
        operation: Operation,
        session: Option<SessionId>,
    ) -> Result<Option<Authority>> {
        let (repos, _) = self.0.known.get().ok_or_else(starting)?;
        if !self.0.github.has(repo, &repos.spec(repo)?.url) {
            return Ok(None);
        }
        match (operation, session) {
            // It has a quarter of an hour left, and git has minutes (F50).
            (Operation::Fetch, _) => {
                let token = self.0.github.app.token(repo, Access::ReadContents).await?;
                let header = token.git_header();
                Ok(Some(Authority::new(header.as_str()).holding(token).shared()))
            }
            (Operation::Clone, _) => {
                let lease = Lease::new(self.0.github.app.clone(), repo.clone(), Access::ReadContents);
                let header = lease.token().await?.git_header();
                Ok(Some(Authority::new(header.as_str()).holding(lease)))
            }
            (Operation::Push, Some(session)) => self.to_push(repo, session).await.map(Some),
            (Operation::Push, None) => Err(Error::denied("nobody pushes without a session")),
        }
    }

    fn doubt(&self, session: SessionId) {
        self.0.github.people.doubt(session);
    }

    async fn refused(&self, repo: &RepoName, authority: &Authority) {
        if let Some(token) = authority.held::<InstallationToken>() {
            self.0.github.app.rejected(repo, Access::ReadContents, token).await;
        }
    }
}

fn starting() -> Error {
    Error::unavailable("Hotbed is starting or stopping")
}
