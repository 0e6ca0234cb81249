//! Records to decide about.

use domain::{
    Digest, Identity, Launch, Purpose, RepoName, SandboxId, SandboxRecord, SandboxState, SessionId,
    SessionRecord, SessionState, SnapshotId, SnapshotKind, SnapshotRecord, SnapshotState, SyncState,
};
use jiff::Timestamp;

/// Seconds after an arbitrary beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn repo() -> RepoName {
    "acme/api".parse().unwrap()
}

pub fn digest(n: u64) -> Digest {
    format!("sha256:{n:064x}").parse().unwrap()
}

pub fn session(n: u128, state: SessionState) -> SessionRecord {
    SessionRecord {
        id: SessionId::from_u128(n),
        repo: repo(),
        state,
        launch: Launch::Warm,
        sandbox: Some(SandboxId::from_u128(n)),
        image: None,
        user: Identity { login: "ada".into(), name: "Ada".into(), email: "ada@acme.example".into() },
        base: "main".parse().unwrap(),
        branch: "hotbed/1".parse().unwrap(),
        sync: SyncState::pending(),
        prepared: false,
        token_handed: false,
        prompters: Vec::new(),
        env: std::collections::BTreeMap::new(),
        snapshot: None,
        parent: None,
        warmup: None,
        created_at: at(0),
        started_at: Some(at(1)),
        expires_at: at(9999),
        idle_end_seconds: None,
        deadline: at(9999),
        ended_at: None,
        end: None,
        trouble: None,
        trace: None,
    }
}

pub fn sandbox(n: u128, state: SandboxState) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_u128(n),
        repo: repo(),
        purpose: Purpose::Pool,
        state,
        image: None,
        source: digest(1),
        commit: None,
        engine_id: None,
        token_hash: String::new(),
        session: Some(SessionId::from_u128(n)),
        reserved: None,
        created_at: at(0),
        ready_at: None,
        claimed_at: None,
        deadline: at(9999),
        reason: None,
        up: false,
    }
}

/// Snapshot `n` of a session, with content `n`, taken of what was started from content `source`.
pub fn snapshot(n: u64, of: u128, state: SnapshotState, source: u64, created: i64) -> SnapshotRecord {
    SnapshotRecord {
        id: SnapshotId::from_u128(n.into()),
        session: SessionId::from_u128(of),
        repo: repo(),
        kind: SnapshotKind::End,
        state,
        digest: (state == SnapshotState::Ready || state == SnapshotState::Removing).then(|| digest(n)),
        source: digest(source),
        commit: None,
        branch: "hotbed/1".parse().unwrap(),
        size: None,
        created_at: at(created),
        deadline: at(created + 600),
        error: (state == SnapshotState::Failed).then(|| "disk full".into()),
    }
}
