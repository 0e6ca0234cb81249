//! Keys, roles and repos: who may call what, and what somebody who is limited does not see.

use domain::Role;
use orchestrator::access::routes::{self, About, TABLE};
use serde_json::{Value, json};

use crate::http::Answer;
use crate::world::{Setup, World, id, spec};

/// The methods and paths of the API's own description.
fn described() -> Vec<(String, String)> {
    let text = orchestrator::api::openapi().to_json().expect("OpenAPI");
    let doc: Value = serde_json::from_str(&text).expect("JSON");
    let mut all = Vec::new();
    for (path, methods) in doc["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            // Written down without the mark of a path's rest.
            all.push((method.to_uppercase(), path.replace("{path}", "{*path}")));
        }
    }
    all
}

/// Default closed: what is not in the table opens to nobody, so all of the API has to be there, and nothing else.
#[test]
fn every_route_is_in_the_table() {
    let mut described = described();
    assert!(described.len() > 60, "{described:?}");
    described.retain(|(m, p)| !routes::SIGNED.contains(&(m.as_str(), p.as_str())));
    for extra in ["/metrics", "/v1/openapi.json"] {
        described.push(("GET".into(), extra.into()));
    }
    described.sort();
    let mut table: Vec<_> = TABLE.iter().map(|r| (r.method.to_owned(), r.path.to_owned())).collect();
    table.sort();
    assert_eq!(table, described);
}

#[test]
fn the_page_of_access_is_the_one_of_the_code() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/access.md");
    let text = routes::reference();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &text).expect("write the page");
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(there, text, "docs/access.md is old: `UPDATE=1 cargo test -p tests --test it access::`");
}

/// A request with this key.
pub async fn with(w: &World, key: &str, method: &str, path: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {key}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    w.send_bare(method, path, &headers, body.as_bytes()).await
}

async fn get(w: &World, key: &str, path: &str) -> Answer {
    with(w, key, "GET", path, &Value::Null).await
}

async fn make(w: &World, body: &Value) -> (String, String) {
    let made = w.post("/v1/keys", body).await.expect(201);
    (made.field("key"), made.field("id"))
}

/// A path in which every placeholder stands for something that is not there.
fn concrete(path: &str) -> String {
    let none = "0".repeat(32);
    let id = match path.split('/').nth(2) {
        Some("builds") => format!("bld_{none}"),
        Some("images") => format!("img_{none}"),
        Some("snapshots") => format!("snp_{none}"),
        Some("warmups") => format!("wrm_{none}"),
        Some("keys") => format!("key_{none}"),
        _ => format!("ses_{none}"),
    };
    path.replace("{owner}", "acme")
        .replace("{name}", "none")
        .replace("{id}", &id)
        .replace("{exec}", &format!("exe_{none}"))
        .replace("{number}", "1")
        .replace("{login}", "nobody")
        .replace("{*path}", "x")
        // What has no end is asked for what there is.
        .replace("/v1/events", "/v1/events?tail=true")
}

/// Whoever shows this gets the routes of the role and no other.
pub async fn gets_its_routes(w: &World, key: &str, role: Role) {
    for route in TABLE {
        let answer = with(w, key, route.method, &concrete(route.path), &json!({})).await;
        let denied = answer.status == 403;
        assert_eq!(denied, role < route.least, "{role}: {} {}: {}", route.method, route.path, answer.text());
        assert_ne!(answer.status, 401, "{role}: {} {}", route.method, route.path);
        if denied {
            assert!(answer.text().contains(route.least.as_str()), "{}", answer.text());
        }
    }
    let who = get(w, key, "/v1/whoami").await.expect(200).json();
    assert_eq!(who["role"], role.as_str());
    assert_eq!(who["repos"], Value::Null);
}

/// Each role gets exactly the routes that the table gives it. What a request finds behind the door does not matter
/// here, as long as it is let in: nothing that these name exists.
#[test]
fn each_role_gets_its_routes_and_no_other() {
    World::with(Setup::pool(0), async |w| {
        for role in Role::ALL {
            let (key, _) = make(w, &json!({"name": format!("the {role}"), "role": role.as_str()})).await;
            gets_its_routes(w, &key, role).await;
        }
        // Nobody gets in without a key, wherever.
        for route in TABLE {
            let answer = w.send_bare(route.method, &concrete(route.path), &[], b"").await;
            assert_eq!(answer.status, 401, "{} {}", route.method, route.path);
        }
    });
}

