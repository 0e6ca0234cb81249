//! What runs in a sandbox beside its user's work: brought up at each start, once per incarnation, and watched.
//!
//! A member of the pool is ready only when it is up (F10). A sandbox that somebody holds already is usable before:
//! its reads need no service, and its gate opens after.

use std::sync::Arc;
use std::time::Duration;

use domain::ports::AgentLink;
use domain::wire::Frame;
use domain::{Error, ImageNote, Purpose, Result, SandboxState};
use futures_util::StreamExt;
use image_builder::BuildLog;
use store::Tx;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::{Entry, Fleet, FleetEvent, START_DEADLINE, after};

/// How a sandbox's environment stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Environment {
    /// Its agent has not connected, or its services are not ready.
    #[default]
    Pending,
    Up,
    /// It will not come up by itself; why, in words.
    Failed(String),
}

impl Entry {
    /// What its image says of itself; `None` before its agent has connected, and for an image without a note.
    pub fn note(&self) -> Option<Arc<ImageNote>> {
        self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    pub fn set_note(&self, note: Option<ImageNote>) {
        *self.note.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = note.map(Arc::new);
    }

    /// Waits until its services are ready. `Permanent` where they did not become so, `Gone` where the sandbox ended
    /// first, `Timeout` after `limit`.
    pub async fn environment_up(&self, limit: Duration) -> Result<()> {
        let mut presence = self.presence();
        let settled = presence.wait_for(|p| p.over.is_some() || p.environment != Environment::Pending);
        match tokio::time::timeout(limit, settled).await {
            Ok(Ok(p)) => match (&p.over, &p.environment) {
                (Some(why), _) => Err(Error::gone(format!("sandbox {} has ended: {why}", self.id))),
                (None, Environment::Failed(why)) => Err(Error::permanent(why.clone())),
                (None, _) => Ok(()),
            },
            Ok(Err(_)) => Err(Error::gone(format!("sandbox {} has ended", self.id))),
            Err(_) => Err(Error::timeout(format!(
                "wait for the services of {}: not ready within {} s",
                self.id,
                limit.as_secs()
            ))),
        }
    }

    fn set_environment(&self, environment: Environment) {
        self.presence.send_modify(|p| {
            p.environment = environment;
            p.coming_up_until = None;
        });
    }

    /// Nobody holds it, and it has not been shelved.
    fn is_unclaimed(&self) -> bool {
        let record = self.lock();
        record.purpose == Purpose::Pool
            && record.session.is_none()
            && matches!(record.state, SandboxState::Creating | SandboxState::Starting | SandboxState::Warm)
    }
}

impl Fleet {
    /// Reads the note of what has just connected, and brings up a member of the pool. False where it can't join (yet).
    pub(super) async fn settle_in(self: &Arc<Self>, entry: &Arc<Entry>, link: &Arc<dyn AgentLink>) -> bool {
        if matches!(entry.purpose, Purpose::Build(_) | Purpose::Check(_)) {
            return true;
        }
        let note = match image_builder::read_note(&**link).await {
            Ok(note) => note,
            // It dials again, or its deadline passes, or it was given up.
            Err(e) if link.is_closed() => {
                debug!(sandbox = %entry.id, error = %e.chain(), "an agent went away before the note of its image was read");
                return false;
            }
            Err(e) if e.kind().is_retryable() || !entry.is_unclaimed() => {
                warn!(sandbox = %entry.id, error = %e.chain(), "could not read the note of an image");
                entry.set_environment(Environment::Failed(e.chain()));
                return !e.kind().is_retryable();
            }
            Err(e) => {
                self.lost(entry, e.chain()).await;
                return false;
            }
        };
        entry.set_note(note);
        let Some(note) = entry.note().filter(|n| n.starts_something()) else {
            entry.set_environment(Environment::Up);
            return true;
        };
        if entry.lock().up {
            // Its services have been running all the time: only we were away (F18).
            entry.set_environment(Environment::Up);
            return true;
        }
        if !entry.is_unclaimed() {
            let (fleet, entry, link) = (self.clone(), entry.clone(), link.clone());
            self.tasks.spawn(async move {
                if let Err(e) = fleet.bring_up(&entry, &*link, &note).await
                    && !link.is_closed()
                {
                    warn!(sandbox = %entry.id, error = %e.chain(), "the services of a session did not come up");
                    entry.set_environment(Environment::Failed(e.chain()));
                }
            });
            return true;
        }
        match self.bring_up(entry, &**link, &note).await {
            Ok(()) => true,
            // It dials again, or its deadline passes.
            Err(e) if link.is_closed() || e.kind().is_retryable() => {
                debug!(sandbox = %entry.id, error = %e.chain(), "a member's agent went away while it came up");
                false
            }
            Err(e) => {
                warn!(sandbox = %entry.id, repo = %entry.repo, error = %e.chain(), "a member did not come up");
                let why = format!("it did not come up: {}", e.chain());
                if let Some(image) = entry.record().image {
                    let (sandbox, repo, why) = (entry.id, entry.repo.clone(), why.clone());
                    let _ = self.events.send(FleetEvent::Broken { sandbox, repo, image, why });
                }
                self.lost(entry, why).await;
                false
            }
        }
    }

