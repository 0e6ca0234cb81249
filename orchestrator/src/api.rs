//! HTTP, version 1: routes, authentication, errors. Handlers check the request, write intent through an engine and
//! answer; whatever outlives a request belongs to the engine, because axum drops a handler when its client hangs up.

pub mod audit;
mod caller;
mod catalog;
mod description;
mod events;
mod exec;
mod files;
mod happenings;
mod images;
mod keys;
mod origins;
mod person;
mod pools;
mod problem;
mod sessions;
mod snapshots;
mod terminal;
pub(crate) mod traced;
pub mod types;
mod users;
mod warmups;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::IntoMakeServiceWithConnectInfo;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use domain::{Error, Result};
use tokio::time::Instant;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument as _;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::idempotency::Key;

use caller::{Caller, authenticate};
pub use problem::{ApiError, Payload};
use traced::Traced;

type ApiResult<T> = std::result::Result<T, ApiError>;
type Hotbed = State<Arc<App>>;

/// Largest JSON body, in bytes.
const MAX_JSON: usize = 1 << 20;
/// Largest file that is written in one request, in bytes.
pub const MAX_FILE: usize = 256 << 20;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Hotbed",
        description = "Ready development environments for background coding agents. Errors are problem+json; lists are paged by cursor; POSTs that make something take an `Idempotency-Key`."
    ),
    components(schemas(types::Problem, types::EventView, types::HappeningView, types::LostView))
)]
struct Doc;

fn documented() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::with_openapi(Doc::openapi())
        .routes(routes!(catalog::repos))
        .routes(routes!(catalog::repo))
        .routes(routes!(catalog::build_start, catalog::builds))
        .routes(routes!(catalog::build))
        .routes(routes!(catalog::build_log))
        .routes(routes!(images::list))
        .routes(routes!(images::read))
        .routes(routes!(images::promote))
        .routes(routes!(images::diff))
        .routes(routes!(images::roll_back))
        .routes(routes!(images::pin, images::unpin))
        .routes(routes!(images::collectable))
        .routes(routes!(pools::list))
        .routes(routes!(pools::read))
        .routes(routes!(pools::order, pools::resume))
        .routes(routes!(pools::arrivals))
        .routes(routes!(catalog::stats))
        .routes(routes!(happenings::follow))
        .routes(routes!(sessions::create, sessions::list))
        .routes(routes!(sessions::read, sessions::end))
        .routes(routes!(sessions::sync_state, sessions::sync_again))
        .routes(routes!(sessions::prompt))
        .routes(routes!(sessions::pause))
        .routes(routes!(sessions::resume))
        .routes(routes!(sessions::extend))
        .routes(routes!(sessions::fork))
        .routes(routes!(sessions::pull_open, sessions::pull_list))
        .routes(routes!(sessions::pull_read))
        .routes(routes!(exec::start, exec::list))
        .routes(routes!(exec::read))
        .routes(routes!(exec::output))
        .routes(routes!(exec::input))
        .routes(routes!(exec::signal))
        .routes(routes!(exec::resize))
        .routes(routes!(files::list))
        .routes(routes!(files::read, files::write, files::remove))
        .routes(routes!(events::follow))
        .routes(routes!(terminal::open))
        .routes(routes!(snapshots::take))
        .routes(routes!(snapshots::list))
        .routes(routes!(snapshots::read, snapshots::remove))
        .routes(routes!(users::device_begin))
        .routes(routes!(users::device_poll))
        .routes(routes!(users::web_begin))
        .routes(routes!(users::web_finish))
        .routes(routes!(users::list))
        .routes(routes!(users::read, users::sign_out))
        .routes(routes!(users::keep_token))
        .routes(routes!(users::hand))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::whoami))
        .routes(routes!(audit::list))
}

/// What is signed instead of keyed.
fn signed() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(routes!(webhooks::github))
}

/// The OpenAPI description, from the code.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut doc = documented().merge(warmups::routes()).merge(signed()).split_for_parts().1;
    description::complete(&mut doc);
    doc
}

/// All routes, as they are served: each request with where it came from.
pub fn service(app: Arc<App>) -> IntoMakeServiceWithConnectInfo<Router, audit::Peer> {
    router(app).into_make_service_with_connect_info()
}

