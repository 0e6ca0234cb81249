//! Figures of the image builder: looks that find nothing new, what a build costs beside the repository's own commands,
//! and what an incremental image sends to a registry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::ports::Mirrors;
use domain::testing::{FakeBackend, ManualClock};
use domain::{Base, Clock, Error, RepoName, Result, SystemClock};
use git::hosting::BareRepo;
use orchestrator::app::{App, Engine, Options};
use registry::Registry as Asked;
use serde_json::{Value, json};
use tests::registry::Registry;

use crate::fake::{put_capture, put_images};
use crate::real;
use crate::report::{Report, Target, median, note};
use crate::stage::{self, BUILT, Stage, until};
use crate::wire::Wire;

/// Repos that are looked at in each round, and rounds.
const LOOKED_AT: usize = 40;
const ROUNDS: usize = 12;
/// As many as are looked at at once by the tick.
const LOOKS_AT_ONCE: usize = 8;
/// The default schedule's half hour, and the longest that a repo is put off beyond it.
const NEXT_TICK: Duration = Duration::from_secs(46 * 60);
/// What the engine would have to do for a build.
const WORK: [&str; 7] = ["pull", "import", "has", "start", "stop", "capture", "remove_capture"];
const PATIENCE: Duration = Duration::from_secs(120);

/// Incremental builds, and pushes of them.
const BUILDS: usize = 10;
const PUSHES: usize = 5;
/// What the repository's own command writes on each build: so much, in so many files.
pub const CHANGE: &str = "mkdir -p /opt/deps && i=0 && while [ $i -lt 200 ]; do \
                          head -c 100000 /dev/urandom > /opt/deps/$i; i=$((i+1)); done";

/// A tick over repos of which none has changed, and what it takes beyond asking their upstreams.
pub async fn tick_unchanged(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let mut specs = Vec::new();
    for n in 0..LOOKED_AT {
        let name = format!("bench/looked-{n}");
        let upstream = BareRepo::create(dir.path().join("upstream").join(format!("{name}.git")))?;
        let commit = stage::first_commit(&upstream)?;
        let mut spec = stage::spec(&name, upstream.path().display().to_string())?;
        spec.image.base = Base::Reference("fake".into());
        spec.image.schedule = "*/30 * * * *".into();
        spec.image.max_age = Duration::from_secs(100 * 24 * 3600);
        spec.pool.max = 0;
        specs.push((spec, commit));
    }
    let state = dir.path().join("state");
    put_images(&state, &specs).await?;
    let backend = Arc::new(FakeBackend::default());
    put_capture(&backend)?;
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let specs: Vec<_> = specs.into_iter().map(|(spec, _)| spec).collect();
    let mut options = Options::new(state, specs.clone(), Engine::Given(backend.clone()));
    options.agent = Some(b"none".to_vec());
    options.schedules = false;
    options.clock = clock.clone();
    let app = App::start(options).await?;
    // The mirrors are made, and the images get the fingerprint that their recipes have now.
    let repos: Vec<RepoName> = specs.iter().map(|s| s.name.clone()).collect();
    refresh(&app, &repos).await?;
    take_fingerprints(&app, &repos).await?;

    let work = || WORK.iter().map(|verb| backend.calls(verb)).sum::<u64>();
    let calls = work();
    let (mut beyond, mut whole, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let asking = refresh(&app, &repos).await?;
        let ticking = tick(&app, &clock, &repos).await?;
        // The first round finds cold caches.
        if round > 0 {
            beyond.push((ticking - asking) / LOOKED_AT as f64);
            whole.push(ticking / LOOKED_AT as f64);
            asked.push(asking / LOOKED_AT as f64);
        }
    }
    let calls = work() - calls;
    app.shutdown().await;
    if calls > 0 {
        return Err(Error::permanent(format!("{calls} engine calls for repos of which none had changed")));
    }
    note(format!(
        "{LOOKED_AT} repos, {LOOKS_AT_ONCE} at a time; of each, p50: the look {:.2} ms, of it asking upstream {:.2} ms; \
         no engine call in {} looks",
        median(&whole),
        median(&asked),
        (ROUNDS + 1) * LOOKED_AT
    ));
    report.row("tick_unchanged", "ms", &beyond, Target::p50(100.0));
    Ok(())
}

