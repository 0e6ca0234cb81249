//! How much one user and one repo may hold at a time.

use config::QuotaSettings;
use orchestrator::sessions::NewSession;
use serde_json::json;

use crate::world::{Setup, World, ada, id, spec};

fn claim() -> NewSession {
    NewSession {
        repo: "acme/api".parse().expect("repo"),
        user: ada(),
        base: None,
        branch: None,
        warmup: None,
        snapshot: None,
        parent: None,
        timeout: None,
        idle_end: None,
        env: Default::default(),
        trace: None,
    }
}

/// A hundred claims at once at a limit of seven: seven sessions, ninety-three clear answers, and nobody's place is lost.
#[test]
fn a_hundred_claims_at_the_limit() {
    World::with(Setup::pool(10), async |w| {
        w.app().quotas.set(QuotaSettings { sessions_per_user: Some(7), ..Default::default() });
        let (made, refused) = w
            .on(|app| async move {
                let claims: Vec<_> = (0..100)
                    .map(|_| {
                        let sessions = app.sessions.clone();
                        tokio::spawn(async move { sessions.create(claim(), None).await })
                    })
                    .collect();
                let (mut made, mut refused) = (Vec::new(), Vec::new());
                for claim in claims {
                    match claim.await.expect("no panic") {
                        Ok(created) => made.push(created.record.id),
                        Err(e) => refused.push(e),
                    }
                }
                (made, refused)
            })
            .await;
        assert_eq!((made.len(), refused.len()), (7, 93));
        for e in &refused {
            assert_eq!(e.kind(), domain::ErrorKind::Exhausted, "{e:?}");
            assert!(e.to_string().contains("`ada` has 7 live sessions"), "{e}");
        }
        let metrics = w.get("/metrics").await.text();
        let counted = r#"hotbed_quota_refusals_total{repo="acme/api",quota="user_sessions"} 93"#;
        assert!(metrics.contains(counted), "{metrics}");

        // Over HTTP: 503, and when to come back. Another user is not held up.
        let body = |login: &str| json!({"repo": "acme/api", "user": {"login": login}});
        let answer = w.post("/v1/sessions", &body("Ada")).await.expect(503);
        assert!(answer.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)));
        w.post("/v1/sessions", &body("bob")).await.expect(201);

        // The limit outlives a restart, and an end makes room for one.
        w.restart().await;
        w.app().quotas.set(QuotaSettings { sessions_per_user: Some(7), ..Default::default() });
        w.post("/v1/sessions", &body("ada")).await.expect(503);
        w.send("DELETE", &format!("/v1/sessions/{}?wait=true", made[0]), &[], b"").await.expect(200);
        w.post("/v1/sessions", &body("ada")).await.expect(201);
        w.post("/v1/sessions", &body("ada")).await.expect(503);
    });
}

/// A claim that fails for another reason keeps no place, and one that is asked again under its key needs none.
#[test]
fn only_what_lives_holds_a_place() {
    World::with(Setup::repos(vec![spec("acme/api", 1), spec("acme/web", 1)]), async |w| {
        let limits = QuotaSettings {
            sessions_per_repo: Some(1),
            warmups_per_repo: Some(1),
            ..QuotaSettings::default()
        };
        w.app().quotas.set(limits);
        let user = json!({"login": "ada"});
        let wrong = json!({"repo": "acme/api", "user": user, "timeout_seconds": 0});
        for _ in 0..3 {
            w.post("/v1/sessions", &wrong).await.expect(422);
        }
        let body = json!({"repo": "acme/api", "user": user}).to_string();
        let key = [("idempotency-key", "one")];
        w.send("POST", "/v1/sessions", &key, body.as_bytes()).await.expect(201);
        w.send("POST", "/v1/sessions", &key, body.as_bytes()).await.expect(200);
        let refused = w.send("POST", "/v1/sessions", &[], body.as_bytes()).await.expect(503);
        assert!(refused.text().contains("sessions_per_repo"), "{}", refused.text());
        w.post("/v1/sessions", &json!({"repo": "acme/web", "user": user})).await.expect(201);

        // Warm-ups of a repo: the same one again is no second one.
        let tab = |n: u32| json!({"repo": "acme/web", "client": format!("tab {n}")});
        let first = w.post("/v1/warmups", &tab(1)).await.expect(202).field("id");
        w.post("/v1/warmups", &tab(1)).await.expect(202);
        let refused = w.post("/v1/warmups", &tab(2)).await.expect(503);
        assert!(refused.text().contains("warmups_per_repo"), "{}", refused.text());
        w.send("DELETE", &format!("/v1/warmups/{first}"), &[], b"").await.expect(200);
        w.post("/v1/warmups", &tab(2)).await.expect(202);
    });
}

/// A fork that a quota refuses, or that asks for what can't be, leaves no snapshot behind.
#[test]
fn a_fork_is_refused_before_anything_is_captured() {
    World::with(Setup::pool(2), async |w| {
        let view = w.session().await;
        w.synced(&view).await;
        w.app().quotas.set(QuotaSettings { sessions_per_user: Some(1), ..Default::default() });
        let fork = format!("/v1/sessions/{}/fork", id(&view));
        let snapshots = async || w.get("/v1/snapshots").await.expect(200).json()["items"].clone();
        let key = [("idempotency-key", "one"), ("content-type", "application/json")];
        let refused = w.send("POST", &fork, &key, b"{}").await.expect(503);
        assert!(refused.text().contains("sessions_per_user"), "{}", refused.text());
        let wrong = json!({"branch": "main", "user": {"login": "bob"}});
        let refused = w.post(&fork, &wrong).await.expect(422);
        assert!(refused.text().contains("the repo's own"), "{}", refused.text());
        assert_eq!(snapshots().await, json!([]));

        // The same key, when there is room: one fork, from one snapshot, and its place is taken once.
        w.app().quotas.set(QuotaSettings { sessions_per_user: Some(2), ..Default::default() });
        let made = w.send("POST", &fork, &key, b"{}").await.expect(201).field("id");
        assert_eq!(w.send("POST", &fork, &key, b"{}").await.expect(200).field("id"), made);
        assert_eq!(snapshots().await.as_array().map(Vec::len), Some(1));
        w.post(&fork, &json!({})).await.expect(503);
        w.send("DELETE", &format!("/v1/sessions/{made}?wait=true"), &[], b"").await.expect(200);
        w.post(&fork, &json!({})).await.expect(201);
    });
}
