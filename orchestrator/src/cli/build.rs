//! `hotbed build`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use domain::{Error, Result};
use futures_util::StreamExt;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};

use super::Ctx;
use super::output::{ago, lasted, short};
use crate::api::types::{BuildView, List};
use crate::client::Client;

/// How often a broken connection is taken up again before following is given up.
const RESUMES: u32 = 20;

#[derive(Subcommand)]
pub enum BuildCommand {
    /// Build an image of a repo now, and follow it.
    Start {
        repo: String,
        /// Answer at once instead of following the build.
        #[arg(long)]
        detach: bool,
        /// Who asks, for the record.
        #[arg(long, env = "USER", hide_env_values = true)]
        by: Option<String>,
    },
    /// The builds of a repo, newest first.
    Ls { repo: String },
    /// Everything that is known of a build.
    Show { id: String },
    /// What a build printed.
    Log {
        id: String,
        /// Stay until it ends. On a terminal the phase and the time taken are shown below.
        #[arg(short, long)]
        follow: bool,
        /// Begin at this byte.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
}

pub async fn run(ctx: &Ctx, command: BuildCommand) -> Result<ExitCode> {
    let client = ctx.client()?;
    match command {
        BuildCommand::Start { repo, detach, by } => {
            let asked = json!({ "by": by });
            let build: BuildView = client.post(&format!("/v1/repos/{repo}/builds"), &asked).await?;
            if detach {
                return ctx.out.print_json(&build).map(|()| ExitCode::SUCCESS);
            }
            eprintln!("{}", build.id);
            let mut build = follow(&client, &build.id).await?;
            // Somebody has asked since: that build is this one's as well.
            while let Some(next) = build.superseded_by.take() {
                eprintln!("{}: superseded, following {next}", build.id);
                build = follow(&client, &next).await?;
            }
            eprintln!("{}: {}", build.id, build.state);
            Ok(if build.state == "failed" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        BuildCommand::Ls { repo } => {
            let list: List<BuildView> = client.get(&format!("/v1/repos/{repo}/builds")).await?;
            ctx.out.table(
                &["BUILD", "STATE", "PHASE", "TRIGGER", "BY", "COMMIT", "SECONDS", "AGE", "ERROR"],
                &list.items,
                |b| {
                    let seconds: f64 = b.phases.iter().map(|p| p.seconds).sum();
                    vec![
                        b.id.clone(),
                        b.state.clone(),
                        b.phase.clone().unwrap_or_else(|| "-".into()),
                        b.trigger.clone(),
                        b.by.clone().unwrap_or_else(|| "-".into()),
                        short(b.commit.as_deref()),
                        format!("{seconds:.1}"),
                        ago(b.created_at),
                        b.error.as_deref().and_then(|e| e.lines().next()).unwrap_or("-").to_owned(),
                    ]
                },
            )?;
            Ok(ExitCode::SUCCESS)
        }
        BuildCommand::Show { id } => {
            let build: BuildView = client.get(&format!("/v1/builds/{id}")).await?;
            if ctx.out.json {
                return ctx.out.print_json(&build).map(|()| ExitCode::SUCCESS);
            }
            show(&build);
            Ok(ExitCode::SUCCESS)
        }
        BuildCommand::Log { id, follow: true, from } => {
            follow_from(&client, &id, from).await?;
            Ok(ExitCode::SUCCESS)
        }
        BuildCommand::Log { id, follow: false, from } => {
            let mut log = client.stream(&format!("/v1/builds/{id}/log?from={from}")).await?;
            while let Some(bytes) = log.next().await {
                print(&bytes?)?;
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn show(build: &BuildView) {
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            println!("{name:<12} {value}");
        }
    };
    line("build", Some(build.id.clone()));
    line("repo", Some(build.repo.clone()));
    line("state", Some(build.state.clone()));
    let by = build.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
    line("asked for", Some(format!("{}{by}, {} ago", build.trigger, ago(build.created_at))));
    line("decision", build.decision.clone());
    line("commit", build.commit.clone());
    line("parent", build.parent.clone());
    line("base", build.base_digest.clone());
    line("fingerprint", build.fingerprint.clone());
    line("image", build.image.clone());
    line("size", build.size.map(super::output::bytes));
    line("superseded", build.superseded_by.as_ref().map(|b| format!("by {b}")));
    line("took", build.elapsed_seconds.map(lasted));
    for phase in &build.phases {
        let code = phase.exit_code.map(|c| format!(", exit code {c}")).unwrap_or_default();
        line("", Some(format!("{:<10} {}{code}", phase.phase, lasted(phase.seconds))));
    }
    for warning in &build.warnings {
        line("warning", Some(warning.clone()));
    }
    line("error", build.error.clone());
}

/// Prints a build's log until it ends; answers its record.
pub async fn follow(client: &Client, id: &str) -> Result<BuildView> {
    follow_from(client, id, 0).await
}

/// As [`follow`], from a byte on. A connection that breaks is taken up where it broke.
async fn follow_from(client: &Client, id: &str, mut from: u64) -> Result<BuildView> {
    let mut status = Status::default();
    let mut resumes = 0;
    loop {
        let followed = follow_once(client, id, &mut from, &mut status).await;
        status.clear();
        match followed {
            Ok(()) => {}
            Err(e) if e.kind().is_retryable() && resumes < RESUMES => {
                resumes += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            Err(e) => return Err(e),
        }
        let build: BuildView = client.get(&format!("/v1/builds/{id}")).await?;
        if build.ended_at.is_some() {
            return Ok(build);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn follow_once(client: &Client, id: &str, from: &mut u64, status: &mut Status) -> Result<()> {
    let mut log = client.stream(&format!("/v1/builds/{id}/log?follow=true&from={from}")).await?;
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            bytes = log.next() => {
                let Some(bytes) = bytes else { return Ok(()) };
                let bytes = bytes?;
                status.clear();
                print(&bytes)?;
                *from += bytes.len() as u64;
            }
            _ = tick.tick(), if status.wanted => {
                let build: BuildView = client.get(&format!("/v1/builds/{id}")).await?;
                status.show(&build);
            }
        }
    }
}

fn print(bytes: &Bytes) -> Result<()> {
    let mut out = std::io::stdout();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|e| Error::permanent("write to stdout").caused_by(e))
}

/// The line below the log that says how far the build is; only where a person looks at it.
struct Status {
    wanted: bool,
    shown: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self { wanted: std::io::stderr().is_terminal() && std::io::stdout().is_terminal(), shown: false }
    }
}

impl Status {
    fn show(&mut self, build: &BuildView) {
        let phase = match (&build.phase, build.phase_seconds) {
            (Some(phase), Some(seconds)) => format!("{phase} {}", lasted(seconds)),
            _ => build.state.clone(),
        };
        let all = build.elapsed_seconds.map(|s| format!(", {} in all", lasted(s))).unwrap_or_default();
        eprint!("\r\x1b[K[{phase}{all}]");
        self.shown = true;
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            eprint!("\r\x1b[K");
        }
    }
}
