//! What Hotbed and the agent say to each other.
//!
//! The agent always dials. A connection begins with one line of JSON, the [`Hello`], and the answer, one line of
//! JSON, the [`Welcome`]. After that a `control` connection is HTTP/2 (prior knowledge) with the agent as the
//! *server*; a `relay` connection is HTTP/1.1 with Hotbed as the server, and carries git and the session's own
//! requests out of a sandbox that may have no network.
//!
//! Routes that the agent serves on `control` (JSON unless said otherwise, errors as [`AgentError`]):
//!
//! | route | does |
//! |---|---|
//! | `GET /v1/info` | [`AgentInfo`] |
//! | `POST /v1/bind` [`Bind`] | gives the sandbox to a session; the same session again is fine, another is 409 |
//! | `POST /v1/gate` [`SetGate`] | opens or shuts the write gate |
//! | `POST /v1/sync` [`SyncRequest`] | brings the tree to a commit and verifies HEAD; answers [`SyncReport`] |
//! | `POST /v1/exec?follow=` [`ExecRequest`] | starts a command; the same id again starts nothing. Answers [`ExecStatus`], or with `follow=true` the output as [`Frame`]s from offset 0 to the exit frame |
//! | `GET /v1/exec`, `GET /v1/exec/{id}` | [`ExecStatus`] of all or one |
//! | `GET /v1/exec/{id}/output?from=&follow=` | [`Frame`]s from a byte offset |
//! | `POST /v1/exec/{id}/input?eof=` | raw bytes to its stdin or terminal |
//! | `POST /v1/exec/{id}/signal` [`Signal`] | to its process group |
//! | `POST /v1/exec/{id}/resize` [`TermSize`] | its terminal |
//! | `GET PUT DELETE /v1/file?path=` | raw bytes; `PUT` takes `mode=` in octal |
//! | `GET /v1/dir?path=` | a list of [`DirEntry`] |
//! | `GET /v1/port?port=` | [`PortState`]: whether something takes connections there |
//! | `POST /v1/warm` [`KeepWarm`] | keeps what a session needs first in memory; answers [`KeptWarm`]. Refused once a session is bound |
//! | `POST /v1/quiesce` [`Quiesce`] | flushes the filesystem, with `stop` ends what runs first |

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{Branch, CommitId, ErrorKind, ExecId, Identity, SandboxId, SessionId};

/// The protocol that this code speaks. It grows when a route changes meaning.
pub const PROTOCOL: u32 = 1;
/// The oldest agent protocol that Hotbed still talks to. An older agent is refused with a [`Welcome`] that says so.
pub const MIN_PROTOCOL: u32 = 1;

/// Directory inside the sandbox that holds Hotbed's own things.
pub const RUN_DIR: &str = "/run/hotbed";
/// The agent's binary, and the first process of every sandbox.
pub const AGENT_PATH: &str = "/run/hotbed/hotbed-agent";
/// Hotbed's socket as the sandbox sees it.
pub const SOCKET_PATH: &str = "/run/hotbed/hotbed.sock";
/// The [`Boot`] file of this one sandbox.
pub const BOOT_PATH: &str = "/run/hotbed/self/boot.json";
/// Where the agent writes what belongs to the session that it is bound to: who commits. Emptied at each start.
pub const SESSION_DIR: &str = "/run/hotbed-session";
/// Where the agent listens inside the sandbox for git and for the session's own requests, unless told otherwise.
pub const RELAY_PORT: u16 = 7071;
/// The longest first line that either side accepts, in bytes.
pub const MAX_HELLO: usize = 4096;

/// What an agent is told before it dials: the content of `boot.json`. It is never in the image or the environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    pub sandbox: SandboxId,
    /// Good for this sandbox only, and only while it lives.
    pub token: String,
    /// Where to dial: `unix:/path` or `tcp:host:port`.
    pub dial: String,
    /// Absolute path of the tree.
    pub workspace: String,
    /// The gate at boot. Shut for everything that users may get; open for image builds.
    pub gate_open: bool,
    /// Local port for git and the session's own requests.
    pub relay_port: u16,
    /// Environment of everything that runs in this sandbox; [`Bind`] adds to it.
    pub env: BTreeMap<String, String>,
    /// [`SESSION_DIR`], unless the agent shares its files with others.
    #[serde(default = "session_dir")]
    pub session_dir: String,
}

fn session_dir() -> String {
    SESSION_DIR.into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    Control,
    Relay,
}

/// The first line of a connection, from the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub protocol: u32,
    pub kind: ConnectionKind,
    pub sandbox: SandboxId,
    pub token: String,
    pub agent_version: String,
}

