//! Builds: which are wanted, which run, what becomes of them. The steps themselves are `image_builder`'s.
//!
//! One build of a repo is under way at a time and one more may wait, the newest that was asked for; the host runs a
//! bounded number, the repos taking turns. Every state has a deadline and somebody who looks at it: what waits too long
//! is given up, what runs too long is ended, what a restart or a panic interrupts is recorded as failed, and its
//! sandboxes go. So a repo's slot is always freed (F24, F27).

mod queue;
mod recipes;
mod tick;
mod workshop;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{ByteStream, Mirrors};
use domain::{
    BuildId, BuildRecord, BuildState, CadenceRecord, Error, ErrorKind, ImageId, ImageRecord, ImageState,
    Purpose, RepoName, RepoSpec, Result, SharedClock, Trigger, wire,
};
use futures_util::StreamExt;
use image_builder::{BuildFailure, BuildJob, BuildLog, BuildOutcome, BuildSecret, Limits};
use jiff::{SignedDuration, Timestamp};
use store::{BuildLogs, Store, Tx};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::fleet::{Fleet, after};
use crate::images::Images;
use crate::metrics::Metrics;
use crate::repos::Repos;
use crate::secrets;
use crate::traces::{Tracer, kinds};
use queue::{Lane, Lanes};

/// A queued build that has not begun by then is given up.
const QUEUE_DEADLINE: Duration = Duration::from_secs(6 * 3600);
/// What ending a build may take beyond its own limit.
const CLEAN_UP: Duration = Duration::from_secs(600);
/// Branches that are looked at at once: mostly waiting for upstreams.
const LOOKS: usize = 8;
/// Why a build ended that a shutdown cut short.
const SHUTDOWN: &str = "Hotbed is shutting down";
/// The longest name of who asked for a build, in bytes.
pub const MAX_BY: usize = 200;

/// Makes root filesystems for `base: {packages: …}`; an adapter of the engine's.
pub type Rootfs = Arc<docker::rootfs::RootfsCache>;

pub struct Builds {
    fleet: Arc<Fleet>,
    images: Arc<Images>,
    repos: Arc<Repos>,
    mirrors: Arc<dyn Mirrors>,
    rootfs: Rootfs,
    store: Store,
    logs: BuildLogs,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    tracer: Arc<Tracer>,
    lanes: Mutex<Lanes>,
    looks: Arc<Semaphore>,
    /// One import into the engine at a time: of two builds on one base the second finds the first one's.
    importing: Semaphore,
    /// Likewise for building Dockerfiles, which takes longer.
    dockerfiles: Semaphore,
    stop: CancellationToken,
    tasks: TaskTracker,
    /// Told whenever a build has ended.
    pub ended: Arc<Notify>,
}

impl std::fmt::Debug for Builds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Builds")
    }
}

/// What the engine stands on.
pub struct Parts {
    pub fleet: Arc<Fleet>,
    pub images: Arc<Images>,
    pub repos: Arc<Repos>,
    pub mirrors: Arc<dyn Mirrors>,
    pub rootfs: Rootfs,
    pub store: Store,
    pub logs: BuildLogs,
    pub clock: SharedClock,
    pub metrics: Arc<Metrics>,
    pub tracer: Arc<Tracer>,
    pub stop: CancellationToken,
    pub settings: config::BuildSettings,
    /// As they were stored.
    pub cadences: Vec<CadenceRecord>,
}

