//! Every chore of this repository: `cargo xtask help` lists them. Each command is a file; this one only dispatches.

mod apt;
mod bench;
mod build;
mod cgroup;
mod context;
mod counts;
mod daemon;
mod demo;
mod fuzz;
mod lint;
mod object;
mod pip;
mod process;
mod programs;
mod release;
mod setup;
mod stop;
mod storm;
mod test;
mod toolchain;
mod vm;
mod worker;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::context::Ctx;

/// The chores of killwatch. Times are for 2 cores: cold on a fresh machine / warm.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Install what building needs and is missing, saying what and why first (1.5 min / 0.1 s)
    Setup,
    /// Build target/release/killwatch, kernel side included (setup + 2.5 min / 1 s)
    Build,
    /// Build, then run the daemon in the foreground: `cargo xtask run -- --log.level debug`
    Run(build::RunArgs),
    /// Have a worker OOM-killed for real and print what killwatch says of it (build + 1 s)
    Demo,
    /// Run every test: unit, property, end to end on this kernel and in a VM (build + 3.5 min / 2 min)
    Test(test::TestArgs),
    /// Run the end-to-end tests under Debian's kernels in QEMU, one or all (build + 10 s a boot, and the scenarios)
    Vm(vm::VmArgs),
    /// Fuzz the parsers of what strangers say, each for a while (5 min, and the time given)
    Fuzz(fuzz::FuzzArgs),
    /// Check format, lints, dependencies and sources (45 s / 1 s; in CI, and with --deny, 5 min more the first time)
    Lint(lint::LintArgs),
    /// Measure what it costs, how fast it is and where it ends, beside its peers (build + 50 min; --quick: 5 min)
    Bench(bench::BenchArgs),
    /// Count the instructions of rooms and BPF programs, and hold them to docs/performance/counts.json (build + 10 s)
    Counts(counts::CountsArgs),
    /// Cause as many deaths as this machine can, every receiver down and then up, and account for each (build + 1 min)
    Storm(storm::StormArgs),
    /// Make the Debian package, target/deb/killwatch_*.deb (build + 3 min / 15 s)
    Deb(release::deb::DebArgs),
    /// Make the container's image, target/image/killwatch-*.tar, in OCI's and Docker's form (build + 5 s)
    Image(release::image::ImageArgs),
    /// Make the manual pages and completions, target/manual (build + 2.5 min / 1 s)
    Man,
    /// Stand-in for a victim: allocates until it is killed
    #[command(hide = true)]
    Hog(worker::HogArgs),
    /// Stand-in for a victim: waits to be killed
    #[command(hide = true)]
    Pause,
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Hog(args) => return worker::hog(&args),
        Command::Pause => return worker::pause(),
        _ => {}
    }
    let ctx = Ctx::new()?;
    match command {
        Command::Setup => setup::run(&ctx),
        Command::Build => build::run(&ctx),
        Command::Run(args) => build::run_daemon(&ctx, &args),
        Command::Demo => demo::run(&ctx),
        Command::Test(args) => test::run(&ctx, &args),
        Command::Vm(args) => vm::run(&ctx, &args),
        Command::Fuzz(args) => fuzz::run(&ctx, &args),
        Command::Lint(args) => lint::run(&ctx, &args),
        Command::Bench(args) => bench::run(&ctx, &args),
        Command::Counts(args) => counts::run(&ctx, &args),
        Command::Storm(args) => storm::run(&ctx, &args),
        Command::Deb(args) => release::deb::run(&ctx, &args),
        Command::Image(args) => release::image::run(&ctx, &args),
        Command::Man => release::manual::run(&ctx),
        Command::Hog(_) | Command::Pause => Ok(()),
    }
}

fn main() -> ExitCode {
    let Some(command) = Cli::parse().command else {
        return match Cli::command().print_help() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    };
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
