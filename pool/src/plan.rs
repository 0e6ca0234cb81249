//! What to make and what to remove so that each repo has its sandboxes ready: pure, linear in the members, and
//! the same answer whenever it is asked about its own result.
//!
//! The rules:
//! - Rows count, not what the engine lists: a member that is being created is a member (F1).
//! - What can serve nobody goes at once: not ready in time, unhealthy, over its age, or still booting from an image
//!   that is no longer current.
//! - What is merely superseded or in the last tenth of its life is *replaced*: a successor is ready first, and the
//!   members that are ready never fall below the target. For that the pool may exceed its target by [`surge`]. Only
//!   where the budget has no room for a successor, members that are to be replaced go first.
//! - Above the target idle members are removed, those furthest from being ready first, then the oldest (F15). Where
//!   traffic made the target fall, they are kept for some minutes, because claims take most of them anyway.
//! - While a canary is tried, its share of the pool is made of it, in the places of members of the current image.
//! - What a warm-up holds is removed only when it can't serve; what is claimed is not looked at (F4).
//! - All repos share one limit of parallel starts; the repo that has the smallest part of its target comes first
//!   (F14). A repo that is paused, backing off or without an image takes nothing from the others.
//! - All repos share one budget with sessions and builds, which come first: [`crate::budget`]. Targets are cut to what
//!   will be free, and starts wait for what is free now.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::fmt;

use domain::{
    Budget, ImageId, ImageRecord, PoolOrder, PoolOrderKind, PoolPolicy, Purpose, RepoName, Resources,
    SandboxId, SandboxRecord, SandboxState,
};
use jiff::Timestamp;

use crate::budget::{Bid, Usage, holds, share};
use crate::life::{expires_at, replaced_from};
use crate::target::{Demand, Target, drained, target};

/// Everything that a plan looks at.
#[derive(Debug, Default)]
pub struct PoolInput<'a> {
    pub repos: Vec<RepoInput<'a>>,
    /// How many sandboxes may be creating or starting at once, over all repos and purposes.
    pub starting_limit: u32,
    /// How many are now, for whatever purpose, the members given here included. A cold start that takes the last
    /// place makes the refill wait (F14).
    pub starting_now: u32,
    pub budget: Budget,
    /// What everybody but the members given here takes or waits to take: sessions, builds.
    pub used: Usage,
    /// What is on its way out, and still there.
    pub leaving: Usage,
}

/// One repo as the records have it.
#[derive(Debug)]
pub struct RepoInput<'a> {
    pub repo: RepoName,
    pub spec: &'a PoolPolicy,
    /// What one member takes.
    pub size: Resources,
    pub demand: Demand<'a>,
    /// The latest order of an operator for this pool. One whose time is over counts for nothing.
    pub order: Option<&'a PoolOrder>,
    /// What new members start from.
    pub current: Option<&'a ImageRecord>,
    /// What a share of them tries first.
    pub canary: Option<Canary<'a>>,
    /// The rows of purpose `Pool` that are not gone. Rows of other repos and purposes are passed over (F6).
    pub members: Vec<&'a SandboxRecord>,
    /// Members whose agent no longer answers.
    pub unhealthy: HashSet<SandboxId>,
    /// Warm-ups that are live: each holds a member or waits for one.
    pub reserved: u32,
    /// Starting failed of late; until then nothing is made.
    pub backoff_until: Option<Timestamp>,
}

/// An image that is tried beside the current one.
#[derive(Debug, Clone, Copy)]
pub struct Canary<'a> {
    pub image: &'a ImageRecord,
    /// More than 0, less than 1.
    pub share: f64,
}

impl Canary<'_> {
    /// How many of `target` members are of it: at least one, and never all.
    pub fn members(&self, target: u32) -> u32 {
        let share = (f64::from(target) * self.share).round() as u32;
        share.max(1).min(target.saturating_sub(1))
    }
}

impl RepoInput<'_> {
    /// Whether members of this image stay: it is current, or tried. Without an image nothing is known to be better.
    fn stays(&self, image: Option<ImageId>) -> bool {
        let Some(current) = self.current else { return true };
        image == Some(current.id) || self.is_canary(image)
    }

    fn is_canary(&self, image: Option<ImageId>) -> bool {
        self.canary.is_some_and(|c| image == Some(c.image.id))
    }

    /// Nothing is made, replaced or scaled down; what can serve nobody still goes.
    fn paused(&self) -> bool {
        self.order.is_some_and(|o| o.kind == PoolOrderKind::Pause)
    }

    /// Nothing is made, and what is idle goes.
    fn drained(&self) -> bool {
        self.order.is_some_and(|o| o.kind == PoolOrderKind::Drain)
    }

    /// Whether what there is may be exchanged or given up. Without an image nothing is known to be better than what
    /// is there.
    fn may_give_up(&self) -> bool {
        self.drained() || (self.current.is_some() && !self.paused())
    }
}

