//! `hotbed top` and `hotbed events`, the real program against a whole server; the first on a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Setup, World, id};

fn hotbed() -> PathBuf {
    let exe = std::env::current_exe().expect("this executable");
    let path = exe.parent().and_then(|deps| deps.parent()).expect("a profile's directory").join("hotbed");
    assert!(path.exists(), "there is no {}: run `make build` first", path.display());
    path
}

/// The program with where a server is.
fn command(address: &str, key: &str, wrapped: &[&str]) -> Command {
    let mut parts = wrapped.iter().map(PathBuf::from).chain([hotbed()]);
    let mut command = Command::new(parts.next().expect("a program"));
    command.args(parts).args(["--address", address]).env("HOTBED_KEY", key);
    for name in ["HOTBED_ADDRESS", "HOTBED_CONFIG", "HOTBED_CA"] {
        command.env_remove(name);
    }
    command.env("TERM", "xterm-256color").stdin(Stdio::null());
    command
}

async fn run(w: &World, key: &str, args: &[&str]) -> (i32, String) {
    let mut command = command(&w.client().address, key, &[]);
    command.args(args);
    let ended = tokio::task::spawn_blocking(move || command.output()).await.expect("a thread");
    let Output { status, stdout, stderr } = ended.expect("run hotbed");
    let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    (status.code().unwrap_or(-1), text)
}

#[test]
fn one_picture_is_printed_for_scripts() {
    World::with(Setup::pool(2), async |w| {
        let own = w.app().api_key.clone();
        let view = w.session().await;
        w.synced(&view).await;
        let (code, text) = run(w, &own, &["top", "--once"]).await;
        assert_eq!(code, 0, "{text}");
        for word in ["acme/api", "1 active", "IMAGE AGE", "hit rate 100 %", "cpus"] {
            assert!(text.contains(word), "`{word}`: {text}");
        }
        let (code, text) = run(w, &own, &["top", "--once", "--pane", "sessions"]).await;
        assert!(code == 0 && text.contains(id(&view)) && text.contains("ada"), "{text}");

        // A key that may not see the installation sees its repos.
        let key = json!({"name": "api", "role": "read-only", "repos": ["acme/api"]});
        let key = w.post("/v1/keys", &key).await.expect(201).field("key");
        let (code, text) = run(w, &key, &["top", "--once"]).await;
        assert!(code == 0 && text.contains("acme/api") && text.contains("not for this key"), "{text}");
        let (code, text) = run(w, "hbk_wrong", &["top", "--once"]).await;
        assert!(code == 1 && text.contains("not known here"), "{text}");

        let (code, text) = run(w, &own, &["events", "--session", id(&view)]).await;
        assert!(code == 0 && text.lines().count() == 2 && text.contains("session_ready"), "{text}");
        let (code, text) = run(w, &own, &["events", "--json", "--kind", "session_started"]).await;
        let event: serde_json::Value = serde_json::from_str(text.trim()).expect("JSON");
        assert_eq!((code, &event["session"]), (0, &json!(id(&view))));
        let (code, text) = run(w, &own, &["events", "--kind", "nothing"]).await;
        assert!(code == 1 && text.contains("expected one of"), "{text}");
    });
}

/// The side of a terminal that a person sits at.
struct Screen {
    near: File,
    far: OwnedFd,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    fn open(rows: u16, cols: u16) -> Self {
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&near).expect("grant");
        unlockpt(&near).expect("unlock");
        let name = ptsname(&near, Vec::new()).expect("its name");
        let path = name.to_str().expect("its name").to_owned();
        let far = File::options().read(true).write(true).open(path).expect("its other side");
        let screen = Self { near: File::from(near), far: far.into(), shown: Arc::default() };
        screen.resize(rows, cols);
        let (mut from, shown) = (screen.near.try_clone().expect("clone"), screen.shown.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = from.read(&mut buffer)
                && n > 0
            {
                shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..n]);
            }
        });
        screen
    }

    fn resize(&self, rows: u16, cols: u16) {
        let size = Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.near, size).expect("a size");
    }

    fn press(&mut self, keys: &str) {
        self.near.write_all(keys.as_bytes()).expect("press");
    }

    /// What was shown since it was last cleared.
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn clear(&self) {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn side(&self) -> Stdio {
        Stdio::from(self.far.try_clone().expect("clone"))
    }
}

