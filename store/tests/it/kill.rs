//! `kill -9` at any moment: what was acknowledged is there, and nothing is half there (F31).
//!
//! The child is this test binary again, running [`child`] alone; it prints what it was told is committed.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Split, Write};
use std::path::Path;
use std::process::{ChildStdout, Command, Stdio};

use domain::{SandboxState, SessionId, SessionState};
use store::{Page, SessionFilter, SessionLogs, Tx};

use crate::samples::{self, clock, open};

const DIR: &str = "HOTBED_STORE_KILL_DIR";
const ROUND: &str = "HOTBED_STORE_KILL_ROUND";

pub fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("\n@{line}\n").as_bytes()).and_then(|()| out.flush()).expect("tell the parent");
}

/// This test binary again, running one test that says what it did.
pub struct Child {
    process: std::process::Child,
    lines: Split<BufReader<ChildStdout>>,
}

impl Child {
    pub fn start(test: &str, env: &[(&str, &Path)]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).split(b'\n');
        Self { process, lines }
    }

    /// What it says next; `None` when it has ended.
    pub fn next(&mut self) -> Option<String> {
        self.lines
            .find_map(|line| String::from_utf8(line.unwrap()).unwrap().strip_prefix('@').map(str::to_owned))
    }

    /// Kills it, and returns what it had said before the signal reached it: all but the last line, which it may not
    /// have finished.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut rest: Vec<String> = std::iter::from_fn(|| self.next()).collect();
        rest.pop();
        rest
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Does nothing unless the parent asks for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let (Ok(dir), Ok(round)) = (std::env::var(DIR), std::env::var(ROUND)) else { return };
    let round: u128 = round.parse().unwrap();
    let (store, _) = open(Path::new(&dir)).await;
    let logs = SessionLogs::open(Path::new(&dir), clock()).unwrap();
    let mut tasks = Vec::new();
    for task in 0..4u128 {
        let store = store.clone();
        tasks.push(tokio::spawn(async move {
            for i in 0.. {
                let n = round * 1_000_000 + task * 100_000 + i;
                // Two rows that belong together.
                let tx = Tx::new()
                    .session(&samples::session(n, SessionState::Active))
                    .sandbox(&samples::sandbox(n, SandboxState::Claimed));
                store.commit(if i % 50 == 0 { tx.durable() } else { tx }).await.unwrap();
                say(&format!("row {n}"));
                if i % 20 == 0 {
                    say(&format!("number {}", store.next_number("n").await.unwrap()));
                }
            }
        }));
        let logs = logs.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0.. {
                let seq = logs
                    .append(SessionId::from_u128(task), "k", serde_json::json!({"t": task}))
                    .await
                    .unwrap();
                say(&format!("event {task} {seq}"));
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = HashSet::new();
    let mut greatest = 0;
    let mut events = [0u64; 4];
    // Other moments in each run, and the ones that failed can be had again from the message.
    let seed = std::process::id();
    for round in 0..8u128 {
        let mut child =
            Child::start("kill::child", &[(DIR, dir.path()), (ROUND, Path::new(&round.to_string()))]);
        let acks = 1 + (seed.wrapping_mul(2_654_435_761).wrapping_add(round as u32 * 40_503) >> 7) % 1500;
        let mut said: Vec<String> = Vec::new();
        while (said.len() as u32) < acks {
            said.push(child.next().expect("the child ended by itself"));
        }
        said.extend(child.kill());
        for line in said {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["row", n] => drop(rows.insert(n.parse::<u128>().unwrap())),
                ["number", n] => greatest = greatest.max(n.parse::<u64>().unwrap()),
                ["event", task, seq] => {
                    let last: &mut u64 = &mut events[task.parse::<usize>().unwrap()];
                    *last = (*last).max(seq.parse().unwrap());
                }
                _ => panic!("the child says `{line}`"),
            }
        }

        let context = format!("seed {seed}, round {round}, killed after {acks}");
        let (store, loaded) = open(dir.path()).await;
        let sessions: HashSet<_> = loaded.sessions.iter().map(|s| s.id).collect();
        let sandboxes: HashSet<_> = loaded.sandboxes.iter().map(|s| s.id).collect();
        for n in &rows {
            assert!(sessions.contains(&SessionId::from_u128(*n)), "{context}: session {n} is lost");
        }
        let halves = loaded.sessions.iter().filter(|s| !sandboxes.contains(&s.sandbox.unwrap())).count();
        assert_eq!((halves, sessions.len()), (0, sandboxes.len()), "{context}: half a Tx");
        assert_eq!(store.stats().await.unwrap().sessions, sessions.len() as u64);
        assert!(
            !store.sessions(SessionFilter::default(), Page::default()).await.unwrap().items.is_empty()
                || rows.is_empty()
        );
        let number = store.next_number("n").await.unwrap();
        assert!(number > greatest, "{context}: number {number} was given twice");
        greatest = number;
        let logs = SessionLogs::open(dir.path(), clock()).unwrap();
        for (task, last) in events.iter_mut().enumerate() {
            let session = SessionId::from_u128(task as u128);
            let log = logs.read(session, 0, usize::MAX).await.unwrap();
            assert!(
                log.len() as u64 >= *last,
                "{context}: log {task} ends at {} and {last} was acknowledged",
                log.len()
            );
            assert!(log.iter().zip(1..).all(|(e, seq)| e.seq == seq), "{context}: log {task} has a gap");
            *last = log.len() as u64;
        }
        logs.close().await;
        store.close().await;
    }
    assert!(!rows.is_empty());
}
