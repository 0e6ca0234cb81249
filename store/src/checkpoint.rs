//! Moves the write-ahead log into the database on a thread of its own, so that no commit waits for the disk on
//! another's behalf.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use domain::Result;
use rusqlite::Connection;

use crate::{failure, schema};

/// Pages of 4 KiB in the log beyond which the writer itself makes room: under a load without pauses the log is
/// never at rest, and would grow for ever.
const LONG: i64 = 16_384;

/// The writer's end. Dropping it ends the thread and waits for it.
pub(crate) struct Checkpointer {
    poke: Option<SyncSender<()>>,
    long: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Checkpointer {
    pub fn start(path: PathBuf) -> Result<Self> {
        let (poke, pokes) = sync_channel::<()>(1);
        let long = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&long);
        let run = move || {
            let mut conn = None;
            while pokes.recv().is_ok() {
                if conn.is_none() {
                    match schema::connect(&path) {
                        Ok(new) => conn = Some(new),
                        Err(e) => tracing::error!(error = %e.chain(), "open the checkpoint connection"),
                    }
                }
                let Some(conn) = &conn else { continue };
                match checkpoint(conn, "PASSIVE") {
                    Ok(pages) => flag.store(pages > LONG, Ordering::Relaxed),
                    Err(e) => tracing::error!(error = %e, "checkpoint the database"),
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".into())
            .spawn(run)
            .map_err(|e| failure::io("start the checkpoint thread", e))?;
        Ok(Self { poke: Some(poke), long, thread: Some(thread) })
    }

    /// Asks for a checkpoint and does not wait. One that is asked for already will do.
    pub fn poke(&self) {
        if let Some(poke) = &self.poke {
            let _ = poke.try_send(());
        }
    }

    /// Whether the writer is about to be told that the log is long: see [`Checkpointer::take_long`].
    pub fn is_long(&self) -> bool {
        self.long.load(Ordering::Relaxed)
    }

    /// Whether the log has grown so long that the writer must pause for it. Says so once.
    pub fn take_long(&self) -> bool {
        self.long.swap(false, Ordering::Relaxed)
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.poke = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Returns how many pages the log holds.
pub(crate) fn checkpoint(conn: &Connection, mode: &str) -> rusqlite::Result<i64> {
    conn.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))
}
