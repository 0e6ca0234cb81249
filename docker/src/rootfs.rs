//! Base filesystems without a registry: a tar file made from a distribution's packages, by mmdebstrap (or
//! debootstrap where only that is there), from the apt sources of this machine.
//!
//! A file is named by the fingerprint of what was asked for, is there whole or not at all, and is made once
//! however many ask. How old a cached file may become is left to the caller.

mod mounts;
mod sources;
mod tool;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use domain::{Base, Error, ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use crate::mark::hex;
use tool::{Failure, Job, Tool};

/// Grows when the same packages would give another filesystem.
const FORMAT: u32 = 1;
/// How the name of a work directory begins.
const WORK: &str = ".work-";
/// What the agent and the image builder always need.
const ALWAYS: [&str; 2] = ["ca-certificates", "git"];
/// The longest a build may take.
pub const BUILD_DEADLINE: Duration = Duration::from_secs(15 * 60);

pub use domain::ports::Progress;

/// A root filesystem in a tar file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    pub tar: PathBuf,
    /// Of suite, packages, architecture, tool and our own format: 64 hexadecimal digits. Names the base in the
    /// engine (`CaptureSpec::name`).
    pub fingerprint: String,
}

/// A directory of root filesystems. Of one process: what lies about in it when the first is made is a crash's.
#[derive(Debug)]
pub struct RootfsCache {
    dir: PathBuf,
    deadline: Duration,
    /// One build at a time: it is bound by the disk and the network, and who waits may find it done.
    building: Mutex<()>,
    swept: AtomicBool,
}

/// What is asked for, checked: nothing in it can pass for an option of the tool.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    suite: String,
    include: BTreeSet<String>,
}

impl RootfsCache {
    /// The directory is made when the first filesystem is.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self::with_deadline(dir, BUILD_DEADLINE)
    }

    pub fn with_deadline(dir: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { dir: dir.into(), deadline, building: Mutex::new(()), swept: AtomicBool::new(false) }
    }

    /// The root filesystem of a [`Base::Packages`], made if it is not there; `git` and `ca-certificates` are
    /// always in it. Dropping the call ends the tool.
    ///
    /// Errors: `Invalid` for another kind of base, a name that is none, or a package that does not exist;
    /// `Unavailable` when the package archive does not answer; `Exhausted` when the disk is full; `Timeout`;
    /// `Permanent` when no tool is installed or it failed, with the last lines that it printed.
    pub async fn build(&self, base: &Base, progress: Progress) -> Result<Rootfs> {
        let wanted = Wanted::of(base)?;
        let tool = Tool::find()?;
        let fingerprint = wanted.fingerprint(tool);
        let tar = self.dir.join(format!("{fingerprint}.tar"));
        let done = Rootfs { tar: tar.clone(), fingerprint: fingerprint.clone() };
        let there = || tokio::fs::try_exists(&tar);
        let what = || format!("make a root filesystem of {} in {}", wanted.suite, self.dir.display());
        if there().await.map_err(|e| io_error(what(), e))? {
            return Ok(done);
        }
        let _building = self.building.lock().await;
        if there().await.map_err(|e| io_error(what(), e))? {
            return Ok(done);
        }
        self.sweep().await;
        // A name of its own: the directory of a build that was given up may still be on its way out.
        let work = self.dir.join(format!("{WORK}{}", domain::BuildId::new()));
        tokio::fs::create_dir_all(&work).await.map_err(|e| io_error(what(), e))?;
        let cleaner = Cleaner(work.clone());
        let made = self.make(&wanted, tool, &work, &tar, progress).await;
        cleaner.disarm();
        if let Err(e) = clear(&work).await {
            tracing::warn!(error = %e, dir = %work.display(), "a work directory stays");
        }
        made?;
        Ok(done)
    }

    async fn make(
        &self,
        wanted: &Wanted,
        tool: Tool,
        work: &Path,
        tar: &Path,
        progress: Progress,
    ) -> Result<()> {
        let what = || format!("make a root filesystem of {} in {}", wanted.suite, self.dir.display());
        let sources = sources::of_this_machine(&wanted.suite)?;
        let job = Job { tool, suite: &wanted.suite, include: &wanted.include, sources: &sources, work };
        let made = job.run(self.deadline, progress).await.map_err(|failure| match failure {
            Failure::Io(e) => io_error(what(), e),
            Failure::Timeout => Error::timeout(format!("{}: not done within {:?}", what(), self.deadline)),
            Failure::Tool { status, tail } => tool_error(&what(), tool, &status, &tail),
        })?;
        tokio::fs::rename(&made, tar).await.map_err(|e| io_error(what(), e))
    }

    /// Removes, once, what a crash has left, with what its tool had mounted there. What can't be removed is in nobody's
    /// way. To be called at the start, before anything is built; a build does it itself, else.
    pub async fn sweep(&self) {
        if self.swept.swap(true, Ordering::Relaxed) {
            return;
        }
        let Ok(mut entries) = tokio::fs::read_dir(&self.dir).await else { return };
        while let Ok(Some(entry)) = entries.next_entry().await {
            if entry.file_name().to_string_lossy().starts_with(WORK)
                && let Err(e) = clear(&entry.path()).await
            {
                tracing::warn!(error = %e, dir = %entry.path().display(), "an old work directory stays");
            }
        }
    }
}

