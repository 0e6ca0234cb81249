//! An upstream: a bare repository behind git's smart HTTP, at the other end of the relay.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use domain::CommitId;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::harness::{RelayHandler, git};

/// Upstream of `acme/api`.
pub struct Upstream {
    _dir: tempfile::TempDir,
    pub bare: PathBuf,
    work: PathBuf,
    hang: Arc<AtomicBool>,
}

impl Upstream {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bare, work) = (dir.path().join("acme/api.git"), dir.path().join("work"));
        std::fs::create_dir_all(&bare).unwrap();
        git(&bare, &["init", "-q", "--bare", "."]);
        std::fs::create_dir_all(&work).unwrap();
        git(&work, &["init", "-q", "."]);
        git(&work, &["remote", "add", "origin", bare.to_str().unwrap()]);
        Self { _dir: dir, bare, work, hang: Arc::default() }
    }

    /// Commits files on a branch and pushes it.
    pub fn commit(&self, branch: &str, files: &[(&str, &str)]) -> CommitId {
        git(&self.work, &["checkout", "-q", "-B", branch]);
        for (path, text) in files {
            let path = self.work.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        git(&self.work, &["add", "-A"]);
        git(&self.work, &["commit", "-q", "--allow-empty", "-m", "a commit"]);
        git(&self.work, &["push", "-q", "--force", "origin", &format!("HEAD:refs/heads/{branch}")]);
        git(&self.work, &["rev-parse", "HEAD"]).parse().unwrap()
    }

    pub fn in_work(&self, args: &[&str]) -> String {
        git(&self.work, args)
    }

    /// From now on it accepts requests and never answers them.
    pub fn hang(&self, yes: bool) {
        self.hang.store(yes, Ordering::SeqCst);
    }

    pub fn relay(&self) -> RelayHandler {
        let (root, hang) = (self.bare.parent().unwrap().parent().unwrap().to_owned(), Arc::clone(&self.hang));
        Arc::new(move |socket| {
            let (root, hang) = (root.clone(), Arc::clone(&hang));
            let service = service_fn(move |request| {
                let (root, hang) = (root.clone(), Arc::clone(&hang));
                async move {
                    if hang.load(Ordering::SeqCst) {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(answer(&root, request).await)
                }
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service),
            );
        })
    }
}

async fn answer(root: &Path, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let header =
        |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
    let (protocol, encoding) = (header("git-protocol"), header("content-encoding"));
    let not_found =
        || Response::builder().status(404).body(Full::new(Bytes::from("Repository not found"))).unwrap();
    let Some((repo, service)) = path.split_once(".git/") else { return not_found() };
    let repo = root.join(format!("{repo}.git"));
    if !repo.exists() {
        return not_found();
    }
    let advertise = service == "info/refs";
    let mut body = request.into_body().collect().await.unwrap().to_bytes();
    if encoding == "gzip" {
        body = pipe(tokio::process::Command::new("gzip").arg("-dc"), &body).await.into();
    }
    let mut command = tokio::process::Command::new("git");
    command.args(["upload-pack", "--stateless-rpc"]).env("GIT_PROTOCOL", protocol);
    if advertise {
        command.arg("--advertise-refs");
    }
    let mut out = pipe(command.arg(&repo), &body).await;
    let mut kind = "application/x-git-upload-pack-result";
    if advertise {
        kind = "application/x-git-upload-pack-advertisement";
        let mut with_head = b"001e# service=git-upload-pack\n0000".to_vec();
        with_head.append(&mut out);
        out = with_head;
    }
    Response::builder().header("content-type", kind).body(Full::new(out.into())).unwrap()
}

async fn pipe(command: &mut tokio::process::Command, input: &[u8]) -> Vec<u8> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    tokio::spawn(async move { stdin.write_all(&input).await });
    child.wait_with_output().await.unwrap().stdout
}
