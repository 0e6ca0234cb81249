//! Sessions, their sync state, their snapshots and their pull requests.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Absorbed, Branch, CommitId, Digest, ExecId, Identity, ImageId, Life, News, PullRequestId, RepoName,
    Reviews, SandboxId, SessionId, SnapshotId, TraceContext, WarmupId,
};

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SessionState {
    /// Accepted; its sandbox is being started (cold or restore).
    Waiting,
    /// It has a sandbox. Reads work at once; the sync state says whether writes do.
    Active,
    /// Its processes are frozen in memory; `resume` thaws them.
    Paused,
    /// Being quiesced, captured and released.
    Ending,
    /// Over. `end` says why.
    Ended,
}

impl SessionState {
    pub const ALL: [Self; 5] = [Self::Waiting, Self::Active, Self::Paused, Self::Ending, Self::Ended];

    pub fn is_end(self) -> bool {
        self == Self::Ended
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Ending => "ending",
            Self::Ended => "ended",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEvent {
    SandboxReady,
    PauseDone,
    ResumeDone,
    /// By request, time limit, idleness, shutdown or failure to launch.
    EndDecided,
    /// Captured (or nothing to capture) and released.
    Released,
    /// Its sandbox was removed from outside (F19).
    SandboxLost,
}

impl SessionState {
    /// The state after `event`, or `None` where the event does not belong to this state.
    #[must_use]
    pub fn after(self, event: SessionEvent) -> Option<Self> {
        use SessionEvent as E;
        use SessionState as S;
        match (self, event) {
            (S::Ended, _) => None,
            (_, E::SandboxLost) => Some(S::Ended),
            (S::Waiting, E::SandboxReady) => Some(S::Active),
            (S::Active, E::PauseDone) => Some(S::Paused),
            (S::Paused, E::ResumeDone) => Some(S::Active),
            (S::Waiting | S::Active | S::Paused, E::EndDecided) => Some(S::Ending),
            (S::Ending, E::Released) => Some(S::Ended),
            _ => None,
        }
    }
}

/// How a session got its sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Launch {
    /// From the warm pool.
    Warm,
    /// The member that a warm-up had reserved.
    Warmup,
    /// From a snapshot.
    Restore,
    /// No ready member: a container was started for it.
    Cold,
}

impl Launch {
    pub const ALL: [Self; 4] = [Self::Warm, Self::Warmup, Self::Restore, Self::Cold];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warm => "warm",
            Self::Warmup => "warmup",
            Self::Restore => "restore",
            Self::Cold => "cold",
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    Requested,
    TimeLimit,
    Idle,
    Shutdown,
    /// No sandbox could be started for it.
    LaunchFailed,
    /// The sandbox went away and what was not captured went with it.
    SandboxLost,
}

impl EndReason {
    pub const ALL: [Self; 6] =
        [Self::Requested, Self::TimeLimit, Self::Idle, Self::Shutdown, Self::LaunchFailed, Self::SandboxLost];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::TimeLimit => "time_limit",
            Self::Idle => "idle",
            Self::Shutdown => "shutdown",
            Self::LaunchFailed => "launch_failed",
            Self::SandboxLost => "sandbox_lost",
        }
    }
}

/// Where git sync stands. Writes to the workspace pass only in `Synced` and `Stale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncPhase {
    /// Not begun: the sandbox is not bound yet.
    Pending,
    /// Resolving the tip, fetching and checking out.
    Running,
    /// HEAD is the wanted commit, verified (F25). The gate is open.
    Synced,
    /// It failed or ran out of time; the gate is shut and the client decides (F54).
    Failed,
    /// The client chose to go on with the tree as it was. The gate is open.
    Stale,
}

