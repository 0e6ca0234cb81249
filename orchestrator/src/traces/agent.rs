//! The agent's spans. A sandbox may have no network, so its agent exports nothing: it tells Hotbed in its answers how long
//! things took, and Hotbed writes the spans. Its clock is not asked: what it did lies within the call that asked for it.

use std::sync::Arc;
use std::time::Duration;

use domain::wire::{ExecExit, SyncReport};
use domain::{ExecId, SandboxId, TraceContext};
use jiff::{SignedDuration, Timestamp};

use super::{Tracer, kinds};

impl Tracer {
    /// What the agent did for a sync that was asked for and answered within `call`.
    pub fn agent_sync(
        self: &Arc<Self>,
        parent: Option<&TraceContext>,
        sandbox: SandboxId,
        call: (Timestamp, Timestamp),
        report: &SyncReport,
    ) {
        let (fetch, checkout) =
            (Duration::from_millis(report.fetch_ms), Duration::from_millis(report.checkout_ms));
        let (from, to) = within(call, fetch + checkout);
        let mut span = self.past(&kinds::AGENT_SYNC, parent, from, to);
        span.show(kinds::SANDBOX, sandbox);
        span.set(kinds::FETCHED, report.fetched);
        let here = span.context();
        let fetched = later(from, fetch).min(to);
        drop(self.past(&kinds::AGENT_FETCH, here.as_ref(), from, fetched));
        if !checkout.is_zero() {
            drop(self.past(&kinds::AGENT_CHECKOUT, here.as_ref(), fetched, later(fetched, checkout).min(to)));
        }
    }

    /// The process of a command that was started and whose end was heard within `call`.
    pub fn agent_exec(
        self: &Arc<Self>,
        parent: Option<&TraceContext>,
        sandbox: SandboxId,
        exec: ExecId,
        call: (Timestamp, Timestamp),
        exit: &ExecExit,
    ) {
        let took = Duration::try_from_secs_f64(exit.duration_ms / 1000.0).unwrap_or_default();
        let (from, to) = within(call, took);
        let mut span = self.past(&kinds::AGENT_EXEC, parent, from, to);
        span.show(kinds::SANDBOX, sandbox);
        span.show(kinds::EXEC_ID, exec);
        if let Some(code) = exit.code {
            span.set(kinds::EXIT_CODE, i64::from(code));
        }
    }
}

/// Where in a call something lies that took so long: in its middle, the way there and back being equally long. What
/// claims to have taken longer than the call took as long as the call.
fn within((from, to): (Timestamp, Timestamp), took: Duration) -> (Timestamp, Timestamp) {
    let call = to.duration_since(from).max(SignedDuration::ZERO);
    let took = SignedDuration::try_from(took).unwrap_or(call).min(call);
    let begun = from.checked_add((call - took) / 2).unwrap_or(from);
    (begun, begun.checked_add(took).unwrap_or(to))
}

fn later(at: Timestamp, by: Duration) -> Timestamp {
    at.checked_add(by).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_agent_did_lies_within_the_call() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let ms = Duration::from_millis;
        assert_eq!(within((at(100), at(200)), ms(60)), (at(120), at(180)));
        // A clock that is wrong, or an agent that lies, is not believed beyond it.
        assert_eq!(within((at(100), at(200)), ms(5000)), (at(100), at(200)));
        assert_eq!(within((at(200), at(100)), ms(50)), (at(200), at(200)));
    }
}
