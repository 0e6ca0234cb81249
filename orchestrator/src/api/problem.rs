//! Errors as `application/problem+json` (RFC 9457), and JSON bodies whose errors are of that kind, too.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain::{Error, ErrorKind};
use serde::de::DeserializeOwned;

use super::MAX_JSON;
use super::types::Problem;

/// An error on its way out.
#[derive(Debug)]
pub struct ApiError(pub Error);

impl From<Error> for ApiError {
    fn from(e: Error) -> Self {
        Self(e)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let kind = self.0.kind();
        let status = match kind {
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Exhausted | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Permanent => StatusCode::INTERNAL_SERVER_ERROR,
        };
        if status.is_server_error() && kind != ErrorKind::Exhausted {
            tracing::warn!(status = status.as_u16(), error = %self.0.chain(), "request failed");
        }
        let mut response = respond(status, kind.as_str(), &self.0.chain());
        if let Some(wait) = self.0.wait() {
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
        }
        response
    }
}

/// Builds the answer. What may pass by itself carries `Retry-After`.
pub fn respond(status: StatusCode, kind: &str, detail: &str) -> Response {
    let problem = Problem {
        kind: format!("urn:hotbed:problem:{kind}"),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        status: status.as_u16(),
        detail: domain::redact::redact(detail).into_owned(),
    };
    let body = serde_json::to_string(&problem).unwrap_or_default();
    let mut response = (status, body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT) {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    }
    response
}

/// `429`: `what` says who does too much of what.
pub fn too_often(what: &str, wait: Duration) -> Response {
    let detail = format!("{what}: again in {} ms", wait.as_millis().max(1));
    let mut response = respond(StatusCode::TOO_MANY_REQUESTS, "exhausted", &detail);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
    response
}

/// What the framework refuses by itself (a query, a path, a body that is too large) is a problem like any other.
pub async fn problems(response: Response) -> Response {
    let status = response.status();
    let refused = status.is_client_error() || status == StatusCode::INTERNAL_SERVER_ERROR;
    let kind = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if !refused || kind.is_some_and(|k| !k.starts_with(b"text/plain")) {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), 4096).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    respond(status, "invalid", text.trim())
}

/// A JSON body. None at all reads as `{}`. The raw bytes are kept for `Idempotency-Key`.
#[derive(Debug)]
pub struct Payload<T> {
    pub value: T,
    pub raw: Bytes,
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Payload<T> {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let too_large = |n: String| {
            respond(
                StatusCode::PAYLOAD_TOO_LARGE,
                "invalid",
                &format!("the body {n}: a JSON body has at most {MAX_JSON} bytes"),
            )
        };
        let declared = request
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.parse::<usize>().ok());
        if let Some(n) = declared.filter(|n| *n > MAX_JSON) {
            return Err(too_large(format!("has {n} bytes")));
        }
        let raw = match Bytes::from_request(request, state).await {
            Ok(raw) if raw.len() > MAX_JSON => return Err(too_large(format!("has {} bytes", raw.len()))),
            Ok(raw) => raw,
            Err(e) if e.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Err(too_large("is too large".into()));
            }
            Err(e) => return Err(respond(e.status(), "invalid", &e.body_text())),
        };
        let text: &[u8] = if raw.is_empty() { b"{}" } else { &raw };
        match serde_json::from_slice(text) {
            Ok(value) => Ok(Self { value, raw }),
            Err(e) => {
                let status =
                    if e.is_data() { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
                Err(respond(status, "invalid", &format!("the body is not what this route takes: {e}")))
            }
        }
    }
}
