//! Deliveries of webhooks at the server's door, and what becomes of them.

use aws_lc_rs::hmac;
use domain::Trigger;
use serde_json::{Value, json};
use tests::github::WEBHOOK_SECRET;

use super::{at_github, git, open, session, setup, sign_in};
use crate::http::Answer;
use crate::world::{World, id};

const PATH: &str = "/v1/webhooks/github";

fn signed(secret: &str, body: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body);
    format!("sha256={}", tag.as_ref().iter().map(|b| format!("{b:02x}")).collect::<String>())
}

async fn deliver(w: &World, guid: &str, event: &str, body: &[u8], signature: &str) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("x-github-event", event),
        ("x-github-delivery", guid),
        ("x-hub-signature-256", signature),
    ];
    w.send_bare("POST", PATH, &headers, body).await
}

fn counted(w: &World, result: &str) -> f64 {
    let all = w.metric("hotbed_webhooks_total");
    all.iter().find(|(labels, _)| labels.contains(&format!("\"{result}\""))).map_or(0.0, |(_, n)| *n)
}

/// Forged, unsigned, unnamed, oversized, no JSON: refused without a trace. Signed with either secret: kept, once.
#[test]
fn only_what_is_signed_is_heard_and_once() {
    World::with(setup(0), async |w| {
        let body = br#"{"zen": "Speak like a human."}"#;
        let good = signed(WEBHOOK_SECRET, body);
        for forged in ["", "sha256=", &good.replace('a', "b"), &signed("guess", body), &good[7..]] {
            let refused = deliver(w, "g-1", "ping", body, forged).await.expect(401);
            assert_eq!(refused.json()["type"], "urn:hotbed:problem:unauthorized");
        }
        let bare =
            [("content-type", "application/json"), ("x-github-event", "ping"), ("x-github-delivery", "g-1")];
        w.send_bare("POST", PATH, &bare, body).await.expect(401);
        deliver(w, "", "ping", body, &good).await.expect(422);
        deliver(w, "g-1", "", body, &good).await.expect(422);
        deliver(w, "g-1", "ping", b"no json", &signed(WEBHOOK_SECRET, b"no json")).await.expect(422);
        // What its sender calls too large is not waited for.
        let head =
            [("content-type", "application/json"), ("x-github-event", "push"), ("x-github-delivery", "g-1")];
        let long = vec![b' '; 25 * 1024 * 1024 + 1];
        let large = [&head[..], &[("x-hub-signature-256", good.as_str())]].concat();
        // The server may hang up on the rest of it.
        if let Ok(answer) = w.try_bare("POST", PATH, &large, &long).await {
            answer.expect(413);
        }
        assert_eq!(counted(w, "taken"), 0.0);

        for (guid, secret) in [("g-1", WEBHOOK_SECRET), ("g-2", "the secret that is to come")] {
            let first = deliver(w, guid, "ping", body, &signed(secret, body)).await.expect(202);
            assert_eq!(first.json()["repeated"], false);
            let again = deliver(w, guid, "ping", body, &signed(secret, body)).await.expect(202);
            assert_eq!(again.json()["repeated"], true);
        }
        w.restart().await;
        let again = deliver(w, "g-1", "ping", body, &good).await.expect(202);
        assert_eq!(again.json()["repeated"], true, "known after a restart");
        assert_eq!(counted(w, "taken"), 0.0);
        // What an event says is not what its name says: kept, worked, given up, said.
        let odd = br#"{"ref": 7}"#;
        w.expect_log("a delivery could not be worked");
        deliver(w, "g-3", "push", odd, &signed(WEBHOOK_SECRET, odd)).await.expect(202);
        w.wait_for("it was given up", || counted(w, "failed") == 1.0).await;
        w.wait_for("nothing waits", || w.app().github.as_ref().expect("GitHub").hooks.waiting() == 0).await;
    });
}

/// Has the mirror of the first repo look at upstream.
async fn look(w: &World) -> domain::Result<bool> {
    let repo = w.specs[0].name.clone();
    w.on(|app| async move { domain::ports::Mirrors::refresh(&app.mirrors, &repo).await }).await
}

fn minted(w: &World) -> usize {
    w.hub().exchanges().iter().filter(|e| e.path.ends_with("/access_tokens")).count()
}

