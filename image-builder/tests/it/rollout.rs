//! Canaries, and demotion by what happens in sessions (F22).

use std::time::Duration;

use domain::{
    CanaryPolicy, ImageFailure, ImageId, ImageRecord, ImageState, RolloutPolicy, SandboxId, SessionId,
};
use image_builder::{
    Blame, FAILURE_WINDOW, Trial, began_well, blame, failure_of, pass, roll_back, trial, tries_canary,
    was_demoted,
};
use proptest::prelude::*;

use crate::make::{at, commit, image};

const POLICY: RolloutPolicy = RolloutPolicy { canary: Some(CANARY), demote_after: 3 };
const CANARY: CanaryPolicy = CanaryPolicy { share: 0.2, sessions: 2, longest: Duration::from_secs(1200) };

fn failure(n: u128, seconds: i64) -> ImageFailure {
    failure_of(
        at(seconds),
        SandboxId::from_u128(n),
        Some(SessionId::from_u128(n)),
        "its services did not come up",
    )
}

fn id(n: u128) -> ImageId {
    ImageId::from_u128(n)
}

fn write(images: &mut Vec<ImageRecord>, records: Vec<ImageRecord>) {
    for r in records {
        images.retain(|i| i.id != r.id);
        images.push(r);
    }
}

fn state(images: &[ImageRecord], n: u128) -> ImageState {
    images.iter().find(|i| i.id == id(n)).unwrap().state
}

/// Blames image `n` for each of these failures, and writes what follows.
fn fail(images: &mut Vec<ImageRecord>, n: u128, failures: impl IntoIterator<Item = ImageFailure>) -> Blame {
    let mut last = Blame::NotCounted;
    for failure in failures {
        let (rows, blamed) = blame(id(n), failure, &POLICY, images);
        write(images, rows);
        last = blamed;
    }
    last
}

/// The first two were current, the third is.
fn three() -> Vec<ImageRecord> {
    let superseded = ImageState::Superseded;
    vec![image(1, 1, superseded), image(2, 2, superseded), image(3, 3, ImageState::Current)]
}

/// F22: one transient failure demotes nothing, however often it is heard of; several distinct ones do.
#[test]
fn f22_several_distinct_failures_demote() {
    let mut images = three();
    let once = fail(&mut images, 3, [failure(1, 0), failure(1, 10), failure(1, 20)]);
    assert_eq!(once, Blame::NotCounted, "the same sandbox");
    let other = ImageFailure { sandbox: SandboxId::from_u128(99), ..failure(1, 30) };
    assert_eq!(fail(&mut images, 3, [other]), Blame::NotCounted, "the same session in another sandbox");
    assert_eq!(fail(&mut images, 3, [failure(2, 40)]), Blame::Counted { failures: 2 });
    assert_eq!(state(&images, 3), ImageState::Current);
    let demoted = fail(&mut images, 3, [failure(3, 50)]);
    assert_eq!(demoted, Blame::Demoted { to: id(2), failures: 3 });
    assert_eq!((state(&images, 3), state(&images, 2)), (ImageState::Demoted, ImageState::Current));
    // What still runs of it changes nothing more.
    assert_eq!(fail(&mut images, 3, [failure(4, 60)]), Blame::NotCounted);
}

#[test]
fn failures_that_lie_far_apart_are_not_of_one_cause() {
    let mut images = three();
    let apart = FAILURE_WINDOW.as_secs() as i64 + 1;
    let last = fail(&mut images, 3, (0..9).map(|n| failure(n, n as i64 * apart)));
    assert_eq!(last, Blame::Counted { failures: 1 });
    let never = RolloutPolicy { demote_after: 0, ..POLICY };
    for n in 20..40 {
        let (rows, blamed) = blame(id(3), failure(n, 0), &never, &images);
        assert!(matches!(blamed, Blame::Counted { .. }));
        write(&mut images, rows);
    }
    assert!(images.iter().all(|i| i.failures.len() <= 32));
}

/// Where the image before it fails as well, the cause is somewhere else: it stays, and what was demoted is an
/// operator's to promote, who then begins to count anew.
#[test]
fn one_demotion_an_hour() {
    let mut images = three();
    fail(&mut images, 3, (0..3).map(|n| failure(n, 0)));
    let stays = fail(&mut images, 2, (10..13).map(|n| failure(n, 60)));
    assert!(matches!(stays, Blame::Stays { failures: 3, .. }), "{stays:?}");
    assert_eq!(state(&images, 2), ImageState::Current);
    let rows = roll_back(id(3), &images).unwrap();
    write(&mut images, rows);
    assert_eq!((state(&images, 3), state(&images, 2)), (ImageState::Current, ImageState::Superseded));
    assert_eq!(fail(&mut images, 3, [failure(20, 70)]), Blame::Counted { failures: 1 });
}

