//! What happens in the whole installation, followed live.

use std::time::Duration;

use futures_util::StreamExt;
use orchestrator::client::Client;
use serde_json::{Value, json};

use crate::access::with;
use crate::world::{Setup, World, id, spec};

/// A number that no event ever has, and a word of the refusal.
const BEYOND: (&str, &str) = ("after=9223372036854775808", "expected 0 to");

/// What the ring has, as a key sees it.
async fn now(w: &World, key: &str, query: &str) -> Vec<Value> {
    let text =
        with(w, key, "GET", &format!("/v1/events?tail=true{query}"), &Value::Null).await.expect(200).text();
    text.lines()
        .filter_map(|l| l.strip_prefix("data:"))
        .map(|l| serde_json::from_str(l).expect("JSON"))
        .collect()
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|e| e["kind"].as_str()).collect()
}

#[test]
fn what_happens_is_told_in_order_and_to_whom_it_concerns() {
    World::with(Setup::repos(vec![spec("acme/api", 1), spec("acme/web", 0)]), async |w| {
        let own = w.app().api_key.clone();
        let view = w.session().await;
        w.synced(&view).await;
        w.end(&view).await;
        let session = id(&view);

        let all = now(w, &own, "").await;
        let seqs: Vec<u64> = all.iter().filter_map(|e| e["seq"].as_u64()).collect();
        assert!(seqs.is_sorted_by(|a, b| a < b) && seqs.len() == all.len(), "{all:?}");
        let of_session = now(w, &own, &format!("&session={session}")).await;
        assert_eq!(
            kinds(&of_session),
            ["session_started", "session_ready", "session_ended"],
            "{of_session:?}"
        );
        let started = &of_session[0];
        assert_eq!((&started["repo"], &started["outcome"]), (&json!("acme/api"), &json!("warm")));
        assert!(started["words"].as_str().is_some_and(|t| t.contains("ada")), "{started}");

        let builds = now(w, &own, "&repo=acme/web&kind=build_started,build_ended,image_current").await;
        assert_eq!(kinds(&builds), ["build_started", "image_current", "build_ended"], "{builds:?}");
        assert_eq!(builds[0]["subject"], builds[2]["subject"]);
        assert_eq!(builds[2]["outcome"], "succeeded");
        let targets = now(w, &own, "&kind=pool_target&repo=acme/api").await;
        assert_eq!(targets.last().expect("a target")["outcome"], "1", "{targets:?}");

        // A key that is limited hears of its own repos, and nothing of the installation.
        let web = json!({"name": "web", "role": "read-only", "repos": ["acme/web"]});
        let web = w.post("/v1/keys", &web).await.expect(201).field("key");
        let heard = now(w, &web, "").await;
        assert!(!heard.is_empty() && heard.iter().all(|e| e["repo"] == "acme/web"), "{heard:?}");
        with(w, &web, "GET", "/v1/events?repo=acme/api", &Value::Null).await.expect(404);
        assert!(now(w, &web, &format!("&session={session}")).await.is_empty());

        for (query, word) in
            [("repo=acme/none", "acme/none"), ("kind=nothing", "expected one of"), ("x=1", "x"), BEYOND]
        {
            let answer = w.get(&format!("/v1/events?{query}")).await;
            assert!((400..500).contains(&answer.status), "{query}: {}", answer.status);
            assert!(answer.text().contains(word), "{}", answer.text());
        }
        // A header is no place for refusals: it comes from the browser itself. What it has had is lost.
        let last = u64::MAX.to_string();
        let resumed = w.send("GET", "/v1/events?tail=true", &[("last-event-id", &last)], b"").await;
        assert!(resumed.expect(200).text().starts_with("event: lost"));
        let log = w.get(&format!("/v1/sessions/{session}/events?{}", BEYOND.0)).await.expect(400);
        assert!(log.text().contains("after") && log.text().contains(BEYOND.1), "{}", log.text());
    });
}

/// What comes is told as it comes; whoever was away goes on behind what he has, and is told what he missed.
#[test]
fn a_follower_goes_on_where_he_was() {
    World::with(Setup::pool(1), async |w| {
        let own = w.app().api_key.clone();
        let client = Client::new(w.client().address.clone(), own.clone());
        let last = now(w, &own, "").await.last().and_then(|e| e["seq"].as_u64()).expect("something");
        let mut lines =
            client.lines(&format!("/v1/events?after={last}&kind=session_started")).await.expect("a stream");
        let view = w.session().await;
        let heard = async {
            while let Some(Ok(line)) = lines.next().await {
                if line.contains(id(&view)) {
                    return;
                }
            }
            panic!("the stream ended");
        };
        tokio::time::timeout(Duration::from_secs(20), heard).await.expect("it is told");
        drop(lines);

        let path = format!("/v1/events?tail=true&after={last}");
        let again = w.get(&path).await.expect(200).text();
        assert!(again.contains(id(&view)) && !again.contains("event: lost"), "{again}");
        let first = "id: ".len() + again.find("id: ").expect("an id");
        let seq: u64 =
            again[first..].split('\n').next().and_then(|n| n.trim().parse().ok()).expect("a number");
        assert!(seq > last);

        // After a restart the numbers go on, and what was before is no longer there.
        w.synced(&view).await;
        w.restart().await;
        w.app().feed.tell(orchestrator::feed::News::of(orchestrator::feed::Kind::Engine));
        let after = w.get(&path).await.expect(200).text();
        assert!(after.starts_with("event: lost"), "{after}");
        let fresh = now(w, &own, "").await;
        assert!(fresh.iter().all(|e| e["seq"].as_u64() > Some(seq)), "{fresh:?}");
        let headers = [("last-event-id", last.to_string())];
        let headers: Vec<_> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
        let resumed = w.send("GET", "/v1/events?tail=true", &headers, b"").await.expect(200).text();
        assert!(resumed.starts_with("event: lost"), "{resumed}");
    });
}
