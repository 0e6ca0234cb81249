//! Tokens of an identity provider: which are taken, what they open, and for how long.

use std::time::Duration;

use config::{AccessSettings, OidcSettings, RoleRule, SigningAlgorithm, UserRule};
use domain::Role;
use futures_util::StreamExt;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use orchestrator::client::Client;
use serde_json::{Value, json};
use tests::issuer::{Issuer, Pair};

use crate::access::{gets_its_routes, with};
use crate::http::Answer;
use crate::world::{Setup, World, id, spec};

fn settings(issuer: &Issuer) -> OidcSettings {
    let rule = |value: &str, role| RoleRule { claim: "groups".into(), values: vec![value.into()], role };
    OidcSettings {
        issuer: issuer.url().to_owned(),
        audiences: vec!["hotbed".into()],
        algorithms: vec![SigningAlgorithm::Rs256, SigningAlgorithm::Es256, SigningAlgorithm::EdDsa],
        jwks: None,
        roles: Role::ALL.into_iter().map(|role| rule(role.as_str(), role)).collect(),
        repos_claim: None,
        name_claim: "preferred_username".into(),
        user: UserRule::Claim,
        leeway: Duration::ZERO,
    }
}

/// The claims of a token of ada's that is good for ten minutes.
fn claims(w: &World, issuer: &Issuer, role: &str) -> Value {
    let now = w.now().as_second();
    json!({
        "iss": issuer.url(), "aud": "hotbed", "sub": "1001", "iat": now, "nbf": now, "exp": now + 600,
        "preferred_username": "ada", "email": "ada@acme.example", "groups": ["staff", role],
    })
}

fn changed(mut claims: Value, change: Value) -> Value {
    let all = claims.as_object_mut().expect("claims");
    for (name, value) in change.as_object().expect("a change") {
        all.insert(name.clone(), value.clone());
    }
    all.retain(|_, v| !v.is_null());
    claims
}

/// Puts these providers in force, and waits until their keys were looked for.
async fn take(w: &World, oidc: Vec<OidcSettings>) {
    let access = AccessSettings { oidc, ..AccessSettings::default() };
    w.on(move |app| async move {
        app.access.reconfigure(&access);
        let _ = app.access.tokens.look(&app.clock).await;
    })
    .await;
}

async fn look(w: &World) -> domain::Result<()> {
    w.on(|app| async move { app.access.tokens.look(&app.clock).await }).await
}

async fn whoami(w: &World, token: &str) -> Answer {
    with(w, token, "GET", "/v1/whoami", &Value::Null).await
}

#[track_caller]
fn refused(answer: &Answer, word: &str) {
    assert_eq!(answer.status, 401, "{}", answer.text());
    assert!(answer.text().contains(word), "`{word}`: {}", answer.text());
}

