//! What is looked at as a process is killed, and how it gets into its record.

use std::sync::Arc;

use crate::death::{CgroupMemory, Death, History, HostMemory, MemoryStory, Missing, ProcessMemory};
use crate::join::ProcessId;

/// Processes that a record has.
pub(super) const MOST_PROCESSES: usize = 10;

/// What is to be looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookAt {
    /// Whose death it is for.
    pub victim: ProcessId,
    /// When the kernel decided, or the process ended, ns since boot.
    pub at_ns: u64,
    /// The cgroup whose limit was hit.
    pub hit: Option<Hit>,
    /// The victim's own.
    pub own: Option<Arc<str>>,
    /// Whether the kernel kills; else only the history is asked for.
    pub kill: bool,
}

/// A cgroup whose limit was hit, as the kernel had it at its decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hit {
    /// Its path.
    pub cgroup: Arc<str>,
    /// What was charged to it, bytes; `None` if only the kernel's log told.
    pub usage_bytes: Option<u64>,
    /// Its limit, bytes.
    pub limit_bytes: Option<u64>,
}

/// What was seen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Scene {
    /// When, ns since boot.
    pub looked_ns: u64,
    pub(super) cgroup: Option<CgroupMemory>,
    pub(super) processes: Vec<ProcessMemory>,
    pub(super) process_count: Option<u32>,
    pub(super) history: Option<History>,
    pub(super) warned_seconds: Option<f64>,
    pub(super) host: Option<HostMemory>,
    pub(super) missing: Vec<Missing>,
}

impl Scene {
    /// What stands in place of a scene that did not come.
    pub(super) fn absent(why: &str) -> Self {
        Self { missing: vec![lack("memory.history", why)], ..Self::default() }
    }

    /// Puts what was seen into the record of a victim that the kernel decided to kill at `decided_ns`.
    pub(super) fn put_into(&self, death: &mut Death, decided_ns: u64) {
        let memory = &mut death.memory;
        memory.cgroup = self.cgroup.clone();
        if let Some(cgroup) = &mut memory.cgroup {
            let delay = self.looked_ns.checked_sub(decided_ns).map(super::seconds);
            cgroup.delay_ms = delay.map(|delay| (delay * 1e5).round() / 100.0);
        }
        memory.history = self.history.clone();
        memory.warned_seconds = self.warned_seconds;
        memory.host = self.host;
        memory.process_count = self.process_count;
        if self.process_count.is_some() {
            let victim = victim(&death.victim, memory);
            memory.processes = with_victim(&self.processes, victim);
        }
        death.missing.extend(self.missing.iter().cloned());
    }
}

pub(super) fn lack(field: &str, why: &str) -> Missing {
    Missing { field: field.to_owned(), why: why.to_owned() }
}

/// What of a cgroup this kernel does not tell, as one thing that is missing.
pub(super) fn untold(cgroup: &CgroupMemory) -> Option<Missing> {
    let keys = [
        ("peak_bytes", cgroup.peak_bytes.is_none()),
        ("anon_bytes", cgroup.anon_bytes.is_none()),
        ("file_bytes", cgroup.file_bytes.is_none()),
        ("shmem_bytes", cgroup.shmem_bytes.is_none()),
        ("dirty_bytes", cgroup.dirty_bytes.is_none()),
        ("kernel_bytes", cgroup.kernel_bytes.is_none()),
        ("slab_bytes", cgroup.slab_bytes.is_none()),
        ("sock_bytes", cgroup.sock_bytes.is_none()),
        ("swap_bytes", cgroup.swap_bytes.is_none()),
        ("pressure", cgroup.pressure.is_none()),
    ];
    let lacking: Vec<&str> = keys.iter().filter(|(_, lacks)| *lacks).map(|(key, _)| *key).collect();
    let why = || format!("this kernel does not tell {}", lacking.join(", "));
    (!lacking.is_empty()).then(|| lack("memory.cgroup", &why()))
}

/// The victim as the kernel knew it at its decision: by now its memory may be gone.
fn victim(victim: &crate::death::Victim, memory: &MemoryStory) -> ProcessMemory {
    let parts = [memory.anon_bytes, memory.file_bytes, memory.shmem_bytes];
    ProcessMemory {
        pid: victim.pid,
        comm: victim.comm.clone(),
        victim: true,
        rss_bytes: parts.into_iter().flatten().fold(0, u64::saturating_add),
        anon_bytes: memory.anon_bytes,
        shmem_bytes: memory.shmem_bytes,
        swap_bytes: memory.swap_bytes,
        oom_score_adj: victim.oom_score_adj,
        ..ProcessMemory::default()
    }
}

fn with_victim(processes: &[ProcessMemory], mut victim: ProcessMemory) -> Vec<ProcessMemory> {
    let mut table: Vec<ProcessMemory> = Vec::with_capacity(processes.len() + 1);
    for process in processes {
        if process.pid == victim.pid {
            victim.tags.clone_from(&process.tags);
        } else {
            table.push(process.clone());
        }
    }
    table.push(victim);
    table.sort_by_key(|process| std::cmp::Reverse(process.rss_bytes));
    // The one that died is in the table, however small.
    while table.len() > MOST_PROCESSES {
        let last = table.iter().rposition(|process| !process.victim);
        last.map(|last| table.remove(last));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    fn process(pid: u32, mib: u64) -> ProcessMemory {
        ProcessMemory { pid, rss_bytes: mib << 20, ..ProcessMemory::default() }
    }

    #[test]
    fn the_victim_is_in_the_table_with_what_the_kernel_knew() {
        let mut death = sample::oom_memcg();
        let looked = [process(1, 100), process(death.victim.pid, 0), process(2, 5)];
        let scene = Scene {
            looked_ns: 3_500_000,
            processes: looked.to_vec(),
            process_count: Some(3),
            cgroup: Some(CgroupMemory::default()),
            ..Scene::default()
        };
        scene.put_into(&mut death, 2_000_000);
        let table: Vec<_> =
            death.memory.processes.iter().map(|p| (p.pid, p.victim, p.rss_bytes >> 20)).collect();
        assert_eq!(table, [(1, false, 100), (death.victim.pid, true, 30), (2, false, 5)]);
        assert_eq!(death.memory.cgroup.as_ref().unwrap().delay_ms, Some(1.5));
    }

    #[test]
    fn the_victim_stays_among_ten_that_are_larger() {
        let mut death = sample::oom_memcg();
        let processes: Vec<_> = (1..=10).map(|pid| process(pid, 1000)).collect();
        let scene = Scene { processes, process_count: Some(11), ..Scene::default() };
        scene.put_into(&mut death, 0);
        assert_eq!(death.memory.processes.len(), MOST_PROCESSES);
        assert!(death.memory.processes.last().unwrap().victim);
    }
}
