//! What only several keys together, or the machine, can tell: duplicates, limits against each other, the budget,
//! files. Makes [`Settings`] and [`RepoSpec`]s of what holds.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use domain::{
    Budget, CanaryPolicy, Network, PoolPolicy, Recipe, RepoSpec, Resources, RolloutPolicy, SecretSource,
    SessionPolicy, Window,
};

use crate::Warning;
use crate::de::{decode, place_of};
use crate::error::{Problem, Source, clip};
use crate::pem;
use crate::sections::{
    BackendSection, File, ForgeSection, ImageSection, NetworkSection, RepoSection, TracingSection,
    WindowSection,
};
use crate::settings::{
    AccessSettings, BuildSettings, DockerSettings, ForgeSettings, QuotaSettings, RegistrySettings,
    RetentionSettings, Settings, TlsSettings, TracingSettings, WarmupSettings,
};
use crate::tree::{Node, Value, merge};
use crate::values::{ByteSize, Cpus, FilePath, ListenAddress, SecretRef};

/// The most sandboxes that one pool may be asked to keep.
const MAX_POOL: u32 = 10_000;
/// The most builds that one host may be asked to run at once.
const MAX_BUILDS: u32 = 64;
const MIN_MEMORY: ByteSize = ByteSize(64 << 20);

mod access;
mod github;

pub(crate) struct Checker<'a> {
    source: &'a Source,
    root: &'a Node,
    base_dir: &'a Path,
    pub problems: Vec<Problem>,
    pub warnings: Vec<Warning>,
    /// Each certificate file is read once.
    certificates: HashMap<PathBuf, Result<usize, String>>,
}

/// A repo of the file with the defaults under it.
struct Merged {
    /// `repos[3]`
    at: String,
    section: RepoSection,
    /// None of its keys was refused, so keys may be compared.
    whole: bool,
}

impl<'a> Checker<'a> {
    pub fn new(source: &'a Source, root: &'a Node, base_dir: &'a Path, problems: Vec<Problem>) -> Self {
        Self { source, root, base_dir, problems, warnings: Vec::new(), certificates: HashMap::new() }
    }

    /// Where a key of a repo is written: at the repo, in the defaults, or nowhere; then its next of kin.
    fn locate(&self, at: &str, key: &str) -> (std::ops::Range<usize>, String) {
        let own = match (at, key) {
            ("", key) => key.to_owned(),
            (at, "") => at.to_owned(),
            (at, key) => format!("{at}.{key}"),
        };
        if let Some(node) = self.root.find(&own) {
            return (place_of(node), own);
        }
        if at.starts_with("repos[") {
            let shared = format!("defaults.{key}");
            if let Some(node) = self.root.find(&shared) {
                return (place_of(node), shared);
            }
        }
        let mut near = own.as_str();
        while let Some(cut) = near.rfind(['.', '[']) {
            near = &near[..cut];
            if let Some(node) = self.root.find(near) {
                return (place_of(node), own);
            }
        }
        (place_of(self.root), own)
    }

    fn problem(&mut self, at: &str, key: &str, problem: Problem) {
        let (span, path) = self.locate(at, key);
        let problem = problem.path(path).at(span);
        // What stands in the defaults is wrong once, not once for each repo.
        if !self.problems.iter().any(|p| p.path == problem.path && p.message == problem.message) {
            self.problems.push(problem);
        }
    }

