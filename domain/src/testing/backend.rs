//! An engine in memory. What it holds is inspectable, its list can lag, and any call can be told to fail or hang.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Semaphore, broadcast};

use crate::ports::{
    Backend, BuildImage, CaptureKind, CaptureSpec, Captured, ContentFilter, EngineEvent, EngineInfo,
    ObservedCapture, ObservedPhase, ObservedSandbox, Progress, StartSandbox, TreeEntry, TreeStream,
};
use crate::{Digest, Error, ErrorKind, RepoName, Result, SandboxId};

/// What the next calls of one verb do instead of their work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fail before doing anything.
    Fail(ErrorKind),
    /// Do it, then answer with this error: the answer was lost.
    FailAfter(ErrorKind),
    /// Never answer.
    Hang,
    /// Do it, and never answer.
    HangAfter,
}

/// What is left of a fault once the work is done.
enum After {
    Answer,
    Fail(ErrorKind),
    Hang,
}

type OnStart = Box<dyn Fn(&StartSandbox) + Send + Sync>;
type OnGone = Box<dyn Fn(SandboxId) + Send + Sync>;
type OnCapture = Box<dyn Fn(SandboxId, &Digest) + Send + Sync>;
type OnCall = Box<dyn Fn(&'static str, Duration, Option<ErrorKind>) + Send + Sync>;

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<SandboxId, ObservedSandbox>,
    captures: BTreeMap<Digest, ObservedCapture>,
    /// The files of captures, where a test says which.
    trees: HashMap<Digest, Vec<TreeEntry>>,
    faults: HashMap<&'static str, Vec<Fault>>,
    /// How long calls of a verb take before they do their work.
    slow: HashMap<&'static str, Duration>,
    /// Calls of a verb that wait in the middle of their work, and where: `start` has made and not started, `list` has
    /// read and not answered.
    held: HashMap<&'static str, Arc<Semaphore>>,
    /// Repos whose sandboxes don't start.
    refused: BTreeSet<RepoName>,
    /// What every call meets until it is taken back.
    down: Option<Fault>,
    calls: HashMap<&'static str, u64>,
    /// What `list` answers while it lags.
    stale: Option<Vec<ObservedSandbox>>,
    serial: u64,
}

pub struct FakeBackend {
    state: Mutex<State>,
    events: broadcast::Sender<EngineEvent>,
    on_start: Mutex<Option<Arc<OnStart>>>,
    on_gone: Mutex<Option<Arc<OnGone>>>,
    on_capture: Mutex<Option<Arc<OnCapture>>>,
    on_call: Mutex<Option<Arc<OnCall>>>,
}

impl std::fmt::Debug for FakeBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeBackend")
    }
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            events: broadcast::Sender::new(1024),
            on_start: Mutex::default(),
            on_gone: Mutex::default(),
            on_capture: Mutex::default(),
            on_call: Mutex::default(),
        }
    }
}

impl FakeBackend {
    /// Called for each sandbox that starts: the place to connect a fake agent.
    pub fn on_start(&self, f: impl Fn(&StartSandbox) + Send + Sync + 'static) {
        *self.on_start.lock().expect("lock") = Some(Arc::new(Box::new(f)));
    }

    /// Called for each sandbox whose processes end: the place to hang up a fake agent.
    pub fn on_gone(&self, f: impl Fn(SandboxId) + Send + Sync + 'static) {
        *self.on_gone.lock().expect("lock") = Some(Arc::new(Box::new(f)));
    }

    /// Called for each capture of a sandbox, before its answer.
    pub fn on_capture(&self, f: impl Fn(SandboxId, &Digest) + Send + Sync + 'static) {
        *self.on_capture.lock().expect("lock") = Some(Arc::new(Box::new(f)));
    }

