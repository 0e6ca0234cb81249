//! The composition root: opens the store, takes up what lives, connects the parts and sets them going. Start-up is
//! recovery: the same reconcilers that run later run first here.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use docker::rootfs::RootfsCache;
use docker::{Credential, DockerBackend, DockerConfig};
use domain::ports::{Backend, Forge, Mirrors};
use domain::{Budget, Error, ErrorKind, InstanceId, RepoSpec, Result, SharedClock, SystemClock};
use git::{Credentials, Gateway, GatewayOptions, LocalForge, MirrorOptions, MirrorSet, Remote};
use registry::{Login, Registry};
use serde_json::Value;
use store::{BuildLogs, SessionLogs, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::access::{self, Access};
use crate::audit::Audit;
use crate::builds::{self, Builds};
use crate::captures::{self, Captures};
use crate::demand::{Demands, LoadedDemand};
use crate::differences::Differences;
use crate::endpoint::Endpoint;
use crate::feed::Feed;
use crate::fleet::{Fleet, Gatekeeper};
use crate::freshness::{self, Freshness};
use crate::github::{Github, Upstream, news};
use crate::idempotency::Idempotency;
use crate::images::Images;
use crate::ledger::StoreLedger;
use crate::measure::{self, Looks};
use crate::metrics::{Metrics, OfRepo};
use crate::pools::{self, Pools};
use crate::pulls::{self, Pulls};
use crate::quotas::Quotas;
use crate::relay::Relay;
use crate::repos::Repos;
use crate::retention::{self, Retention};
use crate::rollout::Rollout;
use crate::room::Room;
use crate::sessions::{self, Session, Sessions};
use crate::shipping::{self, Destination, Shipping, ThroughEngine};
use crate::tasks::Tasks;
use crate::traces::Tracer;
use crate::warmups::{self, Warmups};
use crate::{agent_binary, links};

/// How often records and engine are compared when nothing pokes.
const RECONCILE_EVERY: Duration = Duration::from_secs(15);
/// How long a start waits for the engine: agents and clients want to be served meanwhile (F47).
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// How often new claims are written down; what `kill -9` may cost of them.
const DEMAND_SAVE_EVERY: Duration = Duration::from_secs(10);
/// How often it is written down when keys were last used.
const ACCESS_SAVE_EVERY: Duration = Duration::from_secs(60);
/// How often it is looked whether keys of identity providers are due.
const ISSUER_KEYS_EVERY: Duration = Duration::from_secs(30);
/// How often lines of the audit log are written; what `kill -9` may cost of them.
const AUDIT_WRITE_EVERY: Duration = Duration::from_secs(1);
const AUDIT_SHORTEN_EVERY: Duration = Duration::from_secs(3600);
/// How often deadlines are looked at.
const REAP_EVERY: Duration = Duration::from_secs(1);

/// How long the last spans may take to leave at shutdown.
const SPANS_LEAVE: Duration = Duration::from_secs(5);

/// How long requests that are under way may take to end at shutdown.
const GRACE: Duration = Duration::from_secs(5);

/// Which engine sandboxes run on.
pub enum Engine {
    Docker(config::DockerSettings),
    /// One that is given, with where its sandboxes find the shared directory. For tests and benchmarks.
    Given(Arc<dyn Backend>),
}

/// What a server is started with.
pub struct Options {
    pub state_dir: PathBuf,
    pub repos: Vec<RepoSpec>,
    pub engine: Engine,
    /// The agent's binary; looked for when not given.
    pub agent: Option<Vec<u8>>,
    /// Where the API will be reached, for addresses that Hotbed hands out.
    pub base_url: String,
    pub clock: SharedClock,
    /// Where root filesystems made from packages are kept; in the state directory when not given.
    pub cache_dir: Option<PathBuf>,
    /// Whether schedules cause builds. A test may want to cause them itself.
    pub schedules: bool,
    pub builds: config::BuildSettings,
    pub retention: config::RetentionSettings,
    /// What all sandboxes together may use.
    pub budget: Budget,
    pub access: config::AccessSettings,
    pub quotas: config::QuotaSettings,
    pub warmups: warmups::Limits,
    /// Where images are pushed.
    pub registry: Option<config::RegistrySettings>,
    /// Where pull requests are opened.
    pub forge: config::ForgeSettings,
    /// Where spans are sent.
    pub tracing: Option<config::TracingSettings>,
}

impl Options {
    pub fn new(state_dir: impl Into<PathBuf>, repos: Vec<RepoSpec>, engine: Engine) -> Self {
        Self {
            state_dir: state_dir.into(),
            repos,
            engine,
            agent: None,
            base_url: "http://127.0.0.1:7070".into(),
            clock: Arc::new(SystemClock),
            cache_dir: None,
            schedules: true,
            builds: config::BuildSettings::default(),
            retention: config::RetentionSettings::default(),
            budget: Budget::default(),
            access: config::AccessSettings::default(),
            quotas: config::QuotaSettings::default(),
            warmups: warmups::Limits::default(),
            registry: None,
            forge: config::ForgeSettings::Local,
            tracing: None,
        }
    }
}

/// A running Hotbed.
pub struct App {
    pub fleet: Arc<Fleet>,
    pub sessions: Arc<Sessions>,
    pub warmups: Arc<Warmups>,
    pub pools: Arc<Pools>,
    pub demands: Arc<Demands>,
    pub room: Arc<Room>,
    pub freshness: Arc<Freshness>,
    pub builds: Arc<Builds>,
    pub captures: Arc<Captures>,
    pub retention: Arc<Retention>,
    pub images: Arc<Images>,
    pub rollout: Arc<Rollout>,
    pub differences: Arc<Differences>,
    pub shipping: Arc<Shipping>,
    pub pulls: Arc<Pulls>,
    /// Where the forge is GitHub.
    pub github: Option<Arc<Github>>,
    pub repos: Arc<Repos>,
    pub mirrors: MirrorSet,
    pub store: Store,
    pub session_logs: SessionLogs,
    pub idempotency: Arc<Idempotency>,
    pub metrics: Arc<Metrics>,
    pub tracer: Arc<Tracer>,
    pub clock: SharedClock,
    pub stop: CancellationToken,
    pub api_key: String,
    pub access: Arc<Access>,
    pub quotas: Arc<Quotas>,
    pub audit: Arc<Audit>,
    pub feed: Arc<Feed>,
    pub reconcile_poke: Arc<Notify>,
    pub(crate) state_dir: PathBuf,
    pub(crate) looks: Looks,
    tasks: Tasks,
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("App")
    }
}

