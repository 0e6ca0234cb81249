//! Reads typed sections from a [`Node`] tree with serde, and keeps going after an error: what is wrong is reported,
//! taken out of the tree, and the rest is read again. So one run names everything that is wrong, with plain derived
//! types. It ends, because each round removes a node.

use std::fmt::{self, Display};
use std::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer,
    MapAccess, SeqAccess, VariantAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::{MAX_PROBLEMS, Problem, clip, nearest};
use crate::tree::{Entry, Node, Value};

/// Why a value was refused. It travels through `serde::de::Error::custom` as lines, since serde carries only text.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reason {
    pub message: String,
    pub expected: String,
    pub help: String,
    /// The value may be a secret and must not be shown.
    pub sensitive: bool,
}

impl Reason {
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = expected.into();
        self
    }
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }
    pub fn sensitive(mut self) -> Self {
        self.sensitive = true;
        self
    }
}

impl Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |s: &str| s.replace('\n', " ");
        let flag = if self.sensitive { "sensitive" } else { "" };
        write!(f, "{}\n{}\n{}\n{flag}", line(&self.message), line(&self.expected), line(&self.help))
    }
}

#[derive(Debug)]
enum Kind {
    Value,
    Missing(&'static str),
    UnknownKey(&'static [&'static str]),
    /// Follows from a repair; the error behind it has been reported.
    Echo,
}

/// An error of one place in the tree.
#[derive(Debug)]
pub(crate) struct Fault(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    reason: Reason,
    /// The node to take out, where it is known.
    node: Option<usize>,
    path: String,
    value: Option<String>,
    span: Range<usize>,
    /// The whole value.
    whole: Range<usize>,
}

impl Fault {
    fn new(kind: Kind, reason: Reason) -> Self {
        Self(Box::new(Inner {
            kind,
            reason,
            node: None,
            path: String::new(),
            value: None,
            span: 0..0,
            whole: 0..0,
        }))
    }

    /// The innermost node that an error passes is the one it is about.
    fn at(mut self, node: &Node) -> Self {
        if self.0.node.is_none() {
            self.0.node = Some(node.id);
            self.0.path = node.path.clone();
            self.0.span = place_of(node);
            self.0.whole = node.span.clone();
            self.0.value = match &node.value {
                Value::Text(s) | Value::Int(_, s) | Value::Float(_, s) => Some(clip(s)),
                Value::Bool(b) => Some(b.to_string()),
                _ => None,
            };
        }
        self
    }

    fn at_key(mut self, entry: &Entry) -> Self {
        if self.0.node.is_none() {
            self.0.node = Some(entry.node.id);
            self.0.path = entry.node.path.clone();
            self.0.span = entry.node.key_span.clone().unwrap_or(entry.node.span.clone());
            self.0.value = Some(clip(&entry.key));
        }
        self
    }

    fn into_problem(self) -> Problem {
        let Inner { reason, path, value, span, whole, .. } = *self.0;
        let some = |s: String| Some(s).filter(|s| !s.is_empty());
        let mut problem = Problem::new(reason.message).path(path).at(span);
        problem.expected = some(reason.expected);
        problem.help = some(reason.help);
        problem.secret = reason.sensitive.then_some(whole);
        problem.value = value.filter(|_| !reason.sensitive);
        problem
    }
}

