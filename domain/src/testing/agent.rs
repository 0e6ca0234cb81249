//! An agent without a sandbox: it keeps bind, gate, head and files in memory, and answers every command with `ok\n`
//! unless told what the command does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::ports::{AgentLink, ByteStream, FrameStream};
use crate::wire::{
    AgentInfo, Bind, DirEntry, ExecExit, ExecRequest, ExecStatus, FileKind, Frame, KeepWarm, KeptWarm,
    PROTOCOL, Quiesce, StreamName, SyncMode, SyncReport, SyncRequest, TermSize,
};
use crate::{CommitId, Error, ErrorKind, ExecId, Result, SandboxId, SessionId};

/// How a fake agent misbehaves.
#[derive(Debug, Clone, Default)]
pub struct FakeAgentOptions {
    pub head: Option<CommitId>,
    /// Sync answers with this text as an error.
    pub sync_fails: Option<String>,
    /// Sync never answers.
    pub sync_hangs: bool,
    /// It connects, and then answers no question about itself (F10).
    pub info_fails: bool,
    /// The next bind is done and its answer lost, with this error.
    pub bind_answer_lost: Option<ErrorKind>,
    /// Commands that it says are running.
    pub running: u32,
    /// What commands do that hold a text, instead of ending well with `ok\n`.
    pub commands: Vec<(String, FakeCommand)>,
    /// Ports that take connections.
    pub ports: BTreeSet<u16>,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FakeCommand {
    /// Prints this and ends with that code.
    Ends(String, i32),
    /// Prints this and runs until it is signalled.
    Runs(String),
}

/// One connection of an agent; [`FakeAgent::redial`] makes another one of the same agent.
#[derive(Debug)]
pub struct FakeAgent {
    sandbox: SandboxId,
    options: Arc<Mutex<FakeAgentOptions>>,
    state: Arc<Mutex<State>>,
    /// How often a session was bound to it: more than once is a bug (F35).
    pub binds: Arc<AtomicU32>,
    /// How often it was asked to sync.
    pub syncs: Arc<AtomicU32>,
    /// How often it was asked to keep its files in memory.
    pub kept_warm: Arc<AtomicU32>,
    open: watch::Sender<bool>,
    /// Moves when a command ends.
    ended: Arc<watch::Sender<u64>>,
}

#[derive(Debug, Default)]
struct State {
    bound: Option<SessionId>,
    gate_open: bool,
    head: Option<CommitId>,
    files: BTreeMap<String, Bytes>,
    execs: BTreeMap<ExecId, FakeExec>,
    /// The command lines that were started, in order.
    started: Vec<String>,
}

#[derive(Debug)]
struct FakeExec {
    output: Bytes,
    /// `None` while it runs.
    exit: Option<ExecExit>,
}

impl FakeAgent {
    pub fn new(sandbox: SandboxId, options: FakeAgentOptions) -> Self {
        let state = State { head: options.head.clone(), ..State::default() };
        Self {
            sandbox,
            options: Arc::new(Mutex::new(options)),
            state: Arc::new(Mutex::new(state)),
            binds: Arc::default(),
            syncs: Arc::default(),
            kept_warm: Arc::default(),
            open: watch::Sender::new(true),
            ended: Arc::new(watch::Sender::new(0)),
        }
    }

    /// The same agent on a new connection, as after a restart of Hotbed.
    pub fn redial(&self) -> Self {
        Self {
            sandbox: self.sandbox,
            options: self.options.clone(),
            state: self.state.clone(),
            binds: self.binds.clone(),
            syncs: self.syncs.clone(),
            kept_warm: self.kept_warm.clone(),
            open: watch::Sender::new(true),
            ended: self.ended.clone(),
        }
    }

    /// It behaves differently from now on.
    pub fn set(&self, change: impl FnOnce(&mut FakeAgentOptions)) {
        change(&mut self.options.lock().expect("agent lock"));
    }

    /// What a capture of its sandbox would hold.
    pub fn tree(&self) -> (Option<CommitId>, BTreeMap<String, Bytes>) {
        let state = self.state();
        (state.head.clone(), state.files.clone())
    }

    /// It wakes up in a filesystem that was captured elsewhere.
    pub fn restore(&self, head: Option<CommitId>, files: BTreeMap<String, Bytes>) {
        let mut state = self.state();
        state.head = head;
        state.files = files;
    }

    /// Its process ended and began again: the files are there, what was in memory is not.
    pub fn reboot(&self) {
        let mut state = self.state();
        state.bound = None;
        state.gate_open = false;
        state.execs.clear();
        state.started.clear();
        self.binds.store(0, Ordering::Relaxed);
    }

    /// What was started since it booted, in order.
    pub fn started(&self) -> Vec<String> {
        self.state().started.clone()
    }

