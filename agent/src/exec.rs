//! Commands of the session: started once per id, followed from any offset, kept for a while after their end.
//!
//! It promises that a command never waits for a reader, that one command's output never holds up another's, and
//! that every command ends in an [`ExecExit`], even when a process that it left behind keeps the pipes open.

pub mod log;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use domain::wire::{ExecExit, ExecRequest, ExecStatus, Frame, MAX_FRAME, StreamName, TermSize};
use domain::{Error, ExecId, Result};
use rustix::fs::{Mode, OFlags};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};

use crate::gate::Gate;
use crate::pipes::{empty_input, into_child, out_of_child, read_chunk, watched};
use crate::spawn::{Child, Command, Ended, Processes, group_lives, signal_group};
use crate::users::User;
use log::Log;

/// Silence after the end of a command, with its pipes still open, that counts as the end of its output.
const DRAIN_SILENCE: Duration = Duration::from_millis(50);
/// Longest wait for that silence.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);
/// From SIGTERM to SIGKILL when a command exceeds its time.
const KILL_AFTER: Duration = Duration::from_secs(2);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Ended commands that are remembered, and for how long, and how many bytes of their output.
const REMEMBERED: usize = 256;
const REMEMBERED_FOR: Duration = Duration::from_secs(15 * 60);
const REMEMBERED_BYTES: u64 = 512 * 1024 * 1024;

/// One command.
pub struct Exec {
    id: ExecId,
    pid: i32,
    started: Instant,
    log: RefCell<Log>,
    /// Set once, when the command has ended and its output was drained.
    exit: RefCell<Option<ExecExit>>,
    /// The process itself has been collected; its process group may not be signalled any more.
    reaped: Cell<bool>,
    finished: Cell<Option<Instant>>,
    last_output: Cell<Instant>,
    open_outputs: Cell<u32>,
    changed: Notify,
    /// Where input goes, taken by one request at a time so that their bytes don't mix.
    input: tokio::sync::Mutex<Option<Input>>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

enum Input {
    Pipe(AsyncFd<OwnedFd>),
    Terminal(Rc<AsyncFd<OwnedFd>>),
}

impl Exec {
    pub fn status(&self) -> ExecStatus {
        let log = self.log.borrow();
        let exit = self.exit.borrow().clone();
        ExecStatus {
            id: self.id,
            running: exit.is_none(),
            output_bytes: log.total(),
            dropped_bytes: log.dropped(),
            exit,
        }
    }

    pub fn is_running(&self) -> bool {
        self.exit.borrow().is_none()
    }

    /// Sends a signal to the process group, by its name without `SIG`.
    pub fn signal(&self, name: &str) -> Result<()> {
        let number = match name.strip_prefix("SIG").unwrap_or(name) {
            "TERM" => libc::SIGTERM,
            "INT" => libc::SIGINT,
            "KILL" => libc::SIGKILL,
            "HUP" => libc::SIGHUP,
            "QUIT" => libc::SIGQUIT,
            "USR1" => libc::SIGUSR1,
            "USR2" => libc::SIGUSR2,
            "STOP" => libc::SIGSTOP,
            "CONT" => libc::SIGCONT,
            "WINCH" => libc::SIGWINCH,
            other => {
                return Err(Error::invalid(format!(
                    "signal `{other}` is not known: expected TERM, INT, KILL, HUP, QUIT, USR1, USR2, STOP, CONT or WINCH"
                )));
            }
        };
        if self.reaped.get() {
            return Err(Error::gone(format!("command {} has ended", self.id)));
        }
        signal_group(self.pid, number);
        Ok(())
    }

    /// Signals the process group if the command has not ended.
    pub fn signal_number(&self, number: i32) {
        if !self.reaped.get() {
            signal_group(self.pid, number);
        }
    }

    pub fn resize(&self, size: TermSize) -> Result<()> {
        let Some(terminal) = &self.terminal else {
            return Err(Error::invalid(format!("command {} has no terminal", self.id)));
        };
        tcsetwinsize(terminal.get_ref(), winsize(size))
            .map_err(|e| Error::gone(format!("resize the terminal of {}", self.id)).caused_by(e))
    }

    /// Writes to stdin or the terminal, waiting as long as the command takes to read. `Gone` when it reads no
    /// more.
    pub async fn write_input(&self, data: &[u8]) -> Result<()> {
        let guard = self.input.lock().await;
        let Some(input) = &*guard else {
            return Err(self.no_input());
        };
        let fd = match input {
            Input::Pipe(fd) => fd,
            Input::Terminal(fd) => fd,
        };
        let mut left = data;
        while !left.is_empty() {
            let ended = self.changed.notified();
            if self.reaped.get() {
                return Err(self.no_input());
            }
            let ready = tokio::select! {
                ready = fd.writable() => ready,
                () = ended => continue,
            };
            let mut ready = ready.map_err(|e| Error::permanent("wait for stdin").caused_by(e))?;
            match ready.try_io(|fd| rustix::io::write(fd, left).map_err(io::Error::from)) {
                Ok(Ok(n)) => left = &left[n..],
                Ok(Err(e)) => return Err(self.no_input().caused_by(e)),
                Err(_would_block) => {}
            }
        }
        Ok(())
    }

