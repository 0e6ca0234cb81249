//! The connection home: hello, refusal, dialling again, and the relay.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::SandboxId;
use domain::wire::{Boot, ConnectionKind, Hello, PROTOCOL, Welcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};

use crate::harness::{
    Client, Options, PATIENCE, World, agent_binary, free_port, ok, read_line, wait_for, welcome,
};

#[tokio::test(flavor = "multi_thread")]
async fn version_says_the_protocol() {
    let out =
        std::process::Command::new(env!("CARGO_BIN_EXE_hotbed-agent")).arg("--version").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(text.trim(), format!("hotbed-agent {} protocol 1 min 1", env!("CARGO_PKG_VERSION")));
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_hotbed-agent"))
        .args(["--boot", "/no/such/file"])
        .output()
        .unwrap();
    assert!(!out.status.success());
    assert!(String::from_utf8_lossy(&out.stderr).contains("/no/such/file"));
}

/// A process that does not outlive the test, whatever happens.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No socket, refusals, garbage, a connection that breaks: it dials on, not in a hurry, and never ends.
#[tokio::test(flavor = "multi_thread")]
async fn it_dials_until_it_is_welcome() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let boot = Boot {
        sandbox: SandboxId::new(),
        token: "t".into(),
        dial: format!("unix:{}", socket.display()),
        workspace: dir.path().display().to_string(),
        gate_open: false,
        relay_port: free_port(),
        env: Default::default(),
        session_dir: dir.path().join("session").display().to_string(),
    };
    let file = dir.path().join("boot.json");
    std::fs::write(&file, serde_json::to_vec(&boot).unwrap()).unwrap();
    let spawned = std::process::Command::new(agent_binary())
        .arg("--boot")
        .arg(&file)
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut agent = Killed(spawned.unwrap());
    let listener = UnixListener::bind(&socket).unwrap();
    let started = Instant::now();
    for n in 0..5 {
        let (mut peer, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        let hello: Hello = serde_json::from_str(&read_line(&mut peer).await).unwrap();
        assert_eq!(
            (hello.protocol, hello.kind, hello.sandbox),
            (PROTOCOL, ConnectionKind::Control, boot.sandbox)
        );
        assert_eq!(hello.token, "t");
        match n {
            0 => drop(peer),
            1 => peer.write_all(b"garbage\n").await.unwrap(),
            2 => peer.write_all(&vec![b'x'; 10_000]).await.unwrap_or(()),
            3 => {
                welcome(&mut peer, &Welcome { ok: false, error: Some("not yet".into()), fatal: false }).await
            }
            _ => {
                welcome(&mut peer, &ok()).await;
                let client = Client::over(peer).await;
                assert_eq!(client.get::<domain::wire::AgentInfo>("/v1/info").await.sandbox, boot.sandbox);
                client.hang_up();
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
    // A connection that broke at once is tried again with the patience of before.
    let broken = Instant::now();
    let (mut peer, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    assert!(broken.elapsed() < Duration::from_millis(1500), "{:?}", broken.elapsed());
    read_line(&mut peer).await;
    welcome(&mut peer, &Welcome { ok: false, error: Some("revoked".into()), fatal: true }).await;
    // Fatal: it stays away for long, and stays alive.
    assert!(tokio::time::timeout(Duration::from_secs(2), listener.accept()).await.is_err());
    assert!(agent.0.try_wait().unwrap().is_none());
    // SAFETY: plain kill of a child that has not been collected.
    unsafe { libc::kill(agent.0.id() as i32, libc::SIGTERM) };
    assert!(agent.0.wait().unwrap().success());
}

/// The relay carries bytes both ways and closes each way by itself.
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_carries_and_half_closes() {
    let relay = Arc::new(|mut socket: tokio::net::UnixStream| {
        tokio::spawn(async move {
            let mut all = Vec::new();
            socket.read_to_end(&mut all).await.unwrap(); // ends when the other side has shut its half
            all.reverse();
            socket.write_all(&all).await.unwrap();
        });
    });
    let world = World::with(Options { relay: Some(relay), ..Options::default() }).await;
    let address = ("127.0.0.1", world.boot.relay_port);
    let mut tcp = wait_for("the relay's port", || async { TcpStream::connect(address).await.ok() }).await;
    let sent: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    tcp.write_all(&sent).await.unwrap();
    tcp.shutdown().await.unwrap();
    let mut back = Vec::new();
    tcp.read_to_end(&mut back).await.unwrap();
    back.reverse();
    assert_eq!(back, sent);
}
