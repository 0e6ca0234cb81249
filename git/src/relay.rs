//! Serves HTTP/1.1 on any byte stream, and the body type of what is served.
//!
//! A relay connection of a sandbox carries git and whatever else the session may ask; the service decides by
//! path, so this knows no routes.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use domain::{Error, Result};
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// What the relay answers with.
pub type RelayBody = BoxBody<Bytes, io::Error>;

/// A request body that the relay can take: hyper's, axum's, or one made by hand.
pub trait Body:
    hyper::body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
    + Send
    + Unpin
    + 'static
{
}

impl<B> Body for B
where
    B: hyper::body::Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
}

/// How long a client may take for the head of a request, once its first byte is there or the connection is new.
const HEAD_DEADLINE: Duration = Duration::from_secs(120);

/// Serves one connection until the client closes it. `handler` is called once for each request; it is dropped
/// when the client goes away before it has answered. A connection that breaks is `Unavailable`.
pub async fn serve_relay<IO, H, F>(io: IO, handler: H) -> Result<()>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<RelayBody>>,
{
    let service = service_fn(|request| {
        let answer = handler(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .serve_connection(TokioIo::new(io), service)
        .await
        .map_err(|e| Error::unavailable("serve a relay connection").caused_by(e))
}

/// An answer of one sentence. Git prints it as `remote: …` when the status is an error.
pub fn text(status: StatusCode, sentence: impl Into<String>) -> Response<RelayBody> {
    let mut sentence = sentence.into();
    sentence.push('\n');
    answer(status, "text/plain; charset=utf-8", full(sentence))
}

/// A whole answer of another type.
pub fn whole(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<RelayBody> {
    answer(status, content_type, full(bytes))
}

pub(crate) fn answer(status: StatusCode, content_type: &'static str, body: RelayBody) -> Response<RelayBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static("no-cache, max-age=0, must-revalidate"),
    );
    response
}

pub(crate) fn full(bytes: impl Into<Bytes>) -> RelayBody {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}
