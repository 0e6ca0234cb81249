//! The demo's web page: a text field that announces what is typed, as a web UI of a coding agent would have it. It is
//! served from an origin of its own, so that the browser's rules are those of a real one: the page holds a token for
//! announcements, and its server the API key.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use domain::{Error, RepoName, Result};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;

const PAGE: &str = include_str!("page.html");
const SCRIPT: &str = include_str!("../../../web/warmup/warmup.js");

/// What the page is about.
#[derive(Debug)]
pub struct Page {
    /// Where Hotbed is for the server, with the key.
    pub client: Client,
    /// Where it is for the browser.
    pub hotbed: String,
    pub repo: RepoName,
    /// Milliseconds, for `warmup.js`.
    pub heartbeat: u64,
    pub grace: u64,
}

type Shared = State<Arc<Page>>;

/// Until the task that runs it is dropped.
pub async fn serve(listener: TcpListener, page: Page) -> Result<()> {
    let served = axum::serve(listener, router(page)).await;
    served.map_err(|e| Error::permanent("serve the demo's page").caused_by(e))
}

fn router(page: Page) -> Router {
    let script = ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], SCRIPT);
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/warmup.js", get(move || async move { script }))
        .route("/about", get(about))
        .route("/token", post(token))
        .route("/sessions", post(start))
        .with_state(Arc::new(page))
}

async fn about(State(page): Shared) -> Json<Value> {
    let Page { hotbed, repo, heartbeat, grace, .. } = &*page;
    Json(json!({"hotbed": hotbed, "repo": repo, "heartbeat": heartbeat, "grace": grace}))
}

#[derive(Deserialize)]
struct NewToken {
    client: String,
}

async fn token(State(page): Shared, Json(new): Json<NewToken>) -> Response {
    let body = json!({"client": new.client, "repo": page.repo});
    answer(page.client.post("/v1/warmups/tokens", &body).await)
}

#[derive(Deserialize)]
struct NewSession {
    warmup: Option<String>,
    branch: Option<String>,
}

async fn start(State(page): Shared, Json(new): Json<NewSession>) -> Response {
    let body = json!({
        "repo": page.repo,
        "user": {"login": "you", "name": "You", "email": "you@example.invalid"},
        "warmup": new.warmup,
        "base": new.branch,
    });
    let begun = tokio::time::Instant::now();
    let started: Result<Value> = page.client.post("/v1/sessions", &body).await;
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    answer(started.map(|session| json!({"session": session, "ms": ms})))
}

fn answer(done: Result<Value>) -> Response {
    match done {
        Ok(value) => Json(value).into_response(),
        Err(e) => (StatusCode::BAD_GATEWAY, Json(json!({"error": Error::chain(&e)}))).into_response(),
    }
}
