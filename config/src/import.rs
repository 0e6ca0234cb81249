//! Environment files of other tools, reduced to a recipe: `devcontainer.json`, `.cursor/environment.json`,
//! `.gitpod.yml`. What they say and Hotbed can't do is named, each with its line, and never dropped in silence.
//!
//! The files come from a repository, so they are read under the budget of [`tree::read_untrusted`]. JSON with comments
//! is read as YAML, of which it is a part once its comments are blanks.

mod cursor;
mod devcontainer;
mod gitpod;

use std::collections::BTreeMap;

use domain::{Base, Command, Dockerfile, ImportKind, Imported, RecipePart, TreePath};

use crate::de::{Reason, place_of};
use crate::error::{ConfigErrors, Problem, Source, clip};
use crate::recipe_file::MAX_REPOSITORY_FILE;
use crate::tree::{self, Entry, Node, Value};
use crate::values::{EnvName, ImageReference, parse};

/// Reads the file `path` of a repository whose tree will lie at `workspace`.
pub fn import(
    kind: ImportKind,
    path: &TreePath,
    bytes: &[u8],
    workspace: &str,
) -> Result<Imported, ConfigErrors> {
    let source = Source::untrusted(bytes, path.as_str(), MAX_REPOSITORY_FILE)?;
    let source = match kind {
        ImportKind::Gitpod => source,
        ImportKind::Devcontainer | ImportKind::Cursor => {
            Source::new(path.as_str(), &without_comments(&source.text))
        }
    };
    let root = tree::read_untrusted(&source).map_err(|problems| ConfigErrors::new(&source, problems))?;
    let mut walk = Walk {
        source: &source,
        dir: path.parent(),
        workspace,
        out: RecipePart::default(),
        problems: Vec::new(),
        unsupported: Vec::new(),
    };
    match kind {
        ImportKind::Devcontainer => devcontainer::read(&mut walk, &root),
        ImportKind::Cursor => cursor::read(&mut walk, &root),
        ImportKind::Gitpod => gitpod::read(&mut walk, &root),
    }
    if walk.out.base.is_none() && walk.problems.is_empty() {
        walk.problems.push(
            Problem::new("it names no image and no Dockerfile to start from")
                .at(place_of(&root))
                .expected(match kind {
                    ImportKind::Devcontainer => "`image`, or `build` with a `dockerfile`",
                    ImportKind::Cursor => "`build` with a `dockerfile`",
                    ImportKind::Gitpod => "`image`",
                })
                .help("or choose another `base`, and write down what else is in it"),
        );
    }
    let Walk { out, problems, unsupported, .. } = walk;
    if problems.is_empty() {
        Ok(Imported { part: out, unsupported })
    } else {
        Err(ConfigErrors::new(&source, problems))
    }
}

/// What is being read, and what came of it.
struct Walk<'a> {
    source: &'a Source,
    /// Where the file lies.
    dir: TreePath,
    workspace: &'a str,
    out: RecipePart,
    problems: Vec<Problem>,
    unsupported: Vec<String>,
}

