//! Pull and push: the engine speaks to the registry, and we say in words which one did not do what.

use bollard::auth::DockerCredentials;
use bollard::errors::Error as Engine;
use bollard::query_parameters::{CreateImageOptions, PushImageOptions};
use domain::ports::Captured;
use domain::{Error, ErrorKind, Result};
use futures_util::StreamExt;

use crate::backend::Shared;
use crate::capture::{parse_digest, size};
use crate::error;
use crate::reference::Reference;

impl Shared {
    pub(crate) async fn pull(&self, reference: &str) -> Result<Captured> {
        // The id of an image that is here is a reference too.
        if reference.parse::<domain::Digest>().is_ok() {
            return self.here(reference).await?.ok_or_else(|| {
                Error::not_found(format!(
                    "image {reference} is not on this engine, and an id names no registry"
                ))
            });
        }
        let reference = Reference::parse(reference)?;
        let full = reference.full();
        if let Some(here) = self.here(&full).await? {
            return Ok(here);
        }
        let docker = self.docker().await?;
        let options = CreateImageOptions { from_image: Some(full.clone()), ..Default::default() };
        let mut answers = docker.create_image(Some(options), None, self.credentials(&reference));
        while let Some(answer) = answers.next().await {
            if let Err(e) = answer {
                return Err(self.registry_error("pull", &reference, e).await);
            }
        }
        self.here(&full).await?.ok_or_else(|| {
            Error::permanent(format!("pull {full}: the engine says it is done and does not have it"))
        })
    }

    async fn here(&self, reference: &str) -> Result<Option<Captured>> {
        let Some(image) = self.image(reference).await? else { return Ok(None) };
        let id = image.id.as_deref().unwrap_or_default();
        Ok(Some(Captured { digest: parse_digest(id)?, size: size(&image) }))
    }

    pub(crate) async fn push(&self, reference: &str) -> Result<String> {
        let reference = Reference::parse(reference)?;
        if reference.digest.is_some() {
            return Err(Error::invalid(format!("push {}: expected a tag, not a digest", reference.full())));
        }
        let docker = self.docker().await?;
        let tag = reference.tag.clone().unwrap_or_else(|| "latest".to_owned());
        let options = PushImageOptions { tag: Some(tag), platform: None };
        let mut answers =
            docker.push_image(&reference.repository, Some(options), self.credentials(&reference));
        while let Some(answer) = answers.next().await {
            if let Err(e) = answer {
                return Err(self.registry_error("push", &reference, e).await);
            }
        }
        let full = reference.full();
        let image =
            self.image(&full).await?.ok_or_else(|| Error::not_found(format!("image {full} is gone")))?;
        let prefix = format!("{}@", reference.repository);
        let pushed = image.repo_digests.unwrap_or_default().into_iter().find(|d| d.starts_with(&prefix));
        pushed.ok_or_else(|| {
            Error::permanent(format!("push {full}: the engine says it is done and knows no digest"))
        })
    }

    fn credentials(&self, reference: &Reference) -> Option<DockerCredentials> {
        self.config.credentials.get(reference.registry()).map(|c| DockerCredentials {
            username: Some(c.user.clone()),
            password: Some(c.secret.clone()),
            serveraddress: reference.host.clone(),
            ..Default::default()
        })
    }

    async fn registry_error(&self, verb: &str, reference: &Reference, error: Engine) -> Error {
        let full = reference.full();
        let registry = match &reference.host {
            Some(host) => format!("registry {host}"),
            None => match self.default_registry().await {
                Some(host) => format!("the engine's default registry, {host},"),
                None => "the engine's default registry".to_owned(),
            },
        };
        let text = match &error {
            Engine::DockerStreamError { error } => error.clone(),
            Engine::DockerResponseServerError { message, .. } => message.clone(),
            // Then it is the engine that did not answer.
            _ => return self.fail(format!("{verb} {full}"), error),
        };
        let known = self.config.credentials.contains_key(reference.registry());
        let (kind, said) = match Said::of(&text, error::answer(&error).map(|(status, _)| status)) {
            Said::Silence => (ErrorKind::Unavailable, "did not answer"),
            Said::Overload => (ErrorKind::Exhausted, "asks to try again later"),
            Said::Full => (ErrorKind::Exhausted, "was not the trouble: the engine's disk is full"),
            Said::BadCredentials if known => (ErrorKind::Invalid, "refused the credentials"),
            Said::BadCredentials => (ErrorKind::Invalid, "asks for credentials, and none are configured"),
            Said::Denied if known => {
                (ErrorKind::NotFound, "does not have it or does not let this user at it")
            }
            Said::Denied => {
                (ErrorKind::NotFound, "does not have it, or asks for credentials, and none are configured")
            }
            Said::Missing => (ErrorKind::NotFound, "does not have it"),
            Said::NoTls => (ErrorKind::Permanent, "speaks plain HTTP, which the engine is not set to accept"),
            Said::Untrusted => (ErrorKind::Permanent, "shows a certificate that the engine does not trust"),
            Said::Other => (error::kind(&error), "could not do it"),
        };
        Error::new(kind, format!("{verb} {full}: {registry} {said}")).caused_by(error)
    }

