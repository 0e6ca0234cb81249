//! The session's own token: what a command in a sandbox shows when it asks Hotbed for something.
//!
//! It names the session and is signed with the installation's secret; nothing is stored. It is good on the relay of the
//! sandbox that the session holds, while the session lives, and nowhere else: who copies it out of there has nothing.

use domain::SessionId;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::fleet::hex;

const PREFIX: &str = "hbs_";
/// Keeps this signature apart from any other that is made with the same secret.
const PURPOSE: &[u8] = b"hotbed session token 1\0";

pub fn issue(secret: &[u8; 32], session: SessionId) -> String {
    format!("{PREFIX}{}", hex(&mac(secret, session).finalize().into_bytes()))
}

/// Whether `token` is the one of this session. Takes the same time wherever it differs.
pub fn is_of(secret: &[u8; 32], session: SessionId, token: &str) -> bool {
    let sign = token.strip_prefix(PREFIX).and_then(crate::fleet::unhex);
    sign.is_some_and(|sign| mac(secret, session).verify_slice(&sign).is_ok())
}

fn mac(secret: &[u8; 32], session: SessionId) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is good");
    mac.update(PURPOSE);
    mac.update(session.to_string().as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_good_for_one_session() {
        let (secret, session) = ([7; 32], SessionId::new());
        let token = issue(&secret, session);
        assert!(is_of(&secret, session, &token));
        assert!(!is_of(&secret, SessionId::new(), &token));
        assert!(!is_of(&[8; 32], session, &token));
        for wrong in ["", "hbs_", "hbs_zz", "hbs_é0", &token[4..], &token[..token.len() - 2]] {
            assert!(!is_of(&secret, session, wrong), "{wrong}");
        }
    }
}
