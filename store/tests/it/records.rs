//! Commits and reads.

use std::collections::BTreeMap;

use domain::*;
use store::{Page, SessionFilter, SnapshotFilter, Tx};

use crate::samples::{self, open};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reader_sees_its_own_write_at_once() {
    // F37, under load: 8 writers, each reads back what it has just been told is there.
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let tasks: Vec<_> = (0..8u128)
        .map(|task| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..50 {
                    let mut record = samples::session(task * 1000 + i, SessionState::Waiting);
                    store.commit(Tx::new().session(&record)).await.unwrap();
                    assert_eq!(store.session(record.id).await.unwrap().as_ref(), Some(&record));
                    record.state = SessionState::Ended;
                    let tx = Tx::new().session(&record);
                    store.commit(if i % 10 == 0 { tx.durable() } else { tx }).await.unwrap();
                    assert_eq!(store.session(record.id).await.unwrap(), Some(record));
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.sessions, stats.people), (400, 0));
}

#[tokio::test]
async fn a_promotion_may_name_the_images_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut old = samples::image(1, 0, ImageState::Current);
    store.commit(Tx::new().image(&old)).await.unwrap();
    // Two current images of one repo are refused, whole.
    let mut new = samples::image(2, 0, ImageState::Current);
    let session = samples::session(1, SessionState::Active);
    let error = store.commit(Tx::new().session(&session).image(&new)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
    assert_eq!(store.session(session.id).await.unwrap(), None);
    assert_eq!(store.image(new.id).await.unwrap(), None);
    // The new one first, the old one after: still one promotion.
    old.state = ImageState::Removing;
    store.commit(Tx::new().image(&new).image(&old)).await.unwrap();
    // And back, naming one of them twice: the later word counts.
    new.state = ImageState::Current;
    let tx = Tx::new().image(&new);
    new.state = ImageState::Superseded;
    old.state = ImageState::Current;
    store.commit(tx.image(&old).image(&new)).await.unwrap();
    let images = store.images(Some(&[samples::repo(0)]), Page::default()).await.unwrap();
    assert_eq!(images.items, [new, old]);
    // Another repo has its own.
    store.commit(Tx::new().image(&samples::image(3, 1, ImageState::Current))).await.unwrap();
}

#[tokio::test]
async fn what_could_not_be_read_back_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut build = samples::build(1, BuildState::Running);
    build.phases[0].seconds = f64::NAN;
    let session = samples::session(1, SessionState::Active);
    let error = store.commit(Tx::new().session(&session).build(&build)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error:?}");
    assert!(error.to_string().contains("clone"), "{error}");
    assert_eq!(store.session(session.id).await.unwrap(), None);
    assert!(Tx::new().is_empty());
    store.commit(Tx::new()).await.unwrap();
}

#[tokio::test]
async fn lists_are_newest_first_and_pages_neither_skip_nor_repeat() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut all = Vec::new();
    let mut tx = Tx::new();
    for n in 0..40u128 {
        // Written in another order than their ids'.
        let n = n * 17 % 40;
        let session = samples::session(n, SessionState::ALL[(n % 5) as usize]);
        tx = tx.session(&session);
        all.push(session);
    }
    store.commit(tx).await.unwrap();
    all.sort_by_key(|s| std::cmp::Reverse(s.id));

    let filters = [
        SessionFilter::default(),
        SessionFilter { repos: Some(vec![samples::repo(1)]), ..Default::default() },
        SessionFilter { live_only: true, ..Default::default() },
        SessionFilter { state: Some(SessionState::Ended), ..Default::default() },
        SessionFilter {
            state: Some(SessionState::Paused),
            user: Some("user-2".into()),
            ..Default::default()
        },
        SessionFilter {
            repos: Some(vec![samples::repo(2), samples::repo(0)]),
            live_only: true,
            user: Some("user-1".into()),
            state: None,
        },
        SessionFilter { repos: Some(Vec::new()), ..Default::default() },
        SessionFilter { user: Some("nobody' OR 1=1 --".into()), ..Default::default() },
    ];
    for filter in filters {
        let expected: Vec<_> = all
            .iter()
            .filter(|s| filter.repos.as_ref().is_none_or(|all| all.contains(&s.repo)))
            .filter(|s| filter.state.is_none_or(|x| x == s.state))
            .filter(|s| !filter.live_only || s.state != SessionState::Ended)
            .filter(|s| filter.user.as_ref().is_none_or(|u| *u == s.user.login))
            .cloned()
            .collect();
        for limit in [1, 7, 40, 1000] {
            let (mut got, mut after) = (Vec::new(), None);
            loop {
                let page = store.sessions(filter.clone(), Page { after, limit }).await.unwrap();
                assert!(page.items.len() <= limit as usize);
                got.extend(page.items);
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(got, expected, "{filter:?} by {limit}");
        }
    }
}

