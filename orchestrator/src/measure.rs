//! Measures what is: gauges that are read off the present state whenever they are asked for, and what takes a look at
//! the machine every few seconds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::{Purpose, RepoName, Resources, Result, SandboxRecord, SessionState};
use jiff::Timestamp;
use tracing::debug;

use crate::app::App;
use crate::metrics::{
    DiskOf, OUTBOX_KINDS, OfDisk, OfKind, OfQueue, OfRepo, OfState, PurposeState, RepoPurpose, seconds,
};

/// How often the machine is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(15);

/// What is remembered from one look at the machine to the next.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    last: Mutex<Option<Timestamp>>,
    /// What the engine answered when it was asked where its data is.
    engine_root: Mutex<Option<Option<PathBuf>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a sandbox is for now: a member that a session holds is the session's.
fn purpose(record: &SandboxRecord) -> &'static str {
    match record.purpose {
        Purpose::Build(_) | Purpose::Check(_) => "build",
        _ if record.session.is_some() => "session",
        Purpose::Pool => "pool",
        Purpose::Session(_) => "session",
    }
}

impl App {
    /// Sets the gauges that are read off the present state.
    pub fn measure(&self) {
        let now = self.clock.now();
        self.metrics.counted_elsewhere(
            self.store.write_counts().commits,
            self.mirrors.fetches(),
            self.mirrors.fetches_spared(),
        );
        self.measure_images(now);
        self.measure_sandboxes();
        self.measure_sessions();
        self.measure_queues(now);
    }

    fn measure_images(&self, now: Timestamp) {
        for spec in self.repos.all() {
            let of = OfRepo { repo: spec.name.to_string() };
            self.metrics.image_age_target.get_or_create(&of).set(spec.image.max_age.as_secs_f64());
            match self.repos.current_image(&spec.name) {
                Some(image) => {
                    let age = now.duration_since(image.created_at).as_secs_f64();
                    self.metrics.image_age.get_or_create(&of).set(age);
                    self.metrics.image_last_success.get_or_create(&of).set(seconds(image.verified_at));
                }
                None => {
                    self.metrics.image_age.remove(&of);
                    self.metrics.image_last_success.remove(&of);
                    self.metrics.image_commits_behind.remove(&of);
                }
            }
        }
    }

    fn measure_sandboxes(&self) {
        let resources: HashMap<RepoName, Resources> =
            self.repos.all().iter().map(|s| (s.name.clone(), s.resources)).collect();
        let mut counts = HashMap::new();
        let (mut memory, mut cpus) = (0, 0.0);
        for record in self.fleet.records() {
            *counts.entry((purpose(&record), record.state.as_str())).or_insert(0) += 1;
            if let Some(r) = resources.get(&record.repo).filter(|_| !record.state.is_end()) {
                memory += r.memory;
                cpus += f64::from(r.cpu_millis) / 1000.0;
            }
        }
        for (purpose, state) in crate::metrics::sandbox_series() {
            let n = counts.get(&(purpose, state)).copied().unwrap_or(0);
            self.metrics.sandboxes.get_or_create(&PurposeState { purpose, state }).set(n);
        }
        self.metrics.reserved_memory.set(memory as i64);
        self.metrics.reserved_cpus.set(cpus);
    }

    fn measure_sessions(&self) {
        let mut counts = HashMap::new();
        for session in self.sessions.all() {
            *counts.entry(session.record().state).or_insert(0) += 1;
        }
        for state in SessionState::ALL.into_iter().filter(|s| !s.is_end()) {
            let n = counts.get(&state).copied().unwrap_or(0);
            self.metrics.sessions.get_or_create(&OfState { state: state.as_str() }).set(n);
        }
    }

