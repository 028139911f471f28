//! What the numbers of a death show about why memory was short.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One thing that the numbers show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// Which rule found it.
    pub rule: Rule,
    /// The numbers that it rests on, a sentence.
    pub evidence: String,
    /// What to do about it, a sentence.
    pub advice: String,
}

/// The rules that there are.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Another cgroup below the same limit took the memory: the victim is not the culprit.
    Sibling,
    /// The limit stands on a cgroup above the victim's own.
    ParentLimit,
    /// tmpfs or shared memory fills the cgroup.
    Tmpfs,
    /// The page cache fills the cgroup and cannot be written out in time.
    PageCache,
    /// The kernel's own memory fills the cgroup.
    KernelMemory,
    /// A runtime's own heap may grow beyond the limit, or is too close to it.
    Runtime,
    /// Many processes of one kind fill it together.
    TooManyWorkers,
    /// It grew steadily since its start.
    Leak,
    /// It grew by leaps within seconds.
    Spike,
    /// The job, or the workload, needs more each time: its earlier deaths met the same limit.
    LimitTooSmall,
    /// There is no swap to put off what is not in use.
    NoSwap,
}
