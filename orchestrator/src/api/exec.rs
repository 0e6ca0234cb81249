//! Commands in a session. Output is read by byte offset, so a client that lost its connection goes on where it was.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use domain::ports::{AgentLink, FrameStream};
use domain::redact::in_use;
use domain::wire::{ExecExit, Frame, StreamName, TermSize};
use domain::{Error, ErrorKind, ExecId, Result, TraceContext};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::sessions::live;
use super::types::{Binary, Command, ExecView, List, OutputLine, SendSignal, StartExec, Terminal};
use super::{ApiResult, Caller, Hotbed, Payload, Replay, Traced, detached, key_of, made, parse};
use crate::app::App;
use crate::idempotency::Begin;
use crate::sessions::{ExecOrder, LINK_WAIT, Session};
use crate::traces::kinds;

/// What `wait` shows of each stream, in bytes.
const SHOWN: usize = 1 << 20;

fn order(body: StartExec) -> Result<ExecOrder> {
    let argv = match body.cmd {
        Command::Argv(argv) => argv,
        Command::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line],
    };
    if argv.first().is_none_or(String::is_empty) {
        return Err(Error::invalid(
            "`cmd` is empty: expected a program and its arguments, or a line for the shell",
        ));
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return Err(Error::invalid("`cmd` holds a NUL character"));
    }
    if body.cwd.as_ref().is_some_and(|d| !d.starts_with('/')) {
        return Err(Error::invalid("`cwd` is relative: expected an absolute path"));
    }
    let timeout = match body.timeout_seconds {
        Some(s) if s > 0.0 && s <= 604_800.0 => Some(Duration::from_secs_f64(s)),
        Some(s) => {
            return Err(Error::invalid(format!(
                "`timeout_seconds` is {s}: expected more than 0 and at most 604800"
            )));
        }
        None => None,
    };
    Ok(ExecOrder {
        argv,
        cwd: body.cwd,
        env: body.env,
        stdin: body.stdin,
        tty: body.tty.map(|t| TermSize { rows: t.rows, cols: t.cols }),
        timeout,
    })
}

/// Run a command. Answers at once with its id, or with `wait` when it has ended.
#[utoipa::path(post, path = "/v1/sessions/{id}/exec", tag = "exec", operation_id = "start_exec", params(Replay), request_body = StartExec,
    responses((status = 201, body = ExecView), (status = 200, description = "started before under this key", body = ExecView)))]
pub async fn start(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Extension(traced): Extension<Traced>,
    headers: HeaderMap,
    body: Payload<StartExec>,
) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let key = key_of(&caller, &headers, &format!("POST /v1/sessions/{}/exec", session.id), &body.raw)?;
    let Payload { value, .. } = body;
    let (wait, shown) = (value.wait, command_line(&value.cmd));
    let order = order(value)?;
    let answer = detached(async move {
        // The key is bound to the command's id before the command starts: asked again after a crash or a hang-up,
        // nothing is started twice (F7).
        let (exec, replayed) = match key {
            None => (ExecId::new(), false),
            Some(key) => match app.idempotency.begin(key).await? {
                Begin::Replay(exec) => (parse("exec", &exec)?, true),
                Begin::New(guard) => {
                    let exec = ExecId::new();
                    app.store.commit(store::Tx::new().idempotency(&guard.row(&exec.to_string()))).await?;
                    guard.done(exec.to_string());
                    (exec, false)
                }
            },
        };
        let link = app.sessions.link(&session, LINK_WAIT).await?;
        let mut span = app.tracer.child(&kinds::EXEC, traced.context().as_ref());
        span.show(kinds::SESSION, session.id);
        span.show(kinds::EXEC_ID, exec);
        let here = span.context();
        let begun = app.clock.now();
        let request = order.request(exec, here.as_ref());
        if !replayed {
            app.logs(&session, "exec", json!({"id": exec, "cmd": shown}));
        }
        let view = match (replayed, wait) {
            (false, false) => match link.exec(&request).await {
                Ok(status) => status.into(),
                Err(e) => return span.ended(Err(e)),
            },
            (false, true) => {
                let (view, exit) =
                    match async { collect(exec, link.exec_follow(&request).await?).await }.await {
                        Ok(done) => done,
                        Err(e) => return span.ended(Err(e)),
                    };
                app.tracer.agent_exec(here.as_ref(), link.sandbox(), exec, (begun, app.clock.now()), &exit);
                if let Some(code) = exit.code {
                    span.set(kinds::EXIT_CODE, i64::from(code));
                }
                if let Some(signal) = exit.signal {
                    span.set(kinds::SIGNAL, i64::from(signal));
                }
                ended(&app, &session, &view, here.as_ref());
                view
            }
            (true, _) => {
                let known = link.exec_status(exec).await.map_err(|e| match e.kind() {
                    ErrorKind::NotFound => Error::gone(format!(
                        "the command of this key, {exec}, is not known to the sandbox any more: it may have run; use another key to run it again"
                    )),
                    _ => e,
                })?;
                if wait { collect(exec, link.output(exec, 0, true).await?).await?.0 } else { known.into() }
            }
        };
        Ok(made(replayed, view.id.clone(), view))
    });
    Ok(answer.await?)
}

