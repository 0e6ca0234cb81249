//! Secrets, read where the configuration says they are: anew for each build, and kept nowhere.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use domain::{Error, Result, SecretSource};
use image_builder::BuildSecret;

/// A longer file holds no secret.
const MAX_BYTES: u64 = 64 * 1024;

/// The secrets of a recipe, in the order of their names. Blocking: they may be files.
///
/// Errors: `Invalid`, with the name of the secret and where it was looked for.
pub fn read(sources: &BTreeMap<String, SecretSource>, key: &[u8; 32]) -> Result<Vec<BuildSecret>> {
    sources.iter().map(|(name, source)| BuildSecret::new(name, value(name, source)?, key)).collect()
}

/// One of them. Errors as [`read`].
pub fn value(name: &str, source: &SecretSource) -> Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    match source {
        SecretSource::Env(variable) => {
            let value = std::env::var_os(variable).ok_or_else(|| {
                Error::invalid(format!("secret `{name}`: Hotbed has no environment variable `{variable}`"))
            })?;
            Ok(value.into_vec())
        }
        SecretSource::File(path) => {
            let mut value = read_file(path).map_err(|e| {
                Error::invalid(format!("secret `{name}`: read {}", path.display())).caused_by(e)
            })?;
            // An editor's last line break is no part of it.
            if value.last() == Some(&b'\n') {
                value.pop();
                value.pop_if(|byte| *byte == b'\r');
            }
            Ok(value)
        }
    }
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    let mut value = Vec::new();
    std::fs::File::open(path)?.take(MAX_BYTES + 1).read_to_end(&mut value)?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(source: SecretSource) -> BTreeMap<String, SecretSource> {
        BTreeMap::from([("TOKEN".into(), source)])
    }

    #[test]
    fn a_file_is_read_without_its_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let version = |content: &str| {
            std::fs::write(&path, content).unwrap();
            let read = read(&token(SecretSource::File(path.clone())), &[1; 32]).unwrap();
            read[0].version().to_owned()
        };
        let plain = version("hunter2hunter2");
        assert_eq!(plain, version("hunter2hunter2\n"));
        assert_eq!(plain, version("hunter2hunter2\r\n"));
        assert_ne!(plain, version("hunter2hunter2\n\n"));
    }

    #[test]
    fn what_is_not_there_is_named_and_nothing_is_shown() {
        let text = |source| read(&token(source), &[1; 32]).unwrap_err().chain();
        assert!(
            text(SecretSource::Env("HOTBED_NO_SUCH".into())).contains("`TOKEN`: Hotbed has no environment")
        );
        let missing = text(SecretSource::File("/no/such/file".into()));
        assert!(missing.contains("`TOKEN`: read /no/such/file"), "{missing}");
        assert!(text(SecretSource::File("/dev/zero".into())).contains("not a file"));
    }
}
