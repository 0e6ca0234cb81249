//! Certificates of the operator's own, for everything in the sandbox that speaks TLS.

use std::collections::BTreeMap;

use domain::{Error, RepoSpec, Result, Winner};

/// Where a sandbox's certificates lie, all in one file: where Debian and Alpine keep it.
pub const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the operator's certificates are put.
pub(crate) const STORE: &str = "/usr/local/share/ca-certificates";

/// Puts what lies in [`STORE`] into [`BUNDLE`]. Without the distribution's own program it appends, to a copy of the
/// bundle of the other family of distributions where that is the one that is there.
pub(crate) const INSTALL: &str = r#"set -e
if command -v update-ca-certificates >/dev/null 2>&1; then
  update-ca-certificates
else
  bundle=/etc/ssl/certs/ca-certificates.crt
  other=/etc/pki/tls/certs/ca-bundle.crt
  mkdir -p /etc/ssl/certs
  if [ ! -e "$bundle" ] && [ -e "$other" ]; then cp "$other" "$bundle"; fi
  for f in /usr/local/share/ca-certificates/hotbed-*.crt; do
    echo >> "$bundle"
    cat "$f" >> "$bundle"
  done
fi
test -s /etc/ssl/certs/ca-certificates.crt
"#;

/// The file of the `n`th certificate.
pub(crate) fn file(n: usize) -> String {
    format!("{STORE}/hotbed-{n}.crt")
}

pub(crate) fn check_pem(n: usize, pem: &[u8]) -> Result<()> {
    const HEAD: &[u8] = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(HEAD.len()).any(|w| w == HEAD) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "certificate {n} of `ca_certificates` is not PEM: no `BEGIN CERTIFICATE` in it"
    )))
}

/// What makes the usual programs read [`BUNDLE`] instead of the certificates they carry with them.
pub fn trust_env() -> BTreeMap<String, String> {
    const FILES: [&str; 8] = [
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "CURL_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "NODE_EXTRA_CA_CERTS",
        "AWS_CA_BUNDLE",
    ];
    // One program, two spellings: the older and the newer name of the same switch.
    const SWITCHES: [&str; 2] = ["UV_NATIVE_TLS", "UV_SYSTEM_CERTS"];
    let files = FILES.iter().map(|name| (name.to_string(), BUNDLE.to_owned()));
    files.chain(SWITCHES.iter().map(|name| (name.to_string(), "true".to_owned()))).collect()
}

/// What a sandbox gets at its start over what its image carries. Nothing where the repository's word counts more than
/// the operator's: what that was at the image's commit, only the image knows.
pub fn boot_env(spec: &RepoSpec) -> BTreeMap<String, String> {
    match spec.image.repository_file.wins {
        Winner::Operator => image_env(spec),
        Winner::Repository => BTreeMap::new(),
    }
}

/// The environment of a repo's build steps, its image and its sessions: the recipe's own, over [`trust_env`] where
/// it has certificates.
pub fn image_env(spec: &RepoSpec) -> BTreeMap<String, String> {
    let mut env = if spec.image.ca_certificates.is_empty() { BTreeMap::new() } else { trust_env() };
    env.extend(spec.image.env.clone());
    env
}
