//! Secrets of a build, and how they are kept out of everything that is kept.
//!
//! A value is looked for as it is, line by line where it has several, and in the forms that programs print it in:
//! base64 of both alphabets wherever it stands in what was encoded, hexadecimal, percent and JSON escapes. Output
//! comes in pieces that end anywhere: what may be the beginning of a value is held back until it is known.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use domain::{Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A shorter value is found in too much that is none.
const MIN_BYTES: usize = 8;
const MAX_BYTES: usize = 64 * 1024;

/// A secret as a build has it: what its commands get, and which value it is, without saying it.
#[derive(Clone)]
pub struct BuildSecret {
    name: String,
    value: String,
    version: String,
}

impl BuildSecret {
    /// `key` makes the version one that can't be guessed from outside: a keyed hash of name and value.
    ///
    /// Errors: `Invalid` for a value that is too short to be told from other text, too long, or no text.
    pub fn new(name: &str, value: Vec<u8>, key: &[u8; 32]) -> Result<Self> {
        let wrong = |why: String| Err(Error::invalid(format!("secret `{name}` {why}")));
        let Ok(value) = String::from_utf8(value) else { return wrong("is not text in UTF-8".into()) };
        if value.len() < MIN_BYTES {
            return wrong(format!(
                "has {} bytes: fewer than {MIN_BYTES} can't be told from other text in a log",
                value.len()
            ));
        }
        if value.len() > MAX_BYTES || value.contains('\0') {
            return wrong(format!("is longer than {MAX_BYTES} bytes, or holds a NUL"));
        }
        #[allow(clippy::expect_used)] // HMAC takes a key of any length
        let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key of any length is good");
        for part in ["hotbed build secret", name, &value] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let version = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
        Ok(Self { name: name.to_owned(), value, version })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Equal for equal values of one name on one installation; says nothing else.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The secret itself, for the command that asked for it.
    pub(crate) fn expose(&self) -> &str {
        &self.value
    }
}

impl fmt::Debug for BuildSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BuildSecret({})", self.name)
    }
}

/// Takes the values of secrets out of texts. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Redactor(Option<Arc<Needles>>);

struct Needles {
    automaton: AhoCorasick,
    forms: Vec<Vec<u8>>,
    /// What each form is replaced by.
    words: Vec<String>,
    longest: usize,
}

impl Redactor {
    pub(crate) fn new(secrets: &[BuildSecret]) -> Self {
        let mut forms: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for secret in secrets {
            for form in forms_of(&secret.value) {
                forms.entry(form).or_insert_with(|| format!("[secret {}]", secret.name));
            }
        }
        if forms.is_empty() {
            return Self(None);
        }
        let (forms, words): (Vec<_>, Vec<_>) = forms.into_iter().unzip();
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        let built = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&forms);
        #[allow(clippy::expect_used)] // the sizes are bounded far below what the automaton can't hold
        let automaton = built.expect("an automaton of bounded size");
        Self(Some(Arc::new(Needles { automaton, forms, words, longest })))
    }

    /// A text that is whole.
    pub(crate) fn text(&self, text: &str) -> String {
        let mut stream = self.stream();
        let mut out = stream.push(text.as_bytes());
        out.extend(stream.end());
        String::from_utf8_lossy(&out).into_owned()
    }

    /// An error without the values; its causes become words.
    pub(crate) fn error(&self, error: Error) -> Error {
        match self.0 {
            None => error,
            Some(_) => Error::new(error.kind(), self.text(&error.chain())),
        }
    }

    /// For a text that comes in pieces.
    pub(crate) fn stream(&self) -> RedactedStream {
        RedactedStream { needles: self.0.clone(), held: Vec::new() }
    }
}

/// A text on its way, without the end that may be the beginning of a secret.
pub(crate) struct RedactedStream {
    needles: Option<Arc<Needles>>,
    held: Vec<u8>,
}

impl RedactedStream {
    /// What can be shown of what has come so far.
    pub(crate) fn push(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(needles) = self.needles.clone() else { return data.to_vec() };
        self.held.extend_from_slice(data);
        let safe = needles.begun_at(&self.held);
        self.take(&needles, safe)
    }

