//! What the API says to requests that are wrong: one clear problem, and nothing has changed.

use serde_json::{Value, json};

use crate::http::Answer;
use crate::world::{Setup, World, id, sandbox};

/// A problem of RFC 9457 with this status whose detail names what is wrong.
#[track_caller]
fn problem(answer: &Answer, status: u16, names: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{text}");
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{text}");
    let json = answer.json();
    assert_eq!(json["status"], status, "{text}");
    assert!(json["type"].as_str().is_some_and(|t| t.starts_with("urn:hotbed:problem:")), "{text}");
    assert!(json["title"].is_string(), "{text}");
    assert!(json["detail"].as_str().is_some_and(|d| d.contains(names)), "`{names}` is not in: {text}");
}

/// Everything that a wrong request could have changed.
async fn snapshot_of(w: &World) -> Value {
    w.settled().await;
    let mut all = Vec::new();
    for path in ["/v1/sessions", "/v1/snapshots", "/v1/repos/acme/api/builds", "/v1/images"] {
        all.push(w.get(path).await.expect(200).json());
    }
    let mut sandboxes: Vec<_> =
        w.records().iter().map(|r| (r.id.to_string(), format!("{:?}", r.state))).collect();
    sandboxes.sort();
    json!([all, sandboxes])
}

#[test]
fn wrong_session_requests() {
    World::with(Setup::pool(1), async |w| {
        let before = snapshot_of(w).await;
        let user = json!({"login": "ada"});
        let bad = [
            (json!({"user": user}), 422, "`repo` is missing"),
            (json!({"repo": "acme/api"}), 422, "user"),
            (json!({"repo": "acme/none", "user": user}), 404, "acme/none"),
            (json!({"repo": "nonsense", "user": user}), 422, "owner/name"),
            (json!({"repo": 7, "user": user}), 422, "integer"),
            (json!({"repo": "acme/api", "user": "ada"}), 422, "ada"),
            (json!({"repo": "acme/api", "user": {"login": "a b"}}), 422, "user.login"),
            (json!({"repo": "acme/api", "user": {"login": ""}}), 422, "user.login"),
            (json!({"repo": "acme/api", "user": {"login": "ada", "email": "x\ny"}}), 422, "user.email"),
            (json!({"repo": "acme/api", "user": user, "colour": "red"}), 422, "colour"),
            (json!({"repo": "acme/api", "user": user, "base": "no-such"}), 404, "no-such"),
            (json!({"repo": "acme/api", "user": user, "base": "../x"}), 422, "base"),
            (json!({"repo": "acme/api", "user": user, "branch": "main"}), 422, "main"),
            (json!({"repo": "acme/api", "user": user, "branch": "a..b"}), 422, "branch"),
            (json!({"repo": "acme/api", "user": user, "timeout_seconds": 0}), 422, "timeout_seconds"),
            (
                json!({"repo": "acme/api", "user": user, "timeout_seconds": 10_000_000}),
                422,
                "timeout_seconds",
            ),
            (json!({"repo": "acme/api", "user": user, "timeout_seconds": -1}), 422, "-1"),
            (json!({"repo": "acme/api", "user": user, "env": {"A=B": "x"}}), 422, "env"),
            (json!({"repo": "acme/api", "user": user, "env": {"HOTBED_X": "x"}}), 422, "HOTBED_"),
            (json!({"repo": "acme/api", "user": user, "snapshot": "nonsense"}), 422, "snapshot"),
            (
                json!({"repo": "acme/api", "user": user, "snapshot": format!("snp_{}", "0".repeat(32))}),
                404,
                "snp_0",
            ),
            (
                json!({"repo": "acme/api", "user": user, "parent": format!("ses_{}", "0".repeat(32))}),
                404,
                "ses_0",
            ),
            (json!({"repo": "acme/api", "user": user, "warmup": "ses_1"}), 422, "warmup"),
            (json!([]), 422, "body"),
        ];
        for (body, status, names) in bad {
            problem(&w.post("/v1/sessions", &body).await, status, names);
        }
        problem(&w.send("POST", "/v1/sessions", &[], b"{").await, 400, "EOF");
        problem(&w.send("POST", "/v1/sessions", &[], b"\xff\xfe").await, 400, "body");
        problem(&w.send("POST", "/v1/sessions", &[], b"").await, 422, "`repo` is missing");
        let large = format!("{{\"repo\": \"{}\"}}", "x".repeat(2 << 20));
        problem(&w.send("POST", "/v1/sessions", &[], large.as_bytes()).await, 413, "bytes");
        let ok = w.new_session().to_string();
        for key in ["", "ü", &"k".repeat(300)] {
            problem(
                &w.send("POST", "/v1/sessions", &[("idempotency-key", key)], ok.as_bytes()).await,
                422,
                "Idempotency-Key",
            );
        }
        assert_eq!(snapshot_of(w).await, before);
    });
}

