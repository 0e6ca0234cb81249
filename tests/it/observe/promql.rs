//! As much of PromQL as is needed to see which series and labels a query names. Whether it is a good query is for
//! Prometheus to say.

/// A series with what is asked of its labels: `(label, operator, value)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    pub name: String,
    pub matchers: Vec<(String, String, String)>,
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Named {
    pub selectors: Vec<Selector>,
    /// Labels of `by`, `without`, `on`, `ignoring` and the like.
    pub groups: Vec<String>,
}

/// What a query names.
pub fn named(query: &str) -> Named {
    let mut out = Named::default();
    let mut rest = query.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '"' || first == '\'' {
            let end = rest[1..].find(first).expect("the end of a string") + 2;
            rest = &rest[end..];
        } else if first == '[' {
            rest = &rest[rest.find(']').expect("the end of a range") + 1..];
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if first.is_ascii_alphabetic() || first == '_' || first == ':' {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
            let (word, behind) = rest.split_at(end.unwrap_or(rest.len()));
            let behind = behind.trim_start();
            rest = match word {
                "by" | "without" | "on" | "ignoring" | "group_left" | "group_right" => {
                    let (labels, behind) = bracketed(behind, '(', ')');
                    out.groups.extend(list(labels).map(str::to_owned));
                    behind
                }
                "and" | "or" | "unless" | "bool" | "offset" => behind,
                // A function, or what adds up with its labels named before what it adds.
                _ if behind.starts_with('(') => behind,
                _ if behind.starts_with("by ") || behind.starts_with("without ") => behind,
                _ => {
                    let (inner, behind) = match behind.starts_with('{') {
                        true => bracketed(behind, '{', '}'),
                        false => ("", behind),
                    };
                    out.selectors.push(Selector { name: word.to_owned(), matchers: matchers(inner) });
                    behind
                }
            };
        } else {
            rest = &rest[first.len_utf8()..];
        }
        rest = rest.trim_start();
    }
    out
}

/// What stands in brackets, which hold no brackets of their kind outside of strings, and what is behind them.
fn bracketed(text: &str, open: char, close: char) -> (&str, &str) {
    assert!(text.starts_with(open), "no `{open}` at: {text}");
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            c if c == close && !quoted => return (&text[1..at], &text[at + 1..]),
            _ => {}
        }
    }
    panic!("no `{close}` behind: {text}");
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// `label="value",…`; values hold no commas.
fn matchers(text: &str) -> Vec<(String, String, String)> {
    list(text)
        .map(|part| {
            let at = part.find(['=', '!']).unwrap_or_else(|| panic!("no operator in `{part}`"));
            let (label, behind) = part.split_at(at);
            let quote = behind.find('"').unwrap_or_else(|| panic!("no value in `{part}`"));
            let value = behind[quote..].trim_matches('"');
            (label.trim().to_owned(), behind[..quote].trim().to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn names_are_found() {
    let found = named(
        "topk(3, sum by (repo, le) (rate(a_total{x=\"y\",z=~\"p|q\"}[5m])) / on (repo) b:c > bool 1e3) or vector(0)",
    );
    let of = |l: &str, o: &str, v: &str| (l.to_owned(), o.to_owned(), v.to_owned());
    assert_eq!(
        found.selectors,
        [
            Selector { name: "a_total".into(), matchers: vec![of("x", "=", "y"), of("z", "=~", "p|q")] },
            Selector { name: "b:c".into(), matchers: vec![] },
        ]
    );
    assert_eq!(found.groups, ["repo", "le", "repo"]);
}
