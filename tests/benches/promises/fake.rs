//! Figures that need no container engine: a server of its own process on the engine in memory.
//!
//! The server is this program again, told by an environment variable which part it plays, so that client and server
//! share neither a runtime nor an allocator and the server can be killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::ports::{CaptureKind, ObservedCapture};
use domain::testing::{FakeAgent, FakeAgentOptions, FakeBackend};
use domain::{
    Base, BuildId, Clock, CommitId, Digest, Error, ImageId, ImageRecord, ImageState, PoolPolicy, RepoSpec,
    Result, SessionId, SystemClock,
};
use git::hosting::BareRepo;
use http::{Method, StatusCode};
use orchestrator::app::{App, Engine, Options};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Store, Tx};

use crate::report::{Report, Target, median, note, percentile};
use crate::stage;
use crate::wire::{Wire, parse};

const PART: &str = "HOTBED_BENCH_PART";
const DIR: &str = "HOTBED_BENCH_DIR";
const STOCK: &str = "HOTBED_BENCH_STOCK";
/// Claims of each run, at 1 and at 16 clients.
const CLAIMS: usize = 2_000;
/// Claims of a run without pauses.
const SATURATED: usize = 1_000;
/// Claims in a second of a paced run, over all clients: several times what an engine on one host can start.
const RATE: usize = 25;
/// Members that wait: enough that the refill keeps up with any client here.
const POOL: u32 = 2_500;
const IDLE: u32 = 10_000;
/// Members that start at once while the pools are filled before a measurement.
const FILLING: u32 = 512;
/// The pools of the idle figure: the members are those of several repos.
const IDLE_REPOS: u32 = 10;
const TICKS: usize = 200;

// ------------------------------------------------------------------------------------------ the child's side

/// What this process is to be, when it is not the bench itself.
pub struct Child {
    part: String,
    dir: PathBuf,
    stock: Stock,
}

impl Child {
    pub fn from_env() -> Option<Self> {
        let stock = serde_json::from_str(&std::env::var(STOCK).ok()?).ok()?;
        Some(Self { part: std::env::var(PART).ok()?, dir: std::env::var_os(DIR)?.into(), stock })
    }
}

/// The pools that a server begins with.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stock {
    pub repos: Vec<String>,
    /// Ready members of each.
    pub members: u32,
    /// How long the engine takes to start one, once the pools are full.
    pub create_ms: u64,
    /// How many may be starting at once, once the pools are full.
    pub starting: u32,
    /// Where its traces go, if it is traced.
    #[serde(default)]
    pub tracing: Option<super::telemetry::Exported>,
    /// Whether it looks at upstreams and builds.
    #[serde(default)]
    pub schedules: bool,
    /// Who serves the upstreams, which lie in the directory of the bench; nobody, if they are to be read there.
    #[serde(default)]
    pub upstream: Option<SocketAddr>,
}

impl Stock {
    /// One repo, an engine that starts at once, the refill as it comes.
    pub fn of(repo: &str, members: u32) -> Self {
        Self {
            repos: vec![repo.into()],
            members,
            create_ms: 0,
            starting: 4,
            tracing: None,
            schedules: false,
            upstream: None,
        }
    }
}

pub fn run_child(child: Child) -> ExitCode {
    // Whoever started this process holds the other end; when it goes, so does this.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    let done = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(async {
            match child.part.as_str() {
                "serve" => serve(&child.dir, &child.stock).await,
                "scrape" => super::scrape::serve(&child.dir, &child.stock).await,
                "up" => super::idle::up(&child.dir).await,
                "still" => super::idle::stand(&child.dir, &child.stock).await,
                "count" => super::telemetry::count(&child.dir, &child.stock).await,
                "claim" => super::rates::claim_in_process(&child.dir, &child.stock).await,
                _ => hold(&child.dir, &child.stock).await,
            }
        }),
        Err(e) => Err(Error::permanent("start a runtime").caused_by(e)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench server: {}", e.chain());
            ExitCode::FAILURE
        }
    }
}

pub fn say(value: &Value) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|e| Error::permanent("report").caused_by(e))
}

/// A server with full pools, until it is killed.
async fn serve(dir: &Path, stock: &Stock) -> Result<()> {
    let app = start(dir, stock).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|e| Error::permanent("listen").caused_by(e))?;
    let address = listener.local_addr().map_err(|e| Error::permanent("listen").caused_by(e))?;
    say(&json!({"address": address.to_string(), "key": app.api_key}))?;
    app.serve(listener).await
}

