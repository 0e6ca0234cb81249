//! How the agent begins: its command line, its boot file, and what it does to its own process.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use domain::wire::{BOOT_PATH, Boot, MIN_PROTOCOL, PROTOCOL};
use domain::{Error, Result};

use crate::ask::{self, Ask};

pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Args {
    Run {
        boot: PathBuf,
    },
    Version,
    /// A command of the session asks Hotbed for something.
    Ask(Ask),
}

pub fn version() -> String {
    format!("hotbed-agent {VERSION} protocol {PROTOCOL} min {MIN_PROTOCOL}")
}

pub fn parse_args(args: impl IntoIterator<Item = String>) -> Result<Args> {
    let mut boot = PathBuf::from(BOOT_PATH);
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--version" | "-V" => return Ok(Args::Version),
            "pr" => return ask::parse(args).map(Args::Ask),
            "--boot" => match args.next() {
                Some(file) => boot = file.into(),
                None => return Err(Error::invalid("--boot needs a file")),
            },
            other => {
                return Err(Error::invalid(format!(
                    "argument `{other}` is not known: expected --version, --boot FILE or pr"
                )));
            }
        }
    }
    Ok(Args::Run { boot })
}

/// The file that this agent was started with.
static FILE: OnceLock<PathBuf> = OnceLock::new();

/// The token as it is now. Hotbed writes a new one before it starts a sandbox again, and may do so just when the
/// sandbox has come up by an earlier order: the agent that runs then is the present incarnation all the same.
pub fn current_token(boot: &Boot) -> String {
    let now = FILE.get().and_then(|path| read(path).ok()).filter(|now| now.sandbox == boot.sandbox);
    now.map_or_else(|| boot.token.clone(), |now| now.token)
}

/// Reads what this agent is told, and remembers where.
pub fn begin(path: PathBuf) -> Result<Boot> {
    let boot = read(&path)?;
    let _ = FILE.set(path);
    Ok(boot)
}

pub fn read(path: &Path) -> Result<Boot> {
    let what = || format!("read the boot file {}", path.display());
    let text = std::fs::read(path).map_err(|e| Error::not_found(what()).caused_by(e))?;
    let boot: Boot = serde_json::from_slice(&text).map_err(|e| Error::invalid(what()).caused_by(e))?;
    if !boot.workspace.starts_with('/') {
        return Err(Error::invalid(format!(
            "workspace `{}` in the boot file is not absolute",
            boot.workspace
        )));
    }
    Ok(boot)
}

/// The environment of everything that runs here: the image's, and the boot file's over it.
pub fn environment(boot: &Boot) -> BTreeMap<String, String> {
    let mut env: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
        .filter(|(k, _)| !k.starts_with("HOTBED_")) // ours to set, and nothing of an image's build
        .collect();
    env.extend(boot.env.clone());
    let path = env.entry("PATH".into()).or_insert_with(|| crate::spawn::DEFAULT_PATH.into());
    // So that `hotbed-agent` is found, after everything else.
    if let Some(dir) = std::env::current_exe().ok().as_deref().and_then(Path::parent) {
        *path = format!("{path}:{}", dir.display());
    }
    env.entry("HOME".into()).or_insert_with(|| "/root".into());
    env
}

/// Makes this process one that orphans come home to and that others in the sandbox can't look into: the token is
/// in its memory.
pub fn prepare_process() {
    // SAFETY: no memory is involved. Both may fail without harm: a first process reaps anyway.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        if std::process::id() != 1 {
            libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| parse_args(args.iter().map(|s| (*s).to_owned()));
        assert_eq!(parse(&[]).unwrap(), Args::Run { boot: BOOT_PATH.into() });
        assert_eq!(parse(&["--boot", "x"]).unwrap(), Args::Run { boot: "x".into() });
        assert_eq!(parse(&["--version"]).unwrap(), Args::Version);
        assert_eq!(parse(&["pr", "list"]).unwrap(), Args::Ask(Ask::List));
        assert!(parse(&["--boot"]).is_err());
        assert!(parse(&["x"]).is_err());
    }
}
