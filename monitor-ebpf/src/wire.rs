//! Records on the ring. Native byte order, no padding: the reader and the writer are one machine.
//!
//! A process that is killed by the OOM killer produces, in this order: [`Mark`] (in the context of the
//! allocating task), [`LastWords`] and [`Chunk`]s (in the victim's, its memory still mapped), [`Exit`] (in the context of its
//! last thread). From 6.16 on `Exit` may overtake `Mark`. A kill by someone else lacks `Mark`; an
//! ordinary exit with 128+n has `Exit` only.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Version of everything in this file. A reader that meets another version must not interpret the record; it may count it: the first
/// four bytes of a record are its kind and its version, and [`Kind::Exit`] is an end, in every version.
pub const VERSION: u16 = 3;

/// Length of a task's name in the kernel, with its terminating zero.
pub const COMM_LEN: usize = 16;
/// Cgroup levels in a [`Mark`], from the victim's own upwards. Deeper trees are cut at the top.
pub const MAX_LEVELS: usize = 16;
/// Ancestors of a sender in a [`Sent`], its parent first.
pub const MAX_ANCESTORS: usize = 6;
/// Bytes of a cgroup path in a [`CgroupPath`], with the terminating zero (the kernel's tracepoint has no more).
pub const PATH_LEN: usize = 1024;
/// Payload of a [`SmallChunk`].
pub const SMALL_CHUNK: usize = 1024;
/// Payload of a [`LargeChunk`].
pub const LARGE_CHUNK: usize = 4096;
/// At most this many small chunks of a victim's command line are read.
pub const MAX_ARG_CHUNKS: usize = 2;
/// At most this many large chunks of a victim's environment are read.
pub const MAX_ENV_CHUNKS: usize = 8;

/// What a record is; the first field of [`Header`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// [`Mark`].
    Mark = 1,
    /// [`LastWords`].
    LastWords = 2,
    /// [`SmallChunk`].
    SmallChunk = 3,
    /// [`LargeChunk`].
    LargeChunk = 4,
    /// [`Exit`].
    Exit = 5,
    /// [`CgroupPath`] of a new cgroup.
    CgroupMade = 6,
    /// [`CgroupPath`] of a cgroup that had another.
    CgroupRenamed = 7,
    /// [`CgroupGone`].
    CgroupGone = 8,
    /// [`CountedAgain`].
    CountedAgain = 9,
}

/// Start of each record.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u16,
    /// [`VERSION`].
    pub version: u16,
    /// Length of the record in bytes, header included.
    pub len: u32,
    /// Time of the event, ns since boot, suspend included (`CLOCK_BOOTTIME`).
    pub ktime_ns: u64,
}

/// A task and its process.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Task {
    /// Process id, in the first pid namespace.
    pub tgid: u32,
    /// Thread id.
    pub tid: u32,
    /// Start of the process, ns since boot. With `tgid` it names a process for ever.
    pub start_ns: u64,
    /// Process id of the parent.
    pub ppid: u32,
    /// Real user id, in the first user namespace.
    pub uid: u32,
    /// Start of the parent, ns since boot.
    pub parent_start_ns: u64,
    /// Id in the default (v2) hierarchy.
    pub cgroup_v2: u64,
    /// Id of the cgroup that accounts its memory; equal to `cgroup_v2` on v2 hosts.
    pub cgroup_memory: u64,
    /// Name of the process (of its first thread), zero-padded.
    pub comm: [u8; COMM_LEN],
}

/// One step up from a process to the first one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Ancestor {
    /// Process id; 0: there are no more.
    pub tgid: u32,
    /// Name of the process.
    pub comm: [u8; COMM_LEN],
}

