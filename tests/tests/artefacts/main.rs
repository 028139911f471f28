//! What is deployed, held to the tools of the world that it is deployed in. One file per artefact.
//!
//! A tool that is not installed is said loudly and counts as skipped; with `KILLWATCH_REQUIRE_E2E=1` it fails.

mod browser;
mod page;
mod tool;
