//! Directories and files that only the server's own user may read: they hold secrets and people's work.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use domain::Result;

use crate::failure;

/// Makes `dir` and its parents with mode 0700. One that exists already keeps the mode its operator gave it.
pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| failure::io(format!("create directory {}", dir.display()), e))
}

/// Opens `path` for reading and writing, makes it when it is not there, and narrows its mode to 0600. SQLite gives
/// the files it adds beside a database the database's own mode, so this covers them too.
pub(crate) fn private_file(path: &Path) -> Result<File> {
    let context = || format!("open {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|e| failure::io(context(), e))?;
    let mode = file.metadata().map_err(|e| failure::io(context(), e))?.permissions().mode() & 0o777;
    if mode != 0o600 {
        file.set_permissions(PermissionsExt::from_mode(0o600)).map_err(|e| failure::io(context(), e))?;
    }
    Ok(file)
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(failure::io(format!("remove {}", path.display()), e))
        }
        _ => Ok(()),
    }
}

/// The files of a directory that `id` knows by their names, by id, with their sizes.
pub(crate) fn list<T: Ord>(dir: &Path, id: impl Fn(&str) -> Option<T>) -> Result<Vec<(T, u64)>> {
    let read = || -> std::io::Result<Vec<(T, u64)>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(&id) else { continue };
            // One that goes meanwhile is gone.
            if let Ok(about) = entry.metadata() {
                found.push((id, about.len()));
            }
        }
        found.sort();
        found.dedup_by(|b, a| a.0 == b.0);
        Ok(found)
    };
    read().map_err(|e| failure::io(format!("list {}", dir.display()), e))
}
