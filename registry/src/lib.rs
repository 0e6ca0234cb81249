//! What an OCI registry holds, and how something is removed from it.
//!
//! Layers go from the engine to the registry and back without passing through here: the engine has them, compressed
//! and checked. But what a registry holds is asked of the registry itself: a push counts when the registry names the
//! digest that the engine says it sent, and the configuration inside is the image that was meant.

mod removal;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use domain::{Digest, Error, ErrorKind, Result};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::OciManifest;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use zeroize::Zeroizing;

/// How long one question may take, connection included.
const PATIENCE: Duration = Duration::from_secs(30);

/// One registry, with what lets us in.
pub struct Registry {
    client: Client,
    http: reqwest::Client,
    login: Option<Login>,
}

/// A user of a registry.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub password: Zeroizing<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).finish_non_exhaustive()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("login", &self.login).finish_non_exhaustive()
    }
}

/// What a registry holds under one reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Of the manifest: what the registry knows it by.
    pub digest: Digest,
    /// Of the image's configuration: what engines know it by.
    pub image: Digest,
    /// Bytes of each layer as the registry keeps it, from the base up.
    pub layers: Vec<u64>,
}

impl Registry {
    /// `host` is as it stands in references. Like the engine, it is spoken to over TLS unless it is this machine.
    ///
    /// Errors: `Permanent` where no TLS client can be made.
    pub fn new(host: &str, login: Option<Login>) -> Result<Self> {
        let protocol = if is_loopback(host) { ClientProtocol::Http } else { ClientProtocol::Https };
        let config = ClientConfig {
            protocol,
            connect_timeout: Some(PATIENCE),
            read_timeout: Some(PATIENCE),
            user_agent: "hotbed",
            ..ClientConfig::default()
        };
        let failed = |e| Error::permanent("set up a client for the registry").caused_by(e);
        let client = Client::try_from(config).map_err(failed)?;
        let http = reqwest::Client::builder().timeout(PATIENCE).user_agent("hotbed").build();
        let http = http.map_err(|e| Error::permanent("set up a client for the registry").caused_by(e))?;
        Ok(Self { client, http, login })
    }

    /// What lies under `reference` (`host/name:tag` or `host/name@digest`); `None` where nothing does.
    ///
    /// Errors: `Unavailable` when the registry does not answer, `Invalid` when it refuses the credentials,
    /// `Permanent` for an answer that is no image.
    pub async fn look(&self, reference: &str) -> Result<Option<Held>> {
        let name = parse(reference)?;
        let what = &*format!("look for {reference}");
        let auth = self.auth();
        let asked = self.client.pull_manifest(&name, &auth);
        let (manifest, digest) = match within(what, asked).await {
            Ok(found) => found,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let OciManifest::Image(manifest) = manifest else {
            return Err(Error::permanent(format!("{what}: it is a list of images, not one")));
        };
        Ok(Some(Held {
            digest: digest_of(&digest, what)?,
            image: digest_of(&manifest.config.digest, what)?,
            layers: manifest.layers.iter().map(|l| u64::try_from(l.size).unwrap_or(0)).collect(),
        }))
    }

    fn auth(&self) -> RegistryAuth {
        match &self.login {
            Some(login) => RegistryAuth::Basic(login.user.clone(), login.password.to_string()),
            None => RegistryAuth::Anonymous,
        }
    }
}

fn parse(reference: &str) -> Result<Reference> {
    reference.parse().map_err(|e| Error::invalid(format!("image reference `{reference}`")).caused_by(e))
}

fn digest_of(text: &str, what: &str) -> Result<Digest> {
    text.parse().map_err(|e| Error::permanent(format!("{what}: not a digest")).caused_by(e))
}

/// Whether the engine speaks plain HTTP to it without being told to: a registry on this machine.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

async fn within<T>(what: &str, work: impl Future<Output = Result<T, OciDistributionError>>) -> Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(e)) => Err(Error::new(kind(&e), what.to_owned()).caused_by(e)),
        Err(_) => Err(Error::timeout(format!("{what}: no answer within {PATIENCE:?}"))),
    }
}

fn kind(error: &OciDistributionError) -> ErrorKind {
    use oci_client::errors::OciErrorCode as Code;
    match error {
        OciDistributionError::ImageManifestNotFoundError(_) => ErrorKind::NotFound,
        OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
            ErrorKind::Invalid
        }
        OciDistributionError::RequestError(_) => ErrorKind::Unavailable,
        OciDistributionError::ServerError { code, .. } => removal::kind_of(*code),
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|e| &e.code) {
                Some(Code::ManifestUnknown | Code::NameUnknown | Code::NotFound | Code::BlobUnknown) => {
                    ErrorKind::NotFound
                }
                Some(Code::Unauthorized | Code::Denied) => ErrorKind::Invalid,
                Some(Code::Toomanyrequests) => ErrorKind::Exhausted,
                _ => ErrorKind::Unavailable,
            }
        }
        _ => ErrorKind::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_spoken_to_in_plain() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.8.8.8", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.example", "registry.example:5000", "10.0.0.1:5000", "[2001:db8::1]:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
