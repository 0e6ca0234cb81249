//! Which snapshot stands on which: what its sandbox was started from is, or is not, another snapshot.

use std::collections::{HashMap, HashSet};
use std::fmt;

use domain::{Digest, SnapshotId, SnapshotRecord};

/// A snapshot and those that were taken of what was restored from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: SnapshotId,
    /// Oldest first.
    pub children: Vec<Node>,
}

/// The trees of some snapshots, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lineage {
    pub roots: Vec<Node>,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut stack: Vec<(&Node, usize)> = self.roots.iter().rev().map(|n| (n, 0)).collect();
        while let Some((node, depth)) = stack.pop() {
            writeln!(f, "{:indent$}{}", "", node.id, indent = 2 * depth)?;
            stack.extend(node.children.iter().rev().map(|n| (n, depth + 1)));
        }
        Ok(())
    }
}

/// The snapshot of each digest; of several captures with one content the oldest, so that a line has one shape.
fn by_digest(snapshots: &[SnapshotRecord]) -> HashMap<&Digest, &SnapshotRecord> {
    let mut owners: HashMap<&Digest, &SnapshotRecord> = HashMap::new();
    for s in snapshots {
        let Some(digest) = &s.digest else { continue };
        let owner = owners.entry(digest).or_insert(s);
        if (s.created_at, s.id) < (owner.created_at, owner.id) {
            *owner = s;
        }
    }
    owners
}

/// The trees of `snapshots`. Each is in exactly one place. A snapshot whose source is no snapshot, is not among
/// these, or would close a circle (nothing was written between two captures, so that a content stands on itself)
/// begins a tree.
pub fn lineage(snapshots: &[SnapshotRecord]) -> Lineage {
    let owners = by_digest(snapshots);
    let parents: HashMap<SnapshotId, SnapshotId> =
        snapshots.iter().filter_map(|s| Some((s.id, owners.get(&s.source)?.id))).collect();
    let mut sorted: Vec<_> = snapshots.iter().collect();
    sorted.sort_by_key(|s| (s.created_at, s.id));

    let cut = circles(&sorted, &parents);
    let mut roots = Vec::new();
    let mut children: HashMap<SnapshotId, Vec<SnapshotId>> = HashMap::new();
    for s in &sorted {
        match parents.get(&s.id) {
            Some(parent) if !cut.contains(&s.id) => children.entry(*parent).or_default().push(s.id),
            _ => roots.push(s.id),
        }
    }
    Lineage { roots: roots.into_iter().map(|id| grow(id, &children)).collect() }
}

/// The oldest member of each circle: there it is cut. `sorted` is oldest first.
fn circles(sorted: &[&SnapshotRecord], parents: &HashMap<SnapshotId, SnapshotId>) -> HashSet<SnapshotId> {
    let age: HashMap<SnapshotId, usize> = sorted.iter().enumerate().map(|(i, s)| (s.id, i)).collect();
    let mut walk: HashMap<SnapshotId, usize> = HashMap::new();
    let mut cut = HashSet::new();
    for (turn, s) in sorted.iter().enumerate() {
        let mut at = Some(s.id);
        while let Some(id) = at {
            match walk.insert(id, turn) {
                None => at = parents.get(&id).copied(),
                Some(earlier) => {
                    // Met again on this very walk: a circle. On an earlier one: all above was seen then.
                    walk.insert(id, earlier);
                    if earlier == turn {
                        let around = std::iter::successors(parents.get(&id), |p| parents.get(*p));
                        let circle = around.take_while(|p| **p != id).copied().chain([id]);
                        cut.extend(circle.min_by_key(|id| age.get(id).copied()));
                    }
                    at = None;
                }
            }
        }
    }
    cut
}

/// A tree from its root. Lines of forks are as deep as a session was followed up, which is the depth of this.
fn grow(id: SnapshotId, children: &HashMap<SnapshotId, Vec<SnapshotId>>) -> Node {
    let below = children.get(&id).into_iter().flatten();
    Node { id, children: below.map(|child| grow(*child, children)).collect() }
}
