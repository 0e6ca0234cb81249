//! Compares records with what the engine has. Takes no argument, is idempotent, runs at start, on a timer and
//! after events: lost, repeated or reordered events change only how soon it runs (F45).

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::ports::{ObservedPhase, ObservedSandbox, StartSandbox};
use domain::wire::{Boot, RELAY_PORT, SESSION_DIR};
use domain::{Purpose, RepoSpec, Result, SandboxEvent, SandboxId, SandboxState};
use store::Tx;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Entry, Fleet, SILENT_FOR, START_DEADLINE, after, new_token};

/// An engine's list may lag behind its own answers by this much.
const LIST_LAG: Duration = Duration::from_secs(10);
/// How long an agent has to show that its sandbox lives although the list does not have it.
const PROOF_OF_LIFE: Duration = Duration::from_secs(2);

/// What one run did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReconcileReport {
    pub records: usize,
    pub observed: usize,
    pub adopted: usize,
    pub removed_orphans: usize,
    /// Without a record, and left alone since the state was restored.
    pub spared: usize,
    pub lost: usize,
    pub restarted: usize,
    pub overdue: usize,
}

impl fmt::Display for ReconcileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records, {} observed: {} adopted, {} orphans removed, {} spared, {} lost, {} restarted, {} overdue",
            self.records,
            self.observed,
            self.adopted,
            self.removed_orphans,
            self.spared,
            self.lost,
            self.restarted,
            self.overdue
        )
    }
}

/// What is to be done about one sandbox. Pure, so that it can be tested by the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Leave,
    /// The engine has it and the record did not know.
    Adopt,
    /// Its process has ended, its files are there: start it again.
    Restart,
    /// The engine does not have it (any more), or has it and it does not run.
    Lost,
    /// It is to go and has not gone.
    Remove,
    /// Past its deadline, or silent for too long.
    Overdue,
}

pub(super) struct Facts {
    pub state: SandboxState,
    pub purpose: Purpose,
    pub has_session: bool,
    pub in_flight: bool,
    /// The engine said that it started, and that is later than what the list can be trusted to show.
    pub fresh: bool,
    /// The engine said so after the list was asked for: it may show it made and not started, or exited as it was
    /// before.
    pub meanwhile: bool,
    pub past_deadline: bool,
    pub silent: bool,
    /// It runs, and the only agent that dials shows a token that is not the record's.
    pub refused: bool,
    pub observed: Option<ObservedPhase>,
}

pub(super) fn judge(f: &Facts) -> Verdict {
    use SandboxState as S;
    match (f.state, f.observed) {
        // Whoever starts it will say how it went, within the engine's own deadline.
        _ if f.in_flight => Verdict::Leave,
        (S::Gone, _) | (S::Stopping, _) => Verdict::Remove,
        (_, None) if f.fresh => Verdict::Leave,
        (_, Some(ObservedPhase::Exited | ObservedPhase::Created)) if f.meanwhile => Verdict::Leave,
        (_, None) => Verdict::Lost,
        (S::Creating | S::Starting, _) if f.past_deadline => Verdict::Overdue,
        (_, Some(ObservedPhase::Exited | ObservedPhase::Created)) => {
            // A user's files are worth starting again; a warm member or a build is simply replaced.
            if f.has_session || f.state == S::Kept { Verdict::Restart } else { Verdict::Lost }
        }
        // A crash came between the row of a new token and its boot file. Told again, the agent shows it (F31).
        (_, Some(ObservedPhase::Running)) if f.refused && (f.has_session || f.state == S::Kept) => {
            Verdict::Restart
        }
        (S::Creating, Some(_)) => Verdict::Adopt,
        (S::Warm, Some(_)) if f.silent => Verdict::Overdue,
        (S::Claimed, Some(_)) if f.silent && matches!(f.purpose, Purpose::Build(_) | Purpose::Check(_)) => {
            Verdict::Overdue
        }
        _ => Verdict::Leave,
    }
}

