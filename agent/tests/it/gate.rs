//! The write gate (F53): what waits, what passes, and what ends a wait.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use domain::wire::{AgentError, ExecRequest};
use http::Method;

use crate::harness::{Client, World, command, git, poke, sh, wait_for};

/// Everything that a write could change below a directory: names, kinds, modes, times, contents.
fn photograph(dir: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = match meta.file_type() {
                t if t.is_symlink() => format!("{:?}", std::fs::read_link(&path).unwrap()),
                t if t.is_file() => format!("{:?}", std::fs::read(&path).unwrap()),
                _ => String::new(),
            };
            let about = (meta.mode(), meta.mtime(), meta.mtime_nsec(), meta.nlink(), meta.uid());
            out.insert(path.display().to_string(), format!("{about:?} {content}"));
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    out
}

fn has_gcc() -> bool {
    Command::new("gcc").arg("--version").output().is_ok_and(|o| o.status.success())
}

/// A program that no loader touches, in assembler-like C without a libc: nothing can be preloaded into it.
fn build_static(dir: &Path) -> Option<String> {
    let (source, binary) = (dir.join("writer.c"), dir.join("writer"));
    std::fs::write(
        &source,
        "#include <fcntl.h>\n#include <unistd.h>\nint main(int n, char **a) { (void)n; \
         int f = open(a[1], O_WRONLY | O_CREAT, 0644); return f < 0 || write(f, \"x\", 1) != 1; }\n",
    )
    .unwrap();
    let built = has_gcc()
        && Command::new("gcc")
            .arg("-static")
            .arg("-o")
            .arg(&binary)
            .arg(&source)
            .status()
            .is_ok_and(|s| s.success());
    built.then(|| binary.display().to_string())
}

