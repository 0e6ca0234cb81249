//! Reads what git said when it failed: which kind of failure it is, and its last words without secrets.

use std::borrow::Cow;

use domain::{Error, ErrorKind};

/// Lines of stderr that go into an error.
const LINES: usize = 6;

/// Makes an error of a failed git command. `doing` says what was being done.
pub(crate) fn from_stderr(doing: &str, stderr: &str, secret: Option<&str>) -> Error {
    let (kind, what) = classify(stderr);
    let words = last_words(stderr, secret);
    let context = if what.is_empty() { doing.to_owned() } else { format!("{doing}: {what}") };
    let error = Error::new(kind, context);
    if words.is_empty() { error } else { error.caused_by(words) }
}

const REFUSED: &str = "authentication refused";
const ABSENT: &str = "repository not found";

/// Whether upstream did not take the authority that git had. A forge hides what it does not show to everybody, so
/// «not found» may say the same.
pub(crate) fn is_refusal(stderr: &str) -> bool {
    matches!(classify(stderr).1, REFUSED | ABSENT)
}

/// The kind of a failure, and the short form of it for people.
pub(crate) fn classify(stderr: &str) -> (ErrorKind, &'static str) {
    // First match wins: what is said about authority comes before what is said about absence, because a forge
    // that hides a private repository behind «not found» says so only when it was given no or other authority.
    const SIGNS: [(&[&str], ErrorKind, &str); 5] = [
        (
            &[
                "Authentication failed",
                "could not read Username",
                "could not read Password",
                "terminal prompts disabled",
                "unable to get password from user",
                "Permission denied (publickey",
                "returned error: 401",
                "returned error: 403",
                "Invalid username or",
            ],
            ErrorKind::Permanent,
            REFUSED,
        ),
        (
            &[
                "Repository not found",
                "repository not found",
                "not appear to be a git repository",
                "returned error: 404",
            ],
            ErrorKind::NotFound,
            ABSENT,
        ),
        (&["No space left on device", "Disk quota exceeded"], ErrorKind::Exhausted, "the disk is full"),
        (
            &[
                "dubious ownership",
                "not a git repository",
                "object file",
                "mismatched algorithms",
                "bad object",
            ],
            ErrorKind::Permanent,
            "",
        ),
        (
            &["Unable to create '", "cannot lock ref", ".lock': File exists"],
            ErrorKind::Unavailable,
            "locked by another git",
        ),
    ];
    for (signs, kind, what) in SIGNS {
        if signs.iter().any(|sign| stderr.contains(sign)) {
            return (kind, what);
        }
    }
    // «fatal: repository 'https://…' not found» and the same of a path: the name stands in the middle.
    let absent = |line: &str| {
        line.starts_with("fatal: repository '")
            && (line.ends_with("' not found") || line.ends_with("' does not exist"))
    };
    if stderr.lines().any(absent) {
        return (ErrorKind::NotFound, ABSENT);
    }
    // Everything else that ends a transfer (no route, reset, 5xx, a cut stream) may pass.
    (ErrorKind::Unavailable, "upstream can't be reached")
}

/// The last lines, as one line, redacted.
pub(crate) fn last_words(stderr: &str, secret: Option<&str>) -> String {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let from = lines.len().saturating_sub(LINES);
    redact(&lines[from..].join("; "), secret).into_owned()
}

/// Takes out of a text: the given secret, what stands before `@` in an address, the value of an Authorization
/// header, and what has the shape of a secret ([`domain::redact`]).
pub fn redact<'a>(text: &'a str, secret: Option<&str>) -> Cow<'a, str> {
    let mut out = Cow::Borrowed(text);
    if let Some(secret) = secret {
        // The header as a whole and the credential alone, however it is quoted.
        let bare = secret.rsplit(' ').next().unwrap_or(secret);
        for hidden in [secret, bare] {
            if hidden.len() >= 4 && out.contains(hidden) {
                out = Cow::Owned(out.replace(hidden, "[redacted]"));
            }
        }
    }
    if let Cow::Owned(without) = domain::redact::redact(&out) {
        out = Cow::Owned(without);
    }
    out = cut_userinfo(out);
    cut(out, "uthorization: ", |rest| rest.find(['\n', '\'', '"', ';']).unwrap_or(rest.len()))
}

/// Replaces what follows each `prefix`, as long as `length` says, where it is not empty.
fn cut<'a>(text: Cow<'a, str>, prefix: &str, length: impl Fn(&str) -> usize) -> Cow<'a, str> {
    if !text.contains(prefix) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find(prefix) {
        let (before, after) = rest.split_at(at + prefix.len());
        out.push_str(before);
        let n = length(after);
        if n > 0 {
            out.push_str("[redacted]");
        }
        rest = &after[n..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn cut_userinfo(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains("://") {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after
            .find(|c: char| c == '/' || c.is_whitespace() || c == '\'' || c == '"')
            .unwrap_or(after.len());
        rest = match after[..end].rfind('@') {
            Some(name) => {
                out.push_str("[redacted]");
                &after[name..]
            }
            None => after,
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_kinds() {
        let cases = [
            ("fatal: unable to access 'http://x/': Could not resolve host: x", ErrorKind::Unavailable),
            ("fatal: unable to access 'http://x/': Failed to connect to x port 80", ErrorKind::Unavailable),
            (
                "fatal: unable to access 'http://x/': The requested URL returned error: 503",
                ErrorKind::Unavailable,
            ),
            ("error: RPC failed; curl 18\nfatal: early EOF", ErrorKind::Unavailable),
            (
                "fatal: could not read Username for 'https://x': terminal prompts disabled",
                ErrorKind::Permanent,
            ),
            ("remote: no\nfatal: Authentication failed for 'https://x/'", ErrorKind::Permanent),
            (
                "remote: Repository not found.\nfatal: repository 'https://x/a.git/' not found",
                ErrorKind::NotFound,
            ),
            ("fatal: repository 'https://x/a.git/' not found", ErrorKind::NotFound),
            ("fatal: '/x' does not appear to be a git repository", ErrorKind::NotFound),
            ("fatal: write error: No space left on device", ErrorKind::Exhausted),
        ];
        for (stderr, kind) in cases {
            assert_eq!(from_stderr("fetch", stderr, None).kind(), kind, "{stderr}");
        }
    }

    #[test]
    fn secrets_are_taken_out() {
        let secret = "Authorization: Basic eC1hY2Nlc3M6dG9rZW4=";
        let cases = [
            ("fatal: https://joe:hunter2@h.example/x.git no", "fatal: https://[redacted]@h.example/x.git no"),
            ("ghs_123_abc.def-9: bad", "ghs_[redacted]: bad"),
            ("sent eC1hY2Nlc3M6dG9rZW4= there", "sent [redacted] there"),
            ("authorization: Bearer abc def\nnext", "authorization: [redacted]\nnext"),
            ("http://127.0.0.1:9/a@b", "http://127.0.0.1:9/a@b"),
            ("http://u:p@ss@h/x and ftp://q@h/", "http://[redacted]@h/x and ftp://[redacted]@h/"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text, Some(secret)), expected);
        }
        assert_eq!(redact("nothing here", None), "nothing here");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let many = (0..20).map(|i| format!("line {i}\n")).collect::<String>();
        let words = last_words(&many, None);
        assert!(words.starts_with("line 14") && words.ends_with("line 19"), "{words}");
    }
}
