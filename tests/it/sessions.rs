//! The life of a session behind its claim: sync, time, loss, captures, follow-ups.

use std::time::Duration;

use domain::testing::Fault;
use domain::{ErrorKind, SandboxState};
use serde_json::json;

use crate::world::{Setup, World, id, sandbox};

const HOUR: Duration = Duration::from_secs(3600);

/// F25: what sync promised is what HEAD says; the gate opens with it.
#[test]
fn f25_sync_brings_the_tip() {
    World::with(Setup::pool(1), async |w| {
        let tip = w.commit("after the image");
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let sync = w.read_session(&view).await["sync"].clone();
        assert_eq!(sync["head"], tip.as_str());
        assert_eq!((&sync["gate"], &sync["lag_commits"]), (&json!("open"), &json!(1)));
        let agent = w.agents.of(sandbox(&view));
        assert!(agent.gate_is_open());
        assert_eq!(agent.tree().0, Some(tip));
        assert_eq!(w.events(&view).await, ["created", "sync_started", "synced"]);
    });
}

/// F19: removed from outside, with an event and without: the session ends and says why.
#[test]
fn f19_a_sandbox_that_vanished() {
    World::with(Setup::pool(2), async |w| {
        for tell in [true, false] {
            let view = w.session().await;
            assert_eq!(w.synced(&view).await, "synced");
            w.backend.remove_from_outside(sandbox(&view), tell);
            if !tell {
                w.app().reconcile_poke.notify_one();
            }
            let view = w.until(&view, "ended").await;
            assert_eq!(view["end"], "sandbox_lost");
            assert!(view["trouble"].is_string(), "{view}");
            w.get(&format!("/v1/sessions/{}/files/x", id(&view))).await.expect(410);
        }
    });
}

/// F33, F34: the time limit ends a session; `extend` moves it; reading prolongs nothing.
#[test]
fn f34_time_limit_and_extension() {
    World::with(Setup::pool(2).manual_clock(), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.pass(3 * HOUR).await;
        w.post(&format!("/v1/sessions/{}/extend", id(&view)), &json!({"seconds": 7200})).await.expect(200);
        w.pass(2 * HOUR).await;
        assert_eq!(w.read_session(&view).await["state"], "active");
        w.get(&format!("/v1/sessions/{}/files", id(&view))).await.expect(200);
        w.pass(HOUR + Duration::from_secs(1)).await;
        let view = w.until(&view, "ended").await;
        assert_eq!(view["end"], "time_limit");
        w.post(&format!("/v1/sessions/{}/extend", id(&view)), &json!({"seconds": 60})).await.expect(410);
    });
}

/// F34: renewal against expiry, many times over: who was told 200 lives on, who was refused has ended.
#[test]
fn f34_renewal_races_expiry() {
    let setup = Setup::pool(4).manual_clock().change(|s| s.session.timeout = Duration::from_secs(600));
    World::with(setup, async |w| {
        for _ in 0..12 {
            let view = w.session().await;
            assert_eq!(w.synced(&view).await, "synced");
            w.clock.advance(Duration::from_secs(600));
            let path = format!("/v1/sessions/{}/extend", id(&view));
            let body = json!({"seconds": 600});
            let expiry = w.on(|app| async move { app.sessions.expire().await });
            let (answer, ()) = futures_util::future::join(w.post(&path, &body), expiry).await;
            w.pass(Duration::ZERO).await;
            match answer.status {
                200 => assert_eq!(w.read_session(&view).await["state"], "active"),
                409 | 410 => assert_eq!(w.until(&view, "ended").await["end"], "time_limit"),
                other => panic!("{other}: {}", answer.text()),
            }
        }
    });
}

/// Idleness ends a session; a running command is use.
#[test]
fn idleness_ends_a_session() {
    let setup = Setup::pool(1).manual_clock().change(|s| s.session.idle_end = Some(Duration::from_secs(600)));
    World::with(setup, async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.pass(Duration::from_secs(400)).await;
        w.get(&format!("/v1/sessions/{}/files", id(&view))).await.expect(200);
        w.pass(Duration::from_secs(400)).await;
        assert_eq!(w.read_session(&view).await["state"], "active");
        w.agents.of(sandbox(&view)).set(|o| o.running = 1);
        w.pass(Duration::from_secs(601)).await;
        assert_eq!(w.read_session(&view).await["state"], "active", "a command runs");
        w.agents.of(sandbox(&view)).set(|o| o.running = 0);
        w.pass(Duration::from_secs(601)).await;
        w.pass(Duration::from_secs(1)).await;
        assert_eq!(w.until(&view, "ended").await["end"], "idle");
    });
}

