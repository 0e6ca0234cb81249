//! Git sync: from nothing, over drift, over damage; and that the gate opens only when HEAD is what was wanted.

use std::time::{Duration, Instant};

use domain::wire::{SyncMode, SyncReport, SyncRequest};
use domain::{Branch, CommitId};

use crate::git_server::Upstream;
use crate::harness::{Options, World, command, descendants, git, sh, wait_for};

pub fn request(mode: SyncMode, branch: &str, commit: &CommitId) -> SyncRequest {
    SyncRequest {
        mode,
        repo: "acme/api".into(),
        base: "main".parse().unwrap(),
        branch: branch.parse().unwrap(),
        commit: commit.clone(),
        timeout_ms: 15_000,
        open_gate: true,
        session: None,
    }
}

pub async fn sync(world: &World, request: &SyncRequest) -> SyncReport {
    let (status, body) = world.client.post("/v1/sync", request).await;
    assert_eq!(status, 200, "{body:?}");
    serde_json::from_slice(&body).unwrap()
}

pub async fn world_of(upstream: &Upstream) -> World {
    let relay = Some(upstream.relay());
    let world = World::with(Options { gate_open: false, relay, ..Options::default() }).await;
    let address = ("127.0.0.1", world.boot.relay_port);
    wait_for("the relay's port", || async { tokio::net::TcpStream::connect(address).await.ok() }).await;
    world
}

/// F25: HEAD is the commit, tracked files are its files, untracked ones stay, whatever the tree was like.
#[tokio::test(flavor = "multi_thread")]
async fn clone_then_drift_then_damage() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one"), ("dir/b.txt", "one")]);
    let world = world_of(&upstream).await;
    std::fs::remove_dir(&world.workspace).unwrap();
    let report = sync(&world, &request(SyncMode::Clone, "main", &first)).await;
    assert_eq!((&report.head, report.fetched), (&first, true));
    assert_eq!(world.read("dir/b.txt"), "one");
    let info = world.info().await;
    assert_eq!((info.head, info.gate_open), (Some(first.clone()), true));
    let origin = git(&world.workspace, &["config", "remote.origin.url"]);
    assert_eq!(origin, format!("http://127.0.0.1:{}/acme/api.git", world.boot.relay_port));

    // The same again: nothing to fetch. A new branch at the same commit: neither.
    world.set_gate(false).await;
    let again = sync(&world, &request(SyncMode::Reset, "main", &first)).await;
    assert!(!again.fetched);
    let branched = sync(&world, &request(SyncMode::Reset, "hotbed/s1", &first)).await;
    assert!(!branched.fetched);
    assert_eq!(git(&world.workspace, &["rev-parse", "--abbrev-ref", "HEAD@{upstream}"]), "origin/main");
    assert_eq!(git(&world.workspace, &["symbolic-ref", "HEAD"]), "refs/heads/hotbed/s1");

    // Drift upstream, damage here, locks of a git that was killed.
    let second = upstream.commit("main", &[("a.txt", "two"), ("new.txt", "new")]);
    world.set_gate(false).await;
    world.write("a.txt", "changed here");
    world.write("untracked.txt", "mine");
    std::fs::remove_file(world.workspace.join("dir/b.txt")).unwrap();
    world.write("staged.txt", "staged");
    git(&world.workspace, &["add", "staged.txt"]);
    for lock in ["index.lock", "HEAD.lock", "refs/heads/hotbed/s1.lock", "config.lock"] {
        world.write(&format!(".git/{lock}"), "");
    }
    let report = sync(&world, &request(SyncMode::Reset, "hotbed/s1", &second)).await;
    assert_eq!((&report.head, report.fetched), (&second, true));
    assert_eq!((world.read("a.txt"), world.read("dir/b.txt")), ("two".into(), "one".into()));
    assert_eq!((world.read("new.txt"), world.read("untracked.txt")), ("new".into(), "mine".into()));
    assert_eq!(git(&world.workspace, &["status", "--porcelain", "--untracked-files=no"]), "");
    assert_eq!(git(&world.workspace, &["rev-parse", "HEAD", "origin/main"]), format!("{second}\n{second}"));

    // On the right commit, but not clean: it is made clean.
    world.write("a.txt", "changed again");
    sync(&world, &request(SyncMode::Reset, "hotbed/s1", &second)).await;
    assert_eq!(world.read("a.txt"), "two");

    // As long as before, and in the same second perhaps: still seen.
    world.write("a.txt", "owt");
    sync(&world, &request(SyncMode::Reset, "hotbed/s1", &second)).await;
    assert_eq!(world.read("a.txt"), "two");

    // The session can fetch and push nothing here, but fetch it can, through the same way.
    let done = world.client.sh("git fetch -q origin && git log --oneline origin/main | wc -l").await;
    assert_eq!((done.stdout.trim(), done.code()), ("2", Some(0)), "{done:?}");
}

