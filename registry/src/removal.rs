//! Removing a manifest: the one call of the protocol that oci-client does not make. The registry's own collection
//! frees the layers afterwards.

use domain::{Digest, Error, ErrorKind, Result};
use reqwest::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use crate::{Registry, is_loopback, parse};

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: Zeroizing<String>,
}

impl Registry {
    /// Removes what the registry knows as `host/name@digest`. What is not there is removed already.
    ///
    /// Errors: `Unavailable` when the registry does not answer, `Invalid` when it refuses the credentials,
    /// `Permanent` when it removes nothing for anybody.
    pub async fn remove(&self, repository: &str, digest: &Digest) -> Result<()> {
        let what = &*format!("remove {repository}@{digest} from the registry");
        let name = parse(repository)?;
        let host = name.resolve_registry();
        let scheme = if is_loopback(host) { "http" } else { "https" };
        let url = format!("{scheme}://{host}/v2/{}/manifests/{digest}", name.repository());
        let request = || self.http.request(Method::DELETE, &url);
        let mut answer = send(request(), what).await?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let scope = format!("repository:{}:delete", name.repository());
            answer = send(self.admitted(request(), &answer, &scope, what).await?, what).await?;
        }
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(()),
            status if status.is_success() => Ok(()),
            StatusCode::METHOD_NOT_ALLOWED => Err(Error::permanent(format!(
                "{}: it lets nothing be removed; have it delete what is old by a rule of its own",
                what
            ))),
            status => Err(Error::new(kind_of(status.as_u16()), format!("{}: it answers {status}", what))),
        }
    }

    /// The request with what the registry asked for in its refusal.
    async fn admitted(
        &self,
        request: RequestBuilder,
        refusal: &Response,
        scope: &str,
        what: &str,
    ) -> Result<RequestBuilder> {
        let asked = refusal.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let challenges: Vec<_> =
            asked.filter_map(|text| http_auth::parse_challenges(text).ok()).flatten().collect();
        let of = |scheme: &str| challenges.iter().find(|c| c.scheme.eq_ignore_ascii_case(scheme));
        if let Some(bearer) = of("bearer") {
            let param = |name: &str| {
                let found = bearer.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            let realm =
                param("realm").ok_or_else(|| Error::permanent(format!("{}: it names no realm", what)))?;
            let mut query = vec![("scope", scope.to_owned())];
            query.extend(param("service").map(|s| ("service", s)));
            let answer = send(self.with_login(self.http.get(realm).query(&query)), what).await?;
            if !answer.status().is_success() {
                let status = answer.status();
                return Err(Error::invalid(format!("{}: no token for it: {status}", what)));
            }
            let failed = |e| Error::permanent(format!("{}: what came is no token", what)).caused_by(e);
            let token: Token = answer.json().await.map_err(failed)?;
            return Ok(request.header(AUTHORIZATION, format!("Bearer {}", token.token.as_str())));
        }
        if self.login.is_some() && of("basic").is_some() {
            return Ok(self.with_login(request));
        }
        Err(Error::invalid(format!("{}: it asks for credentials, and none are configured", what)))
    }

    fn with_login(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.login {
            Some(login) => request.basic_auth(&login.user, Some(login.password.as_str())),
            None => request,
        }
    }
}

async fn send(request: RequestBuilder, what: &str) -> Result<Response> {
    request.send().await.map_err(|e| Error::unavailable(format!("{}: no answer", what)).caused_by(e))
}

/// What a status that is no success means to the caller.
pub(crate) fn kind_of(status: u16) -> ErrorKind {
    match status {
        401 | 403 => ErrorKind::Invalid,
        404 => ErrorKind::NotFound,
        429 => ErrorKind::Exhausted,
        500.. => ErrorKind::Unavailable,
        _ => ErrorKind::Permanent,
    }
}
