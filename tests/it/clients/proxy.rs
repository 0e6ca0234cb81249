//! What lies between a client and Hotbed on a bad day: streams break again and again, an answer is lost, and something
//! that is asked for is busy the first time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What an answer that is followed may bring before its connection breaks, in bytes: a line or an event fits into it.
const STREAMED: usize = 1500;

/// How often each trouble has come over the clients.
#[derive(Debug, Default)]
pub struct Troubles {
    pub broken_streams: AtomicUsize,
    pub lost_answers: AtomicUsize,
    pub busy: AtomicUsize,
}

/// What becomes of a request.
enum Fate {
    Passes,
    /// Its connection ends after so many bytes of the answer.
    Breaks(usize),
    /// Hotbed never hears of it.
    Busy,
}

impl Troubles {
    /// Decides by a request's first line; nothing for what is no request's beginning.
    fn decide(&self, bytes: &[u8]) -> Option<Fate> {
        let line =
            String::from_utf8_lossy(bytes.split(|b| *b == b'\r').next().unwrap_or_default()).into_owned();
        let (method, rest) = line.split_once(' ')?;
        let path = rest.strip_suffix(" HTTP/1.1")?.split('?').next()?;
        let counted = |count: &AtomicUsize| count.fetch_add(1, Ordering::Relaxed);
        Some(match method {
            "GET" if path.ends_with("/events") || path.ends_with("/output") => {
                counted(&self.broken_streams);
                Fate::Breaks(STREAMED)
            }
            // The first of each kind alone: what is asked again goes well.
            "POST" if path.ends_with("/exec") && counted(&self.lost_answers) == 0 => Fate::Breaks(0),
            "POST" if path.ends_with("/snapshots") && counted(&self.busy) == 0 => Fate::Busy,
            _ => Fate::Passes,
        })
    }
}

/// Serves on a port of its own, in front of `hotbed`.
pub async fn start(hotbed: SocketAddr) -> (SocketAddr, Arc<Troubles>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    let troubles = Arc::new(Troubles::default());
    let all = troubles.clone();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let troubles = all.clone();
            // A connection that breaks is what this is for.
            tokio::spawn(async move { between(client, hotbed, &troubles).await.unwrap_or_default() });
        }
    });
    (address, troubles)
}

async fn between(mut client: TcpStream, hotbed: SocketAddr, troubles: &Troubles) -> std::io::Result<()> {
    let mut server = TcpStream::connect(hotbed).await?;
    let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut left = usize::MAX;
    loop {
        tokio::select! {
            read = client.read(&mut up) => {
                let asked = match read? {
                    0 => return Ok(()),
                    n => &up[..n],
                };
                match troubles.decide(asked) {
                    Some(Fate::Passes) => left = usize::MAX,
                    Some(Fate::Breaks(after)) => left = after,
                    Some(Fate::Busy) => return client.write_all(busy().as_bytes()).await,
                    None => {}
                }
                server.write_all(asked).await?;
            }
            read = server.read(&mut down) => {
                let n = read?.min(left);
                client.write_all(&down[..n]).await?;
                left -= n;
                if n == 0 || left == 0 {
                    return Ok(());
                }
            }
        }
    }
}

fn busy() -> String {
    let body = r#"{"type":"urn:hotbed:problem:exhausted","title":"Busy","status":503,"detail":"busy"}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
