//! Promotion, roll-back, retention.

use std::collections::HashSet;

use domain::ports::Captured;
use domain::{BuildId, Digest, ErrorKind, ImageId, ImageRecord, ImageState};
use image_builder::{Built, before_current, collect, pin, promote, roll_back, verified};
use proptest::prelude::*;

use crate::make::{at, commit, digest, image, spec};

fn built(n: u64) -> Built {
    Built {
        image: ImageId::from_u128(n.into()),
        commit: commit(n),
        captured: Captured { digest: digest(n), size: 5 },
        fingerprint: "f".into(),
        base_digest: digest(1000),
        parent: None,
        decision: "a full build".into(),
        agent_version: "2".into(),
        phases: vec![],
        warnings: vec![],
    }
}

fn write(images: &mut Vec<ImageRecord>, records: Vec<ImageRecord>) {
    for r in records {
        images.retain(|i| i.id != r.id);
        images.push(r);
    }
}

fn current(images: &[ImageRecord]) -> Vec<&ImageRecord> {
    images.iter().filter(|i| i.state == ImageState::Current).collect()
}

/// F24: promoted again, after an answer that was lost, it changes nothing.
#[test]
fn promotion_happens_once() {
    let mut images = vec![];
    let records = promote(at(0), &built(1), BuildId::from_u128(1), &spec(), &images);
    write(&mut images, records);
    assert_eq!(promote(at(9), &built(1), BuildId::from_u128(1), &spec(), &images), []);
    let records = promote(at(9), &built(2), BuildId::from_u128(2), &spec(), &images);
    write(&mut images, records);
    assert_eq!(
        promote(at(9), &built(1), BuildId::from_u128(1), &spec(), &images),
        [],
        "nor by an older build"
    );
    assert_eq!(current(&images)[0].id, ImageId::from_u128(2));
}

/// F24: a roll-back goes to the newest that is older, never to one that is newer or was never good.
#[test]
fn a_roll_back_goes_to_the_one_before() {
    let mut images: Vec<_> = (1..=5).map(|n| image(n, n, ImageState::Superseded)).collect();
    images[1].state = ImageState::Rejected;
    images[2].state = ImageState::Current;
    assert_eq!(before_current(&images).map(|i| i.generation), Some(1));
    images[2].state = ImageState::Superseded;
    assert_eq!(before_current(&images), None, "nothing is current");
}

#[test]
fn verified_never_goes_back() {
    let mut image = image(1, 1, ImageState::Current);
    image = verified(at(100), &image);
    assert_eq!(verified(at(50), &image).verified_at, at(100));
}

/// F28: two records of one capture are kept or removed together.
#[test]
fn a_digest_that_is_kept_is_not_removed_under_another_name() {
    let mut images: Vec<_> = (1..=4).map(|n| image(n, n, ImageState::Superseded)).collect();
    images[3].state = ImageState::Current;
    images[0].digest = images[3].digest.clone();
    assert_eq!(collect(&images, 1, &HashSet::new()), [images[1].id, images[2].id]);
}

#[derive(Debug, Clone)]
enum Op {
    Promote,
    RollBack(usize),
    Demote,
    Collect(u32, usize),
    Reject(usize),
    Pin(usize, bool),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// F24, F23: through promotions, roll-backs, demotions and collections there is at most one current image, each
    /// promotion's generation is one more than any before it, and collecting keeps the current one, what is in use
    /// and the newest, and comes to rest.
    #[test]
    fn one_current_image_whose_generation_grows(ops in prop::collection::vec(prop_oneof![
        4 => Just(Op::Promote),
        2 => (0usize..8).prop_map(Op::RollBack),
        1 => Just(Op::Demote),
        2 => (0u32..4, 0usize..8).prop_map(|(k, u)| Op::Collect(k, u)),
        1 => (0usize..8).prop_map(Op::Reject),
        2 => (0usize..8, any::<bool>()).prop_map(|(i, pinned)| Op::Pin(i, pinned)),
    ], 1..60)) {
        let mut images: Vec<ImageRecord> = vec![];
        let (mut n, mut generation) = (0, 0);
        for op in ops {
            match op {
                Op::Promote => {
                    n += 1;
                    let kept = current(&images).first().filter(|i| i.pinned).map(|i| i.id);
                    let records = promote(at(n as i64), &built(n), BuildId::from_u128(n.into()), &spec(), &images);
                    prop_assert_eq!(records.last().unwrap().generation, generation + 1);
                    generation += 1;
                    write(&mut images, records);
                    prop_assert_eq!(current(&images)[0].id, kept.unwrap_or(ImageId::from_u128(n.into())));
                }
                Op::Pin(i, pinned) => if let Some(image) = images.get(i).cloned() {
                    match pin(image.id, pinned, &images) {
                        Ok(records) => {
                            prop_assert_eq!(records.is_empty(), image.pinned == pinned);
                            write(&mut images, records);
                        }
                        Err(e) => {
                            prop_assert_eq!(e.kind(), ErrorKind::Conflict);
                            prop_assert_eq!(image.state, ImageState::Rejected);
                        }
                    }
                },
                Op::RollBack(i) => if let Some(to) = images.get(i).cloned() {
                    match roll_back(to.id, &images) {
                        Ok(records) => {
                            write(&mut images, records);
                            prop_assert_eq!(current(&images)[0].id, to.id);
                        }
                        Err(e) => {
                            prop_assert_eq!(e.kind(), ErrorKind::Conflict);
                            prop_assert_eq!(to.state, ImageState::Rejected);
                        }
                    }
                },
                Op::Demote => images.iter_mut().for_each(|i| if i.state == ImageState::Current { i.state = ImageState::Superseded }),
                Op::Reject(i) => if let Some(i) = images.get_mut(i) { i.state = ImageState::Rejected },
                Op::Collect(keep, used) => {
                    let in_use: HashSet<Digest> = images.get(used).map(|i| i.digest.clone()).into_iter().collect();
                    let gone = collect(&images, keep, &in_use);
                    let before = images.len();
                    let good = images.iter().filter(|i| matches!(i.state, ImageState::Current | ImageState::Superseded)).count();
                    prop_assert!(current(&images).iter().all(|i| !gone.contains(&i.id)));
                    prop_assert!(images.iter().all(|i| !i.pinned || !gone.contains(&i.id)));
                    prop_assert!(images.iter().all(|i| !in_use.contains(&i.digest) || !gone.contains(&i.id)));
                    prop_assert!(before - gone.len() >= good.min(keep.max(1) as usize));
                    images.retain(|i| !gone.contains(&i.id));
                    prop_assert_eq!(collect(&images, keep, &in_use), []);
                    // What is kept, the current one, the one in use, the one that the next number comes from.
                    let pinned = images.iter().filter(|i| i.pinned).count();
                    prop_assert!(images.len() <= keep.max(1) as usize + 3 + pinned);
                }
            }
            prop_assert!(current(&images).len() <= 1);
        }
    }
}
