//! Sessions: start, read, list, end, sync, pause, fork, pull requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::{
    EndReason, Error, RepoName, Result, SandboxState, SessionId, SessionState, SnapshotKind, SnapshotState,
    TraceContext,
};
use serde::Deserialize;
use store::{Page, SessionFilter};
use utoipa::IntoParams;

use super::person::whoever;
use super::types::{
    CreateSession, Extend, Fork, List, OpenPullRequest, Prompt, PullRequestView, SessionView, SyncAction,
    SyncAgain, SyncView,
};
use super::{ApiResult, Caller, Hotbed, Payload, Replay, Traced, detached, key_of, made, parse, users};
use crate::app::App;
use crate::idempotency::Begin;
use crate::pulls::PullOrder;
use crate::sessions::NewSession;
use crate::traces::kinds;

fn optional<T: std::str::FromStr>(field: &str, value: Option<&String>) -> Result<Option<T>>
where
    T::Err: std::fmt::Display,
{
    value.map(|v| parse(field, v)).transpose()
}

fn check_env(env: &BTreeMap<String, String>) -> Result<()> {
    for (name, value) in env {
        let good = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        if !good || name.starts_with("HOTBED_") {
            return Err(Error::invalid(format!(
                "`env.{name}`: expected a name without `=` that does not begin with HOTBED_, and a value without NUL"
            )));
        }
    }
    Ok(())
}

async fn new_session(app: &App, caller: &Caller, body: &CreateSession) -> Result<NewSession> {
    check_env(&body.env)?;
    let mut new = NewSession {
        repo: match &body.repo {
            Some(repo) => parse("repo", repo)?,
            None if body.snapshot.is_none() && body.parent.is_none() => {
                return Err(Error::invalid("`repo` is missing: expected `owner/name`"));
            }
            None => "unknown/unknown".parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?,
        },
        user: whoever(app, caller, body.user.as_ref())?,
        base: optional("base", body.base.as_ref())?,
        branch: optional("branch", body.branch.as_ref())?,
        warmup: optional("warmup", body.warmup.as_ref())?,
        snapshot: optional("snapshot", body.snapshot.as_ref())?,
        parent: optional("parent", body.parent.as_ref())?,
        timeout: body.timeout_seconds.map(Duration::from_secs),
        idle_end: body.idle_seconds.map(|s| (s > 0).then(|| Duration::from_secs(s))),
        env: body.env.clone(),
        trace: None,
    };
    if body.repo.is_some() {
        caller.must_cover(&new.repo)?;
    }
    if let Some(parent) = new.parent {
        follow_up(app, caller, body, &mut new, parent).await?;
    }
    if let Some(id) = new.snapshot
        && body.repo.is_none()
    {
        let snapshot = app.store.snapshot(id).await?.filter(|s| caller.covers(&s.repo));
        new.repo =
            snapshot.ok_or_else(|| Error::not_found(format!("`snapshot` is {id}: there is none")))?.repo;
    }
    Ok(new)
}

/// A follow-up goes on where its parent ended: same repo, same branch, last snapshot.
async fn follow_up(
    app: &App,
    caller: &Caller,
    body: &CreateSession,
    new: &mut NewSession,
    parent: SessionId,
) -> Result<()> {
    let record = app.sessions.record(parent).await?;
    if !caller.covers(&record.repo) {
        return Err(Error::not_found(format!("there is no session {parent}")));
    }
    if record.state != SessionState::Ended && new.snapshot.is_none() {
        return Err(Error::conflict(format!(
            "`parent` is {parent}, which is {}: end it first, or fork it",
            record.state.as_str()
        )));
    }
    if body.repo.is_some() && new.repo != record.repo {
        return Err(Error::invalid(format!(
            "`repo` is {}, `parent` is a session of {}",
            new.repo, record.repo
        )));
    }
    new.repo = record.repo.clone();
    new.base.get_or_insert_with(|| record.base.clone());
    new.branch.get_or_insert_with(|| record.branch.clone());
    if new.snapshot.is_none() {
        // What it held last is not captured yet: an older snapshot would quietly leave that out.
        if app.fleet.records().iter().any(|s| s.session == Some(parent) && s.state == SandboxState::Kept) {
            return Err(Error::conflict(format!(
                "`parent` is {parent}, whose last state is not captured yet; wait for it, or name an older `snapshot`"
            )));
        }
        let mut taken = app.store.snapshots_of(parent).await?;
        taken.retain(|s| s.state == SnapshotState::Ready);
        taken.sort_by_key(|s| (s.kind == SnapshotKind::End, s.id));
        let last = taken.pop().ok_or_else(|| {
            Error::conflict(format!("`parent` is {parent}, of which there is no snapshot to go on from"))
        })?;
        new.snapshot = Some(last.id);
    }
    Ok(())
}

