//! What policy and engines need from the outside world, as narrow traits. Adapters implement them; the one
//! stateful fake of each lives in `testing`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::wire::{
    AgentInfo, Bind, Boot, DirEntry, ExecRequest, ExecStatus, Frame, KeepWarm, KeptWarm, Quiesce, SyncReport,
    SyncRequest, TermSize,
};
use crate::{
    Branch, CommitId, Digest, Error, ExecId, Network, PullRequestState, RepoName, Resources, Result,
    SandboxId, Shipped, TreePath,
};

// ---------------------------------------------------------------------------------------------- the engine

/// Asks the engine for a sandbox. The row exists already (F1).
#[derive(Debug, Clone)]
pub struct StartSandbox {
    pub id: SandboxId,
    pub repo: RepoName,
    /// What to start from.
    pub source: Digest,
    pub resources: Resources,
    pub network: Network,
    /// Handed to the agent out of band: neither in the environment nor in the image.
    pub boot: Boot,
}

/// A sandbox as the engine reports it. Only those whose mark proves that this instance made them are listed (F6).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedSandbox {
    pub id: SandboxId,
    pub engine_id: String,
    pub phase: ObservedPhase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedPhase {
    /// Made and not started.
    Created,
    Running,
    Paused,
    /// Its first process has ended.
    Exited,
}

/// What a captured or imported filesystem is, written on it as labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CaptureKind {
    /// A root filesystem made from packages.
    Base,
    Image,
    Snapshot,
}

impl CaptureKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Image => "image",
            Self::Snapshot => "snapshot",
        }
    }
}

/// How a capture is written down.
#[derive(Debug, Clone)]
pub struct CaptureSpec {
    pub kind: CaptureKind,
    /// The id of the image or snapshot (or the fingerprint of a base): names the capture in the engine.
    pub name: String,
    /// Environment added to the captured image's configuration.
    pub env: BTreeMap<String, String>,
    /// Working directory of the captured image.
    pub workdir: Option<String>,
    /// Freeze the processes while it is taken.
    pub pause: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Captured {
    pub digest: Digest,
    /// Bytes, all layers.
    pub size: u64,
}

/// A Dockerfile to build.
#[derive(Debug, Clone)]
pub struct BuildImage {
    /// Names the result, as [`CaptureSpec::name`] does.
    pub name: String,
    /// A tar file with everything that may be copied, and the Dockerfile.
    pub context: PathBuf,
    /// Where in it the Dockerfile is.
    pub dockerfile: String,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
}

/// Told what goes on, line by line.
pub type Progress = Arc<dyn Fn(&str) + Send + Sync>;

/// A capture of ours as the engine lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedCapture {
    pub digest: Digest,
    pub kind: CaptureKind,
    pub name: String,
    pub size: u64,
}

/// One file of an image, or what stands in a file's place: a link, a pipe, a device. Directories are not told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// From the root, with its `/`. Bytes, because names need not be text.
    pub path: Vec<u8>,
    /// Bytes of content.
    pub size: u64,
    /// Equal where kind, mode, owner, link target, extended attributes and content are. Times don't count.
    pub print: [u8; 16],
    /// The content, where it was asked for and is not longer than [`TreeEntry::MAX_CONTENT`].
    pub content: Option<Bytes>,
}

impl TreeEntry {
    pub const MAX_CONTENT: u64 = 16 << 20;
}

/// Says by the path of which files the content is wanted.
pub type ContentFilter = fn(&[u8]) -> bool;

/// The files of an image as they pass by. Dropping it ends the reading.
pub type TreeStream = BoxStream<'static, Result<TreeEntry>>;

/// Something happened to a sandbox, in the engine's words. A hint to look, never the truth itself (F45).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineEvent {
    pub sandbox: SandboxId,
    /// It was removed or its first process ended.
    pub gone: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineInfo {
    /// `docker`, `kubernetes`, `fake`.
    pub name: &'static str,
    /// As the engine states it: version and storage driver.
    pub version: String,
    /// Where it keeps what it holds, if that is on this machine.
    pub data_dir: Option<PathBuf>,
}

/// A container engine. Every call has a deadline of its own and an error kind; `stop` and `remove_capture` of
/// what is not there succeed.
#[async_trait]
pub trait Backend: Send + Sync + Debug {
    /// Whether the engine answers.
    async fn probe(&self) -> Result<EngineInfo>;

