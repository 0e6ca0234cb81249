//! A real Hotbed: `hotbed serve` as a child process on a real engine, with upstreams of its own on loopback. It
//! can be killed and started again on the same state. At its end the engine's containers, captures and run
//! directories are compared with the records, and everything of this instance is removed.
//!
//! What is looked at in the engine is looked at with the engine's own client, not with Hotbed's adapter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use domain::{Branch, CommitId, Identity, RepoName, SandboxRecord, SandboxState, SystemClock};
use git::hosting::{BareRepo, GitHost};
use git::testing::Faults;
use serde_json::{Value, json};
use store::{Page, SnapshotFilter, Store};
use tempfile::TempDir;

use super::api::Api;
use crate::http;

/// The longest that one wait of these tests takes: the machine may be busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// A repo of a World.
#[derive(Clone)]
pub struct Repo {
    pub name: &'static str,
    pub pool: u32,
    /// Keys of its pool besides `min` and `max`.
    pub policy: Value,
    pub network: &'static str,
    pub setup: Vec<&'static str>,
    pub verify: Option<&'static str>,
    pub sync_timeout: &'static str,
    /// `base:` as it is written; a small Debian with git when not given.
    pub base: Value,
    /// Its upstream is served; else its address leads nowhere, or elsewhere.
    pub hosted: bool,
    pub elsewhere: Option<String>,
    /// More files of its first commit.
    pub files: Vec<(&'static str, String)>,
    /// Keys of its `image` beside those above.
    pub image: Value,
    /// Files beside the configuration.
    pub beside: Vec<(&'static str, String)>,
}

impl Repo {
    pub fn new(name: &'static str, pool: u32) -> Self {
        Self {
            name,
            pool,
            policy: json!({}),
            network: "none",
            setup: Vec::new(),
            verify: None,
            sync_timeout: "60s",
            base: json!({"packages": {"suite": "bookworm", "include": ["git"]}}),
            hosted: true,
            elsewhere: None,
            files: Vec::new(),
            image: json!({}),
            beside: Vec::new(),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }
}

/// The engine, by its own client.
#[derive(Debug, Clone, Default)]
pub struct Engine {
    /// `unix:///…`; the machine's own when not given.
    pub host: Option<String>,
}

impl Engine {
    fn command(&self) -> Command {
        let mut docker = Command::new("docker");
        if let Some(host) = &self.host {
            docker.args(["-H", host]);
        }
        docker.stdin(Stdio::null());
        docker
    }

    pub fn try_run(&self, args: &[&str]) -> Output {
        let output = self.command().args(args).output();
        output.unwrap_or_else(|e| {
            panic!("these tests need Docker and its client; run scripts/ensure-docker ({e})")
        })
    }

    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.try_run(args);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "docker {args:?}: {err}{out}");
        out.into_owned()
    }

    /// Removes containers, images and networks with this label; says whether none is left.
    fn remove_labelled(&self, label: &str) -> bool {
        let remove = |list: &[&str], verb: &[&str]| {
            let mut list = list.to_vec();
            list.extend(["-q", "--filter", label]);
            let ids = self.lines(&list);
            if ids.is_empty() {
                return true;
            }
            let mut args = verb.to_vec();
            args.extend(ids.iter().map(String::as_str));
            self.try_run(&args);
            false
        };
        // Children go before what they stand on, so it takes a few rounds.
        let gone = |list: &[&str], verb: &[&str]| (0..8).any(|_| remove(list, verb));
        let all = [
            gone(&["ps", "-a"], &["rm", "-f", "-v"]),
            gone(&["images", "-a"], &["rmi", "-f"]),
            gone(&["network", "ls"], &["network", "rm"]),
        ];
        !all.contains(&false)
    }

    #[track_caller]
    fn lines(&self, args: &[&str]) -> Vec<String> {
        self.run(args).lines().map(str::to_owned).filter(|l| !l.is_empty()).collect()
    }
}

/// A container of Hotbed's as the engine shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Container {
    pub sandbox: String,
    pub repo: String,
    pub id: String,
}

