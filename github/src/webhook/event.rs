//! What a delivery says, as types: only what Hotbed acts on, whatever else is there. An event or an action that is
//! not known is no error: GitHub adds some every month.

use domain::ports::PullRequestView;
use domain::{Branch, CommitId, Error, How, News, RepoName, Result, Review, Verdict};
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::said::{Login, PullBody};

#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Ping,
    /// A branch moved. Tags are not told.
    Push(Push),
    PullRequest(Box<PullRequestNews>),
    Review(ReviewNews),
    Installation(InstallationChange),
    InstallationRepositories(InstallationRepositories),
    /// The user has taken the App's authorization back.
    AuthorizationRevoked {
        account: u64,
        login: String,
    },
    Repository(RepositoryChange),
    /// Nothing that Hotbed acts on.
    Other,
}

/// A repository, as the moment of the delivery knew it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryRef {
    /// Stays the same when it is renamed or transferred.
    pub id: u64,
    pub name: RepoName,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    pub repository: RepositoryRef,
    pub branch: Branch,
    /// `None` when the branch is new.
    pub before: Option<CommitId>,
    /// `None` when it was deleted.
    pub after: Option<CommitId>,
    pub forced: bool,
    pub pusher: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRequestNews {
    /// In GitHub's words: `opened`, `synchronize`, `closed`, …
    pub action: String,
    pub repository: RepositoryRef,
    pub pull_request: PullRequestView,
}