impl Builds {
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
            fleet,
            images,
            repos,
            mirrors,
            rootfs,
            store,
            logs,
            clock,
            metrics,
            tracer,
            stop,
            settings,
            cadences,
        } = parts;
        Arc::new(Self {
            fleet,
            images,
            repos,
            mirrors,
            rootfs,
            store,
            logs,
            clock,
            metrics,
            tracer,
            lanes: Mutex::new(Lanes::new(cadences, settings.at_once as usize)),
            looks: Arc::new(Semaphore::new(LOOKS)),
            importing: Semaphore::new(1),
            dockerfiles: Semaphore::new(1),
            stop,
            tasks: TaskTracker::new(),
            ended: Arc::default(),
        })
    }

    /// Takes up the builds that an earlier process left behind: what waited waits on; what ran has failed, and is due
    /// again after the pause of a failure.
    pub async fn recover(self: &Arc<Self>, loaded: Vec<BuildRecord>) -> Result<()> {
        let now = self.clock.now();
        for mut record in loaded {
            if record.state == BuildState::Queued {
                // It has a log from here on, if it had none.
                self.logs.begin(record.id).await?;
                let mut lanes = self.lanes();
                let lane = lanes.of(&record.repo, now);
                lane.queue(record, now);
                if let Some(place) = &mut lane.waiting {
                    place.written = true;
                }
                continue;
            }
            record.state = BuildState::Failed;
            record.error = Some("it was interrupted by a restart of Hotbed".into());
            record.ended_at = Some(now);
            let receipt = {
                let mut lanes = self.lanes();
                let cadence = &mut lanes.of(&record.repo, now).cadence;
                cadence.failures += 1;
                cadence.last_failure = Some(now);
                self.store.submit(Tx::new().build(&record).cadence(cadence))
            };
            receipt.await?;
            // Its log may never have begun.
            let _ = self.logs.finish(record.id).await;
        }
        self.dispatch();
        Ok(())
    }

    /// The build of a repo that runs or waits.
    pub fn present(&self, repo: &RepoName) -> Option<BuildRecord> {
        let lanes = self.lanes();
        let lane = lanes.get(repo)?;
        let waiting = lane.waiting.as_ref().map(|p| &p.record);
        lane.running.as_ref().map(|r| &r.record).or(waiting).cloned()
    }

    /// Whether nothing of a repo is being looked at, waits or runs.
    pub fn is_idle(&self, repo: &RepoName) -> bool {
        !self.lanes().get(repo).is_some_and(Lane::is_busy)
    }

    /// The most builds that ever ran at once in this process.
    pub fn most_at_once(&self) -> usize {
        self.lanes().most()
    }

    /// Puts new settings in force. Builds that run go on.
    pub fn reconfigure(self: &Arc<Self>, settings: config::BuildSettings) {
        self.lanes().set_at_once(settings.at_once as usize);
        self.dispatch();
    }

    /// Builds that wait for their turn.
    pub fn waiting(&self) -> usize {
        self.lanes().waiting()
    }

    /// What a build printed, from a byte offset.
    pub async fn log(&self, id: BuildId, from: u64, follow: bool) -> Result<ByteStream> {
        if follow {
            return Ok(self.logs.follow(id, from));
        }
        let whole = self.logs.read(id, from, store::CUT_LIMIT as usize * 2).await?;
        Ok(futures_util::stream::iter([Ok(whole)]).boxed())
    }

    /// Asks for a build. It takes the place of one of the same repo that waits.
    pub async fn request(self: &Arc<Self>, spec: &Arc<RepoSpec>, trigger: Trigger) -> Result<BuildRecord> {
        self.request_by(spec, trigger, None).await
    }

    /// As [`Builds::request`], with the name of whoever asks.
    ///
    /// Errors: `Invalid` for a name that is too long; `Unavailable` at shutdown; those of the store.
    pub async fn request_by(
        self: &Arc<Self>,
        spec: &Arc<RepoSpec>,
        trigger: Trigger,
        by: Option<String>,
    ) -> Result<BuildRecord> {
        if let Some(by) = by.as_ref().filter(|by| by.len() > MAX_BY || by.chars().any(char::is_control)) {
            let shown: String = by.chars().take(40).collect();
            return Err(Error::invalid(format!(
                "`by` is `{}…`: expected at most {MAX_BY} bytes without control characters",
                shown.escape_debug()
            )));
        }
        if self.stop.is_cancelled() {
            return Err(Error::unavailable("Hotbed is shutting down"));
        }
        let now = self.clock.now();
        let record = BuildRecord::queued(spec.name.clone(), trigger, by, now, after(now, QUEUE_DEADLINE));
        let (old, receipt) = {
            let mut lanes = self.lanes();
            let old = lanes.of(&spec.name, now).queue(record.clone(), now);
            let tx = Tx::new().build(&record);
            let tx = match &old {
                Some(old) => tx.build(old),
                None => tx,
            };
            (old, self.store.submit(tx))
        };
        // It can be followed from the moment on at which its row is there, and before it begins.
        let written = match self.logs.begin(record.id).await {
            Ok(()) => receipt.await,
            Err(e) => Err(e),
        };
        {
            let mut lanes = self.lanes();
            let lane = lanes.of(&spec.name, now);
            if let Some(place) = lane.waiting.as_mut().filter(|p| p.record.id == record.id) {
                match &written {
                    Ok(()) => place.written = true,
                    Err(_) => lane.waiting = None,
                }
            }
        }
        if let Some(old) = old {
            let line = format!("superseded before it began, by {}", record.id);
            let _ = self.logs.append_line(old.id, &line).await;
            let _ = self.logs.finish(old.id).await;
            self.metrics.build_ended(&old.repo, old.state);
        }
        self.dispatch();
        written.map(|()| record)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts what there is room for, in its turn.
    fn dispatch(self: &Arc<Self>) {
        loop {
            let started = if self.stop.is_cancelled() { None } else { self.lanes().start_next(&self.stop) };
            let Some((record, stop)) = started else { return };
            let me = self.clone();
            self.tasks.spawn(async move { me.supervise(record, stop).await });
        }
    }

    /// Runs one build in a task of its own. Whatever becomes of that, the record ends and the slot is free.
    async fn supervise(self: Arc<Self>, record: BuildRecord, stop: CancellationToken) {
        let (id, repo) = (record.id, record.repo.clone());
        let (log, written) = FileLog::open(self.logs.clone(), id);
        let me = self.clone();
        let work = tokio::spawn(async move { me.carry_out(record, &log, &stop).await });
        let ended = match work.await {
            Ok(record) => record,
            Err(e) => {
                let last = self.lanes().get_mut(&repo).and_then(|l| l.find(id)).cloned();
                let Some(last) = last else { return };
                self.release_all(id).await;
                self.failed(last, format!("a bug: the builder ended in a panic ({e})"))
            }
        };
        // The last lines are on disk before the record says that it has ended.
        let _ = written.await;
        self.finish(ended).await;
        self.dispatch();
    }

    /// Whatever a build had booted goes. Answers when that is decided; the removal is the fleet's to repeat.
    async fn release_all(&self, build: BuildId) {
        let of_build = |p: Purpose| matches!(p, Purpose::Build(b) | Purpose::Check(b) if b == build);
        for record in self.fleet.records().into_iter().filter(|r| of_build(r.purpose)) {
            if let Err(e) = self.fleet.stop(record.id, "its build is over").await {
                warn!(sandbox = %record.id, error = %e.chain(), "could not release a build's sandbox");
            }
        }
    }

    /// From the start to the end of the steps. Whatever happens, an ended record comes back.
    async fn carry_out(
        self: &Arc<Self>,
        mut record: BuildRecord,
        log: &FileLog,
        stop: &CancellationToken,
    ) -> BuildRecord {
        let Some(spec) = self.repos.get(&record.repo) else {
            return self.failed(record, "its repo is no longer configured".into());
        };
        let now = self.clock.now();
        let limits = Limits::default();
        record.state = BuildState::Running;
        record.started_at = Some(now);
        record.deadline = after(now, limits.total + CLEAN_UP);
        self.note(&record).await;
        self.metrics.build_began(&record);
        let image = ImageId::new();
        // Until the image has its row: this function ends after that.
        let _building = self.fleet.building(image.to_string());
        let current = self.repos.current_image(&record.repo);
        let (ca_certificates, secrets) = match tokio::try_join!(read_certificates(&spec), self.secrets(&spec))
        {
            Ok(inputs) => inputs,
            Err(e) => {
                log.write(format!("failed: {}\n", e.chain()).as_bytes());
                return self.failed(record, e.chain());
            }
        };
        let job = BuildJob {
            build: record.id,
            image,
            spec: (*spec).clone(),
            current: current.clone(),
            failures: self.lanes().get(&record.repo).map_or(0, |l| l.cadence.failures),
            ca_certificates,
            secrets,
            agent_protocol: wire::PROTOCOL,
            now,
            limits,
        };
        let shop = workshop::Shop { builds: self.clone(), repo: record.repo.clone() };
        let done = tokio::select! {
            done = image_builder::run_build(&job, &shop, log) => done,
            () = stop.cancelled() => {
                self.release_all(record.id).await;
                let why = match self.stop.is_cancelled() {
                    true => SHUTDOWN.to_owned(),
                    false => format!("it did not end by its deadline, {}", record.deadline),
                };
                log.write(format!("\nfailed: {why}\n").as_bytes());
                return self.failed(record, why);
            }
        };
        match done {
            Ok(BuildOutcome::Unchanged { commit, phases }) => {
                record.state = BuildState::Unchanged;
                record.decision = Some("nothing changed".into());
                record.commit = Some(commit);
                record.phases = phases;
                if let Some(current) = current {
                    record.image = Some(current.id);
                    if let Err(e) = self.verified(&current).await {
                        return self.failed(record, e.chain());
                    }
                }
                record
            }
            Ok(BuildOutcome::Built(built)) => {
                record.commit = Some(built.commit.clone());
                record.phases = built.phases.clone();
                record.decision = Some(built.decision.clone());
                record.parent = built.parent;
                record.base_digest = Some(built.base_digest.clone());
                record.fingerprint = Some(built.fingerprint.clone());
                record.size = Some(built.captured.size);
                record.warnings = built.warnings.clone();
                let (now, build) = (self.clock.now(), record.id);
                let plan =
                    |images: &[ImageRecord]| Ok(image_builder::promote(now, &built, build, &spec, images));
                match self.images.change(&record.repo, plan).await {
                    Ok(rows) if rows.iter().any(|r| r.state == ImageState::Canary) => {
                        info!(repo = %record.repo, image = %built.image, "a new image is a canary");
                    }
                    Ok(rows) if rows.iter().all(|r| r.state != ImageState::Current) => {
                        record
                            .warnings
                            .push("the current image is pinned: the new one waits to be promoted".into());
                    }
                    Ok(_) => {}
                    Err(e) => return self.failed(record, e.chain()),
                }
                record.image = Some(built.image);
                record.state = BuildState::Succeeded;
                for warning in &built.warnings {
                    warn!(repo = %record.repo, build = %record.id, warning, "a build succeeded with a warning");
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

    /// The build secrets of a repo, as they are now.
    async fn secrets(&self, spec: &RepoSpec) -> Result<Vec<BuildSecret>> {
        let (sources, key) = (spec.image.secrets.clone(), self.store.secret());
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let read = tokio::task::spawn_blocking(move || secrets::read(&sources, &key)).await;
        read.map_err(|e| Error::permanent("read the build secrets").caused_by(e))?
    }

    fn failed(&self, mut record: BuildRecord, why: String) -> BuildRecord {
        record.state = BuildState::Failed;
        record.error = Some(why);
        record
    }

    /// Ends the record, in memory and on disk, and frees the repo's slot.
    async fn finish(&self, mut record: BuildRecord) {
        let now = self.clock.now();
        record.ended_at = Some(now);
        self.metrics.build_ended(&record.repo, record.state);
        for phase in &record.phases {
            self.metrics.build_phase(&record.repo, phase.phase, phase.seconds);
        }
        self.trace(&record, now);
        self.metrics.build_over(&record);
        let (repo, build) = (&record.repo, record.id);
        match &record.error {
            None => info!(%repo, %build, state = record.state.as_str(), "build ended"),
            Some(why) => warn!(%repo, %build, why, "build failed"),
        }
        let receipt = {
            let mut lanes = self.lanes();
            let lane = lanes.of(repo, now);
            lane.running = None;
            count_failure(&mut lane.cadence, &record);
            self.store.submit(Tx::new().build(&record).cadence(&lane.cadence))
        };
        if let Err(e) = receipt.await {
            warn!(%build, error = %e.chain(), "could not record the end of a build");
        }
        self.ended.notify_one();
    }

    /// A build's trace, when it is over: its phases came one after the other.
    fn trace(&self, record: &BuildRecord, now: Timestamp) {
        // One that never began took no time that anybody waits for.
        let Some(begun) = record.started_at else { return };
        let mut span = self.tracer.begin(&kinds::BUILD, None).lasted(begun, now);
        span.show(kinds::BUILD_ID, record.id);
        span.show(kinds::REPO, &record.repo);
        span.set(kinds::RESULT, record.state.as_str());
        if record.state == BuildState::Failed {
            span.fail(ErrorKind::Permanent);
        }
        let (here, mut at) = (span.context(), begun);
        for phase in &record.phases {
            let took = SignedDuration::try_from_secs_f64(phase.seconds).unwrap_or_default();
            let end = at.checked_add(took).unwrap_or(at);
            let mut part = self.tracer.past(&kinds::BUILD_PHASE, here.as_ref(), at, end);
            part.show(kinds::BUILD_ID, record.id);
            part.set(kinds::OF, phase.phase.as_str());
            at = end;
        }
    }

    /// Writes the record of the build that runs, in memory and on disk.
    async fn note(&self, record: &BuildRecord) {
        let receipt = {
            let mut lanes = self.lanes();
            if let Some(kept) = lanes.get_mut(&record.repo).and_then(|l| l.find(record.id)) {
                *kept = record.clone();
            }
            self.store.submit(Tx::new().build(record))
        };
        if let Err(e) = receipt.await {
            warn!(build = %record.id, error = %e.chain(), "could not record a build");
        }
    }

    pub async fn quiet(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What the end of a build says of the repo's next one.
fn count_failure(cadence: &mut CadenceRecord, ended: &BuildRecord) {
    match (ended.state, ended.error.as_deref()) {
        // Cut short by us: due again at once, and no fault of the image that it stood on.
        (BuildState::Failed, Some(SHUTDOWN)) => {
            cadence.failures = cadence.failures.max(1);
            cadence.last_failure = None;
        }
        (BuildState::Failed, _) => {
            cadence.failures += 1;
            cadence.last_failure = ended.ended_at;
        }
        _ => {
            cadence.failures = 0;
            cadence.last_failure = None;
        }
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
