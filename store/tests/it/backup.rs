//! Copies of the state directory: taken while it is written to, put back, refused when they are not whole.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use domain::{ErrorKind, SandboxState, SessionId, SessionState};
use futures_util::StreamExt;
use serde_json::json;
use store::backup::{self, Manifest};
use store::{BuildLogs, Page, SessionFilter, SessionLogs, Tx};

use crate::samples::{self, at, clock, open};

const PROGRAM: &str = "1.2.3";

fn take(dir: &Path, to: &Path) -> Manifest {
    let mut out = std::fs::File::create(to).unwrap();
    backup::take(dir, &mut out, PROGRAM, at(100)).unwrap()
}

/// A state directory with something of everything, and a copy of it.
async fn stocked(parent: &Path) -> (PathBuf, PathBuf) {
    let dir = parent.join("state");
    let (store, _) = open(&dir).await;
    let logs = SessionLogs::open(&dir, clock()).unwrap();
    let builds = BuildLogs::open(&dir).unwrap();
    let mut tx = Tx::new();
    for n in 1..=3 {
        tx = tx.session(&samples::session(n, SessionState::Active));
    }
    let tx = tx
        .sandbox(&samples::sandbox(1, SandboxState::Claimed))
        .sandbox(&samples::sandbox(2, SandboxState::Warm));
    store.commit(tx).await.unwrap();
    for n in 1..=3 {
        logs.append(SessionId::from_u128(n), "said", json!({"n": n})).await.unwrap();
    }
    let build = domain::BuildId::from_u128(1);
    builds.begin(build).await.unwrap();
    builds.append(build, b"a line\n".as_slice()).await.unwrap();
    std::fs::write(dir.join("api.key"), "k".repeat(40)).unwrap();
    let copy = parent.join("copy.tar");
    take(&dir, &copy);
    logs.close().await;
    store.close().await;
    (dir, copy)
}

async fn sessions(dir: &Path) -> usize {
    let (store, _) = open(dir).await;
    let page = store.sessions(SessionFilter::default(), Page::default()).await.unwrap();
    store.close().await;
    page.items.len()
}