/// F53: each of these changes the workspace in its own way, and each waits until the gate opens.
#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_write_waits_and_then_goes_on() {
    let world = World::shut().await;
    let out = world.outside.display().to_string();
    let ws = world.workspace.display().to_string();
    let poke = poke().display().to_string();
    git(&world.workspace, &["init", "-q", "repo"]);
    world.write("repo/file", "old");
    git(&world.workspace.join("repo"), &["add", "file"]);
    git(&world.workspace.join("repo"), &["commit", "-qm", "one"]);
    world.write("repo/file", "new");
    std::fs::write(world.outside.join("far"), "far").unwrap();
    std::fs::write(world.outside.join("far2"), "far").unwrap();
    std::os::unix::fs::symlink(&world.workspace, world.outside.join("into")).unwrap();
    world.write("linked/file", "content");
    std::fs::hard_link(world.workspace.join("linked/file"), world.outside.join("other-name")).unwrap();

    // Script, and what must hold once it is done. Each works in a directory of its own with a file `f` in it.
    let p = |s: &str| format!("{poke} {s}");
    let mut cases: Vec<(&str, String, &str)> = vec![
        ("redirect", "echo x > g".into(), "test -s g"),
        ("append", "echo x >> f".into(), "grep -q x f"),
        ("rename", "mv f g".into(), "test -e g"),
        ("rename-in", format!("mv {out}/far g"), "test -e g"),
        ("rename-out", format!("mv f {out}/moved"), "! test -e f"),
        ("exchange", p("exchange f d"), "test -d f"),
        ("unlink", "rm f".into(), "! test -e f"),
        ("rmdir", "rmdir d".into(), "! test -e d"),
        ("chmod", "chmod 600 f".into(), "test $(stat -c %a f) = 600"),
        ("fchmod", p("fchmod f"), "test $(stat -c %a f) = 600"),
        ("fchmodat2", p("fchmodat2 f"), "test $(stat -c %a f) = 600"),
        ("chown", "chown $(id -u) f".into(), "true"),
        ("empty-path", p("empty-path f"), "true"),
        ("truncate", "truncate -s 0 f".into(), "! test -s f"),
        ("truncate-call", p("truncate f"), "! test -s f"),
        ("mkdir", "mkdir -p a/b/c".into(), "test -d a/b/c"),
        ("link", "ln f g".into(), "test f -ef g"),
        ("link-in", format!("ln {out}/far2 g"), "test -e g"),
        ("link-out", format!("ln f {out}/linked"), "true"),
        ("symlink", "ln -s f g".into(), "test -L g"),
        ("mkfifo", "mkfifo p".into(), "test -p p"),
        ("mknod", p("mknod p"), "test -p p"),
        ("touch-new", "touch g".into(), "test -e g"),
        ("touch-time", "touch -d 2001-01-01 f".into(), "test $(stat -c %Y f) -lt 1000000000"),
        ("touch-link", "touch -h -d 2001-01-01 l".into(), "test $(stat -c %Y l) -lt 1000000000"),
        ("futimens", p("futimens f"), "true"),
        ("setxattr", p("setxattr f"), "true"),
        ("inode-flags", p("flags f"), "true"),
        ("tmpfile", p("tmpfile ."), "true"),
        ("mmap", p("mmap f"), "grep -q x f"),
        ("reopen", p("reopen f self"), "grep -q x f"),
        ("reopen-thread", p("reopen f thread-self"), "grep -q x f"),
        ("bind", p("bind s"), "test -S s"),
        ("dirfd", p("dirfd . new"), "test -d new"),
        ("fork", format!("(sleep 0.1; echo go) | {poke} fork g"), "test -e g"),
        ("background", "(echo x > g) & wait".into(), "test -s g"),
        (
            "daemon",
            "setsid sh -c 'echo x > g' & sleep 0; until test -s g; do sleep 0.02; done".into(),
            "test -s g",
        ),
        ("copy", "cp f g".into(), "cmp f g"),
        ("sed", "sed -i s/content/x/ f".into(), "grep -q x f"),
        ("dd", "dd if=/dev/zero of=g bs=1 count=1 2>/dev/null".into(), "test -s g"),
        ("tee", "echo x | tee g".into(), "test -s g"),
        ("parent", "cd d && echo x > ../g".into(), "test -s g"),
        ("absolute", "echo x > $PWD/g".into(), "test -s g"),
        ("link-from-outside", format!("echo x > {out}/into/link-from-outside/g"), "test -s g"),
        ("proc-cwd", "echo x > /proc/self/cwd/g".into(), "test -s g"),
        ("proc-root", "echo x > /proc/self/root$PWD/g".into(), "test -s g"),
        ("link-inside", "echo x > l".into(), "grep -q x f"),
        ("dangling", "echo x > dangling".into(), "test -s later"),
        ("other-name", format!("echo x > {out}/other-name"), "grep -q x ../linked/file"),
        (
            "git-add-commit",
            "cd ../repo && git -c user.name=T -c user.email=t@e commit -qam two".into(),
            "cd ../repo && test $(git rev-list --count HEAD) = 2",
        ),
    ];
    if cfg!(target_arch = "x86_64") {
        cases.push(("int80", p("int80"), "true"));
    }
    match build_static(&world.outside) {
        Some(binary) => cases.push(("static", format!("{binary} g"), "test -s g")),
        None => eprintln!("no static C program: gcc is not here or can't link statically"),
    }
    for (name, ..) in &cases {
        world.write(&format!("{name}/f"), "content\n");
        let dir = world.workspace.join(name);
        std::fs::create_dir(dir.join("d")).unwrap();
        std::os::unix::fs::symlink("f", dir.join("l")).unwrap();
        std::os::unix::fs::symlink("later", dir.join("dangling")).unwrap();
    }
    let before = photograph(&world.workspace);
    let outside_before = photograph(&world.outside);

    let mut started = Vec::new();
    for (name, script, after) in &cases {
        let mut request = sh(script);
        request.cwd = Some(format!("{ws}/{name}"));
        let status = world.client.start(&request).await;
        assert!(status.exit.is_none());
        started.push((name, status.id, after));
    }
    let all = cases.len() as u32;
    wait_for("each of them at the gate", || async {
        for (name, id, _) in &started {
            let status = world.client.status(*id).await;
            let output = if status.exit.is_some() {
                world.client.output(*id, 0, false).await
            } else {
                Default::default()
            };
            assert!(status.exit.is_none(), "{name} did not wait: {output:?}");
        }
        (world.info().await.gate_waiting == all).then_some(())
    })
    .await;
    assert_eq!(photograph(&world.workspace), before);
    assert_eq!(photograph(&world.outside), outside_before);

    world.set_gate(true).await;
    for (name, id, after) in started {
        let done = world.client.output(id, 0, true).await;
        assert_eq!(done.code(), Some(0), "{name}: {done:?}");
        let mut check = sh(after);
        check.cwd = Some(format!("{ws}/{name}"));
        let checked = world.client.run(&check).await;
        assert_eq!(checked.code(), Some(0), "{name} left no trace: {checked:?}");
    }
    assert_eq!(world.info().await.gate_waiting, 0);
}

