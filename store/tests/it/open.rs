//! Opening: locks, modes, versions, damage.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use domain::testing::ManualClock;
use domain::{ErrorKind, SandboxState, SessionId, SessionState};
use rusqlite::Connection;
use store::{BuildLogs, Page, SessionFilter, SessionLogs, Store, Tx};

use crate::samples::{self, clock, open};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_the_pid() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let error = Store::open(dir.path(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    // The refused one has done no harm, and the first one's end lets the next in.
    store.commit(Tx::new().session(&samples::session(1, SessionState::Active))).await.unwrap();
    store.close().await;
    let (store, loaded) = open(dir.path()).await;
    assert_eq!(loaded.sessions.len(), 1);
    // Dropping without closing frees it too.
    drop(store);
    open(dir.path()).await;
}

#[tokio::test]
async fn what_it_makes_only_its_user_can_read() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let (store, _) = open(&dir).await;
    store.commit(Tx::new().session(&samples::session(1, SessionState::Active))).await.unwrap();
    let logs = SessionLogs::open(&dir, clock()).unwrap();
    let session = SessionId::from_u128(1);
    logs.append(session, "k", serde_json::json!(1)).await.unwrap();
    let builds = BuildLogs::open(&dir).unwrap();
    let build = domain::BuildId::from_u128(1);
    builds.begin(build).await.unwrap();
    for sub in ["", "sessions", "builds"] {
        assert_eq!(mode(&dir.join(sub)), 0o700, "{sub}");
    }
    let mut files = 0;
    for sub in ["", "sessions", "builds"] {
        for entry in std::fs::read_dir(dir.join(sub)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                files += 1;
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    // Lock, database, its log and index; the session's three; the build's one.
    assert_eq!(files, 8);
}

#[tokio::test]
async fn a_database_that_others_could_read_is_narrowed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hotbed.db"), "").unwrap();
    std::fs::set_permissions(dir.path().join("hotbed.db"), PermissionsExt::from_mode(0o644)).unwrap();
    open(dir.path()).await;
    assert_eq!(mode(&dir.path().join("hotbed.db")), 0o600);
}

#[tokio::test]
async fn identity_is_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let (instance, secret) = (store.instance(), store.secret());
    assert_ne!(secret, [0; 32]);
    store.close().await;
    let (store, _) = open(dir.path()).await;
    assert_eq!((store.instance(), store.secret()), (instance, secret));
    let other = tempfile::tempdir().unwrap();
    let (store, _) = open(other.path()).await;
    assert_ne!(store.instance(), instance);
    assert_ne!(store.secret(), secret);
}

#[tokio::test]
async fn a_newer_database_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).await.0.close().await;
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    let todays: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    conn.execute_batch("PRAGMA user_version = 999").unwrap();
    drop(conn);
    let error = Store::open(dir.path(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains("version 999") && error.to_string().contains("newer"), "{error}");
    // Refused means untouched, and the directory is free.
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    let version: i64 = conn.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    assert_eq!(version, 999);
    conn.execute_batch(&format!("PRAGMA user_version = {todays}")).unwrap();
    drop(conn);
    open(dir.path()).await;
}

/// A database as version 1 wrote it, frozen. Whatever version is today's, its rows must come through.
#[tokio::test]
async fn version_1_comes_forward() {
    let dir = tempfile::tempdir().unwrap();
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    conn.execute_batch(include_str!("../version_1.sql")).unwrap();
    drop(conn);
    let (store, loaded) = open(dir.path()).await;
    assert_eq!(store.instance().to_string(), "ins_00000000000000000000000000000abc");
    assert_eq!(store.secret(), [7; 32]);
    assert_eq!(loaded.sandboxes, [samples::sandbox(2, SandboxState::Warm)]);
    assert_eq!(
        store.session(SessionId::from_u128(3)).await.unwrap(),
        Some(samples::session(3, SessionState::Ended))
    );
    assert_eq!(store.next_number("pr").await.unwrap(), 42);
}

#[tokio::test]
async fn a_damaged_row_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let good = samples::session(1, SessionState::Active);
    let bad = samples::session(2, SessionState::Active);
    store.commit(Tx::new().session(&good).session(&bad)).await.unwrap();
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    for body in ["{not json", "{}", &serde_json::to_string(&good).unwrap()] {
        conn.execute("UPDATE sessions SET body = ?1 WHERE id = ?2", [body, &bad.id.to_string()]).unwrap();
        let named = |error: domain::Error| {
            assert_eq!(error.kind(), ErrorKind::Permanent);
            let text = error.to_string();
            assert!(text.contains("sessions") && text.contains(&bad.id.to_string()), "{text}");
        };
        named(store.session(bad.id).await.unwrap_err());
        named(store.sessions(SessionFilter::default(), Page::default()).await.unwrap_err());
        assert_eq!(store.session(good.id).await.unwrap(), Some(good.clone()));
    }
    drop(store);
    let error = Store::open(dir.path(), clock()).await.unwrap_err();
    assert!(error.to_string().contains(&bad.id.to_string()), "{error}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused_in_words() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("hotbed.db"), "this is not a database, ".repeat(100)).unwrap();
    let error = Store::open(dir.path(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(
        error.chain().contains("hotbed.db") && error.chain().contains("not a database"),
        "{}",
        error.chain()
    );
    // A directory that is a file.
    let error = Store::open(&dir.path().join("hotbed.db"), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
}

/// F7: keys are remembered over a restart, for 24 hours.
#[tokio::test]
async fn keys_of_idempotency_are_kept_for_a_day() {
    let dir = tempfile::tempdir().unwrap();
    let clock = std::sync::Arc::new(ManualClock::at(samples::at(0)));
    let (store, _) = Store::open(dir.path(), clock.clone()).await.unwrap();
    let first = samples::idempotency(1, samples::at(0));
    store.commit(Tx::new().idempotency(&first)).await.unwrap();
    clock.advance(Duration::from_secs(23 * 3600));
    let second = samples::idempotency(2, samples::at(23 * 3600));
    let mut elsewhere = second.clone();
    elsewhere.route = "POST /v1/warmups".into();
    store.commit(Tx::new().idempotency(&second).idempotency(&elsewhere)).await.unwrap();
    store.close().await;
    let (store, loaded) = Store::open(dir.path(), clock.clone()).await.unwrap();
    assert_eq!(loaded.idempotency, [first.clone(), second.clone(), elsewhere.clone()]);

    clock.advance(Duration::from_secs(2 * 3600));
    // Any commit gives the writer the occasion; the second one comes after it.
    store.commit(Tx::new().remove_idempotency(&elsewhere.key, &elsewhere.route)).await.unwrap();
    store.commit(Tx::new().idempotency(&second)).await.unwrap();
    store.close().await;
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    let keys: i64 = conn.query_row("SELECT count(*) FROM idempotency", [], |row| row.get(0)).unwrap();
    assert_eq!(keys, 1);
    drop(conn);
    let (_, loaded) = Store::open(dir.path(), clock).await.unwrap();
    assert_eq!(loaded.idempotency, [second]);
}
