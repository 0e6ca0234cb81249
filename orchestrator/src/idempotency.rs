//! `Idempotency-Key`: the same key with the same body makes one thing and answers it again; with another body it
//! is a conflict (F7). Each holder of a key or token has a space of its own: two who choose the same never meet. The row
//! is written in the transaction that makes the thing.

use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use domain::{Error, Result, SharedClock};
use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use store::Idempotency as Row;
use tokio::sync::watch;

use crate::access::INSTALLATION;
use crate::fleet::hex;

/// As long as the store keeps them.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// A client's key, with what it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// As sent, 1 to 255 visible ASCII characters, in its holder's space.
    pub key: String,
    /// Method and path.
    pub route: String,
    /// SHA-256 of the body, hex.
    pub body_hash: String,
}

impl Key {
    pub fn new(space: &str, key: &str, route: &str, body: &[u8]) -> Result<Self> {
        if key.is_empty() || key.len() > 255 || !key.bytes().all(|b| (0x20..0x7f).contains(&b)) {
            return Err(Error::invalid(
                "`Idempotency-Key` is not readable: expected 1 to 255 ASCII characters",
            ));
        }
        Ok(Self { key: within(space, key), route: route.into(), body_hash: hex(&Sha256::digest(body)) })
    }
}

/// A key in a space. Between the two stands what neither holds, so no two pairs are the same; the installation's own keys
/// stand alone, as they did before there were others.
fn within(space: &str, key: &str) -> String {
    if space == INSTALLATION { key.to_owned() } else { format!("{space}\u{1f}{key}") }
}

#[derive(Debug, Clone)]
enum Outcome {
    Running,
    Made(String),
    Failed,
}

#[derive(Debug)]
struct Held {
    route: String,
    body_hash: String,
    since: Timestamp,
    outcome: watch::Sender<Outcome>,
}

pub struct Idempotency {
    keys: DashMap<String, Arc<Held>>,
    clock: SharedClock,
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Idempotency({} keys)", self.keys.len())
    }
}

/// How a keyed request begins.
#[derive(Debug)]
pub enum Begin {
    /// The first of its key: make the thing, then [`Guard::done`].
    New(Guard),
    /// Made before: the id of it.
    Replay(String),
}

/// Held while the first request of a key works; dropped without [`Guard::done`], the key is free again.
#[derive(Debug)]
pub struct Guard {
    map: Arc<Idempotency>,
    held: Arc<Held>,
    key: Key,
    done: bool,
}

impl Idempotency {
    pub fn new(loaded: Vec<Row>, clock: SharedClock) -> Arc<Self> {
        let keys = DashMap::new();
        for row in loaded {
            let held = Held {
                route: row.route,
                body_hash: row.body_hash,
                since: row.created_at,
                outcome: watch::Sender::new(Outcome::Made(row.resource)),
            };
            keys.insert(row.key, Arc::new(held));
        }
        Arc::new(Self { keys, clock })
    }

    /// The first request of a key goes on; another waits for it and gets its answer, or takes its place if it fails.
    pub async fn begin(self: &Arc<Self>, key: Key) -> Result<Begin> {
        loop {
            let held = match self.keys.entry(key.key.clone()) {
                Slot::Vacant(slot) => {
                    let held = Arc::new(Held {
                        route: key.route.clone(),
                        body_hash: key.body_hash.clone(),
                        since: self.clock.now(),
                        outcome: watch::Sender::new(Outcome::Running),
                    });
                    slot.insert(held.clone());
                    return Ok(Begin::New(Guard { map: self.clone(), held, key, done: false }));
                }
                Slot::Occupied(slot) => slot.get().clone(),
            };
            if held.route != key.route || held.body_hash != key.body_hash {
                return Err(Error::conflict(format!(
                    "`Idempotency-Key` `{}` was used for another request before",
                    key.key.rsplit('\u{1f}').next().unwrap_or_default()
                )));
            }
            let mut outcome = held.outcome.subscribe();
            let outcome = outcome.wait_for(|o| !matches!(o, Outcome::Running)).await.map(|o| o.clone());
            if let Ok(Outcome::Made(resource)) = outcome {
                return Ok(Begin::Replay(resource));
            }
        }
    }

    /// Forgets keys that the store has forgotten, too.
    pub fn prune(&self) {
        let Ok(oldest) = self.clock.now().checked_sub(KEPT) else { return };
        self.keys
            .retain(|_, held| held.since >= oldest || matches!(*held.outcome.borrow(), Outcome::Running));
    }

    /// What was made under a key of this space by requests of `route`.
    pub fn resource(&self, space: &str, route: &str, key: &str) -> Option<String> {
        let held = self.keys.get(&within(space, key))?;
        if held.route != route {
            return None;
        }
        match &*held.outcome.borrow() {
            Outcome::Made(resource) => Some(resource.clone()),
            _ => None,
        }
    }
}

impl Guard {
    /// The row to write together with the thing.
    pub fn row(&self, resource: &str) -> Row {
        Row {
            key: self.key.key.clone(),
            route: self.key.route.clone(),
            body_hash: self.key.body_hash.clone(),
            resource: resource.into(),
            created_at: self.map.clock.now(),
        }
    }

    /// It is made and written.
    pub fn done(mut self, resource: String) {
        self.done = true;
        self.held.outcome.send_replace(Outcome::Made(resource));
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.done {
            self.map.keys.remove(&self.key.key);
            self.held.outcome.send_replace(Outcome::Failed);
        }
    }
}