/// F29: a rewritten branch, a tag that moved, a branch that is gone, a commit nobody has, a repo that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn upstream_changes_its_mind() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one")]);
    upstream.in_work(&["tag", "v1"]);
    upstream.in_work(&["push", "-q", "origin", "v1"]);
    let world = world_of(&upstream).await;
    let mut clone = request(SyncMode::Clone, "main", &first);
    clone.open_gate = false;
    sync(&world, &clone).await;
    assert_eq!(git(&world.workspace, &["tag"]), "v1");

    upstream.in_work(&["checkout", "-q", "--orphan", "fresh"]);
    let rewritten = upstream.commit("main", &[("a.txt", "rewritten")]);
    upstream.in_work(&["tag", "-f", "v1"]);
    upstream.in_work(&["push", "-q", "-f", "origin", "v1"]);
    let mut reset = request(SyncMode::Reset, "main", &rewritten);
    reset.open_gate = false;
    assert_eq!(sync(&world, &reset).await.head, rewritten);
    // The branch moved on since Hotbed looked: the wanted commit is what counts.
    let wanted = upstream.commit("main", &[("a.txt", "wanted")]);
    upstream.in_work(&["reset", "-q", "--hard", "HEAD^"]);
    upstream.commit("main", &[("a.txt", "moved on")]);
    reset.commit = wanted.clone();
    assert_eq!(sync(&world, &reset).await.head, wanted);

    let nobody: CommitId = "1234567890123456789012345678901234567890".parse().unwrap();
    reset.commit = nobody;
    let (status, error) = world.client.post_err("/v1/sync", &reset).await;
    assert_eq!((status, error.kind.as_str()), (404, "not_found"));
    assert!(
        error.message.contains("commit 1234567890") && error.message.contains("not known"),
        "{}",
        error.message
    );
    reset.base = "gone".parse::<Branch>().unwrap();
    let (_, error) = world.client.post_err("/v1/sync", &reset).await;
    assert_eq!(error.kind, "not_found");
    assert!(error.message.contains("branch `gone` is gone"), "{}", error.message);
    reset.base = "main".parse().unwrap();
    reset.repo = "acme/other".into();
    let (_, error) = world.client.post_err("/v1/sync", &reset).await;
    assert!(error.message.contains("acme/other is gone"), "{}", error.message);
    assert!(!world.info().await.gate_open);
    assert_eq!(world.read("a.txt"), "wanted");
}