    /// The host of the engine's default registry, as the engine states it.
    async fn default_registry(&self) -> Option<String> {
        let address = self.docker().await.ok()?.info().await.ok()?.index_server_address?;
        let rest = address.split_once("://").map_or(address.as_str(), |(_, rest)| rest);
        rest.split('/').next().map(str::to_owned)
    }
}

/// What a registry's refusal, as the engine words it, comes down to.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Silence,
    Overload,
    Full,
    BadCredentials,
    Denied,
    Missing,
    NoTls,
    Untrusted,
    Other,
}

impl Said {
    fn of(text: &str, status: Option<u16>) -> Self {
        let text = text.to_ascii_lowercase();
        let any = |words: &[&str]| words.iter().any(|w| text.contains(w));
        // A number counts only where it is said to be a status: a port or a digest may hold any digits.
        let status_is = |code: u16| {
            status == Some(code) || any(&[&format!("status code {code}"), &format!("status: {code}")])
        };
        // The order matters: a refused token request also says `Get "https://…"`, a missing repository `denied`.
        if any(&["no space left on device", "disk quota exceeded"]) {
            Self::Full
        } else if any(&["http response to https client"]) {
            Self::NoTls
        } else if any(&["x509", "certificate"]) {
            Self::Untrusted
        } else if any(&["toomanyrequests", "too many requests"]) || status_is(429) {
            Self::Overload
        } else if any(&["unauthorized", "authentication required", "no basic auth", "incorrect username"]) {
            Self::BadCredentials
        } else if any(&["denied"]) {
            Self::Denied
        } else if any(&["manifest unknown", "name unknown", "not found", "does not exist", "no such image"])
            || status_is(404)
        {
            Self::Missing
        } else if any(&[
            "dial tcp",
            "no such host",
            "i/o timeout",
            "connection re",
            "tls handshake",
            "client.timeout",
            "deadline exceeded",
            "request canceled",
            "eof",
            "unavailable",
            "bad gateway",
            "internal server error",
            "proxyconnect",
        ]) {
            Self::Silence
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        let said = |text: &str| Said::of(text, None);
        let refused =
            r#"Get "https://registry.example/v2/": dial tcp 192.0.2.1:443: connect: connection refused"#;
        assert_eq!(said(refused), Said::Silence);
        assert_eq!(
            said(r#"Get "https://r.example/v2/": dial tcp: lookup r.example: no such host"#),
            Said::Silence
        );
        assert_eq!(said("unauthorized: authentication required"), Said::BadCredentials);
        assert_eq!(said("manifest for x:y not found: manifest unknown: manifest unknown"), Said::Missing);
        let denied = "pull access denied for x, repository does not exist or may require 'docker login'";
        assert_eq!(said(denied), Said::Denied);
        assert_eq!(said("toomanyrequests: slow down"), Said::Overload);
        assert_eq!(said("received unexpected HTTP status: 429 "), Said::Overload);
        let digits =
            r#"Get "http://127.0.0.1:42931/v2/": dial tcp 127.0.0.1:42931: connect: connection refused"#;
        assert_eq!(said(digits), Said::Silence);
        assert_eq!(said("http: server gave HTTP response to HTTPS client"), Said::NoTls);
        assert_eq!(said("write /var/lib/x: no space left on device"), Said::Full);
        assert_eq!(Said::of("whatever", Some(404)), Said::Missing);
    }
}
