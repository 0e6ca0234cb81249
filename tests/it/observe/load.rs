//! A short load that makes everything happen that the metrics count: what goes well, and each thing that goes wrong.

use std::time::Duration;

use config::QuotaSettings;
use domain::ports::{CaptureKind, ObservedCapture};
use domain::testing::Fault;
use domain::{Branch, ErrorKind, RepoName, SandboxId};
use orchestrator::fleet::Gatekeeper;
use orchestrator::links::Admission;
use serde_json::{Value, json};

use crate::world::{Setup, World, id, main, sandbox, spec};

/// The repo that dashboards of one repo show.
pub const REPO: &str = "acme/api";
/// A repo without a pool: its sessions are cold.
const COLD: &str = "acme/cold";

/// Two repos at GitHub; warm-ups are forgotten soon.
pub fn setup() -> Setup {
    Setup::repos(vec![spec(REPO, 2), spec(COLD, 0)])
        .github()
        .change(|spec| spec.pool.warmup_ttl = Duration::from_secs(2))
}

fn name(repo: &str) -> RepoName {
    repo.parse().expect("repo name")
}

fn order(repo: &str) -> Value {
    json!({"repo": repo, "user": {"login": "ada"}})
}

async fn session(w: &World, order: &Value) -> Value {
    w.post("/v1/sessions", order).await.expect(201).json()
}

/// Everything once. What is logged on the way is expected.
pub async fn round(w: &mut World, number: u32) {
    w.allow_engine_trouble();
    for text in [
        "build failed",
        "request failed",
        "sandbox lost",
        "still can't be captured",
        "could not capture",
        "a capture failed",
        "kept",
        "sync failed",
    ] {
        w.allow_log(text);
    }
    builds(w, number).await;
    w.pools_full().await;
    warmups(w).await;
    work(w, number).await;
    w.pools_full().await;
    trouble(w).await;
    lost_and_found(w, number).await;
    // One that goes on.
    session(w, &order(REPO)).await;
    w.pools_full().await;
}

async fn builds(w: &World, number: u32) {
    w.build(&name(REPO)).await;
    w.commit(&format!("change {number}"));
    w.build(&name(REPO)).await;
    w.commit(&format!("a change that breaks the build {number}"));
    w.backend.fault("capture", Fault::Fail(ErrorKind::Permanent));
    let build = w.post(&format!("/v1/repos/{REPO}/builds"), &json!({})).await.expect(202).json();
    w.wait("a build has failed", async || {
        let now = w.get(&format!("/v1/builds/{}", id(&build))).await.expect(200).json();
        (now["state"] == "failed").then_some(())
    })
    .await;
}

async fn warmups(w: &World) {
    let announce = async |client: &str| {
        let body = json!({"repo": REPO, "client": client});
        w.post("/v1/warmups", &body).await.expect(202).json()
    };
    let taken = announce("taken").await;
    let mut order = order(REPO);
    order["warmup"] = json!(id(&taken));
    w.end(&session(w, &order).await).await;
    let withdrawn = announce("withdrawn").await;
    w.delete(&format!("/v1/warmups/{}", id(&withdrawn))).await.expect(200);
    let forgotten = announce("forgotten").await;
    w.wait("a warm-up has expired", async || {
        let now = w.get(&format!("/v1/warmups/{}", id(&forgotten))).await.expect(200).json();
        (now["state"] == "expired").then_some(())
    })
    .await;
}

/// Sessions of every launch that do what sessions do.
async fn work(w: &World, number: u32) {
    let warm = session(w, &order(REPO)).await;
    assert_eq!(w.synced(&warm).await, "synced");
    let path = format!("/v1/sessions/{}", id(&warm));
    w.post(&format!("{path}/exec"), &json!({"cmd": "true", "wait": true})).await.expect(201);
    w.post(&format!("{path}/snapshots"), &json!({})).await.expect(201);
    let branch: Branch = warm["branch"].as_str().expect("branch").parse().expect("branch");
    let upstream = w.upstream(&name(REPO));
    let tip = upstream.tip(&main()).expect("tip").expect("main");
    upstream.set_branch(&branch, &tip).expect("branch");
    w.commit_to(&branch, &format!("work {number}"));
    let kind = [("content-type", "application/json")];
    let token = json!({"token": w.hub().personal_token("ada")}).to_string();
    w.send("PUT", "/v1/users/ada/token", &kind, token.as_bytes()).await.expect(200);
    let mut opened = Value::Null;
    for _ in 0..2 {
        opened =
            w.post(&format!("{path}/pull-requests"), &json!({"title": "Do it"})).await.expect(201).json();
    }
    merge(w, &path, &opened["number"]).await;
    w.end(&warm).await;
    let mut follow = order(REPO);
    follow["parent"] = json!(id(&warm));
    let restored = session(w, &follow).await;
    assert_eq!(restored["launch"], "restore");
    w.synced(&restored).await;
    let cold = session(w, &order(COLD)).await;
    assert_eq!(cold["launch"], "cold");
    w.synced(&cold).await;
    // Nothing was pushed here.
    let refused = format!("/v1/sessions/{}/pull-requests", id(&cold));
    w.post(&refused, &json!({"title": "Nothing"})).await.expect(201);
    w.end(&restored).await;
    w.end(&cold).await;
}

