//! Records to plan with.

use std::time::Duration;

use domain::{
    BuildId, Digest, ImageId, ImageRecord, ImageState, PoolOrder, PoolOrderKind, PoolPolicy, Purpose,
    RepoName, Resources, SandboxId, SandboxRecord, SandboxState,
};
use jiff::Timestamp;

pub const MAX_AGE: Duration = Duration::from_secs(6 * 3600);

/// Seconds after an arbitrary beginning.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn repo(name: &str) -> RepoName {
    name.parse().unwrap()
}

pub fn commit(n: u64) -> domain::CommitId {
    format!("{n:040x}").parse().unwrap()
}

pub fn policy(min: u32, max: u32) -> PoolPolicy {
    PoolPolicy { min, max, member_max_age: MAX_AGE, ..PoolPolicy::default() }
}

pub fn image(repo: &RepoName, n: u128) -> ImageRecord {
    let digest: Digest = format!("sha256:{n:064x}").parse().unwrap();
    ImageRecord {
        id: ImageId::from_u128(n),
        repo: repo.clone(),
        state: ImageState::Current,
        digest: digest.clone(),
        commit: commit(n as u64),
        branch: "main".parse().unwrap(),
        generation: n as u64,
        fingerprint: "f".into(),
        base_digest: digest,
        parent: None,
        build: BuildId::from_u128(n),
        agent_version: "1".into(),
        size: 1,
        created_at: at(0),
        verified_at: at(0),
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    }
}

/// A member of image `n`, created at `created`.
pub fn member(id: u128, repo: &RepoName, n: u128, state: SandboxState, created: i64) -> SandboxRecord {
    SandboxRecord {
        id: SandboxId::from_u128(id),
        repo: repo.clone(),
        purpose: Purpose::Pool,
        state,
        image: Some(ImageId::from_u128(n)),
        source: format!("sha256:{n:064x}").parse().unwrap(),
        commit: Some(commit(n as u64)),
        engine_id: None,
        token_hash: String::new(),
        session: None,
        reserved: None,
        created_at: at(created),
        ready_at: None,
        claimed_at: None,
        deadline: at(created + 120),
        reason: None,
        up: false,
    }
}

/// What one member of every repo takes, unless a test says otherwise: 1 GiB and one processor.
pub const SIZE: Resources = Resources { cpu_millis: 1000, memory: 1 << 30, pids: 256 };

pub fn order(repo: &RepoName, kind: PoolOrderKind) -> PoolOrder {
    PoolOrder { repo: repo.clone(), kind, at: at(0), by: "ada".into(), why: "the demo".into() }
}
