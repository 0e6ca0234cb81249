//! The values of `hotbed.yaml` as types that can only be right: each parses from its text, prints back, says what was
//! expected, and describes itself in the schema. Checks that need another key are not here.

mod name;
mod net;
mod quantity;
mod time;

pub use name::SecretRef;
pub(crate) use name::{
    Account, BranchName, BranchPattern, Directory, Env, EnvName, FilePath, ImageReference, Needle,
    NetworkName, PackageName, PullText, Repo, RuntimeName, ServiceName, SetName, Shell, Suite, TreeFile,
    TreePattern, Workspace,
};
pub(crate) use name::{Headers, Secrets};
pub(crate) use net::{DockerHost, GitUrl, HostPattern, HttpUrl, IssuerUrl, Origin};
pub use net::{ListenAddress, is_loopback};
pub(crate) use quantity::{ByteSize, Cpus, Period, Port, Rate, Share};
pub(crate) use time::{Days, Hours, Schedule, Zone};

use std::fmt;
use std::marker::PhantomData;

use serde::de::{self, Deserializer, Visitor};

use crate::de::Reason;
use crate::error::clip;

/// A value that is written as one text.
pub(crate) trait Text: Sized {
    /// Completes "expected …".
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Result<Self, Reason>;

    /// A number without quotes stands there.
    fn number(text: &str) -> Result<Self, Reason> {
        Err(Reason::new(format!("expected {}, found the number `{text}`", Self::EXPECTED))
            .help(format!("put it in quotes: \"{text}\"")))
    }
}

/// Parses and fills in what was expected.
pub(crate) fn parse<T: Text>(text: &str) -> Result<T, Reason> {
    T::parse(text).map_err(expect::<T>)
}

fn expect<T: Text>(reason: Reason) -> Reason {
    if reason.expected.is_empty() { reason.expected(T::EXPECTED) } else { reason }
}

pub(crate) struct TextVisitor<T>(PhantomData<T>);

impl<'de, T: Text> Visitor<'de> for TextVisitor<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }
    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        parse(text).map_err(E::custom)
    }
    fn visit_i64<E: de::Error>(self, n: i64) -> Result<T, E> {
        T::number(&n.to_string()).map_err(expect::<T>).map_err(E::custom)
    }
    fn visit_f64<E: de::Error>(self, n: f64) -> Result<T, E> {
        T::number(&n.to_string()).map_err(expect::<T>).map_err(E::custom)
    }
    fn visit_bool<E: de::Error>(self, b: bool) -> Result<T, E> {
        Err(E::custom(wrong::<T>(&format!("the boolean `{b}`"))))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        Err(de::Error::custom(wrong::<T>("a list")))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, _: A) -> Result<T, A::Error> {
        Err(de::Error::custom(wrong::<T>("a mapping")))
    }
}

fn wrong<T: Text>(found: &str) -> Reason {
    Reason::new(format!("expected {}, found {found}", T::EXPECTED)).expected(T::EXPECTED)
}

pub(crate) fn text<'de, T: Text, D: Deserializer<'de>>(d: D) -> Result<T, D::Error> {
    d.deserialize_any(TextVisitor(PhantomData))
}

/// "`…` is not …", the most common reason.
pub(crate) fn not(text: &str, what: &str) -> Reason {
    Reason::new(format!("`{}` is not {what}", clip(text)))
}

/// Serde and schema of a [`Text`]: a string with a format of its own name.
macro_rules! text_values {
    ($($name:ident, $format:literal, $types:tt;)*) => {$(
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                crate::values::text(d)
            }
        }
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": $types, "format": $format })
            }
        }
    )*};
}
pub(crate) use text_values;
