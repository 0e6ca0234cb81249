//! Signing in, and what users have signed in with. A token goes in and never comes out.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::ports::UserToken;
use domain::{Error, Result, SessionId, SessionRecord};
use github::{DevicePoll, Standing};

use super::types::{
    BeginDeviceSignIn, BeginWebSignIn, DeviceSignInPoll, DeviceSignInView, FinishWebSignIn, HandToken, List,
    Token, UserView, WebSignInView,
};
use super::{ApiResult, Caller, Hotbed, Payload, parse};
use crate::app::App;
use crate::github::People;

fn people(app: &App) -> Result<&People> {
    let github = app.github.as_ref();
    github
        .map(|g| &*g.people)
        .ok_or_else(|| Error::invalid("nobody signs in here: the forge of this Hotbed is not GitHub"))
}

/// GitHub's number of the one repository that a sign-in is to be for.
///
/// Errors: `Invalid` and `NotFound` for a name that is none, or none of a configured repo; those of asking GitHub.
async fn narrowed(app: &App, repo: Option<&String>) -> Result<Option<u64>> {
    let (Some(repo), Some(github)) = (repo, &app.github) else { return Ok(None) };
    let repo = parse("repo", repo)?;
    app.repos.spec(&repo)?;
    github.app.repository(&repo).await.map(|facts| Some(facts.id))
}

