//! One flight at a time, and never an answer that is older than the question.
//!
//! Whoever asks while a flight is in the air waits for the *next* one, because the one in the air may have looked
//! already; all who wait for the next one share it. The flight is a task of its own: a caller that goes away
//! neither ends it nor fails the others.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use domain::{Error, Result};
use tokio::sync::oneshot;

pub(crate) struct Flights<T> {
    state: Mutex<State<T>>,
}

struct State<T> {
    flying: bool,
    waiting: Vec<oneshot::Sender<Result<T, Arc<Error>>>>,
}

impl<T> fmt::Debug for Flights<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flights")
    }
}

impl<T> Default for Flights<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { flying: false, waiting: Vec::new() }) }
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
            let passengers = {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if state.waiting.is_empty() {
                    state.flying = false;
                    grounded.0 = None;
                    return;
                }
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
