//! The branches and tags of a server, as protocol v2 lists them (gitprotocol-v2(5), `ls-refs`): what is asked, and what
//! is understood of the answer. An answer that is not understood to its last byte is none.

use std::collections::BTreeMap;

use git2::Oid;

use crate::objects::{HEADS, TAGS};
use crate::pktline::{Packet, line, packet};

/// The branches and tags of an upstream, and what they point at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing(BTreeMap<String, Oid>);

impl Listing {
    /// Whole names, sorted, with ids of 40 hexadecimal digits.
    pub fn refs(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.iter().map(|(name, id)| (name.as_str(), id.to_string()))
    }

    /// Those under a prefix, with the prefix taken off, sorted.
    pub(crate) fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Oid)> {
        self.0.iter().filter_map(move |(name, id)| Some((name.strip_prefix(prefix)?, *id)))
    }

    /// Takes what a fetch would take; `None` where a name comes twice.
    pub(crate) fn add(&mut self, name: &str, id: Oid) -> Option<()> {
        if [HEADS, TAGS].iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix)) {
            return self.0.insert(name.to_owned(), id).is_none().then_some(());
        }
        Some(())
    }
}

/// Whether the answer to `info/refs?service=git-upload-pack` is that of a server that understands [`question`].
pub(crate) fn is_understood(advertisement: &[u8]) -> bool {
    let Some(lines) = lines(advertisement) else { return false };
    let mut words = lines.iter().filter(|line| !line.starts_with(b"# service="));
    let is = |line: &[u8], word: &[u8]| {
        line.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
    };
    let (mut lists, mut hash) = (false, true);
    if words.next().copied() != Some(b"version 2") {
        return false;
    }
    for line in words {
        lists |= is(line, b"ls-refs");
        hash &= !is(line, b"object-format") || *line == b"object-format=sha1";
    }
    lists && hash
}

/// The body that asks for branches and tags.
pub(crate) fn question() -> Vec<u8> {
    let mut out = Vec::new();
    line(&mut out, &[b"command=ls-refs\n"]);
    out.extend_from_slice(b"0001");
    for prefix in [HEADS, TAGS] {
        line(&mut out, &[b"ref-prefix ", prefix.as_bytes(), b"\n"]);
    }
    out.extend_from_slice(b"0000");
    out
}

/// Reads the answer to it. A server may list more than it was asked for; that is left out. `None` for what no server
/// of SHA-1 repositories says, and for names that are not text.
pub fn parse_listing(answer: &[u8]) -> Option<Listing> {
    let mut listing = Listing::default();
    let mut rest = answer;
    loop {
        let (packet, behind) = packet(rest)?;
        rest = behind;
        let line = match packet {
            Packet::Line(line) => line.strip_suffix(b"\n").unwrap_or(line),
            Packet::Flush if rest.is_empty() => return Some(listing),
            Packet::Flush | Packet::Mark => return None,
        };
        let mut words = std::str::from_utf8(line).ok()?.split(' ');
        let (id, name) = (words.next()?, words.next()?);
        if id.len() != 40 || name.is_empty() {
            return None;
        }
        listing.add(name, Oid::from_str(id).ok()?)?;
    }
}

/// All lines, without the marks between them and their line breaks.
fn lines(mut input: &[u8]) -> Option<Vec<&[u8]>> {
    let mut lines = Vec::new();
    while !input.is_empty() {
        let (packet, rest) = packet(input)?;
        input = rest;
        if let Packet::Line(line) = packet {
            lines.push(line.strip_suffix(b"\n").unwrap_or(line));
        }
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";

    fn wire(lines: &[&str], end: &str) -> Vec<u8> {
        let mut out = Vec::new();
        lines.iter().for_each(|l| line(&mut out, &[l.as_bytes()]));
        out.extend_from_slice(end.as_bytes());
        out
    }

    #[test]
    fn what_a_server_lists_is_read() {
        let answer = wire(
            &[
                &format!("{A} HEAD symref-target:refs/heads/main\n"),
                &format!("{A} refs/heads/main\n"),
                &format!("{B} refs/pull/7/head\n"),
                &format!("{B} refs/tags/v1 peeled:{A}"),
            ],
            "0000",
        );
        let listing = parse_listing(&answer).unwrap();
        let refs: Vec<_> = listing.refs().collect();
        assert_eq!(refs, [("refs/heads/main", A.to_owned()), ("refs/tags/v1", B.to_owned())]);
        assert_eq!(listing.under(HEADS).map(|(n, _)| n).collect::<Vec<_>>(), ["main"]);
        assert_eq!(parse_listing(b"0000"), Some(Listing::default()), "a repository without a branch");
        for cut in 0..answer.len() {
            assert_eq!(parse_listing(&answer[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_no_listing() {
        let name = format!("{A} refs/heads/a");
        let bad = [
            wire(&[&name], "00000000"),
            wire(&[&name], "0001"),
            wire(&[&name], "0002"),
            wire(&[&name, &name], "0000"),
            wire(&["ERR no\n"], "0000"),
            wire(&[A], "0000"),
            wire(&[&format!("{A} ")], "0000"),
            wire(&[&format!("{A}{} refs/heads/a", &A[..24])], "0000"),
            wire(&[&format!("{} refs/heads/a", "g".repeat(40))], "0000"),
            [b"0034".as_slice(), A.as_bytes(), b" refs/\xff".as_slice(), b"0000"].concat(),
        ];
        for b in bad {
            assert_eq!(parse_listing(&b), None, "{}", String::from_utf8_lossy(&b));
        }
    }

    #[test]
    fn only_a_server_of_version_2_is_asked() {
        let capabilities = ["version 2\n", "agent=git/2.47\n", "ls-refs=unborn\n", "object-format=sha1\n"];
        assert!(is_understood(&wire(&capabilities, "0000")));
        let announced =
            [wire(&["# service=git-upload-pack\n"], "0000"), wire(&capabilities, "0000")].concat();
        assert!(is_understood(&announced));
        let others = [
            wire(&["version 2\n", "fetch\n"], "0000"),
            wire(&["version 1\n", "ls-refs\n"], "0000"),
            wire(&["version 2\n", "ls-refs\n", "object-format=sha256\n"], "0000"),
            wire(&["version 2\n", "ls-refs-not\n"], "0000"),
            wire(&[&format!("{A} HEAD\0multi_ack ls-refs\n")], "0000"),
            b"<html>".to_vec(),
            Vec::new(),
        ];
        for other in others {
            assert!(!is_understood(&other), "{}", String::from_utf8_lossy(&other));
        }
    }

    #[test]
    fn the_question_is_as_git_asks() {
        let asked = String::from_utf8(question()).unwrap();
        assert_eq!(
            asked,
            "0014command=ls-refs\n0001001bref-prefix refs/heads/\n001aref-prefix refs/tags/\n0000"
        );
    }
}
