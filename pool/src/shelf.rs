//! The warm members of all repos, in memory, ready to be claimed in a few lookups under a short lock.
//!
//! Promises: the same choice as [`crate::rank`] makes over the same records; a member leaves the shelf once, either
//! to a claim or to a retirement, and no stale record puts it back (F4, F35); what is reserved stays reserved; a
//! repo sees its own members only (F6).
//! Left to others: the durable transaction that follows a claim. Where it fails, [`Shelf::put_back`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use domain::{CommitId, ImageId, Purpose, RepoName, SandboxId, SandboxRecord, SandboxState, WarmupId};
use jiff::Timestamp;

use crate::claim::{MissReason, Pick, Want};
use crate::plan::RetireReason;

/// Members of one repo, by what the shelf knows of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready and free.
    pub free: usize,
    /// Ready and held for a warm-up.
    pub reserved: usize,
    /// On their way.
    pub starting: usize,
}

/// See the file's own words.
#[derive(Debug, Default)]
pub struct Shelf(Mutex<Inner>);

/// Oldest first.
type Key = (Timestamp, SandboxId);

#[derive(Debug, Default)]
struct Inner {
    members: HashMap<SandboxId, Member>,
    repos: HashMap<RepoName, Repo>,
    held: HashMap<WarmupId, Vec<SandboxId>>,
}

#[derive(Debug)]
struct Member {
    repo: RepoName,
    image: Option<ImageId>,
    commit: Option<CommitId>,
    created_at: Timestamp,
    place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Starting,
    Free,
    Reserved(WarmupId),
    /// Gone to a claim; it stays known so that a record read before the claim can't bring it back.
    Claimed,
    /// Gone to a retirement.
    Withdrawn,
}

#[derive(Debug, Default)]
struct Repo {
    free: BTreeMap<Option<ImageId>, BTreeSet<Key>>,
    /// The free ones again, by where their tree is.
    free_at: HashMap<(Option<ImageId>, CommitId), BTreeSet<Key>>,
    reserved: BTreeMap<Option<ImageId>, BTreeSet<Key>>,
    starting: usize,
}

impl Shelf {
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a pool member known: on its way while it is creating or starting, claimable once it is warm, held
    /// where its record says that it is reserved. Says whether it can be claimed from now on and could not before.
    /// A member that is on the shelf already, or that has left it, stays as it is.
    pub fn insert(&self, record: &SandboxRecord) -> bool {
        self.lock().insert(record)
    }

    /// Undoes a claim or a withdrawal whose commit is known to have failed. `record` is the row as it stands; if
    /// it is no longer warm nothing is put back.
    pub fn put_back(&self, record: &SandboxRecord) -> bool {
        let mut inner = self.lock();
        if inner.members.get(&record.id).is_some_and(|m| matches!(m.place, Place::Claimed | Place::Withdrawn))
        {
            inner.members.remove(&record.id);
        }
        inner.insert(record)
    }

    /// Drops everything about a sandbox, whatever it was doing: the engine no longer has it.
    pub fn forget(&self, id: SandboxId) {
        let mut inner = self.lock();
        inner.move_to(id, Place::Withdrawn);
        inner.members.remove(&id);
    }

    /// Takes the best member for `want` off the shelf; nobody else gets it.
    pub fn claim(&self, want: &Want<'_>) -> Result<Pick, MissReason> {
        let mut inner = self.lock();
        let pick = inner.find(want)?;
        inner.move_to(pick.sandbox, Place::Claimed);
        Ok(pick)
    }

    /// Holds the best free member for `warmup`; asked again, it answers the same member while that one is still
    /// good for `want`. Let `want.min_remaining_life` cover the warm-up's own time to live.
    pub fn reserve(&self, warmup: WarmupId, want: &Want<'_>) -> Result<SandboxId, MissReason> {
        let mut inner = self.lock();
        let pick = inner.find(&Want { warmup: Some(warmup), ..*want })?;
        if !pick.reserved {
            // One member for one warm-up: what it held and can no longer use is free for others.
            inner.release(warmup, Some(want.repo));
            inner.move_to(pick.sandbox, Place::Reserved(warmup));
        }
        Ok(pick.sandbox)
    }

