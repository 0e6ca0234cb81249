//! What GitHub means when it says no: pure judgement over status, headers and body, and the words for people.
//!
//! Three things are kept apart, because callers do different things about them: a limit (wait), an authority that
//! does not reach (a person must act), and an answer that never came (the deed may have been done).

use std::time::Duration;

use bytes::Bytes;
use domain::redact::redact;
use domain::{Error, ErrorKind};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use serde::Deserialize;

/// What GitHub asks for when it names no time: the shortest wait, doubled at each repetition.
pub(crate) const SECONDARY_WAIT: Duration = Duration::from_secs(60);
/// A longer wait than this is not believed: a clock that is wrong must not stop a queue for a day.
const LONGEST_WAIT: Duration = Duration::from_secs(2 * 3600);
/// Characters of GitHub's own words that go into an error.
const MESSAGE: usize = 400;

/// An answer as it came: nothing has been concluded from it.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why a call did not give what was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A limit. `wait` is what GitHub asked for.
    Limited { wait: Option<Duration>, secondary: bool, message: String },
    /// 401: the authority is not believed.
    Unauthorized { message: String, date: Option<Timestamp> },
    /// 403 that is no limit: the authority does not reach.
    Forbidden { message: String, sso: bool },
    /// 404, which is also what GitHub says of a private repository to those who may not see it.
    NotFound { message: String },
    /// The address has changed: a repository was renamed or transferred.
    Moved { to: Option<String> },
    /// 422.
    Invalid(Refusal),
    /// 5xx. Whether the deed was done is not known.
    Server { status: StatusCode, message: String },
    /// No connection could be made: nothing was done.
    Unreachable { cause: String },
    /// The connection broke, or time ran out, after the request was sent. Whether the deed was done is not known.
    Unknown { cause: String, timeout: bool },
    /// This process stopped itself: too many wait in the queue already.
    Crowded,
    /// Anything else, unreadable answers included.
    Odd { status: StatusCode, message: String },
}

/// The body of a 422.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub message: String,
    pub errors: Vec<Detail>,
}

/// One of its errors. GitHub sends objects, and plain strings here and there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Detail {
    pub field: String,
    pub code: String,
    pub message: String,
}

impl Refusal {
    /// Whether any of the errors, or the message itself, holds these words.
    pub fn says(&self, words: &str) -> bool {
        let holds = |text: &str| text.to_ascii_lowercase().contains(&words.to_ascii_lowercase());
        holds(&self.message) || self.errors.iter().any(|e| holds(&e.message))
    }

    /// Whether this field is called invalid or missing.
    pub fn refuses(&self, field: &str) -> bool {
        self.errors.iter().any(|e| e.field == field)
    }

    fn words(&self) -> String {
        let each = self.errors.iter().map(|e| match (e.message.as_str(), e.field.as_str()) {
            ("", "") => e.code.clone(),
            ("", field) => format!("`{field}` is {}", e.code.replace('_', " ")),
            (message, _) => message.to_owned(),
        });
        let each: Vec<String> = each.filter(|w| !w.is_empty()).collect();
        if each.is_empty() { self.message.clone() } else { each.join("; ") }
    }
}

#[derive(Deserialize, Default)]
struct Body {
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    errors: serde_json::Value,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    fn number(&self, name: &str) -> Option<i64> {
        self.header(name)?.trim().parse().ok()
    }

    /// The server's own time, where it says it: limits are stated in it.
    pub fn date(&self) -> Option<Timestamp> {
        let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(self.header("date")?);
        date.ok()
    }

    /// Until when this lane has nothing left, if the answer says so: on a success as on a failure.
    pub fn spent(&self, now: Timestamp) -> Option<Duration> {
        (self.number("x-ratelimit-remaining")? <= 0).then(|| self.until_reset(now)).flatten()
    }

    fn until_reset(&self, now: Timestamp) -> Option<Duration> {
        let now = self.date().unwrap_or(now);
        // A second more: the reset is stated in whole seconds.
        let seconds = self.number("x-ratelimit-reset")? - now.as_second() + 1;
        Some(Duration::from_secs(seconds.max(1).unsigned_abs()).min(LONGEST_WAIT))
    }