#[test]
fn a_token_is_taken_or_refused_with_its_reason() {
    World::with(Setup::pool(0), async |w| {
        let pairs =
            [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|a| Pair::new(a, &format!("{a:?}")));
        let issuer = Issuer::start(&pairs.each_ref()).await.expect("an issuer");
        let claims = claims(w, &issuer, "client");

        // Default closed: nobody's tokens are taken.
        refused(&whoami(w, &pairs[0].sign(&claims)).await, "not known here");
        take(w, vec![settings(&issuer)]).await;
        for pair in &pairs {
            let who = whoami(w, &pair.sign(&claims)).await.expect(200).json();
            assert_eq!(who["name"], format!("oidc:{}#1001", issuer.url()), "{:?}", pair.algorithm);
            assert_eq!((&who["role"], &who["login"]), (&json!("client"), &json!("ada")));
            assert!(who["expires_at"].is_string(), "{who}");
        }

        let now = w.now().as_second();
        for (change, word) in [
            (json!({"iss": "https://login.example.com"}), "no issuer"),
            (json!({"iss": format!("{}/", issuer.url())}), "no issuer"),
            (json!({"iss": null}), "can be read"),
            (json!({"aud": "another"}), "aud"),
            (json!({"aud": null}), "aud"),
            (json!({"exp": null}), "exp"),
            (json!({"exp": now - 1}), "expired"),
            (json!({"nbf": now + 100}), "nbf"),
            (json!({"iat": now + 100}), "iat"),
            (json!({"sub": null}), "sub"),
            (json!({"groups": ["staff"]}), "role"),
        ] {
            let token = pairs[1].sign(&changed(claims.clone(), change.clone()));
            refused(&whoami(w, &token).await, word);
        }

        // Signed with another key under a name that is known; changed on the way; not signed at all.
        let other = Pair::new(Algorithm::RS256, "RS256");
        refused(&whoami(w, &other.sign(&claims)).await, "signature");
        let good = pairs[2].sign(&claims);
        let parts: Vec<&str> = good.split('.').collect();
        let admin = pairs[2].sign(&changed(claims.clone(), json!({"groups": ["admin"]})));
        let swapped = format!("{}.{}.{}", parts[0], admin.split('.').nth(1).expect("claims"), parts[2]);
        refused(&whoami(w, &swapped).await, "signature");
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        refused(&whoami(w, &format!("{none}.{}.", parts[1])).await, "can be read");
        for garbage in ["a.b.c", "..", &"x.".repeat(3), &format!("{}.x.y", "z".repeat(9000))] {
            assert_eq!(whoami(w, garbage).await.status, 401, "{garbage}");
        }

        // Confusion of algorithms: the public key as a shared secret; a key for another algorithm; `crit`.
        let header = Header { kid: Some("RS256".into()), ..Header::new(Algorithm::HS256) };
        let public = pairs[0].public.to_string();
        let forged = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(public.as_bytes()));
        refused(&whoami(w, &forged.expect("a token")).await, "algorithm");
        let header = Header { kid: Some("RS256".into()), ..Header::new(Algorithm::ES256) };
        refused(&whoami(w, &pairs[1].sign_as(&header, &claims)).await, "not for the algorithm");
        let header = Header {
            kid: Some("RS256".into()),
            crit: Some(vec!["exp".into()]),
            ..Header::new(Algorithm::RS256)
        };
        refused(&whoami(w, &pairs[0].sign_as(&header, &claims)).await, "crit");
        let only = OidcSettings { algorithms: vec![SigningAlgorithm::Es256], ..settings(&issuer) };
        take(w, vec![only]).await;
        refused(&whoami(w, &pairs[0].sign(&claims)).await, "algorithm");
        whoami(w, &pairs[1].sign(&claims)).await.expect(200);

        // Taken out of the configuration it opens nothing, though it was remembered.
        take(w, Vec::new()).await;
        refused(&whoami(w, &pairs[1].sign(&claims)).await, "not known here");
    });
}

#[test]
fn each_role_of_a_token_gets_its_routes_and_no_other() {
    World::with(Setup::pool(0), async |w| {
        let pair = Pair::new(Algorithm::ES256, "one");
        let issuer = Issuer::start(&[&pair]).await.expect("an issuer");
        // So that no route is closed for naming another person.
        take(w, vec![OidcSettings { user: UserRule::Request, ..settings(&issuer) }]).await;
        for role in Role::ALL {
            gets_its_routes(w, &pair.sign(&claims(w, &issuer, role.as_str())), role).await;
        }
        // Of several the highest; and it has a rate like a key.
        let both = json!({"groups": ["read-only", "operator"]});
        let token = pair.sign(&changed(claims(w, &issuer, ""), both));
        assert_eq!(whoami(w, &token).await.expect(200).field("role"), "operator");
        w.app().access.rate().set(1);
        let mut last = 200;
        for _ in 0..100 {
            last = whoami(w, &token).await.status;
            if last == 429 {
                break;
            }
        }
        assert_eq!(last, 429);
    });
}