#[test]
fn wrong_paths_queries_and_methods() {
    World::with(Setup::pool(0), async |w| {
        let unknown = format!("ses_{}", "0".repeat(32));
        for (method, path, status, names) in [
            ("GET", "/v1/nothing".to_owned(), 404, "/v1/nothing"),
            ("GET", "/".to_owned(), 404, "no route"),
            ("PATCH", "/v1/sessions".to_owned(), 405, "PATCH"),
            ("DELETE", "/v1/repos".to_owned(), 405, "DELETE"),
            ("POST", "/healthz".to_owned(), 405, "POST"),
            ("GET", "/v1/repos/acme/none".to_owned(), 404, "acme/none"),
            ("GET", "/v1/repos/.x/none".to_owned(), 422, "repo"),
            ("GET", format!("/v1/sessions/{unknown}"), 404, &unknown),
            ("GET", "/v1/sessions/nonsense".to_owned(), 422, "nonsense"),
            ("GET", "/v1/sessions/sbx_00000000000000000000000000000000".to_owned(), 422, "ses_"),
            ("GET", "/v1/sessions/%ff%fe".to_owned(), 400, "UTF-8"),
            ("DELETE", format!("/v1/sessions/{unknown}"), 404, &unknown),
            ("GET", format!("/v1/sessions/{unknown}/events"), 404, &unknown),
            ("GET", format!("/v1/sessions/{unknown}/files"), 404, &unknown),
            ("GET", format!("/v1/sessions/{unknown}/exec"), 404, &unknown),
            ("GET", "/v1/sessions?limit=0".to_owned(), 422, "limit"),
            ("GET", "/v1/sessions?limit=201".to_owned(), 422, "limit"),
            ("GET", "/v1/sessions?limit=many".to_owned(), 400, "limit"),
            ("GET", "/v1/sessions?colour=red".to_owned(), 400, "colour"),
            ("GET", "/v1/sessions?state=happy".to_owned(), 422, "happy"),
            ("GET", "/v1/sessions?repo=x".to_owned(), 422, "repo"),
            ("GET", "/v1/sessions?after=nonsense".to_owned(), 422, "nonsense"),
            ("GET", "/v1/images?after=ses_1".to_owned(), 422, "ses_1"),
            ("GET", "/v1/snapshots?session=1".to_owned(), 422, "session"),
            ("GET", format!("/v1/snapshots/snp_{}", "0".repeat(32)), 404, "snp_"),
            ("DELETE", format!("/v1/snapshots/snp_{}", "0".repeat(32)), 404, "snp_"),
            ("GET", format!("/v1/builds/bld_{}", "0".repeat(32)), 404, "bld_"),
            ("GET", format!("/v1/warmups/wrm_{}", "0".repeat(32)), 404, "wrm_"),
            ("DELETE", format!("/v1/warmups/wrm_{}", "0".repeat(32)), 404, "wrm_"),
        ] {
            problem(&w.send(method, &path, &[], b"").await, status, names);
        }
        problem(&w.post("/v1/warmups", &json!({"repo": "acme/none", "client": "x"})).await, 404, "acme/none");
        problem(&w.post("/v1/warmups", &json!({"repo": "acme/api", "client": ""})).await, 422, "client");
        problem(&w.post("/v1/warmups", &json!({"repo": "acme/api"})).await, 422, "client");
        problem(&w.post("/v1/repos/acme/api/builds", &json!({"force": true})).await, 422, "force");
    });
}

