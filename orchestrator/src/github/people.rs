//! Whose authority a session acts with: a token that the client handed over for it, else what its user has signed in
//! with. What there is none of is said with the way forward, and the App's never takes its place.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dashmap::{DashMap, DashSet};
use domain::ports::UserToken;
use domain::redact::{KeptSecret, in_use};
use domain::{Error, ErrorKind, Identity, Result, SessionId};
use github::{Account, Standing, Users, Wire};
use tokio::time::Instant;

/// A token that GitHub believed within this time is not asked about again before a push.
const PROVEN_FOR: Duration = Duration::from_secs(5 * 60);

/// What a session's user can act with.
#[derive(Debug, Clone)]
pub enum Held {
    Token(UserToken),
    /// Nothing, and why: in words that name the way forward.
    Nothing {
        why: String,
    },
}

#[derive(Debug)]
pub struct People {
    wire: Wire,
    /// `None` where sign-in is not configured.
    users: Option<Users>,
    /// Tokens that clients handed over, for as long as the session and this process live. Never on disk.
    handed: DashMap<SessionId, (UserToken, KeptSecret)>,
    /// Sessions whose handed-over token went with the process before this one.
    lost: DashSet<SessionId>,
    /// Who has ever signed in, by login in lower case: what commits carry, without asking anybody.
    accounts: DashMap<String, Account>,
    /// When GitHub last believed the token of a session.
    proven: Mutex<std::collections::HashMap<SessionId, (UserToken, Instant)>>,
}

impl People {
    pub async fn load(wire: Wire, users: Option<Users>) -> Result<Self> {
        let accounts = DashMap::new();
        if let Some(users) = &users {
            for (account, _) in users.accounts().await? {
                accounts.insert(account.login.to_ascii_lowercase(), account);
            }
        }
        let (handed, lost) = (DashMap::new(), DashSet::new());
        Ok(Self { wire, users, handed, lost, accounts, proven: Mutex::default() })
    }

    /// The users that can sign in.
    ///
    /// # Errors
    /// `Invalid` where sign-in is not configured.
    pub fn users(&self) -> Result<&Users> {
        let none = || Error::invalid("nobody can sign in here: `forge.github.users` is not configured");
        self.users.as_ref().ok_or_else(none)
    }

    /// Notes who has signed in.
    pub fn welcome(&self, account: &Account) {
        self.accounts.insert(account.login.to_ascii_lowercase(), account.clone());
    }

    /// Who commits for a login, as GitHub counts it as that account's own.
    pub fn identity(&self, login: &str) -> Identity {
        match self.accounts.get(&login.to_ascii_lowercase()) {
            Some(account) => account.identity(self.wire.addresses()),
            None => Identity {
                login: login.to_owned(),
                name: login.to_owned(),
                email: format!("{login}@{}", self.wire.addresses().noreply_domain()),
            },
        }
    }

    /// Takes a token that a client hands over for one session.
    pub fn hand(&self, session: SessionId, token: UserToken) {
        let hidden = in_use().keep(token.expose());
        self.handed.insert(session, (token, hidden));
        self.lost.remove(&session);
    }

    /// Takes in that tokens which had been handed over for these sessions are gone.
    pub fn lost(&self, sessions: Vec<SessionId>) {
        for session in sessions {
            self.lost.insert(session);
        }
    }

    /// Forgets what belonged to sessions that are over.
    pub fn forget_others(&self, lives: impl Fn(SessionId) -> bool) {
        self.handed.retain(|session, _| lives(*session));
        self.lost.retain(|session| lives(*session));
        self.proven().retain(|session, _| lives(*session));
    }

