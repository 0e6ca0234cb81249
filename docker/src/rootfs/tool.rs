//! The program that makes a root filesystem: found, run in a process group of its own, listened to, and ended
//! with everything it started.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use domain::{Error, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;

use super::Progress;
use super::sources::Sources;

/// Lines of the tool's output that an error holds.
const TAIL: usize = 20;
/// How long the tool may take to tidy up when it is told to end.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    Mmdebstrap,
    Debootstrap,
}

impl Tool {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mmdebstrap => "mmdebstrap",
            Self::Debootstrap => "debootstrap",
        }
    }

    pub(super) fn find() -> Result<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let there = |tool: &Self| std::env::split_paths(&path).any(|dir| dir.join(tool.name()).is_file());
        [Self::Mmdebstrap, Self::Debootstrap].into_iter().find(there).ok_or_else(|| {
            Error::permanent("a base of packages needs mmdebstrap (or debootstrap), and neither is installed")
        })
    }
}

pub(super) struct Job<'a> {
    pub(super) tool: Tool,
    pub(super) suite: &'a str,
    pub(super) include: &'a BTreeSet<String>,
    pub(super) sources: &'a Sources,
    /// An empty directory; what is in it afterwards is the caller's to remove.
    pub(super) work: &'a Path,
}

pub(super) enum Failure {
    Io(io::Error),
    Timeout,
    Tool { status: String, tail: Vec<String> },
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

/// Documents that nobody reads in a sandbox. Directories stay, because some packages link into them.
const LEFT_OUT: [&str; 6] = [
    "path-exclude=/usr/share/man/*/*",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/locale/*/LC_MESSAGES/*.mo",
];

impl Job<'_> {
    /// Answers the tar file, inside the work directory.
    pub(super) async fn run(&self, deadline: Duration, progress: Progress) -> Result<PathBuf, Failure> {
        let until = tokio::time::Instant::now() + deadline;
        let sources = self.work.join("hotbed.sources");
        tokio::fs::write(&sources, &self.sources.deb822).await?;
        let tar = self.work.join("rootfs.tar");
        let include = self.include.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self.tool {
            Tool::Mmdebstrap => {
                let mut command = self.command("mmdebstrap");
                command.args(["--variant=minbase", "--format=tar"]).arg(format!("--include={include}"));
                command.arg("--aptopt=Acquire::Languages \"none\"");
                command.args(LEFT_OUT.map(|option| format!("--dpkgopt={option}")));
                for key in &self.sources.keys {
                    // Before the first update, and kept: the sandbox's own apt wants them too.
                    let key = key.display();
                    command.arg(format!("--setup-hook=mkdir -p \"$1$(dirname '{key}')\""));
                    command.arg(format!("--setup-hook=upload '{key}' '{key}'"));
                }
                command.arg("--").arg(self.suite).arg(&tar).arg(&sources);
                run(command, until, progress).await?;
            }
            Tool::Debootstrap => {
                let root = self.work.join("root");
                // Its mounts go with it, even when it is killed.
                let mut command = self.command("unshare");
                command.args(["--mount", "--propagation=private", "debootstrap", "--variant=minbase"]);
                command.arg(format!("--include={include}"));
                let (address, components) = &self.sources.first;
                if !components.is_empty() {
                    command.arg(format!("--components={}", components.join(",")));
                }
                if let Some(key) = self.sources.keys.first() {
                    command.arg(format!("--keyring={}", key.display()));
                }
                // It knows no `--`; the names are checked.
                command.arg(self.suite).arg(&root).arg(address);
                run(command, until, progress.clone()).await?;
                tokio::fs::write(root.join("etc/apt/sources.list"), "").await?;
                tokio::fs::copy(&sources, root.join("etc/apt/sources.list.d/hotbed.sources")).await?;
                let options = LEFT_OUT.join("\n") + "\n";
                tokio::fs::write(root.join("etc/dpkg/dpkg.cfg.d/99hotbed"), options).await?;
                let options = "Acquire::Languages \"none\";\n";
                tokio::fs::write(root.join("etc/apt/apt.conf.d/99hotbed"), options).await?;
                for key in &self.sources.keys {
                    let to = root.join(key.strip_prefix("/").unwrap_or(key));
                    if let Some(dir) = to.parent() {
                        tokio::fs::create_dir_all(dir).await?;
                    }
                    tokio::fs::copy(key, to).await?;
                }
                let mut command = self.command("tar");
                command.arg("--numeric-owner").args(
                    // What mmdebstrap does not even unpack, and what it cleans away.
                    [
                        "usr/share/man/*/*",
                        "usr/share/info/*",
                        "usr/share/lintian/*",
                        "usr/share/locale/*/LC_MESSAGES/*.mo",
                        "var/cache/apt/archives/*.deb",
                        "var/lib/apt/lists/*",
                    ]
                    .map(|left_out| format!("--exclude=./{left_out}")),
                );
                command.arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".");
                run(command, until, progress).await?;
            }
        }
        Ok(tar)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C.UTF-8")
            // What it leaves behind when it is killed goes with the work directory.
            .env("TMPDIR", self.work)
            .current_dir(self.work)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        command
    }
}

