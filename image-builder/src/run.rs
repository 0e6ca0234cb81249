//! The executor: does the steps of a build one after the other and decides nothing but to stop at the first failure.
//! Cleaning up is one place, passed on every way out, and has deadlines of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use domain::ports::{AgentLink, Captured};
use domain::wire::{ExecExit, ExecRequest, Quiesce, SyncMode, SyncRequest};
use domain::{
    Command, CommitId, Digest, Error, ErrorKind, ImageNote, ImageRecord, Phase, PhaseReport, Purpose,
    RepoSpec, Result, SandboxId,
};
use tokio::time::{Instant, timeout};
use tracing::warn;

use crate::command::{Sink, Tail, follow};
use crate::decide::{Decision, decide};
use crate::fingerprint::fingerprint;
use crate::job::{BuildFailure, BuildJob, BuildLog, BuildOutcome, Built, Workshop};
use crate::live::bring_up;
use crate::note::write_note;
use crate::recipe::CommitRecipe;
use crate::redact::Redactor;
use crate::steps::{Start, Step, StepKind, steps};
use crate::trust;

/// How long what runs in the builder may take to end before the capture.
const QUIESCE_GRACE: Duration = Duration::from_secs(10);

/// Runs a build to its end. Never takes longer than `job.limits.total` and the cleaning up after it.
pub async fn run_build(
    job: &BuildJob,
    shop: &dyn Workshop,
    log: &dyn BuildLog,
) -> Result<BuildOutcome, Box<BuildFailure>> {
    let redactor = Redactor::new(&job.secrets);
    let log = Guarded { log, redactor: redactor.clone() };
    let mut run = Run::new(job, shop, &log);
    let ended = match timeout(job.limits.total, run.go()).await {
        Ok(ended) => ended,
        Err(_) => {
            Err(Fault::of(Error::timeout(format!("the build took longer than {}", words(job.limits.total)))))
        }
    };
    match ended {
        Ok(outcome) => {
            run.leave_phase().await;
            run.clean_up(false).await;
            Ok(outcome.with_phases(run.reports))
        }
        Err(fault) => {
            run.note(&format!("failed: {}", fault.what));
            run.leave_phase().await;
            run.clean_up(true).await;
            let Fault { kind, what, command, exit_code, source } = fault;
            // The last output belongs to the failure only where a command failed.
            let tail = if command.is_some() { run.tail.lines() } else { Vec::new() };
            let (phase, commit, phases) = (run.phase, run.commit, run.reports);
            let (what, source) = (redactor.text(&what), source.map(|e| redactor.error(e)));
            Err(Box::new(BuildFailure {
                phase,
                kind,
                what,
                command: command.map(|c| redactor.text(&c)),
                exit_code,
                tail,
                commit,
                phases,
                source,
            }))
        }
    }
}

/// The log as the builder and its workshop write to it: whole lines, without secrets.
struct Guarded<'a> {
    log: &'a dyn BuildLog,
    redactor: Redactor,
}

impl BuildLog for Guarded<'_> {
    fn write(&self, bytes: &[u8]) {
        let mut stream = self.redactor.stream();
        self.log.write(&stream.push(bytes));
        self.log.write(&stream.end());
    }
}

/// Why a step failed.
struct Fault {
    kind: ErrorKind,
    what: String,
    command: Option<String>,
    exit_code: Option<i32>,
    source: Option<Error>,
}

impl Fault {
    fn of(error: Error) -> Self {
        Self {
            kind: error.kind(),
            what: error.context().to_owned(),
            command: None,
            exit_code: None,
            source: None,
        }
    }

    /// `what` failed because of `source`.
    fn because(what: impl Into<String>, source: Error) -> Self {
        let (kind, what) = (source.kind(), what.into());
        Self { kind, what, command: None, exit_code: None, source: Some(source) }
    }
}

/// How a command ended that did not end well.
enum Bad {
    /// It ran and failed: in a step that is not fatal the build goes on.
    Command(Fault),
    /// The sandbox or its agent is gone: the build can't go on in any step.
    Sandbox(Fault),
}

#[derive(Clone)]
enum Capture {
    None,
    /// Asked for; what became of it is not known.
    Begun,
    Taken(Captured),
}

