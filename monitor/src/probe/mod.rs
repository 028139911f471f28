//! From the kernel to user space: what to attach, loading it, reading the ring, decoding records.
//! The only room that imports aya.

use std::path::PathBuf;

use killwatch_ebpf::wire::{CountedAgain, Exit, Mark};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{cgroup::CgroupId, kmsg::story::Event, queue::Weigh};

pub mod btf;
pub mod decode;
pub mod hold;
pub mod layout;
pub mod load;
pub mod overlap;
pub mod pins;
pub mod plan;
pub mod reader;
pub mod retire;
pub mod stats;
pub mod tally;
pub mod traffic;
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
    /// About the ring itself.
    Ring(News),
}

/// What the reader says of the ring, between the records that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The ends that come now were on the ring of this set.
    Begins {
        /// The set.
        set: Uuid,
        /// What [`tally::Tally::begin`] is told.
        base: Option<i64>,
        /// Directories of sets whose ring was read to its end, to be removed once this is noted.
        done_with: Vec<PathBuf>,
    },
    /// Ends will never be told.
    Lost(Loss, u64),
    /// An end that came before.
    Repeated,
}

/// Why ends of processes that the kernel side has told are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A daemon was killed that had read them and not kept them yet.
    Killed,
    /// They were written by another version of the kernel side.
    Layout,
}

impl Loss {
    /// Every reason, for metrics.
    pub const ALL: &'static [Self] = &[Self::Killed, Self::Layout];

    /// Its name in labels and log lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::Layout => "layout",
        }
    }
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
            Self::CgroupGone { .. } | Self::Ring(_) => 0,
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
