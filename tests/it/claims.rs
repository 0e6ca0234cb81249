//! Claims and the pool.

use std::collections::BTreeSet;

use domain::testing::Fault;
use domain::{ErrorKind, SandboxState};
use serde_json::json;

use crate::world::{Crash, Setup, World, id, sandbox, spec};

/// F18: nothing on the claim path talks to the engine.
#[test]
fn f18_a_warm_claim_asks_the_engine_nothing() {
    World::with(Setup::pool(2), async |w| {
        w.settled().await;
        w.allow_engine_trouble();
        // The refill behind the claim would talk to it.
        w.backend.down(Fault::Fail(ErrorKind::Unavailable));
        let view = w.session().await;
        assert_eq!(view["launch"], "warm");
        assert_eq!(view["state"], "active");
        assert_eq!(w.synced(&view).await, "synced");
        w.expect_log("could not start a sandbox");
        w.wait_for("the refill met the fault", || w.logged("could not start a sandbox")).await;
        w.backend.clear_faults();
        w.end(&view).await;
    });
}

/// F16, F35: 100 at once on a pool of 20; every sandbox bound at most once, nothing comes back.
#[test]
fn f16_f35_a_hundred_claims_at_once() {
    World::with(Setup::pool(20), async |w| {
        let body = w.new_session();
        let all = futures_util::future::join_all((0..100).map(|_| w.post("/v1/sessions", &body))).await;
        let views: Vec<_> = all.into_iter().map(|a| a.expect(201).json()).collect();
        let used: BTreeSet<_> = views.iter().map(sandbox).collect();
        assert_eq!(used.len(), 100, "a sandbox was handed out twice");
        let warm = views.iter().filter(|v| v["launch"] == "warm").count();
        assert!(warm >= 20, "{warm} of the 20 that were ready were handed out");
        for view in &views {
            w.until(view, "active").await;
        }
        let ended = futures_util::future::join_all(views.iter().map(|v| w.end(v))).await;
        assert!(ended.iter().all(|v| v["end"] == "requested"), "{ended:?}");
        w.settled().await;
        assert!(w.pool_members().is_disjoint(&used), "a used sandbox is in the pool again");
        w.restart().await;
        w.pools_full().await;
        assert!(w.pool_members().is_disjoint(&used), "a used sandbox is in the pool after a restart");
        let body = json!({"repo": "acme/api", "user": {"login": "ada"}});
        let again = w.post("/v1/sessions", &body).await.expect(201).json();
        assert!(!used.contains(&sandbox(&again)), "{} was used before", id(&again));
    });
}

/// F1: while the engine's list lags, what was made is counted all the same: never above the target, and nothing
/// that runs is taken for lost.
#[test]
fn f1_a_lagging_list() {
    World::with(Setup::pool(3), async |w| {
        w.settled().await;
        w.backend.freeze_list();
        let before = w.backend.calls("start");
        let mut views = Vec::new();
        for _ in 0..3 {
            views.push(w.session().await);
            w.pools_full().await;
            w.reconcile().await;
        }
        w.wait_for("the plan is settled", || w.app().pools.plan().is_settled()).await;
        for _ in 0..5 {
            let report = w.reconcile().await;
            assert_eq!((report.lost, report.removed_orphans), (0, 0), "{report}");
        }
        assert_eq!(w.backend.calls("start") - before, 3, "one start for each member that left");
        assert_eq!(w.pool_members().len(), 3);
        for view in &views {
            assert_eq!(w.read_session(view).await["state"], "active");
        }
        w.backend.thaw_list();
        w.reconcile().await;
    });
}

/// F3, F48: the agent did bind, and its answer was lost: the same one is bound again, nobody else.
#[test]
fn f3_a_lost_answer_to_bind() {
    World::with(Setup::pool(2), async |w| {
        for agent in w.agents.all() {
            agent.set(|o| o.bind_answer_lost = Some(ErrorKind::Timeout));
        }
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        assert_eq!(w.agents.of(sandbox(&view)).bound().map(|s| s.to_string()).as_deref(), Some(id(&view)));
        let bound = w.agents.all().iter().filter(|a| a.bound().is_some()).count();
        assert_eq!(bound, 1);
    });
}

