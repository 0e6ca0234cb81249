//! Background tasks: each runs on a timer or a poke, one run at a time, and shows when it last ended well.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::{Result, SharedClock};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::metrics::Metrics;

/// From the first poke to the run that answers it, at least.
const SETTLE: Duration = Duration::from_millis(50);
/// A run that took longer is followed by a pause this many times as long, so that pokes without end take a fifth of
/// a processor at most, whatever the size of what is looked at.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Starts tasks and waits for them at shutdown.
pub struct Tasks {
    pub metrics: Arc<Metrics>,
    pub clock: SharedClock,
    pub stop: CancellationToken,
    tracker: TaskTracker,
}

impl Tasks {
    pub fn new(metrics: Arc<Metrics>, clock: SharedClock, stop: CancellationToken) -> Self {
        Self { metrics, clock, stop, tracker: TaskTracker::new() }
    }

    /// Runs `work` at once, then every `every` and after each poke, until shutdown. A run that fails is logged and
    /// counted as not done; the next one comes all the same.
    pub fn run<F, Fut>(&self, name: &'static str, every: Duration, poke: Arc<Notify>, mut work: F)
    where
        F: FnMut() -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send,
    {
        let (metrics, clock, stop) = (self.metrics.clone(), self.clock.clone(), self.stop.clone());
        metrics.task_starts(name, every);
        self.tracker.spawn(async move {
            loop {
                let begun = tokio::time::Instant::now();
                let done = tokio::select! {
                    () = stop.cancelled() => return,
                    done = work() => done,
                };
                let rest = (begun.elapsed() * REST).clamp(SETTLE, LONGEST_REST);
                match done {
                    Ok(()) => metrics.task_done(name, clock.now()),
                    Err(e) => {
                        metrics.task_failed(name);
                        warn!(task = name, error = %e.chain(), "a background task failed");
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    // Claims poke by the thousand: one run answers all that come within a moment, and leaves the
                    // claims the processor.
                    () = poke.notified() => tokio::time::sleep(rest).await,
                    () = tokio::time::sleep(every) => {}
                }
            }
        });
    }

    pub async fn quiet(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}
