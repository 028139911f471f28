//! The command line: one file per subcommand, and what they share. Exit codes are those of `sysexits.h` where it has one.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

mod bundle;
mod check_config;
mod client;
pub(crate) mod deaths;
mod detach;
pub(crate) mod doctor;
mod exchange;
pub(crate) mod look;
mod run;
pub(crate) mod story;
mod subject;
mod table;
mod tag;
mod test_alert;
#[cfg(feature = "top")]
mod top;
mod usage;
mod why;

/// `EX_USAGE`: a flag, a variable or the file holds something that is not allowed.
pub const EX_USAGE: u8 = 64;
/// `EX_UNAVAILABLE`: the daemon does not answer, and there is nothing else to read.
pub const EX_UNAVAILABLE: u8 = 69;

/// Tells who was killed on this host, by what, why, and what to do
#[derive(Debug, Parser)]
#[command(name = "killwatch", version, long_about = LONG, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG: &str = "\
Tells who was killed on this host, by what, why, and what to do.

A worker gets SIGKILL, and its supervisor sees exit code 137 or nothing. `killwatch run` watches \
the kernel with eBPF and makes a record of every process that ends abnormally: the kernel's OOM \
killer and the cgroup whose limit was hit, another process and its name, its own abort or crash. \
It counts them for Prometheus, writes them as lines of JSON, and answers `killwatch why`.";

const EXAMPLES: &str = "\
Examples:
  killwatch doctor                        Can this host be watched, and what is missing?
  killwatch run                           Watch; metrics and API on 127.0.0.1:9435
  killwatch run --log-sink stdout         And print each death as a line of JSON
  killwatch why 4242                      What happened to process 4242?
  killwatch why shop/web -o markdown      And to a pod, as a page for a ticket
  killwatch bundle shop/web               All of it in one file, without secrets
  killwatch deaths --since 2h -f          Who died in the last two hours, and from now on?
  killwatch tag job_id=4711 -- ./work     Run it such that its death is told as job 4711's
  killwatch check-config /etc/killwatch/killwatch.yaml
  killwatch test-alert --config.file /etc/killwatch/killwatch.yaml

Exit codes: 0 well; 1 failed, or nothing is known; 64 wrong usage or configuration; 69 the daemon does not answer.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch this host; needs root, or CAP_BPF, CAP_PERFMON and access to the cgroups
    Run(Box<run::Args>),
    /// Tell what this host supports, what is missing, and the remedy
    Doctor(doctor::Args),
    /// Check a configuration file, and print what is in force with it
    CheckConfig(check_config::Args),
    /// Take away what of the kernel side goes on without a daemon
    Detach(detach::Args),
    /// Say which job a command is on, and become it: killwatch tag job_id=4711 -- ./work
    Tag(tag::Args),
    /// Tell every sink of a death that never was, and print what each answered
    TestAlert(Box<test_alert::Args>),
    /// List the deaths that are kept, and follow those to come
    Deaths(Box<deaths::Args>),
    /// Tell the story of a process that died: who, what, why, what to do
    Why(why::Args),
    /// Watch the cgroups that are nearest to their limit, and deaths as they come
    #[cfg(feature = "top")]
    Top(top::Args),
    /// Pack what is known of a death and of its surroundings into one file, for a ticket
    Bundle(bundle::Args),
}

/// The command line itself, for its manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Does what the arguments say.
#[must_use]
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<_> = args.into_iter().collect();
    let cli = Cli::command()
        .try_get_matches_from(&args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let result = match cli {
        Ok(Cli { command: Command::Run(args) }) => run::main(&args),
        Ok(Cli { command: Command::Doctor(args) }) => doctor::main(&args),
        Ok(Cli { command: Command::CheckConfig(args) }) => check_config::main(&args),
        Ok(Cli { command: Command::Detach(args) }) => detach::main(&args),
        Ok(Cli { command: Command::Tag(args) }) => tag::main(&args),
        Ok(Cli { command: Command::TestAlert(args) }) => test_alert::main(&args),
        Ok(Cli { command: Command::Deaths(args) }) => deaths::main(&args),
        Ok(Cli { command: Command::Why(args) }) => why::main(&args),
        #[cfg(feature = "top")]
        Ok(Cli { command: Command::Top(args) }) => top::main(&args),
        Ok(Cli { command: Command::Bundle(args) }) => bundle::main(&args),
        Err(error) => return usage::explain(&error, &args),
    };
    result.unwrap_or_else(|error| {
        complain(&format!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// One line to standard error. That it is closed is no reason to fail.
fn complain(what: &str) {
    let _ = writeln!(std::io::stderr(), "killwatch: {what}");
}

/// Text to standard output. A reader that has gone away (`| head`) is no error.
fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests;
