//! The apt sources of this machine, cut down to one release: where the packages of a root filesystem come from,
//! and what it keeps for its own `apt-get`.
//!
//! Third parties' sources are left out. Where the machine runs another release than the wanted one, its own
//! sources are asked for the wanted one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use domain::{Error, Result};

/// One entry of sources, in the newer (deb822) form; fields other than these are kept as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    other: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources {
    /// A `.sources` file.
    pub(super) deb822: String,
    /// Key files that the entries name and that no package brings, to be copied to the same path.
    pub(super) keys: Vec<PathBuf>,
    /// The first address and its components, for a tool that takes only one.
    pub(super) first: (String, Vec<String>),
}

pub(super) fn of_this_machine(suite: &str) -> Result<Sources> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    let mut more: Vec<_> = std::fs::read_dir("/etc/apt/sources.list.d")
        .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    more.sort();
    files.extend(more);
    let texts = files.into_iter().filter_map(|path| {
        let deb822 = match path.extension()?.to_str()? {
            "list" => false,
            "sources" => true,
            _ => return None,
        };
        Some((deb822, std::fs::read_to_string(path).ok()?))
    });
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let own = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME=")).map(|v| v.trim_matches('"'));
    choose(suite, own, texts, |path| std::fs::read_to_string(path).ok())
}

/// `read` gives the content of the mirror lists that entries name.
fn choose(
    suite: &str,
    own: Option<&str>,
    texts: impl Iterator<Item = (bool, String)>,
    read: impl Fn(&Path) -> Option<String>,
) -> Result<Sources> {
    let all: Vec<Entry> =
        texts.flat_map(|(deb822, text)| if deb822 { stanzas(&text) } else { lines(&text) }).collect();
    let of = |release: &str| -> Vec<Entry> {
        all.iter().filter_map(|entry| entry.cut_to(release, suite)).collect()
    };
    let mut entries = of(suite);
    if entries.is_empty() {
        entries = own.map(of).unwrap_or_default();
    }
    for entry in &mut entries {
        entry.expand(&read);
    }
    entries.retain(|e| !e.uris.is_empty());
    let Some(first) = entries.first() else {
        return Err(Error::permanent(format!(
            "suite `{suite}`: no apt source of this machine serves it, see /etc/apt/sources.list.d"
        )));
    };
    let first = (first.uris[0].clone(), first.components.clone());
    let mut keys: Vec<PathBuf> = entries
        .iter()
        .filter_map(|e| e.other.get("Signed-By"))
        .filter(|value| {
            value.starts_with('/') && !value.contains(char::is_whitespace) && !value.contains('\'')
        })
        // These come with the distribution's own keyring package.
        .filter(|value| !value.starts_with("/usr/share/keyrings/debian-archive-"))
        .map(PathBuf::from)
        .collect();
    keys.sort();
    keys.dedup();
    let deb822 = entries.iter().map(Entry::print).collect::<Vec<_>>().join("\n");
    Ok(Sources { deb822, keys, first })
}

impl Entry {
    /// This entry with the suites of `release` only, spelled for `wanted`; `None` when it has none of them, so
    /// that nobody else's packages come in.
    fn cut_to(&self, release: &str, wanted: &str) -> Option<Self> {
        let suites: Vec<String> = self
            .suites
            .iter()
            .filter_map(|s| {
                let rest = s.strip_prefix(release)?;
                matches!(rest, "" | "-updates" | "-security" | "/updates").then(|| format!("{wanted}{rest}"))
            })
            .collect();
        let disabled = self.other.get("Enabled").is_some_and(|v| v.eq_ignore_ascii_case("no"));
        (!suites.is_empty() && !disabled).then(|| Self { suites, ..self.clone() })
    }

    /// A list of mirrors is a file of this machine, which the root filesystem will not have.
    fn expand(&mut self, read: &impl Fn(&Path) -> Option<String>) {
        let uris = std::mem::take(&mut self.uris);
        for uri in uris {
            match uri.strip_prefix("mirror+file:") {
                None if uri.starts_with("cdrom:") => {}
                None => self.uris.push(uri),
                Some(path) => {
                    let path = format!("/{}", path.trim_start_matches('/'));
                    let list = read(Path::new(&path)).unwrap_or_default();
                    let mirrors = list.lines().filter_map(|l| l.split_whitespace().next());
                    self.uris.extend(mirrors.filter(|m| !m.starts_with('#')).map(str::to_owned));
                }
            }
        }
    }

