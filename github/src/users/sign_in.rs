//! Signing in: by the web (state and PKCE), or by a code that is typed in elsewhere.
//!
//! What is begun lives in memory for some minutes; a restart means that the user begins again.

use std::collections::HashMap;
use std::fmt;
use std::sync::PoisonError;
use std::time::Duration;

use domain::{Error, Result};
use jiff::{SignedDuration, Timestamp};
use zeroize::Zeroizing;

use super::record::Record;
use super::{Account, Users};
use crate::oauth::{Code, Refused, Tokens, challenge, random_word, slower, verifier};
use crate::wire::piece;
use domain::ports::UserToken;

/// How long a user may take at GitHub's page.
const WEB_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// Sign-ins under way of each kind; the oldest makes room.
const AT_MOST: usize = 1000;

/// What is under way.
#[derive(Default)]
pub(super) struct Pending {
    web: HashMap<String, Web>,
    device: HashMap<String, Device>,
}

struct Web {
    verifier: Zeroizing<String>,
    redirect_uri: String,
    repository: Option<u64>,
    ends_at: Timestamp,
}

struct Device {
    code: Zeroizing<String>,
    repository: Option<u64>,
    interval: Duration,
    next_poll: Timestamp,
    ends_at: Timestamp,
}

/// A sign-in by the web that has begun.
#[derive(Debug, Clone)]
pub struct WebSignIn {
    /// Where the browser goes.
    pub url: String,
    /// Comes back with the code. Bind it to the browser (a cookie): a state from elsewhere is an attack.
    pub state: String,
    pub ends_at: Timestamp,
}

/// A sign-in by device that has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceSignIn {
    /// Hotbed's own name for it; GitHub's stays here.
    pub id: String,
    /// What the user types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    pub interval: Duration,
    pub ends_at: Timestamp,
}

/// Where a sign-in by device stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DevicePoll {
    /// The user has not typed the code in yet; ask again after this.
    Pending {
        again_in: Duration,
    },
    Done(Account),
    /// The user said no.
    Refused,
    /// Too late, or never begun here: begin again.
    Expired,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pending({} by web, {} by device)", self.web.len(), self.device.len())
    }
}

impl Users {
    /// Begins a sign-in by the web. With a repository's id the token will reach that one alone.
    pub fn begin_web(&self, redirect_uri: &str, repository: Option<u64>) -> Result<WebSignIn> {
        if self.0.client.secret.is_none() {
            return Err(Error::invalid(
                "the sign-in by web needs the App's client secret, and none is configured",
            ));
        }
        let (state, verifier) = (random_word()?, verifier()?);
        let ends_at = self.now().checked_add(WEB_LIFE).unwrap_or(Timestamp::MAX);
        let url = format!(
            "{}/login/oauth/authorize?client_id={}&redirect_uri={}&state={state}&code_challenge={}&code_challenge_method=S256",
            self.0.wire.addresses().web,
            piece(&self.0.client.id),
            piece(redirect_uri),
            challenge(&verifier),
        );
        let begun = Web { verifier, redirect_uri: redirect_uri.to_owned(), repository, ends_at };
        let now = self.now();
        let mut pending = self.pending();
        make_room(&mut pending.web, now, |w| w.ends_at);
        pending.web.insert(state.clone(), begun);
        Ok(WebSignIn { url, state, ends_at })
    }

    /// Ends it with what came back. A state is good once.
    pub async fn finish_web(&self, state: &str, code: &str) -> Result<Account> {
        let begun = self.pending().web.remove(state).filter(|w| w.ends_at > self.now());
        let Some(begun) = begun else {
            return Err(Error::denied("this sign-in was not begun here, or is over: begin again"));
        };
        let code = Code::Web { code, redirect_uri: &begun.redirect_uri, verifier: &begun.verifier };
        let tokens = self
            .0
            .client
            .exchange(&self.0.wire, &code, begun.repository)
            .await
            .map_err(|e| e.into_error("sign in by web"))?;
        self.welcome(tokens, false, begun.repository).await
    }

