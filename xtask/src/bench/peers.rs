//! What others use for the same job, as far as it runs here: each attached as its own documentation says, none tuned.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::bed::Bed;
use super::bpf::{self, Programs};
use crate::apt::{self, Need};
use crate::process::{self, Owned};

/// From the start of a peer until its programs must be attached. Those that compile C take seconds; under emulation, in the machine of the part `guest`, minutes.
const ATTACHES_WITHIN: Duration = Duration::from_secs(30);
const EMULATED: Duration = Duration::from_secs(300);
/// For so long no further program must come.
const SETTLED: Duration = Duration::from_millis(500);
/// For a peer to leave.
const GRACE: Duration = Duration::from_secs(5);
/// Where tracepoints are described; often not mounted.
const TRACEFS: &str = "/sys/kernel/tracing";

/// A peer.
pub(super) struct Peer {
    pub(super) name: &'static str,
    package: &'static str,
    program: &'static str,
    arguments: &'static [&'static str],
}

/// The job in a few lines: each fatal signal and its sender, each abnormal exit, each victim of the OOM killer.
const SCRIPT: &str = r#"
tracepoint:signal:signal_generate /args->sig == 9 || args->sig == 15/ { @[args->pid] = pid; printf("%d %s -> %d\n", args->sig, comm, args->pid); }
tracepoint:sched:sched_process_exit { if (@[pid] != 0) { printf("exit %d %s by %d\n", pid, comm, @[pid]); delete(@[pid]); } }
tracepoint:oom:mark_victim { printf("oom %d\n", args->pid); }
"#;

/// All of them. What needs kprobes (oomkill of both collections) or the kernel's headers is here too: it is said that it does not run, and why.
pub(super) const PEERS: &[Peer] = &[
    Peer {
        name: "bpftrace, the job in three probes",
        package: "bpftrace",
        program: "bpftrace",
        arguments: &["-e", SCRIPT],
    },
    Peer {
        name: "bpftrace killsnoop.bt",
        package: "bpftrace",
        program: "killsnoop.bt",
        arguments: &[],
    },
    Peer {
        name: "bpftrace oomkill.bt",
        package: "bpftrace",
        program: "oomkill.bt",
        arguments: &[],
    },
    Peer {
        name: "bcc exitsnoop",
        package: "bpfcc-tools",
        program: "exitsnoop-bpfcc",
        arguments: &["-x"],
    },
    Peer {
        name: "bcc killsnoop",
        package: "bpfcc-tools",
        program: "killsnoop-bpfcc",
        arguments: &[],
    },
    Peer { name: "bcc oomkill", package: "bpfcc-tools", program: "oomkill-bpfcc", arguments: &[] },
    Peer {
        name: "libbpf-tools exitsnoop",
        package: "libbpf-tools",
        program: "exitsnoop",
        arguments: &["-x"],
    },
    Peer {
        name: "libbpf-tools sigsnoop",
        package: "libbpf-tools",
        program: "sigsnoop",
        arguments: &["-k"],
    },
    Peer {
        name: "libbpf-tools oomkill",
        package: "libbpf-tools",
        program: "oomkill",
        arguments: &[],
    },
];

/// What they are in.
pub(super) const PACKAGES: &[&str] = &["bpftrace", "bpfcc-tools", "libbpf-tools"];

/// What `--peer` takes.
pub(super) fn names() -> clap::builder::PossibleValuesParser {
    clap::builder::PossibleValuesParser::new(PEERS.iter().map(|peer| peer.name))
}

/// Installs those that are missing. A package that cannot be had is no error: its peers will be said not to be there.
pub(super) fn ensure() {
    for package in PACKAGES {
        let need = Need::new(
            *package,
            "is what people use for this today: it is measured beside killwatch",
        );
        if let Err(error) = apt::ensure(&[need]) {
            eprintln!("warning: {package} cannot be installed: {error:#}");
        }
    }
}

/// A peer at work.
pub(super) struct Running(#[expect(dead_code, reason = "it ends with it")] Owned);

impl Peer {
    /// Starts it and waits until its programs are attached. The error is why it does not run here.
    pub(super) fn start(&self, bed: &Bed<'_>, log: &Path) -> Result<Running> {
        let Some(program) = find(self.program) else {
            bail!("{} is not installed (package {})", self.program, self.package)
        };
        let before = bpf::read()?;
        let out = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
        let mut command = reaching_tracefs(&program);
        command
            .args(self.arguments)
            // More than the default, or a storm would be a test of its warnings.
            .env("BPFTRACE_LOG_SIZE", "1000000")
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("cannot share a log")?)
            .stderr(out);
        let child = command.spawn().with_context(|| format!("cannot run {}", program.display()))?;
        let mut owned = Owned { child, grace: GRACE };
        let mut seen = Programs::new();
        let mut since = std::time::Instant::now();
        let limit = if env::var_os("KILLWATCH_VM").is_some() { EMULATED } else { ATTACHES_WITHIN };
        let attached = bed.stop.until(self.name, limit, || {
            if let Some(status) = owned.child.try_wait().context("cannot watch a peer")? {
                bail!("it ended with {status}: {}", said(log));
            }
            let now = bpf::new_since(&before)?;
            if now.len() != seen.len() {
                (seen, since) = (now, std::time::Instant::now());
            }
            Ok((!seen.is_empty() && since.elapsed() >= SETTLED).then_some(()))
        });
        match attached {
            Ok(()) => Ok(Running(owned)),
            Err(error) if error.is::<crate::stop::Interrupted>() => Err(error),
            Err(error) => Err(error.context(said(log))),
        }
    }
}

/// A program of `PATH` or of where administrators' programs are.
fn find(program: &str) -> Option<PathBuf> {
    let own = Path::new("/usr/sbin").join(program);
    process::find(program).or_else(|| own.is_file().then_some(own))
}

/// Runs it where tracefs is; if it is mounted nowhere, it is for this program alone.
fn reaching_tracefs(program: &Path) -> Command {
    if fs::read_dir(TRACEFS).is_ok_and(|mut entries| entries.next().is_some()) {
        return Command::new(program);
    }
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "sh", "-c"])
        .arg(format!("mount -t tracefs tracefs {TRACEFS} && exec \"$0\" \"$@\""))
        .arg(program);
    command
}

/// Its last words that are about a failure.
fn said(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let telling = |line: &&str| {
        let line = line.to_lowercase();
        ["error", "fail", "cannot", "can't", "not found", "unable", "no such", "invalid"]
            .iter()
            .any(|word| line.contains(word))
    };
    let line = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .find(telling)
        .or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    let line = line.unwrap_or("it said nothing").trim();
    line.chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_tells_why_is_picked() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        fs::write(&log, "Attaching 1 probe...\nERROR: no kprobes here\n\nbye\n").unwrap();
        assert_eq!(said(&log), "ERROR: no kprobes here");
        fs::write(&log, "hello\n\n").unwrap();
        assert_eq!(said(&log), "hello");
        assert_eq!(said(&dir.path().join("none")), "it said nothing");
    }
}