/// Begin a sign-in by device: show the user the code and the address, then ask how it stands. With `repo` the token reaches that repository alone.
#[utoipa::path(post, path = "/v1/sign-ins/device", tag = "users", operation_id = "begin_device_sign_in", request_body = BeginDeviceSignIn, responses((status = 201, body = DeviceSignInView)))]
pub async fn device_begin(State(app): Hotbed, body: Payload<BeginDeviceSignIn>) -> ApiResult<Response> {
    let users = people(&app)?.users()?;
    let begun = users.begin_device(narrowed(&app, body.value.repo.as_ref()).await?).await?;
    let view = DeviceSignInView {
        id: begun.id,
        user_code: begun.user_code,
        verification_uri: begun.verification_uri,
        interval_seconds: begun.interval.as_secs(),
        ends_at: begun.ends_at,
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// How a sign-in by device stands. GitHub is asked no more often than it wants to be, however often this is.
#[utoipa::path(post, path = "/v1/sign-ins/device/{id}", tag = "users", operation_id = "poll_device_sign_in", responses((status = 200, body = DeviceSignInPoll)))]
pub async fn device_poll(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<DeviceSignInPoll>> {
    let people = people(&app)?;
    let said = |state: &str| DeviceSignInPoll { state: state.into(), again_in_seconds: None, user: None };
    Ok(Json(match people.users()?.poll_device(&id).await? {
        DevicePoll::Pending { again_in } => DeviceSignInPoll {
            again_in_seconds: Some(again_in.max(Duration::from_secs(1)).as_secs()),
            ..said("pending")
        },
        DevicePoll::Done(account) => {
            people.welcome(&account);
            DeviceSignInPoll { user: Some(UserView::of(&account, true, None)), ..said("done") }
        }
        DevicePoll::Refused => said("refused"),
        DevicePoll::Expired => said("expired"),
    }))
}

/// Begin a sign-in by the web: send the browser to `url`. Keep `state` with that browser; a state from another one is an attack. With `repo` the token reaches that repository alone.
#[utoipa::path(post, path = "/v1/sign-ins/web", tag = "users", operation_id = "begin_web_sign_in", request_body = BeginWebSignIn, responses((status = 201, body = WebSignInView)))]
pub async fn web_begin(State(app): Hotbed, body: Payload<BeginWebSignIn>) -> ApiResult<Response> {
    let users = people(&app)?.users()?;
    let repository = narrowed(&app, body.value.repo.as_ref()).await?;
    let begun = users.begin_web(&body.value.redirect_uri, repository)?;
    let view = WebSignInView { url: begun.url, state: begun.state, ends_at: begun.ends_at };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// End a sign-in by the web with what came back to `redirect_uri`. A state is good once.
#[utoipa::path(post, path = "/v1/sign-ins/web/finish", tag = "users", operation_id = "finish_web_sign_in", request_body = FinishWebSignIn, responses((status = 200, body = UserView)))]
pub async fn web_finish(State(app): Hotbed, body: Payload<FinishWebSignIn>) -> ApiResult<Json<UserView>> {
    let people = people(&app)?;
    let account = people.users()?.finish_web(&body.value.state, &body.value.code).await?;
    people.welcome(&account);
    Ok(Json(UserView::of(&account, true, None)))
}

/// Everybody who has signed in, or had.
#[utoipa::path(get, path = "/v1/users", tag = "users", operation_id = "list_users", responses((status = 200, body = List<UserView>)))]
pub async fn list(State(app): Hotbed) -> ApiResult<Json<List<UserView>>> {
    let all = people(&app)?.users()?.accounts().await?;
    let items = all.iter().map(|(account, signed_in)| UserView::of(account, *signed_in, None)).collect();
    Ok(Json(List { items, next: None }))
}

/// How Hotbed stands with one user. A token whose time runs out is refreshed by it.
#[utoipa::path(get, path = "/v1/users/{login}", tag = "users", operation_id = "get_user", responses((status = 200, body = UserView)))]
pub async fn read(State(app): Hotbed, Path(login): Path<String>) -> ApiResult<Json<UserView>> {
    let users = people(&app)?.users()?;
    let standing = users.standing(&login).await?;
    let known = users.accounts().await?.into_iter().find(|(a, _)| a.login.eq_ignore_ascii_case(&login));
    let (Some((account, _)), standing) = (known, standing) else {
        return Err(Error::not_found(format!("{login} has never signed in")).into());
    };
    Ok(Json(match standing {
        Standing::SignedIn(_) => UserView::of(&account, true, None),
        Standing::SignInAgain { why } => UserView::of(&account, false, Some(why)),
        Standing::Unknown => UserView::of(&account, false, None),
    }))
}

/// Keep a personal access token of a user. It takes the place of what was there.
#[utoipa::path(put, path = "/v1/users/{login}/token", tag = "users", operation_id = "keep_user_token", request_body = HandToken, responses((status = 200, body = UserView)))]
pub async fn keep_token(
    State(app): Hotbed,
    Path(login): Path<String>,
    body: Payload<HandToken>,
) -> ApiResult<Json<UserView>> {
    let people = people(&app)?;
    let users = people.users()?;
    let token = taken(&body.value.token)?;
    let whose = users.whoami(&token).await?;
    if !whose.login.eq_ignore_ascii_case(&login) {
        return Err(Error::invalid(format!("the token is {}'s, not {login}'s", whose.login)).into());
    }
    let account = users.keep_personal(token).await?;
    people.welcome(&account);
    Ok(Json(UserView::of(&account, true, None)))
}

/// Sign a user out, here and at GitHub.
#[utoipa::path(delete, path = "/v1/users/{login}", tag = "users", operation_id = "sign_out_user", responses((status = 204)))]
pub async fn sign_out(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(login): Path<String>,
) -> ApiResult<StatusCode> {
    caller.must_be(&login)?;
    people(&app)?.users()?.sign_out(&login).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Hand over a token of the session's user, for this session alone. It is kept in memory, and gone with the session or a restart.
#[utoipa::path(put, path = "/v1/sessions/{id}/user-token", tag = "users", operation_id = "hand_user_token", request_body = HandToken, responses((status = 204)))]
pub async fn hand(
    State(app): Hotbed,
    Path(id): Path<String>,
    body: Payload<HandToken>,
) -> ApiResult<StatusCode> {
    let id: SessionId = parse("id", &id)?;
    let session = app.sessions.require(id).await?;
    hand_over(&app, &session.record(), taken(&body.value.token)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The row says so before the token is there: what is lost with the process is known to be missing.
pub(super) async fn hand_over(app: &App, session: &SessionRecord, token: UserToken) -> Result<()> {
    let people = people(app)?;
    app.sessions.token_handed(session.id).await?;
    people.hand(session.id, token.of(&session.user.login));
    Ok(())
}

/// A token as a client sends it.
pub(super) fn taken(token: &Token) -> Result<UserToken> {
    let text = token.0.trim();
    let good = (1..=4096).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if good {
        Ok(UserToken::new(text))
    } else {
        Err(Error::invalid("`token` is no token: expected 1 to 4096 characters without blanks"))
    }
}
