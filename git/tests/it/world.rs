//! One sandbox, one relay, one mirror, one upstream.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use domain::{Branch, CommitId, Identity, RepoName, SandboxId, SessionId};
use git::hosting::{BareRepo, GitHost};
use git::{
    Access, Caller, Gateway, GatewayOptions, MirrorOptions, MirrorSet, PushEvent, Remote, serve_relay,
};
use rustix::process::Pid;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

pub const OWN: &str = "hotbed/s1";

pub struct World {
    pub dir: TempDir,
    pub host: GitHost,
    pub upstream: BareRepo,
    pub mirrors: MirrorSet,
    pub gateway: Gateway,
    pub caller: Arc<Mutex<Caller>>,
    pub pushed: Arc<Mutex<Vec<PushEvent>>>,
    /// Where the sandbox finds its repository.
    pub url: String,
    relay: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

pub struct Ran {
    pub ok: bool,
    /// stdout and stderr.
    pub text: String,
}

pub fn repo() -> RepoName {
    "acme/api".parse().unwrap()
}

pub fn branch(name: &str) -> Branch {
    name.parse().unwrap()
}

pub fn session() -> SessionId {
    SessionId::from_u128(7)
}

pub fn author() -> Identity {
    Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.com".into() }
}

pub fn commit(to: &BareRepo, on: &str, file: &str, content: &str) -> CommitId {
    to.commit_files(&branch(on), &[(file, Some(content.as_bytes()))], &format!("change {file}"), &author())
        .unwrap()
}

/// Bytes that no packing makes smaller.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Waits for a condition, at most 10 s.
pub async fn wait_for(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waited = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for: {what}");
}

/// Processes whose command line or environment names the path, by id.
pub fn processes_in(path: &Path) -> Vec<String> {
    let needle = path.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let own = entry.file_name().to_string_lossy() == std::process::id().to_string();
        let read = |file: &str| {
            String::from_utf8_lossy(&std::fs::read(entry.path().join(file)).unwrap_or_default()).into_owned()
        };
        if !own && (read("cmdline").contains(needle) || read("environ").contains(needle)) {
            found.push(format!(
                "{}: {}",
                entry.file_name().to_string_lossy(),
                read("cmdline").replace('\0', " ")
            ));
        }
    }
    found
}

impl World {
    /// Upstream has `main` with two commits; the mirror is up to date; the sandbox may push to its own branch.
    pub async fn new() -> Self {
        Self::with(
            MirrorOptions::default(),
            GatewayOptions { fresh_for: Duration::from_secs(600), ..GatewayOptions::default() },
        )
        .await
    }

    pub async fn with(mirror_options: MirrorOptions, mut options: GatewayOptions) -> Self {
        use domain::ports::Mirrors;
        let dir = TempDir::new().unwrap();
        let host = GitHost::start(dir.path().join("upstream")).await.unwrap();
        let upstream = host.create_repo(&repo()).unwrap();
        commit(&upstream, "main", "README", "hello\n");
        commit(&upstream, "main", "src/lib", "one\n");
        let remotes = vec![Remote::new(repo(), host.url(&repo()))];
        let mirrors = MirrorSet::open(dir.path().join("mirrors"), remotes, mirror_options).await.unwrap();
        if mirrors.refresh(&repo()).await.is_err() {
            assert!(!host.faults().asked().is_empty());
        }
        let pushed = Arc::new(Mutex::new(Vec::new()));
        let events = pushed.clone();
        options.on_push = Some(Arc::new(move |e| events.lock().unwrap().push(e)));
        let gateway = Gateway::new(mirrors.clone(), options);
        let access = Access::Push { session: session(), branch: branch(OWN) };
        let caller = Arc::new(Mutex::new(Caller { sandbox: SandboxId::from_u128(1), repo: repo(), access }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/{}.git", listener.local_addr().unwrap(), repo());
        let relay = tokio::spawn(relay(listener, gateway.clone(), caller.clone()));
        Self { dir, host, upstream, mirrors, gateway, caller, pushed, url, relay }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The mirror, opened beside the library.
    pub fn mirror(&self) -> BareRepo {
        BareRepo::at(self.mirrors.path(&repo()))
    }

    /// Runs git as a sandbox would, within 60 s.
    pub async fn git(&self, in_dir: &Path, args: &[&str]) -> Ran {
        let mut command = Command::new("git");
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GIT_") && name != "GIT_EXEC_PATH" {
                command.env_remove(name);
            }
        }
        command
            .current_dir(in_dir)
            .env("HOME", self.dir.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .args(["-c", "user.name=Agent", "-c", "user.email=agent@example.com", "-c", "protocol.version=2"])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = command.spawn().unwrap();
        let mut group = Group(Pid::from_raw(child.id().unwrap() as i32));
        let output = tokio::time::timeout(Duration::from_secs(60), child.wait_with_output()).await;
        let output = output.expect("git hangs").unwrap();
        group.0 = None;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ran { ok: output.status.success(), text }
    }

    /// The same, and it must succeed.
    pub async fn done(&self, in_dir: &Path, args: &[&str]) -> String {
        let ran = self.git(in_dir, args).await;
        assert!(ran.ok, "git {args:?}: {}", ran.text);
        ran.text
    }

    /// A clone through the relay, on the session's own branch with one commit more than `main`.
    pub async fn work_tree(&self) -> PathBuf {
        let tree = self.path("tree");
        self.done(self.dir.path(), &["clone", &self.url, "tree"]).await;
        self.done(&tree, &["checkout", "-q", "-b", OWN]).await;
        self.commit_here(&tree, "work", "mine\n").await;
        tree
    }

    pub async fn commit_here(&self, tree: &Path, file: &str, content: impl AsRef<[u8]>) -> CommitId {
        std::fs::write(tree.join(file), content).unwrap();
        self.done(tree, &["add", "-A"]).await;
        self.done(tree, &["commit", "-q", "-m", &format!("write {file}")]).await;
        self.head(tree).await
    }

    pub async fn head(&self, tree: &Path) -> CommitId {
        self.done(tree, &["rev-parse", "HEAD"]).await.trim().parse().unwrap()
    }
}

/// Kills git and its helpers when a test gives a command up.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// What the orchestrator will do: git paths to the gateway, others elsewhere.
async fn relay(listener: TcpListener, gateway: Gateway, caller: Arc<Mutex<Caller>>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (gateway, caller) = (gateway.clone(), caller.clone());
        connections.spawn(async move {
            let handler = |request: http::Request<hyper::body::Incoming>| {
                let (gateway, caller) = (gateway.clone(), caller.lock().unwrap().clone());
                async move {
                    if Gateway::is_git_path(request.uri().path()) {
                        gateway.handle(&caller, request).await
                    } else {
                        git::text(http::StatusCode::OK, "not git")
                    }
                }
            };
            let _ = serve_relay(stream, handler).await;
        });
    }
}
