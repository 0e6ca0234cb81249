//! The output of each build: one plain file, followed while it is written, packed when it is complete.
//!
//! A log is open from [`BuildLogs::begin`] to [`BuildLogs::finish`]; one that is not open is complete, so that after
//! a restart nobody waits for a build that no longer runs. Offsets are those of the text, packed or not. A file holds at most [`CUT_LIMIT`] bytes, then a line that
//! says it was cut, and, once finished, the last of what was left out: the end is what tells why a build failed.
//! Output goes to the kernel and is not synced: a loss of power may cost the last seconds.

mod packed;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use domain::{BuildId, Error, Result};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use crate::{failure, files};
use packed::Lies;

/// Bytes of output that are kept of one build from its beginning.
pub const CUT_LIMIT: u64 = 16 * 1024 * 1024;
/// Bytes that are kept from its end when it was cut.
const TAIL: usize = 64 * 1024;
/// What a follower gets at a time, at most.
const CHUNK: usize = 64 * 1024;

/// The logs of all builds. Cheap to clone.
#[derive(Clone)]
pub struct BuildLogs(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    limit: u64,
    open: Mutex<HashMap<BuildId, Arc<Open>>>,
}

/// A log that is being written.
struct Open {
    writing: Mutex<Writing>,
    progress: watch::Sender<Progress>,
}

struct Writing {
    file: File,
    len: u64,
    /// Whether the next byte begins a line.
    fresh: bool,
    cut: Option<Cut>,
}

/// What happens after the limit.
#[derive(Default)]
struct Cut {
    dropped: u64,
    tail: VecDeque<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Progress {
    len: u64,
    finished: bool,
}

impl std::fmt::Debug for BuildLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BuildLogs").field("dir", &self.0.dir).finish_non_exhaustive()
    }
}

impl BuildLogs {
    /// Makes `<dir>/builds` where it is missing.
    pub fn open(dir: &Path) -> Result<Self> {
        Self::with_limit(dir, CUT_LIMIT)
    }

    /// With another limit in bytes than [`CUT_LIMIT`].
    pub fn with_limit(dir: &Path, limit: u64) -> Result<Self> {
        let dir = dir.join("builds");
        files::private_dir(&dir)?;
        packed::sweep(&dir)?;
        Ok(Self(Arc::new(Inner { dir, limit, open: Mutex::default() })))
    }

    /// Opens the log of a build; followers wait from here on. One that is open stays as it is; one that was finished
    /// is continued at its end.
    pub async fn begin(&self, build: BuildId) -> Result<()> {
        let me = self.clone();
        blocking("open a build's log", move || {
            if let Entry::Vacant(place) = me.0.open().entry(build) {
                packed::unpack(&me.0.path(build))?;
                let file = files::private_file(&me.0.path(build))?;
                let len =
                    file.metadata().map_err(|e| failure::io(format!("open the log of {build}"), e))?.len();
                let progress = watch::channel(Progress { len, finished: false }).0;
                let writing = Mutex::new(Writing { file, len, fresh: true, cut: None });
                place.insert(Arc::new(Open { writing, progress }));
            }
            Ok(())
        })
        .await
    }

    /// Appends output as it is, whole lines or parts of them.
    ///
    /// # Errors
    /// `Conflict` when the log is not open, `Exhausted` when the disk is full.
    pub async fn append(&self, build: BuildId, output: impl Into<Bytes>) -> Result<()> {
        let output = output.into();
        let open = self.0.find(build).ok_or_else(|| {
            Error::conflict(format!("append to the log of {build}: it is not open (not begun, or finished)"))
        })?;
        let limit = self.0.limit;
        blocking("append to a build's log", move || {
            let mut writing = open.writing();
            let result = writing.append(&output, limit);
            let len = writing.len;
            open.progress.send_modify(|p| p.len = len);
            result.map_err(|e| failure::io(format!("append to the log of {build}"), e))
        })
        .await
    }

    /// Appends one line; the line's end is added.
    pub async fn append_line(&self, build: BuildId, line: &str) -> Result<()> {
        self.append(build, format!("{line}\n")).await
    }