/// Why a member is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RetireReason {
    SupersededImage,
    TooOld,
    AboveTarget,
    NotReadyInTime,
    Unhealthy,
}

impl RetireReason {
    pub const ALL: [Self; 5] =
        [Self::SupersededImage, Self::TooOld, Self::AboveTarget, Self::NotReadyInTime, Self::Unhealthy];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::SupersededImage => "superseded_image",
            Self::TooOld => "too_old",
            Self::AboveTarget => "above_target",
            Self::NotReadyInTime => "not_ready_in_time",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// Whether a member that a warm-up holds is kept all the same.
    pub fn spares_reserved(self) -> bool {
        !matches!(self, Self::NotReadyInTime | Self::Unhealthy)
    }
}

impl fmt::Display for RetireReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    CreateMember {
        repo: RepoName,
        image: ImageId,
    },
    /// Ask [`crate::Shelf::withdraw`] first.
    RetireMember {
        sandbox: SandboxId,
        why: RetireReason,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateMember { repo, image } => write!(f, "create a member of {repo} from {image}"),
            Self::RetireMember { sandbox, why } => write!(f, "retire {sandbox}: {why}"),
        }
    }
}

/// Unclaimed members by state, as the plan found them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Have {
    pub creating: u32,
    pub starting: u32,
    pub warm: u32,
    /// Those of the above that a warm-up holds.
    pub reserved: u32,
    /// Those of the above that are superseded, too old, late or unhealthy.
    pub stale: u32,
}

impl Have {
    pub fn total(&self) -> u32 {
        self.creating + self.starting + self.warm
    }
}

/// What to do for one repo, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct RepoPlan {
    pub repo: RepoName,
    pub target: Target,
    pub have: Have,
    pub actions: Vec<Action>,
    /// In words: what holds creation back, or that all is well.
    pub reason: String,
}

/// What to do for all repos, in the order of the input.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PoolPlan {
    pub repos: Vec<RepoPlan>,
}

impl PoolPlan {
    pub fn actions(&self) -> impl Iterator<Item = &Action> {
        self.repos.iter().flat_map(|r| &r.actions)
    }

    /// Nothing to do.
    pub fn is_settled(&self) -> bool {
        self.actions().next().is_none()
    }
}

impl fmt::Display for RepoPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Have { creating, starting, warm, reserved, stale } = self.have;
        write!(
            f,
            "{}: target {} ({}); has {warm} warm, {starting} starting, {creating} creating ({reserved} reserved, {stale} stale); {}",
            self.repo, self.target.members, self.target, self.reason
        )?;
        let creates = self.actions.iter().filter(|a| matches!(a, Action::CreateMember { .. })).count();
        if creates > 0 {
            write!(f, "; create {creates}")?;
        }
        for reason in RetireReason::ALL {
            let retires = |a: &&Action| matches!(a, Action::RetireMember { why, .. } if *why == reason);
            let count = self.actions.iter().filter(retires).count();
            if count > 0 {
                write!(f, "; retire {count} ({reason})")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for PoolPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, repo) in self.repos.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            repo.fmt(f)?;
        }
        Ok(())
    }
}

/// By how many a pool may exceed its target while members are replaced: a quarter of it, at least one; none where
/// the target is zero, because then nothing is replaced.
pub fn surge(target: u32) -> u32 {
    if target == 0 { 0 } else { target.div_ceil(4) }
}

