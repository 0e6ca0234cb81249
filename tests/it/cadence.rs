//! What causes builds, and in which order they run: schedules, pushes, requests, deadlines, restarts.

use std::collections::BTreeSet;
use std::time::Duration;

use config::BuildSettings;
use domain::testing::Fault;
use domain::{BuildRecord, BuildState, ErrorKind, Phase, RepoName, SecretSource, Trigger};
use serde_json::json;

use crate::world::{Crash, Setup, World, ada, id, main, spec};

/// Half an hour and the longest that a repo's tick is put off.
const NEXT_TICK: Duration = Duration::from_secs(46 * 60);
const SHORT: Duration = Duration::from_secs(30);
/// Verbs of the engine that work on images and sandboxes. The others are asked by reconcilers on their own timers.
const WORK: [&str; 7] = ["pull", "import", "has", "start", "stop", "capture", "remove_capture"];

fn work(w: &World) -> u64 {
    WORK.iter().map(|verb| w.backend.calls(verb)).sum()
}

async fn ask(w: &World, repo: &RepoName) -> BuildRecord {
    let repo = repo.clone();
    w.on(move |app| async move {
        let spec = app.repos.spec(&repo).expect("configured");
        app.builds.request(&spec, Trigger::Api).await.expect("a build")
    })
    .await
}

async fn build(w: &World, record: &BuildRecord) -> BuildRecord {
    let id = record.id;
    w.on(move |app| async move { app.store.build(id).await }).await.expect("read").expect("a row")
}

async fn ended(w: &World, record: &BuildRecord) -> BuildRecord {
    w.wait("the build ends", async || Some(build(w, record).await).filter(|b| b.state.is_end())).await
}

/// A tick that finds nothing changed leaves `verified_at` and no build, and asks the engine nothing.
#[test]
fn an_unchanged_branch_costs_no_build_and_no_engine_call() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        let image = w.app().repos.current_image(&repo).expect("an image");
        let (calls, builds) = (work(w), w.builds_of(&repo).await.len());
        for _ in 0..3 {
            w.clock.advance(NEXT_TICK);
            let before = w.app().repos.current_image(&repo).expect("an image").verified_at;
            w.tick().await;
            w.wait_for("it is verified", || {
                w.app().repos.current_image(&repo).is_some_and(|i| i.verified_at > before)
            })
            .await;
            w.builds_idle(SHORT).await;
        }
        assert_eq!(work(w), calls, "the engine was asked");
        assert_eq!(w.builds_of(&repo).await.len(), builds, "a build was made");
        // The same image, but for the time.
        let now = w.app().repos.current_image(&repo).expect("an image");
        assert_eq!((now.id, now.generation, now.created_at), (image.id, image.generation, image.created_at));
        // The branch moves: the next tick builds.
        w.commit("a change");
        w.clock.advance(NEXT_TICK);
        w.tick().await;
        w.wait_for("a new image", || w.app().repos.current_image(&repo).is_some_and(|i| i.generation == 2))
            .await;
        w.builds_idle(SHORT).await;
        assert_eq!(w.builds_of(&repo).await[0].trigger, Trigger::Schedule);
    });
}

/// F30: another value of a build secret is found by the next look, and makes another image.
#[test]
fn a_changed_secret_makes_another_image() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("token");
    std::fs::write(&file, "the first value").expect("write");
    let source = SecretSource::File(file.clone());
    let secret = move |spec: &mut domain::RepoSpec| {
        spec.image.secrets.insert("TOKEN".into(), source.clone());
    };
    World::with(Setup::pool(1).manual_clock().change(secret), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        let look = async |w: &World| {
            w.clock.advance(NEXT_TICK);
            w.tick().await;
            w.builds_idle(SHORT).await;
            w.app().repos.current_image(&repo).expect("an image")
        };
        let members = w.pool_members();
        let first = look(w).await;
        assert_eq!(w.builds_of(&repo).await.len(), 1, "the same value");
        std::fs::write(&file, "another value").expect("write");
        let second = look(w).await;
        assert_ne!((second.id, &second.fingerprint), (first.id, &first.fingerprint));
        assert_eq!(second.parent, None, "a full build");
        w.wait_for("the members of the old image go", || w.pool_members().is_disjoint(&members)).await;
        w.pools_full().await;
        // One that is gone is a failed build that names it, and the image stays.
        std::fs::remove_file(&file).expect("remove");
        assert_eq!(look(w).await.id, second.id);
        let error = w.builds_of(&repo).await[0].error.clone().expect("an error");
        assert!(error.contains("secret `TOKEN`: read"), "{error}");
        w.expect_log("build failed");
    });
}

