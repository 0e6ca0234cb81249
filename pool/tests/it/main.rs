//! Tests of the pool's policy, at its public boundary.

mod budget;
mod fresh;
mod make;
mod plan;
mod properties;
mod race;
mod room;
mod shelf;
mod sim;
mod target;
mod world;
