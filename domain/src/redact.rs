//! Takes secrets out of a text: by value (what this process holds, [`in_use`]) and by shape (tokens of the forge, JSON web
//! tokens, private keys).
//!
//! For logs, errors, events and output. Shapes are known by how they begin; nothing here knows how long a token is,
//! because forges change that. Values are those of the whole process: a log belongs to nobody in particular, and a secret
//! is one wherever it shows.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use zeroize::Zeroizing;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";

/// How tokens of GitHub begin. The prefix stays readable: it says what kind of token was there.
const PREFIXES: [&str; 6] = ["ghs_", "ghu_", "ghr_", "gho_", "ghp_", "github_pat_"];
/// Basic authority as git sends it: base64 of `x-access-token:` and the token.
const BASIC: &str = "eC1hY2Nlc3MtdG9rZW46";
/// Base64 of `{"`, with which each of the first two parts of a JSON web token begins.
const JWT: &str = "eyJ";
const PEM_BEGIN: &str = "-----BEGIN ";
const PEM_END: &str = "-----END ";
/// A part of a JSON web token that is shorter than this is a word with dots.
const JWT_PART: usize = 8;
/// A value that is shorter than this would blot out innocent text.
const SHORTEST: usize = 8;
/// As it is, in quotes, and in quotes within quotes (what was debugged, in a line of JSON).
const FORMS: usize = 3;

/// The values that are secret in this process now. Whoever takes a token in keeps it here.
pub fn in_use() -> &'static Secrets {
    static IN_USE: LazyLock<Secrets> = LazyLock::new(Secrets::default);
    &IN_USE
}

/// Takes out what is secret in this process, and what has the shape of a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    in_use().redact(text)
}

/// The same in every text of a JSON value.
pub fn redact_json(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            if let Cow::Owned(without) = redact(text) {
                *text = without;
            }
        }
        Value::Array(all) => all.iter_mut().for_each(redact_json),
        Value::Object(all) => all.values_mut().for_each(redact_json),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Takes out what has the shape of a secret.
fn shapes(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some((start, end)) = next_shape(text, at) {
        out.push_str(&text[kept..start]);
        out.push_str(REDACTED);
        kept = end;
        at = end;
    }
    if kept == 0 {
        return Cow::Borrowed(text);
    }
    out.push_str(&text[kept..]);
    Cow::Owned(out)
}

/// Where the next secret begins and ends, looking from byte `from` on.
fn next_shape(text: &str, from: usize) -> Option<(usize, usize)> {
    let bytes = text.as_bytes();
    (from..bytes.len()).filter(|i| matches!(bytes[*i], b'g' | b'e' | b'-')).find_map(|i| shape_at(text, i))
}

/// The secret that begins at byte `i`, if one does. `i` is an ASCII byte and so a boundary.
fn shape_at(text: &str, i: usize) -> Option<(usize, usize)> {
    let rest = &text[i..];
    for prefix in PREFIXES {
        if let Some(token) = rest.strip_prefix(prefix) {
            let length = run(token, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
            return (length > 0).then_some((i + prefix.len(), i + prefix.len() + length));
        }
    }
    if let Some(credential) = rest.strip_prefix(BASIC) {
        let length = run(credential, |b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'='));
        return (length > 0).then_some((i + BASIC.len(), i + BASIC.len() + length));
    }
    if rest.starts_with(JWT) {
        return jwt_length(rest).map(|length| (i, i + length));
    }
    if rest.starts_with(PEM_BEGIN) {
        return pem_length(rest).map(|length| (i, i + length));
    }
    None
}

fn run(text: &str, belongs: impl Fn(u8) -> bool) -> usize {
    text.bytes().position(|b| !belongs(b)).unwrap_or(text.len())
}

