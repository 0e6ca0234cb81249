//! Which snapshots to forget.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use domain::{Digest, SessionId, SnapshotId, SnapshotRecord, SnapshotState};
use jiff::{SignedDuration, Timestamp};

/// How long snapshots are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// The newest of each session; at least one.
    pub keep_per_session: u32,
    /// An older one goes even then.
    pub max_age: Duration,
}

/// Which snapshots to remove: those beyond the newest of their session, those over their age, and failed ones that a
/// later snapshot of the same session has made up for.
///
/// Kept whatever their age: what is being taken or removed, what is in use (give the sources of all live sandboxes
/// and of restores under way), and what any of the kept stands on, however far down.
pub fn collect(
    now: Timestamp,
    snapshots: &[SnapshotRecord],
    policy: &RetentionPolicy,
    in_use: &HashSet<Digest>,
) -> Vec<SnapshotId> {
    let max_age = SignedDuration::try_from(policy.max_age).unwrap_or(SignedDuration::MAX);
    let too_old = |s: &SnapshotRecord| now.duration_since(s.created_at) >= max_age;
    let used = |s: &SnapshotRecord| s.digest.as_ref().is_some_and(|d| in_use.contains(d));

    let mut newest_first: Vec<_> = snapshots.iter().collect();
    newest_first.sort_by_key(|s| Reverse((s.created_at, s.id)));
    let mut ready: HashMap<SessionId, u32> = HashMap::new();
    let mut kept = Vec::new();
    for s in newest_first {
        let seen = ready.entry(s.session).or_default();
        let keep = match s.state {
            SnapshotState::Capturing | SnapshotState::Removing => true,
            SnapshotState::Ready => {
                *seen += 1;
                used(s) || (*seen <= policy.keep_per_session.max(1) && !too_old(s))
            }
            // It says why a session could not be captured, until it could.
            SnapshotState::Failed => *seen == 0 && !too_old(s),
        };
        if keep {
            kept.push(s);
        }
    }

    // What a kept one stands on is kept, and so on down. A capture is removed by its digest, so all records of one
    // content are kept together.
    let mut by_content: HashMap<&Digest, Vec<&SnapshotRecord>> = HashMap::new();
    for s in snapshots {
        if let Some(digest) = &s.digest {
            by_content.entry(digest).or_default().push(s);
        }
    }
    let of = |digest: &Digest| by_content.get(digest).into_iter().flatten().copied();
    let mut open = kept;
    open.extend(in_use.iter().flat_map(of));
    let mut ids: HashSet<SnapshotId> = HashSet::new();
    while let Some(s) = open.pop() {
        if !ids.insert(s.id) {
            continue;
        }
        open.extend(s.digest.iter().flat_map(of));
        // A failed or vanishing one stands on nothing that anybody will need.
        if !matches!(s.state, SnapshotState::Failed | SnapshotState::Removing) {
            open.extend(of(&s.source));
        }
    }
    snapshots.iter().filter(|s| !ids.contains(&s.id)).map(|s| s.id).collect()
}
