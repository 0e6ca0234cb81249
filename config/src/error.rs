//! What is wrong with a configuration, for people (as rustc says it) and for programs (JSON). Promises: every
//! problem with file, line, column and key path; what may be a secret is never shown.

use std::fmt;
use std::ops::Range;

use serde_json::{Value, json};

/// A text and where its lines begin.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub file: String,
    pub text: String,
    starts: Vec<usize>,
}

impl Source {
    pub fn new(file: &str, text: &str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        Self { file: file.to_owned(), text: text.to_owned(), starts }
    }

    /// A file of a repository: text, and no longer than `limit` bytes.
    pub fn untrusted(bytes: &[u8], file: &str, limit: usize) -> Result<Self, ConfigErrors> {
        if bytes.len() > limit {
            let problem = Problem::new(format!("the file has {} bytes", bytes.len()))
                .expected(format!("at most {limit}"));
            return Err(ConfigErrors::unreadable(file, problem));
        }
        let text = text(bytes, file)?;
        Ok(Self::new(file, text.strip_prefix('\u{feff}').unwrap_or(text)))
    }

    /// The line of a byte, counted from 1.
    pub fn line_of(&self, at: usize) -> usize {
        self.starts.partition_point(|s| *s <= at)
    }

    pub fn start_of(&self, line: usize) -> usize {
        self.starts.get(line.saturating_sub(1)).copied().unwrap_or(self.text.len())
    }

    /// A line without its end.
    pub fn line(&self, line: usize) -> &str {
        let rest = self.text.get(self.start_of(line)..).unwrap_or("");
        rest.split('\n').next().unwrap_or("").trim_end_matches('\r')
    }
}

/// Bytes as text, or the first that is none.
pub(crate) fn text<'a>(bytes: &'a [u8], file: &str) -> Result<&'a str, ConfigErrors> {
    std::str::from_utf8(bytes).map_err(|e| {
        // What is before the fault can be shown.
        let good = e.valid_up_to();
        let source = Source::new(file, &String::from_utf8_lossy(bytes));
        let problem = Problem::new(format!("byte 0x{:02x} is not UTF-8", bytes.get(good).unwrap_or(&0)))
            .at(good..good + '\u{fffd}'.len_utf8())
            .expected("a text file in UTF-8");
        ConfigErrors::new(&source, vec![problem])
    })
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// What is wrong, in one line.
    pub message: String,
    /// The key path, such as `repos[0].pool.min`; empty for the file as a whole.
    pub path: String,
    /// The value as written, shortened; `None` where there is none, or where it may be a secret.
    pub value: Option<String>,
    /// What was expected instead.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// Where; `None` when the file could not be read at all.
    pub place: Option<Place>,
    pub(crate) span: Option<Range<usize>>,
    /// Bytes that may be a secret; no message shows them, not even that of a neighbour on the line.
    pub(crate) secret: Option<Range<usize>>,
}

/// Where a problem is. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    /// The line as shown, cropped, with secrets masked.
    pub text: String,
    /// Characters of `text` that the carets underline.
    pub marked: Range<usize>,
}

impl Problem {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            path: String::new(),
            value: None,
            expected: None,
            help: None,
            place: None,
            span: None,
            secret: None,
        }
    }
    pub(crate) fn path(mut self, path: impl Into<String>) -> Self {
        // A key may hold anything; what a terminal would act upon is shown as a blank, as in the snippet.
        self.path = path.into().replace(char::is_control, " ");
        self
    }
    pub(crate) fn at(mut self, span: Range<usize>) -> Self {
        self.span = Some(span);
        self
    }
    pub(crate) fn value(mut self, value: impl Into<String>) -> Self {
        self.value = Some(clip(&value.into()));
        self
    }
    pub(crate) fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// How many problems are shown; more help nobody.
pub(crate) const MAX_PROBLEMS: usize = 50;
/// Characters of a line that are shown.
const MAX_LINE: usize = 120;

/// All that is wrong with a file, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigErrors {
    pub file: String,
    pub problems: Vec<Problem>,
    /// Problems beyond those that are kept.
    pub more: usize,
}

impl std::error::Error for ConfigErrors {}

impl ConfigErrors {
    /// A file that could not be read at all.
    pub(crate) fn unreadable(file: &str, problem: Problem) -> Self {
        Self { file: file.to_owned(), problems: vec![problem], more: 0 }
    }

