//! The corpus: scenarios in tables, run by libtest's rules, and the confusion matrix at the end.
//!
//! A scenario that does not apply here says `NOT APPLICABLE: NAME: why` on a line of its own and counts as ignored. One that ought to
//! run here and cannot says `SKIPPED: NAME: why` and counts as ignored; with `KILLWATCH_REQUIRE_E2E=1` it fails.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Error, Result};
use clap::Parser;
use libtest_mimic::{Arguments, ColorSetting, Completion, Failed, Trial};

use crate::cgroup::{self, Hierarchy, Version};
use crate::matrix;
use crate::stage::{self, Stage};
use crate::wait::in_vm;

/// One death or more that are caused on purpose, and what must be told of them.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    name: &'static str,
    needs: &'static [Need],
    play: Play,
}

#[derive(Debug, Clone, Copy)]
enum Play {
    /// Watched by the daemon that all scenarios of this process share.
    Shared(fn(&mut Stage) -> Result<()>),
    /// Watched by a daemon of its own.
    Own(fn(&mut Stage) -> Result<()>),
    /// Not watched.
    Bare(fn() -> Result<()>),
}

/// What a scenario is about. Where that is not to be had, it does not apply.
#[derive(Debug, Clone, Copy)]
pub enum Need {
    /// A virtual machine of our own.
    Vm,
    /// No virtual machine: it is about the daemon and not about the kernel, and takes minutes under emulation.
    NoVm,
    /// Memory accounted by cgroup v1.
    MemoryV1,
    /// Memory accounted by cgroup v2.
    MemoryV2,
    /// A cgroup v2 hierarchy with `cgroup.kill` (Linux 5.14), with or without memory.
    CgroupKill,
    /// Swap in use.
    Swap,
    /// Two memory nodes.
    Nodes,
    /// This program in `PATH`.
    Program(&'static str),
    /// A kernel that is locked down to confidentiality (`KILLWATCH_VM_LOCKDOWN=1`). There, nothing else applies.
    Lockdown,
    /// This variable in the environment, which says that something is there: what, stands behind it.
    Variable(&'static str, &'static str),
}

/// A scenario with the name of its function.
#[macro_export]
macro_rules! play {
    ($function:ident) => {
        $crate::corpus::Scenario::new(stringify!($function), $function)
    };
}

impl Scenario {
    /// Watched by the daemon that is shared: it may not stop it, nor look at what it counts in all.
    #[must_use]
    pub const fn new(name: &'static str, play: fn(&mut Stage) -> Result<()>) -> Self {
        Self { name, needs: &[], play: Play::Shared(play) }
    }

    /// Without a daemon.
    #[must_use]
    pub const fn bare(name: &'static str, play: fn() -> Result<()>) -> Self {
        Self { name, needs: &[], play: Play::Bare(play) }
    }

    /// With a daemon that nobody else uses.
    #[must_use]
    pub const fn own_daemon(mut self) -> Self {
        if let Play::Shared(play) = self.play {
            self.play = Play::Own(play);
        }
        self
    }

    /// Applies only where these are.
    #[must_use]
    pub const fn needs(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    /// Plays it.
    fn run(&self, victim: Option<&str>) -> Result<()> {
        if locked_down() && !self.needs.iter().any(|need| matches!(need, Need::Lockdown)) {
            return Err(not_applicable("the kernel is locked down: BPF may not read its memory"));
        }
        for need in self.needs {
            if let Some(lack) = need.lack() {
                return Err(not_applicable(lack));
            }
        }
        match self.play {
            Play::Shared(play) => stage::with_shared(victim, play),
            Play::Own(play) => stage::with_own(victim, play),
            Play::Bare(play) => play(),
        }
    }
}

impl Need {
    /// Why it is not to be had here.
    fn lack(self) -> Option<String> {
        let version = |wanted: Version, name: &str| match Hierarchy::find() {
            // What stands in the way of all scenarios is said by the stage.
            Err(_) => None,
            Ok(found) => {
                (found.version != wanted).then(|| format!("memory is not on cgroup {name}"))
            }
        };
        let lack = |lacks: bool, why: &str| lacks.then(|| why.to_owned());
        match self {
            Self::Vm => lack(!in_vm(), "only in a virtual machine of our own (KILLWATCH_VM=1)"),
            Self::NoVm => lack(in_vm(), "not in a virtual machine: no kernel has a part in it"),
            Self::MemoryV1 => version(Version::V1, "v1"),
            Self::MemoryV2 => version(Version::V2, "v2"),
            Self::CgroupKill => {
                lack(!cgroup::has_kill(), "no cgroup v2 hierarchy with cgroup.kill (Linux 5.14)")
            }
            Self::Swap => lack(!cgroup::host_swaps().unwrap_or(false), "there is no swap"),
            Self::Nodes => lack(
                !Path::new("/sys/devices/system/node/node1").exists(),
                "there is one memory node only",
            ),
            Self::Program(name) => {
                find_program(name).is_none().then(|| format!("{name} is not installed"))
            }
            Self::Lockdown => lack(!locked_down(), "the kernel is not locked down"),
            Self::Variable(name, what) => {
                std::env::var_os(name).is_none().then(|| format!("no {what} ({name} is not set)"))
            }
        }
    }
}

/// Whether this kernel is locked down to confidentiality.
fn locked_down() -> bool {
    std::env::var_os("KILLWATCH_VM_LOCKDOWN").is_some_and(|value| value == "1")
}

/// Looks a program up in `PATH`.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// Why a scenario did not run to its end, other than by a failure.
#[derive(Debug)]
pub(crate) enum Unplayed {
    NotApplicable(String),
    Skipped(String),
}

impl fmt::Display for Unplayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplicable(why) => write!(f, "not applicable: {why}"),
            Self::Skipped(why) => write!(f, "skipped: {why}"),
        }
    }
}