    pub async fn held(&self, session: SessionId, login: &str) -> Result<Held> {
        if let Some(handed) = self.handed.get(&session) {
            return Ok(Held::Token(handed.0.clone()));
        }
        let without = match &self.users {
            Some(users) => match said(users.standing(login).await?, login) {
                Held::Nothing { why } => why,
                token => return Ok(token),
            },
            None => format!("there is no token of {login}'s, and sign-in is not configured here"),
        };
        let lost = self.lost.contains(&session).then(|| format!("{}; {without}", gone(session)));
        Ok(Held::Nothing { why: lost.unwrap_or(without) })
    }

    /// What takes the place of a token that GitHub did not believe; `None` where nothing does.
    pub async fn instead(
        &self,
        session: SessionId,
        login: &str,
        rejected: &UserToken,
    ) -> Result<Option<Held>> {
        self.proven().remove(&session);
        if self.handed.get(&session).is_some_and(|t| t.0.expose() == rejected.expose()) {
            return Ok(None);
        }
        match &self.users {
            Some(users) => users.renew(login, rejected).await.map(|standing| Some(said(standing, login))),
            None => Ok(None),
        }
    }

    /// The token to push with: one that GitHub believes. It is asked before anything is sent, because a push that has
    /// begun can't begin again; one that is believed no longer is renewed, once.
    ///
    /// # Errors
    /// `Denied` with the way forward where there is none, `Unavailable` and the like where GitHub can't be asked.
    pub async fn to_push(&self, session: SessionId, login: &str) -> Result<UserToken> {
        let token = match self.held(session, login).await? {
            Held::Token(token) => token,
            Held::Nothing { why } => return Err(nothing(&why)),
        };
        if self.is_proven(session, &token) {
            return Ok(token);
        }
        let (token, account) = match github::whoami(&self.wire, &token).await {
            Ok(account) => (token, account),
            Err(e) if e.kind() == ErrorKind::Denied => match self.instead(session, login, &token).await? {
                Some(Held::Token(newer)) if newer.expose() != token.expose() => {
                    let account = github::whoami(&self.wire, &newer).await?;
                    (newer, account)
                }
                Some(Held::Nothing { why }) => return Err(nothing(&why)),
                _ => return Err(e),
            },
            Err(e) => return Err(e),
        };
        if !account.login.eq_ignore_ascii_case(login) {
            return Err(Error::denied(format!(
                "the token that was handed over is {}'s, and the session is {login}'s",
                account.login
            )));
        }
        self.welcome(&account);
        self.proven().insert(session, (token.clone(), Instant::now()));
        Ok(token)
    }

    /// A push with this session's token was not taken: before the next one GitHub is asked.
    pub fn doubt(&self, session: SessionId) {
        self.proven().remove(&session);
    }

    /// GitHub says that a user took the App's authorization back.
    pub async fn revoked(&self, account: u64) -> Result<()> {
        self.proven().clear();
        match &self.users {
            Some(users) => users.authorization_revoked(account).await,
            None => Ok(()),
        }
    }

    fn is_proven(&self, session: SessionId, token: &UserToken) -> bool {
        let proven = self.proven();
        proven
            .get(&session)
            .is_some_and(|(known, at)| known.expose() == token.expose() && at.elapsed() < PROVEN_FOR)
    }

    fn proven(
        &self,
    ) -> std::sync::MutexGuard<'_, std::collections::HashMap<SessionId, (UserToken, Instant)>> {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn said(standing: Standing, login: &str) -> Held {
    match standing {
        Standing::SignedIn(token) => Held::Token(token),
        Standing::SignInAgain { why } => {
            Held::Nothing { why: format!("{login} has to sign in again (`hotbed login`): {why}") }
        }
        Standing::Unknown => Held::Nothing { why: format!("{login} has not signed in (`hotbed login`)") },
    }
}

/// What is said of a session whose handed-over token went with a restart.
pub fn gone(session: SessionId) -> String {
    format!(
        "the token that was handed over for this session is gone since Hotbed was restarted: hand it over again \
         (`PUT /v1/sessions/{session}/user-token`)"
    )
}

fn nothing(why: &str) -> Error {
    Error::denied(format!("{why}; the commits stay where they are, push again then"))
}
