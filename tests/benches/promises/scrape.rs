//! One scrape of a server with a thousand repos, every one of which has all its series.

use std::path::Path;

use bytes::Bytes;
use domain::{BuildState, Error, Phase, Result};
use http::Method;
use serde_json::json;
use tokio::time::Instant;

use crate::fake::{Server, Stock, say, start};
use crate::report::{Report, Target, note};
use crate::stage;
use crate::wire::Wire;

const REPOS: u32 = 1000;
const SCRAPES: usize = 60;

fn stock() -> Stock {
    Stock { repos: (0..REPOS).map(|i| format!("bench/repo-{i}")).collect(), ..Stock::of("", 1) }
}

/// The child's part: everything that is counted of a repo has happened once.
pub async fn serve(dir: &Path, stock: &Stock) -> Result<()> {
    let app = start(dir, stock).await?;
    for spec in app.repos.all() {
        for phase in Phase::ALL {
            app.metrics.build_phase(&spec.name, phase, 1.0);
        }
        app.metrics.build_ended(&spec.name, BuildState::Succeeded);
        app.metrics.pool_idled(&spec.name, 1.0);
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|e| Error::permanent("listen").caused_by(e))?;
    let address = listener.local_addr().map_err(|e| Error::permanent("listen").caused_by(e))?;
    say(&json!({"address": address.to_string(), "key": app.api_key}))?;
    app.serve(listener).await
}

pub async fn scrape(report: &mut Report) -> Result<()> {
    let dir = stage::scratch()?;
    let mut server = Server::start("scrape", dir.path(), &stock())?;
    let said = tokio::task::block_in_place(|| server.hear())?;
    let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
    let mut wire = Wire::connect(&text("address"), &text("key")).await?;
    let (mut times, mut size, mut lines) = (Vec::new(), 0, 0);
    for turn in 0..=SCRAPES {
        let begun = Instant::now();
        let (status, body) = wire.raw(Method::GET, "/metrics", Bytes::new()).await?;
        let took = begun.elapsed().as_secs_f64() * 1e3;
        if !status.is_success() || !body.ends_with(b"# EOF\n") {
            return Err(Error::permanent(format!(
                "a scrape was answered with {status}, {} bytes",
                body.len()
            )));
        }
        // The first one makes the series that are read off the present.
        if turn > 0 {
            times.push(took);
        }
        (size, lines) = (body.len(), body.iter().filter(|b| **b == b'\n').count());
    }
    note(format!("{lines} lines, {:.1} MB", size as f64 / 1e6));
    report.row("scrape_1000_repos", "ms", &times, Target::p50(20.0));
    Ok(())
}
