//! The one door: takes requests apart, lets faults strike, holds what is asked and answered against the contract.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use git::{RelayBody, serve_relay};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Frame, Incoming};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use super::authority::{Who, identify};
use super::faults::Mischief;
use super::rest::{Question, Reply, now};
use super::state::{Bearer, Exchange, State};
use super::{Inner, git_http, knobs, login, rest};

const MAX_BODY: usize = 4 * 1024 * 1024;

pub(crate) async fn accept(listener: TcpListener, inner: Arc<Inner>) {
    // Dropped with this task; the connections end with it.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let inner = inner.clone();
                    connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        let _ = serve_relay(stream, |request| handle(inner.clone(), request)).await;
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn handle(inner: Arc<Inner>, request: Request<Incoming>) -> Response<RelayBody> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let mischief = strike(&mut inner.state(), &method, &path);
    match mischief {
        Some(Mischief::Answer(status, headers, body)) => {
            drain(request).await;
            return told(status, &headers, body);
        }
        Some(Mischief::SecondaryLimit { retry_after }) => {
            drain(request).await;
            let words =
                "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";
            let headers: Vec<_> =
                retry_after.iter().map(|s| ("retry-after".to_owned(), s.to_string())).collect();
            return told(403, &headers, serde_json::json!({"message": words}).to_string());
        }
        Some(Mischief::Delay(pause)) => tokio::time::sleep(pause).await,
        _ => {}
    }
    let answer = if git_http::is_git(&path) {
        git_http::answer(&inner, request).await
    } else {
        page(&inner, request).await
    };
    match mischief {
        Some(Mischief::DoneThen(status)) => told(status, &[], "{\"message\":\"told to fail\"}".into()),
        Some(Mischief::DoneThenSilence) => cut(answer, None),
        Some(Mischief::CutAfter(bytes)) => cut(answer, Some(bytes)),
        // With the answer in hand: what it says was looked up before anybody goes on.
        Some(Mischief::Meet(meeting)) => {
            meeting.come().await;
            answer
        }
        _ => answer,
    }
}

/// The first fault that strikes, and one strike less of it.
fn strike(state: &mut State, method: &str, path: &str) -> Option<Mischief> {
    if path.starts_with("/_standin/") {
        return None;
    }
    let fault = state.faults.iter_mut().find(|f| f.strikes(method, path))?;
    fault.times -= 1;
    Some(fault.what.clone())
}

async fn drain(request: Request<Incoming>) {
    let _ = Limited::new(request.into_body(), MAX_BODY).collect().await;
}

fn told(status: u16, headers: &[(String, String)], body: String) -> Response<RelayBody> {
    let reply = Reply { status, headers: headers.to_vec(), body: None };
    respond(&reply, body.into_bytes())
}

async fn page(inner: &Arc<Inner>, request: Request<Incoming>) -> Response<RelayBody> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else { return told(413, &[], String::new()) };
    let body = body.to_bytes();
    let method = head.method.to_string();
    let query = form(head.uri.query().unwrap_or_default());
    let path = head.uri.path().to_owned();
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    if let Some(rest) = path.strip_prefix("/api/v3") {
        let authorization = head.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        return rest_page(inner, method, rest, query, json, authorization).await;
    }
    let mut fields = query;
    match &json {
        Some(Value::Object(map)) => fields.extend(
            map.iter().map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_owned))),
        ),
        _ => fields.extend(form(&String::from_utf8_lossy(&body))),
    }
    let reply = match path.strip_prefix("/_standin/") {
        Some(knob) => knobs::answer(inner, &method, knob, json.unwrap_or_default()),
        None => {
            let reply = login::answer(inner, &method, &path, &fields);
            let exchange = Exchange {
                method,
                path: path.clone(),
                authority: "nobody",
                request: json,
                status: reply.status,
            };
            inner.state().exchanges.push(exchange);
            reply
        }
    };
    let accepts =
        head.headers.get(header::ACCEPT).is_some_and(|a| a.as_bytes().windows(4).any(|w| w == b"json"));
    if path == "/login/oauth/access_token" && !accepts {
        // Without `Accept: application/json` the answer is a form.
        let pairs = reply.body.as_ref().and_then(Value::as_object).into_iter().flatten();
        let pairs: Vec<_> = pairs.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
        return respond(&Reply { body: None, ..reply }, pairs.join("&").into_bytes());
    }
    let bytes = reply.body.as_ref().map_or_else(Vec::new, |b| b.to_string().into_bytes());
    respond(&reply, bytes)
}

