//! The App's authority: installations, and tokens that reach one repository and as little of it as will do.
//!
//! What a token may do is [`Access`], a closed list in which nothing can write. A pull request is the user's to
//! open; the App could open one in its own name only with `pull_requests: write`, and no request for that can be
//! written here.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use domain::redact::KeptSecret;
use domain::{Error, RepoName, Result};
use http::Method;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex as Turns;
use zeroize::Zeroizing;

use crate::failure::Failure;
use crate::jwt::AppKey;
use crate::said::{InstallationRef, PullBody, RepositoryBody};
use crate::wire::{Authority, Call, Wire, piece};

/// A shared token with less than this left is not used: what begins with it may take a while (F50).
const MARGIN: Duration = Duration::from_secs(15 * 60);
/// Where GitHub does not say how long a token lives.
const PRESUMED_LIFE: Duration = Duration::from_secs(30 * 60);
const NOTHING: Option<&()> = None;
const REMEDY: &str = "check the App's id and private key (forge.github), and the clock of this machine";

/// What a token may do. Least first; there is nothing here that writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Clone and fetch.
    ReadContents,
    /// Look at pull requests.
    ReadPullRequests,
}

impl Access {
    pub const ALL: [Self; 2] = [Self::ReadContents, Self::ReadPullRequests];

    fn permissions(self) -> Permissions {
        match self {
            Self::ReadContents => Permissions { contents: Some(Read), pull_requests: None, metadata: Read },
            Self::ReadPullRequests => {
                Permissions { contents: None, pull_requests: Some(Read), metadata: Read }
            }
        }
    }
}

/// The one word that a permission is asked with.
#[derive(Debug, Clone, Copy)]
struct Read;

impl Serialize for Read {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("read")
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Permissions {
    #[serde(skip_serializing_if = "Option::is_none")]
    contents: Option<Read>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pull_requests: Option<Read>,
    metadata: Read,
}

/// What is sent to mint a token.
#[derive(Debug, Serialize)]
struct Mint<'a> {
    repositories: [&'a str; 1],
    permissions: Permissions,
}

#[derive(Deserialize)]
struct Minted {
    token: Zeroizing<String>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    permissions: HashMap<String, String>,
}

/// An installation, as far as it matters here.
#[derive(Debug, Clone, Copy)]
struct Installed {
    id: u64,
    /// Whether it has the permission `workflows: write`.
    workflows: bool,
}

/// A token of an installation, for one repository. Zeroed when its last clone goes, and hidden until then wherever it
/// would show.
#[derive(Clone)]
pub struct InstallationToken {
    secret: Arc<Zeroizing<String>>,
    _hidden: Arc<KeptSecret>,
    installation: u64,
    expires_at: Timestamp,
}

impl fmt::Debug for InstallationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InstallationToken(installation {}, until {})", self.installation, self.expires_at)
    }
}

impl InstallationToken {
    /// The secret itself. Nothing is to be assumed about its length or inside.
    pub fn expose(&self) -> &str {
        &self.secret
    }

    pub fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The header line with which git takes it.
    pub fn git_header(&self) -> Zeroizing<String> {
        git_header(&self.secret)
    }

    fn authority(&self) -> Authority<'_> {
        Authority::Installation(self.installation, &self.secret)
    }
}

/// `Authorization: Basic …` for git, whosever the token is.
pub fn git_header(token: &str) -> Zeroizing<String> {
    let pair = Zeroizing::new(format!("x-access-token:{token}"));
    Zeroizing::new(format!("Authorization: Basic {}", BASE64_STANDARD.encode(pair.as_bytes())))
}

/// A repository as GitHub knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepositoryFacts {
    /// Stays the same when it is renamed or transferred.
    pub id: u64,
    /// As it is called now.
    pub name: RepoName,
    pub default_branch: Option<String>,
    pub private: bool,
}

/// A delivery of a webhook as GitHub remembers it.
#[derive(Debug, Clone, Deserialize)]
pub struct DeliveryFacts {
    pub id: u64,
    /// The same at each attempt: `X-GitHub-Delivery`.
    pub guid: String,
    #[serde(default)]
    pub event: String,
    pub delivered_at: Timestamp,
    #[serde(default)]
    pub redelivery: bool,
    #[serde(default)]
    pub status_code: i64,
}

