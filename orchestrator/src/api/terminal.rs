//! A terminal over a WebSocket: binary messages are bytes, text messages are `{"rows": …, "cols": …}`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use domain::Error;
use domain::ports::AgentLink;
use domain::wire::{ExecRequest, Frame, TermSize};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use utoipa::IntoParams;

use super::sessions::live;
use super::types::{ExitView, Terminal};
use super::{ApiResult, Caller, Hotbed};
use crate::sessions::LINK_WAIT;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub struct TerminalQuery {
    /// The program; a login shell when not given.
    cmd: Option<String>,
    rows: Option<u16>,
    cols: Option<u16>,
}

/// A terminal in the session. The last message is the exit, as JSON text.
#[utoipa::path(get, path = "/v1/sessions/{id}/terminal", tag = "exec", operation_id = "open_terminal", params(TerminalQuery), responses((status = 101)))]
pub async fn open(
    State(app): Hotbed,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(q): Query<TerminalQuery>,
    upgrade: WebSocketUpgrade,
) -> ApiResult<Response> {
    let session = live(&app, &id).await?;
    let link = app.sessions.link(&session, LINK_WAIT).await?;
    let size = TermSize { rows: q.rows.unwrap_or(24).max(1), cols: q.cols.unwrap_or(80).max(1) };
    let shell = "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec sh -l; fi".to_owned();
    let request = ExecRequest {
        env: [("TERM".to_owned(), "xterm-256color".to_owned())].into(),
        stdin: true,
        tty: Some(size),
        ..ExecRequest::new(vec!["/bin/sh".into(), "-c".into(), q.cmd.unwrap_or(shell)])
    };
    Ok(upgrade.on_upgrade(move |socket| async move {
        let carried = tokio::select! {
            carried = carry(socket, link.clone(), request.clone()) => carried,
            // Nothing more is shown, and nothing more that is typed counts.
            () = caller.over(&app.clock) => Err(Error::denied("the key or token is good no longer")),
        };
        if let Err(e) = carried {
            tracing::debug!(exec = %request.id, error = %e.chain(), "a terminal ended");
        }
        // Whoever left closes the terminal, as on a hang-up.
        let _ = link.signal(request.id, "HUP").await;
    }))
}

async fn carry(socket: WebSocket, link: Arc<dyn AgentLink>, request: ExecRequest) -> Result<(), Error> {
    let broken = |e: axum::Error| Error::unavailable("write to the terminal's client").caused_by(e);
    let mut frames = link.exec_follow(&request).await?;
    let (mut tx, mut rx) = socket.split();
    loop {
        tokio::select! {
            frame = frames.next() => match frame {
                Some(Ok(Frame::Output { data, .. })) => tx.send(Message::Binary(data)).await.map_err(broken)?,
                Some(Ok(Frame::Exit(exit))) => {
                    let text = serde_json::to_string(&ExitView::from(exit)).unwrap_or_default();
                    tx.send(Message::Text(text.into())).await.map_err(broken)?;
                    return tx.close().await.map_err(broken);
                }
                Some(Ok(Frame::Heartbeat)) => {}
                Some(Err(e)) => return Err(e),
                None => return Ok(()),
            },
            message = rx.next() => match message {
                Some(Ok(Message::Binary(data))) => link.input(request.id, data, false).await?,
                Some(Ok(Message::Text(text))) => {
                    if let Ok(Terminal { rows, cols }) = serde_json::from_str(&text) {
                        link.resize(request.id, TermSize { rows, cols }).await?;
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(broken(e)),
            },
        }
    }
}