/// Where a signal comes from, as the kernel's own code says it and nobody can forge: what stands in place of a `siginfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Origin {
    /// A `siginfo`: a system call of the sender, a fault, a timer.
    Info = 0,
    /// `SEND_SIG_NOINFO`: the kernel on behalf of a process (`cgroup.kill`, `PR_SET_PDEATHSIG`, SIGPIPE, RLIMIT_FSIZE).
    NoInfo = 1,
    /// `SEND_SIG_PRIV`: the kernel itself (OOM killer, end of a pid namespace, RLIMIT_CPU, terminals).
    Kernel = 2,
}

/// Values of [`Sent::ignored`].
pub mod ignored {
    /// It was delivered.
    pub const NO: u32 = 0;
    /// The target ignores it (`SIG_IGN`).
    pub const BY_CHOICE: u32 = 1;
    /// The target has no handler and is the first process of a pid namespace: what it has no handler for does not reach it.
    pub const NO_HANDLER: u32 = 2;
}

/// Bits of [`Sent::sender_state`].
pub mod sender {
    /// It was on its way out (`PF_EXITING`).
    pub const EXITING: u32 = 1;
    /// It is the first process of a pid namespace that the target is in.
    pub const NAMESPACE_INIT: u32 = 2;
    /// Only the thread that was running is on its way out: others of its process live.
    pub const THREAD_ONLY: u32 = 4;
    /// It traces the target (ptrace(2)).
    pub const TRACER: u32 = 8;
}

/// Who sent a signal. All zero: nobody was seen.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Sent {
    /// Start of the process that it was sent to: tells a reused pid from the old one.
    pub target_start_ns: u64,
    /// When, ns since boot.
    pub ktime_ns: u64,
    /// The signal.
    pub signal: u32,
    /// `si_code` of the `siginfo`, if `origin` is one: 0 kill(2), -6 tgkill(2), positive for faults.
    pub code: i32,
    /// 1 if sent to the process, 0 if to one thread.
    pub group: u32,
    /// 1 once a thread of the target has taken the signal.
    pub delivered: u32,
    /// An [`Origin`].
    pub origin: u32,
    /// One of [`ignored`].
    pub ignored: u32,
    /// Bits of [`sender`].
    pub sender_state: u32,
    /// Wait status of a sender that is on its way out, so far as it is known.
    pub sender_status: u32,
    /// Start of the OOM victim that the sender had just killed and whose memory the target shares, or may share; 0 if there is none.
    pub shared_start_ns: u64,
    /// Its process id.
    pub shared_tgid: u32,
    /// Its name.
    pub shared_comm: [u8; COMM_LEN],
    /// The sender's ancestors.
    pub ancestors: [Ancestor; MAX_ANCESTORS],
    /// 1 if the target's memory was seen to be the victim's; 0 if it could not be looked at, its first thread being gone.
    pub shared_seen: u32,
    /// The sender: the task that was running.
    pub sender: Task,
}

impl Sent {
    /// No signal was seen.
    pub const NONE: Self = zerocopy::transmute!([0_u8; size_of::<Self>()]);
}

/// One cgroup level, in pages.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Level {
    /// Id in the hierarchy of the memory controller.
    pub cgroup: u64,
    /// Pages charged.
    pub usage: u64,
    /// Limit in pages; the kernel's `PAGE_COUNTER_MAX` (`i64::MAX / page size`) when there is none.
    pub max: u64,
    /// v2: pages of swap; v1: memory and swap together.
    pub swap_usage: u64,
    /// Limit of the same.
    pub swap_max: u64,
    /// 1 if `memory.oom.group` is set here.
    pub oom_group: u64,
}

/// The memory of a process. `-1` where the kernel lacks the field.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Memory {
    /// Pages of files.
    pub file: i64,
    /// Anonymous pages.
    pub anon: i64,
    /// Swapped pages.
    pub swap: i64,
    /// Pages of shared memory and tmpfs.
    pub shmem: i64,
    /// Highest resident pages that the kernel noted; may be below the current sum.
    pub hiwater_rss: i64,
    /// Mapped pages.
    pub total_vm: i64,
    /// Bytes of page tables.
    pub pgtables_bytes: i64,
}

