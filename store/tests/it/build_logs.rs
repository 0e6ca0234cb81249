//! Build logs: following to the end, cutting, tails.

use std::time::Duration;

use domain::{BuildId, ErrorKind};
use futures_util::StreamExt;
use store::BuildLogs;

const BUILD: BuildId = BuildId::from_u128(1);

fn logs() -> (tempfile::TempDir, BuildLogs) {
    let dir = tempfile::tempdir().unwrap();
    let logs = BuildLogs::open(dir.path()).unwrap();
    (dir, logs)
}

/// All that a follower from `from` gets until the end.
fn collect(logs: &BuildLogs, from: u64) -> tokio::task::JoinHandle<Vec<u8>> {
    let mut stream = logs.follow(BUILD, from);
    tokio::spawn(async move {
        let mut all = Vec::new();
        let read = async {
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.unwrap();
                assert!(!chunk.is_empty());
                all.extend_from_slice(&chunk);
            }
        };
        tokio::time::timeout(Duration::from_secs(30), read).await.expect("the end of the log");
        all
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_get_every_byte_and_the_end() {
    let (_dir, logs) = logs();
    logs.begin(BUILD).await.unwrap();
    let mut followers = vec![(0, collect(&logs, 0))];
    let mut expected = Vec::new();
    for i in 0..2000 {
        let line = format!("line {i} of the build\n");
        expected.extend_from_slice(line.as_bytes());
        logs.append(BUILD, line).await.unwrap();
        if i % 400 == 0 {
            let from = expected.len() as u64 / 2;
            followers.push((from as usize, collect(&logs, from)));
        }
    }
    // One that begins just before the end and is polled after it.
    let late = logs.follow(BUILD, 0);
    logs.finish(BUILD).await.unwrap();
    let late: Vec<u8> = late.map(|c| c.unwrap().to_vec()).concat().await;
    assert_eq!(late, expected);
    followers.push((0, collect(&logs, 0))); // finished already
    for (from, follower) in followers {
        assert_eq!(follower.await.unwrap(), expected[from..]);
    }
    assert_eq!(logs.read(BUILD, 5, 6).await.unwrap(), &expected[5..11]);
    assert_eq!(logs.read(BUILD, expected.len() as u64 + 5, 6).await.unwrap(), "");
    assert_eq!(logs.tail(BUILD, 2).await.unwrap(), "line 1998 of the build\nline 1999 of the build");
    // Past the end, finished: nothing, and the end.
    assert_eq!(collect(&logs, 1 << 40).await.unwrap(), b"");
}

#[tokio::test]
async fn a_log_is_open_from_begin_to_finish() {
    let (dir, logs) = logs();
    assert_eq!(logs.append_line(BUILD, "x").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(logs.read(BUILD, 0, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(logs.tail(BUILD, 1).await.unwrap(), "");
    assert_eq!(collect(&logs, 0).await.unwrap(), b"");
    logs.finish(BUILD).await.unwrap();
    logs.begin(BUILD).await.unwrap();
    logs.append_line(BUILD, "one").await.unwrap();
    logs.begin(BUILD).await.unwrap();
    assert!(logs.is_open(BUILD));
    // F27: after a restart nobody waits for a build that no longer runs.
    let again = BuildLogs::open(dir.path()).unwrap();
    assert_eq!(collect(&again, 0).await.unwrap(), b"one\n");
    again.begin(BUILD).await.unwrap();
    again.append_line(BUILD, "two").await.unwrap();
    again.finish(BUILD).await.unwrap();
    assert_eq!(again.append_line(BUILD, "x").await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(collect(&again, 0).await.unwrap(), b"one\ntwo\n");
}

#[tokio::test]
async fn a_long_log_is_cut_and_keeps_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let logs = BuildLogs::with_limit(dir.path(), 1000).unwrap();
    logs.begin(BUILD).await.unwrap();
    let follower = collect(&logs, 0);
    for i in 0..20_000 {
        logs.append_line(BUILD, &format!("line {i:05}")).await.unwrap();
    }
    // The tail is right also before the end is written.
    assert_eq!(logs.tail(BUILD, 1).await.unwrap(), "line 19999");
    logs.finish(BUILD).await.unwrap();
    let text = String::from_utf8(follower.await.unwrap()).unwrap();
    assert_eq!(logs.read(BUILD, 0, usize::MAX).await.unwrap(), text);
    assert!(text.len() < 1000 + 64 * 1024 + 200, "{}", text.len());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[89], "line 00089"); // 11 bytes a line: 90 of them fit
    assert_eq!(lines[90], "[hotbed: cut here: the log has more than 1000 bytes]");
    assert!(lines[91].ends_with("bytes left out; the end follows]"), "{}", lines[91]);
    assert_eq!(lines.last(), Some(&"line 19999"));
    assert_eq!(logs.tail(BUILD, 2).await.unwrap(), "line 19998\nline 19999");
}

#[tokio::test]
async fn one_append_over_the_limit_loses_nothing_that_the_end_can_hold() {
    let dir = tempfile::tempdir().unwrap();
    let logs = BuildLogs::with_limit(dir.path(), 10).unwrap();
    logs.begin(BUILD).await.unwrap();
    logs.append(BUILD, "abc").await.unwrap();
    logs.append(BUILD, "\n0123456789abc\nend\n").await.unwrap();
    logs.finish(BUILD).await.unwrap();
    let text = logs.read(BUILD, 0, 1000).await.unwrap();
    assert_eq!(text, "abc\n[hotbed: cut here: the log has more than 10 bytes]\n0123456789abc\nend\n");
}

/// A complete log is packed: a fraction of its size, its offsets as they were; one that a crash left plain is packed
/// when somebody finishes it.
#[tokio::test]
async fn complete_logs_are_packed() {
    let (dir, logs) = logs();
    let files = || {
        let names = std::fs::read_dir(dir.path().join("builds")).unwrap();
        let mut names: Vec<_> = names.map(|e| e.unwrap()).collect();
        names.sort_by_key(|e| e.file_name());
        let name = |e: &std::fs::DirEntry| e.file_name().into_string().unwrap();
        names.iter().map(|e| (name(e), e.metadata().unwrap().len())).collect::<Vec<_>>()
    };
    logs.begin(BUILD).await.unwrap();
    let text: String = (0..50_000).map(|n| format!("compiling unit {n} of many\n")).collect();
    logs.append(BUILD, text.clone()).await.unwrap();
    // One follower has the plain file open, one comes before the end and reads after it.
    let mut early = logs.follow(BUILD, 0);
    let first = early.next().await.unwrap().unwrap();
    let late = logs.follow(BUILD, 1000);
    logs.finish(BUILD).await.unwrap();
    let rest: Vec<u8> = early.map(|c| c.unwrap().to_vec()).concat().await;
    assert_eq!([&first[..], &rest].concat(), text.as_bytes());
    let late: Vec<u8> = late.map(|c| c.unwrap().to_vec()).concat().await;
    assert_eq!(late, &text.as_bytes()[1000..]);
    let [(name, size)] = &files()[..] else { panic!("{:?}", files()) };
    assert!(name.ends_with(".log.gz") && *size < text.len() as u64 / 5, "{name}: {size}");
    assert_eq!(logs.read(BUILD, 123_456, 50).await.unwrap(), &text.as_bytes()[123_456..123_506]);
    assert_eq!(logs.tail(BUILD, 1).await.unwrap(), "compiling unit 49999 of many");

    // A process that dies leaves a plain one, or half a packed one beside it.
    logs.begin(BUILD).await.unwrap();
    logs.append_line(BUILD, "and one more").await.unwrap();
    std::fs::write(dir.path().join(format!("builds/{BUILD}.log.gz.new")), "half").unwrap();
    let again = BuildLogs::open(dir.path()).unwrap();
    assert_eq!(files().len(), 1, "{:?}", files());
    assert_eq!(again.tail(BUILD, 1).await.unwrap(), "and one more");
    again.finish(BUILD).await.unwrap();
    assert!(files()[0].0.ends_with(".log.gz"), "{:?}", files());
    assert_eq!(collect(&again, text.len() as u64).await.unwrap(), b"and one more\n");
    again.remove(BUILD).await.unwrap();
    assert_eq!(files(), []);
}

#[tokio::test]
async fn removal_ends_followers() {
    let (dir, logs) = logs();
    logs.begin(BUILD).await.unwrap();
    logs.append_line(BUILD, "x").await.unwrap();
    let mut stream = logs.follow(BUILD, 0);
    assert_eq!(stream.next().await.unwrap().unwrap(), "x\n");
    logs.remove(BUILD).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(30), stream.next()).await.expect("the end").is_none());
    assert_eq!(std::fs::read_dir(dir.path().join("builds")).unwrap().count(), 0);
    logs.remove(BUILD).await.unwrap();
}
