//! Tests of the snapshot policy, at its public boundary.

mod end;
mod make;
mod restore;
mod retain;
