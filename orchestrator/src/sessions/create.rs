//! The claim path. It touches memory, one transaction and nothing else: no engine, no git, no forge.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use domain::{
    Branch, Error, Launch, Purpose, RepoSpec, Result, SandboxId, SessionId, SessionRecord, SessionState,
    SyncState,
};
use pool::{MIN_REMAINING_LIFE, MissReason, Want};
use serde_json::json;
use store::Tx;

use super::{COLD_QUEUE, LAUNCH_DEADLINE, NewSession, Session, Sessions};
use crate::fleet::{Order, after};
use crate::idempotency::{Begin, Guard, Key};
use crate::quotas::Seat;
use crate::traces::kinds;

/// What `create` answers.
#[derive(Debug, Clone)]
pub struct Created {
    pub record: Arc<SessionRecord>,
    /// The same key was used before: this is what was made then (F7).
    pub replayed: bool,
}

/// How a keyed request stands before anything is done.
#[derive(Debug)]
enum Start {
    /// This was made before under the same key.
    Made(Box<Created>),
    /// Nothing was; the key, if there is one, is held until the session is made.
    New(Option<Guard>),
}

/// Longest life a session may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(7 * 24 * 3600);

impl Sessions {
    /// Claims a sandbox for a user. Answers when the claim is durable; bind and sync go on by themselves.
    ///
    /// Errors: `NotFound` (repo, snapshot, warm-up), `Invalid` (branch, limits), `Conflict` (key used with another
    /// body), `Exhausted` (a quota, too many wait for a cold start), `Unavailable` (the repo has no image yet).
    pub async fn create(self: &Arc<Self>, new: NewSession, key: Option<Key>) -> Result<Created> {
        match self.begin(key).await? {
            Start::Made(created) => Ok(*created),
            Start::New(claim) => self.create_under(new, claim).await,
        }
    }

    /// Looks whether something was made under this key before.
    async fn begin(&self, key: Option<Key>) -> Result<Start> {
        let Some(key) = key else { return Ok(Start::New(None)) };
        match self.idempotency.begin(key).await? {
            Begin::New(guard) => Ok(Start::New(Some(guard))),
            Begin::Replay(resource) => {
                let id = resource.parse().map_err(|e| Error::permanent("read a stored key").caused_by(e))?;
                Ok(Start::Made(Box::new(Created { record: self.record(id).await?, replayed: true })))
            }
        }
    }

    /// As [`Sessions::create`], from a snapshot of a live session that is taken for it. What would be refused is refused
    /// before that: nobody pays for a snapshot that nothing comes of.
    pub async fn fork(
        self: &Arc<Self>,
        of: &Arc<Session>,
        mut new: NewSession,
        key: Option<Key>,
    ) -> Result<Created> {
        // The key is asked before anything is done: a repeated fork takes no second snapshot (F7).
        let claim = match self.begin(key).await? {
            Start::Made(created) => return Ok(*created),
            Start::New(claim) => claim,
        };
        let spec = self.repos.spec(&new.repo)?;
        let seat = self.quotas.session(&new.user.login, &spec.name)?;
        self.draw_up(SessionId::new(), &spec, &new).await?;
        new.snapshot = Some(self.snapshot(of).await?.id);
        self.create_seated(new, claim, seat).await
    }

    /// As [`Sessions::create`], under a key that is held.
    async fn create_under(self: &Arc<Self>, new: NewSession, claim: Option<Guard>) -> Result<Created> {
        let spec = self.repos.spec(&new.repo)?;
        let seat = self.quotas.session(&new.user.login, &spec.name)?;
        self.create_seated(new, claim, seat).await
    }

