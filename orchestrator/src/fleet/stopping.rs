//! How sandboxes end: decided and written first, then removed from the engine, then their rows (F23). A removal that
//! fails is repeated by the reconciler.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use domain::{Purpose, Result, SandboxId, SandboxRecord, SandboxState};
use pool::RetireReason;
use store::Tx;
use tracing::{info, warn};

use super::{Entry, Fleet, FleetEvent, STOP_DEADLINE, after};

impl Fleet {
    /// Decides that a sandbox ends, writes it down, removes it. Answers when the decision is durable; the removal
    /// goes on in the background and is repeated by the reconciler until it succeeds.
    pub async fn stop(self: &Arc<Self>, id: SandboxId, reason: &str) -> Result<()> {
        let Some(entry) = self.get(id) else { return Ok(()) };
        self.shelf.forget(id);
        self.decide_stop(&entry, reason).await?;
        self.remove_soon(&entry);
        Ok(())
    }

    /// As [`Fleet::stop`], and waits for the removal.
    pub async fn stop_now(self: &Arc<Self>, id: SandboxId, reason: &str) -> Result<()> {
        let Some(entry) = self.get(id) else { return Ok(()) };
        self.shelf.forget(id);
        self.decide_stop(&entry, reason).await?;
        // The agent can be faster than the engine's answer to `start`, and so can what is done with it: the removal
        // comes after that answer, and who calls relies on it.
        let mut presence = entry.presence();
        let started = presence.wait_for(|_| !entry.starting.load(Ordering::Acquire));
        let _ = tokio::time::timeout(STOP_DEADLINE, started).await;
        self.finish_stop(&entry).await;
        Ok(())
    }

    /// Retires a member of the pool, unless it has been claimed in the meantime (F4).
    pub async fn retire(self: &Arc<Self>, id: SandboxId, why: RetireReason) -> Result<bool> {
        let Some(entry) = self.get(id) else { return Ok(false) };
        if !self.shelf.withdraw(id, why) {
            return Ok(false);
        }
        let reason = why.as_str();
        let receipt = {
            let mut record = entry.lock();
            if record.purpose != Purpose::Pool
                || !matches!(
                    record.state,
                    SandboxState::Creating | SandboxState::Starting | SandboxState::Warm
                )
            {
                return Ok(false);
            }
            self.note_stop(&mut record, reason)
        };
        receipt.await?;
        entry.presence.send_modify(|p| p.over = Some(reason.to_owned()));
        self.remove_soon(&entry);
        Ok(true)
    }

    pub(super) async fn decide_stop(&self, entry: &Arc<Entry>, reason: &str) -> Result<()> {
        let receipt = {
            let mut record = entry.lock();
            match record.state {
                SandboxState::Stopping | SandboxState::Gone => None,
                _ => Some(self.note_stop(&mut record, reason)),
            }
        };
        if let Some(receipt) = receipt {
            receipt.await?;
        }
        entry.presence.send_modify(|p| {
            p.over.get_or_insert_with(|| reason.to_owned());
        });
        Ok(())
    }

    pub(super) fn note_stop(&self, record: &mut SandboxRecord, reason: &str) -> store::Receipt {
        record.state = SandboxState::Stopping;
        record.reason = Some(reason.to_owned());
        record.deadline = after(self.clock.now(), STOP_DEADLINE);
        self.note_state(record.id, record.state);
        self.store.submit(Tx::new().sandbox(record))
    }

    /// Removes it from the engine and, once it is gone there, its row. A sandbox that is still being made is left
    /// to whoever makes it.
    pub(super) async fn finish_stop(self: &Arc<Self>, entry: &Arc<Entry>) {
        if entry.starting.load(Ordering::Acquire) {
            return;
        }
        entry.presence.send_modify(|p| p.link = None);
        match self.backend.stop(entry.id).await {
            Ok(()) => self.gone(entry).await,
            Err(e) => {
                warn!(sandbox = %entry.id, error = %e.chain(), "could not remove a sandbox; it will be tried again");
            }
        }
        self.pool_poke.notify_one();
    }

    pub(super) async fn gone(&self, entry: &Arc<Entry>) {
        entry.lock().state = SandboxState::Gone;
        self.unclaimed.remove(&entry.id);
        match self.store.commit(Tx::new().remove_sandbox(entry.id)).await {
            Ok(()) => {
                self.shelf.forget(entry.id);
                self.entries.remove(&entry.id);
                self.freed.notify_waiters();
            }
            Err(e) => {
                // The row stays as `Stopping`; the next reconcile finds the sandbox gone and tries again.
                entry.lock().state = SandboxState::Stopping;
                warn!(sandbox = %entry.id, error = %e.chain(), "could not remove the row of a sandbox");
            }
        }
    }

    /// It failed or vanished without having been asked to end.
    pub(super) async fn lost(self: &Arc<Self>, entry: &Arc<Entry>, reason: String) {
        self.shelf.forget(entry.id);
        if let Err(e) = self.decide_stop(entry, &reason).await {
            warn!(sandbox = %entry.id, error = %e.chain(), "could not record the loss of a sandbox");
        }
        info!(sandbox = %entry.id, repo = %entry.repo, reason, "sandbox lost");
        let _ = self.events.send(FleetEvent::Lost(entry.id, reason));
        self.remove_soon(entry);
    }

    /// Removes it behind the caller's back, which may have others to look after: an engine that hangs on one
    /// removal holds up nothing else (F47).
    pub(super) fn remove_soon(self: &Arc<Self>, entry: &Arc<Entry>) {
        if entry.stopping.swap(true, Ordering::AcqRel) {
            return;
        }
        let (fleet, entry) = (self.clone(), entry.clone());
        self.tasks.spawn(async move {
            fleet.finish_stop(&entry).await;
            entry.stopping.store(false, Ordering::Release);
        });
    }
}
