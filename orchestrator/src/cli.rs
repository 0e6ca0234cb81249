//! The command line. `serve` and `demo` are the server; everything else is a client of its API.

mod audit;
mod backup;
mod build;
mod difference;
mod doctor;
mod events;
mod image;
mod key;
mod login;
mod output;
mod pool;
mod recipe;
mod samples;
mod session;
mod stats;
mod support;
mod top;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser, Subcommand};
use domain::{Error, Result};
use sd_notify::NotifyState;
use serde_json::Value;

use crate::api::types::{List, RepoView, SnapshotView};
use crate::app::{App, Engine, Options};
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::tls::{Certificate, Trust};
use crate::warmups::Limits;
use output::{Out, ago, bytes, short};

/// Ready development environments for background coding agents, self-hosted.
#[derive(Parser)]
#[command(name = "hotbed", version, propagate_version = true)]
struct Cli {
    /// The configuration file.
    #[arg(long, short, global = true, env = "HOTBED_CONFIG", default_value = "/etc/hotbed/hotbed.yaml")]
    config: PathBuf,
    /// Where the server is; from the configuration when not given.
    #[arg(long, global = true, env = "HOTBED_ADDRESS")]
    address: Option<String>,
    /// The API key; `api.key` in the state directory when not given.
    #[arg(long, global = true, env = "HOTBED_KEY", hide_env_values = true)]
    key: Option<String>,
    /// A PEM file with the authorities that are believed over TLS (`https://…`); the machine's own when not given.
    #[arg(long, global = true, env = "HOTBED_CA")]
    ca: Option<PathBuf>,
    /// JSON instead of tables.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the server.
    Serve,
    /// Walk through the whole job once, on a real project, and leave nothing behind.
    Demo(crate::demo::Args),
    /// Look at what is missing and how to mend it.
    Doctor,
    /// Whether the server is ready, and if not, why: for health checks. Exits with 1 when it is not.
    Ready,
    /// The configuration file.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Repos with their image and pool.
    #[command(subcommand)]
    Repo(RepoCommand),
    /// Builds: start one, list them, follow one.
    #[command(subcommand)]
    Build(build::BuildCommand),
    /// Images: list, promote, roll back, pin.
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Recipes: what another tool's environment file becomes.
    #[command(subcommand)]
    Recipe(recipe::RecipeCommand),
    /// Pools: what they want, what they have, and why.
    #[command(subcommand)]
    Pool(pool::PoolCommand),
    /// Sessions: start, use, end.
    #[command(subcommand)]
    Session(session::SessionCommand),
    /// Snapshots of sessions.
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
    /// API keys: who may use the API, and how far.
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Who did what: the audit log.
    Audit(audit::AuditArgs),
    /// Gather what helps to find a fault into one file, without secrets.
    SupportBundle(support::Args),
    /// Copy the state directory into one file, while the server runs or not.
    Backup(backup::BackupArgs),
    /// Put a copy of the state directory back, while no server runs.
    Restore(backup::RestoreArgs),
    /// Sign a user in, so that sessions push and open pull requests as them: by a code, typed in at GitHub.
    Login(login::LoginArgs),
    /// Sign a user out, here and at GitHub.
    Logout { login: String },
    /// Who has signed in.
    Users,
    /// What happens in the installation, a line each; `-f` follows it.
    Events(events::EventsArgs),
    /// A live picture: repos, pools, sessions, builds, queues.
    Top(top::TopArgs),
    /// What came of sessions: merged pull requests, how long they took, who is at work now.
    Stats(stats::StatsArgs),
    /// The API's description, OpenAPI 3.1.
    Openapi,
    /// Completions for a shell.
    Completions { shell: clap_complete::Shell },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the file and say every error in it.
    Check,
    /// The JSON Schema of the file.
    Schema {
        /// That of a repository's own `.hotbed.yaml`.
        #[arg(long)]
        repository: bool,
    },
}

