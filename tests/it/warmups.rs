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
