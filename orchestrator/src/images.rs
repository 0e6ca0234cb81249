//! What becomes of images that exist: promoted, rolled back, pinned, marked for removal. Every change of a repo's
//! images goes over one desk, so that a promotion, an operator and the collector never decide on each other's past.

use std::sync::Arc;

use domain::ports::Backend;
use domain::{Error, ImageId, ImageRecord, ImageState, RepoName, Result};
use store::{Store, Tx};
use tokio::sync::{Notify, Semaphore};
use tracing::info;

use crate::metrics::Metrics;
use crate::repos::Repos;

pub struct Images {
    repos: Arc<Repos>,
    store: Store,
    backend: Arc<dyn Backend>,
    metrics: Arc<Metrics>,
    /// Told when an image is new or changes its state; that one was verified again moves nothing.
    pub moved: Arc<Notify>,
    /// Told when something is to be removed.
    pub to_go: Arc<Notify>,
    /// Held from the look at the images to the rows that follow from it.
    desk: Semaphore,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Images")
    }
}

impl Images {
    pub fn new(
        repos: Arc<Repos>,
        store: Store,
        backend: Arc<dyn Backend>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            repos,
            store,
            backend,
            metrics,
            moved: Arc::default(),
            to_go: Arc::default(),
            desk: Semaphore::new(1),
        })
    }

    /// Writes the rows that `plan` makes of a repo's images as they are now, in one durable transaction, and puts
    /// them in force. Answers them.
    pub async fn change(
        &self,
        repo: &RepoName,
        plan: impl FnOnce(&[ImageRecord]) -> Result<Vec<ImageRecord>>,
    ) -> Result<Vec<ImageRecord>> {
        let turn = self.desk.acquire().await;
        let _turn = turn.map_err(|e| Error::unavailable("change images").caused_by(e))?;
        let before = self.repos.images(repo);
        let rows = plan(&before)?;
        if rows.is_empty() {
            return Ok(rows);
        }
        let tx = rows.iter().fold(Tx::new().durable(), |tx, row| tx.image(row));
        self.store.commit(tx).await?;
        self.repos.put_images(&rows);
        let is_as_before = |row: &ImageRecord| before.iter().any(|b| b.id == row.id && b.state == row.state);
        if !rows.iter().all(is_as_before) {
            self.moved.notify_one();
        }
        let was = before.iter().find(|i| i.state == ImageState::Current).map(|i| i.id);
        for image in rows.iter().filter(|i| i.state == ImageState::Current && Some(i.id) != was) {
            self.metrics.image_current(image);
        }
        Ok(rows)
    }

    /// `NotFound` for an image that is not, or no longer, there.
    pub fn get(&self, id: ImageId) -> Result<ImageRecord> {
        let found = self.repos.all_images().into_iter().find(|i| i.id == id);
        found
            .ok_or_else(|| Error::not_found(format!("there is no image {id} (`hotbed image ls` lists them)")))
    }

    /// Makes an image that has passed its check current, on an operator's word.
    ///
    /// Errors: `NotFound`; `Conflict` where it did not pass, is being removed, or the engine no longer has it.
    pub async fn promote(&self, id: ImageId) -> Result<ImageRecord> {
        self.make_current(id, false).await
    }

    /// Goes back to the image before the current one, and pins it: the next tick would build the newer commit again.
    ///
    /// Errors: `Conflict` where there is no image before it; those of [`Images::promote`].
    pub async fn roll_back(&self, repo: &RepoName) -> Result<ImageRecord> {
        let images = self.repos.images(repo);
        let before = image_builder::before_current(&images).map(|i| i.id).ok_or_else(|| {
            Error::conflict(format!("{repo} has no image before its current one to go back to"))
        })?;
        self.make_current(before, true).await
    }

    async fn make_current(&self, id: ImageId, pin: bool) -> Result<ImageRecord> {
        let image = self.get(id)?;
        if !self.backend.has(&image.digest).await? {
            return Err(Error::conflict(format!("image {id}: the engine no longer has it")));
        }
        let plan = |images: &[ImageRecord]| {
            let mut rows = image_builder::roll_back(id, images)?;
            if pin {
                rows.iter_mut().filter(|r| r.id == id).for_each(|r| r.pinned = true);
            }
            Ok(rows)
        };
        self.change(&image.repo, plan).await?;
        info!(repo = %image.repo, image = %id, pin, "made current by an operator");
        self.get(id)
    }

    /// A pinned image is never collected; while the current one is pinned, nothing takes its place by itself.
    pub async fn pin(&self, id: ImageId, pinned: bool) -> Result<ImageRecord> {
        let repo = self.get(id)?.repo;
        self.change(&repo, |images| image_builder::pin(id, pinned, images)).await?;
        info!(%repo, image = %id, pinned, "pinned or unpinned by an operator");
        self.get(id)
    }

    /// Marks an image for removal, unless it has become needed meanwhile; answers the row.
    pub async fn mark_for_removal(&self, image: &ImageRecord) -> Result<Option<ImageRecord>> {
        self.mark(image, |i| i.state == image.state && !i.pinned).await
    }

    /// Marks an image that the engine no longer has and nobody can bring back. A pin holds nothing there.
    pub async fn mark_lost(&self, image: &ImageRecord) -> Result<Option<ImageRecord>> {
        self.mark(image, |_| true).await
    }

    async fn mark(
        &self,
        image: &ImageRecord,
        may_go: impl Fn(&ImageRecord) -> bool,
    ) -> Result<Option<ImageRecord>> {
        let plan = |images: &[ImageRecord]| {
            let still = images.iter().filter(|i| i.id == image.id && may_go(i));
            Ok(still.map(|i| ImageRecord { state: ImageState::Removing, ..i.clone() }).collect())
        };
        let marked = self.change(&image.repo, plan).await?.pop();
        if marked.is_some() {
            self.to_go.notify_one();
        }
        Ok(marked)
    }
}
