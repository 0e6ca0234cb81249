//! What a driver does between the claim and the end: bind, sync, open the gate; again after every reconnection.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::ports::AgentLink;
use domain::wire::{SyncMode, SyncRequest};
use domain::{
    Branch, CommitId, EndReason, Error, ErrorKind, Purpose, Result, SessionEvent, SessionRecord,
    SessionState, SyncPhase, TraceContext,
};
use serde_json::json;
use store::Tx;
use tracing::{debug, info, warn};

use super::{LAUNCH_DEADLINE, Session, Sessions};
use crate::fleet::{Order, after};
use crate::traces::kinds;

impl Sessions {
    /// Brings the session one step nearer to what its record says. Idempotent; poked again, it goes on.
    pub(super) async fn converge(self: &Arc<Self>, session: &Arc<Session>) {
        let state = session.lock().state;
        match state {
            SessionState::Waiting | SessionState::Active => {
                tokio::select! {
                    () = session.leaving.cancelled() => {}
                    () = self.stop.cancelled() => {}
                    () = self.bring_up(session) => {}
                }
                if session.leaving.is_cancelled() {
                    session.poke.notify_one();
                }
            }
            SessionState::Ending => self.finish(session).await,
            SessionState::Paused | SessionState::Ended => {}
        }
    }

    async fn bring_up(self: &Arc<Self>, session: &Arc<Session>) {
        let link = match self.bound_link(session).await {
            Ok(link) => link,
            Err(e) => return self.not_bound(session, e).await,
        };
        let phase = session.lock().sync.phase;
        let retry = session.retry_sync.swap(false, Ordering::AcqRel);
        if retry || matches!(phase, SyncPhase::Pending | SyncPhase::Running) {
            self.sync(session, &link).await;
        } else if phase.gate_is_open() {
            self.prepare_late(session, &link).await;
        }
    }

    /// What may pass is tried again in a moment; the record's deadline bounds how often.
    async fn not_bound(self: &Arc<Self>, session: &Arc<Session>, e: Error) {
        debug!(session = %session.id, error = %e.chain(), "not bound yet");
        let record = session.record();
        let gone = record.sandbox.is_none_or(|id| self.fleet.get(id).is_none());
        match record.state {
            SessionState::Active if gone => {
                // A crash came between the removal of the sandbox and the word to the session.
                if let Some(sandbox) = record.sandbox {
                    self.sandbox_lost(sandbox, "its sandbox is gone");
                }
            }
            // A sandbox that was lost before anybody was in it is replaced: the fleet's word of it comes, too.
            SessionState::Waiting if !e.kind().is_retryable() && e.kind() != ErrorKind::Gone && !gone => {
                self.launch_failed(session, e.chain()).await
            }
            SessionState::Waiting | SessionState::Active => self.again(session).await,
            _ => {}
        }
    }

