//! Which branches a refresh must leave alone, because a push to them is under way or was while it fetched.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Branches with pushes under way, and how many.
    pushing: HashMap<String, u32>,
    /// Branches that had a push under way at any moment since the last fetch began.
    touched: HashSet<String>,
}

impl Claims {
    pub(super) fn fetch_begins(&mut self) {
        self.touched = self.pushing.keys().cloned().collect();
    }

    pub(super) fn is_busy(&self, branch: &str) -> bool {
        self.touched.contains(branch)
    }
}

/// A push to a branch that is under way; ends when dropped.
#[derive(Debug)]
pub(crate) struct PushClaim {
    claims: Arc<Mutex<Claims>>,
    branch: String,
    /// Goes up when it ends.
    moves: Arc<AtomicU64>,
}

impl PushClaim {
    pub(super) fn new(claims: Arc<Mutex<Claims>>, branch: &str, moves: Arc<AtomicU64>) -> Self {
        {
            let mut held = claims.lock().unwrap_or_else(PoisonError::into_inner);
            *held.pushing.entry(branch.to_owned()).or_default() += 1;
            held.touched.insert(branch.to_owned());
        }
        Self { claims, branch: branch.to_owned(), moves }
    }
}

impl Drop for PushClaim {
    fn drop(&mut self) {
        let mut held = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = held.pushing.get_mut(&self.branch) {
            *n -= 1;
            if *n == 0 {
                held.pushing.remove(&self.branch);
            }
        }
        self.moves.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_is_busy_until_a_fetch_began_after_the_push() {
        let claims = Arc::new(Mutex::new(Claims::default()));
        let busy = |b: &str| claims.lock().unwrap().is_busy(b);
        claims.lock().unwrap().fetch_begins();
        let moves = Arc::new(AtomicU64::new(0));
        let push = PushClaim::new(claims.clone(), "a", moves.clone());
        assert!(busy("a") && !busy("b"));
        drop(push);
        assert_eq!(moves.load(Ordering::Acquire), 1);
        assert!(busy("a"), "the running fetch may have looked before the push");
        claims.lock().unwrap().fetch_begins();
        assert!(!busy("a"));
        let _push = PushClaim::new(claims.clone(), "a", moves);
        claims.lock().unwrap().fetch_begins();
        assert!(busy("a"), "the push is still under way");
    }
}
