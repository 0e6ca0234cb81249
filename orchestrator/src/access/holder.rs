//! Somebody who has shown what opens: a key, or a token of an identity provider.

use std::time::Duration;

use domain::{KeyId, KeyRecord, Reach, Role, SharedClock};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::INSTALLATION;

/// How exactly the end of what was shown is kept, for what it has opened.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who calls, and how far he may go.
#[derive(Debug, Clone)]
pub struct Holder {
    pub credential: Credential,
    /// What is written down of who did something.
    pub name: String,
    pub role: Role,
    pub reach: Reach,
    /// What its requests are counted by, and whose its `Idempotency-Key`s are. Nobody else has the same.
    pub space: String,
    /// Who it is among people, where what was shown says so.
    pub person: Option<Person>,
    /// When it opens nothing any more.
    pub expires_at: Option<Timestamp>,
    /// Cancelled when it is taken back.
    pub(super) closed: CancellationToken,
}

/// What was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// The key in the state directory.
    Installation,
    Key(KeyId),
    /// A token of an identity provider.
    Token,
}

/// A person, as an identity provider names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub login: String,
    pub name: Option<String>,
    pub email: Option<String>,
    /// Whether a request may name another one.
    pub may_name_others: bool,
}

impl Holder {
    pub(super) fn of(record: &KeyRecord) -> Self {
        Self {
            credential: Credential::Key(record.id),
            name: record.name.clone(),
            role: record.role,
            reach: record.reach.clone(),
            space: record.id.to_string(),
            person: None,
            expires_at: record.expires_at,
            closed: CancellationToken::new(),
        }
    }

    pub(super) fn installation() -> Self {
        Self {
            credential: Credential::Installation,
            name: INSTALLATION.to_owned(),
            role: Role::Admin,
            reach: Reach::All,
            space: INSTALLATION.to_owned(),
            person: None,
            expires_at: None,
            closed: CancellationToken::new(),
        }
    }

    /// The key, where it was one that was made.
    pub fn key(&self) -> Option<KeyId> {
        match self.credential {
            Credential::Key(id) => Some(id),
            Credential::Installation | Credential::Token => None,
        }
    }

    /// Ends what was opened with it, within a second.
    pub(super) fn close(&self) {
        self.closed.cancel();
    }

    /// Returns when what was shown opens nothing any more: it was taken back, or its end has come.
    pub async fn over(&self, clock: &SharedClock) {
        tokio::select! {
            () = self.closed.cancelled() => {}
            () = self.expired(clock) => {}
        }
    }

    async fn expired(&self, clock: &SharedClock) {
        let Some(end) = self.expires_at else { return std::future::pending().await };
        // In small steps: the clock on the wall may be set.
        while clock.now() < end {
            let left = Duration::try_from(end.duration_since(clock.now())).unwrap_or_default();
            tokio::time::sleep(left.clamp(Duration::from_millis(1), LOOK_EVERY)).await;
        }
    }
}
