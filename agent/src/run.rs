//! The life of the agent: one thread, its signals, its tasks, its end.

use std::rc::Rc;
use std::time::Duration;

use domain::wire::Boot;
use domain::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::LocalSet;

use crate::api::App;
use crate::{boot, link, quiesce, rehearsal, relay};

/// What children get to end when the sandbox is told to.
const GRACE: Duration = Duration::from_secs(3);
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// Serves until SIGTERM or SIGINT.
pub fn run(boot: Boot) -> Result<()> {
    boot::prepare_process();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .thread_stack_size(256 * 1024)
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .map_err(|e| Error::permanent("start the runtime").caused_by(e))?;
    LocalSet::new().block_on(&runtime, live(Rc::new(App::new(boot))))
}

async fn live(app: Rc<App>) -> Result<()> {
    // The first process of a pid namespace gets no signal that it has no handler for.
    let on = |kind| signal(kind).map_err(|e| Error::permanent("handle signals").caused_by(e));
    let mut terminated = on(SignalKind::terminate())?;
    let mut interrupted = on(SignalKind::interrupt())?;
    let mut hung_up = on(SignalKind::hangup())?;
    let mut child_ended = on(SignalKind::child())?;
    let reaping = Rc::clone(&app);
    tokio::task::spawn_local(async move {
        loop {
            reaping.processes.reap();
            if child_ended.recv().await.is_none() {
                return;
            }
        }
    });
    // Before it dials: who answers is ready.
    rehearsal::rehearse(&app);
    tokio::task::spawn_local(link::serve_forever(Rc::clone(&app)));
    tokio::task::spawn_local(relay::serve_forever(Rc::clone(&app)));
    let mut tidy = tokio::time::interval(TIDY_EVERY);
    loop {
        tokio::select! {
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
            _ = hung_up.recv() => {}
            _ = tidy.tick() => app.execs.forget_old(),
        }
    }
    quiesce::stop_all(&app.execs, GRACE).await;
    app.processes.reap(); // what has just ended is ours to collect
    Ok(())
}
