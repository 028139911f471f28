//! What ended a process, and how sure that is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How sure a verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The kernel's own words leave no other explanation.
    Certain,
    /// Something in it is inferred; `inferred` says what.
    Inferred,
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
    /// A userspace OOM killer, such as systemd-oomd or earlyoom.
    OomUserspace,
    /// The kernel's OOM killer, only because it shared the memory of a victim.
    OomCollateral,
    /// A stop that ran out: SIGTERM, and after a grace SIGKILL.
    StopTimeout,
    /// A fatal signal from another process, or one that it sent to itself.
    Killed,
    /// The first process of its pid namespace died.
    PidnsTeardown,
    /// Its own SIGABRT.
    Abort,
    /// A fault: SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, or a system call that seccomp forbids.
    Crash,
    /// RLIMIT_CPU or RLIMIT_FSIZE.
    Rlimit,
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
        Self::OomUserspace,
        Self::OomCollateral,
        Self::StopTimeout,
        Self::Killed,
        Self::PidnsTeardown,
        Self::Abort,
        Self::Crash,
        Self::Rlimit,
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
            Self::OomUserspace => "oom_userspace",
            Self::OomCollateral => "oom_collateral",
            Self::StopTimeout => "stop_timeout",
            Self::Killed => "killed",
            Self::PidnsTeardown => "pidns_teardown",
            Self::Abort => "abort",
            Self::Crash => "crash",
            Self::Rlimit => "rlimit",
            Self::Relayed => "relayed",
            Self::Unknown => "unknown",
        }
    }

    /// The cause of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|cause| cause.as_str() == name)
    }

    /// Whether the kernel's OOM killer chose it as a victim.
    #[must_use]
    pub const fn is_kernel_oom(self) -> bool {
        matches!(self, Self::OomMemcg | Self::OomGlobal | Self::OomCpuset | Self::OomMempolicy)
    }
}
