//! Paths inside a repository.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::NameError;

/// A path inside a repository's tree: relative, without `.` and `..`; the root is empty. It can't lead out of the
/// tree, whoever wrote it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TreePath(Arc<str>);

impl TreePath {
    pub fn root() -> Self {
        Self("".into())
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The directory that it lies in; the root is its own.
    pub fn parent(&self) -> Self {
        Self(self.0.rsplit_once('/').map_or("", |(dir, _)| dir).into())
    }

    /// The last part; empty for the root.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// `relative`, seen from this directory; it may hold `.` and `..`, and must not lead out of the tree.
    pub fn join(&self, relative: &str) -> Result<Self, NameError> {
        let wrong = |expected| NameError {
            value: relative.chars().take(120).collect(),
            what: "a path in the repository",
            expected,
        };
        if relative.starts_with('/') {
            return Err(wrong("expected one that is relative, without a `/` at its beginning"));
        }
        if relative.len() > 4000 || relative.contains(char::is_control) {
            return Err(wrong("expected at most 4000 bytes, without control characters"));
        }
        let mut parts: Vec<&str> = self.0.split('/').filter(|p| !p.is_empty()).collect();
        for part in relative.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or_else(|| wrong("it must not lead out of the repository"))?;
                }
                part => parts.push(part),
            }
        }
        Ok(Self(parts.join("/").into()))
    }
}

impl FromStr for TreePath {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::root().join(text)
    }
}

/// The root reads `.`.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(if self.is_root() { "." } else { &self.0 })
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
        s.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn paths_stay_in_the_tree() {
        let path = |text: &str| text.parse::<TreePath>().map(|p| p.as_str().to_owned());
        assert_eq!(path("./a//b/").unwrap(), "a/b");
        assert_eq!(path("a/../b").unwrap(), "b");
        assert_eq!(path(".").unwrap(), "");
        for bad in ["/etc/passwd", "..", "a/../../b", "a\nb", "a\0b"] {
            assert!(path(bad).is_err(), "{bad}");
        }
        let dir: TreePath = ".devcontainer".parse().unwrap();
        assert_eq!(dir.join("../Dockerfile").unwrap().as_str(), "Dockerfile");
        assert!(dir.join("../../Dockerfile").is_err());
        let file = dir.join("x/devcontainer.json").unwrap();
        assert_eq!((file.parent().as_str(), file.file_name()), (".devcontainer/x", "devcontainer.json"));
        assert_eq!(TreePath::root().to_string(), ".");
    }

    proptest! {
        #[test]
        fn whatever_is_joined_is_a_path_of_the_tree(base in "[a-z./]{0,12}", relative in "\\PC{0,24}") {
            if let Ok(base) = base.parse::<TreePath>() && let Ok(path) = base.join(&relative) {
                prop_assert!(!path.as_str().starts_with('/'));
                prop_assert!(path.is_root() || path.as_str().split('/').all(|p| !matches!(p, "" | "." | "..")));
                let again: TreePath = path.to_string().parse().unwrap();
                prop_assert_eq!(again, path);
            }
        }
    }
}