    /// The rest.
    pub(crate) fn end(&mut self) -> Vec<u8> {
        let Some(needles) = self.needles.clone() else { return Vec::new() };
        let all = self.held.len();
        self.take(&needles, all)
    }

    /// Shows what is before `safe`, and keeps the rest.
    fn take(&mut self, needles: &Needles, safe: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.held.len());
        let mut at = 0;
        for found in needles.automaton.find_iter(&self.held) {
            // One that begins where a longer one may be under way has to wait.
            if found.start() >= safe {
                break;
            }
            out.extend_from_slice(&self.held[at..found.start()]);
            out.extend_from_slice(needles.words[found.pattern().as_usize()].as_bytes());
            at = found.end();
        }
        let shown = safe.max(at);
        out.extend_from_slice(&self.held[at..shown]);
        self.held.drain(..shown);
        out
    }
}

impl Needles {
    /// Where the longest end of `text` begins that a form begins with.
    fn begun_at(&self, text: &[u8]) -> usize {
        let from = text.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |at: usize| {
            let end = &text[at..];
            self.forms.iter().any(|form| form.len() > end.len() && form.starts_with(end))
        };
        (from..text.len()).find(|at| begins(*at)).unwrap_or(text.len())
    }
}

/// Every form in which a value may be printed.
fn forms_of(value: &str) -> Vec<Vec<u8>> {
    let mut forms: Vec<Vec<u8>> = Vec::new();
    let lines = value.lines().map(str::trim);
    for text in lines.chain([value, value.trim()]).filter(|t| t.len() >= MIN_BYTES) {
        let bytes = text.as_bytes();
        forms.push(bytes.to_vec());
        for shift in 0..3 {
            forms.push(base64_inside(&STANDARD_NO_PAD, bytes, shift));
            forms.push(base64_inside(&URL_SAFE_NO_PAD, bytes, shift));
        }
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        forms.push(hex.to_uppercase().into_bytes());
        forms.push(hex.into_bytes());
        for form in [percent(text, false), percent(text, true), json(text), text.replace('\'', "'\\''")] {
            forms.push(form.into_bytes());
        }
    }
    forms.retain(|form| form.len() >= MIN_BYTES);
    forms
}

/// What base64 of any text makes of `bytes` where they begin `shift` bytes after a multiple of three, without the
/// characters that hold bits of their neighbours.
fn base64_inside(engine: &impl base64::Engine, bytes: &[u8], shift: usize) -> Vec<u8> {
    let mut shifted = vec![0; shift];
    shifted.extend_from_slice(bytes);
    let encoded = engine.encode(&shifted).into_bytes();
    let begin = [0, 2, 3][shift];
    // The last character is shared where the bytes don't fill it.
    let end = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
    encoded[begin.min(end)..end].to_vec()
}

