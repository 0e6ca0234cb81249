//! What the tests stand on and others may run, too: the stand-in for GitHub.

pub mod github;
