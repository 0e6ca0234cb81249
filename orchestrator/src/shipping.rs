//! Images and the registry: what is current or kept is sent there; what this host lost comes back from there, or is
//! built anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use docker::DockerBackend;
use domain::ports::{Backend, ImageRegistry};
use domain::{
    Digest, Error, ErrorKind, ImageId, ImageRecord, ImageState, RepoName, Result, SharedClock, Shipped,
};
use jiff::Timestamp;
use registry::{Login, Registry};
use tracing::{debug, info, warn};
use zeroize::Zeroizing;

use crate::fleet::after;
use crate::images::Images;
use crate::metrics::Metrics;
use crate::repos::Repos;
use crate::secrets;

/// The pause after the first failed push of an image; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 60);

/// A registry, and what the names of our images begin with there.
#[derive(Debug, Clone)]
pub struct Destination {
    pub registry: Arc<dyn ImageRegistry>,
    pub prefix: String,
}

impl Destination {
    /// The repository of a repo's images. Names of repositories are in lower case.
    fn repository(&self, repo: &RepoName) -> String {
        format!("{}/{}", self.prefix.trim_end_matches('/'), repo.as_str().to_ascii_lowercase())
    }
}

pub struct Shipping {
    to: Option<Destination>,
    repos: Arc<Repos>,
    images: Arc<Images>,
    backend: Arc<dyn Backend>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    /// Of images whose last push failed: how often in a row, and when it is tried again.
    failed: Mutex<HashMap<ImageId, (u32, Timestamp)>>,
}

impl std::fmt::Debug for Shipping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shipping").field("to", &self.to).finish_non_exhaustive()
    }
}

impl Shipping {
    pub fn new(
        to: Option<Destination>,
        repos: Arc<Repos>,
        images: Arc<Images>,
        backend: Arc<dyn Backend>,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { to, repos, images, backend, clock, metrics, failed: Mutex::default() })
    }

    /// What has passed its check and stays; current images first.
    fn kept(&self) -> Vec<ImageRecord> {
        let mut kept: Vec<_> = self.repos.all_images().into_iter().filter(is_kept).collect();
        kept.sort_by_key(|i| (i.state != ImageState::Current, i.created_at));
        kept
    }

    /// Brings back what the engine has lost. One image's trouble keeps no other waiting.
    pub async fn look_for_lost(&self) -> Result<()> {
        // The rows first, the engine's list after them: what has a row was captured before.
        let kept = self.kept();
        let listed = self.backend.list_captures().await?;
        for image in kept.iter().filter(|i| listed.iter().all(|c| c.digest != i.digest)) {
            if let Err(e) = self.recover(image).await {
                warn!(repo = %image.repo, image = %image.id, error = %e.chain(), "a lost image is not back yet");
            }
        }
        Ok(())
    }

    /// Sends what the registry has not. Asks the engine nothing where there is nothing to send.
    pub async fn run(&self) -> Result<()> {
        let Some(to) = &self.to else { return Ok(()) };
        let kept = self.kept();
        self.failures().retain(|id, _| kept.iter().any(|i| i.id == *id));
        let waiting: Vec<_> = kept.iter().filter(|i| i.shipped.is_none()).collect();
        self.metrics.images_unpushed.set(waiting.len() as i64);
        for image in waiting {
            if self.failures().get(&image.id).is_some_and(|(_, again)| *again > self.clock.now()) {
                continue;
            }
            self.ship(to, image).await;
        }
        Ok(())
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<ImageId, (u32, Timestamp)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ship(&self, to: &Destination, image: &ImageRecord) {
        let repository = to.repository(&image.repo);
        let pushed = to.registry.push(&image.digest, &repository, &image.id.to_string()).await;
        let written = match pushed {
            Ok(shipped) => self.note(image, Some(shipped)).await,
            Err(e) => Err(e),
        };
        self.metrics.image_pushed(&image.repo, written.is_ok());
        let mut failed = self.failures();
        match written {
            Ok(()) => {
                failed.remove(&image.id);
                self.metrics.images_unpushed.dec();
                info!(repo = %image.repo, image = %image.id, repository, "image pushed");
            }
            Err(e) => {
                let times = failed.get(&image.id).map_or(0, |(times, _)| *times);
                let pause = FIRST_PAUSE.saturating_mul(1 << times.min(10)).min(LONGEST_PAUSE);
                failed.insert(image.id, (times + 1, after(self.clock.now(), pause)));
                warn!(repo = %image.repo, image = %image.id, ?pause, error = %e.chain(), "an image could not be pushed");
                let poke = self.images.moved.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    poke.notify_one();
                });
            }
        }
    }

    async fn note(&self, image: &ImageRecord, shipped: Option<Shipped>) -> Result<()> {
        let plan = |images: &[ImageRecord]| {
            let still = images.iter().filter(|i| i.id == image.id);
            Ok(still.map(|i| ImageRecord { shipped: shipped.clone(), ..i.clone() }).collect())
        };
        self.images.change(&image.repo, plan).await.map(drop)
    }

    /// An image that has a row and that the engine does not have: somebody removed it there. It comes back from the
    /// registry, or its row goes and the next tick builds.
    async fn recover(&self, image: &ImageRecord) -> Result<()> {
        if self.backend.has(&image.digest).await? {
            return Ok(());
        }
        if let (Some(to), Some(shipped)) = (&self.to, &image.shipped) {
            match to.registry.fetch(shipped, &image.digest).await {
                Ok(()) => {
                    info!(repo = %image.repo, image = %image.id, from = shipped.reference(), "a lost image is back");
                    return Ok(());
                }
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Permanent) => {
                    warn!(image = %image.id, error = %e.chain(), "the registry can't bring it back");
                }
                Err(e) => return Err(e),
            }
        }
        warn!(repo = %image.repo, image = %image.id, state = ?image.state, "the engine has lost an image");
        self.images.mark_lost(image).await.map(drop)
    }

    /// Removes an image from the registry, if it is there. Answers whether its row may go: what can't be removed
    /// now is tried again.
    pub async fn forget(&self, image: &ImageRecord) -> bool {
        let (Some(to), Some(shipped)) = (&self.to, &image.shipped) else { return true };
        let another = |i: &ImageRecord| i.id != image.id && i.shipped.as_ref() == Some(shipped);
        if self.repos.all_images().iter().any(another) {
            return true;
        }
        match to.registry.remove(shipped).await {
            Ok(()) => true,
            Err(e) if matches!(e.kind(), ErrorKind::Permanent | ErrorKind::Invalid) => {
                warn!(image = %image.id, error = %e.chain(), "an image stays in the registry");
                true
            }
            Err(e) => {
                debug!(image = %image.id, error = %e.chain(), "an image stays in the registry for now");
                false
            }
        }
    }
}

