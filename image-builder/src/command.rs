//! One command in the sandbox: started, followed into the log to its end, resumed by offset where the stream breaks.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{AgentLink, FrameStream};
use domain::wire::{ExecExit, ExecRequest, Frame, StreamName};
use domain::{Error, Result};
use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use crate::job::BuildLog;
use crate::redact::{RedactedStream, Redactor};

/// How many lines a failure shows.
const TAIL_LINES: usize = 20;
/// Bytes kept for them.
const TAIL_BYTES: usize = 16 * 1024;
/// The agent ends a command at its own limit; this much later the builder does.
const GRACE: Duration = Duration::from_secs(10);
/// How often a broken stream is taken up again without a byte having come in between.
const RESUMES: u32 = 5;

/// The last bytes that a command printed.
#[derive(Debug, Default)]
pub(crate) struct Tail(VecDeque<u8>);

impl Tail {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.0.extend(&data[data.len().saturating_sub(TAIL_BYTES)..]);
        let excess = self.0.len().saturating_sub(TAIL_BYTES);
        self.0.drain(..excess);
    }

    /// The last lines, without control characters that would move a reader's cursor.
    pub(crate) fn lines(&self) -> Vec<String> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let clean = |line: &str| -> String {
            // A progress bar rewrites its line: only what it shows last is of use.
            let line = line.trim_end().rsplit('\r').next().unwrap_or_default();
            line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
        };
        let lines: Vec<_> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].to_vec()
    }
}

/// Where the output of a command goes: into the log and the tail, without secrets.
pub(crate) struct Sink<'a> {
    log: &'a dyn BuildLog,
    tail: &'a mut Tail,
    /// Each stream by itself: a value does not go over from one to the other.
    streams: [RedactedStream; 2],
}

impl<'a> Sink<'a> {
    pub(crate) fn new(log: &'a dyn BuildLog, tail: &'a mut Tail, redactor: &Redactor) -> Self {
        Self { log, tail, streams: [redactor.stream(), redactor.stream()] }
    }

    fn take(&mut self, stream: StreamName, data: &[u8]) {
        let shown = self.streams[stream as usize].push(data);
        self.show(&shown);
    }

    fn note(&mut self, line: &str) {
        self.show(line.as_bytes());
    }

    fn end(&mut self) {
        let rest: Vec<_> = self.streams.iter_mut().map(RedactedStream::end).collect();
        rest.iter().for_each(|shown| self.show(shown));
    }

    fn show(&mut self, shown: &[u8]) {
        if !shown.is_empty() {
            self.log.write(shown);
            self.tail.push(shown);
        }
    }
}

/// Runs `request` to its end, `request.timeout_ms` being its limit. `Timeout` where it did not end even after it was
/// killed; a command that was ended at its limit is an answer, not an error.
pub(crate) async fn follow(
    link: &dyn AgentLink,
    request: &ExecRequest,
    call: Duration,
    mut sink: Sink<'_>,
) -> Result<ExecExit> {
    let limit = request.timeout_ms.map_or(call, Duration::from_millis);
    let late = || Error::timeout(format!("follow a command: no end {} s after its limit", GRACE.as_secs()));
    let followed = timeout(limit + GRACE, read(link, request, call, &mut sink)).await;
    sink.end();
    match followed {
        Ok(exit) => exit,
        Err(_) => {
            // It goes with the sandbox in any case; this is for the case that the sandbox is slow to go.
            let _ = timeout(call, link.signal(request.id, "KILL")).await;
            Err(late())
        }
    }
}

async fn read(
    link: &dyn AgentLink,
    request: &ExecRequest,
    call: Duration,
    sink: &mut Sink<'_>,
) -> Result<ExecExit> {
    let started = || Error::timeout("start a command: no answer");
    let mut frames: FrameStream = timeout(call, link.exec_follow(request)).await.map_err(|_| started())??;
    let (mut next, mut tries) = (0, 0);
    loop {
        let broken = match frames.next().await {
            Some(Ok(Frame::Exit(exit))) => return Ok(exit),
            Some(Ok(Frame::Heartbeat)) => continue,
            Some(Ok(Frame::Output { offset, data, stream })) => {
                tries = 0;
                if offset > next {
                    sink.note(&format!("[{} bytes of output lost]\n", offset - next));
                }
                sink.take(stream, &fresh(&data, offset, next));
                next = next.max(offset + data.len() as u64);
                continue;
            }
            Some(Err(e)) => e,
            None => Error::unavailable("follow a command: the stream ended before the command"),
        };
        tries += 1;
        if link.is_closed() || tries > RESUMES || !broken.kind().is_retryable() {
            return Err(broken);
        }
        sleep(Duration::from_millis(100) * tries).await;
        match timeout(call, link.output(request.id, next, true)).await {
            Ok(Ok(resumed)) => frames = resumed,
            Ok(Err(e)) if e.kind().is_retryable() => {
                frames = futures_util::stream::once(async { Err(e) }).boxed()
            }
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(Error::timeout("follow a command: no answer").caused_by(broken)),
        }
    }
}

/// What of `data` was not seen before: a resumed stream may begin a little earlier than it was asked to.
fn fresh(data: &Bytes, offset: u64, next: u64) -> Bytes {
    let seen = next.saturating_sub(offset).min(data.len() as u64);
    data.slice(seen as usize..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_short_and_plain() {
        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 100_000]);
        for n in 0..100 {
            tail.push(format!("10%\r50%\rline {n}\x1b[0m\r\n\n").as_bytes());
        }
        let lines = tail.lines();
        assert_eq!(lines.len(), TAIL_LINES);
        assert_eq!(lines[19], "line 99[0m");
        assert!(tail.0.len() <= TAIL_BYTES);
    }
}
