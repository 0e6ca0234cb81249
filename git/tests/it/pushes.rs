//! Push through the relay: to the own branch and on to upstream, or not at all.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::ports::Mirrors;
use domain::{CommitId, Error, RepoName, Result, SessionId};
use git::{Access, Authority, Credentials, GatewayOptions, MirrorOptions, Operation};

use crate::world::*;

fn same(w: &World, name: &str) -> Option<CommitId> {
    let (here, there) = (w.mirror().tip(&branch(name)).unwrap(), w.upstream.tip(&branch(name)).unwrap());
    assert_eq!(here, there, "the mirror is what upstream is");
    here
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_own_branch_is_pushed_moved_on_and_forced() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    let first = w.head(&tree).await;
    w.done(&tree, &["push", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(first.clone()));

    let second = w.commit_here(&tree, "work", "more\n").await;
    w.done(&tree, &["push", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(second.clone()));

    w.done(&tree, &["commit", "-q", "--amend", "-m", "again"]).await;
    let third = w.head(&tree).await;
    assert!(!w.git(&tree, &["push", "origin", OWN]).await.ok, "git itself wants force here");
    w.done(&tree, &["push", "--force", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(third.clone()));

    let pushed = w.pushed.lock().unwrap().clone();
    let moves: Vec<_> = pushed.iter().map(|e| (e.old.clone(), e.new.clone())).collect();
    assert_eq!(moves, [(None, first.clone()), (Some(first), second.clone()), (Some(second), third)]);
    assert!(pushed.iter().all(|e| e.session == session() && e.repo == repo() && e.branch == branch(OWN)));
    assert_eq!(w.gateway.traffic().pushes, 3);
}

/// More than `http.postBuffer`: a probe, then a chunked body.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_push_comes_in_chunks() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    let noise = noise(3_000_000);
    let head = w.commit_here(&tree, "noise", &noise).await;
    w.done(&tree, &["push", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(head));
    assert!(w.gateway.traffic().received > 1_048_576, "{:?}", w.gateway.traffic());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_else_is_refused_with_its_reason() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    w.done(&tree, &["tag", "v1"]).await;
    w.commit_here(&tree, "work", "more\n").await;
    let before = (w.mirror().references().unwrap(), w.upstream.references().unwrap());
    let own_only = "(this session pushes only to its own branch hotbed/s1)";
    let other = "(another reference of this push is refused)";
    let own = format!("HEAD:refs/heads/{OWN}");
    let cases: [(&[&str], &[&str]); 8] = [
        (&["push", "origin", "HEAD:main"], &["! [remote rejected] HEAD -> main", own_only]),
        (&["push", "--force", "origin", "HEAD:main"], &["! [remote rejected] HEAD -> main", own_only]),
        (&["push", "origin", "v1"], &["! [remote rejected] v1 -> v1 (a session pushes no tags)"]),
        (&["push", "origin", ":hotbed/s1"], &["! [remote rejected] hotbed/s1 (a session deletes no branch)"]),
        (&["push", "origin", ":main"], &["! [remote rejected] main", own_only]),
        (&["push", "origin", "HEAD:refs/hotbed/upstream/main"], &[own_only]),
        (&["push", "origin", &own, "HEAD:main"], &[own_only, other]),
        (&["push", "--atomic", "origin", &own, "v1"], &["(a session pushes no tags)", other]),
    ];
    for (args, expected) in cases {
        let ran = w.git(&tree, args).await;
        assert!(!ran.ok, "{args:?}: {}", ran.text);
        for e in expected {
            assert!(ran.text.contains(e), "{args:?} is to say {e}: {}", ran.text);
        }
    }
    assert_eq!(
        before,
        (w.mirror().references().unwrap(), w.upstream.references().unwrap()),
        "nothing has moved"
    );
    assert_eq!(w.pushed.lock().unwrap().len(), 1);
    assert_eq!(w.gateway.traffic().refused, 8);
}

/// A large push that is refused is heard out, so that git reads the reason.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_refused_push_reads_its_reason() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    let noise = noise(8_000_000);
    w.commit_here(&tree, "noise", &noise).await;
    let ran = w.git(&tree, &["push", "origin", "HEAD:main"]).await;
    assert!(!ran.ok && ran.text.contains("[remote rejected] HEAD -> main"), "{}", ran.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_is_too_large_is_refused() {
    let options = MirrorOptions { max_push: 1_000_000, ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    let tree = w.work_tree().await;
    let noise = noise(6_000_000);
    w.commit_here(&tree, "noise", &noise).await;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("exceeds maximum allowed size"), "{}", ran.text);
    assert_eq!(same(&w, OWN), None);
    assert!(w.pushed.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_upstream_refuses_the_mirror_does_not_take() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    let hook = w.upstream.path().join("hooks/update");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'GH013: sign your commits' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("! [remote rejected] hotbed/s1 -> hotbed/s1"), "{}", ran.text);
    assert!(ran.text.contains("GH013: sign your commits"), "upstream's words: {}", ran.text);
    assert_eq!(same(&w, OWN), None);
    assert!(w.pushed.lock().unwrap().is_empty());

    std::fs::remove_file(hook).unwrap();
    w.done(&tree, &["push", "origin", OWN]).await;
    assert!(same(&w, OWN).is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_upstream_nothing_is_taken() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.host.faults().fail_with(Some(http::StatusCode::BAD_GATEWAY));
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("502"), "{}", ran.text);
    w.host.faults().fail_with(None);
    assert_eq!(same(&w, OWN), None);
}

/// Somebody else moved the branch upstream: nothing of theirs is overwritten, and the mirror learns of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_branch_that_moved_upstream_is_not_overwritten() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    let theirs = commit(&w.upstream, OWN, "theirs", "x");
    w.commit_here(&tree, "work", "more\n").await;
    let ran = w.git(&tree, &["push", "--force", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("stale info"), "{}", ran.text);
    assert_eq!(w.upstream.tip(&branch(OWN)).unwrap(), Some(theirs.clone()));
    wait_for("the mirror to learn of it", async || {
        w.mirrors.tip(&repo(), &branch(OWN)).await.unwrap().as_ref() == Some(&theirs)
    })
    .await;
    // Who forces now knows what he overwrites.
    w.done(&tree, &["push", "--force", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(w.head(&tree).await));
}

/// Upstream took a push whose answer was lost: the next push of the same commit brings the mirror level.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_that_upstream_has_already_is_taken() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    let upstream = w.upstream.path().to_str().unwrap();
    w.done(&tree, &["push", "-q", upstream, OWN]).await;
    assert_eq!(w.mirror().tip(&branch(OWN)).unwrap(), None);
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(w.head(&tree).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_session_nothing_is_pushed() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.caller.lock().unwrap().access = Access::ReadOnly;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("this sandbox has no session: nothing to push as"), "{}", ran.text);
    w.done(&tree, &["fetch", "-q"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shallow_clone_pushes() {
    let w = World::new().await;
    w.done(w.dir.path(), &["clone", "-q", "--depth=1", &w.url, "tree"]).await;
    let tree = w.path("tree");
    let head = w.commit_here(&tree, "work", "x").await;
    w.done(&tree, &["push", "-q", "origin", &format!("HEAD:{OWN}")]).await;
    assert_eq!(same(&w, OWN), Some(head));
}

/// A repository that is a path on this machine works as well as one behind HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_may_be_a_path() {
    let w = World::new().await;
    for (n, url) in
        [w.upstream.path().display().to_string(), format!("file://{}", w.upstream.path().display())]
            .into_iter()
            .enumerate()
    {
        w.mirrors.set_remotes(vec![git::Remote::new(repo(), url)]);
        let next = commit(&w.upstream, "main", "README", &format!("{n}"));
        assert!(w.mirrors.refresh(&repo()).await.unwrap());
        assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(next));
        let tree = w.path(&format!("tree{n}"));
        w.done(w.dir.path(), &["clone", "-q", &w.url, tree.to_str().unwrap()]).await;
        let head = w.commit_here(&tree, "work", n.to_string()).await;
        w.done(&tree, &["push", "-q", "--force", "origin", &format!("HEAD:{OWN}")]).await;
        assert_eq!(same(&w, OWN), Some(head));
    }
}

/// Upstream hangs in the middle of a push: it ends within its deadline, nothing is left running, and what upstream
/// may or may not have taken is looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_to_an_upstream_that_hangs_ends() {
    let options = GatewayOptions { deadline: Duration::from_millis(1500), ..GatewayOptions::default() };
    let w = World::with(MirrorOptions::default(), options).await;
    let tree = w.work_tree().await;
    w.host.faults().hang(true);
    let began = std::time::Instant::now();
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok, "{}", ran.text);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    w.host.faults().hang(false);
    wait_for("git to be gone", async || processes_in(&w.path("mirrors")).is_empty()).await;
    assert_eq!(same(&w, OWN), None);
    assert!(w.pushed.lock().unwrap().is_empty());
}

/// The sandbox dies in the middle of its push: its git is ended and nothing has moved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_while_it_pushes_moves_nothing() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    w.host.faults().hang(true);
    {
        let pushing = w.git(&tree, &["push", "origin", OWN]);
        let reached = wait_for("the hook to reach upstream", async || {
            w.host.faults().asked().iter().any(|a| a.path.ends_with("service=git-receive-pack"))
        });
        tokio::select! {
            ran = pushing => panic!("it is to hang: {}", ran.text),
            () = reached => {}
        }
        // Dropped here, the client is killed.
    }
    wait_for("git to be gone", async || {
        processes_in(&w.path("mirrors")).iter().all(|p| !p.contains("receive-pack"))
    })
    .await;
    w.host.faults().hang(false);
    assert_eq!(same(&w, OWN), None);
    w.done(&tree, &["push", "-q", "origin", OWN]).await;
    assert_eq!(same(&w, OWN), Some(w.head(&tree).await));
}

/// A refresh in the middle of pushes neither takes a pushed branch away nor makes a push fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pushes_and_refreshes_do_not_disturb_each_other() {
    let w = Arc::new(World::new().await);
    let tree = w.work_tree().await;
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let refreshing = {
        let (w, stop) = (w.clone(), stop.clone());
        tokio::spawn(async move {
            let mut n = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                w.mirrors.refresh(&repo()).await.unwrap();
                n += 1;
            }
            n
        })
    };
    for i in 0..15 {
        let head = w.commit_here(&tree, "work", i.to_string()).await;
        w.done(&tree, &["push", "-q", "origin", OWN]).await;
        assert_eq!(w.mirrors.tip(&repo(), &branch(OWN)).await.unwrap(), Some(head));
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(refreshing.await.unwrap() > 5);
}

/// Gives one token for fetches, and for the pushes of one session.
#[derive(Debug)]
pub struct Tokens;

#[async_trait]
impl Credentials for Tokens {
    async fn authority(
        &self,
        _: &RepoName,
        operation: Operation,
        session: Option<SessionId>,
    ) -> Result<Option<Authority>> {
        let good = || Authority::new(format!("Authorization: {}", git::testing::basic("tok-en")));
        match (operation, session) {
            (Operation::Clone | Operation::Fetch, None) => Ok(Some(good())),
            (Operation::Push, Some(s)) if s == crate::world::session() => Ok(Some(good())),
            _ => Err(Error::permanent("the token of ada was revoked; sign in again")),
        }
    }
}

/// The authority is added for the one command and is nowhere in the sandbox or on disk. F50, F51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authority_is_added_per_operation() {
    let options = MirrorOptions { credentials: Some(Arc::new(Tokens)), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    w.host.faults().require_token(Some("tok-en"));
    w.mirrors.refresh(&repo()).await.unwrap();
    let tree = w.work_tree().await;
    let own = w
        .git(&tree, &["-c", "http.extraHeader=Authorization: Basic c2FuZGJveA==", "push", "origin", OWN])
        .await;
    assert!(own.ok, "{}", own.text);
    assert!(same(&w, OWN).is_some());
    let header = git::testing::basic("tok-en");
    let asked = w.host.faults().asked();
    let (before, after) = asked.split_at(asked.iter().position(|a| a.authorization.is_some()).unwrap());
    assert!(
        before.is_empty() && after.iter().all(|a| a.authorization.as_deref() == Some(&header)),
        "{asked:?}"
    );
    assert!(!own.text.contains(&header));
    let config = std::fs::read_to_string(w.mirror().path().join("config")).unwrap();
    assert!(!config.contains("Basic") && !config.contains("http"), "{config}");

    // No authority: the reason is what git prints, and the work stays where it is.
    w.caller.lock().unwrap().access =
        Access::Push { session: SessionId::from_u128(8), branch: branch("hotbed/s2") };
    let ran = w.git(&tree, &["push", "origin", "HEAD:hotbed/s2"]).await;
    assert!(!ran.ok && ran.text.contains("(the token of ada was revoked; sign in again)"), "{}", ran.text);
}

/// Gives out tokens that are good one after the other: the first push gets one that has ended.
#[derive(Debug, Default)]
struct Renewing {
    asked: std::sync::atomic::AtomicUsize,
}

#[async_trait]
impl Credentials for Renewing {
    async fn authority(
        &self,
        _: &RepoName,
        operation: Operation,
        _: Option<SessionId>,
    ) -> Result<Option<Authority>> {
        let basic = |token: &str| Authority::new(format!("Authorization: {}", git::testing::basic(token)));
        if operation != Operation::Push {
            return Ok(Some(basic("second")));
        }
        match self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 | 2 => Ok(Some(basic("first"))),
            1 => Ok(Some(basic("second"))),
            _ => Err(Error::denied("ada has to sign in again")),
        }
    }
}

