//! Who prompts: the agent is told before the client is answered, so that what a message leads to is committed by whoever
//! wrote it.

use std::sync::Arc;

use domain::wire::Bind;
use domain::{Error, Identity, Result, SessionRecord};
use serde_json::json;

use super::{Session, Sessions, token};

impl Sessions {
    /// What the agent of a session is told of it.
    pub(super) fn bind_of(&self, record: &SessionRecord) -> Bind {
        Bind {
            session: record.id,
            repo: record.repo.to_string(),
            identity: Some(record.committer().clone()),
            co_authors: record.co_authors(),
            token: Some(token::issue(&self.store.secret(), record.id)),
            env: record.env.clone(),
        }
    }

    /// `who` prompts from now on: he commits, and whoever prompted before him is named as co-author. Answers when the
    /// sandbox has been told; one that is still starting learns it when it is bound.
    ///
    /// # Errors
    /// `Conflict` for a session that is paused or in which too many people have prompted, `Gone` for one that has ended;
    /// the agent's.
    pub async fn prompt(&self, session: &Arc<Session>, who: Identity) -> Result<Arc<SessionRecord>> {
        self.usable(session)?;
        self.touch(session);
        let _turn = session.telling.lock().await;
        let now = self.clock.now();
        let mut full = false;
        let record = self.update(session, false, |r| {
            let before = r.committer().login.clone();
            full = !r.prompted(who.clone(), now);
            (!full && before != who.login).then(|| ("prompting", json!({"user": who.login})))
        });
        let record = record.await?;
        if full {
            let most = SessionRecord::MAX_PROMPTERS;
            return Err(Error::conflict(format!("{most} people have prompted in {} already", session.id)));
        }
        let bound = session.bound.borrow().clone().filter(|link| !link.is_closed());
        if let Some(link) = bound {
            link.bind(&self.bind_of(&record)).await?;
        }
        Ok(record)
    }
}