/// A bad image is better than none, and an operator's pin is an operator's word.
#[test]
fn what_stays_although_it_fails() {
    let mut only = vec![image(1, 1, ImageState::Current)];
    assert!(matches!(fail(&mut only, 1, (0..3).map(|n| failure(n, 0))), Blame::Stays { .. }));
    let mut pinned = three();
    pinned[2].pinned = true;
    assert!(matches!(fail(&mut pinned, 3, (0..3).map(|n| failure(n, 0))), Blame::Stays { .. }));
    assert_eq!(state(&pinned, 3), ImageState::Current);
}

#[test]
fn a_canary_passes_by_sessions_or_by_time() {
    let mut images = three();
    images.push(image(4, 4, ImageState::Canary));
    let goes_on =
        |images: &[ImageRecord], seconds| trial(at(seconds), Some(&CANARY), &images[images.len() - 1]);
    assert_eq!(goes_on(&images, 1199), Trial::GoesOn);
    assert!(matches!(goes_on(&images, 1200), Trial::Passed(_)));
    assert!(matches!(trial(at(0), None, &images[3]), Trial::Passed(_)));
    for _ in 0..2 {
        let rows = began_well(id(4), &images);
        write(&mut images, rows);
    }
    assert!(matches!(goes_on(&images, 1), Trial::Passed(_)));
    assert_eq!(began_well(id(3), &images), [], "only a canary's are counted");
    let mut held = images.clone();
    held.iter_mut().for_each(|i| i.pinned = i.id == id(3));
    assert_eq!(pass(id(4), &held)[0].state, ImageState::Superseded, "a pin holds");
    let rows = pass(id(4), &images);
    write(&mut images, rows);
    assert_eq!((state(&images, 4), state(&images, 3)), (ImageState::Current, ImageState::Superseded));
    assert_eq!(pass(id(4), &images), []);
}

/// F22: a canary that fails leaves the current image where it is; and the same commit, made of the same, is not built
/// again by itself.
#[test]
fn f22_a_canary_that_fails_goes() {
    let mut images = three();
    images.push(image(4, 4, ImageState::Canary));
    let demoted = fail(&mut images, 4, (0..3).map(|n| failure(n, 0)));
    assert_eq!(demoted, Blame::Demoted { to: id(3), failures: 3 });
    assert_eq!((state(&images, 4), state(&images, 3)), (ImageState::Demoted, ImageState::Current));
    let same = |_: &ImageRecord| "f".to_owned();
    assert_eq!(was_demoted(&images, &commit(4), same).map(|i| i.id), Some(id(4)));
    assert_eq!(was_demoted(&images, &commit(4), |_| "another recipe".into()), None);
    assert_eq!(was_demoted(&images, &commit(5), same), None);
}

proptest! {
    /// The share of sessions that try a canary is the one that is configured, and a session does not change sides.
    #[test]
    fn a_share_is_a_share(share in 0.05f64..0.95) {
        let policy = CanaryPolicy { share, ..CANARY };
        let n = 4000;
        let ids: Vec<_> = (0..n).map(|_| SessionId::new().as_u128()).collect();
        let tries = ids.iter().filter(|id| tries_canary(**id, &policy)).count() as f64 / f64::from(n);
        // Six standard deviations.
        let off = 6.0 * (share * (1.0 - share) / f64::from(n)).sqrt();
        prop_assert!((tries - share).abs() < off, "{tries} of {share}");
        prop_assert!(ids.iter().all(|id| tries_canary(*id, &policy) == tries_canary(*id, &policy)));
    }

    /// Whatever fails, whenever: one image is current, a canary stands beside a current one, and at most one image of
    /// those that were current is demoted within an hour.
    #[test]
    fn there_is_always_a_current_one(
        failures in prop::collection::vec((1u128..5, 0u128..40, 0i64..9000), 0..80), canary in any::<bool>(),
    ) {
        let mut images = three();
        if canary { images.push(image(4, 4, ImageState::Canary)); }
        let mut sorted = failures;
        sorted.sort_by_key(|f| f.2);
        let mut last: Option<i64> = None;
        for (n, sandbox, seconds) in sorted {
            let was_current = images.iter().any(|i| i.id == id(n) && i.state == ImageState::Current);
            let blamed = fail(&mut images, n, [failure(sandbox, seconds)]);
            prop_assert_eq!(images.iter().filter(|i| i.state == ImageState::Current).count(), 1);
            if matches!(blamed, Blame::Demoted { .. }) && was_current {
                prop_assert!(last.is_none_or(|at| seconds - at > FAILURE_WINDOW.as_secs() as i64));
                last = Some(seconds);
            }
        }
    }
}
