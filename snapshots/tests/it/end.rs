//! The end of a session and the snapshot on demand.

use domain::{
    ErrorKind, SandboxEvent, SandboxRecord, SandboxState, SessionEvent, SessionId, SessionRecord,
    SessionState, SnapshotId, SnapshotKind, SnapshotRecord, SnapshotState,
};
use jiff::Timestamp;
use proptest::prelude::*;
use snapshots::{EndFacts, Step, capture_plan, end_plan, retry_after};

use crate::make::{at, digest, sandbox, session, snapshot};

/// An end that is under way, and what an engine would do for it.
#[derive(Debug)]
struct World {
    now: i64,
    session: SessionRecord,
    sandbox: Option<SandboxRecord>,
    snapshots: Vec<SnapshotRecord>,
    attempts: u32,
    last_attempt: Option<Timestamp>,
}

impl World {
    fn new() -> Self {
        let (session, sandbox) = (session(1, SessionState::Ending), Some(sandbox(1, SandboxState::Claimed)));
        Self { now: 0, session, sandbox, snapshots: vec![], attempts: 0, last_attempt: None }
    }

    fn facts(&self) -> EndFacts<'_> {
        EndFacts {
            session: &self.session,
            sandbox: self.sandbox.as_ref(),
            snapshots: &self.snapshots,
            attempts: self.attempts,
            last_attempt: self.last_attempt,
        }
    }

    fn plan(&self) -> Vec<Step> {
        end_plan(at(self.now), &self.facts()).steps
    }

    fn is_captured(&self) -> bool {
        self.snapshots.iter().any(|s| s.state == SnapshotState::Ready)
    }

    fn event(&mut self, event: SandboxEvent) {
        let sandbox = self.sandbox.as_mut().expect("a sandbox");
        sandbox.state = sandbox.state.after(event).expect("the event belongs to the state");
    }

    /// Does the plan's steps; a capture that is `failing` fails, and after `crash_after` steps nothing more is done.
    fn carry_out(&mut self, failing: bool, crash_after: usize) {
        let mut answer = None;
        for step in self.plan().into_iter().take(crash_after) {
            match step {
                Step::Quiesce { stop } => assert!(stop),
                Step::WriteRow { kind } => {
                    let n = self.snapshots.len() as u64 + 1;
                    let mut row = snapshot(n, 1, SnapshotState::Capturing, 1, self.now);
                    row.kind = kind;
                    self.snapshots.push(row);
                }
                Step::Capture { row, .. } => {
                    let row = row.unwrap_or(self.snapshots.last().unwrap().id);
                    answer = Some((row, !failing));
                }
                Step::Record => {
                    let (row, taken) = answer.take().expect("captured before it is recorded");
                    let row = self.snapshots.iter_mut().find(|s| s.id == row).unwrap();
                    assert_eq!(row.state, SnapshotState::Capturing, "the row was written before the deed");
                    if !taken {
                        row.state = SnapshotState::Failed;
                        self.event(SandboxEvent::CaptureFailed);
                        self.attempts += 1;
                        self.last_attempt = Some(at(self.now));
                        return;
                    }
                    (row.state, row.digest) = (SnapshotState::Ready, Some(digest(100)));
                }
                Step::Wait { until, .. } => {
                    assert!(until > at(self.now));
                    self.now = until.as_second() - at(0).as_second();
                }
                Step::Release => {
                    assert!(self.is_captured(), "released before it was captured");
                    if self.sandbox.as_ref().unwrap().state != SandboxState::Stopping {
                        self.event(SandboxEvent::StopDecided);
                    }
                    self.event(SandboxEvent::Vanished);
                }
                Step::Finish => {
                    self.session.state =
                        self.session.state.after(SessionEvent::Released).expect("it was ending");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// F39, F11, F36: captures fail and the process crashes between any two steps, as often as it may: the sandbox is
    /// never released before a capture is ready, what failed is kept, and in the end the session has ended with one
    /// ready snapshot.
    #[test]
    fn nothing_is_released_before_it_is_captured(rounds in prop::collection::vec((any::<bool>(), 0usize..8), 0..40)) {
        let mut world = World::new();
        for (failing, crash_after) in rounds {
            world.carry_out(failing, crash_after);
            let gone = world.sandbox.as_ref().unwrap().state == SandboxState::Gone;
            prop_assert!(!gone || world.is_captured());
            if world.attempts > 0 && !world.is_captured() {
                prop_assert_eq!(world.sandbox.as_ref().unwrap().state, SandboxState::Kept);
            }
        }
        for _ in 0..3 {
            world.carry_out(false, usize::MAX);
        }
        prop_assert_eq!(world.session.state, SessionState::Ended);
        prop_assert_eq!(world.snapshots.iter().filter(|s| s.state == SnapshotState::Ready).count(), 1);
        prop_assert_eq!(world.snapshots.iter().filter(|s| s.state == SnapshotState::Capturing).count(), 0);
        prop_assert_eq!(world.plan(), []);
    }
}

#[test]
fn an_end_says_what_it_does() {
    let world = World::new();
    assert_eq!(
        end_plan(at(0), &world.facts()).to_string(),
        "it is to be captured: end what runs and flush, write the row of the end snapshot, capture, record the capture, release the sandbox, finish"
    );
}

/// Where nothing can be a user's, nothing is captured; what is another's is left alone (F43).
#[test]
fn an_end_without_anything_to_capture() {
    let mut world = World::new();
    world.session.started_at = None;
    assert_eq!(world.plan(), [Step::Release, Step::Finish]);

    let mut world = World::new();
    world.sandbox.as_mut().unwrap().session = Some(SessionId::from_u128(2));
    assert_eq!(world.plan(), [Step::Finish]);

    for lost in [None, Some(sandbox(1, SandboxState::Gone))] {
        let world = World { sandbox: lost, ..World::new() };
        assert_eq!(world.plan(), [Step::Finish]);
    }
    let world = World { session: session(1, SessionState::Ended), ..World::new() };
    assert_eq!(world.plan(), []);
}

/// A snapshot that was asked for earlier does not stand for the end: work may have been done since. Nor does
/// another session's.
#[test]
fn only_the_end_snapshot_counts() {
    let mut demand = snapshot(1, 1, SnapshotState::Ready, 1, 0);
    demand.kind = SnapshotKind::Demand;
    let foreign = snapshot(2, 2, SnapshotState::Ready, 1, 0);
    let world = World { snapshots: vec![demand, foreign], ..World::new() };
    assert!(world.plan().contains(&Step::WriteRow { kind: SnapshotKind::End }));
}

/// F41: a disk that stays full is asked again at a bounded rate, and nothing is lost.
#[test]
fn failed_captures_are_retried_ever_more_slowly() {
    let seconds: Vec<_> = (0..12).map(|n| retry_after(n).as_secs()).collect();
    assert_eq!(seconds, [0, 5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
    assert_eq!(retry_after(u32::MAX).as_secs(), 900);

    let mut world = World::new();
    world.carry_out(true, 100);
    world.now += 4;
    assert!(matches!(world.plan()[..], [Step::Wait { until, .. }] if until == at(5)));
    world.now += 1;
    assert!(world.plan().contains(&Step::Release));
    // An attempt that a clock noted which was far ahead.
    world.last_attempt = Some(at(1_000_000));
    assert!(world.plan().contains(&Step::Release));
}

#[test]
fn a_snapshot_on_demand() {
    let (active, claimed) = (session(1, SessionState::Active), sandbox(1, SandboxState::Claimed));
    let plan = capture_plan(&active, Some(&claimed), &[]).unwrap();
    assert_eq!(
        plan.steps,
        [
            Step::Quiesce { stop: false },
            Step::WriteRow { kind: SnapshotKind::Demand },
            Step::Capture { row: None, pause: true },
            Step::Record,
        ]
    );
    let paused = capture_plan(&session(1, SessionState::Paused), Some(&claimed), &[]).unwrap();
    assert_eq!(paused.steps[0], Step::WriteRow { kind: SnapshotKind::Demand });
    assert_eq!(paused.steps[1], Step::Capture { row: None, pause: false });

    let taking = snapshot(1, 1, SnapshotState::Capturing, 1, 0);
    let others = snapshot(2, 2, SnapshotState::Capturing, 1, 0);
    assert!(capture_plan(&active, Some(&claimed), std::slice::from_ref(&others)).is_ok());
    let refusals = [
        capture_plan(&active, Some(&claimed), &[others, taking]),
        capture_plan(&active, None, &[]),
        capture_plan(&active, Some(&sandbox(1, SandboxState::Stopping)), &[]),
        capture_plan(&active, Some(&sandbox(2, SandboxState::Claimed)), &[]),
        capture_plan(&session(1, SessionState::Waiting), Some(&claimed), &[]),
        capture_plan(&session(1, SessionState::Ending), Some(&claimed), &[]),
        capture_plan(&session(1, SessionState::Ended), Some(&claimed), &[]),
    ];
    for refused in refusals {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    let named =
        capture_plan(&active, Some(&claimed), &[snapshot(7, 1, SnapshotState::Capturing, 1, 0)]).unwrap_err();
    assert!(named.to_string().contains(&SnapshotId::from_u128(7).to_string()), "{named}");
}
