//! Keeps what a session will read first in the page cache: git's own files of the tree, then the tree from the top.
//!
//! It only asks the kernel to have the pages, and copies nothing. The files of an image are the same to all of its
//! sandboxes on a host, so one of them in turn is enough; what a sandbox changed is its own.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use domain::wire::{KeepWarm, KeptWarm};
use rustix::fs::{Advice, fadvise};

/// What every command of git reads, before the rest.
const FIRST: [&str; 4] = [".git/HEAD", ".git/index", ".git/config", ".git/packed-refs"];
/// Entries of directories that are looked at, at most.
const ENTRIES: usize = 50_000;

/// Up to the limits of the request; never an error, because a file that can't be read is simply cold.
pub fn run(workspace: &Path, request: &KeepWarm) -> KeptWarm {
    let mut round = Round {
        until: Instant::now() + Duration::from_millis(request.max_ms),
        left: request.max_bytes,
        kept: KeptWarm::default(),
    };
    for name in FIRST {
        round.touch(&workspace.join(name));
    }
    round.walk(workspace.join(".git/objects/pack"));
    round.walk(workspace.to_owned());
    round.kept
}

struct Round {
    until: Instant,
    left: u64,
    kept: KeptWarm,
}

impl Round {
    fn is_over(&self) -> bool {
        self.left == 0 || Instant::now() >= self.until
    }

    /// Level by level, so that a deep directory doesn't keep the rest waiting.
    fn walk(&mut self, top: PathBuf) {
        let mut dirs = VecDeque::from([top]);
        let mut seen = 0;
        while let Some(dir) = dirs.pop_front() {
            let Ok(entries) = fs::read_dir(&dir) else { continue };
            for entry in entries.flatten() {
                seen += 1;
                if seen > ENTRIES || self.is_over() {
                    return;
                }
                // Of the entry itself: a link is not followed.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && entry.file_name() != ".git" => dirs.push_back(entry.path()),
                    Ok(kind) if kind.is_file() => self.touch(&entry.path()),
                    _ => {}
                }
            }
        }
    }

    fn touch(&mut self, path: &Path) {
        // Looking at it leaves no trace in it.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME;
        let Ok(file) = File::options().read(true).custom_flags(flags).open(path) else { return };
        let Ok(meta) = file.metadata() else { return };
        let bytes = meta.size().min(self.left);
        // No length would be all of it.
        if bytes > 0
            && meta.is_file()
            && fadvise(&file, 0, std::num::NonZeroU64::new(bytes), Advice::WillNeed).is_ok()
        {
            self.left -= bytes;
            self.kept.files += 1;
            self.kept.bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_within_its_limits_and_its_tree() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![b'x'; bytes]).unwrap();
        };
        write(".git/HEAD", 10);
        write(".git/objects/pack/a.pack", 1000);
        write(".git/hooks/never", 7);
        write("src/deep/er/lib.rs", 100);
        write("empty", 0);
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let limits = |max_bytes| KeepWarm { max_bytes, max_ms: 60_000 };
        assert_eq!(run(dir.path(), &limits(1 << 20)), KeptWarm { files: 3, bytes: 1110 });
        assert_eq!(run(dir.path(), &limits(500)), KeptWarm { files: 2, bytes: 500 });
        assert_eq!(
            run(dir.path(), &KeepWarm { max_bytes: 1 << 20, max_ms: 0 }).files,
            1,
            "what git reads first"
        );
        assert_eq!(run(&dir.path().join("nothing"), &limits(1)), KeptWarm::default());
    }
}