    /// The claim itself. The seat is given back wherever this ends before there is a session.
    async fn create_seated(
        self: &Arc<Self>,
        new: NewSession,
        claim: Option<Guard>,
        seat: Seat,
    ) -> Result<Created> {
        let born = tokio::time::Instant::now();
        let id = SessionId::new();
        let spec = self.repos.spec(&new.repo)?;
        let mut span = self.tracer.begin(&kinds::CLAIM, new.trace.clone());
        span.show(kinds::SESSION, id);
        span.show(kinds::REPO, &spec.name);
        let mut record = self.draw_up(id, &spec, &new).await?;
        record.trace = new.trace.clone().or_else(|| span.context());

        let (launch, tx, prepared) = match self.pick(&spec, &new, &mut record).await {
            Ok(picked) => picked,
            Err(e) => return span.ended(Err(e)),
        };
        record.launch = launch;
        span.set(kinds::LAUNCH, launch.as_str());
        if let Some(sandbox) = record.sandbox {
            span.show(kinds::SANDBOX, sandbox);
        }
        let session = Session::new(record, Some(born), seat);
        let record = session.record();
        // In memory before it is written: whoever learns the id can use it at once (F37).
        self.live.insert(id, session.clone());
        if let Some(sandbox) = record.sandbox {
            self.by_sandbox.insert(sandbox, id);
        }
        let mut tx = tx.session(&record);
        if let Some(claim) = &claim {
            tx = tx.idempotency(&claim.row(&id.to_string()));
        }
        if let Err(e) = self.store.submit_at_once(tx).await {
            self.undo(&session, prepared).await;
            return span.ended(Err(e));
        }
        if let Some(claim) = claim {
            claim.done(id.to_string());
        }
        drop(span);
        if let Some(prepared) = prepared {
            self.launch_in_turn(prepared, &record);
        }
        self.metrics.session_started(&record, born.elapsed());
        tracing::info!(session = %id, repo = %record.repo, launch = launch.as_str(), "session started");
        super::post(
            &self.logs,
            id,
            "created",
            json!({"repo": record.repo, "user": record.user.login, "launch": launch, "branch": record.branch, "base": record.base, "sandbox": record.sandbox}),
        );
        self.spawn_driver(session);
        Ok(Created { record, replayed: false })
    }

