//! One server per state directory. The kernel drops the lock with the process, however it ends, so a stale lock
//! can't exist; the file itself stays, because removing it would let two servers lock two different files.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use domain::{Error, Result};

use crate::{failure, files};

/// A process that its holder has just forked shares the lock until it calls exec, even when the holder is gone by then:
/// that passes within milliseconds, and a server that runs does not.
const PASSING: Duration = Duration::from_millis(500);
const AGAIN: Duration = Duration::from_millis(5);

/// Held for as long as this lives.
#[derive(Debug)]
pub(crate) struct DirLock(#[allow(dead_code)] File); // closing the file is what unlocks

impl DirLock {
    pub fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("hotbed.lock");
        let mut file = files::private_file(&path)?;
        match locked(&file) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The pid is for people; without it the refusal stands all the same.
                let _ = (&file).take(32).read_to_string(&mut pid);
                let holder = match pid.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".to_owned(),
                };
                return Err(Error::conflict(format!(
                    "the state directory {} is in use by {holder}: one server per directory",
                    dir.display()
                )));
            }
            Err(TryLockError::Error(e)) => {
                return Err(failure::io(format!("lock {}", path.display()), e));
            }
        }
        let context = || format!("write the pid to {}", path.display());
        file.set_len(0).map_err(|e| failure::io(context(), e))?;
        writeln!(file, "{}", std::process::id()).map_err(|e| failure::io(context(), e))?;
        Ok(Self(file))
    }
}

/// Tries until what passes has passed.
fn locked(file: &File) -> std::result::Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < PASSING => std::thread::park_timeout(AGAIN),
            done => return done,
        }
    }
}
