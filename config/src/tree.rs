//! YAML text to a tree of nodes that know where they stand. Promises: bounded work and memory for any input, every
//! duplicate key found, exact spans. Knows nothing of what the keys mean.
//!
//! The tree is built from the events of `granit-parser` (the parser beneath serde-saphyr): a serde front end stops
//! at the first error and hides spans and scalar styles, and one error at a time is not enough here.

use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle};

use crate::error::{Problem, Source};

/// Nodes in a file, aliases expanded. A configuration of 500 repos has about 15,000.
pub const MAX_NODES: usize = 50_000;
/// How deep lists and mappings may nest; the deepest real key is at 7.
pub const MAX_DEPTH: usize = 32;

/// One value of the file.
#[derive(Debug, Clone)]
pub struct Node {
    /// Names the node within its tree, for repairs.
    pub id: usize,
    /// `repos[0].pool.min`; empty for the root.
    pub path: String,
    /// Bytes of the text.
    pub span: Range<usize>,
    /// Bytes of its key, where it has one.
    pub key_span: Option<Range<usize>>,
    pub value: Value,
}

#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    /// A plain scalar that reads as a number, and its text as written.
    Int(i64, String),
    Float(f64, String),
    Text(String),
    List(Vec<Node>),
    Map(Map),
}

#[derive(Debug, Clone, Default)]
pub struct Map {
    pub entries: Vec<Entry>,
    /// Keys that a repair took out: they were there, so they are not missing.
    pub removed: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub key: String,
    pub node: Node,
}

impl Node {
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(map) => map.entries.iter().find(|e| e.key == key).map(|e| &e.node),
            _ => None,
        }
    }

    /// What it is, for people: "the number 5", "a list".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Null => "nothing".into(),
            Value::Bool(b) => format!("the boolean `{b}`"),
            Value::Int(_, s) | Value::Float(_, s) => format!("the number `{s}`"),
            Value::Text(s) => format!("the text `{}`", crate::error::clip(s)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
        }
    }

    pub fn children(&self) -> Box<dyn Iterator<Item = &Node> + '_> {
        match &self.value {
            Value::List(items) => Box::new(items.iter()),
            Value::Map(map) => Box::new(map.entries.iter().map(|e| &e.node)),
            _ => Box::new(std::iter::empty()),
        }
    }

    /// The node of a path such as `repos[0].pool.min`.
    pub fn find(&self, path: &str) -> Option<&Node> {
        if self.path == path {
            return Some(self);
        }
        // A path begins with those of its ancestors, so only one branch is walked.
        self.children().filter(|n| path.starts_with(&n.path)).find_map(|n| n.find(path))
    }

    /// Takes a node out of the tree; with `remember`, its mapping knows that the key was there. False when `id` is
    /// the root.
    pub fn remove(&mut self, id: usize, remember: bool) -> bool {
        match &mut self.value {
            Value::List(items) => {
                if let Some(at) = items.iter().position(|n| n.id == id) {
                    items.remove(at);
                    return true;
                }
                items.iter_mut().any(|n| n.remove(id, remember))
            }
            Value::Map(map) => {
                if let Some(at) = map.entries.iter().position(|e| e.node.id == id) {
                    let entry = map.entries.remove(at);
                    if remember {
                        map.removed.push(entry.key);
                    }
                    return true;
                }
                map.entries.iter_mut().any(|e| e.node.remove(id, remember))
            }
            _ => false,
        }
    }

    /// Whether a key that has a meaning was taken out here or below: what depends on several keys can't be judged.
    pub fn is_repaired(&self) -> bool {
        self.lost("") || self.children().any(Node::is_repaired)
    }

    /// Whether `key` was taken out of this mapping (any key, when it is empty).
    pub fn lost(&self, key: &str) -> bool {
        matches!(&self.value, Value::Map(m) if m.removed.iter().any(|k| key.is_empty() || k == key))
    }
}

