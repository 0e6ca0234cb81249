//! Lineage and retention.

use std::collections::HashSet;
use std::time::Duration;

use domain::{Digest, SnapshotId, SnapshotRecord, SnapshotState};
use proptest::prelude::*;
use snapshots::{Node, RetentionPolicy, collect, lineage};

use crate::make::{at, digest, snapshot};

const DAY: u64 = 86_400;

fn policy(keep_per_session: u32, max_age: u64) -> RetentionPolicy {
    RetentionPolicy { keep_per_session, max_age: Duration::from_secs(max_age) }
}

fn ids(ns: &[u64]) -> Vec<SnapshotId> {
    ns.iter().map(|n| SnapshotId::from_u128((*n).into())).collect()
}

#[test]
fn the_tree_of_restores_and_forks() {
    let ready = SnapshotState::Ready;
    // 1 is of an image; 2 and 3 were both restored from it; 4 follows 3; 5 begins anew.
    let all = [
        snapshot(4, 4, ready, 3, 40),
        snapshot(1, 1, ready, 900, 10),
        snapshot(3, 3, ready, 1, 30),
        snapshot(5, 5, ready, 901, 50),
        snapshot(2, 2, ready, 1, 20),
    ];
    let text = lineage(&all).to_string();
    let shape: Vec<_> =
        text.lines().map(|l| (l.len() - l.trim_start().len(), l.chars().last().unwrap())).collect();
    assert_eq!(shape, [(0, '1'), (2, '2'), (2, '3'), (4, '4'), (0, '5')]);
}

/// Nothing written between restore and capture: the content is its own source. And two that are each other's.
#[test]
fn circles_are_cut() {
    let ready = SnapshotState::Ready;
    let all = [snapshot(1, 1, ready, 1, 10), snapshot(2, 2, ready, 3, 20), snapshot(3, 3, ready, 2, 30)];
    let tree = lineage(&all);
    let [one, two] = &tree.roots[..] else { panic!("{tree}") };
    assert_eq!((one.id, one.children.len()), (all[0].id, 0));
    assert_eq!((two.id, two.children[0].id), (all[1].id, all[2].id));
}

#[test]
fn the_newest_of_each_session_stay() {
    let ready = SnapshotState::Ready;
    let all: Vec<_> = (1..=6).map(|n| snapshot(n, u128::from(n % 2), ready, 900, n as i64)).collect();
    assert_eq!(collect(at(10), &all, &policy(2, DAY), &HashSet::new()), ids(&[1, 2]));
    assert_eq!(collect(at(10), &all, &policy(0, DAY), &HashSet::new()), ids(&[1, 2, 3, 4]), "at least one");
    assert_eq!(collect(at(3 + DAY as i64), &all, &policy(2, DAY), &HashSet::new()), ids(&[1, 2, 3]));
    assert_eq!(collect(at(-1000), &all, &policy(9, 1), &HashSet::new()), [], "the clock went back");
}

/// What is in use stays, and what it stands on; a failure stays until a later capture has made up for it.
#[test]
fn what_something_stands_on_stays() {
    use SnapshotState as S;
    let old = 2 * DAY as i64;
    let all =
        [snapshot(1, 1, S::Ready, 900, 0), snapshot(2, 2, S::Ready, 1, 0), snapshot(3, 3, S::Ready, 2, 0)];
    assert_eq!(collect(at(old), &all, &policy(5, DAY), &HashSet::new()), ids(&[1, 2, 3]));
    assert_eq!(collect(at(old), &all, &policy(5, DAY), &HashSet::from([digest(2)])), ids(&[3]));

    let all = [snapshot(1, 1, S::Failed, 900, 0), snapshot(2, 1, S::Capturing, 900, 1)];
    assert_eq!(collect(at(5), &all, &policy(5, DAY), &HashSet::new()), []);
    let all = [snapshot(1, 1, S::Failed, 900, 0), snapshot(2, 1, S::Ready, 900, 1)];
    assert_eq!(collect(at(5), &all, &policy(5, DAY), &HashSet::new()), ids(&[1]));
}

