//! Git over HTTP with GitHub's rules: who may fetch, who may push, and what a push sets off.

use std::collections::BTreeMap;
use std::sync::Arc;

use git::{RelayBody, text};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use super::authority::{identify, reach};
use super::rest::now;
use super::state::{Exchange, PullState};
use super::{Inner, hooks};

/// Whether a path is git's.
pub(crate) fn is_git(path: &str) -> bool {
    path.contains(".git/")
}

pub(crate) async fn answer(inner: &Arc<Inner>, request: Request<Incoming>) -> Response<RelayBody> {
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    let full_name = path.split(".git/").next().unwrap_or_default().trim_start_matches('/').to_owned();
    let pushes = path.ends_with("/git-receive-pack") || query.contains("service=git-receive-pack");
    let authorization =
        request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let (verdict, who, sender) = {
        let state = inner.state();
        match identify(&state, authorization.as_deref(), now(inner, &state)) {
            Ok(who) => {
                let verdict =
                    reach(&state, &who, &full_name, "contents", pushes).map(|r| r.full_name.clone());
                (verdict, who.word(), who.login(&state))
            }
            Err(refused) => (Err(refused), "nobody", None),
        }
    };
    let answer = match verdict {
        Err(refused) => refuse(refused.status, &full_name, sender.as_deref()),
        Ok(full_name) if path.ends_with("/git-receive-pack") => {
            receive(inner, request, &full_name, &sender.unwrap_or_default()).await
        }
        Ok(_) => serve(inner, request).await,
    };
    let method = if path.ends_with("-pack") { "POST" } else { "GET" };
    let path = if query.is_empty() { path } else { format!("{path}?{query}") };
    let status = answer.status().as_u16();
    let exchange = Exchange { method: method.into(), path, authority: who, request: None, status };
    inner.state().exchanges.push(exchange);
    answer
}

fn refuse(status: u16, full_name: &str, sender: Option<&str>) -> Response<RelayBody> {
    match (status, sender) {
        (401, _) | (404, None) => {
            let mut answer = text(StatusCode::UNAUTHORIZED, "Invalid username or token.");
            let realm = HeaderValue::from_static("Basic realm=\"GitHub\"");
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
            answer
        }
        (403, Some(sender)) => {
            text(StatusCode::FORBIDDEN, format!("Permission to {full_name}.git denied to {sender}."))
        }
        _ => text(StatusCode::NOT_FOUND, "Repository not found."),
    }
}

async fn serve(inner: &Arc<Inner>, request: Request<Incoming>) -> Response<RelayBody> {
    git::hosting::serve_git(inner.root.path(), request)
        .await
        .unwrap_or_else(|e| text(StatusCode::INTERNAL_SERVER_ERROR, e.chain()))
}

/// A push: what moved is told after the fact, before git has its answer.
async fn receive(
    inner: &Arc<Inner>,
    request: Request<Incoming>,
    full_name: &str,
    sender: &str,
) -> Response<RelayBody> {
    let before = references(inner, full_name);
    let (head, body) = serve(inner, request).await.into_parts();
    let Ok(body) = body.collect().await else {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the push broke off");
    };
    let after = references(inner, full_name);
    let zero = "0".repeat(40);
    let names: std::collections::BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
    for name in names {
        let (old, new) = (before.get(&name).unwrap_or(&zero), after.get(&name).unwrap_or(&zero));
        if old != new {
            moved(inner, full_name, &name, old, new, sender);
        }
    }
    Response::from_parts(head, Full::new(body.to_bytes()).map_err(|never| match never {}).boxed())
}

fn moved(inner: &Arc<Inner>, full_name: &str, name: &str, old: &str, new: &str, sender: &str) {
    hooks::push(inner, full_name, name, old, new, sender);
    let Some(branch) = name.strip_prefix("refs/heads/") else { return };
    let changed = {
        let mut state = inner.state();
        let at = now(inner, &state);
        let open = state
            .pulls
            .iter_mut()
            .find(|p| p.repo == full_name && p.head == branch && p.state == PullState::Open);
        open.map(|pull| {
            pull.head_sha = new.to_owned();
            pull.updated_at = at;
            pull.clone()
        })
    };
    if let Some(pull) = changed {
        hooks::pull_request(
            inner,
            &pull,
            "synchronize",
            serde_json::json!({"before": old, "after": new}),
            sender,
        );
    }
}

fn references(inner: &Inner, full_name: &str) -> BTreeMap<String, String> {
    let all = git::hosting::BareRepo::at(inner.repo_dir(full_name)).references().unwrap_or_default();
    all.into_iter().map(|(name, id)| (name, id.to_string())).collect()
}
