//! The engine adapter against a real daemon. Nothing is skipped: without a daemon these tests fail and say so.

mod builds;
mod captures;
mod faults;
mod hardening;
mod lifecycle;
mod proxy;
mod trees;
mod world;