/// F3, F11, F48: the engine did start it, and its answer was lost: one sandbox serves the session, no other stays.
#[test]
fn f3_f11_a_lost_answer_to_start() {
    World::with(Setup::pool(0), async |w| {
        w.allow_engine_trouble();
        // The agent is there before the engine's answer, or behind it, or not at all.
        for mute in [false, false, false, false, true] {
            if mute {
                w.agents.mute_next();
            }
            let starts = w.backend.calls("start");
            w.backend.fault("start", Fault::FailAfter(ErrorKind::Timeout));
            let view = w.session().await;
            assert_eq!(view["launch"], "cold");
            let view = w.until(&view, "active").await;
            assert!(
                !mute || w.backend.calls("start") == starts + 2,
                "a sandbox that nobody heard of is not used"
            );
            assert_eq!(w.synced(&view).await, "synced");
            w.settled().await;
            assert_eq!(w.backend.sandboxes(), [sandbox(&view)]);
            w.end(&view).await;
            w.settled().await;
        }
    });
}

/// F11: a start that fails once is tried again within the session's launch deadline.
#[test]
fn f11_a_failed_start_is_tried_again() {
    World::with(Setup::pool(0), async |w| {
        w.allow_engine_trouble();
        for _ in 0..2 {
            w.backend.fault("start", Fault::Fail(ErrorKind::Unavailable));
        }
        let view = w.session().await;
        w.until(&view, "active").await;
        assert!(w.backend.calls("start") <= 2 + 3, "no hot loop");
    });
}

/// F3, F5, F11: the store refuses the claim. The client is told, and after a restart nothing is astray.
#[test]
fn f3_f5_f11_the_store_refuses() {
    World::with(Setup::pool(4), async |w| {
        w.settled().await;
        for text in ["could not", "request failed", "a background task failed"] {
            w.allow_log(text);
        }
        w.on(|app| async move { app.store.clone().close().await }).await;
        let body = w.new_session();
        let all = futures_util::future::join_all((0..6).map(|_| w.post("/v1/sessions", &body))).await;
        for answer in all {
            let answer = answer.expect(503);
            assert!(answer.header("retry-after").is_some(), "{answer:?}");
        }
        w.crash(Crash::StoreFirst).await;
        w.pools_full().await;
        assert_eq!(w.get("/v1/sessions").await.expect(200).json()["items"], json!([]));
    });
}

/// F6: equal names of two owners are two repos.
#[test]
fn f6_equal_names_never_cross() {
    World::with(Setup::repos(vec![spec("acme/api", 2), spec("zeta/api", 2)]), async |w| {
        for _ in 0..3 {
            for repo in ["acme/api", "zeta/api"] {
                let body = json!({"repo": repo, "user": {"login": "ada"}});
                let view = w.post("/v1/sessions", &body).await.expect(201).json();
                let record = w.records().into_iter().find(|r| r.id == sandbox(&view)).expect("its sandbox");
                assert_eq!(record.repo.to_string(), repo);
                let image = w.app().repos.current_image(&record.repo).expect("image");
                assert_eq!(record.source, image.digest);
            }
        }
        // A warm-up of one is nothing to the other.
        let warmup = json!({"repo": "zeta/api", "client": "tab"});
        let warmup = w.post("/v1/warmups", &warmup).await.expect(202).json();
        let body = json!({"repo": "acme/api", "user": {"login": "ada"}, "warmup": id(&warmup)});
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_ne!(view["launch"], "warmup");
        let record = w.records().into_iter().find(|r| r.id == sandbox(&view)).expect("its sandbox");
        assert_eq!(record.repo.to_string(), "acme/api");
    });
}

