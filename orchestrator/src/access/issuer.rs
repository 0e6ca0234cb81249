//! One identity provider: its keys, how they are kept up to date, and whether a token is signed with one of them.
//!
//! Nothing is fetched for a request. A timer does it, and a token with a key that is not known pokes it, at most once in
//! [`ASK_GAP`]: whoever makes keys up does not make Hotbed hammer the issuer. What was fetched once goes on being good
//! while the issuer can't be reached, for [`OLDEST`] at most.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use config::OidcSettings;
use domain::{Error, Result, SharedClock};
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::Instant;

use super::claims::{self, Claims};
use super::holder::Holder;
use super::keyring::{Keyring, Missing, Print, algorithm};

/// How old keys get before they are fetched anew.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// How old keys may be that can't be fetched anew.
pub const OLDEST: SignedDuration = SignedDuration::from_hours(24);
/// From one token with an unknown key to the next one that the issuer is asked for.
const ASK_GAP: Duration = Duration::from_secs(10);
/// What one answer of an issuer may take, and how large it may be.
const DEADLINE: Duration = Duration::from_secs(5);
const LARGEST: usize = 512 << 10;

pub struct Issuer {
    pub settings: OidcSettings,
    algorithms: Vec<Algorithm>,
    state: RwLock<State>,
    /// Somebody wants the keys to be looked at now.
    wanted: AtomicBool,
    /// When somebody last did.
    asked: Mutex<Option<Instant>>,
    /// Counts the looks that have ended.
    looks: watch::Sender<u64>,
    http: OnceLock<reqwest::Client>,
}