    /// Frees what is held for a warm-up that has ended; answers what it was.
    pub fn release(&self, warmup: WarmupId) -> Vec<SandboxId> {
        self.lock().release(warmup, None)
    }

    /// Frees one member, where it is held for this warm-up.
    pub fn release_member(&self, id: SandboxId, warmup: WarmupId) -> bool {
        let mut inner = self.lock();
        let held = inner.members.get(&id).is_some_and(|m| m.place == Place::Reserved(warmup));
        if held {
            inner.move_to(id, Place::Free);
        }
        held
    }

    /// Asks for a member before it is retired. True: no claim can get it any more, retire it. False: it was
    /// claimed, or reserved since the plan was made; leave it (F4). Asked again for the same it is true again.
    pub fn withdraw(&self, id: SandboxId, why: RetireReason) -> bool {
        let mut inner = self.lock();
        match inner.members.get(&id).map(|m| m.place) {
            Some(Place::Claimed) => false,
            Some(Place::Reserved(_)) if why.spares_reserved() => false,
            _ => {
                inner.move_to(id, Place::Withdrawn);
                true
            }
        }
    }

    /// The tree of an idle member has been brought to `commit`. False where it is no longer ready and unclaimed.
    pub fn set_commit(&self, id: SandboxId, commit: CommitId) -> bool {
        let mut inner = self.lock();
        let Some(place) = inner.members.get(&id).map(|m| m.place) else { return false };
        if !matches!(place, Place::Free | Place::Reserved(_)) {
            return false;
        }
        inner.unlink(id);
        if let Some(member) = inner.members.get_mut(&id) {
            member.commit = Some(commit);
        }
        inner.link(id);
        true
    }

    pub fn counts(&self, repo: &RepoName) -> Counts {
        let inner = self.lock();
        let Some(repo) = inner.repos.get(repo) else { return Counts::default() };
        Counts {
            free: repo.free.values().map(BTreeSet::len).sum(),
            reserved: repo.reserved.values().map(BTreeSet::len).sum(),
            starting: repo.starting,
        }
    }

