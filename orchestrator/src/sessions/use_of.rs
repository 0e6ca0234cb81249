//! What a client does in a session: commands and files, through the agent's connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::ports::AgentLink;
use domain::wire::{ExecRequest, TermSize};
use domain::{Error, ExecId, Result, SessionState, TraceContext};
use tokio::time::Instant;

use super::{Session, Sessions};

/// How long a request waits for a sandbox that is still starting.
pub const LINK_WAIT: Duration = Duration::from_secs(60);

/// A command as a client orders it.
#[derive(Debug, Clone)]
pub struct ExecOrder {
    pub argv: Vec<String>,
    pub cwd: Option<String>,
    pub env: BTreeMap<String, String>,
    pub stdin: bool,
    pub tty: Option<TermSize>,
    pub timeout: Option<Duration>,
}

impl ExecOrder {
    /// The wire request for `id`. Where it stands in a trace is told to the command, so that its own tools join it.
    pub fn request(mut self, id: ExecId, trace: Option<&TraceContext>) -> ExecRequest {
        if let Some(trace) = trace {
            self.env.entry("TRACEPARENT".into()).or_insert_with(|| trace.traceparent());
            if let Some(state) = trace.state() {
                self.env.entry("TRACESTATE".into()).or_insert_with(|| state.to_owned());
            }
        }
        ExecRequest {
            id,
            cwd: self.cwd,
            env: self.env,
            stdin: self.stdin,
            tty: self.tty,
            timeout_ms: self.timeout.map(|t| t.as_millis() as u64),
            ..ExecRequest::new(self.argv)
        }
    }
}

impl Sessions {
    /// Notes that someone uses the session.
    pub fn touch(&self, session: &Session) {
        session.last_active.store(self.clock.now().as_second(), Ordering::Relaxed);
    }

    /// The agent of a session, bound to it; waits while the sandbox starts or reconnects.
    ///
    /// Errors: `Gone` when it has ended, `Conflict` when it is paused, `Unavailable` when no agent came in time.
    pub async fn link(&self, session: &Session, wait: Duration) -> Result<Arc<dyn AgentLink>> {
        self.touch(session);
        if let Some(link) = session.bound.borrow().clone()
            && !link.is_closed()
        {
            return self.usable(session).map(|()| link);
        }
        let deadline = Instant::now() + wait;
        let mut bound = session.bound.subscribe();
        loop {
            self.usable(session)?;
            if let Some(link) = bound.borrow_and_update().clone()
                && !link.is_closed()
            {
                return Ok(link);
            }
            tokio::select! {
                changed = bound.changed() => {
                    if changed.is_err() {
                        return Err(Error::gone(format!("session {} has ended", session.id)));
                    }
                }
                () = session.leaving.cancelled() => {}
                () = tokio::time::sleep_until(deadline) => {
                    return Err(Error::unavailable(format!("the sandbox of {} does not answer yet", session.id)));
                }
            }
        }
    }

    pub(super) fn usable(&self, session: &Session) -> Result<()> {
        match session.lock().state {
            SessionState::Waiting | SessionState::Active => Ok(()),
            SessionState::Paused => {
                Err(Error::conflict(format!("session {} is paused: resume it first", session.id)))
            }
            SessionState::Ending | SessionState::Ended => {
                Err(Error::gone(format!("session {} has ended", session.id)))
            }
        }
    }
}
