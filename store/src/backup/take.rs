//! Taking a copy.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use domain::{Error, Result};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    BUILDS, DATABASE, FORM, FileEntry, JOURNAL, KEY, MANIFEST, Manifest, SESSIONS, Staging, is_known,
};
use crate::{failure, schema};

/// Writes a copy of the state directory to `out`, and answers what it holds. Blocks; a server may run on the directory
/// meanwhile.
///
/// # Errors
/// `NotFound` where there is no state; `Permanent` where a database is damaged or can't be read; `Exhausted` where a
/// disk is full. What was written by then is no copy, and a restore refuses it.
pub fn take(dir: &Path, out: impl Write, hotbed: &str, now: Timestamp) -> Result<Manifest> {
    if !dir.join(DATABASE).is_file() {
        return Err(Error::not_found(format!("there is no state in {}: no {DATABASE}", dir.display())));
    }
    super::refuse_half_restored(dir)?;
    let staging = Staging::new(dir, "backup")?;
    let mut copy = Copy { dir, staging: &staging.0, tar: tar::Builder::new(out), files: Vec::new(), now };

    let schema = copy.database(DATABASE)?.unwrap_or_default();
    // The journal before the files: what moves from the one to the other meanwhile is in both, and counts once.
    copy.database(JOURNAL)?;
    for name in copy.names(SESSIONS)? {
        copy.database(&name)?;
    }
    for name in copy.names(BUILDS)? {
        copy.plain(&name)?;
    }
    copy.plain(KEY)?;
    copy.end(hotbed, schema)
}

struct Copy<'a, W: Write> {
    dir: &'a Path,
    staging: &'a Path,
    tar: tar::Builder<W>,
    files: Vec<FileEntry>,
    now: Timestamp,
}

impl<W: Write> Copy<'_, W> {
    /// A database at one moment, with its schema's version. One that is not there (any more) is left out.
    fn database(&mut self, name: &str) -> Result<Option<u32>> {
        let path = self.dir.join(name);
        // A log that was just made may be empty: it is read as one without events, and SQLite would make it one.
        if !path.metadata().is_ok_and(|m| m.len() > 0) {
            return Ok(None);
        }
        let staged = self.staging.join("copy.db");
        crate::files::remove(&staged)?;
        let copied = || {
            let conn = schema::connect(&path)?;
            let into =
                staged.to_str().ok_or_else(|| Error::invalid("the state directory's name is not UTF-8"))?;
            conn.execute("VACUUM INTO ?1", [into])
                .and_then(|_| conn.query_row("PRAGMA user_version", [], |row| row.get::<_, u32>(0)))
                .map_err(|e| failure::sql(format!("copy the database {}", path.display()), e))
        };
        let version = match copied() {
            Ok(version) => version,
            // Retention removed it in this moment.
            Err(_) if !path.exists() => return Ok(None),
            Err(e) => return Err(e),
        };
        self.add(name, &staged)?;
        Ok(Some(version))
    }

    /// A file as it is: one that is only ever added to, or never changed.
    fn plain(&mut self, name: &str) -> Result<()> {
        let path = self.dir.join(name);
        match path.try_exists() {
            Ok(true) => self.add(name, &path),
            _ => Ok(()),
        }
    }

    /// The files of a directory that belong into a copy, in order.
    fn names(&self, dir: &str) -> Result<Vec<String>> {
        let path = self.dir.join(dir);
        if !path.is_dir() {
            return Ok(Vec::new());
        }
        let found = crate::files::list(&path, |name| {
            let name = format!("{dir}/{name}");
            is_known(&name).then_some(name)
        })?;
        Ok(found.into_iter().map(|(name, _)| name).collect())
    }

    fn add(&mut self, name: &str, path: &Path) -> Result<()> {
        let failed = |e| failure::io(format!("copy {}", path.display()), e);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(failed(e)),
        };
        // A build's log grows while it is copied; what is behind this length comes with the next copy.
        let size = file.metadata().map_err(failed)?.len();
        let mut header = self.header(size);
        let mut body = Summed { inner: file.take(size), sum: Sha256::new(), left: size };
        self.tar.append_data(&mut header, name, &mut body).map_err(failed)?;
        if body.left > 0 {
            return Err(Error::unavailable(format!("{} became shorter while it was copied", path.display())));
        }
        self.files.push(FileEntry { path: name.to_owned(), size, sha256: hex(&body.sum.finalize()) });
        Ok(())
    }

    fn header(&self, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_size(size);
        header.set_mode(0o600);
        header.set_mtime(self.now.as_second().max(0).cast_unsigned());
        header
    }

    fn end(mut self, hotbed: &str, schema: u32) -> Result<Manifest> {
        let failed = |e| failure::io("write the copy", e);
        let manifest = Manifest {
            form: FORM,
            hotbed: hotbed.to_owned(),
            schema,
            taken_at: self.now,
            files: std::mem::take(&mut self.files),
        };
        let text = serde_json::to_vec_pretty(&manifest)
            .map_err(|e| Error::permanent("write the manifest").caused_by(e))?;
        let mut header = self.header(text.len() as u64);
        self.tar.append_data(&mut header, MANIFEST, text.as_slice()).map_err(failed)?;
        self.tar.into_inner().and_then(|mut out| out.flush()).map_err(failed)?;
        Ok(manifest)
    }
}

/// Sums up what is read through it.
struct Summed<R> {
    inner: R,
    sum: Sha256,
    left: u64,
}

impl<R: Read> Read for Summed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.sum.update(&buf[..n]);
        self.left = self.left.saturating_sub(n as u64);
        Ok(n)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
