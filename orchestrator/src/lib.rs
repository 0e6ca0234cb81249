//! The composition root of Hotbed: API, fleet of sandboxes, session engine, builds, pool, command line.
//!
//! Policy is in `pool`, `image-builder` and `snapshots`; the outside world is in `docker`, `store`, `git`, `github` and `registry`. They
//! meet here and nowhere else.

pub mod access;
pub mod agent_binary;
pub mod api;
pub mod app;
pub mod audit;
pub mod builds;
pub mod captures;
pub mod cli;
pub mod client;
pub mod demand;
pub mod demo;
pub mod differences;
pub mod endpoint;
pub mod feed;
pub mod fleet;
pub mod freshness;
pub mod github;
pub mod idempotency;
pub mod images;
mod ledger;
pub mod links;
pub mod live;
pub mod logging;
mod measure;
pub mod metrics;
pub mod pools;
pub mod pulls;
pub mod quotas;
pub mod rate;
mod relay;
pub mod replay;
pub mod repos;
pub mod retention;
pub mod rollout;
pub mod room;
pub mod secrets;
pub mod sessions;
pub mod shipping;
pub mod spared;
pub mod stats;
pub mod tasks;
pub mod tls;
pub mod traces;
pub mod warmups;
