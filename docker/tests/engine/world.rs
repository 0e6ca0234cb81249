//! One instance of Hotbed for one test: its own id, run directory and tiny base image; at the end nothing of it
//! may be left in the engine.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::Docker;
use bollard::query_parameters::{
    ListContainersOptions, ListImagesOptions, ListNetworksOptions, RemoveContainerOptions, RemoveImageOptions,
};
use docker::{DockerBackend, DockerConfig};
use domain::ports::{Backend, CaptureKind, CaptureSpec, ObservedPhase, ObservedSandbox, StartSandbox};
use domain::wire::Boot;
use domain::{Digest, InstanceId, Network, Resources, SandboxId};

/// In the boot file of every sandbox of these tests, and nowhere else.
pub const TOKEN: &str = "tok-must-not-leak-5d1c";

/// The first process of the sandboxes of these tests: it leaves a file that says it could read its boot file, and
/// waits. Static, because the base image is all but empty.
const AGENT: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char byte;
    if (argc > 1) {
        /* A step of a Dockerfile: it says its word and leaves a file; `fail` fails. */
        printf("said %s\n", argv[1]);
        if (argv[1][0] == 'f') return 3;
        return open("/ran", O_WRONLY | O_CREAT, 0644) < 0;
    }
    int boot = open("/run/hotbed/self/boot.json", O_RDONLY);
    int ok = boot >= 0 && read(boot, &byte, 1) == 1 && byte == '{';
    int out = open("/was-here", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (write(out, ok ? "boot read" : "no boot!!", 9) != 9) return 1;
    close(out);
    for (;;) pause();
}
"#;

/// Compiled once for all tests of this process.
pub fn agent() -> &'static Path {
    static AGENT_PATH: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = AGENT_PATH.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (source, path) = (dir.path().join("agent.c"), dir.path().join("agent"));
        std::fs::write(&source, AGENT).unwrap();
        let cc = Command::new("cc").args(["-static", "-O1", "-o"]).arg(&path).arg(&source).output();
        let cc = cc.expect("these tests need a C compiler: apt-get install gcc libc6-dev");
        assert!(cc.status.success(), "cc: {}", String::from_utf8_lossy(&cc.stderr));
        (dir, path)
    });
    path
}

pub struct World {
    pub config: DockerConfig,
    pub backend: DockerBackend,
    /// The daemon itself, to look and to meddle.
    pub raw: Docker,
    dir: tempfile::TempDir,
    ended: bool,
}

