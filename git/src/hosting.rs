//! A git server on loopback over bare repositories in a directory, for repositories that live nowhere else (the
//! demonstration) and for tests: real smart HTTP by `git http-backend`, anonymous, pushes taken.

mod bare;

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::{Error, RepoName, Result};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use crate::gateway::split;
use crate::process::Git;
use crate::pump::{self, Deadlines, Plain, Said};
use crate::relay::{Body, RelayBody, full, serve_relay, text};

pub use bare::BareRepo;

/// The longest head that the CGI program may answer with, in bytes.
const MAX_HEAD: usize = 16 * 1024;
const DEADLINES: Deadlines =
    Deadlines { whole: Duration::from_secs(30 * 60), idle: Duration::from_secs(120) };

/// A running server; it ends when dropped, and its git children with it.
pub struct GitHost {
    host: Arc<Host>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Host {
    root: PathBuf,
    #[cfg(feature = "testing")]
    faults: crate::testing::Faults,
}

impl fmt::Debug for GitHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GitHost({})", self.address)
    }
}

impl GitHost {
    /// Serves `<root>/<owner>/<name>.git` on a free port of 127.0.0.1. The directory is made when it is missing.
    pub async fn start(root: impl Into<PathBuf>) -> Result<Self> {
        Self::bind(root, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await
    }

    /// The same at a given address, which must be a loopback one: there is no authentication.
    pub async fn bind(root: impl Into<PathBuf>, address: SocketAddr) -> Result<Self> {
        if !address.ip().is_loopback() {
            return Err(Error::invalid(format!("the git host serves loopback only, not {address}")));
        }
        let root = root.into();
        let io = |e: std::io::Error| Error::permanent(format!("start a git host on {address}")).caused_by(e);
        tokio::fs::create_dir_all(&root).await.map_err(io)?;
        let root = std::path::absolute(root).map_err(io)?;
        let listener = TcpListener::bind(address).await.map_err(io)?;
        let address = listener.local_addr().map_err(io)?;
        let host = Arc::new(Host {
            root,
            #[cfg(feature = "testing")]
            faults: crate::testing::Faults::default(),
        });
        let task = tokio::spawn(accept(listener, host.clone()));
        Ok(Self { host, address, task })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where git reaches a repository.
    pub fn url(&self, repo: &RepoName) -> String {
        format!("http://{}/{repo}.git", self.address)
    }

    pub fn path(&self, repo: &RepoName) -> PathBuf {
        self.host.path(repo)
    }

    /// Makes an empty repository whose default branch is `main`; one that is there stays as it is.
    pub fn create_repo(&self, repo: &RepoName) -> Result<BareRepo> {
        BareRepo::create(self.path(repo))
    }

    /// A handle on the files of a repository.
    pub fn repo(&self, repo: &RepoName) -> BareRepo {
        BareRepo::at(self.path(repo))
    }

    /// What goes wrong on purpose, and what was asked.
    #[cfg(feature = "testing")]
    pub fn faults(&self) -> &crate::testing::Faults {
        &self.host.faults
    }

    /// Ends the server and waits until its connections are closed.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for GitHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, host: Arc<Host>) {
    // The set is dropped with this task, and ends the connections.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let host = host.clone();
                    connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        let _ = serve_relay(stream, |request| host.handle(request)).await;
                    });
                }
                Err(e) => {
                    // Out of descriptors, most likely: those in use have to be closed first.
                    tracing::warn!(error = %e, "the git host can't accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

impl Host {
    fn path(&self, repo: &RepoName) -> PathBuf {
        self.root.join(repo.owner()).join(format!("{}.git", repo.name()))
    }

    async fn handle<B: Body>(&self, request: Request<B>) -> Response<RelayBody> {
        #[cfg(feature = "testing")]
        if let Some(answer) = self.faults.intercept(&request).await {
            return answer;
        }
        #[cfg(feature = "testing")]
        let request = self.faults.change(request);
        let answer = match serve_git(&self.root, request).await {
            Ok(answer) => answer,
            Err(e) => {
                tracing::warn!(error = %e.chain(), "the git host failed");
                text(StatusCode::INTERNAL_SERVER_ERROR, e.chain())
            }
        };
        #[cfg(feature = "testing")]
        let answer = self.faults.cut(answer);
        answer
    }
}

/// Serves one request over the bare repositories `<root>/<owner>/<name>.git`, for servers with rules of their own.
/// Who may do what has been decided by then: fetch and push both go through.
pub async fn serve_git<B: Body>(root: &Path, request: Request<B>) -> Result<Response<RelayBody>> {
    let path = request.uri().path().to_owned();
    let repo = split(&path).and_then(|(repo, _)| repo.parse::<RepoName>().ok());
    let dir = repo.map(|r| root.join(r.owner()).join(format!("{}.git", r.name())));
    let Some(dir) = dir.filter(|dir| dir.is_dir()) else {
        return Ok(text(StatusCode::NOT_FOUND, "Repository not found."));
    };
    let git = cgi(root, &dir, &path, &request);
    let source = Plain(request.into_body());
    let sent = Arc::new(AtomicU64::new(0));
    let said = pump::run(git, Bytes::new(), source, DEADLINES, sent, |_| async {})?;
    answer_of(said).await
}

/// `git http-backend`, with a request as RFC 3875 puts it into the environment.
fn cgi<B>(root: &Path, dir: &Path, path: &str, request: &Request<B>) -> Git {
    let header = |name: HeaderName| request.headers().get(name).and_then(|v| v.to_str().ok());
    let mut git = Git::new(Path::new("git"))
        .arg("http-backend")
        .config("safe.directory", dir.to_string_lossy())
        .config("http.receivepack", "true")
        .config("uploadpack.allowAnySHA1InWant", "true")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("SERVER_PROTOCOL", "HTTP/1.1")
        .env("REMOTE_ADDR", "127.0.0.1");
    for (name, variable) in [
        (header::CONTENT_TYPE, "CONTENT_TYPE"),
        (header::CONTENT_LENGTH, "CONTENT_LENGTH"),
        (header::CONTENT_ENCODING, "HTTP_CONTENT_ENCODING"),
        (HeaderName::from_static("git-protocol"), "HTTP_GIT_PROTOCOL"),
    ] {
        if let Some(value) = header(name) {
            git = git.env(variable, value);
        }
    }
    git
}

/// Turns what a CGI program says into an answer: header lines, an empty line, the body.
async fn answer_of(mut said: Said) -> Result<Response<RelayBody>> {
    let mut head = BytesMut::new();
    let end = loop {
        if let Some(at) = find(&head, b"\r\n\r\n") {
            break at;
        }
        match said.next().await {
            Some(piece) if head.len() <= MAX_HEAD => head.extend_from_slice(&piece),
            Some(_) => return Err(Error::permanent("git http-backend sent no end of its header")),
            None => {
                return Err(Error::permanent(format!(
                    "git http-backend ended early: {:?}",
                    said.ended().await
                )));
            }
        }
    };
    let body = head.split_off(end + 4).freeze();
    let mut response = Response::new(full(Bytes::new()));
    for line in String::from_utf8_lossy(&head[..end]).split("\r\n") {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().and_then(|code| code.parse().ok());
            *response.status_mut() = code.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        } else if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().append(name, value);
        }
    }
    *response.body_mut() = said.into_body((!body.is_empty()).then_some(body));
    Ok(response)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}
