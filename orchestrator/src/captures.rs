//! What the engine keeps for us: images and snapshots. Rows say what may exist; the engine's list says what does;
//! the collector removes what no row wants (F23).

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ports::{Backend, CaptureKind, ObservedCapture};
use domain::{
    Digest, Error, ErrorKind, ImageRecord, ImageState, RepoName, Result, SharedClock, SnapshotId,
    SnapshotRecord, SnapshotState,
};
use jiff::{SignedDuration, Timestamp};
use snapshots::RetentionPolicy;
use store::{Page, SnapshotFilter, Store, Tx};
use tracing::{debug, info, warn};

use crate::api::types::RemovalView;
use crate::fleet::Fleet;
use crate::images::Images;
use crate::metrics::{Metrics, OfKind};
use crate::repos::Repos;
use crate::retention::Retention;
use crate::shipping::Shipping;
use crate::spared::Spared;

/// How long sessions' snapshots are kept.
const RETENTION: RetentionPolicy =
    RetentionPolicy { keep_per_session: 3, max_age: Duration::from_secs(30 * 24 * 3600) };

/// How long a base is kept that no image stands on: the next full build may ask for it again.
const BASE_GRACE: SignedDuration = SignedDuration::from_hours(24);

pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub images: Arc<Images>,
    pub shipping: Arc<Shipping>,
    pub retention: Arc<Retention>,
    pub store: Store,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
}

pub struct Captures {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    images: Arc<Images>,
    shipping: Arc<Shipping>,
    retention: Arc<Retention>,
    store: Store,
    backend: Arc<dyn Backend>,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    spared: Arc<Spared>,
    /// Bases that no image stands on, since when they have been seen so.
    idle_bases: Mutex<HashMap<Digest, Timestamp>>,
}

impl std::fmt::Debug for Captures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Captures")
    }
}

