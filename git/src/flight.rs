//! One flight at a time, and never an answer that is older than the question.
//!
//! Whoever asks while a flight is in the air waits for the *next* one, because the one in the air may have looked
//! already; all who wait for the next one share it. The flight is a task of its own: a caller that goes away
//! neither ends it nor fails the others. Under a storm of callers flights leave on a timetable, so that a burst of
//! claims does not become a burst of processes.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Error, Result};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Under steady demand a flight leaves this long after the one before.
const PACE: Duration = Duration::from_millis(100);
/// Flights that may leave sooner than that after a quiet time.
const AT_WILL: u32 = 8;

pub(crate) struct Flights<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    flying: bool,
    waiting: Vec<oneshot::Sender<Result<T, Arc<Error>>>>,
    timetable: Timetable,
}

/// When the next flight would leave if they had all left at the pace; behind the clock after a quiet time.
#[derive(Default)]
struct Timetable(Option<Instant>);

impl Timetable {
    /// How long the next flight has to wait.
    fn next(&mut self, now: Instant) -> Duration {
        let due = self.0.map_or(now, |due| due.max(now));
        self.0 = Some(due + PACE);
        (due - now).saturating_sub(PACE * (AT_WILL - 1))
    }
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State { flying: false, waiting: Vec::new(), timetable: Timetable::default() }),
        }
    }
}

impl<T: Clone + Send + 'static> Flights<T> {
    /// The outcome of a flight that began after this call. `fly` is what a flight does.
    pub(crate) async fn board<F, Fut>(self: &Arc<Self>, fly: F) -> Result<T>
    where
        F: Fn() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let first = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.waiting.push(sender);
            !std::mem::replace(&mut state.flying, true)
        };
        if first {
            tokio::spawn(Self::run(self.clone(), fly));
        }
        match receiver.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(shared)) => Err(copy(&shared)),
            Err(_) => Err(Error::unavailable("the shared call ended without an answer")),
        }
    }

    async fn run<F, Fut>(self: Arc<Self>, fly: F)
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<T>> + Send,
    {
        // If a flight panics, those who wait are dropped (an error for them) and the next caller starts anew.
        let mut grounded = Grounded(Some(self.clone()));
        loop {
            let wait = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() {
                    state.flying = false;
                    grounded.0 = None;
                    return;
                }
                state.timetable.next(Instant::now())
            };
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            let passengers = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                std::mem::take(&mut state.waiting)
            };
            let outcome = fly().await.map_err(Arc::new);
            for passenger in passengers {
                let _ = passenger.send(outcome.clone());
            }
        }
    }
}

struct Grounded<T>(Option<Arc<Flights<T>>>);

impl<T> Drop for Grounded<T> {
    fn drop(&mut self) {
        if let Some(flights) = &self.0 {
            let mut state = flights.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.flying = false;
            state.waiting.clear();
        }
    }
}

/// The same error for one more caller: its cause becomes text.
fn copy(shared: &Error) -> Error {
    let copied = Error::new(shared.kind(), shared.context());
    match std::error::Error::source(shared) {
        Some(_) => {
            let chain = shared.chain();
            let cause =
                chain.strip_prefix(shared.context()).unwrap_or(&chain).trim_start_matches(": ").to_owned();
            copied.caused_by(cause)
        }
        None => copied,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Semaphore;

    #[tokio::test]
    async fn who_asks_in_flight_shares_the_next_one() {
        let flights = Arc::new(Flights::default());
        let (begun, gate) = (Arc::new(AtomicU32::new(0)), Arc::new(Semaphore::new(0)));
        let ask = || {
            let (flights, begun, gate) = (flights.clone(), begun.clone(), gate.clone());
            tokio::spawn(async move {
                flights
                    .board(move || {
                        let (begun, gate) = (begun.clone(), gate.clone());
                        async move {
                            let n = begun.fetch_add(1, Ordering::SeqCst) + 1;
                            gate.acquire().await.unwrap().forget();
                            Ok(n)
                        }
                    })
                    .await
            })
        };
        let first = ask();
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let later: Vec<_> = (0..10).map(|_| ask()).collect();
        let all_wait = || flights.state.lock().unwrap().waiting.len() == 10;
        while !all_wait() {
            tokio::task::yield_now().await;
        }
        gate.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), 1);
        for l in later {
            assert_eq!(l.await.unwrap().unwrap(), 2);
        }
        assert_eq!(begun.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn a_storm_of_flights_leaves_on_the_timetable() {
        let (mut timetable, begun) = (Timetable::default(), Instant::now());
        let waits: Vec<_> = (0..AT_WILL + 3).map(|_| timetable.next(begun)).collect();
        assert!(waits[..AT_WILL as usize].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[AT_WILL as usize..], [PACE, PACE * 2, PACE * 3]);
        // Quiet for long, it owes nothing.
        let later = begun + PACE * 60;
        assert!((0..AT_WILL).all(|_| timetable.next(later).is_zero()));
        assert_eq!(timetable.next(later), PACE);
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_the_next_flight_flies() {
        let flights = Arc::new(Flights::<u32>::default());
        let crashed = flights.board(|| async { panic!("in the test") }).await;
        assert!(crashed.is_err());
        assert_eq!(flights.board(|| async { Ok(7) }).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn an_error_reaches_everybody_with_kind_and_cause() {
        let flights = Arc::new(Flights::<u32>::default());
        let e = flights
            .board(|| async { Err(Error::not_found("fetch x").caused_by("no such thing")) })
            .await
            .unwrap_err();
        assert_eq!((e.kind(), e.chain().as_str()), (domain::ErrorKind::NotFound, "fetch x: no such thing"));
    }
}