    /// Told of every call, as an adapter tells of its own: verb, time taken, kind of failure.
    pub fn on_call(&self, f: impl Fn(&'static str, Duration, Option<ErrorKind>) + Send + Sync + 'static) {
        *self.on_call.lock().expect("lock") = Some(Arc::new(Box::new(f)));
    }

    /// The next call of `verb` (the trait's method name) meets `fault`; calls queue up.
    pub fn fault(&self, verb: &'static str, fault: Fault) {
        self.state().faults.entry(verb).or_default().push(fault);
    }

    /// Calls of `verb` take this long from now on.
    pub fn slow(&self, verb: &'static str, by: Duration) {
        self.state().slow.insert(verb, by);
    }

    /// Calls of `start` or `list` wait in the middle of their work until [`FakeBackend::release`].
    pub fn hold(&self, verb: &'static str) {
        self.state().held.insert(verb, Arc::new(Semaphore::new(0)));
    }

    pub fn release(&self, verb: &'static str) {
        if let Some(held) = self.state().held.remove(verb) {
            held.close();
        }
    }

    async fn halfway(&self, verb: &'static str) {
        let held = self.state().held.get(verb).cloned();
        if let Some(held) = held {
            // Closed, and never given out.
            let _ = held.acquire().await;
        }
    }

    /// Every call of any verb meets `fault` until [`FakeBackend::clear_faults`]: the daemon is down.
    pub fn down(&self, fault: Fault) {
        self.state().down = Some(fault);
    }

    /// Sandboxes of this repo don't start until [`FakeBackend::clear_faults`].
    pub fn refuse(&self, repo: &RepoName) {
        self.state().refused.insert(repo.clone());
    }

    pub fn clear_faults(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.refused.clear();
        state.down = None;
    }

    /// From now on `list` answers what it would answer now.
    pub fn freeze_list(&self) {
        let mut state = self.state();
        let now = state.sandboxes.values().cloned().collect();
        state.stale = Some(now);
    }

    pub fn thaw_list(&self) {
        self.state().stale = None;
    }

    pub fn sandboxes(&self) -> Vec<SandboxId> {
        self.state().sandboxes.keys().copied().collect()
    }

    pub fn calls(&self, verb: &'static str) -> u64 {
        self.state().calls.get(verb).copied().unwrap_or(0)
    }

    /// All verbs together.
    pub fn calls_of_all(&self) -> u64 {
        self.state().calls.values().sum()
    }

    pub fn captures(&self) -> Vec<ObservedCapture> {
        self.state().captures.values().cloned().collect()
    }

    /// Its first process ends; its files stay.
    pub fn exit(&self, id: SandboxId) {
        let there = self.state().sandboxes.get_mut(&id).map(|s| s.phase = ObservedPhase::Exited).is_some();
        if there {
            self.tell_gone(id);
            let _ = self.events.send(EngineEvent { sandbox: id, gone: true });
        }
    }

    fn tell_gone(&self, id: SandboxId) {
        let hook = self.on_gone.lock().expect("lock").clone();
        if let Some(hook) = hook {
            hook(id);
        }
    }

    /// Removes a sandbox behind Hotbed's back (F19); `tell` sends the event, else it is lost (F45).
    pub fn remove_from_outside(&self, id: SandboxId, tell: bool) {
        self.state().sandboxes.remove(&id);
        self.tell_gone(id);
        if tell {
            let _ = self.events.send(EngineEvent { sandbox: id, gone: true });
        }
    }

    /// A sandbox that exists without anybody having asked for it.
    pub fn add_sandbox(&self, id: SandboxId) {
        let observed = ObservedSandbox { id, engine_id: format!("fake-{id}"), phase: ObservedPhase::Running };
        self.state().sandboxes.insert(id, observed);
    }

    /// A capture that exists without anybody having made it here.
    pub fn add_capture(&self, capture: ObservedCapture) {
        self.state().captures.insert(capture.digest.clone(), capture);
    }

    /// What `read_tree` finds in a capture; nothing unless said here.
    pub fn put_tree(&self, digest: &Digest, files: Vec<TreeEntry>) {
        self.state().trees.insert(digest.clone(), files);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("backend lock")
    }

    /// Counts the call and meets its fault, if one waits.
    async fn enter(&self, verb: &'static str) -> Result<After> {
        let (fault, slow) = {
            let mut state = self.state();
            *state.calls.entry(verb).or_default() += 1;
            let fault = match state.faults.get_mut(verb) {
                Some(queue) if !queue.is_empty() => Some(queue.remove(0)),
                _ => state.down,
            };
            (fault, state.slow.get(verb).copied())
        };
        if let Some(by) = slow {
            tokio::time::sleep(by).await;
        }
        let hook = self.on_call.lock().expect("lock").clone();
        if let Some(hook) = hook {
            let kind = match fault {
                Some(Fault::Fail(kind) | Fault::FailAfter(kind)) => Some(kind),
                _ => None,
            };
            hook(verb, slow.unwrap_or_default(), kind);
        }
        match fault {
            None => Ok(After::Answer),
            Some(Fault::Fail(kind)) => Err(Error::new(kind, format!("{verb} (injected)"))),
            Some(Fault::FailAfter(kind)) => Ok(After::Fail(kind)),
            Some(Fault::HangAfter) => Ok(After::Hang),
            Some(Fault::Hang) => std::future::pending().await,
        }
    }
}

async fn leave<T>(after: After, verb: &str, value: T) -> Result<T> {
    match after {
        After::Answer => Ok(value),
        After::Hang => std::future::pending().await,
        After::Fail(kind) => Err(Error::new(kind, format!("{verb} (answer lost)"))),
    }
}

#[async_trait]
impl Backend for FakeBackend {
    async fn probe(&self) -> Result<EngineInfo> {
        let after = self.enter("probe").await?;
        leave(after, "probe", EngineInfo { name: "fake", version: "0".into(), data_dir: None }).await
    }