/// What to underline: a collection over several lines is named by its key.
pub(crate) fn place_of(node: &Node) -> Range<usize> {
    match (&node.value, &node.key_span) {
        (Value::List(_) | Value::Map(_) | Value::Null, Some(key)) => key.clone(),
        _ => node.span.clone(),
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.reason.message)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(text: T) -> Self {
        let text = text.to_string();
        let mut lines = text.split('\n');
        let mut line = || lines.next().unwrap_or("").to_owned();
        let (message, expected, help, flag) = (line(), line(), line(), line());
        Self::new(Kind::Value, Reason { message, expected, help, sensitive: flag == "sensitive" })
    }

    fn invalid_type(found: de::Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        use de::Unexpected as U;
        let found = match found {
            U::Bool(b) => format!("the boolean `{b}`"),
            U::Signed(n) => format!("the number `{n}`"),
            U::Float(n) => format!("the number `{n}`"),
            U::Str(s) => format!("the text `{}`", clip(s)),
            U::Seq => "a list".into(),
            U::Map => "a mapping".into(),
            other => other.to_string(),
        };
        let mut reason =
            Reason::new(format!("expected {expected}, found {found}")).expected(expected.to_string());
        if found == "a mapping" && reason.expected.contains("list") {
            reason = reason.help("write it as `[ { … } ]`");
        }
        Self::custom(reason)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut reason = Reason::new(format!("unknown key `{}`", clip(field))).expected(one_of(expected));
        if field == "<<" {
            reason = reason.help("merge keys are not used here; what repos share goes into `defaults`");
        } else if let Some(near) = nearest(field, expected.iter().copied()) {
            reason = reason.help(format!("did you mean `{near}`?"));
        }
        Self::new(Kind::UnknownKey(expected), reason)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut reason =
            Reason::new(format!("`{}` is not known here", clip(variant))).expected(one_of(expected));
        if let Some(near) = nearest(variant, expected.iter().copied()) {
            reason = reason.help(format!("did you mean `{near}`?"));
        }
        Self::new(Kind::Value, reason)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(Kind::Missing(field), Reason::new(format!("`{field}` is missing")))
    }
}

fn one_of(words: &[&str]) -> String {
    let list: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match list.as_slice() {
        [one] => one.clone(),
        _ => format!("one of {}", list.join(", ")),
    }
}

/// Reads `root` as `T`. Every problem is added to `problems` and taken out of `root`; `None` when nothing is left
/// that could be a `T`.
pub(crate) fn decode<T: DeserializeOwned>(root: &mut Node, problems: &mut Vec<Problem>) -> Option<T> {
    loop {
        let fault = match T::deserialize(NodeDe(root)) {
            Ok(value) => return Some(value),
            Err(fault) => fault,
        };
        let id = fault.0.node;
        let known = match (&fault.0.kind, id) {
            (Kind::Missing(key), Some(id)) => was_removed(root, id, key),
            (Kind::Echo, _) => true,
            _ => false,
        };
        let remember = !matches!(fault.0.kind, Kind::UnknownKey(_));
        if !known {
            problems.push(fault.into_problem());
        }
        if problems.len() > MAX_PROBLEMS || !id.is_some_and(|id| root.remove(id, remember)) {
            return None;
        }
    }
}

/// Whether the mapping `id` had `key` until a repair took it out.
fn was_removed(node: &Node, id: usize, key: &str) -> bool {
    if node.id == id {
        return node.lost(key);
    }
    node.children().any(|n| was_removed(n, id, key))
}

/// The keys of a section in the order of its type.
pub(crate) fn keys_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let node = |value| Node { id: 0, path: String::new(), span: 0..0, key_span: None, value };
    let mut map = crate::tree::Map::default();
    map.entries.push(Entry { key: "\u{0}".into(), node: node(Value::Null) });
    match T::deserialize(NodeDe(&node(Value::Map(map)))).map_err(|f| f.0.kind) {
        Err(Kind::UnknownKey(keys)) => keys,
        _ => &[],
    }
}

struct NodeDe<'a>(&'a Node);

impl<'a> NodeDe<'a> {
    fn wrong(&self, expected: &str) -> Fault {
        let node = self.0;
        if matches!(node.value, Value::Null) {
            return self.nothing(expected);
        }
        let mut reason =
            Reason::new(format!("expected {expected}, found {}", node.describe())).expected(expected);
        match &node.value {
            Value::Int(_, s) | Value::Float(_, s) if expected.starts_with("a text") => {
                reason = reason.help(format!("put it in quotes: \"{s}\""));
            }
            Value::Bool(b) if expected.starts_with("a text") => {
                reason = reason.help(format!("put it in quotes: \"{b}\""));
            }
            Value::Text(s) if expected.contains("number") && s.parse::<f64>().is_ok() => {
                reason = reason.help("remove the quotes");
            }
            Value::Text(_) if expected.starts_with("a list") => reason = reason.help("write it as `[ … ]`"),
            _ => {}
        }
        Fault::new(Kind::Value, reason).at(node)
    }