    fn warn(&mut self, at: &str, key: &str, message: &str) {
        let (span, path) = self.locate(at, key);
        let line = self.source.line_of(span.start);
        let before = self.source.text.get(self.source.start_of(line)..span.start).unwrap_or_default();
        let warning = Warning {
            file: self.source.file.clone(),
            path,
            line,
            column: before.chars().count() + 1,
            message: message.to_owned(),
        };
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Checks the rest of what decoded; the result counts only when there are no problems.
    pub fn run(&mut self, file: &File) -> (Settings, Vec<RepoSpec>) {
        let repos = self.merged();
        self.duplicates(&repos);
        for repo in &repos {
            self.repo(repo);
        }
        if !self.root.is_repaired() {
            self.budget(file, &repos);
        }
        self.builds(file);
        self.registry(file);
        if let ForgeSection::Github(section) = &file.forge {
            self.github(section, &repos);
        }
        self.not_in_this_build(file, &repos);
        self.not_acted_on(file, &repos);
        self.general(file, &repos);
        self.access(&file.access);
        self.tls(file);
        self.quotas(file);
        self.warmups(file);
        if let Some(tracing) = &file.tracing {
            let key = "tracing.per_second";
            self.at_least("", key, tracing.per_second, 1, "leave `tracing` out where nothing is traced");
        }
        for path in file.ca_certificates.iter().enumerate() {
            self.certificate("", "ca_certificates", path);
        }
        let specs = repos.iter().filter_map(|r| self.spec(file, &r.section)).collect();
        (self.settings(file), specs)
    }

    fn merged(&mut self) -> Vec<Merged> {
        let Some(Node { value: Value::List(repos), .. }) = self.root.get("repos") else { return Vec::new() };
        let defaults = self.root.get("defaults");
        let shared_whole = !defaults.is_some_and(Node::is_repaired);
        let mut out = Vec::new();
        for node in repos {
            let mut merged = defaults.map_or_else(|| node.clone(), |low| merge(low, node));
            // Both were read before, each by itself; merged they fit as well, or a problem says where not.
            let before = self.problems.len();
            if let Some(section) = decode::<RepoSection>(&mut merged, &mut self.problems) {
                let whole = shared_whole && !node.is_repaired() && self.problems.len() == before;
                out.push(Merged { at: node.path.clone(), section, whole });
            }
        }
        out
    }

    fn duplicates(&mut self, repos: &[Merged]) {
        let mut seen: HashMap<String, &str> = HashMap::new();
        for repo in repos {
            let Some(name) = &repo.section.name else { continue };
            // Forges don't tell `Acme/api` from `acme/api`, nor do some file systems.
            let key = name.0.as_str().to_lowercase();
            match seen.get(&key) {
                Some(first) => {
                    let line = self.source.line_of(self.locate(first, "name").0.start);
                    let problem = Problem::new(format!("the repository `{name}` is configured twice"))
                        .value(name.to_string())
                        .expected(format!("each repository once; the first one is on line {line}"));
                    self.problem(&repo.at, "name", problem);
                }
                None => {
                    seen.insert(key, &repo.at);
                }
            }
        }
    }

    fn repo(&mut self, repo: &Merged) {
        let Merged { at, section, whole } = repo;
        let node = self.root.find(at);
        for (key, missing, expected) in [
            ("name", section.name.is_none(), "`owner/name`, such as `acme/api`"),
            (
                "url",
                section.url.is_none(),
                "where git clones from, such as `https://github.com/acme/api.git`",
            ),
        ] {
            if missing && !node.is_some_and(|n| n.lost(key)) {
                self.problem(at, "", Problem::new(format!("`{key}` is missing")).expected(expected));
            }
        }
        let image = &section.image;
        if image.base.is_none() && *whole {
            let problem = Problem::new("`image.base` is missing, here and in `defaults`").expected(
                "an image reference such as `debian:bookworm`, or `{ packages: { suite: …, include: […] } }`",
            );
            self.problem(at, "image.base", problem);
        }
        if *whole {
            let secrets: Vec<_> = image.secrets.0.keys().map(String::as_str).collect();
            for (key, problem) in image.phases().problems(Some(&secrets)) {
                self.problem(at, &format!("image.{key}"), problem);
            }
        }
        for path in image.ca_certificates.iter().enumerate() {
            self.certificate(at, "image.ca_certificates", path);
        }
        self.at_least(at, "image.keep", image.keep, 1, "the current image is one of them");
        if let Some(canary) = &image.canary {
            let none = "a canary that nobody tries is no canary";
            self.at_least(at, "image.canary.sessions", canary.sessions, 1, none);
        }
        self.at_least(at, "resources.pids", section.resources.pids, 32, "git and a shell need some");
        if section.resources.memory < MIN_MEMORY {
            let problem = Problem::new(format!("`{}` is too little for a sandbox", section.resources.memory))
                .value(section.resources.memory.to_string())
                .expected(format!("at least {MIN_MEMORY}"));
            self.problem(at, "resources.memory", problem);
        }
        self.pool(repo);
        if let (Some(pause), Some(end), true) = (section.session.idle.pause, section.session.idle.end, *whole)
            && pause >= end
        {
            let problem = Problem::new(format!(
                "idle sessions would end after {end}, before they are paused after {pause}"
            ))
            .value(pause.to_string())
            .expected(format!("less than `session.idle.end`, which is {end}"));
            self.problem(at, "session.idle.pause", problem);
        }
    }

    fn pool(&mut self, repo: &Merged) {
        let Merged { at, section, whole } = repo;
        let pool = &section.pool;
        let mins = std::iter::once(("pool.min".to_owned(), pool.min))
            .chain(pool.schedule.iter().enumerate().map(|(i, w)| (format!("pool.schedule[{i}].min"), w.min)));
        for (key, min) in mins.collect::<Vec<_>>() {
            if min > pool.max && *whole {
                let given =
                    self.root.find(&format!("{at}.pool.max")).or_else(|| self.root.find("defaults.pool.max"));
                let note = if given.is_some() { "" } else { " unless set" };
                let problem = Problem::new(format!("`min` {min} is more than `max` {}", pool.max))
                    .value(min.to_string())
                    .expected(format!("at most `pool.max`, which is {}{note}", pool.max));
                self.problem(at, &key, problem);
            }
        }
        if pool.max > MAX_POOL {
            let problem = Problem::new(format!("`{}` sandboxes are more than Hotbed keeps", pool.max))
                .value(pool.max.to_string())
                .expected(format!("at most {MAX_POOL}"));
            self.problem(at, "pool.max", problem);
        }
    }

    fn builds(&mut self, file: &File) {
        let at_once = file.builds.at_once;
        if !(1..=MAX_BUILDS).contains(&at_once) {
            let problem = Problem::new(format!("`{at_once}` builds at once can't be"))
                .value(at_once.to_string())
                .expected(format!("1 to {MAX_BUILDS}"));
            self.problem("", "builds.at_once", problem);
        }
    }

    fn tls(&mut self, file: &File) {
        // What is in the files is for the server to judge: they may be there later, as those of secrets.
        if let ListenAddress::Unix(path) = &file.listen
            && file.tls.is_some()
        {
            let problem =
                Problem::new("`tls` is for an address and port, and the API listens at a unix socket")
                    .value(path.display().to_string())
                    .expected("an address and port in `listen`, or no `tls`");
            self.problem("", "tls", problem);
        }
    }

    fn quotas(&mut self, file: &File) {
        let quotas = &file.quotas;
        for (key, value) in [
            ("quotas.sessions_per_user", quotas.sessions_per_user),
            ("quotas.sessions_per_repo", quotas.sessions_per_repo),
            ("quotas.warmups_per_repo", quotas.warmups_per_repo),
        ] {
            self.at_least("", key, value.unwrap_or(1), 1, "leave it out where there is no limit");
        }
    }

    fn warmups(&mut self, file: &File) {
        let section = &file.warmups;
        if section.live > MAX_POOL {
            let problem = Problem::new(format!("`{}` warm-ups are more than Hotbed keeps", section.live))
                .value(section.live.to_string())
                .expected(format!("at most {MAX_POOL}"));
            self.problem("", "warmups.live", problem);
        }
        self.at_least("", "warmups.per_second", section.per_second, 1, "`live: 0` is what allows none");
    }

    fn registry(&mut self, file: &File) {
        let Some(registry) = &file.registry else { return };
        let push = &registry.push.0;
        let host = push.split_once('/').map(|(host, _)| host);
        if !host.is_some_and(|h| h.contains(['.', ':']) || h == "localhost") {
            let problem = Problem::new(format!("`{push}` names no registry"))
                .value(push.clone())
                .expected("`HOST/PATH`, such as `registry.example/hotbed`");
            self.problem("", "registry.push", problem);
        } else if push.contains('@') || push.rsplit('/').next().is_some_and(|last| last.contains(':')) {
            let problem = Problem::new(format!("`{push}` has a tag or a digest"))
                .value(push.clone())
                .expected("a name without them: the tag is the image's id");
            self.problem("", "registry.push", problem);
        }
        if registry.user.is_some() != registry.password.is_some() {
            let problem = Problem::new("a user and a password go together")
                .expected("both `user` and `password`, or neither");
            self.problem(
                "",
                if registry.user.is_some() { "registry.user" } else { "registry.password" },
                problem,
            );
        }
    }

    fn at_least(&mut self, at: &str, key: &str, value: u32, least: u32, why: &str) {
        if value < least {
            let problem = Problem::new(format!("`{value}` is too few"))
                .value(value.to_string())
                .expected(format!("at least {least}: {why}"));
            self.problem(at, key, problem);
        }
    }

    fn certificate(&mut self, at: &str, list: &str, (index, path): (usize, &FilePath)) {
        let full = self.resolve(path);
        let found = self.certificates.entry(full).or_insert_with_key(|full| pem::check(full)).clone();
        if let Err(why) = found {
            let problem =
                Problem::new(format!("the certificate file `{}` can't be used: {why}", clip(&path.0)))
                    .value(&path.0)
                    .expected("a readable file with PEM certificates");
            self.problem(at, &format!("{list}[{index}]"), problem);
        }
    }

    fn resolve(&self, path: &FilePath) -> PathBuf {
        self.base_dir.join(&path.0)
    }

    /// The warm sandboxes of all repos, and each sandbox alone, must fit into the budget.
    fn budget(&mut self, file: &File, repos: &[Merged]) {
        if let Some(sandboxes) = file.budget.sandboxes {
            self.at_least("", "budget.sandboxes", sandboxes, 1, "without one there is no session");
        }
        type Read = fn(&RepoSection) -> u64;
        type Show = fn(u64) -> String;
        let memory: (Read, Show) = (|r| r.resources.memory.0, |n| ByteSize(n).to_string());
        let cpus: (Read, Show) =
            (|r| u64::from(r.resources.cpus.0), |n| Cpus(u32::try_from(n).unwrap_or(u32::MAX)).to_string());
        let number: (Read, Show) = (|_| 1, |n| format!("{n} sandboxes"));
        for (key, budget, (read, show)) in [
            ("memory", file.budget.memory.map(|m| m.0), memory),
            ("cpus", file.budget.cpus.map(|c| u64::from(c.0)), cpus),
            ("sandboxes", file.budget.sandboxes.map(u64::from).filter(|n| *n > 0), number),
        ] {
            let Some(budget) = budget else { continue };
            let path = format!("budget.{key}");
            let mut sum = 0u64;
            let mut parts = Vec::new();
            for Merged { at, section, .. } in repos {
                let (one, min) = (read(section), section.pool.min);
                if one > budget {
                    let problem = Problem::new(format!(
                        "one sandbox needs {}, and `{path}` is {}",
                        show(one),
                        show(budget)
                    ))
                    .value(show(one))
                    .expected(format!("at most {}", show(budget)));
                    self.problem(at, &format!("resources.{key}"), problem);
                }
                sum = sum.saturating_add(one.saturating_mul(u64::from(min)));
                if min > 0 {
                    let name = section.name.as_ref().map(ToString::to_string).unwrap_or_default();
                    parts.push(match key {
                        "sandboxes" => format!("{name} {min}"),
                        _ => format!("{name} {min} × {}", show(one)),
                    });
                }
            }
            if sum > budget {
                let parts = match parts.len() {
                    0..=6 => parts.join(" + "),
                    n => format!("{} + {} more", parts[..6].join(" + "), n - 6),
                };
                let each = match key {
                    "sandboxes" => "`pool.min`".to_owned(),
                    _ => format!("`pool.min` × `resources.{key}`"),
                };
                let problem = Problem::new(format!(
                    "the pools keep {} warm ({each}), and `{path}` is {}",
                    show(sum),
                    show(budget)
                ))
                .value(show(budget))
                .expected(format!("at least {}: {parts}", show(sum)));
                self.problem("", &path, problem);
            }
        }
    }

    /// What parses and this version can't do. It is refused, never ignored: each would change what users may rely on.
    fn not_in_this_build(&mut self, file: &File, repos: &[Merged]) {
        let not = |what: &str, instead: &str| {
            Problem::new(format!("{what} is not in this build yet")).expected(instead)
        };
        if let BackendSection::Kubernetes(_) = file.backend {
            self.problem("", "backend.kubernetes", not("a Kubernetes backend", "`backend: { docker: {} }`"));
        }
        for Merged { at, section, .. } in repos {
            if let NetworkSection::Egress(_) = section.network {
                let problem =
                    Problem::new("egress lists are not enforced by this version; use none or bridge")
                        .expected("`none`, `bridge` or `{ use: NAME }`");
                self.problem(at, "network.egress", problem);
            }
        }
    }

    /// What is accepted and has no effect in this version. Each gets a warning, so that nobody relies on it.
    fn not_acted_on(&mut self, file: &File, repos: &[Merged]) {
        if matches!(&file.backend, BackendSection::Docker(docker) if docker.network.is_some()) {
            self.warn(
                "",
                "backend.docker.network",
                "this version names its network after the instance; it has no effect",
            );
        }
        for Merged { at, section, .. } in repos {
            if section.session.idle.pause.is_some() {
                self.warn(
                    at,
                    "session.idle.pause",
                    "idle sandboxes are not paused by this version; it has no effect",
                );
            }
        }
    }

    /// What works and is probably not meant.
    fn general(&mut self, file: &File, repos: &[Merged]) {
        if let ListenAddress::Tcp(address) = &file.listen
            && !address.ip().is_loopback()
            && file.tls.is_none()
        {
            self.warn(
                "",
                "listen",
                "API keys cross the network in plain text: set `tls`, or put a proxy with TLS in front of this address",
            );
        }
        if repos.is_empty() && !self.root.is_repaired() {
            self.warn("", "repos", "there are no repositories: there is nothing to do");
        }
        const SECRETS: [&str; 7] =
            ["TOKEN", "PASSWORD", "PASSWD", "SECRET", "PRIVATE_KEY", "API_KEY", "CREDENTIAL"];
        for Merged { at, section, .. } in repos {
            for name in section.image.env.0.keys() {
                if SECRETS.iter().any(|s| name.to_ascii_uppercase().contains(s)) {
                    let message = "this looks like a secret: the environment of an image is in every image, for all to read; `secrets` are not";
                    self.warn(at, &format!("image.env.{name}"), message);
                }
            }
        }
    }

    fn settings(&self, file: &File) -> Settings {
        let docker = match &file.backend {
            BackendSection::Docker(docker) => DockerSettings {
                host: docker.host.as_ref().map(|v| v.0.clone()),
                runtime: docker.runtime.as_ref().map(|v| v.0.clone()),
                network: docker.network.as_ref().map(|v| v.0.clone()),
            },
            BackendSection::Kubernetes(_) => DockerSettings::default(),
        };
        let forge = match &file.forge {
            ForgeSection::Local => ForgeSettings::Local,
            ForgeSection::Github(section) => ForgeSettings::Github(Box::new(self.github_settings(section))),
        };
        Settings {
            listen: file.listen.clone(),
            tls: file.tls.as_ref().map(|tls| TlsSettings {
                certificate: self.resolve(&tls.certificate),
                key: self.resolve(&tls.key),
            }),
            state_dir: self.resolve(&file.state_dir),
            docker,
            registry: file.registry.as_ref().map(|r| RegistrySettings {
                push: r.push.0.clone(),
                login: r.user.clone().zip(r.password.as_ref().map(|p| self.source(p))),
            }),
            forge,
            budget: Budget {
                memory: file.budget.memory.map(|m| m.0),
                cpu_millis: file.budget.cpus.map(|c| c.0.into()),
                sandboxes: file.budget.sandboxes.map(Into::into),
            },
            builds: BuildSettings { at_once: file.builds.at_once },
            retention: RetentionSettings {
                build_log_age: file.retention.build_log_age.0,
                build_logs: file.retention.build_logs,
                session_log_age: file.retention.session_log_age.0,
                session_logs: file.retention.session_logs,
                audit_age: file.retention.audit_age.0,
                audit_entries: file.retention.audit_entries,
                removed_repos: file.retention.removed_repos.0,
            },
            quotas: QuotaSettings {
                sessions_per_user: file.quotas.sessions_per_user,
                sessions_per_repo: file.quotas.sessions_per_repo,
                warmups_per_repo: file.quotas.warmups_per_repo,
            },
            access: AccessSettings {
                per_second: file.access.per_second,
                origins: file.access.origins.iter().map(|o| o.0.clone()).collect(),
                oidc: file.access.oidc.iter().map(|o| o.settings(|path| self.resolve(path))).collect(),
            },
            warmups: WarmupSettings {
                live: file.warmups.live,
                per_second: file.warmups.per_second,
                origins: file.warmups.origins.iter().map(|o| o.0.clone()).collect(),
            },
            tracing: file.tracing.as_ref().map(|section| self.tracing_settings(section)),
        }
    }

    fn tracing_settings(&self, section: &TracingSection) -> TracingSettings {
        let address = &section.endpoint.0;
        let has_path = address.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        TracingSettings {
            endpoint: if has_path { address.clone() } else { format!("{address}/v1/traces") },
            service_name: section.service_name.0.clone(),
            sample: section.sample.0,
            per_second: section.per_second,
            headers: section.headers.0.iter().map(|(n, s)| (n.clone(), self.source(s))).collect(),
        }
    }

    fn secrets(&self, image: &ImageSection) -> BTreeMap<String, SecretSource> {
        image.secrets.0.iter().map(|(name, secret)| (name.clone(), self.source(secret))).collect()
    }

    fn source(&self, secret: &SecretRef) -> SecretSource {
        match secret {
            SecretRef::Env(name) => SecretSource::Env(name.clone()),
            SecretRef::File(path) => SecretSource::File(self.base_dir.join(path)),
        }
    }

    /// `None` where something is missing; that is a problem already.
    fn spec(&self, file: &File, repo: &RepoSection) -> Option<RepoSpec> {
        let image = &repo.image;
        let base = image.base.as_ref()?.base();
        let network = match &repo.network {
            NetworkSection::None => Network::None,
            NetworkSection::Bridge => Network::Bridge,
            NetworkSection::Use(name) => Network::Named(name.0.clone()),
            NetworkSection::Egress(_) => return None,
        };
        Some(RepoSpec {
            name: repo.name.as_ref()?.0.clone(),
            url: repo.url.as_ref()?.0.clone(),
            branch: repo.branch.0.clone(),
            workspace: repo.workspace.0.clone(),
            image: Recipe {
                base,
                schedule: image.schedule.as_str().to_owned(),
                timezone: image.timezone.to_string(),
                phases: image.phases().phases(),
                max_age: image.max_age.0,
                keep: image.keep,
                env: image.env.0.clone(),
                secrets: self.secrets(image),
                ca_certificates: file
                    .ca_certificates
                    .iter()
                    .chain(&image.ca_certificates)
                    .map(|path| self.resolve(path))
                    .collect(),
                step_timeout: image.step_timeout.0,
                repository_file: image.repository_file.settings(),
            },
            rollout: RolloutPolicy {
                canary: image.canary.as_ref().map(|c| CanaryPolicy {
                    share: c.share.0,
                    sessions: c.sessions,
                    longest: c.longest.0,
                }),
                demote_after: image.demote_after,
            },
            pool: PoolPolicy {
                min: repo.pool.min,
                max: repo.pool.max,
                target_hit_rate: repo.pool.target_hit_rate.map(|rate| rate.0),
                windows: repo.pool.schedule.iter().map(window).collect(),
                idle_after: repo.pool.idle_after.map(|after| after.0),
                member_max_age: repo.pool.member_max_age.0,
                warmup_ttl: repo.pool.warmup_ttl.0,
                fresh_within: repo.pool.fresh_within.0,
            },
            session: SessionPolicy {
                timeout: repo.session.timeout.0,
                idle_end: repo.session.idle.end.map(|p| p.0),
                branch_pattern: repo.session.branch_pattern.0.clone(),
                sync_timeout: repo.session.sync_timeout.0,
            },
            pushes: repo.pushes.settings(),
            pulls: repo.pull_requests.settings(),
            resources: Resources {
                cpu_millis: repo.resources.cpus.0,
                memory: repo.resources.memory.0,
                pids: repo.resources.pids,
            },
            network,
        })
    }
}

fn window(section: &WindowSection) -> Window {
    let WindowSection { days, hours, timezone, min } = section;
    Window { days: days.on, from: hours.from, to: hours.to, zone: timezone.to_string(), min: *min }
}