/// Milliseconds of asking all upstreams, as many at a time as a tick does.
async fn refresh(app: &Arc<App>, repos: &[RepoName]) -> Result<f64> {
    let turns = Arc::new(tokio::sync::Semaphore::new(LOOKS_AT_ONCE));
    let mut asks = tokio::task::JoinSet::new();
    let begun = Instant::now();
    for repo in repos {
        let (turns, mirrors, repo) = (turns.clone(), app.mirrors.clone(), repo.clone());
        asks.spawn(async move {
            let _turn = turns.acquire_owned().await.map_err(|e| Error::permanent("a turn").caused_by(e))?;
            mirrors.refresh(&repo).await
        });
    }
    while let Some(done) = asks.join_next().await {
        done.map_err(|e| Error::permanent("ask upstream").caused_by(e))??;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// Milliseconds until every repo has been looked at and found unchanged.
async fn tick(app: &Arc<App>, clock: &ManualClock, repos: &[RepoName]) -> Result<f64> {
    clock.advance(NEXT_TICK);
    let now = clock.now();
    let begun = Instant::now();
    app.builds.tick().await?;
    let verified = |repo: &RepoName| app.repos.current_image(repo).is_some_and(|i| i.verified_at >= now);
    while !repos.iter().all(|repo| verified(repo) && app.builds.is_idle(repo)) {
        if begun.elapsed() > PATIENCE {
            return Err(Error::timeout("a tick that finds nothing changed"));
        }
        tokio::time::sleep(Duration::from_micros(500)).await;
    }
    Ok(begun.elapsed().as_secs_f64() * 1e3)
}

/// The images were put there without a build; from here on they are what a build would make.
async fn take_fingerprints(app: &Arc<App>, repos: &[RepoName]) -> Result<()> {
    for repo in repos {
        let spec = app.repos.spec(repo)?;
        let take = |images: &[domain::ImageRecord]| {
            let with = |image: &domain::ImageRecord| {
                let fingerprint =
                    image_builder::fingerprint(&spec, &image.base_digest, &[], &[], domain::wire::PROTOCOL);
                domain::ImageRecord { fingerprint, ..image.clone() }
            };
            Ok(images.iter().map(with).collect())
        };
        app.images.change(repo, take).await?;
    }
    Ok(())
}

/// Builds on the image before; all of it but the repository's own commands, less one and a half times what the engine
/// itself takes to commit the same change.
pub async fn incremental_overhead(stage: &Stage, report: &mut Report) -> Result<()> {
    stage.image(BUILT).await?;
    let mut wire = stage.wire().await?;
    let (mut over, mut overheads, mut commits) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..=BUILDS {
        let committed = committed(stage, &mut wire).await? / 1e3;
        let build = incremental(stage, turn).await?;
        let phases = build["phases"].as_array().into_iter().flatten();
        let own = |p: &&Value| matches!(p["phase"].as_str(), Some("setup" | "update" | "warm"));
        let commands: f64 = phases.filter(own).filter_map(|p| p["seconds"].as_f64()).sum();
        let overhead = build["elapsed_seconds"].as_f64().unwrap_or(f64::NAN) - commands;
        if turn > 0 {
            over.push(overhead - 1.5 * committed);
            overheads.push(overhead);
            commits.push(committed);
        }
    }
    note(format!(
        "a build beside the repository's own commands p50 {:.2} s; the engine's own commit of the same change p50 {:.2} s",
        median(&overheads),
        median(&commits)
    ));
    report.row("incremental_overhead", "s", &over, Target::p50(2.0));
    Ok(())
}

/// The engine's own commit of a session in which the repository's command has run, in milliseconds.
async fn committed(stage: &Stage, wire: &mut Wire) -> Result<f64> {
    let (session, sandbox) = stage.synced_session(wire, BUILT).await?;
    let path = format!("/v1/sessions/{session}/exec");
    real::well(&wire.post(&path, &json!({"cmd": CHANGE, "wait": true})).await?)?;
    let took = real::raw_commit(stage, &format!("hotbed-{sandbox}")).await?;
    stage.discard(wire, &session).await?;
    Ok(took)
}

/// A build of one more commit, on the image before it.
async fn incremental(stage: &Stage, turn: usize) -> Result<Value> {
    stage.land(BUILT, "CHANGES", &format!("change {turn}\n"))?;
    let mut wire = stage.wire().await?;
    let build = wire.post(&format!("/v1/repos/{BUILT}/builds"), &json!({})).await?;
    let path = format!("/v1/builds/{}", stage::id_of(&build)?);
    let build = until(&mut wire, &path, |b| !b["ended_at"].is_null()).await?;
    if build["state"] != "succeeded" || build["parent"].is_null() {
        return Err(Error::permanent(format!("not an incremental build that succeeded: {build}")));
    }
    Ok(build)
}

/// What of an incremental image goes over the wire to Debian's registry, to the bytes of its new layer there.
pub async fn push_bytes_ratio(report: &mut Report) -> Result<()> {
    let registry = tokio::task::block_in_place(Registry::start);
    let push = format!("{}/bench", registry.host());
    let stage = Stage::start_with(Some(config::RegistrySettings { push, login: None })).await?;
    let done = pushes(&stage, &registry, report).await;
    let ended = stage.end().await;
    done.and(ended)
}

async fn pushes(stage: &Stage, registry: &Registry, report: &mut Report) -> Result<()> {
    let asked = Asked::new(&registry.host(), None)?;
    stage.image(BUILT).await?;
    pushed(stage).await?;
    let (mut ratios, mut sizes) = (Vec::new(), Vec::new());
    for turn in 0..PUSHES {
        let before = registry.uploaded();
        incremental(stage, turn).await?;
        let reference = pushed(stage).await?;
        let sent = registry.uploaded() - before;
        let held = asked.look(&reference).await?;
        let layer = held.and_then(|held| held.layers.last().copied());
        let layer = layer.ok_or_else(|| Error::permanent(format!("{reference} has no layers")))?;
        ratios.push(sent as f64 / layer as f64);
        sizes.push(layer as f64 / f64::from(1 << 20));
    }
    note(format!("new layers of {:.1} MiB, compressed (p50)", median(&sizes)));
    report.row("push_bytes_ratio", "ratio", &ratios, Target::p50(1.1));
    Ok(())
}

/// Waits until the registry has the current image; its name there.
async fn pushed(stage: &Stage) -> Result<String> {
    let image = stage.current(BUILT)?;
    let mut wire = stage.wire().await?;
    let path = format!("/v1/images/{}", image.id);
    let image = until(&mut wire, &path, |i| !i["registry"].is_null()).await?;
    Ok(image["registry"].as_str().unwrap_or_default().to_owned())
}