struct Run<'a> {
    job: &'a BuildJob,
    shop: &'a dyn Workshop,
    log: &'a Guarded<'a>,
    /// With the recipe of the commit, once that is known.
    spec: RepoSpec,
    env: BTreeMap<String, String>,
    phase: Phase,
    /// When the phase began, while it is under way.
    began: Option<Instant>,
    exit_code: Option<i32>,
    reports: Vec<PhaseReport>,
    tail: Tail,
    warnings: Vec<String>,
    commit: Option<CommitId>,
    /// The sandbox that must be released, and the connection to it.
    sandbox: Option<SandboxId>,
    link: Option<Arc<dyn AgentLink>>,
    capture: Capture,
    agent_version: String,
}

impl BuildOutcome {
    fn with_phases(mut self, reports: Vec<PhaseReport>) -> Self {
        match &mut self {
            Self::Unchanged { phases, .. } | Self::Built(Built { phases, .. }) => *phases = reports,
        }
        self
    }
}

impl<'a> Run<'a> {
    fn new(job: &'a BuildJob, shop: &'a dyn Workshop, log: &'a Guarded<'a>) -> Self {
        Self {
            job,
            shop,
            log,
            spec: job.spec.clone(),
            env: trust::image_env(&job.spec),
            phase: Phase::Resolve,
            began: None,
            exit_code: None,
            reports: Vec::new(),
            tail: Tail::default(),
            warnings: Vec::new(),
            commit: None,
            sandbox: None,
            link: None,
            capture: Capture::None,
            agent_version: String::new(),
        }
    }

    async fn go(&mut self) -> Result<BuildOutcome, Fault> {
        let job = self.job;
        self.enter(Phase::Resolve).await;
        let commit = self.resolve().await?;
        self.enter(Phase::Recipe).await;
        self.recipe(&commit).await?;
        self.enter(Phase::Base).await;
        let base = self.base(&commit).await?;

        let fingerprint =
            fingerprint(&self.spec, &base, &job.ca_certificates, &job.secrets, job.agent_protocol);
        let decision = decide(job.now, &self.spec, &commit, &fingerprint, job.current.as_ref(), job.failures);
        self.note(&decision.to_string());
        let parent = match decision {
            Decision::Unchanged => return Ok(BuildOutcome::Unchanged { commit, phases: Vec::new() }),
            Decision::Full { .. } => None,
            Decision::Incremental { from } => Some(from),
        };
        for step in steps(&self.spec, &decision) {
            self.perform(step, &commit, &base).await?;
        }
        let Capture::Taken(captured) = self.capture.clone() else {
            return Err(Fault::of(Error::permanent("the build ended without a capture")));
        };
        Ok(BuildOutcome::Built(Built {
            image: job.image,
            commit,
            captured,
            fingerprint,
            base_digest: base,
            parent,
            decision: decision.to_string(),
            agent_version: self.agent_version.clone(),
            phases: Vec::new(),
            warnings: self.warnings.clone(),
        }))
    }

    async fn perform(&mut self, step: Step, commit: &CommitId, base: &Digest) -> Result<(), Fault> {
        // These were done before it was known which steps would follow.
        if matches!(step.kind, StepKind::Resolve | StepKind::Recipe | StepKind::Base) {
            return Ok(());
        }
        self.enter(step.phase).await;
        match step.kind {
            StepKind::Resolve | StepKind::Recipe | StepKind::Base => Ok(()),
            StepKind::Boot(start) => {
                let (source, purpose) = self.source(start, base)?;
                self.boot(&source, purpose).await
            }
            StepKind::Trust => self.trust().await,
            StepKind::Sync(mode) => self.sync(mode, commit).await,
            StepKind::Run { command, fatal } => self.run(command, fatal).await,
            StepKind::Note => {
                let (link, note) = (self.link()?, ImageNote::new(&self.spec, commit));
                let write = write_note(&*link, &note);
                bounded(self.job.limits.call * 2, "leave a note in the image", write).await
            }
            StepKind::Quiesce => {
                let quiesce = Quiesce { stop: true, grace_ms: millis(QUIESCE_GRACE) };
                let link = self.link()?;
                bounded(self.job.limits.call + QUIESCE_GRACE, "end what runs", link.quiesce(&quiesce)).await
            }
            StepKind::Capture => self.capture().await,
            StepKind::CheckHead => self.check_head(commit).await,
            StepKind::BringUp => self.bring_up(commit).await,
            StepKind::Release => {
                self.release().await;
                Ok(())
            }
        }
    }