    pub(crate) fn new(source: &Source, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|p| p.span.as_ref().map_or(0, |s| s.start));
        let more = problems.len().saturating_sub(MAX_PROBLEMS);
        let mut secret: Vec<Range<usize>> = problems.iter().filter_map(|p| p.secret.clone()).collect();
        problems.truncate(MAX_PROBLEMS);
        for problem in &problems {
            if let Some(span) = &problem.span {
                let line = source.line_of(span.start);
                let start = source.start_of(line);
                secret.extend(
                    suspicious(source.line(line)).into_iter().map(|r| start + r.start..start + r.end),
                );
            }
        }
        for problem in &mut problems {
            if let Some(span) = &problem.span {
                problem.place = Some(place(source, span, &secret));
            }
        }
        Self { file: source.file.clone(), problems, more }
    }

    /// A line for each problem, without the text of the file: for a build's log.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for problem in &self.problems {
            let mut line = match &problem.place {
                Some(at) => format!("{}:{}:{}: ", self.file, at.line, at.column),
                None => format!("{}: ", self.file),
            };
            if !problem.path.is_empty() {
                line += &format!("{}: ", problem.path);
            }
            line += &problem.message;
            if let Some(expected) =
                problem.expected.as_ref().filter(|e| !problem.message.contains(e.as_str()))
            {
                line += &format!("; expected {expected}");
            }
            if let Some(help) = &problem.help {
                line += &format!(" ({help})");
            }
            lines.push(line);
        }
        if self.more > 0 {
            lines.push(format!("{}: and {} more", self.file, self.more));
        }
        lines
    }

    /// `{"file": …, "errors": [{"message", "path", "line", "column", "value", "expected", "help", "snippet"}], "more": 0}`
    pub fn to_json(&self) -> Value {
        let errors: Vec<Value> = self
            .problems
            .iter()
            .map(|p| {
                json!({
                    "message": p.message,
                    "path": p.path,
                    "line": p.place.as_ref().map(|at| at.line),
                    "column": p.place.as_ref().map(|at| at.column),
                    "value": p.value,
                    "expected": p.expected,
                    "help": p.help,
                    "snippet": p.place.as_ref().map(|at| at.text.clone()),
                })
            })
            .collect();
        json!({ "file": self.file, "errors": errors, "more": self.more })
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.problems {
            writeln!(f, "error: {}", problem.message)?;
            let width = problem.place.as_ref().map_or(1, |p| p.line.to_string().len());
            let gap = " ".repeat(width);
            match &problem.place {
                Some(at) => {
                    writeln!(f, "{gap}--> {}:{}:{}", self.file, at.line, at.column)?;
                    writeln!(f, "{gap} |")?;
                    writeln!(f, "{}", format!("{} | {}", at.line, at.text).trim_end())?;
                    let carets = "^".repeat(at.marked.len().max(1));
                    let label = format!("{}{carets} {}", " ".repeat(at.marked.start), problem.path);
                    writeln!(f, "{gap} | {}", label.trim_end())?;
                }
                None => writeln!(f, "{gap}--> {}", self.file)?,
            }
            // An error of the type says it already.
            if let Some(expected) =
                problem.expected.as_ref().filter(|e| !problem.message.contains(e.as_str()))
            {
                writeln!(f, "{gap} = expected: {expected}")?;
            }
            if let Some(help) = &problem.help {
                writeln!(f, "{gap} = help: {help}")?;
            }
            writeln!(f)?;
        }
        let count = self.problems.len() + self.more;
        write!(f, "{}: {count} error{}", self.file, if count == 1 { "" } else { "s" })?;
        if self.more > 0 {
            write!(f, ", of which {} are shown", self.problems.len())?;
        }
        Ok(())
    }
}

/// Parts of a line that look like secrets. An error may be shown before it is known which values are some: a
/// duplicate key ends the reading early.
fn suspicious(line: &str) -> Vec<Range<usize>> {
    const KEYS: [&str; 6] = ["private_key", "secret", "token", "password", "api_key", "credential"];
    let lower = line.to_ascii_lowercase();
    let mut out = Vec::new();
    for key in KEYS {
        for (at, _) in lower.match_indices(key) {
            let rest = &line[at + key.len()..];
            let value = rest.trim_start_matches(['"', '\'']).trim_start();
            if let Some(value) = value.strip_prefix(':').map(str::trim_start)
                && !value.is_empty()
                && !value.starts_with('{')
            {
                out.push(line.len() - value.len()..line.len());
            }
        }
    }
    for (at, _) in line.match_indices("://") {
        let rest = &line[at + 3..];
        if let Some(end) = rest.split([' ', '"', '\'']).next().and_then(|address| address.rfind('@')) {
            out.push(at + 3..at + 3 + end);
        }
    }
    out
}

