//! The routes that the agent serves, as `domain::wire` lists them: reads requests, calls the rooms behind, and
//! turns errors into answers. A request that its sender gave up stops where it waits; what must be whole (sync,
//! quiesce) goes on by itself.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::wire::{
    AgentError, AgentInfo, Bind, Boot, ExecRequest, ExecStatus, KeepWarm, KeptWarm, PROTOCOL, PortState,
    Quiesce, SetGate, Signal, SyncRequest, TermSize,
};
use domain::{Error, ErrorKind, ExecId, Result};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Frame, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::boot::VERSION;
use crate::exec::{Exec, Execs};
use crate::files;
use crate::gate::Gate;
use crate::quiesce;
use crate::rehearsal;
use crate::spawn::Processes;
use crate::sync;
use crate::users::{self, User};
use crate::warm;
use crate::who::Who;

/// Longest JSON body, in bytes.
const MAX_JSON: usize = 4 * 1024 * 1024;
/// A loopback that has not answered by then has a full queue.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// Pieces of a streamed answer that wait for the connection.
const QUEUED: usize = 2;

/// Everything the agent holds.
pub struct App {
    pub boot: Boot,
    pub workspace: PathBuf,
    pub gate: Gate,
    pub processes: Processes,
    pub execs: Execs,
    env: BTreeMap<String, String>,
    who: Who,
    bound: RefCell<Option<Bind>>,
    /// One sync at a time.
    syncing: tokio::sync::Mutex<()>,
    started: Instant,
}

impl App {
    pub fn new(boot: Boot) -> Self {
        let workspace = PathBuf::from(&boot.workspace);
        Self {
            gate: Gate::new(&workspace, boot.gate_open),
            who: Who::new(&boot.session_dir),
            env: crate::boot::environment(&boot),
            workspace,
            boot,
            processes: Processes::default(),
            execs: Execs::default(),
            bound: RefCell::new(None),
            syncing: tokio::sync::Mutex::new(()),
            started: Instant::now(),
        }
    }

    fn info(&self) -> AgentInfo {
        AgentInfo {
            version: VERSION.to_owned(),
            protocol: PROTOCOL,
            sandbox: self.boot.sandbox,
            workspace: self.boot.workspace.clone(),
            head: sync::head_of(&self.workspace),
            gate_open: self.gate.is_open(),
            gate_waiting: self.gate.waiting(),
            bound: self.bound.borrow().as_ref().map(|b| b.session),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            rss_bytes: rss_bytes(),
            running: self.execs.running(),
        }
    }

    fn bind(&self, new: Bind) -> Result<()> {
        let mut bound = self.bound.borrow_mut();
        match &*bound {
            Some(old) if old.session != new.session => Err(Error::conflict(format!(
                "this sandbox belongs to session {} and can't be given to {}",
                old.session, new.session
            ))),
            _ => {
                self.who.tell(&new)?;
                *bound = Some(new);
                Ok(())
            }
        }
    }

    /// The environment of one command. Later layers win: image, boot, session, request.
    fn command_env(&self, request: &ExecRequest, user: Option<&User>) -> BTreeMap<String, String> {
        let mut env = self.env.clone();
        let mut set = |name: &str, value: &str| {
            env.insert(name.to_owned(), value.to_owned());
        };
        if let Some(user) = user {
            set("HOME", &user.home);
            set("USER", &user.name);
            set("LOGNAME", &user.name);
        }
        if !self.gate.is_open() && !request.ungated {
            // `git status` and its like would wait for the gate only to write down what they learned.
            set("GIT_OPTIONAL_LOCKS", "0");
        }
        if request.tty.is_some() {
            set("TERM", "xterm-256color");
        }
        if let Some(bound) = &*self.bound.borrow() {
            set("HOTBED_SESSION", &bound.session.to_string());
            set("HOTBED_REPO", &bound.repo);
            if let Some(token) = &bound.token {
                set("HOTBED_TOKEN", token);
                set("HOTBED_URL", &format!("http://127.0.0.1:{}", self.boot.relay_port));
            }
            if bound.identity.is_some() {
                Who::clear(&mut env);
            }
            env.extend(bound.env.clone());
        }
        env.extend(request.env.clone());
        if self.bound.borrow().as_ref().is_some_and(|b| b.identity.is_some()) {
            self.who.lead(&mut env);
        }
        env
    }