    /// Ends the input: closes the pipe, or types end-of-file at the terminal.
    pub async fn end_input(&self) -> Result<()> {
        let mut guard = self.input.lock().await;
        match guard.take() {
            Some(Input::Pipe(_)) => Ok(()), // dropped
            Some(Input::Terminal(fd)) => {
                *guard = Some(Input::Terminal(fd));
                drop(guard);
                self.write_input(&[4]).await
            }
            None => Err(self.no_input()),
        }
    }

    fn no_input(&self) -> Error {
        Error::gone(format!("command {} takes no input: it has ended, or its stdin is closed", self.id))
    }

    fn append(&self, stream: StreamName, data: &[u8]) {
        self.log.borrow_mut().append(stream, data);
        self.last_output.set(Instant::now());
        self.changed.notify_waiters();
    }

    /// Sends the output from `from` on as encoded frames; with `follow` until the command ends. Returns early
    /// when the receiver is gone.
    pub async fn send_output(&self, from: u64, follow: bool, to: &mpsc::Sender<Bytes>) {
        let mut at = from;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable(); // before looking, so that nothing is missed
            let mut out = BytesMut::new();
            let mut last = false;
            loop {
                if out.len() >= MAX_FRAME {
                    break;
                }
                let piece = self.log.borrow().read(at);
                if let Some((stream, offset, data)) = piece {
                    at = offset + data.len() as u64;
                    Frame::Output { stream, offset, data }.encode(&mut out);
                    continue;
                }
                if let Some(exit) = &*self.exit.borrow() {
                    Frame::Exit(exit.clone()).encode(&mut out);
                    last = true;
                } else {
                    last = !follow;
                }
                break;
            }
            if !out.is_empty() {
                if to.send(out.freeze()).await.is_err() || last {
                    return;
                }
                continue;
            }
            if last {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = to.closed() => return,
                () = tokio::time::sleep(HEARTBEAT) => {
                    let mut beat = BytesMut::new();
                    Frame::Heartbeat.encode(&mut beat);
                    if to.send(beat.freeze()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

fn winsize(size: TermSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 }
}

/// All commands of this sandbox.
#[derive(Default)]
pub struct Execs {
    all: RefCell<HashMap<ExecId, Rc<Exec>>>,
}

impl Execs {
    pub fn get(&self, id: ExecId) -> Result<Rc<Exec>> {
        let found = self.all.borrow().get(&id).cloned();
        found.ok_or_else(|| Error::not_found(format!("there is no command {id} here, or it ended long ago")))
    }

    /// All, the oldest first.
    pub fn list(&self) -> Vec<Rc<Exec>> {
        let mut all: Vec<_> = self.all.borrow().values().cloned().collect();
        all.sort_by_key(|e| (e.started, e.id));
        all
    }

    pub fn running(&self) -> u32 {
        self.all.borrow().values().filter(|e| e.is_running()).count() as u32
    }

    /// Starts a command, or finds it when its id is known already.
    pub fn start(
        &self,
        request: &ExecRequest,
        env: &BTreeMap<String, String>,
        cwd: &Path,
        user: Option<&User>,
        processes: &Processes,
        gate: &Gate,
    ) -> Result<Rc<Exec>> {
        if let Some(known) = self.all.borrow().get(&request.id) {
            return Ok(Rc::clone(known));
        }
        self.forget_old();
        let streams = Streams::open(request)?;
        let child = processes.spawn(&Command {
            argv: &request.argv,
            env,
            cwd,
            stdin: streams.child_in.as_fd(),
            stdout: streams.child_out.as_fd(),
            stderr: streams.child_err.as_ref().unwrap_or(&streams.child_out).as_fd(),
            terminal: request.tty.is_some(),
            gate: (!gate.is_open() && !request.ungated).then_some(gate),
            user,
        })?;
        let Child { pid, started, ended } = child;
        let exec = Rc::new(Exec {
            id: request.id,
            pid,
            started,
            log: RefCell::new(Log::default()),
            exit: RefCell::new(None),
            reaped: Cell::new(false),
            finished: Cell::new(None),
            last_output: Cell::new(started),
            open_outputs: Cell::new(streams.outputs.len() as u32),
            changed: Notify::new(),
            input: tokio::sync::Mutex::new(streams.input),
            terminal: streams.terminal,
        });
        self.all.borrow_mut().insert(request.id, Rc::clone(&exec));
        for (name, fd) in streams.outputs {
            tokio::task::spawn_local(read_output(Rc::clone(&exec), name, fd));
        }
        let limit = request.timeout_ms.map(Duration::from_millis);
        tokio::task::spawn_local(attend(Rc::clone(&exec), ended, limit));
        Ok(exec)
    }

    /// Forgets what ended too long ago, and the oldest of what is too much.
    pub fn forget_old(&self) {
        let mut all = self.all.borrow_mut();
        let mut ended: Vec<_> =
            all.values().filter_map(|e| Some((e.finished.get()?, e.id, e.log.borrow().kept()))).collect();
        ended.sort_unstable_by(|a, b| b.cmp(a));
        let mut bytes = 0;
        for (n, (at, id, kept)) in ended.into_iter().enumerate() {
            bytes += kept;
            if (n >= REMEMBERED || at.elapsed() > REMEMBERED_FOR || bytes > REMEMBERED_BYTES)
                && let Some(exec) = all.remove(&id)
            {
                exec.log.borrow_mut().forget(); // what it left running may go on writing
                exec.changed.notify_waiters();
            }
        }
    }
}

/// Both ends of everything that a command reads and writes.
struct Streams {
    child_in: OwnedFd,
    child_out: OwnedFd,
    child_err: Option<OwnedFd>,
    outputs: Vec<(StreamName, Rc<AsyncFd<OwnedFd>>)>,
    input: Option<Input>,
    terminal: Option<Rc<AsyncFd<OwnedFd>>>,
}

impl Streams {
    fn open(request: &ExecRequest) -> Result<Self> {
        let opened = match request.tty {
            Some(size) => Self::terminal(size),
            None => Self::pipes(request.stdin),
        };
        opened.map_err(|e| {
            let what = if request.tty.is_some() { "open a terminal" } else { "open pipes" };
            Error::exhausted(format!("{what} for command {}", request.id)).caused_by(e)
        })
    }

    fn terminal(size: TermSize) -> io::Result<Self> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        tcsetwinsize(&master, winsize(size))?;
        let name = ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
        let master = Rc::new(watched(master, Interest::READABLE | Interest::WRITABLE)?);
        Ok(Self {
            child_out: slave.try_clone()?,
            child_in: slave,
            child_err: None,
            outputs: vec![(StreamName::Stdout, Rc::clone(&master))],
            input: Some(Input::Terminal(Rc::clone(&master))),
            terminal: Some(master),
        })
    }

    fn pipes(stdin: bool) -> io::Result<Self> {
        let mut outputs = Vec::with_capacity(2);
        let mut output = |name| -> io::Result<OwnedFd> {
            let (ours, childs) = out_of_child()?;
            outputs.push((name, Rc::new(ours)));
            Ok(childs)
        };
        let child_out = output(StreamName::Stdout)?;
        let child_err = Some(output(StreamName::Stderr)?);
        let (child_in, input) = if stdin {
            let (ours, childs) = into_child()?;
            (childs, Some(Input::Pipe(ours)))
        } else {
            (empty_input()?, None)
        };
        Ok(Self { child_in, child_out, child_err, outputs, input, terminal: None })
    }
}

async fn read_output(exec: Rc<Exec>, name: StreamName, fd: Rc<AsyncFd<OwnedFd>>) {
    while read_chunk(&fd, |data| exec.append(name, data)).await {}
    exec.open_outputs.set(exec.open_outputs.get() - 1);
    exec.changed.notify_waiters();
}

/// Sees a command through to its end.
async fn attend(exec: Rc<Exec>, mut ended: oneshot::Receiver<Ended>, limit: Option<Duration>) {
    let mut kill_at = None;
    let end = match limit {
        None => (&mut ended).await,
        Some(limit) => match tokio::time::timeout(limit, &mut ended).await {
            Ok(end) => end,
            Err(_) => {
                kill_at = Some(Instant::now() + KILL_AFTER);
                signal_group(exec.pid, libc::SIGTERM);
                signal_group(exec.pid, libc::SIGCONT); // a stopped process would not hear of it
                match tokio::time::timeout(KILL_AFTER, &mut ended).await {
                    Ok(end) => end,
                    Err(_) => {
                        signal_group(exec.pid, libc::SIGKILL);
                        ended.await
                    }
                }
            }
        },
    };
    exec.reaped.set(true);
    exec.changed.notify_waiters();
    if let Some(kill_at) = kill_at {
        // The rest of its group has the same time. The number is not reused while a member lives.
        while group_lives(exec.pid) {
            if Instant::now() >= kill_at {
                signal_group(exec.pid, libc::SIGKILL);
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let Ok(end) = end else { return }; // the agent itself is ending
    let drained_by = Instant::now() + DRAIN_LIMIT;
    while exec.open_outputs.get() > 0 {
        let changed = exec.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let silent_at = exec.last_output.get().max(end.at) + DRAIN_SILENCE;
        let until = silent_at.min(drained_by);
        if Instant::now() >= until {
            break;
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep_until(until.into()) => {}
        }
    }
    *exec.exit.borrow_mut() = Some(ExecExit {
        code: end.code,
        signal: end.signal,
        timed_out: kill_at.is_some(),
        duration_ms: end.at.duration_since(exec.started).as_secs_f64() * 1e3,
        peak_rss_bytes: end.peak_rss_bytes,
    });
    exec.finished.set(Some(Instant::now()));
    // Not while a request writes: it sees the end by itself and lets go.
    if let Ok(mut input) = exec.input.try_lock() {
        input.take();
    }
    exec.changed.notify_waiters();
    exec.log.borrow_mut().settle();
}
