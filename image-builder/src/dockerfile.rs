//! As much of a Dockerfile as has to be known without building it: what it reads from the repository, so that a base
//! is made anew when that changes (F26); which images it stands on; and what a `.dockerignore` leaves out.
//!
//! The engine is the one that understands Dockerfiles. Where this reader can't tell, it says "everything".

use std::collections::BTreeMap;

use domain::{TreePath, glob_matches};

/// What a Dockerfile reads from its context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inputs {
    /// These paths below the context; none where it copies nothing.
    Paths(Vec<TreePath>),
    /// It can't be told, or it is the whole context.
    Everything,
}

/// What `text` reads from its context.
pub fn inputs(text: &str) -> Inputs {
    let mut paths = Vec::new();
    for instruction in instructions(text) {
        match instruction.name.as_str() {
            "COPY" | "ADD" => match sources(&instruction) {
                Some(found) => paths.extend(found),
                None => return Inputs::Everything,
            },
            // A mount without `from` shows the context.
            "RUN" if instruction.flags().any(|f| f.starts_with("--mount=") && mounts_context(f)) => {
                return Inputs::Everything;
            }
            _ => {}
        }
    }
    if paths.iter().any(TreePath::is_root) {
        return Inputs::Everything;
    }
    paths.sort();
    paths.dedup();
    Inputs::Paths(paths)
}

fn mounts_context(flag: &str) -> bool {
    let options: Vec<&str> = flag.trim_start_matches("--mount=").split(',').collect();
    let kind = options.iter().find_map(|o| o.strip_prefix("type=")).unwrap_or("bind");
    kind == "bind" && !options.iter().any(|o| o.starts_with("from="))
}

/// The sources of a `COPY` or `ADD` that lie in the context; `None` where that can't be told.
fn sources(instruction: &Instruction) -> Option<Vec<TreePath>> {
    if instruction.flags().any(|f| f.starts_with("--from=")) {
        return Some(Vec::new());
    }
    let words: Vec<String> = match instruction.arguments() {
        json if json.starts_with('[') => serde_json::from_str(json).ok()?,
        plain => plain.split_whitespace().map(str::to_owned).collect(),
    };
    let (_target, sources) = words.split_last()?;
    let mut paths = Vec::new();
    for source in sources {
        if source.starts_with("<<") || source.contains("://") || source.starts_with("git@") {
            continue;
        }
        if source.contains(['*', '?', '[', '$', '\\', '"', '\'']) {
            return None;
        }
        // Absolute ones begin at the context too.
        paths.push(source.trim_start_matches('/').parse().ok()?);
    }
    Some(paths)
}

/// The images that `text` stands on, as far as they have a fixed name: each is pulled before the build. `args` are the
/// build's own.
pub fn images(text: &str, args: &BTreeMap<String, String>) -> Vec<String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut stages: Vec<String> = Vec::new();
    let mut images = Vec::new();
    let mut before_first = true;
    for instruction in instructions(text) {
        match instruction.name.as_str() {
            "ARG" if before_first => {
                let (name, value) =
                    instruction.arguments().split_once('=').unwrap_or((instruction.arguments(), ""));
                let value = args.get(name.trim()).cloned().unwrap_or_else(|| unquote(value));
                known.insert(name.trim().to_owned(), value);
            }
            "FROM" => {
                before_first = false;
                let words: Vec<&str> = instruction.arguments().split_whitespace().collect();
                let image = words.first().and_then(|word| substitute(word, &known));
                if let Some(image) = image
                    && image != "scratch"
                    && !stages.contains(&image.to_lowercase())
                    && !images.contains(&image)
                {
                    images.push(image);
                }
                if let [_, r#as, name] = words[..]
                    && r#as.eq_ignore_ascii_case("as")
                {
                    stages.push(name.to_lowercase());
                }
            }
            _ => {}
        }
    }
    images
}

/// The account that the last stage ends as, where it says so.
pub fn user(text: &str) -> Option<String> {
    let mut user = None;
    for instruction in instructions(text) {
        match instruction.name.as_str() {
            "FROM" => user = None,
            "USER" => user = Some(instruction.arguments().to_owned()),
            _ => {}
        }
    }
    user
}

