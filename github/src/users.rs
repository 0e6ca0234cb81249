//! The users' own authority: signed in by web or by device, a token of theirs, kept sealed and given out whole.
//!
//! A refresh kills both old tokens the moment GitHub makes new ones. So one refresh of a user runs at a time, in a
//! task that no caller can cut short; what comes is stored before anybody gets it; and where it was lost all the
//! same (a crash, an answer that never arrived), the user is told to sign in again, and why (F51).
//!
//! A token that a trusted client hands over with a request is not kept at all: [`UserToken::new`] is all it takes.

mod record;
mod sign_in;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ports::UserToken;
use domain::redact::{KeptSecret, Secrets};
use domain::{Error, Identity, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as Turns;

use crate::address::Addresses;
use crate::oauth::{Client, Refused};
use crate::said::UserRef;
use crate::vault::Vault;
use crate::wire::{Authority, Call, Wire};

use record::{Record, Refresh};
pub use sign_in::{DevicePoll, DeviceSignIn, WebSignIn};

/// A token with less than this left is refreshed before it is given out.
const MARGIN: Duration = Duration::from_secs(10 * 60);
const PREFIX: &str = "github/user/";
const NOTHING: Option<&()> = None;

/// An account of GitHub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Stays the same when the account is renamed.
    pub id: u64,
    pub login: String,
    #[serde(default)]
    pub name: Option<String>,
}

impl Account {
    /// What commits of this account carry: GitHub counts them as its own without showing an address.
    pub fn identity(&self, addresses: &Addresses) -> Identity {
        Identity {
            login: self.login.clone(),
            name: self.name.clone().filter(|n| !n.trim().is_empty()).unwrap_or_else(|| self.login.clone()),
            email: format!("{}+{}@{}", self.id, self.login, addresses.noreply_domain()),
        }
    }
}

/// How Hotbed stands with a user.
#[derive(Debug, Clone)]
pub enum Standing {
    /// With this authority; it has ten minutes left at least, unless GitHub could not be asked for another.
    SignedIn(UserToken),
    /// There was authority and it has ended.
    SignInAgain { why: String },
    /// There never was any.
    Unknown,
}

/// Whose a token is. The only way to know: nothing inside a token is to be believed.
///
/// # Errors
/// `Denied` for one that GitHub does not believe.
pub async fn whoami(wire: &Wire, token: &UserToken) -> Result<Account> {
    let user: UserRef = wire
        .ask(Call::get("/user", Authority::User(token)), NOTHING)
        .await
        .map_err(|e| e.into_error("ask GitHub whose the token is", "sign in again (`hotbed login`)"))?;
    Ok(Account { id: user.id, login: user.login, name: user.name })
}

/// All users of one GitHub. Cheap to clone.
#[derive(Clone)]
pub struct Users(Arc<Inner>);

struct Inner {
    wire: Wire,
    client: Client,
    vault: Vault,
    secrets: Secrets,
    /// One refresh, sign-in or sign-out of a user at a time.
    turns: Mutex<HashMap<String, Arc<Turns<()>>>>,
    /// What GitHub gave and the vault has not taken yet.
    unsaved: Mutex<HashMap<String, Arc<Record>>>,
    kept: Mutex<HashMap<String, [KeptSecret; 2]>>,
    pending: Mutex<sign_in::Pending>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Users({:?})", self.0.wire)
    }
}

impl Users {
    /// `secrets` learns the values that are in use, for those that have no shape.
    pub fn new(wire: Wire, client: Client, vault: Vault, secrets: Secrets) -> Self {
        Self(Arc::new(Inner {
            wire,
            client,
            vault,
            secrets,
            turns: Mutex::default(),
            unsaved: Mutex::default(),
            kept: Mutex::default(),
            pending: Mutex::default(),
        }))
    }

    /// The user's authority, refreshed when its time runs out.
    ///
    /// # Errors
    /// What may pass: GitHub can't be asked for a new token, or the vault can't take it.
    pub async fn standing(&self, login: &str) -> Result<Standing> {
        let Some(record) = self.read(login).await? else { return Ok(Standing::Unknown) };
        if record.ended.is_none() && !record.is_due(self.now(), MARGIN) && !self.is_unsaved(login) {
            return Ok(record.standing());
        }
        self.in_turn(login, |users, login| async move { users.refresh(&login, None).await }).await
    }