/// The GitHub App. Cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    wire: Wire,
    key: AppKey,
    installations: Mutex<HashMap<RepoName, Installed>>,
    /// Shared tokens; the inner lock is held while one is minted, so that many who want one mint one.
    tokens: Mutex<HashMap<(RepoName, Access), Slot>>,
}

type Slot = Arc<Turns<Option<InstallationToken>>>;

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "App({:?})", self.0.key)
    }
}

impl App {
    /// # Errors
    /// `Invalid` when the key is none.
    pub fn new(wire: Wire, app_id: u64, private_key_pem: &[u8]) -> Result<Self> {
        let key = AppKey::from_pem(app_id, private_key_pem)?;
        Ok(Self(Arc::new(Inner { wire, key, installations: Mutex::default(), tokens: Mutex::default() })))
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.0.wire
    }

    /// Whether GitHub believes the App: its name there.
    pub async fn probe(&self) -> Result<String> {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let named: Named = self.as_app("ask GitHub about the App", Method::GET, "/app", NOTHING).await?;
        Ok(named.name)
    }

    /// A token for one operation that may take long: a clone, a build. [`App::revoke`] it after.
    pub async fn mint(&self, repo: &RepoName, access: Access) -> Result<InstallationToken> {
        let doing = format!("mint a token for {repo}");
        let known = self.known_installation(repo);
        let installation = match known {
            Some(id) => id,
            None => self.find_installation(repo).await?,
        };
        match self.mint_at(installation, repo, access, &doing).await {
            // Installed anew since: another id.
            Err(e) if known.is_some() && e.kind() == domain::ErrorKind::NotFound => {
                self.forget(repo);
                let installation = self.find_installation(repo).await?;
                self.mint_at(installation, repo, access, &doing).await
            }
            answer => answer,
        }
    }

    /// A token that is shared by short operations of one kind on one repository. It has a quarter of an hour left
    /// at least, or is minted anew (F50).
    pub async fn token(&self, repo: &RepoName, access: Access) -> Result<InstallationToken> {
        let slot = {
            let mut tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.entry((repo.clone(), access)).or_default().clone()
        };
        let mut held = slot.lock().await;
        let now = self.0.wire.clock().now();
        match &*held {
            Some(token) if token.expires_at.duration_since(now) >= margin() => Ok(token.clone()),
            _ => {
                self.prune(now);
                let token = self.mint(repo, access).await?;
                *held = Some(token.clone());
                Ok(token)
            }
        }
    }

    /// Drops the tokens that have ended and that nobody asks for just now: repositories come and go.
    fn prune(&self, now: Timestamp) {
        let live = |token: &Option<InstallationToken>| token.as_ref().is_some_and(|t| t.expires_at > now);
        let mut tokens = self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.retain(|_, slot| Arc::strong_count(slot) > 1 || slot.try_lock().is_ok_and(|t| live(&t)));
    }