struct Upstream {
    host: GitHost,
    repo: RepoName,
}

pub struct World {
    name: &'static str,
    dir: TempDir,
    pub engine: Engine,
    address: SocketAddr,
    hotbed: PathBuf,
    upstreams: BTreeMap<&'static str, Upstream>,
    /// Serves the upstreams, whichever test's runtime comes and goes.
    runtime: Option<tokio::runtime::Runtime>,
    server: Mutex<Option<Child>>,
    instance: String,
    finished: Mutex<bool>,
}

/// One World is set up at a time: a cold cache is filled once, and two cores are not shared by five builds.
static SETUP: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn main_branch() -> Branch {
    "main".parse().expect("branch")
}

pub fn upstream_author() -> Identity {
    Identity { login: "up".into(), name: "Upstream".into(), email: "up@example.invalid".into() }
}

impl World {
    /// A server with these repos; each begins with one commit. Waits until the first has its image.
    pub async fn start(name: &'static str, engine: Engine, repos: Vec<Repo>) -> Self {
        let _one_at_a_time = SETUP.lock().await;
        let world = Self::prepare(name, engine, &repos);
        world.start_server().await;
        world.api().image(repos[0].name).await;
        world.keep_bases();
        world
    }

    /// As [`World::start_unbuilt`], with more at the top of the configuration.
    pub async fn start_with(name: &'static str, repos: Vec<Repo>, settings: Value) -> Self {
        let _one_at_a_time = SETUP.lock().await;
        let world = Self::prepare(name, Engine::default(), &repos);
        let text = std::fs::read_to_string(world.config_file()).expect("read the configuration");
        let mut config: Value = serde_json::from_str(&text).expect("JSON");
        for (key, value) in settings.as_object().expect("an object") {
            config[key] = value.clone();
        }
        std::fs::write(world.config_file(), config.to_string()).expect("write the configuration");
        world.start_server().await;
        world
    }

    /// As [`World::start`], and waits for no image.
    pub async fn start_unbuilt(name: &'static str, engine: Engine, repos: Vec<Repo>) -> Self {
        let _one_at_a_time = SETUP.lock().await;
        let world = Self::prepare(name, engine, &repos);
        world.start_server().await;
        world
    }

    fn prepare(name: &'static str, engine: Engine, repos: &[Repo]) -> Self {
        // Short: a socket's path has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("hbd").tempdir().expect("temporary directory");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("upstream")
            .enable_all()
            .build()
            .expect("runtime");
        let mut upstreams = BTreeMap::new();
        for repo in repos.iter().filter(|r| r.hosted) {
            let root = dir.path().join("upstream").join(repo.name.replace('/', "-"));
            let starting = runtime.handle().clone();
            let host = std::thread::spawn(move || starting.block_on(GitHost::start(root)));
            let host = host.join().expect("no panic").expect("git host");
            let name: RepoName = repo.name.parse().expect("repo name");
            let bare = host.create_repo(&name).expect("upstream");
            let mut files: Vec<(&str, Option<&[u8]>)> = vec![
                ("README.md", Some(b"hello\n")),
                ("src/app.py", Some(b"print('needle')\n")),
                (".gitignore", Some(b"*.log\n")),
            ];
            files.retain(|(path, _)| !repo.files.iter().any(|(own, _)| own == path));
            files.extend(repo.files.iter().map(|(path, text)| (*path, Some(text.as_bytes()))));
            bare.commit_files(&main_branch(), &files, "first", &upstream_author()).expect("commit");
            upstreams.insert(repo.name, Upstream { host, repo: name });
        }
        for (name, text) in repos.iter().flat_map(|r| &r.beside) {
            std::fs::write(dir.path().join(name), text).expect("write a file");
        }
        // Made here, so that the id is known before anything carries it.
        let state = dir.path().join("state");
        let world = Self {
            name,
            engine,
            address: free_address(),
            hotbed: hotbed_in(dir.path()),
            upstreams,
            runtime: Some(runtime),
            server: Mutex::default(),
            instance: Self::with_store(&state, |store, _| async move { store.instance().to_string() }),
            finished: Mutex::new(false),
            dir,
        };
        let config = world.config(repos);
        let text = serde_json::to_string_pretty(&config).expect("JSON");
        std::fs::write(world.config_file(), text).expect("write the configuration");
        seed_bases(&world.state_dir());
        world
    }

