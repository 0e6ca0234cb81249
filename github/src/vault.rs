//! Secrets at rest: sealed with AES-256-GCM under a key that lies elsewhere, stored through a port that sees only
//! what is sealed.
//!
//! A sealed secret names its key and is bound to its own name, so that two can't be exchanged. Several keys may be
//! there: the first one seals, all open; [`Vault::reseal`] brings old ones under the first. In memory what was
//! opened is zeroed when it is dropped; buffers of the TLS stack and of the parser are not ours to zero.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::ports::SealedStore;
use domain::{Error, Result};
use zeroize::Zeroizing;

const VERSION: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 12;
const KEY: usize = 32;

/// A key of the vault.
pub struct VaultKey {
    id: [u8; KEY_ID],
    aead: RandomizedNonceKey,
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey(…)")
    }
}

impl VaultKey {
    /// # Errors
    /// `Invalid` when these are not 32 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        let wrong = || Error::invalid(format!("a key of the vault has {KEY} bytes, not {}", bytes.len()));
        if bytes.len() != KEY {
            return Err(wrong());
        }
        let aead = RandomizedNonceKey::new(&AES_256_GCM, bytes).map_err(|_| wrong())?;
        // A name for the key that gives nothing of it away.
        let mut named = Zeroizing::new(b"hotbed vault key\0".to_vec());
        named.extend_from_slice(bytes);
        let hash = digest(&SHA256, &named);
        let mut id = [0; KEY_ID];
        id.copy_from_slice(&hash.as_ref()[..KEY_ID]);
        Ok(Self { id, aead })
    }

    /// Keys as a file or a variable of the environment holds them: one a line, each base64 or hexadecimal of 32
    /// bytes, the newest first.
    ///
    /// # Errors
    /// `Invalid`, naming the line and never what stands there.
    pub fn read_all(text: &str) -> Result<Vec<Self>> {
        let lines =
            text.lines().map(str::trim).enumerate().filter(|(_, l)| !l.is_empty() && !l.starts_with('#'));
        let keys: Vec<Self> = lines
            .map(|(n, line)| {
                let wrong = || {
                    Error::invalid(format!(
                        "line {} of the vault's keys is no key: expected base64 or hexadecimal of {KEY} bytes, as `openssl rand -base64 {KEY}` makes it",
                        n + 1
                    ))
                };
                let bytes = decode(line).ok_or_else(wrong)?;
                Self::new(&bytes).map_err(|_| wrong())
            })
            .collect::<Result<_>>()?;
        if keys.is_empty() {
            return Err(Error::invalid("there is no key for the vault in what was given"));
        }
        Ok(keys)
    }
}

fn decode(line: &str) -> Option<Zeroizing<Vec<u8>>> {
    if line.len() == 2 * KEY && line.bytes().all(|b| b.is_ascii_hexdigit()) {
        let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
        return Some(Zeroizing::new(
            line.as_bytes().chunks(2).map(|two| digit(two[0]) << 4 | digit(two[1])).collect(),
        ));
    }
    BASE64_STANDARD.decode(line).ok().map(Zeroizing::new)
}

/// Seals, stores, opens. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    keys: Arc<Vec<VaultKey>>,
    store: Arc<dyn SealedStore>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({} keys)", self.keys.len())
    }
}

impl Vault {
    /// The first key seals, all of them open.
    ///
    /// # Errors
    /// `Invalid` without a key.
    pub fn new(keys: Vec<VaultKey>, store: Arc<dyn SealedStore>) -> Result<Self> {
        if keys.is_empty() {
            return Err(Error::invalid("the vault has no key"));
        }
        Ok(Self { keys: Arc::new(keys), store })
    }

    /// Durable when this returns.
    pub async fn put(&self, name: &str, secret: &[u8]) -> Result<()> {
        self.store.put_sealed(name, self.seal(name, secret)?).await
    }

