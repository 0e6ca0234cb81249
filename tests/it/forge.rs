//! A whole server whose forge is GitHub, against the stand-in: what the App reads, what users push and open, what
//! webhooks bring. How the adapter itself behaves is in `github`.

mod hooks;
mod matrix;
mod people;
mod pulls;
mod secrecy;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use orchestrator::fleet::Gatekeeper;
use orchestrator::links::Admission;
use serde_json::{Value, json};
use tokio::net::{TcpListener, UnixStream};
use tokio::process::Command;

use crate::world::{Setup, World, id, sandbox};

fn setup(pool: u32) -> Setup {
    Setup::pool(pool).github()
}

/// What a git command did, and said.
#[derive(Debug)]
struct Ran {
    ok: bool,
    text: String,
}

impl Ran {
    #[track_caller]
    fn fine(self) {
        assert!(self.ok, "{}", self.text);
    }
}

/// Git as it runs in a sandbox: without any configuration or credential of this machine.
async fn git(dir: &Path, args: &[&str]) -> Ran {
    let out = Command::new("git")
        .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .await
        .expect("git");
    let text = [out.stdout, out.stderr].concat();
    Ran { ok: out.status.success(), text: String::from_utf8_lossy(&text).into_owned() }
}

/// A work tree of a session's sandbox whose `origin` is the relay, as the agent makes it reachable.
struct Tree {
    dir: tempfile::TempDir,
    branch: String,
}

impl Tree {
    /// Clones through the relay and stands on the session's branch.
    async fn of(w: &World, view: &Value) -> Self {
        let url = Self::relay(w, view).await;
        let dir = tempfile::tempdir().expect("directory");
        git(dir.path(), &["clone", "-q", &url, "tree"]).await.fine();
        let branch = view["branch"].as_str().expect("branch").to_owned();
        let tree = Self { dir, branch };
        tree.git(&["switch", "-q", "-c", &tree.branch]).await.fine();
        tree
    }

    /// Finds the relay of a server that was started again.
    async fn reconnect(&self, w: &World, view: &Value) {
        let url = Self::relay(w, view).await;
        self.git(&["remote", "set-url", "origin", &url]).await.fine();
    }

    /// Makes the relay reachable; answers where `origin` is.
    async fn relay(w: &World, view: &Value) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let (fleet, sandbox) = (w.app().fleet.clone(), sandbox(view));
        // As long as the server's runtime lives.
        w.on(|_| async move {
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let gate = Gatekeeper(fleet.clone());
                    let (mut ours, theirs) = UnixStream::pair().expect("a pair");
                    tokio::spawn(async move { gate.relay(sandbox, theirs).await });
                    tokio::spawn(async move {
                        let _ = tokio::io::copy_bidirectional(&mut stream, &mut ours).await;
                    });
                }
            });
        })
        .await;
        format!("http://{address}/{}.git", w.specs[0].name)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    async fn git(&self, args: &[&str]) -> Ran {
        git(&self.path(), args).await
    }

    async fn commit(&self, text: &str) {
        self.git(&["commit", "-q", "--allow-empty", "-m", text]).await.fine();
    }

    async fn push(&self) -> Ran {
        self.git(&["push", "-q", "origin", "HEAD"]).await
    }
}

/// Signs a user in by device, through the API.
async fn sign_in(w: &World, login: &str) -> Value {
    sign_in_for(w, login, None).await
}

/// The same for one repo alone.
async fn sign_in_for(w: &World, login: &str, repo: Option<&str>) -> Value {
    w.hub().user(login);
    let begun = w.post("/v1/sign-ins/device", &json!({"repo": repo})).await.expect(201).json();
    assert!(w.hub().approve(begun["user_code"].as_str().expect("a code"), Some(login)));
    let path = format!("/v1/sign-ins/device/{}", id(&begun));
    let pending = w.post(&path, &json!({})).await.expect(200).json();
    assert_eq!(pending["state"], "pending", "GitHub wants to be asked every five seconds");
    w.clock.advance(Duration::from_secs(6));
    let done = w.post(&path, &json!({})).await.expect(200).json();
    assert_eq!(done["state"], "done", "{done}");
    done["user"].clone()
}

/// A session of Ada's that is synced.
async fn session(w: &World) -> Value {
    let view = w.session().await;
    assert_eq!(w.synced(&view).await, "synced");
    view
}

async fn open(w: &World, view: &Value, title: &str) -> Value {
    let path = format!("/v1/sessions/{}/pull-requests", id(view));
    w.post(&path, &json!({"title": title, "body": "Because."})).await.expect(201).json()
}

async fn pulls_of(w: &World, view: &Value) -> Vec<Value> {
    let path = format!("/v1/sessions/{}/pull-requests", id(view));
    w.get(&path).await.expect(200).json()["items"].as_array().expect("items").clone()
}

/// Says something at the stand-in's REST, as this user.
async fn at_github(w: &World, login: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let token = w.hub().personal_token(login);
    crate::github::by_hand(w.hub(), method, &format!("/repos/{}{path}", w.specs[0].name), &token, body).await
}

/// Everything that was ever shown or stored: nothing of it holds these.
fn assert_nowhere(w: &World, secrets: &[String]) {
    let mut files = vec![w.state_dir()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("directory").map(|e| e.expect("entry").path()));
        } else if let Ok(bytes) = std::fs::read(&path) {
            for secret in secrets {
                let found = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
                assert!(!found, "{} holds a token", path.display());
            }
        }
    }
}
