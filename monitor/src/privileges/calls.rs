//! The system calls that the daemon never makes once it has started, by what they would be of use for.

use nix::libc;

/// What a call that is refused returns.
pub(super) const EPERM: u32 = libc::EPERM.unsigned_abs();

/// bpf(2), of which some commands are refused.
pub(super) const BPF: i64 = libc::SYS_bpf;

/// Those that make, load or attach, or open by a number what others have made (`enum bpf_cmd`, include/uapi/linux/bpf.h). Reading a map of one's own, and
/// asking about a program of one's own, go on.
pub(super) const BPF_REFUSED: [u64; 14] = [
    0,  // MAP_CREATE
    5,  // PROG_LOAD
    8,  // PROG_ATTACH
    10, // PROG_TEST_RUN
    13, // PROG_GET_FD_BY_ID
    14, // MAP_GET_FD_BY_ID
    17, // RAW_TRACEPOINT_OPEN
    18, // BTF_LOAD
    19, // BTF_GET_FD_BY_ID
    20, // TASK_FD_QUERY
    28, // LINK_CREATE
    29, // LINK_UPDATE
    30, // LINK_GET_FD_BY_ID
    36, // TOKEN_CREATE
];

/// The others.
pub(super) const REFUSED: &[i64] = &[
    // Starting a program.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Ending or changing a process: killwatch kills nothing. What ends itself (abort) uses tgkill.
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_kcmp,
    // Another view of files, other namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Other users.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    // The kernel and the host.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_syslog,
    libc::SYS_perf_event_open,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Large parts of the kernel that are of no use here.
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_personality,
];
