//! A collector of traces: takes OTLP over HTTP as protobuf, keeps what it was sent, and misbehaves when it is told to.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use prost::Message;
use tokio::net::TcpListener;

/// What it does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manners {
    Takes,
    /// Takes everything and keeps nothing.
    Forgets,
    /// Answers 503.
    Refuses,
    /// Takes a request and never answers.
    Hangs,
}

/// A span as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub scope: String,
    pub service: String,
    /// Ids are in hex, as in `traceparent`.
    pub trace: String,
    pub id: String,
    /// Empty for the first of a trace.
    pub parent: String,
    pub state: String,
    /// Nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, String>,
    /// The traces that it is linked to.
    pub links: Vec<String>,
    /// What is said of its failure.
    pub error: Option<String>,
}

struct State {
    manners: Manners,
    seen: Vec<Seen>,
    bodies: Vec<Bytes>,
    headers: Vec<HeaderMap>,
    requests: usize,
}

/// A collector on loopback. Ends when it is dropped.
pub struct Collector {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    /// # Errors
    /// Where there is no port to be had.
    pub fn start(manners: Manners) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        // Without waiting, so that it can be started from within another runtime.
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let state = State { manners, seen: vec![], bodies: vec![], headers: vec![], requests: 0 };
        let state = Arc::new(Mutex::new(state));
        let kept = state.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let kept = kept.clone();
                let answer = service_fn(move |request| {
                    let kept = kept.clone();
                    async move { Ok::<_, Infallible>(answer(&kept, request).await) }
                });
                tokio::spawn(async move {
                    // A client that goes away is no concern of ours.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), answer)
                        .await;
                });
            }
        });
        Ok(Self { address, state, runtime: Some(runtime) })
    }

    /// What goes into `tracing.endpoint`, with its path.
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn behave(&self, manners: Manners) {
        self.state().manners = manners;
    }

    /// The spans it was sent so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Everything it was sent, as it came.
    pub fn bodies(&self) -> Vec<Bytes> {
        self.state().bodies.clone()
    }

    pub fn headers(&self) -> Vec<HeaderMap> {
        self.state().headers.clone()
    }

    /// How often somebody asked, whatever the answer was.
    pub fn requests(&self) -> usize {
        self.state().requests
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let manners = {
        let mut state = lock(state);
        state.requests += 1;
        state.manners
    };
    let says = |status: StatusCode| {
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        response
    };
    match manners {
        Manners::Hangs => std::future::pending().await,
        Manners::Refuses => return says(StatusCode::SERVICE_UNAVAILABLE),
        Manners::Forgets => {
            let _ = request.into_body().collect().await;
            return says(StatusCode::OK);
        }
        Manners::Takes => {}
    }
    let (head, body) = request.into_parts();
    if (head.method, head.uri.path()) != (Method::POST, "/v1/traces") {
        return says(StatusCode::NOT_FOUND);
    }
    let Ok(body) = body.collect().await else { return says(StatusCode::BAD_REQUEST) };
    let body = body.to_bytes();
    let Ok(sent) = ExportTraceServiceRequest::decode(body.clone()) else {
        return says(StatusCode::BAD_REQUEST);
    };
    let mut state = lock(state);
    state.seen.extend(spans(sent));
    state.bodies.push(body);
    state.headers.push(head.headers);
    says(StatusCode::OK)
}

fn spans(sent: ExportTraceServiceRequest) -> Vec<Seen> {
    let mut seen = Vec::new();
    for resource in sent.resource_spans {
        let about = resource.resource.map(|r| attributes(r.attributes)).unwrap_or_default();
        let service = about.get("service.name").cloned().unwrap_or_default();
        for of_scope in resource.scope_spans {
            let scope = of_scope.scope.map(|s| s.name).unwrap_or_default();
            seen.extend(of_scope.spans.into_iter().map(|span| Seen {
                scope: scope.clone(),
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                state: span.trace_state,
                start: span.start_time_unix_nano,
                end: span.end_time_unix_nano,
                attributes: attributes(span.attributes),
                links: span.links.iter().map(|l| hex(&l.trace_id)).collect(),
                // 2 is "error" in OTLP.
                error: span.status.filter(|s| s.code == 2).map(|s| s.message),
                name: span.name,
            }));
        }
    }
    seen
}

fn hex(id: &[u8]) -> String {
    id.iter().map(|b| format!("{b:02x}")).collect()
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    all.into_iter().map(|kv| (kv.key, kv.value.map(shown).unwrap_or_default())).collect()
}

fn shown(value: AnyValue) -> String {
    match value.value {
        Some(Value::StringValue(text)) => text,
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::IntValue(n)) => n.to_string(),
        Some(Value::DoubleValue(n)) => n.to_string(),
        other => format!("{other:?}"),
    }
}