    fn exec(&self, request: &ExecRequest) -> Result<Rc<Exec>> {
        let cwd = match &request.cwd {
            Some(cwd) if !cwd.starts_with('/') => {
                return Err(Error::invalid(format!("cwd `{cwd}` is not absolute")));
            }
            Some(cwd) => PathBuf::from(cwd),
            // Before the first clone there is no workspace, and commands have to run somewhere.
            None if self.workspace.is_dir() => self.workspace.clone(),
            None => PathBuf::from("/"),
        };
        let user = request.user.as_deref().map(users::find).transpose()?;
        let env = self.command_env(request, user.as_ref());
        self.execs.start(request, &env, &cwd, user.as_ref(), &self.processes, &self.gate)
    }

    /// For whoever comes next: his files in the page cache, and what his first command needs of this program.
    async fn keep_warm(&self, limits: KeepWarm) -> Result<KeptWarm> {
        if let Some(bound) = &*self.bound.borrow() {
            return Err(Error::conflict(format!("this sandbox belongs to session {}", bound.session)));
        }
        rehearsal::rehearse(self);
        let workspace = self.workspace.clone();
        let kept = tokio::task::spawn_blocking(move || warm::run(&workspace, &limits)).await;
        kept.map_err(|e| Error::permanent("keep the files warm").caused_by(e))
    }

    /// Waits at the gate before the agent itself changes `path`.
    async fn pass_gate(&self, path: &Path, limit: Duration) -> Result<(), Failure> {
        if self.gate.is_open() || !self.gate.guards(path) || self.gate.opened_within(limit).await {
            return Ok(());
        }
        let error = Error::conflict(format!(
            "{} is in the workspace, and the write gate was still shut after {} ms",
            path.display(),
            limit.as_millis()
        ));
        Err(Failure { status: StatusCode::LOCKED, error })
    }
}

fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    // SAFETY: no memory is involved.
    pages * unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as u64
}

/// An error and the status it is answered with.
struct Failure {
    status: StatusCode,
    error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Gone => StatusCode::GONE,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Exhausted | ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Permanent => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { status, error }
    }
}

