//! What changed between two images: their files and their packages, seen as they stream by. Of the older one the
//! names and prints are held, of the newer one nothing; the lists that are answered are bounded, their sums are not.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};

use domain::ports::TreeEntry;
use domain::{Error, Result};

use crate::packages::{self, PackageKind, Packages};

/// The most files that an image may have to be compared: each of the older one takes some 150 bytes of memory.
const MAX_FILES: usize = 2_000_000;
/// The most changes of packages that are answered.
const MAX_PACKAGES: usize = 5_000;

/// Whether the content of this file says something about packages: what to ask `Backend::read_tree` for.
pub fn tells_packages(path: &[u8]) -> bool {
    packages::list_at(path).is_some()
}

/// What one image holds.
#[derive(Debug, Default)]
pub struct Inventory {
    files: HashMap<Vec<u8>, (u64, [u8; 16])>,
    contents: Contents,
}

/// What is known of an image besides its files.
#[derive(Debug, Default)]
struct Contents {
    packages: Packages,
    kinds: BTreeSet<PackageKind>,
    unread: Vec<String>,
}

impl Contents {
    fn see(&mut self, entry: &TreeEntry) {
        if let Some((name, version)) = packages::named_by(&entry.path) {
            self.hold(PackageKind::Pip, name, version);
        }
        let Some(kind) = packages::list_at(&entry.path) else { return };
        self.kinds.insert(kind);
        let Some(content) = &entry.content else {
            return self.unread.push(text(&entry.path));
        };
        for (name, version) in packages::read_list(kind, content) {
            self.hold(kind, name, version);
        }
    }

    fn hold(&mut self, kind: PackageKind, name: String, version: String) {
        self.kinds.insert(kind);
        self.packages.entry((kind, name)).or_default().insert(version);
    }
}

impl Inventory {
    /// `Exhausted` past the bound on files.
    pub fn add(&mut self, entry: TreeEntry) -> Result<()> {
        if self.files.len() == MAX_FILES {
            return Err(Error::exhausted(format!(
                "compare images: the older one has more than {MAX_FILES} files, which is the most that are compared"
            )));
        }
        self.contents.see(&entry);
        self.files.insert(entry.path, (entry.size, entry.print));
        Ok(())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    Added,
    Changed,
    Removed,
}

impl Change {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

/// Files, and the bytes of their content: as they are now, or as they were where they are gone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub files: u64,
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Bytes that are no text are shown as `\u{fffd}`.
    pub path: String,
    pub change: Change,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackageChange {
    pub kind: PackageKind,
    pub name: String,
    /// The versions that were there; none where it is new.
    pub before: Vec<String>,
    pub after: Vec<String>,
}

/// What a comparison found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    pub added: Tally,
    pub changed: Tally,
    pub removed: Tally,
    /// The largest of them, largest first.
    pub files: Vec<FileChange>,
    /// By kind and name.
    pub packages: Vec<PackageChange>,
    /// More packages changed than `packages` holds.
    pub more_packages: bool,
    /// The kinds of packages that either image tells of. Those of other kinds are not known as packages.
    pub kinds: Vec<PackageKind>,
    /// Lists of packages that were too long to be read.
    pub unread: Vec<String>,
}

/// The comparison of an image that was read with one that is being read.
#[derive(Debug)]
pub struct Comparison {
    /// What has not been met again yet.
    left: HashMap<Vec<u8>, (u64, [u8; 16])>,
    before: Contents,
    after: Contents,
    found: Difference,
    largest: Largest,
}

impl Comparison {
    /// Answers `files` changed files at most.
    pub fn new(before: Inventory, files: usize) -> Self {
        Self {
            left: before.files,
            before: before.contents,
            after: Contents::default(),
            found: Difference::default(),
            largest: Largest { most: files, heap: BinaryHeap::new() },
        }
    }

    /// A file of the newer image.
    pub fn add(&mut self, entry: TreeEntry) {
        self.after.see(&entry);
        match self.left.remove(&entry.path) {
            None => {
                self.found.added.count(entry.size);
                self.largest.offer(Change::Added, entry.path, None, Some(entry.size));
            }
            Some((size, print)) if print != entry.print => {
                self.found.changed.count(entry.size);
                self.largest.offer(Change::Changed, entry.path, Some(size), Some(entry.size));
            }
            Some(_) => {}
        }
    }

    /// The newer image has no more files.
    pub fn finish(mut self) -> Difference {
        for (path, (size, _)) in self.left {
            self.found.removed.count(size);
            self.largest.offer(Change::Removed, path, Some(size), None);
        }
        let mut packages = package_changes(&self.before.packages, &self.after.packages);
        let more_packages = packages.len() > MAX_PACKAGES;
        packages.truncate(MAX_PACKAGES);
        let mut unread = self.before.unread;
        unread.extend(self.after.unread);
        unread.sort();
        unread.dedup();
        Difference {
            files: self.largest.into_list(),
            packages,
            more_packages,
            kinds: self.before.kinds.union(&self.after.kinds).copied().collect(),
            unread,
            ..self.found
        }
    }
}

impl Tally {
    fn count(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

fn package_changes(before: &Packages, after: &Packages) -> Vec<PackageChange> {
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let versions = |of: &Packages, package: &(PackageKind, String)| -> Vec<String> {
        of.get(package).into_iter().flatten().cloned().collect()
    };
    let change = |package: &(PackageKind, String)| {
        let (before, after) = (versions(before, package), versions(after, package));
        (before != after).then(|| PackageChange { kind: package.0, name: package.1.clone(), before, after })
    };
    all.into_iter().filter_map(change).collect()
}

/// Ordered by the larger of the two sizes, then by name backwards: the greatest is the one to show first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    size: u64,
    path: Reverse<Vec<u8>>,
    change: Change,
    before: Option<u64>,
    after: Option<u64>,
}

/// Keeps the largest changes, of equal ones the first by name.
#[derive(Debug)]
struct Largest {
    most: usize,
    heap: BinaryHeap<Reverse<Ranked>>,
}

impl Largest {
    fn offer(&mut self, change: Change, path: Vec<u8>, before: Option<u64>, after: Option<u64>) {
        let size = before.max(after).unwrap_or(0);
        self.heap.push(Reverse(Ranked { size, path: Reverse(path), change, before, after }));
        if self.heap.len() > self.most {
            self.heap.pop();
        }
    }

    fn into_list(self) -> Vec<FileChange> {
        // Sorted from the greatest of what is reversed: the largest file comes first.
        let sorted = self.heap.into_sorted_vec().into_iter();
        sorted
            .map(|Reverse(r)| FileChange {
                path: text(&r.path.0),
                change: r.change,
                size_before: r.before,
                size_after: r.after,
            })
            .collect()
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