impl Wanted {
    fn of(base: &Base) -> Result<Self> {
        let Base::Packages { suite, include } = base else {
            return Err(Error::invalid("a root filesystem is made of packages: expected `packages`"));
        };
        let plain = |s: &str, more: &[u8]| {
            s.len() <= 100
                && s.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
                && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b))
        };
        if !plain(suite, b"-.") {
            return Err(Error::invalid(format!(
                "suite `{suite}`: expected the name of a release, such as `bookworm`"
            )));
        }
        // `:` for an architecture, as in `libc6:i386`.
        if let Some(bad) = include.iter().find(|name| !plain(name, b"+-.:")) {
            return Err(Error::invalid(format!("package `{bad}`: expected the name of a package")));
        }
        let include = include.iter().map(String::as_str).chain(ALWAYS).map(str::to_owned).collect();
        Ok(Self { suite: suite.clone(), include })
    }

    fn fingerprint(&self, tool: Tool) -> String {
        let mut hash = Sha256::new();
        let arch = std::env::consts::ARCH;
        hash.update(format!("rootfs {FORMAT}\n{}\n{arch}\n{}\n", tool.name(), self.suite));
        for package in &self.include {
            hash.update(format!("{package}\n"));
        }
        hex(&hash.finalize())
    }
}

/// Removes the work directory of a build that was given up.
struct Cleaner(PathBuf);

impl Cleaner {
    fn disarm(mut self) {
        self.0 = PathBuf::new();
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        let work = std::mem::take(&mut self.0);
        if work.as_os_str().is_empty() {
            return;
        }
        // Off the runtime where there is one, since it may be hundreds of megabytes.
        let remove = move || {
            if let Err(e) = clear_now(&work) {
                tracing::warn!(error = %e, dir = %work.display(), "a work directory stays");
            }
        };
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(remove)),
            Err(_) => remove(),
        }
    }
}

async fn clear(work: &Path) -> io::Result<()> {
    let work = work.to_owned();
    tokio::task::spawn_blocking(move || clear_now(&work)).await?
}

/// Not while anything is mounted below: a killed tool may have left the machine's own `/dev` there.
fn clear_now(work: &Path) -> io::Result<()> {
    let full = std::fs::canonicalize(work).unwrap_or_else(|_| work.to_owned());
    mounts::take_down(&full)?;
    if let Some(mount) = mounts::below(&full).pop() {
        return Err(io::Error::other(format!("{} is still mounted", mount.display())));
    }
    match std::fs::remove_dir_all(work) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn io_error(context: String, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Permanent,
    };
    Error::new(kind, context).caused_by(error)
}

fn tool_error(what: &str, tool: Tool, status: &str, tail: &[String]) -> Error {
    let text = tail.join("\n");
    let any = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let kind = if any(&["No space left on device", "Disk quota exceeded"]) {
        ErrorKind::Exhausted
    } else if any(&["Unable to locate package", "Couldn't find these debs", "has no installation candidate"])
    {
        ErrorKind::Invalid
    } else if any(&[
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Unable to connect",
        "Connection timed out",
        "Connection failed",
        "503  Service Unavailable",
        "Failed getting release file",
    ]) {
        ErrorKind::Unavailable
    } else {
        ErrorKind::Permanent
    };
    Error::new(kind, format!("{what}: {} ended with {status}; its last lines:\n{text}", tool.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(suite: &str, include: &[&str]) -> Base {
        Base::Packages { suite: suite.into(), include: include.iter().map(|s| (*s).to_owned()).collect() }
    }

    #[test]
    fn the_fingerprint_is_of_what_is_asked_for() {
        let of = |suite, include: &[&str]| {
            Wanted::of(&packages(suite, include)).unwrap().fingerprint(Tool::Mmdebstrap)
        };
        let one = of("bookworm", &["python3", "git"]);
        assert_eq!(one.len(), 64);
        assert_eq!(one, of("bookworm", &["git", "python3", "python3"]), "order and repetition mean nothing");
        assert_eq!(of("bookworm", &[]), of("bookworm", &["git", "ca-certificates"]));
        assert_ne!(one, of("bookworm", &[]));
        assert_ne!(one, of("trixie", &["python3", "git"]));
        let other = Wanted::of(&packages("bookworm", &["python3"])).unwrap().fingerprint(Tool::Debootstrap);
        assert_ne!(one, other);
    }

    #[test]
    fn a_name_can_not_pass_for_an_option() {
        for bad in ["", "--help", "a b", "a,b", "A", "a/../b", "a;b"] {
            assert_eq!(
                Wanted::of(&packages("bookworm", &[bad])).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{bad}"
            );
            assert_eq!(Wanted::of(&packages(bad, &[])).unwrap_err().kind(), ErrorKind::Invalid, "{bad}");
        }
        assert!(
            Wanted::of(&packages("bookworm", &["g++", "libstdc++6", "libc6:i386", "python3.11"])).is_ok()
        );
        assert!(Wanted::of(&Base::Reference("debian".into())).is_err());
    }

    #[test]
    fn failures_of_the_tool_have_kinds() {
        let kind =
            |line: &str| tool_error("x", Tool::Mmdebstrap, "exit status: 25", &[line.to_owned()]).kind();
        assert_eq!(kind("E: Unable to locate package nonesuch"), ErrorKind::Invalid);
        assert_eq!(kind("Temporary failure resolving 'x'"), ErrorKind::Unavailable);
        assert_eq!(kind("tar: No space left on device"), ErrorKind::Exhausted); // F41
        assert_eq!(kind("E: whatever"), ErrorKind::Permanent);
    }
}