fn unquote(text: &str) -> String {
    text.trim().trim_matches(['"', '\'']).to_owned()
}

/// `$NAME`, `${NAME}` and `${NAME:-default}`; `None` for anything else and for what is not known.
fn substitute(word: &str, known: &BTreeMap<String, String>) -> Option<String> {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let value = if let Some(inner) = rest.strip_prefix('{') {
            let (inner, after) = inner.split_once('}')?;
            rest = after;
            let (name, default) = match inner.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (inner, None),
            };
            known.get(name).filter(|v| !v.is_empty()).map(String::as_str).or(default)?.to_owned()
        } else {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
            let (name, after) = rest.split_at(end);
            rest = after;
            known.get(name)?.clone()
        };
        out.push_str(&value);
    }
    out.push_str(rest);
    (!out.is_empty()).then_some(out)
}

/// One instruction, its continued lines joined, without comments and here-documents.
struct Instruction {
    /// In capitals.
    name: String,
    rest: String,
}

impl Instruction {
    fn flags(&self) -> impl Iterator<Item = &str> {
        self.rest.split_whitespace().take_while(|w| w.starts_with("--"))
    }

    /// What follows the flags.
    fn arguments(&self) -> &str {
        let mut rest = self.rest.trim_start();
        while rest.starts_with("--") {
            rest = rest.split_once(char::is_whitespace).map_or("", |(_, after)| after.trim_start());
        }
        rest.trim()
    }
}

fn instructions(text: &str) -> Vec<Instruction> {
    let escape = if text.lines().take_while(|l| l.trim_start().starts_with('#')).any(|l| {
        let l: String = l.to_ascii_lowercase().split_whitespace().collect();
        l == "#escape=`"
    }) {
        '`'
    } else {
        '\\'
    };
    let mut out = Vec::new();
    let mut lines = text.lines();
    while let Some(first) = lines.next() {
        let is_comment = |line: &str| line.trim_start().starts_with('#');
        if first.trim().is_empty() || is_comment(first) {
            continue;
        }
        let mut whole = String::new();
        let mut line = first;
        loop {
            match line.trim_end().strip_suffix(escape) {
                Some(part) => {
                    whole.push_str(part);
                    whole.push(' ');
                    // Comments and empty lines between the parts don't count.
                    match lines.by_ref().find(|l| !l.trim().is_empty() && !is_comment(l)) {
                        Some(next) => line = next,
                        None => break,
                    }
                }
                None => {
                    whole.push_str(line);
                    break;
                }
            }
        }
        let whole = whole.trim();
        let (name, rest) = whole.split_once(char::is_whitespace).unwrap_or((whole, ""));
        let name = name.to_ascii_uppercase();
        if matches!(name.as_str(), "RUN" | "COPY" | "ADD") {
            for end in here_documents(rest) {
                // What looks like the beginning of one and has no end is something else.
                let is_end = |line: &str| line.trim_start_matches('\t') == end;
                if lines.clone().any(is_end) {
                    lines.by_ref().find(|line| is_end(line));
                }
            }
        }
        out.push(Instruction { name, rest: rest.to_owned() });
    }
    out
}

/// The words that end the here-documents of a line.
fn here_documents(rest: &str) -> Vec<String> {
    let words = rest.split_whitespace().filter_map(|word| {
        let (number, word) = word.split_once("<<")?;
        let word = word.trim_start_matches('-').trim_matches(['"', '\'']);
        let is_name = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        (is_name && number.chars().all(|c| c.is_ascii_digit())).then(|| word.to_owned())
    });
    words.collect()
}

/// A `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore(Vec<(bool, String)>);

impl Ignore {
    pub fn parse(text: &str) -> Self {
        let rule = |line: &str| {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let (excludes, pattern) = match line.strip_prefix('!') {
                Some(pattern) => (false, pattern.trim()),
                None => (true, line),
            };
            let pattern = pattern.trim_start_matches('/');
            (!pattern.is_empty()).then(|| (excludes, pattern.to_owned()))
        };
        Self(text.trim_start_matches('\u{feff}').lines().filter_map(rule).collect())
    }

