//! Everything Hotbed has to do with git: bare mirrors of the upstream repositories, the relay through which
//! sandboxes fetch and push without holding a credential, a small git server for repositories that live nowhere
//! else, and the forge for repositories without GitHub.
//!
//! Fetch and push over the network are done by the `git` program (protocol v2, proxies, certificates, credential
//! helpers of the operator all work), where a glance does not show that there is nothing to fetch; git2 answers
//! questions about objects that are already here. This is the only crate that names git2. What is policy – when to refresh, who may push what – is the caller's.

mod failure;
mod flight;
pub mod forge;
mod gateway;
mod glance;
pub mod hosting;
mod look;
mod ls_refs;
mod mirrors;
mod objects;
mod pktline;
mod process;
mod pump;
mod relay;
#[cfg(feature = "testing")]
pub mod testing;
mod tree;

pub use failure::redact;
pub use forge::{Ledger, LocalForge};
pub use gateway::{Access, Caller, Gateway, GatewayOptions, PushEvent, Traffic};
pub use ls_refs::{Listing, parse_listing};
pub use mirrors::{Authority, Credentials, MirrorOptions, MirrorSet, Operation, Remote};
pub use objects::Moved;
pub use pktline::{Command, PktError, PushRequest, parse_commands};
pub use relay::{Body, RelayBody, serve_relay, text, whole};
