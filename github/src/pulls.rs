//! Pull requests, by the user's own token and exactly once (F52).
//!
//! Before one is opened it is looked for, after an answer that was lost it is looked for again, and GitHub's own
//! «already exists» is taken for what it says. The App opens none: there is no authority here with which it could.

use std::time::Duration;

use async_trait::async_trait;
use domain::ports::{
    Forge, NewPullRequest, OpenedPullRequest, PullRequestChange, PullRequestOutcome, PullRequestView,
    UserToken,
};
use domain::{Error, PullRequestState, RepoName, Result};
use jiff::Timestamp;
use serde::Serialize;

use crate::app::App;
use crate::failure::{Failure, Refusal};
use crate::said::PullBody;
use crate::wire::{Authority, Call, Wire, piece};

/// After a push GitHub takes a moment until the branch can be seen everywhere.
const UNSEEN: [Duration; 3] = [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// GitHub stamps whole seconds, and its clock is not ours.
const STAMP: Duration = Duration::from_secs(2);
/// Characters of a body that fit into a link.
const LINKED_BODY: usize = 3000;
const NOTHING: Option<&()> = None;

/// Pull requests at GitHub. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GithubForge {
    app: App,
}

#[derive(Serialize)]
struct Create<'a> {
    title: &'a str,
    head: &'a str,
    base: &'a str,
    body: &'a str,
    draft: bool,
}

#[derive(Serialize)]
struct Change<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
}

impl GithubForge {
    pub fn new(app: App) -> Self {
        Self { app }
    }

    fn wire(&self) -> &Wire {
        self.app.wire()
    }

    /// Where the user opens it, with everything filled in.
    pub fn link(&self, new: &NewPullRequest) -> String {
        let body: String = new.body.chars().take(LINKED_BODY).collect();
        let path = |branch: &str| branch.split('/').map(piece).collect::<Vec<_>>().join("/");
        format!(
            "{}/{}/compare/{}...{}?expand=1&title={}&body={}",
            self.wire().addresses().web,
            new.repo,
            path(new.base.as_str()),
            path(new.head.as_str()),
            piece(&new.title),
            piece(&body)
        )
    }

    /// The open one of this head and base; and the one that was opened since `since`, whatever became of it.
    async fn find(
        &self,
        token: &UserToken,
        new: &NewPullRequest,
        since: Option<Timestamp>,
    ) -> Result<Option<PullBody>, Failure> {
        // Without the owner GitHub ignores the filter and shows all.
        let path = format!(
            "{}?state=all&sort=created&direction=desc&per_page=50&base={}&head={}%3A{}",
            pulls(&new.repo),
            piece(new.base.as_str()),
            piece(new.repo.owner()),
            piece(new.head.as_str()),
        );
        let all: Vec<PullBody> = self.wire().ask(Call::get(path, Authority::User(token)), NOTHING).await?;
        let ours = |p: &PullBody| p.head.branch == new.head.as_str() && p.base.branch == new.base.as_str();
        let since = since.map(|at| at.checked_sub(STAMP).unwrap_or(at));
        let wanted =
            |p: &PullBody| p.state() == PullRequestState::Open || since.is_some_and(|at| p.created_at >= at);
        let mut all: Vec<_> = all.into_iter().filter(|p| ours(p) && wanted(p)).collect();
        all.sort_by_key(|p| (p.state() != PullRequestState::Open, std::cmp::Reverse(p.number)));
        Ok(all.into_iter().next())
    }

    async fn create(&self, token: &UserToken, new: &NewPullRequest) -> Result<PullBody, Failure> {
        let mut draft = new.draft;
        let mut unseen = UNSEEN.iter();
        loop {
            let body = Create {
                title: &new.title,
                head: new.head.as_str(),
                base: new.base.as_str(),
                body: &new.body,
                draft,
            };
            let refusal = match self
                .wire()
                .ask(Call::post(pulls(&new.repo), Authority::User(token)), Some(&body))
                .await
            {
                Err(Failure::Invalid(refusal)) => refusal,
                answer => return answer,
            };
            match judge(&refusal, draft) {
                Judgement::WithoutDraft => draft = false,
                Judgement::NotSeenYet => match unseen.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => return Err(Failure::Invalid(refusal)),
                },
                Judgement::Exists | Judgement::No => return Err(Failure::Invalid(refusal)),
            }
        }
    }

    /// Creates it, or finds the one that was created by whoever was faster – which may have been this call, its
    /// answer lost.
    async fn create_or_find(
        &self,
        token: &UserToken,
        new: &NewPullRequest,
        began: Timestamp,
    ) -> Result<OpenedPullRequest, Failure> {
        let failure = match self.create(token, new).await {
            Ok(made) => return opened(&made, true),
            Err(failure) => failure,
        };
        let exists =
            matches!(&failure, Failure::Invalid(refusal) if judge(refusal, false) == Judgement::Exists);
        if !exists && !failure.may_have_happened() {
            return Err(failure);
        }
        match self.find(token, new, Some(new.unanswered_since.unwrap_or(began))).await {
            Ok(Some(found)) => opened(&found, !exists),
            // What is known is that the answer was lost; the caller asks again.
            Ok(None) | Err(_) => Err(failure),
        }
    }

    /// The way forward, for errors about the user's authority.
    fn explain(&self, failure: Failure, new: &NewPullRequest) -> Error {
        let doing = format!("open a pull request from {} into {} of {}", new.head, new.base, new.repo);
        let (remedy, link) = (remedy(new), self.link(new));
        match failure {
            // What is private is not there for those who may not see it; nobody else's mistake.
            Failure::NotFound { message } => Error::denied(format!(
                "{doing}: GitHub shows the repository to this user not at all ({message}); the user needs access to it, and the App an installation on it; {remedy}, or open it at {link}"
            )),
            Failure::Unauthorized { .. } | Failure::Forbidden { .. } => {
                let error = failure.into_error(&doing, &remedy);
                Error::denied(format!(
                    "{}; the branch is pushed, nothing is lost; it can be opened at {link}",
                    error.chain()
                ))
            }
            failure => failure.into_error(&doing, &remedy),
        }
    }
}

