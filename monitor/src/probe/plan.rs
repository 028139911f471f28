//! Which programs this kernel can have, and what each is for. Pure: facts in, plan out.

use super::{ProbeReport, ProbeState, btf::Btf};

/// How a program attaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint, with types from BTF. Counted per program by the kernel, unlike classic tracepoints and kprobes.
    Tracepoint {
        /// Subsystem, for people.
        group: &'static str,
        /// Name.
        name: &'static str,
    },
    /// The entry of a kernel function.
    FunctionEntry(&'static str),
}

impl Hook {
    /// The type in BTF that a program attaches by.
    #[must_use]
    pub fn btf_type(self) -> String {
        match self {
            Self::Tracepoint { name, .. } => format!("btf_trace_{name}"),
            Self::FunctionEntry(function) => function.to_owned(),
        }
    }
}

/// One program of the kernel side.
#[derive(Debug, Clone, Copy)]
pub struct Probe {
    /// Name of the program in the object.
    pub program: &'static str,
    /// Where it attaches.
    pub hook: Hook,
    /// What is lost without it.
    pub purpose: &'static str,
    /// Whether the daemon is degraded without it.
    pub required: bool,
}

/// The program without which no death is told.
pub const TELLS_DEATHS: &str = "sched_process_exit";

const fn tracepoint(
    group: &'static str,
    name: &'static str,
    purpose: &'static str,
    required: bool,
) -> Probe {
    Probe { program: name, hook: Hook::Tracepoint { group, name }, purpose, required }
}

/// Every program, in the order of attachment: the ones that name things first, the one that reports deaths last.
/// The tracepoints exist since before 5.8, the first kernel with the ring that the programs write to.
pub const PROBES: &[Probe] = &[
    tracepoint("cgroup", "cgroup_mkdir", "names cgroups as they are made", true),
    tracepoint("cgroup", "cgroup_rename", "follows cgroups that are renamed", false),
    tracepoint("cgroup", "cgroup_rmdir", "lets go of cgroups that are gone", false),
    Probe {
        program: "oom_kill_process",
        hook: Hook::FunctionEntry("oom_kill_process"),
        purpose: "says why and at which limit the kernel kills; without it the limit is found from the usage of each level",
        required: false,
    },
    tracepoint("signal", "signal_generate", "says who sent a fatal signal", true),
    tracepoint(
        "oom",
        "mark_victim",
        "tells OOM kills, with the memory of victim and cgroups",
        true,
    ),
    tracepoint(
        "signal",
        "signal_deliver",
        "reads the victim's command line and environment",
        false,
    ),
    tracepoint("sched", "sched_process_exit", "reports each abnormal end", true),
];

/// For kernels whose tracepoints other tasks may run beside.
pub const SECOND_LOOK: Probe = Probe {
    program: "exit_rcu",
    hook: Hook::FunctionEntry("exit_rcu"),
    purpose: "reports the ends for which this kernel skips sched_process_exit, as it does when many die at once",
    required: false,
};

/// The programs that do nothing, for `cargo xtask bench`.
pub const EMPTY: &[Probe] = &[
    Probe {
        program: "empty_exit",
        hook: Hook::Tracepoint { group: "sched", name: "sched_process_exit" },
        purpose: "the cost of an empty program",
        required: false,
    },
    Probe {
        program: "empty_signal",
        hook: Hook::Tracepoint { group: "signal", name: "signal_generate" },
        purpose: "the cost of an empty program",
        required: false,
    },
];

impl Probe {
    /// Its report before it was tried.
    #[must_use]
    pub fn pending(&self) -> ProbeReport {
        ProbeReport {
            name: self.program.to_owned(),
            hook: match self.hook {
                Hook::Tracepoint { group, name } => format!("tp_btf/{group}/{name}"),
                Hook::FunctionEntry(function) => format!("fentry/{function}"),
            },
            purpose: self.purpose.to_owned(),
            required: self.required,
            state: ProbeState::Pending,
            why: None,
        }
    }

    /// Why this kernel cannot have it, if so.
    #[must_use]
    pub fn unsupported(&self, btf: &Btf<'_>) -> Option<String> {
        match self.hook {
            Hook::Tracepoint { group, name } if btf.tracepoint(name).is_none() => {
                Some(format!("this kernel has no tracepoint {group}:{name}"))
            }
            Hook::Tracepoint { .. } | Hook::FunctionEntry(_) => None,
        }
    }
}