    fn nothing(&self, expected: &str) -> Fault {
        let key = self.0.path.rsplit('.').next().unwrap_or_default();
        let what = if key.is_empty() { "the file".to_owned() } else { format!("`{key}`") };
        Fault::new(
            Kind::Value,
            Reason::new(format!("{what} has no value"))
                .expected(expected)
                .help("give it a value, or remove the key"),
        )
        .at(self.0)
    }

    fn integer(&self, most: i64) -> Result<i64, Fault> {
        match self.0.value {
            Value::Int(n, _) if (0..=most).contains(&n) => Ok(n),
            Value::Int(n, _) if n > most => Err(self.wrong(&format!("a whole number, at most {most}"))),
            _ => Err(self.wrong("a whole number, not less than 0")),
        }
    }
}

impl<'de> Deserializer<'de> for NodeDe<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let node = self.0;
        match &node.value {
            Value::Null => Err(self.nothing("a value")),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(n, _) => visitor.visit_i64(*n),
            Value::Float(n, _) => visitor.visit_f64(*n),
            Value::Text(s) => visitor.visit_str(s),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(map) => visitor.visit_map(Entries { rest: map.entries.iter(), current: None }),
        }
        .map_err(|e| e.at(node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Text(s) => visitor.visit_str(s).map_err(|e: Fault| e.at(self.0)),
            _ => Err(self.wrong("a text")),
        }
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }
    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let n = self.integer(i64::from(u32::MAX))?;
        visitor.visit_i64(n).map_err(|e: Fault| e.at(self.0))
    }
    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let n = self.integer(i64::MAX)?;
        visitor.visit_i64(n).map_err(|e: Fault| e.at(self.0))
    }
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::List(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a list")),
        }
    }
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong("a mapping")),
        }
    }
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.0.value {
            Value::Map(_) => self.deserialize_any(visitor),
            _ => Err(self.wrong(&format!("a mapping with {}", keys(fields)))),
        }
    }

    /// `name` for a variant that stands alone, `{name: value}` for one that holds something.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let node = self.0;
        match &node.value {
            Value::Text(name) => {
                visitor.visit_enum(Choice { name, value: None, node }).map_err(|e: Fault| e.at(node))
            }
            Value::Map(map) => match map.entries.as_slice() {
                [entry] => visitor
                    .visit_enum(Choice { name: &entry.key, value: Some(&entry.node), node })
                    .map_err(|e: Fault| e.at_key(entry)),
                // Its one key was taken out by a repair: nothing more is to be said.
                [] if !map.removed.is_empty() => Err(Fault::new(Kind::Echo, Reason::default()).at(node)),
                entries => {
                    let found: Vec<String> = entries.iter().map(|e| format!("`{}`", clip(&e.key))).collect();
                    let found = if found.is_empty() { "none".into() } else { found.join(" and ") };
                    Err(Fault::custom(
                        Reason::new(format!("exactly one key belongs here, found {found}"))
                            .expected(one_of(variants)),
                    )
                    .at(node))
                }
            },
            _ => Err(self.wrong(&one_of(variants))),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
    }
}

fn keys(fields: &[&str]) -> String {
    let list: Vec<String> = fields.iter().map(|w| format!("`{w}`")).collect();
    match list.as_slice() {
        [one] => format!("the key {one}"),
        _ => format!("keys such as {}", list.iter().take(3).cloned().collect::<Vec<_>>().join(", ")),
    }
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let Some(node) = self.0.next() else { return Ok(None) };
        seed.deserialize(NodeDe(node)).map(Some).map_err(|e| e.at(node))
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    current: Option<&'a Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.current = self.rest.next();
        let Some(entry) = self.current else { return Ok(None) };
        let key: StrDeserializer<'_, Fault> = entry.key.as_str().into_deserializer();
        seed.deserialize(key).map(Some).map_err(|e| e.at_key(entry))
    }
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        match self.current {
            Some(entry) => seed.deserialize(NodeDe(&entry.node)).map_err(|e| e.at(&entry.node)),
            None => Err(Fault::custom("a value was asked for before its key")),
        }
    }
}

