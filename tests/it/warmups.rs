//! Keystrokes.

use std::time::Duration;

use domain::SandboxId;
use serde_json::{Value, json};

use crate::world::{Setup, World, id, sandbox};

async fn announce(w: &World, client: &str) -> Value {
    let body = json!({"repo": w.specs[0].name, "client": client});
    w.post("/v1/warmups", &body).await.expect(202).json()
}

/// The member that a warm-up has made ready.
async fn reserved(w: &World, warmup: &Value) -> SandboxId {
    w.wait("a member is reserved and ready", async || {
        let held =
            w.records().into_iter().find(|r| r.reserved.is_some_and(|x| x.to_string() == id(warmup)))?;
        (held.state == domain::SandboxState::Warm).then_some(held.id)
    })
    .await
}

/// F55: a thousand keystrokes, a hundred at a time, make one warm-up with one member.
#[test]
fn f55_a_thousand_keystrokes() {
    World::with(Setup::pool(2), async |w| {
        w.settled().await;
        let first = announce(w, "tab").await;
        for _ in 0..10 {
            let all = futures_util::future::join_all((0..100).map(|_| announce(w, "tab"))).await;
            assert!(all.iter().all(|v| id(v) == id(&first)));
        }
        let member = reserved(w, &first).await;
        w.settled().await;
        let held: Vec<_> = w.records().into_iter().filter(|r| r.reserved.is_some()).map(|r| r.id).collect();
        assert_eq!(held, [member]);
        assert_eq!(w.pool_members().len(), 3, "two that are free and the one that is held");
    });
}

/// F55: the very first keystrokes come at once.
#[test]
fn f55_the_first_keystrokes_at_once() {
    World::with(Setup::pool(2), async |w| {
        for round in 0..5 {
            let client = format!("tab-{round}");
            let all = futures_util::future::join_all((0..32).map(|_| announce(w, &client))).await;
            assert!(all.iter().all(|v| id(v) == id(&all[0])), "{all:?}");
        }
    });
}

/// A hit is a launch of its own kind; the member was at the tip before the session came.
#[test]
fn a_hit_finds_its_member_at_the_tip() {
    World::with(Setup::pool(1), async |w| {
        let tip = w.commit("newer than the image");
        let warmup = announce(w, "tab").await;
        let member = reserved(w, &warmup).await;
        w.wait_for("it is synced", || w.agents.of(member).tree().0 == Some(tip.clone())).await;
        // F56: nobody's name or environment is in it, and the gate is shut.
        assert_eq!(w.agents.of(member).bound(), None);
        assert!(!w.agents.of(member).gate_is_open());
        let mut body = w.new_session();
        body["warmup"] = warmup["id"].clone();
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!((&view["launch"], sandbox(&view)), (&json!("warmup"), member));
        assert_eq!(w.synced(&view).await, "synced");
        let over = w.get(&format!("/v1/warmups/{}", id(&warmup))).await.expect(200).json();
        assert_eq!(over["state"], "hit");
        w.delete(&format!("/v1/warmups/{}", id(&warmup))).await.expect(404);
    });
}

/// F55: submitted while the member still starts: the session gets that one, and no second container is made.
#[test]
fn f55_submit_while_warming() {
    World::with(Setup::pool(0), async |w| {
        w.agents.mute(true);
        let warmup = announce(w, "tab").await;
        w.wait_for("its member starts", || w.records().iter().any(|r| r.reserved.is_some())).await;
        let mut body = w.new_session();
        body["warmup"] = warmup["id"].clone();
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!((&view["launch"], &view["state"]), (&json!("warmup"), &json!("waiting")));
        w.agents.mute(false);
        w.agents.redial_all();
        w.until(&view, "active").await;
        assert_eq!(w.synced(&view).await, "synced");
        w.settled().await;
        assert_eq!(w.backend.sandboxes(), [sandbox(&view)]);
    });
}

/// F55: the session came while its warm-up's member started, and took a ready one: the other becomes anybody's.
#[test]
fn f55_a_member_of_a_hit_warmup_is_free_again() {
    World::with(Setup::pool(1), async |w| {
        w.agents.mute(true);
        // The ready one goes to a session, and its successor does not answer yet: the warm-up has to make its own.
        let first = w.session().await;
        w.wait_for("a successor starts", || w.records().len() == 2).await;
        let successor = w.records().into_iter().find(|r| r.id != sandbox(&first)).expect("a successor").id;
        let warmup = announce(w, "tab").await;
        w.wait_for("its member starts", || w.records().iter().any(|r| r.reserved.is_some())).await;
        w.wait_for("they run", || w.backend.sandboxes().len() == 3).await;
        w.agents.redial(successor);
        w.pools_full().await;
        let mut body = w.new_session();
        body["warmup"] = warmup["id"].clone();
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!((&view["launch"], sandbox(&view)), (&json!("warm"), successor));
        w.agents.mute(false);
        w.agents.redial_all();
        w.until(&view, "active").await;
        w.wait_for("nothing is held for what is over", || {
            let mine = |r: &std::sync::Arc<domain::SandboxRecord>| {
                r.session.is_none() && r.reserved.is_some_and(|x| x.to_string() == id(&warmup))
            };
            !w.records().iter().any(mine)
        })
        .await;
    });
}

