//! Refresh, tips, distances; and what happens to branches upstream (F29).

use std::time::{Duration, Instant};

use domain::ports::Mirrors;
use domain::{CommitId, ErrorKind};
use git::{GatewayOptions, MirrorOptions, MirrorSet, Moved, Remote};

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refresh_tells_whether_anything_moved() {
    let w = World::new().await;
    assert!(!w.mirrors.refresh(&repo()).await.unwrap());
    let next = commit(&w.upstream, "main", "README", "x");
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
    assert_eq!(w.mirrors.tip(&repo(), &branch("none")).await.unwrap(), None);
    assert!(w.mirrors.is_fresh(&repo(), Duration::from_secs(60)));
}

/// Who remembers a tip knows when to read it again: after a refresh and after a push, and not otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_have_moved_a_branch_is_another_generation() {
    let w = World::new().await;
    let generation = || w.mirrors.generation(&repo()).unwrap();
    let before = generation();
    w.mirrors.tip(&repo(), &branch("main")).await.unwrap();
    assert_eq!(generation(), before);
    commit(&w.upstream, "main", "README", "x");
    w.mirrors.refresh(&repo()).await.unwrap();
    let fetched = generation();
    assert_ne!(fetched, before);
    let tree = w.work_tree().await;
    let cloned = generation();
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    assert_ne!(generation(), cloned);
    assert_eq!(w.mirrors.tip(&repo(), &branch(OWN)).await.unwrap(), Some(w.head(&tree).await));
    assert_eq!(w.mirrors.generation(&"acme/none".parse().unwrap()), None);
}

/// F29: tags come with the branches, also where upstream moves or removes them or makes one into a directory, and
/// stop no fetch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_are_mirrored_moved_and_removed() {
    let w = World::new().await;
    let (upstream, mirror) = (w.upstream.path().to_owned(), w.mirrors.path(&repo()));
    let here = async || w.done(&mirror, &["show-ref", "--tags"]).await;
    w.done(&upstream, &["tag", "v1", "main"]).await;
    w.done(&upstream, &["tag", "-a", "-m", "two", "v2", "main~1"]).await;
    w.mirrors.refresh(&repo()).await.unwrap();
    assert_eq!(here().await, w.done(&upstream, &["show-ref", "--tags"]).await);
    let tree = w.path("clone");
    w.done(&w.path("."), &["clone", "-q", &w.url, "clone"]).await;
    assert_eq!(w.done(&tree, &["tag", "-l"]).await, "v1\nv2\n");

    let next = commit(&w.upstream, "main", "README", "x");
    w.done(&upstream, &["tag", "-f", "v1", "main"]).await;
    w.done(&upstream, &["tag", "-d", "v2"]).await;
    w.done(&upstream, &["tag", "v2/rc", "main"]).await;
    w.mirrors.refresh(&repo()).await.unwrap();
    assert_eq!(here().await, w.done(&upstream, &["show-ref", "--tags"]).await);
    assert!(here().await.contains(&format!("{next} refs/tags/v1")));
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
}

/// While one fetch is held at upstream, ten more callers share one further fetch, and see what came meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_refreshes_share_fetches_and_are_never_older_than_the_call() {
    let w = World::new().await;
    let faults = w.host.faults();
    let before = faults.fetches();
    faults.hang(true);
    let refresh = || {
        let mirrors = w.mirrors.clone();
        tokio::spawn(async move { mirrors.refresh(&repo()).await })
    };
    let first = refresh();
    wait_for("the first fetch", async || faults.fetches() == before + 1).await;
    let later: Vec<_> = (0..10).map(|_| refresh()).collect();
    tokio::task::yield_now().await;
    let next = commit(&w.upstream, "main", "README", "meanwhile");
    faults.hang(false);
    first.await.unwrap().unwrap();
    for l in later {
        l.await.unwrap().unwrap();
    }
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
    let fetches = faults.fetches() - before;
    assert!((2..=3).contains(&fetches), "{fetches} fetches for 11 calls");
}

/// Many commits, one refresh after each, never an old answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_is_never_older_than_its_call() {
    let w = World::new().await;
    let noise: Vec<_> = (0..2)
        .map(|_| {
            let mirrors = w.mirrors.clone();
            tokio::spawn(async move {
                loop {
                    mirrors.refresh(&repo()).await.unwrap();
                }
            })
        })
        .collect();
    for i in 0..15 {
        let next = commit(&w.upstream, "main", "README", &i.to_string());
        w.mirrors.refresh(&repo()).await.unwrap();
        assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
    }
    noise.into_iter().for_each(|n| n.abort());
}