#[tokio::test]
async fn a_copy_holds_everything_and_comes_back() {
    let parent = tempfile::tempdir().unwrap();
    let (_, copy) = stocked(parent.path()).await;
    let new = parent.path().join("elsewhere");
    let done = backup::restore(&new, &copy, false, at(200)).unwrap();
    assert_eq!((done.taken_at, done.aside.as_deref()), (Some(at(100)), None));

    let (store, loaded) = open(&new).await;
    assert_eq!(store.restored_at(), Some(at(200)));
    assert_eq!(loaded.sessions.len(), 3);
    let states: Vec<_> = loaded.sandboxes.iter().map(|s| s.state).collect();
    assert_eq!(states, [SandboxState::Claimed], "a member may have been handed out since: it is forgotten");
    let logs = SessionLogs::open(&new, clock()).unwrap();
    for n in 1..=3 {
        let mut events = logs.follow(SessionId::from_u128(n), 0);
        assert_eq!(events.next().await.unwrap().unwrap().data, json!({"n": n}));
    }
    let builds = BuildLogs::open(&new).unwrap();
    let log = builds.read(domain::BuildId::from_u128(1), 0, 1024).await.unwrap();
    assert!(String::from_utf8_lossy(&log).contains("a line"));
    assert_eq!(std::fs::read_to_string(new.join("api.key")).unwrap().len(), 40);
    for name in ["hotbed.db", "api.key"] {
        assert_eq!(std::fs::metadata(new.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

/// The state that is there is put aside and can itself be put back: nothing is lost by a restore.
#[tokio::test]
async fn what_was_there_is_put_aside() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = stocked(parent.path()).await;
    let (store, _) = open(&dir).await;
    store.commit(Tx::new().session(&samples::session(4, SessionState::Active))).await.unwrap();
    let error = backup::restore(&dir, &copy, true, at(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "a server runs: {error}");
    store.close().await;
    let error = backup::restore(&dir, &copy, false, at(200)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(sessions(&dir).await, 4, "refused, and nothing changed");

    let aside = backup::restore(&dir, &copy, true, at(200)).unwrap().aside.unwrap();
    assert_eq!(sessions(&dir).await, 3);
    assert_eq!(sessions(&aside).await, 4);
    // And that one's database alone, as after a downgrade.
    let done = backup::restore(&dir, &aside.join("hotbed.db"), true, at(300)).unwrap();
    assert_eq!(done.taken_at, None);
    assert_eq!(sessions(&dir).await, 4);
    assert!(dir.join("sessions").is_dir(), "the logs stay where only the database is put back");

    let (store, _) = open(&dir).await;
    assert_eq!(store.restored_at(), Some(at(300)));
    assert_eq!(backup::release(&dir).unwrap_err().kind(), ErrorKind::Conflict, "a server runs");
    store.close().await;
    assert_eq!(backup::release(&dir).unwrap(), at(300));
    let (store, _) = open(&dir).await;
    assert_eq!(store.restored_at(), None);
    store.close().await;
    assert_eq!(backup::release(&dir).unwrap_err().kind(), ErrorKind::NotFound);
}

/// Whatever was acknowledged before the copy began is in it, and each record and log is whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_under_load_is_one_moment() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("state");
    let (store, _) = open(&dir).await;
    let logs = SessionLogs::open(&dir, clock()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let acknowledged = Arc::new(AtomicU64::new(0));
    let writing = tokio::spawn({
        let (store, logs, stop, acknowledged) =
            (store.clone(), logs.clone(), stop.clone(), acknowledged.clone());
        async move {
            for n in 1.. {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                store.commit(Tx::new().session(&samples::session(n, SessionState::Active))).await.unwrap();
                logs.append(SessionId::from_u128(n), "said", json!({"n": n})).await.unwrap();
                acknowledged.store(n as u64, Ordering::Release);
                tokio::task::yield_now().await;
            }
        }
    });
    for round in 0..3 {
        let until = acknowledged.load(Ordering::Acquire) + 100;
        while acknowledged.load(Ordering::Acquire) < until {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(Ordering::Acquire);
        let (from, copy) = (dir.clone(), parent.path().join(format!("{round}.tar")));
        let to = copy.clone();
        tokio::task::spawn_blocking(move || take(&from, &to)).await.unwrap();
        let new = parent.path().join(format!("new{round}"));
        backup::restore(&new, &copy, false, at(200)).unwrap();
        let (restored, loaded) = open(&new).await;
        let count = loaded.sessions.len() as u64;
        assert!(count >= before, "{count} of {before}");
        let restored_logs = SessionLogs::open(&new, clock()).unwrap();
        for n in 1..=before {
            let id = SessionId::from_u128(n.into());
            assert_eq!(restored_logs.last(id).await.unwrap(), 1, "session {n} of {before}");
        }
        restored_logs.close().await;
        restored.close().await;
    }
    stop.store(true, Ordering::Release);
    writing.await.unwrap();
}

/// A copy that is cut off, changed, of another form, or no copy at all is refused, and the directory stays as it was.
#[tokio::test]
async fn what_is_no_whole_copy_is_refused() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = stocked(parent.path()).await;
    let mut whole = Vec::new();
    std::fs::File::open(&copy).unwrap().read_to_end(&mut whole).unwrap();
    let bad = parent.path().join("bad.tar");
    let refused = |what: &str, bytes: &[u8]| {
        std::fs::File::create(&bad).unwrap().write_all(bytes).unwrap();
        let error = backup::restore(&dir, &bad, true, at(200)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Permanent), "{what}: {error}");
        assert!(error.to_string().contains("bad.tar"), "{what}: {error}");
        let left: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .filter_map(|e| e.unwrap().file_name().into_string().ok())
            .filter(|n| n.starts_with(".restore") || n.starts_with("before") || n == "restoring")
            .collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    };
    refused("nothing", b"");
    refused("text", b"what is this?");
    refused("half", &whole[..whole.len() / 2]);
    // All entries, but not the manifest: as when the disk was full at the end.
    let manifest = whole.windows(13).rposition(|w| w == b"manifest.json").unwrap();
    refused("no manifest", &whole[..manifest]);
    let mut changed = whole.clone();
    let key = changed.windows(40).position(|w| w == "k".repeat(40).as_bytes()).unwrap();
    changed[key] = b'x';
    refused("a byte changed", &changed);
    let text = String::from_utf8_lossy(&whole[manifest..]).into_owned();
    let form = manifest + text.find("\"form\": 1").unwrap() + 8;
    let mut later = whole.clone();
    later[form] = b'9';
    refused("a later form", &later);
    refused("another program's database", &{
        let path = parent.path().join("other.db");
        rusqlite::Connection::open(&path).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        std::fs::read(path).unwrap()
    });
    refused("a newer Hotbed's database", &{
        let path = parent.path().join("newer.db");
        std::fs::copy(dir.join("hotbed.db"), &path).unwrap();
        rusqlite::Connection::open(&path)
            .unwrap()
            .execute_batch("PRAGMA user_version = 9999; PRAGMA journal_mode = DELETE")
            .unwrap();
        std::fs::read(path).unwrap()
    });
    assert_eq!(sessions(&dir).await, 3, "as it was");
}

/// A restore that was interrupted is not started upon, and is done again.
#[tokio::test]
async fn half_a_restore_is_not_started_upon() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, copy) = stocked(parent.path()).await;
    // As it lies after the database was moved aside and before the new one came.
    std::fs::write(dir.join("restoring"), "").unwrap();
    std::fs::create_dir(dir.join("before")).unwrap();
    std::fs::rename(dir.join("hotbed.db"), dir.join("before/hotbed.db")).unwrap();
    let error = store::Store::open(&dir, clock()).await.unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    backup::restore(&dir, &copy, true, at(200)).unwrap();
    assert_eq!(sessions(&dir).await, 3);
}

#[tokio::test]
async fn where_there_is_nothing_there_is_nothing_to_copy() {
    let dir = tempfile::tempdir().unwrap();
    let error = backup::take(dir.path(), Vec::new(), PROGRAM, at(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "and nothing is made");
}