impl Captures {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { fleet, repos, images, shipping, retention, store, clock, metrics } = parts;
        let backend = fleet.backend().clone();
        let spared = fleet.spared().clone();
        Arc::new(Self {
            fleet,
            repos,
            images,
            shipping,
            retention,
            store,
            backend,
            clock,
            metrics,
            spared,
            idle_bases: Mutex::default(),
        })
    }

    /// What living sandboxes were started from.
    fn in_use(&self) -> HashSet<Digest> {
        self.fleet.records().into_iter().map(|r| r.source.clone()).collect()
    }

    async fn all_snapshots(&self) -> Result<Vec<SnapshotRecord>> {
        let mut all = Vec::new();
        let mut page = Page { after: None, limit: 200 };
        loop {
            let found = self.store.snapshots(SnapshotFilter::default(), page).await?;
            all.extend(found.items);
            match found.next {
                Some(next) => page = Page { after: Some(next), limit: 200 },
                None => return Ok(all),
            }
        }
    }

    /// Images beyond `keep`, those that failed their check or are on their way out, and those of abandoned repos.
    fn images_to_go(&self, in_use: &HashSet<Digest>, abandoned: &BTreeSet<RepoName>) -> Vec<ImageRecord> {
        let mut go = Vec::new();
        for repo in abandoned {
            let images = self.repos.images(repo).into_iter();
            go.extend(images.filter(|i| !i.pinned && !in_use.contains(&i.digest)));
        }
        for spec in self.repos.all() {
            let images = self.repos.images(&spec.name);
            let ids = image_builder::collect(&images, spec.image.keep, in_use);
            go.extend(images.into_iter().filter(|i| ids.contains(&i.id)));
        }
        let over = |i: &ImageRecord| matches!(i.state, ImageState::Removing | ImageState::Rejected);
        let rest = self.repos.all_images().into_iter().filter(|i| over(i) && !in_use.contains(&i.digest));
        let rest: Vec<_> = rest.filter(|i| go.iter().all(|g| g.id != i.id)).collect();
        go.extend(rest);
        go
    }

    /// Snapshots that are kept no longer, and those of abandoned repos.
    fn snapshots_to_go(
        &self,
        snapshots: &[SnapshotRecord],
        in_use: &HashSet<Digest>,
        abandoned: &BTreeSet<RepoName>,
    ) -> Vec<SnapshotId> {
        let mut go = snapshots::collect(self.clock.now(), snapshots, &RETENTION, in_use);
        let used = |s: &SnapshotRecord| s.digest.as_ref().is_some_and(|d| in_use.contains(d));
        let over = |s: &&SnapshotRecord| matches!(s.state, SnapshotState::Ready | SnapshotState::Failed);
        let left =
            snapshots.iter().filter(|s| abandoned.contains(&s.repo) && !used(s) && !go.contains(&s.id));
        let left: Vec<_> = left.filter(over).map(|s| s.id).collect();
        go.extend(left);
        go
    }

    /// What a run at this moment would remove of what has a row, and of files. Removes nothing.
    pub async fn due(&self) -> Result<Vec<RemovalView>> {
        let in_use = self.in_use();
        let abandoned = self.retention.abandoned();
        let images = self.images_to_go(&in_use, &abandoned).into_iter().map(|i| RemovalView {
            kind: "image".into(),
            id: i.id.to_string(),
            repo: i.repo.to_string(),
            size: Some(i.size),
        });
        let snapshots = self.all_snapshots().await?;
        let ids = self.snapshots_to_go(&snapshots, &in_use, &abandoned);
        let over = snapshots.iter().filter(|s| ids.contains(&s.id) || s.state == SnapshotState::Removing);
        let over = over.map(|s| RemovalView {
            kind: "snapshot".into(),
            id: s.id.to_string(),
            repo: s.repo.to_string(),
            size: s.size,
        });
        let files = self.retention.due().await?;
        Ok(images.chain(over).chain(files).collect())
    }

    /// One run: what is kept no longer, and captures that no row knows.
    pub async fn collect(&self) -> Result<()> {
        // They need no engine, and keep nothing else from being collected.
        let logs = self.retention.drop_logs().await;
        self.collect_captures().await.and(logs)
    }

    async fn collect_captures(&self) -> Result<()> {
        // The engine's list first, the rows after it: a row is always there before its capture, so what has none
        // now never had one.
        let listed = self.backend.list_captures().await?;
        self.measure(&listed);
        let in_use = self.in_use();
        let snapshots = self.all_snapshots().await?;
        let with_snapshots = snapshots.iter().map(|s| s.repo.clone()).collect();
        self.retention.note_absences(&with_snapshots).await?;
        let abandoned = self.retention.abandoned();
        for image in self.images_to_go(&in_use, &abandoned) {
            self.remove_image(image).await?;
        }
        self.retention.drop_mirrors(&abandoned, &with_snapshots).await;
        for snapshot in snapshots.iter().filter(|s| s.state == SnapshotState::Removing) {
            self.finish_snapshot(snapshot.clone()).await?;
        }
        let now = self.clock.now();
        for snapshot in snapshots.iter().filter(|s| s.state == SnapshotState::Capturing && s.deadline < now) {
            // The process that took it died, or it has just ended: the row as it stands now tells which.
            let Some(now) = self.store.snapshot(snapshot.id).await? else { continue };
            if now.state != SnapshotState::Capturing {
                continue;
            }
            let failed = SnapshotRecord {
                state: SnapshotState::Failed,
                error: Some("it was interrupted".into()),
                ..now
            };
            self.store.commit(Tx::new().snapshot(&failed)).await?;
        }
        for id in self.snapshots_to_go(&snapshots, &in_use, &abandoned) {
            match self.remove_snapshot(id).await {
                Ok(()) => info!(snapshot = %id, "snapshot removed"),
                Err(e) => debug!(snapshot = %id, error = %e.chain(), "a snapshot stays for now"),
            }
        }
        self.sweep(listed).await
    }

    fn measure(&self, listed: &[ObservedCapture]) {
        for kind in [CaptureKind::Base, CaptureKind::Image, CaptureKind::Snapshot] {
            let bytes: u64 = listed.iter().filter(|c| c.kind == kind).map(|c| c.size).sum();
            self.metrics.captured_bytes.get_or_create(&OfKind { kind: kind.as_str() }).set(bytes as i64);
        }
    }

    /// Captures of ours that stand for no row: a build or a snapshot that failed half way.
    async fn sweep(&self, listed: Vec<ObservedCapture>) -> Result<()> {
        // In this order: a build ends only after its image's row stands, so one of the two looks sees it.
        let building: HashSet<_> =
            listed.iter().filter(|c| self.fleet.is_building(&c.name)).map(|c| c.digest.clone()).collect();
        let (images, bases): (HashSet<_>, HashSet<_>) =
            self.repos.all_images().into_iter().map(|i| (i.digest, i.base_digest)).unzip();
        let in_use = self.in_use();
        let outlived = self.outlived(&listed, &bases);
        let mut spared = 0;
        for capture in listed {
            let wanted = match capture.kind {
                CaptureKind::Base => !outlived.contains(&capture.digest),
                CaptureKind::Image => images.contains(&capture.digest) || building.contains(&capture.digest),
                CaptureKind::Snapshot => {
                    match capture.name.parse() {
                        // One that a crash interrupted is taken again under the same name: what was taken before
                        // is left without a row (F31).
                        Ok(id) => self.store.snapshot(id).await?.is_some_and(|s| match s.state {
                            SnapshotState::Capturing => true,
                            SnapshotState::Ready => s.digest.as_ref() == Some(&capture.digest),
                            SnapshotState::Failed | SnapshotState::Removing => false,
                        }),
                        Err(_) => false,
                    }
                }
            };
            if wanted || in_use.contains(&capture.digest) {
                continue;
            }
            if capture.kind != CaptureKind::Base && self.spared.capture(&capture.name) {
                spared += 1;
                continue;
            }
            if capture.kind != CaptureKind::Base {
                self.metrics.orphan("capture");
            }
            match self.backend.remove_capture(&capture.digest).await {
                Ok(()) => info!(
                    digest = capture.digest.short(),
                    kind = capture.kind.as_str(),
                    "removed a capture without a row"
                ),
                Err(e) => {
                    debug!(digest = capture.digest.short(), error = %e.chain(), "a capture without a row stays for now")
                }
            }
        }
        self.metrics.set_spared("capture", spared);
        Ok(())
    }

    /// Bases that no image has stood on for long, as far as this process has seen: those of Dockerfiles that changed, say.
    fn outlived(&self, listed: &[ObservedCapture], used: &HashSet<Digest>) -> HashSet<Digest> {
        let now = self.clock.now();
        let idle = listed.iter().filter(|c| c.kind == CaptureKind::Base && !used.contains(&c.digest));
        let mut since = self.idle_bases.lock().unwrap_or_else(PoisonError::into_inner);
        let still = idle.map(|c| (c.digest.clone(), *since.get(&c.digest).unwrap_or(&now))).collect();
        *since = still;
        let long = since.iter().filter(|(_, since)| now.duration_since(**since) >= BASE_GRACE);
        long.map(|(digest, _)| digest.clone()).collect()
    }

    /// Row, deed, row. What still stands on it makes it wait.
    async fn remove_image(&self, mut image: ImageRecord) -> Result<()> {
        if image.state != ImageState::Removing {
            let Some(marked) = self.images.mark_for_removal(&image).await? else { return Ok(()) };
            image = marked;
        }
        match self.backend.remove_capture(&image.digest).await {
            Ok(()) => {
                if !self.shipping.forget(&image).await {
                    return Ok(());
                }
                self.store.commit(Tx::new().remove_image(image.id)).await?;
                self.repos.remove_image(&image.repo, image.id);
                info!(image = %image.id, repo = %image.repo, "image removed");
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::Conflict => {
                debug!(image = %image.id, "something still stands on this image");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Removes a snapshot for good, on its owner's word.
    ///
    /// Errors: `NotFound`; `Conflict` while a sandbox or a capture stands on it.
    pub async fn remove_snapshot(&self, id: SnapshotId) -> Result<()> {
        let snapshot = self.store.snapshot(id).await?;
        let mut snapshot = snapshot.ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
        match snapshot.state {
            SnapshotState::Capturing => return Err(Error::conflict(format!("snapshot {id} is being taken"))),
            SnapshotState::Ready if snapshot.digest.as_ref().is_some_and(|d| self.in_use().contains(d)) => {
                return Err(Error::conflict(format!("a session that runs was started from snapshot {id}")));
            }
            _ => {}
        }
        snapshot.state = SnapshotState::Removing;
        self.store.commit(Tx::new().snapshot(&snapshot)).await?;
        self.finish_snapshot(snapshot).await
    }

    async fn finish_snapshot(&self, snapshot: SnapshotRecord) -> Result<()> {
        if let Some(digest) = &snapshot.digest
            && let Err(e) = self.backend.remove_capture(digest).await
        {
            if e.kind() == ErrorKind::Conflict {
                warn!(snapshot = %snapshot.id, "something still stands on a snapshot that is to go");
                return Ok(());
            }
            return Err(e);
        }
        self.store.commit(Tx::new().remove_snapshot(snapshot.id)).await
    }

    /// Removes everything: for `demo` and tests, which leave nothing behind. Bases stay when `keep_bases`.
    pub async fn remove_all(&self, keep_bases: bool) -> Result<()> {
        // Children first: an image can't go before what was captured on it.
        for _ in 0..20 {
            let mut left = self.backend.list_captures().await?;
            left.retain(|c| !(keep_bases && c.kind == CaptureKind::Base));
            if left.is_empty() {
                return Ok(());
            }
            for capture in left {
                if let Err(e) = self.backend.remove_capture(&capture.digest).await {
                    debug!(digest = capture.digest.short(), error = %e.chain(), "not yet removable");
                }
            }
        }
        Err(Error::conflict("some captures could not be removed"))
    }
}
