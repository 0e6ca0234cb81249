//! API keys: made, listed, revoked; and who one is oneself.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use axum::{Extension, Json};
use domain::{Error, Reach, RepoName, Result, Role};

use super::caller::Caller;
use super::types::{CreateKey, KeyView, List, MadeKey, WhoView};
use super::{ApiResult, Hotbed, Payload, detached, made, parse};
use crate::access::NewKey;
use crate::app::App;
use crate::fleet::after;

/// The longest that a key may be asked to be good; without an end it is good until it is revoked.
const LONGEST: Duration = Duration::from_secs(10 * 366 * 24 * 3600);

fn order(app: &App, body: CreateKey) -> Result<NewKey> {
    let role: Role = parse("role", &body.role)?;
    let reach = match body.repos {
        None => Reach::All,
        Some(names) => {
            let mut repos = std::collections::BTreeSet::<RepoName>::new();
            for name in &names {
                repos.insert(app.repos.spec(&parse("repos", name)?)?.name.clone());
            }
            if repos.is_empty() {
                return Err(Error::invalid(
                    "`repos` is empty: expected the repos that the key may use; leave it out for all of them",
                ));
            }
            Reach::Only(repos)
        }
    };
    if role == Role::Admin && reach != Reach::All {
        return Err(Error::invalid("`repos`: a key with the role `admin` can't be limited to repos"));
    }
    let life = body.expires_seconds.map(Duration::from_secs);
    if let Some(life) = life.filter(|l| l.is_zero() || *l > LONGEST) {
        let most = LONGEST.as_secs();
        return Err(Error::invalid(format!("`expires_seconds` is {}: expected 1 to {most}", life.as_secs())));
    }
    Ok(NewKey { name: body.name, role, reach, expires_at: life.map(|life| after(app.clock.now(), life)) })
}

/// Make an API key. It is shown in this answer and never again. Of the keys in force no two have one name, so asking again makes no second one.
#[utoipa::path(post, path = "/v1/keys", tag = "access", operation_id = "create_key", request_body = CreateKey, responses((status = 201, body = MadeKey)))]
pub async fn create(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    body: Payload<CreateKey>,
) -> ApiResult<Response> {
    let new = order(&app, body.value)?;
    let (record, key) = detached(async move { app.access.create(new, caller.name()).await }).await?;
    Ok(made(false, record.id.to_string(), MadeKey { key, view: (&*record).into() }))
}

/// The keys, oldest first, those that are revoked or have expired included. The installation's own is not among them.
#[utoipa::path(get, path = "/v1/keys", tag = "access", operation_id = "list_keys", responses((status = 200, body = List<KeyView>)))]
pub async fn list(State(app): Hotbed) -> Json<List<KeyView>> {
    Json(List { items: app.access.keys().iter().map(Into::into).collect(), next: None })
}

/// Revoke a key: from now on it opens nothing, and streams and terminals that it has opened end within a second. Commands that it has started go on.
#[utoipa::path(delete, path = "/v1/keys/{id}", tag = "access", operation_id = "revoke_key", responses((status = 200, body = KeyView)))]
pub async fn revoke(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<KeyView>> {
    let id = parse("id", &id)?;
    let record = detached(async move { app.access.revoke(id).await }).await?;
    Ok(Json((&*record).into()))
}

/// Whose key this request was made with, and what it may do.
#[utoipa::path(get, path = "/v1/whoami", tag = "access", operation_id = "whoami", responses((status = 200, body = WhoView)))]
pub async fn whoami(Extension(caller): Extension<Caller>) -> ApiResult<Json<WhoView>> {
    match caller {
        Caller::Key(holder) => Ok(Json((&*holder).into())),
        Caller::Page(_) => Err(Error::denied("a page's token does nothing but announce").into()),
    }
}