/// What to do now. Pure: the same input gives the same plan, and the plan's own result gives an empty one.
pub fn plan(now: Timestamp, input: &PoolInput<'_>) -> PoolPlan {
    let mut stocks: Vec<Stock<'_>> = input.repos.iter().map(|repo| Stock::take(now, repo)).collect();
    let bids: Vec<Bid> = input.repos.iter().zip(&stocks).map(|(repo, stock)| stock.bid(repo)).collect();
    for (i, granted) in share(&input.budget, input.used, &bids).into_iter().enumerate() {
        // What can't be changed is shown as it is wanted.
        if input.repos[i].may_give_up() {
            stocks[i].target.members = granted.min(stocks[i].target.members);
            stocks[i].keep = granted;
        }
    }
    let there: Usage = stocks.iter().zip(&bids).map(|(s, b)| b.size.times(s.have.total())).sum();
    let mut free = Free { budget: input.budget, taken: input.used.plus(input.leaving).plus(there) };
    let mut drafts: Vec<Draft> =
        input.repos.iter().zip(stocks).map(|(repo, stock)| stock.draft(now, repo)).collect();
    let freed: u32 = drafts.iter().map(|d| d.starts_freed).sum();
    let starts = input.starting_limit.saturating_sub(input.starting_now.saturating_sub(freed));
    share_starts(starts, &mut free, &mut drafts);
    for draft in &mut drafts {
        draft.make_room(&free);
    }
    let finish = |(repo, draft): (&RepoInput<'_>, Draft)| draft.finish(now, repo);
    PoolPlan { repos: input.repos.iter().zip(drafts).map(finish).collect() }
}

/// What the budget has left at this moment, for what starts.
struct Free {
    budget: Budget,
    taken: Usage,
}

impl Free {
    fn fits(&self, size: Usage) -> bool {
        holds(&self.budget, self.taken.plus(size))
    }
}

/// A repo's members, sorted by what is to become of them.
struct Stock<'a> {
    target: Target,
    /// Members above this are one too many.
    keep: u32,
    have: Have,
    /// What can serve nobody.
    useless: Vec<(&'a SandboxRecord, RetireReason)>,
    /// Good ones that nobody holds.
    fresh: Vec<&'a SandboxRecord>,
    /// Those that are to be replaced.
    stale: Vec<(&'a SandboxRecord, RetireReason)>,
    /// Held ones stay, whatever their image: they take a place, and a successor may still be needed.
    held_fresh: Ready,
    held_stale: Ready,
    /// Members of the canary among the good ones.
    trying: u32,
}

impl<'a> Stock<'a> {
    fn take(now: Timestamp, input: &RepoInput<'a>) -> Self {
        let max_age = input.spec.member_max_age;
        let mut have = Have::default();
        let (mut useless, mut fresh, mut stale) = (Vec::new(), Vec::new(), Vec::new());
        let (mut held_fresh, mut held_stale) = (Ready::default(), Ready::default());
        let mut trying = 0;
        for member in input.members.iter().filter(|m| m.purpose == Purpose::Pool && m.repo == input.repo) {
            match member.state {
                SandboxState::Creating => have.creating += 1,
                SandboxState::Starting => have.starting += 1,
                SandboxState::Warm => have.warm += 1,
                // Handed out, or on its way out already.
                _ => continue,
            }
            let warm = member.state == SandboxState::Warm;
            let reserved = member.reserved.is_some();
            have.reserved += u32::from(reserved);
            let (why, at_once) = if input.unhealthy.contains(&member.id) {
                (RetireReason::Unhealthy, true)
            } else if !warm && now >= member.deadline {
                (RetireReason::NotReadyInTime, true)
            } else if warm && now >= expires_at(member, max_age) {
                (RetireReason::TooOld, true)
            } else if !input.stays(member.image) {
                (RetireReason::SupersededImage, !warm && !input.paused())
            } else if warm && now >= replaced_from(member, max_age) {
                (RetireReason::TooOld, false)
            } else {
                trying += u32::from(input.is_canary(member.image));
                if reserved {
                    held_fresh.add(warm)
                } else {
                    fresh.push(*member)
                }
                continue;
            };
            have.stale += 1;
            if reserved && why.spares_reserved() {
                held_stale.add(warm);
            } else if at_once {
                useless.push((*member, why));
            } else {
                stale.push((*member, why));
            }
        }
        // A held member may be seen before its warm-up is counted; one that is about to go must not count.
        let held = held_fresh.all + held_stale.all;
        let target = match input.drained() {
            true => drained(input.spec, held),
            false => target(now, input.spec, &input.demand, input.reserved.max(held), input.order),
        };
        Self { keep: target.members, target, have, useless, fresh, stale, held_fresh, held_stale, trying }
    }

    fn bid(&self, input: &RepoInput<'_>) -> Bid {
        let terms = &self.target.terms;
        let held = self.held_fresh.all + self.held_stale.all;
        let there = self.held_fresh.all + count(&self.fresh);
        let all = held + count(&self.fresh) + count(&self.stale);
        Bid {
            size: Usage::one(&input.size),
            fixed: if input.may_give_up() { held } else { all },
            warmups: terms.warmups,
            floor: terms.floor.members,
            // A repo that can't make any takes nothing from the others.
            wanted: match input.may_give_up() {
                true => terms.wanted.max(terms.kept.min(there)),
                false => terms.wanted.min(all),
            },
            there,
            count: terms.count(),
        }
    }

    /// Takes out what is above the target, and, where a canary is to have its share of a full pool, gives up as many
    /// members of the current image as if they were superseded: a successor is ready first. Answers how many members of
    /// the canary are missing.
    fn trim(&mut self, input: &RepoInput<'_>) -> u32 {
        let wanted = input.canary.map_or(0, |c| c.members(self.target.members));
        let furthest = |m: &&SandboxRecord| (m.state == SandboxState::Warm, m.created_at, m.id);
        let is_canary = |m: &&SandboxRecord| input.is_canary(m.image);
        let (mut tried, mut current): (Vec<_>, Vec<_>) = self.fresh.drain(..).partition(is_canary);
        let held = self.held_fresh.all;
        let all = held + count(&current) + count(&tried);
        let others = all - self.trying;
        // Of the canary what is beyond its share goes first.
        let beyond = self.trying.saturating_sub(wanted).min(all.saturating_sub(self.keep));
        let mut above = take_least(&mut tried, beyond, furthest);
        self.trying -= count(&above);
        // What is held of it beyond its share takes places like any other.
        let share = self.trying.max(wanted);
        let places = self.keep.saturating_sub(share - wanted);
        let too_many = take_least(&mut current, others.saturating_sub(places), furthest);
        let others = others - count(&too_many);
        above.extend(too_many);
        // What gives it room.
        let surplus = others.saturating_sub(self.keep.saturating_sub(share)).min(wanted);
        let (mut ready, booting): (Vec<_>, Vec<_>) =
            current.into_iter().partition(|m| m.state == SandboxState::Warm);
        for member in take_least(&mut ready, surplus, |m| (m.created_at, m.id)) {
            self.have.stale += 1;
            self.stale.push((member, RetireReason::SupersededImage));
        }
        let mut current = booting;
        current.extend(ready);
        // What is too many with it, where not enough could give it room.
        let mut surplus = (held + count(&current) + count(&tried)).saturating_sub(self.keep);
        for kind in [&mut current, &mut tried] {
            let taken = take_least(kind, surplus, furthest);
            surplus -= count(&taken);
            self.trying -= count(taken.iter().filter(|m| input.is_canary(m.image)));
            above.extend(taken);
        }
        self.useless.extend(above.into_iter().map(|m| (m, RetireReason::AboveTarget)));
        self.fresh = current;
        self.fresh.extend(tried);
        wanted.saturating_sub(self.trying)
    }

    fn draft(mut self, now: Timestamp, input: &RepoInput<'_>) -> Draft {
        let try_more = if input.may_give_up() { self.trim(input) } else { 0 };
        let target = self.target;
        let mut retire = self.useless;
        if input.may_give_up() {
            let warm = |m: &SandboxRecord| m.state == SandboxState::Warm;
            let ready = self.held_fresh.warm
                + self.held_stale.warm
                + count(self.fresh.iter().filter(|m| warm(m)))
                + count(self.stale.iter().filter(|(m, _)| warm(m)));
            let replaceable = ready.saturating_sub(target.members);
            retire.extend(take_least(&mut self.stale, replaceable, |(m, _)| (m.created_at, m.id)));
        }
        let fresh = self.held_fresh.all + count(&self.fresh);
        let total = fresh + self.held_stale.all + count(&self.stale);
        let room = (target.members + surge(target.members)).saturating_sub(total);
        let booting = self.held_fresh.all - self.held_fresh.warm
            + count(self.fresh.iter().filter(|m| m.state != SandboxState::Warm));
        let held_back = hindrance(now, input);
        let wanted = if held_back.is_some() { 0 } else { target.members.saturating_sub(fresh).min(room) };
        Draft {
            size: Usage::one(&input.size),
            have: self.have,
            starts_freed: count(retire.iter().filter(|(m, _)| m.state != SandboxState::Warm)),
            retire: retire.into_iter().map(|(m, why)| (m.id, why)).collect(),
            replaceable: self.stale.into_iter().map(|(m, why)| (m.created_at, m.id, why)).collect(),
            moving: count(input.members.iter().filter(|m| m.state == SandboxState::Stopping)) + booting,
            fresh,
            wanted,
            try_more,
            granted: 0,
            crowded: false,
            held_back,
            target,
        }
    }
}

/// A repo's plan before the limits that all share.
struct Draft {
    target: Target,
    size: Usage,
    have: Have,
    retire: Vec<(SandboxId, RetireReason)>,
    /// What is to be replaced and stays for now.
    replaceable: Vec<(Timestamp, SandboxId, RetireReason)>,
    /// Members that are on their way, in or out.
    moving: u32,
    /// Starts that end because their member is retired.
    starts_freed: u32,
    /// Good members that stay.
    fresh: u32,
    /// Members that are missing and may be made.
    wanted: u32,
    /// The first so many of them are of the canary.
    try_more: u32,
    granted: u32,
    /// The budget had no room for one that was wanted.
    crowded: bool,
    /// What keeps it from making any, other than what all share.
    held_back: Option<String>,
}

/// What keeps a repo from making members at all.
fn hindrance(now: Timestamp, input: &RepoInput<'_>) -> Option<String> {
    if input.paused() {
        return Some("paused".into());
    }
    if input.drained() {
        return Some("drained".into());
    }
    if input.current.is_none() {
        return Some("no current image".into());
    }
    input.backoff_until.filter(|until| now < *until).map(|until| format!("backing off until {until}"))
}

/// Gives out the shared starts one by one, each to the repo that then has the smallest part of its target.
fn share_starts(mut starts: u32, free: &mut Free, drafts: &mut [Draft]) {
    let part = |d: &Draft| u64::from(d.fresh + d.granted) * 1_000_000 / u64::from(d.target.members.max(1));
    let mut queue: BinaryHeap<_> =
        drafts.iter().enumerate().filter(|(_, d)| d.wanted > 0).map(|(i, d)| Reverse((part(d), i))).collect();
    while starts > 0
        && let Some(Reverse((_, i))) = queue.pop()
    {
        let draft = &mut drafts[i];
        if !free.fits(draft.size) {
            // Smaller ones of others may fit.
            draft.crowded = true;
            continue;
        }
        free.taken = free.taken.plus(draft.size);
        starts -= 1;
        draft.granted += 1;
        if draft.granted < draft.wanted {
            queue.push(Reverse((part(draft), i)));
        }
    }
}

impl Draft {
    /// The budget is full of members that wait for their successors: as many as may be replaced at once go first.
    fn make_room(&mut self, free: &Free) {
        let at_rest = self.granted == 0 && self.retire.is_empty() && self.moving == 0;
        if self.wanted == 0 || !at_rest || free.fits(self.size) {
            return;
        }
        let n = self.wanted.min(surge(self.target.members));
        let oldest = take_least(&mut self.replaceable, n, |(created, id, _)| (*created, *id));
        self.retire.extend(oldest.into_iter().map(|(_, id, why)| (id, why)));
    }

    fn finish(self, now: Timestamp, input: &RepoInput<'_>) -> RepoPlan {
        let retires = self.retire.into_iter().map(|(sandbox, why)| Action::RetireMember { sandbox, why });
        let mut actions: Vec<_> = retires.collect();
        if let Some(current) = input.current {
            let canary = input.canary.map(|c| c.image.id);
            let tried = self.try_more.min(self.granted);
            let images = std::iter::repeat_n(canary.unwrap_or(current.id), tried as usize);
            let images = images.chain(std::iter::repeat_n(current.id, (self.granted - tried) as usize));
            actions.extend(images.map(|image| Action::CreateMember { repo: input.repo.clone(), image }));
        }
        let missing = self.target.members.saturating_sub(self.fresh + self.granted);
        let reason = match &self.held_back {
            Some(why) => why.clone(),
            None if missing == 0 => "all there or on its way".into(),
            None if self.crowded => format!("{missing} missing, waiting for room in the budget"),
            None if self.granted < self.wanted => {
                format!("{missing} missing, the limit of parallel starts is reached")
            }
            None => format!("{missing} missing, waiting for the places of older members"),
        };
        debug_assert!(self.granted == 0 || hindrance(now, input).is_none());
        RepoPlan { repo: input.repo.clone(), target: self.target, have: self.have, actions, reason }
    }
}

/// Counts of members that stay whatever happens.
#[derive(Default)]
struct Ready {
    all: u32,
    warm: u32,
}

impl Ready {
    fn add(&mut self, warm: bool) {
        self.all += 1;
        self.warm += u32::from(warm);
    }
}

fn count<T>(items: impl IntoIterator<Item = T>) -> u32 {
    u32::try_from(items.into_iter().count()).unwrap_or(u32::MAX)
}

/// Removes and returns the `n` least items; linear, because a pool of ten thousand is planned every few seconds.
fn take_least<T, K: Ord>(items: &mut Vec<T>, n: u32, key: impl Fn(&T) -> K) -> Vec<T> {
    let n = (n as usize).min(items.len());
    if n > 0 && n < items.len() {
        items.select_nth_unstable_by_key(n - 1, |item| key(item));
    }
    let mut least: Vec<_> = items.drain(..n).collect();
    least.sort_unstable_by_key(key);
    least
}
