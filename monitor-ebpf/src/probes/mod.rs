//! One file per hook, in the order in which a death passes them.

mod last_words;

mod signal_generate;

mod oom_kill_process;

mod mark_victim;

mod signal_deliver;

mod sched_process_exit;

mod exit_rcu;

mod cgroups;

mod empty;

/// Signal numbers (the same on x86_64 and aarch64) and what the kernel does with them by default.
mod signals {
    pub(crate) const SIGKILL: u32 = 9;
    pub(crate) const SIGTERM: u32 = 15;

    /// Signals that never end a process: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH (signal(7)).
    const HARMLESS: u64 =
        1 << 17 | 1 << 18 | 1 << 19 | 1 << 20 | 1 << 21 | 1 << 22 | 1 << 23 | 1 << 28;

    /// Whether the default action of `signal` ends the process.
    #[inline(always)]
    pub(crate) fn may_end(signal: u32) -> bool {
        // Signal 64, the last, does not fit the mask and may.
        signal != 0 && (signal > 63 || HARMLESS >> signal & 1 == 0)
    }
}
