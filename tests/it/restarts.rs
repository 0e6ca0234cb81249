//! What a restart and a crash change: nothing that a user would notice.

use std::collections::BTreeSet;
use std::time::Duration;

use domain::ErrorKind;
use domain::testing::Fault;
use orchestrator::fleet::Gatekeeper;
use orchestrator::links::Admission;
use serde_json::json;

use crate::world::{Crash, Setup, World, id, sandbox};

/// F17: a restart does nothing to a bound session: same sandbox, no second sync, no container touched.
#[test]
fn f17_a_restart_changes_nothing_for_a_session() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.settled().await;
        let agent = w.agents.of(sandbox(&view));
        let before = (w.read_session(&view).await, w.backend.calls("start"), w.backend.calls("stop"));
        for how in [None, Some(Crash::TasksFirst), Some(Crash::StoreFirst)] {
            match how {
                None => w.restart().await,
                Some(how) => w.crash(how).await,
            }
            w.send("PUT", &format!("/v1/sessions/{}/files/x", id(&view)), &[], b"x").await.expect(204);
            let body = json!({"cmd": "true", "wait": true});
            w.post(&format!("/v1/sessions/{}/exec", id(&view)), &body).await.expect(201);
            w.settled().await;
            let now = (w.read_session(&view).await, w.backend.calls("start"), w.backend.calls("stop"));
            assert_eq!(now, before, "{how:?}");
            assert_eq!(agent.syncs.load(std::sync::atomic::Ordering::Relaxed), 1, "{how:?}");
        }
        assert_eq!(w.events(&view).await.iter().filter(|k| *k == "synced").count(), 1);
    });
}

/// F32: ten restarts leave the pool as it was.
#[test]
fn f32_ten_restarts_leave_the_pool() {
    World::with(Setup::pool(4), async |w| {
        w.settled().await;
        let members = w.pool_members();
        assert_eq!(members.len(), 4);
        for round in 0..10 {
            if round % 2 == 0 {
                w.restart().await
            } else {
                w.crash(Crash::TasksFirst).await
            }
            w.pools_full().await;
            w.settled().await;
            assert_eq!(w.pool_members(), members, "round {round}");
        }
        assert_eq!(w.backend.calls("start"), 2 + 4, "the build's two and the four members");
    });
}

/// F33: deadlines are stored: a restart neither forgets nor prolongs them.
#[test]
fn f33_deadlines_survive_restarts() {
    let setup =
        Setup::pool(2).manual_clock().change(|s| s.session.idle_end = Some(Duration::from_secs(3600)));
    World::with(setup, async |w| {
        let mut limited = w.new_session();
        limited["timeout_seconds"] = json!(5000);
        limited["idle_seconds"] = json!(0);
        let limited = w.post("/v1/sessions", &limited).await.expect(201).json();
        let idle = w.session().await;
        for view in [&limited, &idle] {
            assert_eq!(w.synced(view).await, "synced");
        }
        for _ in 0..3 {
            w.clock.advance(Duration::from_secs(1100));
            w.restart().await;
            w.settled().await;
        }
        // 3300 s have passed; nobody used either.
        for view in [&limited, &idle] {
            assert_eq!(w.read_session(view).await["state"], "active");
        }
        w.pass(Duration::from_secs(400)).await;
        w.pass(Duration::from_secs(1)).await;
        assert_eq!(w.until(&idle, "ended").await["end"], "idle");
        w.clock.advance(Duration::from_secs(1300));
        w.crash(Crash::TasksFirst).await;
        assert_eq!(w.until(&limited, "ended").await["end"], "time_limit");
    });
}

/// F42: the process in a session's sandbox ended: the same files start again, with a new token; the old one is void.
#[test]
fn f42_an_old_incarnation_is_refused() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        w.send("PUT", &format!("/v1/sessions/{}/files/x", id(&view)), &[], b"x").await.expect(204);
        let sandbox = sandbox(&view);
        let old = w.agents.token(sandbox);
        w.backend.exit(sandbox);
        w.wait_for("it is started again", || w.agents.token(sandbox) != old).await;
        let admit = Gatekeeper(w.app().fleet.clone());
        assert!(admit.admit(sandbox, &old).is_err_and(|r| r.fatal));
        assert!(admit.admit(sandbox, &w.agents.token(sandbox)).is_ok());
        let file = w.get(&format!("/v1/sessions/{}/files/x", id(&view))).await.expect(200);
        assert_eq!(file.text(), "x");
        w.wait_for("the gate is open again", || w.agents.of(sandbox).gate_is_open()).await;
        w.send("PUT", &format!("/v1/sessions/{}/files/y", id(&view)), &[], b"y").await.expect(204);
    });
}

/// F42, F19: it ended while Hotbed was down.
#[test]
fn f42_a_sandbox_that_exited_meanwhile() {
    World::with(Setup::pool(2), async |w| {
        let exited = w.session().await;
        let removed = w.session().await;
        for view in [&exited, &removed] {
            assert_eq!(w.synced(view).await, "synced");
        }
        w.backend.down(Fault::Fail(ErrorKind::Unavailable));
        w.allow_engine_trouble();
        w.backend.exit(sandbox(&exited));
        w.backend.remove_from_outside(sandbox(&removed), false);
        w.restart().await;
        w.backend.clear_faults();
        w.app().reconcile_poke.notify_one();
        assert_eq!(w.until(&removed, "ended").await["end"], "sandbox_lost");
        w.get(&format!("/v1/sessions/{}/files", id(&exited))).await.expect(200);
        assert_eq!(w.read_session(&exited).await["state"], "active");
    });
}

