//! Which web pages may call from a browser: those of `access.origins` everything, those of `warmups.origins` the
//! warm-ups. What they may do there is said by the key or token that they show, as with everybody.

use std::sync::Arc;
use std::time::Duration;

use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::app::App;

/// As the configuration is at that moment. No cookie is ever asked for, so none is allowed.
pub fn cors(app: &Arc<App>) -> CorsLayer {
    let (access, warmups) = (Arc::downgrade(&app.access), Arc::downgrade(&app.warmups));
    let allowed = move |origin: &HeaderValue, request: &Parts| {
        let Ok(origin) = origin.to_str() else { return false };
        let path = request.uri.path();
        let about_warmups = path == "/v1/warmups" || path.starts_with("/v1/warmups/");
        access.upgrade().is_some_and(|access| access.allows_origin(origin))
            || about_warmups && warmups.upgrade().is_some_and(|warmups| warmups.allows_origin(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            HeaderName::from_static("idempotency-key"),
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("tracestate"),
        ])
        .expose_headers([header::RETRY_AFTER, HeaderName::from_static("idempotent-replayed")])
        .max_age(Duration::from_secs(600))
}
