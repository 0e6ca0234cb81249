//! The public API as these tests use it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use domain::Result;
use orchestrator::api::types::{BuildView, ExecView, List, PoolView, RepoView, SessionView, SyncView};
use orchestrator::client::Client;
use serde_json::{Value, json};

use super::world::PATIENCE;
use crate::http::{self, Answer};

/// Asks until the answer is good; an error says what is still missing.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> std::result::Result<T, String>) -> T {
    until_within(PATIENCE, what, &mut probe).await
}

pub async fn until_within<T>(
    limit: Duration,
    what: &str,
    probe: &mut impl AsyncFnMut() -> std::result::Result<T, String>,
) -> T {
    let begun = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return found,
            Err(why) => assert!(begun.elapsed() < limit, "{what}: not within {limit:?}: {why}"),
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

pub struct Api {
    pub client: Client,
    address: SocketAddr,
    bearer: String,
}

impl Api {
    pub fn new(address: SocketAddr, key: &str) -> Self {
        Self { client: Client::new(address.to_string(), key), address, bearer: format!("Bearer {key}") }
    }

    pub fn user() -> Value {
        json!({"login": "ada", "name": "Ada Lovelace", "email": "ada@example.invalid"})
    }

    /// A request whose answer is wanted as it is, status and headers.
    pub async fn raw(&self, method: &str, path: &str, body: &str) -> std::io::Result<Answer> {
        let headers = [("authorization", self.bearer.as_str()), ("content-type", "application/json")];
        http::send(self.address, method, path, &headers, body.as_bytes()).await
    }

    pub async fn answer(&self, method: &str, path: &str, body: &str) -> Answer {
        self.raw(method, path, body).await.unwrap_or_else(|e| panic!("{method} {path}: {e}"))
    }

    pub async fn repo(&self, repo: &str) -> RepoView {
        self.client.get(&format!("/v1/repos/{repo}")).await.expect("a repo")
    }

    pub async fn pool(&self, repo: &str) -> PoolView {
        self.client.get(&format!("/v1/pools/{repo}")).await.expect("a pool")
    }

    /// Waits for the repo's first image.
    pub async fn image(&self, repo: &str) -> RepoView {
        until(&format!("the image of {repo}"), async || {
            let view = self.repo(repo).await;
            let builds: List<BuildView> =
                self.client.get(&format!("/v1/repos/{repo}/builds")).await.expect("builds");
            if let Some(failed) = builds.items.iter().find(|b| b.state == "failed") {
                panic!("the build of {repo} failed: {}", failed.error.clone().unwrap_or_default());
            }
            if view.image.is_some() { Ok(view) } else { Err(format!("{:?}", view.build)) }
        })
        .await
    }

    /// Waits for the image and a full pool.
    pub async fn ready(&self, repo: &str) -> RepoView {
        let view = self.image(repo).await;
        self.full(repo).await;
        view
    }

    pub async fn full(&self, repo: &str) -> PoolView {
        until(&format!("a full pool of {repo}"), async || {
            let pool = self.pool(repo).await;
            if pool.warm == pool.target && pool.starting + pool.creating == 0 {
                Ok(pool)
            } else {
                Err(format!("{pool:?}"))
            }
        })
        .await
    }

    pub async fn try_session(&self, body: &Value) -> Result<SessionView> {
        self.client.post("/v1/sessions", body).await
    }

    pub async fn session(&self, repo: &str) -> SessionView {
        self.try_session(&json!({"repo": repo, "user": Self::user()})).await.expect("a session")
    }

    pub async fn read(&self, id: &str) -> SessionView {
        self.client.get(&format!("/v1/sessions/{id}")).await.expect("a session")
    }

    /// Where sync stands when it has ended.
    pub async fn sync(&self, id: &str) -> SyncView {
        self.client.get(&format!("/v1/sessions/{id}/sync?wait_seconds=90")).await.expect("sync")
    }

    pub async fn synced(&self, id: &str) -> SyncView {
        let sync = self.sync(id).await;
        assert_eq!(sync.phase, "synced", "{sync:?}");
        sync
    }

    pub async fn try_exec(&self, id: &str, cmd: &str) -> Result<ExecView> {
        self.client.post(&format!("/v1/sessions/{id}/exec"), &json!({"cmd": cmd, "wait": true})).await
    }

    pub async fn exec(&self, id: &str, cmd: &str) -> ExecView {
        self.try_exec(id, cmd).await.unwrap_or_else(|e| panic!("`{cmd}` in {id}: {e:?}"))
    }

    /// A command that must succeed: what it printed.
    pub async fn must(&self, id: &str, cmd: &str) -> String {
        let done = self.exec(id, cmd).await;
        assert_eq!(done.exit.as_ref().and_then(|e| e.code), Some(0), "`{cmd}`: {done:?}");
        done.stdout.unwrap_or_default()
    }

    pub async fn head(&self, id: &str) -> String {
        self.must(id, "git rev-parse HEAD").await.trim().to_owned()
    }

    /// Ends it and waits.
    pub async fn end(&self, id: &str) -> SessionView {
        let ended: SessionView =
            self.client.delete(&format!("/v1/sessions/{id}?wait=true")).await.expect("an end");
        assert_eq!(ended.state, "ended", "{ended:?}");
        ended
    }

    pub async fn discard(&self, id: &str) {
        let ended: SessionView =
            self.client.delete(&format!("/v1/sessions/{id}?wait=true&discard=true")).await.expect("an end");
        assert_eq!(ended.state, "ended", "{ended:?}");
    }

    pub async fn put(&self, id: &str, path: &str, gate_wait_ms: u64, content: &str) -> Answer {
        self.answer("PUT", &format!("/v1/sessions/{id}/files/{path}?gate_wait_ms={gate_wait_ms}"), content)
            .await
    }

    /// The session once it is in one of these states.
    pub async fn reaches(&self, id: &str, states: &[&str]) -> SessionView {
        until(&format!("{id} to be {states:?}"), async || {
            let session = self.read(id).await;
            if states.contains(&session.state.as_str()) { Ok(session) } else { Err(format!("{session:?}")) }
        })
        .await
    }
}
