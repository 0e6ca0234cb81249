//! What requests and answers look like. Kept apart from the records, so that a record can change without the API.

mod difference;
mod pool;

use std::collections::BTreeMap;

use domain::wire::{DirEntry, ExecExit, ExecStatus, FileKind};
use domain::{
    BuildRecord, EndReason, ImageRecord, PullRequestRecord, SessionRecord, SnapshotRecord, WarmupRecord,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroizing;

pub use self::difference::{
    CommitView, CommitsView, FileChangeView, FilesView, ImageDiffView, PackageChangeView, PackagesView,
    TallyView,
};
pub use self::pool::{
    Arrivals, ExpectedView, FloorView, GiveOrder, LessonView, MinuteView, OrderView, OrderWord, PoolTerms,
    PoolView,
};

/// One page of a list.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct List<T: ToSchema> {
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// The person a session works for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// The account name at the forge.
    pub login: String,
    /// Name on commits; the login when not given.
    #[serde(default)]
    pub name: Option<String>,
    /// Address on commits.
    #[serde(default)]
    pub email: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSession {
    /// `owner/name`, as configured. May be left out when `snapshot` or `parent` says it.
    pub repo: Option<String>,
    pub user: User,
    /// The branch to start from; the repo's own when not given.
    pub base: Option<String>,
    /// The branch to work on: taken up where it exists upstream, else made from `base`.
    pub branch: Option<String>,
    /// The warm-up that announced this session.
    pub warmup: Option<String>,
    /// Start from this snapshot.
    pub snapshot: Option<String>,
    /// Follow this ended session: start from its last snapshot, on its branch.
    pub parent: Option<String>,
    /// Time limit in seconds; the repo's when not given.
    pub timeout_seconds: Option<u64>,
    /// Ends after this many seconds without use; 0 means never; the repo's when not given.
    pub idle_seconds: Option<u64>,
    /// Environment of what runs in the session. Stored as it is: not for secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A token of the user's at GitHub, to push and open with: kept in memory for as long as the session lives, never
    /// stored, never shown, never in the sandbox.
    #[serde(default)]
    #[schema(value_type = Option<String>, write_only)]
    pub user_token: Option<Token>,
}

/// A secret on its way in: zeroed when dropped, shown by nothing.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Token(pub Zeroizing<String>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandToken {
    #[schema(value_type = String, write_only)]
    pub token: Token,
}

/// Somebody who has signed in, or had.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    pub login: String,
    /// GitHub's number for the account: it stays when the login changes.
    pub id: u64,
    pub name: Option<String>,
    pub signed_in: bool,
    /// Why they have to sign in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl UserView {
    pub fn of(account: &github::Account, signed_in: bool, why: Option<String>) -> Self {
        let github::Account { id, login, name } = account.clone();
        Self { login, id, name, signed_in, why }
    }
}

