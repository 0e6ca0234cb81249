//! The engine misbehaves.

use std::time::Duration;

use domain::ErrorKind;
use domain::testing::Fault;
use serde_json::json;

use crate::world::{Setup, World, id, sandbox, spec};

/// F45: every event is lost; the periodic list finds it all the same.
#[test]
fn f45_lost_events_are_repaired_by_the_list() {
    World::with(Setup::pool(1), async |w| {
        w.allow_engine_trouble();
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.settled().await;
        w.backend.remove_from_outside(sandbox(&view), false);
        for member in w.pool_members() {
            w.backend.remove_from_outside(member, false);
        }
        // Nobody pokes: the timer does it.
        let view = w.until(&view, "ended").await;
        assert_eq!(view["end"], "sandbox_lost");
        w.pools_full().await;
    });
}

/// F46: the daemon is down and comes back. Meanwhile calls that need it answer 503, warm sessions go on, agents that
/// lost their connection are taken back; afterwards the pool refills and a new session starts.
#[test]
fn f46_the_daemon_is_down_and_comes_back() {
    World::with(Setup::pool(2), async |w| {
        w.allow_engine_trouble();
        w.allow_log("request failed");
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.settled().await;
        w.backend.down(Fault::Fail(ErrorKind::Unavailable));
        assert_eq!(w.send_bare("GET", "/readyz", &[], b"").await.status, 503);
        assert_eq!(w.send_bare("GET", "/healthz", &[], b"").await.status, 200);
        let pause = w.post(&format!("/v1/sessions/{}/pause", id(&view)), &json!({})).await.expect(503);
        assert!(pause.header("retry-after").is_some());
        w.get(&format!("/v1/sessions/{}/files", id(&view))).await.expect(200);
        let warm = [w.session().await, w.session().await];
        assert!(warm.iter().all(|v| v["launch"] == "warm"), "the pool serves on: {warm:?}");
        let cold = w.session().await;
        assert_eq!(cold["state"], "waiting");
        w.agents.redial_all();
        w.wait_for("it was tried", || w.logged("could not start a sandbox")).await;
        w.reconcile_fails().await;
        w.backend.clear_faults();
        w.until(&cold, "active").await;
        w.pools_full().await;
        for view in warm.iter().chain([&view]) {
            assert_eq!(w.read_session(view).await["state"], "active");
        }
        assert_eq!(w.send_bare("GET", "/readyz", &[], b"").await.status, 200);
    });
}

/// F47: the engine never answers one repo's start: another repo's pool and sessions go on, and so do claims.
#[test]
fn f47_a_hung_start_blocks_nobody_else() {
    World::with(Setup::repos(vec![spec("acme/api", 1), spec("acme/web", 1)]), async |w| {
        w.settled().await;
        for _ in 0..2 {
            w.backend.fault("start", Fault::Hang);
        }
        // One member of the first repo and a cold start of it hang.
        let first = w.session().await;
        assert_eq!(first["launch"], "warm");
        w.wait_for("the refill hangs", || w.backend.calls("start") == 7).await;
        let hung = w.session().await;
        w.wait_for("the cold start hangs", || w.backend.calls("start") == 8).await;
        for _ in 0..3 {
            let body = json!({"repo": "acme/web", "user": {"login": "ada"}});
            let view = w.post("/v1/sessions", &body).await.expect(201).json();
            w.until(&view, "active").await;
            w.end(&view).await;
        }
        assert_eq!(w.read_session(&hung).await["state"], "waiting");
        // The process gives up on the calls; the next one takes up what they were for.
        w.restart().await;
        w.until(&hung, "active").await;
    });
}

/// F47: removals hang; comparing, claiming and ending go on.
#[test]
fn f47_hung_removals_hold_up_nothing() {
    World::with(Setup::pool(2), async |w| {
        w.settled().await;
        let views = [w.session().await, w.session().await];
        for view in &views {
            assert_eq!(w.synced(view).await, "synced");
        }
        for _ in 0..2 {
            w.backend.fault("stop", Fault::Hang);
        }
        for view in &views {
            assert_eq!(w.end(view).await["end"], "requested");
        }
        let report = tokio::time::timeout(Duration::from_secs(5), w.reconcile()).await;
        report.expect("comparing is not held up");
        let view = w.session().await;
        w.until(&view, "active").await;
        w.restart().await;
        w.settled().await;
    });
}

/// F47: the list itself hangs: claims go on, and at the next start all is compared.
#[test]
fn f47_a_hung_list() {
    World::with(Setup::pool(1), async |w| {
        w.settled().await;
        let before = w.backend.calls("list");
        w.backend.fault("list", Fault::Hang);
        w.app().reconcile_poke.notify_one();
        w.wait_for("the list hangs", || w.backend.calls("list") > before).await;
        let view = w.session().await;
        assert_eq!(view["launch"], "warm");
        assert_eq!(w.synced(&view).await, "synced");
        w.end(&view).await;
        w.restart().await;
    });
}

