//! Whatever is written in whatever order: reads equal a map, and so does what is loaded after a restart (F31).

use std::collections::HashMap;

use domain::*;
use proptest::prelude::*;
use store::{Idempotency, Loaded, Store, Tx};

use crate::samples;

#[derive(Debug, Clone)]
enum Change {
    Sandbox(u128, usize),
    Session(u128, usize),
    Image(u128, usize),
    Build(u128, usize),
    Snapshot(u128, usize),
    PullRequest(u128, usize),
    Warmup(u128, usize),
    /// A repo's cadence, and its absence.
    Cadence(u128),
    /// A repo's lead times and the order for its pool; and an API key.
    Demand(u128),
    /// An hour with so many claims in its last minute.
    Hour(u128, u32),
    Idempotency(u128),
    /// Of the kind with this number.
    Remove(usize, u128),
}

const IMAGE: [ImageState; 4] =
    [ImageState::Candidate, ImageState::Current, ImageState::Superseded, ImageState::Removing];
const BUILD: [BuildState; 6] = [
    BuildState::Queued,
    BuildState::Running,
    BuildState::Succeeded,
    BuildState::Unchanged,
    BuildState::Failed,
    BuildState::Superseded,
];
const SNAPSHOT: [SnapshotState; 4] =
    [SnapshotState::Capturing, SnapshotState::Ready, SnapshotState::Failed, SnapshotState::Removing];
const REQUEST: [PullRequestState; 3] =
    [PullRequestState::Pending, PullRequestState::Open, PullRequestState::Merged];
const WARMUP: [WarmupState; 3] = [WarmupState::Live, WarmupState::Hit, WarmupState::Expired];

#[derive(Debug, Clone, Default)]
struct Model {
    sandboxes: HashMap<SandboxId, SandboxRecord>,
    sessions: HashMap<SessionId, SessionRecord>,
    images: HashMap<ImageId, ImageRecord>,
    builds: HashMap<BuildId, BuildRecord>,
    snapshots: HashMap<SnapshotId, SnapshotRecord>,
    requests: HashMap<PullRequestId, PullRequestRecord>,
    warmups: HashMap<WarmupId, WarmupRecord>,
    absences: HashMap<RepoName, AbsenceRecord>,
    cadences: HashMap<RepoName, CadenceRecord>,
    demands: HashMap<RepoName, DemandRecord>,
    demand_hours: HashMap<(RepoName, i64), DemandHour>,
    pool_orders: HashMap<RepoName, PoolOrder>,
    api_keys: HashMap<KeyId, KeyRecord>,
    idempotency: HashMap<String, Idempotency>,
}

impl Model {
    fn apply(&mut self, changes: &[Change], now: jiff::Timestamp) -> Tx {
        let mut tx = Tx::new();
        for change in changes {
            tx = match *change {
                Change::Sandbox(n, s) => {
                    let r = samples::sandbox(n, SandboxState::ALL[s % 7]);
                    let tx = tx.sandbox(&r);
                    self.sandboxes.insert(r.id, r);
                    tx
                }
                Change::Session(n, s) => {
                    let r = samples::session(n, SessionState::ALL[s % 5]);
                    let tx = tx.session(&r);
                    self.sessions.insert(r.id, r);
                    tx
                }
                Change::Image(n, s) => {
                    // Each image is of its own repo, or the rule of one current image would speak.
                    let r = samples::image(n, n, IMAGE[s % 4]);
                    let tx = tx.image(&r);
                    self.images.insert(r.id, r);
                    tx
                }
                Change::Build(n, s) => {
                    let r = samples::build(n, BUILD[s % 6]);
                    let tx = tx.build(&r);
                    self.builds.insert(r.id, r);
                    tx
                }
                Change::Snapshot(n, s) => {
                    let r = samples::snapshot(n, SNAPSHOT[s % 4]);
                    let tx = tx.snapshot(&r);
                    self.snapshots.insert(r.id, r);
                    tx
                }
                Change::PullRequest(n, s) => {
                    let r = samples::pull_request(n, REQUEST[s % 3]);
                    let tx = tx.pull_request(&r);
                    self.requests.insert(r.id, r);
                    tx
                }
                Change::Warmup(n, s) => {
                    let r = samples::warmup(n, WARMUP[s % 3]);
                    let tx = tx.warmup(&r);
                    self.warmups.insert(r.id, r);
                    tx
                }
                Change::Cadence(n) => {
                    let r = samples::cadence(n);
                    let absence = samples::absence(n);
                    let tx = tx.cadence(&r).absence(&absence);
                    self.absences.insert(absence.repo.clone(), absence);
                    self.cadences.insert(r.repo.clone(), r);
                    tx
                }
                Change::Demand(n) => {
                    let (r, order) = (samples::demand(n), samples::pool_order(n));
                    let key = samples::api_key(n);
                    let tx = tx.demand(&r).pool_order(&order).api_key(&key);
                    self.api_keys.insert(key.id, key);
                    self.demands.insert(r.repo.clone(), r);
                    self.pool_orders.insert(order.repo.clone(), order);
                    tx
                }
                Change::Hour(n, claims) => {
                    let r = samples::demand_hour(n, claims);
                    let tx = tx.demand_hour(&r);
                    self.demand_hours.insert((r.repo.clone(), r.hour), r);
                    tx
                }
                Change::Idempotency(n) => {
                    let r = samples::idempotency(n, now);
                    let tx = tx.idempotency(&r);
                    self.idempotency.insert(r.key.clone(), r);
                    tx
                }
                Change::Remove(kind, n) => self.remove(tx, kind, n, now),
            };
        }
        tx
    }

