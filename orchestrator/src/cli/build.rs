//! `hotbed build`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use domain::{Error, Result};
use futures_util::StreamExt;
use serde_json::json;

use super::Ctx;
use super::output::{ago, short};
use crate::api::types::{BuildView, List};
use crate::client::Client;

#[derive(Subcommand)]
pub enum BuildCommand {
    /// Build an image of a repo now, and follow it.
    Start {
        repo: String,
        /// Answer at once instead of following the build.
        #[arg(long)]
        detach: bool,
    },
    /// The builds of a repo, newest first.
    Ls { repo: String },
    /// What a build printed.
    Log {
        id: String,
        /// Stay until it ends.
        #[arg(short, long)]
        follow: bool,
    },
}

pub async fn run(ctx: &Ctx, command: BuildCommand) -> Result<ExitCode> {
    let client = ctx.client()?;
    match command {
        BuildCommand::Start { repo, detach } => {
            let build: BuildView = client.post(&format!("/v1/repos/{repo}/builds"), &json!({})).await?;
            if detach {
                return ctx.out.print_json(&build).map(|()| ExitCode::SUCCESS);
            }
            eprintln!("{}", build.id);
            let build = follow(&client, &build.id).await?;
            eprintln!("{}: {}", build.id, build.state);
            Ok(if build.state == "failed" { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        BuildCommand::Ls { repo } => {
            let list: List<BuildView> = client.get(&format!("/v1/repos/{repo}/builds")).await?;
            ctx.out.table(
                &["BUILD", "STATE", "PHASE", "TRIGGER", "COMMIT", "SECONDS", "AGE", "ERROR"],
                &list.items,
                |b| {
                    let seconds: f64 = b.phases.iter().map(|p| p.seconds).sum();
                    vec![
                        b.id.clone(),
                        b.state.clone(),
                        b.phase.clone().unwrap_or_else(|| "-".into()),
                        b.trigger.clone(),
                        short(b.commit.as_deref()),
                        format!("{seconds:.1}"),
                        ago(b.created_at),
                        b.error.as_deref().and_then(|e| e.lines().next()).unwrap_or("-").to_owned(),
                    ]
                },
            )?;
            Ok(ExitCode::SUCCESS)
        }
        BuildCommand::Log { id, follow } => {
            print(&client, &format!("/v1/builds/{id}/log?follow={follow}")).await?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Prints a build's log until it ends; answers its record.
pub async fn follow(client: &Client, id: &str) -> Result<BuildView> {
    print(client, &format!("/v1/builds/{id}/log?follow=true")).await?;
    loop {
        let build: BuildView = client.get(&format!("/v1/builds/{id}")).await?;
        if build.ended_at.is_some() {
            return Ok(build);
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

async fn print(client: &Client, path: &str) -> Result<()> {
    let mut stream = client.stream(path).await?;
    let mut out = std::io::stdout();
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        out.write_all(&bytes)
            .and_then(|()| out.flush())
            .map_err(|e| Error::permanent("write to stdout").caused_by(e))?;
    }
    Ok(())
}