prop_compose! {
    /// Snapshots of few sessions, whose contents and sources are drawn from few numbers, so that lines, forks,
    /// circles and equal contents all occur.
    fn worlds()(rows in prop::collection::vec((0u128..4, 0usize..4, 0u64..12, 0u64..12, 0i64..1000), 0..25)) -> Vec<SnapshotRecord> {
        let states = [SnapshotState::Capturing, SnapshotState::Ready, SnapshotState::Failed, SnapshotState::Removing];
        rows.into_iter().enumerate().map(|(i, (of, state, content, source, created))| {
            // Half of them are ready.
            let state = states[if state == 0 && created % 2 == 0 { 0 } else { state.max(1) }];
            let mut s = snapshot(i as u64 + 1, of, state, source, created);
            s.digest = s.digest.map(|_| digest(content));
            s
        }).collect()
    }
}

fn flatten<'a>(nodes: &'a [Node], out: &mut Vec<&'a Node>) {
    for n in nodes {
        out.push(n);
        flatten(&n.children, out);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Each snapshot is in the tree once, below one whose content it was started from.
    #[test]
    fn every_snapshot_has_one_place(all in worlds()) {
        let tree = lineage(&all);
        let mut nodes = vec![];
        flatten(&tree.roots, &mut nodes);
        let mut seen: Vec<_> = nodes.iter().map(|n| n.id).collect();
        seen.sort();
        let mut expected: Vec<_> = all.iter().map(|s| s.id).collect();
        expected.sort();
        prop_assert_eq!(seen, expected);
        let of = |id| all.iter().find(|s| s.id == id).unwrap();
        for n in nodes {
            for child in &n.children {
                prop_assert_eq!(Some(&of(child.id).source), of(n.id).digest.as_ref());
            }
        }
        // Only what has no parent, or is in a circle, begins a tree.
        for root in &tree.roots {
            let source = &of(root.id).source;
            let has_parent = all.iter().any(|s| s.digest.as_ref() == Some(source));
            if has_parent {
                let mut digests = HashSet::from([source.clone()]);
                while let Some(more) = all.iter().find(|s| s.digest.as_ref().is_some_and(|d| digests.contains(d)) && !digests.contains(&s.source)) {
                    digests.insert(more.source.clone());
                }
                prop_assert!(of(root.id).digest.as_ref().is_some_and(|d| digests.contains(d)), "no circle: {:?}", of(root.id));
            }
        }
    }

    /// Never collected: what is being taken or removed, content in use, content that a kept one stands on, the newest
    /// ready one of a session within its age. Collecting again after it is done collects nothing.
    #[test]
    fn nothing_needed_is_collected(all in worlds(), keep in 0u32..4, max_age in 1u64..1200, used in prop::collection::vec(0u64..12, 0..3)) {
        let in_use: HashSet<Digest> = used.into_iter().map(digest).collect();
        let policy = policy(keep, max_age);
        let gone = collect(at(1000), &all, &policy, &in_use);
        let left: Vec<_> = all.iter().filter(|s| !gone.contains(&s.id)).cloned().collect();
        for s in all.iter().filter(|s| gone.contains(&s.id)) {
            prop_assert!(matches!(s.state, SnapshotState::Ready | SnapshotState::Failed));
            if let Some(digest) = &s.digest {
                prop_assert!(!in_use.contains(digest));
                // The capture is removed by its digest: no other record may still need it.
                prop_assert!(left.iter().all(|l| l.digest.as_ref() != Some(digest)));
                let stands = |l: &SnapshotRecord| matches!(l.state, SnapshotState::Ready | SnapshotState::Capturing) && l.source == *digest;
                prop_assert!(!left.iter().any(stands));
            }
            let newest = snapshots::latest(s.session, &all).map(|n| n.id);
            if s.state == SnapshotState::Ready && newest == Some(s.id) {
                prop_assert!(1000 - (s.created_at.as_second() - at(0).as_second()) >= max_age as i64);
            }
        }
        prop_assert_eq!(collect(at(1000), &left, &policy, &in_use), []);
    }
}
