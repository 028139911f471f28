//! `vm`: the end-to-end tests under Debian's kernels in QEMU, with the same daemon and the same BPF object as here.

pub(crate) mod archive;
mod fleet;
mod guest;
pub(crate) mod initramfs;
pub(crate) mod kernels;
mod log;
mod matrix;
mod modules;
pub(crate) mod package;
pub(crate) mod qemu;
mod report;
pub(crate) mod suite;
mod systemd;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::fleet::{Files, Fleet};
use self::kernels::KERNELS;
use self::matrix::{Cgroup, Guest, Row, Wish};
use self::report::Outcome;
use crate::apt::{self, Need};
use crate::build::{self, Built};
use crate::context::Ctx;
use crate::process::step;
use crate::programs::{self, Programs};
use crate::stop::Stop;
use crate::test::Tally;

/// Arguments of `vm`.
#[derive(clap::Args)]
pub(crate) struct VmArgs {
    /// Kernel series [default: 6.1, or all with --all]
    #[arg(long, value_parser = series())]
    kernel: Option<String>,
    /// Where memory is accounted in the machine [default: v2, or all with --all]
    #[arg(long, value_enum)]
    cgroup: Option<Cgroup>,
    /// What else is special about the machine [default: plain, or all with --all]
    #[arg(long, value_enum)]
    guest: Option<Guest>,
    /// The whole matrix, or what of it fits the other flags
    #[arg(long)]
    all: bool,
    /// Write scenario × machine to this file, as Markdown
    #[arg(long, value_name = "FILE.md")]
    report: Option<PathBuf>,
    /// A kernel that cannot be had is no failure
    #[arg(long)]
    allow_missing: bool,
    /// Machines at a time, each of which keeps a processor busy most of the time [default: one a processor, at most 4]
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: Option<u8>,
    /// Only scenarios whose name contains one of these
    filter: Vec<String>,
}

fn series() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(KERNELS.iter().map(|kernel| kernel.series))
}

/// Builds, boots, reports.
pub(crate) fn run(ctx: &Ctx, args: &VmArgs) -> Result<()> {
    let wish =
        Wish { all: args.all, kernel: args.kernel.clone(), cgroup: args.cgroup, guest: args.guest };
    let rows = matrix::select(&wish);
    if rows.is_empty() {
        bail!("the matrix has no such machine");
    }
    ensure_packages()?;
    let built = build::daemon(ctx)?;
    let programs = programs::build(ctx, &built.object)?;
    let stop = Stop::install()?;
    let jobs = args.jobs.map_or_else(default_jobs, usize::from);
    let fleet = Fleet { ctx, jobs, allow_missing: args.allow_missing };
    let outcomes = fleet.run(&files(ctx, &built, &programs, &args.filter, &rows)?, &rows, &stop)?;
    finish(&outcomes, args.report.as_deref(), !args.filter.is_empty())
}

/// More machines than processors only make each other late; more than four, memory short (768 MiB to 1 GiB each).
fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().min(4))
}

/// One boot of the default kernel, for `test`.
pub(crate) fn run_default(
    ctx: &Ctx,
    built: &Built,
    programs: &Programs,
    stop: &Stop,
) -> Result<Tally> {
    let rows = matrix::select(&Wish::default());
    let fleet = Fleet { ctx, jobs: 1, allow_missing: false };
    let outcomes = fleet.run(&files(ctx, built, programs, &[], &rows)?, &rows, stop)?;
    if let Some(broken) = outcomes.iter().find_map(|outcome| outcome.broken.as_ref()) {
        bail!("{broken}");
    }
    let path = outcomes.first().map(|outcome| fleet.log(&outcome.row));
    let log = path.context("no machine ran")?;
    let bytes = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
    Ok(Tally::parse(&String::from_utf8_lossy(&bytes)))
}

/// Installs what a boot needs.
pub(crate) fn ensure_packages() -> Result<()> {
    if env::consts::ARCH != "x86_64" {
        bail!("the test machines are x86_64, this one is {}", env::consts::ARCH);
    }
    apt::ensure(&[
        Need::new("qemu-system-x86", "runs the test machine, under software emulation"),
        Need::new("busybox-static", "the test machine's shell"),
        Need::new("cpio", "packs the test machine's files"),
        Need::new("binutils", "takes the debug information out of them"),
        Need::new("xz-utils", "unpacks the test machine's drivers"),
    ])
}

/// Packs what the machines are made of.
fn files(
    ctx: &Ctx,
    built: &Built,
    programs: &Programs,
    filter: &[String],
    rows: &[Row],
) -> Result<Files> {
    let dir = ctx.target.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let base = dir.join("base.cpio");
    let earlyoom = guest::earlyoom(ctx)?;
    let contents = initramfs::Contents {
        daemon: &built.daemon,
        scenarios: programs
            .scenarios
            .as_deref()
            .context("killwatch-tests has no test target `scenarios`")?,
        victim: programs.victim.as_deref(),
        earlyoom: Some(&earlyoom),
        arguments: filter,
    };
    step("pack the test machine", || initramfs::write(&contents, &dir.join("base"), &base))?;
    let systemd = if rows.iter().any(|row| row.guest == Guest::Systemd) {
        let archive = dir.join("systemd.cpio");
        systemd::write(ctx, &dir.join("systemd"), &archive)?;
        Some(archive)
    } else {
        None
    };
    Ok(Files { base, systemd })
}

/// Says how each machine did, writes the report, and judges.
fn finish(outcomes: &[Outcome], report: Option<&Path>, some: bool) -> Result<()> {
    println!();
    for outcome in outcomes {
        println!("{}", outcome.summary());
        if let Some(broken) = outcome.broken.as_ref().filter(|_| !outcome.missing) {
            println!("{broken}");
        }
    }
    // Of one machine alone it was shown as it came.
    let told = outcomes.iter().filter(|one| outcomes.len() > 1 && !one.log.failures.is_empty());
    for outcome in told {
        println!("\n{}: {}", outcome.row, outcome.log.failures.trim_end());
    }
    let confusion = report::confusion(outcomes);
    if !confusion.is_empty() {
        println!("\nconfusion matrix of all machines:");
        for ((caused, reported), count) in &confusion {
            println!("{caused} -> {reported}: {count}");
        }
    }
    if let Some(file) = report {
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        fs::write(file, report::markdown(outcomes))
            .with_context(|| format!("cannot write {}", file.display()))?;
        println!("\nreport: {}", file.display());
    }
    let bad: Vec<&str> = outcomes
        .iter()
        .filter(|outcome| !outcome.good(some))
        .map(|outcome| outcome.row.as_str())
        .collect();
    if !bad.is_empty() {
        bail!("{} of {} machines failed: {}", bad.len(), outcomes.len(), bad.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_series_can_be_asked_for_and_booted() {
        for kernel in KERNELS {
            let wish = Wish { kernel: Some(kernel.series.to_owned()), ..Wish::default() };
            let rows = matrix::select(&wish);
            assert_eq!(
                rows.first().map(ToString::to_string),
                Some(format!("{}-v2", kernel.series))
            );
        }
    }
}