/// F29: force-pushed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewritten_branch_is_named_so() {
    let w = World::new().await;
    let main = branch("main");
    let old = w.mirrors.tip(&repo(), &main).await.unwrap().unwrap();
    let next = commit(&w.upstream, "main", "README", "1");
    let next2 = commit(&w.upstream, "main", "README", "2");
    w.mirrors.refresh(&repo()).await.unwrap();
    assert_eq!(w.mirrors.changes(&repo(), &old, &next2).await.unwrap(), Moved::Advanced(2));
    assert_eq!(w.mirrors.changes(&repo(), &next2, &next2).await.unwrap(), Moved::Unchanged);
    assert_eq!(w.mirrors.changes(&repo(), &next2, &next).await.unwrap(), Moved::Rewritten);

    w.upstream.set_branch(&main, &old).unwrap();
    let other = commit(&w.upstream, "main", "README", "other");
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(w.mirrors.tip(&repo(), &main).await.unwrap(), Some(other.clone()));
    assert_eq!(w.mirrors.changes(&repo(), &next2, &other).await.unwrap(), Moved::Rewritten);
    let unknown = "a".repeat(40).parse().unwrap();
    assert_eq!(w.mirrors.changes(&repo(), &unknown, &other).await.unwrap(), Moved::Rewritten);
    assert_eq!(w.mirrors.changes(&repo(), &other, &unknown).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// F29: deleted, renamed; the default branch too; a branch that becomes a directory of branches and back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_and_renamed_branches_are_followed() {
    let w = World::new().await;
    let tip = commit(&w.upstream, "feature", "f", "1");
    w.mirrors.refresh(&repo()).await.unwrap();
    w.upstream.delete_branch(&branch("feature")).unwrap();
    w.upstream.set_branch(&branch("feature/new"), &tip).unwrap();
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(w.mirrors.tip(&repo(), &branch("feature")).await.unwrap(), None);
    assert_eq!(w.mirrors.branches_at(&repo(), &tip).await.unwrap(), [branch("feature/new")]);

    w.upstream.delete_branch(&branch("feature/new")).unwrap();
    w.upstream.set_branch(&branch("feature"), &tip).unwrap();
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(w.mirrors.branches_at(&repo(), &tip).await.unwrap(), [branch("feature")]);

    w.upstream.delete_branch(&branch("feature")).unwrap();
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert!(w.mirrors.branches_at(&repo(), &tip).await.unwrap().is_empty());

    let main = w.upstream.tip(&branch("main")).unwrap().unwrap();
    w.upstream.set_branch(&branch("trunk"), &main).unwrap();
    w.upstream.set_default_branch(&branch("trunk")).unwrap();
    w.upstream.delete_branch(&branch("main")).unwrap();
    w.mirrors.refresh(&repo()).await.unwrap();
    assert_eq!(w.mirrors.branches_at(&repo(), &main).await.unwrap(), [branch("trunk")]);
    w.done(w.dir.path(), &["clone", "-q", &w.url, "tree"]).await;
    assert_eq!(w.done(&w.path("tree"), &["rev-parse", "--abbrev-ref", "HEAD"]).await.trim(), "trunk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distances_count_commits() {
    let w = World::new().await;
    let old = w.upstream.tip(&branch("main")).unwrap().unwrap();
    w.upstream.set_branch(&branch("side"), &old).unwrap();
    let side = commit(&w.upstream, "side", "s", "1");
    commit(&w.upstream, "main", "m", "1");
    let new = commit(&w.upstream, "main", "m", "2");
    let alone = commit(&w.upstream, "orphan", "o", "1");
    w.mirrors.refresh(&repo()).await.unwrap();
    let distance = async |a: &CommitId, b: &CommitId| w.mirrors.distance(&repo(), a, b).await.unwrap();
    assert_eq!(distance(&old, &new).await, Some(2));
    assert_eq!(distance(&new, &old).await, Some(0));
    assert_eq!(distance(&new, &new).await, Some(0));
    assert_eq!(distance(&side, &new).await, Some(2));
    assert_eq!(distance(&alone, &new).await, None);
    assert_eq!(distance(&"b".repeat(40).parse().unwrap(), &new).await, None);
    assert_eq!(distance(&"b".repeat(64).parse().unwrap(), &new).await, None);

    let log = async |a: &CommitId, b: &CommitId, limit| {
        let lines = w.mirrors.log(&repo(), a, b, limit).await.unwrap();
        lines.into_iter().map(|line| line.id).collect::<Vec<_>>()
    };
    let newest = log(&old, &new, 10).await;
    assert_eq!((newest.len(), newest.first()), (2, Some(&new)));
    assert_eq!(log(&old, &new, 1).await, vec![new.clone()]);
    assert_eq!(log(&new, &side, 10).await, vec![side.clone()]);
    assert_eq!(log(&new, &old, 10).await, []);
    assert_eq!(log(&alone, &new, 10).await, []);
    let line = w.mirrors.log(&repo(), &old, &side, 1).await.unwrap().remove(0);
    assert_eq!(line.subject, "change s");
    assert!(!line.author.is_empty() && line.committed_at.as_second() > 0, "{line:?}");
}

/// Upstream accepts and never answers: one clear error within the deadline, and no process left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_hangs_is_a_timeout() {
    let options = MirrorOptions { fetch_deadline: Duration::from_millis(700), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    w.host.faults().hang(true);
    let began = Instant::now();
    let error = w.mirrors.refresh(&repo()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(error.to_string().contains("fetch acme/api from upstream: not done within 0.7 s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    wait_for("git to be gone", async || processes_in(&w.path("mirrors")).is_empty()).await;
    w.host.faults().hang(false);
    w.mirrors.refresh(&repo()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_have_their_kinds() {
    let w = World::new().await;
    let faults = w.host.faults();
    let kind = async || w.mirrors.refresh(&repo()).await.unwrap_err();

    faults.fail_with(Some(http::StatusCode::INTERNAL_SERVER_ERROR));
    let e = kind().await;
    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e:?}");
    assert!(e.chain().contains("upstream can't be reached") && e.chain().contains("500"), "{e:?}");
    faults.fail_with(None);

    faults.require_token(Some("secret"));
    let e = kind().await;
    assert_eq!(e.kind(), ErrorKind::Permanent, "{e:?}");
    assert!(e.chain().contains("authentication refused"), "{e:?}");
    let url = w.host.url(&repo()).replace("http://", "http://x-access-token:wrong-secret@");
    w.mirrors.set_remotes(vec![Remote::new(repo(), url)]);
    let e = kind().await;
    assert_eq!(e.kind(), ErrorKind::Permanent, "{e:?}");
    assert!(!e.chain().contains("wrong-secret"), "{e:?}");
    faults.require_token(None);

    let url = w.host.url(&"acme/none".parse().unwrap());
    w.mirrors.set_remotes(vec![Remote::new(repo(), url)]);
    let e = kind().await;
    assert_eq!(e.kind(), ErrorKind::NotFound, "{e:?}");

    w.mirrors.set_remotes(vec![Remote::new(repo(), "http://127.0.0.1:1/x.git")]);
    assert_eq!(kind().await.kind(), ErrorKind::Unavailable);
    w.mirrors.set_remotes(vec![Remote::new(repo(), "/no/such/place")]);
    assert_eq!(kind().await.kind(), ErrorKind::NotFound);
    w.mirrors.set_remotes(vec![]);
    assert_eq!(kind().await.kind(), ErrorKind::NotFound);

    w.mirrors.set_remotes(vec![Remote::new(repo(), w.host.url(&repo()))]);
    w.mirrors.refresh(&repo()).await.unwrap();
}

/// A first clone that breaks off leaves nothing, and the next one makes the mirror.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_breaks_off_is_made_again() {
    let w = World::new().await;
    let dir = w.path("other");
    let remotes = vec![Remote::new(repo(), w.host.url(&repo()))];
    let mirrors = MirrorSet::open(&dir, remotes, MirrorOptions::default()).await.unwrap();
    let e = mirrors.tip(&repo(), &branch("main")).await.unwrap_err();
    assert_eq!(e.kind(), ErrorKind::Unavailable, "not made is not the same as no such branch");
    w.host.faults().cut_after(Some(200));
    assert_eq!(mirrors.refresh(&repo()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(std::fs::read_dir(dir.join("acme")).unwrap().count(), 0);
    w.host.faults().cut_after(None);
    assert!(mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(
        mirrors.tip(&repo(), &branch("main")).await.unwrap(),
        w.upstream.tip(&branch("main")).unwrap()
    );
    drop(mirrors);
    let again =
        MirrorSet::open(&dir, vec![Remote::new(repo(), w.host.url(&repo()))], MirrorOptions::default())
            .await
            .unwrap();
    assert!(again.tip(&repo(), &branch("main")).await.unwrap().is_some(), "a mirror survives a restart");
    assert!(!again.is_fresh(&repo(), Duration::from_secs(3600)));
}

/// An empty repository upstream is no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_upstream_is_mirrored() {
    let w = World::new().await;
    let name = "acme/empty".parse().unwrap();
    let empty = w.host.create_repo(&name).unwrap();
    w.mirrors.set_remotes(vec![Remote::new(name.clone(), w.host.url(&name))]);
    w.mirrors.refresh(&name).await.unwrap();
    assert_eq!(w.mirrors.tip(&name, &branch("main")).await.unwrap(), None);
    let first = commit(&empty, "main", "a", "1");
    assert!(w.mirrors.refresh(&name).await.unwrap());
    assert_eq!(w.mirrors.tip(&name, &branch("main")).await.unwrap(), Some(first));
}
