//! What is left to do at a capture and at a session's end, from the records as they stand.
//!
//! Asked again after any step, or after a crash between any two, the plan is the rest of itself: that is how an end
//! is resumed and how ending twice is ending once.

use std::fmt;
use std::time::Duration;

use domain::{
    Error, Result, SandboxRecord, SandboxState, SessionRecord, SessionState, SnapshotId, SnapshotKind,
    SnapshotRecord, SnapshotState,
};
use jiff::{SignedDuration, Timestamp};

/// One step. They are done in the order of their list, and a step that fails ends the list: ask again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Flush the filesystem; with `stop` end what runs for the session first. A failure is noted and not fatal: a
    /// capture of a filesystem in motion is better than none.
    Quiesce { stop: bool },
    /// Write a new row in state `Capturing`, before the deed.
    WriteRow { kind: SnapshotKind },
    /// Capture the sandbox into the row that was just written, or into this one that a crash left behind.
    Capture { row: Option<SnapshotId>, pause: bool },
    /// Write the answer into the row: `Ready` with its digest, or `Failed`; at an end the sandbox is then `Kept`, on
    /// demand the session goes on as it was.
    Record,
    /// Leave everything as it is until then.
    Wait { until: Timestamp, why: String },
    /// Stop and remove the sandbox.
    Release,
    /// Write the session's end.
    Finish,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quiesce { stop: true } => f.write_str("end what runs and flush"),
            Self::Quiesce { stop: false } => f.write_str("flush"),
            Self::WriteRow { kind } => write!(f, "write the row of the {} snapshot", kind.as_str()),
            Self::Capture { row: None, .. } => f.write_str("capture"),
            Self::Capture { row: Some(row), .. } => write!(f, "capture {row} again"),
            Self::Record => f.write_str("record the capture"),
            Self::Wait { until, why } => write!(f, "wait until {until}: {why}"),
            Self::Release => f.write_str("release the sandbox"),
            Self::Finish => f.write_str("finish"),
        }
    }
}

/// Steps, and why these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Steps {
    pub steps: Vec<Step>,
    pub why: &'static str,
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.why)?;
        for (i, step) in self.steps.iter().enumerate() {
            write!(f, "{} {step}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// What is known about a session that ends.
#[derive(Debug, Clone, Copy)]
pub struct EndFacts<'a> {
    pub session: &'a SessionRecord,
    /// The row of the sandbox it holds, if there is one.
    pub sandbox: Option<&'a SandboxRecord>,
    /// The session's snapshots, in any order.
    pub snapshots: &'a [SnapshotRecord],
    /// Captures at this end that failed so far, and when the last of them did.
    pub attempts: u32,
    pub last_attempt: Option<Timestamp>,
}

/// How long to wait after so many captures failed: 5, 10, 20 … seconds, at most 15 minutes. There is no last
/// attempt, because giving up would destroy what the user made; the rate is what is bounded (F39, F41).
pub fn retry_after(attempts: u32) -> Duration {
    match attempts {
        0 => Duration::ZERO,
        n => Duration::from_secs(5 << (n - 1).min(8)).min(Duration::from_secs(15 * 60)),
    }
}

/// What is left to do until a session has ended. Empty where it has.
pub fn end_plan(now: Timestamp, facts: &EndFacts<'_>) -> Steps {
    let steps = |why, steps: &[Step]| Steps { steps: steps.to_vec(), why };
    let session = facts.session;
    if session.state == SessionState::Ended {
        return steps("it has ended", &[]);
    }
    let Some(sandbox) = facts.sandbox.filter(|s| s.state != SandboxState::Gone) else {
        return steps("it has no sandbox", &[Step::Finish]);
    };
    if sandbox.session.is_some_and(|holder| holder != session.id) {
        // Never touch what another holds (F43).
        return steps("its sandbox is another's", &[Step::Finish]);
    }
    if sandbox.state == SandboxState::Stopping {
        return steps("its sandbox is being removed", &[Step::Release, Step::Finish]);
    }
    if session.started_at.is_none() {
        return steps("nobody has been in its sandbox", &[Step::Release, Step::Finish]);
    }

    let end = facts.snapshots.iter().filter(|s| s.session == session.id && s.kind == SnapshotKind::End);
    let end: Vec<_> = end.collect();
    if end.iter().any(|s| s.state == SnapshotState::Ready && s.digest.is_some()) {
        return steps("it is captured", &[Step::Release, Step::Finish]);
    }
    if let Some(until) = wait_until(now, facts.attempts, facts.last_attempt) {
        let wait = Step::Wait { until, why: format!("{} captures failed", facts.attempts) };
        return steps("its capture failed", &[wait]);
    }
    let quiesce = Step::Quiesce { stop: true };
    let rest = [Step::Record, Step::Release, Step::Finish];
    // What runs has been ended; nothing is left to freeze.
    let pause = false;
    match end.iter().find(|s| s.state == SnapshotState::Capturing) {
        Some(row) => {
            let again = Step::Capture { row: Some(row.id), pause };
            steps("its capture was interrupted", &[&[quiesce, again], &rest[..]].concat())
        }
        None => {
            let first =
                [quiesce, Step::WriteRow { kind: SnapshotKind::End }, Step::Capture { row: None, pause }];
            steps("it is to be captured", &[&first[..], &rest[..]].concat())
        }
    }
}

fn wait_until(now: Timestamp, attempts: u32, last: Option<Timestamp>) -> Option<Timestamp> {
    let wait = SignedDuration::try_from(retry_after(attempts)).ok()?;
    // A failure that lies further ahead than the wait is long was noted by a clock that was wrong.
    let last = last.filter(|last| last.duration_since(now) <= wait)?;
    last.checked_add(wait).ok().filter(|until| now < *until)
}

/// What to do for a snapshot that was asked for: the session goes on. `Conflict` where the session has nothing that
/// could be captured now, or is being captured already.
pub fn capture_plan(
    session: &SessionRecord,
    sandbox: Option<&SandboxRecord>,
    snapshots: &[SnapshotRecord],
) -> Result<Steps> {
    let refuse = |why: &str| Err(Error::conflict(format!("snapshot {}: {why}", session.id)));
    match session.state {
        SessionState::Active | SessionState::Paused => {}
        SessionState::Waiting => return refuse("it has no sandbox yet"),
        SessionState::Ending => return refuse("it is ending, and is captured as it does"),
        SessionState::Ended => return refuse("it has ended"),
    }
    let holds =
        |s: &&SandboxRecord| s.state == SandboxState::Claimed && s.session.is_none_or(|id| id == session.id);
    if sandbox.filter(holds).is_none() {
        return refuse("its sandbox is not its own to capture any more");
    }
    let running = |s: &&SnapshotRecord| s.session == session.id && s.state == SnapshotState::Capturing;
    if let Some(row) = snapshots.iter().find(running) {
        return refuse(&format!("{} is being taken", row.id));
    }
    // A paused session is frozen already: nothing in it could answer a request to flush.
    let paused = session.state == SessionState::Paused;
    let mut steps = Vec::new();
    if !paused {
        steps.push(Step::Quiesce { stop: false });
    }
    steps.push(Step::WriteRow { kind: SnapshotKind::Demand });
    steps.push(Step::Capture { row: None, pause: !paused });
    steps.push(Step::Record);
    Ok(Steps { steps, why: "asked for" })
}