/// Lays `over` on `under`: mappings merge key by key, anything else replaces. Mappings that choose one of several
/// forms (`base`, `network`) replace as a whole, since two choices merged would be none.
pub fn merge(under: &Node, over: &Node) -> Node {
    let (Value::Map(low), Value::Map(high)) = (&under.value, &over.value) else { return over.clone() };
    let mut entries = high.entries.clone();
    for entry in &low.entries {
        match entries.iter_mut().find(|e| e.key == entry.key) {
            // A secret is found in one place: the upper one, by its name.
            Some(mine) if entry.key == "secrets" => mine.node = union(&entry.node, &mine.node),
            Some(mine) if !matches!(entry.key.as_str(), "base" | "network") => {
                mine.node = merge(&entry.node, &mine.node);
            }
            Some(_) => {}
            None => entries.push(entry.clone()),
        }
    }
    Node { value: Value::Map(Map { entries, removed: high.removed.clone() }), ..over.clone() }
}

/// As [`merge`], one level deep.
fn union(under: &Node, over: &Node) -> Node {
    let (Value::Map(low), Value::Map(high)) = (&under.value, &over.value) else { return over.clone() };
    let mut entries = high.entries.clone();
    entries.extend(low.entries.iter().filter(|e| !high.entries.iter().any(|o| o.key == e.key)).cloned());
    Node { value: Value::Map(Map { entries, removed: high.removed.clone() }), ..over.clone() }
}

/// Nodes in a file that anybody may have written.
const MAX_UNTRUSTED_NODES: usize = 20_000;

/// Reads the one document of a text. All duplicate keys are reported; a syntax error ends the reading.
pub fn read(source: &Source) -> Result<Node, Vec<Problem>> {
    read_within(source, MAX_NODES, true)
}

/// As [`read`], of a file that anybody may have written: with fewer nodes, and without aliases.
pub fn read_untrusted(source: &Source) -> Result<Node, Vec<Problem>> {
    read_within(source, MAX_UNTRUSTED_NODES, false)
}

fn read_within(source: &Source, max_nodes: usize, aliases: bool) -> Result<Node, Vec<Problem>> {
    let mut reader = Reader {
        source,
        parser: Parser::new_from_str(&source.text),
        anchors: HashMap::new(),
        count: 0,
        max_nodes,
        aliases,
        problems: Vec::new(),
    };
    match reader.document() {
        Ok(root) if reader.problems.is_empty() => Ok(root),
        Ok(_) => Err(reader.problems),
        Err(problem) => {
            reader.problems.push(*problem);
            Err(reader.problems)
        }
    }
}

/// A problem that ends the reading.
type Fatal = Box<Problem>;

