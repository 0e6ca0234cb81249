//! Putting a copy back.
//!
//! The copy is unpacked and checked beside what is there, and only then moved into its place, under a mark: a restore
//! that was interrupted is done again, and never started upon. What was there is put aside, never removed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use domain::{Error, Result};
use jiff::Timestamp;
use rusqlite::Connection;
use sha2::{Digest, Sha256};

use super::take::hex;
use super::{BUILDS, DATABASE, FORM, JOURNAL, KEY, MANIFEST, MARK, Manifest, SESSIONS, Staging, is_known};
use crate::lock::DirLock;
use crate::{failure, files, schema};

/// How every database begins.
const SQLITE: &[u8] = b"SQLite format 3\0";
/// The longest manifest: some hundred bytes for each session and build.
const MANIFEST_BYTES: u64 = 256 * 1024 * 1024;

/// Members of pools, whether ready or on their way. A sandbox that is made for a session is the session's.
const FORGET_MEMBERS: &str = "DELETE FROM sandboxes
    WHERE state = 'warm' OR (state IN ('creating', 'starting') AND session IS NULL)";

/// What was put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    pub files: usize,
    pub schema: u32,
    /// When it was taken; not known of a bare database.
    pub taken_at: Option<Timestamp>,
    /// Where what was there before lies now.
    pub aside: Option<PathBuf>,
}

/// Puts the copy at `file` into the state directory: one that [`super::take`] has written, or a bare database such as
/// the copy that an upgrade leaves (`hotbed.vN.db`); of that the logs and the key that are there stay.
///
/// # Errors
/// `Conflict` where a server holds the directory, or where it holds a state and `replace` was not given; `Invalid`
/// where the file is no whole copy; `Permanent` where a newer Hotbed has taken it. The directory is then as it was.
pub fn restore(dir: &Path, file: &Path, replace: bool, now: Timestamp) -> Result<Restored> {
    files::private_dir(dir)?;
    let lock = DirLock::take(dir)?;
    let begun_before = dir.join(MARK).exists();
    if dir.join(DATABASE).exists() && !replace && !begun_before {
        return Err(Error::conflict(format!(
            "{} holds a state already: `--replace` puts it aside, or name another directory",
            dir.display()
        )));
    }
    let staging = Staging::new(dir, "restore")?;
    let (found, manifest) = unpack(file, &staging.0)?;
    let database = staging.0.join(DATABASE);
    let schema = prepare(&database, file, now)?;
    let mut moved: Vec<&str> = vec![DATABASE];
    if manifest.is_some() {
        moved = vec![SESSIONS, BUILDS, JOURNAL, KEY, DATABASE];
    }
    give_to_owner(dir, &staging.0)?;
    let aside = put(dir, &staging.0, &moved, now)?;
    drop(lock);
    Ok(Restored { files: found, schema, taken_at: manifest.map(|m| m.taken_at), aside })
}

/// Takes back that the state was restored: from the next start on, what it does not know is removed as ever.
///
/// # Errors
/// `Conflict` where a server holds the directory; `NotFound` where it was not restored.
pub fn release(dir: &Path) -> Result<Timestamp> {
    if !dir.join(DATABASE).exists() {
        return Err(Error::not_found(format!("there is no state in {}", dir.display())));
    }
    let _lock = DirLock::take(dir)?;
    let conn = schema::connect(&dir.join(DATABASE))?;
    let at = schema::restored_at(&conn)?;
    let at =
        at.ok_or_else(|| Error::not_found(format!("the state in {} was not restored", dir.display())))?;
    schema::set_restored(&conn, None)?;
    Ok(at)
}

/// Unpacks the copy, held against its manifest; a bare database has none.
fn unpack(file: &Path, to: &Path) -> Result<(usize, Option<Manifest>)> {
    let failed = |e| failure::io(format!("read {}", file.display()), e);
    let mut source = File::open(file).map_err(failed)?;
    let mut head = Vec::new();
    source.by_ref().take(SQLITE.len() as u64).read_to_end(&mut head).map_err(failed)?;
    source.seek(SeekFrom::Start(0)).map_err(failed)?;
    if head == SQLITE {
        let mut target = files::private_file(&to.join(DATABASE))?;
        io::copy(&mut source, &mut target).map_err(failed)?;
        return Ok((1, None));
    }
    let (manifest, sums) = unpack_tar(file, BufReader::new(source), to)?;
    if manifest.form > FORM {
        return Err(Error::permanent(format!(
            "{} was taken by Hotbed {}, in a form that this program does not know: restore it with that one",
            file.display(),
            manifest.hotbed
        )));
    }
    for entry in &manifest.files {
        match sums.get(&entry.path) {
            Some((size, sum)) if *size == entry.size && *sum == entry.sha256 => {}
            Some(_) => return Err(no_copy(file, &format!("{} is damaged", entry.path))),
            None => return Err(no_copy(file, &format!("{} is missing", entry.path))),
        }
    }
    if sums.len() != manifest.files.len() || !sums.contains_key(DATABASE) {
        return Err(no_copy(file, "it does not hold what its manifest says"));
    }
    Ok((sums.len(), Some(manifest)))
}

type Sums = HashMap<String, (u64, String)>;

