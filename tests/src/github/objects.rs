//! Things as GitHub shows them: complete enough for its own description and for octokit's schemas.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::state::{Installation, Pull, PullState, Repo, State, User};
use super::{APP_ID, CLIENT_ID, Inner};

/// Seconds and a `Z`, as GitHub writes times.
pub(crate) fn time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn node(kind: &str, id: u64) -> String {
    format!("{kind}_{id:08}")
}

/// An account; the App's bot where there is none of this name.
pub(crate) fn account(inner: &Inner, state: &State, login: &str) -> Value {
    let bot = state.user(login).is_none();
    let id = state.user(login).map_or(APP_ID * 10, |u| u.id);
    let (api, web) = (inner.api(), &inner.web);
    let at = format!("{api}/users/{login}");
    json!({
        "login": login, "id": id, "node_id": node("U", id), "avatar_url": format!("{web}/avatars/u/{id}"),
        "gravatar_id": "", "url": at, "html_url": format!("{web}/{login}"),
        "followers_url": format!("{at}/followers"), "following_url": format!("{at}/following{{/other_user}}"),
        "gists_url": format!("{at}/gists{{/gist_id}}"), "starred_url": format!("{at}/starred{{/owner}}{{/repo}}"),
        "subscriptions_url": format!("{at}/subscriptions"), "organizations_url": format!("{at}/orgs"),
        "repos_url": format!("{at}/repos"), "events_url": format!("{at}/events{{/privacy}}"),
        "received_events_url": format!("{at}/received_events"), "type": if bot { "Bot" } else { "User" },
        "site_admin": false,
    })
}

/// The same as its owner and others see it at `GET /user`.
pub(crate) fn profile(inner: &Inner, state: &State, user: &User) -> Value {
    let mut all = account(inner, state, &user.login);
    extend(
        &mut all,
        json!({
            "name": user.name, "company": null, "blog": "", "location": null, "email": null, "hireable": null,
            "bio": null, "public_repos": 0, "public_gists": 0, "followers": 0, "following": 0,
            "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z",
        }),
    );
    all
}

fn extend(into: &mut Value, more: Value) {
    if let (Value::Object(into), Value::Object(more)) = (into, more) {
        into.extend(more);
    }
}

pub(crate) fn repository(inner: &Inner, state: &State, repo: &Repo) -> Value {
    let (full, web) = (&repo.full_name, &inner.web);
    let at = format!("{}/repos/{full}", inner.api());
    let all: Map<String, Value> = [
        ("forks_url", "/forks"),
        ("keys_url", "/keys{/key_id}"),
        ("collaborators_url", "/collaborators{/collaborator}"),
        ("teams_url", "/teams"),
        ("hooks_url", "/hooks"),
        ("issue_events_url", "/issues/events{/number}"),
        ("events_url", "/events"),
        ("assignees_url", "/assignees{/user}"),
        ("branches_url", "/branches{/branch}"),
        ("tags_url", "/tags"),
        ("blobs_url", "/git/blobs{/sha}"),
        ("git_tags_url", "/git/tags{/sha}"),
        ("git_refs_url", "/git/refs{/sha}"),
        ("trees_url", "/git/trees{/sha}"),
        ("statuses_url", "/statuses/{sha}"),
        ("languages_url", "/languages"),
        ("stargazers_url", "/stargazers"),
        ("contributors_url", "/contributors"),
        ("subscribers_url", "/subscribers"),
        ("subscription_url", "/subscription"),
        ("commits_url", "/commits{/sha}"),
        ("git_commits_url", "/git/commits{/sha}"),
        ("comments_url", "/comments{/number}"),
        ("issue_comment_url", "/issues/comments{/number}"),
        ("contents_url", "/contents/{+path}"),
        ("compare_url", "/compare/{base}...{head}"),
        ("merges_url", "/merges"),
        ("archive_url", "/{archive_format}{/ref}"),
        ("downloads_url", "/downloads"),
        ("issues_url", "/issues{/number}"),
        ("pulls_url", "/pulls{/number}"),
        ("milestones_url", "/milestones{/number}"),
        ("notifications_url", "/notifications{?since,all,participating}"),
        ("labels_url", "/labels{/name}"),
        ("releases_url", "/releases{/id}"),
        ("deployments_url", "/deployments"),
    ]
    .into_iter()
    .map(|(name, path)| (name.to_owned(), json!(format!("{at}{path}"))))
    .collect();
    let more = json!({
        "id": repo.id, "node_id": node("R", repo.id), "name": repo.name(), "full_name": full, "private": repo.private,
        "owner": account(inner, state, repo.owner()), "html_url": format!("{web}/{full}"), "description": null,
        "fork": false, "url": at, "created_at": time(repo.created_at), "updated_at": time(repo.created_at),
        "pushed_at": time(repo.created_at), "git_url": format!("git://standin/{full}.git"),
        "ssh_url": format!("git@standin:{full}.git"), "clone_url": format!("{web}/{full}.git"),
        "svn_url": format!("{web}/{full}"),
    });
    let state_of_it = json!({
        "homepage": null, "size": 1, "stargazers_count": 0, "watchers_count": 0,
        "language": null, "has_issues": true, "has_projects": true, "has_downloads": true, "has_wiki": false,
        "has_pages": false, "has_discussions": false, "forks_count": 0, "mirror_url": null, "archived": false,
        "disabled": false, "open_issues_count": 0, "license": null, "allow_forking": true, "is_template": false,
        "web_commit_signoff_required": false, "topics": [], "visibility": if repo.private { "private" } else { "public" },
        "forks": 0, "open_issues": 0, "watchers": 0, "default_branch": "main", "custom_properties": {},
    });
    let mut all = Value::Object(all);
    extend(&mut all, more);
    extend(&mut all, state_of_it);
    all
}

