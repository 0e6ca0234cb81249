//! Pools that follow what comes: traffic, orders, the budget; and what a restart or a failing repo does to that.

use std::time::Duration;

use config::BuildSettings;
use domain::{Budget, RepoName, RepoSpec, SandboxState, Window};
use serde_json::{Value, json};

use crate::world::{Crash, Setup, World, id, sandbox, spec};

const HOUR: Duration = Duration::from_secs(3600);

/// One repo whose pool follows its traffic, by a clock that the test moves.
fn following(min: u32, max: u32) -> Setup {
    Setup::pool(min).manual_clock().change(move |spec| {
        spec.pool.max = max;
        spec.pool.target_hit_rate = Some(0.9);
    })
}

impl World {
    fn first(&self) -> RepoName {
        self.specs[0].name.clone()
    }

    /// Members took half a minute so far; by a clock that stands still they would take none.
    fn slow_starts(&self) {
        for _ in 0..64 {
            self.app().demands.was_ready(&self.first(), Duration::from_secs(30));
        }
    }

    async fn explain(&self, repo: &RepoName) -> Value {
        self.get(&format!("/v1/pools/{repo}")).await.expect(200).json()
    }

    async fn order(&self, repo: &RepoName, body: Value) -> Value {
        let path = format!("/v1/pools/{repo}/order");
        let headers = [("content-type", "application/json")];
        self.send("PUT", &path, &headers, body.to_string().as_bytes()).await.expect(200).json()
    }

    /// Unclaimed members of a repo, ready or not.
    fn members(&self, repo: &RepoName) -> usize {
        let unclaimed = [SandboxState::Creating, SandboxState::Starting, SandboxState::Warm];
        self.app()
            .fleet
            .unclaimed()
            .iter()
            .filter(|r| r.repo == *repo && unclaimed.contains(&r.state))
            .count()
    }

    async fn session_of(&self, repo: &RepoName) -> Value {
        self.post("/v1/sessions", &json!({"repo": repo, "user": {"login": "ada"}})).await.expect(201).json()
    }
}