/// Somebody merges it at GitHub, which tells.
async fn merge(w: &World, session: &str, number: &Value) {
    let token = w.hub().personal_token("ada");
    w.hub().collaborator(&name(REPO), "bea", tests::github::Grade::Write);
    let bea = w.hub().personal_token("bea");
    let review = format!("/repos/{REPO}/pulls/{number}/reviews");
    let approve = json!({"event": "APPROVE"});
    let (status, said) = crate::github::by_hand(w.hub(), "POST", &review, &bea, approve).await;
    assert_eq!(status, 200, "{said}");
    w.wait("the approval is known", async || {
        let all = w.get(&format!("{session}/pull-requests")).await.expect(200).json();
        (all["items"][0]["approvals"] == 1).then_some(())
    })
    .await;
    let path = format!("/repos/{REPO}/pulls/{number}/merge");
    let (status, said) = crate::github::by_hand(w.hub(), "PUT", &path, &token, json!({})).await;
    assert_eq!(status, 200, "{said}");
    w.wait("the merge is known", async || {
        let all = w.get(&format!("{session}/pull-requests")).await.expect(200).json();
        (all["items"][0]["state"] == "merged").then_some(())
    })
    .await;
}

/// What goes wrong and is mended.
async fn trouble(w: &World) {
    for agent in w.agents.all() {
        agent.set(|o| o.sync_fails = Some("no space left".into()));
    }
    let view = session(w, &order(REPO)).await;
    assert_eq!(w.synced(&view).await, "failed");
    let path = format!("/v1/sessions/{}", id(&view));
    w.send("PUT", &format!("{path}/files/x?gate_wait_ms=1"), &[], b"x").await.expect(423);
    for agent in w.agents.all() {
        agent.set(|o| o.sync_fails = None);
    }
    w.backend.fault("pause", Fault::Fail(ErrorKind::Unavailable));
    w.post(&format!("{path}/pause"), &json!({})).await.expect(503);
    w.delete(&format!("{path}?wait=true&discard=true")).await.expect(200);
    w.app().quotas.set(QuotaSettings { sessions_per_repo: Some(0), ..QuotaSettings::default() });
    w.post("/v1/sessions", &order(REPO)).await.expect(503);
    w.app().quotas.set(QuotaSettings::default());
    let wrong = [("authorization", "Bearer hbk_wrong")];
    w.send_bare("GET", "/v1/repos", &wrong, b"").await.expect(401);
    let member = *w.pool_members().first().expect("a member");
    assert!(Gatekeeper(w.app().fleet.clone()).admit(member, "another token").is_err());
    let failures = || w.logged("a background task failed");
    w.backend.fault("list", Fault::Fail(ErrorKind::Unavailable));
    w.app().reconcile_poke.notify_one();
    w.wait_for("a task has failed", failures).await;
}

/// Sandboxes that go away or that nobody made.
async fn lost_and_found(w: &World, number: u32) {
    let view = session(w, &order(REPO)).await;
    w.synced(&view).await;
    w.backend.remove_from_outside(sandbox(&view), true);
    assert_eq!(w.until(&view, "ended").await["end"], "sandbox_lost");
    w.backend.add_sandbox(SandboxId::new());
    let digest = format!("sha256:{:064x}", 0xabc_u32 + number).parse().expect("digest");
    let kind = CaptureKind::Snapshot;
    w.backend.add_capture(ObservedCapture { digest, kind, name: format!("stray-{number}"), size: 1 << 20 });
    w.on(|app| async move { app.captures.collect().await }).await.expect("collect");
    w.reconcile().await;
}