    /// The authority after GitHub did not believe `rejected`: a newer one that is there already, or a refreshed one.
    pub async fn renew(&self, login: &str, rejected: &UserToken) -> Result<Standing> {
        let rejected = rejected.clone();
        self.in_turn(login, |users, login| async move { users.refresh(&login, Some(rejected)).await }).await
    }

    /// Brings what was sealed with older keys under the newest, before anything else is done here. Answers how many
    /// there were; the older keys can be taken away then.
    pub async fn reseal(&self) -> Result<usize> {
        self.0.vault.reseal().await
    }

    /// As [`whoami`].
    pub async fn whoami(&self, token: &UserToken) -> Result<Account> {
        whoami(&self.0.wire, token).await
    }

    /// Keeps a personal access token. It is not refreshed; when it ends the user gives another.
    pub async fn keep_personal(&self, token: UserToken) -> Result<Account> {
        let account = self.whoami(&token).await?;
        let record = Record::personal(account.clone(), &token, self.now());
        self.keep(record).await?;
        Ok(account)
    }

    /// Ends the user's authority here and at GitHub. What GitHub can't be told is forgotten here all the same.
    pub async fn sign_out(&self, login: &str) -> Result<()> {
        self.in_turn(login, |users, login| async move {
            let Some(record) = users.read(&login).await? else { return Ok(()) };
            users.forget(&login).await?;
            if record.ended.is_none() && !record.personal {
                let Inner { client, wire, .. } = &*users.0;
                if let Err(e) = client.revoke(wire, &record.token).await {
                    tracing::warn!(error = %e.chain(), "a token was left to expire at sign-out");
                }
            }
            Ok(())
        })
        .await
    }

    /// Takes in that a user has revoked the App's authorization at GitHub.
    pub async fn authorization_revoked(&self, account_id: u64) -> Result<()> {
        for name in self.0.vault.names(PREFIX).await? {
            let login = name.trim_start_matches(PREFIX).to_owned();
            self.in_turn(&login, move |users, login| async move {
                match users.read(&login).await? {
                    Some(record) if record.account.id == account_id && record.ended.is_none() => {
                        users.end(&login, &record, "the authorization was revoked at GitHub").await.map(drop)
                    }
                    _ => Ok(()),
                }
            })
            .await?;
        }
        Ok(())
    }

    /// Who is signed in, or was.
    pub async fn accounts(&self) -> Result<Vec<(Account, bool)>> {
        let mut all = Vec::new();
        for name in self.0.vault.names(PREFIX).await? {
            if let Some(record) = self.read(name.trim_start_matches(PREFIX)).await? {
                all.push((record.account.clone(), record.ended.is_none()));
            }
        }
        Ok(all)
    }

    fn now(&self) -> Timestamp {
        self.0.wire.clock().now()
    }