    /// What a status that is no success means.
    pub fn failure(&self, now: Timestamp) -> Failure {
        let body: Body = serde_json::from_slice(&self.body).unwrap_or_default();
        let message = self.message(&body);
        match self.status.as_u16() {
            403 | 429 => self.forbidden(message, now),
            401 => Failure::Unauthorized { message, date: self.date() },
            404 | 410 => Failure::NotFound { message },
            301 | 302 | 307 | 308 => Failure::Moved { to: self.header("location").map(str::to_owned) },
            400 | 422 => Failure::Invalid(refusal(message, &body.errors)),
            500.. => Failure::Server { status: self.status, message },
            _ => Failure::Odd { status: self.status, message },
        }
    }

    fn forbidden(&self, message: String, now: Timestamp) -> Failure {
        let words = message.to_ascii_lowercase();
        let secondary = words.contains("secondary rate limit") || words.contains("abuse detection");
        let spent = self.number("x-ratelimit-remaining") == Some(0);
        let after = self
            .number("retry-after")
            .map(|s| Duration::from_secs(s.max(1).unsigned_abs()).min(LONGEST_WAIT));
        if after.is_some() || spent || secondary || self.status == StatusCode::TOO_MANY_REQUESTS {
            let wait = after.or_else(|| spent.then(|| self.until_reset(now)).flatten());
            return Failure::Limited { wait, secondary: secondary || !spent, message };
        }
        Failure::Forbidden { message, sso: self.headers.contains_key("x-github-sso") }
    }

    fn message(&self, body: &Body) -> String {
        let words = match &body.message {
            Some(message) => message.clone(),
            None => String::from_utf8_lossy(&self.body).trim().to_owned(),
        };
        let words = redact(&words).chars().take(MESSAGE).collect::<String>();
        if words.is_empty() { self.status.to_string() } else { words }
    }
}

fn refusal(message: String, errors: &serde_json::Value) -> Refusal {
    let text = |v: &serde_json::Value, key: &str| {
        redact(v.get(key).and_then(|v| v.as_str()).unwrap_or_default()).into_owned()
    };
    let one = |v: &serde_json::Value| match v.as_str() {
        Some(message) => Detail { message: redact(message).into_owned(), ..Detail::default() },
        None => Detail { field: text(v, "field"), code: text(v, "code"), message: text(v, "message") },
    };
    let errors = match errors {
        serde_json::Value::Array(all) => all.iter().map(one).collect(),
        serde_json::Value::String(_) => vec![one(errors)],
        _ => Vec::new(),
    };
    Refusal { message, errors }
}