impl World {
    pub async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = DockerConfig::new(InstanceId::new(), [0x5a; 32], dir.path().join("run"));
        let backend = DockerBackend::connect(config.clone()).unwrap();
        if let Err(e) = backend.probe().await {
            panic!("these tests need a Docker daemon; run scripts/ensure-docker first ({})", e.chain());
        }
        std::fs::copy(agent(), backend.shared_dir().join("hotbed-agent")).unwrap();
        let raw = Docker::connect_with_host(&backend.host()).unwrap().negotiate_version().await.unwrap();
        Self { config, backend, raw, dir, ended: false }
    }

    /// A second client of the same instance, set up differently.
    pub fn another(&self, change: impl FnOnce(&mut DockerConfig)) -> DockerBackend {
        let mut config = self.config.clone();
        change(&mut config);
        DockerBackend::connect(config).unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn socket(&self) -> String {
        let host = self.backend.host();
        host.strip_prefix("unix://").expect("these tests need a daemon on a unix socket").to_owned()
    }

    /// A root filesystem of a few directories, as a tar file.
    pub fn tiny_tar(&self) -> PathBuf {
        let path = self.path("tiny.tar");
        let mut tar = tar::Builder::new(std::fs::File::create(&path).unwrap());
        for name in ["etc/", "tmp/", "run/", "dev/", "proc/", "sys/"] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty()).unwrap();
        }
        // No two worlds make the same layer.
        let text = self.config.instance.to_string();
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, "etc/world", text.as_bytes()).unwrap();
        tar.finish().unwrap();
        path
    }

    pub async fn base(&self) -> Digest {
        self.backend.import(self.tiny_tar(), &spec(CaptureKind::Base, "tiny")).await.unwrap().digest
    }

    pub fn wanted(&self, source: &Digest) -> StartSandbox {
        let id = SandboxId::new();
        StartSandbox {
            id,
            repo: "acme/api".parse().unwrap(),
            source: source.clone(),
            resources: Resources { cpu_millis: 500, memory: 64 << 20, pids: 32 },
            network: Network::None,
            boot: Boot {
                sandbox: id,
                token: TOKEN.into(),
                dial: "unix:/run/hotbed/hotbed.sock".into(),
                workspace: "/workspace".into(),
                gate_open: false,
                relay_port: 7071,
                session_dir: "/run/hotbed-session".into(),
                env: BTreeMap::new(),
            },
        }
    }

    pub async fn started(&self, source: &Digest) -> SandboxId {
        let wanted = self.wanted(source);
        self.backend.start(&wanted).await.unwrap();
        self.settled(wanted.id).await;
        wanted.id
    }

    /// Waits until the first process has written its file.
    pub async fn settled(&self, id: SandboxId) {
        wait_for("the first process to have written", || async move {
            self.file(id, "/was-here").await.is_some_and(|f| find(&f, b"boot read"))
        })
        .await;
    }

    /// A file of a container as the engine archives it.
    pub async fn file(&self, id: SandboxId, path: &str) -> Option<Vec<u8>> {
        use futures_util::TryStreamExt;
        let options = bollard::query_parameters::DownloadFromContainerOptions { path: path.to_owned() };
        let parts = self.raw.download_from_container(&name(id), Some(options));
        parts.try_collect::<Vec<_>>().await.ok().map(|parts| parts.concat())
    }

    pub async fn phase(&self, id: SandboxId) -> Option<ObservedPhase> {
        let list = self.backend.list().await.unwrap();
        list.into_iter().find(|s| s.id == id).map(|s: ObservedSandbox| s.phase)
    }

    pub async fn inspect(&self, id: SandboxId) -> bollard::models::ContainerInspectResponse {
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        self.raw.inspect_container(&name(id), options).await.unwrap()
    }

    /// The addresses that containers hold in a network.
    pub async fn held_in(&self, network: &str) -> BTreeSet<String> {
        let options = None::<bollard::query_parameters::InspectNetworkOptions>;
        let found = self.raw.inspect_network(network, options).await.unwrap().containers.unwrap_or_default();
        let address = |text: String| text.split('/').next().unwrap_or_default().to_owned();
        found.into_values().filter_map(|c| c.ipv4_address).map(address).collect()
    }

    /// Rules of the kernel's packet filter that name one of these addresses, as far as this process may read them.
    pub fn rules_about(&self, addresses: &BTreeSet<String>) -> Vec<String> {
        let Ok(read) = Command::new("iptables-save").output() else { return Vec::new() };
        let rules = String::from_utf8_lossy(&read.stdout).into_owned();
        let names = |rule: &&str| addresses.iter().any(|a| rule.contains(&format!("{a}/32")));
        rules.lines().filter(names).map(str::to_owned).collect()
    }

    fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".into(), vec![format!("hotbed.instance={}", self.config.instance)])])
    }

    /// Everything in the engine that carries this instance's label, ours or forged.
    pub async fn left(&self) -> Vec<String> {
        let filters = Some(self.filter());
        let containers = ListContainersOptions { all: true, filters: filters.clone(), ..Default::default() };
        let containers = self.raw.list_containers(Some(containers)).await.unwrap();
        let images = ListImagesOptions { all: true, filters: filters.clone(), ..Default::default() };
        let images = self.raw.list_images(Some(images)).await.unwrap();
        let networks = self.raw.list_networks(Some(ListNetworksOptions { filters })).await.unwrap();
        let containers = containers.into_iter().map(|c| format!("container {:?}", c.names));
        let images = images.into_iter().map(|i| format!("image {} {:?}", i.id, i.repo_tags));
        let networks = networks.into_iter().map(|n| format!("network {:?}", n.name));
        containers.chain(images).chain(networks).collect()
    }

    /// Removes through the port what the port made, and holds that nothing else is left.
    pub async fn end(mut self) {
        for sandbox in self.backend.list().await.unwrap() {
            self.backend.stop(sandbox.id).await.unwrap();
        }
        // Children before parents: what is still stood on waits for the next round.
        while let captures = self.backend.list_captures().await.unwrap()
            && !captures.is_empty()
        {
            let mut removed = 0;
            for capture in &captures {
                removed += u32::from(self.backend.remove_capture(&capture.digest).await.is_ok());
            }
            assert!(removed > 0, "none of {captures:?} can be removed");
        }
        self.backend.dispose().await.unwrap();
        assert_eq!(self.left().await, [] as [&str; 0], "left in the engine");
        let dirs = std::fs::read_dir(self.config.run_dir.join("sandboxes")).unwrap().count();
        assert_eq!(dirs, 0, "run directories left");
        self.ended = true;
    }
}

/// After a test that failed half way.
impl Drop for World {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let (host, filter) = (self.backend.host(), self.filter());
        let clean = async move {
            let raw = Docker::connect_with_host(&host)?.negotiate_version().await?;
            let filters = Some(filter);
            let options = ListContainersOptions { all: true, filters: filters.clone(), ..Default::default() };
            for container in raw.list_containers(Some(options)).await? {
                let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
                raw.remove_container(&container.id.unwrap_or_default(), Some(options)).await?;
            }
            // Children before parents, which no order by age tells when they are of one second.
            loop {
                let options = ListImagesOptions { all: true, filters: filters.clone(), ..Default::default() };
                let mut removed = false;
                for image in raw.list_images(Some(options)).await? {
                    let options = RemoveImageOptions { force: true, ..Default::default() };
                    removed |= raw.remove_image(&image.id, Some(options), None).await.is_ok();
                }
                if !removed {
                    break;
                }
            }
            for network in raw.list_networks(Some(ListNetworksOptions { filters })).await? {
                raw.remove_network(&network.id.unwrap_or_default()).await?;
            }
            Ok::<_, bollard::errors::Error>(())
        };
        // Its own runtime on its own thread: the test's may be unwinding.
        let thread = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), clean).await })
        });
        if !matches!(thread.join(), Ok(Ok(Ok(())))) {
            eprintln!("a failed test left things in the engine, labelled {}", self.config.instance);
        }
    }
}

pub fn name(id: SandboxId) -> String {
    format!("hotbed-{id}")
}

pub fn spec(kind: CaptureKind, name: &str) -> CaptureSpec {
    CaptureSpec { kind, name: name.to_owned(), env: BTreeMap::new(), workdir: None, pause: true }
}

pub fn find(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|w| w == needle)
}

pub async fn wait_for<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let bound = Duration::from_secs(30);
    let holds = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(bound, holds).await.is_ok(), "waited {bound:?} for {what}");
}
