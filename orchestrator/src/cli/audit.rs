//! `hotbed audit`: who did what.

use clap::Args;
use domain::{Clock, Error, Result, SystemClock};
use jiff::{SignedDuration, Timestamp};

use super::Ctx;
use super::pool::period;
use crate::api::types::{AuditView, List};

#[derive(Args)]
pub struct AuditArgs {
    /// Lines since then: a time such as `2026-11-01T00:00:00Z`, or how long ago, such as `2h`.
    #[arg(long, value_parser = moment)]
    since: Option<Timestamp>,
}

/// A moment, or a length of time before now.
fn moment(text: &str) -> std::result::Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    let expected =
        || format!("`{text}` is no moment: expected a time such as `2026-11-01T00:00:00Z`, or `2h`");
    let ago = SignedDuration::try_from(period(text).map_err(|_| expected())?).map_err(|_| expected())?;
    SystemClock.now().checked_sub(ago).map_err(|_| expected())
}

/// How it ended, and how often where a line stands for several.
fn outcome(l: &AuditView) -> String {
    let times = if l.times > 1 { format!(", {} times", l.times) } else { String::new() };
    format!("{} ({}){times}", l.outcome, l.status)
}

/// Everything, page by page. With `--json` one object a line, for other programs to keep.
pub async fn run(ctx: &Ctx, args: &AuditArgs) -> Result<()> {
    let client = ctx.client()?;
    let since = args.since.map_or(String::new(), |at| format!("&since={at}"));
    let (mut all, mut after) = (Vec::new(), "0".to_owned());
    loop {
        let page: List<AuditView> = client.get(&format!("/v1/audit?limit=500&after={after}{since}")).await?;
        for line in page.items {
            if ctx.out.json {
                let text =
                    serde_json::to_string(&line).map_err(|e| Error::permanent("write JSON").caused_by(e))?;
                println!("{text}");
            } else {
                all.push(line);
            }
        }
        match page.next {
            Some(next) => after = next,
            None => break,
        }
    }
    if ctx.out.json {
        return Ok(());
    }
    ctx.out.table(&["AT", "WHO", "USER", "FROM", "ACTION", "SUBJECT", "MADE", "OUTCOME"], &all, |l| {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            l.at.to_string(),
            l.who.clone(),
            or_none(&l.user),
            l.from.clone(),
            l.action.clone(),
            l.subject.clone(),
            or_none(&l.made),
            outcome(l),
        ]
    })
}
