//! The writer against a database that refuses: other ends of the same queue must not notice.

use std::sync::Arc;

use domain::{ErrorKind, SystemClock};

use super::*;

struct Bench {
    _dir: tempfile::TempDir,
    path: PathBuf,
    writer: Writer,
}

/// `limit` is the greatest number of pages the database may have.
fn bench(queue: usize, limit: Option<u32>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.db");
    let conn = Connection::open(&path).unwrap();
    conn.execute_batch(
        "PRAGMA journal_mode=WAL; CREATE TABLE t(id TEXT PRIMARY KEY, body TEXT UNIQUE) STRICT;",
    )
    .unwrap();
    conn.execute_batch("CREATE TABLE counters(scope TEXT PRIMARY KEY, value INTEGER); CREATE TABLE idempotency(created_at INTEGER);").unwrap();
    conn.busy_timeout(Duration::from_secs(60)).unwrap();
    if let Some(limit) = limit {
        conn.query_row(&format!("PRAGMA max_page_count={limit}"), [], |_| Ok(())).unwrap();
    }
    let writer = Writer::start(conn, path.clone(), Arc::new(SystemClock), queue, ()).unwrap();
    Bench { _dir: dir, path, writer }
}

fn unit(id: &str, bodies: &[&str], durable: bool) -> (Unit, oneshot::Receiver<Result<u64>>) {
    let ops = bodies.iter().enumerate().map(|(i, body)| crate::tx::Op::for_test(&format!("{id}{i}"), body));
    let (reply, answer) = oneshot::channel();
    (Unit { work: Work::Apply(ops.collect()), durable, reply }, answer)
}

impl Bench {
    fn put(&self, id: &str, bodies: &[&str], durable: bool) -> Result<oneshot::Receiver<Result<u64>>> {
        let (unit, answer) = unit(id, bodies, durable);
        self.writer.send(unit)?;
        Ok(answer)
    }

    /// As `put`, on this thread if it may be.
    fn put_at_once(&self, id: &str, bodies: &[&str], durable: bool) -> oneshot::Receiver<Result<u64>> {
        let (unit, answer) = unit(id, bodies, durable);
        self.writer.send_or_do(unit).unwrap();
        answer
    }