    async fn bring_up(&self, entry: &Arc<Entry>, link: &dyn AgentLink, note: &ImageNote) -> Result<()> {
        let limit = note.start_limit() + START_DEADLINE;
        entry.presence.send_modify(|p| p.coming_up_until = Some(Instant::now() + limit));
        let deadline = after(self.clock.now(), limit);
        let receipt = {
            let mut record = entry.lock();
            if matches!(record.state, SandboxState::Creating | SandboxState::Starting) {
                record.deadline = deadline;
            }
            self.store.submit(Tx::new().sandbox(&record))
        };
        receipt.await?;
        let up = image_builder::bring_up(link, note, &Silent);
        let up = tokio::time::timeout(limit, up).await;
        up.unwrap_or_else(|_| Err(Error::permanent("its services were not ready in time")))?;
        let receipt = {
            let mut record = entry.lock();
            record.up = true;
            self.store.submit(Tx::new().sandbox(&record))
        };
        receipt.await?;
        entry.set_environment(Environment::Up);
        Ok(())
    }

    /// Sees to it that the end of a service does not go unnoticed: a member is replaced, a session is told.
    pub(super) fn watch_services(self: &Arc<Self>, entry: &Arc<Entry>, link: &Arc<dyn AgentLink>) {
        let Some(note) = entry.note() else { return };
        for (id, name) in image_builder::service_ids(entry.id, &note) {
            let (fleet, entry, link) = (Arc::downgrade(self), Arc::downgrade(entry), link.clone());
            tokio::spawn(async move {
                // Nothing of what it prints, only its end.
                let Ok(mut frames) = link.output(id, u64::MAX, true).await else { return };
                while let Some(Ok(frame)) = frames.next().await {
                    let Frame::Exit(_) = frame else { continue };
                    let (Some(fleet), Some(entry)) = (fleet.upgrade(), entry.upgrade()) else { return };
                    fleet.service_ended(&entry, name).await;
                    return;
                }
            });
        }
    }

    async fn service_ended(self: &Arc<Self>, entry: &Arc<Entry>, name: String) {
        info!(sandbox = %entry.id, repo = %entry.repo, service = name, "a service ended");
        // Who claimed it in between keeps it, and is told.
        match self.retire(entry.id, pool::RetireReason::Unhealthy).await {
            Ok(true) => {}
            Ok(false) => drop(self.events.send(FleetEvent::ServiceEnded(entry.id, name))),
            Err(e) => warn!(sandbox = %entry.id, error = %e.chain(), "could not retire a member"),
        }
    }
}

/// For what no build is watched for: its output stays with the agent, where it can be read by the command's id.
pub struct Silent;

impl BuildLog for Silent {
    fn write(&self, _: &[u8]) {}
}
