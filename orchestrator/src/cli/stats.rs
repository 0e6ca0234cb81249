//! `hotbed stats`.

use clap::{Args, ValueEnum};
use domain::Result;

use super::Ctx;
use crate::api::types::{OutcomeView, Stats};

#[derive(Args)]
pub struct StatsArgs {
    /// How many days back.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// What to tell apart.
    #[arg(long, value_enum, default_value_t = By::Repo)]
    by: By,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Repo,
    User,
}

pub async fn run(ctx: &Ctx, args: &StatsArgs) -> Result<()> {
    let stats: Stats = ctx.client()?.get(&format!("/v1/stats?days={}", args.days)).await?;
    if ctx.out.json {
        return ctx.out.print_json(&stats);
    }
    let outcomes = &stats.outcomes;
    let (first, groups) = match args.by {
        By::Repo => ("REPO", &outcomes.by_repo),
        By::User => ("USER", &outcomes.by_user),
    };
    let total = ("all".to_owned(), outcomes.total.clone());
    let rows: Vec<_> = groups.iter().map(|(k, v)| (k.clone(), v.clone())).chain([total]).collect();
    let head = [
        first,
        "SESSIONS",
        "MERGED",
        "PULLS",
        "OPEN",
        "CLOSED",
        "APPROVED",
        "REVISIONS",
        "TO PULL",
        "TO MERGE",
    ];
    ctx.out.table(&head, &rows, |(name, o)| row(name, o))?;
    println!(
        "{} people prompting in the last five minutes, {} live sessions",
        stats.prompting.people,
        stats.live_by_repo.values().sum::<u64>()
    );
    Ok(())
}

fn row(name: &str, o: &OutcomeView) -> Vec<String> {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    vec![
        name.to_owned(),
        o.sessions.to_string(),
        o.with_merged.to_string(),
        o.pull_requests.to_string(),
        o.open.to_string(),
        o.closed.to_string(),
        or_none(o.approval_rate.map(|rate| format!("{:.0} %", rate * 100.0))),
        or_none(o.revisions.map(|n| format!("{n:.1}"))),
        or_none(o.seconds_to_pull_request.map(long)),
        or_none(o.seconds_to_merge.map(long)),
    ]
}

fn long(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0}s"),
        s if s < 7200.0 => format!("{:.0}m", s / 60.0),
        s if s < 172_800.0 => format!("{:.1}h", s / 3600.0),
        s => format!("{:.1}d", s / 86_400.0),
    }
}
