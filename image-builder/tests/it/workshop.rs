//! A workshop in memory: it notes what it is asked for, and any part of it can be told to fail or to hang.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Formatter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use domain::ports::{AgentLink, ByteStream, Captured, FrameStream};
use domain::testing::{FakeAgent, FakeAgentOptions};
use domain::wire::{
    AgentInfo, Bind, DirEntry, ExecExit, ExecRequest, ExecStatus, Frame, KeepWarm, KeptWarm, Quiesce,
    StreamName, SyncReport, SyncRequest, TermSize,
};
use domain::{
    Base, Branch, BuildId, CommitId, Digest, Error, ExecId, ImageId, Phase, PhaseReport, Purpose, RecipePart,
    RepoName, RepoSpec, Result, SandboxId,
};
use futures_util::{StreamExt, stream};
use image_builder::{BuildLog, CommitRecipe, Workshop};

use crate::make::{commit, digest};

/// What a call does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Fail,
    /// Do it, and lose the answer.
    FailAfter,
    Hang,
}

/// What a command does.
#[derive(Debug, Clone)]
pub enum Act {
    Exit(i32, &'static str),
    /// Prints these pieces, each in a frame of its own, and ends with that code.
    Says(i32, &'static [&'static str]),
    Killed,
    TimedOut,
    /// It never ends and ignores signals.
    Hang,
    /// The stream breaks twice on the way; the command goes on.
    Flaky(&'static str),
    /// The sandbox goes away.
    Drop,
}

#[derive(Default)]
pub struct Shop {
    /// What was asked, in order.
    pub events: Mutex<Vec<String>>,
    pub live: Mutex<BTreeSet<SandboxId>>,
    pub captures: Mutex<BTreeMap<ImageId, Captured>>,
    pub reports: Mutex<Vec<PhaseReport>>,
    pub env: Mutex<BTreeMap<String, String>>,
    /// The call's name (`resolve`, `recipe`, `base`, `boot build`, `boot check`, `sync`, `write`, `quiesce`, `capture`, `info`,
    /// `release`, `discard`, `phase`) and what it does instead.
    pub faults: BTreeMap<&'static str, Fault>,
    /// By a part of the command.
    pub acts: Vec<(&'static str, Act)>,
    pub head_at_check: Option<CommitId>,
    pub repository_file: Option<RecipePart>,
    /// Commands by their first line, with the environment that each got.
    pub given: Mutex<Vec<(String, BTreeMap<String, String>)>>,
}

impl Debug for Shop {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shop")
    }
}

impl Shop {
    pub fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    fn note(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push(event.into());
    }

