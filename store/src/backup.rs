//! A copy of the state directory, taken while a server runs on it or not, and put back while none does.
//!
//! A copy is a tar file: the database, the journal of young logs, the log of each session and build, the
//! installation's key, and last a manifest with what each holds. The last entry says that the copy is whole; one that
//! was cut off is refused. Databases are copied by SQLite (`VACUUM INTO`), so each is one moment of itself; they are
//! taken in such an order that what is missing in one is at most a line that was written while the copy was taken.
//!
//! Leaves to others: images and snapshots, which lie in the engine; mirrors and bases, which are fetched again; and
//! what becomes of sandboxes and captures that the copy does not know ([`crate::Store::restored_at`]).

mod put;
mod take;

use std::path::{Path, PathBuf};

use domain::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use put::{Restored, release, restore};
pub use take::take;

/// The form of the copy; a later one that older programs can't read counts it up.
const FORM: u32 = 1;
const MANIFEST: &str = "manifest.json";
const DATABASE: &str = "hotbed.db";
const JOURNAL: &str = "session-journal.db";
const KEY: &str = "api.key";
const SESSIONS: &str = "sessions";
const BUILDS: &str = "builds";
/// While this stands in a state directory a restore is half done, and no server starts on it.
pub(crate) const MARK: &str = "restoring";

/// What a copy says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub form: u32,
    /// The version of the program that took it.
    pub hotbed: String,
    /// The version of the database's schema.
    pub schema: u32,
    pub taken_at: Timestamp,
    pub files: Vec<FileEntry>,
}

/// One file of a copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// From the state directory.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// In hexadecimal.
    pub sha256: String,
}

impl Manifest {
    /// Bytes of all files.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|f| f.size).sum()
    }
}

/// What a copy may hold, and nothing else: a name is never followed out of the state directory.
fn is_known(path: &str) -> bool {
    let plain = |name: &str, end: &str| {
        name.strip_suffix(end).is_some_and(|id| {
            !id.is_empty() && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        })
    };
    match path.split_once('/') {
        None => matches!(path, DATABASE | JOURNAL | KEY),
        Some((SESSIONS, name)) => plain(name, ".db"),
        Some((BUILDS, name)) => plain(name, ".log"),
        Some(_) => false,
    }
}

/// Refuses to go on where a restore was interrupted.
pub(crate) fn refuse_half_restored(dir: &Path) -> Result<()> {
    if !dir.join(MARK).exists() {
        return Ok(());
    }
    Err(Error::conflict(format!(
        "a restore into {} was interrupted: run `hotbed restore FILE --replace` again",
        dir.display()
    )))
}

/// A directory for what is on its way, removed with this.
struct Staging(PathBuf);

impl Staging {
    fn new(dir: &Path, purpose: &str) -> Result<Self> {
        let path = dir.join(format!(".{purpose}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        crate::files::private_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Nothing can be done about one that stays; it is named for what it is.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::is_known;

    #[test]
    fn names_stay_inside() {
        for good in ["hotbed.db", "api.key", "sessions/ses_01a1.db", "builds/bld_01a1.log"] {
            assert!(is_known(good), "{good}");
        }
        for bad in [
            "../hotbed.db",
            "/etc/passwd",
            "sessions/../api.key",
            "sessions/.db",
            "sessions/a/b.db",
            "run/x",
            "builds/bld_1.db",
            "",
            "sessions",
            "manifest.json/x",
            "sessions/ses_1.db/",
            "sessions/SES.db",
        ] {
            assert!(!is_known(bad), "{bad}");
        }
    }
}
