//! What changed between two images of a repo: commits from the mirror, files and packages from the engine, which
//! reads both images once for it. Nothing of it is kept.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::{Backend, CommitLine, Mirrors};
use domain::{Error, ErrorKind, ImageId, ImageRecord, Result};
use futures_util::TryStreamExt;
use image_builder::{Comparison, Difference, Inventory, tells_packages};
use tokio::sync::Semaphore;

use crate::images::Images;
use crate::repos::Repos;

/// Commits that are listed for each side.
const COMMITS: usize = 50;
/// Files that are listed, unless asked for another number, and at most.
pub const FILES: usize = 100;
pub const MOST_FILES: usize = 5_000;

/// How long one is asked to wait while another comparison runs.
const AGAIN: Duration = Duration::from_secs(10);

pub struct Differences {
    images: Arc<Images>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    backend: Arc<dyn Backend>,
    /// One at a time: each reads two whole images and holds the names of one.
    turn: Semaphore,
}

impl std::fmt::Debug for Differences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Differences")
    }
}

/// What changed from one image to another.
#[derive(Debug)]
pub struct ImageDifference {
    pub from: ImageRecord,
    pub to: ImageRecord,
    /// Commits that `to` has and `from` has not.
    pub new: Commits,
    /// The other way round: of a branch that was rewritten, or when `to` is the older one.
    pub gone: Commits,
    pub content: Difference,
}

/// Commits, where the mirror knows them.
#[derive(Debug, Default)]
pub struct Commits {
    pub number: Option<u32>,
    /// The newest of them.
    pub newest: Vec<CommitLine>,
}

impl Differences {
    pub fn new(
        images: Arc<Images>,
        repos: Arc<Repos>,
        mirrors: Arc<dyn Mirrors>,
        backend: Arc<dyn Backend>,
    ) -> Arc<Self> {
        Arc::new(Self { images, repos, mirrors, backend, turn: Semaphore::new(1) })
    }

    /// From `with`, or else from the image before it, to `id`; with `files` changed files at most.
    ///
    /// Errors: `NotFound`; `Invalid` for images of two repos; `Conflict` where there is no image before it, or the
    /// engine no longer has one of them; `Exhausted` while another comparison runs.
    pub async fn between(&self, id: ImageId, with: Option<ImageId>, files: usize) -> Result<ImageDifference> {
        let to = self.images.get(id)?;
        let from = match with {
            Some(with) => self.images.get(with)?,
            None => self.before(&to)?,
        };
        if from.repo != to.repo {
            return Err(Error::invalid(format!(
                "`with`: image {} is of {}: expected an image of {}, as {id} is",
                from.id, from.repo, to.repo
            )));
        }
        let _turn = self.turn.try_acquire().map_err(|_| {
            Error::exhausted("two other images are being compared: try again when that is done")
                .retry_after(AGAIN)
        })?;
        let mut inventory = Inventory::default();
        let mut before = self.read(&from).await?;
        while let Some(file) = before.try_next().await? {
            inventory.add(file)?;
        }
        let mut comparison = Comparison::new(inventory, files);
        let mut after = self.read(&to).await?;
        while let Some(file) = after.try_next().await? {
            comparison.add(file);
        }
        let new = self.commits(&from, &to).await?;
        let gone = self.commits(&to, &from).await?;
        Ok(ImageDifference { new, gone, content: comparison.finish(), from, to })
    }

    /// What it was built on, where that is still there; else the newest that is older.
    fn before(&self, image: &ImageRecord) -> Result<ImageRecord> {
        let all = self.repos.images(&image.repo);
        let parent = all.iter().find(|i| Some(i.id) == image.parent);
        let older = all.iter().filter(|i| i.generation < image.generation).max_by_key(|i| i.generation);
        parent.or(older).cloned().ok_or_else(|| {
            Error::conflict(format!(
                "image {}: no older image of {} is left to compare it with",
                image.id, image.repo
            ))
        })
    }

    async fn read(&self, image: &ImageRecord) -> Result<domain::ports::TreeStream> {
        let read = self.backend.read_tree(&image.digest, tells_packages).await;
        read.map_err(|e| match e.kind() {
            ErrorKind::NotFound => {
                Error::conflict(format!("image {}: the engine no longer has it", image.id)).caused_by(e)
            }
            _ => e,
        })
    }

    /// A mirror that is not there knows of no commits.
    async fn commits(&self, from: &ImageRecord, to: &ImageRecord) -> Result<Commits> {
        let number = match self.mirrors.distance(&to.repo, &from.commit, &to.commit).await {
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) => None,
            other => other?,
        };
        let newest = match number {
            None | Some(0) => Vec::new(),
            Some(_) => self.mirrors.log(&to.repo, &from.commit, &to.commit, COMMITS).await?,
        };
        Ok(Commits { number, newest })
    }
}
