//! Names that come from outside and are checked once, at the edge: repositories, branches, commits, digests.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a name was refused: what it was, and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not {what}: {expected}", value.escape_debug())]
pub struct NameError {
    pub value: String,
    pub what: &'static str,
    pub expected: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident, $what:literal, $check:path;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(s: &str) -> Result<Self, NameError> {
                match $check(s) {
                    Ok(()) => Ok(Self(s.into())),
                    Err(expected) => Err(NameError { value: s.chars().take(120).collect(), what: $what, expected }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = std::borrow::Cow::<'de, str>::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

names! {
    /// A configured repository, `owner/name`. Equal names are the same repo; nothing else identifies one (F6).
    RepoName, "a repository name", check_repo;
    /// A branch, without `refs/heads/`; checked as `git check-ref-format --branch` does.
    Branch, "a branch name", check_branch;
    /// A full commit id: 40 (SHA-1) or 64 (SHA-256) lower-case hexadecimal digits.
    CommitId, "a commit id", check_commit;
    /// The content address of an image, `sha256:` and 64 hexadecimal digits; never a tag (F28).
    Digest, "a digest", check_digest;
}

impl RepoName {
    pub fn owner(&self) -> &str {
        self.0.split_once('/').map_or("", |(owner, _)| owner)
    }

    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, name)| name)
    }
}

impl CommitId {
    /// The first 12 digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl Digest {
    /// The first 12 digits of the hash, for people.
    pub fn short(&self) -> &str {
        &self.0[7..19]
    }
}

fn check_repo(s: &str) -> Result<(), &'static str> {
    const EXPECTED: &str = "expected `owner/name`, each of letters, digits, `-`, `_` and `.`, at most 100 characters, not beginning with `.` or `-`";
    let part = |p: &str| {
        !p.is_empty()
            && p.len() <= 100
            && !p.starts_with(['.', '-'])
            && !p.ends_with(".git")
            && p.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    match s.split_once('/') {
        Some((owner, name)) if part(owner) && part(name) => Ok(()),
        _ => Err(EXPECTED),
    }
}

fn check_branch(s: &str) -> Result<(), &'static str> {
    if s.is_empty() || s.len() > 244 {
        return Err("expected 1 to 244 characters");
    }
    if s.starts_with('-')
        || s.starts_with('/')
        || s.ends_with('/')
        || s.ends_with('.')
        || s == "@"
        || s == "HEAD"
    {
        return Err("it must not begin with `-` or `/`, end with `/` or `.`, or be `@` or `HEAD`");
    }
    if s.contains("..") || s.contains("//") || s.contains("@{") {
        return Err("it must not hold `..`, `//` or `@{`");
    }
    if s.bytes()
        .any(|b| b <= b' ' || b == 0x7f || matches!(b, b'~' | b'^' | b':' | b'?' | b'*' | b'[' | b'\\'))
    {
        return Err("it must not hold blanks, control characters or any of ~ ^ : ? * [ \\");
    }
    if s.split('/').any(|p| p.starts_with('.') || p.ends_with(".lock")) {
        return Err("no part of it may begin with `.` or end with `.lock`");
    }
    Ok(())
}

fn check_commit(s: &str) -> Result<(), &'static str> {
    if matches!(s.len(), 40 | 64) && lower_hex(s) {
        Ok(())
    } else {
        Err("expected 40 or 64 lower-case hexadecimal digits")
    }
}

fn check_digest(s: &str) -> Result<(), &'static str> {
    match s.strip_prefix("sha256:") {
        Some(hex) if hex.len() == 64 && lower_hex(hex) => Ok(()),
        _ => Err("expected `sha256:` and 64 lower-case hexadecimal digits"),
    }
}

fn lower_hex(s: &str) -> bool {
    s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repo_names() {
        assert_eq!("acme/api".parse::<RepoName>().unwrap().owner(), "acme");
        for bad in ["", "acme", "acme/", "/api", "a/b/c", "../x", "a/.hidden", "a b/c", "a/b.git"] {
            assert!(bad.parse::<RepoName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn branch_names_follow_git() {
        for good in ["main", "feature/x-1", "hotbed/ses", "ü"] {
            assert!(good.parse::<Branch>().is_ok(), "{good}");
        }
        for bad in ["", "-x", "a..b", "a b", "x.lock", "a/.b", "x/", "a~1", "HEAD", "a@{1}", "x\n"] {
            assert!(bad.parse::<Branch>().is_err(), "{bad}");
        }
    }

    #[test]
    fn commits_and_digests() {
        assert!("a".repeat(40).parse::<CommitId>().is_ok());
        assert!("A".repeat(40).parse::<CommitId>().is_err());
        assert!("main".parse::<CommitId>().is_err());
        assert!(format!("sha256:{}", "0".repeat(64)).parse::<Digest>().is_ok());
        assert!("debian:bookworm".parse::<Digest>().is_err());
    }
}
