//! What it costs to be seen: claims of a server that exports its traces, beside two that do not, turn by turn in one run; and
//! what counting costs, which no server goes without, and being scraped.

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
use serde::{Deserialize, Serialize};
use serde_json::json;
use tests::collector::{Collector, Manners};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fake::{Server, Stock, say, start};
use crate::rates::{Site, new_session, order};
use crate::report::{Report, Target, median, note};
use crate::stage;
use crate::wire::{Wire, parse};

const REPO: &str = "bench/seen";
const CLIENTS: usize = 32;
/// A turn is so many claims of one server, and what they leave to do. Short, so that all see the same machine.
const TURN: usize = 200;
/// A round is a turn of each. So many make a sitting, after one that warms up.
const ROUNDS: usize = 9;
/// Two processes of one program differ by a tenth and more, so all servers are started anew for each sitting, in another order.
const SITTINGS: usize = 21;
/// No turn finds the pool empty; nor is it refilled meanwhile, which takes more than what is measured. Nor are there more: what
/// looks at every member and session, now and then, would hide what is looked for.
const MEMBERS: u32 = (TURN * (ROUNDS + 1) + 100) as u32;
const REFILL_MS: u64 = 3_600_000;
/// Traces a second, as a configuration has it that says no more.
const TRACES: f64 = 50.0;
/// A server is still that takes less than the first of a processor, in the second: between two turns, and at the end of a sitting,
/// when what was put off is to be done, too.
type Stillness = (Duration, Duration);
const BETWEEN: Stillness = (Duration::from_micros(100), Duration::from_millis(5));
const AT_LAST: Stillness = (Duration::from_millis(5), Duration::from_millis(250));
/// It is waited for so long at most.
const STILL_WITHIN: Duration = Duration::from_secs(20);
/// In which the last spans of a sitting leave, and what waits for a look at upstream goes on.
const LEAVING: Duration = Duration::from_millis(1_500);
/// As Prometheus does it that is told nothing else. Its share is added by calculation: a turn is too short for it.
const SCRAPED_EVERY: Duration = Duration::from_secs(15);
/// How often a claim is counted to learn what that takes.
const COUNTED: u32 = 200_000;

/// The line that says how many spans have left, up to its value; and the fewest of them that a claim leaves which is kept.
const EXPORTED: &str = "hotbed_trace_spans_total{result=\"exported\"}";
const SPANS_OF_A_CLAIM: f64 = 5.0;
/// Every order of the sides, so that none comes after another one more often than the rest.
const ORDERS: [[usize; SIDES]; 6] = [[0, 1, 2], [2, 1, 0], [1, 2, 0], [0, 2, 1], [2, 0, 1], [1, 0, 2]];

/// Where traces go, and which share of them. The bench's servers wait for each other most of the time, so they are held to a
/// share: what the default bound of traces a second comes to for claims that never pause. What that bound itself takes of a
/// claim, a few atomic instructions, is not in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exported {
    to: String,
    share: f64,
}

impl From<Exported> for TracingSettings {
    fn from(exported: Exported) -> Self {
        Self {
            endpoint: exported.to,
            service_name: "hotbed".into(),
            sample: exported.share,
            per_second: u32::MAX,
            headers: BTreeMap::new(),
        }
    }
}

/// One of the servers, and who claims there.
struct Side {
    site: Site,
    wires: Vec<Wire>,
}

/// Two servers that are not traced, to tell what the bench can't, and one that is.
const SIDES: usize = 3;
const TRACED: usize = 2;

/// A machine that claims keep busy has as many of them as the server's processor time allows, and it is that which is compared:
/// all of it, from a sitting's first claim to its last, with what is exported beside and after.
pub async fn cost(report: &mut Report) -> Result<()> {
    let collector =
        Collector::start(Manners::Forgets).map_err(|e| Error::permanent("start a collector").caused_by(e))?;
    let rate = rate().await?;
    let exported = Exported { to: collector.endpoint(), share: (TRACES / rate).min(1.0) };
    let mut all = Taken::default();
    for sitting in 0..SITTINGS {
        all.sit(sitting, &exported).await?;
    }
    let claims = (SITTINGS * (ROUNDS + 1) * TURN) as f64;
    let wanted = claims * exported.share;
    // A share is a throw of dice: this many is ten standard deviations away, and none at all is no measurement.
    if all.spans < SPANS_OF_A_CLAIM * (wanted - 10.0 * wanted.sqrt()) || all.spans == 0.0 {
        return Err(Error::permanent(format!(
            "{} spans of {claims} claims left the server whose traces were to be measured",
            all.spans
        )));
    }
    let scraping = 100.0 * median(&all.scrapes) / SCRAPED_EVERY.as_secs_f64() / cores();
    let counting = counting(rate)?;
    note(format!(
        "{rate:.0} claims/s would take all {} cores; {:.0}, {:.0} and {:.0} us of processor each",
        cores(),
        median(&all.took[0]),
        median(&all.took[1]),
        median(&all.took[TRACED])
    ));
    note(format!(
        "{:.2} % of the claims are to be traced, {wanted:.0} of {claims}; {} spans have left in {} batches",
        100.0 * exported.share,
        all.spans,
        collector.requests()
    ));
    note(format!(
        "of the time of all cores, counting takes {counting:.2} % and being scraped {scraping:.2} %"
    ));
    let (mut costs, mut differences) = (Vec::new(), Vec::new());
    for ((one, other), traced) in all.took[0].iter().zip(&all.took[1]).zip(&all.took[TRACED]) {
        costs.push(100.0 * (2.0 * traced / (one + other) - 1.0) + counting + scraping);
        differences.push(100.0 * (other / one - 1.0).abs());
    }
    report.row("telemetry_cost", "%", &costs, Target::p50(3.0));
    report.row("telemetry_of_none", "%", &differences, Target::NONE);
    Ok(())
}

