//! Where agents dial in: the listening socket, the handshake, and the two kinds of connection behind it.
//!
//! Who may connect is decided by an [`Admission`] (the fleet, which knows the tokens); what a connection is then
//! used for is the business of the fleet (control) and of the relay handler (git and the session's own requests).

mod http2;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::AgentLink;
use domain::wire::{ConnectionKind, Hello, MAX_HELLO, MIN_PROTOCOL, PROTOCOL, Welcome};
use domain::{Error, Result, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub use http2::Http2Link;

/// An agent says who it is within this time, or the connection is dropped.
const HELLO_DEADLINE: Duration = Duration::from_secs(5);

/// Why an agent is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub why: String,
    /// Dialling again is pointless.
    pub fatal: bool,
}

/// Decides who may connect, and takes what connected.
#[async_trait]
pub trait Admission: Send + Sync + 'static {
    /// Checks the fencing token of a sandbox (F42). Memory only.
    fn admit(&self, sandbox: SandboxId, token: &str) -> Result<(), Refusal>;
    /// A control connection stands.
    async fn connected(&self, link: Arc<dyn AgentLink>);
    /// A relay connection stands: serve it until it ends.
    async fn relay(&self, sandbox: SandboxId, stream: UnixStream);
}

/// Binds the socket that sandboxes see as `/run/hotbed/hotbed.sock`, in place of one that an earlier run left.
pub fn bind(path: &Path) -> Result<UnixListener> {
    // Sandboxes may run as anyone; what lets an agent in is its token.
    crate::endpoint::bind_unix(path, 0o666)
}

/// Accepts agents until `stop`.
pub async fn serve(listener: UnixListener, admission: Arc<dyn Admission>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let admission = admission.clone();
                let stop = stop.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = greet(stream, admission) => {}
                    }
                });
            }
            Err(e) => {
                // Out of file descriptors, most likely: give others time to close some.
                warn!(error = %e, "accepting an agent failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet(mut stream: UnixStream, admission: Arc<dyn Admission>) {
    let hello = match tokio::time::timeout(HELLO_DEADLINE, read_hello(&mut stream)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(e)) => return debug!(error = %e.chain(), "a connection that is no agent's"),
        Err(_) => return debug!("a connection that said nothing"),
    };
    let refusal = if hello.protocol < MIN_PROTOCOL {
        Some(Refusal {
            why: format!(
                "agent {} speaks protocol {}, this Hotbed needs {MIN_PROTOCOL} to {PROTOCOL}: rebuild the image or \
                 end the session",
                hello.agent_version, hello.protocol
            ),
            fatal: true,
        })
    } else {
        admission.admit(hello.sandbox, &hello.token).err()
    };
    let welcome = Welcome {
        ok: refusal.is_none(),
        error: refusal.as_ref().map(|r| r.why.clone()),
        fatal: refusal.as_ref().is_some_and(|r| r.fatal),
    };
    let mut line = serde_json::to_vec(&welcome).unwrap_or_default();
    line.push(b'\n');
    if let Some(refusal) = refusal {
        info!(sandbox = %hello.sandbox, why = refusal.why, "agent refused");
        let _ = stream.write_all(&line).await;
        return;
    }
    if stream.write_all(&line).await.is_err() {
        return;
    }
    match hello.kind {
        ConnectionKind::Relay => admission.relay(hello.sandbox, stream).await,
        ConnectionKind::Control => match Http2Link::handshake(hello, stream).await {
            Ok(link) => admission.connected(Arc::new(link)).await,
            Err(e) => debug!(error = %e.chain(), "agent handshake failed"),
        },
    }
}

/// The agent sends nothing behind its hello until it is welcomed, so the line ends what can be read.
async fn read_hello(stream: &mut UnixStream) -> Result<Hello> {
    let mut line = Vec::with_capacity(512);
    let mut chunk = [0u8; 512];
    loop {
        let n = stream
            .read(&mut chunk)
            .await
            .map_err(|e| Error::unavailable("read an agent's hello").caused_by(e))?;
        if n == 0 {
            return Err(Error::unavailable("read an agent's hello: it hung up"));
        }
        line.extend_from_slice(&chunk[..n]);
        if let Some(end) = line.iter().position(|b| *b == b'\n') {
            if end + 1 != line.len() {
                return Err(Error::invalid("an agent spoke before it was welcomed"));
            }
            return serde_json::from_slice(&line)
                .map_err(|e| Error::invalid("read an agent's hello").caused_by(e));
        }
        if line.len() > MAX_HELLO {
            return Err(Error::invalid(format!("an agent's hello is longer than {MAX_HELLO} bytes")));
        }
    }
}
