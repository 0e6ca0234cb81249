//! The engine behind its port: one connection per request, a deadline around every call, and the version of the
//! API that the daemon understands.

use std::collections::HashSet;
use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use domain::ports::{
    Backend, BuildImage, CaptureSpec, Captured, ContentFilter, EngineEvent, EngineInfo, ObservedCapture,
    ObservedSandbox, Progress, StartSandbox, TreeStream,
};
use domain::{Digest, Error, Result, SandboxId};
use futures_util::stream::BoxStream;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::{Deadlines, DockerConfig, Host};
use crate::error;
use crate::mark::Marker;
use crate::network::OwnNetwork;
use crate::run_dir::RunDir;

/// The oldest API that is spoken: Docker 20.10's.
const OLDEST_API: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

/// Containers that are being ended at once. Docker 20.10's network controller locks itself up when many that are on
/// a network end in the same moment: a hundred did it, and then no container of the host could be ended any more.
const ENDS_AT_ONCE: usize = 4;

/// bollard's own timeout, in seconds; ours are around it and always shorter.
const NEVER: u64 = 24 * 3600;

/// Sandboxes on one Docker daemon. Cheap to clone; clones share everything.
#[derive(Clone)]
pub struct DockerBackend {
    pub(crate) shared: Arc<Shared>,
}

pub(crate) struct Shared {
    pub(crate) config: DockerConfig,
    pub(crate) host: Host,
    pub(crate) marker: Marker,
    pub(crate) run_dir: RunDir,
    pub(crate) network: OwnNetwork,
    /// A turn for each container that is being ended; see [`ENDS_AT_ONCE`].
    ends: Semaphore,
    /// One turn: for the one container that an image is read through.
    pub(crate) reading: Arc<Semaphore>,
    /// Set when a daemon has said which API it speaks; cleared when it says that it no longer does.
    client: RwLock<Option<Docker>>,
}

impl fmt::Debug for DockerBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DockerBackend({})", self.shared.host)
    }
}

