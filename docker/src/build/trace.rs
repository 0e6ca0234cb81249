//! BuildKit's progress, as lines for people. It comes as protocol buffers (`moby.buildkit.v1.StatusResponse`), of
//! which three fields matter here; anything else, and anything that is not as expected, is passed over.

use std::collections::HashSet;

/// What has been said already.
#[derive(Default)]
pub(crate) struct Trace {
    begun: HashSet<Vec<u8>>,
    /// The part of a line that has not ended.
    open: String,
}

const VERTEX: u64 = 1;
const LOG: u64 = 3;

impl Trace {
    /// What one message tells: steps that begin or are taken from the cache, and what they print.
    pub(crate) fn lines(&mut self, message: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for (field, value) in fields(message) {
            let Value::Bytes(inner) = value else { continue };
            match field {
                VERTEX => self.vertex(inner, &mut lines),
                LOG => self.log(inner, &mut lines),
                _ => {}
            }
        }
        lines
    }

    fn vertex(&mut self, vertex: &[u8], lines: &mut Vec<String>) {
        let (mut digest, mut name, mut cached, mut started) = (&[][..], &[][..], false, false);
        for (field, value) in fields(vertex) {
            match (field, value) {
                (1, Value::Bytes(v)) => digest = v,
                (3, Value::Bytes(v)) => name = v,
                (4, Value::Number(n)) => cached = n != 0,
                (5, Value::Bytes(_)) => started = true,
                _ => {}
            }
        }
        let name = String::from_utf8_lossy(name);
        // The engine's own errands are of no interest.
        if (started || cached) && !name.starts_with("[internal]") && self.begun.insert(digest.to_vec()) {
            lines.push(if cached { format!("{name} (cached)") } else { name.into_owned() });
        }
    }

    fn log(&mut self, log: &[u8], lines: &mut Vec<String>) {
        for (field, value) in fields(log) {
            let (4, Value::Bytes(text)) = (field, value) else { continue };
            self.open.push_str(&String::from_utf8_lossy(text));
            while let Some(end) = self.open.find('\n') {
                let line: String = self.open.drain(..=end).collect();
                let line = line.trim_end();
                if !line.is_empty() {
                    lines.push(format!("  {line}"));
                }
            }
            // A progress bar without an end of line.
            if self.open.len() > 64 * 1024 {
                self.open.clear();
            }
        }
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message up to the first that can't be read.
fn fields(mut message: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut out = Vec::new();
    while let Some(key) = varint(&mut message) {
        let value = match key & 7 {
            0 => varint(&mut message).map(Value::Number),
            1 => take(&mut message, 8).map(Value::Bytes),
            2 => varint(&mut message)
                .and_then(|n| take(&mut message, usize::try_from(n).ok()?))
                .map(Value::Bytes),
            5 => take(&mut message, 4).map(Value::Bytes),
            _ => None,
        };
        match value {
            Some(value) => out.push((key >> 3, value)),
            None => break,
        }
    }
    out
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(n)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, bytes.len() as u8];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn steps_and_their_output_are_lines() {
        let mut trace = Trace::default();
        let step = [field(1, b"sha256:a"), field(3, b"[2/2] RUN make"), field(5, b"")].concat();
        let cached = [field(1, b"sha256:b"), field(3, b"[1/2] FROM x"), vec![4 << 3, 1]].concat();
        let internal = [field(1, b"sha256:c"), field(3, b"[internal] load"), field(5, b"")].concat();
        let message = [field(1, &cached), field(1, &step), field(1, &internal)].concat();
        assert_eq!(trace.lines(&message), ["[1/2] FROM x (cached)", "[2/2] RUN make"]);
        assert!(trace.lines(&message).is_empty(), "each is said once");
        let log = field(3, &field(4, b"one\ntw"));
        assert_eq!(trace.lines(&log), ["  one"]);
        assert_eq!(trace.lines(&field(3, &field(4, b"o\n\n"))), ["  two"]);
    }

    #[test]
    fn what_is_not_a_message_says_nothing() {
        let mut trace = Trace::default();
        for bytes in
            [&b""[..], b"\xff", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0a\x05ab", &[0xff; 100]]
        {
            assert!(trace.lines(bytes).is_empty());
        }
    }
}
