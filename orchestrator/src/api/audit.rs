//! The audit log: what is noted of a request that was answered, and how it is read.

use axum::Json;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::response::Response;
use axum::serve::IncomingStream;
use domain::{AuditEntry, Error, SessionId};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::caller::Caller;
use super::types::{AuditView, List};
use super::{ApiResult, Hotbed};
use crate::access::routes::Route;
use crate::app::App;
use crate::audit::NOBODY;
use crate::endpoint::Endpoint;

/// Where a request came from.
#[derive(Debug, Clone)]
pub struct Peer(String);

impl Connected<IncomingStream<'_, Endpoint>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Endpoint>) -> Self {
        Self(stream.remote_addr().clone())
    }
}

/// On an answer: the id of what was made.
#[derive(Debug, Clone)]
pub struct Made(pub String);

/// What is noted before a request is handled.
pub struct Asked {
    at: Timestamp,
    from: String,
    subject: String,
}

/// Routes that change nothing, or are called with every key that is typed.
const UNHEARD: [&str; 5] = [
    "/v1/warmups",
    "/v1/sign-ins/device/{id}",
    "/v1/sessions/{id}/exec/{exec}/input",
    "/v1/sessions/{id}/exec/{exec}/resize",
    "/v1/warmups/{id}",
];

/// Whether what is done there is noted. A terminal is opened by a GET, and runs what is typed.
fn counts(route: &Route) -> bool {
    let changes = route.method != "GET" || route.path.ends_with("/terminal");
    changes && !UNHEARD.contains(&route.path)
}

impl Asked {
    pub fn now(app: &App, request: &Request) -> Self {
        let peer = request.extensions().get::<ConnectInfo<Peer>>();
        Self {
            at: app.clock.now(),
            from: peer.map_or_else(|| "unknown".to_owned(), |ConnectInfo(peer)| peer.0.clone()),
            subject: request.uri().path().to_owned(),
        }
    }

    /// It was answered. What was denied is noted wherever it was; what was refused for that, or for coming too often, with
    /// others of its kind.
    pub fn answered(self, app: &App, caller: &Caller, route: &Route, response: &Response) {
        let status = response.status().as_u16();
        if status != 403 && !counts(route) {
            return;
        }
        let made = response.extensions().get::<Made>().map(|made| made.0.clone());
        let user = user_of(app, made.as_deref(), &self.subject)
            .or_else(|| caller.person().map(|person| person.login.clone()));
        let entry = AuditEntry {
            at: self.at,
            who: caller.name().to_owned(),
            key: caller.key(),
            user,
            from: self.from,
            action: format!("{} {}", route.method, route.path),
            subject: self.subject,
            made,
            status,
            times: 1,
        };
        match status {
            401 | 403 | 429 => app.audit.refused(entry),
            _ => app.audit.note(entry),
        }
    }

    /// Nothing that was shown opened anything. The path is not kept as it came: it is anybody's, and as long as anybody likes.
    pub fn unknown(self, app: &App, route: Option<&Route>) {
        let action = route.map_or_else(|| "none".into(), |r| format!("{} {}", r.method, r.path));
        app.audit.refused(AuditEntry {
            at: self.at,
            who: NOBODY.to_owned(),
            key: None,
            user: None,
            from: self.from,
            action,
            subject: route.map_or("none", |r| r.path).to_owned(),
            made: None,
            status: 401,
            times: 1,
        });
    }
}

/// The user of the session that it was about, while it lives.
fn user_of(app: &App, made: Option<&str>, path: &str) -> Option<String> {
    let named = made.into_iter().chain(path.split('/').nth(3));
    let session = named.filter_map(|text| text.parse::<SessionId>().ok()).next()?;
    Some(app.sessions.live(session)?.record().user.login.clone())
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// Lines since then; all that are kept when not given.
    since: Option<Timestamp>,
    /// `next` of the page before.
    after: Option<u64>,
    /// 1 to 500; 100 when not given.
    limit: Option<u32>,
}

/// Who did what, oldest first: every request that changes something, and every one that was denied or came without a key that is good. Announcements, input of commands and their like are left out.
#[utoipa::path(get, path = "/v1/audit", tag = "access", operation_id = "list_audit", params(AuditQuery), responses((status = 200, body = List<AuditView>)))]
pub async fn list(State(app): Hotbed, Query(q): Query<AuditQuery>) -> ApiResult<Json<List<AuditView>>> {
    let limit = q.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Error::invalid(format!("`limit` is {limit}: expected 1 to 500")).into());
    }
    let after = q.after.unwrap_or(0);
    if i64::try_from(after).is_err() {
        return Err(
            Error::invalid(format!("`after` is {after}: expected the `next` of an earlier page")).into()
        );
    }
    let lines = app.audit.read(q.since.unwrap_or(Timestamp::MIN), after, limit).await?;
    let next =
        if lines.len() == limit as usize { lines.last().map(|(seq, _)| seq.to_string()) } else { None };
    Ok(Json(List { items: lines.iter().map(|(seq, entry)| AuditView::of(*seq, entry)).collect(), next }))
}