impl DockerBackend {
    /// Checks the configuration and makes the run directory. Does not talk to the daemon, which may come later:
    /// [`Backend::probe`] says whether it answers.
    ///
    /// Errors: `Invalid` for a host that can't be spoken to or a relative run directory; `Permanent` or
    /// `Exhausted` when the run directory can't be made.
    pub fn connect(config: DockerConfig) -> Result<Self> {
        let host = Host::resolve(config.host.as_deref(), |name| std::env::var(name).ok(), Path::exists)?;
        let marker = Marker::new(config.instance, &config.secret);
        let run_dir = RunDir::open(&config.run_dir)?;
        let network = OwnNetwork::new(&marker);
        let shared = Shared {
            config,
            host,
            marker,
            run_dir,
            network,
            ends: Semaphore::new(ENDS_AT_ONCE),
            reading: Arc::new(Semaphore::new(1)),
            client: RwLock::new(None),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Where the daemon is expected, as a URL.
    pub fn host(&self) -> String {
        self.shared.host.to_string()
    }

    /// What every sandbox sees at `/run/hotbed`; see [`DockerConfig::shared_dir`].
    pub fn shared_dir(&self) -> PathBuf {
        self.shared.run_dir.shared.clone()
    }

    /// Removes the run directories of all sandboxes but these, which must hold every sandbox that is being
    /// started; answers whose were removed.
    pub async fn sweep_run_dirs(&self, keep: &HashSet<SandboxId>) -> Result<Vec<SandboxId>> {
        let (dir, keep) = (self.shared.run_dir.clone(), keep.clone());
        blocking("sweep the run directories", move || dir.sweep(&keep)).await
    }

    /// Puts a tag on an image, in addition to those that it has. `NotFound` when there is no such image.
    pub async fn tag(&self, digest: &Digest, reference: &str) -> Result<()> {
        let deadline = self.deadlines().query;
        self.call("tag", deadline, || format!("tag {}", digest.short()), self.shared.tag(digest, reference))
            .await
    }

    /// Takes an image that was pulled for the capture of this instance that it is: gives it the capture's tag, and
    /// `NotFound` or `Conflict` where it is none.
    pub async fn adopt(&self, digest: &Digest) -> Result<()> {
        let deadline = self.deadlines().query;
        self.call("tag", deadline, || format!("adopt {}", digest.short()), self.shared.adopt(digest)).await
    }

    /// Pushes a tagged image to the registry in its name; answers `repository@digest` as that registry knows it.
    ///
    /// Errors name the registry: `Unavailable` when it does not answer, `Invalid` when it refuses the
    /// credentials, `NotFound` when there is no such image or repository.
    pub async fn push(&self, reference: &str) -> Result<String> {
        let deadline = self.deadlines().pull;
        self.call("push", deadline, || format!("push {reference}"), self.shared.push(reference)).await
    }

    fn deadlines(&self) -> &Deadlines {
        &self.shared.config.deadlines
    }

    /// Runs one call under its deadline and tells the hook how it went.
    async fn call<T>(
        &self,
        call: &'static str,
        deadline: Duration,
        what: impl FnOnce() -> String,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let result = within(deadline, what, work).await;
        self.shared.note(call, begun, &result);
        result
    }
}

impl Shared {
    /// A client that speaks the daemon's version. Asks once; no lock is held while a daemon is silent (F47).
    pub(crate) async fn docker(&self) -> Result<Docker> {
        let known = self.client.read().unwrap_or_else(|e| e.into_inner()).clone();
        if let Some(docker) = known {
            return Ok(docker);
        }
        let what = || format!("reach the engine at {}", self.host);
        let docker = match &self.host {
            Host::Unix(path) => Docker::connect_with_unix(path, NEVER, API_DEFAULT_VERSION),
            Host::Tcp(address) => Docker::connect_with_http(address, NEVER, API_DEFAULT_VERSION),
        };
        let docker =
            docker.map_err(|e| error::engine(what(), e))?.with_request_modifier(url_safe_credentials);
        let docker = within(self.config.deadlines.query, what, async {
            docker.negotiate_version().await.map_err(|e| error::engine(what(), e))
        })
        .await?;
        let version = docker.client_version();
        if version < OLDEST_API {
            return Err(Error::permanent(format!(
                "the engine at {} speaks API {version}; Hotbed needs {OLDEST_API} (Docker 20.10) or newer",
                self.host
            )));
        }
        *self.client.write().unwrap_or_else(|e| e.into_inner()) = Some(docker.clone());
        Ok(docker)
    }

    /// Makes an error of the engine ours. Where the daemon has been replaced by one of another version, the next
    /// call asks again which it speaks.
    pub(crate) fn fail(&self, context: impl Into<String>, error: bollard::errors::Error) -> Error {
        if let Some((400, message)) = error::answer(&error)
            && message.contains("client version")
        {
            *self.client.write().unwrap_or_else(|e| e.into_inner()) = None;
        }
        error::engine(context, error)
    }

    pub(crate) fn note<T>(&self, call: &'static str, begun: Instant, result: &Result<T>) {
        if let Some(hook) = &self.config.on_call {
            hook(call, begun.elapsed(), result.as_ref().err().map(Error::kind));
        }
    }
}

/// `Timeout` when the work takes longer.
pub(crate) async fn within<T>(
    deadline: Duration,
    what: impl FnOnce() -> String,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::timeout(format!("{}: the engine did not answer within {deadline:?}", what()))),
    }
}

/// Runs file work off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::permanent(what).caused_by(e)),
    }
}

/// The engine decodes credentials as URL-safe base64 and takes what it can't decode for none; bollard writes the
/// other alphabet, so a secret with `?` or `~` in the wrong place was lost without a word.
fn url_safe_credentials(mut request: bollard::BollardRequest) -> bollard::BollardRequest {
    if let Some(header) = request.headers_mut().get_mut("X-Registry-Auth")
        && let Ok(text) = header.to_str()
        && let Ok(value) = text.replace('+', "-").replace('/', "_").parse()
    {
        *header = value;
        header.set_sensitive(true);
    }
    request
}

