//! Warm-ups: what a web UI calls at the first keystroke. A page in a browser calls with a token of its own, from an
//! origin that the configuration names.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::{Error, Result, WarmupId, WarmupState};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::types::{Announce, List, NewWarmupToken, WarmupToken, WarmupView};
use super::{ApiResult, Caller, Hotbed, Payload, Traced, detached, parse, problem};
use crate::app::App;
use crate::fleet::after;
use crate::traces::kinds;
use crate::warmups::Grant;

/// A page's token is good for this long unless it asks for less.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);
const LONGEST_TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

pub fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(announce, list))
        .routes(routes!(read, withdraw))
        .routes(routes!(token))
}

/// Announce a session. The same client and repo again move the expiry and make nothing new.
#[utoipa::path(post, path = "/v1/warmups", tag = "warmups", operation_id = "announce_warmup", request_body = Announce,
    responses((status = 202, body = WarmupView), (status = 429, description = "this key announces too often")))]
pub async fn announce(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Extension(traced): Extension<Traced>,
    body: Payload<Announce>,
) -> ApiResult<Response> {
    if let Err(wait) = app.warmups.rate().check(&caller.rate_key()) {
        return Ok(problem::too_often("this key announces too often", wait));
    }
    let Announce { repo, branch, client } = body.value;
    check_client(&client)?;
    let repo = parse("repo", &repo)?;
    let branch = branch.map(|b| parse("branch", &b)).transpose()?;
    if let Caller::Page(grant) = &caller
        && !grant.covers(&client, &repo)
    {
        return Err(Error::invalid("this token is for another `client` or another `repo`").into());
    }
    caller.must_cover(&repo)?;
    let record = match app.warmups.repeat(&repo, branch.as_ref(), &client)? {
        Some(record) => {
            // A keystroke that only moves the expiry, unless its client follows it.
            traced.forget();
            traced.join(record.trace.as_ref());
            record
        }
        None => {
            let trace = traced.context();
            detached(async move { app.warmups.announce(&repo, branch, &client, trace).await }).await?
        }
    };
    traced.show(kinds::WARMUP, record.id);
    Ok((StatusCode::ACCEPTED, Json(WarmupView::from(&record))).into_response())
}

fn check_client(client: &str) -> Result<()> {
    if client.is_empty() || client.len() > 200 {
        return Err(Error::invalid("`client` is empty or longer than 200 characters"));
    }
    Ok(())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListWarmups {
    repo: Option<String>,
    /// `live`, `hit`, `expired` or `withdrawn`.
    state: Option<String>,
    after: Option<String>,
    /// 1 to 200; 50 when not given.
    limit: Option<u32>,
}

/// Warm-ups, newest first.
#[utoipa::path(get, path = "/v1/warmups", tag = "warmups", operation_id = "list_warmups", params(ListWarmups),
    responses((status = 200, body = List<WarmupView>)))]
pub async fn list(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    query: Query<ListWarmups>,
) -> ApiResult<Json<List<WarmupView>>> {
    let Query(q) = query;
    let state = match q.state.as_deref() {
        None => None,
        Some(word) => Some(WarmupState::ALL.into_iter().find(|s| s.as_str() == word).ok_or_else(|| {
            Error::invalid(format!("`state` is `{word}`: expected live, hit, expired or withdrawn"))
        })?),
    };
    let repo = q.repo.map(|r| parse("repo", &r)).transpose()?;
    let repos = caller.among(repo);
    let page = app.store.warmups(repos.as_deref(), state, super::sessions::page(q.after, q.limit)?).await?;
    // Of a live one the row may be a second behind.
    let items = page.items.into_iter().map(|row| app.warmups.get(row.id).unwrap_or(row));
    Ok(Json(List { items: items.map(|r| WarmupView::from(&r)).collect(), next: page.next }))
}

/// A warm-up, live or over. Reading prolongs nothing.
#[utoipa::path(get, path = "/v1/warmups/{id}", tag = "warmups", operation_id = "get_warmup", responses((status = 200, body = WarmupView)))]
pub async fn read(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<WarmupView>> {
    let id: WarmupId = parse("id", &id)?;
    let record = match app.warmups.get(id) {
        Some(record) => Some(record),
        None => app.store.warmup(id).await?,
    };
    let record = record.ok_or_else(|| none(id))?;
    Ok(Json((&record).into()))
}

/// Withdraw a warm-up; what was reserved goes back to the pool.
#[utoipa::path(delete, path = "/v1/warmups/{id}", tag = "warmups", operation_id = "withdraw_warmup", responses((status = 200, body = WarmupView)))]
pub async fn withdraw(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> ApiResult<Json<WarmupView>> {
    let id: WarmupId = parse("id", &id)?;
    if let Caller::Page(grant) = &caller
        && !app.warmups.get(id).is_some_and(|r| grant.covers(&r.client, &r.repo))
    {
        return Err(none(id).into());
    }
    let record = detached(async move { app.warmups.withdraw(id).await }).await?;
    Ok(Json((&record).into()))
}

fn none(id: WarmupId) -> Error {
    Error::not_found(format!("there is no warm-up {id}"))
}

/// A token for a web page: it announces and withdraws warm-ups of one client, and does nothing else.
#[utoipa::path(post, path = "/v1/warmups/tokens", tag = "warmups", operation_id = "create_warmup_token", request_body = NewWarmupToken,
    responses((status = 200, body = WarmupToken)))]
pub async fn token(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    body: Payload<NewWarmupToken>,
) -> ApiResult<Json<WarmupToken>> {
    let NewWarmupToken { client, repo, seconds } = body.value;
    check_client(&client)?;
    let life = seconds.map_or(TOKEN_LIFE, Duration::from_secs);
    if life.is_zero() || life > LONGEST_TOKEN_LIFE {
        let most = LONGEST_TOKEN_LIFE.as_secs();
        return Err(Error::invalid(format!("`seconds` is {}: expected 1 to {most}", life.as_secs())).into());
    }
    let repo = match repo {
        Some(repo) => {
            let repo = parse("repo", &repo)?;
            caller.must_cover(&repo)?;
            Some(app.repos.spec(&repo)?.name.clone())
        }
        None if caller.is_limited() => {
            return Err(Error::invalid("`repo` is missing: this key is limited to repos").into());
        }
        None => None,
    };
    let expires_at = after(app.clock.now(), life);
    let grant = Grant { client, repo, expires_at };
    Ok(Json(WarmupToken { token: app.warmups.issue(&grant)?, expires_at }))
}
