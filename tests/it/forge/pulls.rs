//! The life of a pull request, from the session's commit to its merge, and what is made up for when nobody told.

use std::time::Duration;

use serde_json::{Value, json};
use tests::github::{Fault, Mischief};

use super::{Tree, at_github, open, pulls_of, session, setup, sign_in};
use crate::world::{World, id};

async fn pushed(w: &World) -> (Value, Tree) {
    sign_in(w, "ada").await;
    let view = session(w).await;
    let tree = Tree::of(w, &view).await;
    tree.commit("Work").await;
    tree.push().await.fine();
    (view, tree)
}

/// F52: one pull request under the user's name, however often it is asked for; its author can't approve it, a reviewer
/// can; merged, the session knows.
#[test]
fn f52_from_commit_to_merge() {
    World::with(setup(1).manual_clock(), async |w| {
        let (view, tree) = pushed(w).await;
        let first = open(w, &view, "Do it").await;
        let again = open(w, &view, "Do it again").await;
        assert_eq!((&first["number"], &again["number"]), (&json!(1), &json!(1)), "{first} {again}");
        assert_eq!(first["id"], again["id"], "one row");
        let there = w.hub().pulls(&w.specs[0].name);
        assert_eq!(there.len(), 1);
        let says = (&there[0]["user"]["login"], &there[0]["title"]);
        assert_eq!(says, (&json!("ada"), &json!("Do it again")), "what is asked for last counts");
        w.clock.advance(Duration::from_secs(60));
        tree.commit("Mend it").await;
        tree.push().await.fine();
        w.clock.advance(Duration::from_secs(60));
        let approve = json!({"event": "APPROVE"});
        let (status, refused) = at_github(w, "ada", "POST", "/pulls/1/reviews", approve.clone()).await;
        assert_eq!(status, 422, "{refused}");
        w.hub().collaborator(&w.specs[0].name, "bea", tests::github::Grade::Write);
        assert_eq!(at_github(w, "bea", "POST", "/pulls/1/reviews", approve).await.0, 200);
        w.clock.advance(Duration::from_secs(60));
        assert_eq!(at_github(w, "bea", "PUT", "/pulls/1/merge", json!({})).await.0, 200);
        let merged = w
            .wait("the session knows", async || {
                let all = pulls_of(w, &view).await;
                all.iter().all(|p| p["state"] == "merged" && p["approvals"] == 1).then_some(all)
            })
            .await;
        assert_eq!((&merged[0]["revisions"], &merged[0]["approvals"]), (&json!(1), &json!(1)), "{merged:?}");
        assert!(merged[0]["merged_at"].is_string() && merged[0]["opened_at"].is_string());
        let ends = w.metric("hotbed_pull_request_ends_total");
        assert!(ends.iter().any(|(labels, n)| labels.contains("merged") && *n == 1.0), "{ends:?}");
        assert_eq!(w.metric("hotbed_sessions_merged_total").iter().map(|(_, n)| n).sum::<f64>(), 1.0);
        let other = json!({"repo": "acme/api", "user": {"login": "bea"}});
        let other = w.post("/v1/sessions", &other).await.expect(201).json();
        let stats = w.get("/v1/stats?days=7").await.expect(200).json();
        let ada = &stats["outcomes"]["by_user"]["ada"];
        for (what, value) in
            [("sessions", 1), ("with_merged", 1), ("pull_requests", 1), ("merged", 1), ("closed", 0)]
        {
            assert_eq!(ada[what], value, "{what} in {stats}");
        }
        assert_eq!((&ada["approval_rate"], &ada["revisions"]), (&json!(1.0), &json!(1.0)), "{stats}");
        assert!(ada["seconds_to_merge"].as_f64().is_some_and(|s| (180.0..182.0).contains(&s)), "{stats}");
        assert_eq!(stats["outcomes"]["by_repo"]["acme/api"]["sessions"], 2);
        assert_eq!(stats["outcomes"]["by_user"]["bea"]["with_pull_request"], 0);
        assert_eq!(stats["prompting"]["people"], 2, "{stats}");
        w.synced(&other).await;
        w.clock.advance(Duration::from_secs(400));
        let later = w.get("/v1/stats").await.expect(200).json();
        assert_eq!(later["prompting"]["people"], 0, "{later}");
        w.get("/v1/stats?days=0").await.expect(422);
    });
}

