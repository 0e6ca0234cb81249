//! Typed identifiers. Each prints as a prefix and a time-ordered UUID (`ses_0193…`), so an id says what it
//! names, sorts by age and can't be confused with another kind. Clients treat them as opaque strings.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// Why a string is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {what} id: expected `{prefix}` and 32 hexadecimal digits")]
pub struct ParseIdError {
    pub value: String,
    pub what: &'static str,
    pub prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A new id; later ids of one process sort after earlier ones.
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// An id made of a number, for tests and examples that must repeat.
            pub const fn from_u128(n: u128) -> Self {
                Self(Uuid::from_u128(n))
            }

            /// When it was made, by the system's clock, to the millisecond; nothing of one that was made of a number.
            pub fn made_at(self) -> Option<jiff::Timestamp> {
                let (seconds, nanos) = self.0.get_timestamp()?.to_unix();
                jiff::Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
            }

            pub const fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                let wrong = || ParseIdError { value: s.chars().take(80).collect(), what: $what, prefix: $prefix };
                let hex = s.strip_prefix($prefix).ok_or_else(wrong)?;
                if hex.len() != 32 || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return Err(wrong());
                }
                Uuid::try_parse(hex).map(Self).map_err(|_| wrong())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
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

ids! {
    /// One installation of Hotbed: the owner of everything labelled with it.
    InstanceId, "ins_", "an instance";
    /// What a user works in; outlives its sandboxes.
    SessionId, "ses_", "a session";
    /// One container or pod; handed out at most once.
    SandboxId, "sbx_", "a sandbox";
    /// A captured filesystem of a repo at a known commit.
    ImageId, "img_", "an image";
    /// A captured filesystem of a session.
    SnapshotId, "snp_", "a snapshot";
    /// A client's announcement that a session is likely.
    WarmupId, "wrm_", "a warm-up";
    /// One command run in a session.
    ExecId, "exe_", "an exec";
    /// One run of the image builder.
    BuildId, "bld_", "a build";
    /// A pull request as Hotbed records it.
    PullRequestId, "prq_", "a pull request";
    /// An API key; not the key itself.
    KeyId, "key_", "a key";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_prints_and_parses() {
        let id = SessionId::new();
        assert_eq!(id.to_string().parse::<SessionId>(), Ok(id));
        assert!(id.to_string().starts_with("ses_"));
    }

    #[test]
    fn another_kind_is_refused() {
        let id = SandboxId::new().to_string();
        let err = id.parse::<SessionId>().unwrap_err().to_string();
        assert!(err.contains("expected `ses_`"), "{err}");
        assert!("ses_".parse::<SessionId>().is_err());
        assert!("ses_0123456789ABCDEF0123456789ABCDEF".parse::<SessionId>().is_err());
    }
}
