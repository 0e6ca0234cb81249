//! `hotbed doctor`: what is missing, and how to mend it.

mod live;

use std::process::ExitCode;

use docker::{DockerBackend, DockerConfig};
use domain::ports::Backend;
use domain::{Clock as _, InstanceId, Result, SystemClock};
use serde::Serialize;

use super::samples::Samples;
use super::{Ctx, load};

#[derive(Serialize)]
pub(super) struct Finding {
    pub check: &'static str,
    pub good: bool,
    pub detail: String,
    /// What to do about it.
    pub mend: Option<String>,
}

fn finding(check: &'static str, outcome: std::result::Result<String, (String, String)>) -> Finding {
    match outcome {
        Ok(detail) => Finding { check, good: true, detail, mend: None },
        Err((detail, mend)) => Finding { check, good: false, detail, mend: Some(mend) },
    }
}

pub async fn run(ctx: &Ctx) -> Result<ExitCode> {
    let findings = examine(ctx).await;
    if ctx.out.json {
        ctx.out.print_json(&findings)?;
    } else {
        for f in &findings {
            println!("{} {}: {}", if f.good { "ok  " } else { "MISS" }, f.check, f.detail);
            if let Some(mend) = &f.mend {
                println!("     {mend}");
            }
        }
    }
    Ok(if findings.iter().all(|f| f.good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// This machine, and where a server runs, what it says of itself.
pub(super) async fn examine(ctx: &Ctx) -> Vec<Finding> {
    let mut findings = Vec::new();
    let config = load(&ctx.config);
    findings.push(finding(
        "configuration",
        match &config {
            Ok(config) => Ok(format!("{}, {} repos", ctx.config.display(), config.repos().len())),
            Err(e) => Err((
                e.chain(),
                "write it (`examples/minimal.yaml` is a start) or name it with --config".into(),
            )),
        },
    ));
    let docker = config.as_ref().map(|c| c.settings().docker.clone()).unwrap_or_default();
    findings.push(finding("docker engine", engine(&docker).await));
    findings.push(finding(
        "agent",
        match crate::agent_binary::find() {
            Ok(bytes) => Ok(format!("{} bytes", bytes.len())),
            Err(e) => Err((e.chain(), "build it with `make agent`, or name it in HOTBED_AGENT".into())),
        },
    ));
    findings.push(finding("git", program("git", "--version", "install the package `git`").await));
    let packages =
        |c: &config::Config| c.repos().iter().any(|r| matches!(r.image.base, domain::Base::Packages { .. }));
    if config.as_ref().map_or(true, packages) {
        findings.push(finding(
            "mmdebstrap",
            program(
                "mmdebstrap",
                "--version",
                "install the package `mmdebstrap`; only `base: {packages: …}` needs it",
            )
            .await,
        ));
    }
    if let Ok(config) = &config {
        let dir = &config.settings().state_dir;
        findings.push(finding("state directory", writable(dir)));
    }
    if let Ok(client) = ctx.client() {
        let ready = client.get::<serde_json::Value>("/readyz").await;
        findings.push(finding(
            "server",
            match ready {
                Ok(_) => Ok(format!("ready at {}", client.address)),
                Err(e) => Err((e.chain(), "start it with `hotbed serve`, or read its log".into())),
            },
        ));
        // What can't be asked has been said: the server is not there.
        if let Ok(text) = client.text("/metrics").await {
            let now = SystemClock.now().as_microsecond() as f64 / 1e6;
            findings.extend(live::judge(&Samples::parse(&text), now));
        }
    }
    findings
}

async fn engine(settings: &config::DockerSettings) -> std::result::Result<String, (String, String)> {
    let mend =
        || "install and start Docker 20.10 or later (`scripts/ensure-docker` does both on Debian)".to_owned();
    // The adapter makes its directories when it is made; these are only looked through.
    let run_dir = std::env::temp_dir().join(format!("hotbed-doctor-{}", std::process::id()));
    let mut config = DockerConfig::new(InstanceId::new(), [0; 32], &run_dir);
    config.host = settings.host.clone();
    let probed = async {
        let backend = DockerBackend::connect(config)?;
        let info = backend.probe().await?;
        Ok::<_, domain::Error>(format!("{} at {}", info.version, backend.host()))
    };
    let probed = probed.await;
    let _ = std::fs::remove_dir_all(&run_dir);
    probed.map_err(|e| (e.chain(), mend()))
}

async fn program(name: &str, flag: &str, mend: &str) -> std::result::Result<String, (String, String)> {
    match tokio::process::Command::new(name).arg(flag).output().await {
        Ok(out) if out.status.success() => {
            Ok(String::from_utf8_lossy(&out.stdout).lines().next().unwrap_or_default().to_owned())
        }
        Ok(out) => Err((format!("`{name} {flag}` failed: {}", out.status), mend.to_owned())),
        Err(e) => Err((format!("`{name}` can't be run: {e}"), mend.to_owned())),
    }
}

fn writable(dir: &std::path::Path) -> std::result::Result<String, (String, String)> {
    let mend = || format!("make {} and give it to the user that runs Hotbed", dir.display());
    // One that is not there yet is made at the first start; then what counts is what it will be made in.
    let Some(there) = dir.ancestors().find(|d| d.is_dir()) else {
        return Err((format!("{} has no directory above it", dir.display()), mend()));
    };
    let probe = there.join(".hotbed-doctor");
    std::fs::write(&probe, b"")
        .and_then(|()| std::fs::remove_file(&probe))
        .map(|()| dir.display().to_string())
        .map_err(|e| (format!("{}: {e}", dir.display()), mend()))
}
