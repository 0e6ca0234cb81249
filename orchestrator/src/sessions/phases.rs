//! Between sync and the open gate: the services are ready, `update` has run where the sync touched its inputs,
//! `prepare` has run once. What of it fails is said in the session and keeps the gate no longer shut: whoever works
//! in it can mend more than somebody who waits.

use std::sync::Arc;

use domain::ports::AgentLink;
use domain::{CommitId, Error, ErrorKind, ImageNote, Result};
use serde_json::json;
use tracing::debug;

use super::{Session, Sessions, post};
use crate::fleet::{Entry, START_DEADLINE, Silent};

/// What a tree needs, beyond its commit, before users may write to it.
pub(super) struct Needs {
    entry: Arc<Entry>,
    note: ImageNote,
    prepare: bool,
}

impl Sessions {
    /// What this session's tree needs besides sync; `None` where the gate may open in the same step.
    pub(super) fn needs(&self, session: &Session) -> Option<Needs> {
        let (sandbox, prepared) = {
            let record = session.lock();
            (record.sandbox?, record.prepared)
        };
        let entry = self.fleet.get(sandbox)?;
        let note = (*entry.note()?).clone();
        let prepare = !prepared && !note.phases.prepare.is_empty();
        let any = prepare || note.starts_something() || !note.phases.update.is_empty();
        any.then_some(Needs { entry, note, prepare })
    }

    /// What is needed, and then the gate.
    pub(super) async fn fulfil_and_open(
        &self,
        session: &Session,
        link: &Arc<dyn AgentLink>,
        needs: Needs,
        head: &CommitId,
    ) -> Result<()> {
        // A restored tree is its user's: nothing in it is brought up to date.
        let moved = session.lock().snapshot.is_none().then_some(head);
        self.fulfil(session, link, needs, moved).await?;
        link.set_gate(true).await
    }

    /// Does what is needed, in order. `head` is the tree's commit, where sync moved it.
    ///
    /// Errors: those of the connection; then nothing is noted, and it begins again with the next one.
    pub(super) async fn fulfil(
        &self,
        session: &Session,
        link: &Arc<dyn AgentLink>,
        mut needs: Needs,
        head: Option<&CommitId>,
    ) -> Result<()> {
        let limit = needs.note.start_limit() + START_DEADLINE;
        let up = needs.entry.environment_up(limit).await;
        self.say(session, link, "services", up).await?;
        if let Some(head) = head {
            let done = image_builder::update_tree(&**link, &mut needs.note, head, &Silent).await;
            if let Ok(commands) = &done
                && !commands.is_empty()
            {
                let commands: Vec<_> = commands.iter().map(|c| c.run.as_str()).collect();
                post(&self.logs, session.id, "updated", json!({"commands": commands, "commit": head}));
            }
            needs.entry.set_note(Some(needs.note.clone()));
            self.say(session, link, "update", done.map(drop)).await?;
        }
        if needs.prepare {
            let (id, env) = (session.id.to_string(), session.lock().env.clone());
            let done = image_builder::prepare(&**link, &needs.note, &id, &env, &Silent).await;
            let well = done.is_ok();
            self.say(session, link, "prepare", done).await?;
            self.update(session, false, |r| {
                r.prepared = true;
                well.then(|| ("prepared", json!({})))
            })
            .await?;
        }
        Ok(())
    }

    /// Notes a failure in the session. What failed with the connection is passed on.
    async fn say(
        &self,
        session: &Session,
        link: &Arc<dyn AgentLink>,
        phase: &'static str,
        done: Result<()>,
    ) -> Result<()> {
        let Err(e) = done else { return Ok(()) };
        if link.is_closed() {
            debug!(session = %session.id, phase, error = %e.chain(), "the agent went away");
            return Err(Error::unavailable(format!("the agent went away during {phase}")).caused_by(e));
        }
        let why = format!("{phase} failed: {}", e.chain());
        // What `update` does is the commit's, and a call that ended late may be the host's; a restored tree is its user's.
        if phase != "update" && e.kind() == ErrorKind::Permanent {
            let (sandbox, image) = {
                let r = session.lock();
                (r.sandbox, r.image.filter(|_| r.snapshot.is_none()))
            };
            if let (Some(sandbox), Some(image)) = (sandbox, image) {
                self.rollout.blame(&session.repo, image, sandbox, Some(session.id), &why).await;
            }
        }
        self.update(session, false, |r| {
            r.trouble = Some(why.clone());
            Some(("phase_failed", json!({"phase": phase, "error": why})))
        })
        .await
        .map(drop)
    }

    /// `prepare` of a session whose gate opened without it: on a tree that the client took as it was.
    pub(super) async fn prepare_late(&self, session: &Session, link: &Arc<dyn AgentLink>) {
        let Some(needs) = self.needs(session).filter(|n| n.prepare) else { return };
        if let Err(e) = self.fulfil(session, link, needs, None).await {
            debug!(session = %session.id, error = %e.chain(), "could not prepare a session");
        }
    }
}
