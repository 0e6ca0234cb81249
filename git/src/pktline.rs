//! The few words of git's protocol that the relay itself has to understand: what a push wants to do, and how to
//! refuse it so that git prints the reason. Everything else is passed on unread. The lines as such are for
//! [`ls_refs`](crate::ls_refs), too.
//!
//! What is passed on to git is written anew from what was understood here, so that git can't read another
//! command out of the same bytes.

use std::fmt;

/// The most that may stand before the first flush of a push, in bytes. A shallow clone names each of its cuts.
pub(crate) const MAX_HEAD: usize = 1024 * 1024;
/// The most commands of one push.
pub(crate) const MAX_COMMANDS: usize = 256;
/// The longest pkt-line of the protocol, its length included.
const MAX_LINE: usize = 65520;
/// The longest reference name that is taken.
const MAX_REF: usize = 1024;

/// One line of a push: move `name` from `old` to `new`. An id of zeros stands for «is not there».
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// 40 or 64 lower-case hexadecimal digits.
    pub old: String,
    /// As long as `old`.
    pub new: String,
    /// A reference name as the client sent it: no NUL, no line break, not empty; not otherwise checked.
    pub name: Vec<u8>,
}

impl Command {
    pub fn deletes(&self) -> bool {
        is_zero(&self.new)
    }

    pub fn creates(&self) -> bool {
        is_zero(&self.old)
    }
}

/// What stands before the first flush of a push.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PushRequest {
    pub commands: Vec<Command>,
    /// Commits at which the client's history is cut.
    pub shallow: Vec<String>,
    /// What the client asked for, word by word.
    pub capabilities: Vec<String>,
    /// A signed push: what it does stands in a certificate that is not read here.
    pub certificate: bool,
    /// Bytes taken, the flush included. What follows is the pack.
    pub length: usize,
}

impl PushRequest {
    pub(crate) fn wants(&self, capability: &str) -> bool {
        self.capabilities.iter().any(|c| c == capability)
    }

    /// The same request in our own words. Only capabilities that change nothing about who may do what are kept.
    pub(crate) fn encode(&self) -> Vec<u8> {
        const KEPT: [&str; 6] =
            ["report-status", "report-status-v2", "side-band-64k", "quiet", "atomic", "ofs-delta"];
        let mut out = Vec::new();
        for id in &self.shallow {
            line(&mut out, &[b"shallow ", id.as_bytes()]);
        }
        let capabilities: Vec<&str> = self
            .capabilities
            .iter()
            .map(String::as_str)
            .filter(|c| KEPT.contains(c) || *c == "object-format=sha1" || *c == "object-format=sha256")
            .collect();
        let capabilities = capabilities.join(" ");
        for (i, c) in self.commands.iter().enumerate() {
            let (old, new) = (c.old.as_bytes(), c.new.as_bytes());
            match i {
                0 => line(&mut out, &[old, b" ", new, b" ", &c.name, b"\0 ", capabilities.as_bytes(), b"\n"]),
                _ => line(&mut out, &[old, b" ", new, b" ", &c.name, b"\n"]),
            }
        }
        out.extend_from_slice(b"0000");
        out
    }
}

/// Why the head of a push is not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PktError(&'static str);

impl fmt::Display for PktError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "this is not a push that git sends: {}", self.0)
    }
}

impl std::error::Error for PktError {}

