//! `Co-authored-by` trailers, where several people prompt: git's hooks, taken over while that is so.
//!
//! Git reads hooks from one directory. While a session has co-authors it is one of Hotbed's, in which each hook is this
//! program under the hook's name: it runs what the repository would have run, from where it would have run it, and
//! `prepare-commit-msg` then adds the trailers. A repository whose tools set `core.hooksPath` (husky and its kind) keeps its hooks.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use domain::{Error, Result};

/// Below the directory of the session.
pub const DIR: &str = "hooks";
pub const CO_AUTHORS: &str = "co-authors";

const PREPARE: &str = "prepare-commit-msg";
/// All that git runs in a repository that is worked in.
const NAMES: [&str; 17] = [
    "applypatch-msg",
    "commit-msg",
    "post-applypatch",
    "post-checkout",
    "post-commit",
    "post-index-change",
    "post-merge",
    "post-rewrite",
    "pre-applypatch",
    "pre-auto-gc",
    "pre-commit",
    "pre-merge-commit",
    "pre-push",
    "pre-rebase",
    PREPARE,
    "push-to-checkout",
    "reference-transaction",
];

/// Makes the directory of hooks, once.
pub fn install(dir: &Path) -> io::Result<()> {
    if dir.join(PREPARE).exists() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let program = std::env::current_exe()?;
    for name in NAMES {
        match std::os::unix::fs::symlink(&program, dir.join(name)) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

/// The hook that this process was started as, if it was: by the name in its first argument.
pub fn called(program: &Path) -> Option<&'static str> {
    let name = program.file_name()?.to_str()?;
    NAMES.into_iter().find(|known| *known == name)
}

/// Runs the repository's own hook and, of the one that prepares messages, adds the trailers.
pub fn run(name: &str, program: &Path, args: Vec<OsString>) -> Result<ExitCode> {
    let ours = program.parent().unwrap_or(Path::new("/"));
    let theirs = own_hooks(ours)?.join(name);
    let runs = fs::metadata(&theirs).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let failed = |e: io::Error| Error::permanent(format!("run {}", theirs.display())).caused_by(e);
    if name != PREPARE {
        return if runs {
            Err(failed(Command::new(&theirs).args(&args).exec()))
        } else {
            Ok(ExitCode::SUCCESS)
        };
    }
    if runs {
        let status = Command::new(&theirs).args(&args).status().map_err(failed)?;
        if !status.success() {
            return Ok(ExitCode::FAILURE);
        }
    }
    match (args.first(), ours.parent()) {
        (Some(message), Some(session)) => add_trailers(message, &session.join(CO_AUTHORS)),
        _ => Ok(()),
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Where the repository's hooks are, as if ours were not in the way.
fn own_hooks(ours: &Path) -> Result<PathBuf> {
    let said = git(&["config", "--null", "--type=path", "--get-all", "core.hooksPath"])?;
    let last = said.split(|b| *b == 0).filter(|v| !v.is_empty()).map(path_of).rfind(|p| p != ours);
    if let Some(configured) = last {
        return Ok(configured);
    }
    let mut common = git(&["rev-parse", "--git-common-dir"])?;
    if common.last() == Some(&b'\n') {
        common.pop();
    }
    Ok(path_of(&common).join("hooks"))
}

fn path_of(bytes: &[u8]) -> PathBuf {
    OsString::from_vec(bytes.to_vec()).into()
}

/// What git prints; nothing where it knows nothing.
fn git(args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("git").args(args).output();
    output.map(|o| o.stdout).map_err(|e| Error::permanent("run git").caused_by(e))
}

fn add_trailers(message: &OsString, co_authors: &Path) -> Result<()> {
    let Ok(people) = fs::read_to_string(co_authors) else { return Ok(()) };
    let mut git = Command::new("git");
    // One who is named already is not named twice.
    git.args(["interpret-trailers", "--in-place", "--if-exists", "addIfDifferent"]);
    for who in people.lines() {
        git.arg("--trailer").arg(format!("Co-authored-by: {who}"));
    }
    let failed = || Error::permanent("add the co-authors to the message");
    match git.arg(message).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(failed().caused_by(format!("git ended with {status}"))),
        Err(e) => Err(failed().caused_by(e)),
    }
}
