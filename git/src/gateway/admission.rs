//! How many git children the gateway runs at once: in all, and for one sandbox, so that one sandbox can't take
//! the places of all others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::SandboxId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(super) struct Admission {
    places: Arc<Semaphore>,
    each: u32,
    held: Arc<Mutex<HashMap<SandboxId, u32>>>,
    patience: Duration,
}

/// A place for one child; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    _share: Share,
}

#[derive(Debug)]
struct Share(SandboxId, Arc<Mutex<HashMap<SandboxId, u32>>>);

impl Admission {
    /// `patience` is how long a request waits for a place that others hold.
    pub(super) fn new(all: usize, each: u32, patience: Duration) -> Self {
        Self { places: Arc::new(Semaphore::new(all)), each, held: Arc::default(), patience }
    }

    /// The error says which limit is reached.
    pub(super) async fn enter(&self, sandbox: SandboxId) -> Result<Place, &'static str> {
        let share = self.share(sandbox).ok_or("this sandbox runs too many git operations at once")?;
        match tokio::time::timeout(self.patience, self.places.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit, _share: share }),
            _ => Err("too many git operations run at once"),
        }
    }

    fn share(&self, sandbox: SandboxId) -> Option<Share> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let n = held.entry(sandbox).or_default();
        if *n >= self.each {
            return None;
        }
        *n += 1;
        Some(Share(sandbox, self.held.clone()))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = held.get_mut(&self.0) {
            *n -= 1;
            if *n == 0 {
                held.remove(&self.0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sandbox_has_a_share_and_all_have_a_limit() {
        let (a, b) = (SandboxId::from_u128(1), SandboxId::from_u128(2));
        let admission = Admission::new(3, 2, Duration::from_millis(5));
        let first = admission.enter(a).await.unwrap();
        let _second = admission.enter(a).await.unwrap();
        assert!(admission.enter(a).await.unwrap_err().contains("this sandbox"));
        let _third = admission.enter(b).await.unwrap();
        assert!(admission.enter(b).await.unwrap_err().starts_with("too many"));
        drop(first);
        let _fourth = admission.enter(b).await.unwrap();
        assert_eq!(admission.held.lock().unwrap().len(), 2);
    }
}