fn place(source: &Source, span: &Range<usize>, secret: &[Range<usize>]) -> Place {
    let line = source.line_of(span.start);
    let begin = source.start_of(line);
    let text = source.line(line);
    let mut shown = String::new();
    let (mut from, mut to, mut column) = (None, 0, 1);
    let mut masked = false;
    for (i, c) in text.char_indices() {
        let at = begin + i;
        if at == span.start {
            from = Some(shown.chars().count());
        }
        if at < span.start {
            column += 1;
        }
        if secret.iter().any(|s| s.contains(&at)) {
            if !masked {
                shown.push('…');
            }
            masked = true;
        } else {
            masked = false;
            shown.push(if c.is_control() { ' ' } else { c });
        }
        if at < span.end {
            to = shown.chars().count();
        }
    }
    let length = shown.chars().count();
    let from = from.unwrap_or(if span.start > begin { length } else { 0 }).min(length);
    let to = to.clamp(from, length.max(from));
    // A long line is cropped around the mark.
    let cut = if length > MAX_LINE && from > MAX_LINE / 2 { from - MAX_LINE / 2 } else { 0 };
    let mut text: String = shown.chars().skip(cut).take(MAX_LINE).collect();
    if cut > 0 {
        text = format!("…{}", text.chars().skip(1).collect::<String>());
    }
    if length > cut + MAX_LINE {
        text.pop();
        text.push('…');
    }
    let marked = from - cut..(to - cut).min(MAX_LINE).max(from - cut);
    Place { line, column, text: text.trim_end().to_owned(), marked }
}

/// A text for a message: one line, at most 60 characters, nothing a terminal obeys.
pub(crate) fn clip(text: &str) -> String {
    let mut out: String = text.chars().take(60).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(60).is_some() {
        out.push('…');
    }
    out
}

/// The candidate that was probably meant.
pub(crate) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(40).flat_map(char::to_lowercase).collect();
    let limit = (word.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|c| (distance(&word, &c.chars().flat_map(char::to_lowercase).collect::<Vec<_>>()), c))
        .filter(|(d, _)| *d <= limit)
        .min_by_key(|(d, _)| *d)
        .map(|(_, c)| c)
}

/// Edits between two words: insert, remove, replace, swap of neighbours.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_near() {
        let keys = ["name", "branch", "url", "ca_certificates", "pool"];
        assert_eq!(nearest("branhc", keys), Some("branch"));
        assert_eq!(nearest("Pool", keys), Some("pool"));
        assert_eq!(nearest("ca_certificate", keys), Some("ca_certificates"));
        assert_eq!(nearest("nonsense", keys), None);
    }

    #[test]
    fn a_long_line_is_cropped_around_the_mark() {
        let text = format!("{}HERE{}", "a".repeat(500), "b".repeat(500));
        let source = Source::new("x", &text);
        let p = place(&source, &(500..504), &[]);
        let marked: String = p.text.chars().skip(p.marked.start).take(p.marked.len()).collect();
        assert_eq!((marked.as_str(), p.column), ("HERE", 501));
        assert!(p.text.chars().count() <= MAX_LINE && p.text.starts_with('…') && p.text.ends_with('…'));
    }

    #[test]
    fn a_secret_is_masked_wherever_its_line_is_shown() {
        let source = Source::new("x", "a: {id: x, key: hunter2}");
        let secret = Problem { secret: Some(16..23), ..Problem::new("secret").at(16..23) };
        let errors = ConfigErrors::new(&source, vec![Problem::new("id").at(8..9), secret]);
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
        assert!(!errors.to_json().to_string().contains("hunter2"));
    }

    #[test]
    fn what_looks_like_a_secret_is_masked_too() {
        for (line, shown) in [
            ("a: 1, private_key: \"hunter2\" }", "a: 1, private_key: …"),
            ("{a: 1, a: 2, \"webhook_secret\": hunter2, b: 1}", "{a: 1, a: 2, \"webhook_secret\": …"),
            ("env: { NPM_TOKEN: hunter2 }", "env: { NPM_TOKEN: …"),
            ("url: https://x:hunter2@host/a, b: 1", "url: https://…@host/a, b: 1"),
            ("private_key: { file: /x }", "private_key: { file: /x }"),
            ("url: git@host:a", "url: git@host:a"),
        ] {
            let source = Source::new("x", line);
            let errors = ConfigErrors::new(&source, vec![Problem::new("p").at(0..1)]);
            assert_eq!(errors.problems[0].place.as_ref().unwrap().text, shown);
        }
    }
}
