//! Records to write, each a function of small numbers.

use std::sync::Arc;

use domain::*;
use jiff::Timestamp;
use store::{Idempotency, Loaded, Store};

pub fn clock() -> SharedClock {
    Arc::new(SystemClock)
}

pub async fn open(dir: &std::path::Path) -> (Store, Loaded) {
    Store::open(dir, clock()).await.expect("open the store")
}

pub fn at(second: i64) -> Timestamp {
    // With a part below the microsecond, which a column would lose and a body must not.
    Timestamp::new(1_700_000_000 + second, 123_456_789).expect("in range")
}

pub fn repo(n: u128) -> RepoName {
    format!("acme/repo-{n}").parse().expect("a name")
}

fn digest(n: u128) -> Digest {
    format!("sha256:{n:064x}").parse().expect("a digest")
}

fn commit(n: u128) -> CommitId {
    format!("{n:040x}").parse().expect("a commit")
}

pub fn sandbox(n: u128, state: SandboxState) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_u128(n),
        repo: repo(n % 3),
        purpose: Purpose::Build(BuildId::from_u128(n)),
        state,
        image: Some(ImageId::from_u128(n)),
        source: digest(n),
        commit: Some(commit(n)),
        engine_id: Some(format!("engine-{n} with \"quotes\" and ünïcode")),
        token_hash: format!("{n:064x}"),
        session: n.is_multiple_of(2).then(|| SessionId::from_u128(n)),
        reserved: None,
        created_at: at(n as i64),
        ready_at: Some(at(1)),
        claimed_at: None,
        deadline: at(100),
        reason: None,
        up: false,
    }
}

pub fn session(n: u128, state: SessionState) -> SessionRecord {
    SessionRecord {
        id: SessionId::from_u128(n),
        repo: repo(n % 3),
        state,
        launch: Launch::ALL[(n % 4) as usize],
        sandbox: Some(SandboxId::from_u128(n)),
        image: None,
        user: Identity {
            login: format!("user-{}", n % 5),
            name: "Ü\n\0".into(),
            email: "u@example.com".into(),
        },
        prompters: Vec::new(),
        env: [("KEY".to_owned(), format!("value {n}"))].into(),
        base: "main".parse().expect("a branch"),
        branch: format!("hotbed/{n}").parse().expect("a branch"),
        sync: SyncState::pending(),
        prepared: false,
        token_handed: false,
        snapshot: None,
        parent: None,
        warmup: None,
        created_at: at(n as i64),
        started_at: None,
        expires_at: at(1000),
        idle_end_seconds: Some(u64::from(u32::MAX)),
        deadline: at(100),
        ended_at: None,
        end: state.is_end().then_some(EndReason::Requested),
        trouble: None,
        trace: None,
    }
}

pub fn image(n: u128, repo_n: u128, state: ImageState) -> ImageRecord {
    ImageRecord {
        id: ImageId::from_u128(n),
        repo: repo(repo_n),
        state,
        digest: digest(n),
        commit: commit(n),
        branch: "main".parse().expect("a branch"),
        generation: n as u64,
        fingerprint: "f".into(),
        base_digest: digest(n + 1),
        parent: None,
        build: BuildId::from_u128(n),
        agent_version: "1".into(),
        size: u64::MAX,
        created_at: at(n as i64),
        verified_at: at(n as i64),
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    }
}

pub fn build(n: u128, state: BuildState) -> BuildRecord {
    BuildRecord {
        id: BuildId::from_u128(n),
        repo: repo(n % 3),
        state,
        trigger: Trigger::Push,
        by: None,
        phase: Some(Phase::Setup),
        phase_since: None,
        phases: vec![PhaseReport { phase: Phase::Clone, seconds: 0.1 + n as f64, exit_code: Some(-1) }],
        commit: None,
        decision: None,
        parent: None,
        base_digest: None,
        fingerprint: None,
        image: None,
        size: None,
        warnings: Vec::new(),
        superseded_by: None,
        created_at: at(n as i64),
        started_at: None,
        ended_at: None,
        deadline: at(100),
        error: None,
    }
}

