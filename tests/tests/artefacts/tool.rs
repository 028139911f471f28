//! The programs that judge.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use killwatch_tests::corpus::find_program;

/// A file of the repository.
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A program of this name. `None`, said loudly, if there is none and that is allowed.
///
/// # Panics
/// If it is not installed and must be.
pub fn find(name: &str) -> Option<PathBuf> {
    let found = find_program(name);
    if found.is_none() {
        assert!(
            std::env::var_os("KILLWATCH_REQUIRE_E2E").is_none_or(|value| value != "1"),
            "{name} is not installed"
        );
        println!("SKIPPED: {name} is not installed");
    }
    found
}

/// Runs it to its end.
///
/// # Panics
/// If it fails, with what it said.
pub fn run<I: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = I>) -> String {
    let mut command = Command::new(program);
    let output = command
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
