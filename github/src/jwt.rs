//! The App's own authority: a JSON web token, signed with its private key, good for minutes.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};

use domain::{Error, Result};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use zeroize::Zeroizing;

/// GitHub takes ten minutes at most, and its clock is not ours.
const LIFE_SECONDS: i64 = 9 * 60;
const BACKDATED_SECONDS: i64 = 60;

/// Signs for the App. What GitHub's clock is ahead of ours is learnt from its answers.
pub(crate) struct AppKey {
    app_id: u64,
    key: EncodingKey,
    ahead_seconds: AtomicI64,
}

impl fmt::Debug for AppKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppKey(app {})", self.app_id)
    }
}

#[derive(Serialize)]
struct Claims {
    iat: i64,
    exp: i64,
    iss: String,
}

impl AppKey {
    /// # Errors
    /// `Invalid` when it is no RSA private key in PEM.
    pub fn from_pem(app_id: u64, pem: &[u8]) -> Result<Self> {
        let key = EncodingKey::from_rsa_pem(pem).map_err(|e| {
            Error::invalid(
                "the App's private key is no RSA private key in PEM, as GitHub gives it to download",
            )
            .caused_by(e)
        })?;
        Ok(Self { app_id, key, ahead_seconds: AtomicI64::new(0) })
    }

    pub fn sign(&self, now: Timestamp) -> Result<Zeroizing<String>> {
        let now = now.as_second() + self.ahead_seconds.load(Ordering::Relaxed);
        let claims =
            Claims { iat: now - BACKDATED_SECONDS, exp: now + LIFE_SECONDS, iss: self.app_id.to_string() };
        jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &self.key)
            .map(Zeroizing::new)
            .map_err(|e| Error::permanent("sign for the App").caused_by(e))
    }

    /// Learns GitHub's time. Says whether that changes what is signed: then a refused call is worth repeating.
    pub fn learn(&self, now: Timestamp, theirs: Timestamp) -> bool {
        let ahead = theirs.as_second() - now.as_second();
        let before = self.ahead_seconds.swap(ahead, Ordering::Relaxed);
        (ahead - before).abs() >= BACKDATED_SECONDS / 2
    }
}
