//! The write gate through the API, while git sync runs, hangs and fails.

use std::time::{Duration, Instant};

use http::Method;
use orchestrator::api::types::{SessionView, SyncView};
use serde_json::json;

use super::api::Api;
use super::world::main_branch;
use super::{on_docker, shared};

/// What must not wait gets this long; it includes the whole way to the sandbox and back.
const AT_ONCE: Duration = Duration::from_secs(5);

async fn at_once(api: &Api, id: &str, cmd: &str) -> String {
    let done = tokio::time::timeout(AT_ONCE, api.must(id, cmd)).await;
    done.unwrap_or_else(|_| panic!("`{cmd}` waited, and it writes nothing to the workspace"))
}

async fn resync(api: &Api, id: &str, action: &str) -> SyncView {
    let body = json!({"action": action});
    api.client.call(Method::POST, &format!("/v1/sessions/{id}/sync"), Some(&body), &[]).await.expect("resync")
}

// F53
#[test]
fn while_sync_runs_reads_pass_and_every_write_waits() {
    const REPO: &str = "acme/slow";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let landed = world.land(REPO, "NEWS.md", "news\n");
        world.faults(REPO).hang(true);
        let session = api.session(REPO).await;
        let id = session.id.as_str();

        // Reads pass, git's too, which would like to write its index.
        assert_eq!(at_once(&api, id, "git status --short").await, "");
        assert!(at_once(&api, id, "ls -a").await.contains("README.md"));
        assert_eq!(at_once(&api, id, "grep -r needle .").await, "./src/app.py:print('needle')\n");
        assert!(at_once(&api, id, "git log --oneline && git diff && git branch -a").await.contains("first"));
        // So do writes elsewhere.
        assert_eq!(at_once(&api, id, "echo x > /tmp/f && mkdir -p /opt/d && cat /tmp/f").await, "x\n");

        // Every way to write waits, whoever writes.
        let writes = [
            "sh -c 'echo > f1'",
            "mv README.md moved.md",
            "git -c core.fsync=none config user.nick x",
            "(echo > f2) & wait",
            "cp /etc/hostname f3 && chmod 600 f3",
            "perl -e 'open(F, q(>), q(f4)) or die'",
            "ln -s x f5",
            "cd / && touch /workspace/../workspace/f6",
        ];
        let waiting = writes.map(|cmd| {
            let (api, id) = (world.api(), id.to_owned());
            tokio::spawn(async move { api.exec(&id, cmd).await })
        });
        let begun = Instant::now();
        let locked = api.put(id, "f7", 400, "seven").await;
        assert_eq!(locked.status, 423, "{}", locked.text());
        assert!(begun.elapsed() >= Duration::from_millis(400), "it did not wait: {:?}", begun.elapsed());
        tokio::time::timeout(Duration::from_millis(700), std::future::pending::<()>())
            .await
            .expect_err("time");
        for (cmd, task) in writes.iter().zip(&waiting) {
            assert!(!task.is_finished(), "`{cmd}` did not wait");
        }
        assert_eq!(at_once(&api, id, "ls f1 f2 f3 f4 f5 f6 f7 moved.md 2>/dev/null; true").await, "");
        let sync: SyncView = api.client.get(&format!("/v1/sessions/{id}/sync")).await.expect("sync");
        assert_eq!((sync.phase.as_str(), sync.gate.as_str()), ("running", "shut"));

        world.faults(REPO).hang(false);
        for (cmd, task) in writes.iter().zip(waiting) {
            let done = task.await.expect("no panic");
            assert_eq!(done.exit.as_ref().and_then(|e| e.code), Some(0), "`{cmd}`: {done:?}");
        }
        let sync = api.synced(id).await;
        assert_eq!((sync.gate.as_str(), sync.head.as_deref()), ("open", Some(landed.as_str())));
        assert_eq!(api.put(id, "f7", 400, "seven").await.status, 204);
        assert_eq!(api.must(id, "cat moved.md NEWS.md f7").await, "hello\nnews\nseven");
        api.discard(id).await;
    });
}