fn remedy(new: &NewPullRequest) -> String {
    format!("{} signs in again (`hotbed login`)", new.author)
}

fn pulls(repo: &RepoName) -> String {
    format!("/repos/{}/{}/pulls", piece(repo.owner()), piece(repo.name()))
}

fn opened(body: &PullBody, created: bool) -> Result<OpenedPullRequest, Failure> {
    let head_commit =
        body.head_commit().map_err(|e| Failure::Odd { status: http::StatusCode::OK, message: e.chain() })?;
    Ok(OpenedPullRequest {
        number: body.number,
        url: body.html_url.clone(),
        head_commit,
        created,
        opened_at: body.created_at,
    })
}

/// What a 422 is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    Exists,
    /// The branch, or its commits, can't be seen – perhaps only not yet.
    NotSeenYet,
    WithoutDraft,
    No,
}

fn judge(refusal: &Refusal, draft: bool) -> Judgement {
    if refusal.says("a pull request already exists") {
        Judgement::Exists
    } else if draft && refusal.says("draft pull requests are not supported") {
        Judgement::WithoutDraft
    } else if refusal.refuses("head")
        || ["no commits between", "head sha can't be blank", "head ref must be a branch"]
            .iter()
            .any(|w| refusal.says(w))
    {
        Judgement::NotSeenYet
    } else {
        Judgement::No
    }
}

#[async_trait]
impl Forge for GithubForge {
    async fn open_pull_request(
        &self,
        token: Option<&UserToken>,
        new: &NewPullRequest,
    ) -> Result<PullRequestOutcome> {
        let Some(token) = token else { return Ok(PullRequestOutcome::ByHand { link: self.link(new) }) };
        let began = self.wire().clock().now();
        let found = self.find(token, new, new.unanswered_since).await.map_err(|e| self.explain(e, new))?;
        let opened = match found {
            Some(there) => opened(&there, false),
            None => self.create_or_find(token, new, began).await,
        };
        opened.map(PullRequestOutcome::Opened).map_err(|e| self.explain(e, new))
    }

    async fn update_pull_request(
        &self,
        token: &UserToken,
        repo: &RepoName,
        number: u64,
        change: &PullRequestChange,
    ) -> Result<PullRequestView> {
        let body = Change { title: change.title.as_deref(), body: change.body.as_deref() };
        let call = Call::patch(format!("{}/{number}", pulls(repo)), Authority::User(token));
        let changed: PullBody = self.wire().ask(call, Some(&body)).await.map_err(|e| {
            let whose = token.account().unwrap_or("the user");
            e.into_error(
                &format!("change pull request {number} of {repo}"),
                &format!("{whose} signs in again (`hotbed login`); the pull request stays as it is"),
            )
        })?;
        changed.view()
    }

    async fn pull_request(&self, repo: &RepoName, number: u64) -> Result<Option<PullRequestView>> {
        self.app.pull_request(repo, number).await?.view().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Detail;

    fn says(message: &str) -> Refusal {
        Refusal {
            message: "Validation Failed".into(),
            errors: vec![Detail { message: message.into(), ..Detail::default() }],
        }
    }

    #[test]
    fn refusals_are_told_apart() {
        assert_eq!(judge(&says("A pull request already exists for acme:x."), false), Judgement::Exists);
        assert_eq!(judge(&says("No commits between main and x"), false), Judgement::NotSeenYet);
        assert_eq!(
            judge(&says("Head sha can't be blank, Head ref must be a branch"), false),
            Judgement::NotSeenYet
        );
        let draft = says("Draft pull requests are not supported in this repository.");
        assert_eq!((judge(&draft, true), judge(&draft, false)), (Judgement::WithoutDraft, Judgement::No));
        let field = |field: &str| Refusal {
            message: String::new(),
            errors: vec![Detail { field: field.into(), code: "invalid".into(), ..Detail::default() }],
        };
        assert_eq!(
            (judge(&field("head"), false), judge(&field("base"), false)),
            (Judgement::NotSeenYet, Judgement::No)
        );
    }
}