    fn remove(&mut self, tx: Tx, kind: usize, n: u128, now: jiff::Timestamp) -> Tx {
        match kind % 11 {
            0 => {
                self.sandboxes.remove(&SandboxId::from_u128(n));
                tx.remove_sandbox(SandboxId::from_u128(n))
            }
            1 => {
                self.sessions.remove(&SessionId::from_u128(n));
                tx.remove_session(SessionId::from_u128(n))
            }
            2 => {
                self.images.remove(&ImageId::from_u128(n));
                tx.remove_image(ImageId::from_u128(n))
            }
            3 => {
                self.builds.remove(&BuildId::from_u128(n));
                tx.remove_build(BuildId::from_u128(n))
            }
            4 => {
                self.snapshots.remove(&SnapshotId::from_u128(n));
                tx.remove_snapshot(SnapshotId::from_u128(n))
            }
            5 => {
                self.requests.remove(&PullRequestId::from_u128(n));
                tx.remove_pull_request(PullRequestId::from_u128(n))
            }
            6 => {
                self.warmups.remove(&WarmupId::from_u128(n));
                tx.remove_warmup(WarmupId::from_u128(n))
            }
            7 => {
                self.cadences.remove(&samples::repo(n));
                self.absences.remove(&samples::repo(n));
                tx.remove_cadence(samples::repo(n)).remove_absence(samples::repo(n))
            }
            8 => {
                self.demands.remove(&samples::repo(n));
                tx.remove_demand(samples::repo(n))
            }
            9 => {
                self.pool_orders.remove(&samples::repo(n));
                self.api_keys.remove(&KeyId::from_u128(n));
                tx.remove_pool_order(samples::repo(n)).remove_api_key(KeyId::from_u128(n))
            }
            _ => {
                let r = samples::idempotency(n, now);
                self.idempotency.remove(&r.key);
                tx.remove_idempotency(&r.key, &r.route)
            }
        }
    }

