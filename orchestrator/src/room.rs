//! One budget for everything that runs: who may begin, and who waits for a place.
//!
//! Sessions come first. One that has to start cold counts from the moment it is accepted; the next plan cuts the pools
//! by that much, idle members go, and the session starts as soon as its place is free. Only what even empty pools
//! would have no place for is refused. Everything that begins (a cold session, a member) asks here, one after the other,
//! so that what is made never exceeds the budget, whatever was planned at the same time. The rules are [`Taken`]'s.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{Budget, Error, Purpose, RepoName, RepoSpec, Resources, Result, SandboxId, SandboxState};
use pool::{Taken, Usage};

use crate::fleet::{Entry, Fleet, Prepared};
use crate::repos::Repos;

/// A place may become free by what nobody announces, such as another configuration.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub struct Room {
    fleet: Arc<Fleet>,
    repos: Arc<Repos>,
    door: Mutex<Door>,
}

#[derive(Debug, Default)]
struct Door {
    budget: Budget,
    /// Sandboxes of sessions that wait for a place.
    waiting: HashMap<SandboxId, Usage>,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Room")
    }
}

impl Room {
    pub fn new(fleet: Arc<Fleet>, repos: Arc<Repos>, budget: Budget) -> Arc<Self> {
        Arc::new(Self { fleet, repos, door: Mutex::new(Door { budget, ..Door::default() }) })
    }

    /// Another budget is in force. What runs stays; pools are cut by the next plan.
    pub fn set_budget(&self, budget: Budget) {
        self.door().budget = budget;
        self.fleet.freed.notify_waiters();
    }

    pub fn budget(&self) -> Budget {
        self.door().budget
    }

    /// What runs and what waits, for a plan. All of it is nothing where nothing is limited.
    pub fn taken(&self) -> Taken {
        let door = self.door();
        if door.unlimited() { Taken::default() } else { self.count(&door) }
    }

    /// Draws up the sandbox of a session that has to start one, and keeps its place in the queue.
    ///
    /// Errors: `Exhausted`, where even empty pools would leave no place.
    pub fn admit(&self, spec: &RepoSpec, prepare: impl FnOnce() -> Prepared) -> Result<Prepared> {
        let mut door = self.door();
        let one = Usage::one(&spec.resources);
        if !door.unlimited() && !self.count(&door).admits(&door.budget, one) {
            return Err(Error::exhausted("sessions and builds take all of the budget"));
        }
        let prepared = prepare();
        door.waiting.insert(prepared.record.id, one);
        Ok(prepared)
    }

    /// As [`Room::admit`], for a session that was admitted before and lost its sandbox.
    pub fn admit_again(&self, spec: &RepoSpec, prepare: impl FnOnce() -> Prepared) -> Prepared {
        let mut door = self.door();
        let prepared = prepare();
        door.waiting.insert(prepared.record.id, Usage::one(&spec.resources));
        prepared
    }

    /// Waits until there is a place for the sandbox of a session, or it has ended.
    pub async fn enter(&self, entry: &Arc<Entry>) {
        // A plan is to look whom it can send away.
        self.fleet.pool_poke.notify_one();
        loop {
            let mut freed = std::pin::pin!(self.fleet.freed.notified());
            freed.as_mut().enable();
            if self.try_enter(entry) {
                return;
            }
            // No news within a while is a reason to look again.
            let _ = tokio::time::timeout(LOOK_AGAIN, freed).await;
        }
    }

    fn try_enter(&self, entry: &Arc<Entry>) -> bool {
        let mut door = self.door();
        let over = matches!(entry.state(), SandboxState::Stopping | SandboxState::Gone);
        let Some(one) = door.waiting.get(&entry.id).copied() else { return true };
        let free = over || door.unlimited() || self.count(&door).starts(&door.budget, one);
        if free {
            door.waiting.remove(&entry.id);
        }
        free
    }

    /// It will never start.
    pub fn leave(&self, sandbox: SandboxId) {
        self.door().waiting.remove(&sandbox);
    }

    /// Draws up a member by `prepare` where there is a place for it now.
    pub fn make(&self, spec: &RepoSpec, prepare: impl FnOnce() -> Prepared) -> Option<Prepared> {
        let door = self.door();
        let one = Usage::one(&spec.resources);
        (door.unlimited() || self.count(&door).makes(&door.budget, one)).then(prepare)
    }

    fn count(&self, door: &Door) -> Taken {
        let sizes: HashMap<RepoName, Resources> =
            self.repos.all().iter().map(|s| (s.name.clone(), s.resources)).collect();
        let mut taken = Taken::default();
        for entry in self.fleet.entries() {
            let record = entry.record();
            // Of a repo that is no longer configured nobody knows how large its sandboxes are.
            let size = sizes.get(&record.repo).map_or(NAMELESS, Usage::one);
            let sum = match record.state {
                SandboxState::Gone => continue,
                SandboxState::Stopping => &mut taken.leaving,
                SandboxState::Creating | SandboxState::Starting | SandboxState::Warm
                    if record.purpose == Purpose::Pool =>
                {
                    &mut taken.members
                }
                _ => &mut taken.used,
            };
            *sum = sum.plus(size);
            if door.waiting.contains_key(&record.id) {
                taken.waiting = taken.waiting.plus(size);
            }
        }
        taken
    }

    fn door(&self) -> std::sync::MutexGuard<'_, Door> {
        self.door.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const NAMELESS: Usage = Usage { memory: 0, cpu_millis: 0, sandboxes: 1 };

impl Door {
    fn unlimited(&self) -> bool {
        self.budget == Budget::default()
    }
}
