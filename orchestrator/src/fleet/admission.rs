//! How agents join the fleet, and what happens when their connection ends.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::AgentLink;
use domain::{Purpose, SandboxEvent, SandboxId, SandboxState};
use tokio::net::UnixStream;
use tracing::{debug, warn};

use super::{Entry, Fleet, FleetEvent, hash_token};
use crate::links::{Admission, Refusal};

/// Serves what comes out of a sandbox: git and the session's own requests.
#[async_trait]
pub trait RelayHandler: Send + Sync {
    async fn serve(&self, sandbox: Arc<Entry>, stream: UnixStream);
}

impl Fleet {
    /// Says who serves relay connections; once, while composing.
    pub fn set_relay(&self, handler: Arc<dyn RelayHandler>) {
        let _ = self.relay.set(handler);
    }

    /// A link stands: for sandboxes of the pool this is what makes them ready (F10).
    pub async fn join(self: &Arc<Self>, link: Arc<dyn AgentLink>) {
        let Some(entry) = self.get(link.sandbox()) else { return };
        // Its own answer is what counts, not the connection.
        let info = match link.info().await {
            Ok(info) => info,
            Err(e) => return debug!(sandbox = %entry.id, error = %e.chain(), "a new agent did not answer"),
        };
        if !self.settle_in(&entry, &link).await {
            return;
        }
        let now = self.clock.now();
        let applied = self
            .apply(&entry, SandboxEvent::AgentConnected, |r| {
                if r.ready_at.is_none() {
                    r.ready_at = Some(now);
                }
                if r.state == SandboxState::Warm && info.head.is_some() {
                    r.commit = info.head.clone();
                }
            })
            .await;
        let record = match applied {
            Ok(record) => record,
            Err(e) => return warn!(sandbox = %entry.id, error = %e.chain(), "could not record an agent"),
        };
        if matches!(record.state, SandboxState::Stopping | SandboxState::Gone) {
            // It comes too late: nobody may begin to use what is being removed.
            return;
        }
        entry.presence.send_modify(|p| {
            p.link = Some(link.clone());
            p.silent_since = None;
        });
        match record.state {
            SandboxState::Warm if record.purpose == Purpose::Pool => {
                if record.session.is_none() && info.bound.is_none() {
                    self.metrics.pool_ready(&record, now);
                    // As it stands now: a warm-up may have let it go since.
                    self.shelf.insert(&entry.lock());
                } else {
                    // Bound by a claim whose row was never written: it can't go back (F16, F35).
                    self.lost(&entry, "it was bound by a claim that was never recorded".into()).await;
                    return;
                }
            }
            SandboxState::Claimed => {
                let _ = self.events.send(FleetEvent::Connected(entry.id));
            }
            _ => {}
        }
        self.pool_poke.notify_one();
        self.watch_services(&entry, &link);
        let fleet = Arc::downgrade(self);
        tokio::spawn(async move {
            link.closed().await;
            let Some(fleet) = fleet.upgrade() else { return };
            let was_current = entry.presence.send_if_modified(|p| {
                let same = p.link.as_ref().is_some_and(|l| Arc::ptr_eq(l, &link));
                if same {
                    p.link = None;
                    p.silent_since = Some(tokio::time::Instant::now());
                }
                same
            });
            if was_current {
                fleet.shelf.forget(entry.id);
                fleet.pool_poke.notify_one();
            }
        });
    }
}

/// The fleet as the listener sees it.
pub struct Gatekeeper(pub Arc<Fleet>);

#[async_trait]
impl Admission for Gatekeeper {
    fn admit(&self, sandbox: SandboxId, token: &str) -> Result<(), Refusal> {
        let refuse = |why: &str| Err(Refusal { why: why.into(), fatal: true });
        let Some(entry) = self.0.get(sandbox) else {
            return refuse("this sandbox is not, or no longer, known here");
        };
        let record = entry.lock();
        if matches!(record.state, SandboxState::Stopping | SandboxState::Gone) {
            return refuse("this sandbox has ended");
        }
        // Both are hashes of equal length; comparing them tells nothing of the token.
        if record.token_hash != hash_token(token) {
            // An older incarnation; or a crash came between the new token's row and its boot file.
            if entry.link().is_none() {
                entry.refused.store(true, std::sync::atomic::Ordering::Release);
            }
            self.0.metrics.token_refused("agent");
            return refuse("the token is not that of this sandbox's present incarnation");
        }
        Ok(())
    }

    async fn connected(&self, link: Arc<dyn AgentLink>) {
        self.0.join(link).await;
    }

    async fn relay(&self, sandbox: SandboxId, stream: UnixStream) {
        let (Some(entry), Some(handler)) = (self.0.get(sandbox), self.0.relay.get()) else { return };
        handler.serve(entry, stream).await;
    }
}