    /// Forgets a shared token that GitHub did not take, so that the next call mints one. It is revoked, in case it was
    /// good and something else was wrong.
    pub async fn rejected(&self, repo: &RepoName, access: Access, token: &InstallationToken) {
        let slot = self
            .0
            .tokens
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&(repo.clone(), access))
            .cloned();
        if let Some(slot) = slot {
            let mut held = slot.lock().await;
            if let Some(refused) = held.take_if(|t| t.secret == token.secret) {
                self.revoke_soon(refused);
            }
        }
    }

    /// Ends a token before its time. One that is dead already is fine.
    pub async fn revoke(&self, token: &InstallationToken) -> Result<()> {
        match self.0.wire.tell(Call::delete("/installation/token", token.authority()), NOTHING).await {
            Ok(()) | Err(Failure::Unauthorized { .. }) => Ok(()),
            Err(e) => Err(e.into_error("revoke a token", REMEDY)),
        }
    }

    /// Forgets what was known about a repository: its installation has changed.
    pub fn forget(&self, repo: &RepoName) {
        self.0.installations.lock().unwrap_or_else(PoisonError::into_inner).remove(repo);
        self.0.tokens.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != repo);
    }

    pub async fn repository(&self, repo: &RepoName) -> Result<RepositoryFacts> {
        let body: RepositoryBody =
            self.look(repo, Access::ReadContents, "", &format!("look at repository {repo}")).await?;
        let name = body
            .full_name
            .parse()
            .map_err(|e| Error::permanent(format!("look at repository {repo}")).caused_by(e))?;
        Ok(RepositoryFacts { id: body.id, name, default_branch: body.default_branch, private: body.private })
    }

    pub(crate) async fn pull_request(&self, repo: &RepoName, number: u64) -> Result<PullBody> {
        let doing = format!("look at pull request {number} of {repo}");
        self.look(repo, Access::ReadPullRequests, &format!("/pulls/{number}"), &doing).await
    }

    /// The newest deliveries that failed: what was missed.
    pub async fn failed_deliveries(&self) -> Result<Vec<DeliveryFacts>> {
        let path = "/app/hook/deliveries?status=failure&per_page=100";
        self.as_app("ask GitHub for deliveries that failed", Method::GET, path, NOTHING).await
    }

    /// Has GitHub deliver one again.
    pub async fn redeliver(&self, delivery: u64) -> Result<()> {
        let path = format!("/app/hook/deliveries/{delivery}/attempts");
        let _: serde_json::Value =
            self.as_app("have a delivery repeated", Method::POST, &path, NOTHING).await?;
        Ok(())
    }

    fn known_installation(&self, repo: &RepoName) -> Option<u64> {
        self.installed(repo).map(|installed| installed.id)
    }

    fn installed(&self, repo: &RepoName) -> Option<Installed> {
        self.0.installations.lock().unwrap_or_else(PoisonError::into_inner).get(repo).copied()
    }

    /// Whether the App's installation on a repository lets its users change workflow files, as it was last seen; nobody
    /// is asked.
    pub fn lets_change_workflows(&self, repo: &RepoName) -> Option<bool> {
        self.installed(repo).map(|installed| installed.workflows)
    }

    async fn find_installation(&self, repo: &RepoName) -> Result<u64> {
        let path = format!("/repos/{}/{}/installation", piece(repo.owner()), piece(repo.name()));
        let found: Result<InstallationRef> = self
            .as_app(&format!("look for the App's installation on {repo}"), Method::GET, &path, NOTHING)
            .await;
        let installed = match found {
            Ok(found) => {
                let workflows = found.permissions.get("workflows").is_some_and(|how| how == "write");
                Installed { id: found.id, workflows }
            }
            Err(e) if e.kind() == domain::ErrorKind::NotFound => {
                let words = format!(
                    "the App is not installed on {repo}: install it there, or give it access to this repository"
                );
                return Err(Error::not_found(words).caused_by(e));
            }
            Err(e) => return Err(e),
        };
        self.0.installations.lock().unwrap_or_else(PoisonError::into_inner).insert(repo.clone(), installed);
        Ok(installed.id)
    }

    async fn mint_at(
        &self,
        installation: u64,
        repo: &RepoName,
        access: Access,
        doing: &str,
    ) -> Result<InstallationToken> {
        let mint = Mint { repositories: [repo.name()], permissions: access.permissions() };
        let path = format!("/app/installations/{installation}/access_tokens");
        let minted: Minted = self.as_app(doing, Method::POST, &path, Some(&mint)).await?;
        let now = self.0.wire.clock().now();
        let expires_at = minted.expires_at.or_else(|| now.checked_add(PRESUMED_LIFE).ok()).unwrap_or(now);
        let hidden = Arc::new(domain::redact::in_use().keep(&minted.token));
        let token =
            InstallationToken { secret: Arc::new(minted.token), _hidden: hidden, installation, expires_at };
        if let Some((what, how)) = minted.permissions.iter().find(|(_, how)| how.as_str() != "read") {
            // A wider token than was asked for is not one to hand on.
            let error =
                Error::permanent(format!("{doing}: GitHub gave `{what}: {how}`, which was not asked for"));
            let _ = self.revoke(&token).await;
            return Err(error);
        }
        Ok(token)
    }

    /// A look at a repository with a shared token; one that is believed no longer is replaced once.
    async fn look<T: serde::de::DeserializeOwned>(
        &self,
        repo: &RepoName,
        access: Access,
        below: &str,
        doing: &str,
    ) -> Result<T> {
        let path = format!("/repos/{}/{}{below}", piece(repo.owner()), piece(repo.name()));
        let token = self.token(repo, access).await?;
        match self.0.wire.ask(Call::get(path.clone(), token.authority()), NOTHING).await {
            Err(Failure::Unauthorized { .. }) => {
                self.rejected(repo, access, &token).await;
                let token = self.token(repo, access).await?;
                self.0.wire.ask(Call::get(path, token.authority()), NOTHING).await
            }
            answer => answer,
        }
        .map_err(|e| e.into_error(doing, REMEDY))
    }

    /// A call by the App itself. A refusal from which GitHub's time is learnt is asked about once more.
    async fn as_app<T: serde::de::DeserializeOwned>(
        &self,
        doing: &str,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T> {
        let Inner { wire, key, .. } = &*self.0;
        for last in [false, true] {
            let now = wire.clock().now();
            let token = key.sign(now)?;
            let call =
                Call { method: method.clone(), path: path.to_owned(), authority: Authority::App(&token) };
            match wire.ask(call, body).await {
                Err(Failure::Unauthorized { date: Some(theirs), .. }) if !last && key.learn(now, theirs) => {}
                answer => return answer.map_err(|e| e.into_error(doing, REMEDY)),
            }
        }
        unreachable!("the second answer is the last")
    }
}

