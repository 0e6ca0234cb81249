//! What comes out of a sandbox: git, for the sandbox's own repo, with the authority of the session that holds it; and what
//! the session asks Hotbed for itself, with the session's token: its pull requests.

use std::sync::Arc;

use async_trait::async_trait;
use axum::response::IntoResponse;
use dashmap::DashMap;
use domain::{Error, Result, SandboxId, SessionRecord, TraceContext, wire};
use git::{Access, Caller, Gateway, RelayBody};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Serialize;
use store::Page;
use tokio::net::UnixStream;
use tracing::debug;

use crate::api::types::{List, PullRequestView};
use crate::api::{ApiError, traced};
use crate::fleet::{Entry, RelayHandler};
use crate::pulls::{PullOrder, Pulls};
use crate::sessions::{Sessions, token};
use crate::traces::{Span, Tracer, kinds};

pub struct Relay {
    gateway: Gateway,
    sessions: Arc<Sessions>,
    pulls: Arc<Pulls>,
    tracer: Arc<Tracer>,
    /// Connections open now, by sandbox.
    open: Arc<DashMap<SandboxId, u32>>,
}

impl Relay {
    pub fn new(gateway: Gateway, sessions: Arc<Sessions>, pulls: Arc<Pulls>, tracer: Arc<Tracer>) -> Self {
        Self { gateway, sessions, pulls, tracer, open: Arc::default() }
    }
}

/// Connections that one sandbox may hold open at once.
const MAX_OPEN: u32 = 32;
/// What a session may say in one request that is not git's, in bytes.
const MAX_ORDER: usize = 256 * 1024;
/// How long it may take to say it.
const SAY_DEADLINE: std::time::Duration = std::time::Duration::from_secs(10);

#[async_trait]
impl RelayHandler for Relay {
    async fn serve(&self, sandbox: Arc<Entry>, stream: UnixStream) {
        {
            let mut open = self.open.entry(sandbox.id).or_insert(0);
            if *open >= MAX_OPEN {
                return debug!(sandbox = %sandbox.id, "too many relay connections");
            }
            *open += 1;
        }
        let served = git::serve_relay(stream, |request| {
            let (gateway, sessions, sandbox) = (self.gateway.clone(), self.sessions.clone(), sandbox.clone());
            let (pulls, tracer) = (self.pulls.clone(), self.tracer.clone());
            async move {
                // Asked anew for each request: what a sandbox may do changes when it is claimed and when it ends.
                let session = sessions.of_sandbox(sandbox.id).map(|s| s.record());
                let session = session.filter(|record| !record.state.is_end());
                if !Gateway::is_git_path(request.uri().path()) {
                    return Own { sessions, pulls, session }.answer(request).await;
                }
                let mut span = session.as_ref().map_or(Span::Off, |record| of_git(&tracer, record, &request));
                let access = match session {
                    Some(record) => Access::Push { session: record.id, branch: record.branch.clone() },
                    None => Access::ReadOnly,
                };
                let caller = Caller { sandbox: sandbox.id, repo: sandbox.repo.clone(), access };
                let response = gateway.handle(&caller, request).await;
                span.set(kinds::STATUS, i64::from(response.status().as_u16()));
                response
            }
        });
        if let Err(e) = served.await {
            debug!(sandbox = %sandbox.id, error = %e.chain(), "a relay connection ended");
        }
        if let Some(mut open) = self.open.get_mut(&sandbox.id) {
            *open -= 1;
        }
        self.open.remove_if(&sandbox.id, |_, n| *n == 0);
    }
}

/// The span of what a session's sandbox asks of git, besides what there is.
fn of_git<B>(tracer: &Arc<Tracer>, session: &SessionRecord, request: &Request<B>) -> Span {
    let kind = match request.uri().path().rsplit('/').next() {
        Some("git-receive-pack") if request.method() == Method::POST => &kinds::PUSH,
        Some("git-upload-pack") if request.method() == Method::POST => &kinds::FETCH,
        _ => return Span::Off,
    };
    let mut span = tracer.child(kind, session.trace.as_ref());
    span.show(kinds::SESSION, session.id);
    span.show(kinds::REPO, &session.repo);
    span
}

