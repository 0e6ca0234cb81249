//! The directories on the host that sandboxes see: one shared by all, one for each.
//!
//! `<run_dir>/shared` holds Hotbed's socket and the agent's binary, which others put there, and an empty `self`:
//! the mount point of `<run_dir>/sandboxes/<id>`, which holds the boot file of one sandbox and goes with it.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use domain::wire::Boot;
use domain::{Error, ErrorKind, Result, SandboxId};

static WRITES: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Clone)]
pub(crate) struct RunDir {
    pub(crate) shared: PathBuf,
    sandboxes: PathBuf,
}

impl RunDir {
    /// Makes the directories. The run directory must be absolute, because the daemon mounts it.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        if !root.is_absolute() {
            return Err(Error::invalid(format!(
                "run directory `{}`: expected an absolute path, since the engine mounts it",
                root.display()
            )));
        }
        let own = Self { shared: root.join("shared"), sandboxes: root.join("sandboxes") };
        // The boot files hold tokens, so only Hotbed may look in; what is shared may be read by any user of a
        // sandbox, the way it is mounted there.
        let made = make(root, 0o755)
            .and_then(|()| make(&own.shared, 0o755))
            .and_then(|()| make(&own.shared.join("self"), 0o755))
            .and_then(|()| make(&own.sandboxes, 0o700));
        made.map_err(|e| io_error(format!("make the run directory {}", root.display()), e))?;
        Ok(own)
    }

    pub(crate) fn sandbox(&self, id: SandboxId) -> PathBuf {
        self.sandboxes.join(id.to_string())
    }

    /// Writes the boot file in one step: an agent sees all of it or none.
    pub(crate) fn write_boot(&self, id: SandboxId, boot: &Boot) -> Result<()> {
        let what = || format!("write the boot file of {id}");
        let dir = self.sandbox(id);
        let json = serde_json::to_vec(boot).map_err(|e| Error::permanent(what()).caused_by(e))?;
        let write = || {
            make(&dir, 0o700)?;
            // A name of its own, because the same start may run twice at once (F48).
            let n = WRITES.fetch_add(1, Ordering::Relaxed);
            let unfinished = dir.join(format!(".boot-{}-{n}", std::process::id()));
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&unfinished)?;
            io::Write::write_all(&mut file, &json)?;
            std::fs::rename(&unfinished, dir.join("boot.json"))
        };
        write().map_err(|e| io_error(what(), e))
    }

    pub(crate) fn remove(&self, id: SandboxId) -> Result<()> {
        match std::fs::remove_dir_all(self.sandbox(id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(io_error(format!("remove the run directory of {id}"), e))
            }
            _ => Ok(()),
        }
    }

    /// Removes the directories of all sandboxes but these; answers whose.
    pub(crate) fn sweep(&self, keep: &HashSet<SandboxId>) -> Result<Vec<SandboxId>> {
        let what = || format!("read {}", self.sandboxes.display());
        let mut removed = Vec::new();
        for entry in std::fs::read_dir(&self.sandboxes).map_err(|e| io_error(what(), e))? {
            let name = entry.map_err(|e| io_error(what(), e))?.file_name();
            // Anything else here is not of our making and stays.
            let Some(id) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
            if !keep.contains(&id) {
                self.remove(id)?;
                removed.push(id);
            }
        }
        Ok(removed)
    }
}

fn make(dir: &Path, mode: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(dir)
}

fn io_error(context: String, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Exhausted,
        _ => ErrorKind::Permanent,
    };
    Error::new(kind, context).caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn boot(id: SandboxId, token: &str) -> Boot {
        Boot {
            sandbox: id,
            token: token.into(),
            dial: "unix:/run/hotbed/hotbed.sock".into(),
            workspace: "/workspace".into(),
            gate_open: false,
            relay_port: 7071,
            session_dir: "/run/hotbed-session".into(),
            env: BTreeMap::new(),
        }
    }

    #[test]
    fn a_boot_file_is_private_whole_and_rewritable() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::open(root.path()).unwrap();
        let id = SandboxId::from_u128(1);
        dir.write_boot(id, &boot(id, "a")).unwrap();
        dir.write_boot(id, &boot(id, "b")).unwrap();
        let path = dir.sandbox(id).join("boot.json");
        let read: Boot = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read.token, "b");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(dir.sandbox(id)).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(dir.sandbox(id)).unwrap().count(), 1, "nothing unfinished");
        assert!(dir.shared.join("self").is_dir());
        dir.remove(id).unwrap();
        dir.remove(id).unwrap();
    }

    // F48
    #[test]
    fn writers_do_not_meet() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::open(root.path()).unwrap();
        let id = SandboxId::from_u128(1);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..50).for_each(|_| dir.write_boot(id, &boot(id, "t")).unwrap()));
            }
        });
    }

    #[test]
    fn a_sweep_keeps_what_it_is_told_to_keep() {
        let root = tempfile::tempdir().unwrap();
        let dir = RunDir::open(root.path()).unwrap();
        let (a, b) = (SandboxId::from_u128(1), SandboxId::from_u128(2));
        dir.write_boot(a, &boot(a, "t")).unwrap();
        dir.write_boot(b, &boot(b, "t")).unwrap();
        std::fs::create_dir(root.path().join("sandboxes/foreign")).unwrap();
        assert_eq!(dir.sweep(&HashSet::from([a])).unwrap(), [b]);
        assert!(dir.sandbox(a).exists() && !dir.sandbox(b).exists());
        assert!(root.path().join("sandboxes/foreign").exists());
    }

    #[test]
    fn a_relative_run_directory_is_refused() {
        let error = RunDir::open(Path::new("run")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}
