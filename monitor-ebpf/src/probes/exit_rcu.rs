//! `exit_rcu()`: near the end of every thread, where nothing can interrupt it any more. On kernels whose tracepoints other tasks may run beside, `sched_process_exit` is
//! skipped for some; this reports what it did not.

use aya_ebpf::{macros::fentry, programs::FEntryContext};

use super::sched_process_exit::report;
use crate::kernel::{config::config, ring::Program, task};

#[fentry(function = "exit_rcu")]
pub(crate) fn exit_rcu(ctx: FEntryContext) -> i32 {
    let task = task::current();
    let Some(signal) = task::signal(task) else { return 0 };
    let status = |of: Option<u32>| of.unwrap_or(0);
    let own = status(task.get(config!(layout.task_exit_code)));
    let group = status(signal.get(config!(layout.signal_group_exit_code)));
    let marked = task::is_marked(task);
    if (own | group != 0 || marked) && !task::lives_on(task) {
        report(&ctx, task, signal, marked, Program::ExitRcu);
    }
    0
}