/// The ids of a list.
fn ids(answer: Answer) -> Vec<String> {
    let json = answer.expect(200).json();
    let items = json["items"].as_array().expect("items");
    let name = |i: &Value| i["id"].as_str().or(i["repo"].as_str()).or(i["name"].as_str()).map(str::to_owned);
    items.iter().filter_map(name).collect()
}

/// F6: a key that is limited to one repo neither sees nor touches anything of another, and can't tell what is hidden
/// from what is not there.
#[test]
fn f6_a_limited_key_knows_no_other_repo() {
    World::with(Setup::repos(vec![spec("acme/api", 1), spec("acme/web", 1)]), async |w| {
        let repos = json!(["acme/api"]);
        let (key, _) = make(w, &json!({"name": "api only", "role": "operator", "repos": repos})).await;
        let user = json!({"login": "ada"});
        // Of each repo a session that has ended, with its snapshot; a live one; a warm-up.
        let mut theirs = Vec::new();
        for repo in ["acme/api", "acme/web"] {
            let body = json!({"repo": repo, "user": user});
            let view = w.post("/v1/sessions", &body).await.expect(201).json();
            let old = id(&view).to_owned();
            w.synced(&view).await;
            w.send("DELETE", &format!("/v1/sessions/{old}?wait=true"), &[], b"").await.expect(200);
            let snapshot = ids(w.get(&format!("/v1/snapshots?session={old}")).await).remove(0);
            w.pools_full().await;
            let view = w.post("/v1/sessions", &body).await.expect(201).json();
            let live = id(&view).to_owned();
            w.synced(&view).await;
            let warmup = json!({"repo": repo, "client": "tab"});
            let warmup = w.post("/v1/warmups", &warmup).await.expect(202).field("id");
            let build = ids(w.get(&format!("/v1/repos/{repo}/builds")).await).remove(0);
            let image = ids(w.get(&format!("/v1/images?repo={repo}")).await).remove(0);
            theirs.push((old, live, snapshot, warmup, build, image));
        }
        let (mine, other) = (&theirs[0], &theirs[1]);

        // Lists show the one repo, whatever is asked for.
        for (path, expected) in [
            ("/v1/repos", vec!["acme/api"]),
            ("/v1/pools", vec!["acme/api"]),
            ("/v1/sessions", vec![mine.1.as_str(), mine.0.as_str()]),
            ("/v1/sessions?state=active", vec![mine.1.as_str()]),
            ("/v1/sessions?repo=acme/web", vec![]),
            ("/v1/snapshots", vec![mine.2.as_str()]),
            ("/v1/snapshots?repo=acme/web", vec![]),
            ("/v1/warmups", vec![mine.3.as_str()]),
            ("/v1/warmups?repo=acme/web", vec![]),
            ("/v1/images", vec![mine.5.as_str()]),
            ("/v1/images?repo=acme/web", vec![]),
        ] {
            assert_eq!(ids(get(w, &key, path).await), expected, "{path}");
        }
        let snapshots = format!("/v1/snapshots?session={}", other.0);
        assert!(ids(get(w, &key, &snapshots).await).is_empty());

        // Every route with an id or a name in it: what is there of the other repo is answered as what is not there.
        for route in TABLE.iter().filter(|r| !matches!(r.about, About::Nothing | About::Found)) {
            let fill = |session: &str, snapshot: &str, warmup: &str, build: &str, image: &str, name: &str| {
                let id = match route.about {
                    About::Session => session,
                    About::Snapshot => snapshot,
                    About::Warmup => warmup,
                    About::Build => build,
                    About::Image => image,
                    _ => "{id}",
                };
                concrete(&route.path.replace("{id}", id).replace("{name}", name))
            };
            let hidden = fill(&other.1, &other.2, &other.3, &other.4, &other.5, "web");
            let answer = with(w, &key, route.method, &hidden, &json!({})).await;
            if route.about == About::Installation {
                assert_eq!(answer.status, 403, "{} {hidden}: {}", route.method, answer.text());
                continue;
            }
            assert_eq!(answer.status, 404, "{} {hidden}: {}", route.method, answer.text());
            let none = |prefix: &str| format!("{prefix}_{}", "0".repeat(32));
            let [ses, snp, wrm, bld, img] = ["ses", "snp", "wrm", "bld", "img"].map(none);
            let unknown = fill(&ses, &snp, &wrm, &bld, &img, "nix");
            if route.method == "GET" && !route.path.ends_with("/terminal") {
                let not_there = with(w, &key, route.method, &unknown, &json!({})).await;
                assert_eq!(not_there.status, 404, "{} {unknown}: {}", route.method, not_there.text());
                let plain = |a: &Answer, names: [&str; 2]| {
                    names.iter().fold(a.json()["detail"].as_str().expect("detail").to_owned(), |t, n| {
                        t.replace(n, "X")
                    })
                };
                let id_of = |path: &str| path.split('/').nth(3).unwrap_or_default().to_owned();
                assert_eq!(
                    plain(&answer, [&id_of(&hidden), "web"]),
                    plain(&not_there, [&id_of(&unknown), "nix"]),
                    "{} {hidden}",
                    route.method
                );
            }
        }

        // What is made is made of one's own repo only, whichever way it is named.
        for body in [
            json!({"repo": "acme/web", "user": user}),
            json!({"snapshot": other.2, "user": user}),
            json!({"parent": other.0, "user": user}),
            json!({"repo": "acme/api", "snapshot": other.2, "user": user}),
            json!({"repo": "acme/api", "parent": other.0, "user": user}),
        ] {
            let answer = with(w, &key, "POST", "/v1/sessions", &body).await;
            assert_eq!(answer.status, 404, "{body}: {}", answer.text());
        }
        let tab = json!({"repo": "acme/web", "client": "tab"});
        assert_eq!(with(w, &key, "POST", "/v1/warmups", &tab).await.status, 404);
        assert_eq!(with(w, &key, "POST", "/v1/warmups/tokens", &tab).await.status, 404);
        let any = json!({"client": "tab"});
        assert_eq!(with(w, &key, "POST", "/v1/warmups/tokens", &any).await.status, 422);

        // And its own it may use.
        let at = format!("/v1/sessions/{}", mine.1);
        get(w, &key, &at).await.expect(200);
        with(w, &key, "POST", &format!("{at}/exec"), &json!({"cmd": ["true"], "wait": true}))
            .await
            .expect(201);
        with(w, &key, "DELETE", &format!("{at}?wait=true"), &Value::Null).await.expect(200);
        let parent = json!({"parent": mine.0, "user": user});
        with(w, &key, "POST", "/v1/sessions", &parent).await.expect(201);
        w.get(&format!("/v1/sessions/{}", other.1)).await.expect(200);
    });
}