async fn rest_page(
    inner: &Arc<Inner>,
    method: String,
    path: &str,
    query: BTreeMap<String, String>,
    body: Option<Value>,
    authorization: Option<&str>,
) -> Response<RelayBody> {
    let pieces: Vec<String> = path.split('/').skip(1).map(unescape).collect();
    let identified = {
        let state = inner.state();
        identify(&state, authorization, now(inner, &state))
    };
    let operation = inner.contract.operation(&method, &pieces).map(str::to_owned);
    let (reply, who) = match identified {
        Err(refused) => (refused, Who::Nobody),
        Ok(who) => match limited(inner, &who) {
            Some(refused) => (refused, who),
            None => {
                let question = Question {
                    method: method.clone(),
                    path: pieces,
                    query: query.clone(),
                    body: body.clone(),
                    who,
                };
                (rest::answer(inner, &question).await, question.who)
            }
        },
    };
    if let Some(operation) = operation {
        let asked = inner.contract.check_request(&operation, &query, body.as_ref());
        // What is asked wrongly may be refused; then the refusal is the word.
        let asked = if reply.status < 400 { asked } else { Vec::new() };
        for wrong in asked.into_iter().chain(inner.contract.check_answer(
            &operation,
            reply.status,
            reply.body.as_ref(),
        )) {
            inner.violation(wrong);
        }
    }
    let query: Vec<_> = query.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let shown = if query.is_empty() { path.to_owned() } else { format!("{path}?{}", query.join("&")) };
    let exchange =
        Exchange { method, path: shown, authority: who.word(), request: body, status: reply.status };
    let mut state = inner.state();
    state.exchanges.push(exchange);
    let (left, reset) = state.limit.map_or((4999, 0), |l| (l.left.max(0), l.reset.as_second()));
    let date = now(inner, &state).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    drop(state);
    let reply = reply
        .header("x-ratelimit-limit", 5000)
        .header("x-ratelimit-remaining", left)
        .header("x-ratelimit-reset", reset)
        .header("x-ratelimit-resource", "core")
        .header("x-github-request-id", "STAN:DIN")
        .header("date", date);
    let bytes = reply.body.as_ref().map_or_else(Vec::new, |b| b.to_string().into_bytes());
    respond(&reply, bytes)
}

/// The primary limit, where one is set: users and installations use it up.
fn limited(inner: &Inner, who: &Who) -> Option<Reply> {
    let mut state = inner.state();
    let now = now(inner, &state);
    let limit = state.limit.as_mut()?;
    if limit.reset <= now {
        state.limit = None;
        return None;
    }
    let Who::Token { bearer, .. } = who else { return None };
    if limit.left <= 0 {
        let whose = if matches!(bearer, Bearer::Installation { .. }) { "installation" } else { "user" };
        return Some(Reply::error(403, &format!("API rate limit exceeded for {whose} ID 1.")));
    }
    limit.left -= 1;
    None
}

fn respond(reply: &Reply, body: Vec<u8>) -> Response<RelayBody> {
    let kind = if body.starts_with(b"{") || body.starts_with(b"[") {
        "application/json; charset=utf-8"
    } else {
        "text/plain; charset=utf-8"
    };
    let mut response = Response::new(Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in &reply.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Fields of a form or a query.
pub(crate) fn form(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter(|p| !p.is_empty());
    pairs
        .map(|p| p.split_once('=').unwrap_or((p, "")))
        .map(|(k, v)| (unescape(k), unescape(&v.replace('+', " "))))
        .collect()
}

fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        match escaped.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer that breaks off: after so many bytes of its body, or before its first.
fn cut(answer: Response<RelayBody>, after: Option<u64>) -> Response<RelayBody> {
    let (mut head, body) = answer.into_parts();
    if after.is_none() {
        // A length that is never reached: the client waits for it until the connection breaks.
        head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("1000000"));
    }
    let left = after.unwrap_or(0);
    Response::from_parts(head, Cut { body, left, waited: None }.boxed())
}

/// Gives so many bytes and then breaks the connection.
struct Cut {
    body: RelayBody,
    left: u64,
    waited: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            // What was given is on its way before the connection breaks.
            let pause =
                self.waited.get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(50))));
            ready!(pause.as_mut().poll(cx));
            return Poll::Ready(Some(Err(std::io::Error::other("cut on purpose"))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        let Some(Ok(frame)) = frame else { return Poll::Ready(frame) };
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
                self.left -= data.len() as u64;
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }
}
