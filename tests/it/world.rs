//! A whole Hotbed on fakes: real store, real git, real HTTP; engine and agents in memory. It can be restarted and
//! crashed on the same state directory and engine, and at its end it looks for what leaked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{AgentLink, CaptureKind, StartSandbox};
use domain::testing::{FakeAgent, FakeAgentOptions, FakeBackend, ManualClock};
use domain::{
    Base, Branch, CommitId, Digest, Identity, Network, Phases, PoolPolicy, Recipe, RepoName, RepoSpec,
    Resources, SandboxId, SandboxRecord, SandboxState, SessionPolicy, SessionState, SharedClock, SystemClock,
    Trigger,
};
use git::hosting::BareRepo;
use orchestrator::app::{App, Engine, Options};
use orchestrator::client::Client;
use orchestrator::fleet::{Fleet, Gatekeeper, ReconcileReport};
use orchestrator::links::Admission;
use serde_json::{Value, json};
use store::Store;
use tempfile::TempDir;
use tests::github::{APP_ID, CLIENT_ID, CLIENT_SECRET, Grade, Standin, WEBHOOK_SECRET};
use tokio::net::TcpListener;
use tokio::runtime::{Handle, Runtime};

use crate::http::{self, Answer};
use crate::logs;

/// What a World begins with.
pub struct Setup {
    pub repos: Vec<RepoSpec>,
    /// Timestamps stand still until the test moves them.
    pub manual_clock: bool,
    /// Build an image of every repo first and wait for full pools.
    pub ready: bool,
    /// How agents behave from the beginning.
    pub agents: FakeAgentOptions,
    /// Upstream and forge are a GitHub.
    pub github: bool,
    /// Where spans are sent.
    pub tracing: Option<config::TracingSettings>,
}

impl Setup {
    /// One repo, `acme/api`, with a pool of this size.
    pub fn pool(size: u32) -> Self {
        Self::repos(vec![spec("acme/api", size)])
    }

    pub fn repos(repos: Vec<RepoSpec>) -> Self {
        Self {
            repos,
            manual_clock: false,
            ready: true,
            agents: FakeAgentOptions::default(),
            github: false,
            tracing: None,
        }
    }

    /// Upstream and forge are a stand-in for GitHub, with a user `ada` who may push.
    pub fn github(mut self) -> Self {
        self.github = true;
        self
    }

    pub fn tracing(mut self, to: config::TracingSettings) -> Self {
        self.tracing = Some(to);
        self
    }

    pub fn manual_clock(mut self) -> Self {
        self.manual_clock = true;
        self
    }

    pub fn agents(mut self, change: impl FnOnce(&mut FakeAgentOptions)) -> Self {
        change(&mut self.agents);
        self
    }

    pub fn change(mut self, change: impl Fn(&mut RepoSpec)) -> Self {
        self.repos.iter_mut().for_each(change);
        self
    }
}

/// A repo whose upstream the World makes.
pub fn spec(name: &str, pool: u32) -> RepoSpec {
    RepoSpec {
        name: name.parse().expect("repo name"),
        url: String::new(),
        branch: main(),
        workspace: "/workspace".into(),
        image: Recipe {
            phases: Phases {
                setup: vec!["make install".into()],
                update: vec!["make update".into()],
                warm: vec!["make test".into()],
                verify: vec!["make check".into()],
                ..Phases::default()
            },
            keep: 2,
            step_timeout: Duration::from_secs(60),
            ..Recipe::of(Base::Reference("fake/base:1".into()))
        },
        rollout: domain::RolloutPolicy::default(),
        pool: PoolPolicy {
            min: pool,
            max: pool + 10,
            member_max_age: Duration::from_secs(6 * 3600),
            warmup_ttl: Duration::from_secs(60),
            ..PoolPolicy::default()
        },
        session: SessionPolicy {
            timeout: Duration::from_secs(4 * 3600),
            idle_end: None,
            branch_pattern: "hotbed/{session}".into(),
            sync_timeout: Duration::from_secs(30),
        },
        pushes: Default::default(),
        pulls: Default::default(),
        resources: Resources { cpu_millis: 1000, memory: 1 << 30, pids: 256 },
        network: Network::None,
    }
}

