//! A record in memory: changed under its lock, looked at without being copied.
//!
//! Whoever looks gets the record as it stood at that moment; a later change leaves that view alone. So a plan over
//! ten thousand records costs ten thousand reference counts, and a claim in the middle of it waits for nobody.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug)]
pub struct Live<T>(Mutex<Arc<T>>);

impl<T: Clone> Live<T> {
    pub fn new(value: T) -> Self {
        Self(Mutex::new(Arc::new(value)))
    }

    /// As it stands.
    pub fn view(&self) -> Arc<T> {
        self.lock().view()
    }

    pub fn lock(&self) -> Guard<'_, T> {
        Guard(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Holds the lock. What is written through it is copied first where somebody still looks at the old state.
pub struct Guard<'a, T>(MutexGuard<'a, Arc<T>>);

impl<T> Guard<'_, T> {
    /// As it stands now, for after the lock.
    pub fn view(&self) -> Arc<T> {
        Arc::clone(&self.0)
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Guard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_stays_as_it_was() {
        let live = Live::new(vec![1]);
        let before = live.view();
        live.lock().push(2);
        let after = live.view();
        assert_eq!((before.as_slice(), after.as_slice()), ([1].as_slice(), [1, 2].as_slice()));
        drop((before, after));
        let held = live.lock().view();
        assert!(Arc::ptr_eq(&held, &live.view()), "a look copies nothing");
    }
}
