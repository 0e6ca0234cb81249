//! Commands, terminals and files.

use std::collections::BTreeMap;

use domain::wire::{DirEntry, ExecExit, ExecStatus, FileKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Program and arguments, or one line for `sh -c`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Command {
    Argv(Vec<String>),
    Shell(String),
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartExec {
    /// `["pytest", "-q"]`, or `"pytest -q | tail"`, which `sh -c` runs.
    pub cmd: Command,
    /// Absolute; the workspace when not given.
    pub cwd: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Keep stdin open for `POST …/input`.
    #[serde(default)]
    pub stdin: bool,
    /// Run on a terminal.
    pub tty: Option<Terminal>,
    pub timeout_seconds: Option<f64>,
    /// Answer when it has ended, with its output (at most 1 MiB each), instead of at once.
    #[serde(default)]
    pub wait: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// The exit code; absent when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub duration_ms: f64,
    pub peak_rss_bytes: u64,
}

impl From<ExecExit> for ExitView {
    fn from(e: ExecExit) -> Self {
        Self {
            code: e.code,
            signal: e.signal,
            timed_out: e.timed_out,
            duration_ms: e.duration_ms,
            peak_rss_bytes: e.peak_rss_bytes,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExecView {
    pub id: String,
    pub running: bool,
    /// The offset that the next byte of output will have.
    pub output_bytes: u64,
    /// Offsets below this are no longer kept.
    pub dropped_bytes: u64,
    pub exit: Option<ExitView>,
    /// With `wait`: what it printed. Bytes that are no UTF-8 are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// With `wait`: more was printed than is shown; the whole is at `…/output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

impl From<ExecStatus> for ExecView {
    fn from(s: ExecStatus) -> Self {
        Self {
            id: s.id.to_string(),
            running: s.running,
            output_bytes: s.output_bytes,
            dropped_bytes: s.dropped_bytes,
            exit: s.exit.map(Into::into),
            stdout: None,
            stderr: None,
            truncated: None,
        }
    }
}

/// One line of `…/output`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutputLine {
    /// `stdout` or `stderr`; absent on the last line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<String>,
    /// Of the first byte; `from=` takes the offset behind the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// The text, or nothing when the bytes are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The bytes in hexadecimal, when they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hex: Option<String>,
    /// On the last line: how it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<ExitView>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// `TERM`, `INT`, `KILL`, `HUP`, `QUIT`, `USR1`, `USR2`, `STOP`, `CONT` or `WINCH`.
    pub signal: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    pub name: String,
    /// `file`, `dir`, `symlink` or `other`.
    pub kind: String,
    pub size: u64,
    pub mode: String,
    pub modified: Option<Timestamp>,
}

impl From<DirEntry> for FileView {
    fn from(e: DirEntry) -> Self {
        let kind = match e.kind {
            FileKind::File => "file",
            FileKind::Dir => "dir",
            FileKind::Symlink => "symlink",
            FileKind::Other => "other",
        };
        Self {
            name: e.name,
            kind: kind.into(),
            size: e.size,
            mode: format!("{:04o}", e.mode),
            modified: Timestamp::from_second(e.modified).ok(),
        }
    }
}