struct Reader<'a> {
    source: &'a Source,
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    /// Finished anchored nodes, and how many nodes each is.
    anchors: HashMap<usize, (Node, usize)>,
    count: usize,
    max_nodes: usize,
    aliases: bool,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Range<usize>), Fatal> {
        loop {
            match self.parser.next_event() {
                None => return Ok((Event::StreamEnd, self.source.text.len()..self.source.text.len())),
                Some(Err(e)) => return Err(self.syntax(&e)),
                Some(Ok((event, span))) => {
                    let end = self.source.text.len();
                    let from = span.start.byte_offset().unwrap_or(end).min(end);
                    let to = span.end.byte_offset().unwrap_or(from).clamp(from, end);
                    match event {
                        Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                        event => return Ok((event, from..to)),
                    }
                }
            }
        }
    }

    fn syntax(&self, error: &granit_parser::ScanError) -> Fatal {
        let end = self.source.text.len();
        let at = error.marker().byte_offset().unwrap_or(end).min(end);
        let line = self.source.line_of(at);
        let indent: &str = {
            let text = self.source.line(line);
            &text[..text.len() - text.trim_start().len()]
        };
        if let Some(tab) = indent.find('\t') {
            let at = self.source.start_of(line) + tab;
            return Box::new(
                Problem::new("a tab is used for indentation")
                    .at(at..at + 1)
                    .expected("blanks: YAML does not indent with tabs")
                    .help("replace each tab by two blanks"),
            );
        }
        let text = match error.kind() {
            ErrorKind::UnknownAnchor => {
                "`*` begins an alias, and no anchor of that name was defined before".to_owned()
            }
            ErrorKind::RecursionLimitExceeded => return Box::new(too_deep(at..at)),
            _ => error.info(),
        };
        let mut problem = Problem::new(format!("this is not YAML: {text}")).at(at..at);
        let line = self.source.line(line);
        if text.contains("quoted") {
            problem = problem.help("is a quotation mark before this place not closed?");
        } else if line.contains(": */") || line.contains(": * ") {
            problem = problem.help("a value that begins with `*` must be in quotes: \"*/30 * * * *\"");
        }
        Box::new(problem)
    }

    fn document(&mut self) -> Result<Node, Fatal> {
        let (event, span) = self.next()?;
        if matches!(event, Event::StreamEnd) {
            return Err(Box::new(
                Problem::new("the file is empty")
                    .at(0..0)
                    .expected("at least `repos`, a list of repositories"),
            ));
        }
        let root = self.node(event, span, String::new(), None, 0)?;
        match self.next()? {
            (Event::StreamEnd, _) => Ok(root),
            (_, span) => Err(Box::new(
                Problem::new("a second document begins here").at(span).expected("one document in the file"),
            )),
        }
    }

    fn id(&mut self, span: &Range<usize>) -> Result<usize, Fatal> {
        self.count += 1;
        let most = self.max_nodes;
        if self.count > most {
            return Err(Box::new(
                Problem::new(format!("the file holds more than {most} values"))
                    .at(span.clone())
                    .expected(format!("at most {most}, with aliases expanded")),
            ));
        }
        Ok(self.count)
    }

    fn node(
        &mut self,
        event: Event<'a>,
        span: Range<usize>,
        path: String,
        key_span: Option<Range<usize>>,
        depth: usize,
    ) -> Result<Node, Fatal> {
        if depth > MAX_DEPTH {
            return Err(Box::new(too_deep(span)));
        }
        let before = self.count;
        let id = self.id(&span)?;
        let (value, anchor, span) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &path, &span);
                let value = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Value::Text(text.into_owned()),
                };
                (value, anchor, span)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &path, &span);
                let mut items = Vec::new();
                loop {
                    let (event, at) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break (Value::List(items), anchor, span.start..at.end.max(span.start));
                    }
                    let path = format!("{path}[{}]", items.len());
                    items.push(self.node(event, at, path, None, depth + 1)?);
                }
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.is_some(), &path, &span);
                let mut map = Map::default();
                let mut seen: HashMap<String, Range<usize>> = HashMap::new();
                loop {
                    let (event, key_at) = self.next()?;
                    let key = match event {
                        Event::MappingEnd => {
                            break (Value::Map(map), anchor, span.start..key_at.end.max(span.start));
                        }
                        Event::Scalar(text, ..) => text.into_owned(),
                        _ => {
                            return Err(Box::new(
                                Problem::new("a key must be a plain word").path(path).at(key_at),
                            ));
                        }
                    };
                    let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    let (event, at) = self.next()?;
                    let node = self.node(event, at, child.clone(), Some(key_at.clone()), depth + 1)?;
                    if let Some(first) = seen.get(&key) {
                        let line = self.source.line_of(first.start);
                        self.problems.push(
                            Problem::new(format!("`{}` is given twice", crate::error::clip(&key)))
                                .path(child)
                                .at(key_at)
                                .expected(format!("each key once; the first one is on line {line}")),
                        );
                    } else {
                        seen.insert(key.clone(), key_at);
                        map.entries.push(Entry { key, node });
                    }
                }
            }
            Event::Alias(_) if !self.aliases => {
                return Err(Box::new(
                    Problem::new("aliases are not used here")
                        .path(path)
                        .at(span)
                        .expected("the value itself; a text that begins with `*` must be in quotes"),
                ));
            }
            Event::Alias(anchor) => {
                let Some((target, size)) = self.anchors.get(&anchor) else {
                    return Err(Box::new(
                        Problem::new("this alias stands inside what it names").path(path).at(span),
                    ));
                };
                let (target, size) = (target.clone(), *size);
                // Checked before the copy is made: nested aliases multiply.
                if self.count + size > self.max_nodes {
                    self.count = self.max_nodes;
                    self.id(&span)?;
                }
                let mut copy = self.copy(&target, &path, depth)?;
                copy.key_span = key_span;
                return Ok(copy);
            }
            _ => {
                return Err(Box::new(
                    Problem::new("this is not YAML: a value was expected").path(path).at(span),
                ));
            }
        };
        let span = trim(&self.source.text, span);
        let node = Node { id, path, span, key_span, value };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.count - before));
        }
        Ok(node)
    }

    /// A copy of an anchored node for another place: its own ids and path; the spans stay where the text is.
    fn copy(&mut self, node: &Node, path: &str, depth: usize) -> Result<Node, Fatal> {
        if depth > MAX_DEPTH {
            return Err(Box::new(too_deep(node.span.clone()).path(path)));
        }
        let id = self.id(&node.span)?;
        let value = match &node.value {
            Value::List(items) => {
                let mut out = Vec::with_capacity(items.len());
                for (i, item) in items.iter().enumerate() {
                    out.push(self.copy(item, &format!("{path}[{i}]"), depth + 1)?);
                }
                Value::List(out)
            }
            Value::Map(map) => {
                let mut out = Map::default();
                for Entry { key, node } in &map.entries {
                    let child = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    out.entries.push(Entry { key: key.clone(), node: self.copy(node, &child, depth + 1)? });
                }
                Value::Map(out)
            }
            other => other.clone(),
        };
        Ok(Node { id, path: path.to_owned(), value, ..node.clone() })
    }

    fn refuse_tag(&mut self, tagged: bool, path: &str, span: &Range<usize>) {
        if tagged {
            self.problems.push(
                Problem::new("a tag (`!…`) stands before this value")
                    .path(path)
                    .at(span.clone())
                    .expected("a value without a tag; a text that begins with `!` must be in quotes"),
            );
        }
    }
}