/// What has passed its check and is not on its way out.
fn is_kept(image: &ImageRecord) -> bool {
    matches!(image.state, ImageState::Current | ImageState::Canary | ImageState::Superseded)
}

/// The engine moves the layers, the registry is asked what came of it.
#[derive(Debug)]
pub struct ThroughEngine {
    engine: DockerBackend,
    registry: Registry,
}

impl ThroughEngine {
    pub fn new(engine: DockerBackend, registry: Registry) -> Self {
        Self { engine, registry }
    }
}

#[async_trait]
impl ImageRegistry for ThroughEngine {
    async fn push(&self, capture: &Digest, repository: &str, tag: &str) -> Result<Shipped> {
        let name = format!("{repository}:{tag}");
        self.engine.tag(capture, &name).await?;
        let sent = self.engine.push(&name).await?;
        let held = self.registry.look(&sent).await?;
        let held = held.ok_or_else(|| Error::unavailable(format!("{sent} was pushed and is not there")))?;
        if held.image != *capture {
            return Err(Error::permanent(format!("{sent} holds {}, expected {capture}", held.image)));
        }
        Ok(Shipped { repository: repository.to_owned(), digest: held.digest })
    }

    async fn fetch(&self, shipped: &Shipped, capture: &Digest) -> Result<()> {
        let reference = shipped.reference();
        let held = self.registry.look(&reference).await?;
        let held = held.ok_or_else(|| Error::not_found(format!("the registry does not have {reference}")))?;
        if held.image != *capture {
            return Err(Error::permanent(format!("{reference} holds {}, expected {capture}", held.image)));
        }
        let pulled = self.engine.pull(&reference).await?;
        if pulled.digest != *capture {
            return Err(Error::permanent(format!(
                "{reference} came as {}, expected {capture}",
                pulled.digest
            )));
        }
        self.engine.adopt(capture).await
    }

    async fn remove(&self, shipped: &Shipped) -> Result<()> {
        self.registry.remove(&shipped.repository, &shipped.digest).await
    }
}

/// Who we are at a registry, read from where the configuration says. Blocking.
///
/// Errors: `Invalid` naming the variable or file that can't be read.
pub fn login(settings: &config::RegistrySettings) -> Result<Option<Login>> {
    let Some((user, password)) = &settings.login else { return Ok(None) };
    let password = secrets::value("registry.password", password)?;
    let password =
        String::from_utf8(password).map_err(|_| Error::invalid("`registry.password` is not text"))?;
    Ok(Some(Login { user: user.clone(), password: Zeroizing::new(password) }))
}