fn command_line(cmd: &Command) -> String {
    let line = match cmd {
        Command::Argv(argv) => argv.join(" "),
        Command::Shell(line) => line.clone(),
    };
    line.chars().take(500).collect()
}

fn ended(app: &App, session: &Session, view: &ExecView, trace: Option<&TraceContext>) {
    app.sessions.touch(session);
    if let Some(exit) = &view.exit {
        app.metrics.exec_ended(exit.duration_ms / 1000.0, trace);
        app.logs(
            session,
            "exec_ended",
            json!({"id": view.id, "code": exit.code, "signal": exit.signal, "duration_ms": exit.duration_ms}),
        );
    }
}

async fn collect(id: ExecId, mut frames: FrameStream) -> Result<(ExecView, ExecExit)> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (mut total, mut cut, mut exit) = (0, false, None);
    while let Some(frame) = frames.next().await {
        match frame? {
            Frame::Output { stream, data, .. } => {
                total += data.len() as u64;
                let into = if stream == StreamName::Stdout { &mut out } else { &mut err };
                let room = SHOWN.saturating_sub(into.len());
                cut |= data.len() > room;
                into.extend_from_slice(&data[..data.len().min(room)]);
            }
            Frame::Exit(e) => exit = Some(e),
            Frame::Heartbeat => {}
        }
    }
    let Some(exit) = exit else {
        return Err(Error::unavailable(format!(
            "the connection to the agent ended while {id} ran; it goes on: read its output again"
        )));
    };
    for shown in [&mut out, &mut err] {
        in_use().mask(shown);
    }
    let view = ExecView {
        id: id.to_string(),
        running: false,
        output_bytes: total,
        dropped_bytes: 0,
        exit: Some(exit.clone().into()),
        stdout: Some(String::from_utf8_lossy(&out).into_owned()),
        stderr: Some(String::from_utf8_lossy(&err).into_owned()),
        truncated: Some(cut),
    };
    Ok((view, exit))
}

/// The commands that the sandbox still knows.
#[utoipa::path(get, path = "/v1/sessions/{id}/exec", tag = "exec", operation_id = "list_execs", responses((status = 200, body = List<ExecView>)))]
pub async fn list(State(app): Hotbed, Path(id): Path<String>) -> ApiResult<Json<List<ExecView>>> {
    let session = live(&app, &id).await?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    let items = link.exec_list().await?.into_iter().map(Into::into).collect();
    Ok(Json(List { items, next: None }))
}