/// F50: the App reads with tokens that reach one repository. The one that cloned ends with the clone; all looks share
/// another, and when it is believed no longer, the next look goes on with a new one.
#[test]
fn f50_the_apps_tokens_are_few_and_end() {
    World::with(setup(1), async |w| {
        look(w).await.expect("a look");
        w.wait_for("one token is left", || w.hub().live_installation_tokens() == 1).await;
        assert_eq!(minted(w), 2, "one cloned, one is shared");
        for _ in 0..5 {
            look(w).await.expect("a look");
        }
        assert_eq!((minted(w), w.hub().live_installation_tokens()), (2, 1));
        let exchanges = w.hub().exchanges();
        w.hub().expire_tokens();
        assert_eq!(w.hub().live_installation_tokens(), 0);
        look(w).await.expect("a look with another token");
        assert_eq!((minted(w), w.hub().live_installation_tokens()), (3, 1));
        for mint in w.hub().exchanges().iter().filter(|e| e.path.ends_with("/access_tokens")) {
            let body = mint.request.as_ref().expect("a body");
            assert_eq!(body["repositories"], json!(["api"]));
            assert_eq!(body["permissions"], json!({"contents": "read", "metadata": "read"}));
        }
        let fetches = exchanges.iter().filter(|e| e.path.contains("git-upload-pack") && e.method == "GET");
        assert!(
            fetches.clone().count() > 0 && fetches.clone().all(|e| e.authority == "installation"),
            "{exchanges:?}"
        );
        // An uninstalled App reads nothing, and says what to do about it.
        w.expect_log("taken off this repository");
        w.allow_log("upstream could not be asked");
        w.allow_log("could not");
        w.allow_log("failed");
        w.hub().installed(&w.specs[0].name, false);
        w.wait_for("it was told", || w.logged("taken off this repository")).await;
        let refused = look(w).await.expect_err("it can't be read").chain();
        assert!(refused.contains("the App is not installed on acme/api"), "{refused}");
        w.hub().installed(&w.specs[0].name, true);
    });
}

/// A push to the branch that images are built from is a look, soon after it; the body is gone when it was worked.
#[test]
fn a_push_is_a_look_at_the_branch() {
    World::with(setup(0).manual_clock(), async |w| {
        w.settled().await;
        let repo = w.specs[0].name.clone();
        let builds = w.builds_of(&repo).await.len();
        let dir = tempfile::tempdir().expect("directory");
        let url = w.hub().clone_url(&repo);
        let url =
            url.replace("http://", &format!("http://x-access-token:{}@", w.hub().personal_token("ada")));
        git(dir.path(), &["clone", "-q", &url, "tree"]).await.fine();
        let tree = dir.path().join("tree");
        git(&tree, &["commit", "-q", "--allow-empty", "-m", "A change"]).await.fine();
        git(&tree, &["push", "-q", "origin", "HEAD:main"]).await.fine();
        w.wait_for("the push was told", || counted(w, "taken") >= 1.0).await;
        w.wait("a build begins by it", async || {
            w.clock.advance(std::time::Duration::from_secs(1));
            w.tick().await;
            let all = w.builds_of(&repo).await;
            (all.len() > builds).then(|| assert_eq!(all[0].trigger, Trigger::Push))
        })
        .await;
        w.builds_idle(std::time::Duration::from_secs(30)).await;
        let tip = w.upstream(&repo).tip(&crate::world::main()).expect("tip");
        assert_eq!(w.app().repos.current_image(&repo).map(|i| i.commit), tip);
    });
}

/// Out of order and repeated: what is closed stays closed, and a merge is the end.
#[test]
fn f29_deliveries_are_believed_by_their_own_time() {
    World::with(setup(1).manual_clock(), async |w| {
        sign_in(w, "ada").await;
        let view = session(w).await;
        let tree = super::Tree::of(w, &view).await;
        tree.commit("Work").await;
        tree.push().await.fine();
        assert_eq!(open(w, &view, "Do it").await["state"], "open");
        w.clock.advance(std::time::Duration::from_secs(5));
        at_github(w, "ada", "PATCH", "/pulls/1", json!({"title": "Do it well"})).await;
        w.clock.advance(std::time::Duration::from_secs(5));
        at_github(w, "ada", "PATCH", "/pulls/1", json!({"state": "closed"})).await;
        let now = async || super::pulls_of(w, &view).await.remove(0);
        w.wait("it is closed", async || (now().await["state"] == "closed").then_some(())).await;
        // All that was told of it, again and backwards, under other names.
        let told: Vec<(String, Value)> =
            w.hub().webhooks().into_iter().map(|(event, _, body)| (event, body)).collect();
        for (n, (event, body)) in told.iter().enumerate().rev() {
            let body = body.to_string();
            let signature = signed(WEBHOOK_SECRET, body.as_bytes());
            deliver(w, &format!("again-{n}"), event, body.as_bytes(), &signature).await.expect(202);
        }
        w.wait_for("all was worked", || w.app().github.as_ref().expect("GitHub").hooks.waiting() == 0).await;
        let after = now().await;
        assert_eq!((&after["state"], &after["title"]), (&json!("closed"), &json!("Do it well")), "{after}");
        let kinds = w.events(&view).await;
        assert!(kinds.iter().filter(|k| *k == "pull_request").count() >= 3, "{kinds:?} of {}", id(&view));
    });
}
