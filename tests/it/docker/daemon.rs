//! The engine goes away and comes back: a private daemon, so that the machine's own is left alone.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use orchestrator::api::types::{List, SessionView, SnapshotView};
use serde_json::json;

use super::api::{Api, until};
use super::on_docker;
use super::world::{Engine, Repo, World, terminate, wait_within};

/// A daemon with its own data, sockets, networks (none) and containers.
struct Dockerd {
    dir: tempfile::TempDir,
    child: Option<Child>,
}

impl Dockerd {
    fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("hbdd").tempdir().expect("temporary directory");
        Self { dir, child: None }
    }

    fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("d.sock").display())
    }

    async fn start(&mut self) {
        let at = |name: &str| self.dir.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(at("log")).expect("a log");
        // In a network of its own: a daemon without a bridge takes `docker0` away from the one that has it.
        let child = Command::new("unshare")
            .args(["--net", "--", "dockerd"])
            .arg("--data-root")
            .arg(at("data"))
            .arg("--exec-root")
            .arg(at("x"))
            .arg("--pidfile")
            .arg(at("pid"))
            .args([
                "-H",
                &self.host(),
                "--bridge=none",
                "--iptables=false",
                "--ip-forward=false",
                "--ip-masq=false",
            ])
            .args(["--containerd-namespace", "hotbed-it", "--containerd-plugins-namespace", "hotbed-it-p"])
            .args(["--shutdown-timeout", "3"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("these tests need dockerd; run scripts/ensure-docker");
        self.child = Some(child);
        let engine = Engine { host: Some(self.host()) };
        until("a private dockerd", async || {
            let info = engine.try_run(&["info", "--format", "{{.ServerVersion}}"]);
            if info.status.success() { Ok(()) } else { Err(tail(&at("log"))) }
        })
        .await;
    }

    /// An orderly stop, as at an upgrade: its containers end with it.
    fn stop(&mut self) {
        let Some(child) = self.child.take() else { return };
        terminate(&child);
        wait_within(child, Duration::from_secs(30));
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join("\n")
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.stop();
        // What it mounted would keep its directory.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.dir.path().to_string_lossy().into_owned();
        for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&ours))
        {
            let _ = Command::new("umount").args(["-l", mount]).status();
        }
    }
}

// F46, F39
#[test]
fn a_restart_of_the_engine_costs_no_session_and_no_file() {
    const REPO: &str = "acme/engine";
    on_docker(async {
        // Before the World in this scope, so that it outlives it.
        let mut dockerd = Dockerd::new();
        dockerd.start().await;
        let engine = Engine { host: Some(dockerd.host()) };
        let world = World::start("daemon", engine, vec![Repo::new(REPO, 1)]).await;
        let api = world.api();
        api.ready(REPO).await;
        let stays = api.session(REPO).await;
        api.full(REPO).await;
        let goes = api.session(REPO).await;
        for session in [&stays, &goes] {
            api.synced(&session.id).await;
            api.must(
                &session.id,
                &format!("echo {} > mine.txt; mkdir -p /opt/o; echo o > /opt/o/f", session.id),
            )
            .await;
        }
        api.full(REPO).await;

        dockerd.stop();
        let down = Instant::now();
        // What needs the engine says at once that it can't, and when to ask again.
        for (method, path) in [
            ("POST", format!("/v1/sessions/{}/snapshots", stays.id)),
            ("POST", format!("/v1/sessions/{}/fork", stays.id)),
            ("POST", format!("/v1/sessions/{}/pause", stays.id)),
            ("GET", "/readyz".to_owned()),
        ] {
            let begun = Instant::now();
            let answer = api.answer(method, &path, "").await;
            assert_eq!(answer.status, 503, "{method} {path}: {}", answer.text());
            assert!(answer.header("retry-after").is_some(), "{method} {path}: {:?}", answer.headers);
            assert!(begun.elapsed() < Duration::from_secs(12), "{method} {path}: {:?}", begun.elapsed());
        }
        // What does not is answered; an end is taken on, and its capture waits for the engine.
        assert_eq!(api.read(&stays.id).await.state, "active");
        let ending: SessionView =
            api.client.delete(&format!("/v1/sessions/{}", goes.id)).await.expect("an end");
        assert_eq!(ending.state, "ending");
        // A session that is asked for now is answered, and there when the engine is.
        let late = api.session(REPO).await;
        let cold = api.session(REPO).await;
        let patient = {
            let (api, id) = (world.api(), stays.id.clone());
            tokio::spawn(async move { api.must(&id, "cat mine.txt /opt/o/f").await })
        };
        tokio::time::sleep(Duration::from_secs(6).saturating_sub(down.elapsed())).await; // it is down that long
        assert_eq!(api.read(&stays.id).await.state, "active");

        dockerd.start().await;
        let up = Instant::now();
        // The request that was made while it was down is answered.
        assert_eq!(patient.await.expect("an answer"), format!("{}\no\n", stays.id));
        let recovered = up.elapsed();
        assert_eq!(api.read(&stays.id).await.sandbox, stays.sandbox, "the same sandbox");
        assert_eq!(api.put(&stays.id, "later.txt", 20_000, "x").await.status, 204, "the gate is open again");
        for session in [&late, &cold] {
            api.synced(&session.id).await;
            assert_eq!(api.must(&session.id, "cat README.md").await, "hello\n");
        }
        let ended = api.reaches(&goes.id, &["ended"]).await;
        assert_eq!(ended.end.as_deref(), Some("requested"), "{ended:?}");
        let taken: List<SnapshotView> =
            api.client.get(&format!("/v1/snapshots?session={}", goes.id)).await.expect("snapshots");
        assert!(taken.items.iter().any(|s| s.state == "ready"), "{taken:?}");
        let follow =
            api.try_session(&json!({"parent": goes.id, "user": Api::user()})).await.expect("a follow-up");
        assert_eq!(api.must(&follow.id, "cat mine.txt").await.trim(), goes.id);
        assert_eq!(api.full(REPO).await.warm, 1);
        eprintln!("the first answer {recovered:?} after the engine was up");
        // Bounded: it did not heap up attempts while the engine was away.
        let tries = world.log().matches("could not start a sandbox").count();
        assert!(tries < 40, "{tries} starts were tried in six seconds");
        for id in [&stays.id, &late.id, &cold.id, &follow.id] {
            api.discard(id).await;
        }
        drop(world);
    });
}
