//! Figures of load: claims and warm-ups that come on their own time, whether or not the last one is answered.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use domain::{Error, Identity, Result};
use http::{Method, StatusCode};
use orchestrator::sessions::NewSession;
use pool::MissReason;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fake::{Server, Stock, say, start};
use crate::report::{Report, Target, note, percentile};
use crate::stage;
use crate::wire::{Wire, parse};

/// Claims a second in all, how long, and the pools they fall on.
const POISSON_RATE: f64 = 45.0;
const POISSON_SECONDS: f64 = 60.0;
const POISSON_POOLS: usize = 4;
const POISSON_MEMBERS: u32 = 113;
/// How many members may be starting at once there: 45 a second of 300 ms each are 13.5 at a time on average.
const POISSON_STARTING: u32 = 24;
const BURST: usize = 300;
const BURSTS: usize = 5;
/// Keystrokes a second, how long, and the people that type.
const KEYSTROKES: f64 = 1000.0;
const TYPING_SECONDS: f64 = 10.0;
const TYPISTS: usize = 50;
/// Sustained claims: the seconds that count, and the members that wait; the refill adds to them.
const RATE_SECONDS: usize = 4;
const RATE_CLIENTS: usize = 32;
const RATE_MEMBERS: u32 = 60_000;

/// A child that serves, and how to reach it.
pub struct Site {
    pub server: Server,
    _dir: tempfile::TempDir,
    pub address: String,
    pub key: String,
}

impl Site {
    pub fn start(stock: &Stock) -> Result<Self> {
        let dir = stage::scratch()?;
        let mut server = Server::start("serve", dir.path(), stock)?;
        let said = tokio::task::block_in_place(|| server.hear())?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        Ok(Self { address: text("address"), key: text("key"), server, _dir: dir })
    }

    /// Connections that stand and have been used.
    pub async fn wires(&self, n: usize) -> Result<Vec<Wire>> {
        let mut wires = Vec::new();
        for _ in 0..n {
            let mut wire = Wire::connect(&self.address, &self.key).await?;
            wire.get("/v1/pools").await?;
            wires.push(wire);
        }
        Ok(wires)
    }
}

/// One answer: from the moment the request was due, in milliseconds.
struct Answer {
    took: f64,
    status: StatusCode,
    body: Bytes,
}

/// Sends request `i` at `due[i]`, over connections of which as many stand as are ever needed at once: a slow answer
/// delays no later request, and a request that leaves late counts from when it was due.
async fn open_loop(
    wires: Vec<Wire>,
    path: &'static str,
    due: Vec<Duration>,
    body: impl Fn(usize) -> Bytes,
) -> Result<Vec<Answer>> {
    let (back, mut free) = mpsc::unbounded_channel();
    for wire in wires {
        let _ = back.send(wire);
    }
    let mut asked = JoinSet::new();
    let mut calls = punctual(due);
    let mut i = 0;
    while let Some(due) = calls.recv().await {
        let mut wire =
            free.recv().await.ok_or_else(|| Error::permanent("the connections of the bench are gone"))?;
        let (back, body) = (back.clone(), body(i));
        i += 1;
        asked.spawn(async move {
            let (status, body) = wire.raw(Method::POST, path, body).await?;
            let took = due.elapsed().as_secs_f64() * 1e3;
            let _ = back.send(wire);
            Ok::<_, Error>(Answer { took, status, body })
        });
    }
    let mut answers = Vec::new();
    while let Some(done) = asked.join_next().await {
        answers.push(done.map_err(|e| Error::permanent("a client of the bench").caused_by(e))??);
    }
    Ok(answers)
}

/// Calls at each of these moments. From a thread that sleeps by the kernel's clock: the runtime's own timers know
/// whole milliseconds only, and their lateness would be counted as the server's.
fn punctual(due: Vec<Duration>) -> mpsc::UnboundedReceiver<Instant> {
    let (call, calls) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let begun = Instant::now();
        for at in due {
            let due = begun + at;
            while let Some(rest) = due.checked_duration_since(Instant::now()).filter(|r| !r.is_zero()) {
                std::thread::park_timeout(rest);
            }
            if call.send(due).is_err() {
                return;
            }
        }
    });
    calls
}

/// Arrivals by chance: the same ones in every run.
struct Dice(u64);

