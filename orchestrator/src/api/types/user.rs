//! Users, and how they sign in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::session::Token;

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HandToken {
    #[schema(value_type = String, write_only)]
    pub token: Token,
}

/// Somebody who has signed in, or had.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct UserView {
    pub login: String,
    /// GitHub's number for the account: it stays when the login changes.
    pub id: u64,
    pub name: Option<String>,
    pub signed_in: bool,
    /// Why they have to sign in again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl UserView {
    pub fn of(account: &github::Account, signed_in: bool, why: Option<String>) -> Self {
        let github::Account { id, login, name } = account.clone();
        Self { login, id, name, signed_in, why }
    }
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginDeviceSignIn {
    /// The one repo that the token is to reach; all that user and App reach when not given.
    #[serde(default)]
    pub repo: Option<String>,
}

/// A sign-in by device that has begun.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignInView {
    pub id: String,
    /// What the user types in.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// How often to ask.
    pub interval_seconds: u64,
    pub ends_at: Timestamp,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSignInPoll {
    /// `pending`, `done`, `refused` or `expired`.
    pub state: String,
    /// While it is pending.
    pub again_in_seconds: Option<u64>,
    /// When it is done.
    pub user: Option<UserView>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BeginWebSignIn {
    /// Where GitHub sends the browser back to; one of the App's callback URLs.
    pub redirect_uri: String,
    /// The one repo that the token is to reach; all that user and App reach when not given.
    #[serde(default)]
    pub repo: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WebSignInView {
    /// Where to send the browser.
    pub url: String,
    /// Comes back with the code. Keep it with the browser.
    pub state: String,
    pub ends_at: Timestamp,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FinishWebSignIn {
    pub state: String,
    pub code: String,
}