#[derive(Subcommand)]
enum RepoCommand {
    Ls,
}

#[derive(Subcommand)]
enum SnapshotCommand {
    Ls {
        #[arg(long)]
        session: Option<String>,
    },
    /// Remove a snapshot for good.
    Rm { id: String },
}

/// What a command needs to talk to a server.
struct Ctx {
    config: PathBuf,
    address: Option<String>,
    key: Option<String>,
    ca: Option<PathBuf>,
    out: Out,
}

impl Ctx {
    /// A client of the server that the configuration (or the flags) name.
    fn client(&self) -> Result<Client> {
        let settings = match (&self.address, &self.key) {
            (Some(_), Some(_)) => None,
            _ => Some(load(&self.config)?),
        };
        let address = match (&self.address, &settings) {
            (Some(address), _) => address.trim_start_matches("http://").trim_end_matches('/').to_owned(),
            (None, Some(config)) => match &config.settings().tls {
                Some(_) => format!("https://{}", config.settings().listen),
                None => config.settings().listen.to_string(),
            },
            (None, None) => return Err(Error::invalid("`--address` is missing")),
        };
        let key = match (&self.key, &settings) {
            (Some(key), _) => key.clone(),
            (None, Some(config)) => {
                let path = config.settings().state_dir.join("api.key");
                std::fs::read_to_string(&path)
                    .map_err(|e| {
                        Error::invalid(format!(
                            "read the API key {} (`hotbed serve` makes it)",
                            path.display()
                        ))
                        .caused_by(e)
                    })?
                    .trim()
                    .to_owned()
            }
            (None, None) => return Err(Error::invalid("`--key` is missing")),
        };
        let secure = address.starts_with("https://");
        let client = Client::new(address, key);
        Ok(if secure { client.trusting(Trust::new(self.ca.as_deref())?) } else { client })
    }
}

fn load(path: &Path) -> Result<config::Config> {
    config::Config::load(path).map_err(|e| Error::invalid(e.to_string()))
}

pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build() {
            Ok(runtime) => runtime,
            Err(e) => {
                eprintln!("hotbed: can't start: {e}");
                return ExitCode::FAILURE;
            }
        };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("hotbed: {}", e.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode> {
    let ctx = Ctx {
        config: cli.config,
        address: cli.address,
        key: cli.key,
        ca: cli.ca,
        out: Out { json: cli.json },
    };
    match cli.command {
        Command::Serve => serve(&ctx).await?,
        Command::Demo(args) => return crate::demo::run(args).await,
        Command::Doctor => return doctor::run(&ctx).await,
        Command::Ready => {
            // A server that is not ready answers 503, which is an error with its reasons.
            let ready: Value = ctx.client()?.get("/readyz").await?;
            println!("{ready}");
        }
        Command::Config(ConfigCommand::Check) => {
            let config = load(&ctx.config)?;
            for warning in config.warnings() {
                eprintln!("{warning}");
            }
            if let Some(tls) = &config.settings().tls {
                Certificate::open(tls)?;
            }
            println!("{}: good, {} repos", ctx.config.display(), config.repos().len());
        }
        Command::Config(ConfigCommand::Schema { repository: false }) => {
            println!("{:#}", config::Config::schema());
        }
        Command::Config(ConfigCommand::Schema { repository: true }) => {
            println!("{:#}", config::Config::repository_schema());
        }
        Command::Repo(RepoCommand::Ls) => repos(&ctx).await?,
        Command::Build(command) => return build::run(&ctx, command).await,
        Command::Image(command) => return image::run(&ctx, command).await,
        Command::Pool(command) => return pool::run(&ctx, command).await,
        Command::Recipe(command) => return recipe::run(&ctx, command),
        Command::Session(command) => return session::run(&ctx, command).await,
        Command::Snapshot(SnapshotCommand::Ls { session }) => {
            let query = session.map_or(String::new(), |s| format!("?session={s}"));
            let list: List<SnapshotView> = ctx.client()?.get(&format!("/v1/snapshots{query}")).await?;
            ctx.out.table(
                &["SNAPSHOT", "SESSION", "REPO", "KIND", "STATE", "COMMIT", "SIZE", "AGE"],
                &list.items,
                |s| {
                    vec![
                        s.id.clone(),
                        s.session.clone(),
                        s.repo.clone(),
                        s.kind.clone(),
                        s.state.clone(),
                        short(s.commit.as_deref()),
                        s.size.map_or("-".into(), bytes),
                        ago(s.created_at),
                    ]
                },
            )?;
        }
        Command::Snapshot(SnapshotCommand::Rm { id }) => {
            let _: Value = ctx.client()?.delete(&format!("/v1/snapshots/{id}")).await?;
            println!("{id} removed");
        }
        Command::Key(command) => key::run(&ctx, command).await?,
        Command::Audit(args) => audit::run(&ctx, &args).await?,
        Command::SupportBundle(args) => support::run(&ctx, args).await?,
        Command::Backup(args) => backup::backup(&ctx, args).await?,
        Command::Restore(args) => backup::restore(&ctx, args).await?,
        Command::Login(args) => login::login(&ctx, args).await?,
        Command::Logout { login } => login::logout(&ctx, &login).await?,
        Command::Users => login::users(&ctx).await?,
        Command::Events(args) => events::run(&ctx, &args).await?,
        Command::Top(args) => return top::run(&ctx, args).await,
        Command::Stats(args) => stats::run(&ctx, &args).await?,
        Command::Openapi => {
            let text = crate::api::openapi()
                .to_pretty_json()
                .map_err(|e| Error::permanent("write OpenAPI").caused_by(e))?;
            println!("{text}");
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "hotbed", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn repos(ctx: &Ctx) -> Result<()> {
    let list: List<RepoView> = ctx.client()?.get("/v1/repos").await?;
    ctx.out.table(&["REPO", "BRANCH", "IMAGE", "COMMIT", "IMAGE AGE", "POOL", "BUILD"], &list.items, |r| {
        vec![
            r.name.clone(),
            r.branch.clone(),
            r.image.as_ref().map_or("-".into(), |i| format!("gen {}", i.generation)),
            short(r.image.as_ref().map(|i| i.commit.as_str())),
            r.image.as_ref().map_or("-".into(), |i| ago(i.created_at)),
            r.pool.as_ref().map_or("-".into(), |p| format!("{}/{}", p.warm, p.target)),
            r.build.as_ref().map_or("-".into(), |b| match &b.phase {
                Some(phase) => format!("{} ({phase})", b.state),
                None => b.state.clone(),
            }),
        ]
    })
}

async fn serve(ctx: &Ctx) -> Result<()> {
    crate::logging::to_stderr("info");
    let config = load(&ctx.config)?;
    for warning in config.warnings() {
        tracing::warn!(%warning, "the configuration is taken, but look at this");
    }
    let settings = config.settings();
    let address = &settings.listen;
    let certificate = settings.tls.as_ref().map(Certificate::open).transpose()?;
    let mut options =
        Options::new(&settings.state_dir, config.repos().to_vec(), Engine::Docker(settings.docker.clone()));
    options.base_url = match address {
        config::ListenAddress::Tcp(address) if certificate.is_some() => format!("https://{address}"),
        config::ListenAddress::Tcp(address) => format!("http://{address}"),
        config::ListenAddress::Unix(_) => "http://localhost".into(),
    };
    options.builds = settings.builds;
    options.retention = settings.retention;
    options.budget = settings.budget;
    options.access = settings.access.clone();
    options.quotas = settings.quotas;
    options.warmups = limits(settings);
    options.registry = settings.registry.clone();
    options.forge = settings.forge.clone();
    options.tracing = settings.tracing.clone();
    let app = App::start(options).await?;
    let endpoint = match Endpoint::handed_over(certificate.clone())? {
        Some(endpoint) => endpoint,
        None => Endpoint::bind_with(address, certificate.clone()).await?,
    };
    tracing::info!(%address, repos = config.repos().len(), "Hotbed is up");
    tell_systemd(NotifyState::Ready);
    let stop = app.stop.clone();
    tokio::spawn(async move {
        stop_signal().await;
        tell_systemd(NotifyState::Stopping);
        tracing::info!("stopping; sandboxes and sessions stay, the next start takes them up");
        stop.cancel();
    });
    let reloading = tokio::spawn(reload(ctx.config.clone(), config, app.clone(), certificate));
    app.serve(endpoint).await?;
    reloading.abort();
    app.shutdown().await;
    Ok(())
}

/// Where `Type=notify` waits for it.
fn tell_systemd(state: NotifyState<'_>) {
    if let Err(e) = sd_notify::notify(&[state]) {
        tracing::warn!(error = %e, "systemd can't be told");
    }
}

fn limits(settings: &config::Settings) -> Limits {
    let config::WarmupSettings { live, per_second, origins } = settings.warmups.clone();
    Limits { live: live as usize, per_second, origins }
}

/// Puts a changed configuration in force, at SIGHUP or when the file changes. A bad one is refused with its lines and
/// the old one stays.
async fn reload(
    path: PathBuf,
    mut present: config::Config,
    app: Arc<App>,
    certificate: Option<Arc<Certificate>>,
) {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    let changed_at = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let mut seen = changed_at(&path);
    loop {
        let asked = tokio::select! {
            _ = hangup.recv() => true,
            () = tokio::time::sleep(std::time::Duration::from_secs(2)) => false,
        };
        if let Some(certificate) = &certificate {
            certificate.refresh(asked);
        }
        let now = changed_at(&path);
        if !asked && now == seen {
            continue;
        }
        seen = now;
        let new = match load(&path) {
            Ok(new) => new,
            Err(e) => {
                tracing::error!(error = %e.chain(), "the new configuration is refused, the old one stays in force");
                continue;
            }
        };
        let diff = new.diff(&present);
        if diff.is_empty() {
            continue;
        }
        for change in diff.to_string().lines() {
            tracing::info!(change, "the configuration changed");
        }
        if diff.needs_restart() {
            tracing::warn!("some of it needs a restart to take effect");
        }
        app.access.reconfigure(&new.settings().access);
        app.quotas.set(new.settings().quotas);
        app.warmups.set_limits(limits(new.settings()));
        app.retention.reconfigure(new.settings().retention);
        app.audit.reconfigure(new.settings().retention);
        app.reconfigure(new.repos().to_vec(), new.settings().builds, new.settings().budget);
        present = new;
    }
}

/// Returns at SIGINT or SIGTERM.
pub async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = term.recv() => {}
        },
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    /// What every command takes, such as `--key`, reads what a command itself calls by that name.
    #[test]
    fn no_command_has_an_argument_of_the_name_of_a_global_one() {
        fn look(command: &clap::Command, global: &[String], path: &str, found: &mut Vec<String>) {
            for sub in command.get_subcommands() {
                let path = format!("{path} {}", sub.get_name());
                let own = sub.get_arguments().map(|a| a.get_id().as_str());
                found.extend(own.filter(|a| global.iter().any(|g| g == a)).map(|a| format!("{path}: {a}")));
                look(sub, global, &path, found);
            }
        }
        let hotbed = Cli::command();
        let global: Vec<_> =
            hotbed.get_arguments().filter(|a| a.is_global_set()).map(|a| a.get_id().to_string()).collect();
        assert!(global.len() >= 5, "{global:?}");
        let mut found = Vec::new();
        look(&hotbed, &global, "hotbed", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}
