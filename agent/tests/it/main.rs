//! The agent against a Hotbed played by the test: the real binary, real processes, real git, a real kernel.

mod docker;
mod exec;
mod files;
mod gate;
mod git_server;
mod harness;
mod link;
mod numbers;
mod sync;
mod who;
