//! Pull requests without GitHub, by the real references.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::ports::{Forge, NewPullRequest, OpenedPullRequest, PullRequestOutcome};
use domain::testing::ManualClock;
use domain::{Branch, ErrorKind, RepoName, Result};
use git::{Ledger, LocalForge};

use crate::world::*;

#[derive(Debug, Default)]
struct Book(Mutex<(u64, Vec<Line>)>);

type Line = (RepoName, Branch, Branch, OpenedPullRequest);

#[async_trait]
impl Ledger for Book {
    async fn find_open(
        &self,
        repo: &RepoName,
        head: &Branch,
        base: &Branch,
    ) -> Result<Option<OpenedPullRequest>> {
        let book = self.0.lock().unwrap();
        Ok(book.1.iter().find(|(r, h, b, _)| (r, h, b) == (repo, head, base)).map(|(.., o)| o.clone()))
    }

    async fn next_number(&self, _: &RepoName) -> Result<u64> {
        let mut book = self.0.lock().unwrap();
        book.0 += 1;
        Ok(book.0)
    }

    async fn record(&self, new: &NewPullRequest, opened: OpenedPullRequest) -> Result<OpenedPullRequest> {
        let mut book = self.0.lock().unwrap();
        let same = |(r, h, b, _): &&Line| (r, h, b) == (&new.repo, &new.head, &new.base);
        if let Some((.., there)) = book.1.iter().find(same) {
            return Ok(OpenedPullRequest { created: false, ..there.clone() });
        }
        book.1.push((new.repo.clone(), new.head.clone(), new.base.clone(), opened.clone()));
        Ok(opened)
    }
}

fn ask(head: &str, base: &str) -> NewPullRequest {
    NewPullRequest {
        repo: repo(),
        head: branch(head),
        base: branch(base),
        title: "t".into(),
        body: String::new(),
        draft: false,
        author: "ada".into(),
        unanswered_since: None,
    }
}

/// F52
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pull_request_is_opened_once_and_only_where_it_means_something() {
    let w = World::new().await;
    let clock = Arc::new(ManualClock::at("2026-01-02T03:04:05Z".parse().unwrap()));
    let forge = LocalForge::new(
        Arc::new(w.mirrors.clone()),
        Arc::new(Book::default()),
        clock,
        "http://127.0.0.1:7070/",
    );
    let refused = async |head, base| {
        let e = forge.open_pull_request(None, &ask(head, base)).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Invalid, "{e:?}");
        e.to_string()
    };
    assert_eq!(refused("none", "main").await, "branch none of acme/api does not exist upstream");
    assert_eq!(refused("main", "none").await, "branch none of acme/api does not exist upstream");
    assert!(refused("main", "main").await.contains("same branch"));
    let base = w.upstream.tip(&branch("main")).unwrap().unwrap();
    w.upstream.set_branch(&branch(OWN), &base).unwrap();
    assert_eq!(refused(OWN, "main").await, "no commits between main and hotbed/s1");
    commit(&w.upstream, "orphan", "o", "1");
    assert!(refused("orphan", "main").await.contains("no history in common"));

    let tip = commit(&w.upstream, OWN, "work", "1");
    let new = ask(OWN, "main");
    let open = async || match forge.open_pull_request(None, &new).await.unwrap() {
        PullRequestOutcome::Opened(opened) => opened,
        PullRequestOutcome::ByHand { link } => panic!("by hand: {link}"),
    };
    let (a, b) = tokio::join!(open(), open());
    assert!(a.created != b.created, "exactly one is new: {a:?} {b:?}");
    assert_eq!((a.number, &a.url), (b.number, &b.url));
    assert_eq!(a.url, format!("http://127.0.0.1:7070/v1/pull-requests/acme/api/{}", a.number));
    assert_eq!((&a.head_commit, a.opened_at), (&tip, "2026-01-02T03:04:05Z".parse().unwrap()));
    let again = open().await;
    assert!(!again.created && again.number == a.number);
}