/// F36: a start that hangs: the session ends by its deadline, and when the engine wakes up nothing is left.
#[test]
fn f36_a_start_that_hangs() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.expect_log("could not launch a session");
        w.agents.mute(true);
        let view = w.session().await;
        assert_eq!(view["state"], "waiting");
        w.wait_for("it starts", || !w.backend.sandboxes().is_empty()).await;
        w.pass(Duration::from_secs(181)).await;
        let view = w.until(&view, "ended").await;
        assert_eq!(view["end"], "launch_failed");
        assert!(view["trouble"].is_string());
    });
}

/// F36, F47: the engine itself never answers the start.
#[test]
fn f36_f47_an_engine_that_never_answers() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        w.expect_log("could not launch a session");
        w.backend.fault("start", Fault::Hang);
        let view = w.session().await;
        w.wait_for("the engine is asked", || w.backend.calls("start") == 3).await;
        w.pass(Duration::from_secs(181)).await;
        assert_eq!(w.until(&view, "ended").await["end"], "launch_failed");
        // The call still hangs; what it was for is taken up again by the next process.
        w.restart().await;
    });
}

/// F39: captures fail until the end's own deadline: the session ends with the trouble stated, its sandbox is kept
/// over restarts, and captured after all when the fault has cleared.
#[test]
fn f39_a_failed_capture_keeps_its_source() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        w.expect_log("an end did not come through");
        w.expect_log("a kept sandbox still can't be captured");
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.send("PUT", &format!("/v1/sessions/{}/files/work.txt", id(&view)), &[], b"precious")
            .await
            .expect(204);
        for _ in 0..20 {
            w.backend.fault("capture", Fault::Fail(ErrorKind::Permanent));
        }
        w.delete(&format!("/v1/sessions/{}", id(&view))).await.expect(202);
        let kept = |w: &World| w.records().iter().find(|r| r.id == sandbox(&view)).map(|r| r.state);
        w.wait_for("it is kept", || kept(w) == Some(SandboxState::Kept)).await;
        let ending = w.wait("its trouble is stated", async || {
            let now = w.read_session(&view).await;
            now["trouble"].as_str().is_some_and(|t| t.contains("kept")).then_some(now)
        });
        assert_eq!(ending.await["state"], "ending");
        w.restart().await;
        w.settled().await;
        assert_eq!(kept(w), Some(SandboxState::Kept), "a restart loses nothing");
        w.pass(Duration::from_secs(1801)).await;
        let ended = w.until(&view, "ended").await;
        assert!(ended["trouble"].as_str().is_some_and(|t| t.contains("kept")), "{ended}");
        assert_eq!(kept(w), Some(SandboxState::Kept));
        w.pass(HOUR + Duration::from_secs(1)).await;
        w.wait_for("another attempt failed", || w.logged("still can't be captured")).await;
        assert_eq!(kept(w), Some(SandboxState::Kept));
        w.backend.clear_faults();
        w.pass(HOUR + Duration::from_secs(1)).await;
        w.wait_for("it is released", || kept(w).is_none()).await;
        let next = json!({"user": {"login": "ada"}, "parent": id(&view)});
        let next = w.post("/v1/sessions", &next).await.expect(201).json();
        assert_eq!(next["launch"], "restore");
        w.until(&next, "active").await;
        let file = w.get(&format!("/v1/sessions/{}/files/work.txt", id(&next))).await.expect(200);
        assert_eq!(file.text(), "precious");
    });
}