impl App {
    /// Starts everything but the HTTP listener. Fails before anything is touched where the state directory is taken,
    /// is newer, or can't be used.
    pub async fn start(options: Options) -> Result<Arc<Self>> {
        let clock = options.clock.clone();
        let (store, loaded) = Store::open(&options.state_dir, clock.clone()).await?;
        let api_key = api_key(&options.state_dir)?;
        let session_logs = SessionLogs::open(&options.state_dir, clock.clone())?;
        let build_logs = BuildLogs::open(&options.state_dir)?;
        let name = if matches!(options.engine, Engine::Docker(_)) { "docker" } else { "given" };
        let metrics = Arc::new(Metrics::new(name, clock.now()));
        metrics.announce();
        metrics.set_budget(options.budget);
        let tracer = Tracer::open(options.tracing.as_ref(), clock.clone(), &metrics)?;
        let feed = Feed::new(clock.clone());
        metrics.tell_to(feed.clone());
        let stop = CancellationToken::new();

        let run_dir = options.state_dir.join("run");
        let mut shipped_to = None;
        let (backend, shared): (Arc<dyn Backend>, PathBuf) = match options.engine {
            Engine::Given(backend) => (backend, run_dir.join("shared")),
            Engine::Docker(settings) => {
                let registry = options.registry.as_ref().map(Registered::read).transpose()?;
                let of = (store.instance(), store.secret());
                let backend = connect_docker(&settings, registry.as_ref(), of, &run_dir, &metrics)?;
                shipped_to = registry.map(|r| r.destination(&backend)).transpose()?;
                let shared = backend.shared_dir();
                // After a restore there may be more than the records know.
                if store.restored_at().is_none() {
                    let keep = loaded.sandboxes.iter().map(|s| s.id).collect();
                    backend.sweep_run_dirs(&keep).await?;
                }
                (Arc::new(backend), shared)
            }
        };
        std::fs::create_dir_all(&shared)
            .map_err(|e| Error::permanent(format!("make {}", shared.display())).caused_by(e))?;
        let agent = options.agent.map_or_else(agent_binary::find, Ok)?;
        agent_binary::install(&agent, &shared)?;

        let github = match &options.forge {
            config::ForgeSettings::Github(settings) => {
                Some(Github::open(settings, &store, &clock, &metrics).await?)
            }
            config::ForgeSettings::Local => None,
        };
        let upstream = github.clone().map(Upstream::new);
        let remotes = remotes(&options.repos);
        let credentials = upstream.clone().map(|u| Arc::new(u) as Arc<dyn Credentials>);
        let mirror_options = MirrorOptions { credentials, ..MirrorOptions::default() };
        let mirrors = MirrorSet::open(options.state_dir.join("mirrors"), remotes, mirror_options).await?;
        let port: Arc<dyn Mirrors> = Arc::new(mirrors.clone());
        let repos = Repos::new(options.repos, loaded.images);
        for spec in repos.all() {
            metrics.announce_repo(&spec.name);
        }

        let dial = format!("unix:{}", domain::wire::SOCKET_PATH);
        let (fleet, events) =
            Fleet::new(backend, store.clone(), clock.clone(), metrics.clone(), dial, loaded.sandboxes);
        let idempotency = Idempotency::new(loaded.idempotency, clock.clone());
        let known =
            LoadedDemand { records: loaded.demands, hours: loaded.demand_hours, orders: loaded.pool_orders };
        let demands = Demands::new(store.clone(), clock.clone(), known);
        let room = Room::new(fleet.clone(), repos.clone(), options.budget);
        let quotas = Quotas::new(options.quotas, metrics.clone());
        let warmups = Warmups::new(
            warmups::Parts {
                fleet: fleet.clone(),
                repos: repos.clone(),
                mirrors: port.clone(),
                store: store.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                tracer: tracer.clone(),
                limits: options.warmups,
                quotas: quotas.clone(),
                stop: stop.clone(),
            },
            loaded.warmups,
        );
        let images = Images::new(repos.clone(), store.clone(), fleet.backend().clone(), metrics.clone());
        let rollout =
            Rollout::new(fleet.clone(), repos.clone(), images.clone(), clock.clone(), metrics.clone());
        let sessions = Sessions::new(
            sessions::Parts {
                fleet: fleet.clone(),
                repos: repos.clone(),
                mirrors: port.clone(),
                warmups: warmups.clone(),
                store: store.clone(),
                logs: session_logs.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                idempotency: idempotency.clone(),
                demands: demands.clone(),
                room: room.clone(),
                rollout: rollout.clone(),
                quotas: quotas.clone(),
                tracer: tracer.clone(),
            },
            loaded.sessions,
            stop.clone(),
        );
        let pools = Pools::new(pools::Parts {
            fleet: fleet.clone(),
            repos: repos.clone(),
            demands: demands.clone(),
            room: room.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let freshness = Freshness::new(fleet.clone(), repos.clone(), port.clone(), metrics.clone());
        let cache = options.cache_dir.unwrap_or_else(|| options.state_dir.join("bases"));
        let shipping = Shipping::new(
            shipped_to,
            repos.clone(),
            images.clone(),
            fleet.backend().clone(),
            clock.clone(),
            metrics.clone(),
        );
        let rootfs = Arc::new(RootfsCache::new(cache));
        rootfs.sweep().await;
        let builds = Builds::new(builds::Parts {
            images: images.clone(),
            fleet: fleet.clone(),
            repos: repos.clone(),
            mirrors: port.clone(),
            rootfs,
            store: store.clone(),
            logs: build_logs.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
            tracer: tracer.clone(),
            stop: stop.clone(),
            settings: options.builds,
            cadences: loaded.cadences,
        });
        let parts = retention::Parts {
            fleet: fleet.clone(),
            repos: repos.clone(),
            sessions: sessions.clone(),
            mirrors: mirrors.clone(),
            store: store.clone(),
            build_logs,
            session_logs: session_logs.clone(),
            clock: clock.clone(),
        };
        let retention = Retention::new(parts, options.retention, loaded.absences);
        let captures = Captures::new(captures::Parts {
            fleet: fleet.clone(),
            repos: repos.clone(),
            images: images.clone(),
            shipping: shipping.clone(),
            retention: retention.clone(),
            store: store.clone(),
            clock: clock.clone(),
            metrics: metrics.clone(),
        });
        let differences =
            Differences::new(images.clone(), repos.clone(), port.clone(), fleet.backend().clone());
        if let (Some(upstream), Some(github)) = (&upstream, &github) {
            upstream.learn(repos.clone(), &sessions);
            github.people.lost(sessions.without_their_tokens());
        }
        let ledger = Arc::new(StoreLedger(store.clone()));
        let forge: Arc<dyn Forge> = match &github {
            Some(github) => Arc::new(github.forge()),
            None => Arc::new(LocalForge::new(port.clone(), ledger, clock.clone(), options.base_url)),
        };
        let pulls = Pulls::new(
            pulls::Parts {
                forge,
                people: github.as_ref().map(|g| g.people.clone()),
                repos: repos.clone(),
                mirrors: port.clone(),
                store: store.clone(),
                logs: session_logs.clone(),
                clock: clock.clone(),
                metrics: metrics.clone(),
                tracer: tracer.clone(),
            },
            loaded.pull_requests,
        );
        let gateway = Gateway::new(mirrors.clone(), gateway_options(&sessions, &pulls));
        fleet.set_relay(Arc::new(Relay::new(gateway, sessions.clone(), pulls.clone(), tracer.clone())));

        let listener = links::bind(&shared.join("hotbed.sock"))?;
        tokio::spawn(links::serve(listener, Arc::new(Gatekeeper(fleet.clone())), stop.clone()));

        let access = Access::new(&api_key, &options.access, store.clone(), clock.clone(), loaded.api_keys);
        let audit = Audit::new(options.retention, store.clone(), clock.clone(), metrics.clone());
        let tasks = Tasks::new(metrics.clone(), clock.clone(), stop.clone());
        let app = Arc::new(Self {
            fleet,
            sessions,
            warmups,
            pools,
            demands,
            room,
            freshness,
            builds,
            captures,
            retention,
            images,
            rollout,
            differences,
            shipping,
            pulls,
            github,
            repos,
            mirrors,
            store,
            session_logs,
            idempotency,
            metrics,
            tracer,
            clock,
            stop,
            api_key,
            access,
            quotas,
            audit,
            feed,
            reconcile_poke: Arc::default(),
            state_dir: options.state_dir,
            looks: Looks::default(),
            tasks,
        });
        app.drop_leftovers().await;
        app.builds.recover(loaded.builds).await?;
        // What can't be compared now, because the engine is down, is compared when it is up again.
        let first = tokio::time::timeout(FIRST_LOOK, app.reconcile()).await;
        if let Err(e) = first.unwrap_or_else(|_| Err(Error::timeout("compare records and engine"))) {
            warn!(error = %e.chain(), "the engine does not answer yet");
        }
        app.sessions.start(events);
        app.warmups.start();
        app.start_tasks(options.schedules);
        Ok(app)
    }

    /// Sandboxes of builds that an earlier process ran: their builds are over.
    async fn drop_leftovers(&self) {
        for record in self.fleet.records() {
            if matches!(record.purpose, domain::Purpose::Build(_) | domain::Purpose::Check(_))
                && let Err(e) = self.fleet.stop(record.id, "its build was interrupted by a restart").await
            {
                warn!(sandbox = %record.id, error = %e.chain(), "could not stop a build's sandbox");
            }
        }
    }

    async fn reconcile(&self) -> Result<()> {
        let repos = self.repos.clone();
        let done = self.fleet.reconcile(&move |name| repos.get(name)).await;
        let silent = |e: &Error| matches!(e.kind(), ErrorKind::Unavailable | ErrorKind::Timeout);
        self.metrics.backend_answered(!done.as_ref().is_err_and(silent));
        let report = done?;
        if report.adopted + report.removed_orphans + report.lost + report.restarted + report.overdue > 0 {
            info!(%report, "records and engine compared");
        }
        Ok(())
    }

    fn start_tasks(self: &Arc<Self>, schedules: bool) {
        let never = || Arc::new(Notify::new());
        let me = self.clone();
        self.tasks.run("reconcile", RECONCILE_EVERY, self.reconcile_poke.clone(), move || {
            let me = me.clone();
            async move { me.reconcile().await }
        });
        let me = self.clone();
        self.tasks.run("pool_fill", Duration::from_secs(1), self.fleet.pool_poke.clone(), move || {
            let me = me.clone();
            async move {
                me.pools.fill().await;
                Ok(())
            }
        });
        let me = self.clone();
        self.tasks.run("demand_save", DEMAND_SAVE_EVERY, never(), move || {
            let me = me.clone();
            async move { me.demands.save().await }
        });
        let me = self.clone();
        self.tasks.run("access_save", ACCESS_SAVE_EVERY, never(), move || {
            let me = me.clone();
            async move { me.access.save().await }
        });
        let me = self.clone();
        self.tasks.run("issuer_keys", ISSUER_KEYS_EVERY, self.access.tokens.poke.clone(), move || {
            let me = me.clone();
            async move { me.access.tokens.look(&me.clock).await }
        });
        let me = self.clone();
        self.tasks.run("audit_write", AUDIT_WRITE_EVERY, self.audit.poke.clone(), move || {
            let me = me.clone();
            async move { me.audit.write().await }
        });
        let me = self.clone();
        self.tasks.run("audit_shorten", AUDIT_SHORTEN_EVERY, never(), move || {
            let me = me.clone();
            async move { me.audit.shorten().await }
        });
        let me = self.clone();
        self.tasks.run("pool_learn", Duration::from_secs(5), never(), move || {
            let me = me.clone();
            async move { me.demands.learn(&me.repos.all(), me.pools.starting_limit()).await }
        });
        let me = self.clone();
        let push = self.repos.push_poke.clone();
        self.tasks.run("pool_freshen", freshness::LOOK_EVERY, push, move || {
            let me = me.clone();
            async move { me.freshness.run().await }
        });
        let me = self.clone();
        self.tasks.run("session_reap", REAP_EVERY, never(), move || {
            let me = me.clone();
            async move {
                me.sessions.expire().await;
                me.warmups.expire().await;
                me.sessions.rescue_kept();
                me.idempotency.prune();
                Ok(())
            }
        });
        let me = self.clone();
        self.tasks.run("outbox_flush", Duration::from_secs(5), never(), move || {
            let me = me.clone();
            async move {
                me.pulls.flush().await;
                Ok(())
            }
        });
        let me = self.clone();
        self.tasks.run("capture_collect", Duration::from_secs(60), self.images.to_go.clone(), move || {
            let me = me.clone();
            async move { me.captures.collect().await }
        });
        let me = self.clone();
        self.tasks.run("image_rollout", Duration::from_secs(5), never(), move || {
            let me = me.clone();
            async move { me.rollout.judge().await }
        });
        let me = self.clone();
        self.tasks.run("image_ship", Duration::from_secs(60), self.images.moved.clone(), move || {
            let me = me.clone();
            async move { me.shipping.run().await }
        });
        let me = self.clone();
        self.tasks.run("image_lost", Duration::from_secs(60), never(), move || {
            let me = me.clone();
            async move { me.shipping.look_for_lost().await }
        });
        let me = self.clone();
        self.tasks.run("image_drift", Duration::from_secs(60), self.builds.ended.clone(), move || {
            let me = me.clone();
            async move { me.drift().await }
        });
        let me = self.clone();
        self.tasks.run("machine_look", measure::LOOK_EVERY, never(), move || {
            let me = me.clone();
            async move { me.look_at_the_machine().await }
        });
        if let Some(github) = &self.github {
            self.start_github_tasks(github);
        }
        if schedules {
            let me = self.clone();
            self.tasks.run("image_tick", Duration::from_secs(2), never(), move || {
                let me = me.clone();
                async move { me.builds.tick().await }
            });
        }
        // Events only say that a look is worth while (F45).
        let (fleet, poke, stop) = (self.fleet.clone(), self.reconcile_poke.clone(), self.stop.clone());
        tokio::spawn(async move {
            use futures_util::StreamExt;
            while !stop.is_cancelled() {
                if let Ok(mut events) = fleet.backend().events().await {
                    poke.notify_one();
                    while let Some(Ok(event)) =
                        tokio::select! { e = events.next() => e, () = stop.cancelled() => None }
                    {
                        if event.gone && fleet.get(event.sandbox).is_some() {
                            poke.notify_one();
                        }
                    }
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(Duration::from_secs(2)) => {}
                }
            }
        });
    }

    fn start_github_tasks(self: &Arc<Self>, github: &Arc<Github>) {
        let never = || Arc::new(Notify::new());
        let (me, of) = (self.clone(), github.clone());
        self.tasks.run("webhook_work", Duration::from_secs(5), github.hooks.arrived.clone(), move || {
            let (me, of) = (me.clone(), of.clone());
            async move {
                let mirrors: Arc<dyn Mirrors> = Arc::new(me.mirrors.clone());
                let App { repos, builds, pulls, .. } = &*me;
                of.work(&news::Reach { repos, builds, pulls, mirrors: &mirrors }).await
            }
        });
        let of = github.clone();
        self.tasks.run("webhook_missed", Duration::from_secs(5 * 60), never(), move || {
            let of = of.clone();
            async move { of.hooks.look_for_missed(&of.app).await }
        });
        let (me, of) = (self.clone(), github.clone());
        self.tasks.run("pull_poll", Duration::from_secs(30), never(), move || {
            let (me, of) = (me.clone(), of.clone());
            async move {
                of.people.forget_others(|session| me.sessions.live(session).is_some());
                me.pulls.look().await
            }
        });
    }

    /// Commits between an image and the tip of its branch, as of the mirror; `None` where they are unrelated.
    pub async fn behind(&self, spec: &RepoSpec, image: &domain::ImageRecord) -> Result<Option<u32>> {
        match self.mirrors.tip(&spec.name, &spec.branch).await? {
            Some(tip) => self.mirrors.distance(&spec.name, &image.commit, &tip).await,
            None => Ok(None),
        }
    }

    /// How far each image is behind its branch, as of the mirror.
    async fn drift(&self) -> Result<()> {
        for spec in self.repos.all() {
            let Some(image) = self.repos.current_image(&spec.name) else { continue };
            // A mirror that is not there yet tells nothing, and keeps nobody else's from telling.
            let Ok(Some(behind)) = self.behind(&spec, &image).await else { continue };
            let label = OfRepo { repo: spec.name.to_string() };
            self.metrics.image_commits_behind.get_or_create(&label).set(behind.into());
        }
        Ok(())
    }

    /// Why requests can't be served; empty when they can.
    pub async fn not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        match tokio::time::timeout(Duration::from_secs(2), self.fleet.backend().probe()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => reasons.push(format!("the engine: {}", e.chain())),
            Err(_) => reasons.push("the engine does not answer".into()),
        }
        if self.stop.is_cancelled() {
            reasons.push("shutting down".into());
        }
        reasons
    }

    /// Puts new specs of the repos in force. Sessions and members that exist keep what they were started with; images
    /// and pool follow at their next look.
    pub fn reconfigure(&self, specs: Vec<RepoSpec>, builds: config::BuildSettings, budget: Budget) {
        self.mirrors.set_remotes(remotes(&specs));
        for old in self.repos.all() {
            if !specs.iter().any(|s| s.name == old.name) {
                self.metrics.forget_repo(&old.name);
            }
        }
        for spec in &specs {
            self.metrics.announce_repo(&spec.name);
        }
        self.repos.replace(specs);
        self.builds.reconfigure(builds);
        self.room.set_budget(budget);
        self.metrics.set_budget(budget);
        self.fleet.pool_poke.notify_one();
    }

    /// A line for a session's log.
    pub fn logs(&self, session: &Session, kind: &'static str, data: Value) {
        sessions::post(&self.session_logs, session.id, kind, data);
    }

    /// Serves the API until the server stops.
    pub async fn serve(self: &Arc<Self>, endpoint: impl Into<Endpoint>) -> Result<()> {
        let router = crate::api::service(self.clone());
        let stop = self.stop.clone();
        let stopping = stop.clone();
        let served = axum::serve(endpoint.into(), router)
            .with_graceful_shutdown(async move { stopping.cancelled().await });
        // Streams that clients follow may never end by themselves; they can go on after the next start.
        let patience = async move {
            stop.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            served = served.into_future() => served.map_err(|e| Error::permanent("serve the API").caused_by(e)),
            () = patience => Ok(()),
        }
    }

    /// Stops this process's work and leaves sandboxes, sessions and pool as they are: the next start takes them up.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        let quiet = async {
            self.tasks.quiet().await;
            self.warmups.quiet().await;
            self.sessions.quiet().await;
            self.builds.quiet().await;
            self.fleet.quiet().await;
        };
        if tokio::time::timeout(Duration::from_secs(30), quiet).await.is_err() {
            warn!("some work did not end within 30 s of the shutdown; a restart resumes it");
        }
        if let Err(e) = self.demands.save().await {
            warn!(error = %e.chain(), "could not write down the last claims");
        }
        if let Err(e) = self.access.save().await {
            warn!(error = %e.chain(), "could not write down when keys were last used");
        }
        self.audit.finish().await;
        self.tracer.finish(SPANS_LEAVE).await;
        self.session_logs.clone().close().await;
        self.store.clone().close().await;
    }

    /// Removes everything this instance has in the engine, then shuts down. For `demo` and tests.
    pub async fn tear_down(self: &Arc<Self>, keep_bases: bool) -> Result<()> {
        self.stop.cancel();
        self.tasks.quiet().await;
        self.warmups.quiet().await;
        self.builds.quiet().await;
        self.sessions.quiet().await;
        self.fleet.quiet().await;
        let backend = self.fleet.backend();
        for sandbox in backend.list().await? {
            backend.stop(sandbox.id).await?;
        }
        self.captures.remove_all(keep_bases).await?;
        backend.dispose().await?;
        self.shutdown().await;
        Ok(())
    }
}

