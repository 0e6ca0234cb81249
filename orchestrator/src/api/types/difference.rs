//! What changed between two images, as the API shows it.

use domain::ports::CommitLine;
use image_builder::{Change, FileChange, PackageChange, PackageKind, Tally};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::ImageView;
use crate::differences::{Commits, ImageDifference};

/// From one image to another of the same repo.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageDiffView {
    pub from: ImageView,
    pub to: ImageView,
    /// Bytes of all layers, `to` less `from`.
    pub size_change: i64,
    /// Commits that `to` has and `from` has not.
    pub commits: CommitsView,
    /// Commits that `from` has and `to` has not.
    pub commits_gone: CommitsView,
    pub packages: PackagesView,
    pub files: FilesView,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CommitsView {
    /// Absent where the mirror does not know both commits, or they are unrelated.
    pub count: Option<u32>,
    /// The newest of them, newest first.
    pub newest: Vec<CommitView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CommitView {
    pub id: String,
    pub subject: String,
    pub author: String,
    pub committed_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackagesView {
    /// The kinds that either image tells of, among `dpkg`, `apk`, `pip` and `npm`. Packages of other kinds are not known
    /// as such: they are among the files.
    pub known: Vec<String>,
    pub changes: Vec<PackageChangeView>,
    /// There are more changes than are listed.
    pub more: bool,
    /// Lists of packages that were too long to be read.
    pub unread: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PackageChangeView {
    /// `dpkg`, `apk`, `pip` or `npm`.
    pub kind: String,
    pub name: String,
    /// The versions that were there; none for a new package.
    pub before: Vec<String>,
    /// The versions that are there; none for one that is gone.
    pub after: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FilesView {
    pub added: TallyView,
    pub changed: TallyView,
    pub removed: TallyView,
    /// The largest of them, largest first.
    pub largest: Vec<FileChangeView>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
pub struct TallyView {
    pub files: u64,
    /// Of their content, as it is now; of removed ones, as it was.
    pub bytes: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileChangeView {
    pub path: String,
    /// `added`, `changed` or `removed`.
    pub change: String,
    pub size_before: Option<u64>,
    pub size_after: Option<u64>,
}

impl From<ImageDifference> for ImageDiffView {
    fn from(d: ImageDifference) -> Self {
        let content = d.content;
        Self {
            size_change: i64::try_from(i128::from(d.to.size) - i128::from(d.from.size)).unwrap_or(i64::MAX),
            from: (&d.from).into(),
            to: (&d.to).into(),
            commits: d.new.into(),
            commits_gone: d.gone.into(),
            packages: PackagesView {
                known: content.kinds.iter().map(PackageKind::to_string).collect(),
                changes: content.packages.into_iter().map(Into::into).collect(),
                more: content.more_packages,
                unread: content.unread,
            },
            files: FilesView {
                added: content.added.into(),
                changed: content.changed.into(),
                removed: content.removed.into(),
                largest: content.files.into_iter().map(Into::into).collect(),
            },
        }
    }
}

impl From<Commits> for CommitsView {
    fn from(c: Commits) -> Self {
        Self { count: c.number, newest: c.newest.into_iter().map(Into::into).collect() }
    }
}

impl From<CommitLine> for CommitView {
    fn from(c: CommitLine) -> Self {
        Self { id: c.id.to_string(), subject: c.subject, author: c.author, committed_at: c.committed_at }
    }
}

impl From<PackageChange> for PackageChangeView {
    fn from(c: PackageChange) -> Self {
        Self { kind: c.kind.to_string(), name: c.name, before: c.before, after: c.after }
    }
}

impl From<Tally> for TallyView {
    fn from(t: Tally) -> Self {
        Self { files: t.files, bytes: t.bytes }
    }
}

impl From<FileChange> for FileChangeView {
    fn from(c: FileChange) -> Self {
        Self {
            path: c.path,
            change: Change::as_str(c.change).to_owned(),
            size_before: c.size_before,
            size_after: c.size_after,
        }
    }
}
