//! One command that nobody asked for, before anybody waits for one.
//!
//! The first command of a sandbox pays for what is made once: the stack to fork with, the gate's filter and the thread
//! that judges, the pages of this program. A member of the pool pays for it here, while it is nobody's yet; and again
//! with each keep-alive, so that what it paid for is still there.

use std::fs::OpenOptions;
use std::os::fd::AsFd;

use crate::api::App;
use crate::spawn::Command;

/// Starts this program with `--version`, behind the gate if that is shut. Where it can't be started, the first command
/// will say so; here it is nobody's error.
pub fn rehearse(app: &App) {
    let Ok(program) = std::env::current_exe() else { return };
    let Ok(nowhere) = OpenOptions::new().read(true).write(true).open("/dev/null") else { return };
    let argv = [program.to_string_lossy().into_owned(), "--version".to_owned()];
    let nowhere = nowhere.as_fd();
    let started = app.processes.spawn(&Command {
        argv: &argv,
        env: &Default::default(),
        cwd: "/".as_ref(),
        stdin: nowhere,
        stdout: nowhere,
        stderr: nowhere,
        terminal: false,
        user: None,
        gate: (!app.gate.is_open()).then_some(&app.gate),
    });
    // The reaper collects it; how it ended is of no interest.
    drop(started);
}
