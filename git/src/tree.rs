//! Files and trees of a commit, read from the mirror without a checkout.

use std::io::{ErrorKind as Io, Write};

use domain::{CommitId, Error, ErrorKind, Result, TreePath};
use git2::{ErrorCode, ObjectType, Repository, Tree, TreeEntry};

/// What a look at a path found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    Nothing,
    File(Vec<u8>),
    /// A file of that many bytes, which is more than were asked for.
    Larger(u64),
    /// A directory, a link or a submodule, in words.
    Other(&'static str),
}

const LINK: i32 = 0o120000;
const EXECUTABLE: i32 = 0o100755;

/// The file at `path`, of at most `limit` bytes. Links are not followed: they may lead anywhere.
pub(crate) fn read(
    repository: &Repository,
    commit: &CommitId,
    path: &TreePath,
    limit: usize,
) -> Result<Found, git2::Error> {
    let Some(tree) = tree_of(repository, commit)? else { return Ok(Found::Nothing) };
    if path.is_root() {
        return Ok(Found::Other("a directory"));
    }
    let Some(entry) = entry_at(&tree, path)? else { return Ok(Found::Nothing) };
    match (entry.kind(), entry.filemode()) {
        (_, LINK) => Ok(Found::Other("a symbolic link")),
        (Some(ObjectType::Tree), _) => Ok(Found::Other("a directory")),
        (Some(ObjectType::Blob), _) => {
            let odb = repository.odb()?;
            // Its size before its content: it may be anything.
            let (size, _) = odb.read_header(entry.id())?;
            if size > limit {
                return Ok(Found::Larger(size as u64));
            }
            Ok(Found::File(repository.find_blob(entry.id())?.content().to_vec()))
        }
        _ => Ok(Found::Other("a submodule")),
    }
}

/// The object at `path`, with its mode: equal for equal content, whatever the commit. `None` where nothing is there.
pub(crate) fn identify(
    repository: &Repository,
    commit: &CommitId,
    path: &TreePath,
) -> Result<Option<String>, git2::Error> {
    let Some(tree) = tree_of(repository, commit)? else { return Ok(None) };
    if path.is_root() {
        return Ok(Some(tree.id().to_string()));
    }
    Ok(entry_at(&tree, path)?.map(|entry| format!("{:o} {}", entry.filemode(), entry.id())))
}

/// Writes what lies below `dir` as a tar, as far as `wanted` says so by its path below `dir`. Times and owners are all
/// the same, so equal trees make equal bytes.
pub(crate) fn archive(
    repository: &Repository,
    commit: &CommitId,
    dir: &TreePath,
    wanted: &dyn Fn(&str) -> bool,
    to: &mut dyn Write,
) -> Result<bool, ArchiveError> {
    let Some(tree) = tree_of(repository, commit)? else { return Ok(false) };
    let tree = if dir.is_root() {
        tree
    } else {
        match entry_at(&tree, dir)? {
            Some(entry) if entry.kind() == Some(ObjectType::Tree) => repository.find_tree(entry.id())?,
            _ => return Ok(false),
        }
    };
    let mut tar = tar::Builder::new(to);
    add(repository, &tree, "", wanted, &mut tar)?;
    tar.finish()?;
    Ok(true)
}

/// As [`archive`], to a file that is made.
pub(crate) fn archive_to(
    repository: &Repository,
    commit: &CommitId,
    dir: &TreePath,
    wanted: &dyn Fn(&str) -> bool,
    to: &std::path::Path,
) -> Result<bool, ArchiveError> {
    let mut file = std::io::BufWriter::new(std::fs::File::create(to)?);
    let found = archive(repository, commit, dir, wanted, &mut file)?;
    file.flush()?;
    Ok(found)
}

/// Why an archive was not written: the repository, or where it was to go.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error(transparent)]
    Git(#[from] git2::Error),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl ArchiveError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Io(e) if matches!(e.kind(), Io::StorageFull | Io::QuotaExceeded) => ErrorKind::Exhausted,
            Self::Git(_) | Self::Io(_) => ErrorKind::Permanent,
        }
    }
}

fn add(
    repository: &Repository,
    tree: &Tree<'_>,
    below: &str,
    wanted: &dyn Fn(&str) -> bool,
    tar: &mut tar::Builder<&mut dyn Write>,
) -> Result<(), ArchiveError> {
    for entry in tree {
        let Ok(name) = std::str::from_utf8(entry.name_bytes()) else { continue };
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        let mut header = tar::Header::new_gnu();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        match (entry.kind(), entry.filemode()) {
            (Some(ObjectType::Tree), _) => {
                // Below an unwanted directory something may be wanted again.
                let inner = repository.find_tree(entry.id())?;
                if wanted(&path) {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(0o755);
                    header.set_size(0);
                    tar.append_data(&mut header, format!("{path}/"), std::io::empty())?;
                }
                add(repository, &inner, &path, wanted, tar)?;
            }
            (Some(ObjectType::Blob), mode) if wanted(&path) => {
                let blob = repository.find_blob(entry.id())?;
                if mode == LINK {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    let target = String::from_utf8_lossy(blob.content()).into_owned();
                    tar.append_link(&mut header, &path, target)?;
                } else {
                    header.set_mode(if mode == EXECUTABLE { 0o755 } else { 0o644 });
                    header.set_size(blob.content().len() as u64);
                    tar.append_data(&mut header, &path, blob.content())?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn tree_of<'r>(repository: &'r Repository, commit: &CommitId) -> Result<Option<Tree<'r>>, git2::Error> {
    let Ok(oid) = git2::Oid::from_str(commit.as_str()) else { return Ok(None) };
    match repository.find_commit(oid) {
        Ok(commit) => commit.tree().map(Some),
        Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn entry_at(tree: &Tree<'_>, path: &TreePath) -> Result<Option<TreeEntry<'static>>, git2::Error> {
    match tree.get_path(std::path::Path::new(path.as_str())) {
        Ok(entry) => Ok(Some(entry)),
        Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// In the words of the port.
pub(crate) fn as_file(found: Found, path: &TreePath, limit: usize) -> Result<Option<Vec<u8>>> {
    match found {
        Found::Nothing => Ok(None),
        Found::File(bytes) => Ok(Some(bytes)),
        Found::Larger(size) => {
            Err(Error::invalid(format!("`{path}` has {size} bytes: expected at most {limit}")))
        }
        Found::Other(what) => Err(Error::invalid(format!("`{path}` is {what}: expected a file"))),
    }
}
