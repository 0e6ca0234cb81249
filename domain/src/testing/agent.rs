//! An agent without a sandbox: it keeps bind, gate, head and files in memory and answers every exec with `ok\n`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::ports::{AgentLink, ByteStream, FrameStream};
use crate::wire::{
    AgentInfo, Bind, DirEntry, ExecExit, ExecRequest, ExecStatus, FileKind, Frame, PROTOCOL, Quiesce,
    StreamName, SyncMode, SyncReport, SyncRequest, TermSize,
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
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    bound: Option<SessionId>,
    gate_open: bool,
    head: Option<CommitId>,
    files: BTreeMap<String, Bytes>,
    execs: BTreeMap<ExecId, ExecStatus>,
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
            open: watch::Sender::new(true),
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
            open: watch::Sender::new(true),
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
        self.binds.store(0, Ordering::Relaxed);
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
        let status = ExecStatus {
            id: request.id,
            running: false,
            output_bytes: 3,
            dropped_bytes: 0,
            exit: Some(exit()),
        };
        self.state().execs.insert(request.id, status.clone());
        Ok(status)
    }

    async fn exec_follow(&self, request: &ExecRequest) -> Result<FrameStream> {
        self.exec(request).await?;
        self.output(request.id, 0, true).await
    }

    async fn exec_status(&self, id: ExecId) -> Result<ExecStatus> {
        self.up()?;
        self.state().execs.get(&id).cloned().ok_or_else(|| Error::not_found(format!("no exec {id}")))
    }

    async fn exec_list(&self) -> Result<Vec<ExecStatus>> {
        self.up()?;
        Ok(self.state().execs.values().cloned().collect())
    }

    async fn output(&self, id: ExecId, from: u64, _follow: bool) -> Result<FrameStream> {
        self.exec_status(id).await?;
        let rest = Bytes::from_static(b"ok\n").slice((from as usize).min(3)..);
        let frames =
            [Frame::Output { stream: StreamName::Stdout, offset: from, data: rest }, Frame::Exit(exit())];
        Ok(stream::iter(frames.map(Ok)).boxed())
    }

    async fn input(&self, id: ExecId, _data: Bytes, _eof: bool) -> Result<()> {
        self.exec_status(id).await.map(drop)
    }

    async fn signal(&self, id: ExecId, _signal: &str) -> Result<()> {
        self.exec_status(id).await.map(drop)
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
        if !state.gate_open {
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
        Ok(self.state().files.iter().map(entry).collect())
    }

    async fn quiesce(&self, _quiesce: &Quiesce) -> Result<()> {
        self.up()
    }
}

fn exit() -> ExecExit {
    ExecExit { code: Some(0), signal: None, timed_out: false, duration_ms: 0.1, peak_rss_bytes: 0 }
}