/// The answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub ok: bool,
    /// Why not, in words.
    pub error: Option<String>,
    /// Dialling again is pointless: the token is not, or no longer, good.
    #[serde(default)]
    pub fatal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    pub version: String,
    pub protocol: u32,
    pub sandbox: SandboxId,
    pub workspace: String,
    /// HEAD of the workspace, where there is one.
    pub head: Option<CommitId>,
    pub gate_open: bool,
    /// Processes that wait at the gate now.
    pub gate_waiting: u32,
    pub bound: Option<SessionId>,
    pub uptime_ms: u64,
    /// Resident memory of the agent itself, in bytes.
    pub rss_bytes: u64,
    /// Commands that run now.
    pub running: u32,
}

/// Gives a sandbox to a session: identity, environment and branch arrive only now. Said again whenever somebody else
/// prompts: from that moment on he commits, in what runs already, too.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    pub session: SessionId,
    pub repo: String,
    /// Author and committer of what is committed here. `None` for builds.
    pub identity: Option<Identity>,
    /// Who else has prompted: named in each commit's `Co-authored-by` trailers.
    #[serde(default)]
    pub co_authors: Vec<Identity>,
    /// What the session shows when it asks Hotbed for something. Good for this session and nothing else.
    #[serde(default)]
    pub token: Option<String>,
    /// Environment of what runs for the session, in addition to the boot environment.
    pub env: BTreeMap<String, String>,
}

/// What a session asks for with `hotbed-agent pr create`, over its relay: `POST /v1/pull-requests`. What is left out is
/// drawn from the session's commits and the repo's template.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PullOrder {
    pub title: Option<String>,
    pub body: Option<String>,
    /// The branch that it goes into; the one that the session began from where none is named.
    pub base: Option<String>,
    pub draft: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetGate {
    pub open: bool,
}

/// Asks the agent of an idle member to have the kernel keep files of its tree, and to be ready itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeepWarm {
    pub max_bytes: u64,
    pub max_ms: u64,
}

/// What it asked the kernel for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptWarm {
    pub files: u64,
    pub bytes: u64,
}

/// What sync does to the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncMode {
    /// There is no tree yet: clone into the workspace.
    Clone,
    /// Tracked files become those of the wanted commit; untracked files stay.
    Reset,
    /// A restored tree holds a user's work: only fetch, change nothing in it.
    Fetch,
}

/// Asks the agent to bring the workspace to a commit. Git talks to the relay; no credential is in here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    pub mode: SyncMode,
    /// `owner/name`; `origin` becomes `http://127.0.0.1:{relay_port}/{repo}.git`.
    pub repo: String,
    /// The branch upstream that `commit` is the tip of.
    pub base: Branch,
    /// The local branch that HEAD is to be on; made or moved to `commit`. Equal to `base` in a build.
    pub branch: Branch,
    /// What HEAD must be at the end (with `Fetch`: what must be present).
    pub commit: CommitId,
    /// Upper bound of the whole, in milliseconds.
    pub timeout_ms: u64,
    /// Open the gate, in the same step, when HEAD is verified.
    pub open_gate: bool,
    /// For whom: a sandbox that is bound to another (or to one, when this is `None`) answers `Conflict` and changes
    /// nothing, so that a warm-up's late sync can't move a tree that a user works in.
    #[serde(default)]
    pub session: Option<SessionId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncReport {
    /// HEAD as read back from the tree afterwards.
    pub head: CommitId,
    /// Whether anything had to be fetched.
    pub fetched: bool,
    pub fetch_ms: u64,
    pub checkout_ms: u64,
}

/// A command to run in the sandbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecRequest {
    pub id: ExecId,
    /// Program and arguments, searched in `PATH`.
    pub argv: Vec<String>,
    /// Absolute; the workspace when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Keep stdin open for input; otherwise it reads end of file at once.
    #[serde(default)]
    pub stdin: bool,
    /// Run on a terminal of this size; stdout and stderr are then one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tty: Option<TermSize>,
    /// It gets SIGTERM then, and SIGKILL two seconds later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// The account of the sandbox that it runs as: `name`, `uid`, `name:group`; the agent's own when not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// It is part of the environment and not of a session's work: it does not wait at the gate.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ungated: bool,
}

impl ExecRequest {
    /// A new command in the workspace, with nothing that is not given here.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            id: ExecId::new(),
            argv,
            cwd: None,
            env: BTreeMap::new(),
            stdin: false,
            tty: None,
            timeout_ms: None,
            user: None,
            ungated: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TermSize {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// `TERM`, `INT`, `KILL`, `HUP`, `QUIT`, `USR1`, `USR2`, `STOP`, `CONT`, `WINCH`.
    pub signal: String,
}

/// How a command stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecStatus {
    pub id: ExecId,
    pub running: bool,
    /// Bytes of output so far: the offset that the next byte will have.
    pub output_bytes: u64,
    /// Bytes that are no longer kept: offsets below can't be read any more.
    pub dropped_bytes: u64,
    pub exit: Option<ExecExit>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecExit {
    /// The exit code, or `None` when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub duration_ms: f64,
    /// Peak resident memory of the command itself, in bytes.
    pub peak_rss_bytes: u64,
}

/// Whether a TCP port of the sandbox takes connections on its loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortState {
    pub open: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    pub name: String,
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    File,
    Dir,
    Symlink,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiesce {
    /// End what runs for the session (SIGTERM, then SIGKILL after the grace).
    pub stop: bool,
    pub grace_ms: u64,
}

/// An error answer of the agent. `kind` is [`ErrorKind::as_str`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentError {
    pub kind: String,
    pub message: String,
}

