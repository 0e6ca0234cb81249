//! Webhooks: made from what happened, held against octokit's schemas, signed, delivered, remembered.

use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::rest::{Answered, Reply, now};
use super::state::{Delivery, Pull, State};
use super::{APP_ID, Inner, objects};

/// GitHub gives a receiver ten seconds.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// The header that a body is signed with.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    let tag = sign(&Key::new(HMAC_SHA256, secret.as_bytes()), body);
    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

/// Tells what happened to a pull request.
pub(crate) fn pull_request(inner: &Arc<Inner>, pull: &Pull, action: &'static str, more: Value, sender: &str) {
    let (mut body, repository) = about(inner, &pull.repo, sender);
    body["action"] = json!(action);
    body["number"] = json!(pull.number);
    body["pull_request"] = objects::pull(inner, &inner.state(), pull, true);
    if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
        body.extend(more.clone());
    }
    tell(inner, "pull_request", Some(action), body, repository);
}

/// Tells a review, and answers it as REST shows it.
pub(crate) fn review(
    inner: &Arc<Inner>,
    pull: &Pull,
    verdict: &str,
    words: Option<&str>,
    reviewer: &str,
) -> Value {
    let (mut body, repository) = about(inner, &pull.repo, reviewer);
    let review = {
        let mut state = inner.state();
        let (id, at) = (state.number(), objects::time(now(inner, &state)));
        let page = format!("{}/{}/pull/{}", inner.web, pull.repo, pull.number);
        let (html, rest) = (
            format!("{page}#pullrequestreview-{id}"),
            format!("{}/repos/{}/pulls/{}", inner.api(), pull.repo, pull.number),
        );
        json!({
            "id": id, "node_id": format!("PRR_{id}"), "user": objects::account(inner, &state, reviewer), "body": words,
            "commit_id": pull.head_sha, "submitted_at": at, "state": verdict, "html_url": html,
            "pull_request_url": rest, "author_association": "COLLABORATOR",
            "_links": {"html": {"href": html}, "pull_request": {"href": rest}},
        })
    };
    body["action"] = json!("submitted");
    body["review"] = review.clone();
    body["pull_request"] = objects::pull(inner, &inner.state(), pull, false);
    tell(inner, "pull_request_review", Some("submitted"), body, repository);
    let mut shown = review;
    shown["state"] = json!(verdict.to_ascii_uppercase());
    shown
}

/// Tells that a branch moved.
pub(crate) fn push(inner: &Arc<Inner>, repo: &str, reference: &str, before: &str, after: &str, sender: &str) {
    let (mut body, repository) = about(inner, repo, sender);
    let zero = |id: &str| id.bytes().all(|b| b == b'0');
    let dir = inner.repo_dir(repo);
    let commit = (!zero(after)).then(|| commit(inner, repo, &dir, after)).flatten();
    let forced = !zero(before)
        && !zero(after)
        && super::pulls::git(&dir, &["merge-base", "--is-ancestor", before, after]).is_none();
    let more = json!({
        "ref": reference, "before": before, "after": after, "created": zero(before), "deleted": zero(after),
        "forced": forced, "base_ref": null, "compare": format!("{}/{repo}/compare/{before}...{after}", inner.web),
        "commits": commit.iter().cloned().collect::<Vec<_>>(), "head_commit": commit,
        "pusher": {"name": sender, "email": format!("{sender}@users.noreply.github.com")},
    });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    tell(inner, "push", None, body, repository);
}

fn commit(inner: &Inner, repo: &str, dir: &std::path::Path, id: &str) -> Option<Value> {
    let text = super::pulls::git(dir, &["show", "-s", "--format=%T%n%cI%n%an%n%ae%n%cn%n%ce%n%B", id])?;
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default().to_owned();
    let (tree, at, author, author_mail, committer, committer_mail) =
        (next(), next(), next(), next(), next(), next());
    let message: Vec<&str> = lines.collect();
    Some(json!({
        "id": id, "tree_id": tree, "distinct": true, "message": message.join("\n").trim(), "timestamp": at,
        "url": format!("{}/{repo}/commit/{id}", inner.web), "author": {"name": author, "email": author_mail},
        "committer": {"name": committer, "email": committer_mail}, "added": [], "removed": [], "modified": [],
    }))
}

