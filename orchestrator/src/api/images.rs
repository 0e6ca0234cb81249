//! Images: list, read, promote, roll back, pin, and what the collector would remove.

use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use domain::{Error, RepoName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::sessions::page;
use super::types::{ImageDiffView, ImageView, List, RemovalView};
use super::{ApiResult, Caller, Hotbed, detached, parse};
use crate::differences::{FILES, MOST_FILES};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct ImagesQuery {
    repo: Option<String>,
    after: Option<String>,
    limit: Option<u32>,
}

/// Images, newest first.
#[utoipa::path(get, path = "/v1/images", tag = "images", operation_id = "list_images", params(ImagesQuery), responses((status = 200, body = List<ImageView>)))]
pub async fn list(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Query(q): Query<ImagesQuery>,
) -> ApiResult<Json<List<ImageView>>> {
    let repo: Option<RepoName> = q.repo.map(|r| parse("repo", &r)).transpose()?;
    let repos = caller.among(repo);
    let found = app.store.images(repos.as_deref(), page(q.after, q.limit)?).await?;
    Ok(Json(List { items: found.items.iter().map(Into::into).collect(), next: found.next }))
}

/// One image.
#[utoipa::path(get, path = "/v1/images/{id}", tag = "images", operation_id = "get_image", responses((status = 200, body = ImageView)))]
pub async fn read(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<ImageView>> {
    Ok(Json((&app.images.get(parse("id", &id)?)?).into()))
}

/// Make an image that has passed its check current. Asked again, it stays so.
#[utoipa::path(post, path = "/v1/images/{id}/promote", tag = "images", operation_id = "promote_image", responses((status = 200, body = ImageView)))]
pub async fn promote(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<ImageView>> {
    let id = parse("id", &id)?;
    let image = detached(async move {
        let image = app.images.promote(id).await?;
        app.fleet.pool_poke.notify_one();
        Ok(image)
    })
    .await?;
    Ok(Json((&image).into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct DiffQuery {
    /// The image to compare it with, of the same repo; when not given, the one that it was built on or the one before it.
    with: Option<String>,
    /// How many changed files to list: 100 when not given, 5000 at most.
    files: Option<usize>,
}

/// What changed from another image of the repo to this one. Both are read whole, which takes the engine seconds for each GiB.
#[utoipa::path(get, path = "/v1/images/{id}/diff", tag = "images", operation_id = "diff_image", params(DiffQuery), responses((status = 200, body = ImageDiffView)))]
pub async fn diff(
    State(app): Hotbed,
    Path(id): Path<String>,
    Query(q): Query<DiffQuery>,
) -> ApiResult<Json<ImageDiffView>> {
    let id = parse("id", &id)?;
    let with = q.with.map(|with| parse("with", &with)).transpose()?;
    let files = q.files.unwrap_or(FILES);
    if files > MOST_FILES {
        return Err(Error::invalid(format!("`files`: {files}: expected 0 to {MOST_FILES}")).into());
    }
    Ok(Json(app.differences.between(id, with, files).await?.into()))
}

/// Go back to the image before the current one, and pin it.
#[utoipa::path(post, path = "/v1/repos/{owner}/{name}/rollback", tag = "images", operation_id = "roll_back_image", responses((status = 200, body = ImageView)))]
pub async fn roll_back(
    State(app): Hotbed,
    Path((owner, name)): Path<(String, String)>,
) -> ApiResult<Json<ImageView>> {
    let repo: RepoName = parse("repo", &format!("{owner}/{name}"))?;
    app.repos.spec(&repo)?;
    let image = detached(async move {
        let image = app.images.roll_back(&repo).await?;
        app.fleet.pool_poke.notify_one();
        Ok(image)
    })
    .await?;
    Ok(Json((&image).into()))
}

/// Keep an image whatever its age; where it is current, keep it current.
#[utoipa::path(put, path = "/v1/images/{id}/pin", tag = "images", operation_id = "pin_image", responses((status = 200, body = ImageView)))]
pub async fn pin(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<ImageView>> {
    let id = parse("id", &id)?;
    let image = detached(async move { app.images.pin(id, true).await }).await?;
    Ok(Json((&image).into()))
}

/// Take a pin away.
#[utoipa::path(delete, path = "/v1/images/{id}/pin", tag = "images", operation_id = "unpin_image", responses((status = 200, body = ImageView)))]
pub async fn unpin(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<ImageView>> {
    let id = parse("id", &id)?;
    let image = detached(async move { app.images.pin(id, false).await }).await?;
    Ok(Json((&image).into()))
}

/// What the collector's next run would remove. Removes nothing.
#[utoipa::path(get, path = "/v1/collectable", tag = "images", operation_id = "list_collectable", responses((status = 200, body = List<RemovalView>)))]
pub async fn collectable(State(app): Hotbed) -> ApiResult<Json<List<RemovalView>>> {
    let items = app.captures.due().await?;
    Ok(Json(List { items, next: None }))
}
