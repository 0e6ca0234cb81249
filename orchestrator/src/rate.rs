//! How often one key may do something. Requests come in bursts, so a second's worth may come at once.

use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

type Limiter = DefaultKeyedRateLimiter<String>;

pub struct Rate {
    limiter: RwLock<Arc<Limiter>>,
    clock: DefaultClock,
}

impl std::fmt::Debug for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rate")
    }
}

impl Rate {
    pub fn new(per_second: u32) -> Self {
        Self { limiter: RwLock::new(limiter(per_second)), clock: DefaultClock::default() }
    }

    /// A new rate; what was used of the old one is forgiven.
    pub fn set(&self, per_second: u32) {
        *self.limiter.write().unwrap_or_else(PoisonError::into_inner) = limiter(per_second);
    }

    /// Whether this key may do it now; if not, when it may.
    pub fn check(&self, key: &String) -> Result<(), Duration> {
        let limiter = self.limiter();
        limiter.check_key(key).map_err(|not_until| not_until.wait_time_from(self.clock.now()))
    }

    /// Keys that have not been seen for long take no room.
    pub fn forget_idle(&self) {
        self.limiter().retain_recent();
    }

    fn limiter(&self) -> Arc<Limiter> {
        self.limiter.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn limiter(per_second: u32) -> Arc<Limiter> {
    let per_second = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
    Arc::new(RateLimiter::keyed(Quota::per_second(per_second)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_a_rate_of_its_own() {
        let rate = Rate::new(3);
        let (ada, bob) = ("ada".to_owned(), "bob".to_owned());
        let passed = (0..10).filter(|_| rate.check(&ada).is_ok()).count();
        assert!((3..10).contains(&passed), "{passed}");
        let wait = rate.check(&ada).unwrap_err();
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(rate.check(&bob), Ok(()));
        rate.set(1000);
        assert_eq!(rate.check(&ada), Ok(()));
    }
}
