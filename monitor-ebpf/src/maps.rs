//! What one hook leaves for a later one. All are bounded; LRU maps push out what is oldest, and a death whose sender was pushed out
//! says that its sender is not known.

use aya_ebpf::{macros::map, maps::LruHashMap};
use killwatch_ebpf::wire::{Decision, Sent};

/// Process id → the signal that is to end it: the first SIGKILL, else the last signal that met its default action.
#[map]
pub(crate) static FATAL: LruHashMap<u32, Sent> = LruHashMap::with_max_entries(8192, 0);

/// Process id → the last SIGTERM, handled or not.
#[map]
pub(crate) static TERM: LruHashMap<u32, Sent> = LruHashMap::with_max_entries(8192, 0);

/// A SIGKILL that the kernel itself sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct KernelKill {
    /// Address of the target task.
    pub(crate) task: u64,
    /// When, ns since boot.
    pub(crate) ktime_ns: u64,
    /// Thread id of the target.
    pub(crate) tid: u64,
}

/// Sender's thread id → its last such kill: a mark that follows in the same thread makes it an OOM kill.
#[map]
pub(crate) static KERNEL_KILLS: LruHashMap<u32, KernelKill> = LruHashMap::with_max_entries(1024, 0);

/// Thread id → what `oom_kill_process` was called with there.
#[map]
pub(crate) static DECISIONS: LruHashMap<u32, Decision> = LruHashMap::with_max_entries(1024, 0);

/// A process, for ever.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct ProcessKey {
    pub(crate) start_ns: u64,
    pub(crate) tgid: u64,
}

/// Processes whose end was reported. Up to 6.14 several threads may take themselves for the last.
#[map]
pub(crate) static REPORTED: LruHashMap<ProcessKey, u8> = LruHashMap::with_max_entries(8192, 0);