/// F5, F31: crashes in the midst of claims, starts and ends, many times: afterwards records and engine agree, every
/// session that was promised is there or has ended, and no sandbox was bound twice.
#[test]
fn f5_f31_crashes_under_load() {
    World::with(Setup::pool(3), async |w| {
        w.allow_engine_trouble();
        // The store is closed under the server's feet: everything that wants to write says so.
        for text in
            ["could not", "request failed", "did not come through", "was dropped", "did not end within"]
        {
            w.allow_log(text);
        }
        let mut promised: BTreeSet<String> = BTreeSet::new();
        for round in 0..16u64 {
            let body = w.new_session();
            let claims = futures_util::future::join_all((0..4).map(|_| w.try_post("/v1/sessions", &body)));
            let ends = async {
                for one in promised.iter().take(2) {
                    let _ = w.try_send("DELETE", &format!("/v1/sessions/{one}"), b"").await;
                }
            };
            // Cut at a different moment each time; what was not answered by then was not promised.
            let cut = Duration::from_millis(round * 3 % 40);
            let mut answered = Vec::new();
            let work = async {
                let (claims, ()) = futures_util::future::join(claims, ends).await;
                answered = claims;
            };
            let _ = tokio::time::timeout(cut, work).await;
            for answer in answered.into_iter().flatten().filter(|a| a.status == 201) {
                promised.insert(answer.field("id"));
            }
            w.crash(if round % 2 == 0 { Crash::TasksFirst } else { Crash::StoreFirst }).await;
            for one in &promised {
                w.get(&format!("/v1/sessions/{one}")).await.expect(200);
            }
        }
        w.settled().await;
        w.pools_full().await;
        for one in &promised {
            let view = w.get(&format!("/v1/sessions/{one}")).await.expect(200).json();
            if view["state"] != "ended" {
                let view = w
                    .wait("it is active or over", async || {
                        let now = w.read_session(&view).await;
                        matches!(now["state"].as_str(), Some("active" | "ended")).then_some(now)
                    })
                    .await;
                assert_ne!(view["end"], "sandbox_lost", "{view}");
            }
        }
    });
}

/// F31, F39, F23: killed while the end is captured, before the engine did it and after: it is captured again, the
/// session ends, and what the first attempt left is collected.
#[test]
fn f31_f39_killed_while_capturing() {
    World::with(Setup::pool(1), async |w| {
        for fault in [Fault::Hang, Fault::HangAfter] {
            for how in [Crash::TasksFirst, Crash::StoreFirst] {
                for text in ["could not", "a background task failed", "was dropped"] {
                    w.allow_log(text);
                }
                let view = w.session().await;
                assert_eq!(w.synced(&view).await, "synced");
                w.send("PUT", &format!("/v1/sessions/{}/files/x", id(&view)), &[], b"kept").await.expect(204);
                let before = w.backend.calls("capture");
                w.backend.fault("capture", fault);
                w.delete(&format!("/v1/sessions/{}", id(&view))).await.expect(202);
                w.wait_for("it is captured", || w.backend.calls("capture") > before).await;
                w.crash(how).await;
                let ended = w.until(&view, "ended").await;
                assert_eq!(
                    (&ended["end"], &ended["trouble"]),
                    (&json!("requested"), &json!(null)),
                    "{fault:?} {how:?}"
                );
                let next = json!({"user": {"login": "ada"}, "parent": id(&view)});
                let next = w.post("/v1/sessions", &next).await.expect(201).json();
                w.until(&next, "active").await;
                let file = w.get(&format!("/v1/sessions/{}/files/x", id(&next))).await.expect(200);
                assert_eq!(file.text(), "kept");
                w.delete(&format!("/v1/sessions/{}?discard=true", id(&next))).await.expect(202);
            }
        }
    });
}

/// F23, F27: killed while an image is captured: the build has failed, its sandbox and what it captured are gone, and
/// the next build runs.
#[test]
fn f23_f27_killed_while_building() {
    World::with(Setup::pool(1), async |w| {
        w.allow_log("could not");
        w.allow_log("build failed");
        w.allow_log("a background task failed");
        let repo = w.specs[0].name.clone();
        for (verb, fault) in
            [("start", Fault::HangAfter), ("capture", Fault::Hang), ("capture", Fault::HangAfter)]
        {
            w.settled().await;
            w.commit(&format!("{verb} {fault:?}"));
            let before = w.backend.calls(verb);
            w.backend.fault(verb, fault);
            let build = w.post("/v1/repos/acme/api/builds", &json!({})).await.expect(202).json();
            w.wait_for("it hangs", || w.backend.calls(verb) > before).await;
            w.crash(Crash::TasksFirst).await;
            let build = w.get(&format!("/v1/builds/{}", id(&build))).await.expect(200).json();
            assert_eq!(build["state"], "failed");
            assert!(build["error"].as_str().is_some_and(|e| e.contains("interrupted")), "{build}");
            w.build(&repo).await;
        }
    });
}
