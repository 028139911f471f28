//! Wrong usage: clap's own words, the environment variable named if the value came from it, and exit code 64.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory as _};

use super::{Cli, EX_USAGE};

/// Prints help, version or what is wrong. Help that was asked for is no error; help for want of a subcommand is.
pub(super) fn explain(error: &clap::Error, args: &[OsString]) -> ExitCode {
    // A closed output is no reason for another error.
    let _ = error.print();
    if let Some(variable) = variable_at_fault(error, args) {
        super::complain(&format!("the value comes from the environment variable {variable}"));
    }
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => ExitCode::SUCCESS,
        _ => ExitCode::from(EX_USAGE),
    }
}

/// The variable whose value was refused: that of the flag in the error, if the flag itself was not given.
fn variable_at_fault(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(named)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let long = named.split([' ', '=']).next()?;
    let given =
        args.iter().filter_map(|arg| arg.to_str()).any(|arg| arg.split('=').next() == Some(long));
    if given { None } else { variable_of(&Cli::command(), long.strip_prefix("--")?) }
}

fn variable_of(command: &Command, long: &str) -> Option<String> {
    let flags = command.get_subcommands().flat_map(Command::get_arguments);
    let flag =
        flags.into_iter().find(|flag| flag.get_long() == Some(long) && flag.get_env().is_some())?;
    let name = flag.get_env()?.to_str()?;
    std::env::var_os(name).map(|_| name.to_owned())
}
