//! Repos, builds, images, pools, statistics, and what the machine room asks: readiness and metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::{BuildId, Error, RepoName, RepoSpec, Result, Trigger};
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use utoipa::IntoParams;

use super::audit::Made;
use super::sessions::page;
use super::types::{BuildView, List, OutcomesView, PoolView, PromptingView, RepoView, StartBuild, Stats};
use super::{ApiResult, Caller, Hotbed, Payload, Replay, detached, key_of, parse};
use crate::app::App;
use crate::idempotency::Begin;
use crate::repos::HandedOut;

/// Ready means: the store is open, the engine answers, agents can dial. Reasons when not.
pub async fn ready(State(app): Hotbed) -> Response {
    let reasons = app.not_ready().await;
    let body = Json(json!({"ready": reasons.is_empty(), "reasons": reasons}));
    if reasons.is_empty() {
        return body.into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "2")], body).into_response()
}

/// The metrics, for Prometheus.
pub async fn metrics(State(app): Hotbed) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    // With many repos it is millions of bytes: they leave while the next ones are written, off the threads that claims
    // need. Nothing waits for whoever reads them.
    let (written, mut pages) = mpsc::unbounded_channel();
    tokio::task::spawn_blocking(move || {
        app.measure();
        app.metrics.pages(&mut |page| drop(written.send(page)));
    });
    let pages = stream::poll_fn(move |cx| pages.poll_recv(cx)).map(Ok::<_, Infallible>);
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(pages)).into_response()
}

fn view(app: &App, spec: &RepoSpec) -> RepoView {
    let HandedOut { current: image, canary } = app.repos.handed_out(&spec.name);
    let now = app.clock.now();
    let plan = app.pools.last_plan();
    let pool = plan.repos.iter().find(|p| p.repo == spec.name);
    RepoView {
        name: spec.name.to_string(),
        url: spec.url.clone(),
        branch: spec.branch.to_string(),
        image_age_seconds: image.as_ref().map(|i| now.duration_since(i.created_at).as_secs()),
        image: image.as_ref().map(Into::into),
        canary: canary.as_ref().map(Into::into),
        commits_behind: None,
        pool: pool.map(|p| PoolView::new(p, app.demands.order_of(&spec.name).as_ref())),
        build: app.builds.present(&spec.name).as_ref().map(|b| BuildView::at(now, b)),
    }
}

/// The configured repos.
#[utoipa::path(get, path = "/v1/repos", tag = "repos", operation_id = "list_repos", responses((status = 200, body = List<RepoView>)))]
pub async fn repos(State(app): Hotbed, Extension(caller): Extension<Caller>) -> Json<List<RepoView>> {
    let items = app
        .repos
        .all()
        .iter()
        .filter(|spec| caller.covers(&spec.name))
        .map(|spec| view(&app, spec))
        .collect();
    Json(List { items, next: None })
}

pub(super) fn named(app: &Arc<App>, owner: &str, name: &str) -> Result<Arc<RepoSpec>> {
    let repo: RepoName = parse("repo", &format!("{owner}/{name}"))?;
    app.repos.spec(&repo)
}

/// One repo with its current image, pool and build.
#[utoipa::path(get, path = "/v1/repos/{owner}/{name}", tag = "repos", operation_id = "get_repo", responses((status = 200, body = RepoView)))]
pub async fn repo(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
) -> ApiResult<Json<RepoView>> {
    let spec = named(&app, &owner, &name)?;
    let mut view = view(&app, &spec);
    if let Some(image) = app.repos.current_image(&spec.name) {
        view.commits_behind = app.behind(&spec, &image).await.ok().flatten();
    }
    Ok(Json(view))
}