/// One address for a server that has another after each start, and for none at all.
struct Door {
    address: String,
    to: Arc<Mutex<String>>,
}

impl Door {
    async fn open(to: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address").to_string();
        let door = Self { address, to: Arc::new(Mutex::new(to.to_owned())) };
        let to = door.to.clone();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let to = to.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(async move {
                    // Whoever is not there is what this is for.
                    let Ok(mut server) = TcpStream::connect(&to).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        door
    }

    fn leads_to(&self, address: &str) {
        address.clone_into(&mut self.to.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

#[test]
fn it_lives_on_a_terminal_and_gives_it_back() {
    World::with(Setup::pool(1), async |w| {
        let own = w.app().api_key.clone();
        let mut screen = Screen::open(30, 120);
        let before = tcgetattr(&screen.far).expect("modes").local_modes;
        assert!(before.contains(LocalModes::ECHO | LocalModes::ICANON));
        // In a session of its own, with that terminal as its own: so a new size reaches it.
        let door = Door::open(&w.client().address).await;
        let mut child = command(&door.address, &own, &["setsid", "--ctty", "--wait"])
            .args(["top", "--interval", "0.2"])
            .stdin(screen.side())
            .stdout(screen.side())
            .stderr(screen.side())
            .spawn()
            .expect("run hotbed");
        w.wait_for("it is drawn", || screen.text().contains("acme/api")).await;
        let raw = tcgetattr(&screen.far).expect("modes").local_modes;
        assert!(!raw.intersects(LocalModes::ECHO | LocalModes::ICANON), "keys are read one by one");

        screen.clear();
        screen.press("2");
        w.wait_for("sessions are shown", || screen.text().contains("LAUNCH")).await;
        // A new size is drawn whole.
        screen.clear();
        screen.resize(20, 100);
        w.wait_for("it is drawn anew", || screen.text().contains("hotbed")).await;
        // It goes on without its server, and says so; and with it again.
        door.leads_to("127.0.0.1:1");
        w.app().stop.cancel();
        w.wait_for("it says so", || screen.text().contains("unreachable")).await;
        w.restart().await;
        let view = w.session().await;
        assert!(!screen.text().contains(id(&view)));
        door.leads_to(&w.client().address);
        w.wait_for("it has found it again", || screen.text().contains(id(&view))).await;
        screen.clear();
        screen.resize(22, 100);
        w.wait_for("it is drawn anew", || screen.text().contains("hotbed")).await;
        assert!(!screen.text().contains("unreachable"), "{}", screen.text());
        w.synced(&view).await;
        screen.press("q");
        let status =
            tokio::task::spawn_blocking(move || child.wait()).await.expect("a thread").expect("its end");
        assert!(status.success(), "{status}");
        w.wait_for("the screen is given back", || {
            screen.text().contains("\u{1b}[?1049l") && screen.text().contains("\u{1b}[?25h")
        })
        .await;
        assert_eq!(tcgetattr(&screen.far).expect("modes").local_modes, before);
    });
}

/// Followed from one server to the next: nothing twice, and what can't be known is said to be lost.
#[test]
fn events_are_followed_through_a_restart() {
    World::with(Setup::pool(1), async |w| {
        let door = Door::open(&w.client().address).await;
        let mut command = tokio::process::Command::from(command(&door.address, &w.app().api_key, &[]));
        command.args(["events", "--follow", "--json", "--kind", "session_started"]);
        let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("run hotbed");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let mut told = async || {
            let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
            line.expect("something is told").expect("read").expect("it goes on")
        };

        let first = w.session().await;
        let line = told().await;
        assert!(line.contains(id(&first)) && line.contains("session_started"), "{line}");
        w.synced(&first).await;
        w.end(&first).await;
        door.leads_to("127.0.0.1:1");
        w.restart().await;
        door.leads_to(&w.client().address);
        let second = w.session().await;
        let mut since = vec![told().await];
        while !since.last().is_some_and(|line| line.contains(id(&second))) {
            since.push(told().await);
        }
        assert!(since[0].starts_with("{\"lost\":{\"after\":"), "{since:?}");
        assert!(since.iter().all(|line| !line.contains(id(&first))), "{since:?}");
        w.synced(&second).await;
        child.kill().await.expect("end it");
    });
}
