//! Which packages an image holds, as far as its files say so without running anything: Debian's and Alpine's own
//! lists, what pip calls its directories, and what npm writes down of a tree. Packages of other kinds are files like
//! any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackageKind {
    Dpkg,
    Apk,
    Pip,
    Npm,
}

impl PackageKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dpkg => "dpkg",
            Self::Apk => "apk",
            Self::Pip => "pip",
            Self::Npm => "npm",
        }
    }
}

impl fmt::Display for PackageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Packages with the versions that are there: several where a name stands in several places.
pub(crate) type Packages = BTreeMap<(PackageKind, String), BTreeSet<String>>;

/// Which list of packages the file at this path is.
pub(crate) fn list_at(path: &[u8]) -> Option<PackageKind> {
    match path {
        b"/var/lib/dpkg/status" => Some(PackageKind::Dpkg),
        b"/lib/apk/db/installed" | b"/usr/lib/apk/db/installed" => Some(PackageKind::Apk),
        path if path.ends_with(b"/node_modules/.package-lock.json") => Some(PackageKind::Npm),
        _ => None,
    }
}

/// The package of pip's that this path alone tells of: `…/name-1.0.dist-info/METADATA`.
pub(crate) fn named_by(path: &[u8]) -> Option<(String, String)> {
    let path = std::str::from_utf8(path).ok()?;
    let dir = path.strip_suffix("/METADATA")?.rsplit('/').next()?.strip_suffix(".dist-info")?;
    let (name, version) = dir.rsplit_once('-')?;
    (!name.is_empty() && !version.is_empty()).then(|| (name.replace('_', "-").to_lowercase(), version.into()))
}

/// Name and version of each package in a list. What is no such list holds none.
pub(crate) fn read_list(kind: PackageKind, content: &[u8]) -> Vec<(String, String)> {
    match kind {
        PackageKind::Dpkg => paragraphs(content, "Package: ", "Version: ", |line| {
            // What was removed and has left its configuration is listed, too.
            line.strip_prefix("Status: ").is_none_or(|status| status.ends_with(" installed"))
        }),
        PackageKind::Apk => paragraphs(content, "P:", "V:", |_| true),
        PackageKind::Npm => npm(content).unwrap_or_default(),
        PackageKind::Pip => Vec::new(),
    }
}

/// Lists of paragraphs with a field in each line. One in which a line is not `good` does not count.
fn paragraphs(content: &[u8], name: &str, version: &str, good: fn(&str) -> bool) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(content);
    let package = |paragraph: &str| {
        let field = |key: &str| paragraph.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let found = (field(name)?.to_owned(), field(version)?.to_owned());
        paragraph.lines().all(good).then_some(found)
    };
    text.split("\n\n").filter_map(package).collect()
}

fn npm(content: &[u8]) -> Option<Vec<(String, String)>> {
    let lock: Value = serde_json::from_slice(content).ok()?;
    let packages = lock.get("packages")?.as_object()?;
    let package = |(place, about): (&String, &Value)| {
        let (_, name) = place.rsplit_once("node_modules/")?;
        Some((name.to_owned(), about.get("version")?.as_str()?.to_owned()))
    };
    Some(packages.iter().filter_map(package).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: PackageKind, content: &str) -> Vec<String> {
        read_list(kind, content.as_bytes()).into_iter().map(|(n, v)| format!("{n} {v}")).collect()
    }

    #[test]
    fn lists_of_packages_are_read() {
        let dpkg = "Package: git\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2.39.5-0\n\
                    Description: x\n Package: not-this\n\nPackage: gone\nStatus: deinstall ok config-files\n\
                    Version: 1\n\nPackage: libc6\nStatus: hold ok installed\nVersion: 2.36-9\n";
        assert_eq!(of(PackageKind::Dpkg, dpkg), ["git 1:2.39.5-0", "libc6 2.36-9"]);
        let apk = "C:Q1\nP:musl\nV:1.2.5-r0\nA:x86_64\nF:lib\nR:libc.so\n\nP:busybox\nV:1.36-r9\n\n";
        assert_eq!(of(PackageKind::Apk, apk), ["musl 1.2.5-r0", "busybox 1.36-r9"]);
        let npm = r#"{"lockfileVersion": 3, "packages": {
            "node_modules/ms": {"version": "2.1.3"},
            "node_modules/@a/b/node_modules/@c/d": {"version": "1.0.0"},
            "node_modules/linked": {"link": true}}}"#;
        assert_eq!(of(PackageKind::Npm, npm), ["@c/d 1.0.0", "ms 2.1.3"]);
        for nonsense in ["", "\n\n\n", "{", "[]", "Package: alone"] {
            for kind in [PackageKind::Dpkg, PackageKind::Apk, PackageKind::Npm] {
                assert_eq!(of(kind, nonsense), [""; 0], "{kind}: {nonsense:?}");
            }
        }
    }

    #[test]
    fn pip_names_its_directories() {
        let of = |path: &str| named_by(path.as_bytes()).map(|(n, v)| format!("{n} {v}"));
        let place = "/opt/venv/lib/python3.11/site-packages";
        assert_eq!(
            of(&format!("{place}/iniconfig-2.0.0.dist-info/METADATA")),
            Some("iniconfig 2.0.0".into())
        );
        let typed = of(&format!("{place}/Typing_Extensions-4.1.dist-info/METADATA"));
        assert_eq!(typed, Some("typing-extensions 4.1".into()));
        assert_eq!(of(&format!("{place}/iniconfig-2.0.0.dist-info/RECORD")), None);
        assert_eq!(of(&format!("{place}/noversion.dist-info/METADATA")), None);
        assert_eq!(of("/METADATA"), None);
    }

    #[test]
    fn lists_are_known_by_their_place() {
        assert_eq!(list_at(b"/var/lib/dpkg/status"), Some(PackageKind::Dpkg));
        assert_eq!(list_at(b"/workspace/var/lib/dpkg/status"), None);
        assert_eq!(list_at(b"/workspace/web/node_modules/.package-lock.json"), Some(PackageKind::Npm));
        assert_eq!(list_at(b"/workspace/package-lock.json"), None);
    }
}