#[derive(Default)]
struct State {
    keys: Arc<Keyring>,
    /// When these were read; `None` before the first time.
    read_at: Option<Timestamp>,
    /// The last look found nothing.
    failing: bool,
}

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It may be signed with a key that came a moment ago.
    UnknownKey,
    /// In words.
    For(String),
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    pub fn new(settings: OidcSettings) -> Arc<Self> {
        let algorithms = settings.algorithms.iter().map(|a| algorithm(*a)).collect();
        Arc::new(Self {
            settings,
            algorithms,
            state: RwLock::default(),
            wanted: AtomicBool::new(false),
            asked: Mutex::default(),
            looks: watch::Sender::new(0),
            http: OnceLock::new(),
        })
    }

    /// Whose token this is.
    pub fn verify(&self, token: &str, now: Timestamp) -> std::result::Result<(Holder, Print), Refused> {
        let refused = |words: &str| Refused::For(words.to_owned());
        let header = jsonwebtoken::decode_header(token).map_err(|_| refused("this token can't be read"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(refused("this token is signed with an algorithm that `access.oidc` does not allow"));
        }
        if header.crit.is_some() {
            return Err(refused("this token asks for what is not understood here (`crit`)"));
        }
        let keys = self.keys(now).map_err(Refused::For)?;
        let (key, print) = keys.find(&header).map_err(|missing| match missing {
            Missing::Key => Refused::UnknownKey,
            Missing::Algorithm => refused("this token's key is not for the algorithm that it names"),
        })?;
        let mut validation = Validation::new(header.alg);
        // Time and the rest are judged by our own clock and rules.
        (validation.validate_exp, validation.validate_aud) = (false, false);
        validation.required_spec_claims.clear();
        let claims = jsonwebtoken::decode::<Claims>(token, key, &validation)
            .map_err(|_| refused("this token's signature is wrong"))?
            .claims;
        let holder = claims::holder(&self.settings, &claims, now).map_err(Refused::For)?;
        Ok((holder, print))
    }

    fn keys(&self, now: Timestamp) -> std::result::Result<Arc<Keyring>, String> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let issuer = &self.settings.issuer;
        match state.read_at {
            None => Err(format!("the keys of {issuer} are not known yet")),
            Some(at) if now.duration_since(at) > OLDEST => {
                Err(format!("the keys of {issuer} could not be read for {} hours", OLDEST.as_hours()))
            }
            Some(_) => Ok(state.keys.clone()),
        }
    }

    /// Whether a key is still one of the issuer's.
    pub fn has(&self, key: Print) -> bool {
        self.state.read().unwrap_or_else(PoisonError::into_inner).keys.has(key)
    }

    /// Asks for a look at the keys; what tells of its end, or nothing where there was one just now.
    pub fn ask(&self) -> Option<watch::Receiver<u64>> {
        let looks = self.looks.subscribe();
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if asked.is_some_and(|at| at.elapsed() < ASK_GAP) {
            // One that is still under way is waited for.
            return self.wanted.load(Ordering::Acquire).then_some(looks);
        }
        *asked = Some(Instant::now());
        self.wanted.store(true, Ordering::Release);
        Some(looks)
    }

    /// Reads the keys where that is due. Answers whether there are others now.
    pub async fn look(&self, clock: &SharedClock) -> Result<bool> {
        if !self.is_due(clock.now()) {
            return Ok(false);
        }
        let read = self.read().await;
        let now = clock.now();
        let done = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            state.failing = read.is_err();
            read.map(|keys| {
                let changed = !state.keys.is(&keys);
                state.read_at = Some(now);
                if changed {
                    state.keys = Arc::new(keys);
                }
                changed
            })
        };
        self.wanted.store(false, Ordering::Release);
        self.looks.send_modify(|n| *n += 1);
        done
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        self.wanted.load(Ordering::Acquire)
            || state.failing
            || self.settings.jwks.is_some()
            || state.read_at.is_none_or(|at| now.duration_since(at) >= FRESH)
    }

    async fn read(&self) -> Result<Keyring> {
        let issuer = &self.settings.issuer;
        let text = match &self.settings.jwks {
            Some(path) => read_file(path).await?,
            None => {
                let base = issuer.trim_end_matches('/');
                let found = self.get(&format!("{base}/.well-known/openid-configuration")).await?;
                let Discovery { issuer: says, jwks_uri } = serde_json::from_slice(&found)
                    .map_err(|e| self.trouble("what it says of itself can't be read").caused_by(e))?;
                if says != *issuer {
                    return Err(self.trouble(&format!("it calls itself `{says}`, to the letter")));
                }
                if !jwks_uri.starts_with("https://") && !config::is_loopback(&jwks_uri) {
                    return Err(self.trouble("its keys are not at an address with https"));
                }
                self.get(&jwks_uri).await?
            }
        };
        Keyring::parse(&text).map_err(|why| self.trouble(&why))
    }

    /// The body of an answer, in time and of a bounded size. Redirects are not followed.
    async fn get(&self, url: &str) -> Result<Vec<u8>> {
        let fetch = async {
            let mut answer = self.client()?.get(url).send().await.map_err(|e| self.broken(e))?;
            if answer.status() != reqwest::StatusCode::OK {
                return Err(self.trouble(&format!("{url} answers {}", answer.status())));
            }
            let mut body = Vec::new();
            while let Some(more) = answer.chunk().await.map_err(|e| self.broken(e))? {
                if body.len() + more.len() > LARGEST {
                    return Err(self.trouble(&format!("the answer of {url} is over {} KiB", LARGEST >> 10)));
                }
                body.extend_from_slice(&more);
            }
            Ok(body)
        };
        tokio::time::timeout(DEADLINE, fetch)
            .await
            .unwrap_or_else(|_| Err(Error::timeout(format!("read {url}"))))
    }

    fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.http.get() {
            return Ok(client);
        }
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(0)
            .user_agent(concat!("hotbed/", env!("CARGO_PKG_VERSION")));
        if config::is_loopback(&self.settings.issuer) {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|e| Error::permanent("make an HTTP client").caused_by(e))?;
        Ok(self.http.get_or_init(|| client))
    }

    fn broken(&self, e: reqwest::Error) -> Error {
        Error::unavailable(format!("read the keys of {}", self.settings.issuer)).caused_by(e)
    }

    fn trouble(&self, why: &str) -> Error {
        Error::unavailable(format!("read the keys of {}: {why}", self.settings.issuer))
    }
}

async fn read_file(path: &Path) -> Result<Vec<u8>> {
    let broken = |e| Error::unavailable(format!("read {}", path.display())).caused_by(e);
    let size = tokio::fs::metadata(path).await.map_err(broken)?.len();
    if size > LARGEST as u64 {
        return Err(Error::unavailable(format!("{} is over {} KiB", path.display(), LARGEST >> 10)));
    }
    tokio::fs::read(path).await.map_err(broken)
}