/// Keys come and go at the issuer; made up ones don't have it asked without end.
#[test]
fn keys_are_exchanged_and_a_flood_of_unknown_ones_is_bounded() {
    World::with(Setup::pool(0), async |w| {
        let (old, new) = (Pair::new(Algorithm::ES256, "old"), Pair::new(Algorithm::ES256, "new"));
        let issuer = Issuer::start(&[&old]).await.expect("an issuer");
        take(w, vec![settings(&issuer)]).await;
        let claims = claims(w, &issuer, "client");
        let early = old.sign(&claims);
        whoami(w, &early).await.expect(200);
        let asked = issuer.asked();
        // Known ones have nobody asked.
        for _ in 0..20 {
            whoami(w, &early).await.expect(200);
        }
        assert_eq!(issuer.asked(), asked);

        // A key that was published a moment ago is good at once, and one that was withdrawn is good no longer.
        issuer.publish(&[&new]);
        whoami(w, &new.sign(&claims)).await.expect(200);
        assert_eq!(issuer.asked(), asked + 1);
        refused(&whoami(w, &early).await, "key");

        for n in 0..200 {
            let made_up = Header { kid: Some(format!("made up {n}")), ..Header::new(Algorithm::ES256) };
            assert_eq!(whoami(w, &old.sign_as(&made_up, &claims)).await.status, 401);
        }
        assert!(issuer.asked() <= asked + 2, "asked {} times", issuer.asked() - asked);
        whoami(w, &new.sign(&claims)).await.expect(200);
    });
}

#[test]
fn an_issuer_that_is_away_takes_nothing_down_for_a_day() {
    World::with(Setup::pool(0).manual_clock(), async |w| {
        let pair = Pair::new(Algorithm::EdDSA, "one");
        let issuer = Issuer::start(&[&pair]).await.expect("an issuer");
        w.allow_log("a background task failed");
        issuer.down(true);
        take(w, vec![settings(&issuer)]).await;
        let long = json!({"exp": w.now().as_second() + 7 * 24 * 3600});
        let claims = changed(claims(w, &issuer, "client"), long);
        refused(&whoami(w, &pair.sign(&claims)).await, "not known yet");

        issuer.down(false);
        look(w).await.expect("keys");
        whoami(w, &pair.sign(&claims)).await.expect(200);
        issuer.down(true);
        w.clock.advance(Duration::from_secs(23 * 3600));
        let gone = look(w).await.expect_err("nobody answers");
        assert!(gone.to_string().contains(issuer.url()), "{gone}");
        whoami(w, &pair.sign(&changed(claims.clone(), json!({"a": 1})))).await.expect(200);
        w.clock.advance(Duration::from_secs(2 * 3600));
        refused(&whoami(w, &pair.sign(&changed(claims.clone(), json!({"a": 2})))).await, "24 hours");

        // What an issuer says is held against what is known of it.
        issuer.down(false);
        let url = issuer.url().to_owned();
        for (says, word) in [
            (json!({"issuer": "https://evil.example", "jwks_uri": format!("{url}/jwks")}), "calls itself"),
            (json!({"issuer": url, "jwks_uri": "http://keys.example/jwks"}), "https"),
            (json!({"issuer": url, "jwks_uri": format!("{url}/long")}), "over 512 KiB"),
            (json!({"issuer": url, "jwks_uri": format!("{url}/none")}), "404"),
            (json!({"issuer": url}), "what it says of itself"),
        ] {
            issuer.discovery(Some(says.to_string()));
            let e = look(w).await.expect_err("refused");
            assert!(e.chain().to_string().contains(word), "{says}: {}", e.chain());
        }
        issuer.discovery(None);
        look(w).await.expect("keys");
        whoami(w, &pair.sign(&claims)).await.expect(200);

        // Without a network: keys from a file, which is read again.
        let file = w.state_dir().join("jwks.json");
        std::fs::write(&file, json!({"keys": [pair.public]}).to_string()).expect("write");
        let from_file = OidcSettings {
            issuer: "https://login.example.com".into(),
            jwks: Some(file.clone()),
            ..settings(&issuer)
        };
        take(w, vec![from_file]).await;
        let theirs = changed(claims.clone(), json!({"iss": "https://login.example.com"}));
        whoami(w, &pair.sign(&theirs)).await.expect(200);
        let next = Pair::new(Algorithm::EdDSA, "two");
        std::fs::write(&file, json!({"keys": [next.public]}).to_string()).expect("write");
        look(w).await.expect("keys");
        whoami(w, &next.sign(&theirs)).await.expect(200);
        refused(&whoami(w, &pair.sign(&theirs)).await, "key");
    });
}

