//! What is kept of a signed-in user: one sealed record.

use std::time::Duration;

use domain::ports::UserToken;
use domain::{Error, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Account, Standing};
use crate::oauth::Tokens;

/// Room for a record, so that writing it leaves no copies behind in memory that was outgrown.
const ROOM: usize = 16 * 1024;

#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub account: Account,
    pub token: Zeroizing<String>,
    /// Absent where the App's tokens don't expire.
    pub expires_at: Option<Timestamp>,
    pub refresh: Option<Refresh>,
    /// Signed in by device: GitHub wants no client secret for a refresh.
    pub by_device: bool,
    /// A personal access token.
    pub personal: bool,
    /// The one repository that the token was narrowed to.
    pub repository: Option<u64>,
    pub since: Timestamp,
    /// Why the user has to sign in again.
    pub ended: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Refresh {
    pub token: Zeroizing<String>,
    pub expires_at: Option<Timestamp>,
}

impl Record {
    pub fn signed_in(
        account: Account,
        tokens: Tokens,
        by_device: bool,
        repository: Option<u64>,
        now: Timestamp,
    ) -> Self {
        let mut record = Self {
            account,
            token: Zeroizing::default(),
            expires_at: None,
            refresh: None,
            by_device,
            personal: false,
            repository,
            since: now,
            ended: None,
        };
        record.take(tokens);
        record
    }

    pub fn personal(account: Account, token: &UserToken, now: Timestamp) -> Self {
        Self {
            account,
            token: Zeroizing::new(token.expose().to_owned()),
            expires_at: None,
            refresh: None,
            by_device: false,
            personal: true,
            repository: None,
            since: now,
            ended: None,
        }
    }

    fn take(&mut self, tokens: Tokens) {
        self.token = tokens.access;
        self.expires_at = tokens.access_expires_at;
        self.refresh = tokens.refresh.map(|token| Refresh { token, expires_at: tokens.refresh_expires_at });
    }

    fn same(&self) -> Self {
        Self {
            account: self.account.clone(),
            token: Zeroizing::default(),
            expires_at: None,
            refresh: None,
            ended: None,
            ..*self
        }
    }

    pub fn renewed(&self, tokens: Tokens) -> Self {
        let mut record = self.same();
        record.take(tokens);
        record
    }

    /// Without authority, with the reason.
    pub fn ended(&self, why: &str) -> Self {
        Self { ended: Some(why.to_owned()), ..self.same() }
    }

    /// Whether the token has less than `margin` left.
    pub fn is_due(&self, now: Timestamp, margin: Duration) -> bool {
        let margin = jiff::SignedDuration::try_from(margin).unwrap_or(jiff::SignedDuration::ZERO);
        self.expires_at.is_some_and(|at| at.duration_since(now) <= margin)
    }

    pub fn standing(&self) -> Standing {
        match &self.ended {
            Some(why) => Standing::SignInAgain { why: why.clone() },
            None => Standing::SignedIn(UserToken::new(self.token.as_str()).of(&self.account.login)),
        }
    }

    pub fn seal(&self) -> Result<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(ROOM));
        serde_json::to_writer(&mut *bytes, self)
            .map_err(|e| Error::permanent("write a sign-in down").caused_by(e))?;
        Ok(bytes)
    }

    pub fn open(login: &str, bytes: &[u8]) -> Result<Self> {
        // The position alone: what stands there may be a token.
        serde_json::from_slice(bytes).map_err(|e| {
            Error::permanent(format!(
                "the sign-in of {login} can't be read: column {} is not what was expected",
                e.column()
            ))
        })
    }
}