/// F13, F15: the target follows real requests up at once and down slowly, and every number has its reason.
#[test]
fn a_pool_follows_requests_up_and_down() {
    World::with(following(0, 8), async |w| {
        let repo = w.first();
        w.settled().await;
        w.slow_starts();
        assert_eq!(w.explain(&repo).await["target"], 0);
        let mut views = Vec::new();
        for _ in 0..3 {
            for _ in 0..4 {
                views.push(w.session().await);
            }
            w.settled().await;
            w.clock.advance(Duration::from_secs(60));
        }
        assert_eq!(views[0]["launch"], "cold", "nobody was expected");
        let up = w.explain(&repo).await;
        let target = up["target"].as_u64().unwrap();
        assert!(target >= 2, "{up}");
        assert_eq!(up["terms"]["expected"]["claims"], 12, "{up}");
        assert_eq!(up["terms"]["expected"]["lead_seconds"], 30.0, "{up}");
        assert!(up["explain"].as_array().unwrap().len() >= 6, "{up}");
        w.wait_for("members are ready", || w.warm(&repo) as u64 == target).await;
        assert_eq!(w.session().await["launch"], "warm");
        let metrics = w.get("/metrics").await.expect(200).text();
        for line in
            ["hotbed_pool_arrivals_total{repo=\"acme/api\"} 13", "hotbed_pool_wanted{repo=\"acme/api\"}"]
        {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        // For some minutes they are kept, because they were wanted a moment ago; then they go.
        w.settled().await;
        w.clock.advance(Duration::from_secs(10 * 60));
        w.settled().await;
        assert!(w.members(&repo) > 0);
        w.clock.advance(HOUR);
        w.wait_for("the pool is empty", || w.members(&repo) == 0).await;
        for view in &views {
            assert_eq!(w.read_session(view).await["state"], "active", "claimed ones stay");
        }
    });
}

/// A repo that nobody comes to keeps nothing, whatever its `min` is, until somebody comes.
#[test]
fn an_idle_repo_scales_to_zero_and_back() {
    let setup = Setup::pool(2).manual_clock().change(|spec| spec.pool.idle_after = Some(HOUR));
    World::with(setup, async |w| {
        let repo = w.first();
        w.settled().await;
        w.clock.advance(HOUR + Duration::from_secs(60));
        w.wait_for("the pool is empty", || w.members(&repo) == 0).await;
        assert_eq!(w.explain(&repo).await["terms"]["floor"]["by"], "idle");
        w.settled().await;
        assert_eq!(w.session().await["launch"], "cold");
        w.pools_full().await;
        assert_eq!(w.explain(&repo).await["terms"]["floor"]["by"], "min");
    });
}

/// What was counted outlives an orderly end and, but for the last seconds, a crash.
#[test]
fn arrivals_outlive_the_server() {
    World::with(Setup::pool(2), async |w| {
        let repo = w.first();
        let path = format!("/v1/pools/{repo}/arrivals");
        let claims = async |w: &World| {
            let recorded = w.get(&path).await.expect(200).json();
            let minutes = recorded["minutes"].as_array().unwrap();
            minutes.iter().map(|m| m["claims"].as_u64().unwrap()).sum::<u64>()
        };
        for _ in 0..3 {
            w.session().await;
        }
        let since = w.get(&path).await.expect(200).json()["watched_since"].clone();
        assert_eq!(claims(w).await, 3);
        w.restart().await;
        assert_eq!(claims(w).await, 3);
        w.session().await;
        w.on(|app| async move { app.demands.save().await }).await.expect("save");
        w.crash(Crash::TasksFirst).await;
        assert_eq!(claims(w).await, 4);
        let again = w.get(&path).await.expect(200).json();
        assert_eq!(again["watched_since"], since, "known for as long as before");
        assert!(!again["lead_milliseconds"].as_array().unwrap().is_empty(), "{again}");
    });
}

/// F15: orders count while they last, over a restart, with who gave them and why; down from many to one it is idle
/// members that go.
#[test]
fn orders_are_recorded_survive_and_end() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        let repo = w.first();
        let body = json!({"order": "set", "min": 5, "for_seconds": 7200, "by": "ada", "why": "the demo"});
        let view = w.order(&repo, body).await;
        assert_eq!((&view["target"], &view["terms"]["floor"]["by"]), (&json!(5), &json!("order")));
        w.wait_for("five are warm", || w.warm(&repo) == 5).await;
        w.settled().await;
        w.crash(Crash::TasksFirst).await;
        w.wait_for("five are warm", || w.warm(&repo) == 5).await;
        let view = w.explain(&repo).await;
        assert_eq!((&view["order"]["by"], &view["order"]["why"]), (&json!("ada"), &json!("the demo")));
        let session = w.session().await;
        w.settled().await;
        w.clock.advance(2 * HOUR);
        w.wait_for("one is left", || w.members(&repo) == 1 && w.warm(&repo) == 1).await;
        assert_eq!(w.explain(&repo).await["order"], Value::Null);
        assert_eq!(w.read_session(&session).await["state"], "active");

        w.order(&repo, json!({"order": "pause"})).await;
        w.settled().await;
        let session = w.session().await;
        w.settled().await;
        assert_eq!((w.members(&repo), session["launch"].as_str()), (0, Some("warm")), "nothing is made");
        assert_eq!(w.explain(&repo).await["reason"], "paused");
        let path = format!("/v1/pools/{repo}/order?by=ada&why=over");
        assert_eq!(w.delete(&path).await.expect(200).json()["order"], Value::Null);
        w.pools_full().await;
        w.order(&repo, json!({"order": "drain", "by": "ada"})).await;
        w.wait_for("it is empty", || w.members(&repo) == 0).await;
        w.settled().await;
        w.restart().await;
        w.settled().await;
        assert_eq!(w.members(&repo), 0, "after a restart, too");
        w.delete(&format!("/v1/pools/{repo}/order")).await.expect(200);
        w.pools_full().await;
    });
}

