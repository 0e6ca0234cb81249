//! `make bench`: measures what is promised, prints a table and writes `target/bench.json`.
//!
//! These are measurements and not tests: a figure over its target is said and does not fail the run; a wrong answer
//! does. Words on the command line choose sections whose name holds one of them; `--quick` leaves the demo out.

mod fake;
mod forge;
mod gateway;
mod idle;
mod images;
mod rates;
mod real;
mod report;
mod scrape;
mod sizing;
mod stage;
mod telemetry;
mod wire;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use domain::{Error, Result};
use report::{Report, Target, note};

/// Sections in the order in which they run; each is a group of figures that share their set-up.
const SECTIONS: [(&str, &[&str]); 24] = [
    ("http", &["claim_http_1", "claim_http_16", "fdatasync"]),
    ("poisson", &["poisson_45"]),
    ("storm", &["burst_300"]),
    ("typing", &["warmup_http"]),
    ("rate", &["claims_per_s", "claims_per_s_http"]),
    ("telemetry", &["telemetry_cost", "telemetry_of_none"]),
    ("tick", &["tick_10000_idle", "rss_10000_idle"]),
    ("plan", &["plan_1000_repos"]),
    ("sizing", &["idle_hours_ratio_best_fixed"]),
    ("scrape", &["scrape_1000_repos"]),
    ("start", &["start_1000_repos"]),
    ("idle", &["idle_cpu", "idle_cpu_kept_fresh", "idle_rss"]),
    ("looks", &["tick_unchanged"]),
    ("webhooks", &["webhooks_per_s", "webhook_answer"]),
    ("pulls", &["pr_own_time"]),
    ("gateway", &["gateway_fetch_ratio", "gateway_push_rss"]),
    ("exec", &["exec_overhead"]),
    ("first", &["claim_first_exec_docker"]),
    ("cold", &["cold_start_ratio", "cold_start_ratio_bridge"]),
    ("capture", &["capture_ratio_1000_files", "capture_ratio_100mb"]),
    ("increment", &["incremental_overhead"]),
    ("push", &["push_bytes_ratio"]),
    ("burst", &["burst_100"]),
    ("demo", &["demo_second"]),
];

fn main() -> ExitCode {
    if let Some(child) = fake::Child::from_env() {
        return fake::run_child(child);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let quick = words.iter().any(|w| w == "--quick");
    let filters: Vec<_> = words.into_iter().filter(|w| !w.starts_with("--")).collect();
    let done = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(&filters, quick)),
        Err(e) => Err(Error::permanent("start a runtime").caused_by(e)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {}", e.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run(filters: &[String], quick: bool) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let profile =
        if cfg!(debug_assertions) { "unoptimised build, figures mean little" } else { "optimised build" };
    println!("{cores} cores, load average {:.2}, {profile}", report::load());
    let mut report = Report::default();
    let mut failed = Vec::new();
    let mut stage = None;
    for (section, figures) in SECTIONS {
        let asked = |f: &String| section == f || figures.iter().any(|n| n.contains(f.as_str()));
        let wanted =
            if filters.is_empty() { !(quick && section == "demo") } else { filters.iter().any(asked) };
        if !wanted {
            continue;
        }
        report.begin(&figures.join(", "));
        let done = match section {
            "http" => fake::claims(&mut report).await,
            "poisson" => rates::poisson(&mut report).await,
            "storm" => rates::burst(&mut report).await,
            "typing" => rates::typing(&mut report).await,
            "rate" => rates::sustained(&mut report).await,
            "telemetry" => telemetry::cost(&mut report).await,
            "tick" => fake::tick(&mut report).await,
            "plan" => sizing::plan_1000_repos(&mut report),
            "sizing" => sizing::idle_hours_ratio(&mut report),
            "scrape" => scrape::scrape(&mut report).await,
            "start" => idle::starts(&mut report).await,
            "idle" => idle::still(&mut report).await,
            "looks" => images::tick_unchanged(&mut report).await,
            "webhooks" => forge::webhooks(&mut report).await,
            "pulls" => forge::pull_requests(&mut report).await,
            "gateway" => gateway::gateway(&mut report).await,
            "exec" => real::on(&mut stage, |s| real::exec_overhead(s, &mut report)).await,
            "first" => real::on(&mut stage, |s| real::claim_first_exec(s, &mut report)).await,
            "cold" => real::on(&mut stage, |s| real::cold_start(s, &mut report)).await,
            "capture" => real::on(&mut stage, |s| real::captures(s, &mut report)).await,
            "increment" => real::on(&mut stage, |s| images::incremental_overhead(s, &mut report)).await,
            "push" => images::push_bytes_ratio(&mut report).await,
            "burst" => real::on(&mut stage, |s| real::burst(s, &mut report)).await,
            _ => {
                // It is to have the machine to itself.
                let ended = match stage.take() {
                    Some(stage) => stage.end().await,
                    None => Ok(()),
                };
                ended.and(demo(&mut report).await)
            }
        };
        report.end();
        if let Err(e) = done {
            // The others are still worth having.
            println!("   FAILED: {}", e.chain());
            failed.push(section);
        }
    }
    if let Some(stage) = stage {
        stage.end().await?;
    }
    report.table();
    let path = report::target_dir()?.join("bench.json");
    report.write(&path, filters.is_empty())?;
    println!("\nwritten to {}", path.display());
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::permanent(format!("not measured: {}", failed.join(", "))))
    }
}

/// A second `hotbed demo`: what the first one fetched and made is there.
async fn demo(report: &mut Report) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(900);
    let target = report::target_dir()?;
    let binary = ["release/hotbed", "debug/hotbed"].map(|b| target.join(b)).into_iter().find(|b| b.exists());
    let binary = binary.ok_or_else(|| Error::not_found("there is no `hotbed`: `make release` builds it"))?;
    note(binary.strip_prefix(&target).unwrap_or(&binary).display());
    let mut second = 0.0;
    for turn in ["first", "second"] {
        let begun = Instant::now();
        let mut command = tokio::process::Command::new(&binary);
        command.arg("demo").stdin(std::process::Stdio::null()).kill_on_drop(true);
        command.env("HOTBED_DEMO_CACHE", stage::cache_dir()?);
        let output = tokio::time::timeout(LIMIT, command.output())
            .await
            .map_err(|_| Error::timeout(format!("the {turn} demo did not end within {LIMIT:?}")))?
            .map_err(|e| Error::permanent("run the demo").caused_by(e))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Error::permanent(format!("the {turn} demo: {}: {said}", output.status)));
        }
        second = begun.elapsed().as_secs_f64();
        note(format!("{turn}: {second:.1} s"));
    }
    report.row("demo_second", "s", &[second], Target::p50(90.0));
    Ok(())
}