/// F39: a transient fault at the end is tried again, and the session ends well. The answer of the second capture
/// is lost as well: what it left is collected.
#[test]
fn f39_a_transient_fault_at_the_end() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        w.expect_log("an end did not come through");
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.backend.fault("capture", Fault::Fail(ErrorKind::Unavailable));
        w.backend.fault("capture", Fault::FailAfter(ErrorKind::Timeout));
        w.delete(&format!("/v1/sessions/{}", id(&view))).await.expect(202);
        for attempt in 0..2 {
            w.wait("the capture failed", async || {
                let failed = w.get(&format!("/v1/snapshots?session={}", id(&view))).await.expect(200).text();
                (failed.matches("\"failed\"").count() == attempt + 1).then_some(())
            })
            .await;
            w.wait("its trouble is stated", async || {
                w.read_session(&view).await["trouble"].as_str().map(drop)
            })
            .await;
            w.pass(Duration::from_secs(11)).await;
        }
        let ended = w.until(&view, "ended").await;
        assert_eq!((&ended["end"], &ended["trouble"]), (&json!("requested"), &json!(null)));
        let taken = w.get(&format!("/v1/snapshots?session={}", id(&view))).await.expect(200).json();
        let states: Vec<_> =
            taken["items"].as_array().expect("items").iter().map(|s| s["state"].clone()).collect();
        assert_eq!(states, ["ready", "failed", "failed"], "newest first");
    });
}

/// F39, F40: the collector runs while captures are taken and removes none of them.
#[test]
fn f39_f40_collecting_while_capturing() {
    World::with(Setup::pool(2), async |w| {
        let mut view = w.session().await;
        for round in 0..5 {
            w.until(&view, "active").await;
            assert_eq!(w.synced(&view).await, "synced");
            let file = format!("/v1/sessions/{}/files/round-{round}", id(&view));
            w.send("PUT", &file, &[], b"kept").await.expect(204);
            let collecting = async {
                for _ in 0..20 {
                    w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
                }
            };
            let (_, ended) = futures_util::future::join(collecting, w.end(&view)).await;
            assert_eq!(ended["trouble"], json!(null), "{ended}");
            let next = json!({"user": {"login": "ada"}, "parent": id(&view)});
            view = w.post("/v1/sessions", &next).await.expect(201).json();
            assert_eq!((&view["launch"], &view["branch"]), (&json!("restore"), &ended["branch"]));
        }
        w.until(&view, "active").await;
        let files = w.get(&format!("/v1/sessions/{}/files", id(&view))).await.expect(200).json();
        assert_eq!(files["items"].as_array().map(Vec::len), Some(5), "{files}");
    });
}

/// F54: sync fails: stated, the gate shut, reads work; a retry works.
#[test]
fn f54_sync_fails_and_is_retried() {
    World::with(Setup::pool(1), async |w| {
        for agent in w.agents.all() {
            agent.set(|o| o.sync_fails = Some("no space left".into()));
        }
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "failed");
        let sync = w.read_session(&view).await["sync"].clone();
        assert!(sync["error"].as_str().is_some_and(|e| e.contains("no space left")), "{sync}");
        assert_eq!(sync["gate"], "shut");
        let path = format!("/v1/sessions/{}", id(&view));
        w.get(&format!("{path}/files")).await.expect(200);
        w.send("PUT", &format!("{path}/files/x?gate_wait_ms=1"), &[], b"x").await.expect(423);
        w.agents.of(sandbox(&view)).set(|o| o.sync_fails = None);
        w.post(&format!("{path}/sync"), &json!({"action": "retry"})).await.expect(200);
        assert_eq!(w.synced(&view).await, "synced");
        w.send("PUT", &format!("{path}/files/x?gate_wait_ms=1"), &[], b"x").await.expect(204);
        w.post(&format!("{path}/sync"), &json!({"action": "retry"})).await.expect(409);
    });
}

/// F54: sync never ends: its limit says so; the client goes on with the stale tree, and a restart keeps the gate open.
#[test]
fn f54_sync_hangs_and_the_client_goes_on() {
    World::with(Setup::pool(1).change(|s| s.session.sync_timeout = Duration::from_secs(1)), async |w| {
        for agent in w.agents.all() {
            agent.set(|o| o.sync_hangs = true);
        }
        let view = w.session().await;
        let path = format!("/v1/sessions/{}", id(&view));
        w.post(&format!("{path}/sync"), &json!({"action": "accept_stale"})).await.expect(409);
        assert_eq!(w.synced(&view).await, "failed");
        let stale =
            w.post(&format!("{path}/sync"), &json!({"action": "accept_stale"})).await.expect(200).json();
        assert_eq!((&stale["phase"], &stale["gate"]), (&json!("stale"), &json!("open")));
        w.send("PUT", &format!("{path}/files/x"), &[], b"x").await.expect(204);
        w.restart().await;
        w.send("PUT", &format!("{path}/files/y"), &[], b"y").await.expect(204);
        assert_eq!(w.read_session(&view).await["sync"]["phase"], "stale");
    });
}

