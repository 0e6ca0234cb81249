//! What a session that follows another starts from.

use domain::wire::SyncMode;
use domain::{
    Branch, CommitId, Digest, Error, ImageId, ImageRecord, ImageState, RepoName, Result, SessionId,
    SnapshotId, SnapshotRecord, SnapshotState,
};

/// What to start a sandbox from, and how to bring its tree up to date.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub source: Digest,
    pub snapshot: Option<SnapshotId>,
    pub image: Option<ImageId>,
    /// HEAD of the tree in it, where it is known.
    pub commit: Option<CommitId>,
    /// The branch that the tree is on; a session from an image makes its own.
    pub branch: Option<Branch>,
    /// `Fetch` where the tree holds a user's work: nothing in it is changed. `Reset` where it is an image's.
    pub sync: SyncMode,
}

/// The newest snapshot of a session that can be restored.
pub fn latest(session: SessionId, snapshots: &[SnapshotRecord]) -> Option<&SnapshotRecord> {
    let good =
        |s: &&SnapshotRecord| s.session == session && s.state == SnapshotState::Ready && s.digest.is_some();
    snapshots.iter().filter(good).max_by_key(|s| (s.created_at, s.id))
}

/// Where a session of `repo` starts: from `snapshot` where one is asked for, else from the current image. A snapshot
/// that can't be restored is an error and never quietly an image: the user would miss their work and not know why.
///
/// `Unavailable` while the snapshot is still being taken or there is no image yet, `Gone` where it is being removed,
/// `Conflict` where its capture failed, `Invalid` where it is of another repo.
pub fn restore_choice(
    repo: &RepoName,
    snapshot: Option<&SnapshotRecord>,
    images: &[ImageRecord],
) -> Result<Start> {
    let Some(snapshot) = snapshot else {
        let current = images.iter().find(|i| i.repo == *repo && i.state == ImageState::Current);
        let image = current.ok_or_else(|| Error::unavailable(format!("{repo} has no current image yet")))?;
        return Ok(Start {
            source: image.digest.clone(),
            snapshot: None,
            image: Some(image.id),
            commit: Some(image.commit.clone()),
            branch: None,
            sync: SyncMode::Reset,
        });
    };
    let id = snapshot.id;
    if snapshot.repo != *repo {
        return Err(Error::invalid(format!("snapshot {id} is of {}, not of {repo}", snapshot.repo)));
    }
    match (snapshot.state, &snapshot.digest) {
        (SnapshotState::Ready, Some(digest)) => Ok(Start {
            source: digest.clone(),
            snapshot: Some(id),
            image: None,
            commit: snapshot.commit.clone(),
            branch: Some(snapshot.branch.clone()),
            sync: SyncMode::Fetch,
        }),
        (SnapshotState::Ready, None) => {
            Err(Error::permanent(format!("snapshot {id} is recorded as ready and has no digest")))
        }
        (SnapshotState::Capturing, _) => {
            Err(Error::unavailable(format!("snapshot {id} is still being taken")))
        }
        (SnapshotState::Failed, _) => {
            let why = snapshot.error.as_deref().unwrap_or("no reason is recorded");
            Err(Error::conflict(format!("snapshot {id} could not be taken: {why}")))
        }
        (SnapshotState::Removing, _) => Err(Error::gone(format!("snapshot {id} is being removed"))),
    }
}