#[test]
fn no_key_no_answer() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        for path in [
            "/v1/repos".to_owned(),
            "/v1/sessions".to_owned(),
            format!("/v1/sessions/{}", id(&view)),
            format!("/v1/sessions/{}/files", id(&view)),
            format!("/v1/sessions/{}/events", id(&view)),
            "/v1/stats".to_owned(),
            "/v1/openapi.json".to_owned(),
            "/metrics".to_owned(),
        ] {
            for headers in
                [&[][..], &[("authorization", "Bearer hbk_guess")], &[("authorization", "Basic eDp5")]]
            {
                let answer = w.send_bare("GET", &path, headers, b"").await;
                problem(&answer, 401, "key");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
        problem(&w.send_bare("DELETE", &format!("/v1/sessions/{}", id(&view)), &[], b"").await, 401, "key");
        assert_eq!(w.read_session(&view).await["state"], "active");
        assert_eq!(w.send_bare("GET", "/healthz", &[], b"").await.status, 200);
        assert_eq!(w.send_bare("GET", "/readyz", &[], b"").await.status, 200);
    });
}

#[test]
fn wrong_commands_and_files() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let files = w.agents.of(sandbox(&view)).tree().1;
        let path = format!("/v1/sessions/{}", id(&view));
        for (body, names) in [
            (json!({}), "cmd"),
            (json!({"cmd": []}), "cmd"),
            (json!({"cmd": [""]}), "cmd"),
            (json!({"cmd": 5}), "Command"),
            (json!({"cmd": "x\u{0}y"}), "NUL"),
            (json!({"cmd": "true", "cwd": "relative"}), "cwd"),
            (json!({"cmd": "true", "timeout_seconds": 0}), "timeout_seconds"),
            (json!({"cmd": "true", "timeout_seconds": -3}), "timeout_seconds"),
            (json!({"cmd": "true", "tty": {"rows": 70000, "cols": 1}}), "70000"),
            (json!({"cmd": "true", "nice": 5}), "nice"),
        ] {
            problem(&w.post(&format!("{path}/exec"), &body).await, 422, names);
        }
        let unknown = format!("exe_{}", "0".repeat(32));
        problem(&w.get(&format!("{path}/exec/{unknown}")).await, 404, "exe_");
        problem(&w.get(&format!("{path}/exec/{unknown}/output")).await, 404, "exe_");
        problem(&w.get(&format!("{path}/exec/nonsense")).await, 422, "nonsense");
        problem(&w.get(&format!("{path}/exec/{unknown}/output?raw=both")).await, 422, "both");
        problem(&w.get(&format!("{path}/exec/{unknown}/output?from=-1")).await, 400, "from");
        problem(
            &w.post(&format!("{path}/exec/{unknown}/signal"), &json!({"signal": "TERM"})).await,
            404,
            "exe_",
        );
        assert_eq!(
            w.get(&format!("{path}/exec")).await.expect(200).json()["items"],
            json!([]),
            "nothing was run"
        );

        for outside in ["..%2f..%2fetc/passwd", "a/..%2f..%2fx", "%2e%2e/x"] {
            problem(&w.get(&format!("{path}/files/{outside}")).await, 422, "out of the sandbox");
            problem(
                &w.send("PUT", &format!("{path}/files/{outside}"), &[], b"x").await,
                422,
                "out of the sandbox",
            );
            problem(&w.delete(&format!("{path}/files/{outside}")).await, 422, "out of the sandbox");
        }
        problem(&w.get(&format!("{path}/files?dir=../..")).await, 422, "out of the sandbox");
        problem(&w.get(&format!("{path}/files/a%00b")).await, 422, "NUL");
        problem(&w.get(&format!("{path}/files/none")).await, 404, "none");
        problem(&w.delete(&format!("{path}/files/none")).await, 404, "none");
        problem(&w.send("PUT", &format!("{path}/files/x?mode=rwx"), &[], b"x").await, 422, "mode");
        problem(&w.send("PUT", &format!("{path}/files/x?mode=77777"), &[], b"x").await, 422, "mode");
        let headers = [("content-length", "99999999999")];
        let large = w.send("PUT", &format!("{path}/files/x"), &headers, b"").await;
        assert!(large.status == 413 || large.status == 400, "{large:?}");
        assert_eq!(w.agents.of(sandbox(&view)).tree().1, files, "no file was written");

        problem(&w.post(&format!("{path}/extend"), &json!({"seconds": 99_999_999})).await, 422, "limit");
        problem(&w.post(&format!("{path}/extend"), &json!({})).await, 422, "seconds");
        problem(&w.post(&format!("{path}/sync"), &json!({"action": "hope"})).await, 422, "hope");
        problem(&w.post(&format!("{path}/sync"), &json!({"action": "retry"})).await, 409, "gate is open");
        problem(&w.post(&format!("{path}/resume"), &json!({})).await, 409, "active");
        problem(&w.post(&format!("{path}/pull-requests"), &json!({"title": " "})).await, 422, "title");
        problem(&w.post(&format!("{path}/fork"), &json!({"branch": "main"})).await, 422, "main");
        assert_eq!(w.read_session(&view).await["state"], "active");
    });
}