#[test]
fn keys_are_made_used_and_revoked() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        for (body, status, names) in [
            (json!({"name": "", "role": "client"}), 422, "name"),
            (json!({"name": "installation", "role": "client"}), 422, "name"),
            (json!({"name": "a\nb", "role": "client"}), 422, "name"),
            (json!({"name": "x", "role": "root"}), 422, "expected read-only"),
            (json!({"name": "x", "role": "client", "repos": []}), 422, "repos"),
            (json!({"name": "x", "role": "client", "repos": ["acme/none"]}), 404, "acme/none"),
            (json!({"name": "x", "role": "admin", "repos": ["acme/api"]}), 422, "admin"),
            (json!({"name": "x", "role": "client", "expires_seconds": 0}), 422, "expires_seconds"),
            (json!({"name": "x", "role": "client", "colour": "red"}), 422, "colour"),
        ] {
            let answer = w.post("/v1/keys", &body).await;
            assert_eq!(answer.status, status, "{body}: {}", answer.text());
            assert!(answer.text().contains(names), "{body}: {}", answer.text());
        }
        assert!(ids(w.get("/v1/keys").await).is_empty());

        let (ci, ci_id) = make(w, &json!({"name": "ci", "role": "client", "expires_seconds": 3600})).await;
        w.post("/v1/keys", &json!({"name": "ci", "role": "client"})).await.expect(409);
        let (ops, ops_id) = make(w, &json!({"name": "ops", "role": "admin"})).await;
        get(w, &ci, "/v1/sessions").await.expect(200);
        // Hashed at rest: neither the store nor an answer has it again.
        let listed = w.get("/v1/keys").await.expect(200).text();
        assert!(!listed.contains(&ci) && !listed.contains("hash"), "{listed}");
        assert!(listed.contains("last_used_at"), "{listed}");

        w.restart().await;
        for file in std::fs::read_dir(w.state_dir()).expect("state directory").flatten() {
            if file.file_type().is_ok_and(|t| t.is_file()) {
                let bytes = std::fs::read(file.path()).expect("read");
                let holds = bytes.windows(ci.len()).any(|part| part == ci.as_bytes());
                assert!(!holds, "{} holds a key", file.path().display());
            }
        }
        get(w, &ci, "/v1/sessions").await.expect(200);
        let made = w.get("/v1/keys").await.expect(200).json();
        assert_eq!(made["items"][0]["id"], json!(ci_id));
        assert_eq!(made["items"][0]["created_by"], "installation");
        assert!(made["items"][0]["last_used_at"].is_string(), "{made}");

        // Its end comes by itself, and then its name is free.
        w.clock.advance(std::time::Duration::from_secs(7200));
        let late = get(w, &ci, "/v1/sessions").await;
        assert_eq!(late.status, 401);
        assert!(late.text().contains("expired"), "{}", late.text());
        make(w, &json!({"name": "ci", "role": "client"})).await;

        // Revoked by itself: closed from the next request on, after a restart, too.
        let gone = with(w, &ops, "DELETE", &format!("/v1/keys/{ops_id}"), &Value::Null).await.expect(200);
        assert!(gone.json()["last_used_at"].is_string(), "{}", gone.text());
        get(w, &ops, "/v1/whoami").await.expect(401);
        w.restart().await;
        get(w, &ops, "/v1/whoami").await.expect(401);
        w.send("DELETE", &format!("/v1/keys/{ops_id}"), &[], b"").await.expect(200);
        w.send("DELETE", &format!("/v1/keys/key_{}", "0".repeat(32)), &[], b"").await.expect(404);
        assert!(w.get("/metrics").await.text().contains("hotbed_tokens_refused_total{kind=\"api\"}"));
    });
}