/// Where a new session stands: in its client's trace, else where the keystroke before it began one.
async fn place(app: &App, traced: &Traced, new: &NewSession) -> Option<TraceContext> {
    if let Some(warmup) = new.warmup {
        traced.join(app.warmups.trace_of(warmup).flatten().as_ref());
    }
    let place = traced.context();
    if place.is_some()
        && let Some(parent) = new.parent
        && let Ok(parent) = app.sessions.record(parent).await
    {
        traced.join(parent.trace.as_ref());
    }
    place
}

/// Start a session: claims a warm sandbox, or starts a cold one. Reads work at once, writes once git sync has ended.
#[utoipa::path(post, path = "/v1/sessions", tag = "sessions", operation_id = "create_session", params(Replay), request_body = CreateSession,
    responses((status = 201, body = SessionView), (status = 200, description = "made before under this key", body = SessionView)))]
pub async fn create(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Extension(traced): Extension<Traced>,
    headers: HeaderMap,
    body: Payload<CreateSession>,
) -> ApiResult<Response> {
    let key = key_of(&caller, &headers, "POST /v1/sessions", &body.raw)?;
    let mut new = new_session(&app, &caller, &body.value).await?;
    new.trace = place(&app, &traced, &new).await;
    let token = body.value.user_token.as_ref().map(users::taken).transpose()?;
    if token.is_some() && app.github.is_none() {
        return Err(Error::invalid("`user_token`: the forge of this Hotbed is not GitHub").into());
    }
    let created = detached(async move {
        let created = app.sessions.create(new, key).await?;
        if let Some(token) = token {
            users::hand_over(&app, &created.record, token).await?;
        }
        Ok(created)
    })
    .await?;
    traced.show(kinds::SESSION, created.record.id);
    Ok(made(created.replayed, created.record.id.to_string(), SessionView::from(&*created.record)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListSessions {
    repo: Option<String>,
    /// `waiting`, `active`, `paused`, `ending` or `ended`.
    state: Option<String>,
    /// The login of their user.
    user: Option<String>,
    after: Option<String>,
    /// 1 to 200; 50 when not given.
    limit: Option<u32>,
}

/// Sessions, newest first.
#[utoipa::path(get, path = "/v1/sessions", tag = "sessions", operation_id = "list_sessions", params(ListSessions),
    responses((status = 200, body = List<SessionView>)))]
pub async fn list(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    query: Query<ListSessions>,
) -> ApiResult<Json<List<SessionView>>> {
    let Query(q) = query;
    let state = match q.state.as_deref() {
        None => None,
        Some(word) => Some(SessionState::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| {
            Error::invalid(format!("`state` is `{word}`: expected waiting, active, paused, ending or ended"))
        })?),
    };
    let repos = caller.among(optional("repo", q.repo.as_ref())?);
    let filter = SessionFilter { repos, state, live_only: false, user: q.user };
    let page = app.store.sessions(filter, page(q.after, q.limit)?).await?;
    Ok(Json(List { items: page.items.iter().map(Into::into).collect(), next: page.next }))
}

pub(super) fn page(after: Option<String>, limit: Option<u32>) -> Result<Page> {
    match limit.unwrap_or(50) {
        limit @ 1..=200 => Ok(Page { after, limit }),
        other => Err(Error::invalid(format!("`limit` is {other}: expected 1 to 200"))),
    }
}