/// Bad orders get one clear error and change nothing.
#[test]
fn bad_orders_are_refused() {
    World::with(Setup::pool(1), async |w| {
        let repo = w.first();
        let path = format!("/v1/pools/{repo}/order");
        for (body, expected) in [
            (json!({"order": "set", "for_seconds": 60}), "`min` and `max` are missing"),
            (json!({"order": "set", "min": 3}), "`for_seconds` is missing"),
            (json!({"order": "set", "min": 3, "for_seconds": 0}), "`for_seconds` is 0"),
            (json!({"order": "set", "min": 99, "for_seconds": 60}), "`min` is 99: expected at most `max`"),
            (json!({"order": "set", "max": 10001, "for_seconds": 60}), "`max` is 10001"),
            (json!({"order": "pause", "min": 3}), "`min` belongs to the order `set` alone"),
            (json!({"order": "pause", "by": ""}), "`by` has 0 characters"),
            (json!({"order": "stop"}), "expected one of `set`, `pause`, `drain`"),
        ] {
            let headers = [("content-type", "application/json")];
            let answer = w.send("PUT", &path, &headers, body.to_string().as_bytes()).await.expect(422);
            assert!(answer.text().contains(expected), "{}", answer.text());
        }
        assert_eq!(w.explain(&repo).await["order"], Value::Null);
        let nobody = w.send(
            "PUT",
            "/v1/pools/acme/none/order",
            &[("content-type", "application/json")],
            b"{\"order\":\"pause\"}",
        );
        nobody.await.expect(404);
    });
}

/// F14: sessions come before pools. One that starts cold takes its place from idle members of another repo, and at no
/// moment is there more than the budget allows; what even empty pools have no place for is told to come back.
#[test]
fn a_cold_session_takes_the_place_of_idle_members() {
    let repos = vec![spec("acme/api", 3), spec("acme/web", 0)];
    World::with(Setup::repos(repos), async |w| {
        let (api, web) = (w.first(), w.specs[1].name.clone());
        w.settled().await;
        w.app().room.set_budget(Budget { memory: Some(3 << 30), ..Budget::default() });
        let within = |w: &World| assert!(w.backend.sandboxes().len() <= 3, "{}", w.situation());
        let mut sessions = Vec::new();
        for left in [2, 1, 0] {
            let view = w.session_of(&web).await;
            assert_eq!(view["launch"], "cold");
            let what = format!("session {} has its place", id(&view));
            w.wait(&what, async || {
                within(w);
                (w.read_session(&view).await["state"] == "active").then_some(())
            })
            .await;
            w.settled().await;
            assert_eq!(w.members(&api), left);
            sessions.push(view);
        }
        let refused =
            w.post("/v1/sessions", &json!({"repo": web, "user": {"login": "ada"}})).await.expect(503);
        assert!(
            refused.header("retry-after").is_some() && refused.text().contains("budget"),
            "{}",
            refused.text()
        );
        let view = w.explain(&api).await;
        assert_eq!((&view["target"], &view["terms"]["wanted"]), (&json!(0), &json!(3)), "{view}");
        assert!(view["explain"].to_string().contains("the budget has room for 0"), "{view}");
        w.end(&sessions[0]).await;
        w.wait_for("what is free is the pool's again", || {
            within(w);
            w.warm(&api) == 1
        })
        .await;
        // A larger budget is in force at once.
        w.app().room.set_budget(Budget::default());
        w.app().fleet.pool_poke.notify_one();
        w.pools_full().await;
    });
}

/// A session that ends while it waits for a place leaves nothing behind, and its place to the next (F38).
#[test]
fn a_session_that_gives_up_its_place_leaves_nothing() {
    let repos = vec![spec("acme/api", 2), spec("acme/web", 0)];
    World::with(Setup::repos(repos), async |w| {
        let web = w.specs[1].name.clone();
        w.settled().await;
        let budget = Budget { sandboxes: Some(2), ..Budget::default() };
        w.app().room.set_budget(budget);
        // Idle members can't go as long as the engine does not answer.
        w.backend.slow("stop", Duration::from_secs(1));
        let view = w.session_of(&web).await;
        w.end(&view).await;
        let next = w.session_of(&web).await;
        w.backend.slow("stop", Duration::ZERO);
        w.until(&next, "active").await;
        w.settled().await;
        assert_eq!(w.backend.sandboxes().len(), 2);
    });
}

