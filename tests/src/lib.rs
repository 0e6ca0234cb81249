//! What the tests stand on and others may run, too: the stand-in for GitHub, a registry behind a door.

pub mod github;
pub mod registry;