#[tokio::test]
async fn a_wrong_cursor_or_limit_is_one_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let build = BuildId::from_u128(1);
    for cursor in ["", "x", "ses_", "ses_0", &build.to_string(), "ses_0000000000000000000000000000000'"] {
        let page = Page { after: Some(cursor.to_owned()), limit: 5 };
        let error = store.sessions(SessionFilter::default(), page).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{cursor}");
        assert!(error.to_string().contains(cursor), "{error}");
    }
    let error = store.builds(None, Page { after: None, limit: 0 }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn the_other_lists_filter_too() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut tx = Tx::new();
    for n in 0..12 {
        tx = tx
            .build(&samples::build(n, BuildState::Failed))
            .snapshot(&samples::snapshot(n, SnapshotState::Ready))
            .pull_request(&samples::pull_request(n, PullRequestState::Merged));
    }
    store.commit(tx).await.unwrap();
    let builds = store.builds(Some(&samples::repo(1)), Page::default()).await.unwrap();
    assert_eq!(builds.items.iter().map(|b| b.id).collect::<Vec<_>>(), [10, 7, 4, 1].map(BuildId::from_u128));
    let filter = SnapshotFilter { session: Some(SessionId::from_u128(1)), repos: None };
    let snapshots = store.snapshots(filter, Page::default()).await.unwrap();
    assert_eq!(
        snapshots.items.iter().map(|s| s.id).collect::<Vec<_>>(),
        [9, 5, 1].map(SnapshotId::from_u128)
    );
    let filter =
        SnapshotFilter { session: Some(SessionId::from_u128(1)), repos: Some(vec![samples::repo(0)]) };
    assert_eq!(store.snapshots(filter, Page::default()).await.unwrap().items.len(), 1);
    let requests = store
        .pull_requests(Some(&samples::repo(2)), Some(SessionId::from_u128(0)), Page::default())
        .await
        .unwrap();
    assert_eq!(requests.items.iter().map(|p| p.id).collect::<Vec<_>>(), [PullRequestId::from_u128(8)]);
    let all = store.pull_requests(None, None, Page { after: None, limit: 5 }).await.unwrap();
    assert_eq!(all.items.len(), 5);
    assert!(all.next.is_some());
}