    /// Ends every command that runs.
    pub fn end_commands(&self, code: i32) {
        for exec in self.state().execs.values_mut().filter(|e| e.exit.is_none()) {
            exec.exit = Some(exit(code));
        }
        self.ended.send_modify(|n| *n += 1);
    }

    pub fn gate_is_open(&self) -> bool {
        self.state().gate_open
    }

    /// Ends the connection.
    pub fn hang_up(&self) {
        self.open.send_replace(false);
    }

    pub fn bound(&self) -> Option<SessionId> {
        self.state().bound
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("agent lock")
    }

    fn options(&self) -> FakeAgentOptions {
        self.options.lock().expect("agent lock").clone()
    }

    fn up(&self) -> Result<()> {
        if *self.open.borrow() { Ok(()) } else { Err(Error::unavailable("reach the agent")) }
    }
}

#[async_trait]
impl AgentLink for FakeAgent {
    fn sandbox(&self) -> SandboxId {
        self.sandbox
    }

    fn version(&self) -> &str {
        "fake"
    }

    fn is_closed(&self) -> bool {
        !*self.open.borrow()
    }

    async fn closed(&self) {
        let mut rx = self.open.subscribe();
        let _ = rx.wait_for(|open| !open).await;
    }

    async fn info(&self) -> Result<AgentInfo> {
        self.up()?;
        let options = self.options();
        if options.info_fails {
            return Err(Error::unavailable("ask the agent about itself"));
        }
        let state = self.state();
        Ok(AgentInfo {
            version: "fake".into(),
            protocol: PROTOCOL,
            sandbox: self.sandbox,
            workspace: "/workspace".into(),
            head: state.head.clone(),
            gate_open: state.gate_open,
            gate_waiting: 0,
            bound: state.bound,
            uptime_ms: 1,
            rss_bytes: 1,
            running: options.running,
        })
    }

    async fn bind(&self, bind: &Bind) -> Result<()> {
        self.up()?;
        let lost = self.options.lock().expect("agent lock").bind_answer_lost.take();
        let mut state = self.state();
        match state.bound {
            Some(other) if other != bind.session => Err(Error::conflict(format!("already bound to {other}"))),
            Some(_) => Ok(()),
            None => {
                state.bound = Some(bind.session);
                self.binds.fetch_add(1, Ordering::Relaxed);
                lost.map_or(Ok(()), |kind| Err(Error::new(kind, "bind (answer lost)")))
            }
        }
    }

    async fn set_gate(&self, open: bool) -> Result<()> {
        self.up()?;
        self.state().gate_open = open;
        Ok(())
    }

    async fn sync(&self, request: &SyncRequest) -> Result<SyncReport> {
        self.up()?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        let options = self.options();
        if self.state().bound != request.session {
            return Err(Error::conflict("this sandbox is not, or no longer, whom the sync is for"));
        }
        if options.sync_hangs {
            self.closed().await;
            return Err(Error::unavailable("the agent hung up during sync"));
        }
        if let Some(text) = options.sync_fails {
            return Err(Error::permanent(text));
        }
        let mut state = self.state();
        let fetched = state.head.as_ref() != Some(&request.commit);
        let head = match (request.mode, &state.head) {
            (SyncMode::Fetch, Some(head)) => head.clone(),
            _ => request.commit.clone(),
        };
        state.head = Some(head.clone());
        state.gate_open |= request.open_gate;
        Ok(SyncReport { head, fetched, fetch_ms: 0, checkout_ms: 0 })
    }

    async fn exec(&self, request: &ExecRequest) -> Result<ExecStatus> {
        self.up()?;
        let line = match request.argv.as_slice() {
            [sh, c, line] if sh == "sh" && c == "-c" => line.clone(),
            argv => argv.join(" "),
        };
        let commands = self.options().commands;
        let does = commands.into_iter().find(|(part, _)| line.contains(part)).map(|(_, does)| does);
        let (output, exit) = match does {
            None => ("ok\n".to_owned(), Some(exit(0))),
            Some(FakeCommand::Ends(output, code)) => (output, Some(exit(code))),
            Some(FakeCommand::Runs(output)) => (output, None),
        };
        let mut state = self.state();
        let State { execs, started, .. } = &mut *state;
        let exec = execs.entry(request.id).or_insert_with(|| {
            started.push(line);
            FakeExec { output: output.into(), exit }
        });
        Ok(exec.status(request.id))
    }

    async fn exec_follow(&self, request: &ExecRequest) -> Result<FrameStream> {
        self.exec(request).await?;
        self.output(request.id, 0, true).await
    }

    async fn exec_status(&self, id: ExecId) -> Result<ExecStatus> {
        self.up()?;
        let state = self.state();
        let exec = state.execs.get(&id).ok_or_else(|| Error::not_found(format!("no exec {id}")))?;
        Ok(exec.status(id))
    }