/// How a command stands.
#[utoipa::path(get, path = "/v1/sessions/{id}/exec/{exec}", tag = "exec", operation_id = "get_exec", responses((status = 200, body = ExecView)))]
pub async fn read(State(app): Hotbed, Path((id, exec)): Path<(String, String)>) -> ApiResult<Json<ExecView>> {
    let (_, link, exec) = of(&app, &id, &exec).await?;
    Ok(Json(link.exec_status(exec).await?.into()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct OutputQuery {
    /// The byte offset to begin at.
    #[serde(default)]
    from: u64,
    /// Stay until the command ends.
    #[serde(default)]
    follow: bool,
    /// Only `stdout` or `stderr`, as raw bytes instead of lines of JSON.
    raw: Option<String>,
}

/// Output from an offset: one JSON object a line, the last one with the exit; or raw bytes.
#[utoipa::path(get, path = "/v1/sessions/{id}/exec/{exec}/output", tag = "exec", operation_id = "get_exec_output", params(OutputQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = OutputLine)))]
pub async fn output(
    State(app): Hotbed,
    Path((id, exec)): Path<(String, String)>,
    Query(q): Query<OutputQuery>,
) -> ApiResult<Response> {
    let only = match q.raw.as_deref() {
        None => None,
        Some("stdout") => Some(StreamName::Stdout),
        Some("stderr") => Some(StreamName::Stderr),
        Some(other) => {
            return Err(Error::invalid(format!("`raw` is `{other}`: expected stdout or stderr")).into());
        }
    };
    let (_, link, exec) = of(&app, &id, &exec).await?;
    let frames = link.output(exec, q.from, q.follow).await?.map(|frame| frame.map(masked));
    let (kind, body) = match only {
        None => ("application/x-ndjson", Body::from_stream(frames.map(|f| f.map(|f| line(&f))))),
        Some(only) => {
            let bytes = frames.filter_map(move |f| async move {
                match f {
                    Ok(Frame::Output { stream, data, .. }) if stream == only => Some(Ok(data)),
                    Ok(_) => None,
                    Err(e) => Some(Err(e)),
                }
            });
            ("application/octet-stream", Body::from_stream(bytes))
        }
    };
    Ok(([(header::CONTENT_TYPE, kind)], body).into_response())
}

/// No token of this server's is in its sandboxes; should one show all the same, it is not passed on. Offsets stay what
/// they are.
fn masked(frame: Frame) -> Frame {
    match frame {
        Frame::Output { stream, offset, data } => {
            let mut bytes = data.to_vec();
            let data = if in_use().mask(&mut bytes) { bytes.into() } else { data };
            Frame::Output { stream, offset, data }
        }
        other => other,
    }
}

fn line(frame: &Frame) -> Bytes {
    let line = match frame {
        Frame::Output { stream, offset, data } => {
            let name = if *stream == StreamName::Stdout { "stdout" } else { "stderr" };
            let text = std::str::from_utf8(data).ok().map(str::to_owned);
            let hex = text.is_none().then(|| crate::fleet::hex(data));
            OutputLine { stream: Some(name.into()), offset: Some(*offset), text, hex, exit: None }
        }
        Frame::Exit(exit) => {
            OutputLine { stream: None, offset: None, text: None, hex: None, exit: Some(exit.clone().into()) }
        }
        Frame::Heartbeat => return Bytes::new(),
    };
    let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
    bytes.push(b'\n');
    bytes.into()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct InputQuery {
    /// Nothing comes after this.
    #[serde(default)]
    eof: bool,
}

/// Raw bytes for a command's stdin or terminal.
#[utoipa::path(post, path = "/v1/sessions/{id}/exec/{exec}/input", tag = "exec", operation_id = "send_exec_input", params(InputQuery),
    request_body(content = Binary, content_type = "application/octet-stream"), responses((status = 204)))]
pub async fn input(
    State(app): Hotbed,
    Path((id, exec)): Path<(String, String)>,
    Query(q): Query<InputQuery>,
    body: Bytes,
) -> ApiResult<StatusCode> {
    let (_, link, exec) = of(&app, &id, &exec).await?;
    link.input(exec, body, q.eof).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A signal for a command's process group.
#[utoipa::path(post, path = "/v1/sessions/{id}/exec/{exec}/signal", tag = "exec", operation_id = "signal_exec", request_body = SendSignal, responses((status = 204)))]
pub async fn signal(
    State(app): Hotbed,
    Path((id, exec)): Path<(String, String)>,
    body: Payload<SendSignal>,
) -> ApiResult<StatusCode> {
    let (_, link, exec) = of(&app, &id, &exec).await?;
    detached(async move { link.signal(exec, &body.value.signal).await }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A new size for a command's terminal.
#[utoipa::path(post, path = "/v1/sessions/{id}/exec/{exec}/resize", tag = "exec", operation_id = "resize_exec", request_body = Terminal, responses((status = 204)))]
pub async fn resize(
    State(app): Hotbed,
    Path((id, exec)): Path<(String, String)>,
    body: Payload<Terminal>,
) -> ApiResult<StatusCode> {
    let (_, link, exec) = of(&app, &id, &exec).await?;
    link.resize(exec, TermSize { rows: body.value.rows, cols: body.value.cols }).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn of(app: &Arc<App>, id: &str, exec: &str) -> Result<(Arc<Session>, Arc<dyn AgentLink>, ExecId)> {
    let session = live(app, id).await?;
    let exec = parse("exec", exec)?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    Ok((session, link, exec))
}