/// All routes.
fn router(app: Arc<App>) -> Router {
    let doc = openapi();
    let (documented, _) = documented().split_for_parts();
    let (warmups, _) = warmups::routes().split_for_parts();
    let text: Arc<str> = doc.to_json().unwrap_or_else(|e| format!("{{\"error\":\"{e}\"}}")).into();
    let keyed = documented
        .route("/metrics", get(catalog::metrics))
        .route(
            "/v1/openapi.json",
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], text.to_string()) }),
        )
        .layer(middleware::from_fn_with_state(app.clone(), traced::traced))
        .layer(middleware::from_fn_with_state(app.clone(), authenticate))
        .layer(DefaultBodyLimit::max(MAX_FILE));
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(catalog::ready))
        .merge(keyed)
        .merge(signed().split_for_parts().0.layer(DefaultBodyLimit::disable()))
        .merge(
            warmups
                .layer(middleware::from_fn_with_state(app.clone(), traced::traced))
                .layer(middleware::from_fn_with_state(app.clone(), authenticate))
                .layer(DefaultBodyLimit::max(MAX_JSON)),
        )
        .fallback(|request: Request| async move {
            ApiError(Error::not_found(format!(
                "there is no route {} {}",
                request.method(),
                request.uri().path()
            )))
        })
        .method_not_allowed_fallback(|request: Request| async move {
            caller::method_not_allowed(request.method(), request.uri().path())
        })
        // Outside the door: a browser asks whether it may call before it shows its token. And outside what refuses
        // methods: it asks by one that no route takes.
        .layer(origins::cors(&app))
        .layer(middleware::map_response(problem::problems))
        .layer(middleware::from_fn_with_state(app.clone(), counted))
        .layer(CatchPanicLayer::custom(|_| {
            problem::respond(
                StatusCode::INTERNAL_SERVER_ERROR,
                "permanent",
                "a bug: the request ended in a panic",
            )
        }))
        .with_state(app)
}

/// Counts what was answered, by route and status, and how long that took.
async fn counted(State(app): Hotbed, route: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let (method, begun) = (request.method().clone(), Instant::now());
    let response = next.run(request).await;
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    app.metrics.api_answered(&method, route, response.status().as_u16(), begun.elapsed());
    response
}

/// What every POST takes that makes something.
#[derive(utoipa::IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code)] // read by the description alone
struct Replay {
    /// 1 to 255 printable ASCII characters. The same key with the same body answers what was made the first time; with
    /// another body or route it is 409. Keys are kept for a day.
    #[param(
        rename = "Idempotency-Key",
        required = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]+$"
    )]
    idempotency_key: Option<String>,
}

/// The client's key for a request, its own, bound to route and body.
fn key_of(caller: &Caller, headers: &HeaderMap, route: &str, body: &[u8]) -> Result<Option<Key>> {
    match headers.get("idempotency-key") {
        None => Ok(None),
        Some(value) => {
            let text = value.to_str().map_err(|_| {
                Error::invalid("`Idempotency-Key` is not readable: expected 1 to 255 ASCII characters")
            })?;
            Key::new(caller.space(), text, route, body).map(Some)
        }
    }
}

/// Parses an id or name out of a path or query, with an error that names the field.
fn parse<T: std::str::FromStr>(field: &str, value: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    value.parse().map_err(|e| Error::invalid(format!("`{field}`: {e}")))
}

/// Work that must end even when the client hangs up.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    match tokio::spawn(work.in_current_span()).await {
        Ok(done) => done,
        Err(e) => Err(Error::permanent("a bug: the work of a request ended in a panic").caused_by(e)),
    }
}

/// `201 Created`, or `200` where an `Idempotency-Key` found what was made before.
fn made<T: serde::Serialize>(replayed: bool, id: String, body: T) -> Response {
    let status = if replayed { StatusCode::OK } else { StatusCode::CREATED };
    let mut response = (status, axum::Json(body)).into_response();
    response.extensions_mut().insert(audit::Made(id));
    if replayed {
        response.headers_mut().insert("idempotent-replayed", header::HeaderValue::from_static("true"));
    }
    response
}