/// Repository, sender and installation, and the repository's id.
fn about(inner: &Inner, repo: &str, sender: &str) -> (Value, Option<u64>) {
    let state = inner.state();
    let found = state.repo(repo);
    let mut body = json!({"sender": objects::account(inner, &state, sender)});
    if let Some(found) = found {
        body["repository"] = objects::repository(inner, &state, found);
        if let Some(id) = found.installation {
            body["installation"] = json!({"id": id, "node_id": format!("I_{id}")});
        }
    }
    (body, found.map(|r| r.id))
}

/// Remembers an event and delivers it, unless the App wants none.
pub(crate) fn tell(
    inner: &Arc<Inner>,
    event: &str,
    action: Option<&str>,
    body: Value,
    repository: Option<u64>,
) {
    for wrong in inner.contract.check_webhook(event, action, &body) {
        inner.violation(wrong);
    }
    let delivery = {
        let mut state = inner.state();
        let id = state.number();
        let delivery = Delivery {
            id,
            guid: format!("{:08x}-0000-4000-8000-{id:012x}", id * 7919),
            event: event.to_owned(),
            action: action.map(str::to_owned),
            body,
            delivered_at: now(inner, &state),
            status: 0,
            redelivery: false,
            repository,
        };
        state.deliveries.push(delivery.clone());
        delivery
    };
    let inner = inner.clone();
    tokio::spawn(async move { deliver(&inner, delivery).await });
}

/// Delivers one; its status is remembered, 502 where nobody took it.
async fn deliver(inner: &Arc<Inner>, delivery: Delivery) -> u16 {
    let (url, secret) = {
        let state = inner.state();
        (state.app.webhook_url.clone(), state.app.webhook_secret.clone())
    };
    let Some(url) = url else { return 0 };
    let status = tokio::time::timeout(PATIENCE, send(&url, &secret, &delivery)).await;
    let status = status.ok().and_then(Result::ok).unwrap_or(502);
    let mut state = inner.state();
    if let Some(kept) = state.deliveries.iter_mut().rfind(|d| d.id == delivery.id) {
        kept.status = status;
    }
    status
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

async fn send(url: &str, secret: &str, delivery: &Delivery) -> Result<u16, Failed> {
    let uri: http::Uri = url.parse()?;
    let authority = uri.authority().ok_or("no host")?.as_str().to_owned();
    let stream = TcpStream::connect(&authority).await?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = serde_json::to_vec(&delivery.body)?;
    let request = Request::post(uri.path())
        .header(header::HOST, authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, "GitHub-Hookshot/standin")
        .header("x-github-event", &delivery.event)
        .header("x-github-delivery", &delivery.guid)
        .header("x-github-hook-id", "1")
        .header("x-github-hook-installation-target-type", "integration")
        .header("x-github-hook-installation-target-id", APP_ID.to_string())
        .header("x-hub-signature-256", signature(secret, &body))
        .body(Full::new(Bytes::from(body)))?;
    Ok(client.send_request(request).await?.status().as_u16())
}

/// `GET /app/hook/deliveries`.
pub(crate) fn list(inner: &Inner, status: Option<&str>) -> Reply {
    let state = inner.state();
    let fine = |d: &&Delivery| (200..300).contains(&d.status);
    let wanted = |d: &&Delivery| match status {
        Some("success") => fine(d),
        Some("failure") => !fine(d),
        _ => true,
    };
    Reply::new(200, state.deliveries.iter().rev().filter(wanted).take(100).map(|d| item(d, &state)).collect())
}

fn item(d: &Delivery, state: &State) -> Value {
    let installation =
        d.repository.and_then(|id| state.repos.values().find(|r| r.id == id)).and_then(|r| r.installation);
    json!({
        "id": d.id, "guid": d.guid, "delivered_at": objects::time(d.delivered_at), "redelivery": d.redelivery,
        "duration": 0.1, "status": if d.status < 300 { "OK" } else { "failed" }, "status_code": d.status,
        "event": d.event, "action": d.action, "installation_id": installation, "repository_id": d.repository,
    })
}

/// `POST …/attempts`: the same delivery again, under the same guid.
pub(crate) async fn again(inner: &Arc<Inner>, id: &str) -> Answered {
    let again = {
        let mut state = inner.state();
        let found = state.deliveries.iter().find(|d| d.id.to_string() == id).cloned();
        let mut again = found.ok_or_else(|| Reply::error(404, "Not Found"))?;
        again.id = state.number();
        again.redelivery = true;
        state.deliveries.push(again.clone());
        again
    };
    let inner = inner.clone();
    tokio::spawn(async move { deliver(&inner, again).await });
    Ok(Reply::new(202, json!({})))
}
