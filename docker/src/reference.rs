//! Image references, as far as this crate must read them: whose registry, which tag; and the tags of captures.

use domain::ports::CaptureKind;
use domain::{Error, Result};
use sha2::{Digest as _, Sha256};

use crate::config::DEFAULT_REGISTRY;
use crate::mark::hex;

/// A reference to an image: `[host[:port]/]path[:tag][@digest]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// `None`: the engine's default registry.
    pub(crate) host: Option<String>,
    /// With the host, without tag and digest.
    pub(crate) repository: String,
    pub(crate) tag: Option<String>,
    pub(crate) digest: Option<String>,
}

impl Reference {
    /// Checks what could turn the reference into something else in a URL; the engine checks the rest.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(120).collect();
            Error::invalid(format!("image reference `{shown}`: {why}"))
        };
        if text.is_empty() || text.len() > 512 {
            return Err(wrong("expected 1 to 512 characters"));
        }
        if text.bytes().any(|b| !b.is_ascii_alphanumeric() && !b"._-/:@[]".contains(&b)) {
            return Err(wrong("expected letters, digits and `. _ - / : @` only"));
        }
        if text.starts_with(['/', '.', '-']) || text.split('/').any(|part| part.is_empty() || part == "..") {
            return Err(wrong("expected `[host[:port]/]path[:tag][@digest]`"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.to_owned())),
            None => (text, None),
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag.to_owned())),
            _ => (name, None),
        };
        if repository.is_empty() {
            return Err(wrong("expected a name before the tag"));
        }
        let host = match repository.split_once('/') {
            Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => Some(host.to_owned()),
            _ => None,
        };
        Ok(Self { host, repository: repository.to_owned(), tag, digest })
    }

    /// The key of its registry in the credentials.
    pub(crate) fn registry(&self) -> &str {
        self.host.as_deref().unwrap_or(DEFAULT_REGISTRY)
    }

    /// Never without tag and digest: the engine would pull every tag of the repository.
    pub(crate) fn full(&self) -> String {
        match (&self.tag, &self.digest) {
            (Some(tag), Some(digest)) => format!("{}:{tag}@{digest}", self.repository),
            (None, Some(digest)) => format!("{}@{digest}", self.repository),
            (tag, None) => format!("{}:{}", self.repository, tag.as_deref().unwrap_or("latest")),
        }
    }
}

/// The repository and tag that a capture carries, so that it is not dangling and can be told by its name. The
/// instance is in it, because two instances on one daemon may make a base of one fingerprint.
pub(crate) fn capture_tag(instance: &str, kind: CaptureKind, name: &str) -> (String, String) {
    (format!("hotbed-{instance}/{}", kind.as_str()), safe_tag(name))
}

/// A tag holds letters, digits, `_`, `.` and `-`, begins with neither of the last two, and has up to 128 of them.
/// Where a name had to be changed, a hash of it keeps two names apart.
fn safe_tag(name: &str) -> String {
    let lower = name.to_lowercase();
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let mut tag: String = lower.chars().map(|c| if good(c) { c } else { '-' }).take(110).collect();
    if tag.is_empty() || tag.starts_with(['.', '-']) {
        tag.insert(0, '_');
    }
    if tag != name {
        tag.push('-');
        tag.push_str(&hex(&Sha256::digest(name.as_bytes())[..6]));
    }
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_name_their_registry() {
        let host = |r: &str| Reference::parse(r).unwrap().registry().to_owned();
        assert_eq!(host("debian"), "default");
        assert_eq!(host("library/debian:bookworm"), "default");
        assert_eq!(host("registry.example/x"), "registry.example");
        assert_eq!(host("127.0.0.1:5000/x/y:t@sha256:00"), "127.0.0.1:5000");
        assert_eq!(host("localhost/x"), "localhost");
    }

    #[test]
    fn a_reference_is_never_a_whole_repository() {
        let full = |r: &str| Reference::parse(r).unwrap().full();
        assert_eq!(full("debian"), "debian:latest");
        assert_eq!(full("h:5000/x"), "h:5000/x:latest");
        assert_eq!(full("h:5000/x:t"), "h:5000/x:t");
        assert_eq!(full("x@sha256:00"), "x@sha256:00");
    }

    #[test]
    fn what_could_be_another_path_is_refused() {
        for bad in ["", "../x", "a/../b", "/x", "a//b", "x?y=1", "x#y", "x y", "x%2fy", ":t", "-x", "a\nb"] {
            assert!(Reference::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_safe_and_apart() {
        assert_eq!(safe_tag("img_0193abcd"), "img_0193abcd");
        assert!(safe_tag("sha256:ab").starts_with("sha256-ab-"));
        assert_ne!(safe_tag("a/b"), safe_tag("a:b"));
        assert_ne!(safe_tag("A"), safe_tag("a"));
        assert!(safe_tag(&"x".repeat(500)).len() <= 128);
        assert!(safe_tag("-x").starts_with('_') && !safe_tag("").is_empty());
    }
}
