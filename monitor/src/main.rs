//! Arguments, configuration, app, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    killwatch::cli::main(std::env::args_os())
}