    /// The record, from the request and the repo's policy; no sandbox yet.
    async fn draw_up(&self, id: SessionId, spec: &RepoSpec, new: &NewSession) -> Result<SessionRecord> {
        let now = self.clock.now();
        let timeout = new.timeout.unwrap_or(spec.session.timeout);
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            return Err(Error::invalid(format!(
                "`timeout_seconds` is {}: expected 1 to {}",
                timeout.as_secs(),
                MAX_TIMEOUT.as_secs()
            )));
        }
        let base = new.base.clone().unwrap_or_else(|| spec.branch.clone());
        // Away from the claim path: only a request that names another branch than the repo's pays for this look.
        if base != spec.branch && self.mirrors.tip(&spec.name, &base).await?.is_none() {
            self.mirrors.refresh(&spec.name).await?;
            if self.mirrors.tip(&spec.name, &base).await?.is_none() {
                return Err(Error::not_found(format!(
                    "`base` is `{base}`: {} has no such branch",
                    spec.name
                )));
            }
        }
        let branch = match &new.branch {
            Some(branch) if *branch == spec.branch => {
                return Err(Error::invalid(format!(
                    "`branch` is `{branch}`, which is the repo's own: a session works on a branch of its own"
                )));
            }
            Some(branch) => branch.clone(),
            None => session_branch(&spec.session.branch_pattern, id)?,
        };
        let idle_end = new.idle_end.unwrap_or(spec.session.idle_end);
        let expires_at = after(now, timeout);
        Ok(SessionRecord {
            id,
            repo: spec.name.clone(),
            state: SessionState::Waiting,
            launch: Launch::Cold,
            sandbox: None,
            image: None,
            user: new.user.clone(),
            prompters: Vec::new(),
            env: new.env.clone(),
            base,
            branch,
            sync: SyncState::pending(),
            prepared: false,
            token_handed: false,
            snapshot: new.snapshot,
            parent: new.parent,
            warmup: new.warmup,
            created_at: now,
            started_at: None,
            expires_at,
            idle_end_seconds: idle_end.map(|d| d.as_secs()),
            deadline: after(now, LAUNCH_DEADLINE),
            ended_at: None,
            end: None,
            trouble: None,
            trace: None,
        })
    }

    /// The snapshot's sandbox, the warm-up's, one of the pool, or a cold one, in this order. What comes back has
    /// been taken in memory and is not written yet.
    async fn pick(
        self: &Arc<Self>,
        spec: &RepoSpec,
        new: &NewSession,
        record: &mut SessionRecord,
    ) -> Result<(Launch, Tx, Option<crate::fleet::Prepared>)> {
        if let Some(id) = new.snapshot {
            let order = self.restore_order(spec, record, id).await?;
            return self.cold(spec, record, order, Launch::Restore);
        }
        let images = self.repos.offer(spec, record.id.as_u128());
        let allowed: Vec<_> = images.iter().map(|i| i.id).collect();
        if !images.is_empty() {
            let now = self.clock.now();
            self.demands.arrived(&spec.name);
            self.metrics.pool_arrival(&spec.name);
            // Members wait at the tip of the repo's own branch.
            let tip = self.repos.tip(&spec.name).filter(|_| record.base == spec.branch);
            let want = Want {
                repo: &spec.name,
                allowed: &allowed,
                warmup: new.warmup,
                tip: tip.as_ref(),
                now,
                min_remaining_life: MIN_REMAINING_LIFE,
                member_max_age: spec.pool.member_max_age,
            };
            match self.fleet.claim(&want, record.id) {
                Ok((entry, sandbox, launch)) => {
                    self.metrics.pool_hit(&spec.name);
                    record.state = SessionState::Active;
                    record.sandbox = Some(entry.id);
                    record.image = sandbox.image;
                    record.started_at = Some(now);
                    record.deadline = match record.idle_end_seconds {
                        Some(idle) => after(now, Duration::from_secs(idle)).min(record.expires_at),
                        None => record.expires_at,
                    };
                    let mut tx = Tx::new().sandbox(&sandbox);
                    if let Some(warmup) = new.warmup
                        && let Some(hit) = self.warmups.hit(warmup, &spec.name, entry.id)
                    {
                        tx = tx.warmup(&hit);
                    }
                    return Ok((launch, tx, None));
                }
                Err(reason) => self.metrics.pool_miss(&spec.name, reason),
            }
            // Its warm-up's own member is still on its way: sooner there than another one (F55).
            if let Some(warmup) = new.warmup
                && let Some(held) = self.warmups.member(warmup, &spec.name)
                && let Some((entry, sandbox)) = self.fleet.claim_starting(held, warmup, &allowed, record.id)
            {
                record.sandbox = Some(entry.id);
                record.image = sandbox.image;
                let mut tx = Tx::new().sandbox(&sandbox);
                if let Some(hit) = self.warmups.hit(warmup, &spec.name, entry.id) {
                    tx = tx.warmup(&hit);
                }
                return Ok((Launch::Warmup, tx, None));
            }
        } else {
            self.metrics.pool_miss(&spec.name, MissReason::NoImage);
            return Err(Error::unavailable(format!(
                "{} has no image yet: its first build is under way or has failed (`hotbed build ls {}`)",
                spec.name, spec.name
            )));
        }
        let Some(image) = images.first() else { return Err(Error::unavailable("no image")) };
        let order = Order::of_image(image, Purpose::Session(record.id), self.repos.trust_env(&spec.name));
        record.image = Some(image.id);
        self.cold(spec, record, order, Launch::Cold)
    }

    fn cold(
        &self,
        spec: &RepoSpec,
        record: &mut SessionRecord,
        order: Order,
        launch: Launch,
    ) -> Result<(Launch, Tx, Option<crate::fleet::Prepared>)> {
        if self.cold_waiting.load(Ordering::Relaxed) >= COLD_QUEUE {
            return Err(Error::exhausted(format!("{COLD_QUEUE} sessions wait for a cold start already")));
        }
        let prepared = self.room.admit(spec, || self.fleet.prepare(spec, order))?;
        record.sandbox = Some(prepared.record.id);
        let tx = Tx::new().sandbox(&prepared.record);
        Ok((launch, tx, Some(prepared)))
    }

    pub(super) async fn restore_order(
        &self,
        spec: &RepoSpec,
        record: &SessionRecord,
        id: domain::SnapshotId,
    ) -> Result<Order> {
        let snapshot = self.store.snapshot(id).await?.filter(|s| s.repo == spec.name);
        let snapshot = snapshot.ok_or_else(|| {
            Error::not_found(format!("`snapshot` is {id}: {} has no such snapshot", spec.name))
        })?;
        let start = snapshots::restore_choice(&spec.name, Some(&snapshot), &[])?;
        Ok(Order {
            id: None,
            source: start.source,
            image: start.image,
            commit: start.commit,
            purpose: Purpose::Session(record.id),
            gate_open: false,
            network: None,
            env: self.repos.trust_env(&spec.name),
        })
    }

    /// Starts a cold sandbox when its turn comes, first come first served.
    pub(super) fn launch_in_turn(self: &Arc<Self>, prepared: crate::fleet::Prepared, record: &SessionRecord) {
        let me = self.clone();
        let mut span = self.span(&kinds::START, record);
        span.show(kinds::SANDBOX, prepared.record.id);
        self.cold_waiting.fetch_add(1, Ordering::Relaxed);
        self.tasks.spawn(async move {
            let turn = tokio::select! {
                turn = me.cold.clone().acquire_owned() => turn,
                // The row is there: the next start takes it up.
                () = me.stop.cancelled() => return,
            };
            me.cold_waiting.fetch_sub(1, Ordering::Relaxed);
            let entry = prepared.entry.clone();
            tokio::select! {
                () = me.room.enter(&entry) => {}
                () = me.stop.cancelled() => return,
            }
            me.fleet.launch(prepared);
            // The turn ends when the agent answers, or never will.
            tokio::select! {
                link = entry.wait_link(LAUNCH_DEADLINE) => drop(span.ended(link)),
                () = me.stop.cancelled() => {}
            }
            drop(turn);
        });
    }

    /// The transaction failed: nothing was promised. A member that was taken is not put back (F16), it is replaced.
    async fn undo(self: &Arc<Self>, session: &Arc<Session>, prepared: Option<crate::fleet::Prepared>) {
        let sandbox = session.lock().sandbox;
        self.live.remove(&session.id);
        session.leave_seat();
        if let Some(sandbox) = sandbox {
            self.by_sandbox.remove(&sandbox);
        }
        match (prepared, sandbox) {
            (Some(prepared), _) => {
                self.room.leave(prepared.record.id);
                self.fleet.forget(prepared);
            }
            (None, Some(sandbox)) => self.drop_member(sandbox).await,
            (None, None) => {}
        }
    }

    async fn drop_member(self: &Arc<Self>, sandbox: SandboxId) {
        // F11: the record says `claimed` in memory and perhaps `warm` on disk; both ways it ends here.
        if let Err(e) = self.fleet.stop(sandbox, "its claim could not be recorded").await {
            tracing::warn!(sandbox = %sandbox, error = %e.chain(), "could not drop a member after a failed claim");
        }
    }
}

/// `{session}` in the pattern becomes the last 12 digits of the id: random, and enough to be unique.
fn session_branch(pattern: &str, id: SessionId) -> Result<Branch> {
    let id = id.to_string();
    let short = &id[id.len() - 12..];
    let name = pattern.replace("{session}", short);
    name.parse().map_err(|e| Error::invalid("make the session's branch").caused_by(e))
}
