//! What looks like a secret: forms that their issuers have given them so that they can be told from anything else. Nothing
//! is guessed from randomness, so there are few false alarms, and passwords are not found.

use std::collections::HashSet;
use std::sync::OnceLock;

use regex::bytes::Regex;

/// What it is, and its form. Each is anchored in a prefix that its issuer reserves.
const FORMS: [(&str, &str); 14] = [
    ("a private key", r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----\s+[A-Za-z0-9+/=:, -]{16}"),
    ("a GitHub token", r"\bgh[pousr]_[A-Za-z0-9._-]{20,}"),
    ("a GitHub token", r"\bgithub_pat_[A-Za-z0-9_]{30,}"),
    ("a GitLab token", r"\bgl(?:pat|ptt|rt|dt|cbt)-[A-Za-z0-9_-]{20,}"),
    ("an AWS access key", r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b"),
    ("a Google API key", r"\bAIza[A-Za-z0-9_-]{35}\b"),
    ("a Slack token", r"\bxox[abeoprs]-[A-Za-z0-9-]{20,}"),
    ("a Slack webhook", r"hooks\.slack\.com/services/T[A-Za-z0-9]+/B[A-Za-z0-9]+/[A-Za-z0-9]{20,}"),
    ("a Stripe key", r"\b[rs]k_live_[A-Za-z0-9]{20,}"),
    ("an npm token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("a PyPI token", r"\bpypi-[A-Za-z0-9_-]{50,}"),
    ("an Anthropic key", r"\bsk-ant-[a-z]+[0-9]{2}-[A-Za-z0-9_-]{40,}"),
    ("an OpenAI key", r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_-]{40,}"),
    ("a token of Hotbed", r"\bhb[a-z]_[0-9a-f]{32,}"),
];

/// A secret in a file. Its text goes nowhere but into comparisons.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Secret {
    pub what: &'static str,
    text: Vec<u8>,
}

/// What is in `new` and not in `old`, each with its line, counted from 1.
pub(super) fn added(new: &[u8], old: &[u8]) -> Vec<(usize, Secret)> {
    let found = find(new);
    if found.is_empty() {
        return found;
    }
    let before: HashSet<Secret> = find(old).into_iter().map(|(_, secret)| secret).collect();
    found.into_iter().filter(|(_, secret)| !before.contains(secret)).collect()
}

fn find(text: &[u8]) -> Vec<(usize, Secret)> {
    // What git takes for binary holds no text to read.
    if text.iter().take(8000).any(|b| *b == 0) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for ((what, _), form) in FORMS.iter().zip(forms()) {
        for place in form.find_iter(text) {
            let line = 1 + text[..place.start()].iter().filter(|b| **b == b'\n').count();
            found.push((line, Secret { what, text: place.as_bytes().to_vec() }));
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

fn forms() -> &'static [Regex] {
    static FORM: OnceLock<Vec<Regex>> = OnceLock::new();
    FORM.get_or_init(|| {
        FORMS
            .iter()
            .map(|(_, form)| Regex::new(&format!("(?-u){form}")).expect("a form is a good pattern"))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(text: &str) -> Vec<(usize, &'static str)> {
        added(text.as_bytes(), b"").into_iter().map(|(line, secret)| (line, secret.what)).collect()
    }

    /// Written in two pieces, so that this file itself can be pushed.
    #[test]
    fn issuers_forms_are_found() {
        let of = |prefix: &str, rest: &str, n: usize| format!("x = \"{prefix}{}\"", rest.repeat(n));
        for (text, what) in [
            (of("ghp", "_abcdefghijklmnopqrstuvwxyz0123456789", 1), "a GitHub token"),
            (of("ghs", "_1234_eyJhbGciOi.eyJpc3MiOi.c2ln-bmF0dXJl", 1), "a GitHub token"),
            (of("github", "_pat_11ABCDEFG0abcdefghijklmnopqrstuv", 1), "a GitHub token"),
            (of("glpat", "-abcdefghij0123456789", 1), "a GitLab token"),
            (of("AKIA", "IOSFODNN7EXAMPLE", 1), "an AWS access key"),
            (of("AIza", "SyA1234567890abcdefghijklmnopqrstuv", 1), "a Google API key"),
            (of("xoxb", "-123456789012-abcdefghijkl", 1), "a Slack token"),
            (of("sk", "_live_abcdefghijklmnopqrstuvwx", 1), "a Stripe key"),
            (of("npm", "_abcdefghijklmnopqrstuvwxyz0123456789", 1), "an npm token"),
            (of("hbs", "_0123456789abcdef0123456789abcdef", 1), "a token of Hotbed"),
        ] {
            assert_eq!(whats(&text), [(1, what)], "{text}");
        }
        let key = format!("a\n-----BEGIN {} KEY-----\nMIIEvQIBADANBgkqhkiG9w0B\n", "RSA PRIVATE");
        assert_eq!(whats(&key), [(2, "a private key")]);
    }

    #[test]
    fn what_only_speaks_of_secrets_is_none() {
        let header = format!("grep -q '-----BEGIN {} KEY-----' file", "PRIVATE");
        for text in [
            "ghp_",
            "token: ghp_xxx",
            "AKIAshort",
            "sk_test_abcdefghijklmnopqrstuvwx",
            "npm_config_registry",
            "let hbs_token = 1;",
            "sha1: 0123456789abcdef0123456789abcdef01234567",
            &header,
        ] {
            assert_eq!(whats(text), [], "{text}");
        }
        let binary = format!("\0{}_abcdefghijklmnopqrstuvwxyz0123456789", "ghp");
        assert_eq!(whats(&binary), []);
    }

    #[test]
    fn what_was_there_before_is_not_new() {
        let (one, two) = (format!("{}_{}", "ghp", "a".repeat(36)), format!("{}_{}", "ghp", "b".repeat(36)));
        let (old, new) = (format!("x\n{one}\n"), format!("{two}\nx\n{one}\n"));
        let lines: Vec<_> = added(new.as_bytes(), old.as_bytes()).into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines, [1]);
    }
}