#[async_trait]
impl Backend for DockerBackend {
    async fn probe(&self) -> Result<EngineInfo> {
        let what = || format!("reach the engine at {}", self.shared.host);
        self.call("probe", self.deadlines().query, what, self.shared.probe()).await
    }

    async fn start(&self, spec: &StartSandbox) -> Result<String> {
        let what = || format!("start container {}", spec.id);
        self.call("start", self.deadlines().start, what, self.shared.start(spec)).await
    }

    async fn start_again(&self, spec: &StartSandbox) -> Result<String> {
        let what = || format!("start container {} again", spec.id);
        self.call("start", self.deadlines().start, what, self.shared.start_again(spec)).await
    }

    async fn stop(&self, id: SandboxId) -> Result<()> {
        // The deadline is the engine's, and not that of the line before it.
        let turn = self.shared.ends.acquire().await;
        let _turn = turn.map_err(|e| Error::permanent("stop a container").caused_by(e))?;
        let what = || format!("stop container {id}");
        self.call("stop", self.deadlines().stop, what, self.shared.stop(id)).await
    }

    async fn pause(&self, id: SandboxId) -> Result<()> {
        let what = || format!("pause container {id}");
        self.call("pause", self.deadlines().query, what, self.shared.pause(id)).await
    }

    async fn resume(&self, id: SandboxId) -> Result<()> {
        let what = || format!("resume container {id}");
        self.call("resume", self.deadlines().query, what, self.shared.resume(id)).await
    }

    async fn capture(&self, id: SandboxId, spec: &CaptureSpec) -> Result<Captured> {
        // It has its deadline inside, because it must put the sandbox right after the deadline has passed.
        let begun = Instant::now();
        let result = self.shared.capture(id, spec).await;
        self.shared.note("capture", begun, &result);
        result
    }

    async fn list(&self) -> Result<Vec<ObservedSandbox>> {
        self.call("list", self.deadlines().query, || "list containers".to_owned(), self.shared.list()).await
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<EngineEvent>>> {
        let what = || "subscribe to events".to_owned();
        self.call("events", self.deadlines().query, what, Shared::events(self.shared.clone())).await
    }

    async fn import(&self, tar: PathBuf, spec: &CaptureSpec) -> Result<Captured> {
        let what = || format!("import {}", tar.display());
        self.call("import", self.deadlines().import, what, self.shared.import(&tar, spec)).await
    }

    async fn build(&self, order: &BuildImage, progress: &Progress) -> Result<Captured> {
        let what = || format!("build {}", order.dockerfile);
        self.call("build", self.deadlines().build, what, self.shared.build(order, progress)).await
    }

    async fn pull(&self, reference: &str) -> Result<Captured> {
        let what = || format!("pull {reference}");
        self.call("pull", self.deadlines().pull, what, self.shared.pull(reference)).await
    }

    async fn has(&self, digest: &Digest) -> Result<bool> {
        let what = || format!("look for image {digest}");
        self.call("has", self.deadlines().query, what, self.shared.has(digest)).await
    }

    async fn list_captures(&self) -> Result<Vec<ObservedCapture>> {
        let what = || "list images".to_owned();
        self.call("list_captures", self.deadlines().query, what, self.shared.list_captures()).await
    }

    async fn read_tree(&self, digest: &Digest, content: ContentFilter) -> Result<TreeStream> {
        // It has its deadlines inside: what is read goes on after the answer.
        self.shared.read_tree(digest, content).await
    }

    async fn remove_capture(&self, digest: &Digest) -> Result<()> {
        let what = || format!("remove image {digest}");
        self.call("remove_capture", self.deadlines().stop, what, self.shared.remove_capture(digest)).await
    }

    async fn dispose(&self) -> Result<()> {
        let what = || "remove Hotbed's own network".to_owned();
        self.call("dispose", self.deadlines().stop, what, self.shared.remove_network()).await
    }
}
