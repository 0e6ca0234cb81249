//! Brings the workspace to a commit with the sandbox's own git, past the write gate, and verifies it.
//!
//! It promises that an answer without an error means HEAD was read back and is the wanted commit (F25), that the
//! gate opens in no other case (F54), that an error says whether the branch is gone, the commit unknown or the
//! time up (F29), and that no git process of a sync outlives it. Git talks to the relay of this agent; it has no
//! credential to leak.

pub mod tree;

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use domain::wire::{SyncMode, SyncReport, SyncRequest};
use domain::{CommitId, Error, Result};
use tokio::io::unix::AsyncFd;

use crate::gate::Gate;
use crate::pipes::{empty_input, out_of_child, read_chunk};
use crate::spawn::{Command, Processes, candidates, group_lives, signal_group};
use tree::{Head, Tree};

/// Lines of git's stderr that an error carries.
const LAST_LINES: usize = 12;
/// Bytes of git's output that are kept.
const OUTPUT: usize = 64 * 1024;

/// Settings of the git of a sync, whatever the image's own configuration says.
const CONFIG: &[(&str, &str)] = &[
    ("safe.directory", "*"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    // Hooks and the file monitor are programs of the repository and would run past the gate.
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    // The image's layers change inode numbers and change times, not content: no reason to read each file again.
    ("core.trustctime", "false"),
    ("core.checkStat", "minimal"),
    // What a sandbox loses in a crash of the machine it loses whole.
    ("core.fsync", "none"),
    // A pack appears whole or not at all, so a killed fetch leaves no commit without its tree.
    ("fetch.unpackLimit", "1"),
    ("fetch.recurseSubmodules", "false"),
    ("submodule.recurse", "false"),
    ("protocol.version", "2"),
    ("credential.helper", ""),
    // The relay is here; a proxy of the sandbox is not the way to it.
    ("http.proxy", ""),
    ("advice.detachedHead", "false"),
];

/// The git of one sandbox.
pub struct Git<'a> {
    pub processes: &'a Processes,
    pub workspace: &'a Path,
    /// What everything in this sandbox gets.
    pub env: &'a BTreeMap<String, String>,
}

struct Output {
    ok: bool,
    stdout: String,
    stderr: String,
}

/// One sync under its deadline.
struct Run<'a> {
    git: &'a Git<'a>,
    request: &'a SyncRequest,
    program: String,
    env: BTreeMap<String, String>,
    deadline: Instant,
    url: String,
}

