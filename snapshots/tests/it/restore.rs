//! What a session starts from.

use domain::wire::SyncMode;
use domain::{BuildId, ErrorKind, ImageId, ImageRecord, ImageState, SessionId, SnapshotState};
use snapshots::{latest, restore_choice};

use crate::make::{at, digest, repo, snapshot};

fn image(n: u64, state: ImageState) -> ImageRecord {
    ImageRecord {
        id: ImageId::from_u128(n.into()),
        repo: repo(),
        state,
        digest: digest(n),
        commit: "a".repeat(40).parse().unwrap(),
        branch: "main".parse().unwrap(),
        generation: n,
        fingerprint: String::new(),
        base_digest: digest(0),
        parent: None,
        build: BuildId::from_u128(1),
        agent_version: "1".into(),
        size: 1,
        created_at: at(0),
        verified_at: at(0),
        pinned: false,
        shipped: None,
        failures: Vec::new(),
        went_well: 0,
    }
}

/// A restored tree is only fetched into, never reset: it holds a user's work.
#[test]
fn a_snapshot_starts_from_itself() {
    let start = restore_choice(&repo(), Some(&snapshot(5, 1, SnapshotState::Ready, 1, 0)), &[]).unwrap();
    assert_eq!((start.source, start.sync, start.image), (digest(5), SyncMode::Fetch, None));
    assert_eq!(start.branch, Some("hotbed/1".parse().unwrap()));
}

/// F39: what can't be restored is said, and is never quietly an image.
#[test]
fn a_snapshot_that_is_not_there_is_an_error() {
    let images = [image(1, ImageState::Current)];
    let cases = [
        (SnapshotState::Capturing, ErrorKind::Unavailable, "still being taken"),
        (SnapshotState::Failed, ErrorKind::Conflict, "disk full"),
        (SnapshotState::Removing, ErrorKind::Gone, "being removed"),
    ];
    for (state, kind, words) in cases {
        let error = restore_choice(&repo(), Some(&snapshot(5, 1, state, 1, 0)), &images).unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains(words), "{error}");
    }
    let other = "evil/api".parse().unwrap();
    let error =
        restore_choice(&other, Some(&snapshot(5, 1, SnapshotState::Ready, 1, 0)), &images).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// F6: an image of another repo is none.
#[test]
fn without_a_snapshot_it_is_the_current_image_of_the_repo() {
    let mut foreign = image(9, ImageState::Current);
    foreign.repo = "evil/api".parse().unwrap();
    let images = [foreign, image(1, ImageState::Superseded), image(2, ImageState::Current)];
    let start = restore_choice(&repo(), None, &images).unwrap();
    assert_eq!((start.source, start.sync, start.branch), (digest(2), SyncMode::Reset, None));
    let error = restore_choice(&repo(), None, &images[..2]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[test]
fn the_latest_is_the_newest_that_is_ready() {
    let all = [
        snapshot(1, 1, SnapshotState::Ready, 0, 10),
        snapshot(2, 1, SnapshotState::Ready, 1, 20),
        snapshot(3, 1, SnapshotState::Failed, 2, 30),
        snapshot(4, 2, SnapshotState::Ready, 0, 40),
    ];
    assert_eq!(latest(SessionId::from_u128(1), &all).map(|s| s.id), Some(all[1].id));
    assert_eq!(latest(SessionId::from_u128(3), &all), None);
}
