//! The stand-in for GitHub as a program: for the demonstration, and for clients that are no tests.
//!
//! `github-standin [ADDRESS] [OWNER/REPO …]` prints one line of JSON with everything a client needs, and serves until
//! its standard input ends.

use std::sync::Arc;

use domain::{RepoName, SystemClock};
use serde_json::json;
use tests::github::{APP_ID, CLIENT_ID, CLIENT_SECRET, Standin, WEBHOOK_SECRET};
use tokio::io::AsyncReadExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:0".into()).parse()?;
    let standin = Standin::bind(address, Arc::new(SystemClock)).await?;
    for repo in args {
        standin.repo(&repo.parse::<RepoName>()?);
    }
    let facts = json!({
        "api_url": standin.api_url(), "web_url": standin.web_url(), "app_id": APP_ID, "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET, "webhook_secret": WEBHOOK_SECRET, "private_key": standin.private_key(),
    });
    println!("{facts}");
    // Whoever started it holds the other end.
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}