impl std::error::Error for Unplayed {}

/// The scenario is about something that is not here.
pub fn not_applicable(why: impl Into<String>) -> Error {
    Unplayed::NotApplicable(why.into()).into()
}

/// The scenario ought to run here, but cannot.
pub fn skipped(why: impl Into<String>) -> Error {
    Unplayed::Skipped(why.into()).into()
}

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    libtest: Arguments,
    /// More filters: a scenario runs if one of them is part of its name
    #[arg(value_name = "FILTER")]
    more: Vec<String>,
}

/// Runs the scenarios that the command line asks for, and prints the confusion matrix. `victim` is the binary that cargo built.
#[must_use]
pub fn run(
    victim: Option<&'static str>,
    families: &[(&'static str, &'static [Scenario])],
) -> ExitCode {
    let Cli { mut libtest, mut more } = Cli::parse();
    more.extend(libtest.filter.take());
    if in_vm() {
        // Its console looks like a terminal and is read by a program.
        libtest.color.get_or_insert(ColorSetting::Never);
    }
    let asked = |name: &str| {
        more.is_empty()
            || more.iter().any(|filter| {
                if libtest.exact { name == filter } else { name.contains(filter.as_str()) }
            })
    };
    let trials = families
        .iter()
        .flat_map(|(family, scenarios)| scenarios.iter().map(move |scenario| (family, scenario)))
        .map(|(family, scenario)| (format!("{family}::{}", scenario.name), *scenario))
        .filter(|(name, _)| asked(name))
        .map(|(name, scenario)| {
            let told = name.clone();
            Trial::ignorable_test(name, move || complete(&told, scenario.run(victim)))
        })
        .collect();
    let conclusion = libtest_mimic::run(&libtest, trials);
    let mut passed = !conclusion.has_failed();
    if let Err(error) = stage::end_shared() {
        println!("the daemon that was shared did not end well: {error:#}");
        passed = false;
    }
    let matrix = matrix::noted();
    if !matrix.is_empty() {
        println!("{}", matrix.render());
        let off = matrix.off_the_diagonal();
        if !off.is_empty() {
            println!("off the diagonal: {}", off.join(", "));
            passed = false;
        }
    }
    if passed { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

/// What libtest is told.
fn complete(name: &str, played: Result<()>) -> Result<Completion, Failed> {
    let Err(error) = played else { return Ok(Completion::Completed) };
    let (word, why) = match error.downcast_ref() {
        Some(Unplayed::NotApplicable(why)) => ("NOT APPLICABLE", why),
        Some(Unplayed::Skipped(why)) if must_run() => {
            return Err(format!("KILLWATCH_REQUIRE_E2E is set, and {why}").into());
        }
        Some(Unplayed::Skipped(why)) => ("SKIPPED", why),
        None => return Err(format!("{error:#}").into()),
    };
    // In one piece, since scenarios run side by side, and on a line of its own: libtest may have begun one.
    let line = format!("\n{word}: {name}: {}\n", why.replace('\n', " "));
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(Completion::ignored_with(why))
}

fn must_run() -> bool {
    std::env::var_os("KILLWATCH_REQUIRE_E2E").is_some_and(|value| value == "1")
}