fn unpack_tar(file: &Path, source: impl Read, to: &Path) -> Result<(Manifest, Sums)> {
    let unreadable = |e: io::Error| no_copy(file, "it is no tar file, or was cut off").caused_by(e);
    let mut sums = Sums::new();
    let mut manifest = None;
    for dir in [SESSIONS, BUILDS] {
        files::private_dir(&to.join(dir))?;
    }
    let mut archive = tar::Archive::new(source);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.to_str().unwrap_or_default().to_owned();
        if path == MANIFEST && entry.size() <= MANIFEST_BYTES {
            let mut text = Vec::new();
            entry.read_to_end(&mut text).map_err(unreadable)?;
            let read = serde_json::from_slice(&text);
            manifest = Some(read.map_err(|e| no_copy(file, "its manifest can't be read").caused_by(e))?);
            continue;
        }
        if !is_known(&path) || !entry.header().entry_type().is_file() || manifest.is_some() {
            return Err(no_copy(file, &format!("it holds {path:?}, which no copy does")));
        }
        let target = to.join(&path);
        let mut out = Sum { to: files::private_file(&target)?, sum: Sha256::new() };
        let size = io::copy(&mut entry, &mut out).map_err(unreadable)?;
        out.to.sync_all().map_err(|e| failure::io(format!("write {}", target.display()), e))?;
        sums.insert(path, (size, hex(&out.sum.finalize())));
    }
    let manifest = manifest.ok_or_else(|| no_copy(file, "it has no manifest, so it was cut off"))?;
    Ok((manifest, sums))
}

struct Sum {
    to: File,
    sum: Sha256,
}

impl io::Write for Sum {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.to.write(buf)?;
        self.sum.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn no_copy(file: &Path, why: &str) -> Error {
    Error::invalid(format!("{} is no whole copy of a state directory: {why}", file.display()))
}

/// Checks the database, brings it to this program's version, and notes in it that it was restored. Members of pools
/// are forgotten: they may have been handed out since, and a sandbox is handed out once.
fn prepare(database: &Path, file: &Path, now: Timestamp) -> Result<u32> {
    let conn = Connection::open(database)
        .map_err(|e| failure::sql(format!("open the database of {}", file.display()), e))?;
    let whole: String = conn
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|e| no_copy(file, "its database is damaged").caused_by(e))?;
    if whole != "ok" {
        return Err(no_copy(file, &format!("its database is damaged: {whole}")));
    }
    let schema = schema::version(&conn, file)?;
    if schema == 0 {
        return Err(no_copy(file, "its database is not one of Hotbed"));
    }
    drop(conn);
    // The same way that a start takes, so that a copy that can't be started upon is refused here.
    let conn = schema::connect_writer(database)?;
    let failed = |e| failure::sql(format!("prepare the database of {}", file.display()), e);
    conn.execute(FORGET_MEMBERS, []).map_err(failed)?;
    schema::set_restored(&conn, Some(now))?;
    // One file again: what SQLite lays beside it would be left behind.
    conn.execute_batch("PRAGMA journal_mode=DELETE;").map_err(failed)?;
    Ok(schema)
}

/// Moves what is there aside and what was unpacked into its place. The database comes last on both ways.
fn put(dir: &Path, from: &Path, names: &[&str], now: Timestamp) -> Result<Option<PathBuf>> {
    let failed = |path: &Path, e| failure::io(format!("move {}", path.display()), e);
    let mark = dir.join(MARK);
    drop(files::private_file(&mark)?);
    let aside = dir.join(format!("before-restore-{}", now.strftime("%Y%m%dT%H%M%SZ")));
    let mut put_aside = false;
    for name in names {
        let beside = ["", "-wal", "-shm"].map(|end| format!("{name}{end}"));
        for name in beside {
            let there = dir.join(&name);
            if there.exists() {
                files::private_dir(&aside)?;
                std::fs::rename(&there, aside.join(&name)).map_err(|e| failed(&there, e))?;
                put_aside = true;
            }
        }
        let new = from.join(name);
        if new.exists() {
            std::fs::rename(&new, dir.join(name)).map_err(|e| failed(&new, e))?;
        }
    }
    sync(dir)?;
    files::remove(&mark)?;
    sync(dir)?;
    Ok(put_aside.then_some(aside))
}

/// Whoever runs this, the state belongs to whoever the directory belongs to: root restores for the server's own user.
fn give_to_owner(dir: &Path, staging: &Path) -> Result<()> {
    let failed = |e| failure::io(format!("give what is restored to the owner of {}", dir.display()), e);
    let owner = dir.metadata().map_err(failed)?;
    if staging.metadata().map_err(failed)?.uid() == owner.uid() {
        return Ok(());
    }
    let give = |path: &Path| chown(path, Some(owner.uid()), Some(owner.gid())).map_err(failed);
    give(&dir.join("hotbed.lock"))?;
    for dir in [staging.to_owned(), staging.join(SESSIONS), staging.join(BUILDS)] {
        if !dir.is_dir() {
            continue;
        }
        give(&dir)?;
        for entry in std::fs::read_dir(&dir).map_err(failed)? {
            give(&entry.map_err(failed)?.path())?;
        }
    }
    Ok(())
}

fn sync(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| failure::io(format!("sync {}", dir.display()), e))
}
