//! The domain types that flow through the house. No I/O, no clock.
//!
//! [`Death`] is a public contract: its JSON form is versioned by [`SCHEMA`], described in docs/events.md and
//! held to docs/death.schema.json by a test. A value that is not known is absent, never zero or empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

mod cause;
pub mod drill;
mod finding;
mod killer;
mod memory;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod workload;

pub use cause::{Cause, Confidence};
pub use finding::{Finding, Rule};
pub use killer::{
    Ancestor, Constraint, Killer, KillerKind, Oom, Related, Rlimit, Role, Stop, Trigger, Via,
};
pub use memory::{
    CgroupMemory, History, HostMemory, KindsAt, LevelUse, LimitCounter, MemoryStory, Pressure,
    ProcessMemory, UsageAt,
};
pub use workload::{Job, Owner, Qos, Workload};

/// Version of the JSON form. Rises when a key changes its meaning or goes; new keys do not raise it.
pub const SCHEMA: u32 = 2;

/// One process that ended abnormally: who, by what, why, and what to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Death {
    /// Unique id, ordered by time (UUIDv7). Receivers deduplicate by it.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Version of this format.
    pub schema: u32,
    /// The kernel's boot id: `ktime_ns` and pids are unique within a boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Name of the node.
    pub node: String,
    /// Whether the process is gone.
    pub state: State,
    /// When the process ended, or was found to be stuck: wall clock, RFC 3339.
    #[schemars(with = "String")]
    pub time: Timestamp,
    /// The same in ns since boot (`CLOCK_BOOTTIME`), as the kernel stamped it.
    pub ktime_ns: u64,
    /// Who died.
    pub victim: Victim,
    /// Who ended it.
    pub killer: Killer,
    /// What ended it.
    pub cause: Cause,
    /// Whether `cause` and what hangs on it are proven.
    pub confidence: Confidence,
    /// What is inferred and not proven, a sentence each; there if `confidence` is `inferred`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inferred: Vec<String>,
    /// The facts that `cause` rests on, for a person to check.
    pub evidence: Vec<String>,
    /// The kernel's decision, if its OOM killer was at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// The other process that this death follows from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub related: Option<Related>,
    /// The SIGTERM that came before a SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// The resource limit that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rlimit: Option<Rlimit>,
    /// For a victim of the OOM killer that was found to be stuck: seconds from its mark to `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stuck_seconds: Option<f64>,
    /// The memory picture.
    #[serde(default, skip_serializing_if = "MemoryStory::is_empty")]
    pub memory: MemoryStory,
    /// What it belonged to.
    pub workload: Workload,
    /// The job it worked on, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// What the victim, or who started it, had said of itself over the daemon's socket: the job tags.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What to do about it, a sentence or a few: those of `findings`, if there are any.
    pub advice: String,
    /// What the numbers show about why the memory was short, each with its evidence, the weightiest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
}

/// Whether a process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It is gone.
    Dead,
    /// The OOM killer killed it 10 s ago and it is still there. One more record follows when it goes.
    Stuck,
}

/// The process that died.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Victim {
    /// Process id on the node.
    pub pid: u32,
    /// The same number under the kernel's name for it, thread group id.
    pub tgid: u32,
    /// Thread id: the thread that the OOM killer marked, else the one that ended last.
    pub tid: u32,
    /// Process id in its own pid namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_pid: Option<u32>,
    /// Inode of that pid namespace, as `/proc/PID/ns/pid` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid_ns: Option<u32>,
    /// When it was started.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// The same in ns since boot; with `pid` it names the process for this boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_ktime_ns: Option<u64>,
    /// How long it lived, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetime_seconds: Option<f64>,
    /// Parent process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Name of the parent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_comm: Option<String>,
    /// Name of the process, at most 15 bytes. Bytes that are not UTF-8 are written `\xNN`.
    pub comm: String,
    /// Command line, at most 2048 bytes and 128 arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<Vec<String>>,
    /// Whether the command line was longer than what is kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cmdline_truncated: bool,
    /// Real user id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The kernel's preference for it as an OOM victim, -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Exit code, if it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// Number of the signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// Its name, such as `SIGKILL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_name: Option<String>,
    /// What a shell or a container runtime shows: `exit_code`, or 128 + `signal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// What a `status` above 128 stands for, such as `137 = 128 + 9: SIGKILL, …`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_meaning: Option<String>,
    /// Whether a core was dumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core_dumped: Option<bool>,
    /// Threads as the signal was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// The variables of its environment that are on the allowlist; no others are ever kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environ: BTreeMap<String, String>,
}

/// Something that the record lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// Key of the record.
    pub field: String,
    /// Why.
    pub why: String,
}