    fn measure_queues(&self, now: Timestamp) {
        let prompting = self.sessions.prompting();
        for spec in self.repos.all() {
            let people = prompting.get(&spec.name).map_or(0, std::collections::BTreeSet::len);
            let label = OfRepo { repo: spec.name.to_string() };
            self.metrics.people_prompting.get_or_create(&label).set(people as i64);
        }
        let webhooks = self.github.as_ref().map_or(0, |g| g.hooks.waiting());
        for (queue, n) in [
            ("cold_start", self.sessions.cold_waiting()),
            ("build", self.builds.waiting()),
            ("webhook", webhooks),
        ] {
            self.metrics.queue_length.get_or_create(&OfQueue { queue }).set(n as i64);
        }
        self.metrics.warmups_live.set(self.warmups.live_count() as i64);
        let [kind] = OUTBOX_KINDS;
        let (n, oldest) = self.pulls.pending();
        let age = oldest.map_or(0.0, |at| now.duration_since(at).as_secs_f64());
        self.metrics.outbox_pending.get_or_create(&OfKind { kind }).set(n as i64);
        self.metrics.outbox_oldest.get_or_create(&OfKind { kind }).set(age);
    }

    /// The task `machine_look`: how much room the disks have, and who used sandboxes since the last look.
    pub(crate) async fn look_at_the_machine(&self) -> Result<()> {
        self.count_sandbox_time();
        let mut disks = vec![("state", self.state_dir.clone())];
        if let Some(root) = self.engine_root().await {
            disks.push(("engine", root));
        }
        for (disk, path) in disks {
            // A disk over a network may hang.
            let room = tokio::task::spawn_blocking(move || room(&path)).await;
            let Ok(Some(room)) = room else { continue };
            self.metrics.disk_free_bytes.get_or_create(&OfDisk { disk }).set(room.bytes as i64);
            for (of, ratio) in [("bytes", room.bytes_ratio), ("inodes", room.inodes_ratio)] {
                self.metrics.disk_free_ratio.get_or_create(&DiskOf { disk, of }).set(ratio);
            }
        }
        Ok(())
    }

    fn count_sandbox_time(&self) {
        let now = self.clock.now();
        let before = lock(&self.looks.last).replace(now);
        let elapsed = before.map_or(0.0, |at| now.duration_since(at).as_secs_f64().max(0.0));
        let mut counts: HashMap<(RepoName, &'static str), u32> = HashMap::new();
        for record in self.fleet.records() {
            *counts.entry((record.repo.clone(), purpose(&record))).or_insert(0) += 1;
        }
        // Only of repos that are configured: a label takes no other name.
        for ((repo, purpose), n) in counts.into_iter().filter(|((repo, _), _)| self.repos.get(repo).is_some())
        {
            let of = RepoPurpose { repo: repo.to_string(), purpose };
            self.metrics.sandbox_seconds.get_or_create(&of).inc_by(elapsed * f64::from(n));
        }
    }

    /// Where the engine keeps its data, if that is a directory here. It is asked until it has answered once.
    async fn engine_root(&self) -> Option<PathBuf> {
        if let Some(answered) = lock(&self.looks.engine_root).clone() {
            return answered;
        }
        match self.fleet.backend().probe().await {
            Ok(info) => {
                let root = info.data_dir.filter(|dir| dir.is_dir());
                *lock(&self.looks.engine_root) = Some(root.clone());
                root
            }
            Err(e) => {
                debug!(error = %e.chain(), "the engine does not say where its data is");
                None
            }
        }
    }
}

struct Room {
    bytes: u64,
    bytes_ratio: f64,
    inodes_ratio: f64,
}

/// What an ordinary user may still use of the disk that a path is on.
fn room(path: &Path) -> Option<Room> {
    let found = rustix::fs::statvfs(path).ok()?;
    let ratio = |free: u64, all: u64| if all == 0 { 1.0 } else { free as f64 / all as f64 };
    Some(Room {
        bytes: found.f_bavail.saturating_mul(found.f_frsize),
        bytes_ratio: ratio(found.f_bavail, found.f_blocks),
        // File systems without a fixed number of them answer 0.
        inodes_ratio: ratio(found.f_favail, found.f_files),
    })
}