pub fn main() -> Branch {
    "main".parse().expect("branch")
}

pub fn ada() -> Identity {
    Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.org".into() }
}

/// The agents of all sandboxes that live, as they would sit in their containers while Hotbed comes and goes.
#[derive(Default)]
pub struct Agents {
    inner: Mutex<Inner>,
    /// New sandboxes' agents don't dial.
    mute: AtomicBool,
    /// The next one's doesn't.
    mute_next: AtomicBool,
}

#[derive(Default)]
struct Inner {
    present: HashMap<SandboxId, (Arc<FakeAgent>, String)>,
    /// What each capture holds.
    trees: HashMap<Digest, Tree>,
    server: Option<(Weak<Fleet>, Handle)>,
    /// How new agents behave.
    newcomers: FakeAgentOptions,
    /// Of every agent that ever was, how often it was bound.
    binds: HashMap<SandboxId, Arc<AtomicU32>>,
    refused: Vec<SandboxId>,
}

type Tree = (Option<CommitId>, BTreeMap<String, Bytes>);

impl Agents {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, start: &StartSandbox) {
        let agent = {
            let mut inner = self.inner();
            let agent = match inner.present.get(&start.id) {
                Some((old, _)) => {
                    old.reboot();
                    old.redial()
                }
                None => {
                    let agent = FakeAgent::new(start.id, inner.newcomers.clone());
                    if let Some((head, files)) = inner.trees.get(&start.source) {
                        agent.restore(head.clone(), files.clone());
                    }
                    agent
                }
            };
            let agent = Arc::new(agent);
            inner.binds.insert(start.id, agent.binds.clone());
            inner.present.insert(start.id, (agent.clone(), start.boot.token.clone()));
            agent
        };
        let this_one = self.mute_next.swap(false, Ordering::Relaxed);
        if !this_one && !self.mute.load(Ordering::Relaxed) {
            self.join(agent, start.boot.token.clone());
        }
    }

    /// As the listener does it: admission by token, then the link.
    fn join(&self, agent: Arc<FakeAgent>, token: String) {
        let server = self.inner().server.clone();
        let Some((fleet, handle)) = server else { return };
        let Some(fleet) = fleet.upgrade() else { return };
        let gate = Gatekeeper(fleet);
        match gate.admit(agent.sandbox(), &token) {
            Ok(()) => drop(handle.spawn(async move { gate.connected(agent).await })),
            Err(_) => self.inner().refused.push(agent.sandbox()),
        }
    }

    fn gone(&self, id: SandboxId, removed: bool) {
        let mut inner = self.inner();
        let Some((agent, _)) = inner.present.get(&id) else { return };
        agent.hang_up();
        if removed {
            inner.present.remove(&id);
        }
    }

    /// Agents that are started from now on behave like this.
    pub fn newcomers(&self, change: impl FnOnce(&mut FakeAgentOptions)) {
        change(&mut self.inner().newcomers);
    }

    /// Every agent's connection is lost, and each dials again.
    pub fn redial_all(&self) {
        self.redial_those(|_| true);
    }

    pub fn redial(&self, id: SandboxId) {
        self.redial_those(|other| other == id);
    }

    fn redial_those(&self, which: impl Fn(SandboxId) -> bool) {
        let again: Vec<_> = {
            let mut inner = self.inner();
            let mut again = Vec::new();
            for (_, (agent, token)) in inner.present.iter_mut().filter(|(id, _)| which(**id)) {
                agent.hang_up();
                *agent = Arc::new(agent.redial());
                again.push((agent.clone(), token.clone()));
            }
            again
        };
        for (agent, token) in again {
            self.join(agent, token);
        }
    }

    /// New sandboxes' agents don't dial while this holds.
    pub fn mute(&self, on: bool) {
        self.mute.store(on, Ordering::Relaxed);
    }

    /// The agent of the next sandbox doesn't dial; that of the one after it does.
    pub fn mute_next(&self) {
        self.mute_next.store(true, Ordering::Relaxed);
    }

    pub fn all(&self) -> Vec<Arc<FakeAgent>> {
        self.inner().present.values().map(|(a, _)| a.clone()).collect()
    }

    #[track_caller]
    pub fn of(&self, id: SandboxId) -> Arc<FakeAgent> {
        self.inner().present.get(&id).unwrap_or_else(|| panic!("{id} has no agent")).0.clone()
    }

    pub fn token(&self, id: SandboxId) -> String {
        self.inner().present.get(&id).map(|(_, t)| t.clone()).expect("a sandbox that lives")
    }

    /// How often each sandbox that ever was has been bound.
    pub fn binds(&self) -> HashMap<SandboxId, u32> {
        self.inner().binds.iter().map(|(id, n)| (*id, n.load(Ordering::Relaxed))).collect()
    }
}