/// One session, live or ended.
#[utoipa::path(get, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "get_session", responses((status = 200, body = SessionView)))]
pub async fn read(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> ApiResult<Json<SessionView>> {
    let record = app.sessions.record(session_id(&app, caller.space(), &id)?).await?;
    Ok(Json((&*record).into()))
}

/// A session's id, or `key:` and the `Idempotency-Key` of this space that it was made under: a client that never got the answer
/// can find and end what it made (F37).
pub(super) fn session_id(app: &App, space: &str, text: &str) -> Result<SessionId> {
    match text.strip_prefix("key:") {
        None => parse("id", text),
        Some(key) => {
            let made = app.idempotency.resource(space, "POST /v1/sessions", key);
            let made =
                made.ok_or_else(|| Error::not_found(format!("no session was made under the key `{key}`")))?;
            parse("id", &made)
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct EndQuery {
    /// Give up what the sandbox holds instead of capturing it.
    #[serde(default)]
    discard: bool,
    /// Answer when it has ended instead of when the end is decided.
    #[serde(default)]
    wait: bool,
}

/// End a session: it is quiesced, captured and released. One that is ending is a conflict, one that has ended is gone.
#[utoipa::path(delete, path = "/v1/sessions/{id}", tag = "sessions", operation_id = "end_session", params(EndQuery),
    responses((status = 202, body = SessionView), (status = 200, body = SessionView)))]
pub async fn end(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(q): Query<EndQuery>,
) -> ApiResult<Response> {
    let id = session_id(&app, caller.space(), &id)?;
    let session = app.sessions.require(id).await?;
    let (engine, of) = (app.sessions.clone(), session.clone());
    let record =
        detached(async move { engine.decide_end(&of, EndReason::Requested, q.discard).await }).await?;
    if !q.wait {
        return Ok((StatusCode::ACCEPTED, Json(SessionView::from(&*record))).into_response());
    }
    let record = session.wait_until(Duration::from_secs(600), |r| r.state.is_end()).await;
    let status = if record.state.is_end() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(SessionView::from(&*record))).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct SyncQuery {
    /// Answer when sync has ended, or after this many seconds, at most 120.
    wait_seconds: Option<u64>,
}

/// The state of git sync and of the write gate.
#[utoipa::path(get, path = "/v1/sessions/{id}/sync", tag = "sessions", operation_id = "get_sync", params(SyncQuery), responses((status = 200, body = SyncView)))]
pub async fn sync_state(
    State(app): Hotbed,
    Path(id): Path<String>,
    Query(q): Query<SyncQuery>,
) -> ApiResult<Json<SyncView>> {
    use domain::SyncPhase as P;
    let id: SessionId = parse("id", &id)?;
    let session = match (q.wait_seconds, app.sessions.live(id)) {
        (Some(seconds), Some(session)) => {
            let wait = Duration::from_secs(seconds.min(120));
            session
                .wait_until(wait, |r| !matches!(r.sync.phase, P::Pending | P::Running) || r.state.is_end())
                .await
        }
        _ => app.sessions.record(id).await?,
    };
    Ok(Json((&*session).into()))
}

/// The client's answer to a failed sync: try again, or go on with the tree as it is.
#[utoipa::path(post, path = "/v1/sessions/{id}/sync", tag = "sessions", operation_id = "answer_sync", request_body = SyncAgain, responses((status = 200, body = SyncView)))]
pub async fn sync_again(
    State(app): Hotbed,
    Path(id): Path<String>,
    body: Payload<SyncAgain>,
) -> ApiResult<Json<SyncView>> {
    let session = app.sessions.require(parse("id", &id)?).await?;
    let stale = body.value.action == SyncAction::AcceptStale;
    let record = detached(async move { app.sessions.resync(&session, stale).await }).await?;
    Ok(Json((&*record).into()))
}

/// Say who prompts: from now on he commits, and whoever prompted before him becomes a co-author. Answers when the sandbox
/// knows it, so that what the message leads to is his.
#[utoipa::path(post, path = "/v1/sessions/{id}/prompts", tag = "sessions", operation_id = "prompt_session", request_body = Prompt, responses((status = 200, body = SessionView)))]
pub async fn prompt(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    body: Payload<Prompt>,
) -> ApiResult<Json<SessionView>> {
    let session = app.sessions.require(parse("id", &id)?).await?;
    let who = whoever(&app, &caller, body.value.user.as_ref())?;
    let record = detached(async move { app.sessions.prompt(&session, who).await }).await?;
    Ok(Json((&*record).into()))
}

/// Freeze a session's processes in memory.
#[utoipa::path(post, path = "/v1/sessions/{id}/pause", tag = "sessions", operation_id = "pause_session", responses((status = 200, body = SessionView)))]
pub async fn pause(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<SessionView>> {
    let session = app.sessions.require(parse("id", &id)?).await?;
    let record = detached(async move { app.sessions.pause(&session).await }).await?;
    Ok(Json((&*record).into()))
}

/// Thaw a paused session.
#[utoipa::path(post, path = "/v1/sessions/{id}/resume", tag = "sessions", operation_id = "resume_session", responses((status = 200, body = SessionView)))]
pub async fn resume(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<SessionView>> {
    let session = app.sessions.require(parse("id", &id)?).await?;
    let record = detached(async move { app.sessions.resume(&session).await }).await?;
    Ok(Json((&*record).into()))
}

/// Move a session's time limit.
#[utoipa::path(post, path = "/v1/sessions/{id}/extend", tag = "sessions", operation_id = "extend_session", request_body = Extend, responses((status = 200, body = SessionView)))]
pub async fn extend(
    State(app): Hotbed,
    Path(id): Path<String>,
    body: Payload<Extend>,
) -> ApiResult<Json<SessionView>> {
    let session = app.sessions.require(parse("id", &id)?).await?;
    let by = Duration::from_secs(body.value.seconds);
    let record = detached(async move { app.sessions.extend(&session, by).await }).await?;
    Ok(Json((&*record).into()))
}

/// Take a snapshot of a live session and start another one from it.
#[utoipa::path(post, path = "/v1/sessions/{id}/fork", tag = "sessions", operation_id = "fork_session", params(Replay), request_body = Fork,
    responses((status = 201, body = SessionView), (status = 200, description = "made before under this key", body = SessionView)))]
pub async fn fork(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Extension(traced): Extension<Traced>,
    headers: HeaderMap,
    body: Payload<Fork>,
) -> ApiResult<Response> {
    let id: SessionId = parse("id", &id)?;
    let session = app.sessions.require(id).await?;
    let key = key_of(&caller, &headers, &format!("POST /v1/sessions/{id}/fork"), &body.raw)?;
    // Who may act for others forks for whoever it was.
    let same = body.value.user.is_none() && caller.person().is_none_or(|p| p.may_name_others);
    let user = if same { None } else { Some(whoever(&app, &caller, body.value.user.as_ref())?) };
    let branch = optional("branch", body.value.branch.as_ref())?;
    let created = detached(async move {
        let source = session.record();
        let new = NewSession {
            repo: source.repo.clone(),
            user: user.unwrap_or_else(|| source.user.clone()),
            base: Some(source.base.clone()),
            branch,
            warmup: None,
            snapshot: None,
            parent: Some(id),
            timeout: None,
            idle_end: None,
            env: source.env.clone(),
            trace: traced.context(),
        };
        app.sessions.fork(&session, new, key).await
    })
    .await?;
    Ok(made(created.replayed, created.record.id.to_string(), SessionView::from(&*created.record)))
}

/// Open a pull request from the session's branch, exactly once.
#[utoipa::path(post, path = "/v1/sessions/{id}/pull-requests", tag = "pull requests", operation_id = "open_pull_request", params(Replay), request_body = OpenPullRequest,
    responses((status = 201, body = PullRequestView), (status = 200, description = "asked for before under this key", body = PullRequestView)))]
