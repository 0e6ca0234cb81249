//! Measures commits: `cargo run --release -p store --example bench_commit [DIR]`. DIR should be on the disk that is
//! to be measured; without it a temporary directory is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::*;
use store::{SessionLogs, Store, Tx};

fn session(n: u128) -> SessionRecord {
    let now = SystemClock.now();
    SessionRecord {
        id: SessionId::new(),
        repo: "acme/api".parse().expect("a name"),
        state: SessionState::Active,
        launch: Launch::Warm,
        sandbox: Some(SandboxId::new()),
        image: Some(ImageId::from_u128(n)),
        user: Identity { login: "ada".into(), name: "Ada".into(), email: "ada@example.com".into() },
        prompters: Vec::new(),
        env: Default::default(),
        base: "main".parse().expect("a branch"),
        branch: "hotbed/x".parse().expect("a branch"),
        sync: SyncState::pending(),
        prepared: false,
        token_handed: false,
        snapshot: None,
        parent: None,
        warmup: None,
        created_at: now,
        started_at: Some(now),
        expires_at: now,
        idle_end_seconds: Some(2700),
        deadline: now,
        ended_at: None,
        end: None,
        trouble: None,
        trace: None,
    }
}

fn sandbox(session: &SessionRecord) -> SandboxRecord {
    SandboxRecord {
        id: session.sandbox.unwrap_or_else(SandboxId::new),
        repo: session.repo.clone(),
        purpose: Purpose::Pool,
        state: SandboxState::Claimed,
        image: session.image,
        source: format!("sha256:{}", "a".repeat(64)).parse().expect("a digest"),
        commit: None,
        engine_id: Some("e".repeat(64)),
        token_hash: "t".repeat(64),
        session: Some(session.id),
        reserved: None,
        created_at: session.created_at,
        ready_at: None,
        claimed_at: Some(session.created_at),
        deadline: session.created_at,
        reason: None,
        up: false,
    }
}

fn report(what: &str, mut times: Vec<Duration>, wall: Duration) {
    times.sort_unstable();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    let rate = times.len() as f64 / wall.as_secs_f64();
    println!(
        "{what:44} {:>8} commits  p50 {:>9.1?}  p99 {:>9.1?}  max {:>9.1?}  {rate:>8.0}/s",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

/// `clients` tasks, each committing `each` claims (a session and its sandbox), one after the other.
async fn run(store: &Store, what: &str, clients: usize, each: usize, durable: fn(usize) -> bool) {
    let begun = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut times = Vec::with_capacity(each);
                for i in 0..each {
                    let session = session(i as u128);
                    let sandbox = sandbox(&session);
                    let begun = Instant::now();
                    let tx = Tx::new().session(&session).sandbox(&sandbox);
                    store.commit(if durable(i) { tx.durable() } else { tx }).await.expect("commit");
                    times.push(begun.elapsed());
                }
                times
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a task"));
    }
    report(what, all, begun.elapsed());
}

#[tokio::main]
async fn main() {
    let temporary = tempfile::tempdir().expect("a directory");
    let dir: PathBuf = std::env::args().nth(1).map_or(temporary.path().to_owned(), PathBuf::from);
    let (store, loaded) = Store::open(&dir, Arc::new(SystemClock)).await.expect("open");
    println!(
        "{}: {} live sessions loaded; a commit is a claim: one session, one sandbox",
        dir.display(),
        loaded.sessions.len()
    );
    run(&store, "warm-up", 1, 500, |_| false).await;
    run(&store, "1 client, normal", 1, 10_000, |_| false).await;
    if std::env::args().nth(2).is_some_and(|a| a == "quick") {
        return;
    }
    run(&store, "16 clients, normal", 16, 5_000, |_| false).await;
    run(&store, "64 clients, normal", 64, 1_500, |_| false).await;
    run(&store, "1 client, durable", 1, 1_000, |_| true).await;
    run(&store, "1 client, every second durable", 1, 1_000, |i| i % 2 == 0).await;
    run(&store, "16 clients, durable", 16, 500, |_| true).await;
    run(&store, "16 clients, 1 in 50 durable", 16, 2_000, |i| i % 50 == 0).await;
    let counts = store.write_counts();
    println!("{} commits in {} transactions", counts.commits, counts.transactions);

    let begun = Instant::now();
    let mut times = Vec::new();
    for _ in 0..2_000 {
        let begun = Instant::now();
        store.session(SessionId::new()).await.expect("read");
        times.push(begun.elapsed());
    }
    report("reads of one row", times, begun.elapsed());
    let begun = Instant::now();
    let stats = store.stats().await.expect("stats");
    println!("stats over {} sessions: {:?}", stats.sessions, begun.elapsed());

    let conn = rusqlite::Connection::open(dir.join("hotbed.db")).expect("open");
    let begun = Instant::now();
    for _ in 0..5_000 {
        conn.execute_batch("PRAGMA synchronous=FULL").expect("pragma");
        conn.execute_batch("PRAGMA synchronous=NORMAL").expect("pragma");
    }
    println!("switching synchronous: {:?} each", begun.elapsed() / 10_000);
    drop(conn);

    let logs = SessionLogs::open(&dir, Arc::new(SystemClock)).expect("logs");
    let mut times = Vec::new();
    let begun = Instant::now();
    for _ in 0..200 {
        let id = SessionId::new();
        let begun = Instant::now();
        logs.append(id, "first", serde_json::json!({})).await.expect("append");
        times.push(begun.elapsed());
    }
    report("first event of a session", times, begun.elapsed());
    let (id, mut times) = (SessionId::new(), Vec::new());
    let begun = Instant::now();
    for i in 0..10_000 {
        let begun = Instant::now();
        logs.append(id, "event", serde_json::json!({"i": i, "text": "some output of a command"}))
            .await
            .expect("append");
        times.push(begun.elapsed());
    }
    report("events of one session, awaited", times, begun.elapsed());
    logs.close().await;
    let begun = Instant::now();
    store.close().await;
    println!("close: {:?}", begun.elapsed());
    let begun = Instant::now();
    let (_, loaded) = Store::open(&dir, Arc::new(SystemClock)).await.expect("open");
    println!("open with {} live sessions: {:?}", loaded.sessions.len(), begun.elapsed());
}
