//! What is shipped, as somebody gets it: the unit with its socket, the Debian package on a machine that has nothing, the
//! image with its compose file beside the engine.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::world::{Engine, PATIENCE, base_cache, free_address, hotbed_in, terminate, wait_within};
use super::{on_docker, shared};

/// Of systemd's own measure, 0 to 10: what is over it is a step back.
const EXPOSURE: &str = "20";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

#[track_caller]
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {err}{out}");
    out.into_owned()
}

/// `hotbed` as it is packed: without what a debugger wants.
fn stripped(dir: &Path) -> PathBuf {
    let (whole, to) = (hotbed_in(dir), dir.join("packed/hotbed"));
    std::fs::create_dir_all(dir.join("packed")).expect("make a directory");
    said(Command::new("strip").arg("-o").arg(&to).arg(whole));
    to
}

fn package(dir: &Path) -> PathBuf {
    let path = said(Command::new(root().join("scripts/build-deb")).arg(stripped(dir)).arg(dir.join("deb")));
    PathBuf::from(path.trim())
}

/// An image of a small Debian, for as long as this lives; what runs of it is removed with it.
struct Debian {
    engine: Engine,
    image: String,
}

impl Debian {
    /// Of the smallest base that is kept; the shared World has made one, if nobody did before.
    async fn new(name: &str) -> Self {
        shared().await;
        let bases = std::fs::read_dir(base_cache()).expect("the bases").filter_map(|e| Some(e.ok()?.path()));
        let base = bases.min_by_key(|p| p.metadata().map_or(u64::MAX, |m| m.len())).expect("a base");
        let engine = Engine::default();
        let image = format!("hotbed-test-{name}-{}:base", std::process::id());
        engine.run(&["import", &base.display().to_string(), &image]);
        Self { engine, image }
    }

    /// A container that waits for commands.
    fn start(&self, name: &str) -> Machine<'_> {
        self.engine.run(&["run", "-d", "--name", name, &self.image, "sleep", "infinity"]);
        Machine { debian: self, name: name.to_owned() }
    }
}

impl Drop for Debian {
    fn drop(&mut self) {
        self.engine.try_run(&["rmi", "-f", &self.image]);
    }
}

struct Machine<'a> {
    debian: &'a Debian,
    name: String,
}

impl Machine<'_> {
    #[track_caller]
    fn run(&self, script: &str) -> String {
        let environment = "DEBIAN_FRONTEND=noninteractive";
        self.debian
            .engine
            .run(&["exec", "-e", environment, &self.name, "sh", "-euc", script])
            .trim()
            .to_owned()
    }
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.debian.engine.try_run(&["rm", "-f", "-v", &self.name]);
    }
}

#[test]
fn the_package_on_a_machine_that_has_nothing() {
    on_docker(async {
        let dir = tempfile::tempdir().expect("directory");
        let deb = package(dir.path());
        the_unit_is_right_and_closed(&deb, &dir.path().join("root"));

        let debian = Debian::new("package").await;
        let machine = debian.start(&format!("hotbed-test-package-{}", std::process::id()));
        debian.engine.run(&["cp", &deb.display().to_string(), &format!("{}:/hotbed.deb", machine.name)]);
        machine.run("groupadd --system docker; apt-get update -q; apt-get install -y -q --no-install-recommends /hotbed.deb");
        assert_eq!(machine.run("hotbed --version"), format!("hotbed {}", env!("CARGO_PKG_VERSION")));
        assert_eq!(machine.run("stat -c '%U:%G %a' /etc/hotbed/hotbed.yaml"), "root:hotbed 640");
        assert_eq!(machine.run("id -nG hotbed"), "hotbed docker");
        // What it came with is right, and the user that it runs as may read it.
        machine.run("setpriv --reuid hotbed --regid hotbed --init-groups hotbed config check");
        // A new version keeps what was set, and at the end the state stays.
        machine.run("sed -i s/7070/7171/ /etc/hotbed/hotbed.yaml; dpkg -i /hotbed.deb; grep -q 7171 /etc/hotbed/hotbed.yaml");
        machine.run("mkdir -p /var/lib/hotbed; echo kept >/var/lib/hotbed/state; dpkg --purge hotbed");
        assert_eq!(
            machine.run("cat /var/lib/hotbed/state; ls /etc/hotbed /usr/bin/hotbed 2>/dev/null || true"),
            "kept"
        );
    });
}

