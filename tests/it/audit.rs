//! Who did what: in order, with nothing lost at a clean end, and no secret in it.

use std::time::Duration;

use config::RetentionSettings;
use serde_json::{Value, json};

use crate::world::{Setup, World, id};

async fn lines(w: &World, query: &str) -> Vec<Value> {
    let answer = w.get(&format!("/v1/audit?limit=500{query}")).await.expect(200).json();
    answer["items"].as_array().expect("items").clone()
}

#[test]
fn what_is_done_is_noted_in_order() {
    World::with(Setup::pool(1).manual_clock(), async |w| {
        assert_eq!(lines(w, "").await, Vec::<Value>::new());
        let key = json!({"name": "ui", "role": "client", "repos": ["acme/api"]});
        let key = w.post("/v1/keys", &key).await.expect(201);
        let (secret, key) = (key.field("key"), key.field("id"));
        let bearer = format!("Bearer {secret}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body =
            json!({"repo": "acme/api", "user": {"login": "ada"}, "env": {"PASS": "swordfish"}}).to_string();
        let view = w.send_bare("POST", "/v1/sessions", &headers, body.as_bytes()).await.expect(201).json();
        w.synced(&view).await;
        let at = format!("/v1/sessions/{}", id(&view));
        let exec = json!({"cmd": ["echo", "swordfish"], "wait": true}).to_string();
        let exec = w.send_bare("POST", &format!("{at}/exec"), &headers, exec.as_bytes()).await.expect(201);
        let exec = exec.field("id");
        // What only looks is not noted, what was denied is, wherever it was.
        w.send_bare("GET", &at, &headers, b"").await.expect(200);
        w.send_bare("GET", "/v1/keys", &headers, b"").await.expect(403);
        w.send_bare("POST", "/v1/repos/acme/api/builds?by=swordfish", &headers, b"{}").await.expect(403);
        w.send_bare("POST", "/v1/sessions", &[("authorization", "Bearer hbk_guess")], b"{}")
            .await
            .expect(401);
        w.send_bare("POST", "/v1/sessions", &headers, b"{}").await.expect(422);
        w.clock.advance(Duration::from_secs(60));
        w.send("DELETE", &format!("{at}?wait=true"), &[], b"").await.expect(200);

        let all = lines(w, "").await;
        let told: Vec<_> = all
            .iter()
            .map(|l| {
                ["who", "action", "outcome"].map(|f| l[f].as_str().unwrap_or_default().to_owned()).join(" | ")
            })
            .collect();
        assert_eq!(
            told,
            [
                "installation | POST /v1/keys | done",
                "ui | POST /v1/sessions | done",
                "ui | POST /v1/sessions/{id}/exec | done",
                "ui | GET /v1/keys | denied",
                "ui | POST /v1/repos/{owner}/{name}/builds | denied",
                "(nobody) | POST /v1/sessions | denied",
                "ui | POST /v1/sessions | refused",
                "installation | DELETE /v1/sessions/{id} | done",
            ]
        );
        assert_eq!(all[0]["made"], json!(key));
        assert_eq!((&all[1]["key"], &all[1]["made"]), (&json!(key), &view["id"]));
        assert_eq!((&all[1]["user"], &all[2]["user"]), (&json!("ada"), &json!("ada")));
        assert_eq!((&all[2]["subject"], &all[2]["made"]), (&json!(format!("{at}/exec")), &json!(exec)));
        assert_eq!(all[4]["subject"], "/v1/repos/acme/api/builds");
        assert!(
            all.iter().all(|l| l["from"].as_str().is_some_and(|f| f.starts_with("127.0.0.1:"))),
            "{all:?}"
        );
        let text = serde_json::to_string(&all).expect("JSON");
        for hidden in ["swordfish", "hbk_guess", &secret] {
            assert!(!text.contains(hidden), "{hidden}: {text}");
        }

        // A clean end loses nothing, and pages go on where they were.
        w.post("/v1/keys", &json!({"name": "last", "role": "client"})).await.expect(201);
        w.restart().await;
        let after = all.last().expect("a line")["seq"].as_u64().expect("number");
        let rest = lines(w, &format!("&after={after}")).await;
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert_eq!(rest[0]["action"], "POST /v1/keys");
        let since = all[7]["at"].as_str().expect("time").to_owned();
        assert_eq!(lines(w, &format!("&since={since}")).await.len(), 2);
        w.get("/v1/audit?limit=0").await.expect(422);
        w.get("/v1/audit?after=-1").await.expect(400);

        // What is old goes, as the setting says.
        let soon = RetentionSettings { audit_age: Duration::from_secs(30), ..Default::default() };
        w.clock.advance(Duration::from_secs(20));
        w.on(|app| async move {
            app.audit.reconfigure(soon);
            app.audit.shorten().await
        })
        .await
        .expect("shorten");
        assert_eq!(lines(w, "").await.len(), 2);
    });
}

/// Whoever has no key, or one that is good no longer, is written down, and so is who asks for more than he may; a flood of
/// either is two lines a minute.
#[test]
fn refusals_are_noted_and_bounded() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        let made = async |name: &str, expires: Option<u64>| {
            let body = json!({"name": name, "role": "read-only", "expires_seconds": expires});
            w.post("/v1/keys", &body).await.expect(201).field("key")
        };
        let (reader, old) = (made("reader", None).await, made("old", Some(30)).await);
        w.clock.advance(Duration::from_secs(45));
        let ask = async |method: &str, path: &str, key: &str| {
            let bearer = format!("Bearer {key}");
            let shown = [("authorization", bearer.as_str())];
            w.send_bare(method, path, if key.is_empty() { &[] } else { &shown }, b"").await.status
        };
        // Wherever, with whatever, without anything: none of it is kept as it came.
        assert_eq!(ask("GET", "/v1/sessions/ses_swordfish", "hbk_swordfish").await, 401);
        assert_eq!(ask("GET", "/v1/keys", &old).await, 401);
        assert_eq!(ask("POST", "/v1/repos/acme/api/builds", "").await, 401);
        for _ in 0..200 {
            assert_eq!(ask("POST", "/v1/sessions", &format!("swordfish.{old}.x")).await, 401);
        }
        for _ in 0..50 {
            assert_eq!(ask("POST", "/v1/sessions", &reader).await, 403);
        }
        w.clock.advance(Duration::from_secs(61));
        // The task that writes the log closes the minute.
        let written = async || {
            let store = w.app().store.clone();
            w.on(move |_| async move { store.audit(jiff::Timestamp::MIN, 0, 500).await }).await.expect("read")
        };
        let kept = w
            .wait("the minute is written", async || {
                w.on(|app| async move { app.audit.write().await }).await.expect("write");
                Some(written().await).filter(|kept| kept.len() >= 6)
            })
            .await;
        let told: Vec<_> = kept[2..]
            .iter()
            .map(|(_, l)| format!("{} | {} | {} | {} x{}", l.who, l.action, l.subject, l.status, l.times))
            .collect();
        assert_eq!(
            told,
            [
                "(nobody) | GET /v1/sessions/{id} | /v1/sessions/{id} | 401 x1",
                "reader | POST /v1/sessions | /v1/sessions | 403 x1",
                "(nobody) | POST /v1/sessions | /v1/sessions | 401 x202",
                "reader | POST /v1/sessions | /v1/sessions | 403 x49",
            ]
        );
        assert!(kept.iter().all(|(_, l)| l.from.starts_with("127.0.0.1:")), "{kept:?}");
        let all = lines(w, "").await;
        assert_eq!((all.len(), &all[4]["times"], &all[4]["outcome"]), (6, &json!(202), &json!("denied")));
        let text = serde_json::to_string(&all).expect("JSON");
        assert!(!text.contains("swordfish") && !text.contains(&old), "{text}");

        // Too often is no reason to fill the log, either; nor is what is still being counted lost at the end.
        w.app().access.rate().set(1);
        let client = json!({"name": "busy", "role": "client"});
        let busy = w.post("/v1/keys", &client).await.expect(201).field("key");
        let mut late = 0;
        for _ in 0..100 {
            late += usize::from(ask("POST", "/v1/sessions", &busy).await == 429);
        }
        w.restart().await;
        let rest: Vec<_> = lines(w, "&after=6").await;
        let late_lines: Vec<_> = rest.iter().filter(|l| l["status"] == 429).collect();
        assert!(late > 2 && late_lines.len() == 2, "{late}: {rest:?}");
        assert_eq!(late_lines.iter().filter_map(|l| l["times"].as_u64()).sum::<u64>(), late as u64);
    });
}
