//! What `/metrics` answers, read by a client.

use std::collections::BTreeMap;

/// One series at the moment of the answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// All series of one answer.
#[derive(Debug, Default)]
pub struct Samples(Vec<Sample>);

impl Samples {
    /// Lines that are no samples (comments, and what this can't read) are left out.
    pub fn parse(text: &str) -> Self {
        Self(text.lines().filter(|l| !l.starts_with('#')).filter_map(sample).collect())
    }

    pub fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |s| s.name == name)
    }

    /// The one series with this label.
    pub fn at(&self, name: &str, label: &str, is: &str) -> Option<f64> {
        self.of(name).find(|s| s.label(label) == is).map(|s| s.value)
    }

    /// The sum over all its series; nothing where there is none.
    pub fn sum(&self, name: &str) -> Option<f64> {
        self.of(name).map(|s| s.value).reduce(|a, b| a + b)
    }
}

impl Sample {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// `name{label="value",…} value [timestamp] [# exemplar]`.
fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    let rest = match rest.strip_prefix('{') {
        None => rest,
        Some(rest) => labelled(rest, &mut labels)?,
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Sample { name: name.to_owned(), labels, value })
}

/// Takes labels up to the closing brace, and answers what is behind it.
fn labelled<'a>(mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Option<&'a str> {
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(behind) = rest.strip_prefix('}') {
            return Some(behind);
        }
        let (label, quoted) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        loop {
            match chars.next()? {
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    c => value.push(c),
                },
                (at, '"') => {
                    rest = &quoted[at + 1..];
                    break;
                }
                (_, c) => value.push(c),
            }
        }
        labels.insert(label.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_read() {
        let text = "# HELP a b\na 1\nb{x=\"1\",y=\"q \\\"} \\\\ z\"} 2.5 # {trace_id=\"9\"} 1\nc{} NaN\nwhat is this\n";
        let samples = Samples::parse(text);
        assert_eq!(samples.sum("a"), Some(1.0));
        assert_eq!(samples.at("b", "y", "q \"} \\ z"), Some(2.5));
        assert!(samples.sum("c").is_some_and(f64::is_nan));
        assert_eq!(samples.sum("what"), None);
    }
}