    // ------------------------------------------------------------------------------------------- the steps

    async fn resolve(&mut self) -> Result<CommitId, Fault> {
        let spec = &self.job.spec;
        let what = format!("resolve the tip of {}", spec.branch);
        let commit =
            bounded(self.job.limits.resolve, &what, self.shop.resolve(&spec.name, &spec.branch)).await?;
        self.note(&format!("{} of {} is at {commit}", spec.branch, spec.name));
        self.commit = Some(commit.clone());
        Ok(commit)
    }

    /// Makes the operator's recipe the one of this commit.
    async fn recipe(&mut self, commit: &CommitId) -> Result<(), Fault> {
        let read = self.shop.recipe(&self.job.spec, commit);
        let made = bounded(self.job.limits.call, "read the repository's own recipe", read).await?;
        let CommitRecipe { recipe, notes, warnings } = made;
        notes.iter().chain(&warnings).for_each(|line| self.note(line));
        self.warnings.extend(warnings);
        self.spec.image = recipe;
        self.env = trust::image_env(&self.spec);
        Ok(())
    }

    async fn base(&mut self, commit: &CommitId) -> Result<Digest, Fault> {
        let base = self.shop.base(&self.spec, commit, self.log);
        let base = bounded(self.job.limits.base, "make or pull the base", base).await?;
        self.note(&format!("the base is {}, {} bytes", base.digest, base.size));
        Ok(base.digest)
    }

    fn source(&self, start: Start, base: &Digest) -> Result<(Digest, Purpose), Fault> {
        let build = self.job.build;
        match (start, &self.capture) {
            (Start::Base, _) => Ok((base.clone(), Purpose::Build(build))),
            (Start::Current(image), _) => {
                let is_it = |i: &&ImageRecord| i.id == image;
                let digest = self.job.current.as_ref().filter(is_it).map(|i| i.digest.clone());
                let missing = || Fault::of(Error::permanent(format!("no image {image} to build on")));
                Ok((digest.ok_or_else(missing)?, Purpose::Build(build)))
            }
            (Start::Capture, Capture::Taken(captured)) => {
                Ok((captured.digest.clone(), Purpose::Check(build)))
            }
            (Start::Capture, _) => Err(Fault::of(Error::permanent("nothing was captured to check"))),
        }
    }

    async fn boot(&mut self, source: &Digest, purpose: Purpose) -> Result<(), Fault> {
        let sandbox = SandboxId::new();
        // Noted before the call: however the call ends, it is released (F23).
        self.sandbox = Some(sandbox);
        let boot = self.shop.boot(sandbox, source, purpose, &self.spec);
        let link = bounded(self.job.limits.boot, &format!("boot a sandbox from {source}"), boot).await?;
        self.note(&format!("{sandbox} runs, agent {}", link.version()));
        self.agent_version = link.version().to_owned();
        self.link = Some(link);
        Ok(())
    }

    async fn trust(&mut self) -> Result<(), Fault> {
        let job = self.job;
        for (n, pem) in job.ca_certificates.iter().enumerate() {
            trust::check_pem(n, pem).map_err(Fault::of)?;
        }
        let fatal = |bad| match bad {
            Bad::Command(fault) | Bad::Sandbox(fault) => fault,
        };
        let at_root = |run: String| Command { workdir: Some("/".into()), ..Command::new(run) };
        self.command(&at_root(format!("mkdir -p {}", trust::STORE))).await.map_err(fatal)?;
        let link = self.link()?;
        for (n, pem) in job.ca_certificates.iter().enumerate() {
            let (path, data) = (trust::file(n), Bytes::from(pem.clone()));
            let write = link.write_file(&path, data, Some(0o644), millis(job.limits.call));
            // The gate's own wait is bounded by the same; it gets to say so itself.
            bounded(job.limits.call * 2, &format!("write {path}"), write).await?;
        }
        self.command(&at_root(trust::INSTALL.into())).await.map(drop).map_err(fatal)
    }

