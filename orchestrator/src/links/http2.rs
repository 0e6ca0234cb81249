//! The control connection: HTTP/2 with Hotbed as the client on a socket that the agent opened.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use domain::ports::{AgentLink, ByteStream, FrameStream};
use domain::wire::{
    AgentError, AgentInfo, Bind, DirEntry, ExecRequest, ExecStatus, Frame, Hello, KeepWarm, KeptWarm,
    PortState, Quiesce, SetGate, Signal, SyncReport, SyncRequest, TermSize,
};
use domain::{Error, ErrorKind, ExecId, Result, SandboxId};
use futures_util::{StreamExt, stream};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::watch;

/// A short question: the agent answers from memory.
const QUICK: Duration = Duration::from_secs(10);
/// Moving a file in or out.
const FILE: Duration = Duration::from_secs(120);
/// What an answer that is read whole may hold, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// See the module.
pub struct Http2Link {
    sandbox: SandboxId,
    version: String,
    sender: SendRequest<Full<Bytes>>,
    open: watch::Receiver<bool>,
}

impl fmt::Debug for Http2Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Http2Link({})", self.sandbox)
    }
}

impl Http2Link {
    /// Takes over a connection whose agent has been welcomed.
    pub async fn handshake(hello: Hello, stream: UnixStream) -> Result<Self> {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(20))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .max_concurrent_reset_streams(1024)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|e| Error::unavailable("speak HTTP/2 with the agent").caused_by(e))?;
        let (tx, open) = watch::channel(true);
        tokio::spawn(async move {
            let _ = connection.await;
            tx.send_replace(false);
        });
        Ok(Self { sandbox: hello.sandbox, version: hello.agent_version, sender, open })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<http::Response<Incoming>> {
        let what = || format!("ask the agent of {} for {method} {path}", self.sandbox);
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("http://agent{path}"))
            .body(Full::new(body))
            .map_err(|e| Error::invalid(what()).caused_by(e))?;
        let mut sender = self.sender.clone();
        let sent = async {
            sender.ready().await?;
            sender.send_request(request).await
        };
        let response = match tokio::time::timeout(deadline, sent).await {
            Ok(Ok(response)) => response,
            Ok(Err(e)) => return Err(Error::unavailable(what()).caused_by(e)),
            Err(_) => return Err(Error::timeout(format!("{}: no answer within {deadline:?}", what()))),
        };
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = tokio::time::timeout(QUICK, collect(response.into_body(), &what))
            .await
            .unwrap_or_else(|_| Ok(Bytes::new()))?;
        Err(match serde_json::from_slice::<AgentError>(&body) {
            Ok(e) => Error::new(e.kind(), e.message),
            Err(_) => Error::new(kind_of(status), format!("{}: {status}", what())),
        })
    }

    async fn call<A: Serialize + Sync, T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&A>,
        deadline: Duration,
    ) -> Result<T> {
        let what = || format!("read the answer to {path} of {}", self.sandbox);
        let body = match body {
            Some(body) => serde_json::to_vec(body).map_err(|e| Error::invalid(what()).caused_by(e))?.into(),
            None => Bytes::new(),
        };
        let response = self.send(method, path, body, deadline).await?;
        let bytes = tokio::time::timeout(deadline, collect(response.into_body(), &what))
            .await
            .map_err(|_| Error::timeout(what()))??;
        // An answer without content reads as `null`, which is what `()` is made of.
        let bytes = if bytes.is_empty() { Bytes::from_static(b"null") } else { bytes };
        serde_json::from_slice(&bytes).map_err(|e| Error::permanent(what()).caused_by(e))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.call::<(), T>(Method::GET, path, None, QUICK).await
    }

    async fn post<A: Serialize + Sync, T: DeserializeOwned>(&self, path: &str, body: &A) -> Result<T> {
        self.call(Method::POST, path, Some(body), QUICK).await
    }
}

#[async_trait]
impl AgentLink for Http2Link {
    fn sandbox(&self) -> SandboxId {
        self.sandbox
    }

    fn version(&self) -> &str {
        &self.version
    }

    fn is_closed(&self) -> bool {
        !*self.open.borrow() || self.sender.is_closed()
    }

    async fn closed(&self) {
        let _ = self.open.clone().wait_for(|open| !open).await;
    }

    async fn info(&self) -> Result<AgentInfo> {
        self.get("/v1/info").await
    }

    async fn bind(&self, bind: &Bind) -> Result<()> {
        self.post("/v1/bind", bind).await
    }

    async fn set_gate(&self, open: bool) -> Result<()> {
        self.post("/v1/gate", &SetGate { open }).await
    }

    async fn sync(&self, request: &SyncRequest) -> Result<SyncReport> {
        let deadline = Duration::from_millis(request.timeout_ms) + Duration::from_secs(1);
        self.call(Method::POST, "/v1/sync", Some(request), deadline).await
    }

    async fn exec(&self, request: &ExecRequest) -> Result<ExecStatus> {
        self.post("/v1/exec", request).await
    }

    async fn exec_follow(&self, request: &ExecRequest) -> Result<FrameStream> {
        let body = serde_json::to_vec(request).map_err(|e| Error::invalid("write an exec").caused_by(e))?;
        let response = self.send(Method::POST, "/v1/exec?follow=true", body.into(), QUICK).await?;
        Ok(frames(response.into_body()))
    }

    async fn exec_status(&self, id: ExecId) -> Result<ExecStatus> {
        self.get(&format!("/v1/exec/{id}")).await
    }

