//! `hotbed pool`: what pools want and why, what operators order, what another policy would have done.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use domain::{Clock, Error, RepoName, Result, SystemClock};
use http::Method;
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use pool::History;
use pool::sim::study::course;
use pool::sim::svg;

use super::output::{bytes, lasted};
use super::{Ctx, load};
use crate::api::types::{Arrivals, GiveOrder, List, OrderWord, PoolView};
use crate::replay::{self, Replay, Row, Traffic};

#[derive(Subcommand)]
pub enum PoolCommand {
    Ls,
    /// Why a pool's target is what it is: each of its terms.
    Explain {
        repo: RepoName,
    },
    /// Other limits than the policy's, for a while.
    Set {
        repo: RepoName,
        /// The least, in place of the policy's `min`.
        #[arg(long, required_unless_present = "max")]
        min: Option<u32>,
        /// The most, in place of the policy's `max`.
        #[arg(long)]
        max: Option<u32>,
        /// How long, such as `2h` or `1d`; at most 30 days.
        #[arg(long = "for", value_parser = period)]
        time: Duration,
        #[command(flatten)]
        who: Who,
    },
    /// Leave a pool as it is: nothing is made, replaced or scaled down.
    Pause {
        repo: RepoName,
        #[command(flatten)]
        who: Who,
    },
    /// Empty a pool: nothing is made, and what is idle goes.
    Drain {
        repo: RepoName,
        #[command(flatten)]
        who: Who,
    },
    /// Withdraw what was ordered: the policy alone counts again.
    Resume {
        repo: RepoName,
        #[command(flatten)]
        who: Who,
    },
    /// Run arrivals through another policy, beside today's.
    Replay(ReplayArgs),
}

/// What is recorded with an order.
#[derive(Args)]
pub struct Who {
    /// Why.
    #[arg(long)]
    why: Option<String>,
    /// Who orders it.
    #[arg(long, env = "USER")]
    by: Option<String>,
}

#[derive(Args)]
pub struct ReplayArgs {
    /// The configuration whose policies and budget are tried; today's are those of `--config`.
    #[arg(long)]
    policy: PathBuf,
    /// A file of arrivals, a line each: a time, a repo, and how many came where it was not one. Otherwise it is what
    /// the server has recorded.
    #[arg(long)]
    arrivals: Option<PathBuf>,
    /// The last part of the arrivals, such as `7d`; what was before is what the planner has learnt from. Seven days of
    /// what the server has recorded, and all of a file, when not given.
    #[arg(long, value_parser = period)]
    last: Option<Duration>,
    /// This repo alone.
    #[arg(long)]
    repo: Option<RepoName>,
    /// How long a session keeps its sandbox.
    #[arg(long, default_value = "30m", value_parser = period)]
    session: Duration,
    /// How long a member takes to become ready, where that was not measured.
    #[arg(long, default_value = "30s", value_parser = period)]
    lead: Duration,
    /// Where a plot is written.
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// `90s`, `2h`, `1h 30m`, `7d`.
pub(super) fn period(text: &str) -> std::result::Result<Duration, String> {
    let expected = || format!("`{text}` is not a length of time: expected one such as `90s`, `2h` or `7d`");
    let span: Span = text.parse().map_err(|_| expected())?;
    let length = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| expected())?;
    Duration::try_from(length).ok().filter(|d| !d.is_zero()).ok_or_else(expected)
}

pub async fn run(ctx: &Ctx, command: PoolCommand) -> Result<ExitCode> {
    match command {
        PoolCommand::Ls => list(ctx).await?,
        PoolCommand::Explain { repo } => {
            let pool = ctx.client()?.get(&format!("/v1/pools/{repo}")).await?;
            explain(ctx, &pool)?;
        }
        PoolCommand::Set { repo, min, max, time, who } => {
            let order =
                GiveOrder { min, max, for_seconds: Some(time.as_secs()), ..plain(OrderWord::Set, who) };
            give(ctx, &repo, order).await?;
        }
        PoolCommand::Pause { repo, who } => give(ctx, &repo, plain(OrderWord::Pause, who)).await?,
        PoolCommand::Drain { repo, who } => give(ctx, &repo, plain(OrderWord::Drain, who)).await?,
        PoolCommand::Resume { repo, who } => {
            let words = [("by", who.by), ("why", who.why)];
            let query: Vec<String> =
                words.iter().filter_map(|(key, w)| Some(format!("{key}={}", escape(w.as_ref()?)))).collect();
            let path = format!("/v1/pools/{repo}/order?{}", query.join("&"));
            explain(ctx, &ctx.client()?.delete(&path).await?)?;
        }
        PoolCommand::Replay(args) => return replay(ctx, args).await,
    }
    Ok(ExitCode::SUCCESS)
}

fn plain(order: OrderWord, who: Who) -> GiveOrder {
    GiveOrder { order, min: None, max: None, for_seconds: None, by: who.by, why: who.why }
}

async fn give(ctx: &Ctx, repo: &RepoName, order: GiveOrder) -> Result<()> {
    let path = format!("/v1/pools/{repo}/order");
    let headers = [("content-type", "application/json")];
    let pool = ctx.client()?.call(Method::PUT, &path, Some(&order), &headers).await?;
    explain(ctx, &pool)
}

