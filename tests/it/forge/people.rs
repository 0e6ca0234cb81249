//! Whose authority a push goes out with, and what is said where there is none.

use std::time::Duration;

use serde_json::{Value, json};
use tests::github::{Fault, Mischief};

use super::{Tree, assert_nowhere, open, pulls_of, session, setup, sign_in, sign_in_for};
use crate::world::{World, id};

/// F42, F51: a push is the session's user's own. Without one it is refused with the way forward, and nothing is lost;
/// what the token does not reach is refused as GitHub says it; a token that was believed no longer is renewed once.
#[test]
fn f51_pushes_go_out_as_the_sessions_user() {
    World::with(setup(2).manual_clock(), async |w| {
        w.allow_log("no authority to push");
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        let refused = tree.push().await;
        assert!(
            !refused.ok && refused.text.contains("ada has not signed in (`hotbed login`)"),
            "{refused:?}"
        );
        let by_hand = open(w, &view, "Early").await;
        assert_eq!(by_hand["state"], "refused");
        let link = by_hand["url"].as_str().expect("a link");
        assert!(link.contains("/compare/main...hotbed/"), "{link}");
        assert!(by_hand["error"].as_str().expect("words").contains("hotbed login"), "{by_hand}");

        let user = sign_in(w, "ada").await;
        assert_eq!(user["login"], "ada");
        tree.push().await.fine();
        let pushes = |w: &World| {
            let all = w.hub().exchanges();
            let pushes =
                all.into_iter().filter(|e| e.path.ends_with("/git-receive-pack") && e.method == "POST");
            pushes.map(|e| e.authority).collect::<Vec<_>>()
        };
        assert_eq!(pushes(w), ["user"]);
        // Everything but the own branch, as ever.
        for (refs, why) in [
            (vec!["HEAD:main"], "this session pushes only to its own branch"),
            (vec!["HEAD:refs/tags/v1"], "a session pushes no tags"),
            (vec![":main"], "this session pushes only to its own branch"),
            (vec!["HEAD", "HEAD:other"], "this session pushes only to its own branch"),
        ] {
            let refused = tree.git(&[&["push", "-q", "origin"], &refs[..]].concat()).await;
            assert!(!refused.ok && refused.text.contains(why), "{refs:?}: {refused:?}");
        }
        // Signed in is signed in, after a restart too; the commits carry the account.
        w.restart().await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        let shown = w.read_session(&view).await["user"]["email"].as_str().expect("an address").to_owned();
        assert!(shown.ends_with("+ada@users.noreply.127.0.0.1"), "{shown}");
        // Its time runs out, and GitHub believes it no longer before that is known here: one refresh, and on.
        tree.commit("More").await;
        w.hub().fault(Fault::once(
            "GET",
            "/user",
            Mischief::Answer(401, vec![], r#"{"message":"Bad credentials"}"#.into()),
        ));
        tree.push().await.fine();
        w.hub().heal();
        // Eight hours later the token is renewed before its use: a run of any length still pushes.
        w.clock.advance(Duration::from_secs(9 * 3600));
        let listed = w.get("/v1/users/ada").await.expect(200).json();
        assert_eq!(listed["signed_in"], true, "{listed}");
    });
}

/// A run of 74 minutes, by simulated clock: what was minted and signed in at its beginning is dead, and it still
/// pushes. F50
#[test]
fn f50_a_run_of_74_minutes_still_pushes() {
    World::with(setup(1).manual_clock(), async |w| {
        sign_in(w, "ada").await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Begin").await;
        tree.push().await.fine();
        for minute in 1..=74 {
            w.clock.advance(Duration::from_secs(60));
            if minute % 20 == 0 {
                tree.commit(&format!("Minute {minute}")).await;
                tree.push().await.fine();
            }
        }
        // GitHub ends all tokens before their time, within the minutes in which the last push's is not asked about
        // again: the push is not believed, nothing of it was taken, and it goes out with another token by itself.
        w.hub().expire_tokens();
        tree.commit("The end").await;
        let pushed = tree.push().await;
        assert!(!pushed.text.contains("Authentication failed"), "{pushed:?}");
        pushed.fine();
        let head = w.upstream(&w.specs[0].name).tip(&tree.branch.parse().expect("branch")).expect("tip");
        let here = tree.git(&["rev-parse", "HEAD"]).await.text.trim().to_owned();
        assert_eq!(head.map(|c| c.to_string()), Some(here));
    });
}

/// Revoked at GitHub: told by webhook, pushes and pull requests say what to do, and signing in again goes on where it
/// stood. F51
#[test]
fn f51_revoked_means_sign_in_again() {
    World::with(setup(1).manual_clock(), async |w| {
        w.allow_log("no authority to push");
        sign_in(w, "ada").await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        tree.push().await.fine();
        w.hub().revoke_user("ada");
        w.wait("it was told", async || {
            let ada = w.get("/v1/users/ada").await.expect(200).json();
            (ada["signed_in"] == false)
                .then(|| assert!(ada["why"].as_str().is_some_and(|y| y.contains("revoked"))))
        })
        .await;
        tree.commit("More").await;
        let refused = tree.push().await;
        assert!(!refused.ok && refused.text.contains("ada has to sign in again"), "{refused:?}");
        let by_hand = open(w, &view, "Do it").await;
        assert!(by_hand["error"].as_str().is_some_and(|e| e.contains("sign in again")), "{by_hand}");
        sign_in(w, "ada").await;
        tree.push().await.fine();
        let opened = open(w, &view, "Do it").await;
        assert_eq!((&opened["state"], &opened["number"]), (&json!("open"), &json!(1)), "{opened}");
        assert_eq!(w.hub().pulls(&w.specs[0].name)[0]["user"]["login"], "ada");
    });
}

/// A token that a trusted client hands over: for this session, in memory alone, and only its user's own. A personal
/// one is kept sealed.
#[test]
fn tokens_that_are_handed_over() {
    World::with(setup(1).manual_clock(), async |w| {
        w.allow_log("no authority to push");
        let ada = w.hub().user_token("ada");
        let body = json!({"repo": "acme/api", "user": {"login": "ada"}, "user_token": ada});
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert!(!view.to_string().contains(&ada));
        assert_eq!(w.synced(&view).await, "synced");
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        tree.push().await.fine();
        assert_eq!(open(w, &view, "Do it").await["state"], "open");
        // Somebody else's is no use.
        let bea = w.hub().user_token("bea");
        let path = format!("/v1/sessions/{}/user-token", id(&view));
        w.send(
            "PUT",
            &path,
            &[("content-type", "application/json")],
            json!({"token": bea}).to_string().as_bytes(),
        )
        .await
        .expect(204);
        tree.commit("More").await;
        let refused = tree.push().await;
        assert!(!refused.ok && refused.text.contains("is bea's, and the session is ada's"), "{refused:?}");

        let pat = w.hub().personal_token("ada");
        let put = async |login: &str, token: &str| {
            let body = json!({"token": token}).to_string();
            let path = format!("/v1/users/{login}/token");
            w.send("PUT", &path, &[("content-type", "application/json")], body.as_bytes()).await
        };
        let kept: Value = put("ada", &pat).await.expect(200).json();
        assert_eq!(kept["signed_in"], true);
        put("bea", &pat).await.expect(422);
        put("ada", "no token\n").await.expect(422);
        put("ada", "ghp_never").await.expect(403);
        let all = w.get("/v1/users").await.expect(200);
        assert!(!all.text().contains(&pat) && all.text().contains("\"ada\""));
        w.restart().await;
        assert_nowhere(w, &[pat, ada, bea]);
        w.delete("/v1/users/ada").await.expect(204);
        w.get("/v1/users/ada").await.expect(404);
        assert_eq!(pulls_of(w, &view).await.len(), 1);
    });
}

/// The vault's key is exchanged: the old one opens for one start more, at which everything comes under the new one.
#[test]
fn the_vaults_key_is_exchanged() {
    World::with(setup(0).manual_clock(), async |w| {
        sign_in(w, "ada").await;
        let (old, new) = (w.vault_keys.clone(), "1b".repeat(32));
        let signed_in =
            async |w: &World| w.get("/v1/users/ada").await.expect(200).json()["signed_in"].clone();
        w.vault_keys = format!("{new}\n{old}");
        w.restart().await;
        assert_eq!(signed_in(w).await, true);
        // The old one is destroyed.
        w.vault_keys = new;
        w.restart().await;
        assert_eq!(signed_in(w).await, true);
        assert_eq!(sign_in(w, "ada").await["login"], "ada");
    });
}

/// A token that was handed over is gone after a restart: the session says so, and what to do; so do its push and its
/// pull request. Handed over again, it goes on. F51
#[test]
fn f51_a_handed_token_is_gone_after_a_restart() {
    World::with(setup(1).manual_clock(), async |w| {
        w.allow_log("no authority to push");
        let token = w.hub().user_token("ada");
        let body = json!({"repo": "acme/api", "user": {"login": "ada"}, "user_token": token});
        let view = w.post("/v1/sessions", &body).await.expect(201).json();
        assert_eq!(w.synced(&view).await, "synced");
        w.restart().await;
        let path = format!("/v1/sessions/{}/user-token", id(&view));
        let way = format!("hand it over again (`PUT {path}`)");
        w.wait("the session says so", async || {
            let said =
                w.get(&format!("/v1/sessions/{}/events?tail=true", id(&view))).await.expect(200).text();
            (said.contains("user_token") && said.contains(&way)).then_some(())
        })
        .await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        let refused = tree.push().await;
        assert!(!refused.ok && refused.text.contains("hand it over again"), "{refused:?}");
        let by_hand = open(w, &view, "Do it").await;
        assert!(by_hand["error"].as_str().is_some_and(|e| e.contains(&way)), "{by_hand}");
        let again = json!({"token": token}).to_string();
        w.send("PUT", &path, &[("content-type", "application/json")], again.as_bytes()).await.expect(204);
        tree.push().await.fine();
        assert_eq!(open(w, &view, "Do it").await["state"], "open");
    });
}

/// A sign-in for one repo: its token reaches that one, and GitHub lets it do nothing elsewhere.
#[test]
fn a_sign_in_may_be_for_one_repo() {
    World::with(setup(1).manual_clock(), async |w| {
        w.hub().repo(&"acme/other".parse().expect("name"));
        w.hub().collaborator(&"acme/other".parse().expect("name"), "ada", tests::github::Grade::Write);
        w.post("/v1/sign-ins/device", &json!({"repo": "acme/other"})).await.expect(404);
        w.post("/v1/sign-ins/device", &json!({"repo": "no name"})).await.expect(422);
        sign_in_for(w, "ada", Some("acme/api")).await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        tree.push().await.fine();
        assert_eq!(open(w, &view, "Do it").await["state"], "open");
        assert_eq!(w.hub().reach_of_users(), [Some("acme/api".to_owned())]);
    });
}

/// By the web: the state is good once, and only where it was begun.
#[test]
fn the_web_flow() {
    World::with(setup(0), async |w| {
        let body = json!({"redirect_uri": "http://127.0.0.1:1/back"});
        let begun = w.post("/v1/sign-ins/web", &body).await.expect(201).json();
        let back = w.hub().consent(begun["url"].as_str().expect("an address"), "ada").expect("a way back");
        let query = back.split_once('?').expect("a query").1;
        let field = |name: &str| {
            let found = query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}=")));
            found.expect("a field").to_owned()
        };
        assert_eq!(field("state"), begun["state"].as_str().expect("a state"));
        let finish = json!({"state": field("state"), "code": field("code")});
        let user = w.post("/v1/sign-ins/web/finish", &finish).await.expect(200).json();
        assert_eq!((&user["login"], &user["signed_in"]), (&json!("ada"), &json!(true)));
        w.post("/v1/sign-ins/web/finish", &finish).await.expect(403);
        w.post("/v1/sign-ins/web/finish", &json!({"state": "x", "code": "y"})).await.expect(403);
        let gone = w.post("/v1/sign-ins/device/none", &json!({})).await.expect(200).json();
        assert_eq!(gone["state"], "expired");
    });
}
