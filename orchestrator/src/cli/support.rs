//! `hotbed support-bundle`: what helps to find a fault, in one file, without secrets.
//!
//! Everything that goes in passes the same redaction as the log; of the configuration, values of environments and
//! what stands before the `@` of an address are left out besides. What a build or a user has printed is in it only as
//! the last lines of failed builds. Look at it before you send it.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use domain::redact::{redact, redact_json};
use domain::{Clock as _, Error, Result, SystemClock};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use super::{Ctx, doctor, load};
use crate::client::Client;

/// Lines of the log, and of each failed build, that are taken.
const LOG_LINES: usize = 5000;
const BUILD_LINES: usize = 200;
/// Failed builds that are looked at.
const BUILDS: usize = 10;
/// What one piece may hold; of more the end is taken.
const PIECE_BYTES: usize = 8 * 1024 * 1024;

#[derive(clap::Args)]
pub struct Args {
    /// Where it is written, as `.tar.gz`. A file that is there is not overwritten.
    file: PathBuf,
    /// Also the audit log of the last day: names of keys and users, addresses. Takes an admin's key.
    #[arg(long)]
    audit: bool,
}

/// What is asked of the server, and under which name it goes in.
const ASKED: [(&str, &str); 6] = [
    ("readyz.json", "/readyz"),
    ("repos.json", "/v1/repos"),
    ("pools.json", "/v1/pools"),
    ("images.json", "/v1/images"),
    ("stats.json", "/v1/stats"),
    ("sessions.json", "/v1/sessions?limit=200"),
];

pub async fn run(ctx: &Ctx, args: Args) -> Result<()> {
    let pieces = gather(ctx, args.audit).await;
    let failed = |e: std::io::Error| Error::permanent(format!("write {}", args.file.display())).caused_by(e);
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let file = file.map_err(failed)?;
    write(file, &pieces).map_err(failed)?;
    println!("{}: look at it before you send it", args.file.display());
    for (name, text) in &pieces {
        println!("  {name}, {}", super::output::bytes(text.len() as u64));
    }
    Ok(())
}

/// Name and content of each piece. What can't be had is in it as the reason why.
async fn gather(ctx: &Ctx, audit: bool) -> Vec<(String, String)> {
    let mut pieces = vec![("about.json".to_owned(), pretty(about().await))];
    pieces.push(("doctor.json".into(), pretty(json!(doctor::examine(ctx).await))));
    pieces.push(("configuration.json".into(), configuration(ctx)));
    pieces.push(("log.txt".into(), journal().await));
    match ctx.client() {
        Err(e) => pieces.push(("server.txt".into(), e.chain())),
        Ok(client) => {
            for (name, path) in ASKED {
                pieces.push((name.into(), asked(&client, path).await));
            }
            pieces.push(("metrics.txt".into(), client.text("/metrics").await.unwrap_or_else(|e| e.chain())));
            failed_builds(&client, &mut pieces).await;
            if audit {
                let since = SystemClock.now() - jiff::SignedDuration::from_hours(24);
                let path = format!("/v1/audit?since={since}&limit=500");
                pieces.push(("audit.json".into(), asked(&client, &path).await));
            }
        }
    }
    for (_, text) in &mut pieces {
        *text = redact(tail(text)).into_owned();
    }
    pieces
}

async fn about() -> Value {
    json!({
        "hotbed": env!("CARGO_PKG_VERSION"),
        "at": SystemClock.now(),
        "system": said("uname", &["-srm"]).await,
        "os": std::fs::read_to_string("/etc/os-release").unwrap_or_default(),
        "docker": said("docker", &["version", "--format", "{{.Server.Version}} {{.Server.KernelVersion}}"]).await,
        "git": said("git", &["--version"]).await,
        "load": std::fs::read_to_string("/proc/loadavg").unwrap_or_default().trim(),
        "memory": std::fs::read_to_string("/proc/meminfo").unwrap_or_default().lines().take(3).collect::<Vec<_>>(),
    })
}

