//! Runs the git program: with an environment that holds no surprise, in a process group of its own, within a
//! deadline. Nothing that is started here outlives the value that stands for it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use domain::{Error, Result};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

/// Where a hook asks, and where it is answered.
pub(crate) const ASK: i32 = 3;
pub(crate) const ANSWER: i32 = 4;

/// How long a process group may take to end after SIGTERM before it gets SIGKILL. Git removes its lock files and
/// half-written packs on SIGTERM, so it is worth the wait.
const GRACE: Duration = Duration::from_secs(2);

/// The most of stderr and stdout that is kept, in bytes; of stderr the end, of stdout the beginning.
const KEPT: usize = 64 * 1024;

/// A git command to be. Configuration goes through the environment (`GIT_CONFIG_COUNT`), where other users of
/// the machine can't read it, unlike the command line.
#[derive(Debug)]
pub(crate) struct Git {
    command: Command,
    config: Vec<(String, String)>,
}

impl Git {
    pub(crate) fn new(program: &Path) -> Self {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if interferes(&name) {
                command.env_remove(name);
            }
        }
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            // Error texts are read by `failure`, and they are translated otherwise.
            .env("LC_ALL", "C")
            .env_remove("LANGUAGE")
            .env_remove("SSH_ASKPASS")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        let config = [
            ("gc.auto", "0"),
            ("maintenance.auto", "false"),
            ("receive.autogc", "false"),
            ("protocol.version", "2"),
            ("core.askPass", ""),
            ("credential.interactive", "false"),
            ("advice.detachedHead", "false"),
        ];
        Self { command, config: config.map(|(k, v)| (k.to_owned(), v.to_owned())).into() }
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn config(mut self, key: &str, value: impl Into<String>) -> Self {
        self.config.push((key.to_owned(), value.into()));
        self
    }

    /// The repository it works in, trusted whoever owns the directory.
    pub(crate) fn repository(self, dir: &Path) -> Self {
        let path = dir.to_string_lossy().into_owned();
        self.env("GIT_DIR", dir).config("safe.directory", path)
    }

    /// With these two ends of pipes as descriptors [`ASK`] and [`ANSWER`], for it and whatever it starts.
    pub(crate) fn asking(mut self, ask: OwnedFd, answer: OwnedFd) -> Result<Self> {
        let mappings =
            [(ask, ASK), (answer, ANSWER)].map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd });
        let mapped = self.command.fd_mappings(mappings.into());
        mapped.map_err(|e| Error::permanent("hand pipes to git").caused_by(e))?;
        Ok(self)
    }

    /// With a pipe to its stdin.
    pub(crate) fn piped_stdin(mut self) -> Self {
        self.command.stdin(Stdio::piped());
        self
    }

    pub(crate) fn spawn(mut self) -> Result<Running> {
        self.command.env("GIT_CONFIG_COUNT", self.config.len().to_string());
        for (i, (key, value)) in self.config.iter().enumerate() {
            self.command.env(format!("GIT_CONFIG_KEY_{i}"), key).env(format!("GIT_CONFIG_VALUE_{i}"), value);
        }
        let child = self.command.spawn().map_err(|e| Error::unavailable("start git").caused_by(e))?;
        let group = child.id().and_then(|id| Pid::from_raw(id as i32));
        Ok(Running { child: Some(child), group })
    }

    /// Runs it to its end. A deadline that passes is a `Timeout` in the words of `doing`, and the whole process
    /// group has ended by then. An exit status other than 0 is not an error here.
    pub(crate) async fn output(self, deadline: Duration, doing: &str) -> Result<Output> {
        let mut running = self.spawn()?;
        let (mut stdout, mut stderr) = (running.stdout(), running.stderr());
        let all = async {
            let (out, err) = tokio::join!(head(&mut stdout), tail(&mut stderr));
            (running.wait().await, out, err)
        };
        // Bound to a name so that the borrow of `running` ends with the match's scrutinee.
        let finished = tokio::time::timeout(deadline, all).await;
        match finished {
            Ok((status, stdout, stderr)) => {
                let status = status.map_err(|e| Error::permanent(doing.to_owned()).caused_by(e))?;
                Ok(Output { status, stdout, stderr })
            }
            Err(_) => {
                running.stop().await;
                Err(Error::timeout(format!("{doing}: not done within {}", seconds(deadline))))
            }
        }
    }
}

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A process group that was started here. Dropped before its end, it is ended.
#[derive(Debug)]
pub(crate) struct Running {
    /// `None` once it has been waited for, or handed to the task that ends it.
    child: Option<Child>,
    group: Option<Pid>,
}

