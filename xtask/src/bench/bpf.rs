//! What the kernel itself says of each BPF program: how often it ran and for how long, and its size. No tool is needed: a program's descriptor has all of it
//! in `/proc/self/fdinfo`.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::programs::{BtfTracePoint, loaded_programs};
use aya::{Btf, Ebpf};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// Counting is on while this lives; then it is as it was before.
pub(super) struct Enabled {
    before: String,
}

impl Enabled {
    /// Switches it on.
    pub(super) fn switch_on() -> Result<Self> {
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Runs.
    pub(super) hits: u64,
    /// Time of all, in ns.
    pub(super) ns: u64,
}

impl Cost {
    /// ns a run; `None` if there was none.
    pub(super) fn per_hit(self) -> Option<f64> {
        (self.hits > 0).then(|| self.ns as f64 / self.hits as f64)
    }
}

/// One program of this kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    /// The kernel keeps 15 bytes of it.
    pub(super) name: String,
    /// Since it was loaded, as far as counting was on.
    pub(super) cost: Cost,
    /// Instructions after the verifier and its rewriting.
    pub(super) instructions: u64,
    /// Bytes of machine code.
    pub(super) jited_bytes: u64,
    /// Instructions that the verifier walked through, all branches; not there before 5.16.
    pub(super) verified: Option<u64>,
}

/// All programs, by id.
pub(super) type Programs = BTreeMap<u32, Loaded>;

/// Those that are loaded now.
pub(super) fn read() -> Result<Programs> {
    let mut programs = Programs::new();
    for info in loaded_programs() {
        let info = info.context("cannot list the BPF programs of this kernel (root is needed)")?;
        // One that was unloaded in between is none of ours.
        let Ok(fd) = info.fd() else { continue };
        let told = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))
            .context("cannot read what the kernel says of a BPF program")?;
        programs.insert(
            info.id(),
            Loaded {
                name: info.name_as_str().unwrap_or_default().to_owned(),
                cost: Cost {
                    hits: number(&told, "run_cnt").unwrap_or(0),
                    ns: number(&told, "run_time_ns").unwrap_or(0),
                },
                instructions: u64::from(info.size_translated().unwrap_or(0)) / 8,
                jited_bytes: u64::from(info.size_jitted()),
                verified: number(&told, "verified_insns"),
            },
        );
    }
    Ok(programs)
}

fn number(told: &str, key: &str) -> Option<u64> {
    let value = told.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    value.trim().parse().ok()
}

/// Those that were not there before.
pub(super) fn new_since(before: &Programs) -> Result<Programs> {
    Ok(read()?.into_iter().filter(|(id, _)| !before.contains_key(id)).collect())
}

/// What was added between two readings, by name.
pub(super) fn since(start: &Programs, end: &Programs) -> BTreeMap<String, Cost> {
    let mut costs: BTreeMap<String, Cost> = BTreeMap::new();
    for (id, now) in end {
        let then = start.get(id).map_or_else(Cost::default, |then| then.cost);
        let sum = costs.entry(now.name.clone()).or_default();
        sum.hits += now.cost.hits.saturating_sub(then.hits);
        sum.ns += now.cost.ns.saturating_sub(then.ns);
    }
    costs
}

/// The empty programs of the object and nothing else, attached while this lives: what BPF itself costs where killwatch stands.
pub(super) struct Empty(#[expect(dead_code, reason = "detaches them when it goes")] Ebpf);

impl Empty {
    /// Loads and attaches them.
    pub(super) fn attach(object: &Path) -> Result<Self> {
        let bytes =
            fs::read(object).with_context(|| format!("cannot read {}", object.display()))?;
        let mut ebpf = aya::EbpfLoader::new()
            .load(&bytes)
            .with_context(|| format!("the kernel refused the maps of {}", object.display()))?;
        let btf = Btf::from_sys_fs().context("cannot read the kernel's types")?;
        for (name, tracepoint) in
            [("empty_exit", "sched_process_exit"), ("empty_signal", "signal_generate")]
        {
            let program = ebpf
                .program_mut(name)
                .with_context(|| format!("{} has no program {name}", object.display()))?;
            let program: &mut BtfTracePoint = program.try_into()?;
            program.load(tracepoint, &btf).with_context(|| format!("cannot load {name}"))?;
            program.attach().with_context(|| format!("cannot attach {name}"))?;
        }
        Ok(Self(ebpf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_subtracted_by_name() {
        let loaded = |name: &str, hits, ns| Loaded {
            name: name.into(),
            cost: Cost { hits, ns },
            instructions: 0,
            jited_bytes: 0,
            verified: None,
        };
        let start = Programs::from([(3, loaded("on_exit", 10, 1_000))]);
        let end = Programs::from([(3, loaded("on_exit", 30, 5_000)), (9, loaded("empty", 2, 9))]);
        let costs = since(&start, &end);
        assert_eq!(costs["on_exit"], Cost { hits: 20, ns: 4_000 });
        assert_eq!(costs["on_exit"].per_hit(), Some(200.0));
        assert_eq!(costs["empty"].per_hit(), Some(4.5));
        assert_eq!(Cost::default().per_hit(), None);
    }

    #[test]
    fn a_descriptor_tells_by_name() {
        let told =
            "pos:\t0\nprog_type:\t26\nrun_time_ns:\t1200\nrun_cnt:\t12\nverified_insns:\t88\n";
        assert_eq!(number(told, "run_cnt"), Some(12));
        assert_eq!((number(told, "verified_insns"), number(told, "run")), (Some(88), None));
    }
}