/// F7: one key, one session: one after the other, at the same time, and after a restart.
#[test]
fn f7_idempotency() {
    World::with(Setup::pool(2), async |w| {
        let body = w.new_session().to_string();
        let key = |k: &'static str| [("idempotency-key", k), ("content-type", "application/json")];
        let first = w.send("POST", "/v1/sessions", &key("a"), body.as_bytes()).await.expect(201).json();
        let again = w.send("POST", "/v1/sessions", &key("a"), body.as_bytes()).await.expect(200);
        assert_eq!(again.header("idempotent-replayed"), Some("true"));
        assert_eq!(id(&again.json()), id(&first));
        let other = body.replace("ada", "bob");
        w.send("POST", "/v1/sessions", &key("a"), other.as_bytes()).await.expect(409);
        let headers = key("b");
        let at_once = (0..32).map(|_| w.send("POST", "/v1/sessions", &headers, body.as_bytes()));
        let at_once = futures_util::future::join_all(at_once).await;
        let made = at_once.iter().filter(|a| a.status == 201).count();
        assert_eq!(made, 1, "{:?}", at_once.iter().map(|a| a.status).collect::<Vec<_>>());
        let ids: BTreeSet<_> = at_once.iter().map(|a| a.field("id")).collect();
        assert_eq!(ids.len(), 1);
        w.restart().await;
        let again = w.send("POST", "/v1/sessions", &key("a"), body.as_bytes()).await.expect(200);
        assert_eq!(id(&again.json()), id(&first));
        w.send("POST", "/v1/sessions", &key("a"), other.as_bytes()).await.expect(409);
        // A request that was refused leaves its key free.
        let wrong = body.replace("acme/api", "acme/none");
        w.send("POST", "/v1/sessions", &key("c"), wrong.as_bytes()).await.expect(404);
        w.send("POST", "/v1/sessions", &key("c"), body.as_bytes()).await.expect(201);
        let all = w.get("/v1/sessions").await.expect(200).json();
        assert_eq!(all["items"].as_array().expect("items").len(), 3);
    });
}

/// F9: comparing while the pool refills removes nothing that is owned.
#[test]
fn f9_reconcile_during_a_refill() {
    World::with(Setup::pool(6), async |w| {
        let mut views = Vec::new();
        for _ in 0..12 {
            views.push(w.session().await);
            for _ in 0..4 {
                let report = w.reconcile().await;
                assert_eq!((report.lost, report.removed_orphans, report.overdue), (0, 0, 0), "{report}");
            }
        }
        for view in &views {
            w.until(view, "active").await;
        }
        let gone = w.backend.calls("start") as usize - w.backend.sandboxes().len();
        assert_eq!(gone, 2, "the build's two sandboxes and nothing else were removed");
    });
}

/// F1, F9: a list that was read while a sandbox was made, and is judged once it runs, is not believed.
#[test]
fn f1_f9_a_start_that_ends_while_the_list_is_read() {
    World::with(Setup::pool(1), async |w| {
        w.settled().await;
        w.agents.mute(true);
        let starts = w.backend.calls("start");
        w.backend.hold("start");
        w.session().await;
        w.wait_for("a successor is made", || w.backend.calls("start") > starts).await;
        w.backend.hold("list");
        let lists = w.backend.calls("list");
        let meanwhile = async {
            w.wait_for("the list is read", || w.backend.calls("list") > lists).await;
            w.backend.release("start");
            w.wait_for("it runs", || w.records().iter().any(|r| r.state == SandboxState::Starting)).await;
            w.backend.release("list");
        };
        let (report, ()) = futures_util::future::join(w.reconcile(), meanwhile).await;
        assert_eq!((report.lost, report.removed_orphans), (0, 0), "{report}");
        w.agents.mute(false);
        w.agents.redial_all();
        w.pools_full().await;
        assert_eq!(w.backend.calls("start") - starts, 1, "nothing was replaced");
    });
}

/// F10: a sandbox runs, its agent has not answered: that is no member.
#[test]
fn f10_only_what_answered_is_handed_out() {
    World::with(Setup::pool(1), async |w| {
        w.agents.mute(true);
        let first = w.session().await;
        assert_eq!(first["launch"], "warm");
        w.wait_for("a successor runs, mute", || {
            w.records().iter().any(|r| r.state == SandboxState::Starting)
        })
        .await;
        let second = w.session().await;
        assert_eq!((&second["launch"], &second["state"]), (&json!("cold"), &json!("waiting")));
        assert_eq!(w.warm(&w.specs[0].name), 0);
        // They connect and answer nothing about themselves: still none.
        for agent in w.agents.all() {
            agent.set(|o| o.info_fails = agent.bound().is_none());
        }
        w.agents.redial_all();
        w.reconcile().await;
        assert_eq!(w.warm(&w.specs[0].name), 0);
        for agent in w.agents.all() {
            agent.set(|o| o.info_fails = false);
        }
        w.agents.mute(false);
        w.agents.redial_all();
        w.pools_full().await;
        w.until(&second, "active").await;
    });
}