/// The body of an answer: all at once, or as it comes. A stream that fails half way is reset.
pub enum Body {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
    File(mpsc::Receiver<Result<Bytes>>),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        Poll::Ready(match self.get_mut() {
            Self::Whole(bytes) => bytes.take().map(|b| Ok(Frame::data(b))),
            Self::Stream(from) => ready!(from.poll_recv(cx)).map(|b| Ok(Frame::data(b))),
            Self::File(from) => ready!(from.poll_recv(cx)).map(|r| r.map(Frame::data)),
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }
}

type Answer = Response<Body>;

fn respond(status: StatusCode, kind: &'static str, body: Body) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn json(value: &impl Serialize) -> Result<Answer, Failure> {
    let text = serde_json::to_vec(value).map_err(|e| Error::permanent("write the answer").caused_by(e))?;
    Ok(respond(StatusCode::OK, "application/json", Body::Whole(Some(text.into()))))
}

fn done() -> Result<Answer, Failure> {
    let mut response = Response::new(Body::Whole(None));
    *response.status_mut() = StatusCode::NO_CONTENT;
    Ok(response)
}

/// Answers one request.
pub async fn answer(app: Rc<App>, request: Request<Incoming>) -> Answer {
    match route(app, request).await {
        Ok(answer) => answer,
        Err(Failure { status, error }) => {
            let body = AgentError { kind: error.kind().as_str().to_owned(), message: error.chain() };
            let text = serde_json::to_vec(&body).unwrap_or_default();
            respond(status, "application/json", Body::Whole(Some(text.into())))
        }
    }
}

async fn route(app: Rc<App>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let query = Query::of(&head.uri);
    let path = head.uri.path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (get, post) = (head.method == Method::GET, head.method == Method::POST);
    match parts.as_slice() {
        ["v1", "info"] if get => json(&app.info()),
        ["v1", "bind"] if post => {
            app.bind(read_json(body).await?)?;
            done()
        }
        ["v1", "gate"] if post => {
            let SetGate { open } = read_json(body).await?;
            app.gate.set(open);
            done()
        }
        ["v1", "sync"] if post => {
            let request = read_json(body).await?;
            let report = whole(async move { sync_tree(&app, &request).await }).await?;
            json(&report)
        }
        ["v1", "quiesce"] if post => {
            let Quiesce { stop, grace_ms } = read_json(body).await?;
            whole(async move {
                if stop {
                    quiesce::stop_all(&app.execs, Duration::from_millis(grace_ms)).await;
                }
                quiesce::flush(&app.workspace).await
            })
            .await?;
            done()
        }
        ["v1", "warm"] if post => {
            let limits = read_json(body).await?;
            json(&app.keep_warm(limits).await?)
        }
        ["v1", "exec"] if post => {
            let exec = app.exec(&read_json(body).await?)?;
            if query.flag("follow")? { Ok(output(exec, 0, true)) } else { json(&exec.status()) }
        }
        ["v1", "exec"] if get => {
            let all: Vec<ExecStatus> = app.execs.list().iter().map(|e| e.status()).collect();
            json(&all)
        }
        ["v1", "exec", id, rest @ ..] => {
            let id: ExecId = id
                .parse()
                .map_err(|e: domain::ParseIdError| Error::invalid("read the exec id").caused_by(e))?;
            let exec = app.execs.get(id)?;
            match rest {
                [] if get => json(&exec.status()),
                ["output"] if get => {
                    Ok(output(exec, query.number("from")?.unwrap_or(0), query.flag("follow")?))
                }
                ["input"] if post => {
                    let eof = query.flag("eof")?;
                    write_input(&exec, body).await?;
                    if eof {
                        exec.end_input().await?;
                    }
                    done()
                }
                ["signal"] if post => {
                    let Signal { signal } = read_json(body).await?;
                    exec.signal(&signal)?;
                    done()
                }
                ["resize"] if post => {
                    exec.resize(read_json::<TermSize>(body).await?)?;
                    done()
                }
                _ => Err(unknown(&head.method, &path)),
            }
        }
        ["v1", "file"] => {
            let file = files::absolute(&app.workspace, query.get("path").unwrap_or_default())?;
            let wait = Duration::from_millis(query.number("gate_wait_ms")?.unwrap_or(0));
            match head.method {
                Method::GET => read_file(file).await,
                Method::PUT => {
                    let mode = query.mode()?;
                    app.pass_gate(&file, wait).await?;
                    write_file(file, mode, body).await?;
                    done()
                }
                Method::DELETE => {
                    app.pass_gate(&file, wait).await?;
                    files::delete(file).await?;
                    done()
                }
                method => Err(unknown(&method, &path)),
            }
        }
        ["v1", "dir"] if get => {
            let dir = files::absolute(&app.workspace, query.get("path").unwrap_or("."))?;
            json(&files::list(dir).await?)
        }
        ["v1", "port"] if get => {
            let port = query.number("port")?.and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
            let port = port.ok_or_else(|| Error::invalid("`port` is not a port: expected 1 to 65535"))?;
            json(&PortState { open: takes_connections(port).await })
        }
        _ => Err(unknown(&head.method, &path)),
    }
}

/// Whether anything on the loopback, of either family, takes a connection now.
async fn takes_connections(port: u16) -> bool {
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let connected = TcpStream::connect((address, port));
        if matches!(tokio::time::timeout(CONNECT_LIMIT, connected).await, Ok(Ok(_))) {
            return true;
        }
    }
    false
}

fn unknown(method: &Method, path: &str) -> Failure {
    Error::not_found(format!("the agent has no route {method} {path}")).into()
}

/// Runs something to its end even when nobody waits for the answer any more.
async fn whole<T: 'static>(work: impl Future<Output = Result<T>> + 'static) -> Result<T> {
    match tokio::task::spawn_local(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::permanent("finish the request").caused_by(e)),
    }
}

