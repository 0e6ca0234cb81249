//! Where GitHub delivers. Its signature is the key of this route: whoever can sign may tell, and nobody else is heard.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{Error, Result};
use github::webhook::{MAX_BODY, payload};
use serde::de::IgnoredAny;
use serde_json::json;

use super::{ApiError, Hotbed, problem};
use crate::app::App;
use crate::github::Hooks;
use crate::github::hooks::Taken;

/// A body that takes longer to arrive is given up.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);

/// A delivery of GitHub's: kept and answered, worked later. The same one again changes nothing.
#[utoipa::path(post, path = "/v1/webhooks/github", tag = "webhooks", operation_id = "take_github_webhook", security(()),
    request_body(content = String, description = "what GitHub sends, signed with the webhook's secret", content_type = "application/json"),
    responses((status = 202, description = "kept"), (status = 401, description = "not signed with the secret"),
        (status = 404, description = "the forge is not GitHub"), (status = 413, description = "larger than GitHub sends")))]
pub async fn github(State(app): Hotbed, headers: HeaderMap, body: Body) -> Response {
    let Some(github) = &app.github else {
        return ApiError(Error::not_found("the forge of this Hotbed is not GitHub")).into_response();
    };
    match deliver(&app, &github.hooks, &headers, body).await {
        Ok(taken) => {
            let repeated = taken == Taken::Repeated;
            app.metrics.webhook(if repeated { "repeated" } else { "taken" });
            (StatusCode::ACCEPTED, axum::Json(json!({"repeated": repeated}))).into_response()
        }
        Err(refused) => refused,
    }
}

async fn deliver(
    app: &App,
    hooks: &Hooks,
    headers: &HeaderMap,
    body: Body,
) -> std::result::Result<Taken, Response> {
    let refuse = |response: Response| {
        app.metrics.webhook("refused");
        response
    };
    let failed = |e: Error| refuse(ApiError(e).into_response());
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let signature = text("x-hub-signature-256");
    if signature.is_none() {
        return Err(forged(app));
    }
    let id = name(text("x-github-delivery"), "X-GitHub-Delivery").map_err(failed)?;
    let event = name(text("x-github-event"), "X-GitHub-Event").map_err(failed)?;
    let length = text(header::CONTENT_LENGTH.as_str()).and_then(|n| n.parse::<usize>().ok());
    let too_large = || {
        refuse(problem::respond(
            StatusCode::PAYLOAD_TOO_LARGE,
            "invalid",
            &format!("a delivery has at most {MAX_BODY} bytes"),
        ))
    };
    if length.is_some_and(|n| n > MAX_BODY) {
        return Err(too_large());
    }
    let _room = hooks.room_for(length).map_err(failed)?;
    let read = axum::body::to_bytes(body, length.unwrap_or(MAX_BODY).min(MAX_BODY));
    let body = match tokio::time::timeout(ARRIVES_WITHIN, read).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return Err(too_large()),
        Err(_) => {
            let detail = "the delivery did not arrive in time";
            return Err(refuse(problem::respond(StatusCode::REQUEST_TIMEOUT, "invalid", detail)));
        }
    };
    if !hooks.believes(&body, signature) {
        return Err(forged(app));
    }
    let kind = text(header::CONTENT_TYPE.as_str()).unwrap_or("application/json");
    let json = payload(kind, &body).map_err(failed)?.into_owned();
    serde_json::from_slice::<IgnoredAny>(&json)
        .map_err(|e| failed(Error::invalid("the delivery is no JSON").caused_by(e)))?;
    hooks.take(id, event, json).await.map_err(failed)
}

fn forged(app: &App) -> Response {
    app.metrics.webhook("forged");
    app.metrics.token_refused("webhook");
    let detail = "`X-Hub-Signature-256` is not that of this body under the webhook's secret";
    problem::respond(StatusCode::UNAUTHORIZED, "unauthorized", detail)
}

fn name<'a>(value: Option<&'a str>, header: &str) -> Result<&'a str> {
    let good = |v: &&str| (1..=100).contains(&v.len()) && v.bytes().all(|b| b.is_ascii_graphic());
    value
        .filter(good)
        .ok_or_else(|| Error::invalid(format!("`{header}` is missing or no name of 1 to 100 characters")))
}