struct Server {
    runtime: Option<Runtime>,
    app: Arc<App>,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How a crash comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// Every task is cut where it stands; what was submitted to the store is still written.
    TasksFirst,
    /// Nothing more is written, and then the tasks are cut.
    StoreFirst,
}

pub struct World {
    dir: TempDir,
    pub backend: Arc<FakeBackend>,
    pub agents: Arc<Agents>,
    pub clock: Arc<ManualClock>,
    pub specs: Vec<RepoSpec>,
    hub: Option<Standin>,
    tracing: Option<config::TracingSettings>,
    /// What lies in the file of the vault's keys at each start.
    pub vault_keys: String,
    shared_clock: SharedClock,
    server: Option<Server>,
    expected: Vec<String>,
    allowed: Vec<String>,
    number: u64,
}

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// Waits in tests: generous, because the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

impl World {
    /// Runs a test in a World of its own and looks for leaks behind it.
    pub fn with(setup: Setup, test: impl AsyncFnOnce(&mut Self)) {
        crate::say_failures();
        logs::install();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        logs::adopt(number);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let mut world = Self::new(setup, number).await;
            test(&mut world).await;
            world.finish().await;
        });
    }

    async fn new(setup: Setup, number: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("hb").tempdir().expect("temporary directory");
        #[allow(clippy::disallowed_methods)] // the beginning of a clock that stands still
        let clock = Arc::new(ManualClock::at(jiff::Timestamp::now()));
        let shared_clock: SharedClock =
            if setup.manual_clock { clock.clone() } else { Arc::new(SystemClock) };
        let hub = match setup.github {
            true => Some(Standin::start(shared_clock.clone()).await.expect("the stand-in")),
            false => None,
        };
        let mut specs = setup.repos;
        for spec in &mut specs {
            if let Some(hub) = &hub {
                hub.repo(&spec.name);
                hub.collaborator(&spec.name, "ada", Grade::Write);
                spec.url = hub.clone_url(&spec.name);
                continue;
            }
            let path = dir.path().join("upstream").join(format!("{}.git", spec.name));
            let repo = BareRepo::create(&path).expect("upstream");
            repo.commit_files(&main(), &[("README.md", Some(b"hello\n"))], "first", &ada()).expect("commit");
            spec.url = path.display().to_string();
        }
        let backend = Arc::new(FakeBackend::default());
        let agents = Arc::new(Agents::default());
        agents.newcomers(|options| *options = setup.agents);
        let a = agents.clone();
        backend.on_start(move |start| a.started(start));
        let (a, b) = (agents.clone(), Arc::downgrade(&backend));
        backend.on_gone(move |id| {
            let removed = b.upgrade().is_none_or(|b| !b.sandboxes().contains(&id));
            a.gone(id, removed);
        });
        let a = agents.clone();
        backend.on_capture(move |id, digest| {
            let mut inner = a.inner();
            if let Some(tree) = inner.present.get(&id).map(|(agent, _)| agent.tree()) {
                inner.trees.insert(digest.clone(), tree);
            }
        });
        let mut world = Self {
            dir,
            backend,
            agents,
            clock,
            specs,
            hub,
            tracing: setup.tracing,
            vault_keys: "0a".repeat(32),
            shared_clock,
            server: None,
            expected: Vec::new(),
            allowed: Vec::new(),
            number,
        };
        world.start().await;
        if setup.ready {
            world.build_all().await;
            world.pools_full().await;
        }
        world
    }

    // ------------------------------------------------------------------------------------------- the server

    async fn start(&mut self) {
        let number = self.number;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("world-{number}"))
            .on_thread_start(move || logs::adopt(number))
            .enable_all()
            .build()
            .expect("runtime");
        let (state, specs) = (self.state_dir(), self.specs.clone());
        let (backend, clock) = (self.backend.clone(), self.shared_clock.clone());
        let forge = self.hub.as_ref().map_or(config::ForgeSettings::Local, |hub| {
            github_settings(hub, self.dir.path(), &self.vault_keys)
        });
        let tracing = self.tracing.clone();
        let options = move || {
            let mut options = Options::new(&state, specs.clone(), Engine::Given(backend.clone()));
            options.agent = Some(b"no agent".to_vec());
            options.clock = clock.clone();
            options.schedules = false;
            options.forge = forge.clone();
            options.tracing = tracing.clone();
            options
        };
        let (app, address) = runtime
            .spawn(async move {
                let app = unlocked(|| App::start(options())).await.expect("start");
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
                let address = listener.local_addr().expect("address");
                let serving = app.clone();
                tokio::spawn(async move { serving.serve(listener).await });
                (app, address)
            })
            .await
            .expect("start");
        self.agents.inner().server = Some((Arc::downgrade(&app.fleet), runtime.handle().clone()));
        let metrics = app.metrics.clone();
        self.backend.on_call(move |call, took, failed| metrics.backend_called(call, took, failed));
        if let Some(hub) = &self.hub {
            hub.webhooks_to(Some(&format!("http://{address}/v1/webhooks/github")));
        }
        self.server = Some(Server { runtime: Some(runtime), app, address });
        self.agents.redial_all();
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("a server runs")
    }

    pub fn app(&self) -> &Arc<App> {
        &self.server().app
    }

    /// Runs something against the App on the server's own threads, as a handler would.
    pub async fn on<T: Send + 'static, F>(&self, work: impl FnOnce(Arc<App>) -> F) -> T
    where
        F: Future<Output = T> + Send + 'static,
    {
        let server = self.server();
        let handle = server.runtime.as_ref().expect("runtime").handle();
        handle.spawn(work(server.app.clone())).await.expect("no panic")
    }

    pub fn now(&self) -> jiff::Timestamp {
        self.shared_clock.now()
    }

    pub fn client(&self) -> Client {
        Client::new(self.server().address.to_string(), self.app().api_key.clone())
    }

    pub fn state_dir(&self) -> std::path::PathBuf {
        self.dir.path().join("state")
    }

    async fn stop_server(&mut self) {
        self.on(|app| async move { app.shutdown().await }).await;
        self.end_runtime();
    }

    /// Joins the server's threads, so that nothing of it runs any more.
    fn end_runtime(&mut self) {
        self.agents.inner().server = None;
        let mut server = self.server.take().expect("a server runs");
        let runtime = server.runtime.take().expect("runtime");
        std::thread::spawn(move || runtime.shutdown_timeout(Duration::from_secs(10)))
            .join()
            .expect("shut down");
    }

    /// An orderly stop, and a start on the same state and engine.
    pub async fn restart(&mut self) {
        self.stop_server().await;
        self.start().await;
    }

    /// An orderly stop, something done to the state directory, and a start.
    pub async fn stopped(&mut self, meanwhile: impl FnOnce(&std::path::Path)) {
        self.stop_server().await;
        meanwhile(&self.state_dir());
        self.start().await;
    }

    /// As near to `kill -9` as one process allows, and a start on the same state and engine. Agents go on.
    pub async fn crash(&mut self, how: Crash) {
        let app = self.app().clone();
        let (store, logs) = (app.store.clone(), app.session_logs.clone());
        drop(app);
        if how == Crash::StoreFirst {
            store.clone().close().await;
        }
        self.end_runtime();
        // What was at work on another thread when the runtime went says so; no server is there to hear it.
        self.allow_log("was cancelled");
        logs.close().await;
        store.close().await;
        self.start().await;
    }

    // --------------------------------------------------------------------------------------------- requests

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let key = format!("Bearer {}", self.app().api_key);
        let mut all = vec![("authorization", key.as_str())];
        all.extend_from_slice(headers);
        http::send(self.server().address, method, path, &all, body).await.expect("an answer")
    }

    /// A request whose client does not wait for the answer.
    pub async fn ask_and_hang_up(&self, method: &str, path: &str, headers: &[(&str, &str)]) {
        let key = format!("Bearer {}", self.app().api_key);
        let mut all = vec![("authorization", key.as_str())];
        all.extend_from_slice(headers);
        drop(http::ask(self.server().address, method, path, &all, b"").await.expect("it is asked"));
    }

    /// A request that may find nobody.
    pub async fn try_send(&self, method: &str, path: &str, body: &[u8]) -> std::io::Result<Answer> {
        let key = format!("Bearer {}", self.app().api_key);
        let headers = [("authorization", key.as_str()), ("content-type", "application/json")];
        http::send(self.server().address, method, path, &headers, body).await
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> std::io::Result<Answer> {
        self.try_send("POST", path, body.to_string().as_bytes()).await
    }

    /// Without a key.
    pub async fn send_bare(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        http::send(self.server().address, method, path, headers, body).await.expect("an answer")
    }

    /// Without a key, and without an answer perhaps.
    pub async fn try_bare(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        http::send(self.server().address, method, path, headers, body).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub async fn put(&self, path: &str) -> Answer {
        self.send("PUT", path, &[], b"").await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], b"").await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    /// A session of the first repo; its view.
    pub async fn session(&self) -> Value {
        self.post("/v1/sessions", &self.new_session()).await.expect(201).json()
    }

    pub fn new_session(&self) -> Value {
        json!({"repo": self.specs[0].name, "user": {"login": "ada"}})
    }

    pub async fn read_session(&self, view: &Value) -> Value {
        self.get(&format!("/v1/sessions/{}", id(view))).await.expect(200).json()
    }

    /// Ends a session and waits for its end.
    pub async fn end(&self, view: &Value) -> Value {
        self.delete(&format!("/v1/sessions/{}?wait=true", id(view))).await.expect(200).json()
    }

    /// Waits until git sync of a session has ended; its phase.
    pub async fn synced(&self, view: &Value) -> String {
        self.get(&format!("/v1/sessions/{}/sync?wait_seconds=60", id(view))).await.expect(200).field("phase")
    }

    /// Waits until a session is in this state.
    pub async fn until(&self, view: &Value, state: &str) -> Value {
        let what = format!("{} is {state}", id(view));
        self.wait(&what, async || {
            let now = self.read_session(view).await;
            (now["state"] == state).then_some(now)
        })
        .await
    }

    // ------------------------------------------------------------------------------------------------ waits

    /// Asks again until there is an answer; fails the test when there is none in time.
    #[track_caller]
    pub fn wait<T>(&self, what: &str, ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
        self.wait_up_to(PATIENCE, what, ask)
    }

    /// As [`World::wait`], for what is known to take its time.
    #[track_caller]
    pub fn wait_up_to<T>(
        &self,
        patience: Duration,
        what: &str,
        mut ask: impl AsyncFnMut() -> Option<T>,
    ) -> impl Future<Output = T> {
        let at = std::panic::Location::caller();
        async move {
            let asked = tokio::time::timeout(patience, async {
                loop {
                    if let Some(answer) = ask().await {
                        return answer;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            match asked.await {
                Ok(answer) => answer,
                Err(_) => panic!("{at}: it did not come about that {what}\n{}", self.situation()),
            }
        }
    }

    /// Waits for a condition.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut holds: impl FnMut() -> bool) -> impl Future<Output = ()> {
        self.wait(what, async move || holds().then_some(()))
    }

    /// Everything that is known, for the message of a failure.
    pub fn situation(&self) -> String {
        let mut out = String::new();
        for r in self.records() {
            out += &format!(
                "  {} {} {:?} {:?} session {:?} {:?}\n",
                r.id, r.repo, r.state, r.purpose, r.session, r.reason
            );
        }
        out += &format!("  engine: {:?}\n", self.backend.sandboxes());
        out += &format!("  plan: {}\n", self.app().pools.plan());
        for line in logs::lines(self.number) {
            out += &format!("  {line}\n");
        }
        out
    }

    // ----------------------------------------------------------------------------------------- repos, pools

    /// The stand-in for GitHub.
    #[track_caller]
    pub fn hub(&self) -> &Standin {
        self.hub.as_ref().expect("a World with GitHub")
    }

    pub fn upstream(&self, repo: &RepoName) -> BareRepo {
        if let Some(hub) = &self.hub {
            return hub.bare(repo);
        }
        let spec = self.specs.iter().find(|s| s.name == *repo).expect("a repo of this World");
        BareRepo::at(&spec.url)
    }

    /// A new commit on `main` of the first repo.
    pub fn commit(&self, text: &str) -> CommitId {
        self.commit_to(&main(), text)
    }

    pub fn commit_to(&self, branch: &Branch, text: &str) -> CommitId {
        let upstream = self.upstream(&self.specs[0].name);
        upstream.commit_files(branch, &[("file", Some(text.as_bytes()))], text, &ada()).expect("commit")
    }

    /// Builds an image of every repo and waits for it to become current.
    pub async fn build_all(&self) {
        for spec in &self.specs {
            self.build(&spec.name).await;
        }
    }

    pub async fn build(&self, repo: &RepoName) {
        let repo = repo.clone();
        let name = repo.clone();
        let record = self
            .on(move |app| async move {
                let spec = app.repos.spec(&repo).expect("configured");
                app.builds.request(&spec, Trigger::Api).await.expect("a build")
            })
            .await;
        self.wait(&format!("the build of {name} ends"), async || {
            let now =
                self.on(move |app| async move { app.store.build(record.id).await }).await.expect("read");
            let now = now.filter(|r| r.state.is_end())?;
            assert_eq!(now.error, None);
            Some(())
        })
        .await;
    }

    /// One run of the task that schedules and pushes cause builds by, and the end of the looks that it took.
    pub async fn tick(&self) {
        self.on(|app| async move { app.builds.tick().await }).await.expect("a tick");
    }

    /// Nothing of any repo is looked at, waits or is built.
    pub async fn builds_idle(&self, patience: Duration) {
        let idle = || self.specs.iter().all(|s| self.app().builds.is_idle(&s.name));
        self.wait_up_to(patience, "no build is under way", async || idle().then_some(())).await;
        // Its slot is free a moment before its end is on the disk.
        let written = async || {
            for spec in &self.specs {
                if self.builds_of(&spec.name).await.iter().any(|b| b.ended_at.is_none()) {
                    return None;
                }
            }
            Some(())
        };
        self.wait_up_to(patience, "the end of each build is written", written).await;
    }

    /// All builds of a repo, newest first.
    pub async fn builds_of(&self, repo: &RepoName) -> Vec<domain::BuildRecord> {
        let repo = repo.clone();
        let page = store::Page { after: None, limit: 200 };
        let found = self.on(move |app| async move { app.store.builds(Some(&repo), page).await }).await;
        found.expect("builds").items
    }

    pub fn records(&self) -> Vec<Arc<SandboxRecord>> {
        self.app().fleet.records()
    }

    /// One comparison of records and engine, now.
    pub async fn reconcile(&self) -> ReconcileReport {
        self.on(|app| async move {
            let repos = app.repos.clone();
            app.fleet.reconcile(&move |name| repos.get(name)).await
        })
        .await
        .expect("the engine lists")
    }

    /// A comparison while the engine does not answer: an error, and nothing else happens.
    pub async fn reconcile_fails(&self) {
        let before = self.records();
        let done = self
            .on(|app| async move {
                let repos = app.repos.clone();
                app.fleet.reconcile(&move |name| repos.get(name)).await
            })
            .await;
        assert!(done.is_err(), "{done:?}");
        let sessions =
            |all: &[Arc<SandboxRecord>]| all.iter().filter_map(|r| r.session).collect::<BTreeSet<_>>();
        assert!(sessions(&before).is_subset(&sessions(&self.records())), "a session lost its sandbox");
    }

    /// Time passes, and what is due happens.
    pub async fn pass(&self, by: Duration) {
        self.clock.advance(by);
        self.on(|app| async move {
            app.sessions.expire().await;
            app.warmups.expire().await;
            app.sessions.rescue_kept();
        })
        .await;
    }

    /// What a session's log says, in order: the kinds.
    pub async fn events(&self, view: &Value) -> Vec<String> {
        let log = self.get(&format!("/v1/sessions/{}/events?tail=true", id(view))).await.expect(200).text();
        log.lines().filter_map(|l| l.strip_prefix("event:")).map(|l| l.trim().to_owned()).collect()
    }

    /// The series of a metric: labels and value.
    pub fn metric(&self, name: &str) -> Vec<(String, f64)> {
        self.app().measure();
        let text = self.app().metrics.encode();
        let series = |line: &str| {
            // Behind a value may stand the trace of an example.
            let rest = line.split(" # ").next()?.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            (labels.is_empty() || labels.starts_with('{')).then(|| (labels.to_owned(), value.parse().ok()))
        };
        text.lines().filter_map(series).filter_map(|(labels, value)| Some((labels, value?))).collect()
    }

    /// Members of a repo that wait unclaimed and ready.
    pub fn warm(&self, repo: &RepoName) -> usize {
        self.app().fleet.shelf().counts(repo).free
    }

    pub async fn pools_full(&self) {
        for spec in &self.specs {
            self.wait_for(&format!("the pool of {} is full", spec.name), || {
                self.warm(&spec.name) >= spec.pool.min as usize
            })
            .await;
        }
    }

    /// What a warm claim takes from.
    pub fn pool_members(&self) -> BTreeSet<SandboxId> {
        let unclaimed = [SandboxState::Creating, SandboxState::Starting, SandboxState::Warm];
        self.records().into_iter().filter(|r| unclaimed.contains(&r.state)).map(|r| r.id).collect()
    }

    // -------------------------------------------------------------------------------------------- the end

    /// A WARN or ERROR with this text may come or not.
    pub fn allow_log(&mut self, text: &str) {
        self.allowed.push(text.into());
    }

    /// The engine is told to fail: what is said about that is allowed.
    pub fn allow_engine_trouble(&mut self) {
        for text in [
            "could not start a sandbox",
            "could not remove a sandbox",
            "a member could not be started",
            "a background task failed",
            "the engine does not answer yet",
        ] {
            self.allow_log(text);
        }
    }

    /// A WARN or ERROR with this text in it is part of the test.
    pub fn expect_log(&mut self, text: &str) {
        self.expected.push(text.into());
    }

    pub fn logged(&self, text: &str) -> bool {
        self.log_lines().iter().any(|l| l.contains(text))
    }

    pub fn log_lines(&self) -> Vec<String> {
        logs::lines(self.number)
    }

    /// Records and engine hold the same sandboxes, and none is on its way in or out.
    pub async fn settled(&self) {
        self.wait("records and engine agree", async || {
            let app = self.app();
            app.reconcile_poke.notify_one();
            app.fleet.pool_poke.notify_one();
            let records = self.records();
            let still = |r: &Arc<SandboxRecord>| {
                matches!(r.state, SandboxState::Warm | SandboxState::Claimed | SandboxState::Kept)
            };
            let known: BTreeSet<_> = records.iter().map(|r| r.id).collect();
            let there: BTreeSet<_> = self.backend.sandboxes().into_iter().collect();
            let building = self.specs.iter().any(|s| app.builds.present(&s.name).is_some());
            let at_rest = app.sessions.all().iter().map(|s| s.record()).all(|s| match s.state {
                SessionState::Active | SessionState::Paused => true,
                // Its capture failed, and it waits to try again.
                SessionState::Ending => {
                    records.iter().any(|r| Some(r.id) == s.sandbox && r.state == SandboxState::Kept)
                }
                SessionState::Waiting | SessionState::Ended => false,
            });
            (at_rest
                && records.iter().all(still)
                && known == there
                && app.pools.plan().is_settled()
                && !building)
                .then_some(())
        })
        .await;
    }

    async fn finish(mut self) {
        if let Some(hub) = &self.hub {
            crate::github::held_to_its_word(hub);
        }
        self.backend.clear_faults();
        self.backend.thaw_list();
        self.agents.mute(false);
        self.settled().await;
        // F16, F35: over a sandbox's whole life at most one session.
        for (id, n) in self.agents.binds() {
            assert!(n <= 1, "{id} was bound {n} times");
        }
        // F23: what the engine keeps has a row.
        self.on(|app| async move { app.captures.collect().await }).await.expect("collect");
        let images: BTreeSet<_> = self.app().repos.all_images().into_iter().map(|i| i.digest).collect();
        let snapshots = self
            .on(|app| async move {
                app.store.snapshots(Default::default(), store::Page { after: None, limit: 200 }).await
            })
            .await
            .expect("snapshots");
        let snapshots: BTreeSet<_> = snapshots.items.into_iter().filter_map(|s| s.digest).collect();
        // Bases stay for the next full build.
        for capture in self.backend.captures().into_iter().filter(|c| c.kind != CaptureKind::Base) {
            let known = images.contains(&capture.digest) || snapshots.contains(&capture.digest);
            assert!(known, "the engine keeps {capture:?}, of which there is no row");
        }
        let unused: Vec<_> = self.expected.iter().filter(|e| !self.logged(e)).cloned().collect();
        let number = self.number;
        self.stop_server().await;
        // F31: what is on disk is what is in the engine.
        let (dir, clock) = (self.state_dir(), self.shared_clock.clone());
        let (store, loaded) = unlocked(|| Store::open(&dir, clock.clone())).await.expect("reopen");
        let rows: BTreeSet<_> = loaded.sandboxes.iter().map(|r| r.id).collect();
        let there: BTreeSet<_> = self.backend.sandboxes().into_iter().collect();
        assert_eq!(rows, there, "rows on disk and sandboxes in the engine");
        store.close().await;
        let known = |line: &String| self.expected.iter().chain(&self.allowed).any(|e| line.contains(e));
        let surprising: Vec<_> = logs::lines(number).into_iter().filter(|l| !known(l)).collect();
        assert!(surprising.is_empty(), "logged and not expected:\n{}", surprising.join("\n"));
        assert!(unused.is_empty(), "expected and not logged: {unused:?}");
    }
}

/// A configuration for the stand-in; its secrets lie in files.
fn github_settings(hub: &Standin, dir: &std::path::Path, vault_keys: &str) -> config::ForgeSettings {
    let secret = |name: &str, value: &str| {
        let path = dir.join(name);
        std::fs::write(&path, value).expect("write a secret");
        domain::SecretSource::File(path)
    };
    config::ForgeSettings::Github(Box::new(config::GithubSettings {
        app_id: APP_ID,
        private_key: secret("app.pem", &hub.private_key()),
        webhook_secrets: vec![
            secret("webhook.new", "the secret that is to come"),
            secret("webhook", WEBHOOK_SECRET),
        ],
        api_url: hub.api_url(),
        web_url: hub.web_url(),
        git_url: hub.web_url(),
        users: Some(config::GithubUsers {
            client_id: CLIENT_ID.into(),
            client_secret: Some(secret("client", CLIENT_SECRET)),
            vault_key: secret("vault", vault_keys),
        }),
    }))
}

/// A process that another test starts at this very moment holds a copy of every lock of ours until it has become
/// the program it is to be.
async fn unlocked<T, F>(mut open: impl FnMut() -> F) -> domain::Result<T>
where
    F: Future<Output = domain::Result<T>>,
{
    for _ in 0..200 {
        match open().await {
            Err(e) if e.kind() == domain::ErrorKind::Conflict => {
                tokio::time::sleep(Duration::from_millis(10)).await
            }
            done => return done,
        }
    }
    open().await
}

/// The id in a view.
#[track_caller]
pub fn id(view: &Value) -> &str {
    view["id"].as_str().unwrap_or_else(|| panic!("no id in {view}"))
}

/// The sandbox in a session's view.
#[track_caller]
pub fn sandbox(view: &Value) -> SandboxId {
    view["sandbox"].as_str().unwrap_or_else(|| panic!("no sandbox in {view}")).parse().expect("a sandbox id")
}