#[test]
fn a_holder_of_a_token_works_as_himself_and_in_his_repos() {
    World::with(Setup::repos(vec![spec("acme/api", 1), spec("acme/web", 0)]), async |w| {
        let pair = Pair::new(Algorithm::ES256, "one");
        let issuer = Issuer::start(&[&pair]).await.expect("an issuer");
        let narrow = OidcSettings { repos_claim: Some("repos".into()), ..settings(&issuer) };
        take(w, vec![narrow.clone()]).await;
        let mine = json!({"repos": ["acme/api", "acme/none"], "name": "Ada L."});
        let ada = pair.sign(&changed(claims(w, &issuer, "client"), mine));
        assert_eq!(whoami(w, &ada).await.expect(200).json()["repos"], json!(["acme/api", "acme/none"]));

        // Who he is comes from the token; another one he can't be.
        let made =
            with(w, &ada, "POST", "/v1/sessions", &json!({"repo": "acme/api"})).await.expect(201).json();
        assert_eq!(made["user"], json!({"login": "ada", "name": "Ada L.", "email": "ada@acme.example"}));
        let bob = json!({"repo": "acme/api", "user": {"login": "bob"}});
        let answer = with(w, &ada, "POST", "/v1/sessions", &bob).await.expect(403);
        assert!(answer.text().contains("may not act for `bob`"), "{}", answer.text());
        let prompts = format!("/v1/sessions/{}/prompts", id(&made));
        with(w, &ada, "POST", &prompts, &json!({"user": {"login": "bob"}})).await.expect(403);
        with(w, &ada, "POST", &prompts, &json!({})).await.expect(200);
        with(w, &ada, "DELETE", "/v1/users/bob", &Value::Null).await.expect(403);
        let ada_again = json!({"repo": "acme/api", "user": {"login": "ADA", "email": "root@acme.example"}});
        let again = with(w, &ada, "POST", "/v1/sessions", &ada_again).await.expect(201).json();
        assert_eq!(again["user"]["email"], "ada@acme.example");
        // With a key the request has to say it.
        let unnamed = w.post("/v1/sessions", &json!({"repo": "acme/api"})).await.expect(422);
        assert!(unnamed.text().contains("`user` is missing"), "{}", unnamed.text());

        // Other repos are not there; a token that lists none has none.
        with(w, &ada, "GET", "/v1/repos/acme/web", &Value::Null).await.expect(404);
        with(w, &ada, "POST", "/v1/sessions", &json!({"repo": "acme/web"})).await.expect(404);
        with(w, &ada, "GET", "/v1/stats", &Value::Null).await.expect(403);
        let nowhere = pair.sign(&claims(w, &issuer, "client"));
        with(w, &nowhere, "GET", "/v1/repos/acme/api", &Value::Null).await.expect(404);

        // The quota counts the name of the token.
        let one = config::QuotaSettings { sessions_per_user: Some(2), ..Default::default() };
        w.app().quotas.set(one);
        let full = with(w, &ada, "POST", "/v1/sessions", &json!({"repo": "acme/api"})).await.expect(503);
        assert!(full.text().contains("`ada` has 2 live sessions"), "{}", full.text());

        // Where the operator says so, or who operates, may name others.
        take(w, vec![OidcSettings { user: UserRule::Request, ..narrow }]).await;
        with(w, &ada, "POST", "/v1/sessions", &bob).await.expect(201);
        let operator = changed(claims(w, &issuer, "operator"), json!({"repos": ["acme/api"]}));
        with(w, &pair.sign(&operator), "POST", "/v1/sessions", &bob).await.expect(201);

        let lines = w.get("/v1/audit?limit=500").await.expect(200).json();
        let who = format!("oidc:{}#1001", issuer.url());
        let of_ada =
            |line: &&Value| line["who"] == json!(who) && line["user"] == "ada" && line["status"] == 201;
        let lines = lines["items"].as_array().expect("lines");
        assert_eq!(lines.iter().filter(of_ada).count(), 2, "{lines:?}");
        let denied = |line: &&Value| line["who"] == json!(who) && line["outcome"] == "denied";
        assert!(lines.iter().filter(denied).count() >= 4, "{lines:?}");
        assert!(!lines.iter().any(|line| line.to_string().contains(&ada)), "a token in the audit log");
    });
}

