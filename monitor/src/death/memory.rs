//! The memory picture.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory at the death, of the cgroups around it, and in the minutes before. Bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MemoryStory {
    /// Anonymous memory of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// File pages of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Shared memory and tmpfs pages of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// Swapped-out memory of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// Page tables of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_tables_bytes: Option<u64>,
    /// Peak resident set of the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_rss_bytes: Option<u64>,
    /// Usage of the cgroup whose limit was hit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// Its limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// The cgroup whose limit was hit, path from the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_cgroup: Option<String>,
    /// Which counter of it, unless it is the memory's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_counter: Option<LimitCounter>,
    /// The victim's cgroup and its ancestors at the kernel's decision, the victim's own first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<LevelUse>,
    /// What was charged to the cgroup whose limit was hit, by kind, looked at right after the kernel's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<CgroupMemory>,
    /// The largest processes below that cgroup, the largest first, the victim among them; at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub processes: Vec<ProcessMemory>,
    /// How many processes there were below that cgroup, the victim among them. Beyond 16,384 they are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process_count: Option<u32>,
    /// The last minutes of the cgroup whose limit was hit; of the victim's own, if none was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// How long before the death its cgroup's nearness to the limit was told, in seconds; 0 if it was not. Only of deaths at a limit of a cgroup that was
    /// followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warned_seconds: Option<f64>,
    /// The host's memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostMemory>,
}

impl MemoryStory {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One level of the victim's cgroup hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LevelUse {
    /// Path from the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Bytes charged.
    pub usage_bytes: u64,
    /// Limit; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// v2: bytes of swap charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// v2: limit of the swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_limit_bytes: Option<u64>,
    /// v1: bytes of memory and swap charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memsw_bytes: Option<u64>,
    /// v1: limit of memory and swap together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memsw_limit_bytes: Option<u64>,
}

/// Counters of a cgroup that a limit may stand on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LimitCounter {
    /// v1: memory and swap together (`memory.memsw.limit_in_bytes`).
    Memsw,
}

/// What is charged to a cgroup and all below it, in the kinds that people reason in. Bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CgroupMemory {
    /// Path from the root of the hierarchy.
    pub cgroup: String,
    /// Milliseconds from the kernel's decision to this look: what the victim gives back in between is missing here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// All of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage_bytes: Option<u64>,
    /// The most that it ever was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peak_bytes: Option<u64>,
    /// The kubelet's working set: all but what is inactive of the page cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub working_set_bytes: Option<u64>,
    /// What the kernel cannot take back under pressure: all but the page cache of files and slab that is reclaimable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreclaimable_bytes: Option<u64>,
    /// Anonymous memory: heaps and stacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// Page cache of files on disks; tmpfs and shared memory are `shmem_bytes`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_bytes: Option<u64>,
    /// Of it, what is inactive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inactive_file_bytes: Option<u64>,
    /// Of it, what waits to be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dirty_bytes: Option<u64>,
    /// tmpfs and shared memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// The kernel's own: page tables, stacks, slab, sockets and more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_bytes: Option<u64>,
    /// Of it, slab.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slab_bytes: Option<u64>,
    /// Of it, buffers of sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sock_bytes: Option<u64>,
    /// What is locked into memory or cannot be taken back otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unevictable_bytes: Option<u64>,
    /// What is in swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// How often what happened at its limits since it was made, by the kernel's names (`memory.events`; v1: `failcnt` as `max`).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub events: BTreeMap<String, u64>,
    /// Its pressure, where the kernel measures that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}

/// The share of time that tasks waited for memory, in percent (PSI).
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Pressure {
    /// At least one task, over the last 10 s.
    pub some_avg10: f64,
    /// At least one task, over the last minute.
    pub some_avg60: f64,
    /// All tasks, over the last 10 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_avg10: Option<f64>,
    /// All tasks, over the last minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub full_avg60: Option<f64>,
}

/// A process of the cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessMemory {
    /// Process id on the node.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Whether it is the one that died.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub victim: bool,
    /// Resident memory, bytes.
    pub rss_bytes: u64,
    /// Of it, anonymous.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anon_bytes: Option<u64>,
    /// Of it, shared memory and tmpfs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shmem_bytes: Option<u64>,
    /// What of it is in swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_bytes: Option<u64>,
    /// The kernel's preference for it as an OOM victim, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// What it had said of itself: the job tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// The last minutes of a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct History {
    /// Path from the root of the hierarchy.
    pub cgroup: String,
    /// The tightest limit on its path at the last look.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
    /// Usage, oldest first: closer together the later they are.
    pub usage: Vec<UsageAt>,
    /// What it was made of, oldest first, fewer of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<KindsAt>,
    /// Growth of the usage over the whole of it, in bytes per minute, by a straight line; negative if it shrank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub growth_bytes_per_minute: Option<f64>,
    /// How well that line fits: 1 is a straight line, 0 none (the coefficient of determination).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fit: Option<f64>,
    /// How long the cgroup had been there, in seconds, if it was seen to be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
}

/// Usage at a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UsageAt {
    /// Seconds before the death.
    pub ago_seconds: f64,
    /// Bytes charged.
    pub bytes: u64,
}

/// What a cgroup's usage was made of at a time. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KindsAt {
    /// Seconds before the death.
    pub ago_seconds: f64,
    /// Anonymous memory.
    pub anon_bytes: u64,
    /// Page cache of files on disks.
    pub file_bytes: u64,
    /// tmpfs and shared memory.
    pub shmem_bytes: u64,
    /// The kernel's own.
    pub kernel_bytes: u64,
    /// In swap.
    pub swap_bytes: u64,
}

/// The host's memory, as `/proc/meminfo`, `/proc/vmstat` and `/proc/pressure/memory` have it. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct HostMemory {
    /// All of it.
    pub total_bytes: u64,
    /// What could be given out without swapping.
    pub available_bytes: u64,
    /// Size of the swap; 0 if it is off.
    pub swap_total_bytes: u64,
    /// What of it is free.
    pub swap_free_bytes: u64,
    /// OOM kills since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kills: Option<u64>,
    /// Pages that allocations had to reclaim themselves since boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_reclaim_pages: Option<u64>,
    /// Its pressure, where the kernel measures that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pressure: Option<Pressure>,
}