impl Dice {
    /// Between 0 and 1, neither included.
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }

    fn poisson(&mut self, rate: f64, seconds: f64) -> Vec<Duration> {
        let (mut at, mut due) = (0.0, Vec::new());
        loop {
            at -= self.roll().ln() / rate;
            if at >= seconds {
                return due;
            }
            due.push(Duration::from_secs_f64(at));
        }
    }
}

pub fn order(repo: &str) -> Bytes {
    stage::order(repo).to_string().into()
}

/// 45 claims a second by chance for a minute, on four pools whose members take 300 ms to start.
pub async fn poisson(report: &mut Report) -> Result<()> {
    let repos: Vec<_> = (0..POISSON_POOLS).map(|i| format!("bench/pool-{i}")).collect();
    let stock = Stock {
        repos: repos.clone(),
        create_ms: 300,
        starting: POISSON_STARTING,
        ..Stock::of("", POISSON_MEMBERS)
    };
    let site = Site::start(&stock)?;
    let mut dice = Dice(45);
    let due = dice.poisson(POISSON_RATE, POISSON_SECONDS);
    let chosen: Vec<_> = due.iter().map(|_| (dice.roll() * repos.len() as f64) as usize).collect();
    let bodies: Vec<_> = repos.iter().map(|r| order(r)).collect();
    let wires = site.wires(64).await?;
    let answers = open_loop(wires, "/v1/sessions", due, |i| bodies[chosen[i]].clone()).await?;
    let mut cold = 0;
    for answer in &answers {
        cold += usize::from(parse("/v1/sessions", answer.status, &answer.body)?["launch"] != "warm");
    }
    let times: Vec<_> = answers.iter().map(|a| a.took).collect();
    note(format!(
        "{} claims in {POISSON_SECONDS} s on {POISSON_POOLS} pools of {POISSON_MEMBERS}: {cold} found no ready member",
        times.len()
    ));
    report.row("poisson_45", "ms", &times, Target::both(1.0, 10.0));
    let mut wire = Wire::connect(&site.address, &site.key).await?;
    let misses = unjustified(&mut wire).await?;
    if misses > 0 {
        return Err(Error::permanent(format!("{misses} claims missed while a matching member was ready")));
    }
    Ok(())
}

/// Misses while members were ready: every reason but that there was none, or none yet.
async fn unjustified(wire: &mut Wire) -> Result<u64> {
    let (_, text) = wire.raw(Method::GET, "/metrics", Bytes::new()).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let of = |line: &str| line.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) as u64;
    let excused = [MissReason::Empty, MissReason::AllStarting].map(|r| format!("reason=\"{}\"", r.as_str()));
    let mine = |l: &&str| l.starts_with("hotbed_pool_misses_total") && !excused.iter().any(|r| l.contains(r));
    Ok(text.lines().filter(mine).map(of).sum())
}

/// 300 at once on 300 members, several times over.
pub async fn burst(report: &mut Report) -> Result<()> {
    let stock = Stock { starting: 64, ..Stock::of("bench/burst", BURST as u32) };
    let site = Site::start(&stock)?;
    let (mut times, mut spans, mut cold) = (Vec::new(), Vec::new(), 0);
    for _ in 0..BURSTS {
        let mut ask = Wire::connect(&site.address, &site.key).await?;
        stage::until(&mut ask, "/v1/pools/bench/burst", |v| v["warm"] == json!(BURST)).await?;
        let wires = site.wires(BURST).await?;
        let body = order("bench/burst");
        let answers = open_loop(wires, "/v1/sessions", vec![Duration::ZERO; BURST], |_| body.clone()).await?;
        for answer in &answers {
            cold += usize::from(parse("/v1/sessions", answer.status, &answer.body)?["launch"] != "warm");
        }
        spans.push(answers.iter().map(|a| a.took).fold(0.0, f64::max));
        times.extend(answers.iter().map(|a| a.took));
    }
    note(format!(
        "{BURSTS} bursts of {BURST}: {cold} cold; all answered after {:.1} ms (median)",
        percentile(&spans, 0.5)
    ));
    report.row("burst_300", "ms", &times, Target::p90(50.0));
    Ok(())
}