    fn config(&self, repos: &[Repo]) -> Value {
        let repos: Vec<_> = repos
            .iter()
            .map(|r| {
                let url = match self.upstreams.get(r.name) {
                    Some(u) => u.host.url(&u.repo),
                    None => r.elsewhere.clone().unwrap_or_else(|| "http://127.0.0.1:1/nowhere.git".into()),
                };
                let mut image = json!({
                    "base": r.base, "setup": r.setup, "schedule": "0 0 1 1 *", "step_timeout": "60s",
                });
                if let Some(verify) = r.verify {
                    image["verify"] = json!(verify);
                }
                for (key, value) in r.image.as_object().into_iter().flatten() {
                    image[key] = value.clone();
                }
                let mut pool = json!({"min": r.pool, "max": r.pool + 4});
                for (key, value) in r.policy.as_object().into_iter().flatten() {
                    pool[key] = value.clone();
                }
                json!({
                    "name": r.name, "url": url, "image": image, "pool": pool,
                    "session": {"timeout": "1h", "sync_timeout": r.sync_timeout},
                    "resources": {"cpus": 2, "memory": "512MiB", "pids": 256},
                    "network": r.network,
                })
            })
            .collect();
        let docker = match &self.engine.host {
            Some(host) => json!({"host": host}),
            None => json!({}),
        };
        json!({
            "listen": self.address.to_string(),
            "state_dir": self.state_dir(),
            "backend": {"docker": docker},
            "repos": repos,
        })
    }