    async fn meet(&self, call: &'static str) -> Result<()> {
        match self.faults.get(call) {
            Some(Fault::Fail) => Err(injected(call)),
            Some(Fault::Hang) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    fn answer<T>(&self, call: &'static str, value: T) -> Result<T> {
        if self.faults.get(call) == Some(&Fault::FailAfter) { Err(injected(call)) } else { Ok(value) }
    }
}

fn injected(call: &str) -> Error {
    Error::unavailable(format!("{call}: injected"))
}

/// The handle that is given to the builder; agents keep one as well.
#[derive(Debug, Clone, Default)]
pub struct Handle(pub Arc<Shop>);

#[async_trait]
impl Workshop for Handle {
    async fn resolve(&self, _repo: &RepoName, branch: &Branch) -> Result<CommitId> {
        self.0.note(format!("resolve {branch}"));
        self.0.meet("resolve").await?;
        Ok(commit(7))
    }

    async fn recipe(&self, spec: &RepoSpec, _commit: &CommitId) -> Result<CommitRecipe> {
        self.0.note("recipe");
        self.0.meet("recipe").await?;
        Ok(match &self.0.repository_file {
            Some(part) => CommitRecipe::new(&spec.image).with_repository_file(part),
            None => CommitRecipe::new(&spec.image),
        })
    }

    async fn base(&self, spec: &RepoSpec, _commit: &CommitId, log: &dyn BuildLog) -> Result<Captured> {
        assert!(!matches!(spec.image.base, Base::Import(_)));
        self.0.note("base");
        log.write(b"pulling\n");
        self.0.meet("base").await?;
        Ok(Captured { digest: digest(1000), size: 1 })
    }

    async fn boot(
        &self,
        sandbox: SandboxId,
        source: &Digest,
        purpose: Purpose,
        _spec: &RepoSpec,
    ) -> Result<Arc<dyn AgentLink>> {
        let (call, head) = match purpose {
            Purpose::Check(_) => ("boot check", Some(self.0.head_at_check.clone().unwrap_or(commit(7)))),
            _ => ("boot build", None),
        };
        self.0.note(format!(
            "{call} {}",
            source.as_str().trim_start_matches("sha256:0").trim_start_matches('0')
        ));
        // The row, before the deed.
        assert!(self.0.live.lock().unwrap().insert(sandbox));
        self.0.meet(call).await?;
        let agent = FakeAgent::new(sandbox, FakeAgentOptions { head, ..FakeAgentOptions::default() });
        agent.set_gate(true).await?;
        let agent =
            Agent { agent, shop: self.0.clone(), breaks: Mutex::new(2), gone: AtomicBool::new(false) };
        self.0.answer(call, Arc::new(agent) as Arc<dyn AgentLink>)
    }

    async fn capture(
        &self,
        sandbox: SandboxId,
        image: ImageId,
        _spec: &RepoSpec,
        env: &BTreeMap<String, String>,
    ) -> Result<Captured> {
        self.0.note("capture");
        assert!(self.0.live.lock().unwrap().contains(&sandbox));
        self.0.meet("capture").await?;
        let captured = Captured { digest: digest(0xcafe), size: 9 };
        self.0.env.lock().unwrap().clone_from(env);
        self.0.captures.lock().unwrap().insert(image, captured.clone());
        self.0.answer("capture", captured)
    }

    async fn release(&self, sandbox: SandboxId) {
        self.0.note("release");
        let _ = self.0.meet("release").await;
        self.0.live.lock().unwrap().remove(&sandbox);
    }

    async fn discard(&self, image: ImageId, captured: Option<&Captured>) {
        self.0.note(if captured.is_some() { "discard" } else { "discard what there is" });
        assert!(
            self.0.faults.contains_key("release") || self.0.live.lock().unwrap().is_empty(),
            "released first"
        );
        let _ = self.0.meet("discard").await;
        self.0.captures.lock().unwrap().remove(&image);
    }

    async fn phase(&self, _build: &BuildId, phase: Phase, report: Option<PhaseReport>) {
        let _ = self.0.meet("phase").await;
        if let Some(report) = report {
            assert_eq!(report.phase, phase);
            self.0.reports.lock().unwrap().push(report);
        }
    }
}

/// The domain's fake agent, with commands that do what the test says.
#[derive(Debug)]
struct Agent {
    agent: FakeAgent,
    shop: Arc<Shop>,
    breaks: Mutex<u32>,
    gone: AtomicBool,
}

impl Agent {
    fn exit(code: Option<i32>, signal: Option<i32>, timed_out: bool) -> Frame {
        Frame::Exit(ExecExit { code, signal, timed_out, duration_ms: 1500.0, peak_rss_bytes: 0 })
    }

    fn text(offset: u64, text: &'static str) -> Frame {
        Frame::Output { stream: StreamName::Stdout, offset, data: Bytes::from_static(text.as_bytes()) }
    }
}

#[async_trait]
impl AgentLink for Agent {
    fn sandbox(&self) -> SandboxId {
        self.agent.sandbox()
    }
    fn version(&self) -> &str {
        "9.9"
    }
    fn is_closed(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
    async fn closed(&self) {
        self.agent.closed().await;
    }
    async fn info(&self) -> Result<AgentInfo> {
        self.shop.note("info");
        self.shop.meet("info").await?;
        self.agent.info().await
    }
    async fn bind(&self, bind: &Bind) -> Result<()> {
        self.agent.bind(bind).await
    }
    async fn set_gate(&self, open: bool) -> Result<()> {
        self.agent.set_gate(open).await
    }
    async fn sync(&self, request: &SyncRequest) -> Result<SyncReport> {
        self.shop.note(format!("sync {:?} {} {}", request.mode, request.base, request.branch));
        self.shop.meet("sync").await?;
        self.agent.sync(request).await
    }
    async fn exec(&self, request: &ExecRequest) -> Result<ExecStatus> {
        self.agent.exec(request).await
    }

    async fn exec_follow(&self, request: &ExecRequest) -> Result<FrameStream> {
        assert_eq!(request.argv[..2], ["sh", "-c"]);
        let command = request.argv[2].clone();
        let first = command.lines().next().unwrap_or_default();
        self.shop.note(format!("run {first} in {}", request.cwd.as_deref().unwrap_or("?")));
        self.shop.given.lock().unwrap().push((first.to_owned(), request.env.clone()));
        let act = self.shop.acts.iter().find(|(part, _)| command.contains(part)).map(|(_, act)| act.clone());
        let frames = match act.unwrap_or(Act::Exit(0, "ok\n")) {
            Act::Exit(code, text) => vec![Ok(Self::text(0, text)), Ok(Self::exit(Some(code), None, false))],
            Act::Says(code, pieces) => {
                let mut offset = 0;
                let said = pieces.iter().map(|piece| {
                    offset += piece.len() as u64;
                    Ok(Self::text(offset - piece.len() as u64, piece))
                });
                let mut frames: Vec<_> = said.collect();
                frames.push(Ok(Self::exit(Some(code), None, false)));
                frames
            }
            Act::Killed => vec![Ok(Self::exit(None, Some(9), false))],
            Act::TimedOut => vec![Ok(Self::text(0, "slow\n")), Ok(Self::exit(None, Some(15), true))],
            Act::Hang => {
                let begun = stream::iter([Ok(Self::text(0, "begun\n")), Ok(Frame::Heartbeat)]);
                return Ok(begun.chain(stream::pending()).boxed());
            }
            Act::Flaky(text) => vec![Ok(Self::text(0, text)), Err(Error::unavailable("read a frame"))],
            Act::Drop => {
                self.gone.store(true, Ordering::Relaxed);
                vec![Err(Error::unavailable("read a frame"))]
            }
        };
        Ok(stream::iter(frames).boxed())
    }

    async fn exec_status(&self, id: ExecId) -> Result<ExecStatus> {
        self.agent.exec_status(id).await
    }
    async fn exec_list(&self) -> Result<Vec<ExecStatus>> {
        self.agent.exec_list().await
    }

    /// The rest of a flaky command: it repeats two bytes, as a resumed stream may, and ends at the third try.
    async fn output(&self, _id: ExecId, from: u64, _follow: bool) -> Result<FrameStream> {
        self.shop.note(format!("resume from {from}"));
        let mut breaks = self.breaks.lock().unwrap();
        *breaks -= 1;
        let end =
            if *breaks == 0 { Ok(Self::exit(Some(0), None, false)) } else { return Err(injected("output")) };
        Ok(stream::iter([Ok(Self::text(from - 2, "d\nrest\n")), end]).boxed())
    }

    async fn input(&self, id: ExecId, data: Bytes, eof: bool) -> Result<()> {
        self.agent.input(id, data, eof).await
    }
    async fn signal(&self, _id: ExecId, signal: &str) -> Result<()> {
        self.shop.note(format!("signal {signal}"));
        Ok(())
    }
    async fn resize(&self, id: ExecId, size: TermSize) -> Result<()> {
        self.agent.resize(id, size).await
    }
    async fn read_file(&self, path: &str) -> Result<ByteStream> {
        self.agent.read_file(path).await
    }
    async fn write_file(&self, path: &str, data: Bytes, mode: Option<u32>, gate_wait_ms: u64) -> Result<()> {
        self.shop.note(format!("write {path} {}", data.len()));
        self.shop.meet("write").await?;
        self.agent.write_file(path, data, mode, gate_wait_ms).await
    }
    async fn delete_file(&self, path: &str, gate_wait_ms: u64) -> Result<()> {
        self.agent.delete_file(path, gate_wait_ms).await
    }
    async fn list_dir(&self, path: &str) -> Result<Vec<DirEntry>> {
        self.agent.list_dir(path).await
    }
    async fn port_open(&self, port: u16) -> Result<bool> {
        self.agent.port_open(port).await
    }
    async fn keep_warm(&self, limits: &KeepWarm) -> Result<KeptWarm> {
        self.agent.keep_warm(limits).await
    }
    async fn quiesce(&self, quiesce: &Quiesce) -> Result<()> {
        self.shop.note(format!("quiesce stop={}", quiesce.stop));
        self.shop.meet("quiesce").await?;
        self.agent.quiesce(quiesce).await
    }
}

/// A log that is kept.
#[derive(Default)]
pub struct Log(Mutex<Vec<u8>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl BuildLog for Log {
    fn write(&self, bytes: &[u8]) {
        self.0.lock().unwrap().extend_from_slice(bytes);
    }
}