impl Running {
    pub(crate) fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.as_mut().and_then(|c| c.stdin.take())
    }

    pub(crate) fn stdout(&mut self) -> Option<ChildStdout> {
        self.child.as_mut().and_then(|c| c.stdout.take())
    }

    pub(crate) fn stderr(&mut self) -> Option<ChildStderr> {
        self.child.as_mut().and_then(|c| c.stderr.take())
    }

    pub(crate) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let Some(child) = self.child.as_mut() else {
            return Err(std::io::Error::other("it has been waited for already"));
        };
        let status = child.wait().await?;
        self.child = None;
        Ok(status)
    }

    /// Ends the group: SIGTERM to all, and SIGKILL to what is left when the leader has ended or the grace is over.
    /// Returns when the leader has been reaped.
    pub(crate) async fn stop(&mut self) {
        let (Some(mut child), group) = (self.child.take(), self.group) else { return };
        end(&mut child, group).await;
    }
}

async fn end(child: &mut Child, group: Option<Pid>) {
    signal(child, group, Signal::TERM);
    // The leader is watched without being reaped: as long as it is not, its number is the group's and nobody
    // else's, and what it left behind can be ended too.
    let watched = async {
        while is_running(child) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(GRACE, watched).await;
    signal(child, group, Signal::KILL);
    let _ = child.wait().await;
}

fn is_running(child: &Child) -> bool {
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id as i32)) else { return false };
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    matches!(waitid(WaitId::Pid(pid), look), Ok(None))
}

fn signal(child: &Child, group: Option<Pid>, signal: Signal) {
    // `id()` is `None` after the child was reaped: then the number may belong to somebody else.
    if let (Some(_), Some(group)) = (child.id(), group) {
        let _ = kill_process_group(group, signal);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let group = self.group;
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => {
                signal(&child, group, Signal::TERM);
                runtime.spawn(async move { end(&mut child, group).await });
            }
            Err(_) => signal(&child, group, Signal::KILL),
        }
    }
}

/// The first bytes of a stream that is read to its end.
async fn head<R: AsyncRead + Unpin>(from: &mut Option<R>) -> String {
    let Some(from) = from else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        let room = KEPT.saturating_sub(kept.len()).min(n);
        kept.extend_from_slice(&buffer[..room]);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// The last bytes of a stream that is read to its end.
pub(crate) async fn tail<R: AsyncRead + Unpin>(from: &mut Option<R>) -> String {
    let Some(from) = from else { return String::new() };
    let mut kept = Vec::new();
    let mut buffer = [0; 8192];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// Variables that would turn a command to another repository, to other configuration than the operator's files,
/// or make it print secrets. What says how to reach the network (proxies, certificates, ssh) stays.
fn interferes(name: &OsStr) -> bool {
    const KEPT: [&str; 9] = [
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_EXEC_PATH",
        "GIT_SSH",
        "GIT_SSH_COMMAND",
        "GIT_SSH_VARIANT",
        "GIT_PROXY_COMMAND",
        "GIT_TEMPLATE_DIR",
    ];
    match name.to_str() {
        Some(name) => {
            name.starts_with("GIT_")
                && !name.starts_with("GIT_SSL_")
                && !name.starts_with("GIT_PROXY_SSL_")
                && !KEPT.contains(&name)
        }
        None => false,
    }
}

pub(crate) fn seconds(of: Duration) -> String {
    if of.subsec_nanos() == 0 { format!("{} s", of.as_secs()) } else { format!("{:.1} s", of.as_secs_f64()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_reaches_the_network_is_inherited() {
        for kept in ["PATH", "HOME", "https_proxy", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "GIT_SSH_COMMAND"]
        {
            assert!(!interferes(OsStr::new(kept)), "{kept}");
        }
        for gone in ["GIT_DIR", "GIT_WORK_TREE", "GIT_CONFIG_COUNT", "GIT_TRACE_CURL", "GIT_OBJECT_DIRECTORY"]
        {
            assert!(interferes(OsStr::new(gone)), "{gone}");
        }
    }
}
