//! What a web page may hold: a token that announces and withdraws the warm-ups of one client, for a while, and does
//! nothing else. The API key of an installation has no business in a browser.
//!
//! It is signed and not stored: whoever holds the key of the installation has them made, and they end by themselves.

use std::fmt;

use domain::{Error, RepoName};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::fleet::{hex, unhex};

const PREFIX: &str = "hbw_";
/// Keeps this signature apart from any other that is made with the same secret.
const PURPOSE: &[u8] = b"hotbed warm-up token 1\0";

/// What the bearer may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose warm-ups.
    pub client: String,
    /// Of which repo; of any when not given.
    pub repo: Option<RepoName>,
    pub expires_at: Timestamp,
}

impl Grant {
    pub fn covers(&self, client: &str, repo: &RepoName) -> bool {
        self.client == client && self.repo.as_ref().is_none_or(|r| r == repo)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not one of ours, or changed.
    Unknown,
    Expired,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "this token is not known here",
            Self::Expired => "this token has expired: ask for a new one",
        })
    }
}

/// Whether this is meant as such a token.
pub fn is_token(text: &str) -> bool {
    text.starts_with(PREFIX)
}

pub fn issue(secret: &[u8; 32], grant: &Grant) -> Result<String, Error> {
    let body =
        serde_json::to_vec(grant).map_err(|e| Error::permanent("write a warm-up token").caused_by(e))?;
    let mac = mac(secret, &body).finalize().into_bytes();
    Ok(format!("{PREFIX}{}.{}", hex(&body), hex(&mac)))
}

pub fn read(secret: &[u8; 32], token: &str, now: Timestamp) -> Result<Grant, TokenError> {
    let parts = token.strip_prefix(PREFIX).and_then(|t| t.split_once('.'));
    let (body, sign) = parts.and_then(|(b, s)| Some((unhex(b)?, unhex(s)?))).ok_or(TokenError::Unknown)?;
    // Compared in constant time; only then is the body believed.
    mac(secret, &body).verify_slice(&sign).map_err(|_| TokenError::Unknown)?;
    let grant: Grant = serde_json::from_slice(&body).map_err(|_| TokenError::Unknown)?;
    if grant.expires_at <= now { Err(TokenError::Expired) } else { Ok(grant) }
}

fn mac(secret: &[u8; 32], body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length is good");
    mac.update(PURPOSE);
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        let expires_at = Timestamp::from_second(2_000_000_000).unwrap();
        Grant { client: "tab 7".into(), repo: Some("acme/api".parse().unwrap()), expires_at }
    }

    #[test]
    fn only_what_was_issued_here_is_believed() {
        let (secret, now) = ([7; 32], Timestamp::from_second(1_999_999_999).unwrap());
        let token = issue(&secret, &grant()).unwrap();
        assert_eq!(read(&secret, &token, now), Ok(grant()));
        assert_eq!(read(&[8; 32], &token, now), Err(TokenError::Unknown));
        assert_eq!(read(&secret, &token, grant().expires_at), Err(TokenError::Expired));
        // Another client under the same signature.
        let other = hex(&serde_json::to_vec(&Grant { client: "tab 8".into(), ..grant() }).unwrap());
        let (_, sign) = token.split_once('.').unwrap();
        assert_eq!(read(&secret, &format!("hbw_{other}.{sign}"), now), Err(TokenError::Unknown));
        for wrong in ["", "hbw_", "hbw_.", "hbw_zz.00", "hbw_é0.00", "hbk_00.00"] {
            assert_eq!(read(&secret, wrong, now), Err(TokenError::Unknown), "{wrong}");
        }
    }
}