    async fn start(&self, spec: &StartSandbox) -> Result<String> {
        let after = self.enter("start").await?;
        if self.state().refused.contains(&spec.repo) {
            return Err(Error::new(
                ErrorKind::Permanent,
                format!("start a sandbox of {} (injected)", spec.repo),
            ));
        }
        let engine_id = format!("fake-{}", spec.id);
        let new = {
            let mut state = self.state();
            let observed =
                ObservedSandbox { id: spec.id, engine_id: engine_id.clone(), phase: ObservedPhase::Created };
            let old = state.sandboxes.insert(spec.id, observed);
            old.is_none_or(|old| matches!(old.phase, ObservedPhase::Exited | ObservedPhase::Created))
        };
        self.halfway("start").await;
        if let Some(s) = self.state().sandboxes.get_mut(&spec.id) {
            s.phase = ObservedPhase::Running;
        }
        if new {
            let hook = self.on_start.lock().expect("lock").clone();
            if let Some(hook) = hook {
                hook(spec);
            }
        }
        leave(after, "start", engine_id).await
    }

    async fn stop(&self, id: SandboxId) -> Result<()> {
        let after = self.enter("stop").await?;
        let there = self.state().sandboxes.remove(&id).is_some();
        if there {
            self.tell_gone(id);
            let _ = self.events.send(EngineEvent { sandbox: id, gone: true });
        }
        leave(after, "stop", ()).await
    }

    async fn pause(&self, id: SandboxId) -> Result<()> {
        let after = self.enter("pause").await?;
        match self.state().sandboxes.get_mut(&id) {
            Some(s) => s.phase = ObservedPhase::Paused,
            None => return Err(Error::not_found(format!("no sandbox {id}"))),
        }
        leave(after, "pause", ()).await
    }

    async fn resume(&self, id: SandboxId) -> Result<()> {
        let after = self.enter("resume").await?;
        match self.state().sandboxes.get_mut(&id) {
            Some(s) => s.phase = ObservedPhase::Running,
            None => return Err(Error::not_found(format!("no sandbox {id}"))),
        }
        leave(after, "resume", ()).await
    }

