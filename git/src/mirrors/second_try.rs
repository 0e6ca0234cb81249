//! The second try of a push whose authority upstream did not believe: it was good when the push began to arrive, and
//! has been ended since (F50, F51). Upstream says so before it takes anything, and what is pushed still lies in the
//! mirror's quarantine; so the hook asks for another authority, once, and pushes again.
//!
//! The hook is a shell script below git. Between it and this process are two named pipes in a directory that is made for
//! the one push and that nobody else may enter: the authority goes through, and never lies on disk.

use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::{Error, Result};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

use super::Authority;

/// What the directories' names begin with; those that a crash left are removed at the next start.
pub(super) const PREFIX: &str = "again-";

/// It stands ready for as long as this lives.
#[derive(Debug)]
pub(super) struct SecondTry {
    dir: PathBuf,
    task: JoinHandle<()>,
}

impl Drop for SecondTry {
    fn drop(&mut self) {
        self.task.abort();
        if let Err(e) = fs::remove_dir_all(&self.dir) {
            tracing::debug!(error = %e, dir = %self.dir.display(), "could not remove a push's pipes");
        }
    }
}

impl SecondTry {
    /// `renew` is asked at most once; what it gives is kept until the push has ended.
    pub(super) async fn offer<F>(hooks: &Path, renew: F) -> Result<Self>
    where
        F: Future<Output = Result<Option<Authority>>> + Send + 'static,
    {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let dir = hooks.join(format!("{PREFIX}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let made = dir.clone();
        let pipes = tokio::task::spawn_blocking(move || pipes(&made)).await;
        let failed = |e: io::Error| Error::unavailable("make the pipes of a push").caused_by(e);
        pipes.map_err(io::Error::other).and_then(|made| made).map_err(failed)?;
        // Both ends of both are held here, so that neither side waits for the other to open, or meets its end.
        let mut open = pipe::OpenOptions::new();
        open.read_write(true);
        let asked = open.open_receiver(dir.join("ask")).map_err(failed)?;
        let answer = open.open_sender(dir.join("answer")).map_err(failed)?;
        let task = tokio::spawn(stand_by(asked, answer, renew));
        Ok(Self { dir, task })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }
}

fn pipes(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(dir)?;
    for name in ["ask", "answer"] {
        mknodat(CWD, dir.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
    }
    Ok(())
}

/// One line in, one line out: the header, or why there is none.
async fn stand_by(
    mut asked: pipe::Receiver,
    mut answer: pipe::Sender,
    renew: impl Future<Output = Result<Option<Authority>>>,
) {
    if asked.read_u8().await.is_err() {
        return;
    }
    let renewed = renew.await;
    let line = match &renewed {
        Ok(Some(authority)) => authority.header.clone(),
        Ok(None) => zeroize::Zeroizing::new("there is no other authority".to_owned()),
        Err(e) => zeroize::Zeroizing::new(crate::redact(&e.chain(), None).replace(['\n', '\r'], " ")),
    };
    tracing::info!(renewed = matches!(renewed, Ok(Some(_))), "upstream did not believe a push's authority");
    let written = async {
        answer.write_all(line.as_bytes()).await?;
        answer.write_all(b"\n").await
    };
    if let Err(e) = written.await {
        tracing::debug!(error = %e, "a push went away while its authority was renewed");
    }
    // What was renewed, and the pipe's end with what is in it, last as long as the push.
    let _kept = (renewed, answer);
    std::future::pending::<()>().await;
}