fn too_deep(span: Range<usize>) -> Problem {
    Problem::new(format!("values are nested deeper than {MAX_DEPTH} levels"))
        .at(span)
        .expected(format!("at most {MAX_DEPTH} levels"))
}

/// The end of a block collection is where the next thing begins; only what is written counts.
fn trim(text: &str, span: Range<usize>) -> Range<usize> {
    let Some(slice) = text.get(span.clone()) else { return span };
    span.start..span.start + slice.trim_end().len()
}

/// A plain scalar by YAML 1.2's core schema: `yes`, `on` and `12:30` are texts.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        || !unsigned.contains(|c: char| c.is_ascii_digit())
        || !unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return Value::Text(text.to_owned());
    }
    if let Ok(n) = text.parse::<i64>() {
        return Value::Int(n, text.to_owned());
    }
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Value::Float(n, text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        read(&Source::new("t.yaml", text)).map_err(|p| format!("{p:?}")).unwrap()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let root = tree("[1, -2, 0.5, yes, \"1\", 08:00, ~, true, 1.2.3, 1e3, .5, 99999999999999999999]");
        let kinds: Vec<String> = root.children().map(Node::describe).collect();
        assert_eq!(
            kinds,
            [
                "the number `1`",
                "the number `-2`",
                "the number `0.5`",
                "the text `yes`",
                "the text `1`",
                "the text `08:00`",
                "nothing",
                "the boolean `true`",
                "the text `1.2.3`",
                "the number `1e3`",
                "the number `.5`",
                "the number `99999999999999999999`",
            ]
        );
    }

    #[test]
    fn paths_and_spans() {
        let text = "a:\n  - b: &x { c: 1 }\n  - b: *x\n";
        let root = tree(text);
        let c = root.find("a[1].b.c").unwrap();
        assert_eq!(&text[c.span.clone()], "1");
        assert_eq!(&text[root.find("a[0].b").unwrap().key_span.clone().unwrap()], "b");
        assert_ne!(c.id, root.find("a[0].b.c").unwrap().id);
        assert!(root.find("a[2]").is_none());
    }

    #[test]
    fn an_alias_bomb_is_refused_before_it_grows() {
        let mut text = "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n".to_owned();
        for i in 1..12 {
            let p = i - 1;
            text += &format!("a{i}: &a{i} [*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p},*a{p}]\n");
        }
        let problems = read(&Source::new("t.yaml", &text)).unwrap_err();
        assert!(problems[0].message.contains("more than 50000 values"), "{problems:?}");
        assert!(read(&Source::new("t.yaml", "a: &a [*a]\n")).is_err());
    }

    #[test]
    fn merge_keeps_the_upper_and_fills_from_the_lower() {
        let root = tree(
            "low: {a: 1, b: {x: 1, y: 2}, network: {use: n}}\nhigh: {b: {x: 9}, network: {egress: []}}\n",
        );
        let merged = merge(root.get("low").unwrap(), root.get("high").unwrap());
        let at = |k: &str| merged.get("b").unwrap().get(k).map(Node::describe);
        assert_eq!(at("x").as_deref(), Some("the number `9`"));
        assert_eq!(at("y").as_deref(), Some("the number `2`"));
        assert!(merged.get("a").is_some());
        assert!(merged.get("network").unwrap().get("use").is_none());
    }
}