/// What `GET /repos/{owner}/{repo}` shows beside.
pub(crate) fn full_repository(inner: &Inner, state: &State, repo: &Repo) -> Value {
    let mut all = repository(inner, state, repo);
    extend(&mut all, json!({"network_count": 0, "subscribers_count": 0}));
    all
}

/// A repository in an event about an installation.
pub(crate) fn repository_stub(repo: &Repo) -> Value {
    json!({
        "id": repo.id, "node_id": node("R", repo.id), "name": repo.name(), "full_name": repo.full_name,
        "private": repo.private,
    })
}

pub(crate) fn installation(inner: &Inner, state: &State, of: &Installation) -> Value {
    let api = inner.api();
    json!({
        "id": of.id, "account": account(inner, state, &of.account), "repository_selection": "selected",
        "access_tokens_url": format!("{api}/app/installations/{}/access_tokens", of.id),
        "repositories_url": format!("{api}/installation/repositories"),
        "html_url": format!("{}/settings/installations/{}", inner.web, of.id), "app_id": APP_ID,
        "app_slug": state.app.slug, "target_id": state.user(&of.account).map_or(0, |u| u.id), "target_type": "User",
        "permissions": state.app.permissions, "events": ["push", "pull_request", "pull_request_review"],
        "created_at": time(of.created_at), "updated_at": time(of.created_at), "single_file_name": null,
        "has_multiple_single_files": false, "single_file_paths": [], "suspended_by": null, "suspended_at": null,
    })
}

pub(crate) fn app(inner: &Inner, state: &State) -> Value {
    json!({
        "id": APP_ID, "slug": state.app.slug, "node_id": node("A", APP_ID), "client_id": CLIENT_ID,
        "owner": account(inner, state, "hotbed"), "name": state.app.name, "description": null,
        "external_url": "https://hotbed.example", "html_url": format!("{}/apps/{}", inner.web, state.app.slug),
        "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z",
        "permissions": state.app.permissions, "events": ["push", "pull_request", "pull_request_review"],
        "installations_count": state.installations.len(),
    })
}

/// A pull request; `whole` with what only a single one shows.
pub(crate) fn pull(inner: &Inner, state: &State, pull: &Pull, whole: bool) -> Value {
    let web = &inner.web;
    let (at, page) =
        (format!("{}/repos/{}", inner.api(), pull.repo), format!("{web}/{}/pull/{}", pull.repo, pull.number));
    let n = pull.number;
    let repo = state.repo(&pull.repo).map_or(Value::Null, |r| repository(inner, state, r));
    let owner = pull.repo.split('/').next().unwrap_or_default();
    let side = |branch: &str, sha: &str| {
        json!({
            "label": format!("{owner}:{branch}"), "ref": branch, "sha": sha, "user": account(inner, state, owner),
            "repo": repo,
        })
    };
    let merged = pull.state == PullState::Merged;
    let links = [
        ("self", format!("{at}/pulls/{n}")),
        ("html", page.clone()),
        ("issue", format!("{at}/issues/{n}")),
        ("comments", format!("{at}/issues/{n}/comments")),
        ("review_comments", format!("{at}/pulls/{n}/comments")),
        ("review_comment", format!("{at}/pulls/comments{{/number}}")),
        ("commits", format!("{at}/pulls/{n}/commits")),
        ("statuses", format!("{at}/statuses/{}", pull.head_sha)),
    ];
    let links: Map<String, Value> =
        links.into_iter().map(|(k, href)| (k.to_owned(), json!({"href": href}))).collect();
    let mut all = json!({
        "url": format!("{at}/pulls/{n}"), "id": pull.id, "node_id": node("PR", pull.id), "html_url": page,
        "diff_url": format!("{page}.diff"), "patch_url": format!("{page}.patch"),
        "issue_url": format!("{at}/issues/{n}"), "number": n,
        "state": if pull.state == PullState::Open { "open" } else { "closed" }, "locked": false, "title": pull.title,
        "user": account(inner, state, &pull.author), "body": pull.body, "created_at": time(pull.created_at),
        "updated_at": time(pull.updated_at), "closed_at": pull.closed_at.map(time),
        "merged_at": pull.closed_at.filter(|_| merged).map(time), "merge_commit_sha": pull.merge_sha, "assignee": null,
        "assignees": [], "requested_reviewers": [], "requested_teams": [], "labels": [], "milestone": null,
        "draft": pull.draft, "commits_url": format!("{at}/pulls/{n}/commits"),
        "review_comments_url": format!("{at}/pulls/{n}/comments"),
        "review_comment_url": format!("{at}/pulls/comments{{/number}}"),
        "comments_url": format!("{at}/issues/{n}/comments"), "statuses_url": format!("{at}/statuses/{}", pull.head_sha),
        "head": side(&pull.head, &pull.head_sha), "base": side(&pull.base, &pull.base_sha), "_links": links,
        "author_association": "CONTRIBUTOR", "auto_merge": null, "active_lock_reason": null,
    });
    if whole {
        extend(
            &mut all,
            json!({
                "merged": merged, "mergeable": if merged { Value::Null } else { json!(true) }, "rebaseable": null,
                "mergeable_state": "unknown",
                "merged_by": pull.merged_by.as_ref().map(|by| account(inner, state, by)), "comments": 0,
                "review_comments": 0, "maintainer_can_modify": false, "commits": pull.commits, "additions": 1,
                "deletions": 0, "changed_files": 1,
            }),
        );
    }
    all
}
