//! Clone and fetch through the relay, and what is not served.

use std::time::Duration;

use domain::SandboxId;
use domain::ports::Mirrors;
use git::{Access, Caller, GatewayOptions, MirrorOptions};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sandbox_clones_and_fetches() {
    let w = World::new().await;
    let tree = w.path("tree");
    w.done(w.dir.path(), &["clone", &w.url, "tree"]).await;
    assert_eq!(Some(w.head(&tree).await), w.upstream.tip(&branch("main")).unwrap());
    assert_eq!(w.done(&tree, &["rev-parse", "--abbrev-ref", "HEAD"]).await.trim(), "main");

    let next = commit(&w.upstream, "main", "README", "changed\n");
    w.mirrors.refresh(&repo()).await.unwrap();
    w.done(&tree, &["pull", "-q"]).await;
    assert_eq!(w.head(&tree).await, next);
    let traffic = w.gateway.traffic();
    assert!(traffic.fetches >= 4 && traffic.sent > 500 && traffic.received > 100, "{traffic:?}");

    // Old clients speak other versions; the mirror's own references stay hidden in each.
    for version in ["0", "1", "2"] {
        let refs =
            w.done(&tree, &["-c", &format!("protocol.version={version}"), "ls-remote", "origin"]).await;
        assert!(refs.contains("refs/heads/main") && !refs.contains("hotbed"), "version {version}: {refs}");
    }
    w.done(w.dir.path(), &["clone", "-q", "--depth=1", "--filter=blob:none", &w.url, "partial"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_is_fetched_by_its_id_though_no_branch_has_it() {
    let w = World::new().await;
    let (old, base) =
        (commit(&w.upstream, "side", "x", "1"), w.upstream.tip(&branch("main")).unwrap().unwrap());
    w.mirrors.refresh(&repo()).await.unwrap();
    w.upstream.set_branch(&branch("side"), &base).unwrap();
    w.mirrors.refresh(&repo()).await.unwrap();
    for version in ["0", "2"] {
        let name = format!("by-id-{version}");
        w.done(w.dir.path(), &["init", "-q", &name]).await;
        let set = format!("protocol.version={version}");
        w.done(&w.path(&name), &["-c", &set, "fetch", "-q", &w.url, old.as_str()]).await;
        w.done(&w.path(&name), &["cat-file", "-e", old.as_str()]).await;
    }
}

/// A long negotiation comes gzipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_negotiation_is_understood() {
    let w = World::new().await;
    let tree = w.work_tree().await;
    for i in 0..200 {
        w.done(&tree, &["commit", "-q", "--allow-empty", "-m", &i.to_string()]).await;
    }
    for version in ["0", "2"] {
        let next = commit(&w.upstream, "main", "README", version);
        w.mirrors.refresh(&repo()).await.unwrap();
        let output = tokio::process::Command::new("git")
            .current_dir(&tree)
            .env("GIT_CURL_VERBOSE", "1")
            .args([
                "-c",
                &format!("protocol.version={version}"),
                "fetch",
                "origin",
                "+main:refs/remotes/origin/main",
            ])
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        // Version 2 asks in smaller pieces, which git sends as they are.
        let packed = said.to_lowercase().contains("content-encoding: gzip");
        assert!(packed || version == "2", "the test is to send gzip: {said}");
        assert_eq!(w.done(&tree, &["rev-parse", "origin/main"]).await.trim(), next.as_str());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_repository_is_not_served() {
    let w = World::new().await;
    let other = w.url.replace("acme/api", "acme/secret");
    let ran = w.git(w.dir.path(), &["clone", &other, "x"]).await;
    assert!(!ran.ok && ran.text.contains("403"), "{}", ran.text);
    assert!(ran.text.contains("this sandbox works on acme/api"), "{}", ran.text);
}

async fn ask(w: &World, request: &str) -> String {
    let address = w.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_smart_http_gets_one_sentence() {
    let w = World::new().await;
    let cases = [
        ("GET /acme/api.git/info/refs HTTP/1.1", 403, "dumb protocol"),
        ("GET /acme/api.git/HEAD HTTP/1.1", 403, "dumb protocol"),
        ("GET /acme/api.git/objects/info/packs HTTP/1.1", 403, "dumb protocol"),
        ("POST /acme/api.git/info/lfs/objects/batch HTTP/1.1", 501, "Git LFS"),
        ("GET /acme/api.git/info/refs?service=git-upload-archive HTTP/1.1", 403, "not served"),
        ("GET /acme/api.git/git-upload-pack HTTP/1.1", 405, "another method"),
        ("GET /acme/api.git/other HTTP/1.1", 404, "no such address"),
        ("POST /acme/api.git/git-upload-pack HTTP/1.1\r\nContent-Length: 0", 415, "content type"),
        (
            "POST /acme/api.git/git-upload-pack HTTP/1.1\r\nContent-Length: 0\r\nContent-Encoding: br\r\nContent-Type: application/x-git-upload-pack-request",
            415,
            "encoding",
        ),
        ("GET /v1/pull-requests HTTP/1.1", 200, "not git"),
    ];
    for (request, status, sentence) in cases {
        let answer = ask(&w, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(sentence),
            "{request}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_an_error_and_leaves_nothing_running() {
    let w = World::new().await;
    let answer = ask(&w, "POST /acme/api.git/git-receive-pack HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: application/x-git-receive-pack-request\r\nX: y\r\n\r\nhello\r\nIgnored: x").await;
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("not a push that git sends"), "{answer}");
    let answer = ask(&w, "POST /acme/api.git/git-upload-pack HTTP/1.1\r\nContent-Length: 5\r\nContent-Type: application/x-git-upload-pack-request\r\nX: y\r\n\r\nhello\r\nIgnored: x").await;
    assert!(answer.starts_with("HTTP/1.1 "), "{answer}");
    wait_for("git to be gone", async || processes_in(&w.path("mirrors")).is_empty()).await;
}

/// A client that vanishes in the middle of an answer ends the git child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_ends_its_git() {
    let w = World::new().await;
    let noise = noise(40_000_000);
    w.upstream.commit_files(&branch("main"), &[("noise", Some(&noise))], "large", &author()).unwrap();
    w.mirrors.refresh(&repo()).await.unwrap();
    let tip = w.mirrors.tip(&repo(), &branch("main")).await.unwrap().unwrap();
    let address = w.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let want = format!("want {tip} ofs-delta\n");
    let body = format!("{:04x}{want}00000009done\n", want.len() + 4);
    let request = format!(
        "POST /acme/api.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut some = vec![0; 100_000];
    stream.read_exact(&mut some).await.unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"));
    assert!(!processes_in(&w.path("mirrors")).is_empty(), "git is to be sending still");
    drop(stream);
    wait_for("git to be gone", async || processes_in(&w.path("mirrors")).is_empty()).await;
}

/// A client that reads nothing is let go after the idle time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_stalls_ends_its_git() {
    let options = GatewayOptions { idle: Duration::from_millis(300), ..GatewayOptions::default() };
    let w = World::with(MirrorOptions::default(), options).await;
    let address = w.url.strip_prefix("http://").unwrap().split('/').next().unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = "POST /acme/api.git/git-upload-pack HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-git-upload-pack-request\r\nContent-Length: 100\r\n\r\n0014command";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await;
    assert!(
        read.is_ok() && answer.contains("504") && answer.contains("sent nothing for too long"),
        "{answer}"
    );
    wait_for("git to be gone", async || processes_in(&w.path("mirrors")).is_empty()).await;
}

/// A user's own fetch sees upstream as it is, not as the pool last saw it; without upstream it sees the mirror.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lists_fresh_branches() {
    let options = GatewayOptions { fresh_for: Duration::ZERO, ..GatewayOptions::default() };
    let w = World::with(MirrorOptions::default(), options).await;
    let tree = w.work_tree().await;
    let next = commit(&w.upstream, "main", "README", "changed\n");
    w.done(&tree, &["fetch", "-q"]).await;
    assert_eq!(w.done(&tree, &["rev-parse", "origin/main"]).await.trim(), next.as_str());

    w.host.faults().fail_with(Some(StatusCode::SERVICE_UNAVAILABLE));
    w.done(&tree, &["fetch", "-q"]).await;

    let before = w.host.faults().fetches();
    w.caller.lock().unwrap().access = Access::ReadOnly;
    w.done(&tree, &["fetch", "-q"]).await;
    assert_eq!(w.host.faults().fetches(), before, "a pool member is served from the mirror as it is");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_house_answers_503() {
    let options = GatewayOptions { concurrent_each: 0, ..GatewayOptions::default() };
    let w = World::with(MirrorOptions::default(), options).await;
    let answer = ask(&w, "GET /acme/api.git/info/refs?service=git-upload-pack HTTP/1.1").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
}

/// The handler is free to be called with any body and without a connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_by_hand() {
    let w = World::new().await;
    let caller = Caller { sandbox: SandboxId::from_u128(9), repo: repo(), access: Access::ReadOnly };
    let request = http::Request::get("/acme/api.git/info/refs?service=git-upload-pack");
    let request = request.body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let answer = w.gateway.handle(&caller, request).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "application/x-git-upload-pack-advertisement");
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert!(body.starts_with(b"001e# service=git-upload-pack\n0000"));
}
