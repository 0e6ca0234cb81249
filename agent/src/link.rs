//! The connection home: dials, says hello, serves HTTP/2 on what it dialled, and dials again when that ends.
//!
//! It never gives up: Hotbed may restart, and commands go on meanwhile. It is also how the relay gets its
//! connections.

use std::convert::Infallible;
use std::future::Future;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use domain::wire::{Boot, ConnectionKind, Hello, MAX_HELLO, PROTOCOL, Welcome};
use domain::{Error, Result};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::api::{self, App};
use crate::boot::{self, VERSION};

/// Longest time for dialling and being welcomed.
const DIAL_LIMIT: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// When Hotbed has said that dialling is pointless.
const REFUSED_PAUSE: Duration = Duration::from_secs(30);
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// A connection to Hotbed.
pub enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// Dials and is welcomed. `Gone` when Hotbed says that it will never welcome this agent.
pub async fn dial(boot: &Boot, kind: ConnectionKind) -> Result<Socket> {
    let what = || format!("dial {}", boot.dial);
    let attempt = async {
        let mut socket = if let Some(path) = boot.dial.strip_prefix("unix:") {
            Socket::Unix(
                UnixStream::connect(path).await.map_err(|e| Error::unavailable(what()).caused_by(e))?,
            )
        } else if let Some(address) = boot.dial.strip_prefix("tcp:") {
            let tcp =
                TcpStream::connect(address).await.map_err(|e| Error::unavailable(what()).caused_by(e))?;
            let _ = tcp.set_nodelay(true);
            Socket::Tcp(tcp)
        } else {
            let expected = "expected `unix:/path` or `tcp:host:port`";
            return Err(Error::invalid(format!("`{}` is no address to dial: {expected}", boot.dial)));
        };
        greet(&mut socket, boot, kind).await?;
        Ok(socket)
    };
    match tokio::time::timeout(DIAL_LIMIT, attempt).await {
        Ok(done) => done,
        Err(_) => Err(Error::timeout(what())),
    }
}

async fn greet(socket: &mut Socket, boot: &Boot, kind: ConnectionKind) -> Result<()> {
    let hello = Hello {
        protocol: PROTOCOL,
        kind,
        sandbox: boot.sandbox,
        token: boot::current_token(boot),
        agent_version: VERSION.to_owned(),
    };
    let failed = |e: io::Error| Error::unavailable(format!("say hello at {}", boot.dial)).caused_by(e);
    let mut line = serde_json::to_vec(&hello).map_err(|e| failed(e.into()))?;
    line.push(b'\n');
    socket.write_all(&line).await.map_err(failed)?;
    // Byte by byte: what follows the line belongs to HTTP/2.
    let mut answer = Vec::with_capacity(256);
    loop {
        match socket.read_u8().await.map_err(failed)? {
            b'\n' => break,
            _ if answer.len() >= MAX_HELLO => {
                return Err(Error::unavailable(format!("the welcome from {} is too long", boot.dial)));
            }
            b => answer.push(b),
        }
    }
    let welcome: Welcome = serde_json::from_slice(&answer).map_err(|e| failed(e.into()))?;
    if welcome.ok {
        return Ok(());
    }
    let why = welcome.error.unwrap_or_else(|| "no reason given".into());
    let message = format!("Hotbed refuses this agent: {why}");
    Err(if welcome.fatal { Error::gone(message) } else { Error::unavailable(message) })
}

/// Serves Hotbed until the end of the process.
pub async fn serve_forever(app: Rc<App>) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let shown = boot::current_token(&app.boot);
        let wait = match dial(&app.boot, ConnectionKind::Control).await {
            Ok(socket) => {
                said.clear();
                let since = Instant::now();
                serve(Rc::clone(&app), socket).await;
                if since.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
                next(&mut pause)
            }
            Err(e) => {
                let text = e.chain();
                if said != text {
                    eprintln!("hotbed-agent: {text}"); // once, not once a second
                    said = text;
                }
                if e.kind() == domain::ErrorKind::Gone {
                    refused(&app.boot, &shown).await;
                    continue;
                }
                next(&mut pause)
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Waits a long time, or until there is another token to show.
async fn refused(boot: &Boot, shown: &str) {
    let begun = Instant::now();
    while begun.elapsed() < REFUSED_PAUSE && boot::current_token(boot) == shown {
        tokio::time::sleep(LONGEST_PAUSE).await;
    }
}

/// Between half of the pause and all of it, so that many sandboxes do not dial in step. The next is longer.
fn next(pause: &mut Duration) -> Duration {
    let random = std::hash::RandomState::new().build_hasher().finish();
    let wait = *pause / 2 + pause.mul_f64((random % 1024) as f64 / 2048.0);
    *pause = (*pause * 2).min(LONGEST_PAUSE);
    wait
}

async fn serve(app: Rc<App>, socket: Socket) {
    let service = hyper::service::service_fn(move |request| {
        let app = Rc::clone(&app);
        async move { Ok::<_, Infallible>(api::answer(app, request).await) }
    });
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        // A stream that nobody reads on may hold its own window, never that of the connection.
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(64 * 1024 * 1024)
        .max_send_buf_size(256 * 1024)
        .max_concurrent_streams(4096)
        .serve_connection(TokioIo::new(socket), service);
    if let Err(e) = connection.await {
        eprintln!("hotbed-agent: the connection to Hotbed ended: {e}");
    }
}

/// Runs hyper's tasks on this one thread.
#[derive(Clone, Copy)]
struct Local;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_flush(cx),
            Self::Tcp(s) => Pin::new(s).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
