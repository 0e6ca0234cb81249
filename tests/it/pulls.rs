//! Pull requests through the outbox, with the local forge.

use std::collections::BTreeSet;

use domain::Branch;
use serde_json::{Value, json};

use crate::world::{Crash, Setup, World, id};

/// A session whose branch has a commit upstream, as a push would have left it.
async fn pushed(w: &World) -> Value {
    let view = w.session().await;
    assert_eq!(w.synced(&view).await, "synced");
    let branch: Branch = view["branch"].as_str().expect("branch").parse().expect("branch");
    let repo = &w.specs[0].name;
    let tip = w.upstream(repo).tip(&crate::world::main()).expect("tip").expect("main");
    w.upstream(repo).set_branch(&branch, &tip).expect("branch");
    w.commit_to(&branch, "the session's work");
    view
}

/// F52: asked many times, at once and again, after a crash too: one pull request.
#[test]
fn f52_exactly_one_pull_request() {
    World::with(Setup::pool(1), async |w| {
        let view = pushed(w).await;
        let path = format!("/v1/sessions/{}/pull-requests", id(&view));
        let body = json!({"title": "Do it"});
        let key = [("idempotency-key", "pr"), ("content-type", "application/json")];
        let text = body.to_string();
        let at_once = (0..16).map(|n| {
            let headers: &[(&str, &str)] = if n % 2 == 0 { &key } else { &key[1..] };
            w.send("POST", &path, headers, text.as_bytes())
        });
        let at_once = futures_util::future::join_all(at_once).await;
        assert!(at_once.iter().all(|a| matches!(a.status, 200 | 201)), "{at_once:?}");
        let keyed: BTreeSet<_> = at_once.iter().step_by(2).map(|a| a.field("id")).collect();
        assert_eq!(keyed.len(), 1, "one key, one wish");
        // Those that came while another asked are in the outbox, and find what that one opened.
        let numbers = w
            .wait("the outbox is empty", async || {
                let all = w.get(&path).await.expect(200).json();
                let items = all["items"].as_array().expect("items").clone();
                let open = items.iter().all(|p| p["state"] == "open");
                open.then(|| items.iter().map(|p| p["number"].to_string()).collect::<BTreeSet<_>>())
            })
            .await;
        assert_eq!(numbers, BTreeSet::from(["1".to_owned()]));
        w.crash(Crash::TasksFirst).await;
        let again = w.send("POST", &path, &key, text.as_bytes()).await.expect(200).json();
        assert_eq!((&again["number"], &again["state"]), (&json!(1), &json!("open")));
        w.end(&view).await;
        let again = w.post(&path, &body).await.expect(201).json();
        assert_eq!(again["number"], json!(1), "an ended session's branch still has its one pull request");
    });
}

/// Nothing was pushed: refused, and said so; then it works.
#[test]
fn nothing_to_open() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let path = format!("/v1/sessions/{}/pull-requests", id(&view));
        let refused = w.post(&path, &json!({"title": "Nothing"})).await.json();
        assert!(refused["state"] == "refused" || refused["status"].is_number(), "{refused}");
        let view = pushed(w).await;
        let path = format!("/v1/sessions/{}/pull-requests", id(&view));
        let open = w.post(&path, &json!({"title": "Something"})).await.expect(201).json();
        assert_eq!(open["state"], "open");
        let listed = w.get(&path).await.expect(200).json();
        assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    });
}
