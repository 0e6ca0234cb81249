//! A Hotbed on the real engine for the sections that need one: started at the first of them, taken down after the
//! last, with nothing left behind.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::Docker;
use domain::{
    Base, Branch, Command, CommitId, Error, Identity, Network, PoolPolicy, Recipe, RepoName, RepoSpec,
    Resources, Result, SandboxId, SessionPolicy,
};
use git::hosting::{BareRepo, GitHost};
use orchestrator::app::{App, Engine, Options};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::images::CHANGE;
use crate::report::{note, target_dir};
use crate::wire::Wire;

/// The longest any single wait of the bench may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// What every repo of the bench holds, to read first.
pub const FILE: &str = "README.md";

/// Sandboxes from a pool, without a network; started for each session, without one; and with one.
pub const WARM: &str = "bench/warm";
pub const COLD: &str = "bench/cold";
pub const BRIDGE: &str = "bench/bridge";
/// Built again and again; no sandbox of it waits.
pub const BUILT: &str = "bench/built";

pub fn scratch() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("hotbed-bench-")
        .tempdir()
        .map_err(|e| Error::permanent("make a directory for the bench").caused_by(e))
}

/// Shared with the demo, whose base this is, too.
pub fn cache_dir() -> Result<PathBuf> {
    match std::env::var_os("HOTBED_DEMO_CACHE") {
        Some(dir) => Ok(dir.into()),
        None => Ok(target_dir()?.join("demo-cache")),
    }
}

pub fn first_commit(repo: &BareRepo) -> Result<CommitId> {
    let files: Vec<(String, Vec<u8>)> = (0..50)
        .map(|i| (format!("src/file-{i}.txt"), format!("file {i}\n").repeat(20).into_bytes()))
        .collect();
    let mut all: Vec<(&str, Option<&[u8]>)> = vec![(FILE, Some(b"# The bench's repository\n"))];
    all.extend(files.iter().map(|(name, data)| (name.as_str(), Some(data.as_slice()))));
    repo.commit_files(&branch()?, &all, "Begin", &author())
}

fn author() -> Identity {
    Identity { login: "up".into(), name: "Upstream".into(), email: "up@example.invalid".into() }
}

fn branch() -> Result<Branch> {
    "main".parse().map_err(|e| Error::permanent("name a branch").caused_by(e))
}

/// A repo without steps on the demo's base, with an empty pool.
pub fn spec(name: &str, url: String) -> Result<RepoSpec> {
    const HOUR: Duration = Duration::from_secs(3600);
    Ok(RepoSpec {
        name: name.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?,
        url,
        branch: branch()?,
        workspace: "/workspace".into(),
        image: Recipe {
            schedule: "0 0 * * *".into(),
            keep: 1,
            step_timeout: HOUR,
            ..Recipe::of(Base::Packages {
                suite: "bookworm".into(),
                include: ["git", "ca-certificates", "python3", "python3-venv"].map(String::from).to_vec(),
            })
        },
        rollout: domain::RolloutPolicy::default(),
        pool: PoolPolicy { min: 0, max: 1, member_max_age: HOUR * 4, ..PoolPolicy::default() },
        session: SessionPolicy {
            timeout: HOUR * 4,
            idle_end: None,
            branch_pattern: "hotbed/{session}".into(),
            sync_timeout: Duration::from_secs(120),
        },
        pushes: Default::default(),
        pulls: Default::default(),
        resources: Resources { cpu_millis: 2000, memory: 512 << 20, pids: 256 },
        network: Network::None,
    })
}

pub struct Stage {
    pub app: Arc<App>,
    pub docker: Docker,
    address: String,
    host: GitHost,
    specs: Vec<RepoSpec>,
    served: JoinHandle<Result<()>>,
    // Last, so that it goes last.
    dir: tempfile::TempDir,
}

impl Stage {
    pub async fn start() -> Result<Self> {
        Self::start_with(None).await
    }

