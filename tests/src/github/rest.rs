//! The REST routes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::authority::{Who, reach};
use super::state::{Bearer, PullState, State, Token};
use super::{CLIENT_ID, Inner, hooks, objects, pulls};

/// A question, taken apart.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub method: String,
    /// The pieces of the path below the base.
    pub path: Vec<String>,
    pub query: BTreeMap<String, String>,
    pub body: Option<Value>,
    pub who: Who,
}

impl Question {
    pub fn text(&self, field: &str) -> Option<&str> {
        self.body.as_ref()?.get(field)?.as_str()
    }

    fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Option<Value>,
}

pub(crate) type Answered = Result<Reply, Reply>;

impl Reply {
    pub fn new(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), body: Some(body) }
    }

    pub fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    pub fn error(status: u16, message: &str) -> Self {
        let page = "https://docs.github.com/rest";
        Self::new(
            status,
            json!({"message": message, "documentation_url": page, "status": status.to_string()}),
        )
    }

    /// A 422 with one error.
    pub fn invalid(error: Value) -> Self {
        let page = "https://docs.github.com/rest";
        let body = json!({"message": "Validation Failed", "errors": [error], "documentation_url": page, "status": "422"});
        Self::new(422, body)
    }

    pub fn moved(id: u64) -> Self {
        let mut reply =
            Self::new(301, json!({"message": "Moved Permanently", "url": format!("/repositories/{id}")}));
        reply.headers.push(("location".into(), format!("/repositories/{id}")));
        reply
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// Works a question off.
pub(crate) async fn answer(inner: &std::sync::Arc<Inner>, q: &Question) -> Reply {
    let path: Vec<&str> = q.path.iter().map(String::as_str).collect();
    let outcome = match (q.method.as_str(), path.as_slice()) {
        ("GET", ["app"]) => as_app(q).map(|()| Reply::new(200, objects::app(inner, &inner.state()))),
        ("GET", ["app", "installations"]) => as_app(q).map(|()| installations(inner, None)),
        ("GET", ["app", "installations", id]) => as_app(q).and_then(|()| one_installation(inner, id)),
        ("POST", ["app", "installations", id, "access_tokens"]) => {
            as_app(q).and_then(|()| mint(inner, q, id))
        }
        ("GET", ["app", "hook", "deliveries"]) => as_app(q).map(|()| hooks::list(inner, q.query("status"))),
        ("POST", ["app", "hook", "deliveries", id, "attempts"]) => match as_app(q) {
            Ok(()) => hooks::again(inner, id).await,
            Err(e) => Err(e),
        },
        ("GET", ["repos", owner, repo, "installation"]) => {
            as_app(q).and_then(|()| repo_installation(inner, &format!("{owner}/{repo}")))
        }
        ("GET", ["installation", "repositories"]) => installation_repositories(inner, q),
        ("DELETE", ["installation", "token"]) => end_installation_token(inner, q),
        ("GET", ["user"]) => me(inner, q),
        ("GET", ["user", "installations"]) => user_installations(inner, q),
        ("GET", ["user", "installations", id, "repositories"]) => user_repositories(inner, q, id),
        ("GET", ["users", login]) => {
            let state = inner.state();
            let user = state.user(login).ok_or_else(|| Reply::error(404, "Not Found"));
            user.map(|u| Reply::new(200, objects::profile(inner, &state, u)))
        }
        ("POST" | "PATCH" | "DELETE", ["applications", CLIENT_ID, what @ ("token" | "grant")]) => {
            application(inner, q, what)
        }
        ("GET", ["rate_limit"]) => Ok(rate_limit(inner)),
        ("GET", ["repos", owner, repo]) => {
            let state = inner.state();
            reach(&state, &q.who, &format!("{owner}/{repo}"), "metadata", false)
                .map(|r| Reply::new(200, objects::full_repository(inner, &state, r)))
        }
        ("GET", ["repos", owner, repo, "branches"]) => branches(inner, q, &format!("{owner}/{repo}")),
        (_, ["repos", owner, repo, "pulls", rest @ ..]) => {
            pulls::answer(inner, q, &format!("{owner}/{repo}"), rest).await
        }
        _ => Err(Reply::error(404, "Not Found")),
    };
    outcome.unwrap_or_else(|refused| refused)
}

fn as_app(q: &Question) -> Result<(), Reply> {
    match q.who {
        Who::App => Ok(()),
        Who::Nobody => Err(Reply::error(401, "Requires authentication")),
        _ => Err(Reply::error(403, "Resource not accessible by integration")),
    }
}

fn installations(inner: &Inner, of: Option<&[u64]>) -> Reply {
    let state = inner.state();
    let all = state.installations.values().filter(|i| of.is_none_or(|ids| ids.contains(&i.id)));
    Reply::new(200, all.map(|i| objects::installation(inner, &state, i)).collect())
}

fn one_installation(inner: &Inner, id: &str) -> Answered {
    let state = inner.state();
    let found = id.parse().ok().and_then(|id: u64| state.installations.get(&id));
    let found = found.ok_or_else(|| Reply::error(404, "Not Found"))?;
    Ok(Reply::new(200, objects::installation(inner, &state, found)))
}

fn repo_installation(inner: &Inner, full_name: &str) -> Answered {
    let state = inner.state();
    if let Some(id) = state.moved.get(&full_name.to_ascii_lowercase()) {
        return Err(Reply::moved(*id));
    }
    let id =
        state.repo(full_name).and_then(|r| r.installation).ok_or_else(|| Reply::error(404, "Not Found"))?;
    Ok(Reply::new(200, objects::installation(inner, &state, &state.installations[&id])))
}

fn mint(inner: &Inner, q: &Question, id: &str) -> Answered {
    let mut state = inner.state();
    let now = now(inner, &state);
    let found = id.parse().ok().and_then(|id: u64| state.installations.get(&id)).cloned();
    let found = found.ok_or_else(|| Reply::error(404, "Not Found"))?;
    if found.suspended {
        return Err(Reply::error(403, "This installation has been suspended"));
    }
    let empty = json!({});
    let body = q.body.as_ref().unwrap_or(&empty);
    let mut permissions = state.app.permissions.clone();
    if let Some(wanted) = body["permissions"].as_object() {
        let enough = |name: &str, grade: &str| {
            let granted = permissions.get(name).map(String::as_str);
            granted == Some("write") || (granted, grade) == (Some("read"), "read")
        };
        if !wanted.iter().all(|(name, grade)| enough(name, grade.as_str().unwrap_or_default())) {
            let words = "The permissions requested are not granted to this installation.";
            return Err(Reply::new(
                422,
                json!({"message": words, "documentation_url": "https://docs.github.com/rest"}),
            ));
        }
        permissions =
            wanted.iter().map(|(n, g)| (n.clone(), g.as_str().unwrap_or_default().to_owned())).collect();
        permissions.entry("metadata".into()).or_insert("read".into());
    }
    let reachable: Vec<_> =
        state.repos.values().filter(|r| r.installation == Some(found.id)).cloned().collect();
    let named = body["repositories"].as_array().filter(|a| !a.is_empty());
    let numbered = body["repository_ids"].as_array().filter(|a| !a.is_empty());
    let chosen = match (named, numbered) {
        (None, None) => None,
        _ => {
            let by_name =
                named.into_iter().flatten().map(|n| reachable.iter().find(|r| Some(r.name()) == n.as_str()));
            let by_id =
                numbered.into_iter().flatten().map(|n| reachable.iter().find(|r| Some(r.id) == n.as_u64()));
            let chosen: Option<Vec<_>> = by_name.chain(by_id).map(|r| r.cloned()).collect();
            Some(chosen.ok_or_else(|| {
                let words = "There is at least one repository that does not exist or is not accessible to the parent installation.";
                Reply::new(422, json!({"message": words, "documentation_url": "https://docs.github.com/rest"}))
            })?)
        }
    };
    let token = state.secret("ghs_");
    let expires_at = now + jiff::SignedDuration::from_hours(1);
    let bearer = Bearer::Installation {
        id: found.id,
        repos: chosen.as_ref().map(|all| all.iter().map(|r| r.id).collect()),
        permissions: permissions.clone(),
    };
    state.tokens.insert(token.clone(), Token { bearer, expires_at: Some(expires_at) });
    let mut body = json!({
        "token": token, "expires_at": objects::time(expires_at), "permissions": permissions,
        "repository_selection": "selected",
    });
    if let Some(chosen) = chosen {
        body["repositories"] = chosen.iter().map(|r| objects::repository(inner, &state, r)).collect();
    }
    Ok(Reply::new(201, body))
}

/// The stand-in's own time.
pub(crate) fn now(inner: &Inner, state: &State) -> jiff::Timestamp {
    inner.clock.now() + state.skew
}

fn installation_repositories(inner: &Inner, q: &Question) -> Answered {
    let Who::Token { bearer: Bearer::Installation { id, repos, .. }, .. } = &q.who else {
        return Err(Reply::error(403, "Resource not accessible by integration"));
    };
    let state = inner.state();
    let all: Vec<_> = state
        .repos
        .values()
        .filter(|r| r.installation == Some(*id) && repos.as_ref().is_none_or(|ids| ids.contains(&r.id)))
        .map(|r| objects::repository(inner, &state, r))
        .collect();
    Ok(Reply::new(
        200,
        json!({"total_count": all.len(), "repository_selection": "selected", "repositories": all}),
    ))
}

fn end_installation_token(inner: &Inner, q: &Question) -> Answered {
    let Who::Token { token, bearer: Bearer::Installation { .. } } = &q.who else {
        return Err(Reply::error(401, "Bad credentials"));
    };
    inner.state().tokens.remove(token);
    Ok(Reply::empty(204))
}

fn login_of(q: &Question) -> Result<String, Reply> {
    match &q.who {
        Who::Token { bearer: Bearer::User { login, .. } | Bearer::Personal { login }, .. } => {
            Ok(login.clone())
        }
        Who::Token { .. } => Err(Reply::error(403, "Resource not accessible by integration")),
        _ => Err(Reply::error(401, "Requires authentication")),
    }
}

fn me(inner: &Inner, q: &Question) -> Answered {
    let login = login_of(q)?;
    let state = inner.state();
    let user = state.user(&login).ok_or_else(|| Reply::error(401, "Bad credentials"))?;
    Ok(Reply::new(200, objects::profile(inner, &state, user)))
}

fn user_installations(inner: &Inner, q: &Question) -> Answered {
    let login = login_of(q)?;
    let ids: Vec<u64> = {
        let state = inner.state();
        let mine = state.repos.values().filter(|r| r.collaborators.contains_key(&login.to_ascii_lowercase()));
        mine.filter_map(|r| r.installation).collect()
    };
    let all = installations(inner, Some(&ids)).body.unwrap_or_default();
    Ok(Reply::new(200, json!({"total_count": all.as_array().map_or(0, Vec::len), "installations": all})))
}

fn user_repositories(inner: &Inner, q: &Question, id: &str) -> Answered {
    let login = login_of(q)?.to_ascii_lowercase();
    let state = inner.state();
    let id: u64 = id.parse().map_err(|_| Reply::error(404, "Not Found"))?;
    let mine =
        state.repos.values().filter(|r| r.installation == Some(id) && r.collaborators.contains_key(&login));
    let all: Vec<_> = mine.map(|r| objects::repository(inner, &state, r)).collect();
    Ok(Reply::new(200, json!({"total_count": all.len(), "repositories": all})))
}

/// What the App as an OAuth client may do with a user's token: check, reset, delete; and end the whole grant.
fn application(inner: &Inner, q: &Question, what: &str) -> Answered {
    if !matches!(q.who, Who::Client) {
        return Err(Reply::error(401, "Requires authentication"));
    }
    let token = q.text("access_token").unwrap_or_default().to_owned();
    let mut state = inner.state();
    let known = state.tokens.get(&token).map(|t| t.bearer.clone());
    let Some(Bearer::User { login, .. }) = known else { return Err(Reply::error(404, "Not Found")) };
    match (q.method.as_str(), what) {
        ("DELETE", "token") => {
            state.tokens.remove(&token);
            state.refresh.retain(|_, r| r.access != token);
            Ok(Reply::empty(204))
        }
        ("DELETE", "grant") => {
            end_grant(&mut state, &login);
            Ok(Reply::empty(204))
        }
        ("POST", "token") => {
            let user = objects::account(inner, &state, &login);
            let last: String = token.chars().skip(token.len().saturating_sub(8)).collect();
            Ok(Reply::new(
                200,
                json!({
                    "id": 1, "url": format!("{}/authorizations/1", inner.api()), "scopes": [], "token": token,
                    "token_last_eight": last, "hashed_token": "0".repeat(64), "note": null, "note_url": null,
                    "app": {"client_id": CLIENT_ID, "name": state.app.name, "url": inner.web},
                    "created_at": "2020-01-01T00:00:00Z", "updated_at": "2020-01-01T00:00:00Z", "fingerprint": null,
                    "expires_at": null, "user": user,
                }),
            ))
        }
        _ => Err(Reply::error(404, "Not Found")),
    }
}

/// Ends all tokens that the App has for a user.
pub(crate) fn end_grant(state: &mut State, login: &str) {
    let of =
        |bearer: &Bearer| matches!(bearer, Bearer::User { login: l, .. } if l.eq_ignore_ascii_case(login));
    state.tokens.retain(|_, t| !of(&t.bearer));
    state.refresh.retain(|_, r| !r.login.eq_ignore_ascii_case(login));
}

fn rate_limit(inner: &Inner) -> Reply {
    let state = inner.state();
    let (left, reset) = state.limit.map_or((5000, 0), |l| (l.left, l.reset.as_second()));
    let one = json!({"limit": 5000, "remaining": left, "reset": reset, "used": 5000 - left});
    Reply::new(200, json!({"resources": {"core": one, "search": one}, "rate": one}))
}

fn branches(inner: &Inner, q: &Question, full_name: &str) -> Answered {
    reach(&inner.state(), &q.who, full_name, "contents", false)?;
    let all = git::hosting::BareRepo::at(inner.repo_dir(full_name)).references().unwrap_or_default();
    let all = all.iter().filter_map(|(name, id)| {
        let name = name.strip_prefix("refs/heads/")?;
        let url = format!("{}/repos/{full_name}/commits/{id}", inner.api());
        Some(json!({"name": name, "commit": {"sha": id, "url": url}, "protected": false}))
    });
    Ok(Reply::new(200, all.collect()))
}

impl PullState {
    pub(crate) fn word(self) -> &'static str {
        if self == Self::Open { "open" } else { "closed" }
    }
}
