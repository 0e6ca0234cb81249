//! How long a warm member is good for: the one rule that the plan, the ranking and the shelf share, so that none
//! of them hands out what another is about to remove (F12).
//!
//! A warm member's life is counted from its creation; the `deadline` in its record is not looked at here, because
//! the policy can be reloaded and the record can not.

use std::time::Duration;

use domain::SandboxRecord;
use jiff::{SignedDuration, Timestamp};

/// A member with less of its life left than this is handed out to nobody (F12).
pub const MIN_REMAINING_LIFE: Duration = Duration::from_secs(60);

/// `at` plus `by`, or the end of time.
pub(crate) fn later(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// `at` less `by`, or the beginning of time.
pub(crate) fn earlier(at: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| at.checked_sub(by).ok()).unwrap_or(Timestamp::MIN)
}

/// From here on a member is handed out to nobody, and the next plan removes it.
pub fn expires_at(member: &SandboxRecord, max_age: Duration) -> Timestamp {
    later(member.created_at, max_age)
}

/// From here on a member is replaced, one by one and behind a successor that is ready: the last tenth of its life
/// is the time the pool has for that, so that it need not fall below its floor when many members are equally old.
pub fn replaced_from(member: &SandboxRecord, max_age: Duration) -> Timestamp {
    later(member.created_at, max_age - max_age / 10)
}