    fn loaded(&self) -> Loaded {
        fn sorted<T: Clone, K: Ord>(rows: impl Iterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
            let mut rows: Vec<T> = rows.collect();
            rows.sort_by_key(key);
            rows
        }
        Loaded {
            sandboxes: sorted(self.sandboxes.values().filter(|r| !r.state.is_end()).cloned(), |r| r.id),
            sessions: sorted(self.sessions.values().filter(|r| !r.state.is_end()).cloned(), |r| r.id),
            images: sorted(self.images.values().cloned(), |r| r.id),
            builds: sorted(self.builds.values().filter(|r| !r.state.is_end()).cloned(), |r| r.id),
            snapshots: sorted(self.snapshots.values().cloned(), |r| r.id),
            pull_requests: sorted(
                self.requests
                    .values()
                    .filter(|r| matches!(r.state, PullRequestState::Pending | PullRequestState::Open))
                    .cloned(),
                |r| r.id,
            ),
            warmups: sorted(self.warmups.values().filter(|r| r.state == WarmupState::Live).cloned(), |r| {
                r.id
            }),
            absences: sorted(self.absences.values().cloned(), |r| r.repo.clone()),
            cadences: sorted(self.cadences.values().cloned(), |r| r.repo.clone()),
            demands: sorted(self.demands.values().cloned(), |r| r.repo.clone()),
            demand_hours: sorted(self.demand_hours.values().cloned(), |r| (r.repo.clone(), r.hour)),
            pool_orders: sorted(self.pool_orders.values().cloned(), |r| r.repo.clone()),
            api_keys: sorted(self.api_keys.values().cloned(), |r| r.id),
            idempotency: sorted(self.idempotency.values().cloned(), |r| r.key.clone()),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let id = || 0..8u128;
    prop_oneof![
        3 => (id(), 0..7usize).prop_map(|(n, s)| Change::Sandbox(n, s)),
        3 => (id(), 0..5usize).prop_map(|(n, s)| Change::Session(n, s)),
        2 => (id(), 0..4usize).prop_map(|(n, s)| Change::Image(n, s)),
        2 => (id(), 0..6usize).prop_map(|(n, s)| Change::Build(n, s)),
        2 => (id(), 0..4usize).prop_map(|(n, s)| Change::Snapshot(n, s)),
        2 => (id(), 0..3usize).prop_map(|(n, s)| Change::PullRequest(n, s)),
        2 => (id(), 0..3usize).prop_map(|(n, s)| Change::Warmup(n, s)),
        1 => id().prop_map(Change::Cadence),
        1 => id().prop_map(Change::Demand),
        2 => (id(), 0..9u32).prop_map(|(n, claims)| Change::Hour(n, claims)),
        2 => id().prop_map(Change::Idempotency),
        2 => (0..11usize, id()).prop_map(|(k, n)| Change::Remove(k, n)),
    ]
}

async fn check(txs: Vec<(Vec<Change>, bool)>) {
    let dir = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let (mut store, mut model) = (samples::open(dir.path()).await.0, Model::default());
    for (i, (changes, durable)) in txs.iter().enumerate() {
        let tx = model.apply(changes, now);
        store.commit(if *durable { tx.durable() } else { tx }).await.unwrap();
        if i % 7 == 6 {
            // A restart in the middle, alternately in good order and by dropping.
            if i % 2 == 0 {
                store.close().await;
            } else {
                drop(store);
            }
            store = samples::open(dir.path()).await.0;
        }
        read_your_writes(&store, &model).await;
    }
    store.close().await;
    let (_, loaded) = samples::open(dir.path()).await;
    assert_eq!(loaded, model.loaded());
}

/// F37.
async fn read_your_writes(store: &Store, model: &Model) {
    for n in 0..8 {
        let id = SandboxId::from_u128(n);
        assert_eq!(store.sandbox(id).await.unwrap().as_ref(), model.sandboxes.get(&id));
        let id = SessionId::from_u128(n);
        assert_eq!(store.session(id).await.unwrap().as_ref(), model.sessions.get(&id));
        let id = ImageId::from_u128(n);
        assert_eq!(store.image(id).await.unwrap().as_ref(), model.images.get(&id));
        let id = BuildId::from_u128(n);
        assert_eq!(store.build(id).await.unwrap().as_ref(), model.builds.get(&id));
        let id = SnapshotId::from_u128(n);
        assert_eq!(store.snapshot(id).await.unwrap().as_ref(), model.snapshots.get(&id));
        let id = PullRequestId::from_u128(n);
        assert_eq!(store.pull_request(id).await.unwrap().as_ref(), model.requests.get(&id));
        let id = WarmupId::from_u128(n);
        assert_eq!(store.warmup(id).await.unwrap().as_ref(), model.warmups.get(&id));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_store_equals_a_map(txs in proptest::collection::vec((proptest::collection::vec(change(), 0..6), any::<bool>()), 0..16)) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(txs));
    }
}