    /// The lock is held for lookups only; nothing in here calls out, so a panic can't leave it half changed in a
    /// way that matters more than going on does.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn insert(&mut self, record: &SandboxRecord) -> bool {
        if record.purpose != Purpose::Pool {
            return false;
        }
        let place = match (record.state, record.reserved) {
            (SandboxState::Creating | SandboxState::Starting, _) => Place::Starting,
            (SandboxState::Warm, None) => Place::Free,
            (SandboxState::Warm, Some(warmup)) => Place::Reserved(warmup),
            _ => return false,
        };
        match self.members.get(&record.id).map(|m| m.place) {
            None => {}
            // It has become ready.
            Some(Place::Starting) if place != Place::Starting => self.unlink(record.id),
            Some(_) => return false,
        }
        let member = Member {
            repo: record.repo.clone(),
            image: record.image,
            commit: record.commit.clone(),
            created_at: record.created_at,
            place,
        };
        self.members.insert(record.id, member);
        self.link(record.id);
        place != Place::Starting
    }

    fn find(&self, want: &Want<'_>) -> Result<Pick, MissReason> {
        if want.allowed.is_empty() {
            return Err(MissReason::NoImage);
        }
        if let Some(sandbox) = self.find_held(want) {
            return Ok(Pick { sandbox, reserved: true });
        }
        let Some(repo) = self.repos.get(want.repo) else { return Err(MissReason::Empty) };
        let from = (want.oldest_allowed(), SandboxId::from_u128(0));
        let oldest = |set: &BTreeSet<Key>| set.range(from..).next().map(|(_, id)| *id);
        let free = Pick { sandbox: from.1, reserved: false };
        if let Some(tip) = want.tip {
            for image in want.allowed {
                if let Some(id) = repo.free_at.get(&(Some(*image), tip.clone())).and_then(oldest) {
                    return Ok(Pick { sandbox: id, ..free });
                }
            }
        }
        for image in want.allowed {
            if let Some(id) = repo.free.get(&Some(*image)).and_then(oldest) {
                return Ok(Pick { sandbox: id, ..free });
            }
        }
        Err(repo.miss(want, from))
    }

    fn find_held(&self, want: &Want<'_>) -> Option<SandboxId> {
        let held = self.held.get(&want.warmup?)?;
        let oldest_allowed = want.oldest_allowed();
        held.iter()
            .filter_map(|id| {
                let member = self.members.get(id)?;
                let image = want.image_rank(member.image?)?;
                let good = member.repo == *want.repo && member.created_at >= oldest_allowed;
                let off_tip = want.tip.is_none() || member.commit.as_ref() != want.tip;
                good.then_some((off_tip, image, member.created_at, *id))
            })
            .min()
            .map(|(.., id)| id)
    }

    fn release(&mut self, warmup: WarmupId, repo: Option<&RepoName>) -> Vec<SandboxId> {
        let of_repo =
            |id: &SandboxId| repo.is_none_or(|r| self.members.get(id).is_some_and(|m| m.repo == *r));
        let held: Vec<_> = self.held.get(&warmup).into_iter().flatten().copied().filter(of_repo).collect();
        for id in &held {
            self.move_to(*id, Place::Free);
        }
        held
    }

    fn move_to(&mut self, id: SandboxId, place: Place) {
        self.unlink(id);
        if let Some(member) = self.members.get_mut(&id) {
            member.place = place;
        }
        self.link(id);
    }

    /// Enters a member into the indexes of its place.
    fn link(&mut self, id: SandboxId) {
        let Some(member) = self.members.get(&id) else { return };
        let repo = self.repos.entry(member.repo.clone()).or_default();
        let key = (member.created_at, id);
        match member.place {
            Place::Starting => repo.starting += 1,
            Place::Free => {
                repo.free.entry(member.image).or_default().insert(key);
                if let Some(commit) = &member.commit {
                    repo.free_at.entry((member.image, commit.clone())).or_default().insert(key);
                }
            }
            Place::Reserved(warmup) => {
                repo.reserved.entry(member.image).or_default().insert(key);
                self.held.entry(warmup).or_default().push(id);
            }
            Place::Claimed | Place::Withdrawn => {}
        }
    }

    /// Takes a member out of the indexes of its place, and leaves no empty index behind.
    fn unlink(&mut self, id: SandboxId) {
        let Some(member) = self.members.get(&id) else { return };
        let Some(repo) = self.repos.get_mut(&member.repo) else { return };
        let key = (member.created_at, id);
        let take = |sets: &mut BTreeMap<Option<ImageId>, BTreeSet<Key>>| {
            if let Some(set) = sets.get_mut(&member.image) {
                set.remove(&key);
                if set.is_empty() {
                    sets.remove(&member.image);
                }
            }
        };
        match member.place {
            Place::Starting => repo.starting = repo.starting.saturating_sub(1),
            Place::Free => {
                take(&mut repo.free);
                if let Some(commit) = &member.commit {
                    let at = (member.image, commit.clone());
                    if let Some(set) = repo.free_at.get_mut(&at) {
                        set.remove(&key);
                        if set.is_empty() {
                            repo.free_at.remove(&at);
                        }
                    }
                }
            }
            Place::Reserved(warmup) => {
                take(&mut repo.reserved);
                if let Some(held) = self.held.get_mut(&warmup) {
                    held.retain(|other| *other != id);
                    if held.is_empty() {
                        self.held.remove(&warmup);
                    }
                }
            }
            Place::Claimed | Place::Withdrawn => {}
        }
    }
}

impl Repo {
    /// Why nothing was found, in the order that [`crate::rank`] gives to reasons.
    fn miss(&self, want: &Want<'_>, from: Key) -> MissReason {
        let allowed = |image: &Option<ImageId>| image.is_some_and(|i| want.image_rank(i).is_some());
        let mut reserved = self.reserved.iter().filter(|(image, _)| allowed(image));
        if reserved.any(|(_, set)| set.range(from..).next().is_some()) {
            return MissReason::AllReserved;
        }
        if self.free.keys().chain(self.reserved.keys()).any(allowed) {
            return MissReason::AllTooOld;
        }
        if !self.free.is_empty() || !self.reserved.is_empty() {
            return MissReason::WrongImage;
        }
        if self.starting > 0 { MissReason::AllStarting } else { MissReason::Empty }
    }
}
