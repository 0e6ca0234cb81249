//! Figures on the real engine. Whatever is compared is measured by turns, so that the machine's moods hit both.

use std::future::Future;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;

use bollard::models::{ContainerConfig, ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CommitContainerOptions, CreateContainerOptions, RemoveContainerOptions, RemoveImageOptions,
    StartContainerOptions,
};
use domain::{Error, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Barrier;

use crate::report::{Report, Target, median, note, percentile};
use crate::stage::{BRIDGE, COLD, FILE, Stage, WARM, id_of, order};
use crate::wire::{Wire, parse};

const EXECS: usize = 400;
const FIRSTS: usize = 40;
/// Members that wait while first commands are measured.
const FIRST_POOL: u32 = 4;
const COLD_STARTS: usize = 15;
const CAPTURES: usize = 20;
const BURST: u32 = 100;
const BURSTS: usize = 3;
/// A static binary that every sandbox has.
const STATIC: [&str; 2] = [domain::wire::AGENT_PATH, "--version"];

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

fn engine(what: &str) -> impl FnOnce(bollard::errors::Error) -> Error + '_ {
    move |e| Error::permanent(what.to_owned()).caused_by(e)
}

/// Runs the static binary in a session; it must have ended well.
async fn exec(wire: &mut Wire, session: &str) -> Result<()> {
    let path = format!("/v1/sessions/{session}/exec");
    let done = wire.post(&path, &json!({"cmd": STATIC, "wait": true})).await?;
    well(&done)
}

pub fn well(done: &Value) -> Result<()> {
    if done["exit"]["code"] == 0 {
        Ok(())
    } else {
        Err(Error::permanent(format!("a command did not end well: {done}")))
    }
}