/// Withdrawn and expired warm-ups give their member back, untouched; a restart in between changes nothing.
#[test]
fn f55_what_is_abandoned_is_given_back() {
    World::with(Setup::pool(2).manual_clock(), async |w| {
        w.settled().await;
        let withdrawn = announce(w, "a").await;
        let member = reserved(w, &withdrawn).await;
        let body = w.delete(&format!("/v1/warmups/{}", id(&withdrawn))).await.expect(200).json();
        assert_eq!(body["state"], "withdrawn");
        let record = |w: &World| w.records().into_iter().find(|r| r.id == member);
        w.wait_for("it is free or retired as too many", || record(w).is_none_or(|r| r.reserved.is_none()))
            .await;
        let expired = announce(w, "b").await;
        reserved(w, &expired).await;
        w.restart().await;
        assert_eq!(id(&announce(w, "b").await), id(&expired), "a restart does not forget it");
        w.pass(Duration::from_secs(61)).await;
        let view = w.get(&format!("/v1/warmups/{}", id(&expired))).await.expect(200).json();
        assert_eq!(view["state"], "expired");
        w.settled().await;
        assert!(w.records().iter().all(|r| r.reserved.is_none()));
        assert_eq!(w.pool_members().len(), 2, "back to the target");
    });
}

/// F55: another branch while typing re-syncs the same member.
#[test]
fn f55_a_change_of_branch_while_typing() {
    World::with(Setup::pool(1), async |w| {
        let branch = "feature".parse().expect("branch");
        let tip = w.commit_to(&branch, "feature work");
        let warmup = announce(w, "tab").await;
        let member = reserved(w, &warmup).await;
        let body = json!({"repo": "acme/api", "client": "tab", "branch": "feature"});
        let again = w.post("/v1/warmups", &body).await.expect(202).json();
        assert_eq!((id(&again), &again["branch"]), (id(&warmup), &json!("feature")));
        w.wait_for("it is at the other tip", || w.agents.of(member).tree().0 == Some(tip.clone())).await;
    });
}

/// F56: warm-ups have a budget of their own; beyond it they are told to come back, and sessions go on.
#[test]
fn f56_warmups_have_a_budget() {
    World::with(Setup::pool(1).change(|s| s.pool.max = 2), async |w| {
        w.settled().await;
        let body = |n: usize| json!({"repo": "acme/api", "client": format!("tab-{n}")});
        let bodies: Vec<_> = (0..80).map(body).collect();
        let all = futures_util::future::join_all(bodies.iter().map(|b| w.post("/v1/warmups", b))).await;
        let refused = all.iter().filter(|a| a.status == 503).count();
        assert_eq!(all.iter().filter(|a| a.status == 202).count() + refused, 80);
        assert!(refused >= 16, "{refused}");
        let view = w.session().await;
        w.until(&view, "active").await;
        assert!(w.backend.sandboxes().len() <= 64 + 3);
    });
}

/// F33, F34: a repeat moves the expiry and is written a moment later; a restart re-arms what was written, and
/// prolongs nothing.
#[test]
fn f33_f34_a_renewal_survives_a_restart() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        let warmup = announce(w, "tab").await;
        reserved(w, &warmup).await;
        let stored = async |w: &World| {
            let id = id(&warmup).parse().expect("id");
            w.on(move |app| async move { app.store.warmup(id).await }).await.expect("read").expect("a row")
        };
        let first = stored(w).await.expires_at;
        w.clock.advance(Duration::from_secs(40));
        let before = w.app().store.write_counts().commits;
        for _ in 0..50 {
            announce(w, "tab").await;
        }
        assert!(w.app().store.write_counts().commits < before + 50, "a repeat writes nothing by itself");
        w.wait("the renewal is written", async || (stored(w).await.expires_at > first).then_some(())).await;
        // Looking prolongs nothing.
        for _ in 0..5 {
            w.get(&format!("/v1/warmups/{}", id(&warmup))).await.expect(200);
        }
        let renewed = stored(w).await.expires_at;
        w.restart().await;
        w.pass(Duration::from_secs(30)).await;
        let view = w.get(&format!("/v1/warmups/{}", id(&warmup))).await.expect(200).json();
        assert_eq!(view["state"], "live", "70 s old, renewed after 40, good for 60");
        assert_eq!(stored(w).await.expires_at, renewed);
        w.pass(Duration::from_secs(30)).await;
        let view = w.get(&format!("/v1/warmups/{}", id(&warmup))).await.expect(200).json();
        assert_eq!(view["state"], "expired");
        assert_eq!(stored(w).await.state, domain::WarmupState::Expired);
        w.settled().await;
    });
}

