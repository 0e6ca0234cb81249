//! How a checked image becomes what all sandboxes start from, and how it stops being that: which sessions try a
//! canary, when it has been tried enough, and when failures are the image's. All pure.

use std::time::Duration;

use domain::{
    CanaryPolicy, CommitId, ImageFailure, ImageId, ImageRecord, ImageState, RolloutPolicy, SessionId,
};
use jiff::Timestamp;

use crate::promote::{before_current, superseded};

/// Failures that lie further apart are not of one cause; and an image that is gone back to is not demoted within
/// this time: where it fails as well, the cause is somewhere else.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(3600);
/// As many failures of an image are kept.
const KEPT_FAILURES: usize = 32;

/// Whether a session, or a warm-up, is of the share that tries a canary. The same answer whenever it is asked.
pub fn tries_canary(id: u128, policy: &CanaryPolicy) -> bool {
    // The last 32 bits of an id are random; those before them may be counted up.
    let part = (id & 0xffff_ffff) as f64 / (1u64 << 32) as f64;
    part < policy.share
}

/// What a canary waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    GoesOn,
    /// It becomes current; why, in words.
    Passed(String),
}

/// What there is to say of a canary that has not been demoted. `None` for a policy that knows no canaries (any more).
pub fn trial(now: Timestamp, policy: Option<&CanaryPolicy>, canary: &ImageRecord) -> Trial {
    let Some(policy) = policy else { return Trial::Passed("canaries are no longer wanted".into()) };
    if canary.went_well >= policy.sessions {
        return Trial::Passed(format!("{} sessions began well on it", canary.went_well));
    }
    let age = now.duration_since(canary.created_at);
    if Duration::try_from(age).is_ok_and(|age| age >= policy.longest) {
        let (well, badly) = (canary.went_well, canary.failures.len());
        return Trial::Passed(format!("its time is over: {well} sessions began well on it, {badly} failed"));
    }
    Trial::GoesOn
}

/// The record to write when a session began well on a canary; none for any other image.
pub fn began_well(id: ImageId, images: &[ImageRecord]) -> Vec<ImageRecord> {
    let canary = images.iter().filter(|i| i.id == id && i.state == ImageState::Canary);
    canary.map(|i| ImageRecord { went_well: i.went_well.saturating_add(1), ..i.clone() }).collect()
}

/// What a failure of an image in a sandbox leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blame {
    /// It is not handed out any more, or has been counted for this sandbox or session.
    NotCounted,
    /// Counted, and too few to say that it is the image.
    Counted { failures: usize },
    /// It is handed out no more; `to` is current now.
    Demoted { to: ImageId, failures: usize },
    /// As many as demote an image, and it stays; why, in words.
    Stays { why: &'static str, failures: usize },
}

/// The records to write when image `id` failed in a sandbox, and what that means. Failures count once for each
/// sandbox and each session (F22).
pub fn blame(
    id: ImageId,
    failure: ImageFailure,
    policy: &RolloutPolicy,
    images: &[ImageRecord],
) -> (Vec<ImageRecord>, Blame) {
    let handed_out = |i: &&ImageRecord| matches!(i.state, ImageState::Current | ImageState::Canary);
    let Some(image) = images.iter().find(|i| i.id == id).filter(handed_out) else {
        return (Vec::new(), Blame::NotCounted);
    };
    let same = |f: &ImageFailure| {
        f.sandbox == failure.sandbox || (f.session.is_some() && f.session == failure.session)
    };
    if image.failures.iter().any(same) {
        return (Vec::new(), Blame::NotCounted);
    }
    let now = failure.at;
    let mut image = image.clone();
    image.failures.push(failure);
    let surplus = image.failures.len().saturating_sub(KEPT_FAILURES);
    image.failures.drain(..surplus);
    let failures = image.failures.iter().filter(|f| is_recent(now, f.at)).count();
    if policy.demote_after == 0 || failures < policy.demote_after as usize {
        return (vec![image], Blame::Counted { failures });
    }
    let demoted = ImageRecord { state: ImageState::Demoted, ..image.clone() };
    if image.state == ImageState::Canary {
        // A canary stands beside a current one.
        let current = images.iter().find(|i| i.state == ImageState::Current && i.repo == image.repo);
        return match current.map(|i| i.id) {
            Some(to) => (vec![demoted], Blame::Demoted { to, failures }),
            None => (vec![image], Blame::Stays { why: "there is no other", failures }),
        };
    }
    let another = |i: &ImageRecord| {
        i.state == ImageState::Demoted && i.failures.last().is_some_and(|f| is_recent(now, f.at))
    };
    let stays = |why| (vec![image.clone()], Blame::Stays { why, failures });
    if image.pinned {
        return stays("it is pinned");
    }
    if images.iter().any(another) {
        return stays("another was demoted within the hour: the cause may be somewhere else");
    }
    match before_current(images) {
        Some(before) => {
            let to = before.id;
            let before = ImageRecord { state: ImageState::Current, ..before.clone() };
            (vec![demoted, before], Blame::Demoted { to, failures })
        }
        None => stays("there is none before it"),
    }
}

/// Whether a build of `commit` would make again what failed in sessions. `fingerprint` answers that of the build for
/// a base.
pub fn was_demoted<'a>(
    images: &'a [ImageRecord],
    commit: &CommitId,
    fingerprint: impl Fn(&ImageRecord) -> String,
) -> Option<&'a ImageRecord> {
    let demoted = images.iter().filter(|i| i.state == ImageState::Demoted && i.commit == *commit);
    demoted.max_by_key(|i| i.generation).filter(|i| i.fingerprint == fingerprint(i))
}

/// The records to write when a canary has passed its trial: none while the current image is pinned, or when it is no
/// canary (any more).
pub fn pass(id: ImageId, images: &[ImageRecord]) -> Vec<ImageRecord> {
    let Some(canary) = images.iter().find(|i| i.id == id && i.state == ImageState::Canary) else {
        return Vec::new();
    };
    if images.iter().any(|i| i.repo == canary.repo && i.state == ImageState::Current && i.pinned) {
        return vec![ImageRecord { state: ImageState::Superseded, ..canary.clone() }];
    }
    let new = ImageRecord { state: ImageState::Current, ..canary.clone() };
    let mut records = superseded(images, &new);
    records.push(new);
    records
}

/// A sandbox's own failure, as it is kept.
pub fn failure_of(
    at: Timestamp,
    sandbox: domain::SandboxId,
    session: Option<SessionId>,
    why: &str,
) -> ImageFailure {
    // Enough to see what it is; the whole is in the session's log.
    ImageFailure { at, sandbox, session, why: why.chars().take(500).collect() }
}

fn is_recent(now: Timestamp, at: Timestamp) -> bool {
    Duration::try_from(now.duration_since(at)).is_ok_and(|age| age <= FAILURE_WINDOW) || at > now
}