fn percent(text: &str, lower: bool) -> String {
    let mut out = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else if lower {
            out.push_str(&format!("%{byte:02x}"));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

fn json(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use proptest::prelude::*;

    const TOKEN: &str = "s3cr3t/To+ken?=#1";

    fn redactor(value: &str) -> Redactor {
        Redactor::new(&[BuildSecret::new("TOKEN", value.into(), &[7; 32]).unwrap()])
    }

    #[test]
    fn a_value_is_taken_out_in_each_of_its_forms() {
        let redactor = redactor(TOKEN);
        for text in [
            TOKEN.to_owned(),
            format!("Authorization: Basic {}", STANDARD_NO_PAD.encode(format!("me:{TOKEN}"))),
            STANDARD_NO_PAD.encode(TOKEN),
            base64::engine::general_purpose::STANDARD.encode(format!("a{TOKEN}z")),
            URL_SAFE_NO_PAD.encode(format!("ab{TOKEN}")),
            TOKEN.bytes().map(|b| format!("{b:02x}")).collect(),
            TOKEN.bytes().map(|b| format!("{b:02X}")).collect(),
            format!("https://x/?t={}", percent(TOKEN, false)),
            percent(TOKEN, true),
        ] {
            let shown = redactor.text(&format!("before {text} after"));
            assert!(shown.contains("[secret TOKEN]"), "{text}: {shown}");
            assert!(shown.starts_with("before ") && shown.ends_with(" after"), "{shown}");
            assert!(!shown.contains("s3cr3t") && !shown.contains("To+ken"), "{shown}");
        }
        assert_eq!(redactor.text("nothing of it"), "nothing of it");
    }

    #[test]
    fn each_line_of_a_key_is_one() {
        let key = "-----BEGIN KEY-----\nAAAABBBBCCCCDDDD\nEEEEFFFFGGGG\n-----END KEY-----\n";
        let redactor = redactor(key);
        let shown = redactor.text("1: AAAABBBBCCCCDDDD\n2: EEEEFFFFGGGG\n");
        assert_eq!(shown, "1: [secret TOKEN]\n2: [secret TOKEN]\n");
        assert_eq!(redactor.text(&format!("<{key}>")), "<[secret TOKEN]>");
        assert_eq!(redactor.text(&json(key)), "[secret TOKEN]");
    }

    #[test]
    fn what_is_too_short_or_no_text_is_refused() {
        let new = |value: &[u8]| BuildSecret::new("PIN", value.to_vec(), &[7; 32]);
        for (value, why) in [(&b"1234"[..], "4 bytes"), (b"", "0 bytes"), (&[0xff; 20], "UTF-8")] {
            let error = new(value).unwrap_err().to_string();
            assert!(error.contains("`PIN`") && error.contains(why), "{error}");
        }
        assert!(new(&[b'x'; MAX_BYTES + 1]).is_err());
        assert_eq!(format!("{:?}", new(b"12345678").unwrap()), "BuildSecret(PIN)");
    }

    #[test]
    fn a_version_is_that_of_name_value_and_installation() {
        let version = |name: &str, value: &str, key: u8| {
            BuildSecret::new(name, value.into(), &[key; 32]).unwrap().version().to_owned()
        };
        let one = version("A", "12345678", 1);
        assert_eq!(one, version("A", "12345678", 1));
        assert_eq!(one.len(), 64);
        for other in [version("B", "12345678", 1), version("A", "12345679", 1), version("A", "12345678", 2)] {
            assert_ne!(one, other);
        }
    }

    proptest! {
        /// Cut anywhere, a text shows what it shows whole, and nothing of the value.
        #[test]
        fn pieces_read_like_the_whole(
            parts in prop::collection::vec(prop_oneof![Just(TOKEN.to_owned()), Just("s3cr3t".to_owned()), "[a-z\n]{0,9}"], 0..12),
            cuts in prop::collection::vec(1usize..9, 1..40),
        ) {
            let text = parts.concat();
            let redactor = redactor(TOKEN);
            let mut stream = redactor.stream();
            let (mut out, mut rest) = (Vec::new(), text.as_bytes());
            for cut in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                out.extend(stream.push(now));
                rest = later;
            }
            out.extend(stream.end());
            let out = String::from_utf8(out).unwrap();
            prop_assert_eq!(&out, &text.replace(TOKEN, "[secret TOKEN]"));
            prop_assert_eq!(out, redactor.text(&text));
        }

        /// Wherever it stands in what was encoded, and whatever surrounds it.
        #[test]
        fn base64_hides_nothing(before in ".{0,20}", after in ".{0,20}") {
            let redactor = redactor(TOKEN);
            let encoded = STANDARD_NO_PAD.encode(format!("{before}{TOKEN}{after}"));
            prop_assert!(redactor.text(&encoded).contains("[secret TOKEN]"));
        }
    }

    /// Output that is no beginning of a secret is shown at once.
    #[test]
    fn nothing_is_held_back_without_need() {
        let mut stream = redactor(TOKEN).stream();
        assert_eq!(stream.push(b"compiling (1/2)"), b"compiling (1/2)");
        assert_eq!(stream.push(b" s3"), b" ");
        assert_eq!(stream.push(b" compiling"), b"s3 compiling");
        let mut plain = Redactor::default().stream();
        assert_eq!(plain.push(b"s3cr3t"), b"s3cr3t");
    }
}
