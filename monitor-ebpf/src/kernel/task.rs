//! Tasks: who they are and what they belong to.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use killwatch_ebpf::wire::{Ancestor, COMM_LEN, MAX_ANCESTORS, Task};

use super::{
    cgroup,
    config::{config, present},
    read::Address,
};

/// `PF_EXITING` (include/linux/sched.h).
const EXITING: u32 = 4;
/// `SIGNAL_GROUP_EXIT` (include/linux/sched/signal.h): `group_exit_code` is the process's status.
const SIGNAL_GROUP_EXIT: u32 = 4;

/// The running task.
#[inline(always)]
pub(crate) fn current() -> Address {
    // SAFETY: a helper without arguments.
    Address::new(unsafe { bpf_get_current_task() } as *const u8)
}

/// Process and thread id of the running task.
#[inline(always)]
pub(crate) fn current_ids() -> (u32, u32) {
    // SAFETY: a helper without arguments.
    let both = unsafe { bpf_get_current_pid_tgid() };
    ((both >> 32) as u32, both as u32)
}

#[inline(always)]
pub(crate) fn tgid(task: Address) -> u32 {
    task.get(config!(layout.task_tgid)).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn tid(task: Address) -> u32 {
    task.get(config!(layout.task_pid)).unwrap_or(0)
}

/// The first thread of the task's process; the task itself if it cannot be read.
#[inline(always)]
pub(crate) fn leader(task: Address) -> Address {
    task.follow(config!(layout.task_group_leader)).unwrap_or(task)
}

/// Start of the process, ns since boot.
#[inline(always)]
pub(crate) fn start_ns(task: Address) -> u64 {
    leader(task).get(config!(layout.task_start_boottime)).unwrap_or(0)
}

#[inline(always)]
pub(crate) fn comm(task: Address) -> [u8; COMM_LEN] {
    task.get(config!(layout.task_comm)).unwrap_or([0; COMM_LEN])
}

/// The address space, unless the task has left it.
#[inline(always)]
pub(crate) fn mm(task: Address) -> Option<Address> {
    task.follow(config!(layout.task_mm))
}

#[inline(always)]
pub(crate) fn css_set(task: Address) -> Option<Address> {
    task.follow(config!(layout.task_cgroups))
}

#[inline(always)]
pub(crate) fn parent(task: Address) -> Option<Address> {
    leader(task).follow(config!(layout.task_real_parent))
}

/// Fills `to` with who `task` is. Written in place: the BPF stack is small.
#[inline(always)]
pub(crate) fn describe(task: Address, to: &mut Task) {
    let leader = leader(task);
    let parent = parent(task);
    let css_set = css_set(task);
    to.tgid = tgid(task);
    to.tid = tid(task);
    to.start_ns = leader.get(config!(layout.task_start_boottime)).unwrap_or(0);
    to.ppid = parent.map_or(0, tgid);
    to.uid = task
        .follow(config!(layout.task_cred))
        .and_then(|cred| cred.get(config!(layout.cred_uid)))
        .unwrap_or(u32::MAX);
    to.parent_start_ns = parent.map_or(0, start_ns);
    to.cgroup_v2 = css_set.map_or(0, cgroup::v2_id);
    to.cgroup_memory = css_set.and_then(cgroup::memory_state).map_or(0, cgroup::state_id);
    to.comm = comm(leader);
}

/// Fills `to` with the ancestors of `task`, its parent first.
#[inline(always)]
pub(crate) fn ancestors(task: Address, to: &mut [Ancestor; MAX_ANCESTORS]) {
    let mut next = parent(task);
    for ancestor in to.iter_mut() {
        // Above the first process stands the idle task, with process id 0.
        let known = next.filter(|task| tgid(*task) != 0);
        ancestor.tgid = known.map_or(0, tgid);
        ancestor.comm = known.map_or([0; COMM_LEN], |task| comm(leader(task)));
        next = known.and_then(parent);
    }
}

/// Whether the task is on its way out.
#[inline(always)]
pub(crate) fn is_exiting(task: Address) -> bool {
    task.get::<u32>(config!(layout.task_flags)).is_some_and(|flags| flags & EXITING != 0)
}

/// Whether other threads of the task's process live.
#[inline(always)]
pub(crate) fn lives_on(task: Address) -> bool {
    signal(task)
        .and_then(|signal| signal.get::<u32>(config!(layout.signal_live)))
        .is_some_and(|live| live != 0)
}

/// Whether `tracer` or another thread of its process traces `task`.
#[inline(always)]
pub(crate) fn traces(tracer: Address, task: Address) -> bool {
    task.get::<u32>(config!(layout.task_ptrace)).is_some_and(|flags| flags != 0)
        && task
            .follow(config!(layout.task_parent))
            .is_some_and(|parent| tgid(parent) == tgid(tracer))
}

/// What its threads share.
#[inline(always)]
pub(crate) fn signal(task: Address) -> Option<Address> {
    task.follow(config!(layout.task_signal))
}

/// Wait status of the process: the group's if it ended as one, else that of `own`, one of its threads.
#[inline(always)]
pub(crate) fn status(signal: Address, own: Address) -> u32 {
    let flags = signal.get::<u32>(config!(layout.signal_flags)).unwrap_or(0);
    let status = if flags & SIGNAL_GROUP_EXIT != 0 {
        signal.get(config!(layout.signal_group_exit_code))
    } else {
        own.get(config!(layout.task_exit_code))
    };
    status.unwrap_or(0)
}

/// The signal that the process is dying of already; 0 if it is not.
#[inline(always)]
pub(crate) fn dying_of(task: Address) -> u32 {
    signal(task)
        .and_then(|signal| signal.get::<u32>(config!(layout.signal_group_exit_code)))
        .unwrap_or(0)
        & 0x7f
}

/// Whether the OOM killer marked the process.
#[inline(always)]
pub(crate) fn is_marked(task: Address) -> bool {
    signal(task).and_then(|signal| signal.follow(config!(layout.signal_oom_mm))).is_some()
}

/// The task's number in one pid namespace.
#[derive(Clone, Copy)]
struct Number(Address);

impl Number {
    /// In the innermost namespace of the task's process, and how deep that is.
    #[inline(always)]
    fn innermost(task: Address) -> Option<(Self, u32)> {
        let level = leader(task)
            .follow(config!(layout.task_thread_pid))?
            .get::<u32>(config!(layout.pid_level))?;
        Some((Self::at(task, level)?, level))
    }

    /// In the namespace at `level`, which must not be deeper than the innermost.
    #[inline(always)]
    fn at(task: Address, level: u32) -> Option<Self> {
        let pid = leader(task).follow(config!(layout.task_thread_pid))?;
        let numbers = present(config!(layout.pid_numbers))?;
        // MAX_PID_NS_LEVEL is 32 (include/linux/pid_namespace.h).
        let slot = (level & 63) as usize * config!(upid_size) as usize;
        Some(Self(pid.add(numbers + slot)))
    }

    #[inline(always)]
    fn nr(self) -> u32 {
        self.0.get(config!(layout.upid_nr)).unwrap_or(0)
    }

    #[inline(always)]
    fn namespace(self) -> Option<Address> {
        self.0.follow(config!(layout.upid_ns))
    }
}

/// Process id in the innermost pid namespace, and that namespace's inode; 0 for what cannot be read.
#[inline(always)]
pub(crate) fn ns_pid(task: Address) -> (u32, u32) {
    let Some((number, _)) = Number::innermost(task) else { return (0, 0) };
    let inode = number.namespace().and_then(|ns| ns.get(config!(layout.pid_namespace_inum)));
    (number.nr(), inode.unwrap_or(0))
}

/// Whether `task` is the first process of a pid namespace that `other` is in.
#[inline(always)]
pub(crate) fn is_init_of(task: Address, other: Address) -> bool {
    let Some((own, level)) = Number::innermost(task) else { return false };
    let Some((_, depth)) = Number::innermost(other) else { return false };
    if own.nr() != 1 || depth < level {
        return false;
    }
    match (own.namespace(), Number::at(other, level).and_then(Number::namespace)) {
        (Some(own), Some(others)) => own == others,
        _ => false,
    }
}

/// Whether the task's process dies of `signal` by default: it has no handler and does not ignore it.
#[inline(always)]
pub(crate) fn has_default_action(task: Address, signal: u32) -> bool {
    let Some(sighand) = task.follow(config!(layout.task_sighand)) else { return false };
    let slot = (signal.wrapping_sub(1) & 63) * config!(sigaction_size);
    sighand.get::<u64>(config!(layout.sighand_action) + slot + config!(layout.sigaction_handler))
        == Some(0)
}

/// Threads of the task's process; 0 if they cannot be read.
#[inline(always)]
pub(crate) fn threads(task: Address) -> u32 {
    signal(task).and_then(|signal| signal.get(config!(layout.signal_nr_threads))).unwrap_or(0)
}

/// CPU time of a process whose last thread is `task`, ns; `u64::MAX` if it cannot be read. With a limit on it the kernel counts by ticks (kernel/time/posix-cpu-timers.c),
/// which may be ahead of the exact time.
#[inline(always)]
pub(crate) fn cpu_ns(signal: Address, task: Address) -> u64 {
    let gone = signal.get::<u64>(config!(layout.signal_cpu_ns));
    let exact = match (gone, task.get::<u64>(config!(layout.task_cpu_ns))) {
        (Some(gone), Some(own)) => gone.saturating_add(own),
        _ => return u64::MAX,
    };
    let user = signal.get::<u64>(config!(layout.signal_user_ns)).unwrap_or(0);
    let system = signal.get::<u64>(config!(layout.signal_system_ns)).unwrap_or(0);
    let by_ticks = user.saturating_add(system);
    if by_ticks > exact { by_ticks } else { exact }
}

/// Soft and hard limit of the resource at `index` (include/uapi/asm-generic/resource.h); `u64::MAX` for none, and if it cannot be read.
#[inline(always)]
pub(crate) fn limits(signal: Address, index: usize) -> [u64; 2] {
    let Some(limits) = present(config!(layout.signal_rlim)) else { return [u64::MAX; 2] };
    let at = signal.add(limits + index * size_of::<[u64; 2]>());
    [at.get(0).unwrap_or(u64::MAX), at.get(8).unwrap_or(u64::MAX)]
}
