//! GitHub as this server has it: the App that reads, the users who push and open, and what GitHub tells by webhook.
//!
//! How GitHub is spoken to is the crate `github`'s. Here is what is made of it: whose authority an operation gets
//! ([`upstream`], [`people`]), how deliveries come in and are kept ([`hooks`]), and what they mean ([`news`]).

pub mod hooks;
pub mod news;
pub mod people;
mod upstream;

use std::sync::Arc;

use config::GithubSettings;
use domain::redact::{KeptSecret, in_use};
use domain::{Error, RepoName, Result, SharedClock};
use github::{Addresses, App, Client, ClientSecret, GithubForge, Users, Vault, VaultKey, Wire};
use store::Store;
use zeroize::Zeroizing;

use crate::metrics::Metrics;
use crate::secrets;

pub use hooks::Hooks;
pub use people::People;
pub use upstream::Upstream;

/// One GitHub, as the configuration names it.
#[derive(Debug)]
pub struct Github {
    pub app: App,
    pub people: Arc<People>,
    pub hooks: Arc<Hooks>,
    addresses: Addresses,
    /// What the configuration names, hidden wherever it would show.
    _hidden: Vec<KeptSecret>,
}

impl Github {
    /// Reads the secrets that the configuration names; GitHub itself is not asked.
    ///
    /// # Errors
    /// `Invalid`, with the key of the configuration, for a secret that is not there or is none.
    pub async fn open(
        settings: &GithubSettings,
        store: &Store,
        clock: &SharedClock,
        metrics: &Arc<Metrics>,
    ) -> Result<Arc<Self>> {
        let GithubSettings { api_url, web_url, git_url, .. } = settings;
        let addresses = Addresses::new(api_url, web_url, git_url)?;
        let wire = Wire::new(addresses.clone(), clock.clone())?;
        let key = Zeroizing::new(secrets::value("forge.github.private_key", &settings.private_key)?);
        let app = App::new(wire.clone(), settings.app_id, &key)
            .map_err(|e| Error::invalid("`forge.github.private_key` can't be used").caused_by(e))?;
        let signed_with = settings
            .webhook_secrets
            .iter()
            .map(|source| secrets::value("forge.github.webhook_secret", source).map(Zeroizing::new))
            .collect::<Result<Vec<_>>>()?;
        let signed_with: Vec<&[u8]> = signed_with.iter().map(|s| s.as_slice()).collect();
        let hooks = Hooks::open(&signed_with, store.clone(), clock.clone(), metrics.clone()).await?;
        let mut hidden: Vec<_> = signed_with.iter().map(|secret| hide(secret)).collect();
        let users = match &settings.users {
            Some(users) => Some(open_users(users, wire.clone(), store, &mut hidden).await?),
            None => None,
        };
        let people = Arc::new(People::load(wire, users).await?);
        Ok(Arc::new(Self { app, people, hooks: Arc::new(hooks), addresses, _hidden: hidden }))
    }

    pub fn forge(&self) -> GithubForge {
        GithubForge::new(self.app.clone())
    }

    /// Whether this address is where this GitHub has the repository: nothing else is ever given a token.
    pub fn has(&self, repo: &RepoName, url: &str) -> bool {
        let wanted = self.addresses.clone_url(repo);
        let bare = |url: &str| url.trim_end_matches('/').trim_end_matches(".git").to_ascii_lowercase();
        bare(url) == bare(&wanted)
    }
}

fn hide(secret: &[u8]) -> KeptSecret {
    in_use().keep(&Zeroizing::new(String::from_utf8_lossy(secret).into_owned()))
}

async fn open_users(
    settings: &config::GithubUsers,
    wire: Wire,
    store: &Store,
    hidden: &mut Vec<KeptSecret>,
) -> Result<Users> {
    let text = |key: &str, source| {
        let bytes = Zeroizing::new(secrets::value(key, source)?);
        let text = std::str::from_utf8(&bytes).map_err(|_| Error::invalid(format!("`{key}` is no text")))?;
        Ok::<_, Error>(Zeroizing::new(text.trim().to_owned()))
    };
    let secret = settings
        .client_secret
        .as_ref()
        .map(|source| text("forge.github.users.client_secret", source))
        .transpose()?;
    let keys = text("forge.github.users.vault_key", &settings.vault_key)?;
    hidden.extend(secret.iter().map(|secret| hide(secret.as_bytes())));
    hidden.extend(keys.lines().map(|key| hide(key.trim().as_bytes())));
    let keys = VaultKey::read_all(&keys)
        .map_err(|e| Error::invalid("`forge.github.users.vault_key` can't be used").caused_by(e))?;
    let older = keys.len() - 1;
    let vault = Vault::new(keys, Arc::new(store.clone()))?;
    let client =
        Client { id: settings.client_id.clone(), secret: secret.map(|s| ClientSecret::new(s.as_str())) };
    let users = Users::new(wire, client, vault, in_use().clone());
    if older > 0 {
        let resealed = users.reseal().await?;
        tracing::info!(
            resealed,
            older,
            "users' tokens are all under the newest vault key; the older ones can go"
        );
    }
    Ok(users)
}