    pub async fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
        match self.store.sealed(name).await? {
            Some(sealed) => self.open(name, &sealed).map(|(secret, _)| Some(secret)),
            None => Ok(None),
        }
    }

    pub async fn remove(&self, name: &str) -> Result<()> {
        self.store.remove_sealed(name).await
    }

    pub async fn names(&self, prefix: &str) -> Result<Vec<String>> {
        self.store.sealed_names(prefix).await
    }

    /// Brings what lies under an older key under the first one. Says how many there were; after that the older
    /// keys can be taken away. Nothing else may write meanwhile.
    pub async fn reseal(&self) -> Result<usize> {
        let mut count = 0;
        for name in self.names("").await? {
            let Some(sealed) = self.store.sealed(&name).await? else { continue };
            let (secret, newest) = self.open(&name, &sealed)?;
            if !newest {
                self.put(&name, &secret).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Version, key, nonce, then what is sealed with its tag.
    fn seal(&self, name: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let failed = || Error::permanent(format!("seal {name}"));
        let key = self.keys.first().ok_or_else(failed)?;
        let mut sealed = Vec::with_capacity(1 + KEY_ID + NONCE + secret.len() + 16);
        // Room for the tag, so that no growth leaves a copy behind.
        let mut body = Zeroizing::new(Vec::with_capacity(secret.len() + 16));
        body.extend_from_slice(secret);
        let nonce =
            key.aead.seal_in_place_append_tag(Aad::from(bound_to(name)), &mut *body).map_err(|_| failed())?;
        sealed.push(VERSION);
        sealed.extend_from_slice(&key.id);
        sealed.extend_from_slice(nonce.as_ref());
        sealed.extend_from_slice(&body);
        Ok(sealed)
    }

    /// The secret, and whether it lay under the first key.
    fn open(&self, name: &str, sealed: &[u8]) -> Result<(Zeroizing<Vec<u8>>, bool)> {
        let damaged = || {
            Error::permanent(format!("open {name}: what is stored is damaged, or stored under another name"))
        };
        let (version, rest) = sealed.split_first().ok_or_else(damaged)?;
        if *version != VERSION || rest.len() < KEY_ID + NONCE {
            return Err(damaged());
        }
        let (id, rest) = rest.split_at(KEY_ID);
        let (nonce, body) = rest.split_at(NONCE);
        let at = self.keys.iter().position(|k| k.id == id).ok_or_else(|| {
            Error::permanent(format!(
                "open {name}: it was sealed with a key that the vault does not have (any more)"
            ))
        })?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut body = Zeroizing::new(body.to_vec());
        let length = self.keys[at]
            .aead
            .open_in_place(nonce, Aad::from(bound_to(name)), &mut body)
            .map_err(|_| damaged())?
            .len();
        body.truncate(length);
        Ok((body, at == 0))
    }
}

fn bound_to(name: &str) -> Vec<u8> {
    [b"hotbed/v1/".as_slice(), name.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use domain::testing::FakeSealed;

    use super::*;

    fn key(n: u8) -> VaultKey {
        VaultKey::new(&[n; KEY]).unwrap()
    }

    fn vault(keys: Vec<VaultKey>, store: &Arc<FakeSealed>) -> Vault {
        Vault::new(keys, store.clone()).unwrap()
    }

    #[tokio::test]
    async fn what_is_stored_can_be_read_by_the_vault_alone() {
        let store = Arc::new(FakeSealed::default());
        let one = vault(vec![key(1)], &store);
        one.put("user/ada", b"ghu_secret").await.unwrap();
        one.put("user/bob", b"ghu_secret").await.unwrap();
        let (ada, bob) = (store.lying("user/ada").unwrap(), store.lying("user/bob").unwrap());
        assert!(!ada.windows(6).any(|w| w == b"secret"));
        assert_ne!(ada, bob, "each has a nonce of its own");
        assert_eq!(one.get("user/ada").await.unwrap().unwrap().as_slice(), b"ghu_secret");
        assert_eq!(one.get("user/none").await.unwrap(), None);
        assert_eq!(one.names("user/").await.unwrap(), ["user/ada", "user/bob"]);

        let other = vault(vec![key(2)], &store).get("user/ada").await.unwrap_err().to_string();
        assert!(other.contains("a key that the vault does not have"), "{other}");
        // Exchanged, cut or changed: not believed.
        store.put_sealed("user/bob", ada.clone()).await.unwrap();
        assert!(one.get("user/bob").await.is_err());
        for n in [0, 1, 9, ada.len() - 1] {
            store.put_sealed("user/ada", ada[..n].to_vec()).await.unwrap();
            assert!(one.get("user/ada").await.is_err(), "{n} bytes");
            let mut changed = ada.clone();
            changed[n] ^= 1;
            store.put_sealed("user/ada", changed).await.unwrap();
            assert!(one.get("user/ada").await.is_err(), "byte {n}");
        }
    }

    #[tokio::test]
    async fn keys_are_rotated() {
        let store = Arc::new(FakeSealed::default());
        vault(vec![key(1)], &store).put("a", b"one").await.unwrap();
        let both = vault(vec![key(2), key(1)], &store);
        both.put("b", b"two").await.unwrap();
        assert_eq!(both.get("a").await.unwrap().unwrap().as_slice(), b"one");
        assert_eq!(both.reseal().await.unwrap(), 1);
        assert_eq!(both.reseal().await.unwrap(), 0);
        let new = vault(vec![key(2)], &store);
        assert_eq!(new.get("a").await.unwrap().unwrap().as_slice(), b"one");
        assert_eq!(new.get("b").await.unwrap().unwrap().as_slice(), b"two");
    }

    #[test]
    fn keys_are_read_and_never_shown() {
        let text = format!("# newest first\n{}\n\n{}\n", BASE64_STANDARD.encode([7; KEY]), "0a".repeat(KEY));
        let keys = VaultKey::read_all(&text).unwrap();
        assert_eq!(keys[0].id, key(7).id);
        assert_eq!(keys[1].id, key(10).id);
        assert_eq!(format!("{:?}", keys[0]), "VaultKey(…)");
        let error = VaultKey::read_all("\nhunter2hunter2").unwrap_err().chain();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        assert!(VaultKey::read_all("# nothing\n").is_err());
    }
}