impl Failure {
    /// Whether what was asked for may have been done all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Server { .. } | Self::Unknown { .. })
    }

    /// The error for callers. `doing` is what was being done, `remedy` what helps against a missing authority.
    pub fn into_error(self, doing: &str, remedy: &str) -> Error {
        let said = |what: &str, message: &str| {
            if message.is_empty() {
                format!("{doing}: {what}")
            } else {
                format!("{doing}: {what}: {message}")
            }
        };
        match self {
            Self::Limited { wait, secondary, message } => {
                let wait = wait.unwrap_or(SECONDARY_WAIT);
                let which = if secondary { "secondary rate limit" } else { "rate limit" };
                let seconds = wait.as_secs().max(1);
                Error::exhausted(said(
                    &format!("GitHub's {which} is reached, again in {seconds} s"),
                    &message,
                ))
                .retry_after(wait)
            }
            Self::Crowded => Error::exhausted(format!("{doing}: too many calls to GitHub wait already"))
                .retry_after(Duration::from_secs(5)),
            Self::Unauthorized { message, .. } => Error::denied(format!(
                "{}; {remedy}",
                said("GitHub does not believe the authority (any more)", &message)
            )),
            Self::Forbidden { message, sso: true } => Error::denied(format!(
                "{}; authorize this access for the organization's single sign-on at GitHub, then try again",
                said("the organization wants single sign-on", &message)
            )),
            Self::Forbidden { message, sso: false } => Error::denied(format!(
                "{}; the App's permissions and the user's own access to the repository must both allow it",
                said("GitHub does not allow it", &message)
            )),
            Self::NotFound { message } => {
                Error::not_found(said("GitHub shows nothing there to this authority", &message))
            }
            Self::Moved { to } => Error::conflict(format!(
                "{doing}: GitHub says that it has moved{}; name the repository in the configuration as it is called now",
                to.map(|to| format!(" to {to}")).unwrap_or_default()
            )),
            Self::Invalid(refusal) => Error::invalid(said("GitHub refuses it", &refusal.words())),
            Self::Server { status, message } => {
                Error::unavailable(said(&format!("GitHub answered {}", status.as_u16()), &message))
            }
            Self::Unreachable { cause } => {
                Error::unavailable(format!("{doing}: GitHub can't be reached")).caused_by(cause)
            }
            Self::Unknown { cause, timeout: true } => {
                Error::timeout(format!("{doing}: no answer of GitHub in time")).caused_by(cause)
            }
            Self::Unknown { cause, timeout: false } => {
                Error::unavailable(format!("{doing}: the answer of GitHub broke off")).caused_by(cause)
            }
            Self::Odd { status, message } => {
                let kind = if status.is_success() { ErrorKind::Unavailable } else { ErrorKind::Permanent };
                Error::new(
                    kind,
                    said(
                        &format!("GitHub answered {} in a way that is not understood", status.as_u16()),
                        &message,
                    ),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: &str) -> Answer {
        let headers =
            headers.iter().map(|(n, v)| (http::HeaderName::from_static(n), v.parse().unwrap())).collect();
        Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.to_owned().into() }
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn limits_are_told_from_refusals() {
        let primary =
            answer(403, &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1800000030")], "{}");
        let Failure::Limited { wait, secondary: false, .. } = primary.failure(now()) else { panic!() };
        assert_eq!(wait, Some(Duration::from_secs(31)));

        let secondary = answer(403, &[], r#"{"message":"You have exceeded a secondary rate limit."}"#);
        let Failure::Limited { wait: None, secondary: true, .. } = secondary.failure(now()) else { panic!() };

        let older = answer(
            403,
            &[("retry-after", "60")],
            r#"{"message":"You have triggered an abuse detection mechanism"}"#,
        );
        let Failure::Limited { wait, secondary: true, .. } = older.failure(now()) else { panic!() };
        assert_eq!(wait, Some(Duration::from_secs(60)));

        let plain = answer(
            403,
            &[("x-ratelimit-remaining", "4000")],
            r#"{"message":"Resource not accessible by integration"}"#,
        );
        assert!(matches!(plain.failure(now()), Failure::Forbidden { sso: false, .. }));
        assert!(matches!(answer(429, &[], "").failure(now()), Failure::Limited { wait: None, .. }));
    }

    /// The server's clock decides, not ours: its reset is stated in its time.
    #[test]
    fn the_servers_clock_decides() {
        let headers = [
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1000000030"),
            ("date", "Sun, 09 Sep 2001 01:46:40 GMT"),
        ];
        assert_eq!(answer(200, &headers, "").spent(now()), Some(Duration::from_secs(31)));
        let far = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9900000000")];
        assert_eq!(answer(200, &far, "").spent(now()), Some(LONGEST_WAIT));
        assert_eq!(answer(200, &[("x-ratelimit-remaining", "7")], "").spent(now()), None);
    }

    #[test]
    fn refusals_are_read_leniently() {
        let body = r#"{"message":"Validation Failed","errors":[{"resource":"PullRequest","code":"custom","message":"A pull request already exists for acme:x."},"No commits between main and x",{"field":"head","code":"invalid"}],"status":"422"}"#;
        let Failure::Invalid(refusal) = answer(422, &[], body).failure(now()) else { panic!() };
        assert!(
            refusal.says("pull request already exists")
                && refusal.says("no commits between")
                && refusal.refuses("head")
        );
        let words = Failure::Invalid(refusal).into_error("open", "").to_string();
        assert!(words.ends_with("No commits between main and x; `head` is invalid"), "{words}");
        let Failure::Invalid(refusal) = answer(422, &[], "not json").failure(now()) else { panic!() };
        assert_eq!(refusal.message, "not json");
    }

    /// Every failure has a kind to branch on, and no token in its words.
    #[test]
    fn failures_have_kinds_and_no_secrets() {
        let cases = [
            (401, "Bad credentials ghu_abc", ErrorKind::Denied),
            (403, "Resource not accessible by integration ghu_abc", ErrorKind::Denied),
            (404, "Not Found ghu_abc", ErrorKind::NotFound),
            (422, "ghu_abc", ErrorKind::Invalid),
            (429, "ghu_abc", ErrorKind::Exhausted),
            (502, "ghu_abc", ErrorKind::Unavailable),
            (418, "ghu_abc", ErrorKind::Permanent),
        ];
        for (status, message, kind) in cases {
            let body = serde_json::json!({ "message": message }).to_string();
            let error = answer(status, &[], &body).failure(now()).into_error("do it", "sign in again");
            assert_eq!(error.kind(), kind, "{error:?}");
            assert!(!error.chain().contains("ghu_abc"), "{error:?}");
        }
        assert_eq!(answer(429, &[], "").failure(now()).into_error("x", "").wait(), Some(SECONDARY_WAIT));
    }
}
