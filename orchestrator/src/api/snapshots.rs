//! Snapshots: take, list, read, remove.

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::{Extension, Json};
use domain::{Error, SnapshotId};
use serde::Deserialize;
use store::SnapshotFilter;
use utoipa::IntoParams;

use super::sessions::{live, page};
use super::types::{List, SnapshotView};
use super::{ApiResult, Caller, Hotbed, Replay, detached, key_of, made, parse};
use crate::idempotency::Begin;

/// Capture a live session's filesystem; its processes go on.
#[utoipa::path(post, path = "/v1/sessions/{id}/snapshots", tag = "snapshots", operation_id = "take_snapshot", params(Replay),
    responses((status = 201, body = SnapshotView), (status = 200, description = "taken before under this key", body = SnapshotView)))]
pub async fn take(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let key = key_of(&caller, &headers, &format!("POST /v1/sessions/{}/snapshots", session.id), b"")?;
    let (replayed, record) = detached(async move {
        let guard = match key {
            None => None,
            Some(key) => match app.idempotency.begin(key).await? {
                Begin::New(guard) => Some(guard),
                Begin::Replay(id) => {
                    let record = app.store.snapshot(parse("id", &id)?).await?;
                    return record
                        .map(|r| (true, r))
                        .ok_or_else(|| Error::gone("the snapshot of this key was removed"));
                }
            },
        };
        let record = app.sessions.snapshot(&session).await?;
        if let Some(guard) = guard {
            app.store.commit(store::Tx::new().idempotency(&guard.row(&record.id.to_string()))).await?;
            guard.done(record.id.to_string());
        }
        Ok((false, record))
    })
    .await?;
    Ok(made(replayed, record.id.to_string(), SnapshotView::from(&record)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ListSnapshots {
    session: Option<String>,
    repo: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// Snapshots, newest first.
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", operation_id = "list_snapshots", params(ListSnapshots), responses((status = 200, body = List<SnapshotView>)))]
pub async fn list(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Query(q): Query<ListSnapshots>,
) -> ApiResult<Json<List<SnapshotView>>> {
    let filter = SnapshotFilter {
        session: q.session.map(|s| parse("session", &s)).transpose()?,
        repos: caller.among(q.repo.map(|r| parse("repo", &r)).transpose()?),
    };
    let found = app.store.snapshots(filter, page(q.after, q.limit)?).await?;
    Ok(Json(List { items: found.items.iter().map(Into::into).collect(), next: found.next }))
}

/// One snapshot.
#[utoipa::path(get, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "get_snapshot", responses((status = 200, body = SnapshotView)))]
pub async fn read(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<SnapshotView>> {
    let id: SnapshotId = parse("id", &id)?;
    let record = app.store.snapshot(id).await?;
    let record = record.ok_or_else(|| Error::not_found(format!("there is no snapshot {id}")))?;
    Ok(Json((&record).into()))
}

/// Remove a snapshot. A conflict while something stands on it.
#[utoipa::path(delete, path = "/v1/snapshots/{id}", tag = "snapshots", operation_id = "remove_snapshot", responses((status = 204)))]
pub async fn remove(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<StatusCode> {
    let id: SnapshotId = parse("id", &id)?;
    detached(async move { app.captures.remove_snapshot(id).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}