/// Follows what a path streams until something came; then waits for its end.
async fn ends(w: &World, key: &str, path: &str, close: impl AsyncFnOnce()) {
    let client = Client::new(w.client().address.clone(), key);
    let mut stream = client.stream(path).await.expect("a stream");
    stream.next().await.expect("something").expect("its beginning");
    close().await;
    let over = async { while matches!(stream.next().await, Some(Ok(_))) {} };
    tokio::time::timeout(Duration::from_secs(10), over).await.unwrap_or_else(|_| panic!("{path} goes on"));
}

/// A terminal in a session: until it has ended.
async fn terminal_ends(w: &World, key: &str, session: &str, close: impl AsyncFnOnce()) {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let address = w.client().address.clone();
    let url = format!("ws://{address}/v1/sessions/{session}/terminal?cmd=shell");
    let mut request = url.into_client_request().expect("a request");
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().expect("a header"));
    let stream = tokio::net::TcpStream::connect(&address).await.expect("connect");
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.expect("a terminal");
    socket.next().await.expect("a prompt").expect("its beginning");
    close().await;
    let over = async { while matches!(socket.next().await, Some(Ok(_))) {} };
    tokio::time::timeout(Duration::from_secs(10), over).await.expect("the terminal ends");
}

/// What is open with a key or a token ends with it.
#[test]
fn streams_end_with_what_opened_them() {
    let runs = |options: &mut domain::testing::FakeAgentOptions| {
        options.commands = vec![("shell".into(), domain::testing::FakeCommand::Runs("$ ".into()))];
    };
    World::with(Setup::pool(1).manual_clock().agents(runs), async |w| {
        let view = w.session().await;
        w.synced(&view).await;
        let session = id(&view).to_owned();
        let exec = json!({"cmd": ["shell"]});
        let exec = w.post(&format!("/v1/sessions/{session}/exec"), &exec).await.expect(201).field("id");
        let events = format!("/v1/sessions/{session}/events");
        let output = format!("/v1/sessions/{session}/exec/{exec}/output?follow=true");

        let key = async |name: &str, life: Option<u64>| {
            let body = json!({"name": name, "role": "client", "expires_seconds": life});
            let made = w.post("/v1/keys", &body).await.expect(201);
            (made.field("key"), made.field("id"))
        };
        let revoke = async |id: &str| drop(w.delete(&format!("/v1/keys/{id}")).await.expect(200));
        let (one, one_id) = key("one", None).await;
        ends(w, &one, &events, async || revoke(&one_id).await).await;
        let (two, two_id) = key("two", None).await;
        ends(w, &two, &output, async || revoke(&two_id).await).await;
        let (three, three_id) = key("three", None).await;
        terminal_ends(w, &three, &session, async || revoke(&three_id).await).await;
        let (four, _) = key("four", Some(60)).await;
        ends(w, &four, &events, async || w.clock.advance(Duration::from_secs(61))).await;

        let pair = Pair::new(Algorithm::ES256, "one");
        let issuer = Issuer::start(&[&pair]).await.expect("an issuer");
        take(w, vec![settings(&issuer)]).await;
        let token = pair.sign(&claims(w, &issuer, "client"));
        ends(w, &token, &output, async || w.clock.advance(Duration::from_secs(601))).await;
        let token = pair.sign(&claims(w, &issuer, "client"));
        terminal_ends(w, &token, &session, async || take(w, Vec::new()).await).await;
        // Its key was withdrawn.
        take(w, vec![settings(&issuer)]).await;
        let next = Pair::new(Algorithm::ES256, "next");
        let token = pair.sign(&claims(w, &issuer, "client"));
        let withdrawn = async || {
            issuer.publish(&[&next]);
            w.clock.advance(Duration::from_secs(301));
            look(w).await.expect("keys");
        };
        ends(w, &token, &events, withdrawn).await;
    });
}
