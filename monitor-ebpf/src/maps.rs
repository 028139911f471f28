//! What one hook leaves for a later one. All are bounded; LRU maps push out what is oldest, and a death whose sender was pushed out
//! says that its sender is not known.

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use killwatch_ebpf::wire::{COMM_LEN, Decision, Sent};

/// Process id → the signal that is to end it: the first SIGKILL, else the last signal that met its default action.
#[map]
pub(crate) static FATAL: LruHashMap<u32, Sent> = LruHashMap::with_max_entries(8192, 0);

/// Process id → the last SIGTERM: handled, ignored or neither.
#[map]
pub(crate) static TERM: LruHashMap<u32, Sent> = LruHashMap::with_max_entries(8192, 0);

/// Where `signal_generate` builds a [`Sent`]: too large for the stack. It runs with interrupts off, so a CPU has but one at a time.
#[map]
pub(crate) static DRAFT: PerCpuArray<Sent> = PerCpuArray::with_max_entries(1, 0);

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

/// An OOM victim.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Marked {
    /// Address of its memory.
    pub(crate) mm: u64,
    /// Start of the process.
    pub(crate) start_ns: u64,
    /// When it was marked, ns since boot.
    pub(crate) ktime_ns: u64,
    pub(crate) tgid: u32,
    pub(crate) comm: [u8; COMM_LEN],
    /// Explicit padding.
    pub(crate) _pad: u32,
}

/// Thread id → the last OOM victim that was marked there: who shares its memory is killed next, and in a group kill it is itself once more.
#[map]
pub(crate) static MARKED: LruHashMap<u32, Marked> = LruHashMap::with_max_entries(1024, 0);

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