    fn ids(&self) -> Vec<String> {
        let conn = Connection::open(&self.path).unwrap();
        let mut stmt = conn.prepare("SELECT id FROM t ORDER BY id").unwrap();
        stmt.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    /// Keeps the writer waiting until it is dropped.
    fn hold(&self) -> Connection {
        let conn = Connection::open(&self.path).unwrap();
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        conn
    }
}

#[test]
fn one_bad_statement_fails_its_own_commit_and_no_other() {
    let bench = bench(64, None);
    let held = bench.hold();
    let good_before = bench.put("a", &["1", "2"], false).unwrap();
    let bad = bench.put("b", &["3", "1"], false).unwrap(); // its second row clashes
    let good_after = bench.put("c", &["4"], true).unwrap();
    let bad_durable = bench.put("d", &["5", "4"], true).unwrap();
    let good_last = bench.put("e", &["3"], false).unwrap(); // free again, since b was undone whole
    drop(held);
    good_before.blocking_recv().unwrap().unwrap();
    let error = bad.blocking_recv().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert!(error.to_string().contains("b1"), "{error:?}");
    good_after.blocking_recv().unwrap().unwrap();
    assert_eq!(bad_durable.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    good_last.blocking_recv().unwrap().unwrap();
    assert_eq!(bench.ids(), ["a0", "a1", "c0", "e0"]);
}

#[test]
fn what_waits_together_is_committed_together() {
    let bench = bench(64, None);
    let held = bench.hold();
    // The first is taken alone and waits for the lock with whatever had come by then.
    let answers: Vec<_> =
        (0..50).map(|i| bench.put(&format!("x{i:02}-"), &[&i.to_string()], false).unwrap()).collect();
    drop(held);
    for answer in answers {
        answer.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(bench.writer.done.commits.load(Ordering::Relaxed), 50);
    let transactions = bench.writer.done.transactions.load(Ordering::Relaxed);
    assert!(transactions <= 2, "50 commits took {transactions} transactions");
    assert_eq!(bench.ids().len(), 50);
}

#[test]
fn a_full_queue_says_so_and_loses_nothing_it_took() {
    let bench = bench(8, None);
    let held = bench.hold();
    let mut taken = Vec::new();
    // One batch is with the writer at most, the queue holds eight: within this many it must be full.
    let error = (0..BATCH + 9)
        .find_map(|i| match bench.put(&format!("q{i:03}-"), &[&i.to_string()], false) {
            Ok(answer) => {
                taken.push(answer);
                None
            }
            Err(error) => Some(error),
        })
        .expect("a full queue");
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    drop(held);
    let count = taken.len();
    for answer in taken {
        answer.blocking_recv().unwrap().unwrap();
    }
    assert_eq!(bench.ids().len(), count);
}

/// F41: a full disk is a stated, retryable error; what fits goes on, and nothing is half there.
#[test]
fn a_full_disk_is_exhausted_and_small_commits_go_on() {
    let bench = bench(64, Some(20));
    let big = "x".repeat(200_000);
    let held = bench.hold();
    let small = bench.put("small", &["1"], false).unwrap();
    let large = bench.put("large", &["2", &big], true).unwrap();
    let durable = bench.put("tiny", &["3"], true).unwrap();
    drop(held);
    small.blocking_recv().unwrap().unwrap();
    let error = large.blocking_recv().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(error.kind().is_retryable() && error.to_string().contains("disk"), "{error:?}");
    durable.blocking_recv().unwrap().unwrap();
    assert_eq!(bench.ids(), ["small0", "tiny0"]);
}

#[test]
fn an_answer_nobody_waits_for_is_committed_and_dropping_drains() {
    let bench = bench(64, None);
    let held = bench.hold();
    for i in 0..20 {
        drop(bench.put(&format!("n{i:02}-"), &[&i.to_string()], i % 3 == 0).unwrap());
    }
    drop(held);
    let Bench { _dir, path, writer } = bench;
    drop(writer);
    let conn = Connection::open(path).unwrap();
    let count: i64 = conn.query_row("SELECT count(*) FROM t", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 20);
}

#[test]
fn after_close_it_says_closed() {
    let bench = bench(64, None);
    let answer = bench.put("a", &["1"], false).unwrap();
    bench.writer.close().unwrap().blocking_recv().unwrap();
    answer.blocking_recv().unwrap().unwrap();
    assert_eq!(bench.put("b", &["2"], false).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn who_finds_the_desk_free_is_answered_before_the_call_returns() {
    let bench = bench(64, None);
    let mut good = bench.put_at_once("a", &["1"], false);
    good.try_recv().expect("answered already").unwrap();
    let mut bad = bench.put_at_once("b", &["2", "1"], false);
    assert_eq!(bad.try_recv().expect("answered already").unwrap_err().kind(), ErrorKind::Conflict);
    // What failed left nothing, and stands in nobody's way.
    bench.put("c", &["2"], true).unwrap().blocking_recv().unwrap().unwrap();
    assert_eq!(bench.ids(), ["a0", "c0"]);
}

#[test]
fn at_once_never_overtakes_and_never_waits() {
    let bench = bench(64, None);
    let held = bench.hold();
    // Another program writes: it would have to wait, and is handed to the thread.
    let mut first = bench.put_at_once("a", &["same"], false);
    assert!(first.try_recv().is_err(), "answered while the database was locked");
    // Something waits: this one would overtake it, and only the first of two equal bodies can be written.
    let second = bench.put_at_once("b", &["same"], false);
    let durable = bench.put_at_once("c", &["other"], true);
    drop(held);
    first.blocking_recv().unwrap().unwrap();
    assert_eq!(second.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    durable.blocking_recv().unwrap().unwrap();
    assert_eq!(bench.ids(), ["a0", "c0"]);
}

#[test]
fn at_once_and_in_line_keep_the_order_of_one_caller() {
    let bench = bench(4096, None);
    // Each pair clashes: whoever is written second is refused, so the order shows.
    let pairs: Vec<_> = (0..500)
        .map(|i| {
            let body = i.to_string();
            let line = bench.put(&format!("l{i:03}-"), &[&body], i % 7 == 0).unwrap();
            (line, bench.put_at_once(&format!("o{i:03}-"), &[&body], false))
        })
        .collect();
    for (line, at_once) in pairs {
        line.blocking_recv().unwrap().unwrap();
        assert_eq!(at_once.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Conflict);
    }
}

#[test]
fn at_once_says_closed_after_close() {
    let bench = bench(64, None);
    bench.writer.close().unwrap().blocking_recv().unwrap();
    let (unit, _) = unit("a", &["1"], false);
    assert_eq!(bench.writer.send_or_do(unit).unwrap_err().kind(), ErrorKind::Unavailable);
}