/// F29: the base branch is gone upstream: sync says exactly that.
#[test]
fn f29_a_branch_that_was_deleted() {
    World::with(Setup::pool(1), async |w| {
        let branch = "release".parse().expect("branch");
        w.commit_to(&branch, "release work");
        let mut body = w.new_session();
        body["base"] = json!("release");
        w.agents.mute(true);
        for agent in w.agents.all() {
            agent.set(|o| o.sync_fails = Some("not yet".into()));
        }
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!(w.synced(&view).await, "failed");
        w.upstream(&w.specs[0].name).delete_branch(&branch).expect("delete");
        let path = format!("/v1/sessions/{}/sync", id(&view));
        w.post(&path, &json!({"action": "retry"})).await.expect(200);
        assert_eq!(w.synced(&view).await, "failed");
        let error = w.read_session(&view).await["sync"]["error"].to_string();
        assert!(error.contains("release") && error.contains("deleted or renamed"), "{error}");
        w.agents.mute(false);
        w.agents.redial_all();
    });
}

/// A fork goes on beside its source; both keep their own tree.
#[test]
fn a_fork_starts_from_its_source() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.send("PUT", &format!("/v1/sessions/{}/files/a", id(&view)), &[], b"1").await.expect(204);
        let path = format!("/v1/sessions/{}/fork", id(&view));
        let key = [("idempotency-key", "f"), ("content-type", "application/json")];
        let fork = w.send("POST", &path, &key, b"{}").await.expect(201).json();
        let again = w.send("POST", &path, &key, b"{}").await.expect(200).json();
        assert_eq!(id(&fork), id(&again));
        let taken = w.get(&format!("/v1/snapshots?session={}", id(&view))).await.expect(200).json();
        assert_eq!(
            taken["items"].as_array().map(Vec::len),
            Some(1),
            "a repeated fork takes no second snapshot"
        );
        w.until(&fork, "active").await;
        assert_eq!(w.synced(&fork).await, "synced");
        assert_eq!(fork["parent"], view["id"]);
        assert_ne!(fork["branch"], view["branch"]);
        assert_eq!(w.get(&format!("/v1/sessions/{}/files/a", id(&fork))).await.expect(200).text(), "1");
        assert_eq!(w.read_session(&view).await["state"], "active");
    });
}

/// Paused, nothing runs and nothing is served; resumed, all is as it was.
#[test]
fn pause_and_resume() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let path = format!("/v1/sessions/{}", id(&view));
        for _ in 0..2 {
            assert_eq!(
                w.post(&format!("{path}/pause"), &json!({})).await.expect(200).field("state"),
                "paused"
            );
            w.post(&format!("{path}/pause"), &json!({})).await.expect(409);
            w.get(&format!("{path}/files")).await.expect(409);
            assert_eq!(
                w.post(&format!("{path}/resume"), &json!({})).await.expect(200).field("state"),
                "active"
            );
            w.post(&format!("{path}/resume"), &json!({})).await.expect(409);
            w.get(&format!("{path}/files")).await.expect(200);
        }
        // A paused one survives a restart, and can be ended as it is.
        w.post(&format!("{path}/pause"), &json!({})).await.expect(200);
        w.restart().await;
        assert_eq!(w.read_session(&view).await["state"], "paused");
        assert_eq!(w.end(&view).await["end"], "requested");
    });
}

/// A second end is a conflict, an end of what ended is gone.
#[test]
fn ends_come_once() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let path = format!("/v1/sessions/{}", id(&view));
        let all = futures_util::future::join_all((0..8).map(|_| w.delete(&path))).await;
        assert_eq!(all.iter().filter(|a| a.status == 202).count(), 1);
        assert!(all.iter().all(|a| matches!(a.status, 202 | 409 | 410)), "{all:?}");
        w.until(&view, "ended").await;
        w.delete(&path).await.expect(410);
        let taken = w.get(&format!("/v1/snapshots?session={}", id(&view))).await.expect(200).json();
        assert_eq!(taken["items"].as_array().map(Vec::len), Some(1), "one capture");
    });
}