/// Nobody told, and it is found out: deliveries that failed are asked for again, and what is open is asked about.
#[test]
fn what_was_missed_is_made_up_for() {
    World::with(setup(1).manual_clock(), async |w| {
        let (view, _tree) = pushed(w).await;
        assert_eq!(open(w, &view, "Do it").await["state"], "open");
        // Nobody listens where GitHub delivers to.
        w.hub().webhooks_to(Some("http://127.0.0.1:1/v1/webhooks/github"));
        w.hub().collaborator(&w.specs[0].name, "bea", tests::github::Grade::Write);
        w.clock.advance(Duration::from_secs(60));
        at_github(w, "bea", "POST", "/pulls/1/reviews", json!({"event": "APPROVE"})).await;
        w.clock.advance(Duration::from_secs(60));
        at_github(w, "bea", "PUT", "/pulls/1/merge", json!({})).await;
        // The start asks about what is open, and for what was missed.
        w.restart().await;
        w.wait("the merge is known, and the review", async || {
            let all = pulls_of(w, &view).await;
            (all[0]["state"] == "merged" && all[0]["approvals"] == 1).then_some(())
        })
        .await;
    });
}

/// What is drawn from the branch follows it, in the repository's own form; what somebody writes at GitHub stays.
#[test]
fn what_it_says_follows_the_branch() {
    World::with(setup(1).manual_clock(), async |w| {
        let (view, tree) = pushed(w).await;
        let path = format!("/v1/sessions/{}/pull-requests", id(&view));
        let opened = w.post(&path, &json!({})).await.expect(201).json();
        assert_eq!((&opened["title"], &opened["state"]), (&json!("Work"), &json!("open")), "{opened}");
        let says = async |what: &str, title: &str, body: &str| {
            let (title, body) = (json!(title), json!(body));
            w.wait(what, async || {
                let there = &w.hub().pulls(&w.specs[0].name)[0];
                (there["title"] == title && there["body"] == body).then_some(())
            })
            .await;
        };
        says("one commit says it all", "Work", "").await;
        tree.commit("More work").await;
        tree.push().await.fine();
        says("both commits are listed", "Work", "- Work\n- More work").await;
        let mine = json!({"title": "Mine"});
        assert_eq!(at_github(w, "ada", "PATCH", "/pulls/1", mine).await.0, 200);
        tree.commit("Even more").await;
        tree.push().await.fine();
        says("the title is the user's", "Mine", "- Work\n- More work\n- Even more").await;
        w.post(&path, &json!({"title": "Asked for", "body": "So be it"})).await.expect(201);
        says("what is asked for counts", "Asked for", "So be it").await;
        tree.commit("The last").await;
        tree.push().await.fine();
        w.wait("the push is known", async || {
            let head = pulls_of(w, &view).await[0]["revisions"].as_u64()?;
            (head >= 3).then_some(())
        })
        .await;
        says("what was asked for stays", "Asked for", "So be it").await;
        let updates = w.metric("hotbed_pull_requests_total");
        assert!(updates.iter().any(|(labels, n)| labels.contains("updated") && *n >= 3.0), "{updates:?}");
    });
}

/// F52: the answer is lost and the pull request is there; GitHub is away; limits. Whatever it was, there is one in the
/// end, and until then the row waits.
#[test]
fn f52_answers_that_are_lost() {
    World::with(setup(1), async |w| {
        w.allow_log("GitHub");
        let (view, _tree) = {
            w.hub().user("ada");
            let token = json!({"token": w.hub().personal_token("ada")}).to_string();
            let kind = [("content-type", "application/json")];
            w.send("PUT", "/v1/users/ada/token", &kind, token.as_bytes()).await.expect(200);
            let view = session(w).await;
            let tree = Tree::of(w, &view).await;
            tree.commit("Work").await;
            tree.push().await.fine();
            (view, tree)
        };
        w.hub().fault(Fault::many(1, "GET", "/pulls", Mischief::Answer(502, vec![], String::new())));
        w.hub().fault(Fault::once("POST", "/pulls", Mischief::DoneThenSilence));
        let waits = open(w, &view, "Do it").await;
        assert_eq!(waits["state"], "pending", "{waits}");
        let all = w
            .wait("it was asked again", async || {
                let all = pulls_of(w, &view).await;
                all.iter().all(|p| p["state"] == "open").then_some(all)
            })
            .await;
        assert!(all.len() == 1 && all[0]["number"] == 1, "{all:?}");
        // The same of a change: the row waits, and the forge is told in the end.
        w.hub().fault(Fault::many(1, "PATCH", "/pulls", Mischief::Answer(502, vec![], String::new())));
        w.hub().fault(Fault::once("PATCH", "/pulls", Mischief::DoneThenSilence));
        let changed = open(w, &view, "Once more").await;
        assert!(changed["state"] == "open" && changed["error"].is_string(), "{changed}");
        w.wait("it was told again", async || {
            let all = pulls_of(w, &view).await;
            (all[0]["title"] == "Once more" && all[0]["error"].is_null()).then_some(())
        })
        .await;
        let there = w.hub().pulls(&w.specs[0].name);
        assert_eq!((there.len(), &there[0]["title"]), (1, &json!("Once more")));
    });
}
