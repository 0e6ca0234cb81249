//! What it costs to be seen: claims a second of a server that exports its traces, beside one that does not, turn by turn in
//! one run; and what counting costs, which no server goes without, and being scraped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use config::TracingSettings;
use domain::{Clock, Error, Result, SystemClock};
use http::Method;
use orchestrator::metrics::Metrics;
use serde_json::json;
use tests::collector::{Collector, Manners};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::fake::{Server, Stock, say, start};
use crate::rates::{Site, new_session, order};
use crate::report::{Report, Target, median, note};
use crate::stage;
use crate::wire::{Wire, parse};

const REPO: &str = "bench/seen";
const CLIENTS: usize = 32;
const MEMBERS: u32 = 40_000;
/// Each is a turn of both servers.
const ROUNDS: usize = 24;
const TURN: Duration = Duration::from_millis(500);
/// What a turn leaves to be done is done before the next one.
const SETTLE: Duration = Duration::from_millis(150);
/// As Prometheus does it that is told nothing else. Its share is added by calculation: a turn is too short for it.
const SCRAPED_EVERY: Duration = Duration::from_secs(15);
/// How often a claim is counted to learn what that takes.
const COUNTED: u32 = 200_000;

/// As a configuration says it that names an endpoint and nothing else.
pub fn exported_to(endpoint: String) -> TracingSettings {
    TracingSettings {
        endpoint,
        service_name: "hotbed".into(),
        sample: 1.0,
        per_second: 50,
        headers: BTreeMap::new(),
    }
}

/// One of the two servers, and the claims that it has answered.
struct Side {
    site: Site,
    claims: Arc<AtomicUsize>,
}

pub async fn cost(report: &mut Report) -> Result<()> {
    let collector =
        Collector::start(Manners::Forgets).map_err(|e| Error::permanent("start a collector").caused_by(e))?;
    let stock = Stock { starting: 64, ..Stock::of(REPO, MEMBERS) };
    let seen = Stock { tracing: Some(collector.endpoint()), ..stock.clone() };
    let sides = [side(&stock)?, side(&seen)?];
    let (turn, whose) = watch::channel(None);
    let mut clients = JoinSet::new();
    for (number, side) in sides.iter().enumerate() {
        for wire in side.site.wires(CLIENTS).await? {
            clients.spawn(claim(wire, whose.clone(), number, side.claims.clone()));
        }
    }
    let mut scraper = Wire::connect(&sides[1].site.address, &sides[1].site.key).await?;
    let (mut scrapes, mut rates) = (Vec::new(), [Vec::new(), Vec::new()]);
    for round in 0..=ROUNDS {
        let mut rate = [0.0; 2];
        // Who is first changes, so that a machine that gets slower or faster is no side's fault.
        for number in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            let _ = turn.send(Some(number));
            sleep(SETTLE).await;
            let claims = &sides[number].claims;
            let (before, begun) = (claims.load(Ordering::Relaxed), Instant::now());
            sleep(TURN).await;
            rate[number] = (claims.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
            let _ = turn.send(None);
            sleep(SETTLE).await;
        }
        if let Some(done) = clients.try_join_next() {
            return done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))?;
        }
        let begun = Instant::now();
        scraper.raw(Method::GET, "/metrics", Bytes::new()).await?;
        let scrape = begun.elapsed().as_secs_f64();
        // The first one warms up.
        if round > 0 {
            scrapes.push(scrape);
            rates.iter_mut().zip(rate).for_each(|(all, one)| all.push(one));
        }
    }
    let spans = collector.requests();
    if spans == 0 {
        return Err(Error::permanent("no span left the server whose traces were to be measured"));
    }
    let counting = counting(median(&rates[0]))?;
    let scraping = 100.0 * median(&scrapes) / SCRAPED_EVERY.as_secs_f64() / cores();
    note(format!(
        "{:.0} claims/s untraced, {:.0} traced, {spans} batches of spans; of the time of all cores, counting takes {counting:.2} % \
         and being scraped {scraping:.2} %",
        median(&rates[0]),
        median(&rates[1])
    ));
    // Two rounds together: in one of them either was first.
    let pairs = rates[0].chunks(2).zip(rates[1].chunks(2));
    let cost = |(bare, traced): (&[f64], &[f64])| {
        100.0 * (1.0 - traced.iter().sum::<f64>() / bare.iter().sum::<f64>()) + counting + scraping
    };
    let costs: Vec<_> = pairs.map(cost).collect();
    report.row("telemetry_cost", "%", &costs, Target::p50(3.0));
    Ok(())
}

fn side(stock: &Stock) -> Result<Side> {
    Ok(Side { site: Site::start(stock)?, claims: Arc::default() })
}

/// Claims without a pause while it is this side's turn; ends with an error only.
async fn claim(
    mut wire: Wire,
    mut whose: watch::Receiver<Option<usize>>,
    side: usize,
    claims: Arc<AtomicUsize>,
) -> Result<()> {
    let body = order(REPO);
    while whose.wait_for(|turn| *turn == Some(side)).await.is_ok() {
        let (status, bytes) = wire.raw(Method::POST, "/v1/sessions", body.clone()).await?;
        if parse("/v1/sessions", status, &bytes)?["launch"] != "warm" {
            return Err(Error::permanent("the pool of the bench ran dry"));
        }
        claims.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// What share of a claim's processor time is spent on its metrics, in percent.
fn counting(claims_per_second: f64) -> Result<f64> {
    let dir = stage::scratch()?;
    let mut server = Server::start("count", dir.path(), &Stock::of(REPO, 1))?;
    let said = tokio::task::block_in_place(|| server.hear())?;
    let seconds = said["seconds"].as_f64().unwrap_or(f64::NAN);
    Ok(100.0 * seconds * claims_per_second / cores())
}

fn cores() -> f64 {
    std::thread::available_parallelism().map_or(1, usize::from) as f64
}

/// The child's part: everything that is counted of a claim, often.
pub async fn count(dir: &Path, stock: &Stock) -> Result<()> {
    let app = start(dir, stock).await?;
    let record = app.sessions.create(new_session(&stock.repos[0])?, None).await?.record;
    let metrics = Metrics::new("given", SystemClock.now());
    let took = Duration::from_micros(700);
    let begun = std::time::Instant::now();
    for _ in 0..COUNTED {
        metrics.pool_arrival(&record.repo);
        metrics.pool_hit(&record.repo);
        metrics.session_started(&record, took);
        metrics.synced(&record, took);
        metrics.session_ready(&record, took);
        metrics.gate_waited(took);
        metrics.api_answered(&Method::POST, "/v1/sessions", 201, took);
        metrics.session_wakes.inc();
    }
    let seconds = begun.elapsed().as_secs_f64() / f64::from(COUNTED);
    say(&json!({"seconds": seconds}))
}
