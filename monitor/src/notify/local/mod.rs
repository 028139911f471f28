//! Sinks that stay on this host.

mod file;
pub mod journald;
pub mod lines;
mod rotate;
