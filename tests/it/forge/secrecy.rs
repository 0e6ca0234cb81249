//! Every token that this server holds is hidden wherever it would show, although nothing in it tells what it is.

use domain::testing::FakeCommand;
use serde_json::{Value, json};
use tests::github::{Fault, Mischief};

use super::{Tree, assert_nowhere, id, open, pulls_of, session, setup, sign_in};
use crate::world::{World, sandbox};

/// GitHub itself says the tokens back, in the words of its refusals, and a command prints them: neither the API's
/// errors, nor the log, nor the events of the session, nor what git or a command prints, nor anything on disk holds one.
#[test]
fn what_is_secret_shows_nowhere() {
    World::with(setup(1).manual_clock(), async |w| {
        for said in ["GitHub", "authority", "upstream", "mirror", "authentication refused"] {
            w.allow_log(said);
        }
        w.hub().odd_tokens();
        sign_in(w, "ada").await;
        let handed = w.hub().user_token("ada");
        let order = json!({"repo": "acme/api", "user": {"login": "ada"}, "user_token": handed});
        let with_handed = w.post("/v1/sessions", &order).await.expect(201).json();
        w.synced(&with_handed).await;
        let view = session(w).await;
        let tree = Tree::of(w, &view).await;
        tree.commit("Work").await;
        tree.push().await.fine();
        let secrets = w.hub().secrets();
        // The App's die with what they were made for; what is good now is the user's, and the one that was handed over.
        let held: Vec<_> = secrets.iter().filter(|s| w.hub().is_users(s)).cloned().collect();
        assert_eq!(
            held.len(),
            3,
            "access and refresh token of the sign-in, and the one that was handed over"
        );
        let words = format!("it was {} <{}>", held.join(" and "), json!(held[0]));

        let mut seen: Vec<(&str, String)> = Vec::new();
        let refusal = json!({"message": words}).to_string();
        w.hub().fault(Fault::once("POST", "/pulls", Mischief::Answer(422, vec![], refusal.clone())));
        seen.push(("pull request", open(w, &view, "Do it").await["error"].to_string()));
        w.hub().fault(Fault::once("GET", "/api/v3/user", Mischief::Answer(403, vec![], refusal)));
        let put = "/v1/users/ada/token";
        let kind = [("content-type", "application/json")];
        let error = w.send("PUT", put, &kind, json!({"token": held[0]}).to_string().as_bytes()).await;
        seen.push(("error", error.expect(403).text()));
        tree.commit("More").await;
        // A refresh of the mirror may ask in between.
        w.hub().fault(Fault::many(9, "GET", "/info/refs", Mischief::Answer(403, vec![], words.clone())));
        let push = tree.push().await;
        w.hub().heal();
        assert!(!push.ok);
        seen.push(("git", push.text));
        w.agents.of(sandbox(&view)).set(|o| o.commands = vec![("leak".into(), FakeCommand::Ends(words, 0))]);
        let exec = format!("/v1/sessions/{}/exec", id(&view));
        let done: Value = w.post(&exec, &json!({"cmd": "leak", "wait": true})).await.expect(201).json();
        seen.push(("output", done["stdout"].to_string()));
        let output = format!("{exec}/{}/output", id(&done));
        for form in ["", "?raw=stdout"] {
            seen.push(("output", w.get(&format!("{output}{form}")).await.expect(200).text()));
        }
        for (what, text) in &seen {
            assert!(text.contains("it was") && !text.contains("odd~"), "{what}: {text}");
        }
        let events = w.get(&format!("/v1/sessions/{}/events?tail=true", id(&view))).await.expect(200).text();
        assert!(events.contains("pull_request") && events.contains("it was [redacted]"), "{events}");
        assert!(!events.contains("odd~"), "{events}");
        assert!(!w.log_lines().iter().any(|line| line.contains("odd~")), "{:?}", w.log_lines());
        assert_eq!(pulls_of(w, &view).await.len(), 1);
        assert_nowhere(w, &held);
    });
}