    /// Whether `path` is left out: the last rule that matches it, or a directory above it, decides.
    pub fn excludes(&self, path: &str) -> bool {
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let names: Vec<&str> = above.chain([path]).collect();
        let last = self.0.iter().rev().find(|(_, pattern)| names.iter().any(|n| glob_matches(pattern, n)));
        last.is_some_and(|(excludes, _)| *excludes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn paths(list: &[&str]) -> Inputs {
        Inputs::Paths(list.iter().map(|p| p.parse().unwrap()).collect())
    }

    #[test]
    fn what_is_copied_is_an_input() {
        for (text, expected) in [
            ("FROM debian\nRUN apt-get update\n", paths(&[])),
            (
                "FROM a\nCOPY package.json package-lock.json ./\n",
                paths(&["package-lock.json", "package.json"]),
            ),
            ("FROM a\nCOPY [\"a b\", \"/x/\"]\n", paths(&["a b"])),
            ("FROM a\ncopy --chown=1:1 --chmod=755 ./bin/run /run\n", paths(&["bin/run"])),
            ("FROM a AS b\nFROM c\nCOPY --from=b /x /x\n", paths(&[])),
            ("FROM a\nCOPY . .\n", Inputs::Everything),
            ("FROM a\nCOPY *.json ./\n", Inputs::Everything),
            ("FROM a\nCOPY $FILE ./\n", Inputs::Everything),
            ("FROM a\nCOPY ../x ./\n", Inputs::Everything),
            ("FROM a\nADD https://example.invalid/x.tar /\n", paths(&[])),
            ("FROM a\nCOPY a \\\n  # a comment\n\n  b \\\n  /c\n", paths(&["a", "b"])),
            ("FROM a\nCOPY <<EOF /etc/x\nCOPY . .\nEOF\nCOPY y /\n", paths(&["y"])),
            ("FROM a\nRUN echo $((1<<n)) <<none\nCOPY z /\n", paths(&["z"])),
            ("FROM a\nRUN <<-'END' cat\n\tCOPY . .\n\tEND\n", paths(&[])),
            ("FROM a\nRUN --mount=type=cache,target=/c make\n", paths(&[])),
            ("FROM a\nRUN --mount=target=/src make\n", Inputs::Everything),
            ("FROM a\nRUN --mount=type=bind,from=b,target=/src make\n", paths(&[])),
            ("# escape=`\nFROM a\nCOPY a `\n b /c\n", paths(&["a", "b"])),
            ("", paths(&[])),
        ] {
            assert_eq!(inputs(text), expected, "{text}");
        }
    }

    #[test]
    fn what_it_stands_on() {
        let args = BTreeMap::from([("TAG".to_owned(), "12".to_owned())]);
        let text = "ARG TAG=11\nARG NAME=\"debian\"\nFROM $NAME:${TAG} AS Base\nFROM scratch\nFROM base AS x\n\
                    FROM --platform=linux/amd64 ${OTHER:-alpine}\nFROM ${UNKNOWN}\nFROM debian:12\n";
        assert_eq!(images(text, &args), ["debian:12", "alpine"]);
        assert_eq!(images(text, &BTreeMap::new())[0], "debian:11");
        assert_eq!(user("FROM a\nUSER node\nFROM b\nUSER app:staff\n"), Some("app:staff".into()));
        assert_eq!(user("FROM a\nUSER node\nFROM b\n"), None);
    }

    #[test]
    fn ignore_files() {
        let ignore = Ignore::parse("# no\n/node_modules\n**/*.log\ndocs\n!docs/README.md\n\n  target/ \n");
        for (path, excluded) in [
            ("node_modules", true),
            ("node_modules/a/b.js", true),
            ("web/node_modules/a", false),
            ("a/b.log", true),
            ("docs/a.md", true),
            ("docs/README.md", false),
            ("target/x", true),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.excludes(path), excluded, "{path}");
        }
        assert!(!Ignore::default().excludes("x"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(FROM|COPY|ADD|RUN|ARG|USER|--mount=|<<|\\\\|\\$|\\{|\n| |[a-z./*\\[\\]\"'-]|\\PC){0,60}") {
            inputs(&text);
            images(&text, &BTreeMap::new());
            user(&text);
            Ignore::parse(&text).excludes(&text);
        }
    }
}