/// As the part of a query.
fn escape(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

async fn list(ctx: &Ctx) -> Result<()> {
    let list: List<PoolView> = ctx.client()?.get("/v1/pools").await?;
    ctx.out.table(&["REPO", "TARGET", "WARM", "STARTING", "RESERVED", "ORDER", "STATE"], &list.items, |p| {
        vec![
            p.repo.clone(),
            p.target.to_string(),
            p.warm.to_string(),
            (p.starting + p.creating).to_string(),
            p.reserved.to_string(),
            p.order.as_ref().map_or("-".into(), |o| word(o.order).into()),
            p.reason.clone(),
        ]
    })
}

fn word(order: OrderWord) -> &'static str {
    match order {
        OrderWord::Set => "set",
        OrderWord::Pause => "pause",
        OrderWord::Drain => "drain",
    }
}

fn explain(ctx: &Ctx, pool: &PoolView) -> Result<()> {
    if ctx.out.json {
        return ctx.out.print_json(pool);
    }
    println!("{}: target {}", pool.repo, pool.target);
    for term in &pool.explain {
        println!("  {term}");
    }
    if let Some(order) = &pool.order {
        let until = order.until.map_or(String::new(), |until| format!(" until {until}"));
        println!("ordered: {}{until}, by {} at {}: {}", word(order.order), order.by, order.at, order.why);
    }
    println!(
        "{} warm, {} starting, {} creating, {} of them reserved: {}",
        pool.warm, pool.starting, pool.creating, pool.reserved, pool.reason
    );
    Ok(())
}

// ----------------------------------------------------------------------------------------------- replay

async fn replay(ctx: &Ctx, args: ReplayArgs) -> Result<ExitCode> {
    let (today, new) = (load(&ctx.config)?, load(&args.policy)?);
    let mut traffic = match &args.arrivals {
        Some(file) => from_file(file)?,
        None => from_server(ctx, &today, &args).await?,
    };
    if let Some(repo) = &args.repo {
        traffic.retain(|name, _| name == repo);
    }
    let (last, end) = match &args.arrivals {
        Some(_) => (args.last, None),
        // With the whole of this minute: when in it somebody came is not known.
        None => {
            let end = SystemClock.now() + SignedDuration::from_mins(1);
            (Some(args.last.unwrap_or(Duration::from_secs(7 * 24 * 3600))), Some(end))
        }
    };
    let (begin, end) = replay::span(&traffic, last, end)?;
    let replay = Replay { traffic, begin, end, session: args.session, lead: args.lead };
    let simulate = move || {
        let scenario = replay.scenario(&today);
        let outcomes = [replay::outcome(&scenario), replay::outcome(&replay.scenario(&new))];
        (scenario, outcomes)
    };
    let (scenario, outcomes) = tokio::task::spawn_blocking(simulate)
        .await
        .map_err(|e| Error::permanent("a bug: the simulation ended in a panic").caused_by(e))?;
    let names = ["today".to_owned(), args.policy.display().to_string()];
    if let Some(path) = &args.svg {
        let title = format!("{} to {}", day(begin), day(end));
        let both = [("today", &outcomes[0]), ("the new policy", &outcomes[1])];
        std::fs::write(path, svg::document(&[course(&title, &scenario, &both)]))
            .map_err(|e| Error::invalid(format!("write {}", path.display())).caused_by(e))?;
    }
    let rows: Vec<Row> = names.iter().zip(&outcomes).map(|(name, o)| Row::new(name, o)).collect();
    let head =
        ["POLICY", "CLAIMS", "HIT RATE", "WAIT P50", "WAIT P99", "IDLE HOURS", "PEAK MEMORY", "REFUSED"];
    ctx.out.table(&head, &rows, |r| {
        vec![
            r.policy.clone(),
            r.claims.to_string(),
            format!("{:.2} %", r.hit_rate * 100.0),
            lasted(r.waiting_p50_seconds),
            lasted(r.waiting_p99_seconds),
            format!("{:.1}", r.idle_hours),
            bytes(r.peak_memory),
            r.refused.to_string(),
        ]
    })?;
    Ok(ExitCode::SUCCESS)
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn from_file(path: &Path) -> Result<BTreeMap<RepoName, Traffic>> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::invalid(format!("read the arrivals {name}")).caused_by(e))?;
    replay::read(&name, &text)
}

/// What the server has recorded of the repos that it has.
async fn from_server(
    ctx: &Ctx,
    today: &config::Config,
    args: &ReplayArgs,
) -> Result<BTreeMap<RepoName, Traffic>> {
    let client = ctx.client()?;
    let mut out = BTreeMap::new();
    let wanted = |name: &RepoName| args.repo.as_ref().is_none_or(|repo| repo == name);
    for name in today.repos().iter().map(|spec| &spec.name).filter(|name| wanted(name)) {
        let recorded: Arrivals = client.get(&format!("/v1/pools/{name}/arrivals")).await?;
        let mut history = recorded.watched_since.map_or_else(History::default, History::since);
        recorded.minutes.iter().for_each(|m| history.add(m.at, m.claims));
        let leads = recorded.lead_milliseconds.iter().map(|ms| f64::from(*ms) / 1000.0).collect();
        out.insert(name.clone(), Traffic { history, moments: None, leads });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_as_people_write_them() {
        let seconds = |text: &str| period(text).map(|d| d.as_secs());
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("2h"), Ok(7200));
        assert_eq!(seconds("1h 30m"), Ok(5400));
        assert_eq!(seconds("7d"), Ok(7 * 24 * 3600));
        for wrong in ["", "2", "two hours", "-2h", "0s"] {
            assert!(period(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_in_a_query() {
        assert_eq!(escape("the demo & more"), "the%20demo%20%26%20more");
    }
}
