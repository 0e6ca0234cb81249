//! Git through the gateway, beside git straight to a server: a clone of 100 MB, and a push of 100 MB without the
//! gateway holding it.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use domain::ports::Mirrors;
use domain::{Branch, Error, RepoName, Result, SandboxId, SessionId};
use git::hosting::GitHost;
use git::{Access, Caller, Gateway, GatewayOptions, MirrorOptions, MirrorSet, Remote};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::report::{Report, Target, note};
use crate::stage;

/// Bytes that don't compress.
const SIZE: usize = 100 << 20;
const ROUNDS: usize = 5;

pub async fn gateway(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let wrong = |e: domain::NameError| Error::permanent("name something").caused_by(e);
    let repo: RepoName = "bench/large".parse().map_err(wrong)?;
    let branch: Branch = "hotbed/bench".parse().map_err(wrong)?;
    let host = GitHost::start(dir.path().join("upstream")).await?;
    host.create_repo(&repo)?;
    let seed = dir.path().join("seed");
    std::fs::create_dir_all(&seed).map_err(|e| Error::permanent("make a directory").caused_by(e))?;
    run(&seed, &["init", "-q", "-b", "main", "."]).await?;
    fill(&seed, "data")?;
    run(&seed, &["add", "data"]).await?;
    run(&seed, &["commit", "-q", "-m", "Begin"]).await?;
    let upstream = host.path(&repo).display().to_string();
    run(&seed, &["push", "-q", &upstream, "HEAD:refs/heads/main"]).await?;

    // Straight to the bare repository, so that no other server of this process holds the push.
    let remotes = vec![Remote::new(repo.clone(), upstream)];
    let mirrors = MirrorSet::open(dir.path().join("mirrors"), remotes, MirrorOptions::default()).await?;
    mirrors.refresh(&repo).await?;
    let access = Access::Push { session: SessionId::new(), branch };
    let caller = Caller { sandbox: SandboxId::new(), repo: repo.clone(), access };
    let through = serve(Gateway::new(mirrors, GatewayOptions::default()), caller).await?;
    let through = format!("http://{through}/{repo}.git");
    let straight = host.url(&repo);

    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let first = clone(dir.path(), if round % 2 == 0 { &straight } else { &through }).await?;
        let second = clone(dir.path(), if round % 2 == 0 { &through } else { &straight }).await?;
        let (straight, through) = if round % 2 == 0 { (first, second) } else { (second, first) };
        ratios.push(through.as_secs_f64() / straight.as_secs_f64());
    }
    note(format!("{} MiB, {ROUNDS} clones each, by turns", SIZE >> 20));
    report.row("gateway_fetch_ratio", "ratio", &ratios, Target::p50(1.15));

    fill(&seed, "more")?;
    run(&seed, &["add", "more"]).await?;
    run(&seed, &["commit", "-q", "-m", "More"]).await?;
    let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let before = resident();
    let watching = {
        let (stop, peak) = (stop.clone(), peak.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                peak.fetch_max(resident(), Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
    };
    let pushed = run(&seed, &["push", "-q", &through, "HEAD:refs/heads/hotbed/bench"]).await;
    stop.store(true, Ordering::Relaxed);
    watching.await.map_err(|e| Error::permanent("watch the memory").caused_by(e))?;
    pushed?;
    let grown = peak.load(Ordering::Relaxed).saturating_sub(before) as f64 / f64::from(1 << 20);
    note(format!("a push of {} MiB; what this process grew by", SIZE >> 20));
    report.row("gateway_push_rss", "MiB", &[grown], Target::p50(32.0));
    host.stop().await;
    Ok(())
}

async fn serve(gateway: Gateway, caller: Caller) -> Result<std::net::SocketAddr> {
    let failed = |e| Error::permanent("listen").caused_by(e);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (gateway, caller) = (gateway.clone(), caller.clone());
            tokio::spawn(git::serve_relay(stream, move |request| {
                let (gateway, caller) = (gateway.clone(), caller.clone());
                async move { gateway.handle(&caller, request).await }
            }));
        }
    });
    Ok(address)
}

async fn clone(dir: &Path, url: &str) -> Result<Duration> {
    let to = dir.join("clone.git");
    let begun = Instant::now();
    run(dir, &["clone", "-q", "--bare", url, "clone.git"]).await?;
    let took = begun.elapsed();
    std::fs::remove_dir_all(&to).map_err(|e| Error::permanent("remove a clone").caused_by(e))?;
    Ok(took)
}

fn fill(dir: &Path, name: &str) -> Result<()> {
    let failed = |e: std::io::Error| Error::permanent("write a large file").caused_by(e);
    let mut random = std::fs::File::open("/dev/urandom").map_err(failed)?;
    let mut file = std::fs::File::create(dir.join(name)).map_err(failed)?;
    let copied = std::io::copy(&mut std::io::Read::take(&mut random, SIZE as u64), &mut file);
    copied.map(drop).map_err(failed)
}

async fn run(dir: &Path, args: &[&str]) -> Result<()> {
    let out = Command::new("git")
        .args(["-c", "user.name=Bench", "-c", "user.email=bench@example.invalid", "-c", "gc.auto=0"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|e| Error::unavailable("start git").caused_by(e))?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    Err(Error::permanent(format!("git {}", args.first().unwrap_or(&""))).caused_by(said))
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0) * 4096
}