/// Everything of an ended session that needs its sandbox is gone; what is kept of it can be read.
#[test]
fn an_ended_session() {
    World::with(Setup::pool(1), async |w| {
        let view = w.session().await;
        assert_eq!(w.synced(&view).await, "synced");
        let exec =
            w.post(&format!("/v1/sessions/{}/exec", id(&view)), &json!({"cmd": "true"})).await.expect(201);
        let exec = exec.field("id");
        w.end(&view).await;
        let path = format!("/v1/sessions/{}", id(&view));
        let gone = id(&view);
        problem(&w.post(&format!("{path}/exec"), &json!({"cmd": "true"})).await, 410, gone);
        problem(&w.get(&format!("{path}/exec/{exec}/output")).await, 410, gone);
        problem(&w.get(&format!("{path}/files/x")).await, 410, gone);
        problem(&w.send("PUT", &format!("{path}/files/x"), &[], b"x").await, 410, gone);
        for verb in ["pause", "resume", "snapshots"] {
            problem(&w.post(&format!("{path}/{verb}"), &json!({})).await, 410, gone);
        }
        problem(&w.post(&format!("{path}/fork"), &json!({})).await, 410, gone);
        problem(&w.post(&format!("{path}/extend"), &json!({"seconds": 5})).await, 410, gone);
        problem(&w.post(&format!("{path}/sync"), &json!({"action": "retry"})).await, 410, gone);
        problem(&w.delete(&path).await, 410, gone);
        assert_eq!(w.read_session(&view).await["state"], "ended");
        assert!(w.events(&view).await.contains(&"ended".to_owned()));
        let parent = json!({"user": {"login": "ada"}, "parent": id(&view)});
        let next = w.post("/v1/sessions", &parent).await.expect(201).json();
        problem(
            &w.post("/v1/sessions", &json!({"user": {"login": "ada"}, "parent": id(&next)})).await,
            409,
            "end it first",
        );
        w.until(&next, "active").await;
        // A snapshot that something stands on stays.
        let from = next["snapshot"].as_str().expect("snapshot");
        problem(&w.delete(&format!("/v1/snapshots/{from}")).await, 409, from);
    });
}

/// No image yet: 503 with Retry-After, and the session is not there.
#[test]
fn a_repo_without_an_image() {
    let mut setup = Setup::pool(1);
    setup.ready = false;
    World::with(setup, async |w| {
        w.allow_log("request failed");
        let answer = w.post("/v1/sessions", &w.new_session()).await;
        problem(&answer, 503, "no image");
        assert!(answer.header("retry-after").is_some());
        assert_eq!(w.get("/v1/sessions").await.expect(200).json()["items"], json!([]));
        w.build_all().await;
        w.pools_full().await;
        assert_eq!(w.session().await["launch"], "warm");
    });
}