impl SyncPhase {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Synced => "synced",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }

    pub fn gate_is_open(self) -> bool {
        matches!(self, Self::Synced | Self::Stale)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SyncState {
    pub phase: SyncPhase,
    /// The commit that sync is to reach or has reached.
    pub wanted: Option<CommitId>,
    /// What HEAD was when it was last looked at.
    pub head: Option<CommitId>,
    /// Commits between the image and the tip when sync began.
    pub lag_commits: Option<u32>,
    /// What went wrong, in words, when `phase` is `failed`.
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

impl SyncState {
    pub fn pending() -> Self {
        Self {
            phase: SyncPhase::Pending,
            wanted: None,
            head: None,
            lag_commits: None,
            error: None,
            started_at: None,
            ended_at: None,
        }
    }
}

/// The durable row of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SessionRecord {
    pub id: SessionId,
    pub repo: RepoName,
    pub state: SessionState,
    pub launch: Launch,
    pub sandbox: Option<SandboxId>,
    pub image: Option<ImageId>,
    /// Whose session it is: with his authority it pushes and opens pull requests.
    pub user: Identity,
    /// Who else has prompted, each once; who prompts now is the last one. Nobody but the user where it is empty.
    #[serde(default)]
    pub prompters: Vec<Prompter>,
    /// Environment of what runs for it, given at creation. Not for secrets: it is stored as it is.
    #[serde(default)]
    pub env: std::collections::BTreeMap<String, String>,
    /// The branch it starts from.
    pub base: Branch,
    /// The branch it works on and may push to, and no other.
    pub branch: Branch,
    pub sync: SyncState,
    /// `prepare` of its image has been done in it, well or not: it is done once.
    #[serde(default)]
    pub prepared: bool,
    /// A client has handed a token of its user over, which lives in memory alone: after a restart it is gone, and that
    /// can be said.
    #[serde(default)]
    pub token_handed: bool,
    /// The snapshot it started from.
    pub snapshot: Option<SnapshotId>,
    /// The session it follows or was forked from.
    pub parent: Option<SessionId>,
    pub warmup: Option<WarmupId>,
    pub created_at: Timestamp,
    /// When it had a bound sandbox.
    pub started_at: Option<Timestamp>,
    /// Set at creation and by `extend`; survives restarts (F33).
    pub expires_at: Timestamp,
    /// Seconds without activity after which it ends; stored so that a restart re-arms it (F33).
    pub idle_end_seconds: Option<u64>,
    /// When the present state must have been left (F36).
    pub deadline: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub end: Option<EndReason>,
    /// What is wrong with it now, or why it ended as it did, in words.
    pub trouble: Option<String>,
    /// Its place in a trace: what is done for it stands below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// Somebody who prompted in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompter {
    pub who: Identity,
    /// The last time he did.
    pub at: Timestamp,
}

impl SessionRecord {
    /// People in one session, at most: their names stand in every commit.
    pub const MAX_PROMPTERS: usize = 32;

    /// Who commits now: who prompted last.
    pub fn committer(&self) -> &Identity {
        self.prompters.last().map_or(&self.user, |p| &p.who)
    }

    /// Who has a part in what is committed now, besides the committer: the user first, then in order of their last prompts.
    pub fn co_authors(&self) -> Vec<Identity> {
        let now = &self.committer().login;
        let others = self.prompters.iter().map(|p| &p.who).filter(|who| who.login != self.user.login);
        std::iter::once(&self.user).chain(others).filter(|who| who.login != *now).cloned().collect()
    }

    /// `who` prompts. `false` where too many people have.
    pub fn prompted(&mut self, who: Identity, at: Timestamp) -> bool {
        let known = self.prompters.iter().position(|p| p.who.login == who.login);
        if known.is_none() && self.prompters.len() >= Self::MAX_PROMPTERS {
            return false;
        }
        if let Some(place) = known {
            self.prompters.remove(place);
        }
        self.prompters.push(Prompter { who, at });
        true
    }
}

/// What a snapshot was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotKind {
    /// At the session's end.
    End,
    /// Asked for.
    Demand,
}

impl SnapshotKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Demand => "demand",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotState {
    /// The row is written; the capture runs.
    Capturing,
    Ready,
    /// The capture failed; its source was left as it was (F39).
    Failed,
    /// To be removed from the engine; once it is gone there the row goes too.
    Removing,
}

/// The durable row of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    pub id: SnapshotId,
    pub session: SessionId,
    pub repo: RepoName,
    pub kind: SnapshotKind,
    pub state: SnapshotState,
    /// Set when `Ready`.
    pub digest: Option<Digest>,
    /// What the captured sandbox was itself started from: its lineage.
    pub source: Digest,
    /// HEAD at the moment of the capture.
    pub commit: Option<CommitId>,
    pub branch: Branch,
    /// Bytes, all layers.
    pub size: Option<u64>,
    pub created_at: Timestamp,
    pub deadline: Timestamp,
    pub error: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    /// In the outbox; the forge has not confirmed it.
    Pending,
    Open,
    Merged,
    Closed,
    /// The forge refused it for good; `error` says why.
    Refused,
}

/// The durable row of a pull request, written before the forge is asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PullRequestRecord {
    pub id: PullRequestId,
    pub session: SessionId,
    pub repo: RepoName,
    pub state: PullRequestState,
    pub number: Option<u64>,
    pub url: Option<String>,
    pub head: Branch,
    /// The commit of `head` when it was opened.
    pub head_commit: Option<CommitId>,
    pub base: Branch,
    pub title: String,
    pub body: String,
    pub draft: bool,
    /// The account that opened it.
    pub author: String,
    pub created_at: Timestamp,
    pub error: Option<String>,
    /// When the forge opened it.
    #[serde(default)]
    pub opened_at: Option<Timestamp>,
    #[serde(default)]
    pub merged_at: Option<Timestamp>,
    /// What the forge has told of it, once it has told anything.
    #[serde(default)]
    pub life: Option<Life>,
    #[serde(default)]
    pub reviews: Reviews,
    /// How often its commits changed after it was opened.
    #[serde(default)]
    pub revisions: u32,
    /// What was asked for; the rest is drawn from the branch.
    #[serde(default)]
    pub asked: Asked,
    /// What Hotbed had it say last. What somebody has changed at the forge since is his.
    #[serde(default)]
    pub said: Option<Words>,
    /// What it is to say, where the forge has not been told yet.
    #[serde(default)]
    pub rewording: Option<Rewording>,
    /// The place in a trace of whoever asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

