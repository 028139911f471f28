//! What it was measured on: without it a figure means nothing.

use std::fs;
use std::process::Command;
use std::thread;

use serde::Serialize;

use crate::context::Ctx;
use crate::process;

/// The machine, and what was going on there.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    pub(super) kernel: String,
    pub(super) cpu: String,
    pub(super) cores: usize,
    pub(super) memory_mib: u64,
    pub(super) commit: String,
    pub(super) daemon: String,
    pub(super) cgroups: &'static str,
    /// Of one minute, before the first part.
    pub(super) load_before: f64,
    /// Whether cores were given, or taken by who hosts this machine, in percent of the time that was wanted; over the whole bench.
    pub(super) stolen_percent: Option<f64>,
    #[serde(skip)]
    ticks: Option<(u64, u64)>,
}

impl Machine {
    /// Looks at it.
    pub(super) fn look(ctx: &Ctx, daemon: &std::path::Path) -> Self {
        let said = |command: &mut Command| {
            process::output(command).map(|text| text.trim().to_owned()).unwrap_or_default()
        };
        let git = said(
            Command::new("git").current_dir(&ctx.root).args(["describe", "--always", "--dirty"]),
        );
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        Self {
            kernel: said(Command::new("uname").args(["-r", "-m"])),
            cpu: after(&cpuinfo, "model name").unwrap_or("unknown to the kernel").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: after(&memory, "MemTotal")
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            commit: git,
            daemon: said(Command::new(daemon).arg("--version")),
            cgroups: if mounts
                .lines()
                .any(|line| line.contains(" cgroup ") && line.contains("memory"))
            {
                "memory on v1"
            } else {
                "v2"
            },
            load_before: fs::read_to_string("/proc/loadavg")
                .ok()
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(0.0),
            stolen_percent: None,
            ticks: ticks(),
        }
    }

    /// Looks again, at the end.
    pub(super) fn leave(&mut self) {
        if let (Some((all, stolen)), Some((all_then, stolen_then))) = (ticks(), self.ticks) {
            let (all, stolen) = (all - all_then, stolen.saturating_sub(stolen_then));
            self.stolen_percent = (all > 0).then(|| 100.0 * stolen as f64 / all as f64);
        }
    }

    /// Why figures of now may be worthless.
    pub(super) fn doubt(&self) -> Option<String> {
        (self.load_before > 0.5).then(|| {
            format!(
                "the machine was at work before the bench began (load {:.1}): times are of both",
                self.load_before
            )
        })
    }
}

/// Busy and stolen ticks of all cores (proc_stat(5)): what was run and what another guest ran in our place.
fn ticks() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> = text
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    let [user, nice, system, _, _, irq, softirq, steal, ..] = *fields.as_slice() else {
        return None;
    };
    Some((user + nice + system + irq + softirq + steal, steal))
}

fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    Some(line.trim_start().trim_start_matches(':').trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_after_their_keys() {
        assert_eq!(after("a\nmodel name\t: One CPU\nb", "model name"), Some("One CPU"));
        assert_eq!(after("MemTotal:   2048 kB\n", "MemTotal"), Some("2048 kB"));
        assert_eq!(after("x", "MemTotal"), None);
    }
}
