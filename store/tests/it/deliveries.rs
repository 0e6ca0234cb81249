//! Deliveries of webhooks: each once, in order of arrival, until it has been worked.

use domain::PullRequestState;
use store::{Delivery, Tx};

use crate::samples::{open, pull_request};

/// Without a part below the microsecond: a column is all that keeps it.
fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + second).expect("in range")
}

fn delivery(id: &str, second: i64) -> Delivery {
    Delivery { id: id.into(), event: "push".into(), body: id.as_bytes().into(), received_at: at(second) }
}

#[tokio::test]
async fn each_delivery_is_kept_once_until_it_has_been_worked() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    for (id, second) in [("b", 1), ("a", 2), ("c", 3), ("b", 9)] {
        store.commit(Tx::new().delivery(delivery(id, second))).await.unwrap();
    }
    store.close().await;

    let (store, _) = open(dir.path()).await;
    let waiting = store.deliveries_waiting(0, 10).await.unwrap();
    let ids: Vec<_> = waiting.iter().map(|(_, d)| d.id.as_str()).collect();
    assert_eq!(ids, ["b", "a", "c"]);
    assert_eq!(waiting[0].1, delivery("b", 1), "the first one counts");
    let rest = store.deliveries_waiting(waiting[0].0, 1).await.unwrap();
    assert_eq!(rest.iter().map(|(_, d)| d.id.as_str()).collect::<Vec<_>>(), ["a"]);

    store.commit(Tx::new().delivery_worked("a")).await.unwrap();
    // It came again after it was worked: it does not wait again.
    store.commit(Tx::new().delivery(delivery("a", 10))).await.unwrap();
    let waiting = store.deliveries_waiting(0, 10).await.unwrap();
    assert_eq!(waiting.iter().map(|(_, d)| d.id.as_str()).collect::<Vec<_>>(), ["b", "c"]);

    assert_eq!(
        store.deliveries_unworked().await.unwrap(),
        2,
        "what has been worked is remembered and does not wait"
    );

    // What waits is not forgotten, however old.
    store.commit(Tx::new().forget_deliveries(at(5))).await.unwrap();
    let mut known = store.deliveries_known().await.unwrap();
    known.sort();
    assert_eq!(known, [("b".to_owned(), at(1)), ("c".to_owned(), at(3))]);
}

#[tokio::test]
async fn pull_requests_are_found_by_their_number() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    for n in 1..=6 {
        store.commit(Tx::new().pull_request(&pull_request(n, PullRequestState::Open))).await.unwrap();
    }
    let wanted = pull_request(4, PullRequestState::Open);
    let found = store.pull_requests_numbered(&wanted.repo, 4).await.unwrap();
    assert_eq!(found, std::slice::from_ref(&wanted));
    assert_eq!(store.pull_requests_numbered(&wanted.repo, 5).await.unwrap(), []);
}