fn jwt_length(text: &str) -> Option<usize> {
    let part = |text: &str| run(text, |b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let mut length = 0;
    for n in 0..3 {
        if n > 0 {
            text[length..].strip_prefix('.')?;
            length += 1;
        }
        let this = part(&text[length..]);
        if this < JWT_PART {
            return None;
        }
        length += this;
    }
    Some(length)
}

/// A private key, to its end or, where that was cut off, to the end of the text.
fn pem_length(text: &str) -> Option<usize> {
    let label = text[PEM_BEGIN.len()..].split("-----").next()?;
    if !label.ends_with("PRIVATE KEY") || label.len() > 64 {
        return None;
    }
    let Some(end) = text.find(PEM_END) else { return Some(text.len()) };
    let closing =
        text[end + PEM_END.len()..].find("-----").map_or(text.len(), |n| end + PEM_END.len() + n + 5);
    Some(closing)
}

/// The values that are secret now. Cheap to clone; all clones know the same values.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<Values>>);

type Value = Arc<Zeroizing<String>>;

/// The values by how they begin, so that a text is gone through once, however many there are: with a forge there is
/// one for each repository.
#[derive(Default)]
struct Values {
    /// By a hash of their first [`SHORTEST`] bytes, which is no piece of a secret itself.
    by_head: HashMap<u64, Vec<Value>>,
    /// How many begin with each byte: most places of a text are passed over by it.
    first: Vec<u32>,
    hasher: RandomState,
}

impl Values {
    fn head(&self, bytes: &[u8]) -> Option<u64> {
        bytes.get(..SHORTEST).map(|head| self.hasher.hash_one(head))
    }

    /// `value` has [`SHORTEST`] bytes at least.
    fn insert(&mut self, value: Value) {
        let Some(head) = self.head(value.as_bytes()) else { return };
        self.first.resize(256, 0);
        self.first[usize::from(value.as_bytes()[0])] += 1;
        self.by_head.entry(head).or_default().push(value);
    }

    fn remove(&mut self, value: &Value) {
        let Some(head) = self.head(value.as_bytes()) else { return };
        let Some(same) = self.by_head.get_mut(&head) else { return };
        let Some(at) = same.iter().position(|v| Arc::ptr_eq(v, value)) else { return };
        same.swap_remove(at);
        if same.is_empty() {
            self.by_head.remove(&head);
        }
        self.first[usize::from(value.as_bytes()[0])] -= 1;
    }

    /// Where values stand, from the left, the longest where several begin at one place.
    fn places(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        let (mut places, mut from) = (Vec::new(), 0);
        if self.by_head.is_empty() {
            return places;
        }
        while let Some(rest) = bytes.get(from..).filter(|rest| rest.len() >= SHORTEST) {
            let Some(at) = rest.iter().position(|b| self.first[usize::from(*b)] > 0) else { break };
            let rest = &rest[at..];
            let same = self.head(rest).and_then(|head| self.by_head.get(&head));
            let lengths =
                same.into_iter().flatten().filter(|v| rest.starts_with(v.as_bytes())).map(|v| v.len());
            match lengths.max() {
                Some(length) => {
                    places.push(from + at..from + at + length);
                    from += at + length;
                }
                None => from += at + 1,
            }
        }
        places
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// Keeps one value secret for as long as it lives.
#[must_use = "the value is secret only as long as this lives"]
pub struct KeptSecret {
    of: Secrets,
    /// As it is, and as it stands in quotes where that is something else.
    forms: Vec<Value>,
}

impl fmt::Debug for KeptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeptSecret(…)")
    }
}

impl Drop for KeptSecret {
    fn drop(&mut self) {
        let mut values = self.of.0.write().unwrap_or_else(PoisonError::into_inner);
        for form in &self.forms {
            values.remove(form);
        }
    }
}

impl Secrets {
    /// From now on `value` is taken out of what passes [`Secrets::redact`]. Values under eight characters are
    /// not: they would blot out innocent text.
    pub fn keep(&self, value: &str) -> KeptSecret {
        let mut forms: Vec<Value> = Vec::new();
        if value.len() >= SHORTEST {
            let mut form = Zeroizing::new(value.to_owned());
            for _ in 0..FORMS {
                let quoted = Zeroizing::new(format!("{:?}", form.as_str()));
                let inside = Zeroizing::new(quoted[1..quoted.len() - 1].to_owned());
                let same = *inside == *form;
                forms.push(Arc::new(std::mem::replace(&mut form, inside)));
                if same {
                    break;
                }
            }
            let mut values = self.0.write().unwrap_or_else(PoisonError::into_inner);
            for form in &forms {
                values.insert(form.clone());
            }
        }
        KeptSecret { of: self.clone(), forms }
    }

    /// Writes `*` over the known values: for output that is counted in bytes, whose length must stay. A value that is
    /// cut in two by a boundary of pieces is not seen.
    pub fn mask(&self, bytes: &mut [u8]) -> bool {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner).places(bytes);
        for place in &places {
            bytes[place.clone()].fill(b'*');
        }
        !places.is_empty()
    }

    /// Takes out the known values, and then what has the shape of a secret.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let places = self.0.read().unwrap_or_else(PoisonError::into_inner).places(text.as_bytes());
        if places.is_empty() {
            return shapes(text);
        }
        let (mut out, mut from) = (String::with_capacity(text.len()), 0);
        for place in places {
            // A value is text itself, so it begins and ends where characters do.
            out.push_str(&text[from..place.start]);
            out.push_str(REDACTED);
            from = place.end;
        }
        out.push_str(&text[from..]);
        Cow::Owned(shapes(&out).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shapes_are_taken_out() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIxMjMifQ.c2lnbmF0dXJlLXBhcnQ";
        let cases = [
            ("token ghs_abc123, next", "token ghs_[redacted], next"),
            ("ghu_a ghr_b gho_c ghp_d", "ghu_[redacted] ghr_[redacted] gho_[redacted] ghp_[redacted]"),
            ("github_pat_11AA_bb;", "github_pat_[redacted];"),
            ("https://x:ghp_hunter2@h/", "https://x:ghp_[redacted]@h/"),
            ("Basic eC1hY2Nlc3MtdG9rZW46Z2hzX2FiYw== end", "Basic eC1hY2Nlc3MtdG9rZW46[redacted] end"),
            ("the prefix ghs_ alone", "the prefix ghs_ alone"),
            ("eyJ.eyJ.x and eyJhbGci", "eyJ.eyJ.x and eyJhbGci"),
            ("ünï ghs_ü", "ünï ghs_ü"),
            ("nothing", "nothing"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected);
        }
        assert_eq!(redact(&format!("Bearer {jwt}\nnext")), "Bearer [redacted]\nnext");
        // The stateless form of an installation token: prefix, id of the App, JSON web token.
        assert_eq!(redact(&format!("ghs_123_{jwt} end")), "ghs_[redacted] end");
        let pem = "a -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- b";
        assert_eq!(redact(pem), "a [redacted] b");
        assert_eq!(redact("-----BEGIN PRIVATE KEY-----\nMIIE"), "[redacted]");
        let public = "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----";
        assert_eq!(redact(public), public);
    }

    #[test]
    fn values_are_taken_out_while_they_are_kept() {
        let secrets = Secrets::default();
        let kept = secrets.keep("correct horse battery");
        let short = secrets.keep("a");
        assert_eq!(secrets.redact("say correct horse battery, a ghs_x"), "say [redacted], a ghs_[redacted]");
        drop((kept, short));
        assert_eq!(secrets.redact("say correct horse battery"), "say correct horse battery");
        assert_eq!(format!("{secrets:?}"), "Secrets(…)");
    }

    #[test]
    fn a_value_of_odd_shape_is_known_in_quotes_too_and_by_all() {
        let odd = r#"odd"\ shape~1"#;
        let kept = in_use().keep(odd);
        let quoted = serde_json::json!({ "said": odd }).to_string();
        for text in [format!("it is {odd}."), quoted, format!("{odd:?}")] {
            let out = redact(&text);
            assert!(out.contains(REDACTED) && !out.contains("shape~1"), "{out}");
        }
        let mut event = serde_json::json!({"a": ["b", {"c": odd}], "n": 1});
        redact_json(&mut event);
        assert_eq!(event, serde_json::json!({"a": ["b", {"c": REDACTED}], "n": 1}));
        let mut bytes = format!("\u{1}oddly {odd}{odd}").into_bytes();
        let length = bytes.len();
        assert!(in_use().mask(&mut bytes) && bytes.len() == length);
        assert!(bytes.ends_with(format!("oddly {}", "*".repeat(2 * odd.len())).as_bytes()));
        drop(kept);
        assert!(!in_use().mask(&mut odd.as_bytes().to_vec()));
    }

    #[test]
    fn of_values_that_begin_alike_the_longest_is_taken_out() {
        let secrets = Secrets::default();
        let kept: Vec<_> =
            ["ghs-like-1", "ghs-like-1-and-more", "ghs-like-2", "ünïcode-ß"].map(|v| secrets.keep(v)).into();
        let twice = secrets.keep("ghs-like-2");
        let text = "ghs-like-1-and-more, ghs-like-1, ghs-like-22, ghs-like-3, ünïcode-ßß ghs-lik";
        let expected = "[redacted], [redacted], [redacted]2, ghs-like-3, [redacted]ß ghs-lik";
        assert_eq!(secrets.redact(text), expected);
        drop(twice);
        assert_eq!(secrets.redact(text), expected, "somebody else still keeps it");
        drop(kept);
        assert_eq!(secrets.redact(text), text);
        assert!(secrets.0.read().unwrap().by_head.is_empty());
        assert!(secrets.0.read().unwrap().first.iter().all(|n| *n == 0));
    }

    proptest! {
        /// However many are kept and whatever stands between them, none comes through, and nothing else is lost.
        #[test]
        fn no_value_that_is_kept_comes_through(values in prop::collection::vec("[ab]{8,12}", 0..12), between in "[abc]{0,80}") {
            let secrets = Secrets::default();
            let kept: Vec<_> = values.iter().map(|v| secrets.keep(v)).collect();
            let mut bytes = between.clone().into_bytes();
            let found = secrets.mask(&mut bytes);
            let masked = String::from_utf8(bytes).unwrap();
            prop_assert_eq!(found, values.iter().any(|v| between.contains(v.as_str())));
            prop_assert!(values.iter().all(|v| !masked.contains(v.as_str())));
            prop_assert!(masked.bytes().zip(between.bytes()).all(|(m, b)| m == b || m == b'*'));
            prop_assert_eq!(secrets.redact(&between).into_owned() != between, found);
            drop(kept);
            prop_assert_eq!(secrets.redact(&between).into_owned(), between);
        }

        /// Whatever stands around a token of whatever length, it does not come through; twice is as once.
        #[test]
        fn no_token_comes_through(before in "[^A-Za-z0-9_.-]{0,8}", token in "[A-Za-z0-9]{12,300}", after in "[^A-Za-z0-9_.-].{0,8}", which in 0..6usize) {
            let text = format!("{before}{}{token}{after}", PREFIXES[which]);
            let out = redact(&text).into_owned();
            prop_assert!(!out.contains(&token), "{out}");
            prop_assert!(out.contains(REDACTED));
        }

        #[test]
        fn any_text_is_taken(text in "\\PC{0,60}(ghs_|eyJ|-----BEGIN PRIVATE KEY-----)?\\PC{0,60}") {
            let once = redact(&text).into_owned();
            // The mark itself is no secret.
            prop_assert_eq!(redact(&once).into_owned(), once);
        }
    }
}
