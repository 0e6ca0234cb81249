//! What runs in a sandbox that was started from an image, beside its user's work: `start` and `services` at each
//! start, `update` after a sync that touched its inputs, `prepare` once per session.
//!
//! All of it belongs to the environment and is started by Hotbed through the agent, so none of it waits at the write
//! gate. Each command has an id that follows from the sandbox, the phase and its place: asked for again after a lost
//! connection or a restart of Hotbed, it is found running or ended, and not started a second time (F18).

use std::collections::BTreeMap;
use std::time::Duration;

use domain::ports::AgentLink;
use domain::wire::{ExecExit, ExecRequest, Frame};
use domain::{
    Command, CommitId, Error, ErrorKind, ExecId, ImageNote, Ready, Result, SandboxId, Service, glob_matches,
};
use futures_util::StreamExt;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep, timeout};

use crate::command::{Sink, Tail, follow};
use crate::job::BuildLog;
use crate::note::write_note;
use crate::redact::Redactor;

/// One call of the agent.
const CALL: Duration = Duration::from_secs(30);
/// A `ready` command that takes longer is asked again.
const READY_COMMAND: Duration = Duration::from_secs(10);
/// Between two looks at a service that is not ready.
const POLL_FIRST: Duration = Duration::from_millis(20);
const POLL_MOST: Duration = Duration::from_millis(500);
/// Longest line of a service's output that is searched.
const MAX_LINE: usize = 64 * 1024;
/// More changed paths than this count as a change of everything.
const MAX_CHANGED: usize = 8 << 20;

/// Runs the `start` commands one after the other, then starts the services in their order, each when the one before
/// is ready. Done when the last one is (F10). Called again for the same incarnation of a sandbox it starts nothing
/// twice.
///
/// Errors: those of the connection, or `Permanent` with the command or service, why, and its last lines.
pub async fn bring_up(link: &dyn AgentLink, note: &ImageNote, log: &dyn BuildLog) -> Result<()> {
    for (n, command) in note.phases.start.iter().enumerate() {
        let id = exec_id(link.sandbox(), "start", n);
        run(link, note, id, command, &BTreeMap::new(), log).await.map_err(|f| f.error("start"))?;
    }
    for (n, service) in note.phases.services.iter().enumerate() {
        raise(link, note, n, service, log).await?;
    }
    Ok(())
}

/// The ids under which the services of a sandbox run whose end is a failure, with their names.
pub fn service_ids(sandbox: SandboxId, note: &ImageNote) -> Vec<(ExecId, String)> {
    let services = note.phases.services.iter().enumerate().filter(|(_, service)| service.required);
    services.map(|(n, service)| (exec_id(sandbox, "service", n), service.name.clone())).collect()
}

/// The `update` commands that are due in a tree that is at `head`: those of whose inputs one differs from the commit
/// that `update` was done for last.
///
/// Errors: those of the connection.
pub async fn due_updates(link: &dyn AgentLink, note: &ImageNote, head: &CommitId) -> Result<Vec<Command>> {
    if note.phases.update.is_empty() || note.commit == *head {
        return Ok(Vec::new());
    }
    // Without quotes, and a rename is a removal and an addition.
    let diff = ["diff", "--name-only", "--no-renames", "-z", note.commit.as_str(), head.as_str(), "--"];
    let argv = std::iter::once("git").chain(diff).map(str::to_owned).collect();
    let request = ExecRequest {
        cwd: Some(note.workspace.clone()),
        env: BTreeMap::from([("GIT_OPTIONAL_LOCKS".into(), "0".into())]),
        timeout_ms: Some(CALL.as_millis() as u64),
        ungated: true,
        ..ExecRequest::new(argv)
    };
    let changed = match collect(link, &request).await? {
        Some(paths) => paths,
        // It can't be told: what depends on anything is due.
        None => return Ok(note.phases.update.clone()),
    };
    let changed: Vec<&str> = changed.split('\0').filter(|p| !p.is_empty()).collect();
    let is_due = |c: &&Command| c.inputs.iter().any(|i| changed.iter().any(|path| glob_matches(i, path)));
    Ok(note.phases.update.iter().filter(is_due).cloned().collect())
}

/// Does what is due after a sync to `head`; the note says so afterwards. Answers what was run.
///
/// Errors: those of the connection, or `Permanent` with the command, why, and its last lines: then the note stays as
/// it was, and the next sync tries again.
pub async fn update_tree(
    link: &dyn AgentLink,
    note: &mut ImageNote,
    head: &CommitId,
    log: &dyn BuildLog,
) -> Result<Vec<Command>> {
    let due = due_updates(link, note, head).await?;
    for (n, command) in due.iter().enumerate() {
        let id = not_failed(link, &format!("update {} {head}", note.commit), n).await?;
        run(link, note, id, command, &BTreeMap::new(), log).await.map_err(|f| f.error("update"))?;
    }
    if note.commit != *head && !note.phases.update.is_empty() {
        let done = ImageNote { commit: head.clone(), ..note.clone() };
        write_note(link, &done).await?;
        *note = done;
    }
    Ok(due)
}

