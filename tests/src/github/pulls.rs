//! Pull requests, judged by the real references.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::{Value, json};

use super::authority::reach;
use super::rest::{Answered, Question, Reply, now};
use super::state::{Pull, PullState};
use super::{Inner, hooks, objects};

pub(crate) async fn answer(inner: &Arc<Inner>, q: &Question, repo: &str, rest: &[&str]) -> Answered {
    let number = |n: &str| n.parse::<u64>().map_err(|_| Reply::error(404, "Not Found"));
    match (q.method.as_str(), rest) {
        ("GET", []) => list(inner, q, repo),
        ("POST", []) => create(inner, q, repo),
        ("GET", [n]) => one(inner, q, repo, number(n)?),
        ("PATCH", [n]) => change(inner, q, repo, number(n)?),
        ("POST", [n, "reviews"]) => review(inner, q, repo, number(n)?),
        ("PUT", [n, "merge"]) => merge(inner, q, repo, number(n)?),
        _ => Err(Reply::error(404, "Not Found")),
    }
}

fn list(inner: &Inner, q: &Question, repo: &str) -> Answered {
    let state = inner.state();
    let full_name = reach(&state, &q.who, repo, "pull_requests", false)?.full_name.clone();
    let wanted = |name: &str| q.query.get(name).map(String::as_str);
    let state_wanted = wanted("state").unwrap_or("open");
    let owner = full_name.split('/').next().unwrap_or_default();
    // Without the owner the filter is ignored, as at GitHub.
    let head = wanted("head").and_then(|h| h.split_once(':'));
    let mut all: Vec<&Pull> = state
        .pulls
        .iter()
        .filter(|p| p.repo == full_name && (state_wanted == "all" || p.state.word() == state_wanted))
        .filter(|p| wanted("base").is_none_or(|b| b == p.base))
        .filter(|p| head.is_none_or(|(o, h)| o.eq_ignore_ascii_case(owner) && h == p.head))
        .collect();
    if wanted("direction") != Some("asc") {
        all.reverse();
    }
    let count = wanted("per_page").and_then(|n| n.parse().ok()).unwrap_or(30);
    Ok(Reply::new(200, all.into_iter().take(count).map(|p| objects::pull(inner, &state, p, false)).collect()))
}

fn create(inner: &Arc<Inner>, q: &Question, repo: &str) -> Answered {
    let created = {
        let mut state = inner.state();
        let found = reach(&state, &q.who, repo, "pull_requests", true)?;
        let (full_name, drafts) = (found.full_name.clone(), found.drafts);
        let author = q.who.login(&state).ok_or_else(|| Reply::error(401, "Requires authentication"))?;
        let custom = |words: String| {
            Reply::invalid(json!({"resource": "PullRequest", "code": "custom", "message": words}))
        };
        let field =
            |name: &str| Reply::invalid(json!({"resource": "PullRequest", "field": name, "code": "invalid"}));
        let owner = full_name.split('/').next().unwrap_or_default().to_owned();
        let head = q.text("head").unwrap_or_default();
        let head = head.strip_prefix(&format!("{owner}:")).unwrap_or(head).to_owned();
        let base = q.text("base").unwrap_or_default().to_owned();
        let draft = q.body.as_ref().is_some_and(|b| b["draft"] == json!(true));
        if q.text("title").unwrap_or_default().is_empty() {
            return Err(Reply::invalid(
                json!({"resource": "PullRequest", "field": "title", "code": "missing_field"}),
            ));
        }
        let dir = inner.repo_dir(&full_name);
        let head_sha = git(&dir, &["rev-parse", "--verify", "-q", &format!("refs/heads/{head}")])
            .ok_or_else(|| field("head"))?;
        let base_sha = git(&dir, &["rev-parse", "--verify", "-q", &format!("refs/heads/{base}")])
            .ok_or_else(|| field("base"))?;
        if state
            .pulls
            .iter()
            .any(|p| p.repo == full_name && p.head == head && p.base == base && p.state == PullState::Open)
        {
            return Err(custom(format!("A pull request already exists for {owner}:{head}.")));
        }
        if draft && !drafts {
            return Err(custom("Draft pull requests are not supported in this repository.".into()));
        }
        let commits = git(&dir, &["rev-list", "--count", &format!("{base_sha}..{head_sha}")])
            .and_then(|n| n.parse().ok());
        let commits = commits.unwrap_or(0);
        if commits == 0 {
            return Err(custom(format!("No commits between {base} and {head}")));
        }
        let at = now(inner, &state);
        let number = state.pulls.iter().filter(|p| p.repo == full_name).count() as u64 + 1;
        let pull = Pull {
            id: state.number(),
            number,
            repo: full_name,
            title: q.text("title").unwrap_or_default().to_owned(),
            body: q.text("body").map(str::to_owned),
            head,
            base,
            head_sha,
            base_sha,
            draft,
            state: PullState::Open,
            author,
            created_at: at,
            updated_at: at,
            closed_at: None,
            merged_by: None,
            merge_sha: None,
            commits,
        };
        state.pulls.push(pull.clone());
        (Reply::new(201, objects::pull(inner, &state, &pull, true)), pull)
    };
    let (reply, pull) = created;
    hooks::pull_request(inner, &pull, "opened", json!({}), &pull.author);
    Ok(reply)
}

fn one(inner: &Inner, q: &Question, repo: &str, number: u64) -> Answered {
    let state = inner.state();
    let full_name = reach(&state, &q.who, repo, "pull_requests", false)?.full_name.clone();
    let found = state.pulls.iter().find(|p| p.repo == full_name && p.number == number);
    found
        .map(|p| Reply::new(200, objects::pull(inner, &state, p, true)))
        .ok_or_else(|| Reply::error(404, "Not Found"))
}

