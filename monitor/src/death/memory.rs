//! The memory picture.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Memory at the death and of the cgroups around it. Bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
