//! A loss of power: of the files only what was synced is left. Simulated by a library loaded into the child that
//! copies a file whenever it is synced (`power/synced.c`); the copies are then opened.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use domain::*;
use store::Tx;

use crate::kill::{Child, say};
use crate::samples::{self, open};

const DIR: &str = "HOTBED_STORE_POWER_DIR";

/// Commits in turn; every tenth is of a kind that must outlive the power. One client, so that the order is known.
#[tokio::test]
async fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let (store, _) = open(Path::new(&dir)).await;
    for n in 0.. {
        let tx = match n % 50 {
            // Nobody asks for durability here: the kinds do.
            9 => Tx::new().snapshot(&samples::snapshot(n, SnapshotState::Ready)),
            19 => Tx::new().pull_request(&samples::pull_request(n, PullRequestState::Pending)),
            29 => Tx::new().image(&samples::image(n, n, ImageState::Current)),
            39 => Tx::new().warmup(&samples::warmup(n, WarmupState::Live)).durable(),
            49 => {
                let number = store.next_number("n").await.unwrap();
                say(&format!("number {n} {number}"));
                continue;
            }
            _ => Tx::new().session(&samples::session(n, SessionState::Active)),
        };
        store.commit(tx).await.unwrap();
        say(&format!("row {n}"));
    }
}

fn library(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/power/synced.c");
    let out = dir.join("synced.so");
    // The compiler that SQLite itself was built with.
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let built =
        Command::new(cc).args(["-shared", "-fPIC", "-O1", "-o"]).arg(&out).arg(source).status().unwrap();
    assert!(built.success());
    out
}

#[tokio::test]
async fn what_must_outlive_the_power_does() {
    let tools = tempfile::tempdir().unwrap();
    let library = library(tools.path());
    let (mut lost_in_all, mut seed) = (0, std::process::id());
    for round in 0..6 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Some rounds are long enough for checkpoints and for the log to begin anew.
        let acks = 1 + (seed >> 8) % if round % 2 == 0 { 3000 } else { 60 };
        let dir = tempfile::tempdir().unwrap();
        let mut child = Child::start("power::child", &[(DIR, dir.path()), ("LD_PRELOAD", &library)]);
        let mut said: Vec<String> = Vec::new();
        while (said.len() as u32) < acks {
            said.push(child.next().expect("the child ended by itself"));
        }
        said.extend(child.kill());

        let after = tempfile::tempdir().unwrap();
        for file in ["hotbed.db", "hotbed.db-wal"] {
            // A file that was never synced is not there any more.
            let synced = dir.path().join(format!("{file}.synced"));
            if synced.exists() {
                std::fs::copy(synced, after.path().join(file)).unwrap();
            }
        }
        let (store, loaded) = open(after.path()).await;
        let mut there: HashSet<u128> = HashSet::new();
        for n in 0..said.len() as u128 + 1 {
            let found = match n % 50 {
                9 => store.snapshot(SnapshotId::from_u128(n)).await.unwrap().is_some(),
                19 => store.pull_request(PullRequestId::from_u128(n)).await.unwrap().is_some(),
                29 => store.image(ImageId::from_u128(n)).await.unwrap().is_some(),
                39 => store.warmup(WarmupId::from_u128(n)).await.unwrap().is_some(),
                49 => continue,
                _ => loaded.sessions.iter().any(|s| s.id == SessionId::from_u128(n)),
            };
            if found {
                there.insert(n);
            }
        }
        let context = format!("round {round}, power lost after {} commits", said.len());
        let (mut last_durable, mut greatest) = (None, 0);
        for line in &said {
            let words: Vec<&str> = line.split(' ').collect();
            let n: u128 = words[1].parse().unwrap();
            if n % 10 == 9 {
                last_durable = Some(n);
            }
            if words[0] == "number" {
                greatest = words[2].parse().unwrap();
            } else if n % 10 == 9 {
                assert!(there.contains(&n), "{context}: {n} is lost");
            } else {
                lost_in_all += u32::from(!there.contains(&n));
            }
        }
        // A log is durable up to a point: with a durable commit comes all that was committed before it.
        for n in (0..last_durable.unwrap_or_default()).filter(|n| n % 50 != 49) {
            assert!(there.contains(&n), "{context}: {n} is lost, and was before {last_durable:?}");
        }
        assert!(store.next_number("n").await.unwrap() > greatest, "{context}: a number was given twice");
    }
    // Else the simulation simulates nothing.
    assert!(lost_in_all > 0, "no commit was lost that may be");
}
