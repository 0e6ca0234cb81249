//! Who calls, and whether they may: every request with a key goes through here before any handler.

use std::sync::Arc;
use std::task::Poll;

use axum::RequestExt as _;
use axum::body::{Body, HttpBody as _};
use axum::extract::{MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use domain::{Error, KeyId, Reach, RepoName, Result, SessionId, SharedClock};

use futures_util::StreamExt as _;

use super::audit::Asked;
use super::{ApiError, Hotbed, parse, problem, sessions};
use crate::access::routes::{About, Found, Route, find};
use crate::access::{Credential, Holder, Person};
use crate::app::App;
use crate::repos;
use crate::warmups::{Grant, is_token};

/// Who calls.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Somebody with an API key.
    Key(Arc<Holder>),
    /// A web page, with what its token grants: announcing and withdrawing, and nothing else.
    Page(Grant),
}

impl Caller {
    /// What a rate is counted by.
    pub fn rate_key(&self) -> String {
        match self {
            Self::Key(holder) => format!("key {}", holder.space),
            Self::Page(grant) => format!("page {}", grant.client),
        }
    }

    /// What is recorded of who did something.
    pub fn name(&self) -> &str {
        match self {
            Self::Key(holder) => &holder.name,
            Self::Page(grant) => &grant.client,
        }
    }

    pub fn key(&self) -> Option<KeyId> {
        match self {
            Self::Key(holder) => holder.key(),
            Self::Page(_) => None,
        }
    }

    /// Whose `Idempotency-Key`s are his own. A page makes nothing that takes one.
    pub fn space(&self) -> &str {
        match self {
            Self::Key(holder) => &holder.space,
            Self::Page(grant) => &grant.client,
        }
    }

    /// Who it is among people, where that is known.
    pub fn person(&self) -> Option<&Person> {
        match self {
            Self::Key(holder) => holder.person.as_ref(),
            Self::Page(_) => None,
        }
    }

    /// `Denied` for somebody who may speak for himself alone, about another.
    pub fn must_be(&self, login: &str) -> Result<()> {
        match self.person() {
            Some(person) if !person.may_name_others && !person.login.eq_ignore_ascii_case(login.trim()) => {
                Err(Error::denied(format!("`{}` may not act for `{}`", person.login, login.trim())))
            }
            _ => Ok(()),
        }
    }

    /// Returns when what was shown opens nothing any more.
    pub async fn over(&self, clock: &SharedClock) {
        match self {
            Self::Key(holder) => holder.over(clock).await,
            // It opens nothing that lasts.
            Self::Page(_) => std::future::pending().await,
        }
    }

    fn reach(&self) -> &Reach {
        match self {
            Self::Key(holder) => &holder.reach,
            // What a page may do is said by its grant.
            Self::Page(_) => &Reach::All,
        }
    }

    pub fn is_limited(&self) -> bool {
        self.reach().only().is_some()
    }

    pub fn covers(&self, repo: &RepoName) -> bool {
        self.reach().covers(repo)
    }

    /// `NotFound`, as for a repo that is not configured.
    pub fn must_cover(&self, repo: &RepoName) -> Result<()> {
        if self.covers(repo) { Ok(()) } else { Err(repos::unknown(repo)) }
    }

    /// The repos that a list is about, where one was asked for or the key is limited.
    pub fn among(&self, asked: Option<RepoName>) -> Option<Vec<RepoName>> {
        match (asked, self.reach().only()) {
            (Some(repo), _) if self.covers(&repo) => Some(vec![repo]),
            (Some(_), _) => Some(Vec::new()),
            (None, only) => only.map(|repos| repos.iter().cloned().collect()),
        }
    }
}

/// What a page's token is good for.
fn open_to_pages(route: &Route) -> bool {
    matches!((route.method, route.path), ("POST", "/v1/warmups") | ("DELETE", "/v1/warmups/{id}"))
}

/// Every route but health, readiness and webhooks needs a key; two of the warm-ups' take a page's token as well.
pub async fn authenticate(
    State(app): Hotbed,
    path: Option<MatchedPath>,
    headers: HeaderMap,
    mut request: Request,
    next: Next,
) -> Response {
    let shown = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer "))
        .map(str::trim);
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let found = find(request.method().as_str(), path);
    let caller = match who(&app, shown).await {
        Ok(caller) => caller,
        Err(detail) => {
            if shown.is_some() {
                app.metrics.token_refused("api");
            }
            let route = if let Found::Route(route) = found { Some(route) } else { None };
            Asked::now(&app, &request).unknown(&app, route);
            return unauthorized(&detail);
        }
    };
    let route = match found {
        Found::Route(route) => route,
        Found::OtherMethods => return method_not_allowed(request.method(), request.uri().path()),
        Found::Nowhere => return denied("this route is open to nobody"),
    };
    let refused = match &caller {
        Caller::Page(_) if open_to_pages(route) => None,
        Caller::Page(_) => {
            app.metrics.token_refused("api");
            Some(unauthorized("this token announces and withdraws warm-ups, and does nothing else"))
        }
        Caller::Key(holder) => judge(&app, holder, route, &mut request).await.err(),
    };
    let asked = Asked::now(&app, &request);
    let response = match refused {
        Some(refused) => refused,
        None => {
            request.extensions_mut().insert(caller.clone());
            next.run(request).await
        }
    };
    asked.answered(&app, &caller, route, &response);
    until_over(response, caller, app.clock.clone())
}

