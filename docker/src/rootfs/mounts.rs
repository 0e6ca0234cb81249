//! What a killed tool may have left mounted in its work directory: the machine's own `/dev` and `/proc`, say.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is mounted at or below `dir`, in the order in which it was mounted.
pub(super) fn below(dir: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    points(&mounts).filter(|mount| mount.starts_with(dir)).collect()
}

/// Takes down what is mounted at or below `dir`, the last first. What is still open by somebody goes with them.
pub(super) fn take_down(dir: &Path) -> io::Result<()> {
    let mounts = below(dir);
    // A mount that was bound from the machine's own is a peer of it until it is told otherwise: without this, what is
    // taken down in the one would go in the other.
    for mount in &mounts {
        run("mount", &["--make-private"], mount)?;
    }
    for mount in mounts.iter().rev() {
        run("umount", &["--lazy"], mount)?;
    }
    Ok(())
}

fn run(program: &str, options: &[&str], mount: &Path) -> io::Result<()> {
    let mut command = Command::new(program);
    let output = command.args(options).arg(mount).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program} {} {}: {}", options.join(" "), mount.display(), said.trim())))
}

/// The mount points of a `mountinfo`.
fn points(mountinfo: &str) -> impl Iterator<Item = PathBuf> {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| plain(field.as_bytes()))
}

/// A path as it is: the kernel writes blanks and the like as `\040`.
fn plain(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((byte, after)) = rest.split_first() {
        let digits = after.get(..3).filter(|d| *byte == b'\\' && d.iter().all(|d| (b'0'..b'8').contains(d)));
        match digits {
            Some(digits) => {
                path.push(digits.iter().fold(0u8, |n, d| n.wrapping_mul(8).wrapping_add(d - b'0')));
                rest = &after[3..];
            }
            None => {
                path.push(*byte);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        let text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                    90 22 0:5 / /state/a\\040b/.work-1/dev rw master:2 - devtmpfs udev rw\n\
                    91 90 0:6 / /state/a\\040b/.work-1/dev/pts rw - devpts devpts rw\n";
        let all: Vec<_> = points(text).collect();
        let pts = PathBuf::from("/state/a b/.work-1/dev/pts");
        assert_eq!(all, [PathBuf::from("/"), "/state/a b/.work-1/dev".into(), pts]);
    }
}