/// What `oom_kill_process` was called with, where that hook could be attached.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Decision {
    /// 1 if the rest is known.
    pub known: u32,
    /// `enum oom_constraint`: 0 none, 1 cpuset, 2 memory policy, 3 memory cgroup.
    pub constraint: u32,
    /// The cgroup whose limit was hit; 0 if none.
    pub cgroup: u64,
    /// Pages that the constraint allows.
    pub total_pages: u64,
    /// Order of the allocation; -1 if a person asked by sysrq-f.
    pub order: i32,
    /// Explicit padding.
    pub _pad: u32,
    /// When the kernel decided; tells one decision from the next.
    pub ktime_ns: u64,
}

impl Decision {
    /// The hook could not be attached, or did not see it.
    pub const UNKNOWN: Self =
        Self { known: 0, constraint: 0, cgroup: 0, total_pages: 0, order: 0, _pad: 0, ktime_ns: 0 };
}

/// The OOM killer killed a process: its signal, then its mark, in the same task. A mark without a signal is put on a process that is
/// dying anyway; it shows in [`Exit::marked`] only.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Mark {
    /// Header.
    pub header: Header,
    /// The marked task. Its `tid` need not be the first thread's.
    pub victim: Task,
    /// The task that was running: it allocated, or wrote a limit.
    pub trigger: Task,
    /// Levels used in `levels`.
    pub level_count: u32,
    /// Explicit padding.
    pub _pad: u32,
    /// The victim's memory.
    pub memory: Memory,
    /// What is known of the decision.
    pub decision: Decision,
    /// The victim's cgroup and its ancestors.
    pub levels: [Level; MAX_LEVELS],
}

/// Taken in the victim's context as the fatal signal is delivered, with its memory still mapped. [`SmallChunk`]s of the command line
/// and [`LargeChunk`]s of the environment follow, from the same task.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct LastWords {
    /// Header.
    pub header: Header,
    /// The thread that took the signal.
    pub victim: Task,
    /// The signal that was sent.
    pub signal: u32,
    /// Threads of the process; 0 if not known.
    pub threads: u32,
    /// Its memory.
    pub memory: Memory,
    /// The cgroup on its path that has the least room below its limit; `cgroup` is 0 if none has a limit.
    pub tightest: Level,
    /// Bytes of command line in the process.
    pub args_len: u64,
    /// Bytes of environment in the process.
    pub env_len: u64,
    /// 1 if no chunks follow because the ring is filling up: deaths come before texts.
    pub texts_skipped: u32,
    /// Explicit padding.
    pub _pad: u32,
}

/// Which text a chunk belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Text {
    /// The command line.
    Args = 1,
    /// The environment.
    Env = 2,
}