/// Ends a process group when it is dropped.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            // It may have ended already.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

async fn run(mut command: Command, until: tokio::time::Instant, progress: Progress) -> Result<(), Failure> {
    let mut child = command.spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut group = Group(pid);
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let tail = std::sync::Mutex::new(VecDeque::with_capacity(TAIL));
    let hear = |line: String| {
        let line: String = line.trim_end().chars().take(400).collect();
        if line.is_empty() {
            return;
        }
        progress(&line);
        let mut tail = tail.lock().unwrap_or_else(|e| e.into_inner());
        if tail.len() == TAIL {
            tail.pop_front();
        }
        tail.push_back(line);
    };
    let mut listening = std::pin::pin!(async { tokio::join!(listen(out, &hear), listen(err, &hear)) });
    if tokio::time::timeout_at(until, &mut listening).await.is_err() {
        // The leader is not waited for before the last signal, so that the group's id stays ours.
        group.signal(Signal::TERM);
        let _ = tokio::time::timeout(GRACE, &mut listening).await;
        group.signal(Signal::KILL);
        let _ = tokio::time::timeout(GRACE, child.wait()).await;
        group.0 = None;
        return Err(Failure::Timeout);
    }
    let Ok(status) = tokio::time::timeout_at(until, child.wait()).await else {
        // It shut its output and lives on.
        return Err(Failure::Timeout);
    };
    let status = status?;
    // The group's id is free again.
    group.0 = None;
    if status.success() {
        return Ok(());
    }
    let tail = std::mem::take(&mut *tail.lock().unwrap_or_else(|e| e.into_inner()));
    Err(Failure::Tool { status: status.to_string(), tail: tail.into() })
}

/// Lines, or what there is of one, until the end; bytes that are no text don't end it.
async fn listen(stream: Option<impl AsyncRead + Unpin>, hear: &impl Fn(String)) {
    let Some(stream) = stream else { return };
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while let Ok(1..) = stream.read_until(b'\n', &mut line).await {
        hear(String::from_utf8_lossy(&line).into_owned());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        command
    }

    fn soon() -> tokio::time::Instant {
        tokio::time::Instant::now() + Duration::from_secs(20)
    }

    #[tokio::test]
    async fn a_failure_holds_the_last_lines() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let into = heard.clone();
        let progress: Progress = Arc::new(move |line| into.lock().unwrap().push(line.to_owned()));
        let script = "i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; exit 3";
        let Err(Failure::Tool { status, tail }) = run(shell(script), soon(), progress).await else {
            panic!("it should fail")
        };
        assert!(status.contains('3'), "{status}");
        assert_eq!((tail.len(), tail[0].as_str(), tail[19].as_str()), (20, "line 10", "line 29"));
        assert_eq!(heard.lock().unwrap().len(), 30);
    }

    #[tokio::test]
    async fn past_the_deadline_the_whole_group_ends() {
        let pids = Arc::new(Mutex::new(Vec::new()));
        let into = pids.clone();
        let progress: Progress =
            Arc::new(move |line| into.lock().unwrap().push(line.parse::<i32>().unwrap()));
        let until = tokio::time::Instant::now() + Duration::from_millis(500);
        let script = "sh -c 'echo $$; exec sleep 600' & wait";
        assert!(matches!(run(shell(script), until, progress).await, Err(Failure::Timeout)));
        let pid = pids.lock().unwrap()[0];
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z"),
            Err(_) => true,
        };
        let bound = soon();
        while !gone() {
            assert!(tokio::time::Instant::now() < bound, "{pid} lives on");
            tokio::task::yield_now().await;
        }
    }
}
