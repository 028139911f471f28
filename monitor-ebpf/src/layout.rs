//! The kernel struct fields that the programs read, and the read-only configuration that they get at load.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The offset of a field that this kernel does not have. What needs the field is then left out of the record.
pub const ABSENT: u32 = u32::MAX;

/// How the daemon finds one entry of [`Layout`] in BTF.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Name of the entry, for `doctor` and errors.
    pub name: &'static str,
    /// `struct.member[.member…]`, tried in order: a field that was renamed has one path per name.
    pub paths: &'static [&'static str],
    /// Without a required field the programs cannot do their main job and are not loaded.
    pub required: bool,
}

macro_rules! layout {
    ($( $(#[doc = $doc:literal])+ $need:ident $name:ident : $($path:literal)|+ ; )+) => {
        /// Byte offsets into kernel structs, in the running kernel. [`ABSENT`] where a field does not exist.
        #[repr(C)]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub struct Layout {
            $( $(#[doc = $doc])+ pub $name: u32, )+
        }

        impl Layout {
            /// Every entry, in the order of the struct.
            pub const FIELDS: &'static [Field] = &[
                $( Field { name: stringify!($name), paths: &[$($path),+], required: layout!(@$need) }, )+
            ];

            /// Builds a layout by asking `offset_of` for each entry of [`Self::FIELDS`].
            ///
            /// # Errors
            /// The first error that `offset_of` returns.
            pub fn try_resolve<E>(
                mut offset_of: impl FnMut(&'static Field) -> Result<u32, E>,
            ) -> Result<Self, E> {
                let mut fields = Self::FIELDS.iter();
                Ok(Self {
                    $( $name: match fields.next() {
                        Some(field) => offset_of(field)?,
                        None => ABSENT,
                    }, )+
                })
            }
        }
    };
    (@required) => { true };
    (@optional) => { false };
}

layout! {
    /// Wait status of the thread (`status << 8 | signal | 0x80 if core`).
    required task_exit_code: "task_struct.exit_code";
    /// State shared by the threads of a process.
    required task_signal: "task_struct.signal";
    /// Thread id.
    required task_pid: "task_struct.pid";
    /// Process id.
    required task_tgid: "task_struct.tgid";
    /// First thread of the process: its start time identifies the process.
    required task_group_leader: "task_struct.group_leader";
    /// Start time in ns since boot (`real_start_time` before 5.5).
    required task_start_boottime: "task_struct.start_boottime" | "task_struct.real_start_time";
    /// Name of the thread, 16 bytes.
    required task_comm: "task_struct.comm";
    /// Parent as the kernel sees it (the reaper when the parent is gone).
    required task_real_parent: "task_struct.real_parent";
    /// Address space; null for kernel threads and after `exit_mm`.
    required task_mm: "task_struct.mm";
    /// Credentials.
    required task_cred: "task_struct.cred";
    /// Control group membership.
    required task_cgroups: "task_struct.cgroups";
    /// Signal handlers.
    required task_sighand: "task_struct.sighand";
    /// `PF_EXITING` and friends.
    optional task_flags: "task_struct.flags";
    /// Not 0 while the task is traced.
    optional task_ptrace: "task_struct.ptrace";
    /// Who gets the task's SIGCHLD: its tracer, if it has one.
    optional task_parent: "task_struct.parent";
    /// CPU time of the thread, ns.
    optional task_cpu_ns: "task_struct.se.sum_exec_runtime";
    /// Seccomp mode.
    optional task_seccomp_mode: "task_struct.seccomp.mode";
    /// `struct pid` of the thread, which holds its number in each pid namespace.
    optional task_thread_pid: "task_struct.thread_pid";
    /// Real user id.
    required cred_uid: "cred.uid";
    /// Handlers, one `k_sigaction` per signal.
    required sighand_action: "sighand_struct.action";
    /// The handler in a `k_sigaction`.
    required sigaction_handler: "k_sigaction.sa.sa_handler";
    /// Where a signal came from: `SI_USER` and friends.
    required siginfo_code: "kernel_siginfo.si_code";
    /// Threads that have not yet begun to exit.
    required signal_live: "signal_struct.live";
    /// Threads of the process.
    optional signal_nr_threads: "signal_struct.nr_threads";
    /// Wait status of the whole process, once `SIGNAL_GROUP_EXIT` is set.
    required signal_group_exit_code: "signal_struct.group_exit_code";
    /// `SIGNAL_GROUP_EXIT` and friends.
    required signal_flags: "signal_struct.flags";
    /// Not null once the OOM killer marked the process.
    required signal_oom_mm: "signal_struct.oom_mm";
    /// `oom_score_adj` of the process.
    optional signal_oom_score_adj: "signal_struct.oom_score_adj";
    /// Resource limits, an array of soft and hard ones.
    optional signal_rlim: "signal_struct.rlim";
    /// CPU time of threads that are gone, ns.
    optional signal_cpu_ns: "signal_struct.sum_sched_runtime";
    /// Time in user space of the whole process, counted by ticks while there is a limit on it, ns.
    optional signal_user_ns: "signal_struct.cputimer.cputime_atomic.utime";
    /// The same in the kernel.
    optional signal_system_ns: "signal_struct.cputimer.cputime_atomic.stime";
    /// Depth of the pid namespace.
    optional pid_level: "pid.level";
    /// Pid numbers, one `upid` per namespace level.
    optional pid_numbers: "pid.numbers";
    /// The number in a `upid`.
    optional upid_nr: "upid.nr";
    /// The namespace in which a `upid`'s number is.
    optional upid_ns: "upid.ns";
    /// Inode of a pid namespace: what `/proc/PID/ns/pid` shows.
    optional pid_namespace_inum: "pid_namespace.ns.inum";
    /// Resident pages by kind.
    optional mm_rss_stat: "mm_struct.rss_stat";
    /// Peak resident pages.
    optional mm_hiwater_rss: "mm_struct.hiwater_rss";
    /// Mapped pages.
    optional mm_total_vm: "mm_struct.total_vm";
    /// Bytes of page tables.
    optional mm_pgtables_bytes: "mm_struct.pgtables_bytes";
    /// Command line, first byte.
    optional mm_arg_start: "mm_struct.arg_start";
    /// Command line, one past the last byte.
    optional mm_arg_end: "mm_struct.arg_end";
    /// Environment, first byte.
    optional mm_env_start: "mm_struct.env_start";
    /// Environment, one past the last byte.
    optional mm_env_end: "mm_struct.env_end";
    /// The count in a `percpu_counter` (from 6.2, `rss_stat` is an array of them).
    optional percpu_counter_count: "percpu_counter.count";
    /// Cgroup of the default (v2) hierarchy.
    required css_set_dfl_cgrp: "css_set.dfl_cgrp";
    /// State per controller, an array of pointers.
    required css_set_subsys: "css_set.subsys";
    /// The cgroup that a controller's state belongs to.
    required css_cgroup: "cgroup_subsys_state.cgroup";
    /// The kernfs node, whose id is the cgroup's.
    required cgroup_kn: "cgroup.kn";
    /// Root of the cgroup's hierarchy.
    required cgroup_root: "cgroup.root";
    /// Number of the hierarchy: 0 is v2.
    required cgroup_root_hierarchy_id: "cgroup_root.hierarchy_id";
    /// Id of a kernfs node; equal to the directory's inode from 5.10.
    required kernfs_node_id: "kernfs_node.id";
    /// The controller's state inside a `mem_cgroup`.
    optional mem_cgroup_css: "mem_cgroup.css";
    /// Counter of the memory itself.
    optional mem_cgroup_memory: "mem_cgroup.memory";
    /// v2: swap alone; v1: the same place is `memsw`, memory and swap together.
    optional mem_cgroup_swap: "mem_cgroup.swap" | "mem_cgroup.memsw";
    /// Whether an OOM kill takes the whole cgroup (`memory.oom.group`).
    optional mem_cgroup_oom_group: "mem_cgroup.oom_group";
    /// Pages charged.
    optional page_counter_usage: "page_counter.usage";
    /// Limit in pages.
    optional page_counter_max: "page_counter.max";
    /// Counter of the parent cgroup.
    optional page_counter_parent: "page_counter.parent";
    /// `oom_control`: the memory cgroup whose limit was hit, or null.
    optional oom_control_memcg: "oom_control.memcg";
    /// `oom_control`: pages that the constraint allows.
    optional oom_control_totalpages: "oom_control.totalpages";
    /// `oom_control`: why the kernel may not take memory from elsewhere.
    optional oom_control_constraint: "oom_control.constraint";
    /// `oom_control`: order of the allocation; -1 for sysrq-f.
    optional oom_control_order: "oom_control.order";
}

/// Everything that the programs are told at load: the read-only global `CONFIG`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Config {
    /// Offsets.
    pub layout: Layout,
    /// Bytes from one element of `mm_struct.rss_stat` to the next: 8, or the size of a `percpu_counter`.
    pub rss_stat_stride: u32,
    /// Bytes from the start of an element to its count.
    pub rss_stat_count: u32,
    /// Bytes from one `k_sigaction` to the next.
    pub sigaction_size: u32,
    /// Bytes from one `upid` to the next.
    pub upid_size: u32,
    /// Index of the memory controller in `css_set.subsys`.
    pub memory_cgrp_id: u32,
    /// Number of the hierarchy that holds the memory controller; 0 on v2.
    pub memory_hierarchy: u32,
    /// 1 if `oom:mark_victim` passes the task (newer and backported kernels), 0 if only its thread id.
    pub mark_has_task: u32,
    /// 1 if `sched:sched_process_exit` says whether the whole process is gone (6.16 and later).
    pub exit_has_group_dead: u32,
    /// Bytes waiting on the ring above which victims' texts are left out: deaths come before texts.
    pub texts_high_water: u32,
    /// 1 if another task may run while a program does (7.x): then a program must not wake the reader, who would take its place, and the kernel skips the same
    /// program for all other tasks of that CPU until it is done.
    pub quiet: u32,
}
