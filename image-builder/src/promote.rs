//! What becomes of images: promotion, roll-back, retention. All pure; the caller writes the records it gets back in
//! one transaction.

use std::cmp::Reverse;
use std::collections::HashSet;

use domain::{BuildId, Digest, Error, ImageId, ImageRecord, ImageState, RepoSpec, Result};
use jiff::Timestamp;

use crate::job::Built;

/// The records to write when a checked image becomes current: the ones it takes over from, and itself. `images` are
/// all of the repo, so that its generation is one more than any before it, whatever is current (F24). Empty where it
/// has been promoted already. While an operator keeps the current image in place with a pin, the new one only waits;
/// and where a share of the sandboxes is to try it first, it takes the place of the canary that there was.
pub fn promote(
    now: Timestamp,
    built: &Built,
    build: BuildId,
    spec: &RepoSpec,
    images: &[ImageRecord],
) -> Vec<ImageRecord> {
    let of_repo = || images.iter().filter(|i| i.repo == spec.name);
    if of_repo()
        .any(|i| i.id == built.image && !matches!(i.state, ImageState::Candidate | ImageState::Rejected))
    {
        return Vec::new();
    }
    let current = of_repo().find(|i| i.state == ImageState::Current);
    let state = match current {
        Some(current) if current.pinned => ImageState::Superseded,
        Some(_) if spec.rollout.canary.is_some() => ImageState::Canary,
        _ => ImageState::Current,
    };
    let new = ImageRecord {
        id: built.image,
        repo: spec.name.clone(),
        state,
        digest: built.captured.digest.clone(),
        commit: built.commit.clone(),
        branch: spec.branch.clone(),
        generation: of_repo().map(|i| i.generation).max().unwrap_or(0) + 1,
        fingerprint: built.fingerprint.clone(),
        base_digest: built.base_digest.clone(),
        parent: built.parent,
        build,
        agent_version: built.agent_version.clone(),
        size: built.captured.size,
        created_at: now,
        verified_at: now,
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    };
    let mut records = superseded(images, &new);
    records.push(new);
    records
}

/// The record to write when an operator pins an image or takes its pin away; none where it is so already.
/// `NotFound`, or `Conflict` for an image that can't be kept.
pub fn pin(id: ImageId, pinned: bool, images: &[ImageRecord]) -> Result<Vec<ImageRecord>> {
    let image =
        images.iter().find(|i| i.id == id).ok_or_else(|| Error::not_found(format!("no image {id}")))?;
    if !matches!(image.state, ImageState::Current | ImageState::Superseded) {
        return Err(Error::conflict(format!("image {id} is {:?}: there is nothing to keep", image.state)));
    }
    if image.pinned == pinned {
        return Ok(Vec::new());
    }
    Ok(vec![ImageRecord { pinned, ..image.clone() }])
}

/// What a roll-back goes to: the newest good image that is older than the current one.
pub fn before_current(images: &[ImageRecord]) -> Option<&ImageRecord> {
    let current = images.iter().find(|i| i.state == ImageState::Current)?;
    let older = |i: &&ImageRecord| i.state == ImageState::Superseded && i.generation < current.generation;
    images.iter().filter(older).max_by_key(|i| i.generation)
}

/// The records to write when an operator makes an older image current again. Generations stay as they are: this is
/// the one way that the current image's goes down (F24). `NotFound`, or `Conflict` where it can't be current.
pub fn roll_back(to: ImageId, images: &[ImageRecord]) -> Result<Vec<ImageRecord>> {
    let image =
        images.iter().find(|i| i.id == to).ok_or_else(|| Error::not_found(format!("no image {to}")))?;
    match image.state {
        ImageState::Current => Ok(Vec::new()),
        ImageState::Superseded | ImageState::Canary | ImageState::Demoted => {
            // What it failed in before is an operator's to judge.
            let new = ImageRecord { state: ImageState::Current, failures: Vec::new(), ..image.clone() };
            let mut records = superseded(images, &new);
            records.push(new);
            Ok(records)
        }
        state => Err(Error::conflict(format!(
            "image {to} is {state:?}: it never passed its check, or is being removed"
        ))),
    }
}

/// What steps down for an image in its new state: a current one for a current one, a canary for either.
pub(crate) fn superseded(images: &[ImageRecord], by: &ImageRecord) -> Vec<ImageRecord> {
    let steps_down = |state| match by.state {
        ImageState::Current => matches!(state, ImageState::Current | ImageState::Canary),
        ImageState::Canary => state == ImageState::Canary,
        _ => false,
    };
    let others = images.iter().filter(|i| i.repo == by.repo && i.id != by.id && steps_down(i.state));
    others.map(|i| ImageRecord { state: ImageState::Superseded, ..i.clone() }).collect()
}

/// The record to write when the tick found nothing changed.
pub fn verified(now: Timestamp, current: &ImageRecord) -> ImageRecord {
    ImageRecord { verified_at: now.max(current.verified_at), ..current.clone() }
}

/// Which images of one repo to remove: all but the current one and the newest up to `keep` in all, and those that
/// were rejected, demoted or never checked. Never a pinned one or a canary, and never one whose digest is in use: give the sources of all live sandboxes, and what
/// a running build has captured or stands on. Never one whose digest a kept image has too. And not yet the one with the
/// highest generation, whatever it is: the next promotion counts from its row (F24).
pub fn collect(images: &[ImageRecord], keep: u32, in_use: &HashSet<Digest>) -> Vec<ImageId> {
    let mut good: Vec<_> =
        images.iter().filter(|i| matches!(i.state, ImageState::Current | ImageState::Superseded)).collect();
    good.sort_by_key(|i| (i.state != ImageState::Current, Reverse(i.generation)));
    let current = good.iter().filter(|i| i.state == ImageState::Current).count();
    let kept: HashSet<&Digest> =
        good.iter().take(current.max(keep.max(1) as usize)).map(|i| &i.digest).collect();
    let highest = images.iter().map(|i| i.generation).max();
    let may_go = |i: &&ImageRecord| {
        !matches!(i.state, ImageState::Removing | ImageState::Canary)
            && !i.pinned
            && Some(i.generation) != highest
            && !kept.contains(&i.digest)
            && !in_use.contains(&i.digest)
    };
    images.iter().filter(may_go).map(|i| i.id).collect()
}
