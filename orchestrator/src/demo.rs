//! `hotbed demo`: the whole job once, for real, through the public API; then everything it made is removed.

pub mod page;
mod project;
mod standin;
mod walk;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use domain::{Error, Result};
use git::hosting::GitHost;
use tokio::net::TcpListener;

use crate::app::{App, Engine, Options};
use crate::cli::stop_signal;
use crate::client::Client;
use crate::logging;
use page::Page;
use project::Project;
use standin::Standin;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A repository of yours instead of the demo's own; it is cloned, and never pushed to.
    #[arg(long, requires = "base")]
    repo: Option<String>,
    /// The image reference that `--repo` is built on. It must have git.
    #[arg(long, requires = "repo")]
    base: Option<String>,
    /// The first repo of this configuration file, with its recipe.
    #[arg(long = "from", conflicts_with = "repo")]
    from: Option<PathBuf>,
    /// Upstream is a GitHub: this program, which stands in for it.
    #[arg(long, value_name = "PROGRAM")]
    github_standin: Option<PathBuf>,
    /// Stay up after the pool is filled, for you to look around.
    #[arg(long)]
    stay: bool,
    /// Where files that a second demo can use again are kept.
    #[arg(long, env = "HOTBED_DEMO_CACHE")]
    cache: Option<PathBuf>,
}

pub async fn run(args: Args) -> Result<ExitCode> {
    logging::to_stderr("warn");
    let dir = tempdir()?;
    stage(&args, &dir.0).await.map(|()| ExitCode::SUCCESS)
}

/// A directory that goes with its holder.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            eprintln!("could not remove {}: {e}", self.0.display());
        }
    }
}

fn tempdir() -> Result<Dir> {
    let dir = std::env::temp_dir().join(format!("hotbed-demo-{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .map_err(|e| Error::permanent(format!("make {}", dir.display())).caused_by(e))?;
    Ok(Dir(dir))
}

async fn stage(args: &Args, dir: &std::path::Path) -> Result<()> {
    let cache = args.cache.clone().unwrap_or_else(|| dir.join("cache"));
    let cache =
        std::path::absolute(cache).map_err(|e| Error::invalid("find the demo's cache").caused_by(e))?;
    let host = GitHost::start(dir.join("upstream")).await?;
    let mut project = match (&args.repo, &args.base, &args.from) {
        (Some(repo), Some(base), _) => Project::of_url(&host, repo, base).await?,
        (_, _, Some(file)) => Project::of_config(&host, file).await?,
        _ => Project::of_registry(&host, &cache).await?,
    };
    let standin = match &args.github_standin {
        Some(program) => Some(move_in(program, dir, &host, &mut project).await?),
        None => None,
    };
    println!("project  {} at {}: {}", project.spec.name, project.spec.url, project.what);

    let (listener, address) = listen().await?;
    let (page_listener, page_address) = listen().await?;
    let mut options =
        Options::new(dir.join("state"), vec![project.spec.clone()], Engine::Docker(project.docker.clone()));
    options.cache_dir = Some(cache.join("bases"));
    options.base_url = format!("http://{address}");
    options.schedules = false;
    options.warmups.origins = vec![format!("http://{page_address}")];
    if let Some(standin) = &standin {
        options.forge = standin.forge(dir)?;
        standin.tell(&options.base_url).await?;
    }
    let app = App::start(options).await?;
    let served = {
        let app = app.clone();
        tokio::spawn(async move { app.serve(listener).await })
    };
    let client = Client::new(address.to_string(), app.api_key.clone());
    let stage =
        Stage { host: &host, standin: standin.as_ref(), state: dir.join("state"), page: page_address };
    let page = Page {
        client: Client::new(address.to_string(), app.api_key.clone()),
        hotbed: format!("http://{address}"),
        repo: project.spec.name.clone(),
        heartbeat: 30_000,
        grace: 10_000,
    };
    let walked = tokio::select! {
        ended = page::serve(page_listener, page), if args.stay => ended,
        walked = play(args, &client, &project, &stage) => walked,
        () = stop_signal() => {
            println!("\nstopping");
            if args.stay { Ok(()) } else { Err(Error::gone("stopped by a signal")) }
        }
    };
    let torn = app.tear_down(false).await;
    let _ = served.await;
    host.stop().await;
    let kept = match standin {
        Some(standin) => standin.end().await,
        None => Ok(()),
    };
    walked.and(torn).and(kept)
}

/// Puts the project on a GitHub that stands in for the one: its branch is pushed there, and that is its upstream.
async fn move_in(
    program: &std::path::Path,
    dir: &std::path::Path,
    host: &GitHost,
    project: &mut Project,
) -> Result<Standin> {
    let standin = Standin::start(program, &dir.join("github"), &project.spec.name).await?;
    standin.publish(host, &project.spec.branch).await?;
    project.spec.url = standin.clone_url();
    Ok(standin)
}

async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let failed = |e| Error::permanent("listen for the demo").caused_by(e);
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What is around Hotbed.
struct Stage<'a> {
    host: &'a GitHost,
    standin: Option<&'a Standin>,
    state: PathBuf,
    page: SocketAddr,
}

async fn play(args: &Args, client: &Client, project: &Project, stage: &Stage<'_>) -> Result<()> {
    let times = walk::prepare(client, project).await?;
    if !args.stay {
        return walk::walk(client, stage.host, stage.standin, project, times).await;
    }
    println!("\nHotbed stays up at http://{}; end it with Ctrl-C. Try:", client.address);
    println!(
        "  export HOTBED_ADDRESS={} HOTBED_KEY=$(cat {}/api.key)",
        client.address,
        stage.state.display()
    );
    println!(
        "  hotbed repo ls; id=$(hotbed session new {} --user you); hotbed session shell $id",
        project.spec.name
    );
    if let Some(standin) = stage.standin {
        println!(
            "GitHub is stood in for at {}. As its user {}, run `hotbed login`, and type the code in by",
            standin.url(),
            standin::USER
        );
        println!(
            "  curl {}/_standin/approve -d '{{\"user_code\": \"THE-CODE\", \"login\": \"{}\"}}'",
            standin.url(),
            standin::USER
        );
    }
    println!("Or type at http://{}/ and see what a keystroke does.", stage.page);
    std::future::pending().await
}
