//! `vm`: the end-to-end tests under a Debian kernel in QEMU, with the same daemon and the same BPF object as here.

mod archive;
mod initramfs;
mod kernels;
mod package;
mod qemu;

use std::env;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use self::kernels::{KERNELS, Kernel};
use crate::apt::{self, Need};
use crate::build::{self, Built};
use crate::context::Ctx;
use crate::process::step;
use crate::programs::{self, Programs};
use crate::stop::Stop;
use crate::test::Tally;

/// What init prints last.
const MARKER: &str = "killwatch-vm: scenarios ended with ";

/// Arguments of `vm`.
#[derive(clap::Args)]
pub(crate) struct VmArgs {
    /// Kernel series
    #[arg(long, value_parser = series(), default_value = KERNELS[0].series)]
    kernel: String,
    /// Where memory is accounted in the machine
    #[arg(long, value_enum, default_value_t = Cgroup::V2)]
    cgroup: Cgroup,
    /// Only scenarios whose name contains one of these
    filter: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Cgroup {
    V1,
    V2,
}

impl Cgroup {
    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

fn series() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(KERNELS.iter().map(|kernel| kernel.series))
}

/// Builds, boots, reports.
pub(crate) fn run(ctx: &Ctx, args: &VmArgs) -> Result<()> {
    let built = build::daemon(ctx)?;
    let programs = programs::build(ctx, &built.object)?;
    let stop = Stop::install()?;
    let tally = boot(ctx, args, &built, &programs, &stop)?;
    println!("{tally}");
    tally.verdict()
}

/// One boot of the default kernel, for `test`.
pub(crate) fn run_default(
    ctx: &Ctx,
    built: &Built,
    programs: &Programs,
    stop: &Stop,
) -> Result<Tally> {
    let args =
        VmArgs { kernel: KERNELS[0].series.to_owned(), cgroup: Cgroup::V2, filter: Vec::new() };
    boot(ctx, &args, built, programs, stop)
}

/// Installs what a boot needs.
pub(crate) fn ensure_packages() -> Result<()> {
    apt::ensure(&[
        Need::new("qemu-system-x86", "runs the test machine, under software emulation"),
        Need::new("busybox-static", "the test machine's shell"),
        Need::new("cpio", "packs the test machine's files"),
        Need::new("binutils", "takes the debug information out of them"),
    ])
}

fn boot(
    ctx: &Ctx,
    args: &VmArgs,
    built: &Built,
    programs: &Programs,
    stop: &Stop,
) -> Result<Tally> {
    let kernel = find(&args.kernel)?;
    ensure_packages()?;
    let image = package::fetch(ctx, kernel)?;
    let name = format!("{}-cgroup-{}", kernel.series, args.cgroup.name());
    let dir = ctx.target.join("vm");
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let archive = dir.join(format!("{name}.cpio"));
    let log = dir.join(format!("{name}.log"));
    let contents = initramfs::Contents {
        daemon: &built.daemon,
        scenarios: programs
            .scenarios
            .as_deref()
            .context("killwatch-tests has no test target `scenarios`")?,
        victim: programs.victim.as_deref(),
        arguments: &args.filter,
        cgroup: args.cgroup.name(),
    };
    step(&format!("pack the test machine {name}"), || {
        initramfs::write(&contents, &dir.join(&name), &archive)
    })?;
    let booted = step(&format!("boot it (log: {})", log.display()), || {
        qemu::boot(&image, &archive, &log, stop)
    });
    judge(booted, &log)
}

fn find(series: &str) -> Result<&'static Kernel> {
    if env::consts::ARCH != "x86_64" {
        bail!("the test machines are x86_64, this one is {}", env::consts::ARCH);
    }
    KERNELS
        .iter()
        .find(|kernel| kernel.series == series)
        .with_context(|| format!("no kernel {series} in the table"))
}

/// A boot counts only if the marker says 0 and libtest summed up.
fn judge(booted: Result<()>, log: &Path) -> Result<Tally> {
    let text =
        fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let last = || {
        let lines: Vec<&str> = text.lines().rev().take(40).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    };
    booted.with_context(|| format!("its last lines:\n{}", last()))?;
    let Some(status) = marker(&text) else {
        bail!("the test machine ended before its tests did; its last lines:\n{}", last())
    };
    let tally = Tally::parse(&text);
    if tally.runs == 0 || (status != 0 && tally.failed == 0) {
        bail!(
            "the scenarios ended with status {status} and no result; its last lines:\n{}",
            last()
        );
    }
    Ok(tally)
}

/// Exit status of the scenarios.
fn marker(text: &str) -> Option<i32> {
    text.lines().rev().find_map(|line| line.trim_end().strip_prefix(MARKER)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Result<Tally> {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, text).unwrap();
        judge(Ok(()), &log)
    }

    #[test]
    fn a_boot_counts_only_with_result_and_marker() {
        let result = "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 1.00s\r\n";
        let tally = judged(&format!("{result}{MARKER}0\r\n")).unwrap();
        assert_eq!((tally.passed, tally.failed, tally.skipped()), (3, 0, 1));
        assert!(judged(result).unwrap_err().to_string().contains("ended before"));
        assert!(judged(&format!("{MARKER}0\r\n")).unwrap_err().to_string().contains("no result"));
        assert!(judged(&format!("{result}{MARKER}139\r\n")).is_err());
        assert!(
            judged("Kernel panic - not syncing\r\n")
                .unwrap_err()
                .to_string()
                .contains("Kernel panic")
        );
    }

    #[test]
    fn init_prints_the_marker() {
        assert!(include_str!("init.sh").contains(MARKER));
    }
}
