//! Files of the sandbox for the API: read in pieces, written whole or not at all, deleted, listed.
//!
//! Disk work runs on other threads, one piece at a time, so that a slow disk or a slow client holds up nothing
//! else. The agent has no filter of its own; whoever calls [`Writer`] or [`delete`] waits at the gate first.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind as Io, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use domain::wire::{DirEntry, FileKind};
use domain::{Error, ErrorKind, Result};

/// Bytes of a file per step.
const PIECE: usize = 256 * 1024;

/// An absolute path without `.` and `..`; relative ones begin at the workspace.
pub fn absolute(workspace: &Path, path: &str) -> Result<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid("`path` is empty or holds a NUL byte: expected a path"));
    }
    let mut out = PathBuf::new();
    for part in workspace.join(path).components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    Ok(out)
}

fn failed(what: &str, path: &Path, e: io::Error) -> Error {
    let kind = match e.kind() {
        Io::NotFound => ErrorKind::NotFound,
        Io::StorageFull | Io::QuotaExceeded => ErrorKind::Exhausted,
        Io::NotADirectory | Io::IsADirectory | Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            ErrorKind::Invalid
        }
        Io::DirectoryNotEmpty | Io::InvalidFilename | Io::AlreadyExists => ErrorKind::Invalid,
        _ => ErrorKind::Permanent,
    };
    Error::new(kind, format!("{what} {}", path.display())).caused_by(e)
}

/// Runs disk work on another thread.
pub async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::permanent("do disk work").caused_by(e)),
    }
}

/// A file that is being read.
pub struct Reader {
    file: Arc<File>,
    path: PathBuf,
    at: u64,
}

impl Reader {
    pub async fn open(path: PathBuf) -> Result<Self> {
        on_disk(move || {
            // Not to hang at a pipe that nobody writes to.
            let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path);
            let file = opened.map_err(|e| failed("read", &path, e))?;
            let meta = file.metadata().map_err(|e| failed("read", &path, e))?;
            if !meta.is_file() {
                return Err(Error::invalid(format!("read {}: it is not a regular file", path.display())));
            }
            Ok(Self { file: Arc::new(file), path, at: 0 })
        })
        .await
    }

    /// The next piece; empty at the end.
    pub async fn next(&mut self) -> Result<Bytes> {
        let (file, path, at) = (Arc::clone(&self.file), self.path.clone(), self.at);
        let piece = on_disk(move || {
            let mut buf = vec![0; PIECE];
            let n = file.read_at(&mut buf, at).map_err(|e| failed("read", &path, e))?;
            buf.truncate(n);
            Ok(Bytes::from(buf))
        })
        .await?;
        self.at += piece.len() as u64;
        Ok(piece)
    }
}

static TEMPORARY: AtomicU64 = AtomicU64::new(0);

/// A file that is being written beside its final name. Dropped before [`Writer::finish`], it leaves nothing.
pub struct Writer {
    file: Option<File>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Writer {
    /// Makes the directories above, and follows a link at `path` so that the link stays. `mode` is that of the
    /// file there is, or 0644, when not given.
    pub async fn create(path: PathBuf, mode: Option<u32>) -> Result<Self> {
        on_disk(move || {
            let path = crate::gate::place::resolve_own(&path);
            let existing = fs::metadata(&path).ok();
            if existing.as_ref().is_some_and(|m| !m.is_file()) {
                return Err(Error::invalid(format!("write {}: it is not a regular file", path.display())));
            }
            let (Some(dir), Some(_)) = (path.parent(), path.file_name()) else {
                return Err(Error::invalid(format!("write {}: it is no file name", path.display())));
            };
            fs::create_dir_all(dir).map_err(|e| failed("make", dir, e))?;
            let n = TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let temporary = dir.join(format!(".hotbed-{}-{n}.tmp", std::process::id()));
            let _ = fs::remove_file(&temporary); // an earlier agent of the same number was killed
            let opened = OpenOptions::new().write(true).create_new(true).open(&temporary);
            let file = opened.map_err(|e| failed("write", &path, e))?;
            let mode = mode.or(existing.map(|m| m.mode())).unwrap_or(0o644) & 0o7777;
            let writer = Self { file: Some(file), temporary, path };
            // Exactly this mode, whatever the umask.
            fs::set_permissions(&writer.temporary, fs::Permissions::from_mode(mode))
                .map_err(|e| failed("set the mode of", &writer.path, e))?;
            Ok(writer)
        })
        .await
    }

    pub async fn write(mut self, piece: Bytes) -> Result<Self> {
        on_disk(move || {
            if let Some(file) = &mut self.file {
                file.write_all(&piece).map_err(|e| failed("write", &self.path, e))?;
            }
            Ok(self)
        })
        .await
    }

    /// Puts the file in its place, in one step.
    pub async fn finish(mut self) -> Result<()> {
        on_disk(move || {
            fs::rename(&self.temporary, &self.path).map_err(|e| failed("write", &self.path, e))?;
            drop(self.file.take()); // nothing is left to remove
            Ok(())
        })
        .await
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if self.file.is_some() {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Deletes a file, a link or an empty directory.
pub async fn delete(path: PathBuf) -> Result<()> {
    on_disk(move || {
        let meta = fs::symlink_metadata(&path).map_err(|e| failed("delete", &path, e))?;
        let done = if meta.is_dir() { fs::remove_dir(&path) } else { fs::remove_file(&path) };
        done.map_err(|e| failed("delete", &path, e))
    })
    .await
}

/// The entries of a directory by name. Names that are not UTF-8 are shown with replacement characters.
pub async fn list(path: PathBuf) -> Result<Vec<DirEntry>> {
    on_disk(move || {
        let mut out = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| failed("list", &path, e))? {
            let entry = entry.map_err(|e| failed("list", &path, e))?;
            let Ok(meta) = entry.metadata() else { continue }; // it went meanwhile
            let kind = match meta.file_type() {
                t if t.is_file() => FileKind::File,
                t if t.is_dir() => FileKind::Dir,
                t if t.is_symlink() => FileKind::Symlink,
                _ => FileKind::Other,
            };
            out.push(DirEntry {
                name: entry.file_name().to_string_lossy().into_owned(),
                kind,
                size: meta.len(),
                mode: meta.mode() & 0o7777,
                modified: meta.mtime(),
            });
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_absolute_and_plain() {
        let at = |p: &str| absolute(Path::new("/workspace"), p).unwrap().display().to_string();
        assert_eq!(at("a/./b/../c"), "/workspace/a/c");
        assert_eq!(at("/etc/passwd"), "/etc/passwd");
        assert_eq!(at("../../../x"), "/x");
        assert_eq!(at("."), "/workspace");
        assert!(absolute(Path::new("/workspace"), "").is_err());
        assert!(absolute(Path::new("/workspace"), "a\0b").is_err());
    }
}