    /// Has the driver look again in a moment.
    async fn again(&self, session: &Session) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        session.poke.notify_one();
    }

    /// The agent's connection, bound to this session, with the gate as the record says.
    async fn bound_link(self: &Arc<Self>, session: &Arc<Session>) -> Result<Arc<dyn AgentLink>> {
        let entry = {
            let record = session.record();
            match record.sandbox.and_then(|id| self.fleet.get(id)) {
                Some(entry) => entry,
                None if record.state == SessionState::Waiting => self.launch_again(session, &record).await?,
                None => return Err(Error::gone(format!("the sandbox of {} is gone", session.id))),
            }
        };
        let link = match entry.link() {
            Some(link) if !link.is_closed() => link,
            _ => entry.wait_link(LAUNCH_DEADLINE).await?,
        };
        let already = session.bound.borrow().as_ref().is_some_and(|l| Arc::ptr_eq(l, &link));
        if already {
            return Ok(link);
        }
        let turn = session.telling.lock().await;
        let record = session.record();
        let mut span = self.span(&kinds::BIND, &record);
        span.show(kinds::SANDBOX, entry.id);
        span.around(link.bind(&self.bind_of(&record))).await?;
        if record.sync.phase.gate_is_open() {
            // A new incarnation of the agent: its gate is shut, and this tree was synced before.
            link.set_gate(true).await?;
        }
        if record.state == SessionState::Waiting {
            let now = self.clock.now();
            if entry.state() != domain::SandboxState::Claimed {
                self.fleet.claim_own(&entry).await?;
            }
            let noted = self.update(session, false, |r| {
                if r.sandbox != Some(entry.id) {
                    // It was lost while it was bound.
                    return None;
                }
                r.state = r.state.after(SessionEvent::SandboxReady)?;
                r.started_at = Some(now);
                r.trouble = None;
                r.deadline = match r.idle_end_seconds {
                    Some(idle) => after(now, Duration::from_secs(idle)).min(r.expires_at),
                    None => r.expires_at,
                };
                Some(("active", json!({"sandbox": r.sandbox})))
            });
            if noted.await?.sandbox != Some(entry.id) {
                return Err(Error::gone(format!("sandbox {} was lost while it was bound", entry.id)));
            }
        }
        session.bound.send_replace(Some(link.clone()));
        drop(turn);
        Ok(link)
    }

    /// The sandbox of a session that never got one was lost: another is started, under the same deadline.
    async fn launch_again(
        self: &Arc<Self>,
        session: &Arc<Session>,
        record: &SessionRecord,
    ) -> Result<Arc<crate::fleet::Entry>> {
        let spec = self.repos.spec(&record.repo)?;
        let order = match record.snapshot {
            Some(id) => self.restore_order(&spec, record, id).await?,
            None => {
                let image = self
                    .repos
                    .current_image(&record.repo)
                    .ok_or_else(|| Error::unavailable(format!("{} has no image", record.repo)))?;
                Order::of_image(&image, Purpose::Session(record.id), self.repos.trust_env(&record.repo))
            }
        };
        info!(session = %session.id, "starting another sandbox for a session that has none");
        let prepared = self.room.admit_again(&spec, || self.fleet.prepare(&spec, order));
        let entry = prepared.entry.clone();
        let (receipt, old) = {
            let mut r = session.lock();
            let old = r.sandbox.replace(prepared.record.id);
            (self.store.submit(Tx::new().sandbox(&prepared.record).session(&r)), old)
        };
        if let Some(old) = old {
            self.by_sandbox.remove(&old);
        }
        self.by_sandbox.insert(entry.id, session.id);
        if let Err(e) = receipt.await {
            self.room.leave(entry.id);
            self.fleet.forget(prepared);
            return Err(e);
        }
        self.launch_in_turn(prepared, record);
        Ok(entry)
    }

    pub(super) async fn launch_failed(self: &Arc<Self>, session: &Arc<Session>, why: String) {
        warn!(session = %session.id, why, "could not launch a session");
        let noted = self.update(session, true, |r| {
            r.trouble = Some(why.clone());
            None
        });
        if let Err(e) = noted.await {
            warn!(session = %session.id, error = %e.chain(), "could not record a failed launch");
        }
        if let Err(e) = self.decide_end(session, EndReason::LaunchFailed, true).await {
            warn!(session = %session.id, error = %e.chain(), "could not end a session that failed to launch");
        }
    }

    /// Brings the tree to the wanted commit and opens the gate; or says why not, and leaves it shut (F54).
    async fn sync(self: &Arc<Self>, session: &Arc<Session>, link: &Arc<dyn AgentLink>) {
        let begun = tokio::time::Instant::now();
        let now = self.clock.now();
        // In memory only: a restart begins a sync anew, whether or not it had begun.
        {
            let mut r = session.lock();
            r.sync.phase = SyncPhase::Running;
            r.sync.error = None;
            r.sync.started_at = Some(now);
            r.sync.ended_at = None;
        }
        session.changed.send_modify(|n| *n += 1);
        let mut span = self.span(&kinds::SYNC, &session.record());
        let here = span.context();
        super::post(&self.logs, session.id, "sync_started", json!({}));
        let limit =
            self.repos.spec(&session.repo).map_or(Duration::from_secs(60), |s| s.session.sync_timeout);
        let needs = self.needs(session);
        let synced = self.sync_tree(session, link, limit, needs.is_none(), here);
        let done = match tokio::time::timeout(limit, synced).await {
            Ok(done) => done,
            Err(_) => Err(Error::timeout(format!("git sync did not end within {} s", limit.as_secs()))),
        };
        let took = begun.elapsed();
        let done = match (done, needs) {
            (Ok(head), Some(needs)) => self.fulfil_and_open(session, link, needs, &head).await.map(|()| head),
            (done, _) => done,
        };
        if let Err(e) = &done {
            span.fail(e.kind());
        }
        if let Err(e) = &done
            && link.is_closed()
        {
            // The agent dials again and the sync with it; that is no failure of the sync.
            return debug!(session = %session.id, error = %e.chain(), "the agent went away during sync");
        }
        let ended = self.clock.now();
        let noted = self.update(session, false, |r| {
            r.sync.ended_at = Some(ended);
            match &done {
                Ok(head) => {
                    r.sync.phase = SyncPhase::Synced;
                    r.sync.head = Some(head.clone());
                    Some(("synced", json!({"head": head, "seconds": took.as_secs_f64()})))
                }
                Err(e) => {
                    r.sync.phase = SyncPhase::Failed;
                    r.sync.error = Some(e.chain());
                    Some(("sync_failed", json!({"error": e.chain(), "kind": e.kind().as_str()})))
                }
            }
        });
        match noted.await {
            Ok(record) => {
                self.metrics.synced(&record, took);
                span.set(kinds::RESULT, if done.is_ok() { "synced" } else { "failed" });
                if let Some(lag) = record.sync.lag_commits {
                    span.set(kinds::LAG, i64::from(lag));
                }
                drop(span);
                if let (SyncPhase::Synced, None, None, Some(image)) =
                    (record.sync.phase, &record.trouble, record.snapshot, record.image)
                {
                    self.rollout.began_well(&record.repo, image).await;
                }
                if record.sync.phase.gate_is_open()
                    && let Some(born) = session.born
                {
                    self.metrics.session_ready(&record, born.elapsed());
                    let seconds = born.elapsed().as_secs_f64();
                    info!(session = %record.id, repo = %record.repo, seconds, "session ready");
                    let trace = record.trace.as_ref();
                    let mut gate = self.tracer.past(&kinds::GATE, trace, record.created_at, self.clock.now());
                    gate.show(kinds::SESSION, record.id);
                    gate.set(kinds::LAUNCH, record.launch.as_str());
                }
            }
            Err(e) => {
                warn!(session = %session.id, error = %e.chain(), "could not record the end of a sync");
                self.again(session).await;
            }
        }
    }

    async fn sync_tree(
        &self,
        session: &Session,
        link: &Arc<dyn AgentLink>,
        limit: Duration,
        open_gate: bool,
        trace: Option<TraceContext>,
    ) -> Result<CommitId> {
        let record = session.record();
        let mut refresh = self.tracer.child(&kinds::REFRESH, trace.as_ref());
        refresh.show(kinds::REPO, &record.repo);
        refresh.around(self.mirrors.refresh(&record.repo)).await?;
        let (base, wanted) = self.wanted(&record).await?;
        let entry = record.sandbox.and_then(|id| self.fleet.get(id));
        let lag = match entry.and_then(|e| e.record().commit.clone()) {
            Some(from) if from == wanted => Some(0),
            Some(from) if record.snapshot.is_none() => {
                self.mirrors.distance(&record.repo, &from, &wanted).await?
            }
            _ => None,
        };
        {
            let mut r = session.lock();
            r.sync.wanted = Some(wanted.clone());
            r.sync.lag_commits = lag;
        }
        // A restored tree holds the user's work: sync brings what is new upstream within reach and moves nothing.
        let mode = if record.snapshot.is_some() { SyncMode::Fetch } else { SyncMode::Reset };
        let request = SyncRequest {
            mode,
            repo: record.repo.to_string(),
            base,
            branch: record.branch.clone(),
            commit: wanted.clone(),
            timeout_ms: limit.as_millis() as u64,
            open_gate,
            session: Some(record.id),
        };
        let begun = self.clock.now();
        let report = link.sync(&request).await?;
        self.tracer.agent_sync(trace.as_ref(), link.sandbox(), (begun, self.clock.now()), &report);
        if mode == SyncMode::Reset && report.head != wanted {
            // F25: what was promised is what HEAD says, or it is a failure.
            link.set_gate(false).await?;
            return Err(Error::permanent(format!("after sync HEAD is {}, wanted was {wanted}", report.head)));
        }
        Ok(report.head)
    }

    /// The upstream branch whose tip the session is to stand on, and that tip (F29).
    async fn wanted(&self, record: &SessionRecord) -> Result<(Branch, CommitId)> {
        if let Some(tip) = self.mirrors.tip(&record.repo, &record.branch).await? {
            return Ok((record.branch.clone(), tip));
        }
        match self.mirrors.tip(&record.repo, &record.base).await? {
            Some(tip) => Ok((record.base.clone(), tip)),
            None => Err(Error::new(
                ErrorKind::NotFound,
                format!(
                    "branch `{}` does not exist in {}: it was deleted or renamed upstream",
                    record.base, record.repo
                ),
            )),
        }
    }

    /// The client's answer to `failed`: try again, or go on with the tree as it is.
    pub async fn resync(
        self: &Arc<Self>,
        session: &Arc<Session>,
        accept_stale: bool,
    ) -> Result<Arc<SessionRecord>> {
        let record = session.record();
        if record.state != SessionState::Active {
            return Err(Error::conflict(format!("session {} is {}", session.id, record.state.as_str())));
        }
        match record.sync.phase {
            SyncPhase::Pending | SyncPhase::Running => {
                return Err(Error::conflict(format!("git sync of {} is under way", session.id)));
            }
            SyncPhase::Synced | SyncPhase::Stale if accept_stale => return Ok(record),
            SyncPhase::Synced | SyncPhase::Stale => {
                return Err(Error::conflict(
                    "the gate is open; bring the tree up to date with git in the session",
                ));
            }
            SyncPhase::Failed => {}
        }
        if accept_stale {
            let link = self.link(session, Duration::from_secs(10)).await?;
            link.set_gate(true).await?;
            let now = self.clock.now();
            return self
                .update(session, false, |r| {
                    r.sync.phase = SyncPhase::Stale;
                    r.sync.ended_at = Some(now);
                    Some(("stale_accepted", json!({})))
                })
                .await;
        }
        let record = self
            .update(session, false, |r| {
                r.sync.phase = SyncPhase::Pending;
                r.sync.error = None;
                None
            })
            .await?;
        session.retry_sync.store(true, Ordering::Release);
        session.poke.notify_one();
        Ok(record)
    }
}