/// Each key has a rate of its own, and the installation's own has none.
#[test]
fn a_key_that_asks_too_often_is_told_when_to_come_back() {
    World::with(Setup::pool(0), async |w| {
        let (busy, _) = make(w, &json!({"name": "busy", "role": "read-only"})).await;
        let (calm, _) = make(w, &json!({"name": "calm", "role": "read-only"})).await;
        w.app().access.rate().set(2);
        let mut refused = None;
        for _ in 0..200 {
            let answer = get(w, &busy, "/v1/whoami").await;
            if answer.status == 429 {
                refused = Some(answer);
                break;
            }
            answer.expect(200);
        }
        let refused = refused.expect("429");
        assert!(refused.header("retry-after").is_some_and(|s| s.parse::<u64>().is_ok_and(|s| s > 0)));
        assert!(refused.text().contains("asks too often"), "{}", refused.text());
        get(w, &calm, "/v1/whoami").await.expect(200);
        for _ in 0..20 {
            w.get("/v1/whoami").await.expect(200);
        }
    });
}

/// F7: two holders who choose the same `Idempotency-Key` never meet, before and after a restart.
#[test]
fn f7_each_holder_has_keys_of_its_own() {
    World::with(Setup::pool(1), async |w| {
        let (ui, _) = make(w, &json!({"name": "ui", "role": "client"})).await;
        let (ci, _) = make(w, &json!({"name": "ci", "role": "client"})).await;
        let post = async |w: &World, key: &str, login: &str| {
            let bearer = format!("Bearer {key}");
            let headers = [("authorization", bearer.as_str()), ("idempotency-key", "submit-1")];
            let body = json!({"repo": "acme/api", "user": {"login": login}}).to_string();
            w.send_bare("POST", "/v1/sessions", &headers, body.as_bytes()).await
        };
        let own = w.app().api_key.clone();
        let mut made = Vec::new();
        for (key, login) in [(&own, "root"), (&ui, "ada"), (&ci, "bob")] {
            made.push((key.clone(), login, post(w, key, login).await.expect(201).field("id")));
        }
        // Its own comes back, by the request and by the key; with another body it is a conflict with itself alone.
        for restarted in [false, true] {
            for (key, login, session) in &made {
                assert_eq!(
                    post(w, key, login).await.expect(200).field("id"),
                    *session,
                    "{login} {restarted}"
                );
                let found = get(w, key, "/v1/sessions/key:submit-1").await.expect(200).field("id");
                assert_eq!(found, *session, "{login} {restarted}");
                let other = post(w, key, "eve").await.expect(409).text();
                assert!(other.contains("`submit-1`") && !other.contains("key_"), "{other}");
            }
            if !restarted {
                w.restart().await;
            }
        }
        let (none, _) = make(w, &json!({"name": "none", "role": "client"})).await;
        get(w, &none, "/v1/sessions/key:submit-1").await.expect(404);
    });
}