/// Does what the request says, up to its deadline, and opens the gate if asked to and all is well.
pub async fn run(git: Git<'_>, gate: &Gate, relay_port: u16, request: &SyncRequest) -> Result<SyncReport> {
    let deadline = Instant::now() + Duration::from_millis(request.timeout_ms);
    let program = find_git(git.env)?;
    let mut env = git.env.clone();
    env.extend(
        [("GIT_TERMINAL_PROMPT", "0"), ("GIT_OPTIONAL_LOCKS", "1"), ("LC_ALL", "C")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    // Should the image's environment point git elsewhere.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG"] {
        env.remove(name);
    }
    env.insert("GIT_CONFIG_COUNT".into(), CONFIG.len().to_string());
    for (n, (key, value)) in CONFIG.iter().enumerate() {
        env.insert(format!("GIT_CONFIG_KEY_{n}"), (*key).to_owned());
        env.insert(format!("GIT_CONFIG_VALUE_{n}"), (*value).to_owned());
    }
    let url = format!("http://127.0.0.1:{relay_port}/{}.git", request.repo);
    let run = Run { git: &git, request, program, env, deadline, url };
    let shut = !gate.is_open();
    let report = match request.mode {
        SyncMode::Clone => {
            run.init(shut).await?;
            run.reset(true).await?
        }
        SyncMode::Reset => {
            run.prepare(shut).await?;
            run.reset(false).await?
        }
        SyncMode::Fetch => {
            run.prepare(shut).await?;
            run.fetch_only().await?
        }
    };
    if request.open_gate {
        gate.set(true);
    }
    Ok(report)
}

fn find_git(env: &BTreeMap<String, String>) -> Result<String> {
    let found = candidates("git", env)
        .into_iter()
        .find(|p| rustix::fs::access(p.as_str(), rustix::fs::Access::EXEC_OK).is_ok());
    found.ok_or_else(|| {
        let path = env.get("PATH").map_or(crate::spawn::DEFAULT_PATH, String::as_str);
        Error::permanent(format!("sync needs git, and there is none in the sandbox's PATH ({path})"))
    })
}

impl Run<'_> {
    fn tree(&self) -> Option<Tree> {
        Tree::open(self.git.workspace)
    }

    /// Checks that there is a tree, and removes locks of dead gits: with the gate shut no git of the session can
    /// hold one.
    async fn prepare(&self, shut: bool) -> Result<()> {
        if !self.git.workspace.join(".git").exists() {
            return Err(Error::invalid(format!("there is no git tree at {}", self.git.workspace.display())));
        }
        if shut && let Some(tree) = self.tree() {
            tree.remove_stale_locks(&[&self.request.branch, &self.request.base], &self.request.base);
        }
        self.configure().await
    }

    async fn init(&self, shut: bool) -> Result<()> {
        if !self.git.workspace.join(".git").exists() {
            std::fs::create_dir_all(self.git.workspace).map_err(|e| {
                Error::permanent(format!("make the workspace {}", self.git.workspace.display())).caused_by(e)
            })?;
            self.must("init the tree", &["init", "--quiet", "."]).await?;
            // What holds for sync is to hold for the session's own git: see CONFIG.
            self.must("configure the tree", &["config", "core.trustctime", "false"]).await?;
            self.must("configure the tree", &["config", "core.checkStat", "minimal"]).await?;
        }
        self.prepare(shut).await
    }

    /// Points origin at the relay.
    async fn configure(&self) -> Result<()> {
        if self.tree().is_some_and(|tree| tree.has_origin(&self.url)) {
            return Ok(());
        }
        let what = "point origin at the relay";
        let _ = self.call(&["config", "--unset-all", "remote.origin.pushurl"]).await?; // mostly not set
        self.must(what, &["config", "--replace-all", "remote.origin.url", &self.url]).await?;
        let all = "+refs/heads/*:refs/remotes/origin/*";
        self.must(what, &["config", "--replace-all", "remote.origin.fetch", all]).await?;
        // The session's branch follows the base, and is pushed under its own name.
        self.must(what, &["config", "push.default", "current"]).await
    }

    async fn reset(&self, with_tags: bool) -> Result<SyncReport> {
        let request = self.request;
        let started = Instant::now();
        let mut fetched = false;
        if !self.has_commit().await? {
            self.fetch(with_tags).await?;
            fetched = true;
            if !self.has_commit().await? {
                return Err(self.unknown_commit());
            }
        }
        let mut fetch_ms = ms(started);
        let mut checkout_started = Instant::now();
        if !self.is_done().await? {
            let first = self.checkout().await?;
            if !first.ok && !fetched {
                // The commit was here, but not everything it stands on.
                let started = Instant::now();
                self.fetch(with_tags).await?;
                fetched = true;
                fetch_ms = ms(started);
                checkout_started = Instant::now();
                self.expect("check out", self.checkout().await?)?;
            } else {
                self.expect("check out", first)?;
            }
        }
        if let Some(tree) = self.tree() {
            tree.set_upstream(&request.branch, &request.base).map_err(|e| {
                Error::permanent(format!("set the upstream of {}", request.branch)).caused_by(e)
            })?;
        }
        let head = self.head().await?;
        if head.commit.as_ref() != Some(&request.commit)
            || head.branch.as_deref() != Some(request.branch.as_str())
        {
            return Err(Error::permanent(format!(
                "after sync HEAD is {head:?}, and not {} on {}",
                request.commit, request.branch
            )));
        }
        Ok(SyncReport { head: request.commit.clone(), fetched, fetch_ms, checkout_ms: ms(checkout_started) })
    }

    async fn fetch_only(&self) -> Result<SyncReport> {
        let started = Instant::now();
        let known = self.tree().and_then(|t| t.remote_branch(&self.request.base));
        let mut fetched = false;
        if known.as_ref() != Some(&self.request.commit) || !self.has_commit().await? {
            self.fetch(false).await?;
            fetched = true;
            if !self.has_commit().await? {
                return Err(self.unknown_commit());
            }
        }
        let head = self.head().await?.commit;
        let head = head.ok_or_else(|| Error::permanent("the restored tree has no commit at HEAD"))?;
        Ok(SyncReport { head, fetched, fetch_ms: ms(started), checkout_ms: 0 })
    }

    /// Whether HEAD is on the branch at the commit and every tracked file is as committed.
    async fn is_done(&self) -> Result<bool> {
        let request = self.request;
        let Some(head) = self.tree().and_then(|t| t.head()) else { return Ok(false) };
        if head.commit.as_ref() != Some(&request.commit)
            || head.branch.as_deref() != Some(request.branch.as_str())
        {
            return Ok(false);
        }
        let status =
            self.call(&["status", "--porcelain", "--untracked-files=no", "--ignore-submodules=all"]).await?;
        Ok(status.ok && status.stdout.is_empty())
    }

    async fn checkout(&self) -> Result<Output> {
        let (branch, commit) = (self.request.branch.as_str(), self.request.commit.as_str());
        self.call(&["checkout", "--quiet", "--force", "--no-track", "-B", branch, commit, "--"]).await
    }

    async fn has_commit(&self) -> Result<bool> {
        let commit = &self.request.commit;
        if let Some(tree) = self.tree() {
            let at_head = tree.head().and_then(|h| h.commit);
            if at_head.as_ref() == Some(commit)
                || tree.remote_branch(&self.request.base).as_ref() == Some(commit)
            {
                return Ok(true);
            }
        }
        Ok(self.call(&["cat-file", "-e", &format!("{commit}^{{commit}}")]).await?.ok)
    }

    async fn fetch(&self, with_tags: bool) -> Result<()> {
        let request = self.request;
        let refspec = format!("+refs/heads/{0}:refs/remotes/origin/{0}", request.base);
        let mut args = vec!["fetch", "--quiet", "--no-recurse-submodules"];
        if !with_tags {
            args.push("--no-tags"); // a tag that moved upstream is no reason to fail (F29)
        }
        // By its id as well: the branch may have moved on, or away, since Hotbed looked.
        args.extend(["origin", &refspec, request.commit.as_str()]);
        let mut done = self.call(&args).await?;
        if done.stderr.contains("unadvertised object") {
            // A server of the old protocol gives out branches only; the commit is mostly in its branch.
            args.pop();
            done = self.call(&args).await?;
        }
        if done.ok {
            return Ok(());
        }
        let (text, cause) = (done.stderr.as_str(), tail(&done.stderr));
        if text.contains("couldn't find remote ref") {
            Err(Error::not_found(format!("branch `{}` is gone upstream", request.base)).caused_by(cause))
        } else if text.contains("not our ref") {
            Err(self.unknown_commit().caused_by(cause))
        } else if text.contains("epository") && text.contains("not found") {
            Err(Error::not_found(format!("repository {} is gone upstream", request.repo)).caused_by(cause))
        } else {
            Err(Error::unavailable(format!("fetch {} from Hotbed", request.base)).caused_by(cause))
        }
    }

    fn unknown_commit(&self) -> Error {
        let SyncRequest { commit, base, .. } = self.request;
        Error::not_found(format!("commit {commit} is not known upstream (wanted as the tip of `{base}`)"))
    }

    async fn head(&self) -> Result<Head> {
        if let Some(head) = self.tree().and_then(|tree| tree.head()) {
            return Ok(head);
        }
        let commit = self.call(&["rev-parse", "--verify", "--quiet", "HEAD"]).await?;
        let branch = self.call(&["symbolic-ref", "--short", "--quiet", "HEAD"]).await?;
        Ok(Head {
            commit: commit.stdout.trim().parse::<CommitId>().ok(),
            branch: branch.ok.then(|| branch.stdout.trim().to_owned()),
        })
    }

    async fn must(&self, what: &str, args: &[&str]) -> Result<()> {
        let done = self.call(args).await?;
        self.expect(what, done)
    }

    fn expect(&self, what: &str, done: Output) -> Result<()> {
        if done.ok {
            return Ok(());
        }
        let text = &done.stderr;
        let kind = if text.contains("No space left") {
            domain::ErrorKind::Exhausted
        } else {
            domain::ErrorKind::Permanent
        };
        Err(Error::new(kind, format!("{what} {}", self.request.commit)).caused_by(tail(text)))
    }

    /// Runs git once. Past the deadline its whole process group is killed, and gone before the answer.
    async fn call(&self, args: &[&str]) -> Result<Output> {
        let argv: Vec<String> =
            std::iter::once(self.program.as_str()).chain(args.iter().copied()).map(str::to_owned).collect();
        let io = |e: std::io::Error| Error::exhausted("open pipes for git").caused_by(e);
        let (out, out_write) = out_of_child().map_err(io)?;
        let (err, err_write) = out_of_child().map_err(io)?;
        let stdin = empty_input().map_err(io)?;
        let child = self.git.processes.spawn(&Command {
            argv: &argv,
            env: &self.env,
            cwd: self.git.workspace,
            stdin: stdin.as_fd(),
            stdout: out_write.as_fd(),
            stderr: err_write.as_fd(),
            terminal: false,
            gate: None,
            user: None,
        })?;
        drop((out_write, err_write));
        let pid = child.pid;
        let collect = async {
            let (mut stdout, mut stderr) = (VecDeque::new(), VecDeque::new());
            // Both are read to their end, which comes when the last process of this git has gone.
            let (_, _, ended) =
                tokio::join!(read_tail(&out, &mut stdout), read_tail(&err, &mut stderr), child.ended);
            (stdout, stderr, ended)
        };
        match tokio::time::timeout_at(self.deadline.into(), collect).await {
            Ok((stdout, stderr, ended)) => Ok(Output {
                ok: ended.is_ok_and(|e| e.code == Some(0)),
                stdout: lossy(stdout),
                stderr: lossy(stderr),
            }),
            Err(_) => {
                signal_group(pid, libc::SIGKILL);
                let given_up = Instant::now() + Duration::from_secs(2);
                while group_lives(pid) && Instant::now() < given_up {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let what = args.first().copied().unwrap_or_default();
                Err(Error::timeout(format!(
                    "sync was not done within {} ms; it was in `git {what}`",
                    self.request.timeout_ms
                )))
            }
        }
    }
}

async fn read_tail(fd: &AsyncFd<OwnedFd>, keep: &mut VecDeque<u8>) {
    while read_chunk(fd, |data| {
        keep.extend(data);
        let excess = keep.len().saturating_sub(OUTPUT);
        keep.drain(..excess);
    })
    .await
    {}
}

fn lossy(bytes: VecDeque<u8>) -> String {
    String::from_utf8_lossy(&Vec::from(bytes)).into_owned()
}

fn ms(since: Instant) -> u64 {
    since.elapsed().as_millis() as u64
}

/// The last lines of what git said.
fn tail(stderr: &str) -> String {
    let lines: Vec<&str> = stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.len() {
        0 => "git said nothing".to_owned(),
        n => lines[n.saturating_sub(LAST_LINES)..].join("\n"),
    }
}

/// HEAD of a workspace, for [`domain::wire::AgentInfo`].
pub fn head_of(workspace: &Path) -> Option<CommitId> {
    Tree::open(workspace)?.head()?.commit
}
