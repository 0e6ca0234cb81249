//! Moves bytes between an HTTP exchange and a git child: the request's body to its stdin, its stdout to the
//! answer's body, both at once, in pieces, with deadlines. A client that vanishes ends the child; a child that
//! ends early does not keep the client from sending the rest, because git clients read no answer before.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use domain::Result;
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::process::{Git, Running, tail};
use crate::relay::{Body, RelayBody};

const PIECE: usize = 64 * 1024;
/// Pieces that lie between the child and a client that reads slowly.
const QUEUE: usize = 4;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines {
    /// Of the whole exchange.
    pub(crate) whole: Duration,
    /// Without a byte in either direction that one waits for.
    pub(crate) idle: Duration,
}

/// How a child ended.
#[derive(Debug)]
pub(crate) enum Ended {
    Exited {
        status: ExitStatus,
        stderr: String,
    },
    /// It was ended from here: why.
    Stopped(&'static str),
}

impl Ended {
    pub(crate) fn succeeded(&self) -> bool {
        matches!(self, Self::Exited { status, .. } if status.success())
    }
}

/// Where the bytes of a request come from.
pub(crate) trait Source: Send + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = io::Result<Option<Bytes>>> + Send;
}

/// A request body as it is.
pub(crate) struct Plain<B>(pub(crate) B);

impl<B: Body> Source for Plain<B> {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.0.frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(e)) => return Err(io::Error::other(e)),
            }
        }
    }
}

/// What the child says, piece by piece. Dropping it ends the child.
pub(crate) struct Said {
    pieces: mpsc::Receiver<Bytes>,
    ended: oneshot::Receiver<Ended>,
}

impl Said {
    /// The next piece; `None` when the child has ended.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        self.pieces.recv().await
    }

    /// How it ended; to be asked after `next` has said `None`.
    pub(crate) async fn ended(self) -> Ended {
        self.ended.await.unwrap_or(Ended::Stopped("it was given up"))
    }

    /// The rest as an answer's body, with `first` before it.
    pub(crate) fn into_body(self, first: Option<Bytes>) -> RelayBody {
        Pieces { first, pieces: self.pieces, ended: self.ended }.boxed()
    }
}

struct Pieces {
    first: Option<Bytes>,
    pieces: mpsc::Receiver<Bytes>,
    ended: oneshot::Receiver<Ended>,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        Poll::Ready(match std::task::ready!(self.pieces.poll_recv(cx)) {
            Some(piece) => Some(Ok(Frame::data(piece))),
            // How it ended is told before the last sender goes. A child that was stopped leaves a stream that is
            // cut instead of ended, so that the client takes nothing half for whole.
            None => match self.ended.try_recv() {
                Ok(Ended::Stopped(why)) => Some(Err(io::Error::other(why))),
                _ => None,
            },
        })
    }
}

/// Starts `git` and feeds it `head` and then `source`. `finish` runs when the child has ended and before the
/// client sees the end of the answer; it always runs.
pub(crate) fn run<S, F, Fut>(
    git: Git,
    head: Bytes,
    source: S,
    deadlines: Deadlines,
    sent: std::sync::Arc<AtomicU64>,
    finish: F,
) -> Result<Said>
where
    S: Source,
    F: FnOnce(bool) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let mut child = git.piped_stdin().spawn()?;
    let (tell, pieces) = mpsc::channel(QUEUE);
    let (tell_end, ended) = oneshot::channel();
    tokio::spawn(async move {
        let how = tokio::select! {
            () = tell.closed() => Err("the client went away"),
            how = timeout(deadlines.whole, exchange(&mut child, head, source, &tell, deadlines.idle, &sent)) => {
                how.unwrap_or(Err("it took too long"))
            }
        };
        let how = match how {
            Ok((status, stderr)) => Ended::Exited { status, stderr },
            Err(why) => {
                child.stop().await;
                Ended::Stopped(why)
            }
        };
        finish(how.succeeded()).await;
        let _ = tell_end.send(how);
        drop(tell);
    });
    Ok(Said { pieces, ended })
}

async fn exchange<S: Source>(
    child: &mut Running,
    head: Bytes,
    source: S,
    tell: &mpsc::Sender<Bytes>,
    idle: Duration,
    sent: &AtomicU64,
) -> Result<(ExitStatus, String), &'static str> {
    let (stdin, stdout, mut stderr) = (child.stdin(), child.stdout(), child.stderr());
    let read_stderr = async { Ok(tail(&mut stderr).await) };
    let ((), (), stderr) =
        tokio::try_join!(feed(stdin, head, source, idle), listen(stdout, tell, idle, sent), read_stderr)?;
    let status = child.wait().await.map_err(|_| "it can't be waited for")?;
    Ok((status, stderr))
}

async fn feed<S: Source>(
    stdin: Option<ChildStdin>,
    head: Bytes,
    mut source: S,
    idle: Duration,
) -> Result<(), &'static str> {
    let mut stdin = stdin;
    let mut piece = Some(head);
    while let Some(bytes) = piece {
        if let Some(open) = stdin.as_mut() {
            match timeout(idle, open.write_all(&bytes)).await {
                Ok(Ok(())) => {}
                // The child wants no more; the client is heard out all the same.
                Ok(Err(_)) => stdin = None,
                Err(_) => return Err("git took no more data"),
            }
        }
        piece = match timeout(idle, source.next()).await {
            Ok(Ok(next)) => next,
            Ok(Err(_)) => return Err("the request broke off"),
            Err(_) => return Err("the client sent nothing for too long"),
        };
    }
    Ok(())
}

async fn listen(
    stdout: Option<ChildStdout>,
    tell: &mpsc::Sender<Bytes>,
    idle: Duration,
    sent: &AtomicU64,
) -> Result<(), &'static str> {
    let Some(mut stdout) = stdout else { return Ok(()) };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE);
        match stdout.read_buf(&mut buffer).await {
            Ok(0) => return Ok(()),
            Ok(n) => {
                sent.fetch_add(n as u64, Ordering::Relaxed);
                match timeout(idle, tell.send(buffer.split().freeze())).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err("the client went away"),
                    Err(_) => return Err("the client read nothing for too long"),
                }
            }
            Err(_) => return Err("git can't be read"),
        }
    }
}