/// Lists are paged to their end, without a gap or a repetition.
#[test]
fn lists_are_paged() {
    World::with(Setup::pool(2), async |w| {
        let mut made = Vec::new();
        for _ in 0..7 {
            made.push(id(&w.session().await).to_owned());
        }
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = w.get(&format!("/v1/sessions?limit=3{after}")).await.expect(200).json();
            let items = page["items"].as_array().expect("items");
            assert!(items.len() <= 3);
            seen.extend(items.iter().map(|v| id(v).to_owned()));
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => break,
            }
        }
        made.reverse();
        assert_eq!(seen, made);
        for path in
            ["/v1/repos", "/v1/pools", "/v1/stats", "/v1/openapi.json", "/v1/pools/acme/api", "/v1/images"]
        {
            w.get(path).await.expect(200).json();
        }
        let metrics = w.get("/metrics").await.expect(200).text();
        for name in ["hotbed_session_starts_total", "hotbed_pool_target", "hotbed_session_claim_seconds"] {
            assert!(metrics.contains(name), "{name}");
        }
        // F8: no claim missed while a ready member was there.
        for reason in ["all_too_old", "wrong_image", "all_reserved", "no_image"] {
            let miss = format!("hotbed_pool_misses_total{{repo=\"acme/api\",reason=\"{reason}\"}}");
            let missed = metrics.lines().find(|l| l.starts_with(&miss)).is_some_and(|l| !l.ends_with(" 0"));
            assert!(!missed, "{miss}");
        }
    });
}

/// The client of the command line against the same server.
#[test]
fn the_client_reads_what_the_api_says() {
    World::with(Setup::pool(1), async |w| {
        let client = w.client();
        let view: Value = client.post("/v1/sessions", &w.new_session()).await.expect("a session");
        let read: Value = client.get(&format!("/v1/sessions/{}", id(&view))).await.expect("the same");
        assert_eq!(id(&read), id(&view));
        let wrong = client.get::<Value>("/v1/sessions/nonsense").await.expect_err("no id");
        assert_eq!(wrong.kind(), domain::ErrorKind::Invalid);
        let none = client.get::<Value>("/v1/repos/acme/none").await.expect_err("no repo");
        assert_eq!(none.kind(), domain::ErrorKind::NotFound);
        let ended: Value =
            client.delete(&format!("/v1/sessions/{}?wait=true", id(&view))).await.expect("its end");
        assert_eq!(ended["state"], "ended");
    });
}

/// The API on a unix socket: owner and group may connect, the key is asked for all the same, a stale socket of an
/// earlier run is no hindrance.
#[test]
fn the_api_on_a_unix_socket() {
    use orchestrator::client::Client;
    use orchestrator::endpoint::Endpoint;

    World::with(Setup::pool(1), async |w| {
        let path = w.state_dir().join("api.sock");
        let listen = config::ListenAddress::Unix(path.clone());
        drop(Endpoint::bind(&listen).await.expect("bind"));
        let at = listen.clone();
        w.on(|app| async move {
            let endpoint = Endpoint::bind(&at).await.expect("bind again");
            tokio::spawn(async move { app.serve(endpoint).await });
        })
        .await;
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(&path).expect("a socket").permissions(),
        );
        assert_eq!(mode & 0o777, 0o660);

        let client = Client::new(listen.to_string(), w.app().api_key.clone());
        let made: Value = client
            .post("/v1/sessions", &json!({"repo": "acme/api", "user": {"login": "ada"}}))
            .await
            .expect("a session");
        assert!(made["id"].as_str().is_some_and(|id| id.starts_with("ses_")), "{made}");
        let refused = Client::new(listen.to_string(), "hbk_wrong").get::<Value>("/v1/repos").await;
        assert!(refused.is_err_and(|e| e.to_string().contains("API key")));
    });
}
