//! What comes out of a sandbox: git, for the sandbox's own repo, with the authority of the session that holds it.

use std::sync::Arc;

use async_trait::async_trait;
use dashmap::DashMap;
use domain::SandboxId;
use git::{Access, Caller, Gateway};
use http::StatusCode;
use tokio::net::UnixStream;
use tracing::debug;

use crate::fleet::{Entry, RelayHandler};
use crate::sessions::Sessions;

pub struct Relay {
    gateway: Gateway,
    sessions: Arc<Sessions>,
    /// Connections open now, by sandbox.
    open: Arc<DashMap<SandboxId, u32>>,
}

impl Relay {
    pub fn new(gateway: Gateway, sessions: Arc<Sessions>) -> Self {
        Self { gateway, sessions, open: Arc::default() }
    }
}

/// Connections that one sandbox may hold open at once.
const MAX_OPEN: u32 = 32;

#[async_trait]
impl RelayHandler for Relay {
    async fn serve(&self, sandbox: Arc<Entry>, stream: UnixStream) {
        {
            let mut open = self.open.entry(sandbox.id).or_insert(0);
            if *open >= MAX_OPEN {
                return debug!(sandbox = %sandbox.id, "too many relay connections");
            }
            *open += 1;
        }
        let served = git::serve_relay(stream, |request| {
            let (gateway, sessions, sandbox) = (self.gateway.clone(), self.sessions.clone(), sandbox.clone());
            async move {
                if !Gateway::is_git_path(request.uri().path()) {
                    return git::text(StatusCode::NOT_FOUND, "Hotbed's relay serves git only");
                }
                // Asked anew for each request: what a sandbox may do changes when it is claimed and when it ends.
                let access = match sessions.of_sandbox(sandbox.id).map(|s| s.record()) {
                    Some(record) if !record.state.is_end() => {
                        Access::Push { session: record.id, branch: record.branch.clone() }
                    }
                    _ => Access::ReadOnly,
                };
                let caller = Caller { sandbox: sandbox.id, repo: sandbox.repo.clone(), access };
                gateway.handle(&caller, request).await
            }
        });
        if let Err(e) = served.await {
            debug!(sandbox = %sandbox.id, error = %e.chain(), "a relay connection ended");
        }
        if let Some(mut open) = self.open.get_mut(&sandbox.id) {
            *open -= 1;
        }
        self.open.remove_if(&sandbox.id, |_, n| *n == 0);
    }
}