    /// Makes and starts a sandbox; answers the engine's id. Called again for one that exists (after an answer
    /// that was lost, F48), it starts what is there and answers the same id.
    async fn start(&self, spec: &StartSandbox) -> Result<String>;

    /// Starts a sandbox that has exited, with its files. `NotFound` when the engine does not have it (any more):
    /// an empty one in its place would pass for the one that held a user's work.
    async fn start_again(&self, spec: &StartSandbox) -> Result<String> {
        if self.list().await?.iter().any(|o| o.id == spec.id) {
            return self.start(spec).await;
        }
        Err(Error::not_found(format!("start {} again: the engine does not have it", spec.id)))
    }

    /// Ends and removes a sandbox and everything that was made for it.
    async fn stop(&self, id: SandboxId) -> Result<()>;

    async fn pause(&self, id: SandboxId) -> Result<()>;

    async fn resume(&self, id: SandboxId) -> Result<()>;

    /// Captures the filesystem. On failure the sandbox is as it was before (F39).
    async fn capture(&self, id: SandboxId, spec: &CaptureSpec) -> Result<Captured>;

    /// All sandboxes of this instance.
    async fn list(&self) -> Result<Vec<ObservedSandbox>>;

    /// A stream that ends or fails when the engine goes away; the caller lists, and subscribes again.
    async fn events(&self) -> Result<BoxStream<'static, Result<EngineEvent>>>;

    /// Makes an image of a root filesystem in a tar file.
    async fn import(&self, tar: PathBuf, spec: &CaptureSpec) -> Result<Captured>;

    /// Builds a Dockerfile. Dropping the call ends the build.
    async fn build(&self, order: &BuildImage, progress: &Progress) -> Result<Captured>;

    /// The digest of a reference, pulled when it is not there. Says which registry did not answer.
    async fn pull(&self, reference: &str) -> Result<Captured>;

    /// Whether a digest is there to start from.
    async fn has(&self, digest: &Digest) -> Result<bool>;

    async fn list_captures(&self) -> Result<Vec<ObservedCapture>>;

    /// Reads every file of an image once, without running anything of it; one image at a time. `content` says by the
    /// path of which files more than the print is wanted. `NotFound` where the engine does not have the image.
    async fn read_tree(&self, digest: &Digest, content: ContentFilter) -> Result<TreeStream>;

    /// Removes a capture. `Conflict` while something still stands on it.
    async fn remove_capture(&self, digest: &Digest) -> Result<()>;

    /// Removes what the instance made beside sandboxes and captures (its network), where nothing uses it.
    async fn dispose(&self) -> Result<()>;
}

/// A registry that captures are sent to, for other hosts and for this one when it has lost them.
#[async_trait]
pub trait ImageRegistry: Send + Sync + Debug {
    /// Sends a capture under a tag; layers that the registry has are not sent again, and a transfer that broke goes
    /// on with the layers that are missing. Answers when the registry itself has named what it holds.
    async fn push(&self, capture: &Digest, repository: &str, tag: &str) -> Result<Shipped>;

    /// Brings a capture back, as if it had never been away. `NotFound` when the registry does not have it;
    /// `Permanent` when what it has under this digest is another image.
    async fn fetch(&self, shipped: &Shipped, capture: &Digest) -> Result<()>;

    /// Removes it from the registry. What is not there is removed. `Permanent` where the registry lets nothing be
    /// removed.
    async fn remove(&self, shipped: &Shipped) -> Result<()>;
}

// ---------------------------------------------------------------------------------------------- the agent

pub type FrameStream = BoxStream<'static, Result<Frame>>;
pub type ByteStream = BoxStream<'static, Result<Bytes>>;

/// An open connection to the agent of one sandbox.
#[async_trait]
pub trait AgentLink: Send + Sync + Debug {
    fn sandbox(&self) -> SandboxId;
    /// The version in the agent's hello.
    fn version(&self) -> &str;
    /// Whether the connection is known to have ended.
    fn is_closed(&self) -> bool;
    /// Returns when the connection has ended.
    async fn closed(&self);

    async fn info(&self) -> Result<AgentInfo>;
    async fn bind(&self, bind: &Bind) -> Result<()>;
    async fn set_gate(&self, open: bool) -> Result<()>;
    /// Bounded by the request's own timeout plus a second.
    async fn sync(&self, request: &SyncRequest) -> Result<SyncReport>;