#[test]
fn pages_of_the_configured_origins_may_call() {
    World::with(Setup::pool(0), async |w| {
        let ask = async |w: &World, origin: &str, path: &str| {
            let headers = [
                ("origin", origin),
                ("access-control-request-method", "DELETE"),
                ("access-control-request-headers", "authorization, idempotency-key"),
            ];
            w.send_bare("OPTIONS", path, &headers, b"").await
        };
        let allowed = |answer: &Answer| answer.header("access-control-allow-origin").map(str::to_owned);
        let (ui, other) = ("https://ui.example.com", "https://evil.example");
        // Default closed.
        for path in ["/v1/sessions", "/v1/warmups", "/v1/none"] {
            assert_eq!(allowed(&ask(w, ui, path).await), None, "{path}");
        }
        let access = config::AccessSettings { origins: vec![ui.into()], ..Default::default() };
        w.app().access.reconfigure(&access);
        for path in ["/v1/sessions", "/v1/warmups", "/v1/sessions/ses_1/files/a/b"] {
            let answer = ask(w, ui, path).await.expect(200);
            assert_eq!(allowed(&answer).as_deref(), Some(ui), "{path}");
            let methods = answer.header("access-control-allow-methods").unwrap_or_default().to_owned();
            assert!(methods.contains("DELETE"), "{methods}");
            let headers = answer.header("access-control-allow-headers").unwrap_or_default().to_owned();
            assert!(headers.contains("idempotency-key"), "{headers}");
            assert_eq!(answer.header("access-control-allow-credentials"), None);
            assert_eq!(allowed(&ask(w, other, path).await), None, "{path}");
        }
        // An origin opens nothing by itself, and a refusal can be read by the page.
        let refused = w.send_bare("GET", "/v1/repos", &[("origin", ui)], b"").await.expect(401);
        assert_eq!(allowed(&refused).as_deref(), Some(ui));
        let answer = w.send("GET", "/v1/repos", &[("origin", ui)], b"").await.expect(200);
        assert_eq!(allowed(&answer).as_deref(), Some(ui));
        assert_eq!(allowed(&w.send("GET", "/v1/repos", &[("origin", other)], b"").await), None);
        // A page that may announce may do nothing else.
        let limits =
            orchestrator::warmups::Limits { origins: vec![other.into()], ..w.app().warmups.limits() };
        w.app().warmups.set_limits(limits);
        assert_eq!(allowed(&ask(w, other, "/v1/warmups").await).as_deref(), Some(other));
        assert_eq!(allowed(&ask(w, other, "/v1/warmups/wrm_1").await).as_deref(), Some(other));
        assert_eq!(allowed(&ask(w, other, "/v1/sessions").await), None);
    });
}
