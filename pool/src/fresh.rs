//! Which idle members are brought to the tip of their branch, and in which order.

use domain::{CommitId, ImageId, Purpose, SandboxId, SandboxRecord, SandboxState};

/// The members whose tree is not at `tip`, in the order in which they would be handed out: a claim in the middle of
/// it finds what is done already. Those of an image that is not among `images` are left alone, because they are about to be replaced; those
/// that a warm-up holds are at the branch that its client wants.
pub fn behind<'a>(
    tip: &CommitId,
    images: &[ImageId],
    members: impl IntoIterator<Item = &'a SandboxRecord>,
) -> Vec<SandboxId> {
    let stale = |m: &&SandboxRecord| {
        m.purpose == Purpose::Pool
            && m.state == SandboxState::Warm
            && m.reserved.is_none()
            && (images.is_empty() || m.image.is_some_and(|i| images.contains(&i)))
            && m.commit.as_ref() != Some(tip)
    };
    let mut stale: Vec<_> = members.into_iter().filter(stale).collect();
    stale.sort_by_key(|m| (m.created_at, m.id));
    stale.into_iter().map(|m| m.id).collect()
}