/// Changes one pull request under the lock; answers it as it is then, with what is to be told.
fn with(
    inner: &Arc<Inner>,
    q: &Question,
    repo: &str,
    number: u64,
    work: impl FnOnce(&mut Pull, jiff::Timestamp, &str) -> Result<(&'static str, Value), Reply>,
) -> Result<Pull, Reply> {
    let (pull, action, more, who) = {
        let mut state = inner.state();
        let full_name = reach(&state, &q.who, repo, "pull_requests", true)?.full_name.clone();
        let who = q.who.login(&state).unwrap_or_default();
        let at = now(inner, &state);
        let found = state.pulls.iter_mut().find(|p| p.repo == full_name && p.number == number);
        let pull = found.ok_or_else(|| Reply::error(404, "Not Found"))?;
        let (action, more) = work(pull, at, &who)?;
        pull.updated_at = at;
        (pull.clone(), action, more, who)
    };
    if !action.is_empty() {
        hooks::pull_request(inner, &pull, action, more, &who);
    }
    Ok(pull)
}

fn change(inner: &Arc<Inner>, q: &Question, repo: &str, number: u64) -> Answered {
    let pull = with(inner, q, repo, number, |pull, at, _| {
        let mut changes = json!({});
        if let Some(title) = q.text("title").filter(|t| *t != pull.title) {
            changes["title"] = json!({"from": pull.title});
            pull.title = title.to_owned();
        }
        if let Some(body) = q.text("body").filter(|b| Some(*b) != pull.body.as_deref()) {
            changes["body"] = json!({"from": pull.body.clone().unwrap_or_default()});
            pull.body = Some(body.to_owned());
        }
        match (q.text("state"), pull.state) {
            (Some("closed"), PullState::Open) => {
                (pull.state, pull.closed_at) = (PullState::Closed, Some(at));
                Ok(("closed", json!({})))
            }
            (Some("open"), PullState::Closed) => {
                (pull.state, pull.closed_at) = (PullState::Open, None);
                Ok(("reopened", json!({})))
            }
            _ if changes != json!({}) => Ok(("edited", json!({"changes": changes}))),
            _ => Ok(("", json!({}))),
        }
    })?;
    Ok(Reply::new(200, objects::pull(inner, &inner.state(), &pull, true)))
}

/// Not in the contract: `POST …/reviews`, as its documentation says.
fn review(inner: &Arc<Inner>, q: &Question, repo: &str, number: u64) -> Answered {
    let mut verdict = "";
    let pull = with(inner, q, repo, number, |pull, _, who| {
        verdict = match q.text("event") {
            Some("APPROVE") => "approved",
            Some("REQUEST_CHANGES") => "changes_requested",
            _ => "commented",
        };
        if verdict != "commented" && who.eq_ignore_ascii_case(&pull.author) {
            let words = if verdict == "approved" {
                "Can not approve your own pull request"
            } else {
                "Can not request changes on your own pull request"
            };
            return Err(Reply::new(
                422,
                json!({"message": "Unprocessable Entity", "errors": [words], "documentation_url": "https://docs.github.com/rest", "status": "422"}),
            ));
        }
        Ok(("", json!({})))
    })?;
    let who = q.who.login(&inner.state()).unwrap_or_default();
    let review = hooks::review(inner, &pull, verdict, q.text("body"), &who);
    Ok(Reply::new(200, review))
}

/// Not in the contract: `PUT …/merge`. The base moves to a commit that joins both.
fn merge(inner: &Arc<Inner>, q: &Question, repo: &str, number: u64) -> Answered {
    let no = || Reply::error(405, "Pull Request is not mergeable");
    let (mut before, mut after) = (String::new(), String::new());
    let pull = with(inner, q, repo, number, |pull, at, who| {
        if pull.state != PullState::Open {
            return Err(no());
        }
        (before, after) = join(&inner.repo_dir(&pull.repo), pull).ok_or_else(no)?;
        (pull.state, pull.closed_at) = (PullState::Merged, Some(at));
        (pull.merged_by, pull.merge_sha) = (Some(who.to_owned()), Some(after.clone()));
        Ok(("closed", json!({})))
    })?;
    let who = pull.merged_by.clone().unwrap_or_default();
    hooks::push(inner, &pull.repo, &format!("refs/heads/{}", pull.base), &before, &after, &who);
    Ok(Reply::new(
        200,
        json!({"sha": pull.merge_sha, "merged": true, "message": "Pull Request successfully merged"}),
    ))
}

/// A merge commit on the base: what the base was and is now. None where the two sides clash.
fn join(dir: &Path, pull: &Pull) -> Option<(String, String)> {
    let base = git(dir, &["rev-parse", &format!("refs/heads/{}", pull.base)])?;
    let words = format!("Merge pull request #{}", pull.number);
    let tree = git(dir, &["merge-tree", "--write-tree", &base, &pull.head_sha])?;
    let sha = git(dir, &["commit-tree", &tree, "-p", &base, "-p", &pull.head_sha, "-m", &words])?;
    git(dir, &["update-ref", &format!("refs/heads/{}", pull.base), &sha, &base])?;
    Some((base, sha))
}

/// What git says, if it succeeds.
pub(crate) fn git(dir: &Path, args: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(dir).args(args).env_clear();
    for (name, value) in std::env::vars().filter(|(n, _)| n == "PATH" || n == "HOME") {
        git.env(name, value);
    }
    for who in ["AUTHOR", "COMMITTER"] {
        git.env(format!("GIT_{who}_NAME"), "GitHub").env(format!("GIT_{who}_EMAIL"), "noreply@github.com");
    }
    let output = git.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