/// What a session asks for itself.
struct Own {
    sessions: Arc<Sessions>,
    pulls: Arc<Pulls>,
    /// The one that holds the sandbox, while it lives.
    session: Option<Arc<SessionRecord>>,
}

impl Own {
    async fn answer<B: git::Body>(self, request: Request<B>) -> Response<RelayBody> {
        match self.route(request).await {
            Ok((status, body)) => git::whole(status, "application/json", body),
            Err(e) => {
                let (head, body) = ApiError(e).into_response().into_parts();
                let body = axum::body::to_bytes(body, MAX_ORDER).await.unwrap_or_default();
                git::whole(head.status, "application/problem+json", body)
            }
        }
    }

    async fn route<B: git::Body>(self, request: Request<B>) -> Result<(StatusCode, Vec<u8>)> {
        if request.uri().path() != "/v1/pull-requests" {
            return Err(Error::not_found("Hotbed's relay serves git, and /v1/pull-requests to a session"));
        }
        let session = self.known(&request)?;
        match *request.method() {
            Method::POST => {
                // A command of the session's says where it stands; of another trace than its own it says nothing.
                let own = session.trace.as_ref().map(TraceContext::trace_id);
                let place = traced::sent(request.headers()).filter(|at| own == Some(at.trace_id()));
                let mut order = order(request).await?;
                order.trace = place;
                let pulls = self.pulls.clone();
                // A command that is interrupted takes nothing back.
                let opened =
                    crate::api::detached(async move { pulls.open(&session, order, None).await }).await?;
                said(StatusCode::CREATED, &PullRequestView::from(&opened))
            }
            Method::GET => {
                let page = Page { after: None, limit: 200 };
                let found = self.sessions.store.pull_requests(None, Some(session.id), page).await?;
                let items = found.items.iter().map(PullRequestView::from).collect();
                said(StatusCode::OK, &List { items, next: found.next })
            }
            ref other => Err(Error::invalid(format!("/v1/pull-requests does not take {other}"))),
        }
    }

    /// The session, if the request shows its token.
    fn known<B>(&self, request: &Request<B>) -> Result<Arc<SessionRecord>> {
        let session = self.session.clone();
        let session =
            session.ok_or_else(|| Error::denied("no session holds this sandbox: nobody to ask for"))?;
        let shown = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let shown = shown.and_then(|v| v.strip_prefix("Bearer ")).unwrap_or_default();
        if !token::is_of(&self.sessions.store.secret(), session.id, shown) {
            return Err(Error::denied(
                "send the session's token, which is in HOTBED_TOKEN, as `Authorization: Bearer …`",
            ));
        }
        Ok(session)
    }
}

async fn order<B: git::Body>(request: Request<B>) -> Result<PullOrder> {
    let body = tokio::time::timeout(SAY_DEADLINE, Limited::new(request.into_body(), MAX_ORDER).collect());
    let body = body.await.map_err(|_| Error::timeout("read the order"))?;
    let body = body.map_err(|e| {
        Error::invalid(format!("the order can't be read, or is longer than {MAX_ORDER} bytes: {e}"))
    })?;
    let order: wire::PullOrder = serde_json::from_slice(&body.to_bytes())
        .map_err(|e| Error::invalid(format!("the order is not what is taken here: {e}")))?;
    Ok(PullOrder {
        title: order.title,
        body: order.body,
        base: order
            .base
            .map(|b| b.parse().map_err(|e| Error::invalid(format!("`base`: {e}"))))
            .transpose()?,
        draft: order.draft,
        trace: None,
    })
}

fn said<T: Serialize>(status: StatusCode, view: &T) -> Result<(StatusCode, Vec<u8>)> {
    let body = serde_json::to_vec(view).map_err(|e| Error::permanent("write the answer").caused_by(e))?;
    Ok((status, body))
}