async fn sync_tree(app: &App, request: &SyncRequest) -> Result<domain::wire::SyncReport> {
    let limit = Duration::from_millis(request.timeout_ms);
    let started = Instant::now();
    let Ok(_one_at_a_time) = tokio::time::timeout(limit, app.syncing.lock()).await else {
        return Err(Error::timeout("another sync was not done in time"));
    };
    let bound = app.bound.borrow().as_ref().map(|b| b.session);
    if bound != request.session {
        return Err(Error::conflict("this sandbox is not, or no longer, whom the sync is for"));
    }
    let left = limit.saturating_sub(started.elapsed()).as_millis() as u64;
    let request = SyncRequest { timeout_ms: left, ..request.clone() };
    let git = sync::Git { processes: &app.processes, workspace: &app.workspace, env: &app.env };
    sync::run(git, &app.gate, app.boot.relay_port, &request).await
}

fn output(exec: Rc<Exec>, from: u64, follow: bool) -> Answer {
    let (to, body) = mpsc::channel(QUEUED);
    tokio::task::spawn_local(async move { exec.send_output(from, follow, &to).await });
    respond(StatusCode::OK, "application/octet-stream", Body::Stream(body))
}

async fn write_input(exec: &Exec, mut body: Incoming) -> Result<()> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::unavailable("read the input").caused_by(e))?;
        if let Ok(data) = frame.into_data() {
            exec.write_input(&data).await?;
        }
    }
    Ok(())
}

async fn read_file(path: PathBuf) -> Result<Answer, Failure> {
    let mut file = files::Reader::open(path).await?;
    let (to, body) = mpsc::channel(QUEUED);
    tokio::task::spawn_local(async move {
        loop {
            let piece = file.next().await;
            let last = piece.as_ref().map_or(true, Bytes::is_empty);
            if matches!(&piece, Ok(p) if p.is_empty()) || to.send(piece).await.is_err() || last {
                return;
            }
        }
    });
    Ok(respond(StatusCode::OK, "application/octet-stream", Body::File(body)))
}

async fn write_file(path: PathBuf, mode: Option<u32>, mut body: Incoming) -> Result<()> {
    let mut file = files::Writer::create(path, mode).await?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::unavailable("read the file's content").caused_by(e))?;
        if let Ok(data) = frame.into_data() {
            file = file.write(data).await?;
        }
    }
    file.finish().await
}

async fn read_json<T: DeserializeOwned>(body: Incoming) -> Result<T> {
    let all = Limited::new(body, MAX_JSON)
        .collect()
        .await
        .map_err(|e| Error::invalid(format!("read the request (at most {MAX_JSON} bytes)")).caused_by(e))?;
    serde_json::from_slice(&all.to_bytes()).map_err(|e| Error::invalid("understand the request").caused_by(e))
}

/// The query of a request, decoded.
struct Query(Vec<(String, String)>);

impl Query {
    fn of(uri: &http::Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (percent_decode(name), percent_decode(value))
                })
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(other) => Err(Error::invalid(format!("`{name}={other}`: expected true or false"))),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        self.get(name)
            .map(|v| v.parse().map_err(|_| Error::invalid(format!("`{name}={v}`: expected a number"))))
            .transpose()
    }

    fn mode(&self) -> Result<Option<u32>> {
        let expected = |v: &str| Error::invalid(format!("`mode={v}`: expected permission bits in octal"));
        self.get("mode")
            .map(|v| u32::from_str_radix(v, 8).ok().filter(|m| *m <= 0o7777).ok_or_else(|| expected(v)))
            .transpose()
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let hex = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' if at + 2 < bytes.len() => match (hex(bytes[at + 1]), hex(bytes[at + 2])) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    at += 2;
                }
                _ => out.push(b'%'),
            },
            b'+' => out.push(b' '),
            b => out.push(b),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        let query =
            Query::of(&"/v1/file?path=a%2Fb%20c+d&follow=true&mode=755&from=x&bad=%zz".parse().unwrap());
        assert_eq!(query.get("path"), Some("a/b c d"));
        assert!(query.flag("follow").unwrap());
        assert!(!query.flag("missing").unwrap());
        assert_eq!(query.mode().unwrap(), Some(0o755));
        assert!(query.number("from").is_err());
        assert_eq!(query.get("bad"), Some("%zz"));
    }
}
