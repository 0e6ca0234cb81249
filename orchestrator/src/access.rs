//! Who may use the API. Keys are in memory, by their hash: a look-up asks no disk, and costs a hash. When one was last
//! used is written behind. Tokens of identity providers are taken beside them ([`tokens`]). What each route asks for is
//! one table, in [`routes`].

mod claims;
mod holder;
mod issuer;
mod keyring;
pub mod routes;
mod tokens;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use domain::{Error, KeyId, KeyRecord, Reach, Result, Role, SharedClock};
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use store::{Store, Tx};

use crate::fleet::hex;
use crate::live::Live;
use crate::rate::Rate;

pub use holder::{Credential, Holder, Person};
pub use tokens::Tokens;

/// What every key begins with.
const PREFIX: &str = "hbk_";
/// The name of the key that lies in the state directory.
pub const INSTALLATION: &str = "installation";
const LONGEST_NAME: usize = 100;
/// How exactly it is written down when a key was last used.
const USE_GRAIN: i64 = 60;

/// A key as it is asked for.
#[derive(Debug, Clone)]
pub struct NewKey {
    pub name: String,
    pub role: Role,
    pub reach: Reach,
    pub expires_at: Option<Timestamp>,
}

type Hash = [u8; 32];

#[derive(Debug)]
struct Key {
    record: Live<KeyRecord>,
    holder: Arc<Holder>,
    /// Unix seconds of the last request; 0 when there was none.
    used: AtomicI64,
}

impl Key {
    fn new(record: KeyRecord) -> Arc<Self> {
        let used = record.last_used_at.map_or(0, Timestamp::as_second);
        let holder = Arc::new(Holder::of(&record));
        Arc::new(Self { record: Live::new(record), holder, used: used.into() })
    }
}

pub struct Access {
    /// The hash of the installation's own key.
    own: Hash,
    installation: Arc<Holder>,
    /// Those that are in force.
    by_hash: DashMap<Hash, Arc<Key>>,
    /// All there ever were.
    all: DashMap<KeyId, Arc<Key>>,
    /// Names that are taken.
    names: DashMap<String, KeyId>,
    rate: Rate,
    /// Those of identity providers.
    pub tokens: Tokens,
    /// Whose web pages may call the API.
    origins: RwLock<Vec<String>>,
    store: Store,
    clock: SharedClock,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Access({} keys)", self.by_hash.len())
    }
}

impl Access {
    pub fn new(
        own: &str,
        settings: &config::AccessSettings,
        store: Store,
        clock: SharedClock,
        loaded: Vec<KeyRecord>,
    ) -> Arc<Self> {
        let access = Self {
            own: digest(own),
            installation: Arc::new(Holder::installation()),
            by_hash: DashMap::new(),
            all: DashMap::new(),
            names: DashMap::new(),
            rate: Rate::new(settings.per_second),
            tokens: Tokens::default(),
            origins: RwLock::new(settings.origins.clone()),
            store,
            clock,
        };
        for record in loaded {
            let (id, name, in_force) = (record.id, record.name.clone(), record.revoked_at.is_none());
            let hash = unhex(&record.hash);
            let key = Key::new(record);
            access.all.insert(id, key.clone());
            if let Some(hash) = hash.filter(|_| in_force) {
                access.by_hash.insert(hash, key);
                access.names.insert(name, id);
            }
        }
        access.tokens.set(&settings.oidc);
        Arc::new(access)
    }

    /// Other settings from now on.
    pub fn reconfigure(&self, settings: &config::AccessSettings) {
        self.rate.set(settings.per_second);
        self.tokens.set(&settings.oidc);
        *self.origins.write().unwrap_or_else(PoisonError::into_inner) = settings.origins.clone();
    }

