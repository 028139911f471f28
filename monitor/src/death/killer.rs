//! Who ended a process, and by which way.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Cause;

/// Who ended the process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Killer {
    /// Kind.
    pub kind: KillerKind,
    /// By which way the signal came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
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
    /// Container of the sender, in the form of `workload.container_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_id: Option<String>,
    /// systemd unit of the sender.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Ancestors of the sender as it sent the signal, its parent first, at most 6.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ancestors: Vec<Ancestor>,
    /// Marks that a userspace OOM killer left on the victim's cgroup: extended attributes, such as `user.oomd_kill`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub marks: BTreeMap<String, String>,
    /// For `kernel`: the task that was running as the kernel decided. It allocated, or wrote a limit; it need not be the victim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
}

/// Kinds of killer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    #[default]
    Unknown,
}

/// Ways by which a signal comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// kill(2) or pidfd_send_signal(2).
    Kill,
    /// tgkill(2) or tkill(2), as raise(3), abort(3) and pthread_kill(3) do.
    Tgkill,
    /// sigqueue(3).
    Sigqueue,
    /// A write to `cgroup.kill`.
    CgroupKill,
    /// `PR_SET_PDEATHSIG`: the victim had asked for it, for when its parent dies.
    ParentDeathSignal,
    /// `PTRACE_O_EXITKILL`: the process that traced it is gone.
    TracerExit,
    /// PTRACE_KILL, by the process that traced it.
    Ptrace,
    /// A timer of its own.
    Timer,
    /// A fault of the processor, or seccomp.
    Fault,
    /// The kernel, of itself.
    Kernel,
    /// None of these.
    Other,
}

/// A process between a sender and the first process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
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

/// Another process that a death follows from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Related {
    /// What it is to the victim.
    pub role: Role,
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// What a shell shows of its end: its exit code, or 128 + its signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u8>,
    /// Id of its own record, if it has one.
    #[schemars(with = "Option<String>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// What ended it, as its own record says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

impl Related {
    /// The same process, as what it is to another.
    #[must_use]
    pub fn with_role(self, role: Role) -> Self {
        Self { role, ..self }
    }
}

/// What a related process is to the victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The child whose death the victim's exit code relays.
    Child,
    /// The first process of its pid namespace, which died.
    NamespaceInit,
    /// The victim of the OOM killer whose memory it shared.
    OomVictim,
    /// Its parent, which died.
    Parent,
}

/// A SIGTERM that came before a SIGKILL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Stop {
    /// Process id of who sent it.
    pub pid: u32,
    /// Its name.
    pub comm: String,
    /// Its real user id.
    pub uid: u32,
    /// Seconds from the SIGTERM to the SIGKILL.
    pub grace_seconds: f64,
    /// Whether it had no effect: the process ignored it, or `init_without_handler`.
    pub ignored: bool,
    /// Whether it never arrived: the first process of a pid namespace gets only what it has a handler for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init_without_handler: bool,
}

/// A resource limit (getrlimit(2)) that ended a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rlimit {
    /// `RLIMIT_CPU` or `RLIMIT_FSIZE`.
    pub resource: String,
    /// Unit of the numbers: `seconds` or `bytes`.
    pub unit: String,
    /// Soft limit: the process gets a signal that it may handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// Hard limit: SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
    /// What it had used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub used: Option<f64>,
}
