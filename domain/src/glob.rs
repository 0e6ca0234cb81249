//! Paths against patterns: `*` and `?` within a part of a path, `**` over any number of parts, `[a-z]` for one
//! character, `\` before a character that means itself. As `.dockerignore` and most ignore files have it.

/// Whether `pattern` matches the whole of `path`. Both are relative, with `/` between parts.
pub fn glob_matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    let path: Vec<&str> = path.split('/').filter(|p| !p.is_empty()).collect();
    parts(&pattern, &path)
}

/// As a table: the work is the product of both lengths, whatever the pattern is.
fn parts(pattern: &[&str], path: &[&str]) -> bool {
    // `reach[i]`: the pattern up to here matches the first `i` parts of the path.
    let mut reach = vec![false; path.len() + 1];
    reach[0] = true;
    for part in pattern {
        let mut next = vec![false; path.len() + 1];
        if *part == "**" {
            let mut seen = false;
            for (i, reached) in reach.iter().enumerate() {
                seen |= reached;
                next[i] = seen;
            }
        } else {
            for (i, name) in path.iter().enumerate() {
                next[i + 1] = reach[i] && one(part, name);
            }
        }
        reach = next;
    }
    reach[path.len()]
}

/// One piece of a pattern.
enum Piece {
    Any,
    One,
    Is(char),
    /// A set, and whether it is what must not be there.
    Of(Vec<(char, char)>, bool),
}

/// One part of a path against one part of a pattern.
fn one(pattern: &str, name: &str) -> bool {
    let pieces = pieces(pattern);
    let name: Vec<char> = name.chars().collect();
    let mut reach = vec![false; name.len() + 1];
    reach[0] = true;
    for piece in &pieces {
        let mut next = vec![false; name.len() + 1];
        let mut seen = false;
        for i in 0..=name.len() {
            match piece {
                Piece::Any => {
                    seen |= reach[i];
                    next[i] = seen;
                }
                _ if i == name.len() || !reach[i] => {}
                Piece::One => next[i + 1] = true,
                Piece::Is(c) => next[i + 1] = name[i] == *c,
                Piece::Of(set, not) => {
                    next[i + 1] = set.iter().any(|(a, b)| (*a..=*b).contains(&name[i])) != *not
                }
            }
        }
        reach = next;
    }
    reach[name.len()]
}

fn pieces(pattern: &str) -> Vec<Piece> {
    let mut out = Vec::new();
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        out.push(match c {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => Piece::Is(rest.next().unwrap_or('\\')),
            '[' => {
                let not = rest.next_if(|c| matches!(c, '^' | '!')).is_some();
                let mut set = Vec::new();
                // One that is not closed ends with the pattern, and matches what it holds so far.
                while let Some(from) = rest.next() {
                    if from == ']' && !set.is_empty() {
                        break;
                    }
                    let to = match rest.next_if_eq(&'-') {
                        Some(_) => rest.next().unwrap_or(from),
                        None => from,
                    };
                    set.push((from, to));
                }
                Piece::Of(set, not)
            }
            c => Piece::Is(c),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_ignore_files_mean() {
        for (pattern, path, matches) in [
            ("package-lock.json", "package-lock.json", true),
            ("package-lock.json", "web/package-lock.json", false),
            ("**/package-lock.json", "web/app/package-lock.json", true),
            ("**/package-lock.json", "package-lock.json", true),
            ("requirements*.txt", "requirements-dev.txt", true),
            ("requirements*.txt", "requirements/dev.txt", false),
            ("web/**", "web/a/b", true),
            ("web/**", "web", true),
            ("web/*/x", "web/a/x", true),
            ("./web/", "web", true),
            ("?.[ch]", "a.c", true),
            ("?.[ch]", "a.o", false),
            ("[^a-c]x", "dx", true),
            ("[^a-c]x", "bx", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("*", "", false),
            ("**", "", true),
            ("*", "ü", true),
        ] {
            assert_eq!(glob_matches(pattern, path), matches, "{pattern} {path}");
        }
    }

    proptest! {
        #[test]
        fn a_path_matches_itself_and_nothing_panics(path in "[a-z.]{1,5}(/[a-z.]{1,5}){0,4}", pattern in ".{0,40}") {
            let plain = path.split('/').all(|p| p != ".");
            prop_assert!(glob_matches(&path, &path) || !plain);
            prop_assert!(glob_matches("**", &path));
            glob_matches(&pattern, &path);
        }
    }

    /// Patterns that make a naive matcher take for ever.
    #[test]
    fn the_work_is_bounded() {
        let path = "a/".repeat(500) + &"a".repeat(500);
        assert!(!glob_matches(&("**/".repeat(500) + &"*a".repeat(250) + "b"), &path));
    }
}
