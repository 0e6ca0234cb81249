//! Labels, and the mark that proves this instance wrote them (F6).
//!
//! Anybody who can speak to the daemon can write a label; nobody without the secret can write the mark that goes
//! with it. Marks of sandboxes, captures and networks differ, and a capture blanks the sandbox's labels, because
//! a container inherits the labels of its image.

use std::collections::HashMap;

use domain::ports::CaptureKind;
use domain::{InstanceId, SandboxId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub(crate) const INSTANCE: &str = "hotbed.instance";
pub(crate) const SANDBOX: &str = "hotbed.sandbox";
pub(crate) const REPO: &str = "hotbed.repo";
pub(crate) const KIND: &str = "hotbed.kind";
pub(crate) const NAME: &str = "hotbed.name";
pub(crate) const MARK: &str = "hotbed.mark";

pub(crate) type Labels = HashMap<String, String>;

/// Makes and checks marks. The secret stays in here.
#[derive(Clone)]
pub(crate) struct Marker {
    instance: String,
    key: Hmac<Sha256>,
}

impl Marker {
    pub(crate) fn new(instance: InstanceId, secret: &[u8; 32]) -> Self {
        #[allow(clippy::expect_used)] // HMAC takes a key of any length
        let key = Hmac::new_from_slice(secret).expect("a key of any length is good");
        Self { instance: instance.to_string(), key }
    }

    /// Tells this instance's things from another's on the same daemon, in names.
    pub(crate) fn short(&self) -> &str {
        &self.instance[self.instance.len() - 12..]
    }

    /// The engine's filter for what claims to be of this instance.
    pub(crate) fn filter(&self) -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![format!("{INSTANCE}={}", self.instance)])])
    }

    fn mac(&self, of: &str) -> Hmac<Sha256> {
        let mut mac = self.key.clone();
        mac.update(of.as_bytes());
        mac
    }

    fn mark(&self, of: &str) -> String {
        hex(&self.mac(of).finalize().into_bytes())
    }

    fn verify(&self, labels: &Labels, of: &str) -> bool {
        labels.get(INSTANCE).is_some_and(|i| *i == self.instance)
            && labels.get(MARK).and_then(|m| unhex(m)).is_some_and(|m| self.mac(of).verify_slice(&m).is_ok())
    }

    fn labels<const N: usize>(&self, of: &str, more: [(&str, &str); N]) -> Labels {
        let mark = self.mark(of);
        let all = [(INSTANCE, self.instance.as_str()), (MARK, &mark)].into_iter().chain(more);
        all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    pub(crate) fn sandbox_labels(&self, id: SandboxId, repo: &str) -> Labels {
        let id = id.to_string();
        self.labels(&id, [(SANDBOX, &id), (REPO, repo)])
    }

    /// Whose sandbox this is, if this instance wrote the labels.
    pub(crate) fn sandbox(&self, labels: &Labels) -> Option<SandboxId> {
        let label = labels.get(SANDBOX)?;
        let id = label.parse().ok()?;
        self.verify(labels, label).then_some(id)
    }

    pub(crate) fn capture_labels(&self, kind: CaptureKind, name: &str) -> Labels {
        // A commit inherits the sandbox's labels, so those are blanked.
        let more = [(KIND, kind.as_str()), (NAME, name), (SANDBOX, ""), (REPO, "")];
        self.labels(&capture_subject(kind, name), more)
    }

    /// What this capture is, if this instance wrote the labels.
    pub(crate) fn capture(&self, labels: &Labels) -> Option<(CaptureKind, String)> {
        let label = labels.get(KIND)?;
        let kinds = [CaptureKind::Base, CaptureKind::Image, CaptureKind::Snapshot];
        let kind = kinds.into_iter().find(|k| k.as_str() == label)?;
        let name = labels.get(NAME)?.clone();
        self.verify(labels, &capture_subject(kind, &name)).then_some((kind, name))
    }

    /// Of the container that images are read through.
    pub(crate) fn reader_labels(&self, name: &str) -> Labels {
        self.labels(&format!("reader {name}"), [])
    }

    pub(crate) fn is_reader(&self, name: &str, labels: &Labels) -> bool {
        self.verify(labels, &format!("reader {name}"))
    }

    pub(crate) fn network_labels(&self, name: &str) -> Labels {
        self.labels(&format!("network {name}"), [])
    }

    pub(crate) fn is_own_network(&self, name: &str, labels: &Labels) -> bool {
        self.verify(labels, &format!("network {name}"))
    }
}

fn capture_subject(kind: CaptureKind, name: &str) -> String {
    format!("capture {} {name}", kind.as_str())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marker(instance: u128, secret: u8) -> Marker {
        Marker::new(InstanceId::from_u128(instance), &[secret; 32])
    }

    #[test]
    fn the_mark_is_hmac_sha256_of_the_sandbox_id() {
        // RFC 4231, test case 1, through the same code path: 20 bytes of 0x0b padded with zeros are the same key.
        let mut secret = [0; 32];
        secret[..20].fill(0x0b);
        let marker = Marker::new(InstanceId::from_u128(1), &secret);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(marker.mark("Hi There"), expected);
    }

    // F6
    #[test]
    fn only_own_labels_are_believed() {
        let (own, id) = (marker(1, 7), SandboxId::from_u128(9));
        let labels = own.sandbox_labels(id, "acme/api");
        assert_eq!(own.sandbox(&labels), Some(id));
        assert_eq!(marker(1, 8).sandbox(&labels), None, "another secret");
        assert_eq!(marker(2, 7).sandbox(&labels), None, "another instance");
        let mut forged = labels.clone();
        forged.insert(SANDBOX.into(), SandboxId::from_u128(10).to_string());
        assert_eq!(own.sandbox(&forged), None, "the mark of another sandbox");
        for bad in ["", "zz", "é".repeat(32).as_str()] {
            let mut forged = labels.clone();
            forged.insert(MARK.into(), bad.into());
            assert_eq!(own.sandbox(&forged), None, "{bad}");
        }
    }

    // F6: a container inherits its image's labels.
    #[test]
    fn a_capture_of_a_sandbox_does_not_pass_for_a_sandbox() {
        let own = marker(1, 7);
        let mut labels = own.sandbox_labels(SandboxId::from_u128(9), "acme/api");
        labels.extend(own.capture_labels(CaptureKind::Snapshot, "snp_1"));
        assert_eq!(own.sandbox(&labels), None);
        assert_eq!(own.capture(&labels), Some((CaptureKind::Snapshot, "snp_1".into())));
        labels.insert(KIND.into(), "image".into());
        assert_eq!(own.capture(&labels), None);
    }
}
