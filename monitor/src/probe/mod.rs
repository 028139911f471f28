//! From the kernel to user space: what to attach, loading it, reading the ring, decoding records.
//! The only room that imports aya.

use killwatch_ebpf::wire::{CountedAgain, Exit, Mark};
use serde::{Deserialize, Serialize};

use crate::{cgroup::CgroupId, kmsg::story::Event, queue::Weigh};

pub mod btf;
pub mod decode;
pub mod layout;
pub mod load;
pub mod plan;
pub mod reader;
pub mod stats;
pub mod words;

/// What the rest of the house hears from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The OOM killer killed a process.
    Mark(Box<Mark>),
    /// The kernel counted a victim of the OOM killer a second time.
    CountedAgain(Box<CountedAgain>),
    /// A victim's last words.
    Words(Box<words::Words>),
    /// A process ended abnormally.
    Exit(Box<Exit>),
    /// The kernel log told of an OOM kill.
    Logged(Event),
    /// A cgroup was made.
    CgroupMade {
        /// The cgroup.
        id: CgroupId,
        /// Path from the root of its hierarchy.
        path: Box<[u8]>,
        /// Whether the kernel had no room for all of it.
        truncated: bool,
    },
    /// A cgroup has another path.
    CgroupRenamed {
        /// The cgroup.
        id: CgroupId,
        /// Path from the root of its hierarchy.
        path: Box<[u8]>,
        /// Whether the kernel had no room for all of it.
        truncated: bool,
    },
    /// A cgroup was removed.
    CgroupGone {
        /// The cgroup.
        id: CgroupId,
        /// When, ns since boot.
        ktime_ns: u64,
    },
}

impl Weigh for Record {
    fn bytes(&self) -> usize {
        let held = match self {
            Self::Mark(_) => size_of::<Mark>(),
            Self::CountedAgain(_) => size_of::<CountedAgain>(),
            Self::Words(words) => words.bytes(),
            Self::Exit(_) => size_of::<Exit>(),
            Self::Logged(event) => event.bytes(),
            Self::CgroupMade { path, .. } | Self::CgroupRenamed { path, .. } => path.len(),
            Self::CgroupGone { .. } => 0,
        };
        size_of::<Self>() + held
    }
}

/// How one probe fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Name of the program, such as `mark_victim`.
    pub name: String,
    /// What it attaches to, such as `tp_btf/oom/mark_victim`.
    pub hook: String,
    /// What it is for, and so what is lost without it.
    pub purpose: String,
    /// Whether the daemon is degraded without it.
    pub required: bool,
    /// Its state.
    pub state: ProbeState,
    /// Why, unless attached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// States of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeState {
    /// Not tried yet.
    Pending,
    /// At work.
    Attached,
    /// This kernel cannot have it.
    Unsupported,
    /// It should have attached and did not.
    Failed,
}
