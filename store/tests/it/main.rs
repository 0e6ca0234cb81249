//! The store through its public face, on real files, with real processes killed.

mod audit;
mod backup;
mod build_logs;
mod deliveries;
mod kill;
mod model;
mod open;
mod power;
mod records;
mod samples;
mod sealed;
mod session_logs;