    fn print(&self) -> String {
        let mut out =
            format!("Types: deb\nURIs: {}\nSuites: {}\n", self.uris.join(" "), self.suites.join(" "));
        if !self.components.is_empty() {
            out.push_str(&format!("Components: {}\n", self.components.join(" ")));
        }
        for (key, value) in &self.other {
            out.push_str(&format!("{key}: {value}\n"));
        }
        out
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The newer form: stanzas of fields.
fn stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: BTreeMap<String, String> = BTreeMap::new();
    let mut last: Option<String> = None;
    for line in text.lines().filter(|l| !l.starts_with('#')).chain([""]) {
        if line.trim().is_empty() {
            entries.extend(entry_of(std::mem::take(&mut fields)));
            last = None;
        } else if line.starts_with([' ', '\t']) {
            // A folded value, such as a key in the file itself, keeps its lines.
            if let Some(value) = last.as_ref().and_then(|key| fields.get_mut(key)) {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            let key = capitalised(key.trim());
            fields.insert(key.clone(), value.trim().to_owned());
            last = Some(key);
        }
    }
    entries
}

fn entry_of(mut fields: BTreeMap<String, String>) -> Option<Entry> {
    let mut take = |key: &str| words(&fields.remove(key).unwrap_or_default());
    let (types, uris, suites) = (take("Types"), take("Uris"), take("Suites"));
    let components = take("Components");
    types.iter().any(|t| t == "deb").then_some(Entry { uris, suites, components, other: fields })
}

/// The older form: `deb [option=value …] uri suite component…`.
fn lines(text: &str) -> Vec<Entry> {
    let entry = |line: &str| {
        let mut rest = line.split('#').next()?.trim().strip_prefix("deb")?;
        if !rest.starts_with([' ', '\t']) {
            return None;
        }
        rest = rest.trim_start();
        let mut other = BTreeMap::new();
        if let Some((options, after)) = rest.strip_prefix('[').and_then(|r| r.split_once(']')) {
            for (key, value) in options.split_whitespace().filter_map(|o| o.split_once('=')) {
                let key = match key {
                    "arch" => "Architectures".to_owned(),
                    "lang" => "Languages".to_owned(),
                    "target" => "Targets".to_owned(),
                    key => capitalised(key),
                };
                other.insert(key, value.replace(',', " "));
            }
            rest = after;
        }
        let mut words = rest.split_whitespace().map(str::to_owned);
        Some(Entry {
            uris: vec![words.next()?],
            suites: vec![words.next()?],
            components: words.collect(),
            other,
        })
    };
    text.lines().filter_map(entry).collect()
}

fn capitalised(key: &str) -> String {
    let part = |p: &str| {
        let (first, rest) = p.split_at(p.chars().next().map_or(0, char::len_utf8));
        first.to_uppercase() + &rest.to_lowercase()
    };
    key.split('-').map(part).collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://third.example/apt
Suites: nodistro
Components: main
";

    fn choose_of(suite: &str, deb822: bool, text: &str) -> Result<Sources> {
        choose(suite, Some("bookworm"), [(deb822, text.to_owned())].into_iter(), |path| {
            (path == Path::new("/etc/apt/mirrors/debian.list"))
                .then(|| "http://a.example/d\tpriority:1\n#x\n".into())
        })
    }

    #[test]
    fn third_parties_are_left_out() {
        let sources = choose_of("bookworm", true, NEW).unwrap();
        let expected = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n\
                        Components: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(sources.deb822, expected);
        assert_eq!(
            sources.first,
            ("http://mirror.example/debian".into(), vec!["main".into(), "contrib".into()])
        );
        assert!(sources.keys.is_empty());
    }

    #[test]
    fn another_release_is_asked_of_the_same_archive() {
        let sources = choose_of("trixie", true, NEW).unwrap();
        assert!(sources.deb822.contains("Suites: trixie trixie-updates\n"), "{}", sources.deb822);
        assert!(choose("trixie", None, [(true, NEW.to_owned())].into_iter(), |_| None).is_err());
    }

    #[test]
    fn the_older_form_is_read_and_its_keys_come_along() {
        let old = "deb [arch=amd64 signed-by=/etc/apt/keyrings/own.gpg] http://m.example/d bookworm main # x\n\
                   deb-src http://m.example/d bookworm main\n#deb http://x.example y main\n\
                   deb http://m.example/s bookworm-security main\n";
        let sources = choose_of("bookworm", false, old).unwrap();
        assert!(sources.deb822.contains("Architectures: amd64\nSigned-By: /etc/apt/keyrings/own.gpg\n"));
        assert!(sources.deb822.contains("Suites: bookworm-security\n"));
        assert!(!sources.deb822.contains("x.example"));
        assert_eq!(sources.keys, [PathBuf::from("/etc/apt/keyrings/own.gpg")]);
    }

    #[test]
    fn a_list_of_mirrors_is_written_out() {
        let list = "Types: deb\nURIs: mirror+file:///etc/apt/mirrors/debian.list\nSuites: bookworm\nComponents: main\n";
        let sources = choose_of("bookworm", true, list).unwrap();
        assert!(sources.deb822.contains("URIs: http://a.example/d\n"), "{}", sources.deb822);
    }

    #[test]
    fn a_disabled_entry_is_none() {
        let off = NEW.replace("Suites: bookworm", "Enabled: no\nSuites: bookworm");
        assert!(choose_of("bookworm", true, &off).is_err());
    }
}