/// The registry of the configuration, with its user's password.
struct Registered {
    prefix: String,
    host: String,
    login: Option<Login>,
}

impl Registered {
    fn read(settings: &config::RegistrySettings) -> Result<Self> {
        let host = settings.push.split('/').next().unwrap_or_default().to_owned();
        Ok(Self { prefix: settings.push.clone(), host, login: shipping::login(settings)? })
    }

    fn destination(self, engine: &DockerBackend) -> Result<Destination> {
        let registry = Registry::new(&self.host, self.login)?;
        let through = ThroughEngine::new(engine.clone(), registry);
        Ok(Destination { registry: Arc::new(through), prefix: self.prefix })
    }
}

fn connect_docker(
    settings: &config::DockerSettings,
    registry: Option<&Registered>,
    (instance, secret): (InstanceId, [u8; 32]),
    run_dir: &Path,
    metrics: &Arc<Metrics>,
) -> Result<DockerBackend> {
    let mut docker = DockerConfig::new(instance, secret, run_dir);
    if let Some(Registered { host, login: Some(login), .. }) = registry {
        let credential = Credential { user: login.user.clone(), secret: login.password.to_string() };
        docker.credentials.insert(host.clone(), credential);
    }
    docker.host = settings.host.clone();
    docker.runtime = settings.runtime.clone();
    let metrics = metrics.clone();
    docker.on_call = Some(Arc::new(move |call, took, failed| metrics.backend_called(call, took, failed)));
    DockerBackend::connect(docker)
}

