//! Builds: which are wanted, which run, what becomes of them. The steps themselves are `image_builder`'s.
//!
//! One build of a repo is under way at a time and one more may wait; the host runs a bounded number. What a restart
//! interrupts is recorded as failed and its sandboxes go, so a repo's slot is always freed (F27).

mod workshop;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{ByteStream, Mirrors};
use domain::{
    BuildId, BuildRecord, BuildState, Error, ImageId, RepoName, RepoSpec, Result, SharedClock, Trigger, wire,
};
use futures_util::StreamExt;
use image_builder::{BuildFailure, BuildJob, BuildLog, BuildOutcome, Due, Limits, RepoBuildState};
use jiff::Timestamp;
use store::{BuildLogs, Store, Tx};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::fleet::{Fleet, after};
use crate::metrics::{Metrics, OfRepo};
use crate::repos::Repos;

/// Builds that run at once on this host.
const AT_ONCE: usize = 1;
/// A queued build that has not begun by then is given up.
const QUEUE_DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// What is known of one repo's builds.
#[derive(Debug, Default)]
struct Lane {
    running: Option<BuildRecord>,
    waiting: Option<BuildRecord>,
    last_tick: Option<Timestamp>,
    failures: u32,
    last_failure: Option<Timestamp>,
}

/// Makes root filesystems for `base: {packages: …}`; an adapter of the engine's.
pub type Rootfs = Arc<docker::rootfs::RootfsCache>;

pub struct Builds {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    rootfs: Rootfs,
    store: Store,
    logs: BuildLogs,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    lanes: Mutex<HashMap<RepoName, Lane>>,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builds")
    }
}

/// What the engine stands on.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub repos: Arc<Repos>,
    pub mirrors: Arc<dyn Mirrors>,
    pub rootfs: Rootfs,
    pub store: Store,
    pub logs: BuildLogs,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub stop: CancellationToken,
}

