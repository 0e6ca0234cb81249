//! Stands before the real daemon and gets in the way of chosen requests.

use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// What happens to a request.
#[derive(Debug, Clone)]
pub enum Rule {
    Pass,
    /// It is accepted and never answered; the daemon does not hear of it.
    Hang,
    /// The daemon does it; the answer is lost.
    LoseAnswer,
    /// Another answer than the daemon's, which does not hear of it.
    Answer(u16, &'static str),
    /// First this request of ours (method and path), then the connection breaks.
    DoAndBreak(String),
}

/// Listens at `at` until dropped; `rule` is given the first line of each request.
pub struct Proxy(tokio::task::JoinHandle<()>);

impl Proxy {
    pub fn new(at: &Path, daemon: String, rule: impl Fn(&str) -> Rule + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(at).unwrap();
        let rule = Arc::new(rule);
        Self(tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, daemon.clone(), rule.clone()));
            }
        }))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(mut client: UnixStream, daemon: String, rule: Arc<impl Fn(&str) -> Rule>) {
    // bollard opens a connection per request.
    let mut head = vec![0; 64 * 1024];
    let n = client.read(&mut head).await.unwrap_or(0);
    head.truncate(n);
    let text = String::from_utf8_lossy(&head);
    let line = text.lines().next().unwrap_or_default().to_owned();
    let mut pass = async |lose: bool| {
        let mut up = UnixStream::connect(&daemon).await?;
        up.write_all(&head).await?;
        if lose {
            // The answer has begun, so the deed is done.
            up.read_exact(&mut [0]).await?;
            return Ok(());
        }
        tokio::io::copy_bidirectional(&mut client, &mut up).await.map(drop)
    };
    let _: std::io::Result<()> = match rule(&line) {
        Rule::Pass => pass(false).await,
        Rule::LoseAnswer => pass(true).await,
        Rule::Hang => std::future::pending().await,
        Rule::Answer(status, message) => {
            let body = format!("{{\"message\":\"{message}\"}}");
            let answer = format!(
                "HTTP/1.1 {status} x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            async {
                client.write_all(answer.as_bytes()).await?;
                client.shutdown().await?;
                // As a daemon does: who still sends is heard out, or the answer would be lost with the connection.
                tokio::io::copy(&mut client, &mut tokio::io::sink()).await.map(drop)
            }
            .await
        }
        Rule::DoAndBreak(request) => {
            let mut up = UnixStream::connect(&daemon).await.unwrap();
            let request =
                format!("{request} HTTP/1.1\r\nhost: d\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            up.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            up.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 2"), "{answer}");
            Ok(())
        }
    };
}