/// The round trip of a command in a session that has settled, over fork and exec of the same program right here.
pub async fn exec_overhead(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.image(COLD).await?;
    let mut wire = stage.wire().await?;
    let (session, _) = stage.synced_session(&mut wire, COLD).await?;
    let binary = agent_here(stage)?;
    let (mut over, mut ours, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..EXECS + 20 {
        let begun = Instant::now();
        exec(&mut wire, &session).await?;
        let trip = ms(begun);
        let here = tokio::task::block_in_place(|| spawn_here(&binary))?;
        // The first ones warm caches up.
        if turn >= 20 {
            over.push(trip - here);
            ours.push(trip);
            plain.push(here);
        }
    }
    stage.discard(&mut wire, &session).await?;
    note(format!(
        "round trip p50 {:.3} p99 {:.3} ms; plain fork and exec p50 {:.3} p99 {:.3} ms",
        median(&ours),
        percentile(&ours, 0.99),
        median(&plain),
        percentile(&plain, 0.99)
    ));
    report.row("exec_overhead", "ms", &over, Target::p50(1.0));
    Ok(())
}

/// The agent as the sandboxes of this stage see it, from outside.
fn agent_here(stage: &Stage) -> Result<PathBuf> {
    let path = stage.shared_dir().join("hotbed-agent");
    if path.exists() { Ok(path) } else { Err(Error::not_found(format!("the agent at {}", path.display()))) }
}

fn spawn_here(binary: &PathBuf) -> Result<f64> {
    let begun = Instant::now();
    let run =
        std::process::Command::new(binary).arg(STATIC[1]).stdin(Stdio::null()).stdout(Stdio::null()).status();
    match run {
        Ok(status) if status.success() => Ok(ms(begun)),
        Ok(status) => Err(Error::permanent(format!("{}: {status}", binary.display()))),
        Err(e) => Err(Error::permanent(format!("run {}", binary.display())).caused_by(e)),
    }
}

/// A warm claim and the first command in it, one after the other on one connection.
pub async fn claim_first_exec(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.image(WARM).await?;
    stage.pool(FIRST_POOL).await?;
    let mut wire = stage.wire().await?;
    let (mut whole, mut claims, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..FIRSTS {
        stage.settled(FIRST_POOL).await?;
        let begun = Instant::now();
        let session = wire.post("/v1/sessions", &order(WARM)).await?;
        let claimed = ms(begun);
        let id = id_of(&session)?;
        exec(&mut wire, &id).await?;
        let took = ms(begun);
        if session["launch"] != "warm" {
            return Err(Error::permanent(format!(
                "a full pool gave a session that is {}",
                session["launch"]
            )));
        }
        whole.push(took);
        claims.push(claimed);
        firsts.push(took - claimed);
        stage.discard(&mut wire, &id).await?;
    }
    note(format!(
        "claim p50 {:.3} p99 {:.3} ms; first command p50 {:.3} p99 {:.3} ms",
        median(&claims),
        percentile(&claims, 0.99),
        median(&firsts),
        percentile(&firsts, 0.99)
    ));
    report.row("claim_first_exec_docker", "ms", &whole, Target::both(3.0, 15.0));
    stage.pool(0).await
}

/// A session for which no member waits, from the request to the first file read, against `docker run`.
pub async fn cold_start(stage: &Stage, report: &mut Report) -> Result<()> {
    cold_starts(stage, report, COLD, "none", "cold_start_ratio", Target::p50(1.15)).await?;
    // A network like the one that Hotbed makes for its sandboxes.
    let network = comparison_name();
    docker(&["network", "create", &network]).await?;
    let done = cold_starts(stage, report, BRIDGE, &network, "cold_start_ratio_bridge", Target::NONE).await;
    docker(&["network", "rm", &network]).await?;
    done
}

/// Of what is made beside Hotbed, to compare with.
fn comparison_name() -> String {
    format!("hotbed-bench-{}", std::process::id())
}

async fn cold_starts(
    stage: &Stage,
    report: &mut Report,
    repo: &str,
    network: &str,
    name: &str,
    target: Target,
) -> Result<()> {
    let image = stage.image(repo).await?;
    let mut wire = stage.wire().await?;
    let (mut ratios, mut ours, mut theirs, mut bare) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut answers, mut calls, mut hellos) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=COLD_STARTS {
        let before = engine_seconds(&mut wire).await?;
        let begun = Instant::now();
        let session = wire.post("/v1/sessions", &order(repo)).await?;
        let answered = ms(begun);
        let id = id_of(&session)?;
        let (status, bytes) =
            wire.raw(Method::GET, &format!("/v1/sessions/{id}/files/{FILE}"), "".into()).await?;
        let took = ms(begun);
        if !status.is_success() || bytes.is_empty() {
            return Err(Error::permanent(format!("the first read: {status}")));
        }
        // Its launch ends before the other one begins: sync goes on after the first read.
        wire.get(&format!("/v1/sessions/{id}/sync?wait_seconds=60")).await?;
        let call = (engine_seconds(&mut wire).await? - before) * 1e3;
        let hello = stage.hello_after(&session)?;
        stage.discard(&mut wire, &id).await?;
        let run = docker_run(stage, &image, network).await?;
        let raw = raw_run(stage, &image, network).await?;
        // The first turn finds cold caches on either side.
        if turn > 0 {
            ratios.push(took / run);
            ours.push(took);
            theirs.push(run);
            bare.push(raw);
            answers.push(answered);
            calls.push(call);
            hellos.push(hello);
        }
    }
    note(format!(
        "{repo}: answered after {:.1} ms, agent's hello after {:.0} ms, first read after {:.0} ms (p50); the engine's \
         create and start took {:.0} ms, partly beside that",
        median(&answers),
        median(&hellos),
        median(&ours),
        median(&calls)
    ));
    note(format!(
        "`docker run -d` p50 {:.0} ms; bare create and start by the engine's API p50 {:.0} ms",
        median(&theirs),
        median(&bare)
    ));
    report.row(name, "ratio", &ratios, target);
    Ok(())
}

/// The sum of the time that the engine took for `start`, as the server's metrics have it.
async fn engine_seconds(wire: &mut Wire) -> Result<f64> {
    let (_, bytes) = wire.raw(Method::GET, "/metrics", "".into()).await?;
    let text = String::from_utf8_lossy(&bytes);
    let line =
        text.lines().find(|l| l.starts_with("hotbed_backend_call_seconds_sum") && l.contains("\"start\""));
    Ok(line.and_then(|l| l.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0))
}

/// What a person would type, with a process that stays; removed afterwards, which is not counted.
async fn docker_run(stage: &Stage, image: &str, network: &str) -> Result<f64> {
    let name = comparison_name();
    let begun = Instant::now();
    let run = docker(&["run", "-d", "--name", &name, "--network", network, image, "sleep", "120"]).await;
    let took = ms(begun);
    // One that was made and did not start is there, too.
    let removed = remove(stage, &name).await;
    run?;
    removed?;
    Ok(took)
}

async fn docker(args: &[&str]) -> Result<()> {
    let mut command = Command::new("docker");
    let output = command.args(args).stdin(Stdio::null()).output().await;
    let output =
        output.map_err(|e| Error::not_found("run `docker` (Debian has it in docker.io)").caused_by(e))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::permanent(format!("docker {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr))))
}

async fn raw_run(stage: &Stage, image: &str, network: &str) -> Result<f64> {
    let begun = Instant::now();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["sleep".into(), "120".into()]),
        host_config: Some(HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    };
    let made = stage.docker.create_container(None::<CreateContainerOptions>, body).await;
    let made = made.map_err(engine("create a container to compare with"))?;
    let started = stage.docker.start_container(&made.id, None::<StartContainerOptions>).await;
    let took = ms(begun);
    remove(stage, &made.id).await?;
    started.map_err(engine("start a container to compare with"))?;
    Ok(took)
}

async fn remove(stage: &Stage, container: &str) -> Result<()> {
    let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
    stage.docker.remove_container(container, Some(options)).await.map_err(engine("remove a container"))
}

/// Snapshots of a session against the daemon's own commit of the same container.
pub async fn captures(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.image(COLD).await?;
    let files = "mkdir bulk && i=0 && while [ $i -lt 1000 ]; do echo \"file $i\" > bulk/$i; i=$((i+1)); done";
    let blob = "head -c 104857600 /dev/urandom > blob";
    for (name, fill) in [("capture_ratio_1000_files", files), ("capture_ratio_100mb", blob)] {
        let mut wire = stage.wire().await?;
        let (session, sandbox) = stage.synced_session(&mut wire, COLD).await?;
        let path = format!("/v1/sessions/{session}/exec");
        well(&wire.post(&path, &json!({"cmd": fill, "wait": true})).await?)?;
        let container = format!("hotbed-{sandbox}");
        let (mut ratios, mut ours, mut theirs) = (Vec::new(), Vec::new(), Vec::new());
        for turn in 0..=CAPTURES {
            // Who goes first takes turns, too: the second one finds warmer caches.
            let (own, bare) = if turn % 2 == 0 {
                let own = snapshot(&mut wire, &session).await?;
                (own, raw_commit(stage, &container).await?)
            } else {
                let bare = raw_commit(stage, &container).await?;
                (snapshot(&mut wire, &session).await?, bare)
            };
            if turn > 0 {
                ratios.push(own / bare);
                ours.push(own);
                theirs.push(bare);
            }
        }
        stage.discard(&mut wire, &session).await?;
        note(format!(
            "snapshot p50 {:.0} ms, the daemon's commit p50 {:.0} ms",
            median(&ours),
            median(&theirs)
        ));
        report.row(name, "ratio", &ratios, Target::p50(1.10));
    }
    Ok(())
}

async fn snapshot(wire: &mut Wire, session: &str) -> Result<f64> {
    let begun = Instant::now();
    let taken = wire.post(&format!("/v1/sessions/{session}/snapshots"), &json!({})).await?;
    let took = ms(begun);
    wire.json(Method::DELETE, &format!("/v1/snapshots/{}", id_of(&taken)?), None).await?;
    Ok(took)
}

pub async fn raw_commit(stage: &Stage, container: &str) -> Result<f64> {
    let begun = Instant::now();
    let options =
        CommitContainerOptions { container: Some(container.to_owned()), pause: true, ..Default::default() };
    let made = stage.docker.commit_container(options, ContainerConfig::default()).await;
    let made = made.map_err(engine("commit a container to compare with"))?;
    let took = ms(begun);
    let options = RemoveImageOptions { force: false, noprune: true, platforms: None };
    stage.docker.remove_image(&made.id, Some(options), None).await.map_err(engine("remove an image"))?;
    Ok(took)
}

/// A hundred clients ask at the same moment, and a hundred members wait.
pub async fn burst(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.image(WARM).await?;
    let mut times = Vec::new();
    let mut single = Vec::new();
    for _ in 0..BURSTS {
        let begun = Instant::now();
        stage.pool(BURST).await?;
        note(format!("a pool of {BURST} after {:.0} s", begun.elapsed().as_secs_f64()));
        let (took, each, ids) = one_burst(stage).await?;
        note(format!("{BURST} sessions within {took:.0} ms"));
        times.push(took);
        single.extend(each);
        // The refill would only be in the way of the end.
        stage.aim(0);
        let mut ends = tokio::task::JoinSet::new();
        for chunk in ids.chunks(25) {
            let (mut wire, chunk) = (stage.wire().await?, chunk.to_vec());
            ends.spawn(async move {
                for id in chunk {
                    wire.json(Method::DELETE, &format!("/v1/sessions/{id}?wait=true&discard=true"), None)
                        .await?;
                }
                Ok::<_, Error>(())
            });
        }
        while let Some(ended) = ends.join_next().await {
            ended.map_err(|e| Error::permanent("end a session").caused_by(e))??;
        }
        stage.empty().await?;
    }
    note(format!("a single answer p50 {:.1} ms, p99 {:.1} ms", median(&single), percentile(&single, 0.99)));
    report.row("burst_100", "ms", &times, Target::p50(300.0));
    Ok(())
}

async fn one_burst(stage: &Stage) -> Result<(f64, Vec<f64>, Vec<String>)> {
    let barrier = Arc::new(Barrier::new(BURST as usize + 1));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..BURST {
        let (mut wire, barrier) = (stage.wire().await?, barrier.clone());
        let body = bytes::Bytes::from(order(WARM).to_string());
        tasks.spawn(async move {
            barrier.wait().await;
            let begun = Instant::now();
            let (status, bytes) = wire.raw(Method::POST, "/v1/sessions", body).await?;
            Ok::<_, Error>((begun, Instant::now(), parse("/v1/sessions", status, &bytes)?))
        });
    }
    barrier.wait().await;
    let (mut first, mut last) = (None::<Instant>, None::<Instant>);
    let (mut each, mut ids) = (Vec::new(), Vec::new());
    while let Some(done) = tasks.join_next().await {
        let (begun, ended, view) =
            done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??;
        first = Some(first.map_or(begun, |f| f.min(begun)));
        last = Some(last.map_or(ended, |l| l.max(ended)));
        each.push((ended - begun).as_secs_f64() * 1e3);
        ids.push(id_of(&view)?);
        if view["launch"] != "warm" {
            note(format!("one of the burst was {}", view["launch"]));
        }
    }
    let took = first.zip(last).map_or(f64::NAN, |(f, l)| (l - f).as_secs_f64() * 1e3);
    Ok((took, each, ids))
}

/// Runs a section on the stage, which is set up for the first one.
pub async fn on<'a, F>(stage: &'a mut Option<Stage>, work: impl FnOnce(&'a Stage) -> F) -> Result<()>
where
    F: Future<Output = Result<()>>,
{
    if stage.is_none() {
        *stage = Some(Stage::start().await?);
    }
    match stage.as_ref() {
        Some(stage) => work(stage).await,
        None => Err(Error::permanent("no stage")),
    }
}