    /// Starts a command and answers at once.
    async fn exec(&self, request: &ExecRequest) -> Result<ExecStatus>;
    /// Starts a command and follows its output, in one message.
    async fn exec_follow(&self, request: &ExecRequest) -> Result<FrameStream>;
    async fn exec_status(&self, id: ExecId) -> Result<ExecStatus>;
    async fn exec_list(&self) -> Result<Vec<ExecStatus>>;
    /// Output from a byte offset; with `follow` until the command ends.
    async fn output(&self, id: ExecId, from: u64, follow: bool) -> Result<FrameStream>;
    async fn input(&self, id: ExecId, data: Bytes, eof: bool) -> Result<()>;
    async fn signal(&self, id: ExecId, signal: &str) -> Result<()>;
    async fn resize(&self, id: ExecId, size: TermSize) -> Result<()>;

    async fn read_file(&self, path: &str) -> Result<ByteStream>;
    /// Waits at the gate for a path in the workspace, up to `gate_wait_ms`; then `Conflict`.
    async fn write_file(&self, path: &str, data: Bytes, mode: Option<u32>, gate_wait_ms: u64) -> Result<()>;
    async fn delete_file(&self, path: &str, gate_wait_ms: u64) -> Result<()>;
    async fn list_dir(&self, path: &str) -> Result<Vec<DirEntry>>;

    /// Whether a TCP port of the sandbox takes connections on its loopback.
    async fn port_open(&self, port: u16) -> Result<bool>;

    /// Keeps what a session needs first in memory. `Conflict` once a session is bound.
    async fn keep_warm(&self, limits: &KeepWarm) -> Result<KeptWarm>;

    async fn quiesce(&self, quiesce: &Quiesce) -> Result<()>;
}

// ------------------------------------------------------------------------------------------- git and forge

/// Says of a path whether it is wanted.
pub type PathFilter = Box<dyn Fn(&str) -> bool + Send>;

/// A commit in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitLine {
    pub id: CommitId,
    /// The first line of its message, cut where it is long.
    pub subject: String,
    /// The name of its author.
    pub author: String,
    pub committed_at: Timestamp,
}

/// Hotbed's own bare mirrors of the upstream repositories.
#[async_trait]
pub trait Mirrors: Send + Sync + Debug {
    /// Brings the mirror up to date with upstream; concurrent calls for one repo share one fetch, and a call
    /// never gets an answer older than itself. Makes the mirror when it is missing. Says whether anything moved.
    async fn refresh(&self, repo: &RepoName) -> Result<bool>;

    /// The commit at the tip of a branch, as of the last refresh. `None` where the branch does not exist.
    async fn tip(&self, repo: &RepoName, branch: &Branch) -> Result<Option<CommitId>>;

    /// A number that is another one whenever branches may have moved since; `None` where that is not known.
    fn generation(&self, repo: &RepoName) -> Option<u64> {
        let _ = repo;
        None
    }

    /// The file at `path` in a commit; `None` where nothing is there. `Invalid` for what is no file, or longer than
    /// `limit` bytes.
    async fn read(
        &self,
        repo: &RepoName,
        commit: &CommitId,
        path: &TreePath,
        limit: usize,
    ) -> Result<Option<Bytes>>;

    /// What is at `path` in a commit: equal for equal content and mode, whatever the commit. `None` where nothing is.
    async fn identify(&self, repo: &RepoName, commit: &CommitId, path: &TreePath) -> Result<Option<String>>;

    /// Writes what lies below `dir` in a commit to a tar file, as far as `wanted` says so by its path below `dir`.
    /// Equal trees make equal files. `NotFound` where there is no such directory.
    async fn archive(
        &self,
        repo: &RepoName,
        commit: &CommitId,
        dir: &TreePath,
        wanted: PathFilter,
        to: PathBuf,
    ) -> Result<()>;

    /// Commits that `to` has and `from` has not; `None` where either is unknown or they are unrelated.
    async fn distance(&self, repo: &RepoName, from: &CommitId, to: &CommitId) -> Result<Option<u32>>;