macro_rules! chunk {
    ($(#[doc = $doc:literal])+ $name:ident: $len:expr) => {
        $(#[doc = $doc])+
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct $name {
            /// Header.
            pub header: Header,
            /// Process id.
            pub tgid: u32,
            /// A [`Text`].
            pub text: u32,
            /// Start of the process, ns since boot.
            pub start_ns: u64,
            /// Where this piece begins in the whole text.
            pub offset: u32,
            /// Bytes used in `data`; 0 if they could not be read (swapped out, unmapped).
            pub len: u32,
            /// The bytes.
            pub data: [u8; $len],
        }
    };
}

chunk! {
    /// A piece of a short command line or environment.
    SmallChunk: SMALL_CHUNK
}
chunk! {
    /// A piece of a long command line or environment.
    LargeChunk: LARGE_CHUNK
}

/// A process ended: by a signal, with 128+n, or marked by the OOM killer.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Exit {
    /// Header.
    pub header: Header,
    /// The thread that ended last.
    pub victim: Task,
    /// Name of the parent.
    pub parent_comm: [u8; COMM_LEN],
    /// Wait status of the process: `status << 8 | signal | 0x80 if core`.
    pub status: u32,
    /// 1 if the OOM killer had marked it.
    pub marked: u32,
    /// Process id in its own pid namespace; 0 if not known.
    pub ns_pid: u32,
    /// `oom_score_adj`, -1000 to 1000; `i32::MIN` if not known.
    pub oom_score_adj: i32,
    /// Seccomp mode: 0 none, 1 strict, 2 filter, 3 ended by it; `u32::MAX` if not known.
    pub seccomp: u32,
    /// Inode of the pid namespace that `ns_pid` is a number in; 0 if not known.
    pub pid_ns: u32,
    /// CPU time of the process as RLIMIT_CPU counts it, ns; `u64::MAX` if not known.
    pub cpu_ns: u64,
    /// `RLIMIT_CPU`, soft and hard, s; `u64::MAX` for none and if not known.
    pub cpu_limit: [u64; 2],
    /// `RLIMIT_FSIZE`, soft and hard, bytes; the same.
    pub file_size_limit: [u64; 2],
    /// `RLIMIT_RTTIME`, soft and hard, µs; the same.
    pub realtime_limit: [u64; 2],
    /// The fatal signal: the first SIGKILL, else the last that had its default, fatal action.
    pub fatal: Sent,
    /// The last SIGTERM.
    pub term: Sent,
}

/// The kernel counted an OOM victim a second time: with `memory.oom.group` it kills the first victim alone, and then once more with all others
/// of the cgroup.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CountedAgain {
    /// Header.
    pub header: Header,
    /// The victim.
    pub victim: Task,
}

/// Whether a wait status is an abnormal end: by a signal, or an exit with 128+n for a signal n, as a shell hands on the death of a child. The
/// kernel has signals 1 to 64 (include/uapi/asm-generic/signal.h), so 255 and its like are plain codes.
#[must_use]
pub const fn is_abnormal(status: u32) -> bool {
    let code = status >> 8 & 0xff;
    status & 0x7f != 0 || (code > 128 && code <= 128 + 64)
}

/// A cgroup and its path.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CgroupPath {
    /// Header.
    pub header: Header,
    /// Its id, unique within its hierarchy.
    pub id: u64,
    /// Number of its hierarchy; 0 is v2.
    pub hierarchy: u32,
    /// Bytes of `path` in use, without the terminating zero.
    pub len: u32,
    /// Path from the root of the hierarchy; cut if longer.
    pub path: [u8; PATH_LEN],
}

/// A cgroup was removed.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct CgroupGone {
    /// Header.
    pub header: Header,
    /// Its id.
    pub id: u64,
    /// Number of its hierarchy; 0 is v2.
    pub hierarchy: u32,
    /// Explicit padding.
    pub _pad: u32,
}

/// What went over the ring since the programs were loaded: the values, one for each of [`PROGRAMS`] and each CPU, of the map `TRAFFIC`. While the sum of `begun` is what that of `done` was a
/// moment before, no record was in the making between the two looks. This, too, is the same in every version.
#[repr(C)]
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
pub struct Traffic {
    /// Records for which a place was asked.
    pub begun: u64,
    /// Those that were submitted, or found no place.
    pub done: u64,
    /// [`Exit`]s that were submitted.
    pub ends: u64,
}

/// The programs, in the order of their slots in the per-CPU map `LOST`: records that did not fit on the ring.
pub const PROGRAMS: &[&str] = &[
    "signal_generate",
    "mark_victim",
    "signal_deliver",
    "sched_process_exit",
    "cgroup_mkdir",
    "cgroup_rename",
    "cgroup_rmdir",
    "oom_kill_process",
    "exit_rcu",
];

#[cfg(test)]
mod tests {
    use super::is_abnormal;

    #[test]
    fn a_plain_code_is_no_signal() {
        for code in [0, 1, 127, 128, 193, 255] {
            assert!(!is_abnormal(code << 8), "{code}");
        }
        for code in [129, 137, 143, 192] {
            assert!(is_abnormal(code << 8), "{code}");
        }
        assert!(is_abnormal(9) && is_abnormal(6 | 0x80));
    }
}
