//! The error that crosses every port: a kind that callers branch on, and what was being done, in words.
//!
//! The source is kept and not repeated in `Display`; whoever handles the error logs the chain once.

use std::fmt;
use std::time::Duration;

/// What a caller can do about an error. Everything else about it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request itself is wrong; repeating it changes nothing. (HTTP 400 or 422)
    Invalid,
    /// What was named does not exist. (404)
    NotFound,
    /// It clashes with what exists already: a duplicate name, a second end, another body under one key. (409)
    Conflict,
    /// It existed and has ended. (410)
    Gone,
    /// The authority that was given does not reach, or is believed no longer. Another authority helps (signing in
    /// again, a wider permission); repeating does not. (403)
    Denied,
    /// A limit is reached for now: queue, budget, disk. Try later. (503, Retry-After)
    Exhausted,
    /// The other side can't be reached or is starting. Try later. (503, Retry-After)
    Unavailable,
    /// No answer within the deadline; whether the deed was done is not known. (504)
    Timeout,
    /// It failed, and trying again as it is will fail again. (500)
    Permanent,
}

impl ErrorKind {
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::NotFound,
        Self::Conflict,
        Self::Gone,
        Self::Exhausted,
        Self::Unavailable,
        Self::Timeout,
        Self::Permanent,
    ];

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Exhausted | Self::Unavailable | Self::Timeout)
    }

    /// A fixed word, for metric labels and problem types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Denied => "denied",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Permanent => "permanent",
        }
    }
}

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// An error of a port. Build it with [`Error::new`] or the shorthand of its kind, add the cause with
/// [`Error::caused_by`].
pub struct Error {
    kind: ErrorKind,
    context: String,
    source: Option<Source>,
    /// Seconds; 0 when nobody said.
    retry_after: u32,
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// `context` says what was being done, in words: "start container sbx_…".
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, retry_after: 0 }
    }

    pub fn invalid(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, context)
    }
    pub fn not_found(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, context)
    }
    pub fn conflict(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, context)
    }
    pub fn gone(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Gone, context)
    }
    pub fn denied(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, context)
    }
    pub fn exhausted(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Exhausted, context)
    }
    pub fn unavailable(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, context)
    }
    pub fn timeout(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Timeout, context)
    }
    pub fn permanent(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Permanent, context)
    }

    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says how long it takes until trying again makes sense, in whole seconds, rounded up.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after = u32::try_from(whole.max(1)).unwrap_or(u32::MAX);
        self
    }

    /// How long the other side asked to wait, where it did.
    pub fn wait(&self) -> Option<Duration> {
        (self.retry_after > 0).then(|| Duration::from_secs(self.retry_after.into()))
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    pub fn context(&self) -> &str {
        &self.context
    }

    /// The context and every cause below it, on one line, without secrets: for logs and for records that people read.
    pub fn chain(&self) -> String {
        let mut out = self.context.clone();
        let mut next = std::error::Error::source(self);
        while let Some(e) = next {
            let text = e.to_string();
            if !out.ends_with(&text) {
                out.push_str(": ");
                out.push_str(&text);
            }
            next = e.source();
        }
        match crate::redact::redact(&out) {
            std::borrow::Cow::Owned(without) => without,
            std::borrow::Cow::Borrowed(_) => out,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|s| &**s as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_names_each_cause_once() {
        let io = std::io::Error::other("connection refused");
        let inner = Error::unavailable("reach the engine").caused_by(io);
        let outer = Error::unavailable("start container x").caused_by(inner);
        assert_eq!(outer.to_string(), "start container x");
        assert_eq!(outer.chain(), "start container x: reach the engine: connection refused");
        assert!(outer.kind().is_retryable());
        assert_eq!(outer.wait(), None);
        assert_eq!(outer.retry_after(Duration::from_millis(1500)).wait(), Some(Duration::from_secs(2)));
    }
}