/// The unit and its socket as the package brings them, by systemd's own checkers.
fn the_unit_is_right_and_closed(deb: &Path, root: &Path) {
    said(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root));
    let unit = |name: &str| {
        let found = ["usr/lib", "lib"].map(|lib| root.join(lib).join("systemd/system").join(name));
        found.into_iter().find(|p| p.exists()).unwrap_or_else(|| panic!("no {name} in the package"))
    };
    // Where the unit looks for it.
    let text = std::fs::read_to_string(unit("hotbed.service")).expect("the unit");
    let binary = text.lines().find_map(|l| l.strip_prefix("ExecStart=/")).expect("ExecStart");
    assert!(root.join(binary.split(' ').next().expect("a path")).exists(), "{binary}");
    // What the unit calls besides is not of this package.
    std::fs::create_dir_all(root.join("bin")).expect("make a directory");
    std::fs::copy("/bin/true", root.join("bin/kill")).expect("copy");
    for page in ["installing", "runbook", "upgrading", "configuration"] {
        assert!(root.join(format!("usr/share/doc/hotbed/{page}.md")).exists(), "no page {page}");
    }
    for name in ["hotbed.service", "hotbed.socket"] {
        let mut verify = Command::new("systemd-analyze");
        verify
            .arg("verify")
            .arg("--man=no")
            .arg("--recursive-errors=no")
            .arg(format!("--root={}", root.display()))
            .arg(name);
        let output = verify.output().expect("systemd-analyze");
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !complaints.contains(name), "{complaints}");
    }
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]);
    said(security.arg(format!("--root={}", root.display())).arg("hotbed.service"));
}

