//! Files of a session's sandbox. Paths are relative to the workspace, or absolute with a second slash.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{Error, ErrorKind, Result};
use serde::Deserialize;
use utoipa::IntoParams;

use super::sessions::live;
use super::types::{Binary, FileView, List};
use super::{ApiError, ApiResult, Hotbed, problem};
use crate::sessions::LINK_WAIT;

/// How long a write waits at the gate before it is 423, in milliseconds, unless told otherwise.
const GATE_WAIT_MS: u64 = 30_000;

/// A path that stays inside the sandbox's own tree. The sandbox is the boundary; this catches mistakes early.
fn check(path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') || path.len() > 4096 {
        return Err(Error::invalid("the path is empty, holds a NUL or has more than 4096 bytes"));
    }
    let mut depth: i64 = 0;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Err(Error::invalid(format!("the path `{path}` leads out of the sandbox")));
        }
    }
    Ok(path.to_owned())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DirQuery {
    /// The directory; the workspace when not given.
    dir: Option<String>,
}

/// The entries of a directory.
#[utoipa::path(get, path = "/v1/sessions/{id}/files", tag = "files", operation_id = "list_files", params(DirQuery), responses((status = 200, body = List<FileView>)))]
pub async fn list(
    State(app): Hotbed,
    Path(id): Path<String>,
    Query(q): Query<DirQuery>,
) -> ApiResult<Json<List<FileView>>> {
    let session = live(&app, &id).await?;
    let dir = check(q.dir.as_deref().unwrap_or("."))?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    let items = link.list_dir(&dir).await?.into_iter().map(Into::into).collect();
    Ok(Json(List { items, next: None }))
}

/// Where a file lies, as the description shows it: axum's own pattern for the rest of a path is not OpenAPI's.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[allow(dead_code)] // read by the description alone
struct FilePath {
    /// Relative to the workspace; absolute with a slash of its own in front.
    path: String,
}

/// A file's bytes.
#[utoipa::path(get, path = "/v1/sessions/{id}/files/{*path}", params(FilePath), tag = "files", operation_id = "read_file",
    responses((status = 200, content_type = "application/octet-stream", body = Binary)))]
pub async fn read(State(app): Hotbed, Path((id, path)): Path<(String, String)>) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let path = check(&path)?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    let bytes = link.read_file(&path).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], Body::from_stream(bytes)).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct WriteQuery {
    /// Permission bits in octal, `644`.
    mode: Option<String>,
    /// How long to wait for the write gate, in milliseconds, at most 120000; then 423.
    gate_wait_ms: Option<u64>,
}

/// Write a file whole. In the workspace it waits for the gate, up to a limit.
#[utoipa::path(put, path = "/v1/sessions/{id}/files/{*path}", tag = "files", operation_id = "write_file", params(FilePath, WriteQuery),
    request_body(content = Binary, content_type = "application/octet-stream"), responses((status = 204), (status = 423)))]
pub async fn write(
    State(app): Hotbed,
    Path((id, path)): Path<(String, String)>,
    Query(q): Query<WriteQuery>,
    body: Bytes,
) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let path = check(&path)?;
    let mode = match q.mode.as_deref() {
        None => None,
        Some(text) => Some(u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(|| {
            Error::invalid(format!("`mode` is `{text}`: expected octal permission bits such as 644"))
        })?),
    };
    let wait = q.gate_wait_ms.unwrap_or(GATE_WAIT_MS).min(120_000);
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    let begun = tokio::time::Instant::now();
    let shut = !session.record().sync.phase.gate_is_open();
    let done = link.write_file(&path, body, mode, wait).await;
    if shut {
        app.metrics.gate_waited(begun.elapsed());
    }
    answer(done)
}

/// Remove a file. In the workspace it waits for the gate, up to a limit.
#[utoipa::path(delete, path = "/v1/sessions/{id}/files/{*path}", tag = "files", operation_id = "remove_file", params(FilePath, WriteQuery), responses((status = 204), (status = 423)))]
pub async fn remove(
    State(app): Hotbed,
    Path((id, path)): Path<(String, String)>,
    Query(q): Query<WriteQuery>,
) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let path = check(&path)?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    answer(link.delete_file(&path, q.gate_wait_ms.unwrap_or(GATE_WAIT_MS).min(120_000)).await)
}

fn answer(done: Result<()>) -> ApiResult<Response> {
    match done {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(e) if e.kind() == ErrorKind::Conflict => {
            Ok(problem::respond(StatusCode::LOCKED, "locked", &e.chain()))
        }
        Err(e) => Err(ApiError(e)),
    }
}