    /// Completes the log and packs it; its followers read to the end and end, also where writing the end fails. A log
    /// that is not open is complete, and is packed where an earlier process left it plain.
    pub async fn finish(&self, build: BuildId) -> Result<()> {
        let open = self.0.open().remove(&build);
        let path = self.0.path(build);
        blocking("finish a build's log", move || {
            if let Some(open) = open {
                let mut writing = open.writing();
                let result = writing.finish();
                let len = writing.len;
                open.progress.send_replace(Progress { len, finished: true });
                result.map_err(|e| failure::io(format!("finish the log of {build}"), e))?;
            }
            packed::pack(&path)
        })
        .await
    }

    /// Whether the log is being written.
    pub fn is_open(&self, build: BuildId) -> bool {
        self.0.open().contains_key(&build)
    }

    /// Up to `limit` bytes from byte `from` on; empty at the end of what there is.
    ///
    /// # Errors
    /// `NotFound` when the build has no log.
    pub async fn read(&self, build: BuildId, from: u64, limit: usize) -> Result<Bytes> {
        let path = self.0.path(build);
        blocking("read a build's log", move || {
            let failed = |e| failure::io(format!("read the log of {build}"), e);
            let missing = || Error::not_found(format!("there is no log of {build}"));
            let log = Lies::open(&path).map_err(failed)?.ok_or_else(missing)?;
            log.len().and_then(|len| log.read(from, len, limit)).map_err(failed)
        })
        .await
    }

    /// All bytes from byte `from` on, those to come too, until the log is finished or removed. A log that is not open
    /// ends where its file ends; a build without a log has an empty one.
    pub fn follow(&self, build: BuildId, from: u64) -> BoxStream<'static, Result<Bytes>> {
        struct Follower {
            path: PathBuf,
            build: BuildId,
            progress: Option<watch::Receiver<Progress>>,
            log: Option<Lies>,
            at: u64,
        }
        // Looked up now and not at the first poll, so that a log finished in between is still read to its end.
        let progress = self.0.find(build).map(|open| open.progress.subscribe());
        let follower = Follower { path: self.0.path(build), build, progress, log: None, at: from };
        stream::try_unfold(follower, |mut me| async move {
            loop {
                let known = me.progress.as_mut().map(|p| {
                    let gone = p.has_changed().is_err();
                    let now = *p.borrow_and_update();
                    Progress { len: now.len, finished: now.finished || gone }
                });
                let (path, log, at, build) = (me.path.clone(), me.log.take(), me.at, me.build);
                let (log, chunk) = blocking("read a build's log", move || {
                    let read = || -> std::io::Result<(Option<Lies>, Bytes)> {
                        let log = match log {
                            Some(log) => log,
                            None => match Lies::open(&path)? {
                                Some(log) => log,
                                None => return Ok((None, Bytes::new())),
                            },
                        };
                        let len = match known {
                            // Only what was announced: a failed write is taken back.
                            Some(known) => known.len,
                            None => log.len()?,
                        };
                        let chunk = log.read(at, len, CHUNK)?;
                        Ok((Some(log), chunk))
                    };
                    read().map_err(|e| failure::io(format!("read the log of {build}"), e))
                })
                .await?;
                me.log = log;
                if !chunk.is_empty() {
                    me.at += chunk.len() as u64;
                    return Ok(Some((chunk, me)));
                }
                match (&mut me.progress, known) {
                    (Some(progress), Some(known)) if !known.finished => {
                        // An error means that it ended; the next round reads what is left and sees that.
                        let _ = progress.changed().await;
                    }
                    _ => return Ok(None),
                }
            }
        })
        .boxed()
    }

    /// The last `lines` lines, looked for in the last 64 KiB; bytes that are not UTF-8 are replaced. For errors.
    pub async fn tail(&self, build: BuildId, lines: usize) -> Result<String> {
        let open = self.0.find(build);
        let path = self.0.path(build);
        blocking("read a build's log", move || {
            // While a cut log is open its end is still in memory.
            let held = open
                .and_then(|o| o.writing().cut.as_ref().map(|c| c.tail.iter().copied().collect::<Vec<u8>>()));
            let bytes = match held.filter(|tail| !tail.is_empty()) {
                Some(tail) => Bytes::from(tail),
                None => {
                    let failed = |e| failure::io(format!("read the log of {build}"), e);
                    let Some(log) = Lies::open(&path).map_err(failed)? else { return Ok(String::new()) };
                    let len = log.len().map_err(failed)?;
                    log.read(len.saturating_sub(TAIL as u64), len, TAIL).map_err(failed)?
                }
            };
            let text = String::from_utf8_lossy(&bytes);
            let all: Vec<&str> = text.lines().collect();
            Ok(all[all.len().saturating_sub(lines)..].join("\n"))
        })
        .await
    }

    /// The logs that are complete, the oldest build first, with their bytes on disk.
    pub async fn list(&self) -> Result<Vec<(BuildId, u64)>> {
        let me = self.clone();
        blocking("list the logs of builds", move || {
            let mut logs = files::list(&me.0.dir, |name| {
                name.strip_suffix(".gz").unwrap_or(name).strip_suffix(".log")?.parse::<BuildId>().ok()
            })?;
            let open = me.0.open();
            logs.retain(|(build, _)| !open.contains_key(build));
            Ok(logs)
        })
        .await
    }

    /// Removes the log; its followers end.
    pub async fn remove(&self, build: BuildId) -> Result<()> {
        let me = self.clone();
        blocking("remove a build's log", move || {
            me.0.open().remove(&build);
            let plain = me.0.path(build);
            files::remove(&packed::packed_path(&plain))?;
            files::remove(&plain)
        })
        .await
    }
}

