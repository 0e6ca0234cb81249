//! Hotbed's side of the wire, as small as it can be: accepts hellos, speaks HTTP/2 to the agent, and hands relay
//! connections to whoever wants them. Dropping a [`World`] ends the agent and checks that it left no process.

use std::collections::BTreeMap;
use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::wire::{
    AgentError, AgentInfo, Boot, ConnectionKind, ExecRequest, ExecStatus, Frame, Hello, SetGate, StreamName,
    Welcome,
};
use domain::{ExecId, SandboxId};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for a condition, or panics with what was waited for.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub type RelayHandler = Arc<dyn Fn(UnixStream) + Send + Sync>;

/// One agent and its Hotbed.
pub struct World {
    pub dir: TempDir,
    pub workspace: PathBuf,
    /// A directory outside the workspace.
    pub outside: PathBuf,
    pub boot: Boot,
    controls: mpsc::UnboundedReceiver<(Hello, UnixStream)>,
    pub client: Client,
    pub agent: Option<Child>,
    accepting: tokio::task::JoinHandle<()>,
}

pub struct Options {
    pub gate_open: bool,
    pub relay: Option<RelayHandler>,
    pub env: BTreeMap<String, String>,
    pub prepare: Box<dyn FnOnce(&Path)>,
}

impl Default for Options {
    fn default() -> Self {
        Self { gate_open: true, relay: None, env: BTreeMap::new(), prepare: Box::new(|_| {}) }
    }
}

pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub async fn read_line(socket: &mut UnixStream) -> String {
    let mut line = Vec::new();
    loop {
        match socket.read_u8().await.unwrap() {
            b'\n' => return String::from_utf8(line).unwrap(),
            b => line.push(b),
        }
    }
}

pub async fn welcome(socket: &mut UnixStream, welcome: &Welcome) {
    let mut line = serde_json::to_vec(welcome).unwrap();
    line.push(b'\n');
    socket.write_all(&line).await.unwrap();
}

pub fn ok() -> Welcome {
    Welcome { ok: true, error: None, fatal: false }
}

impl World {
    pub async fn shut() -> Self {
        Self::with(Options { gate_open: false, ..Options::default() }).await
    }

    pub async fn open() -> Self {
        Self::with(Options::default()).await
    }

    pub async fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(dir.path()).unwrap();
        let (workspace, outside) = (root.join("ws"), root.join("outside"));
        std::fs::create_dir_all(&workspace).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        (options.prepare)(&workspace);
        let socket = root.join("hotbed.sock");
        let boot = Boot {
            sandbox: SandboxId::new(),
            token: "the-token".into(),
            dial: format!("unix:{}", socket.display()),
            workspace: workspace.display().to_string(),
            gate_open: options.gate_open,
            relay_port: free_port(),
            session_dir: root.join("session").display().to_string(),
            env: options.env,
        };
        let listener = UnixListener::bind(&socket).unwrap();
        let (to, mut controls) = mpsc::unbounded_channel();
        let relay = options.relay;
        let accepting = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let hello: Hello = serde_json::from_str(&read_line(&mut socket).await).unwrap();
                match hello.kind {
                    ConnectionKind::Control => drop(to.send((hello, socket))),
                    ConnectionKind::Relay => {
                        welcome(&mut socket, &ok()).await;
                        if let Some(relay) = &relay {
                            relay(socket);
                        }
                    }
                }
            }
        });
        let file = root.join("boot.json");
        std::fs::write(&file, serde_json::to_vec(&boot).unwrap()).unwrap();
        let agent =
            Command::new(agent_binary()).arg("--boot").arg(&file).stdin(Stdio::null()).spawn().unwrap();
        let client = Client::accept(&mut controls).await;
        Self { dir, workspace, outside, boot, controls, client, agent: Some(agent), accepting }
    }

    /// Hangs up and waits for the agent to dial again.
    pub async fn reconnect(&mut self) {
        self.client.hang_up();
        self.client = Client::accept(&mut self.controls).await;
    }

    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    pub async fn set_gate(&self, open: bool) {
        self.client.post_ok("/v1/gate", &SetGate { open }).await;
    }

    pub async fn info(&self) -> AgentInfo {
        self.client.get("/v1/info").await
    }

    pub async fn wait_for_waiting(&self, n: u32) {
        wait_for(&format!("{n} processes at the gate"), || async {
            (self.info().await.gate_waiting == n).then_some(())
        })
        .await;
    }

    pub fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.workspace.join(path)).unwrap()
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.workspace.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.accepting.abort();
        let Some(mut agent) = self.agent.take() else { return };
        let below = descendants(agent.id());
        // SAFETY: plain kill of a child that has not been collected.
        unsafe { libc::kill(agent.id() as i32, libc::SIGTERM) };
        let status = agent.wait().unwrap();
        if !std::thread::panicking() {
            assert!(status.success(), "the agent ended with {status}");
            // Dead ones may wait for this machine's first process to collect them.
            let lives = |pid: &u32| {
                let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
                stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
            };
            let left: Vec<_> = below.into_iter().filter(lives).collect();
            assert!(left.is_empty(), "the agent left {left:?} behind");
        }
    }
}

