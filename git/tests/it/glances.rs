//! What a look at upstream spares, and when it is left to git.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use domain::ErrorKind;
use domain::ports::Mirrors;
use git::testing::Asked;
use git::{GatewayOptions, MirrorOptions, MirrorSet, Remote};
use http::{Method, StatusCode};

use crate::pushes::Tokens;
use crate::world::*;

impl World {
    /// Refreshes, and says what it took: fetches, and refreshes that needed none.
    async fn refreshes(&self) -> (u64, u64) {
        let before = (self.mirrors.fetches(), self.mirrors.fetches_spared());
        self.mirrors.refresh(&repo()).await.unwrap();
        (self.mirrors.fetches() - before.0, self.mirrors.fetches_spared() - before.1)
    }

    /// What upstream was asked meanwhile.
    async fn asked_by(&self, what: impl Future<Output = (u64, u64)>) -> ((u64, u64), Vec<Asked>) {
        let before = self.host.faults().asked().len();
        let took = what.await;
        (took, self.host.faults().asked().split_off(before))
    }
}

const FETCHED: (u64, u64) = (1, 0);
const SPARED: (u64, u64) = (0, 1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_moved_nothing_is_fetched() {
    let w = World::new().await;
    assert_eq!(w.refreshes().await, SPARED);
    // It is known by now what upstream understands: one question is all.
    let (took, asked) = w.asked_by(w.refreshes()).await;
    assert_eq!(took, SPARED);
    let asked: Vec<_> = asked.iter().map(|a| (&a.method, a.path.as_str())).collect();
    assert_eq!(asked, [(&Method::POST, "/acme/api.git/git-upload-pack")]);

    let next = commit(&w.upstream, "main", "README", "x");
    assert_eq!(w.refreshes().await, FETCHED);
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
    assert_eq!(w.refreshes().await, SPARED);
}

/// F29: whatever may move upstream is seen, and once it is fetched it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_move_of_a_branch_or_a_tag_is_fetched() {
    let w = World::new().await;
    let upstream = w.upstream.path().to_owned();
    let moves: [&[&str]; 10] = [
        &["branch", "other", "main"],
        &["branch", "-f", "other", "main~1"],
        &["branch", "-m", "other", "another"],
        &["branch", "-D", "another"],
        &["branch", "another/one", "main"],
        &["tag", "v1", "main"],
        &["tag", "-f", "v1", "main~1"],
        &["-c", "user.name=a", "-c", "user.email=a@b", "tag", "-a", "-m", "two", "v2", "main"],
        &["tag", "-d", "v1"],
        &["pack-refs", "--all"],
    ];
    for (n, moved) in moves.iter().enumerate() {
        w.done(&upstream, moved).await;
        let expected = if n + 1 == moves.len() { SPARED } else { FETCHED };
        assert_eq!(w.refreshes().await, expected, "{moved:?}");
        assert_eq!(w.refreshes().await, SPARED, "after {moved:?}");
        let shown = |refs: &str| refs.lines().map(str::to_owned).collect::<Vec<_>>();
        let show = ["show-ref", "--heads", "--tags"];
        let here = w.done(&w.mirrors.path(&repo()), &show).await;
        assert_eq!(shown(&here), shown(&w.done(&upstream, &show).await), "{moved:?}");
    }
    // What is neither is nobody's business here.
    w.done(&upstream, &["update-ref", "refs/pull/1/head", "main~1"]).await;
    assert_eq!(w.refreshes().await, SPARED);
}

