//! GitHub, as Hotbed needs it: the App's authority, the users' own, pull requests, webhooks.
//!
//! Three promises. Whose authority a call uses is an argument of the call, and the types differ: the App can't open a
//! pull request by mistake, and no token that writes can be minted. Every limit GitHub states is obeyed, per
//! installation and per user. And nothing that a token is made of is shown: not by `Debug`, not in an error.
//!
//! This is the only crate that names octocrab, and octocrab does less here than it could: `docs/adr/0016`. What is
//! done with what comes in, when to ask, what to store of it, is the orchestrator's.

mod address;
mod app;
mod failure;
mod jwt;
mod oauth;
mod pace;
mod pulls;
mod said;
mod users;
mod vault;
pub mod webhook;
mod wire;

pub use address::Addresses;
pub use app::{Access, App, DeliveryFacts, InstallationToken, Lease, RepositoryFacts, git_header};
pub use oauth::{Client, ClientSecret};
pub use pulls::GithubForge;
pub use users::{Account, DevicePoll, DeviceSignIn, Standing, Users, WebSignIn, whoami};
pub use vault::{Vault, VaultKey};
pub use wire::Wire;
