//! What the engine has and no record knows, after the state was put back from a copy: it may have been made, and
//! worked in, after the copy was taken. It is left alone until an operator has said that it may go
//! (`hotbed restore --release`).

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use domain::{BuildId, SandboxId, SnapshotId};
use jiff::Timestamp;
use tracing::warn;

/// Who is left alone.
pub struct Spared {
    restored_at: Option<Timestamp>,
    /// Said of each once, and not at every look.
    said: Mutex<HashSet<String>>,
}

impl Spared {
    pub fn new(restored_at: Option<Timestamp>) -> Self {
        Self { restored_at, said: Mutex::default() }
    }

    /// Whether this sandbox without a record is to be left alone. Says so the first time.
    pub fn sandbox(&self, id: SandboxId) -> bool {
        self.is_of_before("sandbox", &id.to_string(), id.made_at())
    }

    /// Whether this capture without a row is: named after the build or the snapshot that it came of.
    pub fn capture(&self, name: &str) -> bool {
        let build = name.parse().ok().and_then(BuildId::made_at);
        let snapshot = name.parse().ok().and_then(SnapshotId::made_at);
        self.is_of_before("capture", name, build.or(snapshot))
    }

    /// What can't be dated is spared, too.
    fn is_of_before(&self, kind: &'static str, name: &str, made_at: Option<Timestamp>) -> bool {
        let Some(restored_at) = self.restored_at else { return false };
        if made_at.is_some_and(|at| at >= restored_at) {
            return false;
        }
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            warn!(
                kind,
                name,
                %restored_at,
                "left alone: no record knows it, and the state was restored after it was made; look at it, then \
                 `hotbed restore --release`"
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_before_the_restore_is_left_alone() {
        let before = SandboxId::new();
        let made = before.made_at().unwrap();
        let later = Spared::new(Some(made + jiff::SignedDuration::from_secs(60)));
        assert!(later.sandbox(before));
        let snapshot = SnapshotId::new();
        assert!(later.capture(&snapshot.to_string()) && later.capture("what is this"));

        let earlier = Spared::new(Some(made - jiff::SignedDuration::from_secs(60)));
        assert!(!earlier.sandbox(before), "made after it");
        assert!(!earlier.capture(&snapshot.to_string()));
        assert!(!Spared::new(None).sandbox(before), "never restored");
    }
}