pub fn absence(n: u128) -> AbsenceRecord {
    AbsenceRecord { repo: repo(n), since: at(n as i64) }
}

pub fn cadence(n: u128) -> CadenceRecord {
    CadenceRecord {
        repo: repo(n),
        last_tick: Some(at(n as i64)),
        failures: n as u32,
        last_failure: Some(at(7)),
        push: Some(PushNote { commit: commit(n), first: at(8), last: at(9) }),
        created_at: at(1),
    }
}

pub fn demand(n: u128) -> DemandRecord {
    let lead = LeadTimes { watched_since: Some(at(n as i64)), samples: vec![700, n as u32] };
    DemandRecord { repo: repo(n), lead }
}

/// Of hour `n`; with more claims the larger `claims` is.
pub fn demand_hour(n: u128, claims: u32) -> DemandHour {
    DemandHour { repo: repo(n % 3), hour: 470_000 + n as i64, minutes: vec![(0, 1), (59, claims)] }
}

pub fn pool_order(n: u128) -> PoolOrder {
    let kind = match n % 3 {
        0 => PoolOrderKind::Pause,
        1 => PoolOrderKind::Drain,
        _ => PoolOrderKind::Set { min: Some(n as u32), max: None, until: at(50) },
    };
    PoolOrder { repo: repo(n), kind, at: at(n as i64), by: "ada".into(), why: "a \"demo\"".into() }
}

pub fn api_key(n: u128) -> KeyRecord {
    KeyRecord {
        id: KeyId::from_u128(n),
        name: format!("key {n}"),
        role: Role::ALL[n as usize % Role::ALL.len()],
        reach: if n.is_multiple_of(2) { Reach::All } else { Reach::Only([repo(n)].into()) },
        hash: "0".repeat(64),
        created_at: at(n as i64),
        created_by: "installation".into(),
        expires_at: n.is_multiple_of(3).then(|| at(99)),
        last_used_at: None,
        revoked_at: None,
    }
}

pub fn snapshot(n: u128, state: SnapshotState) -> SnapshotRecord {
    SnapshotRecord {
        id: SnapshotId::from_u128(n),
        session: SessionId::from_u128(n % 4),
        repo: repo(n % 3),
        kind: SnapshotKind::Demand,
        state,
        digest: Some(digest(n)),
        source: digest(n + 1),
        commit: None,
        branch: "main".parse().expect("a branch"),
        size: Some(7),
        created_at: at(n as i64),
        deadline: at(100),
        error: None,
    }
}

pub fn pull_request(n: u128, state: PullRequestState) -> PullRequestRecord {
    PullRequestRecord {
        id: PullRequestId::from_u128(n),
        session: SessionId::from_u128(n % 4),
        repo: repo(n % 3),
        state,
        number: Some(n as u64),
        url: None,
        head: "x".parse().expect("a branch"),
        head_commit: None,
        base: "main".parse().expect("a branch"),
        title: "t".into(),
        body: "b".repeat(5000),
        draft: true,
        author: "a".into(),
        created_at: at(n as i64),
        error: None,
        opened_at: None,
        merged_at: None,
        life: None,
        reviews: Default::default(),
        revisions: 0,
        asked: Default::default(),
        said: None,
        rewording: None,
        trace: None,
    }
}

pub fn warmup(n: u128, state: WarmupState) -> WarmupRecord {
    WarmupRecord {
        id: WarmupId::from_u128(n),
        repo: repo(n % 3),
        client: "c".into(),
        branch: "main".parse().expect("a branch"),
        sandbox: None,
        state,
        created_at: at(n as i64),
        expires_at: at(100),
        preparing_since: None,
        prepared_at: None,
        ended_at: (state != WarmupState::Live).then(|| at(200)),
        trace: None,
    }
}

pub fn idempotency(n: u128, created_at: Timestamp) -> Idempotency {
    Idempotency {
        key: format!("key-{n}"),
        route: "POST /v1/sessions".into(),
        body_hash: format!("{n:x}"),
        resource: SessionId::from_u128(n).to_string(),
        created_at,
    }
}