/// F2: images are promoted while claims go on; what is handed out is what was current.
#[test]
fn f2_claims_during_promotions() {
    World::with(Setup::pool(3), async |w| {
        let repo = w.specs[0].name.clone();
        let current = |w: &World| w.app().repos.current_image(&repo).expect("image").id.to_string();
        for round in 0..3 {
            w.commit(&format!("change {round}"));
            let building = w.build(&repo);
            let claiming = async {
                for _ in 0..6 {
                    let before = current(w);
                    let view = w.session().await;
                    let after = current(w);
                    let image = view["image"].as_str().expect("image").to_owned();
                    assert!(image == before || image == after, "{image} is neither {before} nor {after}");
                    w.end(&view).await;
                }
            };
            futures_util::future::join(building, claiming).await;
        }
        w.wait_for("members of old images are replaced", || {
            let id = w.app().repos.current_image(&repo).map(|i| i.id);
            w.records().iter().all(|r| r.image == id)
        })
        .await;
    });
}

/// F37: what was answered can be read, ended and is on disk at once. F38: nothing is left of many short lives.
#[test]
fn f37_f38_made_and_ended_at_once() {
    World::with(Setup::pool(3), async |w| {
        let body = w.new_session();
        let one = async || {
            let view = w.post("/v1/sessions", &body).await.expect(201).json();
            let read = w.read_session(&view).await;
            assert_eq!(id(&read), id(&view));
            w.delete(&format!("/v1/sessions/{}?discard=true", id(&view))).await.expect(202);
            w.until(&view, "ended").await
        };
        for _ in 0..4 {
            let ended = futures_util::future::join_all((0..15).map(|_| one())).await;
            assert!(ended.iter().all(|v| v["end"] == "requested"));
        }
        w.wait_for("none is held in memory", || w.app().sessions.all().is_empty()).await;
    });
}

/// F20: the work that a claim causes is counted, and bounded whatever the size of the pool and of the burst.
#[test]
fn f20_the_work_of_a_claim_is_bounded() {
    const CLAIMS: u64 = 120;
    World::with(Setup::pool(CLAIMS as u32), async |w| {
        w.settled().await;
        let counts = |w: &World| {
            let app = w.app();
            [
                app.store.write_counts().commits,
                app.audit.commits(),
                app.metrics.pool_plans.get(),
                app.metrics.session_wakes.get(),
                app.mirrors.fetches() + app.mirrors.fetches_spared(),
                w.backend.calls("start"),
                w.backend.calls("stop"),
            ]
        };
        let before = counts(w);
        let body = w.new_session();
        let all = futures_util::future::join_all((0..CLAIMS).map(|_| w.post("/v1/sessions", &body))).await;
        let views: Vec<_> = all.into_iter().map(|a| a.expect(201).json()).collect();
        assert!(views.iter().all(|v| v["launch"] == "warm"));
        for view in &views {
            assert_eq!(w.synced(view).await, "synced");
        }
        w.pools_full().await;
        w.wait_for("every row is written", || {
            w.records().iter().all(|r| matches!(r.state, SandboxState::Warm | SandboxState::Claimed))
        })
        .await;
        let after = counts(w);
        let [commits, audited, plans, wakes, fetches, starts, stops] =
            std::array::from_fn(|i| after[i] - before[i]);
        assert_eq!((starts, stops), (CLAIMS, 0), "one successor for each, and nothing else");
        // The claim and the end of its sync; of the successor the order, the start and the answer.
        assert!(commits - audited <= CLAIMS * 5, "{commits} commits for {CLAIMS} claims");
        // Lines of the audit log are written behind, many at once.
        assert!(audited <= CLAIMS / 4, "{audited} commits for the lines of {CLAIMS} claims");
        assert!(plans <= CLAIMS, "{plans} plans for {CLAIMS} claims");
        // Once to begin; once more where the agent's connection came in between.
        assert!(wakes <= CLAIMS * 2, "{wakes} wakes for {CLAIMS} claims");
        assert!(fetches <= CLAIMS / 4, "{fetches} fetches for {CLAIMS} claims");
    });
}
