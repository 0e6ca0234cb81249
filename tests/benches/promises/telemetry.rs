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
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fake::{Server, Stock, say, start};
use crate::idle::processor;
use crate::rates::{Site, new_session, order};
use crate::report::{Report, Target, median, note};
use crate::stage;
use crate::wire::{Wire, parse};

const REPO: &str = "bench/seen";
const CLIENTS: usize = 32;
/// A turn is so many claims of one server. Short, so that both see the same machine; many, because one differs from the next by a
/// tenth and more, traced or not.
const TURN: usize = 200;
/// A round is a turn of each. So many make a sitting, after those that warm up: what runs by the clock (the reconciler looks at
/// every record, now and then) is then little beside, and falls to both.
const ROUNDS: usize = 90;
const WARMING: usize = 15;
/// Two processes of one program differ, too, so both servers are started anew for each sitting, and the other one first.
const SITTINGS: usize = 8;
/// No turn finds the pool empty; nor is it refilled meanwhile, which takes more than what is measured.
const MEMBERS: u32 = 21_100;
const REFILL_MS: u64 = 3_600_000;
/// Traces a second. Half of the time it is the other server's turn, and claims that never pause have 50 a second in all.
const TRACES: u32 = 25;
/// As Prometheus does it that is told nothing else. Its share is added by calculation: a turn is too short for it.
const SCRAPED_EVERY: Duration = Duration::from_secs(15);
/// How often a claim is counted to learn what that takes.
const COUNTED: u32 = 200_000;

/// As a configuration says it that names an endpoint, but for how often.
pub fn exported_to(endpoint: String) -> TracingSettings {
    TracingSettings {
        endpoint,
        service_name: "hotbed".into(),
        sample: 1.0,
        per_second: TRACES,
        headers: BTreeMap::new(),
    }
}

/// One of the two servers, and who claims there.
struct Side {
    site: Site,
    wires: Vec<Wire>,
    /// Seconds of its turns.
    busy: f64,
}

/// A machine that claims keep busy has as many of them as the server's processor time allows, and it is that which is compared:
/// all of it, from a sitting's first claim to its last, with what is exported beside and after.
pub async fn cost(report: &mut Report) -> Result<()> {
    let collector =
        Collector::start(Manners::Forgets).map_err(|e| Error::permanent("start a collector").caused_by(e))?;
    let mut all = Taken::default();
    for sitting in 0..SITTINGS {
        all.sit(sitting, &collector.endpoint()).await?;
    }
    let batches = collector.requests();
    if batches == 0 {
        return Err(Error::permanent("no span left the server whose traces were to be measured"));
    }
    let Taken { took, busy, scrapes } = all;
    let scraping = 100.0 * median(&scrapes) / SCRAPED_EVERY.as_secs_f64() / cores();
    let rates = busy.map(|busy| (SITTINGS * ROUNDS * TURN) as f64 / busy);
    let counting = counting(rates[0])?;
    note(format!(
        "{:.0} claims/s untraced, {:.0} traced; {:.0} and {:.0} us of processor each; {batches} batches of spans",
        rates[0],
        rates[1],
        median(&took[0]),
        median(&took[1])
    ));
    note(format!(
        "of the time of all cores, counting takes {counting:.2} % and being scraped {scraping:.2} %"
    ));
    let pairs = took[0].iter().zip(&took[1]);
    let costs: Vec<_> =
        pairs.map(|(bare, traced)| 100.0 * (traced / bare - 1.0) + counting + scraping).collect();
    report.row("telemetry_cost", "%", &costs, Target::p50(3.0));
    Ok(())
}

/// What was measured of both, the one that is not traced first.
#[derive(Default)]
struct Taken {
    /// Microseconds of processor for a claim, in each sitting.
    took: [Vec<f64>; 2],
    /// Seconds of their turns.
    busy: [f64; 2],
    /// Seconds of a scrape of the traced one.
    scrapes: Vec<f64>,
}

impl Taken {
    async fn sit(&mut self, sitting: usize, collector: &str) -> Result<()> {
        let bare = Stock { starting: 1, create_ms: REFILL_MS, ..Stock::of(REPO, MEMBERS) };
        let seen = Stock { tracing: Some(collector.to_owned()), ..bare.clone() };
        let mut stocks = [bare, seen];
        stocks.rotate_left(sitting % 2);
        let mut sides = Vec::new();
        for stock in &stocks {
            let site = Site::start(stock)?;
            let wires = site.wires(CLIENTS).await?;
            sides.push(Side { site, wires, busy: 0.0 });
        }
        sides.rotate_left(sitting % 2);
        let mut before = [0.0; 2];
        for round in 0..WARMING + ROUNDS {
            if round == WARMING {
                before = [sides[0].processor()?, sides[1].processor()?];
                sides.iter_mut().for_each(|side| side.busy = 0.0);
            }
            // Who is first changes, so that a machine that gets slower or faster is no side's fault.
            for number in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
                sides[number].turn().await?;
            }
        }
        for (number, side) in sides.iter().enumerate() {
            let took = side.processor()? - before[number];
            self.took[number].push(took * 1e6 / (TURN * ROUNDS) as f64);
            self.busy[number] += side.busy;
        }
        self.scrapes.push(sides[1].scrape().await?);
        Ok(())
    }
}

impl Side {
    async fn turn(&mut self) -> Result<()> {
        let (left, begun) = (Arc::new(AtomicUsize::new(TURN)), Instant::now());
        let mut clients = JoinSet::new();
        for wire in self.wires.drain(..) {
            clients.spawn(claim(wire, left.clone()));
        }
        while let Some(done) = clients.join_next().await {
            self.wires.push(done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??);
        }
        self.busy += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Seconds that one scrape takes.
    async fn scrape(&mut self) -> Result<f64> {
        let mut times = Vec::new();
        for wire in &mut self.wires {
            let begun = Instant::now();
            wire.raw(Method::GET, "/metrics", Bytes::new()).await?;
            times.push(begun.elapsed().as_secs_f64());
        }
        Ok(median(&times))
    }

    /// Its seconds on processors so far.
    fn processor(&self) -> Result<f64> {
        let [its_own, _] = processor(self.site.server.id())?;
        Ok(its_own)
    }
}

/// Claims without a pause until none is left to make.
async fn claim(mut wire: Wire, left: Arc<AtomicUsize>) -> Result<Wire> {
    let body = order(REPO);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
        let (status, bytes) = wire.raw(Method::POST, "/v1/sessions", body.clone()).await?;
        if parse("/v1/sessions", status, &bytes)?["launch"] != "warm" {
            return Err(Error::permanent("the pool of the bench ran dry"));
        }
    }
    Ok(wire)
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