#[tokio::test]
async fn stats_count() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut tx = Tx::new();
    for n in 0..10 {
        let state = if n < 6 { SessionState::Ended } else { SessionState::Active };
        tx = tx.session(&samples::session(n, state));
    }
    tx = tx
        .pull_request(&samples::pull_request(1, PullRequestState::Merged))
        .pull_request(&samples::pull_request(2, PullRequestState::Merged))
        .pull_request(&samples::pull_request(3, PullRequestState::Open));
    store.commit(tx).await.unwrap();
    let stats = store.stats().await.unwrap();
    let map =
        |pairs: &[(&str, u64)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect::<BTreeMap<_, _>>();
    assert_eq!(stats.sessions, 10);
    assert_eq!(stats.sessions_by_launch, map(&[("cold", 2), ("restore", 2), ("warm", 3), ("warmup", 3)]));
    assert_eq!(stats.sessions_by_state, map(&[("active", 4), ("ended", 6)]));
    assert_eq!(stats.people, 4); // sessions 6 to 9: users 1, 2, 3, 4
    assert_eq!(stats.pull_requests_by_state, map(&[("merged", 2), ("open", 1)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_are_given_once() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..25 {
                    mine.push(store.next_number("acme/api").await.unwrap());
                }
                assert!(mine.is_sorted());
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.unwrap());
    }
    all.sort_unstable();
    assert_eq!(all, (1..=100).collect::<Vec<u64>>());
    assert_eq!(store.next_number("acme/web").await.unwrap(), 1);
    store.close().await;
    let (store, _) = open(dir.path()).await;
    assert_eq!(store.next_number("acme/api").await.unwrap(), 101);
}

/// A handler that axum drops half way has committed all the same.
#[tokio::test]
async fn a_commit_polled_once_and_dropped_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    for n in 0..20 {
        let record = samples::session(n, SessionState::Active);
        let commit = store.commit(Tx::new().session(&record));
        // One poll and no more; whether it is ready by then does not matter.
        tokio::select! { biased; _ = commit => {} () = std::future::ready(()) => {} }
    }
    store.close().await;
    let (_, loaded) = open(dir.path()).await;
    assert_eq!(loaded.sessions.len(), 20);
}

/// What is submitted under a lock is committed in that order, awaited or not.
#[tokio::test]
async fn submitted_ones_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut record = samples::session(1, SessionState::Waiting);
    let mut last = None;
    for n in 0..200 {
        record.trouble = Some(format!("word {n}"));
        let tx = Tx::new().session(&record);
        // Each receipt but the last is dropped.
        last = Some(store.submit(if n % 7 == 0 { tx.durable() } else { tx }));
    }
    last.unwrap().await.unwrap();
    assert_eq!(store.session(record.id).await.unwrap(), Some(record));
    store.submit(Tx::new()).await.unwrap();
    let mut build = samples::build(1, BuildState::Running);
    build.phases[0].seconds = f64::INFINITY;
    assert_eq!(store.submit(Tx::new().build(&build)).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn all_snapshots_of_a_session() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let mut tx = Tx::new();
    for n in 0..900 {
        tx = tx.snapshot(&samples::snapshot(n, SnapshotState::Ready));
    }
    store.commit(tx).await.unwrap();
    // Every fourth is of session 1, more than a page.
    let all = store.snapshots_of(SessionId::from_u128(1)).await.unwrap();
    let expected: Vec<_> = (0..900).rev().filter(|n| n % 4 == 1).map(SnapshotId::from_u128).collect();
    assert_eq!(all.iter().map(|s| s.id).collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_closed_store_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let other = store.clone();
    store.close().await;
    let record = samples::session(1, SessionState::Active);
    assert_eq!(other.commit(Tx::new().session(&record)).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(other.session(record.id).await.unwrap_err().kind(), ErrorKind::Unavailable);
    other.close().await;
}

#[tokio::test]
async fn hours_are_written_anew_and_forgotten_by_their_age() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).await;
    let hours: Vec<_> = (0..6).map(|n| samples::demand_hour(n, 1)).collect();
    let tx = hours.iter().fold(Tx::new(), |tx, hour| tx.demand_hour(hour));
    store.commit(tx).await.unwrap();
    // More come in the last one, and what began before the third is too old; also where one of these is named again.
    let last = samples::demand_hour(5, 8);
    let tx = Tx::new().forget_demand(hours[3].begins_at()).demand_hour(&last).demand_hour(&hours[0]);
    store.commit(tx).await.unwrap();
    store.close().await;
    let (_, loaded) = open(dir.path()).await;
    let mut left = loaded.demand_hours;
    left.sort_by_key(|h| h.hour);
    assert_eq!(left, [hours[3].clone(), hours[4].clone(), last]);
}