/// Upstream does not believe what the push began with: it goes out with another authority, once; and where there is none,
/// the push says why, and nothing is left of it. F50, F51
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_f51_a_push_goes_on_with_another_authority_once() {
    let renewing = Arc::new(Renewing::default());
    let options = MirrorOptions { credentials: Some(renewing.clone()), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    w.host.faults().require_token(Some("second"));
    w.mirrors.refresh(&repo()).await.unwrap();
    let tree = w.work_tree().await;
    let first = w.done(&tree, &["push", "origin", OWN]).await;
    assert!(!first.contains("Authentication failed"), "{first}");
    let pushed = same(&w, OWN);
    assert!(pushed.is_some());
    assert_eq!(renewing.asked.load(std::sync::atomic::Ordering::SeqCst), 2);

    w.commit_here(&tree, "work", "more\n").await;
    let ran = w.git(&tree, &["push", "origin", OWN]).await;
    assert!(!ran.ok && ran.text.contains("ada has to sign in again"), "{}", ran.text);
    assert_eq!(same(&w, OWN), pushed);
    assert_eq!(renewing.asked.load(std::sync::atomic::Ordering::SeqCst), 4, "one second try each");
    let hooks = w.mirror().path().parent().unwrap().parent().unwrap().join(".hooks");
    let left = || std::fs::read_dir(&hooks).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
    assert_eq!(left(), ["pre-receive"], "the pipes went with their pushes");
}

/// Gives the same until it is told that upstream refused it, then the next.
#[derive(Debug, Default)]
struct Hours {
    shares: bool,
    given: std::sync::atomic::AtomicUsize,
    refused: std::sync::atomic::AtomicUsize,
}

impl Hours {
    fn counts(&self) -> (usize, usize) {
        let order = std::sync::atomic::Ordering::SeqCst;
        (self.given.load(order), self.refused.load(order))
    }
}

#[async_trait]
impl Credentials for Hours {
    async fn authority(&self, _: &RepoName, _: Operation, _: Option<SessionId>) -> Result<Option<Authority>> {
        let hour = self.refused.load(std::sync::atomic::Ordering::SeqCst);
        self.given.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let basic = git::testing::basic(&format!("hour-{hour}"));
        let authority = Authority::new(format!("Authorization: {basic}")).holding(hour);
        Ok(Some(if self.shares { authority.shared() } else { authority }))
    }

    async fn refused(&self, of: &RepoName, authority: &Authority) {
        let hour = self.refused.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        assert_eq!((of, authority.held::<usize>()), (&repo(), Some(&hour)), "it is told which");
        assert_eq!(authority.held::<String>(), None);
    }
}

/// What fetches share may end between two of them: whoever finds out goes on with another, once. What was made for one
/// operation alone is not tried twice. F50
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_a_fetch_goes_on_with_another_authority_once() {
    let hours = Arc::new(Hours { shares: true, ..Hours::default() });
    let options = MirrorOptions { credentials: Some(hours.clone()), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    w.mirrors.refresh(&repo()).await.unwrap();
    let (given, _) = hours.counts();
    w.host.faults().require_token(Some("hour-0"));
    w.mirrors.refresh(&repo()).await.unwrap();
    assert_eq!(hours.counts(), (given + 1, 0), "it is good");

    // By a glance where nothing has moved, and by git where something has.
    w.host.faults().require_token(Some("hour-1"));
    let (fetched, spared) = (w.mirrors.fetches(), w.mirrors.fetches_spared());
    assert!(!w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(hours.counts(), (given + 3, 1));
    assert_eq!(
        (w.mirrors.fetches(), w.mirrors.fetches_spared()),
        (fetched + 1, spared + 1),
        "git was refused"
    );
    let tip = commit(&w.upstream, "main", "theirs", "more\n");
    w.host.faults().require_token(Some("hour-2"));
    assert!(w.mirrors.refresh(&repo()).await.unwrap());
    assert_eq!(hours.counts(), (given + 5, 2));
    assert_eq!(w.mirrors.tip(&repo(), &branch("main")).await.unwrap(), Some(tip));

    w.host.faults().require_token(Some("nobody has it"));
    let refused = w.mirrors.refresh(&repo()).await.unwrap_err().chain();
    assert!(refused.contains("authentication refused"), "{refused}");
    assert_eq!(hours.counts(), (given + 7, 3), "once, not for ever");
    // What a forge hides it calls absent.
    w.host.faults().require_token(None);
    w.host.faults().fail_with(Some(http::StatusCode::NOT_FOUND));
    let absent = w.mirrors.refresh(&repo()).await.unwrap_err().chain();
    assert!(absent.contains("repository not found"), "{absent}");
    assert_eq!(hours.counts(), (given + 9, 4));
    // What is down is not a matter of authority.
    w.host.faults().fail_with(Some(http::StatusCode::SERVICE_UNAVAILABLE));
    w.mirrors.refresh(&repo()).await.unwrap_err();
    assert_eq!(hours.counts(), (given + 10, 4));

    let alone = Arc::new(Hours::default());
    let options = MirrorOptions { credentials: Some(alone.clone()), ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    let (given, _) = alone.counts();
    w.host.faults().require_token(Some("nobody has it"));
    w.mirrors.refresh(&repo()).await.unwrap_err();
    assert_eq!(alone.counts(), (given + 1, 0));
}

/// Git has the operator's helpers erase what they keep when a header is refused. They are not asked where there is one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_authority_does_not_cost_the_operator_his_own() {
    let dir = tempfile::tempdir().unwrap();
    let (program, kept) = (dir.path().join("git"), dir.path().join("kept"));
    let helper = format!("store --file={}", kept.display());
    std::fs::write(dir.path().join("config"), format!("[credential]\n\thelper = {helper}\n")).unwrap();
    let script = format!("#!/bin/sh\nGIT_CONFIG_GLOBAL={}/config exec git \"$@\"\n", dir.path().display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();

    let hours = Arc::new(Hours { shares: true, ..Hours::default() });
    let options = MirrorOptions { credentials: Some(hours), program, ..MirrorOptions::default() };
    let w = World::with(options, GatewayOptions::default()).await;
    let url = w.host.url(&repo());
    let host = url.strip_prefix("http://").and_then(|u| u.split('/').next()).unwrap();
    std::fs::write(&kept, format!("http://ada:of-the-operator@{host}\n")).unwrap();
    let before = std::fs::read_to_string(&kept).unwrap();
    w.host.faults().require_token(Some("nobody has it"));
    let refused = w.mirrors.refresh(&repo()).await.unwrap_err().chain();
    assert!(refused.contains("authentication refused"), "{refused}");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), before);
}