    async fn exec_list(&self) -> Result<Vec<ExecStatus>> {
        self.up()?;
        Ok(self.state().execs.iter().map(|(id, exec)| exec.status(*id)).collect())
    }

    async fn output(&self, id: ExecId, from: u64, follow: bool) -> Result<FrameStream> {
        self.exec_status(id).await?;
        let (state, mut ended, mut open) =
            (self.state.clone(), self.ended.subscribe(), self.open.subscribe());
        let output = state.lock().expect("agent lock").execs[&id].output.clone();
        let rest = output.slice((from as usize).min(output.len())..);
        let begun = frames(rest, from);
        let end = async move {
            loop {
                let exit = state.lock().expect("agent lock").execs.get(&id).and_then(|e| e.exit.clone());
                if let Some(exit) = exit {
                    return Some(Ok(Frame::Exit(exit)));
                }
                if !follow {
                    return None;
                }
                tokio::select! {
                    _ = ended.changed() => {}
                    _ = open.wait_for(|open| !open) => return Some(Err(Error::unavailable("read a frame"))),
                }
            }
        };
        Ok(stream::iter(begun).chain(stream::once(end).filter_map(std::future::ready)).boxed())
    }

    async fn input(&self, id: ExecId, _data: Bytes, _eof: bool) -> Result<()> {
        self.exec_status(id).await.map(drop)
    }

    async fn signal(&self, id: ExecId, _signal: &str) -> Result<()> {
        self.exec_status(id).await?;
        if let Some(exec) = self.state().execs.get_mut(&id) {
            exec.exit.get_or_insert_with(|| exit(143));
        }
        self.ended.send_modify(|n| *n += 1);
        Ok(())
    }

    async fn resize(&self, id: ExecId, _size: TermSize) -> Result<()> {
        self.exec_status(id).await.map(drop)
    }

    async fn read_file(&self, path: &str) -> Result<ByteStream> {
        self.up()?;
        let data = self
            .state()
            .files
            .get(path)
            .cloned()
            .ok_or_else(|| Error::not_found(format!("no file {path}")))?;
        Ok(stream::iter([Ok(data)]).boxed())
    }

    async fn write_file(
        &self,
        path: &str,
        data: Bytes,
        _mode: Option<u32>,
        _gate_wait_ms: u64,
    ) -> Result<()> {
        self.up()?;
        let mut state = self.state();
        let guarded = !path.starts_with('/') || path.starts_with("/workspace");
        if guarded && !state.gate_open {
            return Err(Error::conflict("the write gate is shut"));
        }
        state.files.insert(path.into(), data);
        Ok(())
    }

    async fn delete_file(&self, path: &str, _gate_wait_ms: u64) -> Result<()> {
        self.up()?;
        match self.state().files.remove(path) {
            Some(_) => Ok(()),
            None => Err(Error::not_found(format!("no file {path}"))),
        }
    }

    async fn list_dir(&self, _path: &str) -> Result<Vec<DirEntry>> {
        self.up()?;
        let entry = |(name, data): (&String, &Bytes)| DirEntry {
            name: name.clone(),
            kind: FileKind::File,
            size: data.len() as u64,
            mode: 0o644,
            modified: 0,
        };
        // The workspace, where names are relative.
        Ok(self.state().files.iter().filter(|(name, _)| !name.starts_with('/')).map(entry).collect())
    }

    async fn port_open(&self, port: u16) -> Result<bool> {
        self.up()?;
        Ok(self.options().ports.contains(&port))
    }

    async fn keep_warm(&self, _limits: &KeepWarm) -> Result<KeptWarm> {
        self.up()?;
        if let Some(session) = self.state().bound {
            return Err(Error::conflict(format!("this sandbox belongs to session {session}")));
        }
        self.kept_warm.fetch_add(1, Ordering::Relaxed);
        Ok(KeptWarm { files: 1, bytes: 1 })
    }

    async fn quiesce(&self, _quiesce: &Quiesce) -> Result<()> {
        self.up()
    }
}

/// Line by line, so that who follows may be cut off between two.
fn frames(mut rest: Bytes, mut offset: u64) -> Vec<Result<Frame>> {
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let length = rest.iter().position(|b| *b == b'\n').map_or(rest.len(), |at| at + 1);
        let data = rest.split_to(length);
        frames.push(Ok(Frame::Output { stream: StreamName::Stdout, offset, data }));
        offset += length as u64;
    }
    frames
}

impl FakeExec {
    fn status(&self, id: ExecId) -> ExecStatus {
        ExecStatus {
            id,
            running: self.exit.is_none(),
            output_bytes: self.output.len() as u64,
            dropped_bytes: 0,
            exit: self.exit.clone(),
        }
    }
}

fn exit(code: i32) -> ExecExit {
    ExecExit { code: Some(code), signal: None, timed_out: false, duration_ms: 0.1, peak_rss_bytes: 0 }
}
