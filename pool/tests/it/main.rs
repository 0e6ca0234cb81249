//! Tests of the pool's policy, at its public boundary.

mod make;
mod plan;
mod race;
mod shelf;
