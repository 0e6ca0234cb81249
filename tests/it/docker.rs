//! Whole servers on a real engine: `hotbed serve` as a process, real containers, the real agent, real git.
//!
//! Most tests share one World, each with a repo of its own; those that kill or starve it have their own. Sandboxes
//! have no network, except in the one test that is about it.

mod api;
mod builds;
mod command_line;
mod crashes;
mod daemon;
mod gate;
mod github;
mod guides;
mod losses;
mod packaging;
mod recipes;
mod registry;
mod rolling;
mod sizing;
mod traces;
mod trees;
mod walk;
mod world;

use std::time::Duration;

use tokio::sync::OnceCell;
use world::{Engine, Repo, World};

/// The longest that one of these tests may take, with the World that it may have to set up.
const LIMIT: Duration = Duration::from_secs(600);

/// Runs a test on a runtime of its own.
fn on_docker(test: impl Future<Output = ()>) {
    on_docker_within(LIMIT, test);
}

fn on_docker_within(limit: Duration, test: impl Future<Output = ()>) {
    crate::say_failures();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    runtime.block_on(async {
        assert!(tokio::time::timeout(limit, test).await.is_ok(), "not done within {limit:?}");
    });
}

static SHARED: OnceCell<World> = OnceCell::const_new();

/// The World that most tests share; each test has the repo that is named after it.
async fn shared() -> &'static World {
    let start = || async {
        let repos = vec![
            Repo::new("acme/walk", 1).with(|r| r.setup = vec!["echo built > /opt/built"]),
            Repo::new("acme/tree", 2),
            Repo::new("acme/slow", 1),
            Repo::new("acme/stuck", 1).with(|r| r.sync_timeout = "2s"),
            Repo::new("acme/fickle", 1),
            Repo::new("acme/churn", 1),
            Repo::new("acme/lost", 1),
            Repo::new("acme/roll", 2),
            Repo::new("acme/typed", 1),
            Repo::new("acme/drift", 2),
            Repo::new("acme/open", 0).with(|r| r.network = "bridge"),
        ];
        let world = World::start("shared", Engine::default(), repos).await;
        // Statics are not dropped: the World is looked at and removed when the process ends, and what is wrong
        // with it then fails the process.
        // SAFETY: `end_shared` is a plain function without arguments that does not unwind.
        let registered = unsafe { libc::atexit(end_shared) };
        assert_eq!(registered, 0, "atexit");
        world
    };
    SHARED.get_or_init(start).await
}

extern "C" fn end_shared() {
    end_world(SHARED.get());
}

/// Looks at a World and removes it, where it was made. Ends the process when something is wrong with it.
fn end_world(world: Option<&World>) {
    let Some(world) = world else { return };
    let ended = std::panic::catch_unwind(|| world.finish());
    let _ = std::fs::remove_dir_all(world.path());
    let wrong = match ended {
        Ok(Ok(())) => return,
        Ok(Err(wrong)) => wrong,
        Err(_) => "the end of the shared World panicked".to_owned(),
    };
    eprintln!("\ndocker: {wrong}");
    // SAFETY: ends the process at once; the handlers that are left have nothing to do.
    unsafe { libc::_exit(101) }
}