/// Reads the head of a push up to the first flush. `Ok(None)` when the flush is not there yet: call again with
/// more. Never panics, whatever the bytes are.
pub fn parse_commands(input: &[u8]) -> Result<Option<PushRequest>, PktError> {
    let mut request = PushRequest::default();
    let mut rest = input;
    loop {
        if input.len() - rest.len() > MAX_HEAD {
            return Err(PktError("too many lines before the pack"));
        }
        let Some((digits, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = length_of(digits).ok_or(PktError("a line has no length"))?;
        match length {
            0 => {
                request.length = input.len() - rest.len() + 4;
                return Ok(Some(request));
            }
            1..=4 => return Err(PktError("an unexpected marker between the lines")),
            5..=MAX_LINE => {}
            _ => return Err(PktError("a line is too long")),
        }
        let Some(payload) = rest.get(4..length) else { return Ok(None) };
        rest = &rest[length..];
        read_line(&mut request, payload)?;
    }
}

fn read_line(request: &mut PushRequest, payload: &[u8]) -> Result<(), PktError> {
    let payload = payload.strip_suffix(b"\n").unwrap_or(payload);
    let (text, capabilities) = match payload.iter().position(|b| *b == 0) {
        Some(nul) => (&payload[..nul], Some(&payload[nul + 1..])),
        None => (payload, None),
    };
    if let Some(words) = capabilities {
        if !request.commands.is_empty() || request.certificate {
            return Err(PktError("capabilities after the first command"));
        }
        let words = std::str::from_utf8(words).map_err(|_| PktError("capabilities that are not text"))?;
        request.capabilities =
            words.split([' ', '\n']).filter(|w| !w.is_empty()).map(str::to_owned).collect();
    }
    if text == b"push-cert" {
        request.certificate = true;
        return Ok(());
    }
    if request.certificate {
        return Ok(()); // Part of the certificate. The push is refused as a whole.
    }
    if let Some(id) = text.strip_prefix(b"shallow ") {
        if !request.commands.is_empty() {
            return Err(PktError("a shallow line after the first command"));
        }
        request.shallow.push(object_id(id).ok_or(PktError("a shallow line without an object id"))?);
        return Ok(());
    }
    let mut parts = text.splitn(3, |b| *b == b' ');
    let (old, new, name) = (parts.next(), parts.next(), parts.next());
    let (Some(old), Some(new), Some(name)) = (old.and_then(object_id), new.and_then(object_id), name) else {
        return Err(PktError("a command is not `old new reference`"));
    };
    if old.len() != new.len() {
        return Err(PktError("object ids of different lengths"));
    }
    if name.is_empty() || name.len() > MAX_REF || name.contains(&b'\n') {
        return Err(PktError("a reference name that can't be one"));
    }
    if request.commands.len() == MAX_COMMANDS {
        return Err(PktError("too many commands"));
    }
    request.commands.push(Command { old, new, name: name.to_vec() });
    Ok(())
}

fn length_of(digits: &[u8; 4]) -> Option<usize> {
    digits.iter().try_fold(0, |n, d| Some(n * 16 + (*d as char).to_digit(16)? as usize))
}

/// Lower-cased, because git takes both.
fn object_id(text: &[u8]) -> Option<String> {
    let right = matches!(text.len(), 40 | 64) && text.iter().all(u8::is_ascii_hexdigit);
    right.then(|| text.iter().map(|b| b.to_ascii_lowercase() as char).collect())
}

fn is_zero(id: &str) -> bool {
    id.bytes().all(|b| b == b'0')
}

/// One packet of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// With its line break, if it has one.
    Line(&'a [u8]),
    Flush,
    /// What stands between sections, and behind an answer.
    Mark,
}

/// The first packet, and what is behind it. `None` where there is no whole one.
pub(crate) fn packet(input: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let (digits, rest) = input.split_first_chunk::<4>()?;
    match length_of(digits)? {
        0 => Some((Packet::Flush, rest)),
        1 | 2 => Some((Packet::Mark, rest)),
        length @ 4..=MAX_LINE => {
            rest.split_at_checked(length - 4).map(|(line, rest)| (Packet::Line(line), rest))
        }
        _ => None,
    }
}

/// Writes one pkt-line. The caller keeps it under the protocol's limit.
pub(crate) fn line(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let length = 4 + parts.iter().map(|p| p.len()).sum::<usize>();
    debug_assert!(length <= MAX_LINE);
    out.extend_from_slice(format!("{length:04x}").as_bytes());
    parts.iter().for_each(|p| out.extend_from_slice(p));
}

/// The answer to a push that is refused as a whole: `reasons` has one entry for each command. Git prints each as
/// `! [remote rejected] … (reason)`. A client that asked for no report gets an empty answer, as from git.
pub(crate) fn refusal(request: &PushRequest, reasons: &[String]) -> Vec<u8> {
    if !request.wants("report-status") && !request.wants("report-status-v2") {
        return Vec::new();
    }
    let mut report = Vec::new();
    line(&mut report, &[b"unpack ok\n"]);
    for (command, reason) in request.commands.iter().zip(reasons) {
        let one_line: String =
            reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(400).collect();
        line(&mut report, &[b"ng ", &command.name, b" ", one_line.as_bytes(), b"\n"]);
    }
    report.extend_from_slice(b"0000");
    if !request.wants("side-band-64k") {
        return report;
    }
    let mut out = Vec::new();
    for piece in report.chunks(MAX_LINE - 5) {
        line(&mut out, &[b"\x01", piece]);
    }
    out.extend_from_slice(b"0000");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const ZERO: &str = "0000000000000000000000000000000000000000";

    fn push(lines: &[&str]) -> Vec<u8> {
        let mut out = Vec::new();
        lines.iter().for_each(|l| line(&mut out, &[l.as_bytes()]));
        out.extend_from_slice(b"0000");
        out
    }

    #[test]
    fn a_push_is_read() {
        let mut wire = push(&[
            &format!("shallow {A}"),
            &format!("{ZERO} {A} refs/heads/x\0 report-status side-band-64k agent=git/2.47"),
            &format!("{A} {ZERO} refs/tags/v 1\n"),
        ]);
        let head = wire.len();
        wire.extend_from_slice(b"PACK...");
        let request = parse_commands(&wire).unwrap().unwrap();
        assert_eq!(request.length, head);
        assert_eq!(request.shallow, [A]);
        assert!(request.commands[0].creates() && !request.commands[0].deletes());
        assert!(request.commands[1].deletes());
        assert_eq!(request.commands[1].name, b"refs/tags/v 1");
        assert!(request.wants("side-band-64k") && !request.certificate);
        for cut in 0..head {
            assert_eq!(parse_commands(&wire[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn a_probe_is_an_empty_push() {
        let request = parse_commands(b"0000").unwrap().unwrap();
        assert_eq!((request.commands.len(), request.length), (0, 4));
    }

    #[test]
    fn what_git_would_not_send_is_an_error() {
        let too_many = format!("{A} {A} refs/heads/x");
        let bad = [
            b"zzzz".to_vec(),
            b"0001".to_vec(),
            b"0004".to_vec(),
            b"fff1".to_vec(),
            push(&["hello"]),
            push(&[&format!("{A} {A}")]),
            push(&[&format!("{A} {A} ")]),
            push(&[&format!("{A} {A} refs/heads/a\nb")]),
            push(&[&format!("{A} {}{A} refs/heads/a", &A[..24])]),
            push(&[&format!("{A} {A} refs/heads/a"), &format!("{A} {A} refs/heads/b\0atomic")]),
            push(&[&format!("{A} {A} refs/heads/a"), &format!("shallow {A}")]),
            push(&vec![too_many.as_str(); MAX_COMMANDS + 1]),
        ];
        for b in bad {
            assert!(parse_commands(&b).is_err(), "{}", String::from_utf8_lossy(&b));
        }
    }

    #[test]
    fn a_certificate_is_seen() {
        let wire = push(&["push-cert\0 report-status", "certificate version 0.1\n", "push-cert-end\n"]);
        assert!(parse_commands(&wire).unwrap().unwrap().certificate);
    }

    #[test]
    fn a_refusal_names_each_reference() {
        let wire = push(&[&format!("{A} {A} refs/heads/x\0report-status side-band-64k")]);
        let mut request = parse_commands(&wire).unwrap().unwrap();
        let reasons = ["not\nyours".to_owned()];
        let text = String::from_utf8(refusal(&request, &reasons)).unwrap();
        assert_eq!(text, "0035\u{1}000eunpack ok\n001eng refs/heads/x not yours\n00000000");
        request.capabilities = vec!["report-status".into()];
        assert!(refusal(&request, &reasons).starts_with(b"000eunpack ok\n"));
        request.capabilities.clear();
        assert!(refusal(&request, &reasons).is_empty());
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_commands(&bytes);
        }

        /// Garbage that looks like the protocol gets further in.
        #[test]
        fn near_misses_never_panic(lines in proptest::collection::vec("(shallow |push-cert|[0-9a-f]{38,41} ){0,3}[ -~\\x00\\n]{0,30}", 0..6), cut in 0usize..400) {
            let lines: Vec<&str> = lines.iter().map(String::as_str).filter(|l| !l.is_empty()).collect();
            let wire = push(&lines);
            let _ = parse_commands(&wire[..cut.min(wire.len())]);
            if let Ok(Some(request)) = parse_commands(&wire) {
                prop_assert!(request.length <= wire.len());
                // What goes on to git says the same as what was checked.
                if !request.certificate {
                    let again = parse_commands(&request.encode()).unwrap().unwrap();
                    prop_assert_eq!(again.commands, request.commands);
                    prop_assert_eq!(again.shallow, request.shallow);
                }
            }
        }
    }
}
