//! How deliveries of webhooks come in: whether each is GitHub's, kept before it is answered, once under its name
//! however often it comes. What is in them is looked at later ([`super::news`]).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use domain::{Error, Result, SharedClock};
use github::App;
use github::webhook::{MAX_BODY, WebhookSecrets};
use jiff::{SignedDuration, Timestamp};
use store::{Delivery, Store, Tx};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tracing::info;

use crate::metrics::Metrics;

/// Bytes of deliveries that may be on their way in, in units of 1 KiB: anybody can send them, signed or not.
const ROOM: usize = 64 * 1024;
/// Deliveries that may wait to be worked.
const WAITING: usize = 50_000;
/// How long one is remembered; GitHub repeats none that is older.
const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How old a delivery may be that GitHub is asked to repeat, and how often it is asked to.
const MISSED: SignedDuration = SignedDuration::from_hours(3 * 24);
const ASKED_AT_MOST: u32 = 3;

/// What became of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    New,
    /// It came before.
    Repeated,
}

pub struct Hooks {
    secrets: WebhookSecrets,
    pub(super) store: Store,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    room: Arc<Semaphore>,
    /// Of all that are remembered, when they came.
    known: DashMap<String, Timestamp>,
    waiting: AtomicUsize,
    /// Told of each that comes.
    pub arrived: Arc<Notify>,
    /// How often GitHub was asked to repeat a delivery.
    asked: Mutex<HashMap<String, u32>>,
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hooks({} known)", self.known.len())
    }
}

impl Hooks {
    pub async fn open(
        secrets: &[&[u8]],
        store: Store,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let known = store.deliveries_known().await?.into_iter().collect();
        let waiting = AtomicUsize::new(store.deliveries_unworked().await?);
        Ok(Self {
            secrets: WebhookSecrets::new(secrets.iter().copied())?,
            store,
            clock,
            metrics,
            room: Arc::new(Semaphore::new(ROOM)),
            known,
            waiting,
            arrived: Arc::default(),
            asked: Mutex::default(),
        })
    }

    /// Room for a body of so many bytes; of any size where its sender does not say.
    ///
    /// # Errors
    /// `Exhausted` when too much is on its way in, or waits to be worked.
    pub fn room_for(&self, length: Option<usize>) -> Result<OwnedSemaphorePermit> {
        let full = |what: &str| Error::exhausted(what).retry_after(Duration::from_secs(10));
        if self.waiting.load(Ordering::Relaxed) >= WAITING {
            return Err(full("too many deliveries wait to be worked"));
        }
        let units = u32::try_from(length.unwrap_or(MAX_BODY).div_ceil(1024)).unwrap_or(u32::MAX).max(1);
        let room = self.room.clone().try_acquire_many_owned(units);
        room.map_err(|_| full("too many deliveries are on their way in"))
    }

    /// Whether GitHub signed these bytes.
    pub fn believes(&self, body: &[u8], signature: Option<&str>) -> bool {
        self.secrets.believe(body, signature)
    }

    /// Keeps a delivery. When this returns it survives a loss of power.
    pub async fn take(&self, id: &str, event: &str, body: Vec<u8>) -> Result<Taken> {
        let now = self.clock.now();
        if self.known.contains_key(id) {
            return Ok(Taken::Repeated);
        }
        let (id, event) = (id.to_owned(), event.to_owned());
        self.store
            .commit(Tx::new().delivery(Delivery { id: id.clone(), event, body, received_at: now }))
            .await?;
        let new = self.known.insert(id, now).is_none();
        if new {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.arrived.notify_one();
        }
        Ok(if new { Taken::New } else { Taken::Repeated })
    }

    /// How many wait to be worked.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) fn now_waiting(&self, count: usize) {
        self.waiting.store(count, Ordering::Relaxed);
    }

    /// Forgets the oldest. Looks at all that are remembered: not for every delivery.
    async fn forget(&self) -> Result<()> {
        let before = self.clock.now().checked_sub(REMEMBERED).unwrap_or(Timestamp::MIN);
        if !self.known.iter().any(|d| *d.value() < before) {
            return Ok(());
        }
        self.store.commit(Tx::new().forget_deliveries(before)).await?;
        self.known.retain(|_, at| *at >= before);
        Ok(())
    }

    /// Asks GitHub which deliveries failed and has those repeated that never came. GitHub repeats none by itself.
    /// What is too old to be repeated is forgotten.
    pub async fn look_for_missed(&self, app: &App) -> Result<()> {
        self.forget().await?;
        let oldest = self.clock.now().checked_sub(MISSED).unwrap_or(Timestamp::MIN);
        let failed = app.failed_deliveries().await?;
        let mut looked_at = HashSet::new();
        for delivery in failed {
            let first = looked_at.insert(delivery.guid.clone());
            if !first || delivery.delivered_at < oldest || self.known.contains_key(&delivery.guid) {
                continue;
            }
            {
                let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
                let times = asked.entry(delivery.guid.clone()).or_default();
                if *times >= ASKED_AT_MOST {
                    continue;
                }
                *times += 1;
            }
            info!(event = %delivery.event, delivery = %delivery.guid, "a delivery was missed; it is asked for again");
            app.redeliver(delivery.id).await?;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|guid, _| looked_at.contains(guid));
        Ok(())
    }
}
