//! A server that does nothing: how soon it is there, and what it takes while nobody comes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use config::Config;
use domain::testing::FakeBackend;
use domain::{
    Clock, CommitId, Error, Identity, Launch, Purpose, Result, SandboxId, SandboxRecord, SandboxState,
    SessionId, SessionRecord, SessionState, SyncState, SystemClock,
};
use git::hosting::GitHost;
use http::Method;
use orchestrator::app::{App, Engine, Options};
use serde_json::json;
use store::{Store, Tx};
use tokio::time::Instant;

use crate::fake::{Server, Stock, put_capture, put_images, say, start, upstreams};
use crate::report::{Report, Target, note};
use crate::stage;
use crate::wire::Wire;

const REPOS: u32 = 1000;
/// Live sessions; each has its sandbox, so these are twice as many records.
const SESSIONS: u32 = 1000;
const STARTS: usize = 20;
/// Repos of the server that stands still, with one member each.
const STILL_REPOS: u32 = 100;
/// Over how long its processor time is taken, after a while of settling.
const SETTLE: Duration = Duration::from_secs(20);
const OVER: Duration = Duration::from_secs(120);

/// From the start of the process to the first `200` of `/readyz`: configuration read and checked, records taken up,
/// engine compared. Each start finds the same state.
pub async fn starts(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let kept = dir.path().join("kept");
    put_state(&kept).await?;
    let mut times = Vec::new();
    for turn in 0..=STARTS {
        let at = dir.path().join(format!("start-{turn}"));
        copy(&kept, &at)?;
        let begun = Instant::now();
        let mut server = Server::start("up", &at, &Stock::of("", 0))?;
        let said = tokio::task::block_in_place(|| server.hear())?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        let mut wire = Wire::connect(&text("address"), &text("key")).await?;
        while !wire.raw(Method::GET, "/readyz", Bytes::new()).await?.0.is_success() {
            if begun.elapsed() > Duration::from_secs(60) {
                return Err(Error::timeout("a server that gets ready"));
            }
        }
        // The first one reads the program from the disk.
        if turn > 0 {
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let (_, sessions) = wire.raw(Method::GET, "/v1/stats", Bytes::new()).await?;
        if turn == 0 {
            note(format!("{REPOS} repos, {} records; {} bytes of statistics", 2 * SESSIONS, sessions.len()));
        }
        drop(server);
        std::fs::remove_dir_all(&at).map_err(|e| Error::permanent("remove a state").caused_by(e))?;
    }
    report.row("start_1000_repos", "ms", &times, Target::p50(300.0));
    Ok(())
}

/// The child's part of it: what `hotbed serve` does, on the engine in memory.
pub async fn up(dir: &Path) -> Result<()> {
    let config = Config::load(&dir.join("hotbed.yaml")).map_err(|e| Error::permanent(e.to_string()))?;
    let backend = Arc::new(FakeBackend::default());
    put_capture(&backend)?;
    (0..SESSIONS).for_each(|n| backend.add_sandbox(SandboxId::from_u128(u128::from(n))));
    let mut options =
        Options::new(config.settings().state_dir.clone(), config.repos().to_vec(), Engine::Given(backend));
    options.agent = Some(b"none".to_vec());
    options.schedules = false;
    let app = App::start(options).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|e| Error::permanent("listen").caused_by(e))?;
    let address = listener.local_addr().map_err(|e| Error::permanent("listen").caused_by(e))?;
    say(&json!({"address": address.to_string(), "key": app.api_key}))?;
    app.serve(listener).await
}