/// Build an image now. One build of a repo is under way at a time and one may wait: what waits is superseded by a newer request.
#[utoipa::path(post, path = "/v1/repos/{owner}/{name}/builds", tag = "builds", operation_id = "start_build", params(Replay), request_body = StartBuild, responses((status = 202, body = BuildView)))]
pub async fn build_start(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path((owner, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Payload<StartBuild>,
) -> ApiResult<Response> {
    let spec = named(&app, &owner, &name)?;
    let clock = app.clock.clone();
    let key = key_of(&caller, &headers, &format!("POST /v1/repos/{owner}/{name}/builds"), &body.raw)?;
    let record = detached(async move {
        let guard = match key {
            None => None,
            Some(key) => match app.idempotency.begin(key).await? {
                Begin::New(guard) => Some(guard),
                Begin::Replay(id) => return one_build(&app, parse("id", &id)?).await,
            },
        };
        let record = app.builds.request_by(&spec, Trigger::Api, body.value.by).await?;
        if let Some(guard) = guard {
            app.store.commit(store::Tx::new().idempotency(&guard.row(&record.id.to_string()))).await?;
            guard.done(record.id.to_string());
        }
        Ok(record)
    })
    .await?;
    let mut response = (StatusCode::ACCEPTED, Json(BuildView::at(clock.now(), &record))).into_response();
    response.extensions_mut().insert(Made(record.id.to_string()));
    Ok(response)
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    after: Option<String>,
    limit: Option<u32>,
}

/// The builds of a repo, newest first.
#[utoipa::path(get, path = "/v1/repos/{owner}/{name}/builds", tag = "builds", operation_id = "list_builds", params(PageQuery), responses((status = 200, body = List<BuildView>)))]
pub async fn builds(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
    Query(q): Query<PageQuery>,
) -> ApiResult<Json<List<BuildView>>> {
    let spec = named(&app, &owner, &name)?;
    let found = app.store.builds(Some(&spec.name), page(q.after, q.limit)?).await?;
    let now = app.clock.now();
    let items = found.items.iter().map(|b| BuildView::at(now, b)).collect();
    Ok(Json(List { items, next: found.next }))
}

async fn one_build(app: &App, id: BuildId) -> Result<domain::BuildRecord> {
    app.store.build(id).await?.ok_or_else(|| Error::not_found(format!("there is no build {id}")))
}

/// One build.
#[utoipa::path(get, path = "/v1/builds/{id}", tag = "builds", operation_id = "get_build", responses((status = 200, body = BuildView)))]
pub async fn build(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<BuildView>> {
    let record = one_build(&app, parse("id", &id)?).await?;
    Ok(Json(BuildView::at(app.clock.now(), &record)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// The byte offset to begin at.
    #[serde(default)]
    from: u64,
    /// Stay until the build ends.
    #[serde(default)]
    follow: bool,
}

/// What a build printed.
#[utoipa::path(get, path = "/v1/builds/{id}/log", tag = "builds", operation_id = "get_build_log", params(LogQuery), responses((status = 200, content_type = "text/plain", body = String)))]
pub async fn build_log(
    State(app): Hotbed,
    Path(id): Path<String>,
    Query(q): Query<LogQuery>,
) -> ApiResult<Response> {
    let id: BuildId = parse("id", &id)?;
    one_build(&app, id).await?;
    let body = app.builds.log(id, q.from, q.follow).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct StatsQuery {
    /// How many days back outcomes are counted, 1 to 366; 30 when not given.
    days: Option<u32>,
}

/// Sessions, launches and pull requests, counted; and what came of them.
#[utoipa::path(get, path = "/v1/stats", tag = "repos", operation_id = "get_stats", params(StatsQuery), responses((status = 200, body = Stats)))]
pub async fn stats(State(app): Hotbed, Query(q): Query<StatsQuery>) -> ApiResult<Json<Stats>> {
    let days = q.days.unwrap_or(30);
    if !(1..=366).contains(&days) {
        return Err(Error::invalid(format!("`days` is {days}: expected 1 to 366")).into());
    }
    let s = app.store.stats().await?;
    let since = jiff::SignedDuration::from_hours(24 * i64::from(days));
    let since = app.clock.now().checked_sub(since).unwrap_or(jiff::Timestamp::MIN);
    let (counts, pulls) = (app.store.session_counts(since).await?, app.store.session_pulls(since).await?);
    let of = crate::stats::outcomes(&counts, &pulls);
    let outcomes = OutcomesView { days, total: of.total, by_repo: of.by_repo, by_user: of.by_user };
    let by_repo = app.sessions.prompting();
    let people: BTreeSet<_> = by_repo.values().flatten().collect();
    let prompting = PromptingView {
        people: people.len() as u64,
        by_repo: by_repo.iter().map(|(repo, all)| (repo.to_string(), all.len() as u64)).collect(),
    };
    let mut live_by_repo = BTreeMap::new();
    for session in app.sessions.all() {
        *live_by_repo.entry(session.repo.to_string()).or_default() += 1;
    }
    Ok(Json(Stats {
        sessions: s.sessions,
        sessions_by_launch: s.sessions_by_launch,
        sessions_by_state: s.sessions_by_state,
        pull_requests_by_state: s.pull_requests_by_state,
        snapshots_by_state: s.snapshots_by_state,
        people: s.people,
        live_by_repo,
        prompting,
        outcomes,
    }))
}