    pub async fn start_with(registry: Option<config::RegistrySettings>) -> Result<Self> {
        let docker =
            Docker::connect_with_defaults().map_err(|e| Error::invalid("find the engine").caused_by(e))?;
        let docker = docker.negotiate_version().await.map_err(|e| {
            Error::unavailable("reach the engine (`scripts/ensure-docker` starts one)").caused_by(e)
        })?;
        let dir = scratch()?;
        let host = GitHost::start(dir.path().join("upstream")).await?;
        let mut specs = Vec::new();
        for (name, network) in
            [(WARM, Network::None), (COLD, Network::None), (BRIDGE, Network::Bridge), (BUILT, Network::None)]
        {
            let repo: RepoName = name.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?;
            first_commit(&host.create_repo(&repo)?)?;
            let mut spec = RepoSpec { network, ..spec(name, host.url(&repo))? };
            if name == BUILT {
                spec.image.phases.update = vec![Command::new(CHANGE)];
            }
            specs.push(spec);
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.map_err(|e| Error::permanent("listen").caused_by(e))?;
        let address = listener.local_addr().map_err(|e| Error::permanent("listen").caused_by(e))?.to_string();
        let engine = Engine::Docker(config::DockerSettings::default());
        let mut options = Options::new(dir.path().join("state"), specs.clone(), engine);
        options.cache_dir = Some(cache_dir()?.join("bases"));
        options.schedules = false;
        options.registry = registry;
        let app = App::start(options).await?;
        let served = {
            let app = app.clone();
            tokio::spawn(async move { app.serve(listener).await })
        };
        Ok(Self { app, docker, address, host, specs, served, dir })
    }

    /// Removes everything from the engine.
    pub async fn end(self) -> Result<()> {
        let torn = self.app.tear_down(false).await;
        let _ = self.served.await;
        self.host.stop().await;
        torn
    }

    pub async fn wire(&self) -> Result<Wire> {
        let mut wire = Wire::connect(&self.address, &self.app.api_key).await?;
        wire.get("/v1/pools").await?; // the connection stands and has been used
        Ok(wire)
    }

    /// Builds the image of a repo that has none; answers its digest.
    pub async fn image(&self, name: &str) -> Result<String> {
        let repo: RepoName = name.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?;
        if self.app.repos.current_image(&repo).is_none() {
            let begun = Instant::now();
            let mut wire = self.wire().await?;
            let build = wire.post(&format!("/v1/repos/{name}/builds"), &json!({})).await?;
            let path = format!("/v1/builds/{}", build["id"].as_str().unwrap_or_default());
            let ended = until(&mut wire, &path, |b| !b["ended_at"].is_null()).await?;
            if ended["state"] != "succeeded" {
                return Err(Error::permanent(format!("the build of {name}: {ended}")));
            }
            note(format!("image of {name} built in {:.1} s", begun.elapsed().as_secs_f64()));
        }
        let image = self.app.repos.current_image(&repo);
        image.map(|i| i.digest.to_string()).ok_or_else(|| Error::permanent(format!("{name} has no image")))
    }

    pub fn current(&self, name: &str) -> Result<domain::ImageRecord> {
        let repo: RepoName = name.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?;
        let image = self.app.repos.current_image(&repo);
        image.ok_or_else(|| Error::permanent(format!("{name} has no image")))
    }

    /// One more commit on `main`.
    pub fn land(&self, name: &str, file: &str, content: &str) -> Result<CommitId> {
        let repo: RepoName = name.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?;
        let files = [(file, Some(content.as_bytes()))];
        self.host.repo(&repo).commit_files(&branch()?, &files, "Change", &author())
    }

    /// Sets how many members wait, and waits until they do, with nothing under way any more.
    pub async fn pool(&self, members: u32) -> Result<()> {
        self.aim(members);
        self.settled(members).await
    }

    /// Sets how many members wait.
    pub fn aim(&self, members: u32) {
        let mut specs = self.specs.clone();
        for spec in specs.iter_mut().filter(|s| s.name.to_string() == WARM) {
            spec.pool = PoolPolicy { min: members, max: members.max(1), ..spec.pool.clone() };
        }
        self.app.repos.replace(specs);
        self.app.fleet.pool_poke.notify_one();
    }

    /// Waits until no sandbox is left.
    pub async fn empty(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.app.fleet.entries().is_empty() {
            if Instant::now() > deadline {
                return Err(Error::timeout("the end of all sandboxes"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// What sandboxes see at `/run/hotbed`.
    pub fn shared_dir(&self) -> PathBuf {
        self.dir.path().join("state/run/shared")
    }

    /// Waits until this many members are warm and no sandbox is being made or removed.
    pub async fn settled(&self, members: u32) -> Result<()> {
        use domain::SandboxState as S;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let records = self.app.fleet.records();
            let warm = records.iter().filter(|r| r.state == S::Warm).count();
            let moving = records.iter().any(|r| !matches!(r.state, S::Warm | S::Claimed));
            if warm == members as usize && !moving {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(Error::timeout(format!("wait for {members} warm members: there are {warm}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts a session and waits until it is synced: nothing of its launch goes on.
    pub async fn synced_session(&self, wire: &mut Wire, repo: &str) -> Result<(String, SandboxId)> {
        let session = wire.post("/v1/sessions", &order(repo)).await?;
        let id = id_of(&session)?;
        let sync = wire.get(&format!("/v1/sessions/{id}/sync?wait_seconds=120")).await?;
        if sync["phase"] != "synced" {
            return Err(Error::permanent(format!("sync of {id}: {sync}")));
        }
        let sandbox = wire.get(&format!("/v1/sessions/{id}")).await?["sandbox"].as_str().map(str::parse);
        match sandbox {
            Some(Ok(sandbox)) => Ok((id, sandbox)),
            _ => Err(Error::permanent(format!("{id} has no sandbox"))),
        }
    }

    /// Milliseconds from a sandbox's row to its agent's first answer.
    pub fn hello_after(&self, session: &Value) -> Result<f64> {
        let sandbox = session["sandbox"].as_str().and_then(|s| s.parse::<SandboxId>().ok());
        let record = sandbox.and_then(|id| self.app.fleet.get(id)).map(|e| e.record());
        let ready = record.and_then(|r| Some(r.ready_at?.duration_since(r.created_at).as_secs_f64() * 1e3));
        ready.ok_or_else(|| Error::permanent(format!("the sandbox of {session} was never ready")))
    }

    /// Ends a session without a capture and waits until its sandbox is gone.
    pub async fn discard(&self, wire: &mut Wire, session: &str) -> Result<()> {
        let ended = wire
            .json(http::Method::DELETE, &format!("/v1/sessions/{session}?wait=true&discard=true"), None)
            .await?;
        let Some(Ok(sandbox)) = ended["sandbox"].as_str().map(str::parse::<SandboxId>) else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        while self.app.fleet.get(sandbox).is_some() {
            if Instant::now() > deadline {
                return Err(Error::timeout(format!("the end of {sandbox}")));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }
}

pub fn order(repo: &str) -> Value {
    json!({"repo": repo, "user": {"login": "ada"}})
}

pub fn id_of(view: &Value) -> Result<String> {
    view["id"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::permanent(format!("an answer without an id: {view}")))
}

/// Asks until `good` holds.
pub async fn until(wire: &mut Wire, path: &str, good: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = wire.get(path).await?;
        if good(&answer) {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(Error::timeout(format!("{path}: {answer}")));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
