//! `hotbed session`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Subcommand;
use domain::{Error, Result};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::Ctx;
use super::output::ago;
use crate::api::types::{ExecView, ExitView, List, OutputLine, SessionView};
use crate::client::Client;

#[derive(Subcommand)]
pub enum SessionCommand {
    /// Start a session.
    New {
        /// `owner/name`; from the parent or snapshot when not given.
        repo: Option<String>,
        /// The account it works for.
        #[arg(long, env = "USER", default_value = "operator")]
        user: String,
        #[arg(long)]
        name: Option<String>,
        #[arg(long)]
        email: Option<String>,
        #[arg(long)]
        base: Option<String>,
        #[arg(long)]
        branch: Option<String>,
        #[arg(long)]
        snapshot: Option<String>,
        /// Go on where this ended session stopped.
        #[arg(long)]
        parent: Option<String>,
    },
    /// Sessions, newest first.
    Ls {
        #[arg(long)]
        repo: Option<String>,
        /// Ended ones, too.
        #[arg(long, short)]
        all: bool,
    },
    /// Run a command and print what it prints; the exit status is the command's.
    Exec {
        id: String,
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Open a terminal.
    Shell { id: String },
    /// End a session: it is captured first.
    End {
        id: String,
        /// Give up what it holds.
        #[arg(long)]
        discard: bool,
    },
    /// Say who prompts: he commits from now on.
    Prompt {
        id: String,
        /// The login of who prompts.
        #[arg(long)]
        user: String,
        /// The name on his commits.
        #[arg(long)]
        name: Option<String>,
        /// The address on his commits.
        #[arg(long)]
        email: Option<String>,
    },
    /// Open a pull request from the session's branch, or change what the open one says.
    Pr {
        id: String,
        /// The first commit's subject when not given.
        #[arg(long)]
        title: Option<String>,
        /// The repository's template, or the list of commits, when not given.
        #[arg(long)]
        body: Option<String>,
        #[arg(long)]
        draft: bool,
    },
}

pub async fn run(ctx: &Ctx, command: SessionCommand) -> Result<ExitCode> {
    let client = ctx.client()?;
    match command {
        SessionCommand::New { repo, user, name, email, base, branch, snapshot, parent } => {
            let body = json!({
                "repo": repo, "user": {"login": user, "name": name, "email": email}, "base": base,
                "branch": branch, "snapshot": snapshot, "parent": parent,
            });
            let session: SessionView = client.post("/v1/sessions", &without_nulls(body)).await?;
            if ctx.out.json {
                ctx.out.print_json(&session)?;
            } else {
                println!("{}", session.id);
                eprintln!("{} on {} ({} start)", session.repo, session.branch, session.launch);
            }
        }
        SessionCommand::Ls { repo, all } => {
            let query = repo.map_or(String::new(), |r| format!("&repo={r}"));
            let mut list: List<SessionView> = client.get(&format!("/v1/sessions?limit=200{query}")).await?;
            if !all {
                list.items.retain(|s| s.state != "ended");
            }
            ctx.out.table(
                &["SESSION", "REPO", "STATE", "LAUNCH", "SYNC", "USER", "BRANCH", "AGE"],
                &list.items,
                |s| {
                    vec![
                        s.id.clone(),
                        s.repo.clone(),
                        s.end.as_ref().map_or(s.state.clone(), |e| format!("{} ({e})", s.state)),
                        s.launch.clone(),
                        s.sync.phase.clone(),
                        s.user.login.clone(),
                        s.branch.clone(),
                        ago(s.created_at),
                    ]
                },
            )?;
        }
        SessionCommand::Exec { id, command } => return exec(&client, &id, command).await,
        SessionCommand::Shell { id } => return shell(&client, &id).await,
        SessionCommand::End { id, discard } => {
            let session: SessionView =
                client.delete(&format!("/v1/sessions/{id}?wait=true&discard={discard}")).await?;
            if ctx.out.json {
                ctx.out.print_json(&session)?;
            } else {
                println!("{} {}", session.id, session.state);
                if let Some(trouble) = session.trouble {
                    eprintln!("{trouble}");
                }
            }
        }
        SessionCommand::Prompt { id, user, name, email } => {
            let who = json!({"user": {"login": user, "name": name, "email": email}});
            let path = format!("/v1/sessions/{id}/prompts");
            let session: Value = client.post(&path, &without_nulls(who)).await?;
            ctx.out.print_json(&session)?;
        }
        SessionCommand::Pr { id, title, body, draft } => {
            let path = format!("/v1/sessions/{id}/pull-requests");
            let order = without_nulls(json!({"title": title, "body": body, "draft": draft}));
            let pull: Value = client.post(&path, &order).await?;
            ctx.out.print_json(&pull)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        other => other,
    }
}

fn status(exit: Option<&ExitView>) -> ExitCode {
    match exit {
        Some(ExitView { code: Some(code), .. }) => ExitCode::from(u8::try_from(*code).unwrap_or(1)),
        Some(ExitView { signal: Some(signal), .. }) => {
            ExitCode::from(128u8.wrapping_add(u8::try_from(*signal).unwrap_or(0)))
        }
        _ => ExitCode::FAILURE,
    }
}

async fn exec(client: &Client, id: &str, command: Vec<String>) -> Result<ExitCode> {
    let started: ExecView = client.post(&format!("/v1/sessions/{id}/exec"), &json!({"cmd": command})).await?;
    let path = format!("/v1/sessions/{id}/exec/{}/output?follow=true", started.id);
    let mut lines = client.lines(&path).await?;
    let write = |e| Error::permanent("write the output").caused_by(e);
    while let Some(line) = lines.next().await {
        let line: OutputLine =
            serde_json::from_str(&line?).map_err(|e| Error::permanent("read the output").caused_by(e))?;
        if line.exit.is_some() {
            return Ok(status(line.exit.as_ref()));
        }
        let bytes = match (line.text, line.hex) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(hex)) => unhex(&hex),
            (None, None) => continue,
        };
        if line.stream.as_deref() == Some("stderr") {
            std::io::stderr().write_all(&bytes).map_err(write)?;
        } else {
            let mut out = std::io::stdout();
            out.write_all(&bytes).and_then(|()| out.flush()).map_err(write)?;
        }
    }
    Err(Error::unavailable("the connection ended before the command did; it goes on"))
}