impl AgentError {
    pub fn kind(&self) -> ErrorKind {
        use ErrorKind as K;
        [K::Invalid, K::NotFound, K::Conflict, K::Gone, K::Exhausted, K::Unavailable, K::Timeout]
            .into_iter()
            .find(|k| k.as_str() == self.kind)
            .unwrap_or(K::Permanent)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamName {
    Stdout,
    Stderr,
}

/// One piece of an exec's output. Offsets count the bytes of both streams in the order they were read, so one
/// number resumes both.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Output {
        stream: StreamName,
        offset: u64,
        data: Bytes,
    },
    /// The command has ended and everything before it has been sent.
    Exit(ExecExit),
    /// Nothing new; the connection lives.
    Heartbeat,
}

const FRAME_HEAD: usize = 13;
/// The largest payload of one frame, in bytes.
pub const MAX_FRAME: usize = 64 * 1024;

impl Frame {
    /// Layout: kind (1 byte: 0 heartbeat, 1 stdout, 2 stderr, 3 exit), offset (8, big endian), length (4), payload.
    pub fn encode(&self, out: &mut BytesMut) {
        let (kind, offset, payload) = match self {
            Self::Heartbeat => (0u8, 0, Bytes::new()),
            Self::Output { stream: StreamName::Stdout, offset, data } => (1, *offset, data.clone()),
            Self::Output { stream: StreamName::Stderr, offset, data } => (2, *offset, data.clone()),
            Self::Exit(exit) => (3, 0, serde_json::to_vec(exit).unwrap_or_default().into()),
        };
        out.reserve(FRAME_HEAD + payload.len());
        out.put_u8(kind);
        out.put_u64(offset);
        out.put_u32(payload.len() as u32);
        out.put_slice(&payload);
    }

    /// Takes one frame off the front of `buf`; `Ok(None)` when it is not all there yet.
    pub fn decode(buf: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(head) = buf.first_chunk::<FRAME_HEAD>() else { return Ok(None) };
        let kind = head[0];
        let length = (&head[9..13]).get_u32() as usize;
        if kind > 3 {
            return Err(FrameError::Kind(kind));
        }
        if length > MAX_FRAME {
            return Err(FrameError::Length(length));
        }
        if buf.len() < FRAME_HEAD + length {
            return Ok(None);
        }
        buf.advance(1);
        let offset = buf.get_u64();
        buf.advance(4);
        let data = buf.split_to(length).freeze();
        Ok(Some(match kind {
            0 => Self::Heartbeat,
            1 => Self::Output { stream: StreamName::Stdout, offset, data },
            2 => Self::Output { stream: StreamName::Stderr, offset, data },
            _ => Self::Exit(serde_json::from_slice(&data).map_err(|_| FrameError::Exit)?),
        }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("unknown frame kind {0}")]
    Kind(u8),
    #[error("frame of {0} bytes is longer than {MAX_FRAME}")]
    Length(usize),
    #[error("the exit frame is not readable")]
    Exit,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Cut anywhere, frames come out as they went in; garbage is an error, never a panic.
        #[test]
        fn frames_survive_any_cut(chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..8), cut in 1usize..50) {
            let mut wire = BytesMut::new();
            let mut sent = Vec::new();
            let mut offset = 0;
            for c in chunks {
                let f = Frame::Output { stream: StreamName::Stderr, offset, data: c.clone().into() };
                offset += c.len() as u64;
                f.encode(&mut wire);
                sent.push(f);
            }
            let mut got = Vec::new();
            let mut buf = BytesMut::new();
            for piece in wire.chunks(cut) {
                buf.extend_from_slice(piece);
                while let Some(f) = Frame::decode(&mut buf).unwrap() { got.push(f); }
            }
            prop_assert_eq!(sent, got);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = Frame::decode(&mut buf) {}
        }
    }

    #[test]
    fn exit_frame() {
        let exit =
            ExecExit { code: Some(3), signal: None, timed_out: false, duration_ms: 1.5, peak_rss_bytes: 9 };
        let mut wire = BytesMut::new();
        Frame::Exit(exit.clone()).encode(&mut wire);
        assert_eq!(Frame::decode(&mut wire), Ok(Some(Frame::Exit(exit))));
        assert!(wire.is_empty());
    }
}