/// A burst of pushes is one build, soon after the last; a push of what is built already is none. What was announced
/// is remembered over a crash.
#[test]
fn pushes_are_debounced_and_survive_a_crash() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        let builds = w.builds_of(&repo).await.len();
        let pushed = async |w: &World, commit: domain::CommitId| {
            let repo = repo.clone();
            w.on(move |app| async move { app.builds.pushed(&repo, &commit).await }).await.expect("noted");
        };
        let mut tip = None;
        for n in 0..10 {
            let commit = w.commit(&format!("push {n}"));
            pushed(w, commit.clone()).await;
            tip = Some(commit);
            w.clock.advance(Duration::from_secs(1));
            w.tick().await;
        }
        w.builds_idle(SHORT).await;
        assert_eq!(w.builds_of(&repo).await.len(), builds, "it was looked at while pushes still came");
        w.crash(Crash::TasksFirst).await;
        w.clock.advance(Duration::from_secs(5));
        w.tick().await;
        w.wait_for("the last push is built", || w.app().repos.current_image(&repo).map(|i| i.commit) == tip)
            .await;
        w.builds_idle(SHORT).await;
        let all = w.builds_of(&repo).await;
        assert_eq!((all.len(), all[0].trigger), (builds + 1, Trigger::Push));
        // The same push again, as webhooks are repeated: a look, and no build.
        pushed(w, tip.clone().expect("a tip")).await;
        w.clock.advance(Duration::from_secs(5));
        w.tick().await;
        w.builds_idle(SHORT).await;
        assert_eq!(w.builds_of(&repo).await.len(), builds + 1);
        // A repo that nobody configured is refused, by name.
        let nobody: RepoName = "acme/nobody".parse().expect("name");
        let commit = tip.expect("a tip");
        let refused = w.on(move |app| async move { app.builds.pushed(&nobody, &commit).await }).await;
        assert!(refused.expect_err("not configured").chain().contains("acme/nobody"));
    });
}

/// One build of a repo runs, one may wait: the newest request wins, and says so to whoever asked before.
#[test]
fn the_newest_request_wins() {
    World::with(Setup::pool(0), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        w.commit("a change");
        w.agents.mute(true);
        let running = ask(w, &repo).await;
        w.wait("it boots", async || (build(w, &running).await.phase == Some(Phase::Boot)).then_some(()))
            .await;
        let mut waiting = Vec::new();
        for n in 0..3 {
            let body = json!({"by": format!("ada, {n}")});
            waiting.push(w.post("/v1/repos/acme/api/builds", &body).await.expect(202).json());
        }
        for (old, new) in waiting.iter().zip(&waiting[1..]) {
            let old = w.get(&format!("/v1/builds/{}", id(old))).await.expect(200).json();
            assert_eq!((&old["state"], &old["superseded_by"]), (&json!("superseded"), &new["id"]), "{old}");
            let log = w.get(&format!("/v1/builds/{}/log?follow=true", id(&old))).await.expect(200).text();
            assert!(log.contains(id(new)), "{log}");
        }
        let shown = w.get("/v1/repos/acme/api").await.expect(200).json();
        assert_eq!((&shown["build"]["phase"], &shown["build"]["state"]), (&json!("boot"), &json!("running")));
        assert!(shown["build"]["elapsed_seconds"].as_f64() >= shown["build"]["phase_seconds"].as_f64());
        w.agents.mute(false);
        w.agents.redial_all();
        assert_eq!(ended(w, &running).await.state, BuildState::Succeeded);
        w.builds_idle(SHORT).await;
        let last = w.get(&format!("/v1/builds/{}", id(&waiting[2]))).await.expect(200).json();
        assert_eq!((&last["state"], &last["by"]), (&json!("unchanged"), &json!("ada, 2")));
        assert_eq!(
            w.builds_of(&repo).await.len(),
            1 + 1 + 3,
            "one of the set-up, one that ran, three that waited"
        );
        let refused = w.post("/v1/repos/acme/api/builds", &json!({"by": "x".repeat(201)})).await.expect(422);
        assert!(refused.text().contains("`by`"), "{}", refused.text());
    });
}