/// Processes below one, dead ones included, with their state.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let path = format!("/proc/{0}/task/{0}/children", found[at]);
        let text = std::fs::read_to_string(path).unwrap_or_default();
        found.extend(text.split_ascii_whitespace().map(|p| p.parse::<u32>().unwrap()));
        at += 1;
    }
    found.remove(0);
    found
}

/// A connection to the agent.
#[derive(Clone)]
pub struct Client {
    http: SendRequest<Full<Bytes>>,
    connection: Arc<tokio::task::JoinHandle<()>>,
}

/// All output of a command.
#[derive(Debug, Default)]
pub struct Output {
    pub stdout: String,
    pub stderr: String,
    /// The offset of the first byte that came.
    pub first: u64,
    pub bytes: u64,
    pub exit: Option<domain::wire::ExecExit>,
}

impl Output {
    pub fn code(&self) -> Option<i32> {
        self.exit.as_ref().and_then(|e| e.code)
    }
}

impl Client {
    pub async fn accept(controls: &mut mpsc::UnboundedReceiver<(Hello, UnixStream)>) -> Self {
        let next = tokio::time::timeout(PATIENCE, controls.recv()).await;
        let (_, mut socket) = next.expect("the agent dials").unwrap();
        welcome(&mut socket, &ok()).await;
        Self::over(socket).await
    }

    pub async fn over(socket: UnixStream) -> Self {
        let (http, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(64 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024)
            .handshake(TokioIo::new(socket))
            .await
            .unwrap();
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        Self { http, connection: Arc::new(connection) }
    }

    pub fn hang_up(&self) {
        self.connection.abort();
    }

    pub async fn send(&self, method: Method, path: &str, body: impl Into<Bytes>) -> Response<Incoming> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://agent{path}"))
            .body(Full::new(body.into()))
            .unwrap();
        let mut http = self.http.clone();
        tokio::time::timeout(PATIENCE * 2, http.send_request(request)).await.expect("an answer").unwrap()
    }

    pub async fn body(response: Response<Incoming>) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let response = self.send(Method::GET, path, "").await;
        let status = response.status();
        let body = Self::body(response).await;
        assert_eq!(status, 200, "{path}: {body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    pub async fn post(&self, path: &str, value: &impl Serialize) -> (StatusCode, Bytes) {
        let response = self.send(Method::POST, path, serde_json::to_vec(value).unwrap()).await;
        (response.status(), Self::body(response).await)
    }

    pub async fn post_ok(&self, path: &str, value: &impl Serialize) {
        let (status, body) = self.post(path, value).await;
        assert!(status.is_success(), "{path}: {status} {body:?}");
    }

    pub async fn post_err(&self, path: &str, value: &impl Serialize) -> (u16, AgentError) {
        let (status, body) = self.post(path, value).await;
        assert!(!status.is_success(), "{path}: {status} {body:?}");
        (status.as_u16(), serde_json::from_slice(&body).unwrap())
    }

    /// Starts a command without following it.
    pub async fn start(&self, request: &ExecRequest) -> ExecStatus {
        let (status, body) = self.post("/v1/exec", request).await;
        assert_eq!(status, 200, "{body:?}");
        serde_json::from_slice(&body).unwrap()
    }