fn margin() -> jiff::SignedDuration {
    jiff::SignedDuration::from_secs(MARGIN.as_secs().cast_signed())
}

/// Tokens for one operation that may outlast any of them: each is minted when it is needed, and all are revoked at
/// the end.
#[derive(Debug)]
pub struct Lease {
    app: App,
    repo: RepoName,
    access: Access,
    /// The newest last. Earlier ones may still be in use by what began with them.
    held: Turns<Vec<InstallationToken>>,
}

impl Lease {
    pub fn new(app: App, repo: RepoName, access: Access) -> Self {
        Self { app, repo, access, held: Turns::default() }
    }

    /// A token that has a quarter of an hour left at least.
    pub async fn token(&self) -> Result<InstallationToken> {
        let mut held = self.held.lock().await;
        let now = self.app.wire().clock().now();
        if let Some(token) = held.last().filter(|t| t.expires_at.duration_since(now) >= margin()) {
            return Ok(token.clone());
        }
        let fresh = self.app.mint(&self.repo, self.access).await?;
        held.retain(|t| t.expires_at > now);
        held.push(fresh.clone());
        Ok(fresh)
    }

    /// Revokes what is held. A lease that is dropped does the same without anybody waiting for it.
    pub async fn end(self) -> Result<()> {
        let held = std::mem::take(&mut *self.held.lock().await);
        let mut outcome = Ok(());
        for token in held {
            outcome = outcome.and(self.app.revoke(&token).await);
        }
        outcome
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        for token in std::mem::take(self.held.get_mut()) {
            self.app.revoke_soon(token);
        }
    }
}

impl App {
    fn revoke_soon(&self, token: InstallationToken) {
        // Outside a runtime there is nobody to do it; the token dies by itself within the hour.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let app = self.clone();
        runtime.spawn(async move {
            if let Err(e) = app.revoke(&token).await {
                tracing::debug!(error = %e.chain(), "a token was left to expire");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No request body ever asks to write, `pull_requests` least of all; each names one repository.
    #[test]
    fn no_token_that_writes_can_be_asked_for() {
        for access in Access::ALL {
            let body =
                serde_json::to_value(Mint { repositories: ["api"], permissions: access.permissions() })
                    .unwrap();
            assert_eq!(body["repositories"], serde_json::json!(["api"]));
            let permissions = body["permissions"].as_object().unwrap();
            assert_eq!(permissions["metadata"], "read");
            assert!(permissions.values().all(|how| how == "read"), "{permissions:?}");
            assert!(!body.to_string().contains("write"));
        }
        let clone = serde_json::to_value(Access::ReadContents.permissions()).unwrap();
        assert_eq!(clone, serde_json::json!({"contents": "read", "metadata": "read"}));
    }

    /// Forty characters or two thousand: what git is given is the token, whole.
    #[test]
    fn tokens_have_any_length() {
        for length in [1, 40, 2000] {
            let token = "t".repeat(length);
            let header = git_header(&token);
            let basic = header.strip_prefix("Authorization: Basic ").unwrap();
            assert_eq!(
                BASE64_STANDARD.decode(basic).unwrap(),
                format!("x-access-token:{token}").into_bytes()
            );
        }
    }
}
