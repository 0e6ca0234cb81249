//! Warm-ups: what a web UI calls at the first keystroke.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use domain::{Error, WarmupId};

use super::types::{Announce, WarmupView};
use super::{ApiResult, Hotbed, Payload, detached, parse};

/// Announce a session. The same client and repo again move the expiry and make nothing new.
#[utoipa::path(post, path = "/v1/warmups", tag = "warmups", request_body = Announce, responses((status = 202, body = WarmupView)))]
pub async fn announce(State(app): Hotbed, body: Payload<Announce>) -> ApiResult<Response> {
    let Announce { repo, branch, client } = body.value;
    if client.is_empty() || client.len() > 200 {
        return Err(Error::invalid("`client` is empty or longer than 200 characters").into());
    }
    let repo = parse("repo", &repo)?;
    let branch = branch.map(|b| parse("branch", &b)).transpose()?;
    let record = detached(async move { app.warmups.announce(&repo, branch, &client).await }).await?;
    Ok((StatusCode::ACCEPTED, Json(WarmupView::from(&record))).into_response())
}

/// A warm-up, live or over.
#[utoipa::path(get, path = "/v1/warmups/{id}", tag = "warmups", responses((status = 200, body = WarmupView)))]
pub async fn read(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<WarmupView>> {
    let id: WarmupId = parse("id", &id)?;
    let record = match app.warmups.get(id) {
        Some(record) => Some(record),
        None => app.store.warmup(id).await?,
    };
    let record = record.ok_or_else(|| Error::not_found(format!("there is no warm-up {id}")))?;
    Ok(Json((&record).into()))
}

/// Withdraw a warm-up; what was reserved goes back to the pool.
#[utoipa::path(delete, path = "/v1/warmups/{id}", tag = "warmups", responses((status = 200, body = WarmupView)))]
pub async fn withdraw(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<WarmupView>> {
    let id: WarmupId = parse("id", &id)?;
    let record = detached(async move { app.warmups.withdraw(id).await }).await?;
    Ok(Json((&record).into()))
}