    /// Does something about one user when nothing else does, to its end: whoever asked may go away.
    async fn in_turn<T: Send + 'static, F>(
        &self,
        login: &str,
        work: impl FnOnce(Self, String) -> F + Send + 'static,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let (users, login) = (self.clone(), key(login));
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| Arc::strong_count(turn) > 1);
            turns.entry(login.clone()).or_default().clone()
        };
        let done = tokio::spawn(async move {
            let _turn = turn.lock().await;
            work(users, login).await
        });
        done.await.map_err(|e| Error::permanent("look after a user's authority").caused_by(e))?
    }

    /// In turn: brings the authority up to date. With `rejected` it is renewed unless it is another one by now.
    async fn refresh(&self, login: &str, rejected: Option<UserToken>) -> Result<Standing> {
        self.save_unsaved(login).await?;
        let Some(record) = self.read(login).await? else { return Ok(Standing::Unknown) };
        let now = self.now();
        let refused = rejected.is_some_and(|token| token.expose() == record.token.as_str());
        if record.ended.is_some() || (!refused && !record.is_due(now, MARGIN)) {
            return Ok(record.standing());
        }
        let Some(refresh) = record.refresh.as_ref().filter(|r| r.expires_at.is_none_or(|at| at > now)) else {
            if refused || record.is_due(now, Duration::ZERO) {
                let why = if record.personal {
                    "the personal access token has ended"
                } else {
                    "the sign-in has ended"
                };
                return self.end(login, &record, why).await;
            }
            return Ok(record.standing());
        };
        let Inner { client, wire, .. } = &*self.0;
        match client.refresh(wire, &refresh.token, record.by_device).await {
            Ok(tokens) => {
                let renewed = record.renewed(tokens);
                let standing = renewed.standing();
                self.keep_in_turn(login, renewed).await?;
                Ok(standing)
            }
            Err(Refused::Said { word, .. }) if word == "incorrect_client_credentials" => {
                // The operator's mistake is not the user's end.
                let said = Refused::Said { word, description: String::new(), interval: None };
                Err(said.into_error(&format!("refresh the sign-in of {login}")))
            }
            Err(Refused::Said { word, .. }) => {
                let why = format!(
                    "GitHub takes the refresh token no longer ({}): it was used, revoked or has expired",
                    domain::redact::redact(&word)
                );
                self.end(login, &record, &why).await
            }
            Err(Refused::Failed(failure)) if !refused && !record.is_due(now, Duration::ZERO) => {
                let error = failure.into_error(&format!("refresh the sign-in of {login}"), "");
                tracing::warn!(error = %error.chain(), "a user's token could not be refreshed yet");
                Ok(record.standing())
            }
            Err(refused) => Err(refused.into_error(&format!("refresh the sign-in of {login}"))),
        }
    }

    async fn end(&self, login: &str, record: &Record, why: &str) -> Result<Standing> {
        let ended = record.ended(why);
        let standing = ended.standing();
        self.keep_in_turn(login, ended).await?;
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
        Ok(standing)
    }

    /// Keeps what a sign-in brought.
    async fn keep(&self, record: Record) -> Result<()> {
        let login = record.account.login.clone();
        self.in_turn(&login, |users, login| async move { users.keep_in_turn(&login, record).await }).await
    }

    /// Stores, before anybody gets it. What can't be stored stays in memory and is tried again at the next call: the
    /// tokens before it are dead.
    async fn keep_in_turn(&self, login: &str, record: Record) -> Result<()> {
        let record = Arc::new(record);
        self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner).insert(login.to_owned(), record);
        self.save_unsaved(login).await
    }

    async fn save_unsaved(&self, login: &str) -> Result<()> {
        let record = self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner).get(login).cloned();
        let Some(record) = record else { return Ok(()) };
        self.0.vault.put(&name(login), &record.seal()?).await?;
        self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
        self.remember(login, &record);
        Ok(())
    }

    fn is_unsaved(&self, login: &str) -> bool {
        self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key(login))
    }

    async fn forget(&self, login: &str) -> Result<()> {
        self.0.vault.remove(&name(login)).await?;
        self.0.unsaved.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(login);
        Ok(())
    }

    async fn read(&self, login: &str) -> Result<Option<Record>> {
        let login = key(login);
        let Some(sealed) = self.0.vault.get(&name(&login)).await? else { return Ok(None) };
        let record = Record::open(&login, &sealed)?;
        self.remember(&login, &record);
        Ok(Some(record))
    }

    /// Has the values redacted for as long as they are in use.
    fn remember(&self, login: &str, record: &Record) {
        if record.ended.is_none() {
            let refresh = record.refresh.as_ref().map_or("", |r: &Refresh| &r.token);
            let kept = [self.0.secrets.keep(&record.token), self.0.secrets.keep(refresh)];
            self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).insert(login.to_owned(), kept);
        }
    }
}

/// GitHub does not tell `Ada` from `ada`.
fn key(login: &str) -> String {
    login.to_ascii_lowercase()
}

fn name(login: &str) -> String {
    format!("{PREFIX}{}", key(login))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_carry_the_account() {
        let account = Account { id: 7, login: "ada".into(), name: Some(" ".into()) };
        let identity = account.identity(&Addresses::github_com());
        assert_eq!(
            (identity.name.as_str(), identity.email.as_str()),
            ("ada", "7+ada@users.noreply.github.com")
        );
    }
}