/// What an answer streams ends when what it was opened with does: broken off, so that nobody takes a part for the whole.
fn until_over(response: Response, caller: Caller, clock: SharedClock) -> Response {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    let (parts, body) = response.into_parts();
    let over = async move { caller.over(&clock).await };
    let ended = futures_util::stream::once(over)
        .map(|()| Err(axum::Error::new(std::io::Error::other("the key or token is good no longer"))));
    let mut body = body.into_data_stream();
    let mut ended = Box::pin(ended);
    let both = futures_util::stream::poll_fn(move |cx| match ended.poll_next_unpin(cx) {
        Poll::Ready(Some(end)) => Poll::Ready(Some(end)),
        _ => body.poll_next_unpin(cx),
    });
    Response::from_parts(parts, Body::from_stream(both))
}

/// Who shows this; else why it opens nothing.
async fn who(app: &App, shown: Option<&str>) -> std::result::Result<Caller, String> {
    match shown {
        None => {
            Err("send an API key as `Authorization: Bearer …`; the installation's own is in `api.key` in the state directory"
                .into())
        }
        Some(token) if is_token(token) => app.warmups.grant(token).map(Caller::Page).map_err(|e| e.to_string()),
        Some(key) => app.access.who(key).await.map(Caller::Key),
    }
}

/// Whether the holder of a key may do this now.
async fn judge(
    app: &Arc<App>,
    holder: &Holder,
    route: &Route,
    request: &mut Request,
) -> std::result::Result<(), Response> {
    // The installation's own key is who mends it when it is under load.
    if holder.credential != Credential::Installation
        && let Err(wait) = app.access.rate().check(&holder.space)
    {
        return Err(problem::too_often("this key asks too often", wait));
    }
    if holder.role < route.least {
        return Err(denied(&format!(
            "`{} {}` needs the role `{}`, and the key `{}` has `{}`",
            route.method, route.path, route.least, holder.name, holder.role
        )));
    }
    let Reach::Only(_) = &holder.reach else { return Ok(()) };
    match route.about {
        About::Nothing | About::Found => Ok(()),
        About::Installation => Err(denied(&format!(
            "`{} {}` is about the whole installation, and the key `{}` is limited to repos",
            route.method, route.path, holder.name
        ))),
        about => within(app, holder, about, request).await.map_err(|e| ApiError(e).into_response()),
    }
}

/// `NotFound` for what is of another repo, in the words for what is not there at all. What is wrong or unknown is for
/// the handler to say.
async fn within(app: &Arc<App>, holder: &Holder, about: About, request: &mut Request) -> Result<()> {
    let Ok(params) = request.extract_parts::<RawPathParams>().await else {
        return Err(Error::permanent("read the path of a request"));
    };
    let param = |name: &str| params.iter().find(|(n, _)| *n == name).map(|(_, v)| v).unwrap_or_default();
    if about == About::Repo {
        let repo: RepoName = parse("repo", &format!("{}/{}", param("owner"), param("name")))?;
        return if holder.reach.covers(&repo) { Ok(()) } else { Err(repos::unknown(&repo)) };
    }
    let id = param("id");
    match owner_of(app, &holder.space, about, id).await? {
        Some(repo) if !holder.reach.covers(&repo) => Err(Error::not_found(match about {
            About::Session => format!("there is no session {id}"),
            About::Build => format!("there is no build {id}"),
            About::Image => format!("there is no image {id} (`hotbed image ls` lists them)"),
            About::Snapshot => format!("there is no snapshot {id}"),
            _ => format!("there is no warm-up {id}"),
        })),
        _ => Ok(()),
    }
}

/// The repo of what has this id; nothing where there is none, or the text is no id.
async fn owner_of(app: &Arc<App>, space: &str, about: About, id: &str) -> Result<Option<RepoName>> {
    Ok(match about {
        About::Session => match sessions::session_id(app, space, id) {
            Ok(id) => session_repo(app, id).await?,
            Err(_) => None,
        },
        About::Build => match id.parse() {
            Ok(id) => app.store.build(id).await?.map(|r| r.repo),
            Err(_) => None,
        },
        About::Image => match id.parse() {
            Ok(id) => app.images.get(id).ok().map(|r| r.repo),
            Err(_) => None,
        },
        About::Snapshot => match id.parse() {
            Ok(id) => app.store.snapshot(id).await?.map(|r| r.repo),
            Err(_) => None,
        },
        About::Warmup => match id.parse() {
            Ok(id) => match app.warmups.get(id) {
                Some(live) => Some(live.repo.clone()),
                None => app.store.warmup(id).await?.map(|r| r.repo),
            },
            Err(_) => None,
        },
        About::Nothing | About::Installation | About::Repo | About::Found => None,
    })
}

async fn session_repo(app: &Arc<App>, id: SessionId) -> Result<Option<RepoName>> {
    match app.sessions.live(id) {
        Some(live) => Ok(Some(live.repo.clone())),
        None => Ok(app.store.session(id).await?.map(|r| r.repo)),
    }
}

fn unauthorized(detail: &str) -> Response {
    let mut response = problem::respond(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    let scheme = header::HeaderValue::from_static("Bearer");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    response
}

fn denied(detail: &str) -> Response {
    problem::respond(StatusCode::FORBIDDEN, "denied", detail)
}

pub(super) fn method_not_allowed(method: &Method, path: &str) -> Response {
    let detail = format!("{path} does not take {method}");
    problem::respond(StatusCode::METHOD_NOT_ALLOWED, "invalid", &detail)
}
