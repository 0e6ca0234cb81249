//! The span of a request: in the client's trace where it sends `traceparent`, else in that of the session or warm-up that
//! the request is about, else the first of a new one. Requests that only read, and bring no trace of their own, leave none.
//! Inside the door: who is not let in leaves no span.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use domain::{ErrorKind, SessionId, TraceContext, WarmupId};
use tracing::Instrument;
use tracing::field::{Empty, display};

use super::Hotbed;
use crate::app::App;
use crate::traces::{Span, kinds};

pub static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The span of a request, for its handler.
#[derive(Clone, Default)]
pub struct Traced(Option<Arc<Inner>>);

struct Inner {
    method: Method,
    route: Option<MatchedPath>,
    span: Mutex<Span>,
    /// Gives the lines of its log the ids.
    log: tracing::Span,
    /// They are given.
    told: std::sync::Once,
}

impl Drop for Inner {
    /// Only now is it certain whether anybody will read what it was. One whose client has hung up ends here, too.
    fn drop(&mut self) {
        let span = self.span.get_mut().unwrap_or_else(PoisonError::into_inner);
        if span.is_kept() {
            let route = self.route.as_ref().map_or("none", MatchedPath::as_str);
            span.rename(format!("{} {route}", self.method));
            span.show(kinds::METHOD, &self.method);
            span.show(kinds::ROUTE, route);
        }
    }
}

impl Traced {
    fn new(method: Method, route: Option<MatchedPath>, span: Span) -> Self {
        let log = tracing::error_span!("request", trace_id = Empty, span_id = Empty);
        let (span, told) = (Mutex::new(span), std::sync::Once::new());
        Self(Some(Arc::new(Inner { method, route, span, log, told })))
    }

    fn span(&self) -> Option<MutexGuard<'_, Span>> {
        Some(self.0.as_ref()?.span.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this request is about has a place in a trace: see [`Span::join`]. From now on the request's is known.
    pub fn join(&self, other: Option<&TraceContext>) {
        if let Some(mut span) = self.span() {
            span.join(other);
        }
        self.context();
    }

    /// Where what is done for this request stands.
    pub fn context(&self) -> Option<TraceContext> {
        let inner = self.0.as_ref()?;
        let context = self.span()?.context()?;
        inner.told.call_once(|| {
            inner.log.record("trace_id", display(format_args!("{:032x}", context.trace_id())));
            inner.log.record("span_id", display(format_args!("{:016x}", context.span_id())));
        });
        Some(context)
    }

    pub fn show(&self, key: &'static str, what: impl std::fmt::Display) {
        if let Some(mut span) = self.span() {
            span.show(key, what);
        }
    }

    /// It did nothing worth a span.
    pub fn forget(&self) {
        if let Some(mut span) = self.span() {
            span.forget();
        }
    }

    fn answered(&self, status: StatusCode) {
        if let Some(mut span) = self.span() {
            span.set(kinds::STATUS, i64::from(status.as_u16()));
            if status.is_server_error() {
                span.fail(match status {
                    StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
                    StatusCode::GATEWAY_TIMEOUT => ErrorKind::Timeout,
                    _ => ErrorKind::Permanent,
                });
            }
        }
    }
}

/// What a client says of its trace; nothing where it is no `traceparent`.
pub fn sent(headers: &HeaderMap) -> Option<TraceContext> {
    let parent: TraceContext = headers.get(&TRACEPARENT)?.to_str().ok()?.parse().ok()?;
    let states: Vec<_> = headers.get_all(&TRACESTATE).iter().filter_map(|v| v.to_str().ok()).collect();
    let state = states.join(",");
    // It is passed on as it is, so one that holds a secret is not.
    let clean = matches!(domain::redact::redact(&state), std::borrow::Cow::Borrowed(_));
    Some(if clean { parent.with_state(&state) } else { parent })
}

/// The place of what a path is about, while it lives.
fn place_of(app: &App, path: &str) -> Option<(&'static str, String, Option<TraceContext>)> {
    let mut parts = path.strip_prefix("/v1/")?.split('/');
    match (parts.next()?, parts.next()?) {
        ("sessions", id) => {
            let session = app.sessions.live(id.parse::<SessionId>().ok()?)?;
            Some((kinds::SESSION, id.to_owned(), session.record().trace.clone()))
        }
        ("warmups", id) => {
            let trace = app.warmups.trace_of(id.parse::<WarmupId>().ok()?)?;
            Some((kinds::WARMUP, id.to_owned(), trace))
        }
        _ => None,
    }
}

/// Gives every request its span.
pub async fn traced(
    State(app): Hotbed,
    route: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let sent = if app.tracer.is_on() { sent(request.headers()) } else { None };
    if !app.tracer.is_on() || (sent.is_none() && request.method().is_safe()) {
        request.extensions_mut().insert(Traced::default());
        return next.run(request).await;
    }
    let known = sent.is_some();
    let span = match sent {
        Some(sent) => app.tracer.accept(&kinds::REQUEST, sent),
        None => app.tracer.begin(&kinds::REQUEST, None),
    };
    let traced = Traced::new(request.method().clone(), route, span);
    match place_of(&app, request.uri().path()) {
        Some((key, id, place)) => {
            traced.join(place.as_ref());
            traced.show(key, id);
        }
        None if known => drop(traced.context()),
        None => {}
    }
    request.extensions_mut().insert(traced.clone());
    let log = traced.0.as_ref().map_or_else(tracing::Span::none, |inner| inner.log.clone());
    let response = next.run(request).instrument(log).await;
    traced.answered(response.status());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn headers(parent: &str, states: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT.clone(), parent.parse().unwrap());
        for state in states {
            headers.append(TRACESTATE.clone(), state.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_clients_trace_is_read_and_what_is_none_is_left() {
        let read = sent(&headers(PARENT, &["a=1", "b=2"])).unwrap();
        assert_eq!((read.traceparent().as_str(), read.state()), (PARENT, Some("a=1,b=2")));
        assert_eq!(sent(&headers("00-no", &[])), None);
        assert_eq!(sent(&HeaderMap::new()), None);
        // A state that holds a token is not passed on.
        assert_eq!(
            sent(&headers(PARENT, &["v=ghp_0123456789abcdef0123456789abcdef0123"])).unwrap().state(),
            None
        );
    }
}