    async fn sync(&mut self, mode: SyncMode, commit: &CommitId) -> Result<(), Fault> {
        let spec = &self.job.spec;
        let request = SyncRequest {
            mode,
            repo: spec.name.to_string(),
            base: spec.branch.clone(),
            branch: spec.branch.clone(),
            commit: commit.clone(),
            timeout_ms: millis(self.job.limits.sync),
            open_gate: true,
            session: None,
        };
        let link = self.link()?;
        // The agent answers at its limit and a second; the builder waits a little longer for that answer.
        let limit = self.job.limits.sync + Duration::from_secs(10);
        let report = bounded(limit, &format!("bring the tree to {commit}"), link.sync(&request)).await?;
        if report.head != *commit {
            let what = format!("after sync HEAD is {} and not {commit}", report.head);
            return Err(Fault::of(Error::permanent(what)));
        }
        self.note(&format!(
            "HEAD is {commit} (fetch {} ms, checkout {} ms)",
            report.fetch_ms, report.checkout_ms
        ));
        Ok(())
    }

    async fn run(&mut self, command: Command, fatal: bool) -> Result<(), Fault> {
        match self.command(&command).await {
            Ok(_) => Ok(()),
            Err(Bad::Command(fault)) if !fatal => {
                self.note(&format!("{}; not fatal, going on", fault.what));
                let warning = format!("{}: {}", self.phase.as_str(), fault.what);
                self.warnings.push(self.log.redactor.text(&warning));
                Ok(())
            }
            Err(Bad::Command(fault) | Bad::Sandbox(fault)) => Err(fault),
        }
    }

    async fn capture(&mut self) -> Result<(), Fault> {
        let job = self.job;
        let sandbox = self.sandbox.ok_or_else(|| Fault::of(Error::permanent("no sandbox to capture")))?;
        self.capture = Capture::Begun;
        let capture = self.shop.capture(sandbox, job.image, &self.spec, &self.env);
        let captured = bounded(job.limits.capture, &format!("capture {sandbox}"), capture).await?;
        self.note(&format!("captured {}, {} bytes", captured.digest, captured.size));
        self.capture = Capture::Taken(captured);
        Ok(())
    }

    async fn check_head(&mut self, commit: &CommitId) -> Result<(), Fault> {
        let link = self.link()?;
        let info = bounded(self.job.limits.call, "ask the booted image for its HEAD", link.info()).await?;
        match info.head {
            Some(head) if head == *commit => {
                self.note(&format!("the booted image has HEAD {head}"));
                Ok(())
            }
            Some(head) => {
                Err(Fault::of(Error::permanent(format!("the booted image has HEAD {head} and not {commit}"))))
            }
            None => Err(Fault::of(Error::permanent("the booted image has no repository in its workspace"))),
        }
    }

    /// The services of the booted image, as every sandbox of it will have them.
    async fn bring_up(&mut self, commit: &CommitId) -> Result<(), Fault> {
        let (link, note) = (self.link()?, ImageNote::new(&self.spec, commit));
        // It says by itself what was not ready in time; this stands behind that.
        let limit = note.start_limit() + self.job.limits.boot;
        bounded(limit, "bring up the image's services", bring_up(&*link, &note, self.log)).await
    }

    /// Runs a shell command with its output in the log.
    async fn command(&mut self, command: &Command) -> Result<ExecExit, Bad> {
        let link = self.link().map_err(Bad::Sandbox)?;
        let spec = &self.spec;
        let limit = command.timeout.unwrap_or(spec.image.step_timeout);
        let mut env = self.env.clone();
        env.extend(command.env.clone());
        for name in &command.secrets {
            let Some(secret) = self.job.secrets.iter().find(|s| s.name() == name) else {
                let what = format!("`{}` asks for the secret `{name}`, and there is none", command.run);
                return Err(Bad::Sandbox(Fault::of(Error::invalid(what))));
            };
            env.insert(name.clone(), secret.expose().to_owned());
        }
        let request = ExecRequest {
            cwd: Some(command.directory(&spec.workspace)),
            env,
            timeout_ms: Some(millis(limit)),
            user: command.user.clone(),
            ..ExecRequest::new(vec!["sh".into(), "-c".into(), command.run.clone()])
        };
        let command = command.run.as_str();
        self.note(&format!("$ {command}"));
        self.tail.clear();
        self.exit_code = None;
        let short = first_line(command);
        // Past the guard: a value may come in two pieces, which only the sink puts together.
        let sink = Sink::new(self.log.log, &mut self.tail, &self.log.redactor);
        let exit = match follow(&*link, &request, self.job.limits.call, sink).await {
            Ok(exit) => exit,
            Err(e) => {
                let fault =
                    Fault { command: Some(command.into()), ..Fault::because(format!("run `{short}`"), e) };
                return Err(Bad::Sandbox(fault));
            }
        };
        self.exit_code = exit.code;
        let seconds = exit.duration_ms / 1000.0;
        let (kind, what) = match exit {
            ExecExit { timed_out: true, .. } => {
                (ErrorKind::Timeout, format!("`{short}` took longer than {}", words(limit)))
            }
            ExecExit { code: Some(0), .. } => {
                self.note(&format!("done in {seconds:.1} s"));
                return Ok(exit);
            }
            ExecExit { code: Some(code), .. } => {
                (ErrorKind::Permanent, format!("`{short}` exited with {code} after {seconds:.1} s"))
            }
            ExecExit { signal, .. } => {
                let signal = signal.map_or_else(|| "an unknown signal".into(), |s| format!("signal {s}"));
                (ErrorKind::Permanent, format!("`{short}` was ended by {signal} after {seconds:.1} s"))
            }
        };
        let exit_code = exit.code;
        Err(Bad::Command(Fault { kind, what, command: Some(command.into()), exit_code, source: None }))
    }

