//! How much memory the daemon may hold resident, from its configuration. Pure; docs/SPECIFICATION.md shows it, and a test holds the two together.

use crate::config::Config;
use crate::ledger::TAIL;
use crate::{containers, source, tags, watch};

/// What is there whatever is set: code that is mapped, the allocator, threads, what the start leaves. Measured; see docs/SPECIFICATION.md.
pub const PROGRAM: u64 = 18 << 20;
/// The database's cache of pages.
const CACHE: u64 = 1 << 20;
/// A record costs its JSON, and about twice as much as a value.
const RECORD: u64 = 3;
/// Of a cgroup in the index, beside its path.
const CGROUP: u64 = 128;
/// Of a path in the index.
const PATH: u64 = 256;
/// A series of a container, its labels included; a series of a job has up to 15 samples.
const SERIES: [u64; 2] = [2 << 10, 4 << 10];
/// A cgroup that is followed: its history, its trend, its path, its place among those that are due.
const FOLLOWED: u64 = watch::HISTORY_BYTES as u64 + 1024;
/// When as many jobs and workloads as are remembered had as many deaths.
const EARLIER: u64 = 1 << 20;
/// A sink's batch, its requests, its answers.
const SINK: u64 = 512 << 10;

/// The kernel's for the maps beside the ring, up to 8 CPUs, and for each further one (`recent` in `probe/load.rs`): `memlock` of their
/// `/proc/PID/fdinfo`, on 6.18.
const MAPS: u64 = 6432 << 10;
const MAPS_OF_A_CPU: u64 = 802 << 10;
const CPUS: u64 = 8;

/// A part of the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it is for.
    pub what: &'static str,
    /// What sets it.
    pub set_by: &'static str,
    /// Bytes that it has from the start on.
    pub at_start: u64,
    /// Bytes that it has when it is full.
    pub at_most: u64,
}

/// All parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footprint(pub Vec<Part>);

impl Footprint {
    /// Bytes from the start on.
    #[must_use]
    pub fn at_start(&self) -> u64 {
        self.0.iter().map(|part| part.at_start).sum()
    }

    /// Bytes if all of it were full at once.
    #[must_use]
    pub fn at_most(&self) -> u64 {
        self.0.iter().map(|part| part.at_most).sum()
    }
}

/// Bytes of the kernel's own for the kernel side on a machine with so many CPUs. Not resident in the daemon, and charged to its cgroup from Linux 5.11 on.
#[must_use]
pub fn in_kernel(config: &Config, cpus: u64) -> u64 {
    u64::from(config.probe.ring_bytes.get()) + MAPS + cpus.saturating_sub(CPUS) * MAPS_OF_A_CPU
}

/// The parts with this configuration.
#[must_use]
pub fn of(config: &Config) -> Footprint {
    let fixed = |what, set_by, bytes| Part { what, set_by, at_start: bytes, at_most: bytes };
    let grows = |what, set_by, bytes| Part { what, set_by, at_start: 0, at_most: bytes };
    let series = config.metrics.max_series.get() as u64 * SERIES[0]
        + config.metrics.max_job_series.get() as u64 * SERIES[1];
    Footprint(vec![
        fixed("the program", "", PROGRAM),
        // The kernel maps a ring twice in a row, so that a record that wraps can be read in one piece (kernel/bpf/ringbuf.c).
        fixed(
            "the ring, mapped twice",
            "probe.ring_bytes",
            2 * u64::from(config.probe.ring_bytes.get()),
        ),
        grows("records behind the ring", "queue.records", source::QUEUE_BYTES as u64),
        grows("the ledger's cache and tail", "", CACHE + RECORD * TAIL),
        grows(
            "deaths that the disk has not taken",
            "ledger.max_memory",
            RECORD * config.ledger.max_memory.get(),
        ),
        grows("sinks", "sinks", SINK * (config.sinks.len() as u64 + 1)),
        grows(
            "the index of cgroups",
            "cgroup.max",
            config.cgroup.max.get() as u64 * (CGROUP + PATH),
        ),
        grows("the memory of cgroups", "watch.max", config.watch.max.get() as u64 * FOLLOWED),
        grows("earlier deaths, for advice", "", EARLIER),
        grows(
            "names of containers and pods",
            "",
            (containers::registry::MAX_BYTES + containers::pods::MAX_BYTES) as u64,
        ),
        grows("series", "metrics.max_series, metrics.max_job_series", series),
        grows("tags", "", (tags::MAX_PROCESSES * tags::set::MAX_BYTES) as u64),
    ])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shown(bytes: u64) -> String {
        if bytes == 0 {
            "0".to_owned()
        } else {
            format!("{:.1}", bytes as f64 / f64::from(1 << 20))
        }
    }

    /// The table of the document is the code's.
    #[test]
    fn the_specification_shows_it() {
        let footprint = of(&Config::default());
        let mut table =
            String::from("| what | set by | MiB at the start | MiB at most |\n|---|---|---|---|\n");
        for part in &footprint.0 {
            let keys: Vec<_> = part.set_by.split(", ").filter(|key| !key.is_empty()).collect();
            let keys: Vec<_> = keys.iter().map(|key| format!("`{key}`")).collect();
            table += &format!(
                "| {} | {} | {} | {} |\n",
                part.what,
                keys.join(", "),
                shown(part.at_start),
                shown(part.at_most)
            );
        }
        table += &format!(
            "| all of it | | {} | {} |\n",
            shown(footprint.at_start()),
            shown(footprint.at_most())
        );
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/SPECIFICATION.md");
        let document = std::fs::read_to_string(path).unwrap();
        assert!(document.contains(&table), "docs/SPECIFICATION.md lacks this table:\n{table}");
    }

    /// What is asked for where the daemon is deployed is what the formula says: requests for its start, limits for the worst on 64 CPUs.
    #[test]
    fn it_is_deployed_so() {
        let read = |path| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
            std::fs::read_to_string(root.join(path)).unwrap()
        };
        let mib = |text: &str, before: &str, unit: &str| -> u64 {
            let after = text.split_once(before).unwrap().1;
            after.split_once(unit).unwrap().0.trim().parse::<u64>().unwrap() << 20
        };
        let (pod, unit) =
            (read("kubernetes/base/daemonset.yaml"), read("systemd/killwatch.service"));
        let config = Config::default();
        let request = of(&config).at_start() + in_kernel(&config, CPUS);
        let limit = of(&config).at_most() + in_kernel(&config, 64);
        for (is, wanted) in [
            (mib(pod.split_once("requests:").unwrap().1, "memory:", "Mi"), request),
            (mib(pod.split_once("limits:").unwrap().1, "memory:", "Mi"), limit),
            (mib(&unit, "MemoryMax=", "M"), limit),
        ] {
            assert!(
                (wanted..wanted + (16 << 20)).contains(&is),
                "{is} is not a little above {wanted}"
            );
        }
    }

    #[test]
    fn it_follows_the_configuration() {
        let mut config = Config::default();
        let small = of(&config);
        config.probe.ring_bytes = "8MiB".parse().unwrap();
        config.ledger.max_memory = "8MiB".parse().unwrap();
        let large = of(&config);
        assert_eq!(large.at_start() - small.at_start(), 12 << 20);
        assert_eq!(large.at_most() - small.at_most(), (12 << 20) + (12 << 20));
    }
}
