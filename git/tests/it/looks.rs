//! What is pushed is looked at before upstream sees it.

use std::sync::Arc;

use async_trait::async_trait;
use domain::ports::Mirrors;
use domain::{OnSecret, PushPolicy, RepoName, Result, SessionId};
use git::{Authority, Credentials, GatewayOptions, MirrorOptions, Operation, Remote};

use crate::world::*;

/// A World whose pushes have this policy.
async fn world(policy: PushPolicy) -> World {
    let w = World::new().await;
    allow(&w, policy);
    w
}

fn allow(w: &World, policy: PushPolicy) {
    w.mirrors.set_remotes(vec![Remote { pushes: policy, ..Remote::new(repo(), w.host.url(&repo())) }]);
}

/// In two pieces, so that this file itself can be pushed.
fn token() -> String {
    format!("key = {}_{}\n", "ghp", "a1".repeat(18))
}

/// Neither upstream nor the mirror has it.
fn nothing_moved(w: &World) {
    for bare in [w.mirror(), w.upstream.clone()] {
        assert_eq!(bare.tip(&branch(OWN)).unwrap(), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_is_refused_with_its_place_and_never_shown() {
    let w = world(PushPolicy::default()).await;
    let tree = w.work_tree().await;
    w.commit_here(&tree, "config.ini", format!("[a]\n{}", token())).await;
    // Taken back by a later commit, it is in the history all the same.
    w.commit_here(&tree, "config.ini", "[a]\n").await;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok, "{}", ran.text);
    assert!(
        ran.text.contains("remote: config.ini:2 in ") && ran.text.contains("looks like a GitHub token"),
        "{}",
        ran.text
    );
    assert!(
        ran.text.contains("pushes.expected_in") && ran.text.contains("[remote rejected]"),
        "{}",
        ran.text
    );
    assert!(!ran.text.contains("a1a1"), "{}", ran.text);
    nothing_moved(&w);

    // As an operator may have it: warned of, expected there, or of no interest.
    let expected = PushPolicy { expected_in: vec!["*.ini".into()], ..PushPolicy::default() };
    let warn = PushPolicy { secrets: OnSecret::Warn, ..PushPolicy::default() };
    let silent = PushPolicy { secrets: OnSecret::Allow, ..PushPolicy::default() };
    for (n, (policy, said)) in [(warn, true), (expected, false), (silent, false)].into_iter().enumerate() {
        w.done(&tree, &["reset", "-q", "--hard", "origin/main"]).await;
        w.commit_here(&tree, "config.ini", format!("# {n}\n{}", token())).await;
        allow(&w, policy);
        let text = w.done(&tree, &["push", "--force", "origin", OWN]).await;
        assert_eq!(text.contains("looks like a GitHub token"), said, "{text}");
    }
}

/// What upstream has already is nobody's fault: not in files that are changed, and not by a merge.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_let_through() {
    let w = world(PushPolicy::default()).await;
    commit(&w.upstream, "main", "old.ini", &token());
    w.mirrors.refresh(&repo()).await.unwrap();
    let tree = w.work_tree().await;
    w.commit_here(&tree, "old.ini", format!("# changed\n{}", token())).await;
    commit(&w.upstream, "main", "other.ini", &token());
    w.mirrors.refresh(&repo()).await.unwrap();
    w.done(&tree, &["fetch", "-q", "origin"]).await;
    w.done(&tree, &["merge", "-q", "--no-edit", "origin/main"]).await;
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    // What a merge adds by itself is looked at.
    w.done(&tree, &["checkout", "-q", "-b", "side", "HEAD~1"]).await;
    w.commit_here(&tree, "side", "side\n").await;
    w.done(&tree, &["checkout", "-q", OWN]).await;
    w.done(&tree, &["merge", "-q", "--no-commit", "--no-ff", "side"]).await;
    std::fs::write(tree.join("evil.ini"), token()).unwrap();
    w.done(&tree, &["add", "-A"]).await;
    w.done(&tree, &["commit", "-q", "-m", "merge"]).await;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("evil.ini:1"), "{}", ran.text);
    assert!(!ran.text.contains("old.ini") && !ran.text.contains("other.ini"), "{}", ran.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_named() {
    let w = world(PushPolicy { max_file: 1000, ..PushPolicy::default() }).await;
    let tree = w.work_tree().await;
    w.commit_here(&tree, "fits", "x".repeat(1000)).await;
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    w.done(&tree, &["push", "-q", "--force", "origin", &format!("HEAD~1:refs/heads/{OWN}")]).await;
    std::fs::create_dir(tree.join("a b")).unwrap();
    w.commit_here(&tree, "a b/\u{1b}[31mlarge", "x".repeat(1001)).await;
    let ran = w.git(&tree, &["push", "--force", "origin", OWN]).await;
    assert!(!ran.ok, "{}", ran.text);
    assert!(
        ran.text.contains("a b/?[31mlarge in ") && ran.text.contains("1001 bytes, more than the 1000"),
        "{}",
        ran.text
    );
}

#[derive(Debug)]
struct Grants(Option<bool>);

#[async_trait]
impl Credentials for Grants {
    async fn authority(&self, _: &RepoName, _: Operation, _: Option<SessionId>) -> Result<Option<Authority>> {
        Ok(Some(Authority::new("X-Nothing: 1").for_workflows(self.0)))
    }
}

/// F52 beside it: GitHub would refuse the push late; what is known is said before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows_need_their_permission() {
    for (granted, passes) in [(Some(false), false), (Some(true), true), (None, true)] {
        let options =
            MirrorOptions { credentials: Some(Arc::new(Grants(granted))), ..MirrorOptions::default() };
        let w = World::with(options, GatewayOptions::default()).await;
        let tree = w.work_tree().await;
        std::fs::create_dir_all(tree.join(".github/workflows")).unwrap();
        w.commit_here(&tree, ".github/workflows/ci.yml", "on: push\n").await;
        let ran = w.git(&tree, &["push", "origin", OWN]).await;
        assert_eq!(ran.ok, passes, "{granted:?}: {}", ran.text);
        if !passes {
            assert!(
                ran.text.contains(".github/workflows/ci.yml in ") && ran.text.contains("workflows: write"),
                "{}",
                ran.text
            );
            nothing_moved(&w);
        }
    }
}

/// Many small objects lie loose in quarantine, large pushes in a pack: both are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packs_are_looked_at_too() {
    let w = world(PushPolicy::default()).await;
    let tree = w.work_tree().await;
    for n in 0..150 {
        std::fs::write(tree.join(format!("f{n}")), format!("{n}\n")).unwrap();
    }
    w.commit_here(&tree, "key.ini", token()).await;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("key.ini:1"), "{}", ran.text);
    nothing_moved(&w);
}