/// Ten thousand idle members and nothing else: the time of a tick, and what it all takes of memory.
async fn hold(dir: &Path, stock: &Stock) -> Result<()> {
    let begun = Instant::now();
    let app = start(dir, stock).await?;
    let filled = begun.elapsed();
    let mut ticks = Vec::new();
    for _ in 0..TICKS {
        let begun = Instant::now();
        let repos = app.repos.clone();
        let report = app.fleet.reconcile(&move |name| repos.get(name)).await?;
        app.pools.fill().await;
        ticks.push(begun.elapsed().as_secs_f64() * 1e3);
        if report.records != IDLE as usize || report.observed != IDLE as usize || report.lost > 0 {
            return Err(Error::permanent(format!("the pool is not idle: {report}")));
        }
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident =
        status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse::<f64>().ok());
    let resident =
        resident.ok_or_else(|| Error::permanent("read the resident memory of this process"))? / 1024.0;
    say(&json!({"ticks": ticks, "resident": resident, "filled": filled.as_secs_f64()}))
}

/// Starts a server on the engine in memory whose agents dial at once, and waits until every pool is full.
pub async fn start(dir: &Path, stock: &Stock) -> Result<Arc<App>> {
    let state = dir.join("state");
    let members = stock.members;
    let mut specs = Vec::new();
    for name in &stock.repos {
        let upstream = BareRepo::create(upstreams(dir).join(format!("{name}.git")))?;
        let commit = stage::first_commit(&upstream)?;
        let url = match stock.upstream {
            Some(address) => format!("http://{address}/{name}.git"),
            None => upstream.path().display().to_string(),
        };
        let mut spec = stage::spec(name, url)?;
        spec.image.base = Base::Reference("fake".into());
        spec.pool = PoolPolicy { min: members, max: members * 2, ..spec.pool };
        specs.push((spec, commit));
    }
    put_images(&state, &specs).await?;

    let backend = Arc::new(FakeBackend::default());
    // What has a row and is not in the engine is taken for lost.
    put_capture(&backend)?;
    let agents: Arc<std::sync::Mutex<(Weak<App>, Vec<domain::SandboxId>)>> = Arc::default();
    let heads: std::collections::BTreeMap<_, _> =
        specs.iter().map(|(s, c)| (s.name.clone(), c.clone())).collect();
    let join = move |app: Arc<App>, id: domain::SandboxId| {
        let head = app.fleet.get(id).and_then(|e| heads.get(&e.repo).cloned());
        tokio::spawn(async move {
            let agent = FakeAgent::new(id, FakeAgentOptions { head, ..FakeAgentOptions::default() });
            app.fleet.join(Arc::new(agent)).await;
        });
    };
    let join = Arc::new(join);
    {
        let (agents, join) = (agents.clone(), join.clone());
        backend.on_start(move |start| {
            let mut agents = agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            match agents.0.upgrade() {
                Some(app) => join(app, start.id),
                None => agents.1.push(start.id),
            }
        });
    }
    let specs = specs.into_iter().map(|(s, _)| s).collect();
    let mut options = Options::new(state, specs, Engine::Given(backend.clone()));
    options.agent = Some(b"none".to_vec());
    options.schedules = stock.schedules;
    options.tracing = stock.tracing.clone().map(Into::into);
    let app = App::start(options).await?;
    app.pools.set_starting_limit(FILLING);
    {
        // Some may have started before there was a server to join.
        let mut agents = agents.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        agents.0 = Arc::downgrade(&app);
        for id in agents.1.drain(..) {
            join(app.clone(), id);
        }
    }
    let wanted = members as usize * stock.repos.len();
    let deadline = Instant::now() + Duration::from_secs(300);
    while app.pools.last_plan().repos.iter().map(|r| r.have.warm as usize).sum::<usize>() < wanted {
        if Instant::now() > deadline {
            return Err(Error::timeout(format!("fill a pool of {wanted}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.pools.set_starting_limit(stock.starting);
    backend.slow("start", Duration::from_millis(stock.create_ms));
    Ok(app)
}

/// Where the upstreams of a server lie.
pub fn upstreams(dir: &Path) -> PathBuf {
    dir.join("upstream")
}

fn image_digest() -> Result<Digest> {
    format!("sha256:{:064x}", 1).parse().map_err(|e| Error::permanent("a digest").caused_by(e))
}

/// The capture that those images are: what the engine does not have is lost.
pub fn put_capture(backend: &FakeBackend) -> Result<()> {
    let (kind, digest) = (CaptureKind::Image, image_digest()?);
    backend.add_capture(ObservedCapture { digest, kind, name: "bench".into(), size: 1 });
    Ok(())
}

/// A current image for each repo, as if it had been built.
pub async fn put_images(state: &Path, specs: &[(RepoSpec, CommitId)]) -> Result<()> {
    let clock = Arc::new(SystemClock);
    let (store, _) = Store::open(state, clock.clone()).await?;
    let digest = image_digest()?;
    for (spec, commit) in specs {
        let image = ImageRecord {
            id: ImageId::new(),
            repo: spec.name.clone(),
            state: ImageState::Current,
            digest: digest.clone(),
            commit: commit.clone(),
            branch: spec.branch.clone(),
            generation: 1,
            fingerprint: "bench".into(),
            base_digest: digest.clone(),
            parent: None,
            build: BuildId::new(),
            agent_version: "fake".into(),
            size: 1,
            created_at: clock.now(),
            verified_at: clock.now(),
            pinned: false,
            shipped: None,
            failures: Vec::new(),
            went_well: 0,
        };
        store.commit(Tx::new().image(&image)).await?;
    }
    store.close().await;
    Ok(())
}

// ----------------------------------------------------------------------------------------- the bench's side

/// A child that plays `part`; killed when dropped.
pub struct Server {
    process: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Server {
    pub fn start(part: &str, dir: &Path, stock: &Stock) -> Result<Self> {
        let what = || format!("start the part `{part}` of the bench");
        let exe = std::env::current_exe().map_err(|e| Error::permanent(what()).caused_by(e))?;
        let mut process = std::process::Command::new(exe)
            .env(PART, part)
            .env(DIR, dir)
            .env(STOCK, serde_json::to_string(stock).map_err(|e| Error::permanent(what()).caused_by(e))?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| Error::permanent(what()).caused_by(e))?;
        let stdout = process.stdout.take().ok_or_else(|| Error::permanent(what()))?;
        Ok(Self { process, lines: BufReader::new(stdout).lines() })
    }

    /// The next thing that it says. Blocks: call it where nothing else is to be done.
    pub fn hear(&mut self) -> Result<Value> {
        let line =
            self.lines.next().transpose().map_err(|e| Error::permanent("hear the server").caused_by(e))?;
        let line =
            line.ok_or_else(|| Error::permanent("the server of the bench ended before it said anything"))?;
        serde_json::from_str(&line).map_err(|e| Error::permanent("understand the server").caused_by(e))
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// `kill -9`.
    fn kill(&mut self) -> Result<()> {
        self.process
            .kill()
            .and_then(|()| self.process.wait())
            .map(drop)
            .map_err(|e| Error::permanent("kill").caused_by(e))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

pub async fn tick(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let names = (0..IDLE_REPOS).map(|i| format!("bench/idle-{i}")).collect();
    let stock = Stock { repos: names, ..Stock::of("", IDLE / IDLE_REPOS) };
    let mut server = Server::start("hold", dir.path(), &stock)?;
    let said = tokio::task::block_in_place(|| server.hear())?;
    let ticks: Vec<f64> = said["ticks"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    note(format!(
        "{IDLE} members of {IDLE_REPOS} repos, filled in {:.1} s",
        said["filled"].as_f64().unwrap_or(f64::NAN)
    ));
    report.row("tick_10000_idle", "ms", &ticks, Target::p50(50.0));
    report.row("rss_10000_idle", "MiB", &[said["resident"].as_f64().unwrap_or(f64::NAN)], Target::p50(200.0));
    Ok(())
}

pub async fn claims(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let sync = fdatasync(&dir.path().join("sync-probe"))?;
    let mut server = Server::start("serve", dir.path(), &Stock::of("bench/claims", POOL))?;
    let said = tokio::task::block_in_place(|| server.hear())?;
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let (address, key) = (text("address"), text("key"));
    let mut answered = Vec::new();
    note(format!("paced: {RATE} claims a second in all, each client pausing at random; saturated: no pause"));
    let limits = Target::both(1.0, 5.0);
    for (name, clients, paced, target) in [
        ("claim_http_1", 1, true, limits),
        ("claim_http_16", 16, true, limits),
        ("claim_http_1_saturated", 1, false, Target::NONE),
        ("claim_http_16_saturated", 16, false, Target::NONE),
    ] {
        let run = claim_run(&address, &key, clients, paced).await?;
        note(format!(
            "{clients} clients: {} warm, {} cold, {:.0} claims/s",
            run.times.len(),
            run.cold,
            (run.times.len() + run.cold) as f64 / run.took.as_secs_f64()
        ));
        if !run.bare.is_empty() {
            let (p50, p99) = (median(&run.bare), percentile(&run.bare, 0.99));
            note(format!(
                "a bare round trip (/healthz) between the claims: p50 {p50:.3} ms, p99 {p99:.3} ms"
            ));
        }
        report.row(name, "ms", &run.times, target);
        answered.extend(run.ids);
    }
    report.row("fdatasync", "ms", &sync, Target::NONE);

    // In the middle of another run: some answers are on their way, others have arrived.
    let wires = connect(&address, &key, 16).await?;
    let mut clients = tokio::task::JoinSet::new();
    for mut wire in wires {
        clients.spawn(async move {
            let mut ids = Vec::new();
            while let Ok((status, bytes)) = wire.raw(Method::POST, "/v1/sessions", body()).await {
                // The pool may run out first, and then the line of cold starts: a claim that was refused is none.
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    break;
                }
                ids.push(session_of(&parse("/v1/sessions", status, &bytes)?)?);
            }
            Ok::<_, Error>(ids)
        });
    }
    tokio::time::sleep(Duration::from_millis(60)).await;
    server.kill()?;
    while let Some(done) = clients.join_next().await {
        answered.extend(done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??);
    }
    let (store, loaded) = Store::open(&dir.path().join("state"), Arc::new(SystemClock)).await?;
    let there: std::collections::HashSet<_> = loaded.sessions.iter().map(|s| s.id).collect();
    let lost: Vec<_> = answered.iter().filter(|id| !there.contains(id)).collect();
    store.close().await;
    if !lost.is_empty() {
        return Err(Error::permanent(format!(
            "{} of {} answered claims did not survive kill -9",
            lost.len(),
            answered.len()
        )));
    }
    note(format!("kill -9 amid claims: all {} answered sessions are in the store", answered.len()));
    Ok(())
}

struct Run {
    /// Milliseconds of each warm claim.
    times: Vec<f64>,
    /// Of requests that ask for nothing: what client, loopback and scheduler cost at this moment.
    bare: Vec<f64>,
    ids: Vec<SessionId>,
    cold: usize,
    took: Duration,
}

fn body() -> Bytes {
    stage::order("bench/claims").to_string().into()
}

fn session_of(view: &Value) -> Result<SessionId> {
    stage::id_of(view)?.parse().map_err(|e| Error::permanent("read a session's id").caused_by(e))
}

/// Connections that stand and have been used.
async fn connect(address: &str, key: &str, clients: usize) -> Result<Vec<Wire>> {
    let mut wires = Vec::new();
    for _ in 0..clients {
        let mut wire = Wire::connect(address, key).await?;
        wire.get("/v1/pools").await?;
        wires.push(wire);
    }
    Ok(wires)
}

/// Half of a client's pause between two claims: by chance, even between nothing and twice the mean.
async fn pause(dice: &mut u64, clients: usize) {
    *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    let share = (*dice >> 33) as f64 / f64::from(1u32 << 31);
    tokio::time::sleep(Duration::from_secs_f64(share * clients as f64 / RATE as f64)).await;
}

async fn claim_run(address: &str, key: &str, clients: usize, paced: bool) -> Result<Run> {
    let wires = connect(address, key, clients).await?;
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut wire) in wires.into_iter().enumerate() {
        tasks.spawn(async move {
            let (mut answers, mut bare) = (Vec::new(), Vec::new());
            let mut dice = number as u64 + 1;
            for _ in 0..if paced { CLAIMS } else { SATURATED } / clients {
                if paced {
                    pause(&mut dice, clients).await;
                }
                let begun = Instant::now();
                let (status, bytes) = wire.raw(Method::POST, "/v1/sessions", body()).await?;
                answers.push((begun.elapsed(), status, bytes));
                if paced {
                    pause(&mut dice, clients).await;
                    let begun = Instant::now();
                    wire.raw(Method::GET, "/healthz", Bytes::new()).await?;
                    bare.push(begun.elapsed().as_secs_f64() * 1e3);
                }
            }
            Ok::<_, Error>((answers, bare))
        });
    }
    let mut run = Run { times: Vec::new(), bare: Vec::new(), ids: Vec::new(), cold: 0, took: Duration::ZERO };
    let mut answers = Vec::new();
    while let Some(done) = tasks.join_next().await {
        let (mine, bare) = done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??;
        answers.extend(mine);
        run.bare.extend(bare);
    }
    run.took = begun.elapsed();
    for (took, status, bytes) in answers {
        let view = parse("/v1/sessions", status, &bytes)?;
        run.ids.push(session_of(&view)?);
        if view["launch"] == "warm" {
            run.times.push(took.as_secs_f64() * 1e3);
        } else {
            run.cold += 1;
        }
    }
    Ok(run)
}

/// What a small durable write costs on this disk, in milliseconds.
fn fdatasync(path: &Path) -> Result<Vec<f64>> {
    let probe = || -> std::io::Result<Vec<f64>> {
        let mut file = std::fs::File::create(path)?;
        let mut times = Vec::new();
        for _ in 0..300 {
            file.write_all(&[0x5a; 4096])?;
            let begun = Instant::now();
            file.sync_data()?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        std::fs::remove_file(path)?;
        Ok(times)
    };
    probe().map_err(|e| Error::permanent("measure fdatasync").caused_by(e))
}