/// Claims a second for which a server that is not traced takes all cores, with everything that they leave to do.
async fn rate() -> Result<f64> {
    let mut side = Side::start(&untraced()).await?;
    let (claims, before) = (TURN * ROUNDS, side.processor()?);
    side.claims(claims).await?;
    tokio::time::sleep(LEAVING).await;
    side.still(AT_LAST).await?;
    let took = side.processor()?.saturating_sub(before);
    Ok(claims as f64 * cores() / took.as_secs_f64())
}

fn untraced() -> Stock {
    Stock { starting: 1, create_ms: REFILL_MS, ..Stock::of(REPO, MEMBERS) }
}

/// What was measured of each.
#[derive(Default)]
struct Taken {
    /// Microseconds of processor for a claim, in each sitting.
    took: [Vec<f64>; SIDES],
    /// Seconds of a scrape of the traced one.
    scrapes: Vec<f64>,
    /// That have left it.
    spans: f64,
}

impl Taken {
    async fn sit(&mut self, sitting: usize, exported: &Exported) -> Result<()> {
        let seen = Stock { tracing: Some(exported.clone()), ..untraced() };
        let mut stocks = [untraced(), untraced(), seen];
        stocks.rotate_left(sitting % SIDES);
        let mut sides = Vec::new();
        for stock in &stocks {
            sides.push(Side::start(stock).await?);
        }
        sides.rotate_right(sitting % SIDES);
        for side in &mut sides {
            side.turn().await?;
        }
        let before = sides.iter().map(Side::processor).collect::<Result<Vec<_>>>()?;
        for round in 0..ROUNDS {
            // Who comes first and after whom changes, so that a machine that gets slower or faster is no side's fault.
            for number in ORDERS[(sitting + round) % ORDERS.len()] {
                sides[number].turn().await?;
            }
        }
        tokio::time::sleep(LEAVING).await;
        for side in &sides {
            side.still(AT_LAST).await?;
        }
        for (number, side) in sides.iter().enumerate() {
            let took = side.processor()?.saturating_sub(before[number]);
            self.took[number].push(took.as_secs_f64() * 1e6 / (TURN * ROUNDS) as f64);
        }
        let (seconds, spans) = sides[TRACED].scrape().await?;
        self.scrapes.push(seconds);
        self.spans += spans;
        Ok(())
    }
}

impl Side {
    async fn start(stock: &Stock) -> Result<Self> {
        let site = Site::start(stock)?;
        let wires = site.wires(CLIENTS).await?;
        let side = Self { site, wires };
        side.still(AT_LAST).await?;
        Ok(side)
    }

    /// Claims, and all that they leave to do: what is done for one later than its answer falls to its own server's turn.
    async fn turn(&mut self) -> Result<()> {
        self.claims(TURN).await?;
        self.still(BETWEEN).await
    }

    async fn claims(&mut self, claims: usize) -> Result<()> {
        let left = Arc::new(AtomicUsize::new(claims));
        let mut clients = JoinSet::new();
        for wire in self.wires.drain(..) {
            clients.spawn(claim(wire, left.clone()));
        }
        while let Some(done) = clients.join_next().await {
            self.wires.push(done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??);
        }
        Ok(())
    }

    async fn still(&self, (takes, within): Stillness) -> Result<()> {
        let (begun, mut before) = (Instant::now(), self.processor()?);
        loop {
            tokio::time::sleep(within).await;
            let now = self.processor()?;
            if now.saturating_sub(before) < takes {
                return Ok(());
            }
            if begun.elapsed() > STILL_WITHIN {
                return Err(Error::permanent("the server of the bench does not come to rest"));
            }
            before = now;
        }
    }

    /// Seconds that one scrape takes, and the spans that have been exported.
    async fn scrape(&mut self) -> Result<(f64, f64)> {
        let (mut times, mut spans) = (Vec::new(), f64::NAN);
        for wire in &mut self.wires {
            let begun = Instant::now();
            let (_, text) = wire.raw(Method::GET, "/metrics", Bytes::new()).await?;
            times.push(begun.elapsed().as_secs_f64());
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().find_map(|l| l.strip_prefix(EXPORTED)?.trim().parse().ok());
            spans = line.unwrap_or(0.0);
        }
        Ok((median(&times), spans))
    }

    /// Its time on processors so far. Finer than what `/proc` says, which is in hundredths of a second.
    fn processor(&self) -> Result<Duration> {
        let failed = |why: std::io::Error| {
            Error::permanent("read the processor time of the bench's server").caused_by(why)
        };
        let pid = self.site.server.id().cast_signed();
        let (mut clock, mut now) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
        // SAFETY: it writes to what is ours.
        let found = unsafe { libc::clock_getcpuclockid(pid, &mut clock) };
        if found != 0 {
            return Err(failed(std::io::Error::from_raw_os_error(found)));
        }
        // SAFETY: as above.
        if unsafe { libc::clock_gettime(clock, &mut now) } != 0 {
            return Err(failed(std::io::Error::last_os_error()));
        }
        Ok(Duration::new(now.tv_sec.cast_unsigned(), now.tv_nsec as u32))
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