/// F53: all threads of a program wait, each by itself, and the program lives on.
#[tokio::test(flavor = "multi_thread")]
async fn threads_wait_one_by_one() {
    let world = World::shut().await;
    let ws = world.workspace.display().to_string();
    let status = world.client.start(&command(&[poke().to_str().unwrap(), "threads", &ws, "16"])).await;
    world.wait_for_waiting(16).await;
    assert_eq!(std::fs::read_dir(&world.workspace).unwrap().count(), 0);
    world.set_gate(true).await;
    assert_eq!(world.client.wait(status.id).await.exit.unwrap().code, Some(0));
    assert_eq!(std::fs::read_dir(&world.workspace).unwrap().count(), 16);
}

/// F53: reading, and writing elsewhere, need not wait.
#[tokio::test(flavor = "multi_thread")]
async fn reads_and_other_places_pass() {
    let world = World::shut().await;
    let out = world.outside.display().to_string();
    git(&world.workspace, &["init", "-q"]);
    for n in 0..20 {
        world.write(&format!("src/{n}.txt"), &format!("needle {n}\n"));
    }
    git(&world.workspace, &["add", "."]);
    git(&world.workspace, &["commit", "-qm", "one"]);
    world.write("src/1.txt", "changed\n");
    std::fs::write(world.outside.join("target"), "t").unwrap();
    std::os::unix::fs::symlink(world.outside.join("target"), world.workspace.join("out-link")).unwrap();
    std::os::unix::fs::symlink(&world.outside, world.workspace.join("out-dir")).unwrap();
    let poke = poke().display().to_string();
    let before = photograph(&world.workspace);
    for script in [
        "ls -laR",
        "cat src/0.txt",
        "grep -r needle .",
        "find . -type f",
        "git status --porcelain | grep -q 1.txt",
        "git log -p | grep -q needle",
        "git diff | grep -q changed",
        "git show HEAD:src/2.txt",
        "echo x > /dev/null",
        "echo x > /dev/stdout",
        "echo x > /dev/fd/1",
        "echo x > /proc/self/fd/2",
        "t=$(mktemp) && echo x > $t && rm $t",
        "test ! -w /nonexistent/x; ! mkdir /nonexistent/x",
        &format!("mkdir -p {out}/a/b && echo x > {out}/a/b/c && mv {out}/a {out}/b && rm -r {out}/b"),
        &format!(
            "cd {out} && echo x > rel && chmod 600 rel && ln rel rel2 && rm rel2 && touch rel && ln -sf rel l"
        ),
        // The link is in the workspace; what changes is not.
        "echo x > out-link && grep -q x out-link",
        "echo x > out-dir/new && rm out-dir/new",
        &format!("{poke} bind {out}/sock"),
        &format!("{poke} reopen {out}/target self"),
    ] {
        let done = world.client.sh(script).await;
        assert_eq!(done.code(), Some(0), "{script}: {done:?}");
        assert_eq!(world.info().await.gate_waiting, 0, "{script}");
    }
    assert_eq!(photograph(&world.workspace), before);
}

/// What belongs to the environment, as git's own sync does, does not wait; what runs beside it does.
#[tokio::test(flavor = "multi_thread")]
async fn an_ungated_command_writes_while_the_gate_is_shut() {
    let world = World::shut().await;
    let environment = ExecRequest { ungated: true, ..sh("echo ready > state; echo done") };
    assert_eq!(world.client.run(&environment).await.stdout, "done\n");
    assert_eq!(world.read("state"), "ready\n");
    let waits = sh("echo mine > state");
    world.client.start(&waits).await;
    world.wait_for_waiting(1).await;
    assert_eq!(world.read("state"), "ready\n");
    world.set_gate(true).await;
    assert_eq!(world.client.wait(waits.id).await.exit.and_then(|e| e.code), Some(0));
}