/// A changed policy and another budget are in force without a restart, up and down.
#[test]
fn a_reload_is_in_force_at_once() {
    World::with(Setup::pool(1), async |w| {
        let repo = w.first();
        w.settled().await;
        let reload = async |w: &World, spec: &RepoSpec, budget: Budget| {
            let specs = vec![spec.clone()];
            w.on(move |app| async move { app.reconfigure(specs, BuildSettings::default(), budget) }).await;
        };
        let given = w.app().repos.get(&repo).expect("configured");
        let mut changed = (*given).clone();
        let window = Window { days: [true; 7], from: 0, to: 1440, zone: "Asia/Tokyo".into(), min: 3 };
        changed.pool.windows = vec![window];
        reload(w, &changed, Budget::default()).await;
        w.wait_for("the window's members are warm", || w.warm(&repo) == 3).await;
        assert_eq!(w.explain(&repo).await["terms"]["floor"]["by"], "window");
        w.settled().await;
        reload(w, &changed, Budget { cpu_millis: Some(2500), ..Budget::default() }).await;
        w.wait_for("two have room", || w.members(&repo) == 2).await;
        assert_eq!(w.explain(&repo).await["terms"]["wanted"], 3);
        reload(w, &given, Budget::default()).await;
        w.wait_for("one is wanted", || w.members(&repo) == 1).await;
    });
}

/// One repo's failures back that repo off; the other's refill goes on, and both are full when the trouble is over.
#[test]
fn a_failing_repo_stops_nobody_elses_refill() {
    let repos = vec![spec("acme/api", 2), spec("acme/web", 2)];
    World::with(Setup::repos(repos), async |w| {
        w.allow_engine_trouble();
        let (api, web) = (w.first(), w.specs[1].name.clone());
        w.settled().await;
        w.backend.refuse(&api);
        let starts = w.backend.calls("start");
        let mut views = vec![w.session_of(&api).await];
        w.wait("the failing one backs off", async || {
            let reason = w.explain(&api).await["reason"].to_string();
            reason.contains("backing off until").then_some(())
        })
        .await;
        for _ in 0..4 {
            let view = w.session_of(&web).await;
            assert_eq!(view["launch"], "warm");
            views.push(view);
            w.wait_for("the other is full", || w.warm(&web) == 2).await;
        }
        assert_eq!(w.warm(&api), 1);
        assert!(w.backend.calls("start") - starts <= 4 + 3, "it is not tried again and again");
        w.backend.clear_faults();
        w.pools_full().await;
    });
}

/// F1, F2, F32: a server that ends in the middle of a refill finds what it had begun, makes the rest and no more.
#[test]
fn a_restart_in_the_middle_of_a_refill() {
    World::with(Setup::pool(2), async |w| {
        let repo = w.first();
        w.settled().await;
        for how in [None, Some(Crash::TasksFirst)] {
            w.agents.mute(true);
            w.order(&repo, json!({"order": "set", "min": 8, "for_seconds": 3600})).await;
            w.wait_for("as many start as may", || w.members(&repo) == 6).await;
            match how {
                None => w.restart().await,
                Some(how) => w.crash(how).await,
            }
            w.agents.mute(false);
            w.agents.redial_all();
            w.wait_for("all are warm", || {
                assert!(w.members(&repo) <= 8, "what is in flight counts: {}", w.situation());
                w.warm(&repo) == 8
            })
            .await;
            w.settled().await;
            assert_eq!(w.backend.sandboxes().len(), 8);
            w.delete(&format!("/v1/pools/{repo}/order")).await.expect(200);
            w.wait_for("two are left", || w.members(&repo) == 2).await;
            w.settled().await;
        }
        let view = w.session().await;
        assert_eq!(view["launch"], "warm");
        assert!(w.backend.sandboxes().contains(&sandbox(&view)));
    });
}