/// Runs the `prepare` commands of a session; `env` is the session's own.
///
/// Errors: those of the connection, or `Permanent` with the command, why, and its last lines.
pub async fn prepare(
    link: &dyn AgentLink,
    note: &ImageNote,
    session: &str,
    env: &BTreeMap<String, String>,
    log: &dyn BuildLog,
) -> Result<()> {
    for (n, command) in note.phases.prepare.iter().enumerate() {
        let id = exec_id(link.sandbox(), &format!("prepare {session}"), n);
        run(link, note, id, command, env, log).await.map_err(|f| f.error("prepare"))?;
    }
    Ok(())
}

/// The same command of the same sandbox has the same id, in whichever process.
fn exec_id(sandbox: SandboxId, phase: &str, n: usize) -> ExecId {
    let hash = Sha256::digest(format!("{sandbox} {phase} {n}").as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    ExecId::from_u128(u128::from_be_bytes(id))
}

/// The id of a command's first try that has not failed: one that failed is begun anew, one that runs is followed.
async fn not_failed(link: &dyn AgentLink, phase: &str, n: usize) -> Result<ExecId> {
    for attempt in 0.. {
        let id = exec_id(link.sandbox(), &format!("{phase} attempt {attempt}"), n);
        match timeout(CALL, link.exec_status(id)).await {
            Ok(Ok(status)) if status.exit.as_ref().is_some_and(|exit| ended(exit).is_some()) => {}
            Ok(Ok(_)) => return Ok(id),
            Ok(Err(e)) if e.kind() == ErrorKind::NotFound => return Ok(id),
            Ok(Err(e)) => return Err(e),
            Err(_) => return Err(Error::timeout("ask for a command: no answer")),
        }
    }
    unreachable!("an agent remembers few commands")
}

/// How a command failed.
enum Failed {
    Link(Error),
    Command(String),
}

impl Failed {
    fn error(self, phase: &str) -> Error {
        match self {
            Self::Link(e) => e,
            Self::Command(what) => Error::permanent(format!("{phase}: {what}")),
        }
    }
}

fn request(note: &ImageNote, id: ExecId, command: &Command, env: &BTreeMap<String, String>) -> ExecRequest {
    let mut all = env.clone();
    all.extend(command.env.clone());
    let limit = command.timeout.unwrap_or(note.step_timeout);
    ExecRequest {
        id,
        cwd: Some(command.directory(&note.workspace)),
        env: all,
        timeout_ms: Some(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        user: command.user.clone(),
        ungated: true,
        ..shell(&command.run)
    }
}

fn shell(line: &str) -> ExecRequest {
    ExecRequest::new(vec!["sh".into(), "-c".into(), line.into()])
}

async fn run(
    link: &dyn AgentLink,
    note: &ImageNote,
    id: ExecId,
    command: &Command,
    env: &BTreeMap<String, String>,
    log: &dyn BuildLog,
) -> std::result::Result<(), Failed> {
    log.write(format!("$ {}\n", command.run).as_bytes());
    let mut tail = Tail::default();
    let request = request(note, id, command, env);
    let sink = Sink::new(log, &mut tail, &Redactor::default());
    let exit = follow(link, &request, CALL, sink).await.map_err(Failed::Link)?;
    match ended(&exit) {
        None => Ok(()),
        Some(how) => Err(Failed::Command(with_tail(format!("`{}` {how}", command.run), &tail))),
    }
}

/// In words, where it did not end well.
fn ended(exit: &ExecExit) -> Option<String> {
    match exit {
        ExecExit { timed_out: true, .. } => Some("took longer than it may".into()),
        ExecExit { code: Some(0), .. } => None,
        ExecExit { code: Some(code), .. } => Some(format!("exited with {code}")),
        ExecExit { signal: Some(signal), .. } => Some(format!("was ended by signal {signal}")),
        ExecExit { .. } => Some("was ended".into()),
    }
}

/// On one line: it becomes the reason of a sandbox's end, and part of a session's record.
fn with_tail(what: String, tail: &Tail) -> String {
    let lines = tail.lines();
    match &lines[lines.len().saturating_sub(5)..] {
        [] => what,
        last => format!("{what}; it printed: {}", last.join(" / ")),
    }
}

// ---------------------------------------------------------------------------------------------- services

/// Starts a service and waits until it is ready, where it is required.
async fn raise(
    link: &dyn AgentLink,
    note: &ImageNote,
    n: usize,
    service: &Service,
    log: &dyn BuildLog,
) -> Result<()> {
    log.write(format!("& {} ({})\n", service.run, service.name).as_bytes());
    let id = exec_id(link.sandbox(), "service", n);
    let request = ExecRequest {
        id,
        cwd: Some(service.directory(&note.workspace)),
        env: service.env.clone(),
        user: service.user.clone(),
        ungated: true,
        ..shell(&service.run)
    };
    let late = || Error::timeout(format!("start service `{}`: no answer", service.name));
    timeout(CALL, link.exec(&request)).await.map_err(|_| late())??;
    if !service.required {
        return Ok(());
    }
    let mut output = Output::looking_for(service.ready.log.clone());
    let begun = Instant::now();
    let mut pause = POLL_FIRST;
    loop {
        output.read(link, id).await?;
        let status = timeout(CALL, link.exec_status(id)).await.map_err(|_| late())??;
        if let Some(exit) = status.exit {
            output.read(link, id).await?;
            let how = ended(&exit).unwrap_or_else(|| "ended by itself, although a service stays".into());
            return Err(Error::permanent(with_tail(
                format!("service `{}` {how}", service.name),
                &output.tail,
            )));
        }
        let missing = missing(link, note, service, &output).await?;
        let Some(missing) = missing else {
            log.write(format!("{} is ready\n", service.name).as_bytes());
            return Ok(());
        };
        if begun.elapsed() >= service.ready.timeout {
            let what = format!(
                "service `{}` was not ready within {} s: {missing}",
                service.name,
                service.ready.timeout.as_secs()
            );
            return Err(Error::permanent(with_tail(what, &output.tail)));
        }
        sleep(pause).await;
        pause = (pause * 2).min(POLL_MOST);
    }
}

/// What is not there yet for a service to be ready.
async fn missing(
    link: &dyn AgentLink,
    note: &ImageNote,
    service: &Service,
    output: &Output,
) -> Result<Option<String>> {
    let Ready { command, port, log, timeout: _ } = &service.ready;
    if let Some(text) = log
        && !output.found
    {
        return Ok(Some(format!("no line of its output holds `{text}`")));
    }
    if let Some(port) = port
        && !link.port_open(*port).await?
    {
        return Ok(Some(format!("nothing takes connections on port {port}")));
    }
    if let Some(command) = command {
        let request = ExecRequest {
            cwd: Some(service.directory(&note.workspace)),
            env: service.env.clone(),
            user: service.user.clone(),
            timeout_ms: Some(READY_COMMAND.as_millis() as u64),
            ungated: true,
            ..shell(command)
        };
        let mut tail = Tail::default();
        let sink = Sink::new(&Nowhere, &mut tail, &Redactor::default());
        let exit = follow(link, &request, CALL, sink).await?;
        if let Some(how) = ended(&exit) {
            return Ok(Some(format!("`{command}` {how}")));
        }
    }
    Ok(None)
}

struct Nowhere;

impl BuildLog for Nowhere {
    fn write(&self, _: &[u8]) {}
}

/// What a service prints, searched while it is read.
struct Output {
    next: u64,
    line: Vec<u8>,
    wanted: Option<String>,
    found: bool,
    tail: Tail,
}

impl Output {
    fn looking_for(wanted: Option<String>) -> Self {
        Self { next: 0, line: Vec::new(), wanted, found: false, tail: Tail::default() }
    }

    async fn read(&mut self, link: &dyn AgentLink, id: ExecId) -> Result<()> {
        let read = async {
            let mut frames = link.output(id, self.next, false).await?;
            while let Some(frame) = frames.next().await {
                if let Frame::Output { offset, data, .. } = frame? {
                    self.next = offset + data.len() as u64;
                    self.take(&data);
                }
            }
            Ok(())
        };
        timeout(CALL, read).await.map_err(|_| Error::timeout("read a service's output: no answer"))?
    }

    fn take(&mut self, data: &[u8]) {
        self.tail.push(data);
        for byte in data {
            if *byte == b'\n' || self.line.len() >= MAX_LINE {
                self.look();
                self.line.clear();
            }
            if *byte != b'\n' {
                self.line.push(*byte);
            }
        }
        // A prompt has no end of line.
        self.look();
    }

    fn look(&mut self) {
        if let Some(wanted) = &self.wanted {
            self.found |= String::from_utf8_lossy(&self.line).contains(wanted);
        }
    }
}

/// All that a short command prints; `None` where it fails or prints too much.
async fn collect(link: &dyn AgentLink, request: &ExecRequest) -> Result<Option<String>> {
    let collect = async {
        let mut frames = link.exec_follow(request).await?;
        let mut out = Vec::new();
        while let Some(frame) = frames.next().await {
            match frame? {
                Frame::Output { data, stream: domain::wire::StreamName::Stdout, .. } => {
                    out.extend_from_slice(&data)
                }
                Frame::Exit(exit) if exit.code == Some(0) && out.len() <= MAX_CHANGED => {
                    return Ok(Some(String::from_utf8_lossy(&out).into_owned()));
                }
                Frame::Exit(_) => return Ok(None),
                _ => {}
            }
            if out.len() > MAX_CHANGED {
                return Ok(None);
            }
        }
        Err(Error::unavailable("compare commits: the stream ended before the command"))
    };
    match timeout(CALL, collect).await {
        Ok(done) => done,
        Err(_) => Err(Error::timeout("compare commits: no answer")),
    }
}
