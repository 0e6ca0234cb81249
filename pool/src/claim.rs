//! Whom to hand out: the order among ready members, and why there is none.
//!
//! [`rank`] is the plain statement of the rule over a list of records; [`crate::Shelf`] answers the same from an
//! index, and a property test holds the two together.

use std::cmp::Reverse;
use std::fmt;
use std::time::Duration;

use domain::{
    CommitId, ImageId, Launch, Purpose, RepoName, SandboxId, SandboxRecord, SandboxState, WarmupId,
};
use jiff::Timestamp;

use crate::life::earlier;

/// What a claim asks for.
#[derive(Debug, Clone, Copy)]
pub struct Want<'a> {
    pub repo: &'a RepoName,
    /// The images that policy allows now, the newest first; usually the current one alone (F2).
    pub allowed: &'a [ImageId],
    /// The warm-up that the claim follows: what is reserved for it comes first.
    pub warmup: Option<WarmupId>,
    /// The tip that the session wants: members whose tree is there already come first.
    pub tip: Option<&'a CommitId>,
    pub now: Timestamp,
    /// A member with less of its life left than this is not handed out (F12).
    pub min_remaining_life: Duration,
    /// The repo's `member_max_age`.
    pub member_max_age: Duration,
}

impl Want<'_> {
    /// Members created before this moment have too little life left.
    pub(crate) fn oldest_allowed(&self) -> Timestamp {
        // `created + max_age - min_remaining >= now`, solved for `created`. A minimum longer than the whole life
        // would refuse every member for ever; then a member must only be fresher than half its life.
        let usable = match self.member_max_age.checked_sub(self.min_remaining_life) {
            Some(usable) if !usable.is_zero() => usable,
            _ => self.member_max_age / 2,
        };
        earlier(self.now, usable)
    }

    pub(crate) fn image_rank(&self, image: ImageId) -> Option<usize> {
        self.allowed.iter().position(|a| *a == image)
    }
}

/// What a claim got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    pub sandbox: SandboxId,
    /// It was the one that the claim's own warm-up had reserved.
    pub reserved: bool,
}

impl Pick {
    pub fn launch(self) -> Launch {
        if self.reserved { Launch::Warmup } else { Launch::Warm }
    }
}

/// Why a claim got nothing: what kept the member that came closest. The label of `hotbed_pool_misses_total` (F8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MissReason {
    /// The repo has no image that may be handed out.
    NoImage,
    /// Good members are ready, and all of them are held for warm-ups of others.
    AllReserved,
    /// Members of the right image are ready, and their life is over or nearly so.
    AllTooOld,
    /// Members are ready, of images that are no longer allowed.
    WrongImage,
    /// None is ready, some are on their way.
    AllStarting,
    /// There are none.
    Empty,
}

impl MissReason {
    pub const ALL: [Self; 6] =
        [Self::NoImage, Self::AllReserved, Self::AllTooOld, Self::WrongImage, Self::AllStarting, Self::Empty];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoImage => "no_image",
            Self::AllReserved => "all_reserved",
            Self::AllTooOld => "all_too_old",
            Self::WrongImage => "wrong_image",
            Self::AllStarting => "all_starting",
            Self::Empty => "empty",
        }
    }
}

impl fmt::Display for MissReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The best member for `want`: reserved for its warm-up, then with the tree at the tip, then of the newest image,
/// then the oldest. Only warm pool members of the repo and of an allowed image count, never one that is reserved
/// for another.
pub fn rank<'a>(
    candidates: impl IntoIterator<Item = &'a SandboxRecord>,
    want: &Want<'_>,
) -> Result<Pick, MissReason> {
    if want.allowed.is_empty() {
        return Err(MissReason::NoImage);
    }
    let oldest_allowed = want.oldest_allowed();
    let mut best = None;
    let mut miss = MissReason::Empty;
    for member in candidates {
        if member.repo != *want.repo || member.purpose != Purpose::Pool {
            continue;
        }
        let image = member.image.and_then(|image| want.image_rank(image));
        let reserved = member.reserved.is_some() && member.reserved == want.warmup;
        let hindrance = match (member.state, image) {
            (SandboxState::Creating | SandboxState::Starting, _) => MissReason::AllStarting,
            (SandboxState::Warm, None) => MissReason::WrongImage,
            (SandboxState::Warm, Some(_)) if member.created_at < oldest_allowed => MissReason::AllTooOld,
            (SandboxState::Warm, Some(_)) if member.reserved.is_some() && !reserved => {
                MissReason::AllReserved
            }
            (SandboxState::Warm, Some(image)) => {
                let off_tip = want.tip.is_none() || member.commit.as_ref() != want.tip;
                let key = (Reverse(reserved), off_tip, image, member.created_at, member.id);
                if best.as_ref().is_none_or(|(other, _)| key < *other) {
                    best = Some((key, Pick { sandbox: member.id, reserved }));
                }
                continue;
            }
            _ => continue,
        };
        miss = miss.min(hindrance);
    }
    best.map(|(_, pick)| pick).ok_or(miss)
}