pub async fn pull_open(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Extension(traced): Extension<Traced>,
    headers: HeaderMap,
    body: Payload<OpenPullRequest>,
) -> ApiResult<Response> {
    let id: SessionId = parse("id", &id)?;
    let session = app.sessions.record(id).await?;
    let key = key_of(&caller, &headers, &format!("POST /v1/sessions/{id}/pull-requests"), &body.raw)?;
    let Payload { value, .. } = body;
    let order = PullOrder {
        title: value.title,
        body: value.body,
        base: optional("base", value.base.as_ref())?,
        draft: value.draft,
        trace: traced.context(),
    };
    let (replayed, record) = detached(async move {
        let guard = match key {
            None => None,
            Some(key) => match app.idempotency.begin(key).await? {
                Begin::New(guard) => Some(guard),
                Begin::Replay(id) => {
                    let record = app.store.pull_request(parse("id", &id)?).await?;
                    return record
                        .map(|r| (true, r))
                        .ok_or_else(|| Error::not_found("the pull request of this key"));
                }
            },
        };
        let record = app.pulls.open(&session, order, guard.as_ref()).await?;
        if let Some(guard) = guard {
            guard.done(record.id.to_string());
        }
        Ok((false, record))
    })
    .await?;
    Ok(made(replayed, record.id.to_string(), PullRequestView::from(&record)))
}

/// The pull requests of a session.
#[utoipa::path(get, path = "/v1/sessions/{id}/pull-requests", tag = "pull requests", operation_id = "list_pull_requests", responses((status = 200, body = List<PullRequestView>)))]
pub async fn pull_list(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<List<PullRequestView>>> {
    let id: SessionId = parse("id", &id)?;
    app.sessions.record(id).await?;
    let page = app.store.pull_requests(None, Some(id), page(None, Some(200))?).await?;
    Ok(Json(List { items: page.items.iter().map(Into::into).collect(), next: page.next }))
}

/// One pull request by its number: what the local forge's addresses lead to.
#[utoipa::path(get, path = "/v1/pull-requests/{owner}/{name}/{number}", tag = "pull requests", operation_id = "get_pull_request", responses((status = 200, body = PullRequestView)))]
pub async fn pull_read(
    State(app): Hotbed,
    Path((owner, name, number)): Path<(String, String, u64)>,
) -> ApiResult<Json<PullRequestView>> {
    let repo: RepoName = parse("repo", &format!("{owner}/{name}"))?;
    let mut after = None;
    loop {
        let found = app.store.pull_requests(Some(&repo), None, page(after, Some(200))?).await?;
        if let Some(record) = found.items.iter().find(|r| r.number == Some(number)) {
            return Ok(Json(record.into()));
        }
        after = found.next;
        if after.is_none() {
            return Err(Error::not_found(format!("{repo} has no pull request {number}")).into());
        }
    }
}

/// For routes that need a live session.
pub(super) async fn live(app: &Arc<App>, id: &str) -> Result<Arc<crate::sessions::Session>> {
    app.sessions.require(parse("id", id)?).await
}