    pub fn config_file(&self) -> PathBuf {
        self.dir.path().join("hotbed.yaml")
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    // ------------------------------------------------------------------------------------------- the server

    /// A command of this World's `hotbed`, with its configuration.
    pub fn hotbed(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.hotbed);
        for name in ["HOTBED_ADDRESS", "HOTBED_KEY", "HOTBED_CONFIG", "HOTBED_LOG_FORMAT", "DOCKER_HOST"] {
            command.env_remove(name);
        }
        if let Some(agent) = agent_binary() {
            command.env("HOTBED_AGENT", agent);
        }
        command.arg("--config").arg(self.config_file()).args(args).stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it answers.
    pub async fn start_server(&self) {
        self.start_server_with(&[]).await;
    }

    /// The same, with more in its environment.
    pub async fn start_server_with(&self, env: &[(&str, &str)]) {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file()).expect("open the log");
        let child = self
            .hotbed(&["serve"])
            .env("HOTBED_LOG", "info,hotbed=debug,orchestrator=debug,docker=debug,git=info")
            .envs(env.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("start hotbed");
        *lock(&self.server) = Some(child);
        let begun = Instant::now();
        while !self.answers().await {
            if let Some(status) = lock(&self.server).as_mut().and_then(|c| c.try_wait().ok()).flatten() {
                panic!("hotbed ended at once, {status}:\n{}", self.log_tail(30));
            }
            assert!(begun.elapsed() < PATIENCE, "hotbed does not answer:\n{}", self.log_tail(30));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn answers(&self) -> bool {
        matches!(http::send(self.address, "GET", "/healthz", &[], b"").await, Ok(a) if a.status == 200)
    }

    /// `kill -9`; returns when the process is gone.
    pub fn kill_server(&self) {
        if let Some(mut child) = lock(&self.server).take() {
            child.kill().expect("kill hotbed");
            child.wait().expect("wait for hotbed");
        }
    }

    /// SIGTERM, and the wait for an orderly end; the exit code.
    pub fn stop_server(&self) -> Option<i32> {
        let child = lock(&self.server).take()?;
        terminate(&child);
        wait_within(child, Duration::from_secs(60)).and_then(|status| status.code())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_tail(&self, n: usize) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(n)..].join("\n")
    }

    /// A client on the caller's runtime.
    pub fn api(&self) -> Api {
        let key = std::fs::read_to_string(self.state_dir().join("api.key")).expect("an API key");
        Api::new(self.address, key.trim())
    }

    // ---------------------------------------------------------------------------------------- the upstreams

    pub fn upstream(&self, repo: &str) -> BareRepo {
        let upstream = &self.upstreams[repo];
        upstream.host.repo(&upstream.repo)
    }

    /// Where git finds it, over HTTP.
    pub fn url(&self, repo: &str) -> String {
        let upstream = &self.upstreams[repo];
        upstream.host.url(&upstream.repo)
    }

    pub fn faults(&self, repo: &str) -> &Faults {
        self.upstreams[repo].host.faults()
    }

    /// One more commit on `main`.
    pub fn land(&self, repo: &str, file: &str, content: &str) -> CommitId {
        let files = [(file, Some(content.as_bytes()))];
        let landed = self.upstream(repo).commit_files(
            &main_branch(),
            &files,
            &format!("Land {file}"),
            &upstream_author(),
        );
        landed.expect("commit")
    }

    /// One more commit on `main`, without this file.
    pub fn remove(&self, repo: &str, file: &str) -> CommitId {
        let gone = self.upstream(repo).commit_files(
            &main_branch(),
            &[(file, None)],
            &format!("Remove {file}"),
            &upstream_author(),
        );
        gone.expect("commit")
    }

    pub fn tip(&self, repo: &str) -> String {
        self.upstream(repo).tip(&main_branch()).expect("read").expect("a tip").to_string()
    }

    // ------------------------------------------------------------------------------------------- the engine

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Opens a store on a thread and runtime of its own, so that any caller can.
    fn with_store<T: Send + 'static, F: Future<Output = T> + Send>(
        dir: &Path,
        work: impl FnOnce(Store, store::Loaded) -> F + Send + 'static,
    ) -> T {
        let dir = dir.to_owned();
        let done = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let (store, loaded) = Store::open(&dir, Arc::new(SystemClock)).await.expect("open the store");
                let done = work(store.clone(), loaded).await;
                store.close().await;
                done
            })
        });
        done.join().expect("no panic")
    }

    fn label(&self) -> String {
        format!("label=hotbed.instance={}", self.instance)
    }

    /// Every container of this instance, running or not.
    pub fn containers(&self) -> BTreeSet<Container> {
        let format = "{{.ID}} {{.Label \"hotbed.sandbox\"}} {{.Label \"hotbed.repo\"}}";
        self.engine
            .lines(&["ps", "-a", "--no-trunc", "--filter", &self.label(), "--format", format])
            .iter()
            .map(|line| {
                let mut words = line.split(' ').map(str::to_owned);
                let mut next = || words.next().unwrap_or_default();
                let (id, sandbox, repo) = (next(), next(), next());
                Container { sandbox, repo, id }
            })
            .collect()
    }

    pub fn containers_of(&self, repo: &str) -> BTreeSet<Container> {
        self.containers().into_iter().filter(|c| c.repo == repo).collect()
    }

    /// The image that a container runs, or nothing when the container is gone.
    pub fn image_of(&self, container: &str) -> Option<String> {
        let output = self.engine.try_run(&["inspect", "--format", "{{.Image}}", container]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Captures by kind: `base`, `image`, `snapshot`.
    pub fn captures(&self) -> BTreeSet<(String, String)> {
        let label = self.label();
        let ids = self.engine.lines(&["images", "-a", "-q", "--no-trunc", "--filter", &label]);
        let ids: BTreeSet<_> = ids.into_iter().collect();
        ids.into_iter()
            .filter_map(|id| {
                let format = "{{index .Config.Labels \"hotbed.kind\"}}";
                let output = self.engine.try_run(&["image", "inspect", "--format", format, &id]);
                let kind = String::from_utf8_lossy(&output.stdout).trim().to_owned();
                output.status.success().then_some((kind, id))
            })
            .collect()
    }

    /// The sandboxes that have a directory on the host.
    pub fn run_dirs(&self) -> BTreeSet<String> {
        let dir = self.state_dir().join("run/sandboxes");
        let Ok(entries) = std::fs::read_dir(dir) else { return BTreeSet::new() };
        entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect()
    }

    // --------------------------------------------------------------------------------------------- the end

    /// Ends the server, compares engine and records, removes what is this instance's. Once.
    pub fn finish(&self) -> Result<(), String> {
        if std::mem::replace(&mut *lock(&self.finished), true) {
            return Ok(());
        }
        let code = self.stop_server();
        if !self.engine.try_run(&["version"]).status.success() {
            return Err(format!("{}: the engine does not answer at the end", self.name));
        }
        if !self.state_dir().join("hotbed.db").exists() {
            return Ok(());
        }
        self.keep_bases();
        let wrong = self.compare();
        self.remove_all();
        match (wrong, code) {
            (Some(wrong), _) => Err(format!("{}: {wrong}", self.name)),
            (None, Some(0) | None) => Ok(()),
            (None, Some(code)) => {
                Err(format!("{}: hotbed ended with {code}:\n{}", self.name, self.log_tail(20)))
            }
        }
    }

    /// What differs between the engine and the records, which are the server's last word. A row stands before its
    /// container does and after it: only in those two states may there be none.
    fn compare(&self) -> Option<String> {
        let (settled, passing, captures) = Self::with_store(&self.state_dir(), |store, loaded| async move {
            let (passing, settled): (Vec<_>, Vec<_>) = loaded
                .sandboxes
                .iter()
                .partition(|s| matches!(s.state, SandboxState::Creating | SandboxState::Stopping));
            let ids =
                |all: Vec<&SandboxRecord>| all.iter().map(|s| s.id.to_string()).collect::<BTreeSet<_>>();
            let mut captures: BTreeSet<_> = loaded.images.iter().map(|i| i.digest.to_string()).collect();
            let mut page = Page { after: None, limit: 200 };
            loop {
                let found = store.snapshots(SnapshotFilter::default(), page).await.expect("read snapshots");
                captures
                    .extend(found.items.iter().filter_map(|s| s.digest.as_ref()).map(ToString::to_string));
                match found.next {
                    Some(next) => page = Page { after: Some(next), limit: 200 },
                    None => return (ids(settled), ids(passing), captures),
                }
            }
        });
        let containers: BTreeSet<_> = self.containers().into_iter().map(|c| c.sandbox).collect();
        let kept: BTreeSet<_> =
            self.captures().into_iter().filter(|(kind, _)| kind != "base").map(|(_, id)| id).collect();
        let mut wrong = Vec::new();
        for (what, there) in [("containers", containers), ("run directories", self.run_dirs())] {
            let unknown: Vec<_> = there.difference(&settled).filter(|id| !passing.contains(*id)).collect();
            let missing: Vec<_> = settled.difference(&there).collect();
            if !(unknown.is_empty() && missing.is_empty()) {
                wrong.push(format!("{what} without a record {unknown:#?}, records without {missing:#?}"));
            }
        }
        if kept != captures {
            wrong.push(format!("captures in the engine {kept:#?}\nin records {captures:#?}"));
        }
        (!wrong.is_empty()).then(|| wrong.join("\n"))
    }

    fn remove_all(&self) {
        if !self.engine.remove_labelled(&self.label()) {
            eprintln!("{}: something of {} stays in the engine", self.name, self.instance);
        }
    }

    // ------------------------------------------------------------------------------------------- the bases

    /// What this World made is kept for the next one.
    pub fn keep_bases(&self) {
        let cache = base_cache();
        std::fs::create_dir_all(&cache).expect("make the cache");
        for tar in tars(&self.state_dir().join("bases")) {
            let Some(name) = tar.file_name() else { continue };
            if !cache.join(name).exists() {
                link(&tar, &cache.join(name));
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        if failing {
            let kept = target_dir().join(format!("it-docker-{}.log", self.name));
            let _ = std::fs::copy(self.log_file(), &kept);
            let mut err = std::io::stderr();
            let _ = writeln!(err, "the server's log is {}; its end:\n{}", kept.display(), self.log_tail(25));
        }
        let finished = self.finish();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        match finished {
            Err(wrong) if !failing => panic!("{wrong}"),
            _ => {}
        }
    }
}

/// Waits for a child to end; one that does not within `limit` is killed, and answers nothing.
pub fn wait_within(mut child: Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let pid = child.id();
    let (tx, rx) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let _ = tx.send(child.wait());
    });
    let ended = rx.recv_timeout(limit);
    if ended.is_err() {
        // SAFETY: plain kill of a child that nobody has waited for yet.
        unsafe { libc::kill(pid as libc::pid_t, libc::SIGKILL) };
    }
    let _ = waiter.join();
    ended.ok()?.ok()
}

pub fn terminate(child: &Child) {
    let status = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(status.is_ok_and(|s| s.success()), "kill -TERM {}", child.id());
}

/// Puts the bases that are kept where a server with this state looks for them.
pub fn seed_bases(state: &Path) {
    let bases = state.join("bases");
    std::fs::create_dir_all(&bases).expect("make the bases");
    for tar in tars(&base_cache()) {
        if let Some(name) = tar.file_name() {
            link(&tar, &bases.join(name));
        }
    }
}

/// The `hotbed` under test, in this directory.
pub fn hotbed_in(dir: &Path) -> PathBuf {
    link(&hotbed_binary(), &dir.join("hotbed"))
}

/// Removes what a server with this state has left in the engine.
pub fn remove_instance(engine: &Engine, state: &Path) {
    let instance = World::with_store(state, |store, _| async move { store.instance().to_string() });
    engine.remove_labelled(&format!("label=hotbed.instance={instance}"));
}

/// An address that is free now, and stays the server's over restarts.
pub fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("address")
}