impl Fleet {
    /// One comparison of all records with one full list. `specs` tells how to start a sandbox again.
    pub async fn reconcile(
        self: &Arc<Self>,
        spec_of: &(dyn Fn(&domain::RepoName) -> Option<Arc<RepoSpec>> + Send + Sync),
    ) -> Result<ReconcileReport> {
        // Entries first, then the list: one that goes in between is judged missing and is. One whose start ended in
        // between, or so shortly before that the list may not show it yet, is not judged missing (F1, F9).
        let begun = Instant::now();
        let entries = self.entries();
        let list = self.backend.list().await?;
        let mut observed: HashMap<SandboxId, ObservedSandbox> = list.into_iter().map(|o| (o.id, o)).collect();
        let mut report = ReconcileReport {
            records: entries.len(),
            observed: observed.len(),
            ..ReconcileReport::default()
        };
        for entry in entries {
            let seen = observed.remove(&entry.id);
            match judge(&self.facts(&entry, seen.as_ref(), begun)) {
                Verdict::Leave => {}
                Verdict::Adopt => {
                    report.adopted += 1;
                    let engine_id = seen.map(|o| o.engine_id);
                    self.apply(&entry, SandboxEvent::ContainerStarted, |r| r.engine_id = engine_id).await?;
                }
                Verdict::Restart if !entry.may_restart() => {}
                Verdict::Restart => {
                    report.restarted += 1;
                    match spec_of(&entry.repo) {
                        Some(spec) => self.restart(&entry, &spec).await?,
                        None => {
                            warn!(sandbox = %entry.id, repo = %entry.repo, "its repo is not configured any more")
                        }
                    }
                }
                Verdict::Lost if lives(&entry).await => {}
                Verdict::Lost => {
                    report.lost += 1;
                    self.lost(&entry, "the engine no longer has it".into()).await;
                }
                Verdict::Remove => self.remove_soon(&entry),
                Verdict::Overdue => {
                    report.overdue += 1;
                    self.lost(&entry, "its agent did not answer in time".into()).await;
                }
            }
        }
        // What is left was made by this instance (its mark says so) and belongs to no record.
        for id in observed.into_keys() {
            if self.get(id).is_some() {
                continue;
            }
            if self.spared.sandbox(id) {
                report.spared += 1;
                continue;
            }
            report.removed_orphans += 1;
            self.metrics.orphan("sandbox");
            info!(sandbox = %id, "removing a sandbox without a record");
            self.backend.stop(id).await?;
        }
        self.metrics.set_spared("sandbox", report.spared);
        Ok(report)
    }

    fn facts(&self, entry: &Entry, seen: Option<&ObservedSandbox>, begun: Instant) -> Facts {
        let record = entry.lock();
        let presence = entry.presence.borrow();
        Facts {
            state: record.state,
            purpose: record.purpose,
            has_session: record.session.is_some(),
            in_flight: entry.starting.load(Ordering::Acquire),
            fresh: entry.started_at().is_some_and(|t| t + LIST_LAG > begun),
            meanwhile: entry.started_at().is_some_and(|t| t >= begun),
            past_deadline: record.deadline < self.clock.now(),
            silent: presence.link.is_none() && presence.silent_since.is_none_or(|t| t.elapsed() > SILENT_FOR),
            refused: presence.link.is_none() && entry.refused.load(Ordering::Acquire),
            observed: seen.map(|o| o.phase),
        }
    }

    /// Starts an exited sandbox again, as a new incarnation: the token of the old one is void (F42).
    async fn restart(self: &Arc<Self>, entry: &Arc<Entry>, spec: &RepoSpec) -> Result<()> {
        let (token, token_hash) = new_token();
        let (receipt, source) = {
            let mut record = entry.lock();
            record.token_hash = token_hash;
            record.up = false;
            record.deadline = after(self.clock.now(), START_DEADLINE);
            (self.store.submit(Tx::new().sandbox(&record)), record.source.clone())
        };
        receipt.await?;
        entry.refused.store(false, Ordering::Release);
        info!(sandbox = %entry.id, "starting an exited sandbox again, or giving a running one its new token");
        let start = StartSandbox {
            id: entry.id,
            repo: entry.repo.clone(),
            source,
            resources: spec.resources,
            network: spec.network.clone(),
            boot: Boot {
                sandbox: entry.id,
                token,
                dial: self.dial.clone(),
                workspace: spec.workspace.clone(),
                // Whoever holds it opens the gate again, when it binds again.
                gate_open: false,
                relay_port: RELAY_PORT,
                session_dir: SESSION_DIR.into(),
                env: image_builder::boot_env(spec),
            },
        };
        entry.starting.store(true, Ordering::Release);
        let fleet = self.clone();
        let entry = entry.clone();
        self.tasks.spawn(async move { fleet.start(entry, start, true).await });
        Ok(())
    }
}

