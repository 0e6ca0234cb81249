//! What a build does, as a list: made from the recipe and the decision, done by [`crate::run_build`], shown to
//! people as it is.

use std::fmt;

use domain::wire::SyncMode;
use domain::{Command, ImageId, Phase, RepoSpec};

use crate::decide::Decision;

/// One step and the phase whose time and outcome it counts towards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub phase: Phase,
    pub kind: StepKind,
}

/// What a sandbox is booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Base,
    Current(ImageId),
    /// What this build has captured.
    Capture,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepKind {
    Resolve,
    /// Read what the repository says of its own image.
    Recipe,
    Base,
    Boot(Start),
    Trust,
    Sync(SyncMode),
    /// Run a command. Where it is not fatal, its failure is recorded and the build goes on.
    Run {
        command: Command,
        fatal: bool,
    },
    /// Leave in the image what runs in the sandboxes that are started from it.
    Note,
    Quiesce,
    Capture,
    /// HEAD of the booted capture is the commit (F25).
    CheckHead,
    /// Run `start`, start the services, wait until they are ready (F10).
    BringUp,
    Release,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.phase.as_str())?;
        match &self.kind {
            StepKind::Resolve => f.write_str("resolve the branch"),
            StepKind::Recipe => f.write_str("read the repository's own recipe"),
            StepKind::Base => f.write_str("make or pull the base"),
            StepKind::Boot(Start::Base) => f.write_str("start a sandbox from the base"),
            StepKind::Boot(Start::Current(image)) => write!(f, "start a sandbox from {image}"),
            StepKind::Boot(Start::Capture) => f.write_str("start a sandbox from the capture"),
            StepKind::Trust => f.write_str("put the certificates into the trust store"),
            StepKind::Sync(SyncMode::Clone) => f.write_str("clone"),
            StepKind::Sync(_) => f.write_str("sync the tree"),
            StepKind::Run { command, fatal } => {
                write!(f, "run `{}`", command.run)?;
                if let Some(user) = &command.user {
                    write!(f, " as {user}")?;
                }
                f.write_str(if *fatal { "" } else { ", not fatal" })
            }
            StepKind::Note => f.write_str("note in the image what runs in its sandboxes"),
            StepKind::Quiesce => f.write_str("end what runs and flush"),
            StepKind::Capture => f.write_str("capture"),
            StepKind::CheckHead => f.write_str("compare HEAD"),
            StepKind::BringUp => f.write_str("run `start`, wait for the services"),
            StepKind::Release => f.write_str("release the sandbox"),
        }
    }
}

/// The steps of a build, in order. The first three are needed for the decision itself and are there in any case.
pub fn steps(spec: &RepoSpec, decision: &Decision) -> Vec<Step> {
    let recipe = &spec.image;
    let mut steps = Vec::new();
    let mut add = |phase, kind| steps.push(Step { phase, kind });
    let must = |command: &Command| StepKind::Run { command: command.clone(), fatal: true };
    let may = |command: &Command| StepKind::Run { command: command.clone(), fatal: command.required };
    let phases = &recipe.phases;

    add(Phase::Resolve, StepKind::Resolve);
    add(Phase::Recipe, StepKind::Recipe);
    add(Phase::Base, StepKind::Base);
    match decision {
        Decision::Unchanged => return steps,
        Decision::Full { .. } => {
            add(Phase::Boot, StepKind::Boot(Start::Base));
            if !recipe.ca_certificates.is_empty() {
                add(Phase::Trust, StepKind::Trust);
            }
            add(Phase::Clone, StepKind::Sync(SyncMode::Clone));
            phases.setup.iter().map(must).for_each(|kind| add(Phase::Setup, kind));
        }
        Decision::Incremental { from } => {
            // The certificates are in it: had they changed, this would be a full build.
            add(Phase::Boot, StepKind::Boot(Start::Current(*from)));
            add(Phase::Clone, StepKind::Sync(SyncMode::Reset));
        }
    }
    // What `setup` has just done in the same words is not done again.
    let done = |command: &&Command| {
        matches!(decision, Decision::Full { .. }) && phases.setup.iter().any(|c| c.same_deed(command))
    };
    phases.update.iter().filter(|c| !done(c)).map(must).for_each(|kind| add(Phase::Update, kind));
    phases.warm.iter().map(may).for_each(|kind| add(Phase::Warm, kind));
    add(Phase::Capture, StepKind::Note);
    add(Phase::Capture, StepKind::Quiesce);
    add(Phase::Capture, StepKind::Capture);
    // Before the check, so that a build never needs two sandboxes at once.
    add(Phase::Capture, StepKind::Release);
    add(Phase::Check, StepKind::Boot(Start::Capture));
    add(Phase::Check, StepKind::CheckHead);
    if !(phases.start.is_empty() && phases.services.is_empty()) {
        add(Phase::Check, StepKind::BringUp);
    }
    phases.verify.iter().map(must).for_each(|kind| add(Phase::Check, kind));
    add(Phase::Check, StepKind::Release);
    steps
}