/// F53: the ways around a filter on paths do not exist for a gated process.
#[tokio::test(flavor = "multi_thread")]
async fn ways_around_are_refused() {
    let world = World::shut().await;
    let poke = poke().display().to_string();
    let mut cases = vec![("io_uring", libc::ENOSYS), ("openat2 x", libc::ENOSYS), ("handle", libc::EPERM)];
    if cfg!(target_arch = "x86_64") {
        cases.push(("x32", libc::ENOSYS));
    }
    for (case, errno) in cases {
        let done = world.client.sh(&format!("{poke} {case}")).await;
        assert_eq!(done.stdout, format!("errno {errno}\n"), "{case}");
    }
    // And they do exist afterwards, as far as the kernel has them.
    world.set_gate(true).await;
    let done = world.client.sh(&format!("{poke} openat2 x")).await;
    assert_eq!(done.stdout, "ok\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_only_for_what_starts_while_shut() {
    let world = World::shut().await;
    let status = || async { world.client.run(&command(&[poke().to_str().unwrap(), "status"])).await.stdout };
    assert!(status().await.contains("Seccomp:\t2"));
    world.set_gate(true).await;
    let after = status().await;
    assert!(after.contains("Seccomp:\t0") && after.contains("NoNewPrivs:\t0"), "{after}");
}

/// One shell across the gate: waits, goes on, and is held again when the gate shuts again.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_from_before_goes_on_writing() {
    let world = World::shut().await;
    let mut request = sh("while read line; do echo $line > $line; echo did $line; done");
    request.stdin = true;
    let id = world.client.start(&request).await.id;
    let did = |n: u64| {
        let client = &world.client;
        async move {
            wait_for("output", || async { (client.status(id).await.output_bytes >= n).then_some(()) }).await;
        }
    };
    world.client.input(id, "a\n", false).await;
    world.wait_for_waiting(1).await;
    world.set_gate(true).await;
    did(6).await;
    world.client.input(id, "b\n", false).await;
    did(12).await;
    world.set_gate(false).await;
    world.client.input(id, "c\n", true).await;
    world.wait_for_waiting(1).await;
    assert!(!world.workspace.join("c").exists());
    world.set_gate(true).await;
    assert_eq!(world.client.wait(id).await.exit.unwrap().code, Some(0));
    assert_eq!(world.read("c"), "c\n");
}

/// A wait at the gate can be ended by signals, as any other wait.
#[tokio::test(flavor = "multi_thread")]
async fn signals_end_a_wait() {
    let world = World::shut().await;
    for (signal, number) in [("KILL", libc::SIGKILL), ("TERM", libc::SIGTERM), ("INT", libc::SIGINT)] {
        let id = world.client.start(&command(&["touch", "f"])).await.id;
        world.wait_for_waiting(1).await;
        world.client.signal(id, signal).await;
        assert_eq!(world.client.wait(id).await.exit.unwrap().signal, Some(number));
        world.wait_for_waiting(0).await;
    }
    let id = world.client.start(&command(&[poke().to_str().unwrap(), "interrupted", "f"])).await.id;
    world.wait_for_waiting(1).await;
    world.client.signal(id, "USR1").await;
    let done = world.client.output(id, 0, true).await;
    assert_eq!(done.code(), Some(0), "{done:?}");
    // Stopped and continued it waits on, and goes through once only.
    let id = world.client.start(&command(&["touch", "g"])).await.id;
    world.wait_for_waiting(1).await;
    world.client.signal(id, "STOP").await;
    world.client.signal(id, "CONT").await;
    world.wait_for_waiting(1).await;
    assert!(!world.workspace.join("g").exists());
    world.set_gate(true).await;
    assert_eq!(world.client.wait(id).await.exit.unwrap().code, Some(0));
    assert!(!world.workspace.join("f").exists());
    assert!(world.workspace.join("g").exists());
}