/// What a pull request says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words {
    pub title: String,
    pub body: String,
}

/// What was asked for of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub title: Option<String>,
    pub body: Option<String>,
}

/// A change of what an open pull request says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewording {
    pub words: Words,
    /// Over what somebody has written at the forge, too: it was asked for.
    pub anyway: bool,
    pub since: Timestamp,
}

impl PullRequestRecord {
    /// Takes in what the forge tells. Says whether anything is different now.
    pub fn hear(&mut self, news: News) -> bool {
        let life = match &mut self.life {
            Some(life) => match life.absorb(news) {
                Absorbed::Taken => life,
                Absorbed::Stale => return false,
            },
            None => self.life.insert(Life::begin(news)),
        };
        let now = life.now().clone();
        let head = now.head_commit.parse().ok();
        if self.head_commit.is_some() && head.is_some() && head != self.head_commit {
            self.revisions += 1;
        }
        self.head_commit = head.or_else(|| self.head_commit.take());
        self.state = now.state;
        self.draft = now.draft;
        self.title = now.title;
        self.merged_at = now.merged_at;
        true
    }
}

/// A warm-up as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WarmupRecord {
    pub id: WarmupId,
    pub repo: RepoName,
    /// Who announced; with the repo it is the key of idempotency.
    pub client: String,
    pub branch: Branch,
    pub sandbox: Option<SandboxId>,
    pub state: WarmupState,
    pub created_at: Timestamp,
    /// Moved by each repeat; a restart re-arms it as it was last written (F33).
    pub expires_at: Timestamp,
    /// When the last preparation began: the first, that of another member, or that for another branch.
    #[serde(default)]
    pub preparing_since: Option<Timestamp>,
    /// When that had made its member ready and at the tip of the wanted branch.
    #[serde(default)]
    pub prepared_at: Option<Timestamp>,
    #[serde(default)]
    pub ended_at: Option<Timestamp>,
    /// The first announcement's place in a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<TraceContext>,
}

impl WarmupRecord {
    /// There is something to prepare, from now on.
    pub fn begin(&mut self, now: Timestamp) {
        self.preparing_since = Some(now);
        self.prepared_at = None;
    }

    /// What its user did not have to wait for: the part of the preparation that was done when the session came.
    pub fn saved(&self, now: Timestamp) -> f64 {
        let begun = self.preparing_since.unwrap_or(self.created_at);
        let done = self.prepared_at.map_or(now, |at| at.min(now));
        self.sandbox.map_or(0.0, |_| done.duration_since(begun).as_secs_f64().max(0.0))
    }

    /// How long its member was held for nobody, when it ends without a session.
    pub fn wasted(&self, now: Timestamp) -> f64 {
        self.sandbox.map_or(0.0, |_| now.duration_since(self.created_at).as_secs_f64().max(0.0))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarmupState {
    Live,
    /// A session took it up.
    Hit,
    /// Nobody announced again in time.
    Expired,
    Withdrawn,
}

impl WarmupState {
    pub const ALL: [Self; 4] = [Self::Live, Self::Hit, Self::Expired, Self::Withdrawn];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Hit => "hit",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// An exec as the session's log tells it; the output stays in the sandbox until it is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRef {
    pub session: SessionId,
    pub exec: ExecId,
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [SessionEvent; 6] = [
        SessionEvent::SandboxReady,
        SessionEvent::PauseDone,
        SessionEvent::ResumeDone,
        SessionEvent::EndDecided,
        SessionEvent::Released,
        SessionEvent::SandboxLost,
    ];

    /// F36: every state that is not an end has a way out, and ends are ends.
    #[test]
    fn every_state_has_a_way_out() {
        for state in SessionState::ALL {
            let out = EVENTS.iter().filter_map(|e| state.after(*e)).any(|next| next != state);
            assert_eq!(out, !state.is_end(), "{state:?}");
        }
    }

    #[test]
    fn only_synced_and_stale_open_the_gate() {
        let open =
            [SyncPhase::Pending, SyncPhase::Running, SyncPhase::Synced, SyncPhase::Failed, SyncPhase::Stale]
                .map(SyncPhase::gate_is_open);
        assert_eq!(open, [false, false, true, false, true]);
    }
}