    /// Runs a command to its end.
    pub async fn run(&self, request: &ExecRequest) -> Output {
        let response =
            self.send(Method::POST, "/v1/exec?follow=true", serde_json::to_vec(request).unwrap()).await;
        if response.status() != 200 {
            panic!("{:?}: {:?}", request.argv, Self::body(response).await);
        }
        tokio::time::timeout(PATIENCE, frames(response))
            .await
            .unwrap_or_else(|_| panic!("{:?} hangs", request.argv))
    }

    pub async fn sh(&self, script: &str) -> Output {
        self.run(&sh(script)).await
    }

    pub async fn output(&self, id: ExecId, from: u64, follow: bool) -> Output {
        let path = format!("/v1/exec/{id}/output?from={from}&follow={follow}");
        let response = self.send(Method::GET, &path, "").await;
        assert_eq!(response.status(), 200);
        tokio::time::timeout(PATIENCE, frames(response)).await.expect("the output ends")
    }

    pub async fn status(&self, id: ExecId) -> ExecStatus {
        self.get(&format!("/v1/exec/{id}")).await
    }

    pub async fn wait(&self, id: ExecId) -> ExecStatus {
        wait_for("the end of a command", || async {
            let status = self.status(id).await;
            status.exit.is_some().then_some(status)
        })
        .await
    }

    pub async fn input(&self, id: ExecId, data: &str, eof: bool) -> StatusCode {
        self.send(Method::POST, &format!("/v1/exec/{id}/input?eof={eof}"), data.to_owned()).await.status()
    }

    pub async fn signal(&self, id: ExecId, signal: &str) -> (StatusCode, Bytes) {
        self.post(&format!("/v1/exec/{id}/signal"), &domain::wire::Signal { signal: signal.into() }).await
    }
}

/// Decodes all frames of an answer, and checks their offsets.
pub async fn frames(response: Response<Incoming>) -> Output {
    let mut body = response.into_body();
    let mut buf = BytesMut::new();
    let mut out = Output::default();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut at: Option<u64> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.unwrap().into_data() else { continue };
        buf.extend_from_slice(&data);
        while let Some(frame) = Frame::decode(&mut buf).unwrap() {
            match frame {
                Frame::Output { stream, offset, data } => {
                    if at.is_none() {
                        out.first = offset;
                    }
                    assert!(at.is_none_or(|at| at <= offset), "offsets go back");
                    at = Some(offset + data.len() as u64);
                    out.bytes += data.len() as u64;
                    match stream {
                        StreamName::Stdout => stdout.extend_from_slice(&data),
                        StreamName::Stderr => stderr.extend_from_slice(&data),
                    }
                }
                Frame::Exit(exit) => out.exit = Some(exit),
                Frame::Heartbeat => {}
            }
        }
    }
    out.stdout = String::from_utf8_lossy(&stdout).into_owned();
    out.stderr = String::from_utf8_lossy(&stderr).into_owned();
    out
}

pub fn command<S: AsRef<str>>(argv: &[S]) -> ExecRequest {
    ExecRequest::new(argv.iter().map(|s| s.as_ref().to_owned()).collect())
}

pub fn sh(script: &str) -> ExecRequest {
    command(&["sh", "-c", script])
}

/// The agent to test: the one that cargo has just built, or another, such as a release build to measure.
pub fn agent_binary() -> PathBuf {
    std::env::var_os("HOTBED_TEST_AGENT")
        .map_or_else(|| env!("CARGO_BIN_EXE_hotbed-agent").into(), PathBuf::from)
}

/// The helper that makes single system calls; cargo builds it beside the tests.
pub fn poke() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_hotbed-agent")).parent().unwrap().join("examples/poke");
    assert!(
        path.metadata().is_ok_and(|m| m.permissions().mode() & 0o111 != 0),
        "{} is not built: run the tests with `cargo test -p agent`",
        path.display()
    );
    path
}

/// Runs git of this machine, for what a test prepares.
pub fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=T", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"])
        .args(["-c", "commit.gpgSign=false", "-c", "protocol.file.allow=always"])
        .args(args)
        .env_remove("GIT_DIR")
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim_end().to_owned()
}