fn gateway_options(sessions: &Arc<Sessions>, pulls: &Arc<Pulls>) -> GatewayOptions {
    let (sessions, pulls) = (Arc::downgrade(sessions), Arc::downgrade(pulls));
    GatewayOptions {
        on_push: Some(Arc::new(move |push| {
            if let Some(sessions) = sessions.upgrade() {
                sessions.pushed(&push);
            }
            if let Some(pulls) = pulls.upgrade() {
                tokio::spawn(async move { pulls.pushed(&push).await });
            }
        })),
        ..GatewayOptions::default()
    }
}

fn remotes(specs: &[RepoSpec]) -> Vec<Remote> {
    specs
        .iter()
        .map(|s| Remote { repo: s.name.clone(), url: s.url.clone(), pushes: s.pushes.clone() })
        .collect()
}

/// The API key of this installation, made at the first start, readable by its owner alone.
fn api_key(dir: &Path) -> Result<String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = dir.join("api.key");
    let context = |what: &str| format!("{what} {}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(key) if key.trim().len() >= 32 => return Ok(key.trim().to_owned()),
        Ok(_) => {
            return Err(Error::invalid(format!(
                "{} holds no key: remove it, and a new one is made",
                path.display()
            )));
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(Error::permanent(context("read")).caused_by(e)),
    }
    let key = access::new_secret();
    let write = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{key}")?;
        file.sync_all()
    };
    write().map_err(|e| Error::permanent(context("write")).caused_by(e))?;
    Ok(key)
}
