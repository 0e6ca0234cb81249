//! The audit log: in order, never changed, shortened at its old end.

use domain::AuditEntry;
use jiff::Timestamp;
use rusqlite::Connection;
use store::Tx;

use crate::samples::{at, open};

fn entry(n: i64) -> AuditEntry {
    AuditEntry {
        at: at(n),
        who: format!("key {n}"),
        key: None,
        user: Some("ada".into()),
        from: "127.0.0.1:1".into(),
        action: "POST /v1/sessions".into(),
        subject: "/v1/sessions".into(),
        made: None,
        status: 201,
        times: 1,
    }
}

#[tokio::test]
async fn lines_keep_their_order_and_old_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    for part in [0..300, 300..600] {
        let entries: Vec<_> = part.map(entry).collect();
        store.commit(Tx::new().audit(&entries)).await.unwrap();
    }
    let (mut got, mut after) = (Vec::new(), 0);
    loop {
        let page = store.audit(Timestamp::MIN, after, 250).await.unwrap();
        let Some((last, _)) = page.last() else { break };
        after = *last;
        got.extend(page.into_iter().map(|(_, entry)| entry));
    }
    assert_eq!(got, (0..600).map(entry).collect::<Vec<_>>());
    assert_eq!(store.audit(at(598), 0, 9).await.unwrap().len(), 2);

    store.commit(Tx::new().forget_audit(at(100), 1_000)).await.unwrap();
    assert_eq!(store.audit(Timestamp::MIN, 0, 1).await.unwrap()[0].1, entry(100));
    store.commit(Tx::new().forget_audit(at(100), 3)).await.unwrap();
    let left = store.audit(Timestamp::MIN, 0, 9).await.unwrap();
    assert_eq!(left.iter().map(|(_, e)| e.clone()).collect::<Vec<_>>(), [597, 598, 599].map(entry));
    // Numbers are not given twice, so a cursor means what it meant.
    store.commit(Tx::new().forget_audit(at(1_000), 0)).await.unwrap();
    store.commit(Tx::new().audit(&[entry(7)])).await.unwrap();
    assert_eq!(store.audit(Timestamp::MIN, after, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn no_line_is_ever_changed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    store.commit(Tx::new().audit(&[entry(1)])).await.unwrap();
    store.close().await;
    let conn = Connection::open(dir.path().join("hotbed.db")).unwrap();
    let error = conn.execute("UPDATE audit SET body = '{}'", []).unwrap_err().to_string();
    assert!(error.contains("never changed"), "{error}");
}