/// A configuration of a thousand repos, an image of each, and sessions under way.
async fn put_state(dir: &Path) -> Result<()> {
    let written = |e| Error::permanent("write the state of the bench").caused_by(e);
    std::fs::create_dir_all(dir).map_err(written)?;
    let repos: Vec<_> = (0..REPOS)
        .map(|n| {
            json!({
                "name": format!("bench/repo-{n}"),
                "url": format!("https://example.invalid/bench/repo-{n}.git"),
                "image": {"base": "debian:bookworm", "setup": ["make setup"], "warm": ["make warm"]},
                "pool": {"min": 0, "max": 10},
            })
        })
        .collect();
    // The directory is said relative to the file's, for the copies.
    let config = json!({"state_dir": "state", "backend": {"docker": {}}, "repos": repos});
    let file = dir.join("hotbed.yaml");
    std::fs::write(&file, config.to_string()).map_err(written)?;
    let config = Config::load(&file).map_err(|e| Error::permanent(e.to_string()))?;
    let commit: CommitId =
        format!("{:040x}", 7).parse().map_err(|e| Error::permanent("a commit").caused_by(e))?;
    let specs: Vec<_> = config.repos().iter().map(|spec| (spec.clone(), commit.clone())).collect();
    let state = &config.settings().state_dir;
    put_images(state, &specs).await?;

    let (store, loaded) = Store::open(state, Arc::new(SystemClock)).await?;
    for n in 0..SESSIONS {
        let spec = &specs[n as usize % specs.len()].0;
        let image = loaded.images.iter().find(|i| i.repo == spec.name);
        let image = image.ok_or_else(|| Error::permanent("an image of each repo"))?;
        let now = SystemClock.now();
        let later = now + jiff::SignedDuration::from_hours(8);
        let sandbox = SandboxRecord {
            id: SandboxId::from_u128(u128::from(n)),
            repo: spec.name.clone(),
            purpose: Purpose::Pool,
            state: SandboxState::Claimed,
            image: Some(image.id),
            source: image.digest.clone(),
            commit: Some(commit.clone()),
            engine_id: Some(format!("engine-{n}")),
            token_hash: format!("{n:064x}"),
            session: Some(SessionId::from_u128(u128::from(n))),
            reserved: None,
            created_at: now,
            ready_at: Some(now),
            claimed_at: Some(now),
            deadline: later,
            reason: None,
            up: true,
        };
        let session = SessionRecord {
            id: SessionId::from_u128(u128::from(n)),
            repo: spec.name.clone(),
            state: SessionState::Active,
            launch: Launch::Warm,
            sandbox: Some(sandbox.id),
            image: Some(image.id),
            user: Identity {
                login: format!("user-{}", n % 50),
                name: "A User".into(),
                email: "user@example.invalid".into(),
            },
            prompters: Vec::new(),
            env: [("KEY".to_owned(), format!("value {n}"))].into(),
            base: spec.branch.clone(),
            branch: format!("hotbed/{n}").parse().map_err(|e| Error::permanent("a branch").caused_by(e))?,
            sync: SyncState::pending(),
            prepared: false,
            token_handed: false,
            snapshot: None,
            parent: None,
            warmup: None,
            created_at: now,
            started_at: Some(now),
            expires_at: later,
            idle_end_seconds: Some(3600),
            deadline: later,
            ended_at: None,
            end: None,
            trouble: None,
            trace: None,
        };
        store.commit(Tx::new().sandbox(&sandbox).session(&session)).await?;
    }
    store.close().await;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let done = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status();
    match done {
        Ok(status) if status.success() => Ok(()),
        other => Err(Error::permanent(format!("copy the state of the bench: {other:?}"))),
    }
}

/// A server with a hundred repos and all schedules on, that nobody calls: the share of a core that it takes, and its
/// resident memory. Once with empty pools; and once with a member of each that waits, whose upstream is asked every
/// minute (`pool.fresh_within`) over HTTP, with the git that is run for it. What upstream takes is not in it.
pub async fn still(report: &mut Report) -> Result<()> {
    for (members, name) in [(0, "idle_cpu"), (1, "idle_cpu_kept_fresh")] {
        let dir = stage::scratch()?;
        let repos = (0..STILL_REPOS).map(|i| format!("bench/still-{i}")).collect();
        let host = GitHost::start(upstreams(dir.path())).await?;
        let upstream = Some(host.address());
        let stock = Stock { repos, schedules: true, upstream, ..Stock::of("", members) };
        let mut server = Server::start("still", dir.path(), &stock)?;
        tokio::task::block_in_place(|| server.hear())?;
        tokio::time::sleep(SETTLE).await;
        let (before, begun) = (processor(server.id())?, Instant::now());
        tokio::time::sleep(OVER).await;
        let over = begun.elapsed().as_secs_f64();
        let took: Vec<f64> = processor(server.id())?
            .iter()
            .zip(before)
            .map(|(now, then)| 100.0 * (now - then) / over)
            .collect();
        note(format!(
            "{STILL_REPOS} repos, {members} waiting of each, over {over:.0} s: its own {:.2} %, git's {:.2} %",
            took[0], took[1]
        ));
        report.row(name, "%", &[took[0] + took[1]], Target::p50(0.5));
        if members > 0 {
            report.row("idle_rss", "MiB", &[resident(server.id())?], Target::p50(80.0));
        }
    }
    Ok(())
}

/// The child's part of it.
pub async fn stand(dir: &Path, stock: &Stock) -> Result<()> {
    let app = start(dir, stock).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|e| Error::permanent("listen").caused_by(e))?;
    say(&json!({"up": true}))?;
    app.serve(listener).await
}

/// Seconds on processors of a process, and of its children that have ended.
pub fn processor(pid: u32) -> Result<[f64; 2]> {
    let read = || Error::permanent("read the processor time of the bench's server");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|e| read().caused_by(e))?;
    // Behind the name, which may hold anything: state is field 3, the four times are 14 to 17.
    let behind = stat.rsplit(") ").next().unwrap_or_default();
    let ticks: Vec<f64> = behind.split(' ').skip(11).take(4).filter_map(|n| n.parse().ok()).collect();
    // SAFETY: a plain question to the system.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    match ticks[..] {
        [user, system, of_user, of_system] if a_second > 0.0 => {
            Ok([(user + system) / a_second, (of_user + of_system) / a_second])
        }
        _ => Err(read()),
    }
}

fn resident(pid: u32) -> Result<f64> {
    let read = || Error::permanent("read the memory of the bench's server");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| read().caused_by(e))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
    line.map(|kib: f64| kib / 1024.0).ok_or_else(read)
}
