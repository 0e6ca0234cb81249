//! Containers: start, stop, pause, resume, list, events.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary,
    ContainerSummaryStateEnum, EventMessage, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptions, InspectContainerOptions, ListContainersOptions,
    RemoveContainerOptions, StartContainerOptions,
};
use domain::ports::{EngineEvent, EngineInfo, ObservedPhase, ObservedSandbox, StartSandbox};
use domain::{Error, ErrorKind, Network, Result, SandboxId, wire};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::backend::{Shared, blocking, within};
use crate::config::Host;
use crate::error;
use crate::mark::Labels;

/// What a root user needs to install packages and to run what a repo's tests run; everything else is dropped.
///
/// - `CHOWN`, `DAC_OVERRIDE`, `FOWNER`, `FSETID`: package managers write, own and set-id files of other users, and
///   the agent reads its boot file whoever owns it.
/// - `SETGID`, `SETUID`: apt drops to its own user, `su` and database start scripts to theirs.
/// - `KILL`: root ends what those users run.
/// - `NET_BIND_SERVICE`: a service under test on port 80.
/// - `AUDIT_WRITE`: without it `su` and `useradd` fail on a kernel with auditing; it only lets them write records.
///
/// Not given, though the engine's default has them: `MKNOD`, `NET_RAW`, `SETFCAP`, `SETPCAP`, `SYS_CHROOT`.
const CAPABILITIES: [&str; 9] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
];

/// How often, and how many times at most, a start looks again at a name that is taken by nobody: 5 seconds.
const NAME_POLL: Duration = Duration::from_millis(50);
const NAME_TRIES: u32 = 100;

/// How often a removal that somebody else began is looked at.
const REMOVAL_POLL: Duration = Duration::from_millis(50);

pub(crate) fn container_name(id: SandboxId) -> String {
    format!("hotbed-{id}")
}

/// A container of ours as inspected.
pub(crate) struct Inspected {
    pub(crate) engine_id: String,
    pub(crate) status: ContainerStateStatusEnum,
}

impl Shared {
    pub(crate) async fn probe(&self) -> Result<EngineInfo> {
        let what = || format!("reach the engine at {}", self.host);
        let info = self.docker().await?.info().await.map_err(|e| self.fail(what(), e))?;
        let version = info.server_version.unwrap_or_else(|| "unknown".to_owned());
        let driver = info.driver.unwrap_or_else(|| "unknown".to_owned());
        // Of a daemon elsewhere it would name a directory there.
        let data_dir = info.docker_root_dir.filter(|_| matches!(self.host, Host::Unix(_))).map(Into::into);
        Ok(EngineInfo { name: "docker", version: format!("{version} ({driver})"), data_dir })
    }

