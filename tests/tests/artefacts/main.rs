//! What is deployed, held to the tools of the world that it is deployed in. One file per artefact.
//!
//! A tool that is not installed is said loudly and counts as skipped; with `KILLWATCH_REQUIRE_E2E=1` it fails.
#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by a panic, its helpers too")]

mod alertmanager;
mod browser;
mod commands;
mod debian;
mod documents;
mod grafana;
mod kubernetes;
mod links;
mod markdown;
mod page;
mod pod;
mod prometheus;
mod rules;
mod shell;
mod tool;