    /// Whether web pages of this origin may call the API.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.origins.read().unwrap_or_else(PoisonError::into_inner).iter().any(|o| o == origin)
    }

    /// Whose key or token this is; in words why it opens nothing.
    pub async fn who(&self, shown: &str) -> std::result::Result<Arc<Holder>, String> {
        if !shown.starts_with(PREFIX) && self.tokens.knows(shown) {
            return self.tokens.who(shown, self.clock.now()).await;
        }
        self.holder_of(shown).map_err(str::to_owned)
    }

    fn holder_of(&self, shown: &str) -> std::result::Result<Arc<Holder>, &'static str> {
        // Hashes are compared, so the time taken tells nothing of any key.
        let hash = digest(shown);
        if hash == self.own {
            return Ok(self.installation.clone());
        }
        let key = self.by_hash.get(&hash).ok_or("this API key is not known here")?;
        let now = self.clock.now();
        if !key.record.view().is_good(now) {
            return Err("this API key has expired");
        }
        key.used.store(now.as_second(), Ordering::Relaxed);
        Ok(key.holder.clone())
    }

    /// How often one key may ask.
    pub fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Makes a key. It is in the answer and nowhere else.
    ///
    /// Errors: `Invalid`; `Conflict` where a key of this name is in force.
    pub async fn create(&self, new: NewKey, by: &str) -> Result<(Arc<KeyRecord>, String)> {
        let now = self.clock.now();
        check_name(&new.name)?;
        if new.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::invalid("`expires_at` has passed already"));
        }
        let secret = new_secret();
        let hash = digest(&secret);
        let record = KeyRecord {
            id: KeyId::new(),
            name: new.name,
            role: new.role,
            reach: new.reach,
            hash: hex(&hash),
            created_at: now,
            created_by: by.to_owned(),
            expires_at: new.expires_at,
            last_used_at: None,
            revoked_at: None,
        };
        self.take_name(&record)?;
        if let Err(e) = self.store.commit(Tx::new().api_key(&record).durable()).await {
            self.names.remove_if(&record.name, |_, id| *id == record.id);
            return Err(e);
        }
        let key = Key::new(record);
        let record = key.record.view();
        self.all.insert(record.id, key.clone());
        self.by_hash.insert(hash, key);
        Ok((record, secret))
    }

    /// One name, one key in force.
    fn take_name(&self, record: &KeyRecord) -> Result<()> {
        match self.names.entry(record.name.clone()) {
            Entry::Vacant(free) => {
                free.insert(record.id);
            }
            Entry::Occupied(mut taken) => {
                let old = self.all.get(taken.get()).map(|k| k.record.view());
                // One that is being made counts as in force.
                if old.is_none_or(|old| old.is_good(record.created_at)) {
                    return Err(Error::conflict(format!(
                        "`name` is `{}`: a key of this name is in force; revoke it first, or choose another name",
                        record.name
                    )));
                }
                taken.insert(record.id);
            }
        }
        Ok(())
    }

    /// Closes a key at once and for good, and ends what is open with it. Asked again, it stays so.
    ///
    /// Errors: `NotFound`.
    pub async fn revoke(&self, id: KeyId) -> Result<Arc<KeyRecord>> {
        let key = self.all.get(&id).map(|k| k.value().clone());
        let key = key
            .ok_or_else(|| Error::not_found(format!("there is no key {id} (`hotbed key ls` lists them)")))?;
        let (record, written) = {
            let mut record = key.record.lock();
            let now = self.clock.now();
            record.revoked_at.get_or_insert(now);
            // Under the lock, as with every record: memory and disk change in one order.
            (record.view(), self.store.submit(Tx::new().api_key(&record).durable()))
        };
        // Whatever the disk says, it opens nothing any more.
        self.by_hash.retain(|_, other| other.holder.key() != Some(id));
        key.holder.close();
        self.names.remove_if(&record.name, |_, of| *of == id);
        written.await?;
        Ok(Arc::new(seen(&key)))
    }

    /// All there ever were, oldest first, each with its last use to the second.
    pub fn keys(&self) -> Vec<KeyRecord> {
        let mut all: Vec<_> = self.all.iter().map(|key| seen(&key)).collect();
        all.sort_by_key(|r| r.id);
        all
    }

    /// Writes down when keys were last used.
    pub async fn save(&self) -> Result<()> {
        let mut tx = Tx::new();
        for key in &self.all {
            let used = key.used.load(Ordering::Relaxed);
            let mut record = key.record.lock();
            let known = record.last_used_at.map_or(0, Timestamp::as_second);
            if used - known >= USE_GRAIN {
                record.last_used_at = Timestamp::from_second(used).ok();
                tx = tx.api_key(&record);
            }
        }
        self.rate.forget_idle();
        self.store.submit(tx).await
    }
}

fn seen(key: &Key) -> KeyRecord {
    let mut record = (*key.record.view()).clone();
    let used = key.used.load(Ordering::Relaxed);
    if used > 0 {
        record.last_used_at = Timestamp::from_second(used).ok();
    }
    record
}

fn check_name(name: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | ' ');
    let wrong =
        name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(good) || name.trim() != name;
    if wrong || name == INSTALLATION {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(LONGEST_NAME).collect();
        return Err(Error::invalid(format!(
            "`name` is `{shown}`: expected 1 to {LONGEST_NAME} letters, digits, blanks or `-_.@`, and not `{INSTALLATION}`"
        )));
    }
    Ok(())
}

/// A key as people get it: 256 bits, less the few that a UUID fixes.
pub(crate) fn new_secret() -> String {
    format!("{PREFIX}{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple())
}

fn digest(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

fn unhex(text: &str) -> Option<Hash> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_back() {
        let hash = digest("hbk_1");
        assert_eq!(unhex(&hex(&hash)), Some(hash));
        for wrong in ["", "00", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
        assert_ne!(new_secret(), new_secret());
    }
}
