//! What the tests stand on and others may run, too: the stand-in for GitHub, an identity provider, a registry
//! behind a door, a collector of traces.

pub mod collector;
pub mod github;
pub mod issuer;
pub mod registry;
