//! The domain types that flow through the house. No I/O, no clock.
//!
//! [`Death`] is a public contract: its JSON form is versioned by [`SCHEMA`], described in docs/events.md and
//! held to docs/death.schema.json by a test. A value that is not known is absent, never zero or empty.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Version of the JSON form. Rises when a key changes its meaning or goes; new keys do not raise it.
pub const SCHEMA: u32 = 1;

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
    /// When the process ended, wall clock, RFC 3339.
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
    /// The facts that `cause` rests on, for a person to check.
    pub evidence: Vec<String>,
    /// The kernel's decision, if its OOM killer was at work.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// The child whose death this exit code relays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub child: Option<Child>,
    /// The memory picture.
    #[serde(default, skip_serializing_if = "MemoryStory::is_empty")]
    pub memory: MemoryStory,
    /// What it belonged to.
    pub workload: Workload,
    /// The job it worked on, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// What to do about it, a sentence or two.
    pub advice: String,
    /// What could not be read, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
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
    /// When it was started.
    #[schemars(with = "String")]
    pub start_time: Timestamp,
    /// The same in ns since boot; with `pid` it names the process for this boot.
    pub start_ktime_ns: u64,
    /// How long it lived, in seconds.
    pub lifetime_seconds: f64,
    /// Parent process.
    pub ppid: u32,
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
    pub uid: u32,
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
    pub status: u8,
    /// Whether a core was dumped.
    pub core_dumped: bool,
    /// Threads as the signal was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<u32>,
    /// The variables of its environment that are on the allowlist; no others are ever kept.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environ: BTreeMap<String, String>,
}

/// Who ended the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Killer {
    /// Kind.
    pub kind: KillerKind,
    /// Process id of the sender, for `process` and `self`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Name of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// Real user id of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Parent of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ppid: Option<u32>,
    /// Cgroup of the sender, path from the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// For `kernel`: the task that was running as the kernel decided. It allocated, or wrote a limit; it need not be the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
}

/// Kinds of killer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KillerKind {
    /// The kernel.
    Kernel,
    /// Another process.
    Process,
    /// The process itself.
    #[serde(rename = "self")]
    Itself,
    /// Not known.
    Unknown,
}

/// The task that made the kernel look for a victim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Trigger {
    /// Process id.
    pub pid: u32,
    /// Thread id.
    pub tid: u32,
    /// Name of the process.
    pub comm: String,
    /// Its cgroup, path from the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
}

/// What ended a process: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The kernel's OOM killer, under a memory cgroup's limit.
    OomMemcg,
    /// The kernel's OOM killer, the host being out of memory.
    OomGlobal,
    /// The kernel's OOM killer, the cpuset's nodes being out of memory.
    OomCpuset,
    /// The kernel's OOM killer, the nodes of a memory policy being out of memory.
    OomMempolicy,
    /// A fatal signal from another process.
    Killed,
    /// Its own SIGABRT.
    Abort,
    /// A fault: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS.
    Crash,
    /// Exited with 128+n because a child died of n.
    Relayed,
    /// Nothing of the above is proven.
    Unknown,
}

impl Cause {
    /// Every cause, for documents and metrics.
    pub const ALL: &'static [Self] = &[
        Self::OomMemcg,
        Self::OomGlobal,
        Self::OomCpuset,
        Self::OomMempolicy,
        Self::Killed,
        Self::Abort,
        Self::Crash,
        Self::Relayed,
        Self::Unknown,
    ];

    /// Its name in JSON, labels and flags.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OomMemcg => "oom_memcg",
            Self::OomGlobal => "oom_global",
            Self::OomCpuset => "oom_cpuset",
            Self::OomMempolicy => "oom_mempolicy",
            Self::Killed => "killed",
            Self::Abort => "abort",
            Self::Crash => "crash",
            Self::Relayed => "relayed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the kernel's OOM killer did it.
    #[must_use]
    pub const fn is_kernel_oom(self) -> bool {
        matches!(self, Self::OomMemcg | Self::OomGlobal | Self::OomCpuset | Self::OomMempolicy)
    }
}

/// A decision of the kernel's OOM killer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Oom {
    /// The decision that this kill belongs to: the kernel's time of its first mark. Victims of one decision share it.
    pub incident_ktime_ns: u64,
    /// Whether the whole cgroup was taken (`memory.oom.group`).
    pub group: bool,
    /// What the kernel said the constraint was, where the hook that tells could be attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<Constraint>,
    /// Whether a person asked for the kill with sysrq-f.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sysrq: bool,
}

/// `enum oom_constraint` (include/linux/oom.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Constraint {
    /// The host.
    None,
    /// The allowed nodes of a cpuset.
    Cpuset,
    /// The nodes of a memory policy.
    MemoryPolicy,
    /// The limit of a memory cgroup.
    Memcg,
}

/// A child whose death was relayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Child {
    /// Id of its own record.
    #[schemars(with = "String")]
    pub id: Uuid,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// What ended it.
    pub cause: Cause,
}

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LevelUse {
    /// Path from the root of the hierarchy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Bytes charged.
    pub usage_bytes: u64,
    /// Limit; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<u64>,
}

/// What the victim belonged to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workload {
    /// Cgroup that accounted its memory: path from the root of the hierarchy, such as `/kubepods/burstable/…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Id of that cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Container, in the form that kube-state-metrics uses: `containerd://…`. Without a known runtime, the bare id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// Container runtime, such as `containerd`, `docker`, `cri-o`, `podman`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Kubernetes pod uid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,
    /// Kubernetes quality of service class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<Qos>,
    /// systemd unit, such as `nginx.service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Where each of the names came from: key → source.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// Kubernetes quality of service classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Qos {
    /// Requests equal limits.
    Guaranteed,
    /// Some requests.
    Burstable,
    /// None.
    BestEffort,
}

/// The job that the victim worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Job {
    /// Its id in its scheduler.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its scheduler, such as `slurm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Which attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<String>,
    /// Where each of them came from: key → source, such as `environ:JOB_ID` or `cgroup_path`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, String>,
}

/// Something that the record lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Missing {
    /// Key of the record.
    pub field: String,
    /// Why.
    pub why: String,
}

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
