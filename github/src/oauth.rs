//! The four questions of sign-in, as GitHub wants them: exchange a code, ask for a device code, poll for it, refresh.
//!
//! GitHub answers refusals with status 200 and a word; which words mean what is decided here.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::redact::redact;
use domain::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::wire::{Authority, Call, Wire, piece};

const TOKEN: &str = "/login/oauth/access_token";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const REMEDY: &str = "check client id and client secret of the App (forge.github)";

/// The App as an OAuth client. The secret is needed for the web flow; the device flow goes without.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: String,
    pub secret: Option<ClientSecret>,
}

/// The App's client secret.
#[derive(Clone)]
pub struct ClientSecret(Zeroizing<String>);

impl ClientSecret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Zeroizing::new(secret.into()))
    }
}

impl std::fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientSecret(…)")
    }
}

/// Tokens as they were given.
pub(crate) struct Tokens {
    pub access: Zeroizing<String>,
    pub access_expires_at: Option<Timestamp>,
    pub refresh: Option<Zeroizing<String>>,
    pub refresh_expires_at: Option<Timestamp>,
}

/// Why there are no tokens.
pub(crate) enum Refused {
    /// GitHub said this word: asking again in the same way changes nothing.
    Said { word: String, description: String, interval: Option<u64> },
    /// It did not come to an answer.
    Failed(Failure),
}

#[derive(Deserialize)]
struct TokenBody {
    #[serde(default)]
    access_token: Option<Zeroizing<String>>,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    refresh_token: Option<Zeroizing<String>>,
    #[serde(default)]
    refresh_token_expires_in: Option<i64>,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
    #[serde(default)]
    interval: Option<u64>,
}

#[derive(Serialize)]
struct TokenRequest<'a> {
    client_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grant_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    redirect_uri: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code_verifier: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<&'a str>,
    /// Narrows the token to one repository. Words like all others here: the route takes forms as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    repository_id: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct DeviceBody {
    #[serde(default)]
    pub device_code: Option<Zeroizing<String>>,
    #[serde(default)]
    pub user_code: String,
    #[serde(default)]
    pub verification_uri: String,
    #[serde(default = "device_life")]
    pub expires_in: u64,
    #[serde(default = "device_interval")]
    pub interval: u64,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    error_description: Option<String>,
}

fn device_life() -> u64 {
    900
}
fn device_interval() -> u64 {
    5
}

/// Where a code comes from.
pub(crate) enum Code<'a> {
    Web { code: &'a str, redirect_uri: &'a str, verifier: &'a str },
    Device { code: &'a str },
}

impl Client {
    fn request<'a>(&'a self, with_secret: bool) -> TokenRequest<'a> {
        TokenRequest {
            client_id: &self.id,
            client_secret: self.secret.as_ref().filter(|_| with_secret).map(|s| s.0.as_str()),
            grant_type: None,
            code: None,
            redirect_uri: None,
            code_verifier: None,
            device_code: None,
            refresh_token: None,
            repository_id: None,
        }
    }

    pub(crate) async fn exchange(
        &self,
        wire: &Wire,
        code: &Code<'_>,
        repository: Option<u64>,
    ) -> Result<Tokens, Refused> {
        let repository_id = repository.map(|id| id.to_string());
        let request = match code {
            Code::Web { code, redirect_uri, verifier } => TokenRequest {
                code: Some(code),
                redirect_uri: Some(redirect_uri),
                code_verifier: Some(verifier),
                repository_id,
                ..self.request(true)
            },
            Code::Device { code } => TokenRequest {
                device_code: Some(code),
                grant_type: Some(DEVICE_GRANT),
                repository_id,
                ..self.request(false)
            },
        };
        tokens(wire, &request).await
    }

    /// Both old tokens are dead the moment GitHub has answered, whether or not the answer arrives.
    pub(crate) async fn refresh(
        &self,
        wire: &Wire,
        refresh_token: &str,
        by_device: bool,
    ) -> Result<Tokens, Refused> {
        let request = TokenRequest {
            grant_type: Some("refresh_token"),
            refresh_token: Some(refresh_token),
            ..self.request(!by_device)
        };
        tokens(wire, &request).await
    }

    pub(crate) async fn device_code(&self, wire: &Wire) -> Result<DeviceBody> {
        let doing = "begin a sign-in by device";
        let body: DeviceBody = wire
            .sign_in("/login/device/code", &self.request(false))
            .await
            .map_err(|e| e.into_error(doing, REMEDY))?;
        match &body.error {
            Some(word) => Err(refusal(doing, word, body.error_description.as_deref().unwrap_or_default())),
            None if body.device_code.is_none() => {
                Err(Error::unavailable(format!("{doing}: GitHub gave no code")))
            }
            None => Ok(body),
        }
    }

    /// Ends one token at GitHub. One that is dead already is fine.
    pub(crate) async fn revoke(&self, wire: &Wire, token: &str) -> Result<()> {
        #[derive(Serialize)]
        struct Of<'a> {
            access_token: &'a str,
        }
        let doing = "revoke a user's token";
        let secret = self
            .secret
            .as_ref()
            .ok_or_else(|| Error::invalid(format!("{doing}: the App's client secret is not configured")))?;
        let call = Call::delete(
            format!("/applications/{}/token", piece(&self.id)),
            Authority::Client(&self.id, &secret.0),
        );
        match wire.tell(call, Some(&Of { access_token: token })).await {
            Ok(()) | Err(Failure::NotFound { .. } | Failure::Invalid(_)) => Ok(()),
            Err(e) => Err(e.into_error(doing, REMEDY)),
        }
    }
}

