//! The public keys of an issuer: read from its JWKS, looked up by what a token's header says. Pure.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use config::SigningAlgorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

/// Keys of one issuer that are kept; more than anybody has.
const MOST: usize = 100;

#[derive(Debug, Clone, Default)]
pub struct Keyring {
    keys: Vec<Known>,
}

/// Which key it was: no two that are written differently have the same.
pub type Print = u64;

#[derive(Debug, Clone)]
struct Known {
    id: Option<String>,
    /// What may be signed with it: what its kind allows, or the one that it is for.
    good_for: Vec<Algorithm>,
    key: DecodingKey,
    print: Print,
}

/// What is not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is no such key, perhaps not yet.
    Key,
    /// The key is there, and is not for this algorithm.
    Algorithm,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

impl Keyring {
    /// Those of a JWKS that can be used here. What is of another kind, or for encryption, is passed over: sets grow.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        let set: Set = serde_json::from_slice(text).map_err(|e| format!("it is no JWKS: {e}"))?;
        let keys: Vec<_> = set.keys.into_iter().take(MOST).filter_map(known).collect();
        if keys.is_empty() {
            return Err("none of its keys can be used: expected public RSA, EC (P-256, P-384) or Ed25519 keys for signatures".into());
        }
        Ok(Self { keys })
    }

    /// The key that a token says it is signed with. One that names none is taken at its word where only one key fits.
    pub fn find(&self, header: &Header) -> Result<(&DecodingKey, Print), Missing> {
        let named: Vec<_> = match &header.kid {
            Some(id) => self.keys.iter().filter(|k| k.id.as_ref() == Some(id)).collect(),
            None => self.keys.iter().collect(),
        };
        let mut fit = named.iter().filter(|k| k.good_for.contains(&header.alg));
        match (fit.next(), fit.next()) {
            (Some(one), None) => Ok((&one.key, one.print)),
            (Some(one), Some(_)) if header.kid.is_some() => Ok((&one.key, one.print)),
            _ if named.is_empty() || header.kid.is_none() => Err(Missing::Key),
            _ => Err(Missing::Algorithm),
        }
    }

    /// Whether this key is still there.
    pub fn has(&self, print: Print) -> bool {
        self.keys.iter().any(|k| k.print == print)
    }

    /// Whether the other one holds the same keys.
    pub fn is(&self, other: &Self) -> bool {
        self.keys.iter().map(|k| k.print).eq(other.keys.iter().map(|k| k.print))
    }
}

fn known(value: Value) -> Option<Known> {
    let written: Jwk = serde_json::from_value(value).ok()?;
    if written.common.public_key_use.as_ref().is_some_and(|u| *u != PublicKeyUse::Signature) {
        return None;
    }
    let kind: &[Algorithm] = match &written.algorithm {
        AlgorithmParameters::RSA(_) => &[
            Algorithm::RS256,
            Algorithm::RS384,
            Algorithm::RS512,
            Algorithm::PS256,
            Algorithm::PS384,
            Algorithm::PS512,
        ],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P256 => &[Algorithm::ES256],
        AlgorithmParameters::EllipticCurve(p) if p.curve == EllipticCurve::P384 => &[Algorithm::ES384],
        AlgorithmParameters::OctetKeyPair(p) if p.curve == EllipticCurve::Ed25519 => &[Algorithm::EdDSA],
        // A shared secret is nobody's public key.
        _ => return None,
    };
    let good_for = match written.common.key_algorithm {
        None => kind.to_vec(),
        Some(only) => kind.iter().copied().filter(|a| format!("{a:?}") == only.to_string()).collect(),
    };
    let key = DecodingKey::from_jwk(&written).ok()?;
    let print = BuildHasherDefault::<DefaultHasher>::default().hash_one(&written);
    (!good_for.is_empty()).then_some(Known { id: written.common.key_id, good_for, key, print })
}

pub fn algorithm(of: SigningAlgorithm) -> Algorithm {
    match of {
        SigningAlgorithm::Rs256 => Algorithm::RS256,
        SigningAlgorithm::Rs384 => Algorithm::RS384,
        SigningAlgorithm::Rs512 => Algorithm::RS512,
        SigningAlgorithm::Ps256 => Algorithm::PS256,
        SigningAlgorithm::Ps384 => Algorithm::PS384,
        SigningAlgorithm::Ps512 => Algorithm::PS512,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Es384 => Algorithm::ES384,
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ring(keys: Value) -> Result<Keyring, String> {
        Keyring::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    fn header(alg: Algorithm, kid: Option<&str>) -> Header {
        Header { kid: kid.map(str::to_owned), ..Header::new(alg) }
    }

    fn rsa(extra: Value) -> Value {
        let mut key = json!({"kty": "RSA", "n": "AQAB", "e": "AQAB"});
        key.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        key
    }

    #[test]
    fn keys_are_found_by_what_a_token_says() {
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": "AQAB", "kid": "ed"});
        let ring = ring(json!([rsa(json!({"kid": "one"})), rsa(json!({"kid": "two", "alg": "RS512"})), ed]))
            .unwrap();
        assert!(ring.find(&header(Algorithm::RS256, Some("one"))).is_ok());
        assert!(ring.find(&header(Algorithm::EdDSA, Some("ed"))).is_ok());
        // The only one for its algorithm needs no name; where two would do, none is guessed.
        assert!(ring.find(&header(Algorithm::EdDSA, None)).is_ok());
        assert_eq!(ring.find(&header(Algorithm::RS512, None)).unwrap_err(), Missing::Key);
        for (alg, kid, missing) in [
            (Algorithm::RS256, "none", Missing::Key),
            (Algorithm::RS256, "two", Missing::Algorithm),
            (Algorithm::HS256, "one", Missing::Algorithm),
            (Algorithm::ES256, "one", Missing::Algorithm),
        ] {
            assert_eq!(ring.find(&header(alg, Some(kid))).unwrap_err(), missing, "{alg:?} {kid}");
        }
        let (_, print) = ring.find(&header(Algorithm::EdDSA, Some("ed"))).unwrap();
        assert!(ring.has(print) && !ring.has(print + 1));
    }

    #[test]
    fn what_is_of_no_use_is_passed_over() {
        let secret = json!({"kty": "oct", "k": "AQAB", "kid": "secret"});
        let sealing = rsa(json!({"use": "enc", "kid": "sealing"}));
        let strange = json!({"kty": "AKP", "kid": "new"});
        let other = rsa(json!({"alg": "ES256", "kid": "other"}));
        let useless = [secret, sealing, strange, other];
        assert!(ring(json!(useless)).unwrap_err().contains("none of its keys"));
        let mut all = useless.to_vec();
        all.push(rsa(json!({"kid": "good", "use": "sig"})));
        assert_eq!(ring(json!(all)).unwrap().keys.len(), 1);
        assert!(Keyring::parse(b"<html>").unwrap_err().contains("no JWKS"));
    }

    #[test]
    fn the_same_keys_are_the_same() {
        let one = ring(json!([rsa(json!({"kid": "a"}))])).unwrap();
        assert!(one.is(&one.clone()));
        assert!(!one.is(&ring(json!([rsa(json!({"kid": "b"}))])).unwrap()));
    }
}