impl PullRequestNews {
    pub fn news(&self) -> News {
        let how = if self.action == "reopened" { How::Reopened } else { How::Told };
        News::of(&self.pull_request, how)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewNews {
    pub repository: RepositoryRef,
    pub number: u64,
    pub review: Review,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallationChange {
    Created { installation: u64, repositories: Vec<RepositoryRef> },
    Deleted { installation: u64 },
    Suspended { installation: u64 },
    Unsuspended { installation: u64 },
    PermissionsAccepted { installation: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationRepositories {
    pub installation: u64,
    pub added: Vec<RepositoryRef>,
    pub removed: Vec<RepositoryRef>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepositoryChange {
    /// By the id: from this name to the reference's.
    Renamed {
        repository: RepositoryRef,
        from: String,
    },
    /// From this owner to the reference's.
    Transferred {
        repository: RepositoryRef,
        from_owner: Option<String>,
    },
    Deleted {
        repository: RepositoryRef,
    },
}

#[derive(Deserialize)]
struct RepoBody {
    id: u64,
    full_name: String,
}

impl RepoBody {
    fn read(self) -> Result<RepositoryRef> {
        let name = self
            .full_name
            .parse()
            .map_err(|e| Error::invalid("the delivery names a repository").caused_by(e))?;
        Ok(RepositoryRef { id: self.id, name })
    }
}

#[derive(Deserialize)]
struct Action {
    #[serde(default)]
    action: String,
}

#[derive(Deserialize)]
struct PushBody {
    #[serde(rename = "ref")]
    reference: String,
    before: String,
    after: String,
    #[serde(default)]
    forced: bool,
    repository: RepoBody,
    #[serde(default)]
    pusher: Option<Pusher>,
}

#[derive(Deserialize)]
struct Pusher {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct PullRequestBody {
    action: String,
    repository: RepoBody,
    pull_request: PullBody,
}

#[derive(Deserialize)]
struct ReviewBody {
    repository: RepoBody,
    review: ReviewPart,
    pull_request: Numbered,
}

#[derive(Deserialize)]
struct ReviewPart {
    id: u64,
    state: String,
    #[serde(default)]
    user: Option<Login>,
    #[serde(default)]
    submitted_at: Option<Timestamp>,
}

#[derive(Deserialize)]
struct Numbered {
    number: u64,
}

#[derive(Deserialize)]
struct Id {
    id: u64,
}

#[derive(Deserialize)]
struct InstallationBody {
    action: String,
    installation: Id,
    #[serde(default)]
    repositories: Option<Vec<RepoBody>>,
    #[serde(default)]
    repositories_added: Vec<RepoBody>,
    #[serde(default)]
    repositories_removed: Vec<RepoBody>,
}

#[derive(Deserialize)]
struct SenderBody {
    sender: Login,
}

#[derive(Deserialize)]
struct RepositoryBody {
    action: String,
    repository: RepoBody,
    #[serde(default)]
    changes: serde_json::Value,
}

impl Event {
    /// Reads a delivery: the header `X-GitHub-Event`, and the JSON.
    ///
    /// # Errors
    /// `Invalid` for a body that does not say what an event of this name says.
    pub fn read(name: &str, json: &[u8]) -> Result<Self> {
        match name {
            "ping" => Ok(Self::Ping),
            "push" => push(body(name, json)?),
            "pull_request" => pull_request(body(name, json)?),
            "pull_request_review" => review(body(name, json)?),
            "installation" => installation(body(name, json)?),
            "installation_repositories" => repositories(body(name, json)?),
            "github_app_authorization" if body::<Action>(name, json)?.action == "revoked" => {
                let SenderBody { sender } = body(name, json)?;
                Ok(Self::AuthorizationRevoked { account: sender.id, login: sender.login })
            }
            "repository" => match body::<Action>(name, json)?.action.as_str() {
                "renamed" | "transferred" | "deleted" => repository(body(name, json)?),
                _ => Ok(Self::Other),
            },
            _ => Ok(Self::Other),
        }
    }
}

fn body<T: DeserializeOwned>(name: &str, json: &[u8]) -> Result<T> {
    serde_json::from_slice(json)
        .map_err(|e| Error::invalid(format!("the body is not that of the event `{name}`")).caused_by(e))
}

fn push(body: PushBody) -> Result<Event> {
    let Some(branch) = body.reference.strip_prefix("refs/heads/") else { return Ok(Event::Other) };
    let wrong = |e: domain::NameError| Error::invalid("the push is not understood").caused_by(e);
    let commit = |id: &str| match id.bytes().all(|b| b == b'0') {
        true => Ok(None),
        false => id.parse::<CommitId>().map(Some).map_err(wrong),
    };
    Ok(Event::Push(Push {
        branch: branch.parse().map_err(wrong)?,
        before: commit(&body.before)?,
        after: commit(&body.after)?,
        forced: body.forced,
        pusher: body.pusher.map_or_else(String::new, |p| p.name),
        repository: body.repository.read()?,
    }))
}

fn pull_request(body: PullRequestBody) -> Result<Event> {
    Ok(Event::PullRequest(Box::new(PullRequestNews {
        action: body.action,
        repository: body.repository.read()?,
        pull_request: body.pull_request.view()?,
    })))
}

fn review(body: ReviewBody) -> Result<Event> {
    let verdict = match body.review.state.to_ascii_lowercase().as_str() {
        "approved" => Verdict::Approved,
        "changes_requested" => Verdict::ChangesRequested,
        "commented" => Verdict::Commented,
        "dismissed" => Verdict::Dismissed,
        _ => return Ok(Event::Other),
    };
    // One that was begun and not sent has no time.
    let Some(submitted_at) = body.review.submitted_at else { return Ok(Event::Other) };
    Ok(Event::Review(ReviewNews {
        repository: body.repository.read()?,
        number: body.pull_request.number,
        review: Review {
            reviewer: body.review.user.map_or_else(|| "ghost".into(), |u| u.login),
            verdict,
            submitted_at,
            id: body.review.id,
        },
    }))
}

fn all(bodies: Vec<RepoBody>) -> Result<Vec<RepositoryRef>> {
    bodies.into_iter().map(RepoBody::read).collect()
}

fn installation(body: InstallationBody) -> Result<Event> {
    let installation = body.installation.id;
    Ok(Event::Installation(match body.action.as_str() {
        "created" => InstallationChange::Created {
            installation,
            repositories: all(body.repositories.unwrap_or_default())?,
        },
        "deleted" => InstallationChange::Deleted { installation },
        "suspend" => InstallationChange::Suspended { installation },
        "unsuspend" => InstallationChange::Unsuspended { installation },
        "new_permissions_accepted" => InstallationChange::PermissionsAccepted { installation },
        _ => return Ok(Event::Other),
    }))
}

fn repositories(body: InstallationBody) -> Result<Event> {
    Ok(Event::InstallationRepositories(InstallationRepositories {
        installation: body.installation.id,
        added: all(body.repositories_added)?,
        removed: all(body.repositories_removed)?,
    }))
}

fn repository(body: RepositoryBody) -> Result<Event> {
    let text = |path: &str| body.changes.pointer(path).and_then(|v| v.as_str()).map(str::to_owned);
    let (renamed, owner) = (
        text("/repository/name/from"),
        text("/owner/from/user/login").or_else(|| text("/owner/from/organization/login")),
    );
    let repository = body.repository.read()?;
    Ok(Event::Repository(match body.action.as_str() {
        "renamed" => RepositoryChange::Renamed { repository, from: renamed.unwrap_or_default() },
        "transferred" => RepositoryChange::Transferred { repository, from_owner: owner },
        _ => RepositoryChange::Deleted { repository },
    }))
}