/// F34: keystrokes, claims, withdrawals and the expiry race: each warm-up ends once, its row says how it ended, and
/// nothing stays held.
#[test]
fn f34_renewal_races_expiry() {
    World::with(Setup::pool(2).manual_clock().change(|s| s.pool.max = 8), async |w| {
        w.settled().await;
        let mut ids = std::collections::BTreeSet::new();
        for round in 0..25 {
            let first = announce(w, "tab").await;
            ids.insert(id(&first).to_owned());
            // To the very edge: the next look finds it due.
            w.clock.advance(Duration::from_secs(60));
            let keys = futures_util::future::join_all((0..8).map(|_| announce(w, "tab")));
            let expiry = w.on(|app| async move { app.warmups.expire().await });
            let withdraw = async {
                if round % 3 == 0 {
                    w.delete(&format!("/v1/warmups/{}", id(&first))).await;
                }
            };
            let (typed, (), ()) = futures_util::future::join3(keys, expiry, withdraw).await;
            let typed: std::collections::BTreeSet<_> = typed.iter().map(|v| id(v).to_owned()).collect();
            assert!(!typed.contains(id(&first)), "what is past its time is not renewed");
            assert_eq!(typed.len(), 1, "one that is new, whoever came first");
            ids.extend(typed);
        }
        w.pass(Duration::from_secs(61)).await;
        w.settled().await;
        assert_eq!(w.app().warmups.live_count(), 0);
        assert!(w.records().iter().all(|r| r.reserved.is_none()));
        let all = w.get("/v1/warmups?limit=200").await.expect(200).json();
        let all = all["items"].as_array().expect("items").clone();
        assert_eq!(all.len(), ids.len());
        assert!(all.iter().all(|v| ids.contains(id(v))));
        assert!(all.iter().all(|v| v["state"] == "expired" || v["state"] == "withdrawn"), "{all:?}");
        let counted: u64 = w.metric("hotbed_warmups_total").into_iter().map(|(_, n)| n as u64).sum();
        assert_eq!(counted, all.len() as u64, "each ended once");
    });
}

/// What warm-ups were worth is counted: preparation that nobody waited for, and holding for nobody.
#[test]
fn worth_and_waste_are_counted() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        let sum = |w: &World, name: &str| w.metric(name).into_iter().map(|(_, n)| n).sum::<f64>();
        let hit = announce(w, "a").await;
        let member = reserved(w, &hit).await;
        w.wait("it is prepared", async || {
            let view = w.get(&format!("/v1/warmups/{}", id(&hit))).await.expect(200).json();
            (!view["prepared_at"].is_null()).then_some(())
        })
        .await;
        w.clock.advance(Duration::from_secs(20));
        let mut body = w.new_session();
        body["warmup"] = hit["id"].clone();
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!((&view["launch"], sandbox(&view)), (&json!("warmup"), member));
        assert_eq!(sum(w, "hotbed_warmup_saved_seconds_total"), 0.0, "it was ready within the same moment");
        assert_eq!(sum(w, "hotbed_warmup_wasted_seconds_total"), 0.0);
        let wasted = announce(w, "b").await;
        reserved(w, &wasted).await;
        w.clock.advance(Duration::from_secs(15));
        w.delete(&format!("/v1/warmups/{}", id(&wasted))).await.expect(200);
        assert_eq!(sum(w, "hotbed_warmup_wasted_seconds_total"), 15.0);
        let outcomes: Vec<_> =
            w.metric("hotbed_warmups_total").into_iter().map(|(l, n)| (l, n as u64)).collect();
        assert!(outcomes.iter().any(|(l, n)| l.contains("\"hit\"") && *n == 1), "{outcomes:?}");
        assert!(outcomes.iter().any(|(l, n)| l.contains("\"withdrawn\"") && *n == 1), "{outcomes:?}");
        let list = w.get("/v1/warmups?state=hit").await.expect(200).json();
        assert_eq!(list["items"][0]["id"], hit["id"]);
        // What is over is kept for a week.
        w.pass(Duration::from_secs(6 * 24 * 3600)).await;
        assert_ne!(w.get("/v1/warmups").await.expect(200).json()["items"], json!([]));
        w.pass(Duration::from_secs(2 * 24 * 3600)).await;
        assert_eq!(w.get("/v1/warmups").await.expect(200).json()["items"], json!([]));
        w.get("/v1/warmups?state=lost").await.expect(422);
        w.settled().await;
    });
}

