//! Tokens of identity providers: whose they are. One that was found good is remembered by its hash until it expires,
//! so a request with it costs what one with a key does.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use config::OidcSettings;
use dashmap::DashMap;
use domain::{Result, SharedClock};
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::Notify;

use super::holder::Holder;
use super::issuer::{Issuer, Refused};
use super::keyring::Print;
use super::{Hash, digest};

/// The longest token that is looked at.
const LONGEST: usize = 16 << 10;
/// Good tokens that are remembered.
const MOST: usize = 10_000;
/// How long a request waits for a key that is being asked for.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub struct Tokens {
    issuers: RwLock<Arc<Vec<Arc<Issuer>>>>,
    good: DashMap<Hash, Arc<Good>>,
    /// Wakes who looks at the issuers' keys.
    pub poke: Arc<Notify>,
}

struct Good {
    holder: Arc<Holder>,
    issuer: Arc<Issuer>,
    key: Print,
}

/// Only what says whom to ask whether the rest is true.
#[derive(Deserialize)]
struct Unverified {
    iss: String,
}

/// Whether this has the form of a token: three parts, no longer than any is.
fn has_the_form(shown: &str) -> bool {
    shown.len() <= LONGEST && shown.bytes().filter(|b| *b == b'.').count() == 2
}

impl Tokens {
    /// These issuers and no other. What was opened with tokens of those that are gone, or are another now, ends.
    pub fn set(&self, settings: &[OidcSettings]) {
        let old = self.issuers();
        let issuers: Vec<_> = settings
            .iter()
            .map(|new| {
                let same = old.iter().find(|issuer| issuer.settings == *new).cloned();
                same.unwrap_or_else(|| Issuer::new(new.clone()))
            })
            .collect();
        let issuers = Arc::new(issuers);
        *self.issuers.write().unwrap_or_else(PoisonError::into_inner) = issuers.clone();
        self.forget(|good| !issuers.iter().any(|issuer| Arc::ptr_eq(issuer, &good.issuer)));
        self.poke.notify_one();
    }

    /// Whether this is to be asked for [`Tokens::who`].
    pub fn knows(&self, shown: &str) -> bool {
        has_the_form(shown) && !self.issuers().is_empty()
    }

    /// Whose token this is; in words why it opens nothing.
    pub async fn who(&self, token: &str, now: Timestamp) -> std::result::Result<Arc<Holder>, String> {
        let hash = digest(token);
        if let Some(good) = self.good.get(&hash) {
            if good.holder.expires_at.is_some_and(|end| now < end) {
                return Ok(good.holder.clone());
            }
            drop(good);
            self.good.remove(&hash);
            return Err("this token has expired".into());
        }
        let unverified = jsonwebtoken::dangerous::insecure_decode::<Unverified>(token)
            .map_err(|_| "this is neither a key nor a token that can be read")?;
        let issuers = self.issuers();
        let issuer = issuers
            .iter()
            .find(|issuer| issuer.settings.issuer == unverified.claims.iss)
            .ok_or("this token is of no issuer in `access.oidc`")?;
        let (holder, key) = match issuer.verify(token, now) {
            Err(Refused::UnknownKey) => {
                self.wait_for_keys(issuer).await;
                issuer.verify(token, now)
            }
            known => known,
        }
        .map_err(|refused| match refused {
            Refused::For(words) => words,
            Refused::UnknownKey => "this token is signed with a key that its issuer does not name".into(),
        })?;
        Ok(self.remember(hash, Good { holder: Arc::new(holder), issuer: issuer.clone(), key }, now))
    }

    /// Until the keys were looked at, where they are looked at for this.
    async fn wait_for_keys(&self, issuer: &Issuer) {
        let Some(mut looked) = issuer.ask() else { return };
        self.poke.notify_one();
        // In time or not: the token is judged again by what is known then.
        let _ = tokio::time::timeout(PATIENCE, looked.changed()).await;
    }

    fn remember(&self, hash: Hash, good: Good, now: Timestamp) -> Arc<Holder> {
        if self.good.len() >= MOST {
            self.good.retain(|_, good| good.holder.expires_at.is_some_and(|end| now < end));
            if self.good.len() >= MOST {
                // They are found good again when they come again.
                self.good.clear();
            }
        }
        let holder = good.holder.clone();
        let good = self.good.entry(hash).or_insert_with(|| Arc::new(good)).value().clone();
        if !good.issuer.has(good.key) {
            // Withdrawn meanwhile.
            self.good.remove(&hash);
        }
        // Whoever came first with it is its holder: what ends ends for both.
        if good.holder.name == holder.name { good.holder.clone() } else { holder }
    }

    /// Reads the keys that are due; what was opened with keys that are gone ends.
    ///
    /// Errors: that of the first issuer whose keys can't be read, after all were asked.
    pub async fn look(&self, clock: &SharedClock) -> Result<()> {
        let issuers = self.issuers();
        let looks = issuers.iter().map(|issuer| async move { (issuer, issuer.look(clock).await) });
        let mut failed = Ok(());
        for (issuer, looked) in futures_util::future::join_all(looks).await {
            match looked {
                Ok(false) => {}
                Ok(true) => self.forget(|good| Arc::ptr_eq(&good.issuer, issuer) && !issuer.has(good.key)),
                Err(e) => failed = failed.and(Err(e)),
            }
        }
        failed
    }

    fn forget(&self, which: impl Fn(&Good) -> bool) {
        self.good.retain(|_, good| {
            let gone = which(good);
            if gone {
                good.holder.close();
            }
            !gone
        });
    }

    fn issuers(&self) -> Arc<Vec<Arc<Issuer>>> {
        self.issuers.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({} issuers, {} remembered)", self.issuers().len(), self.good.len())
    }
}
