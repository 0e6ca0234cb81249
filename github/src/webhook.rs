//! Webhooks: whether a delivery is GitHub's, and what it says. Pure: receiving, storing and working off are the
//! server's; in which order to believe what it says is the domain's ([`domain::Life`]).

mod event;

use std::fmt;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, verify};
use domain::{Error, Result};

pub use event::{
    Event, InstallationChange, InstallationRepositories, PullRequestNews, Push, RepositoryChange,
    RepositoryRef, ReviewNews,
};

/// GitHub sends no more.
pub const MAX_BODY: usize = 25 * 1024 * 1024;

/// The secrets that webhooks may be signed with: two while one is exchanged for the other.
pub struct WebhookSecrets(Vec<Key>);

impl fmt::Debug for WebhookSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookSecrets({})", self.0.len())
    }
}

impl WebhookSecrets {
    /// # Errors
    /// `Invalid` without a secret, or for an empty one: anybody could sign with it.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self> {
        let keys: Vec<Key> = secrets
            .into_iter()
            .map(|s| (s, Key::new(HMAC_SHA256, s)))
            .map(|(s, k)| (!s.is_empty()).then_some(k))
            .collect::<Option<_>>()
            .unwrap_or_default();
        if keys.is_empty() {
            return Err(Error::invalid("the webhook secret is missing or empty"));
        }
        Ok(Self(keys))
    }

    /// Whether `signature` (the header `X-Hub-Signature-256`) is that of these bytes, under any of the secrets. The
    /// comparison takes the same time wherever they differ.
    pub fn believe(&self, body: &[u8], signature: Option<&str>) -> bool {
        let Some(tag) = signature.and_then(|s| s.strip_prefix("sha256=")).and_then(unhex) else {
            return false;
        };
        // Each is tried, so that the time does not say which it was.
        self.0.iter().fold(false, |believed, key| verify(key, body, &tag).is_ok() | believed)
    }
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let mut out = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, two) in out.iter_mut().zip(text.chunks(2)) {
        let digit = |b: u8| (b as char).to_digit(16);
        *byte = u8::try_from(digit(two[0])? << 4 | digit(two[1])?).ok()?;
    }
    Some(out)
}

/// The JSON of a body, which may come as a form's field `payload`.
pub fn payload<'a>(content_type: &str, body: &'a [u8]) -> Result<std::borrow::Cow<'a, [u8]>> {
    if !content_type.trim_start().starts_with("application/x-www-form-urlencoded") {
        return Ok(body.into());
    }
    let field = body.split(|b| *b == b'&').find_map(|f| f.strip_prefix(b"payload="));
    let field = field.ok_or_else(|| Error::invalid("the form has no field `payload`"))?;
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.iter();
    while let Some(b) = bytes.next() {
        out.push(match b {
            b'+' => b' ',
            b'%' => {
                let mut digit = || bytes.next().and_then(|b| (*b as char).to_digit(16));
                let (high, low) = (digit(), digit());
                let wrong = || Error::invalid("the form's field `payload` is not escaped as forms are");
                u8::try_from(high.ok_or_else(wrong)? << 4 | low.ok_or_else(wrong)?).map_err(|_| wrong())?
            }
            b => *b,
        });
    }
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &[u8] = b"It's a Secret to Everybody";
    const BODY: &[u8] = b"Hello, World!";
    const SIGNED: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

    /// GitHub's own example.
    #[test]
    fn the_published_signature_is_believed_and_nothing_else() {
        let secrets = WebhookSecrets::new([SECRET]).unwrap();
        assert!(secrets.believe(BODY, Some(SIGNED)));
        assert!(secrets.believe(BODY, Some(&SIGNED.replace('a', "A").replace("shA", "sha"))));
        for forged in [
            None,
            Some(""),
            Some("sha256="),
            Some(&SIGNED[..70]),
            Some(&SIGNED[7..]),
            Some(&SIGNED.replace('7', "8")),
            Some(&SIGNED.replace("sha256", "sha1")),
            Some("sha256=zz7107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
        ] {
            assert!(!secrets.believe(BODY, forged), "{forged:?}");
        }
        assert!(!secrets.believe(b"Hello, World", Some(SIGNED)));
        assert_eq!(format!("{secrets:?}"), "WebhookSecrets(1)");
    }

    #[test]
    fn two_secrets_are_good_while_one_replaces_the_other() {
        let both = WebhookSecrets::new([b"new".as_slice(), SECRET]).unwrap();
        assert!(both.believe(BODY, Some(SIGNED)));
        assert!(!WebhookSecrets::new([b"new".as_slice()]).unwrap().believe(BODY, Some(SIGNED)));
        assert!(WebhookSecrets::new([]).is_err());
        assert!(WebhookSecrets::new([SECRET, b"".as_slice()]).is_err());
    }

    #[test]
    fn forms_are_read() {
        let form = b"x=1&payload=%7B%22a%22%3A%22b+c%22%7D";
        assert_eq!(&*payload("application/x-www-form-urlencoded", form).unwrap(), br#"{"a":"b c"}"#);
        assert_eq!(&*payload("application/json", b"{}").unwrap(), b"{}");
        assert!(payload("application/x-www-form-urlencoded", b"payload=%7").is_err());
        assert!(payload("application/x-www-form-urlencoded", b"other=1").is_err());
    }
}