impl Inner {
    fn path(&self, build: BuildId) -> PathBuf {
        self.dir.join(format!("{build}.log"))
    }

    fn find(&self, build: BuildId) -> Option<Arc<Open>> {
        self.open().get(&build).cloned()
    }

    fn open(&self) -> MutexGuard<'_, HashMap<BuildId, Arc<Open>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writing {
    fn append(&mut self, output: &[u8], limit: u64) -> std::io::Result<()> {
        if self.cut.is_none() {
            let room = limit.saturating_sub(self.len);
            if output.len() as u64 <= room {
                return self.write(output);
            }
            // Cut between lines where there is one to cut after.
            let room = room as usize;
            let keep = match output[..room].iter().rposition(|b| *b == b'\n') {
                Some(at) => at + 1,
                None if self.fresh && room < TAIL => 0,
                None => room,
            };
            let mut head = output[..keep].to_vec();
            let fresh = head.last().map_or(self.fresh, |b| *b == b'\n');
            let mark = format!(
                "{}[hotbed: cut here: the log has more than {limit} bytes]\n",
                if fresh { "" } else { "\n" }
            );
            head.extend_from_slice(mark.as_bytes());
            self.write(&head)?;
            self.cut = Some(Cut::default());
            return self.append(&output[keep..], limit);
        }
        if let Some(cut) = &mut self.cut {
            cut.dropped += output.len() as u64;
            cut.tail.extend(&output[output.len().saturating_sub(TAIL)..]);
            let over = cut.tail.len().saturating_sub(TAIL);
            cut.tail.drain(..over);
        }
        Ok(())
    }

    fn finish(&mut self) -> std::io::Result<()> {
        let Some(mut cut) = self.cut.take() else { return Ok(()) };
        let mut end = Vec::new();
        let lost = cut.dropped - cut.tail.len() as u64;
        if lost > 0 {
            end.extend_from_slice(format!("[hotbed: {lost} bytes left out; the end follows]\n").as_bytes());
        }
        end.extend_from_slice(cut.tail.make_contiguous());
        self.write(&end)
    }

    /// Whole or not at all, so that a full disk leaves no half line and the announced length is the file's.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        use std::io::{Seek, SeekFrom};
        let written = self.file.seek(SeekFrom::Start(self.len)).and_then(|_| self.file.write_all(bytes));
        match written {
            Ok(()) => {
                self.len += bytes.len() as u64;
                self.fresh = bytes.last().map_or(self.fresh, |b| *b == b'\n');
            }
            Err(_) => {
                // Shortening needs no room; were it to fail, the next write begins at the same place all the same.
                let _ = self.file.set_len(self.len);
            }
        }
        written
    }
}

async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| failure::join(what, e))?
}
