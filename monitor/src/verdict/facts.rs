//! What a verdict rests on, and what it says.

use std::collections::BTreeMap;

use killwatch_ebpf::wire::Origin;

use super::names::Names;
use crate::{
    death::{
        Ancestor, Cause, Confidence, Constraint, Killer, LevelUse, MemoryStory, Related, Rlimit,
        Stop, Trigger, Victim,
    },
    join::ProcessId,
};

/// Who sent a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// The signal.
    pub signal: u8,
    /// Where the kernel took it from.
    pub origin: Origin,
    /// `si_code`, if the origin is [`Origin::Info`]: 0 kill(2), -6 tgkill(2), positive for faults.
    pub code: i32,
    /// Whether it was sent to the process and not to one thread.
    pub group: bool,
    /// Whether it had no effect.
    pub ignored: bool,
    /// Whether it had none because the target is the first process of a pid namespace and has no handler.
    pub init_without_handler: bool,
    /// When, ns since boot.
    pub ktime_ns: u64,
    /// The process of the task that was running.
    pub process: ProcessId,
    /// Its parent.
    pub parent: ProcessId,
    /// Its name.
    pub comm: String,
    /// Its real user id.
    pub uid: u32,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// The container of that cgroup.
    pub container_id: Option<String>,
    /// The systemd unit of that cgroup.
    pub unit: Option<String>,
    /// Its ancestors, its parent first.
    pub ancestors: Vec<Ancestor>,
    /// Whether it was on its way out.
    pub exiting: bool,
    /// Whether only the thread that was running was, and its process lived on.
    pub thread_only: bool,
    /// Whether it is the first process of a pid namespace that the victim is in.
    pub namespace_init: bool,
    /// Whether it traced the victim.
    pub tracer: bool,
    /// The OOM victim that it had killed just before and whose memory the target shares.
    pub shared: Option<Related>,
    /// Whether that was seen; else the target's memory could not be looked at.
    pub shared_seen: bool,
    /// What is known of its own end, if it was on its way out.
    pub end: Option<Related>,
    /// Whether it is the victim itself.
    pub is_victim: bool,
}

/// An OOM kill.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OomFacts {
    /// What the kernel said the constraint was.
    pub constraint: Option<Constraint>,
    /// The cgroup whose limit was hit, as the kernel said: its place in the levels.
    pub level: Option<usize>,
    /// Bytes that the constraint allows, as the kernel said.
    pub allowed_bytes: Option<u64>,
    /// Whether a person asked for it.
    pub sysrq: bool,
    /// Whether the whole cgroup is killed.
    pub group: bool,
    /// The task that made the kernel look for a victim.
    pub trigger: Trigger,
}

/// Resource limits of the victim, and what it used. `None` in a limit is "no limit, or not known".
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Limits {
    /// CPU time, s.
    pub cpu_seconds: Option<f64>,
    /// `RLIMIT_CPU`, soft and hard, s.
    pub cpu: [Option<u64>; 2],
    /// `RLIMIT_FSIZE`, soft and hard, bytes.
    pub file_size: [Option<u64>; 2],
    /// `RLIMIT_RTTIME`, soft and hard, µs.
    pub realtime: [Option<u64>; 2],
}

/// All that the verdict rests on.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// Who died.
    pub victim: &'a Victim,
    /// Its memory and its cgroups'.
    pub memory: &'a MemoryStory,
    /// The cgroup on its path with the least room, as its signal arrived.
    pub tightest: Option<&'a LevelUse>,
    /// The OOM kill, if it was one.
    pub oom: Option<&'a OomFacts>,
    /// Whether the OOM killer had marked it, for whatever reason.
    pub marked: bool,
    /// Who sent the signal that was to end it.
    pub fatal: Option<&'a Sender>,
    /// Who sent its last SIGTERM.
    pub term: Option<&'a Sender>,
    /// The child that this exit code may stand for, and how many seconds before it ended.
    pub child: Option<(&'a Related, f64)>,
    /// Its resource limits.
    pub limits: Limits,
    /// Its seccomp mode, if known.
    pub seccomp: Option<u32>,
    /// Marks of a userspace OOM killer on its cgroup.
    pub marks: &'a BTreeMap<String, String>,
    /// Which names are known.
    pub names: &'a Names,
}

/// The verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What ended it.
    pub cause: Cause,
    /// Who.
    pub killer: Killer,
    /// On what this rests.
    pub evidence: Vec<String>,
    /// What of it is inferred.
    pub inferred: Vec<String>,
    /// What to do.
    pub advice: String,
    /// The limit that was hit.
    pub limit: Option<super::oom::Hit>,
    /// The process that this follows from.
    pub related: Option<Related>,
    /// The SIGTERM before the SIGKILL.
    pub stop: Option<Stop>,
    /// The resource limit that was hit.
    pub rlimit: Option<Rlimit>,
    /// Whether it made a system call that its seccomp forbids.
    pub forbidden: bool,
}

impl Verdict {
    pub(super) fn new(cause: Cause, killer: Killer, evidence: Vec<String>) -> Self {
        Self {
            cause,
            killer,
            evidence,
            inferred: Vec::new(),
            advice: String::new(),
            limit: None,
            related: None,
            stop: None,
            rlimit: None,
            forbidden: false,
        }
    }

    pub(super) fn inferring(mut self, what: impl Into<String>) -> Self {
        self.inferred.push(what.into());
        self
    }

    pub(super) fn following(mut self, related: Option<Related>) -> Self {
        self.related = related;
        self
    }

    /// How sure it is.
    #[must_use]
    pub const fn confidence(&self) -> Confidence {
        if self.inferred.is_empty() { Confidence::Certain } else { Confidence::Inferred }
    }
}