/// F24, F27: a build hangs in whatever phase: at its deadline it is ended, its sandboxes go, and the repo builds again.
#[test]
fn f24_f27_a_hung_build_is_ended_at_its_deadline() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.expect_log("build failed");
        w.allow_engine_trouble();
        w.settled().await;
        let repo = w.specs[0].name.clone();
        for (n, verb) in ["pull", "start", "capture"].into_iter().enumerate() {
            let before = w.app().repos.current_image(&repo);
            w.commit(&format!("change {n}"));
            w.backend.fault(verb, Fault::Hang);
            let calls = w.backend.calls(verb);
            let hung = ask(w, &repo).await;
            w.wait_for("it hangs", || w.backend.calls(verb) > calls).await;
            w.clock.advance(Duration::from_secs(3 * 3600));
            w.tick().await;
            assert!(!build(w, &hung).await.state.is_end(), "before its time");
            w.clock.advance(Duration::from_secs(11 * 60));
            w.tick().await;
            let record = ended(w, &hung).await;
            assert_eq!(record.state, BuildState::Failed);
            assert!(record.error.as_deref().is_some_and(|e| e.contains("deadline")), "{record:?}");
            assert_eq!(w.app().repos.current_image(&repo), before, "the current image is as it was");
            w.builds_idle(SHORT).await;
            if verb == "start" {
                // The engine's answer never comes; the process that waits for it gives up with its end.
                w.restart().await;
            }
            w.build(&repo).await;
            let now = w.app().repos.current_image(&repo).expect("an image");
            assert_eq!(now.generation, before.expect("an image").generation + 1, "generations only grow");
        }
    });
}

/// F27, F31: the process goes in the middle of a build. What ran is recorded as failed and built again; what waited
/// waits on, under its own id.
#[test]
fn f27_a_restart_frees_what_ran_and_keeps_what_waited() {
    let repos = vec![spec("acme/api", 0), spec("acme/web", 0)];
    World::with(Setup::repos(repos).manual_clock(), async |w| {
        w.allow_log("build failed");
        w.settled().await;
        let (api, web) = (w.specs[0].name.clone(), w.specs[1].name.clone());
        for spec in &w.specs {
            let upstream = w.upstream(&spec.name);
            upstream.commit_files(&main(), &[("file", Some(b"x"))], "x", &ada()).expect("commit");
        }
        for how in [Crash::TasksFirst, Crash::StoreFirst] {
            w.app().builds.reconfigure(BuildSettings { at_once: 1 });
            w.agents.mute(true);
            let running = ask(w, &api).await;
            w.wait("it boots", async || (build(w, &running).await.phase == Some(Phase::Boot)).then_some(()))
                .await;
            let waiting = ask(w, &web).await;
            w.agents.mute(false);
            w.crash(how).await;
            assert_eq!(build(w, &running).await.state, BuildState::Failed);
            let done = ended(w, &waiting).await;
            assert!(matches!(done.state, BuildState::Succeeded | BuildState::Unchanged), "{done:?}");
            // After the pause of a failure it is due again, whatever the schedule says.
            let commit = w.app().repos.current_image(&api).expect("an image").commit;
            w.clock.advance(Duration::from_secs(61));
            w.tick().await;
            w.wait_for("it is built again", || {
                w.app().repos.current_image(&api).is_some_and(|i| i.commit != commit)
            })
            .await;
            w.builds_idle(SHORT).await;
            w.commit("again");
        }
        w.build(&api).await;
    });
}

/// Ticks that pass while Hotbed is down are answered by one, which counts them; one that was answered is not
/// answered again after a restart.
#[test]
fn ticks_are_remembered_over_a_restart() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        let verified = |w: &World| w.app().repos.current_image(&repo).expect("an image").verified_at;
        w.clock.advance(NEXT_TICK);
        let before = verified(w);
        w.tick().await;
        w.wait_for("the tick is answered", || verified(w) > before).await;
        w.builds_idle(SHORT).await;
        w.restart().await;
        let (before, calls) = (verified(w), work(w));
        w.clock.advance(Duration::from_secs(1));
        w.tick().await;
        w.builds_idle(SHORT).await;
        assert_eq!(verified(w), before, "answered twice");
        assert_eq!(work(w), calls);
        w.clock.advance(Duration::from_secs(5 * 3600));
        w.restart().await;
        w.tick().await;
        w.wait_for("the ticks are answered", || verified(w) > before).await;
        w.builds_idle(SHORT).await;
        let metrics = w.get("/metrics").await.expect(200).text();
        let missed = metrics
            .lines()
            .find_map(|l| l.strip_prefix("hotbed_image_missed_ticks_total{repo=\"acme/api\"} "))
            .unwrap_or_else(|| panic!("no missed ticks in {metrics}"));
        assert_eq!(missed, "9", "ten ticks in five hours, one of them answers the others");
    });
}