/// The list does not have it, or not running, and its agent answers: the list is wrong.
pub(super) async fn lives(entry: &Entry) -> bool {
    let Some(link) = entry.link() else { return false };
    matches!(tokio::time::timeout(PROOF_OF_LIFE, link.info()).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::SessionId;

    fn facts(state: SandboxState) -> Facts {
        Facts {
            state,
            purpose: Purpose::Pool,
            has_session: false,
            in_flight: false,
            fresh: false,
            meanwhile: false,
            past_deadline: false,
            silent: false,
            refused: false,
            observed: Some(ObservedPhase::Running),
        }
    }

    #[test]
    fn what_is_in_flight_is_left_alone() {
        // F1, F9: a lagging list says nothing about what is being made.
        let f = Facts { in_flight: true, observed: None, ..facts(SandboxState::Creating) };
        assert_eq!(judge(&f), Verdict::Leave);
        let f = Facts { fresh: true, observed: None, ..facts(SandboxState::Starting) };
        assert_eq!(judge(&f), Verdict::Leave);
        let f = Facts { observed: None, ..facts(SandboxState::Starting) };
        assert_eq!(judge(&f), Verdict::Lost);
        // The list was read between the engine's making it and starting it, and judged after the start's answer.
        for earlier in [ObservedPhase::Created, ObservedPhase::Exited] {
            for state in [SandboxState::Creating, SandboxState::Starting, SandboxState::Claimed] {
                let purpose = Purpose::Check(domain::BuildId::from_u128(1));
                let f =
                    Facts { fresh: true, meanwhile: true, purpose, observed: Some(earlier), ..facts(state) };
                assert_eq!(judge(&f), Verdict::Leave, "{state:?} {earlier:?}");
                assert_eq!(judge(&Facts { meanwhile: false, ..f }), Verdict::Lost, "{state:?} {earlier:?}");
            }
        }
    }

    #[test]
    fn a_users_sandbox_is_started_again_and_a_member_is_replaced() {
        let session = Facts {
            has_session: true,
            purpose: Purpose::Session(SessionId::from_u128(1)),
            observed: Some(ObservedPhase::Exited),
            ..facts(SandboxState::Claimed)
        };
        assert_eq!(judge(&session), Verdict::Restart);
        let member = Facts { observed: Some(ObservedPhase::Exited), ..facts(SandboxState::Warm) };
        assert_eq!(judge(&member), Verdict::Lost);
        let kept = Facts { observed: Some(ObservedPhase::Exited), ..facts(SandboxState::Kept) };
        assert_eq!(judge(&kept), Verdict::Restart);
    }

    /// F31
    #[test]
    fn a_running_sandbox_that_has_an_older_token_gets_the_new_one() {
        let f = Facts { refused: true, has_session: true, ..facts(SandboxState::Claimed) };
        assert_eq!(judge(&f), Verdict::Restart);
        let f = Facts { refused: true, ..facts(SandboxState::Starting) };
        assert_eq!(judge(&f), Verdict::Leave, "a member is replaced in time");
        let f = Facts { refused: true, has_session: true, in_flight: true, ..facts(SandboxState::Claimed) };
        assert_eq!(judge(&f), Verdict::Leave);
    }

    #[test]
    fn a_silent_session_is_not_destroyed() {
        let f = Facts { silent: true, has_session: true, ..facts(SandboxState::Claimed) };
        assert_eq!(judge(&f), Verdict::Leave);
        let f = Facts { silent: true, ..facts(SandboxState::Warm) };
        assert_eq!(judge(&f), Verdict::Overdue);
    }
}