    // ------------------------------------------------------------------------------------------ the phases

    async fn enter(&mut self, phase: Phase) {
        if self.phase == phase && self.began.is_some() {
            return;
        }
        self.leave_phase().await;
        self.phase = phase;
        self.began = Some(Instant::now());
        self.exit_code = None;
        self.note(&format!("== {}", phase.as_str()));
        self.report(None).await;
    }

    async fn leave_phase(&mut self) {
        let Some(began) = self.began.take() else { return };
        let seconds = began.elapsed().as_secs_f64();
        let report = PhaseReport { phase: self.phase, seconds, exit_code: self.exit_code };
        self.reports.push(report.clone());
        self.report(Some(report)).await;
    }

    async fn report(&self, report: Option<PhaseReport>) {
        let told = timeout(self.job.limits.call, self.shop.phase(&self.job.build, self.phase, report));
        if told.await.is_err() {
            warn!(build = %self.job.build, phase = self.phase.as_str(), "reporting progress took too long");
        }
    }

    // --------------------------------------------------------------------------------------- cleaning up

    async fn release(&mut self) {
        self.link = None;
        let Some(sandbox) = self.sandbox else { return };
        if timeout(self.job.limits.release, self.shop.release(sandbox)).await.is_err() {
            warn!(build = %self.job.build, %sandbox, "releasing took too long; its row's deadline will do it");
        }
        self.sandbox = None;
    }

    /// Leaves nothing behind: first the sandbox, because a capture that one runs from can't be removed.
    async fn clean_up(&mut self, failed: bool) {
        self.release().await;
        let captured = match &self.capture {
            Capture::Taken(captured) if failed => Some(captured),
            Capture::Begun if failed => None,
            _ => return,
        };
        let discard = self.shop.discard(self.job.image, captured);
        if timeout(self.job.limits.release, discard).await.is_err() {
            warn!(build = %self.job.build, image = %self.job.image, "discarding a capture took too long");
        }
    }

    fn link(&self) -> Result<Arc<dyn AgentLink>, Fault> {
        self.link.clone().ok_or_else(|| Fault::of(Error::permanent("no sandbox to work in")))
    }

    /// A line of the builder's own in the log.
    fn note(&self, line: &str) {
        let mut text = String::with_capacity(line.len() + 1);
        // Writing to a string can't fail.
        let _ = writeln!(text, "{line}");
        self.log.write(text.as_bytes());
    }
}

/// A call with its deadline and its words.
async fn bounded<T>(limit: Duration, what: &str, call: impl Future<Output = Result<T>>) -> Result<T, Fault> {
    match timeout(limit, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(e)) => Err(Fault::because(what, e)),
        Err(_) => Err(Fault::of(Error::timeout(format!("{what}: no answer within {}", words(limit))))),
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

fn words(d: Duration) -> String {
    match d.as_secs() {
        0 => format!("{} ms", d.as_millis()),
        s if s >= 120 && s.is_multiple_of(60) => format!("{} minutes", s / 60),
        s => format!("{s} s"),
    }
}

/// A command as a message names it.
fn first_line(command: &str) -> String {
    let line = command.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(120).collect();
    if short.len() < command.trim().len() { format!("{short} …") } else { short }
}
