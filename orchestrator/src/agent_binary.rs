//! The agent that sandboxes are started with: inside this binary, or beside it.

use std::path::{Path, PathBuf};

use domain::{Error, Result};

const EMBEDDED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent.bin"));

/// The bytes of the agent: `HOTBED_AGENT` names a file, else the one inside this binary, else `hotbed-agent` beside it.
pub fn find() -> Result<Vec<u8>> {
    if let Some(path) = std::env::var_os("HOTBED_AGENT") {
        return read(Path::new(&path));
    }
    if !EMBEDDED.is_empty() {
        return Ok(EMBEDDED.to_vec());
    }
    let beside = std::env::current_exe()
        .map(|exe| exe.with_file_name("hotbed-agent"))
        .unwrap_or_else(|_| PathBuf::from("hotbed-agent"));
    read(&beside)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| {
        Error::invalid(format!("read the agent's binary {} (`make agent` makes it)", path.display()))
            .caused_by(e)
    })
}

/// Puts the agent where sandboxes mount it. Running sandboxes keep the file that they have.
pub fn install(bytes: &[u8], dir: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let path = dir.join("hotbed-agent");
    if std::fs::read(&path).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let staging = dir.join(".hotbed-agent.new");
    let write = || {
        std::fs::write(&staging, bytes)?;
        std::fs::set_permissions(&staging, PermissionsExt::from_mode(0o755))?;
        std::fs::rename(&staging, &path)
    };
    write().map_err(|e| Error::permanent(format!("install the agent in {}", dir.display())).caused_by(e))
}