async fn tokens(wire: &Wire, request: &TokenRequest<'_>) -> Result<Tokens, Refused> {
    let body: TokenBody = wire.sign_in(TOKEN, request).await.map_err(Refused::Failed)?;
    if let Some(word) = body.error {
        let description = redact(&body.error_description.unwrap_or_default()).into_owned();
        return Err(Refused::Said { word, description, interval: body.interval });
    }
    let Some(access) = body.access_token else {
        return Err(Refused::Failed(Failure::Odd {
            status: http::StatusCode::OK,
            message: "neither a token nor an error".into(),
        }));
    };
    let now = wire.clock().now();
    let after = |seconds: Option<i64>| now.checked_add(jiff::SignedDuration::from_secs(seconds?)).ok();
    Ok(Tokens {
        access,
        access_expires_at: after(body.expires_in),
        refresh: body.refresh_token,
        refresh_expires_at: after(body.refresh_token_expires_in),
    })
}

impl Refused {
    pub fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Said { word, description, .. } => refusal(doing, &word, &description),
            Self::Failed(failure) => failure.into_error(doing, REMEDY),
        }
    }
}

/// A refusal in words; whose fault it is decides the kind.
fn refusal(doing: &str, word: &str, description: &str) -> Error {
    let (word, description) = (redact(word), redact(description));
    let said = match description.trim_end_matches('.') {
        "" => format!("{doing}: GitHub says {word}"),
        description => format!("{doing}: GitHub says {word}: {description}"),
    };
    match &*word {
        "bad_verification_code"
        | "incorrect_device_code"
        | "expired_token"
        | "access_denied"
        | "bad_refresh_token" => Error::denied(format!("{said}; sign in again")),
        "redirect_uri_mismatch" => Error::invalid(format!(
            "{said}; enter this address as a callback URL in the App's settings at GitHub"
        )),
        "device_flow_disabled" => Error::invalid(format!(
            "{said}; enable the device flow in the App's settings at GitHub, or sign in by the web"
        )),
        "incorrect_client_credentials" => Error::permanent(format!("{said}; {REMEDY}")),
        _ => Error::permanent(said),
    }
}

/// The secret half of PKCE: 43 characters.
pub(crate) fn verifier() -> Result<Zeroizing<String>> {
    random_word().map(Zeroizing::new)
}

/// 256 bits as a word that needs no escaping.
pub(crate) fn random_word() -> Result<String> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Error::permanent("draw random bytes"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(*bytes))
}

/// What is shown of a verifier at the beginning.
pub(crate) fn challenge(verifier: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(digest(&SHA256, verifier.as_bytes()))
}

/// How long to wait after `slow_down`, which may name the new interval.
pub(crate) fn slower(interval: Duration, named: Option<u64>) -> Duration {
    named.map_or(interval + Duration::from_secs(5), Duration::from_secs).max(interval)
}

#[cfg(test)]
mod tests {
    use domain::ErrorKind;

    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        let (a, b) = (random_word().unwrap(), random_word().unwrap());
        assert!(a.len() == 43 && a != b);
    }

    #[test]
    fn only_what_has_a_value_is_sent() {
        let client = Client { id: "Iv1".into(), secret: Some(ClientSecret::new("s")) };
        let request = TokenRequest { refresh_token: Some("ghr"), ..client.request(false) };
        let body = serde_json::to_value(&request).unwrap();
        assert_eq!(body, serde_json::json!({"client_id": "Iv1", "refresh_token": "ghr"}));
        assert_eq!(format!("{client:?}"), "Client { id: \"Iv1\", secret: Some(ClientSecret(…)) }");
    }

    #[test]
    fn words_have_kinds() {
        for (word, kind) in [
            ("bad_refresh_token", ErrorKind::Denied),
            ("access_denied", ErrorKind::Denied),
            ("redirect_uri_mismatch", ErrorKind::Invalid),
            ("incorrect_client_credentials", ErrorKind::Permanent),
            ("something_new", ErrorKind::Permanent),
        ] {
            assert_eq!(refusal("x", word, "").kind(), kind, "{word}");
        }
        assert_eq!(slower(Duration::from_secs(5), None), Duration::from_secs(10));
        assert_eq!(slower(Duration::from_secs(5), Some(12)), Duration::from_secs(12));
    }
}