// F54
#[test]
fn a_sync_that_never_ends_fails_and_the_client_decides() {
    const REPO: &str = "acme/stuck";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let landed = world.land(REPO, "NEWS.md", "news\n");
        world.faults(REPO).hang(true);
        let begun = Instant::now();
        let session = api.session(REPO).await;
        let id = session.id.as_str();
        let sync = api.sync(id).await;
        let took = begun.elapsed();
        assert_eq!((sync.phase.as_str(), sync.gate.as_str()), ("failed", "shut"), "{sync:?}");
        assert!(
            took >= Duration::from_secs(2) && took < Duration::from_secs(10),
            "`sync_timeout` is 2s: {took:?}"
        );
        assert!(sync.error.as_deref().is_some_and(|e| e.contains("2 s")), "{sync:?}");
        assert_eq!(api.put(id, "f", 200, "x").await.status, 423);
        at_once(&api, id, "git status --short").await;

        // Again, while nothing is mended: failed again. Then it is, and the same session gets there.
        resync(&api, id, "retry").await;
        assert_eq!(api.sync(id).await.phase, "failed");
        world.faults(REPO).hang(false);
        resync(&api, id, "retry").await;
        let sync = api.synced(id).await;
        assert_eq!(sync.head.as_deref(), Some(landed.as_str()));
        assert_eq!(api.put(id, "f", 200, "x").await.status, 204);

        // Another one goes on with what it has.
        world.faults(REPO).hang(true);
        api.full(REPO).await;
        let stale = api.session(REPO).await;
        assert_eq!(api.sync(&stale.id).await.phase, "failed");
        let accepted = resync(&api, &stale.id, "accept_stale").await;
        assert_eq!((accepted.phase.as_str(), accepted.gate.as_str()), ("stale", "open"));
        assert_eq!(api.put(&stale.id, "f", 200, "x").await.status, 204);
        api.must(&stale.id, "echo y > g").await;
        world.faults(REPO).hang(false);
        for id in [id, &stale.id] {
            api.discard(id).await;
        }
    });
}

// F29
#[test]
fn a_branch_that_is_gone_upstream_is_named_and_one_that_was_forced_is_followed() {
    const REPO: &str = "acme/fickle";
    on_docker(async {
        let world = shared().await;
        let api = world.api();
        api.ready(REPO).await;
        let upstream = world.upstream(REPO);
        let first = upstream.tip(&main_branch()).expect("read").expect("a tip");
        let landed = world.land(REPO, "A.md", "a\n");

        // Renamed: there is a `trunk` and no `main`.
        let trunk = "trunk".parse().expect("branch");
        upstream.set_branch(&trunk, &landed).expect("set");
        upstream.set_default_branch(&trunk).expect("set");
        upstream.delete_branch(&main_branch()).expect("delete");
        let session = api.session(REPO).await;
        let id = session.id.as_str();
        let sync = api.sync(id).await;
        assert_eq!((sync.phase.as_str(), sync.gate.as_str()), ("failed", "shut"));
        let error = sync.error.unwrap_or_default();
        assert!(error.contains("`main`") && error.contains("deleted or renamed"), "{error}");
        let other: SessionView = api
            .try_session(&json!({"repo": REPO, "user": Api::user(), "base": "trunk"}))
            .await
            .expect("a session on trunk");
        assert_eq!(api.synced(&other.id).await.head.as_deref(), Some(landed.as_str()));
        let none = api.try_session(&json!({"repo": REPO, "user": Api::user(), "base": "nope"})).await;
        assert_eq!(none.expect_err("no such branch").kind(), domain::ErrorKind::NotFound);

        // Force-pushed to something else: a retry stands on what is there now.
        upstream.set_branch(&main_branch(), &first).expect("set");
        let forced = world.land(REPO, "B.md", "b\n");
        resync(&api, id, "retry").await;
        assert_eq!(api.synced(id).await.head.as_deref(), Some(forced.as_str()));
        assert_eq!(api.must(id, "ls *.md").await, "B.md\nREADME.md\n");
        for id in [id, &other.id] {
            api.discard(id).await;
        }
    });
}
