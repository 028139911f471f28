//! The executables of the end-to-end tests: the scenarios and the victim that they have killed.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::build;
use crate::context::Ctx;
use crate::process::{self, step};

/// Where cargo put them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Programs {
    /// The libtest executable of the test target `scenarios`.
    pub(crate) scenarios: Option<PathBuf>,
    /// The binary `victim`.
    pub(crate) victim: Option<PathBuf>,
}

/// Builds the package `killwatch-tests` without running it.
pub(crate) fn build(ctx: &Ctx, object: &Path) -> Result<Programs> {
    step("build the end-to-end tests", || {
        let mut cargo = build::cargo(ctx, object);
        cargo.args([
            "test",
            "--locked",
            "-p",
            "killwatch-tests",
            "--no-run",
            "--message-format=json-render-diagnostics",
        ]);
        Ok(parse(&process::output(&mut cargo)?))
    })
}

/// Builds the binary `victim` alone.
pub(crate) fn victim(ctx: &Ctx, object: &Path) -> Result<PathBuf> {
    let programs = step("build the victim", || {
        let mut cargo = build::cargo(ctx, object);
        cargo.args([
            "build",
            "--locked",
            "-p",
            "killwatch-tests",
            "--bin",
            "victim",
            "--message-format=json-render-diagnostics",
        ]);
        Ok(parse(&process::output(&mut cargo)?))
    })?;
    programs.victim.context("killwatch-tests has no binary `victim`")
}

/// Reads cargo's messages, one JSON object a line.
fn parse(messages: &str) -> Programs {
    let mut programs = Programs::default();
    for message in messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        let Some(executable) = message["executable"].as_str() else {
            continue;
        };
        let is_test = message["profile"]["test"].as_bool().unwrap_or_default();
        match (message["target"]["name"].as_str(), is_test) {
            (Some("scenarios"), true) => programs.scenarios = Some(executable.into()),
            (Some("victim"), false) => programs.victim = Some(executable.into()),
            _ => {}
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_executables_are_picked() {
        let messages = r#"
            {"reason":"compiler-artifact","target":{"name":"victim"},"profile":{"test":true},"executable":"/t/victim-unit-tests"}
            {"reason":"compiler-artifact","target":{"name":"victim"},"profile":{"test":false},"executable":"/t/victim"}
            {"reason":"compiler-artifact","target":{"name":"scenarios"},"profile":{"test":true},"executable":"/t/scenarios-1"}
            {"reason":"compiler-artifact","target":{"name":"other"},"profile":{"test":false},"executable":null}
            not json"#;
        assert_eq!(
            parse(messages),
            Programs { scenarios: Some("/t/scenarios-1".into()), victim: Some("/t/victim".into()) }
        );
    }
}