/// A hard link, or a copy where the file systems differ.
fn link(from: &Path, to: &Path) -> PathBuf {
    if std::fs::hard_link(from, to).is_err() && !to.exists() {
        std::fs::copy(from, to)
            .unwrap_or_else(|e| panic!("copy {} to {}: {e}", from.display(), to.display()));
    }
    to.to_owned()
}

fn tars(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "tar"))
        .collect()
}

/// `target/`, where test executables are in `<profile>/deps/`.
fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a target directory").to_owned()
}

fn profile_dir() -> PathBuf {
    let exe = std::env::current_exe().expect("this executable");
    exe.parent().and_then(Path::parent).expect("a profile's directory").to_owned()
}

fn hotbed_binary() -> PathBuf {
    let path = profile_dir().join("hotbed");
    assert!(path.exists(), "there is no {}: run `make build` first", path.display());
    path
}

/// `HOTBED_AGENT`, or what `make agent` made; else the one inside `hotbed` is used.
pub fn agent_binary() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("HOTBED_AGENT") {
        return Some(path.into());
    }
    let entries = std::fs::read_dir(target_dir()).ok()?;
    let made = entries.filter_map(|e| Some(e.ok()?.path().join("agent/hotbed-agent"))).filter(|p| p.exists());
    made.max_by_key(|p| p.metadata().and_then(|m| m.modified()).ok())
}

pub fn base_cache() -> PathBuf {
    let cache =
        std::env::var_os("HOTBED_DEMO_CACHE").map_or_else(|| target_dir().join("demo-cache"), Into::into);
    cache.join("bases")
}