/// Five hundred repos are due at the same moment: the host runs as many builds as it may and no more, every repo has
/// its turn before any has a second one, and every tick is answered.
#[test]
fn five_hundred_repos_due_at_once() {
    const REPOS: usize = 500;
    const AT_ONCE: u32 = 8;
    let patience = Duration::from_secs(600);
    let repos = (0..REPOS).map(|n| spec(&format!("acme/r{n:03}"), 0)).collect();
    let setup = Setup { manual_clock: true, ready: false, ..Setup::repos(repos) };
    World::with(setup, async |w| {
        w.app().builds.reconfigure(BuildSettings { at_once: AT_ONCE });
        w.tick().await;
        w.builds_idle(patience).await;
        for spec in &w.specs {
            let builds = w.builds_of(&spec.name).await;
            assert_eq!(builds.len(), 1, "each once: {builds:?}");
            assert_eq!((builds[0].state, builds[0].trigger), (BuildState::Succeeded, Trigger::Missing));
        }
        // Every tenth branch moves; then all are due again, and so is every tick.
        let moved: BTreeSet<RepoName> = w.specs.iter().step_by(10).map(|s| s.name.clone()).collect();
        for repo in &moved {
            let upstream = w.upstream(repo);
            upstream.commit_files(&main(), &[("file", Some(b"x"))], "x", &ada()).expect("commit");
        }
        w.clock.advance(NEXT_TICK);
        let now = domain::Clock::now(&*w.clock);
        w.tick().await;
        w.tick().await;
        w.builds_idle(patience).await;
        for spec in &w.specs {
            let builds = w.builds_of(&spec.name).await;
            let expected = 1 + usize::from(moved.contains(&spec.name));
            assert_eq!(builds.len(), expected, "{}: {builds:?}", spec.name);
            let image = w.app().repos.current_image(&spec.name).expect("an image");
            assert!(image.verified_at >= now, "the tick of {} was lost", spec.name);
        }
        // A third round at the same moment finds nothing due.
        w.tick().await;
        for spec in &w.specs {
            assert!(w.app().builds.is_idle(&spec.name), "{} is looked at twice", spec.name);
        }
        assert!(w.app().builds.most_at_once() <= AT_ONCE as usize, "more than the host may run");
    });
}

/// F41: the disk is full, at whatever step that writes. Each try is a build that failed and says at what; they come ever
/// more seldom; nothing of them is left, and the image that there is stays. Once there is room, the next one succeeds.
#[test]
fn f41_a_full_disk_at_any_step_leaves_the_current_image() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.expect_log("build failed");
        w.expect_log("could not start a sandbox");
        w.settled().await;
        let repo = w.specs[0].name.clone();
        for (n, verb) in ["start", "capture"].into_iter().enumerate() {
            let image = w.app().repos.current_image(&repo).expect("an image");
            let (before, captures) = (w.builds_of(&repo).await.len(), w.backend.captures().len());
            w.commit(&format!("change {n}"));
            for _ in 0..100 {
                w.backend.fault(verb, Fault::Fail(ErrorKind::Exhausted));
            }
            // Two hours, looked at every minute.
            for _ in 0..120 {
                w.clock.advance(Duration::from_secs(60));
                w.tick().await;
                w.builds_idle(SHORT).await;
            }
            let builds = w.builds_of(&repo).await;
            let tries = builds.len() - before;
            assert!((3..=10).contains(&tries), "{tries} tries in two hours");
            for build in &builds[..tries] {
                assert_eq!(build.state, BuildState::Failed);
                let error = build.error.as_deref().unwrap_or_default();
                assert!(error.contains(verb), "{error}");
            }
            assert_eq!(w.app().repos.current_image(&repo).map(|i| i.id), Some(image.id));
            assert_eq!(w.backend.captures().len(), captures, "a capture of a failed build");
            w.backend.clear_faults();
            w.clock.advance(NEXT_TICK);
            w.tick().await;
            w.builds_idle(SHORT).await;
            let now = w.app().repos.current_image(&repo).expect("an image");
            assert_eq!(now.generation, image.generation + 1, "{:?}", w.builds_of(&repo).await[0]);
        }
    });
}