    /// The newest of those commits, `limit` at most, newest first; none where `distance` does not know how many.
    async fn log(
        &self,
        repo: &RepoName,
        from: &CommitId,
        to: &CommitId,
        limit: usize,
    ) -> Result<Vec<CommitLine>>;
}

/// A user's own authority at the forge, zeroed when the last clone goes. The local forge needs none.
#[derive(Clone)]
pub struct UserToken {
    secret: Arc<Zeroizing<String>>,
    account: Option<Arc<str>>,
}

impl UserToken {
    pub fn new(token: impl Into<String>) -> Self {
        Self { secret: Arc::new(Zeroizing::new(token.into())), account: None }
    }

    /// Says whose it is, where that is known. Limits of a forge hold for the account, whichever token it uses.
    #[must_use]
    pub fn of(mut self, account: &str) -> Self {
        self.account = Some(account.into());
        self
    }

    pub fn account(&self) -> Option<&str> {
        self.account.as_deref()
    }

    /// The secret itself, for the request that needs it.
    pub fn expose(&self) -> &str {
        &self.secret
    }
}

impl Debug for UserToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserToken(…)")
    }
}

/// What a pull request is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPullRequest {
    pub repo: RepoName,
    pub head: Branch,
    pub base: Branch,
    pub title: String,
    pub body: String,
    pub draft: bool,
    /// The account it is opened for.
    pub author: String,
    /// Since when it may have been asked for without an answer that arrived. One of this head and base that was
    /// opened since is this one, even when somebody has closed it meanwhile. `None` at the first try.
    pub unanswered_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenedPullRequest {
    pub number: u64,
    pub url: String,
    pub head_commit: CommitId,
    /// False when it was there already (F52).
    pub created: bool,
    pub opened_at: Timestamp,
}

/// What became of the wish for a pull request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullRequestOutcome {
    Opened(OpenedPullRequest),
    /// The forge wants the user's own authority and Hotbed has none: everything is ready behind this link.
    ByHand {
        link: String,
    },
}

/// What is to change about a pull request; `None` stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequestChange {
    pub title: Option<String>,
    pub body: Option<String>,
}

/// A pull request as the forge shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequestView {
    pub number: u64,
    pub url: String,
    /// `Open`, `Merged` or `Closed`.
    pub state: PullRequestState,
    pub draft: bool,
    pub title: String,
    /// `None` where the forge did not say.
    pub body: Option<String>,
    pub author: String,
    pub head: Branch,
    pub head_commit: CommitId,
    pub base: Branch,
    pub opened_at: Timestamp,
    /// What reports about it are ordered by.
    pub updated_at: Timestamp,
    pub merged_at: Option<Timestamp>,
}

/// Where pull requests are opened. Whose authority a call uses is an argument of the call: what changes something
/// takes the user's, what only looks needs none.
#[async_trait]
pub trait Forge: Send + Sync + Debug {
    /// Opens a pull request, or finds the open one of the same head and base: called twice it opens one (F52).
    /// `Denied` when the token is believed no longer or reaches too little; the error says the way forward.
    async fn open_pull_request(
        &self,
        token: Option<&UserToken>,
        new: &NewPullRequest,
    ) -> Result<PullRequestOutcome>;

    /// Changes what a pull request says.
    async fn update_pull_request(
        &self,
        token: &UserToken,
        repo: &RepoName,
        number: u64,
        change: &PullRequestChange,
    ) -> Result<PullRequestView> {
        let _ = (token, change);
        Err(Error::invalid(format!("pull request {number} of {repo} can't be changed at this forge")))
    }

    /// How a pull request stands. `None` at a forge where pull requests have no life of their own.
    async fn pull_request(&self, repo: &RepoName, number: u64) -> Result<Option<PullRequestView>> {
        let _ = (repo, number);
        Ok(None)
    }
}

// --------------------------------------------------------------------------------------------- sealed secrets

/// Where sealed secrets lie, by name. It never sees what is in them; what was put survives a loss of power.
#[async_trait]
pub trait SealedStore: Send + Sync + Debug {
    async fn put_sealed(&self, name: &str, sealed: Vec<u8>) -> Result<()>;

    async fn sealed(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// What is not there is removed already.
    async fn remove_sealed(&self, name: &str) -> Result<()>;

    /// The names that begin with `prefix`, sorted.
    async fn sealed_names(&self, prefix: &str) -> Result<Vec<String>>;
}