/// A member that goes away under a warm-up is replaced; so is one whose image is superseded (F2).
#[test]
fn what_is_held_is_kept_good() {
    World::with(Setup::pool(2), async |w| {
        let warmup = announce(w, "tab").await;
        let member = reserved(w, &warmup).await;
        w.backend.remove_from_outside(member, true);
        w.wait("another is held", async || {
            let now = reserved(w, &warmup).await;
            (now != member).then_some(())
        })
        .await;
        w.settled().await;
        let repo = w.specs[0].name.clone();
        w.commit("newer");
        w.build(&repo).await;
        let current = w.app().repos.current_image(&repo).expect("image").id;
        w.wait("one of the new image is held", async || {
            let held = reserved(w, &warmup).await;
            w.records().iter().any(|r| r.id == held && r.image == Some(current)).then_some(())
        })
        .await;
        w.settled().await;
        let held: Vec<_> = w.records().into_iter().filter(|r| r.reserved.is_some()).collect();
        assert_eq!(held.len(), 1, "{held:?}");
        let mut body = w.new_session();
        body["warmup"] = warmup["id"].clone();
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!((&view["launch"], &view["image"]), (&json!("warmup"), &json!(current.to_string())));
        w.allow_log("sandbox lost");
    });
}

/// A page holds a token of its own: it does what its client may, and nothing else. Browsers of other origins are
/// told nothing.
#[test]
fn a_page_announces_with_a_token() {
    World::with(Setup::pool(1), async |w| {
        let limits = orchestrator::warmups::Limits {
            origins: vec!["https://ui.example".into()],
            per_second: 50,
            ..Default::default()
        };
        w.app().warmups.set_limits(limits);
        let body = json!({"client": "tab", "repo": "acme/api"});
        let token = w.post("/v1/warmups/tokens", &body).await.expect(200).field("token");
        let bearer = format!("Bearer {token}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("origin", "https://ui.example"),
        ];
        let send = async |method: &str, path: &str, body: Value| {
            w.send_bare(method, path, &headers, body.to_string().as_bytes()).await
        };
        let answer =
            send("POST", "/v1/warmups", json!({"repo": "acme/api", "client": "tab"})).await.expect(202);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://ui.example"));
        let mine = answer.json();
        let other = announce(w, "another").await;
        for (client, repo) in [("another", "acme/api"), ("tab", "acme/none")] {
            send("POST", "/v1/warmups", json!({"repo": repo, "client": client})).await.expect(422);
        }
        let of = |v: &Value| format!("/v1/warmups/{}", id(v));
        send("DELETE", &of(&other), Value::Null).await.expect(404);
        let elsewhere = [
            ("GET", of(&mine)),
            ("GET", "/v1/warmups".into()),
            ("POST", "/v1/warmups/tokens".into()),
            ("GET", "/v1/sessions".into()),
            ("POST", "/v1/sessions".into()),
            ("GET", "/metrics".into()),
        ];
        for (method, path) in elsewhere {
            send(method, &path, body.clone()).await.expect(401);
        }
        // As a browser asks first.
        let ask = async |origin: &str| {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "DELETE"),
                ("access-control-request-headers", "authorization,content-type"),
            ];
            w.send_bare("OPTIONS", &of(&mine), &headers, b"").await
        };
        let yes = ask("https://ui.example").await.expect(200);
        assert_eq!(yes.header("access-control-allow-origin"), Some("https://ui.example"));
        assert!(yes.header("access-control-allow-methods").is_some_and(|m| m.contains("DELETE")), "{yes:?}");
        let no = ask("https://evil.example").await;
        assert_eq!(no.header("access-control-allow-origin"), None, "{no:?}");
        // Its rate is its own; the key's goes on.
        let body = json!({"repo": "acme/api", "client": "tab"});
        let storm =
            futures_util::future::join_all((0..200).map(|_| send("POST", "/v1/warmups", body.clone()))).await;
        let refused: Vec<_> = storm.iter().filter(|a| a.status == 429).collect();
        assert!(!refused.is_empty());
        assert!(refused.iter().all(|a| a.header("retry-after").is_some()));
        announce(w, "another").await;
        send("DELETE", &of(&mine), Value::Null).await.expect(200);
    });
}
