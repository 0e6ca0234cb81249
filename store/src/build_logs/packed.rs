//! How a log lies on disk: plain while it is written, gzip once it is complete. Offsets are those of the text.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use domain::Result;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use crate::{failure, files};

/// A log that is being read. A plain file that is packed meanwhile can still be read through this.
#[derive(Clone)]
pub(super) enum Lies {
    Plain(Arc<File>),
    /// Unpacked whole: a log has a limit.
    Packed(Bytes),
}

pub(super) fn packed_path(plain: &Path) -> PathBuf {
    plain.with_extension("log.gz")
}

fn half_packed_path(plain: &Path) -> PathBuf {
    plain.with_extension("log.gz.new")
}

impl Lies {
    /// `None` where there is no log.
    pub fn open(plain: &Path) -> io::Result<Option<Self>> {
        // It may be packed between the first look and the second.
        match File::open(plain) {
            Ok(file) => return Ok(Some(Self::Plain(Arc::new(file)))),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Err(_) => {}
        }
        match File::open(packed_path(plain)) {
            Ok(file) => {
                let mut text = Vec::new();
                GzDecoder::new(file).read_to_end(&mut text)?;
                Ok(Some(Self::Packed(text.into())))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub fn len(&self) -> io::Result<u64> {
        match self {
            Self::Plain(file) => Ok(file.metadata()?.len()),
            Self::Packed(text) => Ok(text.len() as u64),
        }
    }

    /// Up to `limit` bytes from byte `from` on, of the first `len`.
    pub fn read(&self, from: u64, len: u64, limit: usize) -> io::Result<Bytes> {
        let wanted = len.saturating_sub(from).min(limit as u64) as usize;
        match self {
            Self::Plain(file) => read_at(file, from, wanted),
            Self::Packed(text) => {
                let from = usize::try_from(from).unwrap_or(usize::MAX).min(text.len());
                Ok(text.slice(from..text.len().min(from + wanted)))
            }
        }
    }
}

/// Packs a complete log. One that is not there, or packed already, is left as it is.
pub(super) fn pack(plain: &Path) -> Result<()> {
    let context = || format!("pack {}", plain.display());
    let mut from = match File::open(plain) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failure::io(context(), e)),
    };
    let half = half_packed_path(plain);
    files::remove(&half)?;
    let mut written = || -> io::Result<()> {
        let file = files::private_file(&half).map_err(io::Error::other)?;
        let mut packed = GzEncoder::new(file, Compression::default());
        io::copy(&mut from, &mut packed)?;
        // The plain file goes only when this one would survive a loss of power.
        packed.finish()?.sync_all()?;
        std::fs::rename(&half, packed_path(plain))
    };
    if let Err(e) = written() {
        let _ = files::remove(&half);
        return Err(failure::io(context(), e));
    }
    files::remove(plain)
}

/// Makes a packed log plain again, so that it can be continued. One that is not packed is left as it is.
pub(super) fn unpack(plain: &Path) -> Result<()> {
    let context = || format!("unpack {}", plain.display());
    if let Some(Lies::Packed(text)) = Lies::open(plain).map_err(|e| failure::io(context(), e))? {
        let mut file = files::private_file(plain)?;
        file.write_all(&text).map_err(|e| failure::io(context(), e))?;
        files::remove(&packed_path(plain))?;
    }
    Ok(())
}

/// Removes what a crash left half packed; answers the plain logs.
pub(super) fn sweep(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| failure::io(format!("read {}", dir.display()), e);
    let mut plain = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        match path.extension().and_then(|e| e.to_str()) {
            Some("new") => files::remove(&path)?,
            Some("log") => plain.push(path),
            _ => {}
        }
    }
    Ok(plain)
}

fn read_at(file: &File, from: u64, len: usize) -> io::Result<Bytes> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], from + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