    async fn capture(&self, id: SandboxId, spec: &CaptureSpec) -> Result<Captured> {
        let after = self.enter("capture").await?;
        let captured = {
            let mut state = self.state();
            if !state.sandboxes.contains_key(&id) {
                return Err(Error::not_found(format!("no sandbox {id}")));
            }
            state.add(spec)
        };
        let hook = self.on_capture.lock().expect("lock").clone();
        if let Some(hook) = hook {
            hook(id, &captured.digest);
        }
        leave(after, "capture", captured).await
    }

    async fn list(&self) -> Result<Vec<ObservedSandbox>> {
        let after = self.enter("list").await?;
        let list = {
            let state = self.state();
            state.stale.clone().unwrap_or_else(|| state.sandboxes.values().cloned().collect())
        };
        self.halfway("list").await;
        leave(after, "list", list).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<EngineEvent>>> {
        self.enter("events").await?;
        let rx = self.events.subscribe();
        let next = |mut rx: broadcast::Receiver<EngineEvent>| async move {
            match rx.recv().await {
                Ok(event) => Some((Ok(event), rx)),
                Err(_) => None,
            }
        };
        Ok(stream::unfold(rx, next).boxed())
    }

    async fn import(&self, _tar: PathBuf, spec: &CaptureSpec) -> Result<Captured> {
        let after = self.enter("import").await?;
        let captured = self.state().add(spec);
        leave(after, "import", captured).await
    }

    async fn build(&self, order: &BuildImage, progress: &Progress) -> Result<Captured> {
        let after = self.enter("build").await?;
        progress("built");
        let spec = CaptureSpec {
            kind: CaptureKind::Base,
            name: order.name.clone(),
            env: BTreeMap::new(),
            workdir: None,
            pause: false,
        };
        let captured = self.state().add(&spec);
        leave(after, "build", captured).await
    }

    async fn pull(&self, reference: &str) -> Result<Captured> {
        let after = self.enter("pull").await?;
        let digest = digest_of(reference.bytes().map(u64::from).sum());
        leave(after, "pull", Captured { digest, size: 1 }).await
    }

    async fn has(&self, digest: &Digest) -> Result<bool> {
        let after = self.enter("has").await?;
        let there = self.state().captures.contains_key(digest);
        leave(after, "has", there).await
    }

    async fn list_captures(&self) -> Result<Vec<ObservedCapture>> {
        let after = self.enter("list_captures").await?;
        let list = self.state().captures.values().cloned().collect();
        leave(after, "list_captures", list).await
    }

    async fn read_tree(&self, digest: &Digest, content: ContentFilter) -> Result<TreeStream> {
        let after = self.enter("read_tree").await?;
        let files = {
            let state = self.state();
            if !state.captures.contains_key(digest) {
                return Err(Error::not_found(format!("no capture {digest}")));
            }
            state.trees.get(digest).cloned().unwrap_or_default()
        };
        let asked = move |mut file: TreeEntry| {
            file.content = file.content.filter(|_| content(&file.path));
            Ok(file)
        };
        leave(after, "read_tree", stream::iter(files).map(asked).boxed()).await
    }

    async fn remove_capture(&self, digest: &Digest) -> Result<()> {
        let after = self.enter("remove_capture").await?;
        self.state().captures.remove(digest);
        leave(after, "remove_capture", ()).await
    }

    async fn dispose(&self) -> Result<()> {
        let after = self.enter("dispose").await?;
        leave(after, "dispose", ()).await
    }
}

impl State {
    fn add(&mut self, spec: &CaptureSpec) -> Captured {
        self.serial += 1;
        let digest = digest_of(self.serial);
        let capture =
            ObservedCapture { digest: digest.clone(), kind: spec.kind, name: spec.name.clone(), size: 1 };
        self.captures.insert(digest.clone(), capture);
        Captured { digest, size: 1 }
    }
}

fn digest_of(n: u64) -> Digest {
    format!("sha256:{n:064x}").parse().expect("digest")
}