/// F54: a sync that never ends, ends in a timeout; its git is gone; the gate is shut; writers wait; a retry works.
#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_sync_leaves_the_gate_shut() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one")]);
    let world = world_of(&upstream).await;
    let mut clone = request(SyncMode::Clone, "main", &first);
    clone.open_gate = false;
    sync(&world, &clone).await;
    let second = upstream.commit("main", &[("a.txt", "two")]);
    upstream.hang(true);
    let writer = world.client.start(&sh("echo mine > a.txt")).await.id;
    world.wait_for_waiting(1).await;
    let mut reset = request(SyncMode::Reset, "main", &second);
    reset.timeout_ms = 700;
    let started = Instant::now();
    let (status, error) = world.client.post_err("/v1/sync", &reset).await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!((status, error.kind.as_str()), (504, "timeout"));
    assert!(error.message.contains("git fetch"), "{}", error.message);
    let names: Vec<String> = descendants(world.agent_pid())
        .iter()
        .map(|p| std::fs::read_to_string(format!("/proc/{p}/comm")).unwrap_or_default().trim().to_owned())
        .collect();
    assert!(!names.iter().any(|n| n.starts_with("git")), "{names:?}");
    let info = world.info().await;
    assert_eq!((info.gate_open, info.gate_waiting, info.head), (false, 1, Some(first)));
    assert_eq!(world.read("a.txt"), "one");
    upstream.hang(false);
    reset.timeout_ms = 15_000;
    assert_eq!(sync(&world, &reset).await.head, second);
    assert!(world.info().await.gate_open);
    // The writer comes after sync, not before or amid it.
    assert_eq!(world.client.wait(writer).await.exit.unwrap().code, Some(0));
    assert_eq!(world.read("a.txt"), "mine\n");
}

/// F54: what fails at once leaves the gate shut as well, and says what it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_sync_leaves_the_gate_shut() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one")]);
    let world = world_of(&upstream).await;
    let (status, error) = world.client.post_err("/v1/sync", &request(SyncMode::Reset, "main", &first)).await;
    assert_eq!((status, error.kind.as_str()), (422, "invalid"));
    assert!(error.message.contains("no git tree"), "{}", error.message);
    assert!(!world.info().await.gate_open);
    drop(world);
    let env = [("PATH".to_owned(), "/nowhere".to_owned())].into();
    let world = World::with(Options { gate_open: false, env, ..Options::default() }).await;
    let (_, error) = world.client.post_err("/v1/sync", &request(SyncMode::Clone, "main", &first)).await;
    assert!(error.message.contains("needs git") && error.message.contains("/nowhere"), "{}", error.message);
    assert!(!world.info().await.gate_open);
}

/// A restored tree keeps a user's work, whatever happened upstream.
#[tokio::test(flavor = "multi_thread")]
async fn fetch_changes_nothing_in_the_tree() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one")]);
    let world = world_of(&upstream).await;
    sync(&world, &request(SyncMode::Clone, "work", &first)).await;
    world.set_gate(false).await;
    world.write("a.txt", "the user's");
    let second = upstream.commit("main", &[("a.txt", "two")]);
    let report = sync(&world, &request(SyncMode::Fetch, "work", &second)).await;
    assert_eq!((&report.head, report.fetched), (&first, true));
    assert!(world.info().await.gate_open);
    assert_eq!(world.read("a.txt"), "the user's");
    assert_eq!(git(&world.workspace, &["rev-parse", "origin/main"]), second.as_str());
    assert!(!sync(&world, &request(SyncMode::Fetch, "work", &second)).await.fetched);
}

/// Hotbed hangs up in the middle: the sync is finished all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_sync_outlives_the_connection() {
    let upstream = Upstream::new();
    let first = upstream.commit("main", &[("a.txt", "one")]);
    let mut world = world_of(&upstream).await;
    let client = world.client.clone();
    let request = request(SyncMode::Clone, "main", &first);
    // What runs afterwards is git: the agent's rehearsal is over.
    wait_for("nothing to run", || async { descendants(world.agent_pid()).is_empty().then_some(()) }).await;
    let asked = tokio::spawn(async move { client.post("/v1/sync", &request).await });
    wait_for("git to run", || async { (!descendants(world.agent_pid()).is_empty()).then_some(()) }).await;
    asked.abort();
    world.reconnect().await;
    wait_for("the gate to open", || async { world.info().await.gate_open.then_some(()) }).await;
    assert_eq!(world.info().await.head, Some(first));
    assert_eq!(world.client.run(&command(&["cat", "a.txt"])).await.stdout, "one");
}