/// systemd holds the address: who comes before Hotbed is up waits, and is answered. It hears when Hotbed is ready, also
/// where the engine is away.
#[test]
fn the_socket_is_handed_over() {
    let dir = tempfile::tempdir().expect("directory");
    let (config, socket) = (dir.path().join("hotbed.yaml"), dir.path().join("api.sock"));
    let not_bound = free_address();
    let settings = serde_json::json!({
        "listen": not_bound.to_string(),
        "state_dir": dir.path().join("state"),
        "backend": {"docker": {"host": format!("unix://{}", dir.path().join("no-engine.sock").display())}},
        "repos": [],
    });
    std::fs::write(&config, settings.to_string()).expect("write");
    let told = dir.path().join("told.sock");
    let notices = UnixDatagram::bind(&told).expect("bind");
    notices.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut server = Command::new("systemd-socket-activate");
    server
        .arg(format!("--listen={}", socket.display()))
        .arg(format!("--setenv=NOTIFY_SOCKET={}", told.display()));
    server.arg(hotbed_in(dir.path())).arg("--config").arg(&config).arg("serve");
    let server = server.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("systemd-socket-activate");

    let mut early = None;
    on_docker(async {
        let begun = Instant::now();
        while early.is_none() {
            early = UnixStream::connect(&socket).ok();
            assert!(begun.elapsed() < PATIENCE, "nobody listens at {}", socket.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let mut early = early.expect("a connection");
    early.write_all(b"GET /healthz HTTP/1.1\r\nHost: hotbed\r\nConnection: close\r\n\r\n").expect("write");
    let mut answer = String::new();
    early.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(TcpListener::bind(not_bound).is_ok(), "`listen` is bound besides");

    let next = || {
        let mut buffer = [0; 256];
        let length = notices.recv(&mut buffer).expect("a word to systemd");
        String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
    };
    assert_eq!(next(), "READY=1");
    terminate(&server);
    assert_eq!(next(), "STOPPING=1");
    assert_eq!(wait_within(server, Duration::from_secs(60)).and_then(|s| s.code()), Some(0));
}

/// The compose file, with an image of the Dockerfile: up, healthy, reached from the machine, its key where the state is;
/// the whole job walked from inside it; down in good time.
#[test]
fn the_image_beside_the_engine() {
    on_docker(async {
        let debian = Debian::new("image").await;
        let engine = &debian.engine;
        let dir = tempfile::tempdir().expect("directory");
        let context = stripped(dir.path()).parent().expect("a directory").to_owned();
        let (project, image) = (
            format!("hotbed-test-{}", std::process::id()),
            format!("hotbed-test-compose-{}:built", std::process::id()),
        );
        let file = root().join("packaging/Dockerfile");
        let base = format!("BASE={}", debian.image);
        engine.run(&[
            "build",
            "-q",
            "-t",
            &image,
            "--build-arg",
            &base,
            "-f",
            &file.display().to_string(),
            &context.display().to_string(),
        ]);

        let address = free_address();
        let state = dir.path().join("state");
        let config = dir.path().join("hotbed.yaml");
        let shipped =
            std::fs::read_to_string(root().join("packaging/hotbed.yaml")).expect("the configuration");
        let ours = shipped
            .replace("127.0.0.1:7070", "0.0.0.0:7070")
            .replace("/var/lib/hotbed", &state.display().to_string());
        std::fs::write(&config, ours).expect("write");
        let composed = |args: &[&str]| {
            let mut command = Command::new("docker-compose");
            command.arg("-p").arg(&project).arg("-f").arg(root().join("packaging/compose.yaml"));
            command.env("HOTBED_IMAGE", &image).env("HOTBED_PORT", address.port().to_string());
            command.env("HOTBED_STATE", &state).env("HOTBED_CONFIG", &config);
            command.args(args);
            command
        };
        let compose = |args: &[&str]| said(&mut composed(args));
        let down = Finally(|| {
            let _ = composed(&["down", "-v", "-t", "30"]).output();
            engine.try_run(&["rmi", "-f", &image]);
        });
        compose(&["up", "-d"]);
        let container = compose(&["ps", "-q"]).trim().to_owned();
        let begun = Instant::now();
        loop {
            let health = engine.run(&["inspect", "-f", "{{.State.Health.Status}}", &container]);
            if health.trim() == "healthy" {
                break;
            }
            let log = || engine.try_run(&["logs", &container]);
            assert!(begun.elapsed() < PATIENCE, "{health}: {:?}", log());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let key = std::fs::read_to_string(state.join("api.key")).expect("the key");
        let client = orchestrator::client::Client::new(address.to_string(), key.trim());
        let who: Value = client.get("/v1/whoami").await.expect("an answer");
        assert_eq!(who["role"], "admin", "{who}");
        assert!(engine.run(&["exec", &container, "hotbed", "doctor"]).contains("engine"));

        compose(&["stop", "-t", "30"]);
        let code = engine.run(&["inspect", "-f", "{{.State.ExitCode}}", &container]);
        assert_eq!(code.trim(), "0", "{:?}", engine.try_run(&["logs", &container]));

        // A repository of the shared World's, on an image that has git.
        let demo = dir.path().join("demo");
        std::fs::create_dir_all(&demo).expect("make a directory");
        let (at, url) = (demo.display().to_string(), shared().await.url("acme/tree"));
        let walked = engine.run(&[
            "run",
            "--rm",
            "--network",
            "host",
            "-v",
            "/var/run/docker.sock:/var/run/docker.sock",
            "-v",
            &format!("{at}:{at}"),
            "-e",
            &format!("TMPDIR={at}"),
            &image,
            "demo",
            "--repo",
            &url,
            "--base",
            &debian.image,
        ]);
        assert!(walked.contains("claim to first read"), "{walked}");
        drop(down);
    });
}

/// Runs at the end, whatever came before it.
struct Finally<F: Fn()>(F);

impl<F: Fn()> Drop for Finally<F> {
    fn drop(&mut self) {
        self.0();
    }
}
