//! The life of a sandbox: its record, its states, and the one function that says which step follows which.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{BuildId, CommitId, Digest, ImageId, RepoName, SandboxId, SessionId, WarmupId};

/// Where a sandbox is in its life. Nothing leads from `Claimed` back to `Warm`: one is handed out at most once
/// (F16, F35).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SandboxState {
    /// The row is written; the engine has been or will be asked (F1).
    Creating,
    /// The container exists; its agent has not answered yet.
    Starting,
    /// The agent has answered: ready and unclaimed (F10).
    Warm,
    /// Bound to a session or a build, for good.
    Claimed,
    /// Its capture failed; kept until a later capture succeeds (F39).
    Kept,
    /// To be removed; the engine has been or will be asked.
    Stopping,
    /// The engine no longer has it. An end.
    Gone,
}

impl SandboxState {
    pub const ALL: [Self; 7] =
        [Self::Creating, Self::Starting, Self::Warm, Self::Claimed, Self::Kept, Self::Stopping, Self::Gone];

    pub fn is_end(self) -> bool {
        self == Self::Gone
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Starting => "starting",
            Self::Warm => "warm",
            Self::Claimed => "claimed",
            Self::Kept => "kept",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        }
    }
}

/// What happened to a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxEvent {
    ContainerStarted,
    AgentConnected,
    Claimed,
    CaptureFailed,
    StopDecided,
    /// The engine does not have it (removed by us, or from outside).
    Vanished,
}

impl SandboxState {
    /// The state after `event`, or `None` where the event does not belong to this state.
    #[must_use]
    pub fn after(self, event: SandboxEvent) -> Option<Self> {
        use SandboxEvent as E;
        use SandboxState as S;
        match (self, event) {
            (S::Gone, _) => None,
            (_, E::Vanished) => Some(S::Gone),
            (S::Creating, E::ContainerStarted) => Some(S::Starting),
            // The agent can be faster than the engine's answer to `start`.
            (S::Creating | S::Starting, E::AgentConnected) => Some(S::Warm),
            // A cold start and a build claim their sandbox while it boots.
            (S::Creating | S::Starting | S::Warm, E::Claimed) => Some(S::Claimed),
            (S::Claimed, E::ContainerStarted | E::AgentConnected) => Some(S::Claimed),
            (S::Warm, E::ContainerStarted | E::AgentConnected) => Some(S::Warm),
            (S::Claimed | S::Kept, E::CaptureFailed) => Some(S::Kept),
            (S::Kept, E::ContainerStarted | E::AgentConnected) => Some(S::Kept),
            (_, E::StopDecided) => Some(S::Stopping),
            (S::Stopping, E::ContainerStarted | E::AgentConnected) => Some(S::Stopping),
            _ => None,
        }
    }
}

/// What a sandbox was made for. Fixed when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// To wait warm for whoever comes.
    Pool,
    /// To serve one session that could not be served from the pool, or that restores a snapshot.
    Session(SessionId),
    /// To build an image in.
    Build(BuildId),
    /// To boot and check a freshly captured image.
    Check(BuildId),
}

/// The durable row of a sandbox, written before the engine is called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub id: SandboxId,
    pub repo: RepoName,
    pub purpose: Purpose,
    pub state: SandboxState,
    /// The image it runs, when it runs one (a restore runs a snapshot, a build its base).
    pub image: Option<ImageId>,
    /// The content address it was started from.
    pub source: Digest,
    /// The commit its tree was at when `source` was captured.
    pub commit: Option<CommitId>,
    /// The engine's own id, once known.
    pub engine_id: Option<String>,
    /// SHA-256 (hex) of the token its agent must show: its fencing token (F42).
    pub token_hash: String,
    /// The session that holds it.
    pub session: Option<SessionId>,
    /// The warm-up it is reserved for.
    pub reserved: Option<WarmupId>,
    pub created_at: Timestamp,
    pub ready_at: Option<Timestamp>,
    pub claimed_at: Option<Timestamp>,
    /// When this state must have been left (F36). For `Claimed` the session's own deadline rules; it is repeated
    /// here so that a lost session can't keep its sandbox for ever.
    pub deadline: Timestamp,
    /// Why it is stopping, in words; fixed words for expected reasons.
    pub reason: Option<String>,
    /// What runs at each start has run, and its services were ready, in its present incarnation (F10).
    #[serde(default)]
    pub up: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [SandboxEvent; 6] = [
        SandboxEvent::ContainerStarted,
        SandboxEvent::AgentConnected,
        SandboxEvent::Claimed,
        SandboxEvent::CaptureFailed,
        SandboxEvent::StopDecided,
        SandboxEvent::Vanished,
    ];

    proptest! {
        /// F16, F35: once claimed, whatever happens, never warm again; and never claimed twice.
        #[test]
        fn claimed_is_for_good(events in proptest::collection::vec(0usize..6, 0..40)) {
            let (mut state, mut claims) = (SandboxState::Creating, 0);
            for e in events.into_iter().map(|i| EVENTS[i]) {
                if let Some(next) = state.after(e) {
                    if e == SandboxEvent::Claimed { claims += 1; }
                    if claims > 0 { prop_assert_ne!(next, SandboxState::Warm); }
                    state = next;
                }
            }
            prop_assert!(claims <= 1);
        }
    }

    /// F36: every state that is not an end has a way out.
    #[test]
    fn every_state_has_a_way_out() {
        for state in SandboxState::ALL {
            let out = EVENTS.iter().filter_map(|e| state.after(*e)).any(|next| next != state);
            assert_eq!(out, !state.is_end(), "{state:?}");
        }
    }
}