    /// Begins a sign-in by device.
    pub async fn begin_device(&self, repository: Option<u64>) -> Result<DeviceSignIn> {
        let body = self.0.client.device_code(&self.0.wire).await?;
        let now = self.now();
        let interval = Duration::from_secs(body.interval.clamp(1, 60));
        let ends_at = later(now, Duration::from_secs(body.expires_in.clamp(60, 3600)));
        let id = random_word()?;
        let device = Device {
            code: body.device_code.unwrap_or_default(),
            repository,
            interval,
            next_poll: later(now, interval),
            ends_at,
        };
        let mut pending = self.pending();
        make_room(&mut pending.device, now, |d| d.ends_at);
        pending.device.insert(id.clone(), device);
        Ok(DeviceSignIn {
            id,
            user_code: body.user_code,
            verification_uri: body.verification_uri,
            interval,
            ends_at,
        })
    }

    /// Asks GitHub how it stands, never more often than GitHub wants to be asked.
    pub async fn poll_device(&self, id: &str) -> Result<DevicePoll> {
        let (code, repository, interval) = {
            let now = self.now();
            let mut pending = self.pending();
            let Some(device) = pending.device.get_mut(id) else { return Ok(DevicePoll::Expired) };
            if device.ends_at <= now {
                pending.device.remove(id);
                return Ok(DevicePoll::Expired);
            }
            if device.next_poll > now {
                let left = device.next_poll.duration_since(now);
                return Ok(DevicePoll::Pending {
                    again_in: Duration::try_from(left).unwrap_or(device.interval),
                });
            }
            // Taken before the question goes out: two who poll at once ask once.
            device.next_poll = later(now, device.interval);
            (device.code.clone(), device.repository, device.interval)
        };
        match self.0.client.exchange(&self.0.wire, &Code::Device { code: &code }, repository).await {
            Ok(tokens) => {
                self.pending().device.remove(id);
                self.welcome(tokens, true, repository).await.map(DevicePoll::Done)
            }
            Err(Refused::Said { word, description, interval: named }) => match word.as_str() {
                "authorization_pending" => Ok(DevicePoll::Pending { again_in: interval }),
                "slow_down" => {
                    let interval = slower(interval, named);
                    if let Some(device) = self.pending().device.get_mut(id) {
                        device.interval = interval;
                        device.next_poll = later(self.now(), interval);
                    }
                    Ok(DevicePoll::Pending { again_in: interval })
                }
                _ => {
                    self.pending().device.remove(id);
                    match word.as_str() {
                        "access_denied" => Ok(DevicePoll::Refused),
                        "expired_token" => Ok(DevicePoll::Expired),
                        _ => Err(Refused::Said { word, description, interval: named }
                            .into_error("sign in by device")),
                    }
                }
            },
            Err(failed) => Err(failed.into_error("sign in by device")),
        }
    }

    /// Finds out who it is, and keeps the tokens.
    async fn welcome(&self, tokens: Tokens, by_device: bool, repository: Option<u64>) -> Result<Account> {
        let account = self.whoami(&UserToken::new(tokens.access.as_str())).await?;
        let record = Record::signed_in(account.clone(), tokens, by_device, repository, self.now());
        self.keep(record).await?;
        tracing::info!(login = %account.login, by_device, "signed in");
        Ok(account)
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.0.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn later(now: Timestamp, by: Duration) -> Timestamp {
    SignedDuration::try_from(by).ok().and_then(|by| now.checked_add(by).ok()).unwrap_or(Timestamp::MAX)
}

/// Takes out what is over and, where that is not enough, what began first.
fn make_room<T>(all: &mut HashMap<String, T>, now: Timestamp, ends_at: impl Fn(&T) -> Timestamp) {
    if all.len() < AT_MOST {
        return;
    }
    all.retain(|_, one| ends_at(one) > now);
    while all.len() >= AT_MOST {
        let Some(oldest) = all.iter().min_by_key(|(_, one)| ends_at(one)).map(|(key, _)| key.clone()) else {
            return;
        };
        all.remove(&oldest);
    }
}
