//! Commands: their output, their end, and what outlives what.

use std::path::Path;
use std::time::{Duration, Instant};

use domain::wire::{Bind, ExecRequest, ExecStatus, Quiesce, TermSize};
use domain::{ExecId, Identity, SessionId};
use http::Method;
use http_body_util::BodyExt;

use crate::harness::{World, command, descendants, poke, sh, wait_for};

#[tokio::test(flavor = "multi_thread")]
async fn output_exit_and_numbers() {
    let world = World::open().await;
    let done = world.client.sh("echo out; echo err >&2; exit 3").await;
    assert_eq!((done.stdout.as_str(), done.stderr.as_str(), done.code()), ("out\n", "err\n", Some(3)));
    let exit = done.exit.unwrap();
    assert!(exit.duration_ms > 0.0 && exit.duration_ms < 10_000.0, "{exit:?}");
    assert!(exit.peak_rss_bytes > 100_000 && exit.peak_rss_bytes < 1 << 30, "{exit:?}");
    let done = world.client.sh("kill -9 $$").await.exit.unwrap();
    assert_eq!((done.code, done.signal), (None, Some(9)));
    assert_eq!(world.client.sh("cat").await.stdout, "", "stdin is at its end");
    assert_eq!(world.client.sh("pwd").await.stdout.trim(), world.workspace.to_str().unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_start_says_why() {
    let world = World::open().await;
    for (argv, cwd, expected) in [
        (vec!["no-such-program"], None, "no program `no-such-program`"),
        (vec![], None, "argv is empty"),
        (vec!["true"], Some("/no/such/dir"), "/no/such/dir"),
        (vec!["true"], Some("relative"), "not absolute"),
        (vec!["/"], None, "run `/`"),
    ] {
        let mut request = command(&argv);
        request.cwd = cwd.map(Into::into);
        let (status, error) = world.client.post_err("/v1/exec", &request).await;
        assert_eq!((status, error.kind.as_str()), (422, "invalid"));
        assert!(error.message.contains(expected), "{}", error.message);
    }
    // A script without a first line is the shell's.
    world.write("script", "echo from the shell: $1\n");
    assert_eq!(world.client.sh("chmod +x script").await.code(), Some(0));
    assert_eq!(world.client.run(&command(&["./script", "a"])).await.stdout, "from the shell: a\n");
    assert_eq!(world.info().await.running, 0);
    wait_for("children to be collected", || async {
        descendants(world.agent_pid()).is_empty().then_some(())
    })
    .await;
}

/// Another account: its numbers, its groups, its home; and one that is not there is named. Only root can do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_as_the_account_that_it_names() {
    let world = World::open().await;
    let as_user = |user: &str| ExecRequest { user: Some(user.into()), ..sh("id -u; id -g; echo $USER") };
    let (status, error) = world.client.post_err("/v1/exec", &as_user("no-such-account")).await;
    assert_eq!((status, error.kind.as_str()), (422, "invalid"));
    assert!(error.message.contains("no account `no-such-account`"), "{}", error.message);
    // SAFETY: asks for a number.
    if unsafe { libc::geteuid() } == 0 {
        assert_eq!(world.client.run(&as_user("nobody")).await.stdout, "65534\n65534\nnobody\n");
        assert_eq!(world.client.run(&as_user("4000:daemon")).await.stdout, "4000\n1\n4000\n");
        // The account's own environment is below what the command is given.
        let request = ExecRequest { env: [("USER".into(), "mine".into())].into(), ..as_user("nobody") };
        assert_eq!(world.client.run(&request).await.stdout, "65534\n65534\nmine\n");
    } else {
        let (_, error) = world.client.post_err("/v1/exec", &as_user("nobody")).await;
        assert!(error.message.contains("become the user `nobody`"), "{}", error.message);
    }
}

/// The same id starts nothing a second time.
#[tokio::test(flavor = "multi_thread")]
async fn one_id_is_one_command() {
    let world = World::open().await;
    let request = sh("echo x >> count");
    assert_eq!(world.client.run(&request).await.code(), Some(0));
    assert_eq!(world.client.run(&request).await.code(), Some(0));
    let again = world.client.start(&request).await;
    assert_eq!(again.exit.unwrap().code, Some(0));
    assert_eq!(world.read("count"), "x\n");
    let all: Vec<ExecStatus> = world.client.get("/v1/exec").await;
    assert_eq!(all.len(), 1);
    let unknown = world.client.send(Method::GET, &format!("/v1/exec/{}", ExecId::new()), "").await;
    assert_eq!(unknown.status(), 404);
}

/// Hotbed goes away and comes back: the command ran on, and its output is all there.
#[tokio::test(flavor = "multi_thread")]
async fn commands_outlive_the_connection() {
    let mut world = World::open().await;
    let mut request = sh("echo one; read x; echo two $x; read y; echo three $y");
    request.stdin = true;
    let id = world.client.start(&request).await.id;
    let before = wait_for("output", || async {
        let out = world.client.output(id, 0, false).await;
        (out.bytes == 4).then_some(out)
    })
    .await;
    assert_eq!((before.stdout.as_str(), before.exit), ("one\n", None));
    world.reconnect().await;
    assert!(world.client.status(id).await.running);
    world.client.input(id, "a\n", false).await;
    world.reconnect().await;
    world.client.input(id, "b\n", false).await;
    let rest = world.client.output(id, 4, true).await;
    assert_eq!((rest.stdout.as_str(), rest.code()), ("two a\nthree b\n", Some(0)));
    assert_eq!(world.client.output(id, 0, true).await.stdout, "one\ntwo a\nthree b\n");
    assert_eq!(world.client.output(id, 9999, true).await.bytes, 0);
}

/// Nobody reads: the command ends all the same, and what is kept is bounded and said.
#[tokio::test(flavor = "multi_thread")]
async fn too_much_output_is_dropped_from_the_front() {
    let world = World::open().await;
    const BLOCKS: u64 = 20_000; // 80 MiB
    let request = command(&[poke().to_str().unwrap(), "print", &BLOCKS.to_string()]);
    let id = world.client.start(&request).await.id;
    let status = world.client.wait(id).await;
    assert_eq!(status.exit.unwrap().code, Some(0));
    let total = BLOCKS * 4096 + 3; // and "ok\n"
    assert_eq!(status.output_bytes, total);
    assert_eq!(status.dropped_bytes, total - 64 * 1024 * 1024);
    let kept = world.client.output(id, 0, true).await;
    assert_eq!((kept.first, kept.bytes), (status.dropped_bytes, 64 * 1024 * 1024));
    assert!(kept.stdout.ends_with(".ok\n"));
    assert!(world.info().await.rss_bytes < 24 << 20, "{}", world.info().await.rss_bytes);
}

/// A reader that does not read holds up neither the command nor anything else.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_blocks_nobody() {
    let world = World::open().await;
    let request = command(&[poke().to_str().unwrap(), "print", "4000"]); // 16 MB
    let body = serde_json::to_vec(&request).unwrap();
    let stalled = world.client.send(Method::POST, "/v1/exec?follow=true", body).await;
    assert_eq!(world.client.wait(request.id).await.exit.unwrap().code, Some(0));
    assert_eq!(world.client.sh("echo other").await.stdout, "other\n");
    // Input that nobody reads, the same.
    let mut deaf = sh("sleep 1000");
    deaf.stdin = true;
    let deaf = world.client.start(&deaf).await.id;
    let client = world.client.clone();
    let writing = tokio::spawn(async move { client.input(deaf, &"x".repeat(1 << 20), false).await });
    for _ in 0..20 {
        assert_eq!(world.client.sh("echo other").await.stdout, "other\n");
    }
    assert!(!writing.is_finished());
    world.client.signal(deaf, "KILL").await;
    assert_eq!(writing.await.unwrap(), 410);
    let rest = stalled.into_body().collect().await.unwrap().to_bytes();
    assert!(rest.len() > 16_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn stdin_comes_in_pieces_and_ends() {
    let world = World::open().await;
    let mut request = command(&["cat"]);
    request.stdin = true;
    let id = world.client.start(&request).await.id;
    let long = "y".repeat(300_000);
    assert_eq!(world.client.input(id, "one ", false).await, 204);
    assert_eq!(world.client.input(id, &long, true).await, 204);
    let done = world.client.output(id, 0, true).await;
    assert_eq!((done.stdout.len(), done.code()), (300_004, Some(0)));
    assert_eq!(world.client.input(id, "late", false).await, 410);
    let without = world.client.start(&sh("sleep 1000")).await.id;
    assert_eq!(world.client.input(without, "x", false).await, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal() {
    let world = World::open().await;
    let mut request = sh("test -t 0 && test -t 1 && stty size; read x; stty size; echo got $x; tty; exit 5");
    request.tty = Some(TermSize { rows: 33, cols: 101 });
    let id = world.client.start(&request).await.id;
    wait_for("the first size", || async {
        world.client.output(id, 0, false).await.stdout.contains("33 101").then_some(())
    })
    .await;
    world.client.post_ok(&format!("/v1/exec/{id}/resize"), &TermSize { rows: 20, cols: 80 }).await;
    world.client.input(id, "hello\n", false).await;
    let done = world.client.output(id, 0, true).await;
    assert!(done.stdout.contains("20 80") && done.stdout.contains("got hello"), "{done:?}");
    assert_eq!(done.code(), Some(5));
    // Ctrl-C is a byte; end of file too.
    let mut request = sh("trap 'echo caught; exit 7' INT; echo ready; while :; do sleep 0.05; done");
    request.tty = Some(TermSize { rows: 24, cols: 80 });
    let id = world.client.start(&request).await.id;
    wait_for("the trap", || async { (world.client.status(id).await.output_bytes > 0).then_some(()) }).await;
    world.client.input(id, "\x03", false).await;
    let done = world.client.output(id, 0, true).await;
    assert_eq!(done.code(), Some(7), "{done:?}");
    let mut request = command(&["cat"]);
    request.tty = Some(TermSize { rows: 24, cols: 80 });
    let id = world.client.start(&request).await.id;
    world.client.input(id, "", true).await;
    assert_eq!(world.client.output(id, 0, true).await.code(), Some(0));
    let plain = world.client.start(&sh("sleep 1000")).await.id;
    let (status, _) =
        world.client.post_err(&format!("/v1/exec/{plain}/resize"), &TermSize { rows: 1, cols: 1 }).await;
    assert_eq!(status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_go_to_the_group() {
    let world = World::open().await;
    let id = world.client.start(&sh("sleep 1000 & sleep 1000 & wait")).await.id;
    wait_for("three processes", || async { (descendants(world.agent_pid()).len() == 3).then_some(()) }).await;
    assert_eq!(world.client.signal(id, "TERM").await.0, 204);
    assert_eq!(world.client.wait(id).await.exit.unwrap().signal, Some(libc::SIGTERM));
    wait_for("the whole group to end", || async { descendants(world.agent_pid()).is_empty().then_some(()) })
        .await;
    assert_eq!(world.client.signal(id, "TERM").await.0, 410);
    let id = world.client.start(&sh("sleep 1000")).await.id;
    let (status, body) = world.client.signal(id, "NOPE").await;
    assert_eq!(status, 422, "{body:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_ask_and_then_kill() {
    let world = World::open().await;
    let mut polite = sh("trap 'echo bye; exit 4' TERM; while :; do sleep 0.02; done");
    polite.timeout_ms = Some(100);
    let done = world.client.run(&polite).await;
    assert_eq!((done.stdout.as_str(), done.code()), ("bye\n", Some(4)));
    assert!(done.exit.unwrap().timed_out);
    let mut deaf = sh("trap '' TERM; sleep 1000 & while :; do sleep 0.02; done");
    deaf.timeout_ms = Some(100);
    let started = Instant::now();
    let done = world.client.run(&deaf).await.exit.unwrap();
    assert_eq!((done.signal, done.timed_out), (Some(libc::SIGKILL), true));
    assert!(started.elapsed() > Duration::from_secs(2) && started.elapsed() < Duration::from_secs(5));
    wait_for("all of it to end", || async { descendants(world.agent_pid()).is_empty().then_some(()) }).await;
}

/// What is left in the background holds the pipes; the command has ended all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_background_process_does_not_hold_the_end_back() {
    let world = World::open().await;
    let go = world.outside.join("go");
    let request = sh(&format!(
        "(until [ -e {} ]; do sleep 0.02; done; echo later; sleep 1000) & echo now",
        go.display()
    ));
    // It would never end, did it wait for the background.
    let done = world.client.run(&request).await;
    assert_eq!((done.stdout.as_str(), done.code()), ("now\n", Some(0)));
    std::fs::write(&go, "").unwrap();
    wait_for("the later bytes", || async {
        (world.client.output(request.id, 0, false).await.stdout == "now\nlater\n").then_some(())
    })
    .await;
    // One that never falls silent.
    let done = world.client.sh("(while :; do echo x; sleep 0.01; done) & true").await;
    assert_eq!(done.code(), Some(0));
}

/// Orphans come home and are collected; nobody else's exit status is taken.
#[tokio::test(flavor = "multi_thread")]
async fn orphans_are_collected() {
    let world = World::open().await;
    let poke = poke().display().to_string();
    for _ in 0..50 {
        let (a, b) = (format!("{poke} orphan; exit 11"), "exit 12");
        let (first, second) = tokio::join!(world.client.sh(&a), world.client.sh(b));
        assert_eq!((first.code(), second.code()), (Some(11), Some(12)));
        let orphan = first.stdout.lines().next().unwrap().to_owned();
        let path = format!("/proc/{orphan}");
        wait_for("the orphan to be collected", || async { (!Path::new(&path).exists()).then_some(()) }).await;
    }
    assert!(descendants(world.agent_pid()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn binding_brings_identity_and_environment() {
    let world = World::open().await;
    let session = SessionId::new();
    let bind = Bind {
        session,
        repo: "acme/api".into(),
        identity: Some(Identity {
            login: "ada".into(),
            name: "Ada L".into(),
            email: "ada@example.com".into(),
        }),
        co_authors: Vec::new(),
        token: Some("hbs_1".into()),
        env: [("SECRET".to_owned(), "s3".to_owned())].into(),
    };
    let script = "echo $HOTBED_SESSION $HOTBED_REPO $HOTBED_TOKEN $SECRET $MORE; git var GIT_AUTHOR_IDENT | cut -d'>' -f1";
    assert_eq!(world.client.sh("echo $HOTBED_SESSION$HOTBED_TOKEN$SECRET").await.stdout, "\n");
    world.client.post_ok("/v1/bind", &bind).await;
    world.client.post_ok("/v1/bind", &bind).await;
    let mut request = sh(script);
    request.env.insert("MORE".into(), "more".into());
    let out = world.client.run(&request).await.stdout;
    assert_eq!(out.trim(), format!("{session} acme/api hbs_1 s3 more\nAda L <ada@example.com"));
    let other = Bind { session: SessionId::new(), ..bind };
    let (status, error) = world.client.post_err("/v1/bind", &other).await;
    assert_eq!((status, error.kind.as_str()), (409, "conflict"));
    assert_eq!(world.info().await.bound, Some(session));
}

#[tokio::test(flavor = "multi_thread")]
async fn quiesce_ends_everything() {
    let world = World::open().await;
    let mut ids = Vec::new();
    for script in ["sleep 1000", "setsid sleep 1000 & exit 0", "trap '' TERM; while :; do sleep 0.05; done"] {
        ids.push(world.client.start(&sh(script)).await.id);
    }
    world.client.post_ok("/v1/quiesce", &Quiesce { stop: false, grace_ms: 0 }).await;
    assert!(world.info().await.running >= 2);
    world.client.post_ok("/v1/quiesce", &Quiesce { stop: true, grace_ms: 300 }).await;
    assert_eq!(world.info().await.running, 0);
    assert!(descendants(world.agent_pid()).is_empty());
    for id in ids {
        assert!(world.client.status(id).await.exit.is_some());
    }
    assert_eq!(world.client.sh("echo again").await.stdout, "again\n");
}

/// 300 short commands: the last 256 are remembered, the others forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn old_commands_are_forgotten() {
    let world = World::open().await;
    let first = command(&["true"]);
    world.client.run(&first).await;
    for _ in 0..300 {
        world.client.run(&command(&["true"])).await;
    }
    let all: Vec<ExecStatus> = world.client.get("/v1/exec").await;
    assert!(all.len() <= 257, "{}", all.len());
    let response = world.client.send(Method::GET, &format!("/v1/exec/{}", first.id), "").await;
    assert_eq!(response.status(), 404);
}
