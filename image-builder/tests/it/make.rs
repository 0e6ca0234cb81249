//! Specs and records to build with.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::{
    Base, BuildId, CommitId, Digest, ImageId, ImageRecord, ImageState, Network, Phases, PoolPolicy, Recipe,
    RepoSpec, Resources, SessionPolicy,
};
use jiff::Timestamp;

/// Seconds after 2027-01-15 08:00:00 UTC.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

pub fn commit(n: u64) -> CommitId {
    format!("{n:040x}").parse().unwrap()
}

pub fn digest(n: u64) -> Digest {
    format!("sha256:{n:064x}").parse().unwrap()
}

pub fn spec() -> RepoSpec {
    RepoSpec {
        name: "acme/api".parse().unwrap(),
        url: "/srv/api.git".into(),
        branch: "main".parse().unwrap(),
        workspace: "/workspace".into(),
        image: Recipe {
            phases: Phases {
                setup: vec!["make deps".into(), "make build".into()],
                update: vec!["make deps".into(), "make migrate".into()],
                warm: vec!["make test".into()],
                verify: vec!["make smoke".into()],
                ..Phases::default()
            },
            env: BTreeMap::from([("MODE".into(), "dev".into())]),
            ca_certificates: vec!["/etc/hotbed/ca.pem".into()],
            step_timeout: Duration::from_secs(600),
            ..Recipe::of(Base::Reference("debian:bookworm".into()))
        },
        rollout: domain::RolloutPolicy::default(),
        pool: PoolPolicy {
            min: 1,
            max: 2,
            member_max_age: Duration::from_secs(3600),
            warmup_ttl: Duration::from_secs(60),
            ..PoolPolicy::default()
        },
        session: SessionPolicy {
            timeout: Duration::from_secs(3600),
            idle_end: None,
            branch_pattern: "hotbed/{session}".into(),
            sync_timeout: Duration::from_secs(60),
        },
        pushes: Default::default(),
        pulls: Default::default(),
        resources: Resources { cpu_millis: 1000, memory: 1 << 30, pids: 100 },
        network: Network::None,
    }
}

pub fn image(n: u64, generation: u64, state: ImageState) -> ImageRecord {
    ImageRecord {
        id: ImageId::from_u128(n.into()),
        repo: spec().name,
        state,
        digest: digest(n),
        commit: commit(n),
        branch: spec().branch,
        generation,
        fingerprint: "f".into(),
        base_digest: digest(1000),
        parent: None,
        build: BuildId::from_u128(n.into()),
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