/// What a program prints, or why it does not.
async fn said(program: &str, arguments: &[&str]) -> String {
    match tokio::process::Command::new(program).args(arguments).output().await {
        Ok(out) if out.status.success() => String::from_utf8_lossy(&out.stdout).trim().to_owned(),
        Ok(out) => format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr).trim()),
        Err(e) => e.to_string(),
    }
}

/// The server's own log, where systemd keeps it.
async fn journal() -> String {
    let lines = LOG_LINES.to_string();
    said("journalctl", &["--unit", "hotbed", "--no-pager", "--lines", &lines, "--output", "short-iso"]).await
}

fn configuration(ctx: &Ctx) -> String {
    match load(&ctx.config) {
        Err(e) => e.chain(),
        Ok(config) => {
            let mut value = json!({"settings": config.settings(), "repos": config.repos()});
            bare(&mut value);
            pretty(value)
        }
    }
}

/// Without the values of environments, and without who signs in at an address.
fn bare(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::Object(variables) if name == "env" => {
                        variables.values_mut().for_each(|v| *v = json!("…"));
                    }
                    field => bare(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(bare),
        Value::String(text) => {
            if let Some((scheme, rest)) = text.split_once("://")
                && let Some((_, behind)) = rest.split_once('@')
            {
                *text = format!("{scheme}://…@{behind}");
            }
        }
        _ => {}
    }
}

async fn asked(client: &Client, path: &str) -> String {
    match client.get::<Value>(path).await {
        Ok(mut answer) => {
            bare(&mut answer);
            redact_json(&mut answer);
            pretty(answer)
        }
        Err(e) => e.chain(),
    }
}

/// The newest builds of all repos that failed, with the end of their logs.
async fn failed_builds(client: &Client, pieces: &mut Vec<(String, String)>) {
    let Ok(repos) = client.get::<Value>("/v1/repos").await else { return };
    let names = repos["items"].as_array().into_iter().flatten().filter_map(|r| r["name"].as_str());
    let mut left = BUILDS;
    for name in names {
        let Ok(builds) = client.get::<Value>(&format!("/v1/repos/{name}/builds?limit=20")).await else {
            continue;
        };
        let failed = builds["items"].as_array().into_iter().flatten().find(|b| b["state"] == "failed");
        let Some(id) = failed.and_then(|b| b["id"].as_str()) else { continue };
        let log = client.text(&format!("/v1/builds/{id}/log")).await.unwrap_or_else(|e| e.chain());
        let lines: Vec<_> = log.lines().rev().take(BUILD_LINES).collect();
        let end: Vec<_> = lines.into_iter().rev().collect();
        pieces.push((format!("builds/{id}.txt"), format!("{name}\n{}\n", end.join("\n"))));
        left -= 1;
        if left == 0 {
            return;
        }
    }
}

fn pretty(value: Value) -> String {
    format!("{value:#}\n")
}

/// The end of a text, from the beginning of a character on.
fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(PIECE_BYTES);
    &text[(from..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())..]
}

fn write(out: impl Write, pieces: &[(String, String)]) -> std::io::Result<()> {
    let mut tar = tar::Builder::new(GzEncoder::new(out, Compression::default()));
    for (name, text) in pieces {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(SystemClock.now().as_second().max(0).cast_unsigned());
        tar.append_data(&mut header, format!("hotbed-support/{name}"), text.as_bytes())?;
    }
    tar.into_inner()?.finish()?.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_environments_nor_credentials_go_in() {
        let mut value = json!({
            "image": {"env": {"PASSWORD": "hunter2"}, "setup": ["make"]},
            "list": [{"url": "https://ada:hunter2@example.invalid/a.git"}],
        });
        bare(&mut value);
        assert_eq!(
            value,
            json!({
                "image": {"env": {"PASSWORD": "…"}, "setup": ["make"]},
                "list": [{"url": "https://…@example.invalid/a.git"}],
            })
        );
    }

    #[test]
    fn of_what_is_too_long_the_end_is_taken() {
        let text = format!("ä{}", "x".repeat(PIECE_BYTES - 1));
        assert_eq!(tail(&text).len(), PIECE_BYTES - 1, "no half character");
        assert_eq!(tail("short"), "short");
    }
}
