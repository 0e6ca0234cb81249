//! Hotbed's agent: the first process of every sandbox.
//!
//! It dials home and serves `domain::wire` on that connection: commands, files, git sync, the write gate, and a
//! relay that carries git out of a sandbox without a network. It needs its boot file and the socket, and nothing
//! else of the image that it runs in. One thread does everything but disk work and the gate's judgements.

pub mod api;
pub mod ask;
pub mod boot;
pub mod exec;
pub mod files;
pub mod gate;
pub mod hooks;
pub mod link;
pub mod pipes;
pub mod quiesce;
pub mod rehearsal;
pub mod relay;
pub mod run;
pub mod spawn;
pub mod sync;
pub mod users;
pub mod warm;
pub mod who;
