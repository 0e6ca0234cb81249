//! Session logs: order, following, removal.

use std::time::Duration;

use domain::{ErrorKind, SessionId};
use futures_util::{Stream, StreamExt};
use serde_json::json;
use store::{LogEvent, MAX_EVENT_BYTES, SessionLogs};

use crate::samples::clock;

fn session(n: u128) -> SessionId {
    SessionId::from_u128(n)
}

fn logs() -> (tempfile::TempDir, SessionLogs) {
    let dir = tempfile::tempdir().unwrap();
    let logs = SessionLogs::open(dir.path(), clock()).unwrap();
    (dir, logs)
}

async fn next(stream: &mut (impl Stream<Item = domain::Result<LogEvent>> + Unpin)) -> Option<LogEvent> {
    tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("an event").map(Result::unwrap)
}

#[tokio::test]
async fn numbers_begin_at_one_and_order_is_kept() {
    let (dir, logs) = logs();
    assert_eq!(logs.read(session(1), 0, 10).await.unwrap(), []);
    assert_eq!(logs.last(session(1)).await.unwrap(), 0);
    logs.post(session(1), "a", json!({"x": 1})).unwrap();
    let second = logs.append(session(1), "b", json!("ü\0\n"));
    logs.post(session(1), "c", json!(null)).unwrap();
    assert_eq!(second.await.unwrap(), 2);
    assert_eq!(logs.append(session(2), "other", json!(1)).await.unwrap(), 1);
    assert_eq!(logs.append(session(1), "d", json!([1])).await.unwrap(), 4);
    let all = logs.read(session(1), 0, 10).await.unwrap();
    assert_eq!(
        all.iter().map(|e| (e.seq, e.kind.as_str())).collect::<Vec<_>>(),
        [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    );
    assert_eq!(all[1].data, json!("ü\0\n"));
    assert_eq!(logs.read(session(1), 1, 2).await.unwrap(), all[1..3]);
    assert_eq!(logs.read(session(1), 4, 2).await.unwrap(), []);
    assert_eq!(logs.read(session(1), u64::MAX, usize::MAX).await.unwrap(), []);
    logs.close().await;
    // After a restart it goes on where it was.
    let logs = SessionLogs::open(dir.path(), clock()).unwrap();
    assert_eq!(logs.append(session(1), "e", json!(0)).await.unwrap(), 5);
    assert_eq!(logs.last(session(1)).await.unwrap(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_everything_once_whenever_they_begin() {
    const EVENTS: u64 = 600;
    let (_dir, logs) = logs();
    let mut followers = Vec::new();
    let follow = |after: u64| {
        let mut stream = logs.follow(session(1), after);
        tokio::spawn(async move {
            let mut seen = after;
            while seen < EVENTS * 3 {
                let event = next(&mut stream).await.expect("not the end");
                assert_eq!(event.seq, seen + 1, "a gap or a duplicate");
                seen = event.seq;
            }
        })
    };
    followers.push(follow(0)); // before there is a file
    let writers: Vec<_> = (0..3)
        .map(|w| {
            let logs = logs.clone();
            tokio::spawn(async move {
                for i in 0..EVENTS {
                    if i % 3 == 0 {
                        logs.append(session(1), "k", json!([w, i])).await.unwrap();
                    } else {
                        logs.post(session(1), "k", json!([w, i])).unwrap();
                    }
                }
            })
        })
        .collect();
    for part in 1..6 {
        let after = part * EVENTS / 4;
        let mut upto = logs.follow(session(1), after - 1);
        next(&mut upto).await.expect("an event");
        followers.push(follow(after));
        followers.push(follow(0));
    }
    for task in writers.into_iter().chain(followers) {
        task.await.unwrap();
    }
    // Each writer's own order is in the log.
    let all = logs.read(session(1), 0, usize::MAX).await.unwrap();
    for w in 0..3 {
        let mine: Vec<u64> =
            all.iter().filter(|e| e.data[0] == json!(w)).map(|e| e.data[1].as_u64().unwrap()).collect();
        assert_eq!(mine, (0..EVENTS).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_follower_that_does_not_read_holds_nobody_up() {
    let (_dir, logs) = logs();
    let mut slow = logs.follow(session(1), 0);
    logs.append(session(1), "k", json!(0)).await.unwrap();
    next(&mut slow).await.unwrap();
    for i in 1..2000 {
        logs.post(session(1), "k", json!(i)).unwrap();
    }
    logs.append(session(1), "k", json!(2000)).await.unwrap();
    for i in 1..=2000 {
        assert_eq!(next(&mut slow).await.unwrap().data, json!(i));
    }
}

#[tokio::test]
async fn more_sessions_than_open_files() {
    let (_dir, logs) = logs();
    for round in 1..=2 {
        let appends: Vec<_> = (0..150).map(|n| logs.append(session(n), "k", json!(round))).collect();
        for append in appends {
            assert_eq!(append.await.unwrap(), round);
        }
    }
    for n in 0..150 {
        assert_eq!(logs.read(session(n), 0, 10).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn removal_ends_followers_and_leaves_nothing() {
    let (dir, logs) = logs();
    let mut follower = logs.follow(session(1), 0);
    logs.append(session(1), "k", json!(1)).await.unwrap();
    assert_eq!(next(&mut follower).await.unwrap().seq, 1);
    assert_eq!(logs.read(session(1), 0, 1).await.unwrap().len(), 1); // leaves a connection for the next reader
    logs.remove(session(1)).await.unwrap();
    assert_eq!(next(&mut follower).await, None);
    let left: Vec<_> = std::fs::read_dir(dir.path().join("sessions")).unwrap().collect();
    assert_eq!(left.len(), 0, "{left:?}");
    assert_eq!(logs.read(session(1), 0, 1).await.unwrap(), []);
    logs.remove(session(1)).await.unwrap();
    // A new one is new for readers too.
    assert_eq!(logs.append(session(1), "new", json!(1)).await.unwrap(), 1);
    assert_eq!(logs.read(session(1), 0, 10).await.unwrap()[0].kind, "new");
}

#[tokio::test]
async fn closing_commits_what_waits_and_ends_followers() {
    let (dir, logs) = logs();
    let mut follower = logs.follow(session(1), 0);
    for i in 0..100 {
        logs.post(session(1), "k", json!(i)).unwrap();
    }
    let other = logs.clone();
    logs.close().await;
    for seq in 1..=100 {
        assert_eq!(next(&mut follower).await.unwrap().seq, seq);
    }
    assert_eq!(next(&mut follower).await, None);
    assert_eq!(other.post(session(1), "k", json!(1)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(next(&mut other.follow(session(1), 99)).await.unwrap().seq, 100);
    let left = std::fs::read_dir(dir.path().join("sessions")).unwrap().count();
    assert!(left >= 1);
}

#[tokio::test]
async fn an_event_too_long_is_refused_and_a_damaged_one_named() {
    let (dir, logs) = logs();
    let error = logs.post(session(1), "k", json!("x".repeat(MAX_EVENT_BYTES))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let error = logs.append(session(1), "k", json!("x".repeat(MAX_EVENT_BYTES))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    // Long ones come in several reads, all of them.
    for _ in 0..40 {
        logs.post(session(1), "k", json!("x".repeat(MAX_EVENT_BYTES - 100))).unwrap();
    }
    assert_eq!(logs.append(session(1), "k", json!(1)).await.unwrap(), 41);
    let part = logs.read(session(1), 0, usize::MAX).await.unwrap();
    assert!(!part.is_empty() && part.len() < 41, "{}", part.len());
    let mut follower = logs.follow(session(1), 0);
    for seq in 1..=41 {
        assert_eq!(next(&mut follower).await.unwrap().seq, seq);
    }
    let file = dir.path().join("sessions").join(format!("{}.db", session(1)));
    rusqlite::Connection::open(file)
        .unwrap()
        .execute("UPDATE events SET data = '{' WHERE seq = 41", [])
        .unwrap();
    let error = logs.read(session(1), 40, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains("event 41"), "{error}");
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// What was acknowledged survives the process, wherever it lies at that moment; and what lies in two places counts
/// once.
#[tokio::test]
async fn a_copy_taken_at_any_moment_holds_what_was_acknowledged() {
    let (dir, logs) = logs();
    let after = tempfile::tempdir().unwrap();
    for n in 0..40 {
        logs.post(session(n), "a", json!(n)).unwrap();
    }
    for n in 0..40 {
        assert_eq!(logs.append(session(n), "b", json!(n)).await.unwrap(), 2);
    }
    copy(dir.path(), &after.path().join("early"));
    // Reading moves events into the sessions' own files.
    for n in 0..20 {
        assert_eq!(logs.read(session(n), 0, 10).await.unwrap().len(), 2);
    }
    copy(dir.path(), &after.path().join("late"));
    // As if the process had died after the files were made and before the journal let go of them.
    copy(&after.path().join("early"), &after.path().join("both"));
    copy(&after.path().join("late/sessions"), &after.path().join("both/sessions"));
    for state in ["early", "late", "both"] {
        let logs = SessionLogs::open(&after.path().join(state), clock()).unwrap();
        for n in 0..40 {
            let events = logs.read(session(n), 0, 10).await.unwrap();
            let seen: Vec<_> = events.iter().map(|e| (e.seq, e.kind.as_str(), e.data.clone())).collect();
            assert_eq!(seen, [(1, "a", json!(n)), (2, "b", json!(n))], "{state}");
            assert_eq!(logs.append(session(n), "c", json!(n)).await.unwrap(), 3, "{state}");
        }
        logs.close().await;
    }
}

/// Sessions that nobody reads get their files all the same, by and by.
#[tokio::test]
async fn files_are_made_without_being_asked_for() {
    let (dir, logs) = logs();
    for n in 0..100 {
        logs.post(session(n), "k", json!(n)).unwrap();
    }
    logs.append(session(100), "k", json!(100)).await.unwrap();
    let file = |n| dir.path().join("sessions").join(format!("{}.db", session(n)));
    let made = async {
        while !(0..=100).all(|n| file(n).exists()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), made).await.expect("all files");
    // They are what a log's file is: any SQLite reads them, and later events go on in them.
    let count = |n| {
        rusqlite::Connection::open(file(n))
            .unwrap()
            .query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count(7), 1);
    assert_eq!(logs.append(session(7), "later", json!(0)).await.unwrap(), 2);
    assert_eq!(count(7), 2);
}

/// A journal that a loss of power damaged costs the last second of some logs, and nothing else.
#[tokio::test]
async fn a_damaged_journal_is_put_aside() {
    let (dir, logs) = logs();
    logs.append(session(1), "k", json!(1)).await.unwrap();
    logs.close().await;
    std::fs::write(dir.path().join("session-journal.db"), "no database ".repeat(500)).unwrap();
    let logs = SessionLogs::open(dir.path(), clock()).unwrap();
    assert_eq!(logs.read(session(1), 0, 10).await.unwrap().len(), 1);
    assert_eq!(logs.append(session(2), "k", json!(1)).await.unwrap(), 1);
    assert!(dir.path().join("session-journal.db.damaged").exists());
}

/// What a loss of power can leave of a log that was made just before it: a name.
#[tokio::test]
async fn an_empty_file_is_a_log_without_events() {
    let (dir, logs) = logs();
    let file = dir.path().join("sessions").join(format!("{}.db", session(1)));
    std::fs::write(&file, "").unwrap();
    assert_eq!(logs.read(session(1), 0, 10).await.unwrap(), []);
    assert_eq!(logs.append(session(1), "k", json!(1)).await.unwrap(), 1);
    assert_eq!(logs.read(session(1), 0, 10).await.unwrap().len(), 1);
}

/// One session's damaged file is its own trouble.
/// A file that an earlier process had not finished is gone at the next start; what it was made of is in the journal.
#[tokio::test]
async fn what_was_not_finished_is_tidied_away() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("sessions").join(format!("{}.tmp", session(1)));
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "half a log").unwrap();
    let logs = SessionLogs::open(dir.path(), clock()).unwrap();
    logs.append(session(1), "said", json!(1)).await.unwrap();
    assert!(!left.exists());
    assert_eq!(logs.last(session(1)).await.unwrap(), 1);
    let names: Vec<_> =
        std::fs::read_dir(left.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().ends_with(".tmp")), "{names:?}");
}

#[tokio::test]
async fn a_damaged_file_fails_its_session_only() {
    let (dir, logs) = logs();
    std::fs::write(
        dir.path().join("sessions").join(format!("{}.db", session(1))),
        "no database ".repeat(500),
    )
    .unwrap();
    let bad = logs.append(session(1), "k", json!(1));
    let good = logs.append(session(2), "k", json!(1));
    assert_eq!(bad.await.unwrap_err().kind(), ErrorKind::Permanent);
    assert_eq!(good.await.unwrap(), 1);
    assert_eq!(logs.read(session(1), 0, 1).await.unwrap_err().kind(), ErrorKind::Permanent);
}
