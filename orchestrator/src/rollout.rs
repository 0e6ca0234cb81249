//! Images on trial: which sandboxes try a canary, when it has been tried enough, and what follows when an image fails
//! in sandboxes that are somebody's. The decisions are `image_builder::rollout`'s; they are made at the images' desk.

use std::sync::Arc;

use domain::{
    ImageFailure, ImageId, ImageRecord, ImageState, RepoName, Result, SandboxId, SessionId, SharedClock,
};
use image_builder::{Blame, Trial};
use tracing::{info, warn};

use crate::fleet::Fleet;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::repos::Repos;

/// What became of an image after it was promoted. Labels of `hotbed_image_verdicts_total`.
pub const VERDICTS: [&str; 3] = ["promoted", "demoted", "stays"];

pub struct Rollout {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    images: Arc<Images>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
}

impl std::fmt::Debug for Rollout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rollout")
    }
}

impl Rollout {
    pub fn new(
        fleet: Arc<Fleet>,
        repos: Arc<Repos>,
        images: Arc<Images>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { fleet, repos, images, clock, metrics })
    }

    /// Promotes the canaries that have been tried enough. A failure is one repo's, and tried again the next time.
    pub async fn judge(&self) -> Result<()> {
        let mut result = Ok(());
        for spec in self.repos.all() {
            let Some(canary) = self.repos.handed_out(&spec.name).canary else { continue };
            let policy = spec.rollout.canary.as_ref();
            let Trial::Passed(why) = image_builder::trial(self.clock.now(), policy, &canary) else {
                continue;
            };
            match self.images.change(&spec.name, |images| Ok(image_builder::pass(canary.id, images))).await {
                Ok(rows) if rows.iter().any(|r| r.state == ImageState::Current) => {
                    info!(repo = %spec.name, image = %canary.id, why, "a canary has passed, and is current");
                    self.metrics.image_judged(&spec.name, "promoted");
                    self.fleet.pool_poke.notify_one();
                }
                Ok(rows) => {
                    for row in rows {
                        info!(repo = %spec.name, image = %row.id, why, "a canary has passed; the current image is pinned");
                    }
                }
                Err(e) => result = Err(e),
            }
        }
        result
    }

    /// A session began well on its image: for a canary that counts.
    pub async fn began_well(&self, repo: &RepoName, image: ImageId) {
        if self.repos.handed_out(repo).canary.is_none_or(|c| c.id != image) {
            return;
        }
        let noted = self.images.change(repo, |images| Ok(image_builder::began_well(image, images))).await;
        if let Err(e) = noted {
            warn!(%repo, %image, error = %e.chain(), "could not count a session for a canary");
        }
    }

    /// An image failed in a sandbox. Demotes it where that is the last of enough.
    pub async fn blame(
        &self,
        repo: &RepoName,
        image: ImageId,
        sandbox: SandboxId,
        session: Option<SessionId>,
        why: &str,
    ) {
        let Some(spec) = self.repos.get(repo) else { return };
        let failure = image_builder::failure_of(self.clock.now(), sandbox, session, why);
        let mut blamed = Blame::NotCounted;
        let plan = |images: &[ImageRecord]| {
            let (rows, what) = image_builder::blame(image, failure.clone(), &spec.rollout, images);
            blamed = what;
            Ok(rows)
        };
        if let Err(e) = self.images.change(repo, plan).await {
            return warn!(%repo, %image, error = %e.chain(), "could not count a failure of an image");
        }
        self.tell(repo, image, &failure, blamed);
    }

    fn tell(&self, repo: &RepoName, image: ImageId, failure: &ImageFailure, blamed: Blame) {
        let (sandbox, last) = (failure.sandbox, failure.why.as_str());
        if blamed != Blame::NotCounted {
            self.metrics.image_failed(repo);
        }
        match blamed {
            Blame::NotCounted => {}
            Blame::Counted { failures } => {
                info!(%repo, %image, %sandbox, failures, last, "an image failed in a sandbox")
            }
            Blame::Demoted { to, failures } => {
                warn!(%repo, %image, failures, %to, last, "an image is demoted: it failed in sandboxes");
                self.metrics.image_judged(repo, "demoted");
                self.fleet.pool_poke.notify_one();
            }
            Blame::Stays { why, failures } => {
                warn!(%repo, %image, failures, why, last, "an image fails in sandboxes and stays");
                self.metrics.image_judged(repo, "stays");
            }
        }
    }
}