    /// Two calls when all is well: create and start.
    pub(crate) async fn start(&self, spec: &StartSandbox) -> Result<String> {
        let (dir, id, boot) = (self.run_dir.clone(), spec.id, spec.boot.clone());
        blocking("write the boot file", move || dir.write_boot(id, &boot)).await?;
        let result = match self.create_and_start(spec).await {
            Err(first) if self.network_vanished(spec, &first) => {
                self.network.forget();
                self.create_and_start(spec).await
            }
            result => result,
        };
        if let Err(error) = &result
            // A container that may exist keeps its boot file; `stop` removes both.
            && !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable)
        {
            let dir = self.run_dir.clone();
            if let Err(e) = blocking("remove the run directory", move || dir.remove(id)).await {
                tracing::warn!(error = e.chain(), sandbox = %id, "the run directory of a failed start stays");
            }
        }
        result
    }

    /// Never makes a container: what `docker rm -f` is removing has exited, too.
    pub(crate) async fn start_again(&self, spec: &StartSandbox) -> Result<String> {
        let missing =
            || Error::not_found(format!("start container {} again: the engine does not have it", spec.id));
        if self.inspect(spec.id).await?.is_none() {
            return Err(missing());
        }
        let (dir, id, boot) = (self.run_dir.clone(), spec.id, spec.boot.clone());
        blocking("write the boot file", move || dir.write_boot(id, &boot)).await?;
        match self.start_duplicate(spec.id).await {
            Ok(Some(engine_id)) => Ok(engine_id),
            Ok(None) => Err(missing()),
            Err(e) => match self.inspect(spec.id).await {
                Ok(None) => Err(missing()),
                _ => Err(e),
            },
        }
    }

    async fn create_and_start(&self, spec: &StartSandbox) -> Result<String> {
        let docker = self.docker().await?;
        let what = || format!("start container {}", spec.id);
        let options = || CreateContainerOptions { name: Some(container_name(spec.id)), ..Default::default() };
        let mut body = self.body(spec).await?;
        let mut tries = 0;
        let created = loop {
            tries += 1;
            match docker.create_container(Some(options()), body.clone()).await {
                Err(e)
                    if error::answer(&e)
                        .is_some_and(|(s, text)| s == 400 && text.contains("Range of CPUs"))
                        && tries < NAME_TRIES =>
                {
                    // A limit above what the host has is no limit.
                    body.host_config.get_or_insert_default().nano_cpus = None;
                }
                Err(e) if error::is_status(&e, 409) && tries < NAME_TRIES => {
                    match self.start_duplicate(spec.id).await? {
                        Some(engine_id) => return Ok(engine_id),
                        // The engine reserves a name before it shows who has it, and gives it back after the
                        // last of it is gone.
                        None => tokio::time::sleep(NAME_POLL).await,
                    }
                }
                created => break created,
            }
        };
        let engine_id = match created {
            Ok(created) => {
                for warning in &created.warnings {
                    tracing::debug!(sandbox = %spec.id, warning, "the engine warns of a container");
                }
                created.id
            }
            Err(e) if error::is_status(&e, 409) => {
                let text = format!("{}: the engine is making or removing one of the same name", what());
                return Err(Error::unavailable(text).caused_by(e));
            }
            Err(e) if error::is_status(&e, 404) && e.to_string().contains("network") => {
                return Err(self.explain_start(spec, self.fail(what(), e)));
            }
            Err(e) if error::is_status(&e, 404) => {
                let text = format!("{}: image {} is not on this engine", what(), spec.source);
                return Err(self.fail(text, e));
            }
            Err(e) => return Err(self.fail(what(), e)),
        };
        match docker.start_container(&engine_id, None::<StartContainerOptions>).await {
            Ok(()) => Ok(engine_id),
            Err(e) => {
                let error = self.fail(what(), e);
                // A failed start keeps its kind, whatever becomes of the rest; what can't be removed is listed.
                if let Err(e) = self.remove_container(&engine_id).await {
                    tracing::warn!(error = e.chain(), sandbox = %spec.id, "a container that did not start stays");
                }
                Err(self.explain_start(spec, error))
            }
        }
    }

    /// Why a container that could be made did not start. Its image was there, so `NotFound` would mislead.
    fn explain_start(&self, spec: &StartSandbox, error: Error) -> Error {
        let text = error.chain();
        if text.contains(wire::AGENT_PATH) {
            let shared = self.run_dir.shared.display();
            let what = format!("start container {}: the agent's binary in {shared} does not run", spec.id);
            return Error::permanent(what).caused_by(error);
        }
        match (&spec.network, error.kind()) {
            (Network::Named(name), ErrorKind::NotFound) if mentions_network(&error) => {
                let what = format!("start container {}: the engine has no network `{name}`", spec.id);
                Error::invalid(what).caused_by(error)
            }
            (Network::Bridge, ErrorKind::NotFound) if mentions_network(&error) => error,
            (_, ErrorKind::NotFound) => {
                Error::unavailable(format!("start container {}", spec.id)).caused_by(error)
            }
            _ => error,
        }
    }

    /// The name is taken: by ourselves, when an answer was lost (F48), or by somebody else.
    /// `None`: it is not there yet, or on its way out.
    async fn start_duplicate(&self, id: SandboxId) -> Result<Option<String>> {
        let what = || format!("start container {id}");
        let found = self.inspect(id).await.map_err(|e| match e.kind() {
            ErrorKind::Conflict => {
                Error::conflict(format!("{}: its name is taken by a container that is not ours", what()))
                    .caused_by(e)
            }
            _ => e,
        })?;
        let Some(found) = found else { return Ok(None) };
        match found.status {
            ContainerStateStatusEnum::RUNNING
            | ContainerStateStatusEnum::PAUSED
            | ContainerStateStatusEnum::RESTARTING => {}
            ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD => {
                return Ok(None);
            }
            _ => {
                let docker = self.docker().await?;
                let started = docker.start_container(&found.engine_id, None::<StartContainerOptions>).await;
                started.map_err(|e| self.fail(what(), e))?;
            }
        }
        Ok(Some(found.engine_id))
    }

    fn network_vanished(&self, spec: &StartSandbox, error: &Error) -> bool {
        spec.network == Network::Bridge && error.kind() == ErrorKind::NotFound && mentions_network(error)
    }

    async fn body(&self, spec: &StartSandbox) -> Result<ContainerCreateBody> {
        let network = match &spec.network {
            Network::None => "none".to_owned(),
            Network::Bridge => self.own_network().await?,
            Network::Named(name)
                if matches!(name.as_str(), "host" | "bridge" | "default" | "none" | "")
                    || name.starts_with("container:") =>
            {
                return Err(Error::invalid(format!(
                    "network `{name}`: expected the name of a network that was made for sandboxes, not one of the \
                     engine's own"
                )));
            }
            Network::Named(name) => name.clone(),
        };
        let bind = |source: &std::path::Path, target: &str| Mount {
            typ: Some(MountType::BIND),
            source: Some(source.to_string_lossy().into_owned()),
            target: Some(target.to_owned()),
            read_only: Some(true),
            ..Default::default()
        };
        let own = format!("{}/self", wire::RUN_DIR);
        let limits = spec.resources;
        let some = |n: u64| (n > 0).then(|| i64::try_from(n).unwrap_or(i64::MAX));
        let host_config = HostConfig {
            mounts: Some(vec![
                bind(&self.run_dir.shared, wire::RUN_DIR),
                bind(&self.run_dir.sandbox(spec.id), &own),
            ]),
            network_mode: Some(network),
            memory: some(limits.memory),
            // Equal means no swap.
            memory_swap: some(limits.memory),
            nano_cpus: some(u64::from(limits.cpu_millis) * 1_000_000),
            pids_limit: some(limits.pids.into()),
            cap_drop: Some(vec!["ALL".to_owned()]),
            cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
            security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
            ipc_mode: Some("private".to_owned()),
            privileged: Some(false),
            // What the agent runs is kept by the agent; the daemon keeps no second copy.
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), config: None }),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            runtime: self.config.runtime.clone(),
            ..Default::default()
        };
        Ok(ContainerCreateBody {
            image: Some(spec.source.to_string()),
            entrypoint: Some(vec![wire::AGENT_PATH.to_owned()]),
            cmd: Some(Vec::new()),
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            labels: Some(self.marker.sandbox_labels(spec.id, spec.repo.as_str())),
            // An image's own health check would run in the sandbox beside the user's work.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
            host_config: Some(host_config),
            ..Default::default()
        })
    }

    /// `None` when there is no such container; `Conflict` when there is one that we did not make.
    pub(crate) async fn inspect(&self, id: SandboxId) -> Result<Option<Inspected>> {
        let name = container_name(id);
        let docker = self.docker().await?;
        let found = match docker.inspect_container(&name, None::<InspectContainerOptions>).await {
            Ok(found) => found,
            Err(e) if error::is_status(&e, 404) => return Ok(None),
            Err(e) => return Err(self.fail(format!("inspect container {id}"), e)),
        };
        let ContainerInspectResponse { id: engine_id, state, config, .. } = found;
        let labels = config.and_then(|c| c.labels).unwrap_or_default();
        if self.marker.sandbox(&labels) != Some(id) {
            return Err(Error::conflict(format!("container {name} was not made by this instance of Hotbed")));
        }
        let status = state.and_then(|s| s.status).unwrap_or(ContainerStateStatusEnum::EMPTY);
        Ok(Some(Inspected { engine_id: engine_id.unwrap_or(name), status }))
    }

    pub(crate) async fn stop(&self, id: SandboxId) -> Result<()> {
        match self.inspect(id).await {
            Ok(Some(found)) => self.remove_container(&found.engine_id).await?,
            Ok(None) => {}
            // Not ours: nothing of this sandbox is in the engine (F43).
            Err(e) if e.kind() == ErrorKind::Conflict => {}
            Err(e) => return Err(e),
        }
        let dir = self.run_dir.clone();
        blocking("remove the run directory", move || dir.remove(id)).await
    }

    /// Ends and removes a container and its volumes, and returns when it is gone.
    pub(crate) async fn remove_container(&self, engine_id: &str) -> Result<()> {
        let docker = self.docker().await?;
        let what = || format!("remove container {}", engine_id.get(..12).unwrap_or(engine_id));
        let options = || RemoveContainerOptions { force: true, v: true, ..Default::default() };
        loop {
            match docker.remove_container(engine_id, Some(options())).await {
                Ok(()) => return Ok(()),
                Err(e) if error::is_status(&e, 404) => return Ok(()),
                // Somebody else removes it; the caller's deadline bounds the wait.
                Err(e) if error::is_status(&e, 409) && e.to_string().contains("already in progress") => {
                    tokio::time::sleep(REMOVAL_POLL).await;
                }
                Err(e) => return Err(self.fail(what(), e)),
            }
        }
    }

    pub(crate) async fn pause(&self, id: SandboxId) -> Result<()> {
        let docker = self.docker().await?;
        match self.ours(id).await? {
            Inspected { status: ContainerStateStatusEnum::PAUSED, .. } => Ok(()),
            found => docker
                .pause_container(&found.engine_id)
                .await
                .map_err(|e| self.fail(format!("pause container {id}"), e)),
        }
    }

    pub(crate) async fn resume(&self, id: SandboxId) -> Result<()> {
        let docker = self.docker().await?;
        match self.ours(id).await? {
            Inspected { status: ContainerStateStatusEnum::RUNNING, .. } => Ok(()),
            found => docker
                .unpause_container(&found.engine_id)
                .await
                .map_err(|e| self.fail(format!("resume container {id}"), e)),
        }
    }

    /// `NotFound` when there is no such container of ours.
    pub(crate) async fn ours(&self, id: SandboxId) -> Result<Inspected> {
        self.inspect(id).await?.ok_or_else(|| Error::not_found(format!("container {id} does not exist")))
    }

    pub(crate) async fn list(&self) -> Result<Vec<ObservedSandbox>> {
        let options =
            ListContainersOptions { all: true, filters: Some(self.marker.filter()), ..Default::default() };
        let docker = self.docker().await?;
        let all = docker.list_containers(Some(options)).await.map_err(|e| self.fail("list containers", e))?;
        self.drop_left_reader(&all).await;
        Ok(all.into_iter().filter_map(|c| self.observe(c)).collect())
    }

    fn observe(&self, container: ContainerSummary) -> Option<ObservedSandbox> {
        let id = self.marker.sandbox(&container.labels.unwrap_or_default())?;
        // Labels can be copied, mark and all; a name is taken once.
        let name = format!("/{}", container_name(id));
        if !container.names.unwrap_or_default().contains(&name) {
            return None;
        }
        use ContainerSummaryStateEnum as S;
        let phase = match container.state? {
            S::CREATED => ObservedPhase::Created,
            S::RUNNING | S::RESTARTING => ObservedPhase::Running,
            S::PAUSED => ObservedPhase::Paused,
            S::EXITED | S::REMOVING | S::DEAD | S::STOPPING | S::EMPTY => ObservedPhase::Exited,
        };
        Some(ObservedSandbox { id, engine_id: container.id?, phase })
    }

    pub(crate) async fn events(shared: Arc<Self>) -> Result<BoxStream<'static, Result<EngineEvent>>> {
        let docker = shared.docker().await?;
        // The stream is opened when it is first polled, so it asks for everything since now, by the daemon's own
        // clock: what happens until then is not lost.
        let what = || "subscribe to events";
        let info = docker.info().await.map_err(|e| shared.fail(what(), e))?;
        let since = info.system_time.and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let mut filters = shared.marker.filter();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let told = ["start", "die", "oom", "pause", "unpause", "destroy"].map(str::to_owned);
        filters.insert("event".to_owned(), told.to_vec());
        let options = EventsOptions {
            since: since.map(|t| format!("{}.{:09}", t.as_second(), t.subsec_nanosecond())),
            until: None,
            filters: Some(filters),
        };
        let stream = docker.events(Some(options)).filter_map(move |event| {
            let event = match event {
                Ok(event) => shared.observe_event(event).map(Ok),
                Err(e) => Some(Err(shared.fail("follow events", e))),
            };
            std::future::ready(event)
        });
        Ok(stream.boxed())
    }

    fn observe_event(&self, event: EventMessage) -> Option<EngineEvent> {
        let labels: Labels = event.actor?.attributes?;
        let sandbox = self.marker.sandbox(&labels)?;
        if labels.get("name").is_some_and(|name| *name != container_name(sandbox)) {
            return None;
        }
        let gone = matches!(event.action?.as_str(), "die" | "destroy");
        Some(EngineEvent { sandbox, gone })
    }

    /// Leaves a container running that ran before a capture that failed (F39): the daemon thaws it by itself
    /// unless it died meanwhile.
    pub(crate) async fn thaw(&self, id: SandboxId) {
        const TRIES: u32 = 5;
        for attempt in 1..=TRIES {
            let work = async {
                match self.inspect(id).await? {
                    Some(Inspected { status: ContainerStateStatusEnum::PAUSED, .. }) => self.resume(id).await,
                    _ => Ok(()),
                }
            };
            match within(self.config.deadlines.query, || format!("resume container {id}"), work).await {
                Ok(()) => return,
                Err(e) if e.kind() == ErrorKind::Unavailable && attempt < TRIES => {
                    tokio::time::sleep(Duration::from_millis(200 << attempt)).await;
                }
                // It thawed while we looked.
                Err(e) if e.kind() == ErrorKind::Conflict => return,
                Err(e) => {
                    tracing::warn!(error = e.chain(), sandbox = %id, "a sandbox may be left paused by a capture");
                    return;
                }
            }
        }
    }
}

fn mentions_network(error: &Error) -> bool {
    error.chain().to_ascii_lowercase().contains("network")
}