/// What a session pushed is upstream's as well, but nobody has fetched it: the next refresh does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_is_fetched_once() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    let pushed = w.head(&tree).await;
    assert_eq!(w.refreshes().await, FETCHED);
    assert_eq!(w.refreshes().await, SPARED);
    assert_eq!(w.mirrors.tip(&repo(), &branch(OWN)).await.unwrap(), Some(pushed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_on_this_machine_is_looked_at_too() {
    let w = World::new().await;
    let path = w.upstream.path().display().to_string();
    for url in [path.clone(), format!("file://{path}")] {
        w.mirrors.set_remotes(vec![Remote::new(repo(), url)]);
        let (took, asked) = w.asked_by(w.refreshes()).await;
        assert_eq!((took, asked.len()), (SPARED, 0));
        commit(&w.upstream, "main", "README", &path);
        assert_eq!(w.refreshes().await, FETCHED);
        w.upstream.set_branch(&branch("main"), &w.upstream.tip(&branch("main")).unwrap().unwrap()).unwrap();
    }
}

/// It has the authority of a fetch, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_is_asked_with_authority() {
    let options = MirrorOptions { credentials: Some(Arc::new(Tokens)), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    w.host.faults().require_token(Some("tok-en"));
    let (took, asked) = w.asked_by(w.refreshes()).await;
    assert_eq!((took, asked.len()), (SPARED, 2));
    let header = git::testing::basic("tok-en");
    assert!(asked.iter().all(|a| a.authorization.as_deref() == Some(&header)), "{asked:?}");

    // Without it, git says what is wrong.
    w.host.faults().require_token(Some("another"));
    let e = w.mirrors.refresh(&repo()).await.unwrap_err();
    assert!(e.kind() == ErrorKind::Permanent && e.chain().contains("authentication refused"), "{e:?}");
}

/// An upstream that is away for a moment, or breaks off, is a failure as ever, and looked at again when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_moment_of_upstream_is_no_answer() {
    let w = World::new().await;
    assert_eq!(w.refreshes().await, SPARED);
    w.host.faults().fail_with(Some(StatusCode::BAD_GATEWAY));
    assert_eq!(w.mirrors.refresh(&repo()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    w.host.faults().fail_with(None);
    assert_eq!(w.refreshes().await, SPARED);

    // A list that is broken off is not taken for a short one.
    for bytes in [0, 4, 40, 65] {
        w.host.faults().cut_after(Some(bytes));
        assert!(w.mirrors.refresh(&repo()).await.is_err(), "{bytes}");
        w.host.faults().cut_after(None);
        w.mirrors.refresh(&repo()).await.unwrap();
        let main = w.mirrors.tip(&repo(), &branch("main")).await.unwrap();
        assert_eq!(main, w.upstream.tip(&branch("main")).unwrap());
    }
}

/// One that does not speak version 2 is found out once, and left to git from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_of_another_version_is_left_to_git() {
    let w = World::new().await;
    w.host.faults().speak_version_0(true);
    let (took, asked) = w.asked_by(w.refreshes()).await;
    assert_eq!((took, asked.len()), (FETCHED, 2), "one look, and git's own: {asked:?}");
    let next = commit(&w.upstream, "main", "README", "x");
    let (took, asked) = w.asked_by(w.refreshes()).await;
    assert_eq!((took, asked.len()), (FETCHED, 2), "git's listing, and its fetch: {asked:?}");
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
}

/// Where the operator has told git of proxies, certificates or other addresses, git alone asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_way_to_upstream_is_gits() {
    let w = World::new().await;
    let (git_asks, both) = ((2, 0), (1, 1));
    let settings = [
        ("[http]\n\tsslVerify = true\n", git_asks),
        ("[url \"https://a/\"]\n\tinsteadOf = https://b/\n", git_asks),
        ("[remote \"upstream\"]\n\ttagOpt = --no-tags\n", git_asks),
        ("[includeIf \"gitdir:/srv/\"]\n\tpath = other\n", git_asks),
        ("[user]\n\tname = Ada\n", both),
    ];
    for (n, (setting, expected)) in settings.into_iter().enumerate() {
        let program = git_with(&w, setting);
        let options = MirrorOptions { program, ..MirrorOptions::default() };
        let remotes = vec![Remote::new(repo(), w.host.url(&repo()))];
        let mirrors = MirrorSet::open(w.path(&format!("mirrors-{n}")), remotes, options).await.unwrap();
        for _ in 0..2 {
            mirrors.refresh(&repo()).await.unwrap();
        }
        assert_eq!((mirrors.fetches(), mirrors.fetches_spared()), expected, "{setting}");
    }
}

/// A git whose user has this configuration.
fn git_with(w: &World, setting: &str) -> PathBuf {
    let (config, program) = (w.path("gitconfig"), w.path("git-with"));
    std::fs::write(&config, setting).unwrap();
    let script = format!("#!/bin/sh\nGIT_CONFIG_GLOBAL='{}' exec git \"$@\"\n", config.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    program
}