/// F46, F47: the engine does not answer while Hotbed starts: it starts all the same, and what is warm is served.
#[test]
fn f47_a_start_while_the_engine_hangs() {
    World::with(Setup::pool(1), async |w| {
        w.allow_engine_trouble();
        let bound = w.session().await;
        assert_eq!(w.synced(&bound).await, "synced");
        w.settled().await;
        w.backend.fault("list", Fault::Hang);
        w.restart().await;
        w.get(&format!("/v1/sessions/{}/files", id(&bound))).await.expect(200);
        w.pools_full().await;
        assert_eq!(w.session().await["launch"], "warm");
    });
}

/// F11: starts fail in a row: the pool backs off, and converges when the fault is over.
#[test]
fn the_pool_converges_after_a_fault() {
    World::with(Setup::pool(3).manual_clock(), async |w| {
        w.allow_engine_trouble();
        w.settled().await;
        for kind in [ErrorKind::Unavailable, ErrorKind::Permanent, ErrorKind::Timeout] {
            w.backend.fault("start", Fault::Fail(kind));
            w.backend.fault("start", Fault::FailAfter(kind));
        }
        let before = w.backend.calls("start");
        let views = [w.session().await, w.session().await, w.session().await];
        w.wait_for("starts failed", || w.logged("a member could not be started")).await;
        for _ in 0..12 {
            w.clock.advance(Duration::from_secs(60));
            w.app().fleet.pool_poke.notify_one();
            if w.warm(&w.specs[0].name) == 3 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        w.pools_full().await;
        assert_eq!(w.backend.calls("start") - before, 6 + 3, "each fault cost one start");
        for view in &views {
            assert_eq!(w.read_session(view).await["state"], "active");
        }
    });
}

/// F21: a build whose capture does not boot leaves the current image, and nothing else.
#[test]
fn f21_a_failed_build_changes_nothing() {
    World::with(Setup::pool(1), async |w| {
        w.expect_log("build failed");
        w.allow_engine_trouble();
        let repo = w.specs[0].name.clone();
        let before = w.app().repos.current_image(&repo);
        for n in 0..3 {
            w.settled().await;
            w.commit(&format!("change {n}"));
            // The second start of a build is that of its check.
            match n {
                0 => w.backend.fault("capture", Fault::FailAfter(ErrorKind::Timeout)),
                1 => w.backend.fault("start", Fault::Fail(ErrorKind::Permanent)),
                _ => w.backend.fault("pull", Fault::Fail(ErrorKind::Unavailable)),
            }
            let build = w.post("/v1/repos/acme/api/builds", &json!({})).await.expect(202).json();
            let ended = w
                .wait("the build ends", async || {
                    let now = w.get(&format!("/v1/builds/{}", id(&build))).await.expect(200).json();
                    now["ended_at"].is_string().then_some(now)
                })
                .await;
            assert_eq!(ended["state"], "failed", "{ended}");
            assert!(ended["error"].is_string());
            assert_eq!(w.app().repos.current_image(&repo), before);
        }
        w.build(&repo).await;
        assert_ne!(w.app().repos.current_image(&repo), before);
    });
}

/// F47, F39: an attempt to capture what was kept hangs: the deadlines of others are kept all the same.
#[test]
fn f47_a_hung_rescue_holds_up_no_deadline() {
    World::with(Setup::pool(2).manual_clock(), async |w| {
        w.allow_log("an end did not come through");
        let kept = w.session().await;
        let mut short = w.new_session();
        short["timeout_seconds"] = json!(10_000);
        let short = w.post("/v1/sessions", &short).await.expect(201).json();
        for view in [&kept, &short] {
            assert_eq!(w.synced(view).await, "synced");
        }
        for _ in 0..2 {
            w.backend.fault("capture", Fault::Fail(ErrorKind::Permanent));
        }
        w.delete(&format!("/v1/sessions/{}", id(&kept))).await.expect(202);
        w.wait("its trouble is stated", async || w.read_session(&kept).await["trouble"].as_str().map(drop))
            .await;
        w.pass(Duration::from_secs(1801)).await;
        w.until(&kept, "ended").await;
        w.backend.fault("capture", Fault::Hang);
        let before = w.backend.calls("capture");
        w.pass(Duration::from_secs(3601)).await;
        w.wait_for("the rescue hangs", || w.backend.calls("capture") > before).await;
        w.pass(Duration::from_secs(4600)).await;
        assert_eq!(w.until(&short, "ended").await["end"], "time_limit");
        w.restart().await;
        w.pass(Duration::from_secs(1)).await;
        w.wait_for("it is rescued", || !w.records().iter().any(|r| r.id == sandbox(&kept))).await;
        assert_eq!(w.read_session(&kept).await["trouble"], json!(null));
    });
}
