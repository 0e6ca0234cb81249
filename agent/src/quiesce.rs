//! Ends what runs in the sandbox and puts its files on disk, before a capture and at the agent's own end.

use std::path::Path;
use std::time::Duration;

use domain::Result;
use rustix::fs::{Mode, OFlags};
use tokio::time::Instant;

use crate::exec::Execs;
use crate::files::on_disk;

/// After SIGKILL a process is gone soon, or hangs in the kernel where nobody can help it.
const AFTER_KILL: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(10);

/// Asks everything to end, then makes it.
pub async fn stop_all(execs: &Execs, grace: Duration) {
    signal_all(libc::SIGTERM);
    signal_all(libc::SIGCONT); // a stopped process would not hear of it
    if !wait_for_end(execs, grace).await {
        signal_all(libc::SIGKILL);
        wait_for_end(execs, AFTER_KILL).await;
    }
}

async fn wait_for_end(execs: &Execs, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        if execs.running() == 0 && descendants().is_empty() {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        tokio::time::sleep(STEP).await;
    }
}

/// Everything in the sandbox when this is its first process, else all descendants: daemons have left the process
/// group of the command that started them, so groups are not enough.
fn signal_all(signal: i32) {
    if std::process::id() == 1 {
        // SAFETY: no memory is involved. This means all processes but ourselves.
        unsafe { libc::kill(-1, signal) };
    } else {
        for pid in descendants() {
            // SAFETY: no memory is involved. The process was a descendant a moment ago, and none is collected
            // in between because that is done by this thread.
            unsafe { libc::kill(pid, signal) };
        }
    }
}

/// All living processes below this one. Orphans come back to it, so none is missed.
fn descendants() -> Vec<i32> {
    let mut parents: Vec<(i32, i32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // pid (name) state ppid …; the name may hold anything.
        let Some((_, rest)) = stat.rsplit_once(')') else { continue };
        let mut fields = rest.split_ascii_whitespace();
        if let (Some(state), Some(Ok(parent))) = (fields.next(), fields.next().map(str::parse))
            && state != "Z"
        {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![std::process::id() as i32];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.remove(0);
    found
}

/// Writes what is only in memory of the workspace's and the root's filesystem to disk.
pub async fn flush(workspace: &Path) -> Result<()> {
    let workspace = workspace.to_path_buf();
    on_disk(move || {
        for path in [workspace.as_path(), Path::new("/")] {
            // What can't be opened holds nothing of ours.
            if let Ok(fd) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
                rustix::fs::syncfs(&fd).map_err(|e| {
                    domain::Error::permanent(format!("flush {}", path.display())).caused_by(e)
                })?;
            }
        }
        Ok(())
    })
    .await
}
