//! Names, references, paths, commands and where a secret is found.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use domain::{Branch, RepoName, TreePath};
use schemars::JsonSchema;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::de::Reason;
use crate::error::clip;
use crate::values::{Text, not, text_values};

/// Declares a value that is a checked string.
macro_rules! checked {
    ($($(#[$doc:meta])* $name:ident, $format:literal, $expected:literal, $check:path;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(pub String);

        impl Text for $name {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Result<Self, Reason> {
                $check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        text_values! { $name, $format, "string"; }
    )*};
}

checked! {
    /// An image reference of a container engine.
    ImageReference, "image-reference", "an image reference, such as `debian:bookworm`", check_image;
    /// A suite of a distribution.
    Suite, "suite", "a suite of the distribution, such as `bookworm`", check_suite;
    /// A package of a distribution.
    PackageName, "package", "a package name, such as `python3`", check_package;
    /// A line for the shell.
    Shell, "command", "a shell command", check_command;
    /// An account of a sandbox, perhaps with a group.
    Account, "account", "an account of the sandbox, such as `postgres`, `1000` or `app:staff`", check_account;
    /// Where a command runs in a sandbox.
    Directory, "path", "a path in the sandbox, such as `/opt/app`, or below the workspace, such as `web`", check_directory;
    /// A service of a sandbox.
    ServiceName, "name", "a name of lower-case letters, digits and `-`, at most 63", check_label;
    /// A text with places to be filled.
    PullText, "template", "a text; in braces one of `{title}`, `{body}`, `{commits}`, `{session}`, `{user}`, `{people}`, `{branch}`, `{base}`", check_pull_text;
    /// A text to look for in a line.
    Needle, "text", "a text of one line", check_needle;
    /// Paths in a repository.
    TreePattern, "path-pattern", "a path in the repository, such as `package-lock.json` or `**/go.sum`", check_pattern_of_tree;
    /// Where the tree lies in a sandbox.
    Workspace, "path", "an absolute path in the sandbox, such as `/workspace`", check_workspace;
    /// Makes a session's branch.
    BranchPattern, "branch-pattern", "a branch name with `{session}` in it, such as `hotbed/{session}`", check_pattern;
    /// A network of the engine.
    NetworkName, "network", "the name of a network of the engine", check_engine_name;
    /// An OCI runtime of the engine.
    RuntimeName, "runtime", "the name of a runtime of the engine, such as `runsc`", check_engine_name;
    /// A name in an orchestrator's own system (a namespace).
    SetName, "namespace", "a namespace: lower-case letters, digits and `-`, at most 63", check_label;
    /// A header of HTTP.
    HeaderName, "header", "the name of a header in lower case, such as `authorization`", check_header;
    /// A file of this machine; a relative one is looked for beside `hotbed.yaml`.
    FilePath, "path", "a path", check_path;
}

fn check_header(text: &str) -> Result<(), Reason> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 100 || !text.chars().all(good) {
        return Err(not(text, "the name of a header"));
    }
    if ["content-type", "content-length", "content-encoding", "host"].contains(&text) {
        return Err(not(text, "a header to choose: the export itself sets it"));
    }
    Ok(())
}

fn check_image(text: &str) -> Result<(), Reason> {
    let wrong = || not(text, "an image reference");
    if text.is_empty() || text.len() > 300 {
        return Err(wrong());
    }
    if text.starts_with("http://") || text.starts_with("https://") {
        return Err(wrong().help("leave the scheme out"));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    if digest.is_some_and(|d| d.parse::<domain::Digest>().is_err()) {
        return Err(wrong().help("after `@` comes `sha256:` and 64 hexadecimal digits"));
    }
    let slash = rest.rfind('/').map_or(0, |i| i + 1);
    let (path, tag) = match rest[slash..].find(':') {
        Some(i) => (&rest[..slash + i], Some(&rest[slash + i + 1..])),
        None => (rest, None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if tag.is_some_and(|t| t.is_empty() || t.len() > 128 || !t.chars().all(word) || t.starts_with(['.', '-']))
    {
        return Err(wrong().help("the tag is made of letters, digits, `_`, `.` and `-`"));
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    let is_host = parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost");
    if is_host && super::net::check_host_port(parts[0]).is_ok() {
        parts.remove(0);
    }
    let lower = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-');
    let part = |p: &&str| {
        !p.is_empty()
            && p.chars().all(lower)
            && p.starts_with(|c: char| c.is_ascii_alphanumeric())
            && p.ends_with(|c: char| c.is_ascii_alphanumeric())
    };
    if parts.iter().all(part) {
        Ok(())
    } else {
        Err(wrong().help("its parts are lower-case letters and digits"))
    }
}

fn check_suite(text: &str) -> Result<(), Reason> {
    let good = text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.len() <= 60
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    if good { Ok(()) } else { Err(not(text, "a suite")) }
}

fn check_package(text: &str) -> Result<(), Reason> {
    let good = (2..=100).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
    if good { Ok(()) } else { Err(not(text, "a package name")) }
}

fn check_command(text: &str) -> Result<(), Reason> {
    if text.trim().is_empty() {
        return Err(Reason::new("the command is empty").help("remove it; `true` does nothing"));
    }
    if text.contains('\0') {
        return Err(Reason::new("the command holds a NUL"));
    }
    Ok(())
}

fn check_account(text: &str) -> Result<(), Reason> {
    let word = |w: &str| {
        (1..=64).contains(&w.len())
            && !w.starts_with('-')
            && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'$'))
    };
    let mut parts = text.splitn(2, ':');
    if parts.all(word) { Ok(()) } else { Err(not(text, "an account")) }
}

fn check_directory(text: &str) -> Result<(), Reason> {
    let wrong = |why: &str| Err(not(text, "a directory").help(why.to_owned()));
    if text.is_empty() || text.len() > 1000 || text.chars().any(char::is_control) {
        return wrong("it is at most 1000 bytes, without line breaks");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong("write it without `..`");
    }
    Ok(())
}

fn check_pull_text(text: &str) -> Result<(), Reason> {
    if text.len() > 32 * 1024 {
        return Err(Reason::new("this text is longer than 32 KiB"));
    }
    for open in text.match_indices('{').map(|(at, _)| &text[at + 1..]) {
        let Some((name, _)) = open.split_once('}') else { continue };
        let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_name && !domain::PullPolicy::PLACES.contains(&name) {
            return Err(Reason::new(format!("`{{{}}}` stands for nothing", clip(name))));
        }
    }
    Ok(())
}

fn check_needle(text: &str) -> Result<(), Reason> {
    let good = (1..=500).contains(&text.len()) && !text.contains(char::is_control);
    if good { Ok(()) } else { Err(not(text, "a text to look for")) }
}

fn check_pattern_of_tree(text: &str) -> Result<(), Reason> {
    let wrong = |why: &str| Err(not(text, "a path in the repository").help(why.to_owned()));
    if text.is_empty() || text.len() > 1000 || text.contains(char::is_control) {
        return wrong("it is at most 1000 bytes, without line breaks");
    }
    if text.starts_with('/') {
        return wrong("it begins at the repository's root: write it without the `/`");
    }
    if text.split('/').any(|part| part == "..") {
        return wrong("write it without `..`");
    }
    Ok(())
}

fn check_workspace(text: &str) -> Result<(), Reason> {
    let wrong = |why: &str| Err(not(text, "a place for the workspace").help(why.to_owned()));
    if !text.starts_with('/') {
        return wrong("it must be absolute");
    }
    if text == "/" {
        return wrong("it must not be the root itself");
    }
    if text.len() > 200
        || text.chars().any(|c| c.is_control() || c.is_whitespace() || matches!(c, ':' | ',' | '"' | '\\'))
    {
        return wrong("it must be at most 200 bytes, without blanks, `:`, `,`, quotes and backslashes");
    }
    if text[1..].split('/').any(|p| matches!(p, "" | "." | "..")) {
        return wrong("write it without `.`, `..`, `//` and a `/` at the end");
    }
    for system in ["/proc", "/sys", "/dev", "/run/hotbed"] {
        if text == system || text.starts_with(&format!("{system}/")) {
            return wrong(&format!("{system} belongs to the system or to Hotbed"));
        }
    }
    const WHOLE: [&str; 17] = [
        "/bin", "/boot", "/etc", "/home", "/lib", "/lib64", "/mnt", "/opt", "/root", "/run", "/sbin", "/srv",
        "/tmp", "/usr", "/usr/bin", "/usr/lib", "/var",
    ];
    if WHOLE.contains(&text) {
        return wrong("a directory of the system can't be the workspace; one below it can");
    }
    Ok(())
}

fn check_pattern(text: &str) -> Result<(), Reason> {
    let wrong = || not(text, "a branch pattern");
    if text.matches("{session}").count() != 1 {
        return Err(wrong().help("it must hold `{session}` once: each session has a branch of its own"));
    }
    let sample = text.replace("{session}", "0123456789abcdef");
    if sample.contains(['{', '}']) {
        return Err(wrong().help("`{session}` is the only thing that is replaced"));
    }
    sample.parse::<Branch>().map(drop).map_err(|e| wrong().help(e.expected))
}

fn check_engine_name(text: &str) -> Result<(), Reason> {
    let good = text.len() <= 128
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
    if !good {
        return Err(not(text, "a name of the engine").help("letters, digits, `_`, `.` and `-`"));
    }
    Ok(())
}

fn check_label(text: &str) -> Result<(), Reason> {
    let good = (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if good { Ok(()) } else { Err(not(text, "a name")) }
}

fn check_path(text: &str) -> Result<(), Reason> {
    if text.is_empty() || text.contains('\0') || text.len() > 4000 {
        return Err(not(text, "a path"));
    }
    if text.starts_with('~') {
        return Err(not(text, "a path").help("`~` is not expanded here; write the whole path"));
    }
    Ok(())
}

/// A repository name; the rules are the domain's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repo(pub RepoName);

impl Text for Repo {
    const EXPECTED: &'static str = "`owner/name`, such as `acme/api`";
    fn parse(text: &str) -> Result<Self, Reason> {
        text.parse().map(Self).map_err(|_: domain::NameError| {
            not(text, "a repository name").help(match text.contains("://") {
                true => "the address goes into `url`",
                false => {
                    "letters, digits, `-`, `_` and `.`; no part begins with `.` or `-`, and none ends with `.git`"
                }
            })
        })
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A branch; the rules are git's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BranchName(pub Branch);

impl Text for BranchName {
    const EXPECTED: &'static str = "a branch name, such as `main`";
    fn parse(text: &str) -> Result<Self, Reason> {
        if let Some(short) = text.strip_prefix("refs/heads/") {
            return Err(not(text, "a branch name").help(format!("write `{}`", clip(short))));
        }
        text.parse().map(Self).map_err(|e: domain::NameError| not(text, "a branch name").help(e.expected))
    }
}

impl fmt::Display for BranchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str())
    }
}

/// A file or directory of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TreeFile(pub TreePath);

impl Text for TreeFile {
    const EXPECTED: &'static str = "a path in the repository, such as `docker/dev.Dockerfile`";
    fn parse(text: &str) -> Result<Self, Reason> {
        if text.is_empty() {
            return Err(not(text, "a path in the repository"));
        }
        text.parse()
            .map(Self)
            .map_err(|e: domain::NameError| not(text, "a path in the repository").help(e.expected))
    }
}

impl fmt::Display for TreeFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

text_values! {
    TreeFile, "repository-path", "string";
    Repo, "repository", "string";
    BranchName, "branch", "string";
}

/// Environment variables. Not for secrets: they end up in images.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Env(pub BTreeMap<String, String>);

/// A name of an environment variable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EnvName(pub String);

impl Text for EnvName {
    const EXPECTED: &'static str = "a name of letters, digits and `_` that does not begin with a digit";
    fn parse(text: &str) -> Result<Self, Reason> {
        if !is_env_name(text) {
            return Err(not(text, "a name of an environment variable"));
        }
        if text.starts_with("HOTBED_") {
            return Err(Reason::new(format!("`{}` is one of Hotbed's own", clip(text)))
                .expected("a name without `HOTBED_`"));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for EnvName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

text_values! {
    EnvName, "variable", "string";
}

fn is_env_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 200
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<EnvName, EnvValue>::deserialize(d)?;
        Ok(Self(map.into_iter().map(|(k, v)| (k.0, v.0)).collect()))
    }
}

struct EnvValue(String);

impl Text for EnvValue {
    const EXPECTED: &'static str = "a text";
    fn parse(text: &str) -> Result<Self, Reason> {
        if text.contains('\0') {
            Err(Reason::new("the value holds a NUL"))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        super::text(d)
    }
}

/// Secrets by the name that commands ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Secrets(pub BTreeMap<String, SecretRef>);

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<EnvName, SecretRef>::deserialize(d)?;
        Ok(Self(map.into_iter().map(|(name, found)| (name.0, found)).collect()))
    }
}

/// Secrets by the header that they are sent in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) struct Headers(pub BTreeMap<String, SecretRef>);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let map = BTreeMap::<HeaderName, SecretRef>::deserialize(d)?;
        Ok(Self(map.into_iter().map(|(name, found)| (name.0, found)).collect()))
    }
}

/// Where a secret is found. The secret itself is never in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SecretRef {
    /// An environment variable of Hotbed's own process.
    Env(String),
    /// A file.
    File(PathBuf),
}

const SECRET: &str = "`{ env: NAME }` or `{ file: PATH }`";

impl<'de> Deserialize<'de> for SecretRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

fn plain_secret() -> Reason {
    Reason::new("a secret stands here in plain: secrets are never in this file")
        .expected(SECRET)
        .help("put it in a file or into the environment, name that here, and replace the secret: it was exposed")
        .sensitive()
}

impl<'de> Visitor<'de> for SecretVisitor {
    type Value = SecretRef;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SECRET)
    }
    fn visit_str<E: de::Error>(self, _: &str) -> Result<SecretRef, E> {
        Err(E::custom(plain_secret()))
    }
    fn visit_i64<E: de::Error>(self, _: i64) -> Result<SecretRef, E> {
        Err(E::custom(plain_secret()))
    }
    fn visit_f64<E: de::Error>(self, _: f64) -> Result<SecretRef, E> {
        Err(E::custom(plain_secret()))
    }
    fn visit_bool<E: de::Error>(self, _: bool) -> Result<SecretRef, E> {
        Err(E::custom(plain_secret()))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, _: A) -> Result<SecretRef, A::Error> {
        Err(de::Error::custom(plain_secret()))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SecretRef, A::Error> {
        // An error names the whole mapping and shows none of it: under a wrong key may stand the secret.
        let wrong = |message: &str| de::Error::custom(Reason::new(message).expected(SECRET).sensitive());
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            let reference = match key.as_str() {
                "env" => {
                    let name: String = map
                        .next_value()
                        .map_err(|_: A::Error| wrong("`env` is not the name of a variable"))?;
                    if !is_env_name(&name) {
                        return Err(wrong("`env` is not the name of a variable"));
                    }
                    SecretRef::Env(name)
                }
                "file" => {
                    let path: String =
                        map.next_value().map_err(|_: A::Error| wrong("`file` is not a path"))?;
                    if check_path(&path).is_err() || path.contains('\n') {
                        return Err(wrong("`file` is not a path"));
                    }
                    SecretRef::File(path.into())
                }
                _ => return Err(wrong("this is not where a secret is found")),
            };
            if found.replace(reference).is_some() {
                return Err(wrong("a secret is found in one place, and here stand two"));
            }
        }
        found.ok_or_else(|| wrong("this does not say where the secret is found"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok<T: Text>(good: &[&str]) {
        for text in good {
            assert!(T::parse(text).is_ok(), "{text}: {}", T::parse(text).err().unwrap());
        }
    }
    fn bad<T: Text>(bad: &[&str]) {
        for text in bad {
            assert!(T::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn references() {
        let digest = format!("debian@sha256:{}", "a".repeat(64));
        ok::<ImageReference>(&[
            "debian",
            "debian:bookworm",
            "registry.example/a/b:1.0",
            "localhost:5000/x",
            &digest,
        ]);
        bad::<ImageReference>(&[
            "",
            "Debian",
            "debian:",
            "debian: x",
            "https://registry.example/x",
            "a//b",
            "debian@sha256:12",
            "-x",
            "a b",
        ]);
        ok::<Suite>(&["bookworm", "noble"]);
        bad::<Suite>(&["", "Bookworm", "../x", "a b"]);
        ok::<PackageName>(&["git", "g++", "libssl-dev", "python3.11"]);
        bad::<PackageName>(&["", "a", "-rf", "git python3", "git;true"]);
    }

    #[test]
    fn workspaces() {
        ok::<Workspace>(&["/workspace", "/home/dev/project", "/tmp/w", "/runner"]);
        bad::<Workspace>(&[
            "",
            "/",
            "workspace",
            "/run",
            "/run/hotbed",
            "/run/hotbed/x",
            "/proc/1",
            "/sys",
            "/dev/shm",
            "/a/../etc",
            "/a//b",
            "/a/",
            "/etc",
            "/usr",
            "/a b",
            "/a:b",
            "/a\nb",
        ]);
    }

    #[test]
    fn names() {
        ok::<Repo>(&["acme/api"]);
        bad::<Repo>(&["acme", "https://example.com/a/b", "a/b/c"]);
        ok::<BranchName>(&["main", "release/1.x"]);
        bad::<BranchName>(&["", "refs/heads/main", "a..b", "-x"]);
        ok::<BranchPattern>(&["hotbed/{session}", "agent-{session}-x"]);
        bad::<BranchPattern>(&[
            "hotbed",
            "{session}/{session}",
            "{user}/{session}",
            "a b/{session}",
            "/{session}",
        ]);
        ok::<SetName>(&["hotbed"]);
        bad::<SetName>(&["", "Hot", "-a", "a_b"]);
        ok::<NetworkName>(&["ci_net-1"]);
        bad::<NetworkName>(&["", "a b", "-a", "a/b"]);
        ok::<EnvName>(&["PATH", "_x1"]);
        bad::<EnvName>(&["", "1A", "A-B", "A=B", "HOTBED_SESSION"]);
        ok::<HeaderName>(&["authorization", "x-honeycomb-team"]);
        bad::<HeaderName>(&["", "Authorization", "a b", "host"]);
        bad::<FilePath>(&["", "~/x"]);
        bad::<Shell>(&["", "  \n"]);
    }
}
