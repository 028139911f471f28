//! Tasks: who they are and what they belong to.

use aya_ebpf::helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task};
use killwatch_ebpf::wire::{COMM_LEN, Task};

use super::{
    cgroup,
    config::{config, present},
    read::Address,
};

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

/// Process id in the innermost pid namespace; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn ns_pid(task: Address) -> u32 {
    let Some(pid) = leader(task).follow(config!(layout.task_thread_pid)) else { return 0 };
    let Some(level) = pid.get::<u32>(config!(layout.pid_level)) else { return 0 };
    let (Some(numbers), Some(number)) =
        (present(config!(layout.pid_numbers)), present(config!(layout.upid_nr)))
    else {
        return 0;
    };
    // MAX_PID_NS_LEVEL is 32 (include/linux/pid_namespace.h).
    let slot = (level & 63) as usize * config!(upid_size) as usize;
    pid.add(numbers + slot).get(number as u32).unwrap_or(0)
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
    task.follow(config!(layout.task_signal))
        .and_then(|signal| signal.get(config!(layout.signal_nr_threads)))
        .unwrap_or(0)
}