/// A thousand keystrokes a second.
pub async fn typing(report: &mut Report) -> Result<()> {
    let site = Site::start(&Stock { starting: 64, ..Stock::of("bench/typing", 100) })?;
    let mut dice = Dice(7);
    let due = dice.poisson(KEYSTROKES, TYPING_SECONDS);
    let body = |i: usize| {
        let client = format!("tab-{}", i % TYPISTS);
        Bytes::from(json!({"repo": "bench/typing", "client": client}).to_string())
    };
    let wires = site.wires(64).await?;
    let answers = open_loop(wires, "/v1/warmups", due, body).await?;
    if let Some(bad) = answers.iter().find(|a| a.status != StatusCode::ACCEPTED) {
        return Err(Error::permanent(format!("a keystroke was answered {}: {:?}", bad.status, bad.body)));
    }
    let times: Vec<_> = answers.iter().map(|a| a.took).collect();
    note(format!("{} keystrokes of {TYPISTS} people in {TYPING_SECONDS} s", times.len()));
    report.row("warmup_http", "ms", &times, Target::p99(2.0));
    Ok(())
}

/// Claims without a pause, first over HTTP, then with no HTTP in between.
pub async fn sustained(report: &mut Report) -> Result<()> {
    let stock = Stock::of("bench/rate", RATE_MEMBERS);
    {
        let site = Site::start(&stock)?;
        let (counted, body) = (Arc::new(AtomicUsize::new(0)), order("bench/rate"));
        let mut clients = JoinSet::new();
        for mut wire in site.wires(RATE_CLIENTS).await? {
            let (counted, body) = (counted.clone(), body.clone());
            clients.spawn(async move {
                loop {
                    let (status, bytes) = wire.raw(Method::POST, "/v1/sessions", body.clone()).await?;
                    let view = parse("/v1/sessions", status, &bytes)?;
                    if view["launch"] != "warm" {
                        return Err::<(), _>(Error::permanent("the pool of the bench ran dry"));
                    }
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let rates = per_second(&counted).await;
        // One that has ended already ended with an error.
        if let Some(Ok(Err(e))) = clients.try_join_next() {
            return Err(e);
        }
        report.row("claims_per_s_http", "1/s", &rates, Target::at_least(2000.0));
    }
    let dir = stage::scratch()?;
    let mut server = Server::start("claim", dir.path(), &stock)?;
    let said = tokio::task::block_in_place(|| server.hear())?;
    let rates: Vec<_> = said["rates"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    report.row("claims_per_s", "1/s", &rates, Target::at_least(5000.0));
    Ok(())
}

/// What is counted in each of some seconds, after one that does not count.
async fn per_second(counted: &AtomicUsize) -> Vec<f64> {
    let mut rates = Vec::new();
    for second in 0..=RATE_SECONDS {
        let (before, begun) = (counted.load(Ordering::Relaxed), Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if second > 0 {
            let n = counted.load(Ordering::Relaxed) - before;
            rates.push(n as f64 / begun.elapsed().as_secs_f64());
        }
    }
    rates
}

/// A session as the library is asked for it.
pub fn new_session(repo: &str) -> Result<NewSession> {
    let repo = repo.parse().map_err(|e| Error::permanent("name a repo").caused_by(e))?;
    Ok(NewSession {
        repo,
        user: Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.invalid".into() },
        base: None,
        branch: None,
        warmup: None,
        snapshot: None,
        parent: None,
        timeout: None,
        idle_end: None,
        env: Default::default(),
        trace: None,
    })
}

/// The child's side: claims through the library.
pub async fn claim_in_process(dir: &Path, stock: &Stock) -> Result<()> {
    let app = start(dir, stock).await?;
    let new = new_session(&stock.repos[0])?;
    let counted = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for _ in 0..RATE_CLIENTS {
        let (app, new, counted) = (app.clone(), new.clone(), counted.clone());
        clients.spawn(async move {
            loop {
                let created = app.sessions.create(new.clone(), None).await?;
                if created.record.launch != domain::Launch::Warm {
                    return Err::<(), _>(Error::permanent("the pool of the bench ran dry"));
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let rates = per_second(&counted).await;
    if let Some(Ok(Err(e))) = clients.try_join_next() {
        return Err(e);
    }
    say(&json!({"rates": rates}))
}
