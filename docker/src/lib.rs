//! Sandboxes on a Docker daemon: [`DockerBackend`] is `domain::ports::Backend` over the engine's HTTP API, and
//! the only place that names bollard. [`rootfs`] makes base filesystems from a distribution's packages, so that
//! nothing needs a registry.
//!
//! It promises: every call has a deadline and an error kind; only what this instance made is listed, stopped or
//! removed; a failed call leaves nothing half made that `list` and `stop` can't see. It leaves to others: what to
//! start and when, the socket and the agent's binary in the shared directory, retries.

mod backend;
mod build;
mod capture;
mod config;
mod error;
mod mark;
mod network;
mod reference;
mod registry;
pub mod rootfs;
mod run_dir;
mod sandbox;
mod tree;

pub use backend::DockerBackend;
pub use config::{Credential, DEFAULT_REGISTRY, Deadlines, DockerConfig, OnCall};
