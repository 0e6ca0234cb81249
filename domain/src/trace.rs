//! Where in a trace something happens: what W3C's `traceparent` and `tracestate` say, as records keep it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// The longest `tracestate` that is passed on, in bytes. W3C asks for at least as much.
const MAX_STATE: usize = 512;

/// The bytes of a `traceparent` of this version.
const PARENT: usize = 55;

/// A span, seen from those that stand below it. Written as `traceparent`, and after a blank `tracestate`, if there is one.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct TraceContext {
    trace: u128,
    span: u64,
    sampled: bool,
    state: Option<Arc<str>>,
}

/// Why a `traceparent` is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no traceparent: expected 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, none of them all zeros")]
pub struct NoTraceParent;

impl TraceContext {
    /// `None` where an id is zero, which W3C keeps for "none".
    pub fn new(trace: u128, span: u64, sampled: bool) -> Option<Self> {
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled, state: None })
    }

    /// With other parties' own notes on the trace. What is no `tracestate` is left out, as W3C asks.
    pub fn with_state(mut self, state: &str) -> Self {
        let good = !state.is_empty() && state.len() <= MAX_STATE && state.contains('=');
        let plain = state.bytes().all(|b| (b' '..=b'~').contains(&b));
        self.state = (good && plain).then(|| state.trim().into());
        self
    }

    /// Another span of the same trace.
    pub fn at(&self, span: u64) -> Self {
        Self { span, ..self.clone() }
    }

    /// The same place, in a trace that is not recorded from here on.
    pub fn unsampled(self) -> Self {
        Self { sampled: false, ..self }
    }

    pub fn trace_id(&self) -> u128 {
        self.trace
    }

    pub fn span_id(&self) -> u64 {
        self.span
    }

    /// Whether this trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.sampled
    }

    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The value of the header, and of the environment variable `TRACEPARENT`.
    pub fn traceparent(&self) -> String {
        self.write(&mut [0; PARENT]).to_owned()
    }

    fn write<'b>(&self, buffer: &'b mut [u8; PARENT]) -> &'b str {
        buffer.copy_from_slice(b"00-00000000000000000000000000000000-0000000000000000-00");
        digits(&mut buffer[3..35], self.trace);
        digits(&mut buffer[36..52], self.span.into());
        digits(&mut buffer[53..], self.sampled.into());
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

/// As many of the last hexadecimal digits as there is room for. Each row of a session has a place, so this is not `format!`.
fn digits(room: &mut [u8], mut number: u128) {
    for digit in room.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.write(&mut [0; PARENT]))?;
        match &self.state {
            Some(state) => write!(f, " {state}"),
            None => Ok(()),
        }
    }
}

impl FromStr for TraceContext {
    type Err = NoTraceParent;

    fn from_str(text: &str) -> Result<Self, NoTraceParent> {
        let (parent, state) = text.split_once(' ').unwrap_or((text, ""));
        let parsed = parse(parent).ok_or(NoTraceParent)?;
        Ok(if state.is_empty() { parsed } else { parsed.with_state(state) })
    }
}

/// Later versions may say more behind what this one says; version `ff` is none.
fn parse(text: &str) -> Option<TraceContext> {
    let mut parts = text.split('-');
    let mut hex = |digits: usize| {
        let part = parts.next().filter(|p| p.len() == digits)?;
        let lower = part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        lower.then(|| u128::from_str_radix(part, 16).ok())?
    };
    let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    if version == 0xff || (version == 0 && parts.next().is_some()) {
        return None;
    }
    TraceContext::new(trace, u64::try_from(span).ok()?, flags & 1 == 1)
}

impl TryFrom<String> for TraceContext {
    type Error = NoTraceParent;

    fn try_from(text: String) -> Result<Self, NoTraceParent> {
        text.parse()
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match &self.state {
            None => to.serialize_str(self.write(&mut [0; PARENT])),
            Some(_) => to.collect_str(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let context: TraceContext = GOOD.parse().unwrap();
        assert_eq!(context.to_string(), GOOD);
        assert!(context.is_sampled() && !context.clone().unsampled().is_sampled());
        let noted = context.with_state("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE");
        assert_eq!(noted.state(), Some("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"));
        let kept = serde_json::to_string(&noted).unwrap();
        assert_eq!(serde_json::from_str::<TraceContext>(&kept).unwrap(), noted);
        assert_eq!(noted.at(7).trace_id(), noted.trace_id());
    }

    #[test]
    fn every_digit_is_in_its_place() {
        for (trace, span, sampled) in [(7, 8, true), (u128::MAX, u64::MAX, false), (1 << 124, 1 << 60, true)]
        {
            let text = TraceContext::new(trace, span, sampled).unwrap().traceparent();
            assert_eq!(text, format!("00-{trace:032x}-{span:016x}-{:02x}", u8::from(sampled)));
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let later = GOOD.replacen("00", "cc", 1) + "-what-will-come";
        assert!(later.parse::<TraceContext>().is_ok());
        for bad in [
            "",
            "00",
            "-",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e47é6-00f067aa0ba902b7-01",
        ] {
            assert_eq!(bad.parse::<TraceContext>(), Err(NoTraceParent), "{bad}");
        }
    }

    #[test]
    fn a_state_that_is_none_is_left_out() {
        let context: TraceContext = GOOD.parse().unwrap();
        for bad in ["", "novalue", "a=\u{1}", &format!("a={}", "x".repeat(512))] {
            assert_eq!(context.clone().with_state(bad).state(), None, "{bad}");
        }
    }
}