    async fn exec_list(&self) -> Result<Vec<ExecStatus>> {
        self.get("/v1/exec").await
    }

    async fn output(&self, id: ExecId, from: u64, follow: bool) -> Result<FrameStream> {
        let path = format!("/v1/exec/{id}/output?from={from}&follow={follow}");
        let response = self.send(Method::GET, &path, Bytes::new(), QUICK).await?;
        Ok(frames(response.into_body()))
    }

    async fn input(&self, id: ExecId, data: Bytes, eof: bool) -> Result<()> {
        self.send(Method::POST, &format!("/v1/exec/{id}/input?eof={eof}"), data, FILE).await.map(drop)
    }

    async fn signal(&self, id: ExecId, signal: &str) -> Result<()> {
        self.post(&format!("/v1/exec/{id}/signal"), &Signal { signal: signal.into() }).await
    }

    async fn resize(&self, id: ExecId, size: TermSize) -> Result<()> {
        self.post(&format!("/v1/exec/{id}/resize"), &size).await
    }

    async fn read_file(&self, path: &str) -> Result<ByteStream> {
        let response =
            self.send(Method::GET, &format!("/v1/file?path={}", escape(path)), Bytes::new(), FILE).await?;
        let what = format!("read {path} in {}", self.sandbox);
        let next = move |chunk: Result<Bytes, hyper::Error>| {
            chunk.map_err(|e| Error::unavailable(what.clone()).caused_by(e))
        };
        Ok(response.into_body().into_data_stream().map(next).boxed())
    }

    async fn write_file(&self, path: &str, data: Bytes, mode: Option<u32>, gate_wait_ms: u64) -> Result<()> {
        let mode = mode.map_or(String::new(), |m| format!("&mode={m:o}"));
        let path = format!("/v1/file?path={}&gate_wait_ms={gate_wait_ms}{mode}", escape(path));
        self.send(Method::PUT, &path, data, FILE + Duration::from_millis(gate_wait_ms)).await.map(drop)
    }

    async fn delete_file(&self, path: &str, gate_wait_ms: u64) -> Result<()> {
        let path = format!("/v1/file?path={}&gate_wait_ms={gate_wait_ms}", escape(path));
        self.send(Method::DELETE, &path, Bytes::new(), FILE + Duration::from_millis(gate_wait_ms))
            .await
            .map(drop)
    }

    async fn list_dir(&self, path: &str) -> Result<Vec<DirEntry>> {
        self.get(&format!("/v1/dir?path={}", escape(path))).await
    }

    async fn port_open(&self, port: u16) -> Result<bool> {
        let state: PortState = self.get(&format!("/v1/port?port={port}")).await?;
        Ok(state.open)
    }

    async fn keep_warm(&self, limits: &KeepWarm) -> Result<KeptWarm> {
        let deadline = Duration::from_millis(limits.max_ms) + QUICK;
        self.call(Method::POST, "/v1/warm", Some(limits), deadline).await
    }

    async fn quiesce(&self, quiesce: &Quiesce) -> Result<()> {
        let deadline = Duration::from_millis(quiesce.grace_ms) + Duration::from_secs(60);
        self.call(Method::POST, "/v1/quiesce", Some(quiesce), deadline).await
    }
}

fn kind_of(status: StatusCode) -> ErrorKind {
    match status {
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::CONFLICT | StatusCode::LOCKED => ErrorKind::Conflict,
        StatusCode::GONE => ErrorKind::Gone,
        StatusCode::SERVICE_UNAVAILABLE => ErrorKind::Unavailable,
        StatusCode::GATEWAY_TIMEOUT => ErrorKind::Timeout,
        s if s.is_client_error() => ErrorKind::Invalid,
        _ => ErrorKind::Permanent,
    }
}

async fn collect(mut body: Incoming, what: &(dyn Fn() -> String + Sync)) -> Result<Bytes> {
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::unavailable(what()).caused_by(e))?;
        if let Some(data) = frame.data_ref() {
            if whole.len() + data.len() > MAX_ANSWER {
                return Err(Error::permanent(format!("{}: more than {MAX_ANSWER} bytes", what())));
            }
            whole.extend_from_slice(data);
        }
    }
    Ok(whole.freeze())
}

/// Decodes frames as they come; ends after the exit frame or with the connection.
fn frames(body: Incoming) -> FrameStream {
    struct State {
        body: Incoming,
        buffer: BytesMut,
        done: bool,
    }
    let next = |mut s: State| async move {
        loop {
            if s.done {
                return None;
            }
            match Frame::decode(&mut s.buffer) {
                Ok(Some(Frame::Heartbeat)) => continue,
                Ok(Some(frame)) => {
                    s.done = matches!(frame, Frame::Exit(_));
                    return Some((Ok(frame), s));
                }
                Ok(None) => {}
                Err(e) => {
                    s.done = true;
                    return Some((Err(Error::permanent("read the output of a command").caused_by(e)), s));
                }
            }
            match s.body.frame().await {
                None => return None,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        s.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(e)) => {
                    s.done = true;
                    return Some((
                        Err(Error::unavailable("follow a command: the agent's connection ended").caused_by(e)),
                        s,
                    ));
                }
            }
        }
    };
    stream::unfold(State { body, buffer: BytesMut::new(), done: false }, next).boxed()
}

/// Percent-encodes everything that is not plainly safe in a query.
fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len() + 8);
    for b in path.bytes() {
        if b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'-' | b'_') {
            out.push(b as char);
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}