fn unhex(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// Puts the terminal into raw mode, and back when dropped.
struct Raw(Option<rustix::termios::Termios>);

impl Raw {
    fn enter() -> Self {
        let stdin = std::io::stdin();
        let old = rustix::termios::tcgetattr(&stdin).ok();
        if let Some(old) = &old {
            let mut raw = old.clone();
            raw.make_raw();
            let _ = rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &raw);
        }
        Self(old)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(old) = &self.0 {
            let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, old);
        }
    }
}

fn size() -> (u16, u16) {
    rustix::termios::tcgetwinsize(std::io::stdout()).map_or((24, 80), |w| (w.ws_row.max(1), w.ws_col.max(1)))
}

async fn shell(client: &Client, id: &str) -> Result<ExitCode> {
    let (rows, cols) = size();
    let url = format!("ws://{}/v1/sessions/{id}/terminal?rows={rows}&cols={cols}", client.host());
    let mut request =
        url.into_client_request().map_err(|e| Error::invalid("open a terminal").caused_by(e))?;
    let key = format!("Bearer {}", client.key());
    let key = key.parse().map_err(|_| Error::invalid("the API key is not a header value"))?;
    request.headers_mut().insert("authorization", key);
    let stream = client
        .dial()
        .await
        .map_err(|e| Error::unavailable(format!("reach Hotbed at {}", client.address)).caused_by(e))?;
    let (socket, _) = tokio_tungstenite::client_async(request, stream)
        .await
        .map_err(|e| Error::unavailable("open a terminal").caused_by(e))?;
    let (mut tx, mut rx) = socket.split();
    let _raw = std::io::stdin().is_terminal().then(Raw::enter);
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change())
        .map_err(|e| Error::permanent("watch the terminal's size").caused_by(e))?;
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0u8; 4096];
    let mut typing = true;
    let broken = |e| Error::unavailable("talk to the terminal").caused_by(e);
    loop {
        tokio::select! {
            read = stdin.read(&mut buffer), if typing => match read {
                Ok(0) | Err(_) => {
                    typing = false;
                    // End of input, as a terminal says it.
                    tx.send(Message::Binary(vec![4].into())).await.map_err(broken)?;
                }
                Ok(n) => tx.send(Message::Binary(buffer[..n].to_vec().into())).await.map_err(broken)?,
            },
            _ = resized.recv() => {
                let (rows, cols) = size();
                tx.send(Message::Text(json!({"rows": rows, "cols": cols}).to_string().into())).await.map_err(broken)?;
            }
            message = rx.next() => match message {
                Some(Ok(Message::Binary(data))) => {
                    let mut out = std::io::stdout();
                    out.write_all(&data).and_then(|()| out.flush()).map_err(|e| Error::permanent("write to the terminal").caused_by(e))?;
                }
                Some(Ok(Message::Text(text))) => {
                    return Ok(status(serde_json::from_str(&text).ok().as_ref()));
                }
                Some(Ok(Message::Close(_))) | None => return Ok(ExitCode::SUCCESS),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(broken(e)),
            },
        }
    }
}
