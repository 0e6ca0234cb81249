//! A real OCI registry on loopback (Debian's `docker-registry`), and a door before it that asks for tokens, counts
//! what is sent, and breaks when it is told to.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Failure>;

/// How long the registry may take to come up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the door has seen, and how it misbehaves.
#[derive(Default)]
struct State {
    login: Option<(String, String)>,
    /// Tokens that were given out, each with its scope.
    tokens: HashSet<String>,
    scopes: HashSet<String>,
    /// Bytes of blobs that arrived.
    uploaded: u64,
    /// Breaks an upload off after so many bytes, this many times.
    cut: (u64, u32),
    /// Answers 503 to this many requests.
    refusals: u32,
    refused: u32,
    broken: u32,
}

/// A registry with a door. Ends with its process.
pub struct Registry {
    address: SocketAddr,
    inner: SocketAddr,
    state: Arc<Mutex<State>>,
    child: Child,
    _dir: TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Registry {
    /// Starts the registry and opens the door. May be called from inside a runtime.
    ///
    /// # Panics
    /// Where `docker-registry` is not installed or does not come up.
    pub fn start() -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let inner = free_address();
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn"},
            "storage": {"filesystem": {"rootdirectory": dir.path().join("data")}, "delete": {"enabled": true}},
            "http": {"addr": inner.to_string()},
        });
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config.to_string()).expect("write the registry's configuration");
        let child = serve(&path, &dir.path().join("log"));
        let begun = Instant::now();
        while std::net::TcpStream::connect(inner).is_err() {
            assert!(begun.elapsed() < PATIENCE, "docker-registry does not come up");
            // Callers may be inside a runtime or not: this waits for the condition without one.
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State::default()));
        let door = Door {
            address,
            inner,
            state: state.clone(),
            client: Client::builder(TokioExecutor::new()).build_http(),
        };
        runtime.spawn(door.open(listener));
        Self { address, inner, state, child, _dir: dir, runtime: Some(runtime) }
    }

    /// `host:port` of the door.
    pub fn host(&self) -> String {
        self.address.to_string()
    }

    /// The registry itself, past the door.
    pub fn behind(&self) -> SocketAddr {
        self.inner
    }

    /// From now on only this user is let in, with tokens that the door gives out.
    pub fn require(&self, user: &str, password: &str) {
        self.state().login = Some((user.to_owned(), password.to_owned()));
    }

    /// Breaks the next `times` uploads off once `bytes` of them have arrived.
    pub fn cut_uploads_after(&self, bytes: u64, times: u32) {
        self.state().cut = (bytes, times);
    }

    /// Answers 503 to the next so many requests.
    pub fn refuse(&self, times: u32) {
        self.state().refusals = times;
    }

    /// Bytes of layers and configurations that came through the door so far.
    pub fn uploaded(&self) -> u64 {
        self.state().uploaded
    }

    /// How many requests were refused and how many uploads broken off.
    pub fn troubles(&self) -> (u32, u32) {
        let state = self.state();
        (state.refused, state.broken)
    }

    /// The scopes that tokens were asked for.
    pub fn scopes(&self) -> HashSet<String> {
        self.state().scopes.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn free_address() -> SocketAddr {
    let listener = StdListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address")
}

fn serve(config: &Path, log: &Path) -> Child {
    let log = std::fs::File::create(log).expect("a log");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().expect("this needs a registry: apt-get install docker-registry, or `make setup`")
}

#[derive(Clone)]
struct Door {
    address: SocketAddr,
    inner: SocketAddr,
    state: Arc<Mutex<State>>,
    client: Client<HttpConnector, Body>,
}

impl Door {
    async fn open(self, listener: StdListener) {
        let listener = TcpListener::from_std(listener).expect("a listener");
        while let Ok((stream, _)) = listener.accept().await {
            let door = self.clone();
            tokio::spawn(async move {
                let answer = service_fn(|request| {
                    let door = door.clone();
                    async move { Ok::<_, Infallible>(door.answer(request).await) }
                });
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() == "/token" {
            return self.token(&request);
        }
        {
            let mut state = lock(&self.state);
            if state.refusals > 0 {
                state.refusals -= 1;
                state.refused += 1;
                return text(StatusCode::SERVICE_UNAVAILABLE, "told to refuse");
            }
            if !admitted(&state, &request) {
                return self.challenge(&request);
            }
        }
        let limit = self.upload_limit(&request);
        let (mut head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |p| p.as_str()).to_owned();
        head.uri = format!("http://{}{path}", self.inner).parse().expect("a URL");
        head.headers.remove(header::AUTHORIZATION);
        let is_upload = path.contains("/blobs/uploads");
        let forwarded =
            self.client.request(Request::from_parts(head, self.watched(body, is_upload, limit))).await;
        match forwarded {
            Ok(answer) => answer.map(|body| body.map_err(Into::into).boxed_unsync()),
            Err(e) => text(StatusCode::BAD_GATEWAY, &e.to_string()),
        }
    }

    /// How many bytes of this upload are let through; `None` lets all through.
    fn upload_limit(&self, request: &Request<Incoming>) -> Option<u64> {
        let mut state = lock(&self.state);
        let (bytes, times) = state.cut;
        let is_data = request.method() == Method::PATCH && !request.body().is_end_stream();
        if !is_data || times == 0 {
            return None;
        }
        state.cut.1 -= 1;
        state.broken += 1;
        Some(bytes)
    }

    /// Passes a body on, counts it if it is a blob's, and fails where it is to be broken off.
    fn watched(&self, body: Incoming, is_upload: bool, limit: Option<u64>) -> Body {
        let state = self.state.clone();
        let stream = futures_util::stream::unfold((body, 0u64), move |(mut body, seen)| {
            let state = state.clone();
            async move {
                let frame = match body.frame().await? {
                    Ok(frame) => frame,
                    Err(e) => return Some((Err::<Frame<Bytes>, Failure>(e.into()), (body, seen))),
                };
                let length = frame.data_ref().map_or(0, |d| d.len() as u64);
                if is_upload {
                    lock(&state).uploaded += length;
                }
                let seen = seen + length;
                if limit.is_some_and(|limit| seen > limit) {
                    return Some((Err("told to break off".into()), (body, seen)));
                }
                Some((Ok(frame), (body, seen)))
            }
        });
        StreamBody::new(stream).boxed_unsync()
    }

    fn challenge(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path().trim_start_matches("/v2/");
        let name = ["/manifests/", "/blobs/", "/tags/"]
            .iter()
            .find_map(|part| path.split_once(part))
            .map(|(n, _)| n);
        let actions = match *request.method() {
            Method::GET | Method::HEAD => "pull",
            Method::DELETE => "delete",
            _ => "pull,push",
        };
        let scope = name.map_or(String::new(), |n| format!(",scope=\"repository:{n}:{actions}\""));
        let mut answer = text(StatusCode::UNAUTHORIZED, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
        let challenge = format!("Bearer realm=\"http://{}/token\",service=\"door\"{scope}", self.address);
        let challenge = HeaderValue::from_str(&challenge).expect("a header");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        answer
    }

    fn token(&self, request: &Request<Incoming>) -> Response<Body> {
        let mut state = lock(&self.state);
        let Some((user, password)) = &state.login else { return text(StatusCode::NOT_FOUND, "no tokens") };
        let expected = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        if given != Some(&expected) {
            return text(StatusCode::UNAUTHORIZED, "{\"errors\":[{\"code\":\"UNAUTHORIZED\"}]}");
        }
        // Each scope is a parameter of its own, or several stand in one.
        let query = request.uri().query().unwrap_or_default();
        let asked =
            query.split('&').filter_map(|p| p.strip_prefix("scope=")).flat_map(|s| s.split(['+', ' ']));
        let plain = |s: &str| s.replace("%3A", ":").replace("%2F", "/").replace("%2C", ",");
        let scopes: Vec<_> = asked.flat_map(|s| s.split("%20")).map(plain).collect();
        let token = STANDARD.encode(format!("{} {}", state.tokens.len(), scopes.join(" ")));
        state.tokens.insert(token.clone());
        state.scopes.extend(scopes);
        text(StatusCode::OK, &json!({"token": token, "expires_in": 300}).to_string())
    }
}

/// Whether the door lets this in: a token whose scope covers the deed.
fn admitted(state: &State, request: &Request<Incoming>) -> bool {
    if state.login.is_none() {
        return true;
    }
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let Some(token) = given.and_then(|g| g.strip_prefix("Bearer ")) else { return false };
    if !state.tokens.contains(token) {
        return false;
    }
    let scopes = STANDARD.decode(token).ok().and_then(|t| String::from_utf8(t).ok()).unwrap_or_default();
    let needed = match *request.method() {
        Method::GET | Method::HEAD => return true,
        Method::DELETE => "delete",
        _ => "push",
    };
    scopes
        .split(' ')
        .filter_map(|s| s.rsplit(':').next())
        .any(|actions| actions.split(',').any(|a| a == needed))
}

fn text(status: StatusCode, body: &str) -> Response<Body> {
    let body = if body.is_empty() {
        Empty::new().map_err(|e: Infallible| match e {}).boxed_unsync()
    } else {
        Full::new(Bytes::from(body.to_owned())).map_err(|e: Infallible| match e {}).boxed_unsync()
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
