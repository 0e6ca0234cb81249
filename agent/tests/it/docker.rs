//! Under a real engine, as little as a sandbox may have: an image with one program in it, the engine's default
//! system call filter, no capability, no new privileges, no network. The agent is the first process.

use std::path::{Path, PathBuf};
use std::process::{Command, Output as Done};
use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::SandboxId;
use domain::wire::{Boot, ConnectionKind, Hello, TermSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::harness::{Client, command, ok, read_line, wait_for, welcome};

fn docker(args: &[&str]) -> Done {
    Command::new("docker").args(args).output().unwrap()
}

fn must(args: &[&str]) -> String {
    let done = docker(args);
    assert!(done.status.success(), "docker {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// The agent and the helper without a loader or a libc to look for.
fn build_static() -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let done = Command::new(env!("CARGO"))
        .current_dir(root)
        .args([
            "build",
            "-q",
            "-p",
            "agent",
            "--bin",
            "hotbed-agent",
            "--example",
            "poke",
            "--target",
            &triple,
        ])
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let exe = Path::new(env!("CARGO_BIN_EXE_hotbed-agent"));
    let target = exe.parent().unwrap().parent().unwrap();
    target.join(triple).join("debug")
}

/// Removes what the test made, however it ends.
struct Cleanup {
    container: String,
    image: String,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        docker(&["rm", "-f", &self.container]);
        docker(&["rmi", "-f", &self.image]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_process_of_an_empty_image_without_any_privilege() {
    let answers = Command::new("docker").arg("version").output().is_ok_and(|o| o.status.success());
    assert!(answers, "no docker daemon answers: `make setup` starts one");
    let built = build_static();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for made in ["image/bin", "image/workspace", "image/elsewhere", "run/self"] {
        std::fs::create_dir_all(at(made)).unwrap();
    }
    std::fs::copy(built.join("examples/poke"), at("image/bin/poke")).unwrap();
    std::fs::write(at("image/workspace/old"), "old").unwrap();
    std::fs::copy(built.join("hotbed-agent"), at("run/hotbed-agent")).unwrap();
    let boot = Boot {
        sandbox: SandboxId::new(),
        token: "the-token".into(),
        dial: "unix:/run/hotbed/hotbed.sock".into(),
        workspace: "/workspace".into(),
        gate_open: false,
        relay_port: 7071,
        session_dir: "/run/hotbed-session".into(),
        env: Default::default(),
    };
    std::fs::write(at("run/self/boot.json"), serde_json::to_vec(&boot).unwrap()).unwrap();
    let listener = UnixListener::bind(at("run/hotbed.sock")).unwrap();
    let (to, mut controls) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let to = Arc::new(to);
        while let Ok((mut socket, _)) = listener.accept().await {
            let to = Arc::clone(&to);
            tokio::spawn(async move {
                let hello: Hello = serde_json::from_str(&read_line(&mut socket).await).unwrap();
                if hello.kind == ConnectionKind::Control {
                    return drop(to.send((hello, socket)));
                }
                welcome(&mut socket, &ok()).await;
                let mut all = Vec::new();
                socket.read_to_end(&mut all).await.unwrap();
                socket.write_all(&[b"relayed ", &all[..]].concat()).await.unwrap();
            });
        }
    });

    let name = format!("hotbed-agent-test-{}", boot.sandbox);
    let _cleanup = Cleanup { container: name.clone(), image: name.clone() };
    let tar = at("image.tar");
    let packed =
        Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(at("image")).arg(".").status().unwrap();
    assert!(packed.success());
    must(&["import", tar.to_str().unwrap(), &name]);
    let mount = format!("{}:/run/hotbed", at("run").display());
    let started = Instant::now();
    must(&[
        "run",
        "-d",
        "--name",
        &name,
        "--cap-drop",
        "ALL",
        "--security-opt",
        "no-new-privileges",
        "--network",
        "none",
        "-v",
        &mount,
        &name,
        "/run/hotbed/hotbed-agent",
    ]);
    let client = Client::accept(&mut controls).await;
    println!("docker run to hello: {:?}", started.elapsed());
    let info: domain::wire::AgentInfo = client.get("/v1/info").await;
    println!("resident in the container (debug build): {} bytes", info.rss_bytes);
    assert_eq!((info.sandbox, info.gate_open), (boot.sandbox, false));
    let poke = |args: &[&str]| {
        let argv: Vec<String> =
            std::iter::once("/bin/poke").chain(args.iter().copied()).map(Into::into).collect();
        let client = client.clone();
        async move { client.run(&command(&argv)).await }
    };

    // F53: the gate works here, too.
    let writers = [
        command(&["/bin/poke", "write", "new"]),
        command(&["/bin/poke", "mmap", "old"]),
        command(&["/bin/poke", "mknod", "/workspace/pipe"]),
        command(&["/bin/poke", "reopen", "old", "self"]),
    ];
    for writer in &writers {
        client.start(writer).await;
    }
    wait_for("all writers at the gate", || async {
        (client.get::<domain::wire::AgentInfo>("/v1/info").await.gate_waiting == 4).then_some(())
    })
    .await;
    assert_eq!(poke(&["read", "old"]).await.stdout, "old\nok\n");
    assert_eq!(poke(&["write", "/elsewhere/f"]).await.code(), Some(0));
    assert_eq!(poke(&["io_uring"]).await.stdout, format!("errno {}\n", libc::ENOSYS));
    client.post_ok("/v1/gate", &domain::wire::SetGate { open: true }).await;
    for writer in &writers {
        assert_eq!(client.output(writer.id, 0, true).await.code(), Some(0), "{:?}", writer.argv);
    }
    assert_eq!(poke(&["read", "old"]).await.stdout, "xld\nok\n");

    // The token is in the first process, out of reach of the session.
    let spied = poke(&["spy", "1"]).await.stdout;
    assert_eq!(spied, "environ false\nmem false\nfd/0 false\ncwd false\nexe false\n");
    // The relay needs no network.
    assert_eq!(poke(&["connect", "7071"]).await.stdout, "relayed hello\n");
    // Output spills without a /tmp to spill to.
    assert_eq!(poke(&["print", "1000"]).await.bytes, 1000 * 4096 + 3);
    let mut on_terminal = command(&["/bin/poke", "status"]);
    on_terminal.tty = Some(TermSize { rows: 24, cols: 80 });
    let terminal = client.run(&on_terminal).await;
    assert_eq!(terminal.code(), Some(0), "{terminal:?}");
    // The first process collects orphans.
    let orphan = poke(&["orphan"]).await.stdout.lines().next().unwrap().to_owned();
    wait_for("the orphan to be collected", || async {
        (poke(&["read", &format!("/proc/{orphan}/status")]).await.code() != Some(0)).then_some(())
    })
    .await;

    // Told to end, it ends its children and itself.
    client.start(&command(&["/bin/poke", "sleep"])).await;
    let stopping = Instant::now();
    must(&["stop", "-t", "10", &name]);
    assert!(stopping.elapsed() < Duration::from_secs(5), "{:?}", stopping.elapsed());
    assert_eq!(must(&["inspect", "-f", "{{.State.ExitCode}}", &name]), "0");
}
