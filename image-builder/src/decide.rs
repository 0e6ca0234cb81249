//! Whether to build, and from what.

use std::fmt;

use domain::{CommitId, ImageId, ImageRecord, RepoSpec};
use jiff::Timestamp;

/// Each build on the current image adds a layer and what the last one left lying about. With every so many
/// generations a repo's image is made from its base again, whatever else is the case.
pub const MAX_CHAIN: u64 = 32;
/// So many failures in a row may be the fault of the tree that the build stands on.
const FAILURES_BEFORE_FULL: u32 = 2;

/// What a build is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The current image is what a build would make; it is only marked as verified.
    Unchanged,
    /// From the base: clone and `setup`.
    Full { why: FullReason },
    /// From the current image: sync and `update`.
    Incremental { from: ImageId },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FullReason {
    NoImage,
    /// The recipe, the base, the certificates or another thing that images are made of (F26).
    FingerprintChanged,
    /// The image is older than `max_age`.
    TooOld,
    /// Builds on the current image failed, perhaps because of it.
    BuildsFailed,
    /// [`MAX_CHAIN`] generations.
    ChainTooLong,
}

impl FullReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoImage => "there is no image",
            Self::FingerprintChanged => "the recipe, the base, a secret or the certificates changed",
            Self::TooOld => "the image is older than max_age",
            Self::BuildsFailed => "builds on the current image failed",
            Self::ChainTooLong => "the image stands on many others",
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unchanged => f.write_str("nothing changed"),
            Self::Full { why } => write!(f, "a full build: {}", why.as_str()),
            Self::Incremental { from } => write!(f, "a build on {from}: the branch moved"),
        }
    }
}

/// What to do about a repo whose branch is at `tip` and whose inputs have `fingerprint`. `failures` counts the
/// builds that failed in a row.
pub fn decide(
    now: Timestamp,
    spec: &RepoSpec,
    tip: &CommitId,
    fingerprint: &str,
    current: Option<&ImageRecord>,
    failures: u32,
) -> Decision {
    let full = |why| Decision::Full { why };
    let Some(current) = current else { return full(FullReason::NoImage) };
    if current.fingerprint != fingerprint || current.branch != spec.branch {
        return full(FullReason::FingerprintChanged);
    }
    if is_too_old(now, spec, current) {
        return full(FullReason::TooOld);
    }
    if current.commit == *tip {
        return Decision::Unchanged;
    }
    if failures >= FAILURES_BEFORE_FULL {
        return full(FullReason::BuildsFailed);
    }
    if (current.generation + 1).is_multiple_of(MAX_CHAIN) {
        return full(FullReason::ChainTooLong);
    }
    Decision::Incremental { from: current.id }
}

/// Whether an image is built anew even if nothing changed.
pub fn is_too_old(now: Timestamp, spec: &RepoSpec, image: &ImageRecord) -> bool {
    // An image from the future has no age: the clock went back.
    now > image.created_at && now.duration_since(image.created_at).unsigned_abs() >= spec.image.max_age
}
