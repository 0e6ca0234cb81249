//! What git says to a push, on its way to the sandbox: the words of hooks and of upstream (side band 2) without what is
//! secret here. Git cuts them into packets wherever it likes, so they are looked at by the line; everything else passes
//! as it is.

use bytes::Bytes;

use crate::pktline;

/// The band of words for people.
const WORDS: u8 = 2;
/// The longest piece of words in one packet, in bytes.
const PIECE: usize = 65_000;

#[derive(Debug, Default)]
pub(super) struct Outbound {
    /// The beginning of a packet.
    packet: Vec<u8>,
    /// The beginning of a line.
    line: Vec<u8>,
}

impl Outbound {
    /// Takes a piece of the answer; answers what can go on.
    pub(super) fn pass(&mut self, data: &[u8]) -> Bytes {
        self.packet.extend_from_slice(data);
        let mut out = Vec::with_capacity(data.len());
        while let Some(head) = self.packet.first_chunk::<4>() {
            let length = std::str::from_utf8(head).ok().and_then(|h| usize::from_str_radix(h, 16).ok());
            let Some(length) = length else {
                // No packets: this is not for here.
                self.say(&mut out, 0);
                out.append(&mut self.packet);
                break;
            };
            let length = length.max(4);
            if self.packet.len() < length {
                break;
            }
            let rest = self.packet.split_off(length);
            let packet = std::mem::replace(&mut self.packet, rest);
            if packet.get(4) == Some(&WORDS) {
                self.line.extend_from_slice(&packet[5..]);
                let open = self.line.iter().rev().take_while(|b| **b != b'\n' && **b != b'\r').count();
                self.say(&mut out, open);
            } else {
                self.say(&mut out, 0);
                out.extend_from_slice(&packet);
            }
        }
        out.into()
    }

    /// Says what there is of words, but for the last `open` bytes.
    fn say(&mut self, out: &mut Vec<u8>, open: usize) {
        let rest = self.line.split_off(self.line.len() - open);
        let said = std::mem::replace(&mut self.line, rest);
        let text = String::from_utf8_lossy(&said);
        let words: &[u8] = match domain::redact::redact(&text) {
            std::borrow::Cow::Borrowed(_) => &said,
            std::borrow::Cow::Owned(without) => &without.into_bytes(),
        };
        for piece in words.chunks(PIECE) {
            pktline::line(out, &[&[WORDS], piece]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However it is cut: into packets by git, into pieces by the connection.
    #[test]
    fn a_secret_that_is_cut_in_two_does_not_pass() {
        let secret = "odd~outbound~token";
        let kept = domain::redact::in_use().keep(secret);
        let words = format!("remote: it was {secret}\nand {secret}");
        let mut answer = Vec::new();
        for piece in words.as_bytes().chunks(7) {
            pktline::line(&mut answer, &[&[WORDS], piece]);
        }
        pktline::line(&mut answer, &[&[1], b"000eunpack ok\n0000"]);
        answer.extend_from_slice(b"0000");
        for size in [1, 5, 1000] {
            let mut outbound = Outbound::default();
            let out: Vec<u8> = answer.chunks(size).flat_map(|piece| outbound.pass(piece)).collect();
            let out = String::from_utf8(out).unwrap();
            assert_eq!(out.matches("[redacted]").count(), 2, "{out:?}");
            assert!(!out.contains("token") && out.ends_with("\u{1}000eunpack ok\n00000000"), "{out:?}");
        }
        drop(kept);
        let mut outbound = Outbound::default();
        assert_eq!(outbound.pass(b"no packets at all"), "no packets at all");
    }
}