/// A sign-in by device that has begun.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignInView {
    pub id: String,
    /// What the user types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How often to ask.
    pub interval_seconds: u64,
    pub ends_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignInPoll {
    /// `pending`, `done`, `refused` or `expired`.
    pub state: String,
    /// While it is pending.
    pub again_in_seconds: Option<u64>,
    /// When it is done.
    pub user: Option<UserView>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginWebSignIn {
    /// Where GitHub sends the browser back to; one of the App's callback URLs.
    pub redirect_uri: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WebSignInView {
    /// Where to send the browser.
    pub url: String,
    /// Comes back with the code. Keep it with the browser.
    pub state: String,
    pub ends_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishWebSignIn {
    pub state: String,
    pub code: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SyncView {
    /// `pending`, `running`, `synced`, `failed` or `stale`.
    pub phase: String,
    /// Whether writes to the workspace pass.
    pub gate: String,
    pub wanted: Option<String>,
    pub head: Option<String>,
    /// Commits between the sandbox and the tip when sync began.
    pub lag_commits: Option<u32>,
    pub error: Option<String>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SessionView {
    pub id: String,
    pub repo: String,
    /// `waiting`, `active`, `paused`, `ending` or `ended`.
    pub state: String,
    /// `warm`, `warmup`, `restore` or `cold`.
    pub launch: String,
    pub sandbox: Option<String>,
    pub image: Option<String>,
    pub user: User,
    pub base: String,
    pub branch: String,
    pub sync: SyncView,
    pub snapshot: Option<String>,
    pub parent: Option<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub expires_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    /// Why it ended.
    pub end: Option<String>,
    /// What is wrong with it, in words.
    pub trouble: Option<String>,
}

impl From<&SessionRecord> for SyncView {
    fn from(r: &SessionRecord) -> Self {
        let s = &r.sync;
        Self {
            phase: s.phase.as_str().into(),
            gate: if s.phase.gate_is_open() { "open" } else { "shut" }.into(),
            wanted: s.wanted.as_ref().map(ToString::to_string),
            head: s.head.as_ref().map(ToString::to_string),
            lag_commits: s.lag_commits,
            error: s.error.clone(),
            started_at: s.started_at,
            ended_at: s.ended_at,
        }
    }
}

impl From<&SessionRecord> for SessionView {
    fn from(r: &SessionRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: r.state.as_str().into(),
            launch: r.launch.as_str().into(),
            sandbox: r.sandbox.map(|s| s.to_string()),
            image: r.image.map(|i| i.to_string()),
            user: User {
                login: r.user.login.clone(),
                name: Some(r.user.name.clone()),
                email: Some(r.user.email.clone()),
            },
            base: r.base.to_string(),
            branch: r.branch.to_string(),
            sync: r.into(),
            snapshot: r.snapshot.map(|s| s.to_string()),
            parent: r.parent.map(|s| s.to_string()),
            created_at: r.created_at,
            started_at: r.started_at,
            expires_at: r.expires_at,
            ended_at: r.ended_at,
            end: r.end.map(end_word),
            trouble: r.trouble.clone(),
        }
    }
}

fn end_word(end: EndReason) -> String {
    match end {
        EndReason::Requested => "requested",
        EndReason::TimeLimit => "time_limit",
        EndReason::Idle => "idle",
        EndReason::Shutdown => "shutdown",
        EndReason::LaunchFailed => "launch_failed",
        EndReason::SandboxLost => "sandbox_lost",
    }
    .into()
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SyncAgain {
    /// `retry`, or `accept_stale` to open the gate on the tree as it is.
    pub action: SyncAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncAction {
    Retry,
    AcceptStale,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Extend {
    pub seconds: u64,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// Whom the fork works for; the same user when not given.
    pub user: Option<User>,
    /// The fork's own branch; a new one when not given.
    pub branch: Option<String>,
}

/// Program and arguments, or one line for `sh -c`.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Command {
    Argv(Vec<String>),
    Shell(String),
}

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartExec {
    /// `["pytest", "-q"]`, or `"pytest -q | tail"`, which `sh -c` runs.
    pub cmd: Command,
    /// Absolute; the workspace when not given.
    pub cwd: Option<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Keep stdin open for `POST …/input`.
    #[serde(default)]
    pub stdin: bool,
    /// Run on a terminal.
    pub tty: Option<Terminal>,
    pub timeout_seconds: Option<f64>,
    /// Answer when it has ended, with its output (at most 1 MiB each), instead of at once.
    #[serde(default)]
    pub wait: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    pub rows: u16,
    pub cols: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExitView {
    /// The exit code; absent when a signal ended it.
    pub code: Option<i32>,
    pub signal: Option<i32>,
    pub timed_out: bool,
    pub duration_ms: f64,
    pub peak_rss_bytes: u64,
}

impl From<ExecExit> for ExitView {
    fn from(e: ExecExit) -> Self {
        Self {
            code: e.code,
            signal: e.signal,
            timed_out: e.timed_out,
            duration_ms: e.duration_ms,
            peak_rss_bytes: e.peak_rss_bytes,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExecView {
    pub id: String,
    pub running: bool,
    /// The offset that the next byte of output will have.
    pub output_bytes: u64,
    /// Offsets below this are no longer kept.
    pub dropped_bytes: u64,
    pub exit: Option<ExitView>,
    /// With `wait`: what it printed. Bytes that are no UTF-8 are replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// With `wait`: more was printed than is shown; the whole is at `…/output`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncated: Option<bool>,
}

impl From<ExecStatus> for ExecView {
    fn from(s: ExecStatus) -> Self {
        Self {
            id: s.id.to_string(),
            running: s.running,
            output_bytes: s.output_bytes,
            dropped_bytes: s.dropped_bytes,
            exit: s.exit.map(Into::into),
            stdout: None,
            stderr: None,
            truncated: None,
        }
    }
}

/// One line of `…/output`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutputLine {
    /// `stdout` or `stderr`; absent on the last line.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stream: Option<String>,
    /// Of the first byte; `from=` takes the offset behind the last one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub offset: Option<u64>,
    /// The text, or nothing when the bytes are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub text: Option<String>,
    /// The bytes in hexadecimal, when they are no UTF-8.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hex: Option<String>,
    /// On the last line: how it ended.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<ExitView>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SendSignal {
    /// `TERM`, `INT`, `KILL`, `HUP`, `QUIT`, `USR1`, `USR2`, `STOP`, `CONT` or `WINCH`.
    pub signal: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FileView {
    pub name: String,
    /// `file`, `dir`, `symlink` or `other`.
    pub kind: String,
    pub size: u64,
    pub mode: String,
    pub modified: Option<Timestamp>,
}

impl From<DirEntry> for FileView {
    fn from(e: DirEntry) -> Self {
        let kind = match e.kind {
            FileKind::File => "file",
            FileKind::Dir => "dir",
            FileKind::Symlink => "symlink",
            FileKind::Other => "other",
        };
        Self {
            name: e.name,
            kind: kind.into(),
            size: e.size,
            mode: format!("{:04o}", e.mode),
            modified: Timestamp::from_second(e.modified).ok(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announce {
    pub repo: String,
    /// The branch that the session will start from; the repo's own when not given.
    pub branch: Option<String>,
    /// Whoever types: a tab, a chat, a draft. With the repo it is the key of the warm-up.
    pub client: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmupView {
    pub id: String,
    pub repo: String,
    pub branch: String,
    pub client: String,
    /// `live`, `hit`, `expired` or `withdrawn`.
    pub state: String,
    /// A member is reserved.
    pub reserved: bool,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
    /// When the member that it holds was ready and at the tip of the branch; null while that is being seen to.
    pub prepared_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
}

impl From<&WarmupRecord> for WarmupView {
    fn from(r: &WarmupRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            branch: r.branch.to_string(),
            client: r.client.clone(),
            state: word(&r.state),
            reserved: r.sandbox.is_some(),
            created_at: r.created_at,
            expires_at: r.expires_at,
            prepared_at: r.prepared_at,
            ended_at: r.ended_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewWarmupToken {
    /// Whose warm-ups it is for: what the page will send as `client`.
    pub client: String,
    /// Of which repo; of any when not given.
    pub repo: Option<String>,
    /// How long it is good, at most a day; an hour when not given.
    pub seconds: Option<u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WarmupToken {
    pub token: String,
    pub expires_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SnapshotView {
    pub id: String,
    pub session: String,
    pub repo: String,
    /// `end` or `demand`.
    pub kind: String,
    /// `capturing`, `ready`, `failed` or `removing`.
    pub state: String,
    pub digest: Option<String>,
    pub commit: Option<String>,
    pub branch: String,
    pub size: Option<u64>,
    pub created_at: Timestamp,
    pub error: Option<String>,
}

impl From<&SnapshotRecord> for SnapshotView {
    fn from(r: &SnapshotRecord) -> Self {
        Self {
            id: r.id.to_string(),
            session: r.session.to_string(),
            repo: r.repo.to_string(),
            kind: r.kind.as_str().into(),
            state: word(&r.state),
            digest: r.digest.as_ref().map(ToString::to_string),
            commit: r.commit.as_ref().map(ToString::to_string),
            branch: r.branch.to_string(),
            size: r.size,
            created_at: r.created_at,
            error: r.error.clone(),
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenPullRequest {
    pub title: String,
    #[serde(default)]
    pub body: String,
    /// The branch to merge into; the session's base when not given.
    pub base: Option<String>,
    #[serde(default)]
    pub draft: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PullRequestView {
    pub id: String,
    pub session: String,
    pub repo: String,
    /// `pending`, `open`, `merged`, `closed` or `refused`.
    pub state: String,
    pub number: Option<u64>,
    pub url: Option<String>,
    pub head: String,
    pub head_commit: Option<String>,
    pub base: String,
    pub title: String,
    pub body: String,
    pub draft: bool,
    pub author: String,
    pub created_at: Timestamp,
    pub error: Option<String>,
    pub opened_at: Option<Timestamp>,
    pub merged_at: Option<Timestamp>,
    /// Reviewers whose last word is an approval.
    pub approvals: usize,
    /// Reviewers whose last word is that something has to change.
    pub changes_requested: usize,
    /// How often its commits changed after it was opened.
    pub revisions: u32,
}

impl From<&PullRequestRecord> for PullRequestView {
    fn from(r: &PullRequestRecord) -> Self {
        Self {
            id: r.id.to_string(),
            session: r.session.to_string(),
            repo: r.repo.to_string(),
            state: word(&r.state),
            number: r.number,
            url: r.url.clone(),
            head: r.head.to_string(),
            head_commit: r.head_commit.as_ref().map(ToString::to_string),
            base: r.base.to_string(),
            title: r.title.clone(),
            body: r.body.clone(),
            draft: r.draft,
            author: r.author.clone(),
            created_at: r.created_at,
            error: r.error.clone(),
            opened_at: r.opened_at,
            merged_at: r.merged_at,
            approvals: r.reviews.approvals(),
            changes_requested: r.reviews.changes_requested(),
            revisions: r.revisions,
        }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartBuild {
    /// Who asks, for the record: at most 200 bytes, in whatever words.
    #[serde(default)]
    pub by: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PhaseView {
    pub phase: String,
    pub seconds: f64,
    pub exit_code: Option<i32>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct BuildView {
    pub id: String,
    pub repo: String,
    /// `queued`, `running`, `succeeded`, `unchanged`, `failed` or `superseded`.
    pub state: String,
    /// `schedule`, `push`, `api` or `missing`: what asked for it.
    pub trigger: String,
    /// Who asked, in the caller's own words.
    pub by: Option<String>,
    /// What was decided: a full build and why, a build on another image, nothing.
    pub decision: Option<String>,
    /// The phase it is in or ended in.
    pub phase: Option<String>,
    /// Seconds in that phase, while it runs.
    pub phase_seconds: Option<f64>,
    pub phases: Vec<PhaseView>,
    /// Seconds from its start until its end, or until now.
    pub elapsed_seconds: Option<f64>,
    pub commit: Option<String>,
    /// The image that it was built on; absent for a full build.
    pub parent: Option<String>,
    pub base_digest: Option<String>,
    pub fingerprint: Option<String>,
    /// What it made, or found unchanged.
    pub image: Option<String>,
    /// Bytes of the image, all layers.
    pub size: Option<u64>,
    /// Steps that failed without failing the build.
    pub warnings: Vec<String>,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When its present state must have been left; it is given up then.
    pub deadline: Timestamp,
    /// The newer request that took its place.
    pub superseded_by: Option<String>,
    pub error: Option<String>,
}

impl BuildView {
    /// As it stands at `now`.
    pub fn at(now: Timestamp, r: &BuildRecord) -> Self {
        let until = r.ended_at.unwrap_or(now);
        let since = |at: Timestamp| until.duration_since(at).as_secs_f64().max(0.0);
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: r.state.as_str().into(),
            trigger: r.trigger.as_str().into(),
            by: r.by.clone(),
            decision: r.decision.clone(),
            phase: r.phase.map(|p| p.as_str().into()),
            phase_seconds: r.phase_since.filter(|_| !r.state.is_end()).map(since),
            phases: r
                .phases
                .iter()
                .map(|p| PhaseView {
                    phase: p.phase.as_str().into(),
                    seconds: p.seconds,
                    exit_code: p.exit_code,
                })
                .collect(),
            elapsed_seconds: r.started_at.map(since),
            commit: r.commit.as_ref().map(ToString::to_string),
            parent: r.parent.map(|i| i.to_string()),
            base_digest: r.base_digest.as_ref().map(ToString::to_string),
            fingerprint: r.fingerprint.clone(),
            image: r.image.map(|i| i.to_string()),
            size: r.size,
            warnings: r.warnings.clone(),
            created_at: r.created_at,
            started_at: r.started_at,
            ended_at: r.ended_at,
            deadline: r.deadline,
            superseded_by: r.superseded_by.map(|b| b.to_string()),
            error: r.error.clone(),
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageView {
    pub id: String,
    pub repo: String,
    /// `candidate`, `canary`, `current`, `superseded`, `rejected`, `demoted` or `removing`.
    pub state: String,
    pub digest: String,
    pub commit: String,
    pub branch: String,
    pub generation: u64,
    pub build: String,
    /// The image that it was built on; absent for a full build.
    pub parent: Option<String>,
    pub base_digest: String,
    /// Of what it was made of: recipe, base, certificates.
    pub fingerprint: String,
    pub agent_version: String,
    /// Bytes, all layers.
    pub size: u64,
    /// Kept by an operator.
    pub pinned: bool,
    /// Where a registry has it: `repository@digest`.
    pub registry: Option<String>,
    /// Sandboxes in which it failed since it was promoted, the latest of them, oldest first.
    #[serde(default)]
    pub failures: Vec<ImageFailureView>,
    /// Sessions that began well on it while it was a canary.
    pub went_well: u32,
    pub created_at: Timestamp,
    pub verified_at: Timestamp,
}

/// An image's services did not come up in a sandbox, or its `prepare` failed.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ImageFailureView {
    pub at: Timestamp,
    pub sandbox: String,
    /// Absent for a member of the pool that nobody had claimed.
    pub session: Option<String>,
    pub why: String,
}

impl From<&domain::ImageFailure> for ImageFailureView {
    fn from(f: &domain::ImageFailure) -> Self {
        Self {
            at: f.at,
            sandbox: f.sandbox.to_string(),
            session: f.session.map(|s| s.to_string()),
            why: f.why.clone(),
        }
    }
}

/// Something that the collector would remove.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RemovalView {
    /// `image`, `snapshot`, `mirror`, `build_log` or `session_log`.
    pub kind: String,
    pub id: String,
    pub repo: String,
    pub size: Option<u64>,
}

impl From<&ImageRecord> for ImageView {
    fn from(r: &ImageRecord) -> Self {
        Self {
            id: r.id.to_string(),
            repo: r.repo.to_string(),
            state: word(&r.state),
            digest: r.digest.to_string(),
            commit: r.commit.to_string(),
            branch: r.branch.to_string(),
            generation: r.generation,
            build: r.build.to_string(),
            parent: r.parent.map(|i| i.to_string()),
            base_digest: r.base_digest.to_string(),
            fingerprint: r.fingerprint.clone(),
            agent_version: r.agent_version.clone(),
            size: r.size,
            pinned: r.pinned,
            registry: r.shipped.as_ref().map(domain::Shipped::reference),
            failures: r.failures.iter().map(ImageFailureView::from).collect(),
            went_well: r.went_well,
            created_at: r.created_at,
            verified_at: r.verified_at,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RepoView {
    pub name: String,
    pub url: String,
    pub branch: String,
    pub image: Option<ImageView>,
    /// The image that is tried by a share of the sandboxes.
    pub canary: Option<ImageView>,
    /// Seconds since the current image was captured.
    pub image_age_seconds: Option<i64>,
    /// Commits that the branch has and the image has not, as of the last look; only where one repo is read.
    pub commits_behind: Option<u32>,
    pub pool: Option<PoolView>,
    /// The build that runs or waits.
    pub build: Option<BuildView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    pub sessions: u64,
    pub sessions_by_launch: BTreeMap<String, u64>,
    pub sessions_by_state: BTreeMap<String, u64>,
    pub pull_requests_by_state: BTreeMap<String, u64>,
    pub snapshots_by_state: BTreeMap<String, u64>,
    pub people: u64,
    /// Live sessions, by repo.
    pub live_by_repo: BTreeMap<String, u64>,
    /// People who used a session within the last five minutes.
    pub prompting: PromptingView,
    /// What came of the sessions of the last `days` days.
    pub outcomes: OutcomesView,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct PromptingView {
    pub people: u64,
    pub by_repo: BTreeMap<String, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutcomesView {
    pub days: u32,
    pub total: OutcomeView,
    pub by_repo: BTreeMap<String, OutcomeView>,
    pub by_user: BTreeMap<String, OutcomeView>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    /// Sessions that were started.
    pub sessions: u64,
    /// Of those, the ones with a pull request.
    pub with_pull_request: u64,
    /// Of those, the ones that led to a merged pull request: the first measure of all this.
    pub with_merged: u64,
    pub pull_requests: u64,
    pub open: u64,
    pub merged: u64,
    pub closed: u64,
    /// Of the pull requests that have ended, the share that somebody had approved.
    pub approval_rate: Option<f64>,
    /// How often the commits of one changed after it was opened, on average.
    pub revisions: Option<f64>,
    /// From the beginning of a session to its pull request, the median.
    pub seconds_to_pull_request: Option<f64>,
    /// From there to the merge, the median.
    pub seconds_to_merge: Option<f64>,
}

impl From<&crate::stats::Outcome> for OutcomeView {
    fn from(o: &crate::stats::Outcome) -> Self {
        Self {
            sessions: o.sessions,
            with_pull_request: o.with_pull_request,
            with_merged: o.with_merged,
            pull_requests: o.pull_requests,
            open: o.open,
            merged: o.merged,
            closed: o.closed,
            approval_rate: o.approval_rate,
            revisions: o.revisions,
            seconds_to_pull_request: o.to_pull_request,
            seconds_to_merge: o.to_merge,
        }
    }
}

/// The word that a fixed enum is written as.
fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        other => format!("{other:?}"),
    }
}