struct Choice<'a> {
    name: &'a str,
    value: Option<&'a Node>,
    node: &'a Node,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Fault;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        let name: StrDeserializer<'_, Fault> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Fault;
    fn unit_variant(self) -> Result<(), Fault> {
        match self.value {
            None => Ok(()),
            Some(_) => Err(Fault::custom(
                Reason::new(format!("`{}` stands alone", self.name))
                    .expected(format!("`{}` without a value", self.name)),
            )
            .at(self.node)),
        }
    }
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        match self.value {
            Some(node) => seed.deserialize(NodeDe(node)),
            None => Err(Fault::custom(
                Reason::new(format!("`{}` needs a value", self.name))
                    .expected(format!("{{ {}: … }}", self.name)),
            )
            .at(self.node)),
        }
    }
    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Fault> {
        Err(Fault::custom(Reason::new(format!("`{}` needs another value", self.name))).at(self.node))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.value {
            Some(node) => NodeDe(node).deserialize_map(visitor),
            None => self.tuple_variant(0, visitor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Source;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Section {
        count: u32,
        #[serde(default)]
        names: Vec<String>,
        #[serde(default)]
        choice: Option<Pick>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(rename_all = "lowercase")]
    enum Pick {
        Plain,
        Held(u32),
    }

    fn run(text: &str) -> (Option<Section>, Vec<String>) {
        let mut root = crate::tree::read(&Source::new("t", text)).unwrap();
        let mut problems = Vec::new();
        let out = decode(&mut root, &mut problems);
        (out, problems.into_iter().map(|p| format!("{}: {}", p.path, p.message)).collect())
    }

    #[test]
    fn good_sections_are_read() {
        let (out, problems) = run("count: 3\nnames: [a]\nchoice: {held: 2}\n");
        assert_eq!(problems, [""; 0]);
        assert_eq!(out, Some(Section { count: 3, names: vec!["a".into()], choice: Some(Pick::Held(2)) }));
        assert_eq!(run("count: 3\nchoice: plain\n").0.unwrap().choice, Some(Pick::Plain));
    }

    #[test]
    fn all_errors_are_found_and_none_twice() {
        let (out, problems) = run("count: many\nnames: [a, 1, b, true]\nchioce: plain\nchoice: {plain: 1}\n");
        assert_eq!(out, None);
        assert_eq!(
            problems,
            [
                "count: expected a whole number, not less than 0, found the text `many`",
                "names[1]: expected a text, found the number `1`",
                "names[3]: expected a text, found the boolean `true`",
                "chioce: unknown key `chioce`",
                "choice: `plain` stands alone",
            ]
        );
    }

    #[test]
    fn choices_are_checked() {
        let of = |text: &str| run(&format!("count: 1\nchoice: {text}\n")).1.join("; ");
        assert_eq!(of("held"), "choice: `held` needs a value");
        assert_eq!(of("{}"), "choice: exactly one key belongs here, found none");
        assert_eq!(
            of("{plain: 1, held: 2}"),
            "choice: exactly one key belongs here, found `plain` and `held`"
        );
        assert_eq!(of("palin"), "choice: `palin` is not known here");
        assert_eq!(
            of("{held: x}"),
            "choice.held: expected a whole number, not less than 0, found the text `x`"
        );
        assert_eq!(of(""), "choice: `choice` has no value");
        assert_eq!(of("[]"), "choice: expected one of `plain`, `held`, found a list");
    }

    #[test]
    fn keys_are_known_in_order() {
        assert_eq!(keys_of::<Section>(), ["count", "names", "choice"]);
    }
}
