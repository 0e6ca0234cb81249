//! The integration tests: whole servers on fakes, by area. Failure rows (F…) are named at the tests that hold them.

mod api;
mod browser;
mod cadence;
mod claims;
mod docker;
mod environment;
mod faults;
mod freshness;
mod github;
mod http;
mod images;
mod layers;
mod logs;
mod observe;
mod pulls;
mod recipes;
mod restarts;
mod sessions;
mod sizing;
mod warmups;
mod world;
