//! What GitHub's deliveries mean here. They are worked in order of arrival, each until it is done; what decides is
//! never the order but GitHub's own times ([`domain::Life`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::ports::Mirrors;
use domain::{RepoName, Result};
use github::webhook::{Event, InstallationChange, Push, RepositoryChange, RepositoryRef};
use jiff::SignedDuration;
use store::{Delivery, Tx};
use tracing::{info, warn};

use super::Github;
use crate::builds::Builds;
use crate::pulls::Pulls;
use crate::repos::Repos;

/// Deliveries read from the store at a time.
const BATCH: u32 = 200;
/// One that could not be worked for so long is given up: what it said has been asked for by then.
const PATIENCE: SignedDuration = SignedDuration::from_hours(1);

/// What deliveries act on.
pub struct Reach<'a> {
    pub repos: &'a Arc<Repos>,
    pub builds: &'a Arc<Builds>,
    pub pulls: &'a Arc<Pulls>,
    pub mirrors: &'a Arc<dyn Mirrors>,
}

impl Github {
    /// The `webhook_work` task: works what waits. What fails and may pass stays, and what comes after it goes on.
    pub async fn work(&self, reach: &Reach<'_>) -> Result<()> {
        let (mut after, mut left) = (0, 0);
        let mut stale = BTreeSet::new();
        loop {
            let batch = self.hooks.store.deliveries_waiting(after, BATCH).await?;
            let Some((last, _)) = batch.last() else { break };
            after = *last;
            let mut worked = Tx::new();
            for (_, delivery) in &batch {
                if self.done_with(reach, delivery, &mut stale).await {
                    worked = worked.delivery_worked(&delivery.id);
                } else {
                    left += 1;
                }
            }
            self.hooks.store.commit(worked).await?;
        }
        self.hooks.now_waiting(left);
        for repo in stale {
            let mirrors = reach.mirrors.clone();
            // Of one repo there is one fetch at a time, whoever asks.
            tokio::spawn(async move {
                if let Err(e) = mirrors.refresh(&repo).await {
                    warn!(%repo, error = %e.chain(), "refresh of the mirror failed");
                }
            });
        }
        Ok(())
    }

    async fn done_with(
        &self,
        reach: &Reach<'_>,
        delivery: &Delivery,
        stale: &mut BTreeSet<RepoName>,
    ) -> bool {
        let Delivery { id, event, body, received_at } = delivery;
        let worked = match Event::read(event, body) {
            Ok(event) => self.act(reach, event, stale).await,
            Err(e) => Err(e),
        };
        let Err(e) = worked else { return true };
        let waited = self.hooks.clock.now().duration_since(*received_at);
        if e.kind().is_retryable() && waited < PATIENCE {
            return false;
        }
        self.hooks.metrics.webhook("failed");
        warn!(event, delivery = id, error = %e.chain(), "a delivery could not be worked");
        true
    }

    async fn act(&self, reach: &Reach<'_>, event: Event, stale: &mut BTreeSet<RepoName>) -> Result<()> {
        match event {
            Event::Ping | Event::Other => Ok(()),
            Event::Push(push) => pushed(reach, push, stale).await,
            Event::PullRequest(news) => match named(reach, &news.repository.name) {
                Some(repo) => reach.pulls.hear(&repo, news.pull_request.number, news.news()).await,
                None => Ok(()),
            },
            Event::Review(news) => match named(reach, &news.repository.name) {
                Some(repo) => reach.pulls.reviewed(&repo, news.number, &news.review).await,
                None => Ok(()),
            },
            Event::Installation(change) => {
                self.installation(reach, &change);
                Ok(())
            }
            Event::InstallationRepositories(change) => {
                for repo in configured(reach, &change.removed) {
                    self.app.forget(&repo);
                    warn!(%repo, "the App was taken off this repository: it can't be read any more");
                }
                for repo in configured(reach, &change.added) {
                    self.app.forget(&repo);
                    stale.insert(repo);
                }
                Ok(())
            }
            Event::AuthorizationRevoked { account, login } => {
                info!(login, "a user took the App's authorization back");
                self.people.revoked(account).await
            }
            Event::Repository(change) => {
                self.repository(reach, &change);
                Ok(())
            }
        }
    }

    /// Which repositories an installation reaches is not always told: what is known of each is looked up anew.
    fn installation(&self, reach: &Reach<'_>, change: &InstallationChange) {
        for spec in reach.repos.all() {
            self.app.forget(&spec.name);
        }
        match change {
            InstallationChange::Deleted { installation } => {
                warn!(installation, "an installation of the App was removed: what it reached can't be read");
            }
            InstallationChange::Suspended { installation } => {
                warn!(
                    installation,
                    "an installation of the App was suspended: what it reaches can't be read"
                );
            }
            InstallationChange::Created { installation, .. }
            | InstallationChange::Unsuspended { installation }
            | InstallationChange::PermissionsAccepted { installation } => {
                info!(installation, "an installation of the App has changed");
            }
        }
    }

    fn repository(&self, reach: &Reach<'_>, change: &RepositoryChange) {
        let (old, remedy) = match change {
            RepositoryChange::Renamed { repository, from } => (
                format!("{}/{from}", repository.name.owner()),
                format!("is called {} now: change `name` and `url`", repository.name),
            ),
            RepositoryChange::Transferred { repository, from_owner } => (
                format!("{}/{}", from_owner.as_deref().unwrap_or_default(), repository.name.name()),
                format!("is {} now: change `name` and `url`", repository.name),
            ),
            RepositoryChange::Deleted { repository } => {
                (repository.name.to_string(), "was deleted: take it out of the configuration".to_owned())
            }
        };
        if let Some(old) = old.parse().ok().and_then(|old| named(reach, &old)) {
            self.app.forget(&old);
            warn!(repo = %old, remedy, "a repository of the configuration is not what it was");
        }
    }
}

/// A branch moved: the one that images are built from is looked at soon, of others the mirror is brought up to date
/// unless it was Hotbed itself that pushed.
async fn pushed(reach: &Reach<'_>, push: Push, stale: &mut BTreeSet<RepoName>) -> Result<()> {
    let Some(repo) = named(reach, &push.repository.name) else { return Ok(()) };
    let spec = reach.repos.spec(&repo)?;
    match &push.after {
        Some(commit) if push.branch == spec.branch => reach.builds.pushed(&repo, commit).await?,
        after => {
            let known = reach.mirrors.tip(&repo, &push.branch).await.ok().flatten();
            if known != *after {
                stale.insert(repo);
            }
        }
    }
    Ok(())
}

/// The name that the configuration has for it. GitHub does not tell `Acme/api` from `acme/api`.
fn named(reach: &Reach<'_>, repo: &RepoName) -> Option<RepoName> {
    let same = |name: &RepoName| name.as_str().eq_ignore_ascii_case(repo.as_str());
    reach.repos.all().into_iter().map(|spec| spec.name.clone()).find(same)
}

fn configured(reach: &Reach<'_>, repositories: &[RepositoryRef]) -> Vec<RepoName> {
    repositories.iter().filter_map(|r| named(reach, &r.name)).collect()
}