impl Builds {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { fleet, repos, mirrors, rootfs, store, logs, clock, metrics, stop } = parts;
        Arc::new(Self {
            fleet,
            repos,
            mirrors,
            rootfs,
            store,
            logs,
            clock,
            metrics,
            lanes: Mutex::default(),
            slots: Arc::new(Semaphore::new(AT_ONCE)),
            stop,
            tasks: TaskTracker::new(),
        })
    }

    /// Ends the rows of builds that an earlier process left behind.
    pub async fn recover(&self, loaded: Vec<BuildRecord>) -> Result<()> {
        for mut record in loaded {
            record.state = BuildState::Failed;
            record.error = Some("it was interrupted by a restart of Hotbed".into());
            record.ended_at = Some(self.clock.now());
            self.store.commit(Tx::new().build(&record)).await?;
            // Its log may never have begun.
            let _ = self.logs.finish(record.id).await;
        }
        Ok(())
    }

    /// The build of a repo that runs or waits.
    pub fn present(&self, repo: &RepoName) -> Option<BuildRecord> {
        let lanes = self.lanes();
        let lane = lanes.get(repo)?;
        lane.running.clone().or_else(|| lane.waiting.clone())
    }

    /// What a build printed, from a byte offset.
    pub async fn log(&self, id: BuildId, from: u64, follow: bool) -> Result<ByteStream> {
        if follow {
            return Ok(self.logs.follow(id, from));
        }
        let whole = self.logs.read(id, from, store::CUT_LIMIT as usize * 2).await?;
        Ok(futures_util::stream::iter([Ok(whole)]).boxed())
    }

    /// Asks for a build. One that waits already is answered again.
    pub async fn request(self: &Arc<Self>, spec: &Arc<RepoSpec>, trigger: Trigger) -> Result<BuildRecord> {
        let now = self.clock.now();
        let (record, receipt) = {
            let mut lanes = self.lanes();
            let lane = lanes.entry(spec.name.clone()).or_default();
            if let Some(waiting) = &lane.waiting {
                return Ok(waiting.clone());
            }
            let record = BuildRecord {
                id: BuildId::new(),
                repo: spec.name.clone(),
                state: BuildState::Queued,
                trigger,
                phase: None,
                phases: Vec::new(),
                commit: None,
                image: None,
                created_at: now,
                started_at: None,
                ended_at: None,
                deadline: after(now, QUEUE_DEADLINE),
                error: None,
            };
            lane.waiting = Some(record.clone());
            let receipt = self.store.submit(Tx::new().build(&record));
            (record, receipt)
        };
        if let Err(e) = receipt.await {
            self.lanes().entry(spec.name.clone()).or_default().waiting = None;
            return Err(e);
        }
        // From now on it can be followed, while it still waits.
        if let Err(e) = self.logs.begin(record.id).await {
            warn!(build = %record.id, error = %e.chain(), "could not begin a build's log");
        }
        self.start_next(&spec.name);
        Ok(record)
    }

    /// The `image_tick` task: asks for the builds that are due.
    pub async fn tick(self: &Arc<Self>) -> Result<()> {
        let now = self.clock.now();
        for spec in self.repos.all() {
            let current = self.repos.current_image(&spec.name);
            let due = {
                let mut lanes = self.lanes();
                let lane = lanes.entry(spec.name.clone()).or_default();
                let state = RepoBuildState {
                    last_tick: lane.last_tick.or_else(|| current.as_ref().map(|i| i.verified_at)),
                    failures: lane.failures,
                    last_failure: lane.last_failure,
                    current: current.as_ref(),
                    running: lane.running.is_some() || lane.waiting.is_some(),
                };
                let due = image_builder::due(now, &spec, &state)?;
                if let Due::Now(tick) = &due {
                    lane.last_tick = Some(tick.at);
                }
                due
            };
            if let Due::Now(tick) = due {
                info!(repo = %spec.name, why = tick.why, missed = tick.missed, "build due");
                self.request(&spec, tick.trigger).await?;
            }
            if let Some(image) = &current {
                self.metrics
                    .image_last_success
                    .get_or_create(&OfRepo { repo: spec.name.to_string() })
                    .set(image.verified_at.as_millisecond() as f64 / 1000.0);
            }
        }
        Ok(())
    }

    fn lanes(&self) -> MutexGuard<'_, HashMap<RepoName, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the waiting build of a repo to running, where none runs.
    fn start_next(self: &Arc<Self>, repo: &RepoName) {
        let record = {
            let mut lanes = self.lanes();
            let lane = lanes.entry(repo.clone()).or_default();
            if lane.running.is_some() {
                return;
            }
            let Some(record) = lane.waiting.take() else { return };
            lane.running = Some(record.clone());
            record
        };
        let me = self.clone();
        let repo = repo.clone();
        self.tasks.spawn(async move {
            let (log, written) = FileLog::open(me.logs.clone(), record.id);
            let ended = me.carry_out(record, &log).await;
            drop(log);
            // The last lines are on disk before the record says that it has ended.
            let _ = written.await;
            me.finish(&repo, ended).await;
            me.start_next(&repo);
        });
    }

    /// From the slot to the end of the steps. Whatever happens, an ended record comes back.
    async fn carry_out(self: &Arc<Self>, mut record: BuildRecord, log: &FileLog) -> BuildRecord {
        let _slot = tokio::select! {
            slot = self.slots.clone().acquire_owned() => slot,
            () = self.stop.cancelled() => return self.failed(record, "Hotbed is shutting down".into()),
        };
        let Some(spec) = self.repos.get(&record.repo) else {
            return self.failed(record, "its repo is no longer configured".into());
        };
        let now = self.clock.now();
        let limits = Limits::default();
        record.state = BuildState::Running;
        record.started_at = Some(now);
        record.deadline = after(now, limits.total + Duration::from_secs(600));
        self.note(&record).await;
        let image = ImageId::new();
        // Until the image has its row: this function ends after that.
        let _building = self.fleet.building(image.to_string());
        let current = self.repos.current_image(&record.repo);
        let ca_certificates = match read_certificates(&spec).await {
            Ok(files) => files,
            Err(e) => return self.failed(record, e.chain()),
        };
        let job = BuildJob {
            build: record.id,
            image,
            spec: (*spec).clone(),
            current: current.clone(),
            failures: self.lanes().get(&record.repo).map_or(0, |l| l.failures),
            ca_certificates,
            agent_protocol: wire::PROTOCOL,
            now,
            limits,
        };
        let shop = workshop::Shop { builds: self.clone(), repo: record.repo.clone() };
        let done = tokio::select! {
            done = image_builder::run_build(&job, &shop, log) => done,
            () = self.stop.cancelled() => {
                shop.release_all().await;
                return self.failed(record, "Hotbed is shutting down".into());
            }
        };
        match done {
            Ok(BuildOutcome::Unchanged { commit, phases }) => {
                record.state = BuildState::Unchanged;
                record.commit = Some(commit);
                record.phases = phases;
                if let Some(current) = current {
                    let row = image_builder::verified(self.clock.now(), &current);
                    record.image = Some(row.id);
                    if let Err(e) = self.store.commit(Tx::new().image(&row)).await {
                        return self.failed(record, e.chain());
                    }
                    self.repos.put_images(&[row]);
                }
                record
            }
            Ok(BuildOutcome::Built(built)) => {
                record.commit = Some(built.commit.clone());
                record.phases = built.phases.clone();
                let rows = image_builder::promote(
                    self.clock.now(),
                    &built,
                    record.id,
                    &spec,
                    &self.repos.images(&record.repo),
                );
                let mut tx = Tx::new().durable();
                for row in &rows {
                    tx = tx.image(row);
                }
                if let Err(e) = self.store.commit(tx).await {
                    return self.failed(record, e.chain());
                }
                self.repos.put_images(&rows);
                record.image = Some(built.image);
                record.state = BuildState::Succeeded;
                for warning in &built.warnings {
                    warn!(repo = %record.repo, build = %record.id, warning, "a build step failed without failing the build");
                }
                self.fleet.pool_poke.notify_one();
                record
            }
            Err(failure) => {
                let report = failure.report();
                let BuildFailure { phase, commit, phases, .. } = *failure;
                record.phase = Some(phase);
                record.commit = commit;
                record.phases = phases;
                log.write(format!("\nfailed: {report}\n").as_bytes());
                self.failed(record, report)
            }
        }
    }

    fn failed(&self, mut record: BuildRecord, why: String) -> BuildRecord {
        record.state = BuildState::Failed;
        record.error = Some(why);
        record
    }

    async fn finish(&self, repo: &RepoName, mut record: BuildRecord) {
        let now = self.clock.now();
        record.ended_at = Some(now);
        self.note(&record).await;
        self.metrics.build_ended(repo, record.state);
        for phase in &record.phases {
            self.metrics.build_phase(repo, phase.phase, phase.seconds);
        }
        match &record.error {
            None => info!(%repo, build = %record.id, state = record.state.as_str(), "build ended"),
            Some(why) => warn!(%repo, build = %record.id, why, "build failed"),
        }
        let mut lanes = self.lanes();
        let lane = lanes.entry(repo.clone()).or_default();
        lane.running = None;
        if record.state == BuildState::Failed {
            lane.failures += 1;
            lane.last_failure = Some(now);
        } else {
            lane.failures = 0;
            lane.last_failure = None;
        }
    }

    /// Writes the record of the build that runs, in memory and on disk.
    async fn note(&self, record: &BuildRecord) {
        if let Some(lane) = self.lanes().get_mut(&record.repo)
            && lane.running.as_ref().is_some_and(|r| r.id == record.id)
        {
            lane.running = Some(record.clone());
        }
        if let Err(e) = self.store.commit(Tx::new().build(record)).await {
            warn!(build = %record.id, error = %e.chain(), "could not record a build");
        }
    }

    pub async fn quiet(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn read_certificates(spec: &RepoSpec) -> Result<Vec<Vec<u8>>> {
    let mut files = Vec::new();
    for path in &spec.image.ca_certificates {
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|e| Error::invalid(format!("read the certificate {}", path.display())).caused_by(e))?;
        files.push(bytes);
    }
    Ok(files)
}

/// The build's log as the builder sees it: written behind its back, in order.
struct FileLog(tokio::sync::mpsc::UnboundedSender<Bytes>);

impl FileLog {
    /// What comes second ends when the log has been dropped and everything is written.
    fn open(logs: BuildLogs, id: BuildId) -> (Self, tokio::task::JoinHandle<()>) {
        let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel::<Bytes>();
        let written = tokio::spawn(async move {
            let mut good = Ok(());
            while let Some(bytes) = rx.recv().await {
                if good.is_ok() {
                    good = logs.append(id, bytes).await;
                }
            }
            if let Err(e) = good.and(logs.finish(id).await) {
                warn!(build = %id, error = %e.chain(), "could not write a build's log");
            }
        });
        (Self(tx), written)
    }
}

impl BuildLog for FileLog {
    fn write(&self, bytes: &[u8]) {
        let _ = self.0.send(Bytes::copy_from_slice(bytes));
    }
}
