//! The kernel's own count of how often each BPF program ran, and for how long.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::process;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Counting is on while this lives; then it is as it was before.
pub(crate) struct Enabled {
    before: String,
}

impl Enabled {
    /// Switches it on.
    pub(crate) fn switch_on() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1")
            .with_context(|| format!("cannot write {SWITCH} (root is needed)"))?;
        Ok(Self { before })
    }
}

impl Drop for Enabled {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("warning: cannot restore {SWITCH} to {}: {error}", self.before.trim());
        }
    }
}

/// Runs of one program, and their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    /// Runs.
    pub(crate) hits: u64,
    /// Time of all, in ns.
    pub(crate) ns: u64,
}

impl Cost {
    /// ns a run; `None` if there was none.
    pub(crate) fn per_hit(self) -> Option<f64> {
        // Exact up to 2^53 ns, which is 104 days of run time.
        #[expect(
            clippy::cast_precision_loss,
            reason = "exact at any size that a benchmark reaches"
        )]
        let ratio = self.ns as f64 / self.hits as f64;
        (self.hits > 0).then_some(ratio)
    }
}

/// By program id: its name (the kernel keeps 15 bytes) and its cost since it was loaded.
pub(crate) type Counters = BTreeMap<u64, (String, Cost)>;

/// As `bpftool prog show -j` prints them. The counts are absent until the first counted run.
#[derive(Deserialize)]
struct Shown {
    id: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    run_cnt: u64,
    #[serde(default)]
    run_time_ns: u64,
}

/// All programs of this kernel, now.
pub(crate) fn read() -> Result<Counters> {
    let bpftool = process::find("bpftool").context("bpftool is not installed")?;
    parse(&process::output(Command::new(bpftool).args(["prog", "show", "-j"]))?)
}

fn parse(json: &str) -> Result<Counters> {
    let shown: Vec<Shown> = serde_json::from_str(json)
        .context("bpftool printed something else than a list of programs")?;
    Ok(shown
        .into_iter()
        .map(|one| (one.id, (one.name, Cost { hits: one.run_cnt, ns: one.run_time_ns })))
        .collect())
}

/// What was added between two readings, by name.
pub(crate) fn since(start: &Counters, end: &Counters) -> BTreeMap<String, Cost> {
    let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
    for (id, (name, now)) in end {
        let then = start.get(id).map_or(Cost { hits: 0, ns: 0 }, |(_, cost)| *cost);
        let sum = costs.entry(name.clone()).or_insert(Cost { hits: 0, ns: 0 });
        sum.hits += now.hits.saturating_sub(then.hits);
        sum.ns += now.ns.saturating_sub(then.ns);
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_subtracted_by_program() {
        let start = parse(r#"[{"id":3,"type":"tracing","name":"on_exit","run_cnt":10,"run_time_ns":1000},{"id":4}]"#).unwrap();
        let end = parse(r#"[{"id":3,"name":"on_exit","run_cnt":30,"run_time_ns":5000},{"id":9,"name":"empty_exit","run_cnt":2,"run_time_ns":9}]"#).unwrap();
        let costs = since(&start, &end);
        assert_eq!(costs["on_exit"], Cost { hits: 20, ns: 4000 });
        assert_eq!(costs["on_exit"].per_hit(), Some(200.0));
        assert_eq!(costs["empty_exit"].per_hit(), Some(4.5));
        assert_eq!(Cost { hits: 0, ns: 0 }.per_hit(), None);
        assert!(parse("{\"error\":\"x\"}").is_err());
    }
}
