//! A client of the public API, as the command line and the demo use it: HTTP/1.1 over TCP or a unix socket, JSON, streams.

use std::fmt;

use bytes::{Bytes, BytesMut};
use domain::{Error, ErrorKind, Result};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::endpoint;
use crate::tls::Trust;

/// Where an API is and how to enter.
pub struct Client {
    /// `127.0.0.1:7070`, `https://127.0.0.1:7070` or `unix:/path`.
    pub address: String,
    key: String,
    /// Whom it believes, over TLS.
    trust: Option<Trust>,
    /// A connection that is free: taken for a request, put back when its answer has been read.
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.address)
    }
}

/// The part of a problem+json that people read.
#[derive(serde::Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
    detail: String,
}

impl Client {
    pub fn new(address: impl Into<String>, key: impl Into<String>) -> Self {
        Self { address: address.into(), key: key.into(), trust: None, idle: Mutex::default() }
    }

    /// Believes these authorities, over TLS.
    #[must_use]
    pub fn trusting(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }

    /// A connection of its own, for what is no plain request.
    pub async fn dial(&self) -> std::io::Result<endpoint::Stream> {
        endpoint::connect(&self.address, self.trust.as_ref()).await
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let unreachable = || format!("reach Hotbed at {} (`hotbed serve` starts it)", self.address);
        let stream = self.dial().await.map_err(|e| Error::unavailable(unreachable()).caused_by(e))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::unavailable(unreachable()).caused_by(e))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    /// One request; errors are the problem's own words.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        headers: &[(&str, &str)],
    ) -> Result<(SendRequest<Full<Bytes>>, http::Response<Incoming>)> {
        let what = || format!("{method} {path}");
        let mut request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, self.host())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body)).map_err(|e| Error::invalid(what()).caused_by(e))?;
        let free = {
            let mut idle = self.idle.lock().await;
            idle.retain(|s| !s.is_closed());
            idle.pop()
        };
        let mut sender = match free {
            Some(sender) if sender.is_ready() => sender,
            _ => self.connect().await?,
        };
        let response =
            sender.send_request(request).await.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        if response.status().is_success() {
            return Ok((sender, response));
        }
        let status = response.status();
        let body = read_all(response.into_body()).await?;
        Err(match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) => Error::new(kind_of(&problem.kind, status), problem.detail),
            Err(_) => {
                let said: String = String::from_utf8_lossy(&body).chars().take(500).collect();
                Error::new(kind_of("", status), format!("{}: {status} {said}", what()))
            }
        })
    }

    /// A request whose answer is JSON.
    pub async fn call<B: Serialize, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&B>,
        headers: &[(&str, &str)],
    ) -> Result<T> {
        let bytes = match body {
            Some(body) => {
                serde_json::to_vec(body).map_err(|e| Error::invalid("write a request").caused_by(e))?.into()
            }
            None => Bytes::new(),
        };
        let (sender, response) = self.send(method, path, bytes, headers).await?;
        let bytes = read_all(response.into_body()).await?;
        self.idle.lock().await.push(sender);
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes)
            .map_err(|e| Error::permanent(format!("read the answer to {path}")).caused_by(e))
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call::<(), T>(Method::GET, path, None, &[]).await
    }

    /// A GET whose answer is text, whole.
    pub async fn text(&self, path: &str) -> Result<String> {
        let (sender, response) = self.send(Method::GET, path, Bytes::new(), &[]).await?;
        let bytes = read_all(response.into_body()).await?;
        self.idle.lock().await.push(sender);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub async fn post<B: Serialize, T: DeserializeOwned>(&self, path: &str, body: &B) -> Result<T> {
        self.call(Method::POST, path, Some(body), &[]).await
    }

    pub async fn put<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call::<(), T>(Method::PUT, path, None, &[]).await
    }

    pub async fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call::<(), T>(Method::DELETE, path, None, &[]).await
    }

    /// A GET whose answer is read as it comes.
    pub async fn stream(&self, path: &str) -> Result<BoxStream<'static, Result<Bytes>>> {
        let (sender, response) = self.send(Method::GET, path, Bytes::new(), &[]).await?;
        let next = |(mut body, sender): (Incoming, SendRequest<Full<Bytes>>)| async move {
            loop {
                match body.frame().await? {
                    Ok(frame) => {
                        if let Ok(data) = frame.into_data() {
                            return Some((Ok(data), (body, sender)));
                        }
                    }
                    Err(e) => {
                        return Some((Err(Error::unavailable("read a stream").caused_by(e)), (body, sender)));
                    }
                }
            }
        };
        // The sender is kept with the body: the connection ends when it is dropped.
        Ok(stream::unfold((response.into_body(), sender), next).boxed())
    }

    /// As [`Client::stream`], line by line.
    pub async fn lines(&self, path: &str) -> Result<BoxStream<'static, Result<String>>> {
        let bytes = self.stream(path).await?;
        let next = |(mut bytes, mut buffer): (BoxStream<'static, Result<Bytes>>, BytesMut)| async move {
            loop {
                if let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                    let line = buffer.split_to(end + 1);
                    let line = String::from_utf8_lossy(&line[..end]).into_owned();
                    return Some((Ok(line), (bytes, buffer)));
                }
                match bytes.next().await {
                    Some(Ok(more)) => buffer.extend_from_slice(&more),
                    Some(Err(e)) => return Some((Err(e), (bytes, buffer))),
                    None if buffer.is_empty() => return None,
                    None => buffer.extend_from_slice(b"\n"),
                }
            }
        };
        Ok(stream::unfold((bytes, BytesMut::new()), next).boxed())
    }

    /// What requests call the server: a socket has no name.
    pub fn host(&self) -> &str {
        if self.address.starts_with("unix:") {
            return "localhost";
        }
        self.address.strip_prefix("https://").unwrap_or(&self.address)
    }

    pub fn key(&self) -> &str {
        &self.key
    }
}

async fn read_all(body: Incoming) -> Result<Bytes> {
    body.collect().await.map(|c| c.to_bytes()).map_err(|e| Error::unavailable("read an answer").caused_by(e))
}

fn kind_of(kind: &str, status: StatusCode) -> ErrorKind {
    use ErrorKind as K;
    let word = kind.rsplit(':').next().unwrap_or_default();
    [K::Invalid, K::NotFound, K::Conflict, K::Gone, K::Exhausted, K::Unavailable, K::Timeout, K::Permanent]
        .into_iter()
        .find(|k| k.as_str() == word)
        .unwrap_or(if status.is_client_error() { K::Invalid } else { K::Permanent })
}
