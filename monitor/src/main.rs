//! Arguments, configuration, app, exit code.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// The system's would keep two thirds more: names, paths and series live for minutes between answers and records that live for a moment, and
/// leave holes that only size classes fill again. How it is set is in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    killwatch::cli::main(std::env::args_os())
}