impl Walk<'_> {
    /// The entries of the file; a problem where it is no mapping.
    fn entries<'n>(&mut self, node: &'n Node) -> &'n [Entry] {
        match &node.value {
            Value::Map(map) => &map.entries,
            _ => {
                self.wrong(node, "a mapping");
                &[]
            }
        }
    }

    fn wrong(&mut self, node: &Node, expected: &str) {
        let problem = Problem::new(format!("expected {expected}, found {}", node.describe()))
            .path(&node.path)
            .at(place_of(node))
            .expected(expected);
        self.problems.push(problem);
    }

    fn refuse(&mut self, node: &Node, reason: Reason) {
        let mut problem = Problem::new(reason.message).path(&node.path).at(place_of(node));
        problem.expected = Some(reason.expected).filter(|e| !e.is_empty());
        problem.help = Some(reason.help).filter(|h| !h.is_empty());
        self.problems.push(problem);
    }

    /// Names what can't be honoured, with its line.
    fn cannot(&mut self, node: &Node, why: &str) {
        let at = node.key_span.as_ref().unwrap_or(&node.span).start;
        let path: String = node.path.chars().filter(|c| !c.is_control()).take(80).collect();
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.unsupported.push(format!("`{path}` (line {}){why}", self.source.line_of(at)));
    }

    fn text<'n>(&mut self, node: &'n Node) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong(node, "a text");
                None
            }
        }
    }

    /// A text, or a number as it is written.
    fn scalar(&mut self, node: &Node) -> Option<String> {
        match &node.value {
            Value::Text(text) | Value::Int(_, text) | Value::Float(_, text) => Some(text.clone()),
            Value::Bool(b) => Some(b.to_string()),
            _ => {
                self.wrong(node, "a text");
                None
            }
        }
    }

    /// A path relative to `dir`.
    fn path(&mut self, node: &Node, dir: &TreePath) -> Option<TreePath> {
        let text = self.text(node)?;
        match dir.join(text) {
            Ok(path) => Some(path),
            Err(e) => {
                self.refuse(
                    node,
                    Reason::new(format!("`{}` is not {}", clip(&e.value), e.what)).help(e.expected),
                );
                None
            }
        }
    }

    fn image(&mut self, node: &Node) {
        let Some(text) = self.text(node) else { return };
        match parse::<ImageReference>(text) {
            Ok(image) => self.out.base = Some(Base::Reference(image.0)),
            Err(reason) => self.refuse(node, reason),
        }
    }

    fn dockerfile(&mut self, path: Option<TreePath>, context: Option<TreePath>) {
        let Some(path) = path else { return };
        let context = context.unwrap_or_else(|| path.parent());
        let dockerfile = Dockerfile { path, context, target: None, args: BTreeMap::new() };
        self.out.base = Some(Base::Dockerfile(dockerfile));
    }

    /// A shell command; one that is empty is none.
    fn command(&mut self, node: &Node) -> Option<Command> {
        let run = self.text(node)?.trim();
        if run.contains('\0') {
            self.wrong(node, "a shell command without a NUL");
            return None;
        }
        (!run.is_empty()).then(|| Command::new(run))
    }

    /// Environment, with `value` making of each what is to be set.
    fn env(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        for Entry { key, node } in self.entries(node) {
            if matches!(node.value, Value::Null) {
                self.cannot(node, "a variable can't be unset");
                continue;
            }
            let Some(value) = self.scalar(node) else { continue };
            let Some(value) = self.substituted(node, &value) else { continue };
            match parse::<EnvName>(key) {
                Ok(name) => {
                    env.insert(name.0, value);
                }
                Err(reason) => self.refuse(node, reason),
            }
        }
        env
    }

    /// The variables that devcontainers know, as far as they have a meaning here.
    fn substituted(&mut self, node: &Node, text: &str) -> Option<String> {
        let name = self.workspace.rsplit('/').next().unwrap_or_default();
        let text = text
            .replace("${containerWorkspaceFolder}", self.workspace)
            .replace("${containerWorkspaceFolderBasename}", name)
            .replace("${localWorkspaceFolderBasename}", name);
        if text.contains("${localEnv:")
            || text.contains("${env:")
            || text.contains("${localWorkspaceFolder}")
            || text.contains("${containerEnv:")
            || text.contains("${devcontainerId}")
        {
            self.cannot(node, "it stands on a variable that a build does not have");
            return None;
        }
        Some(text)
    }
}

/// A word of a shell line that means what it says.
fn quoted(word: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | '@' | '%' | '+' | ',')
    };
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// JSON with comments as YAML takes it: comments and tabs between tokens become blanks, so that every place stays
/// where it was; pairs of `\u` escapes, which YAML does not know, become what they mean.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    let mut in_text = false;
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                in_text = !in_text;
                out.push(c);
            }
            '\\' if in_text => {
                out.push(c);
                if let Some(next) = rest.next() {
                    out.push(next);
                    if next == 'u' {
                        join_surrogates(&mut out, &mut rest);
                    }
                }
            }
            '\t' if !in_text => out.push(' '),
            '/' if !in_text && rest.peek() == Some(&'/') => {
                out.push(' ');
                while let Some(c) = rest.next_if(|c| *c != '\n') {
                    out.extend(std::iter::repeat_n(' ', c.len_utf8()));
                }
            }
            '/' if !in_text && rest.peek() == Some(&'*') => {
                out.push(' ');
                let mut before = ' ';
                for c in rest.by_ref() {
                    out.push(if c == '\n' { '\n' } else { ' ' });
                    if before == '*' && c == '/' {
                        break;
                    }
                    before = c;
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// After `\u`: where two escapes are the halves of one character, that character.
fn join_surrogates(out: &mut String, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let all: String = rest.clone().take(10).collect();
    let unit = |text: Option<&str>| text.and_then(|t| u16::from_str_radix(t, 16).ok());
    let (Some(high), Some("\\u"), Some(low)) = (unit(all.get(..4)), all.get(4..6), unit(all.get(6..10)))
    else {
        return;
    };
    if let Some(Ok(c)) = char::decode_utf16([high, low]).next()
        && u32::from(c) > 0xffff
    {
        out.truncate(out.len() - 2);
        out.push(c);
        rest.nth(9);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_become_blanks_and_texts_stay() {
        let text = "{\n\t// one\n\t\"a\": \"// no\", /* two\n three */ \"b\": \"\\\"/*\",\n}";
        let clean = without_comments(text);
        assert_eq!(clean, "{\n       \n \"a\": \"// no\",       \n          \"b\": \"\\\"/*\",\n}");
        assert_eq!(clean.len(), text.len());
        assert_eq!(without_comments("\"\\ud83d\\ude00\\u00e4\""), "\"😀\\u00e4\"");
        assert_eq!(without_comments("\"\\ud83d\""), "\"\\ud83d\"");
        assert_eq!(without_comments("/* open"), "       ");
    }

    #[test]
    fn words_are_quoted_where_they_need_it() {
        assert_eq!(quoted("npm"), "npm");
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }
}
