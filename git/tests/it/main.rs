//! The crate against real git on both sides: a git client, a TCP listener in front of the gateway (as the agent
//! forwards it), the mirror, and a real git server as upstream.

mod fetches;
mod forge;
mod glances;
mod latency;
mod looks;
mod mirrors;
mod pushes;
mod trees;
mod world;
