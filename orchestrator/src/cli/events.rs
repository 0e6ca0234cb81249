//! `hotbed events`: what happens in the installation, a line each.

use std::time::Duration;

use clap::Args;
use domain::{Error, Result};
use futures_util::StreamExt;

use super::Ctx;
use crate::api::types::HappeningView;
use crate::client::Client;

/// From a lost connection to the next try, at first and at most.
const PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

#[derive(Args)]
pub struct EventsArgs {
    /// Go on with what happens from now on, through restarts of the server.
    #[arg(long, short)]
    follow: bool,
    /// Of this repo alone.
    #[arg(long)]
    repo: Option<String>,
    /// Of this session alone.
    #[arg(long)]
    session: Option<String>,
    /// Of this kind alone, such as `build_ended`; may be given several times.
    #[arg(long)]
    kind: Vec<String>,
}

impl EventsArgs {
    fn path(&self, after: u64) -> String {
        let mut path = format!("/v1/events?after={after}&tail={}", !self.follow);
        let kinds = (!self.kind.is_empty()).then(|| self.kind.join(","));
        for (name, value) in [("repo", &self.repo), ("session", &self.session), ("kind", &kinds)] {
            if let Some(value) = value {
                path += &format!("&{name}={}", escaped(value));
            }
        }
        path
    }
}

/// What may stand in a query as it is; the rest by its bytes.
fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~' | b'/' | b',');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

pub async fn run(ctx: &Ctx, args: &EventsArgs) -> Result<()> {
    let client = ctx.client()?;
    let (mut after, mut pause, mut reached) = (0, PAUSE, false);
    loop {
        let before = after;
        match follow(&client, args, &mut after, &mut reached, ctx.out.json).await {
            Ok(()) if !args.follow => return Ok(()),
            Ok(()) => {}
            // The server is away for a while; a refusal stays one, and who never answered is not waited for.
            Err(e) if args.follow && reached && e.kind().is_retryable() => {}
            Err(e) => return Err(e),
        }
        pause = if after > before { PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        tokio::time::sleep(pause).await;
    }
}

/// One connection, until it ends. `after` moves with what was printed.
async fn follow(
    client: &Client,
    args: &EventsArgs,
    after: &mut u64,
    reached: &mut bool,
    json: bool,
) -> Result<()> {
    let mut lines = client.lines(&args.path(*after)).await?;
    *reached = true;
    let mut kind = String::new();
    while let Some(line) = lines.next().await {
        let line = line?;
        if let Some(name) = line.strip_prefix("event:") {
            name.trim().clone_into(&mut kind);
        }
        let Some(data) = line.strip_prefix("data:").map(str::trim) else { continue };
        if kind == "lost" {
            if json {
                println!("{{\"lost\":{data}}}");
            } else {
                println!("-- what happened in between is no longer there --");
            }
            continue;
        }
        let event: HappeningView =
            serde_json::from_str(data).map_err(|e| Error::permanent("read an event").caused_by(e))?;
        *after = event.seq;
        if json { println!("{data}") } else { println!("{}", shown(&event)) }
    }
    Ok(())
}

fn shown(e: &HappeningView) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let of = e.session.as_ref().or(e.subject.as_ref()).cloned().unwrap_or_else(|| "-".into());
    format!(
        "{}  {:<20}  {:<15}  {:<36}  {:<10}  {}",
        e.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        or_none(&e.repo),
        e.kind,
        of,
        or_none(&e.outcome),
        e.words
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_asks_for_what_was_said() {
        let args = EventsArgs {
            follow: true,
            repo: Some("acme/api".into()),
            session: None,
            kind: vec!["build_ended".into(), "a&b=c".into()],
        };
        assert_eq!(args.path(7), "/v1/events?after=7&tail=false&repo=acme/api&kind=build_ended,a%26b%3Dc");
    }
}