/// Commands with a time limit that wait at the gate end in time (F54).
#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_a_wait() {
    let world = World::shut().await;
    let mut request = command(&["touch", "f"]);
    request.timeout_ms = Some(100);
    let done = world.client.run(&request).await.exit.unwrap();
    assert!(done.timed_out && done.signal == Some(libc::SIGTERM), "{done:?}");
    assert!(!world.workspace.join("f").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_waits_too() {
    let world = World::shut().await;
    let ws = world.workspace.display().to_string();
    let out = world.outside.display().to_string();
    std::os::unix::fs::symlink(&world.workspace, world.outside.join("into")).unwrap();
    for path in ["f".to_owned(), format!("{ws}/a/b"), format!("{out}/into/f"), format!("{out}/into/new/f")] {
        let response =
            world.client.send(Method::PUT, &format!("/v1/file?path={path}&gate_wait_ms=30"), "x").await;
        assert_eq!(response.status(), 423, "{path}");
        let error: AgentError = serde_json::from_slice(&Client::body(response).await).unwrap();
        assert_eq!(error.kind, "conflict");
    }
    let response = world.client.send(Method::DELETE, "/v1/file?path=f", "").await;
    assert_eq!(response.status(), 423);
    assert_eq!(std::fs::read_dir(&world.workspace).unwrap().count(), 0);
    let response = world.client.send(Method::PUT, &format!("/v1/file?path={out}/new/f"), "x").await;
    assert_eq!(response.status(), 204);
    let client = world.client.clone();
    let waiting = tokio::spawn(async move {
        client.send(Method::PUT, "/v1/file?path=f&gate_wait_ms=20000", "waited").await.status()
    });
    tokio::time::timeout(Duration::from_millis(50), async {
        while !waiting.is_finished() {
            tokio::task::yield_now().await
        }
    })
    .await
    .expect_err("the write did not wait");
    world.set_gate(true).await;
    assert_eq!(waiting.await.unwrap(), 204);
    assert_eq!(world.read("f"), "waited");
}

/// A workspace that is reached through a link, or that does not exist yet, is guarded as well.
#[tokio::test(flavor = "multi_thread")]
async fn a_linked_or_missing_workspace() {
    let world = World::shut().await;
    let real = world.dir.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::remove_dir(&world.workspace).unwrap();
    let make = format!("mkdir {}", world.workspace.display());
    let (first, second) = (sh(&make), sh(&format!("echo x > {}/f", real.display())));
    let first = world.client.start(&first).await.id;
    world.wait_for_waiting(1).await;
    world.client.signal(first, "KILL").await;
    world.wait_for_waiting(0).await;
    std::os::unix::fs::symlink(&real, &world.workspace).unwrap();
    let id = world.client.start(&second).await.id;
    let moving = world.client.start(&sh(&format!("mv {0} {0}.away", world.dir.path().display()))).await.id;
    world.wait_for_waiting(2).await;
    world.client.signal(moving, "KILL").await;
    world.client.wait(moving).await;
    world.set_gate(true).await;
    assert_eq!(world.client.wait(id).await.exit.unwrap().code, Some(0));
}

/// A command that could not start takes nothing from the next one's gate, and nothing is left of any.
#[tokio::test(flavor = "multi_thread")]
async fn failed_starts_and_many_starts_leave_nothing() {
    let world = World::shut().await;
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", world.agent_pid())).unwrap().count();
    let kept = command(&["touch", "first"]);
    world.client.start(&kept).await;
    world.wait_for_waiting(1).await;
    let before = descriptors();
    for _ in 0..30 {
        let (status, _) = world.client.post_err("/v1/exec", &command(&["no-such-program"])).await;
        assert_eq!(status, 422);
        assert_eq!(world.client.run(&command(&["true"])).await.code(), Some(0));
    }
    let id = world.client.start(&command(&["touch", "second"])).await.id;
    world.wait_for_waiting(2).await;
    world.set_gate(true).await;
    for id in [kept.id, id] {
        assert_eq!(world.client.wait(id).await.exit.unwrap().code, Some(0));
    }
    wait_for("listeners to be closed", || async { (descriptors() <= before).then_some(()) }).await;
}

/// Children come and go, signals rain on the agent, and not one wait is lost.
#[tokio::test(flavor = "multi_thread")]
async fn no_wait_is_lost_in_a_storm() {
    let world = World::shut().await;
    const WRITERS: u32 = 24;
    for round in 0..4 {
        let storm: Vec<_> = (0..6)
            .map(|_| {
                let client = world.client.clone();
                tokio::spawn(async move {
                    for _ in 0..40 {
                        assert_eq!(client.run(&command(&["true"])).await.code(), Some(0));
                    }
                })
            })
            .collect();
        let mut writers = Vec::new();
        for n in 0..WRITERS {
            let elsewhere = world.outside.join(n.to_string());
            let script = format!(
                "for i in 1 2 3 4 5; do echo x > {}; done; echo x > {round}-{n}",
                elsewhere.display()
            );
            writers.push(world.client.start(&sh(&script)).await.id);
        }
        for calm in storm {
            calm.await.unwrap();
        }
        world.wait_for_waiting(WRITERS).await;
        world.set_gate(true).await;
        for id in writers {
            assert_eq!(world.client.output(id, 0, true).await.code(), Some(0));
        }
        world.set_gate(false).await;
    }
}
