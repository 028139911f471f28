//! `signal:signal_generate (sig, info, task, group, result)`: runs as the sender, for every signal. Remembers who sent what may end a process.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use killwatch_ebpf::wire::{Sent, Task};

use super::signals::{SIGKILL, SIGTERM, may_end};
use crate::{
    kernel::{config::config, read::Address, ring::now_ns, task},
    maps::{FATAL, KERNEL_KILLS, KernelKill, TERM},
};

/// `SEND_SIG_PRIV`: the kernel sent it (include/linux/sched/signal.h).
const FROM_KERNEL: u64 = 1;
/// `SI_KERNEL` (include/uapi/asm-generic/siginfo.h).
const SI_KERNEL: i32 = 128;
/// `TRACE_SIGNAL_DELIVERED` (include/trace/events/signal.h).
const DELIVERED: u64 = 0;

#[btf_tracepoint(function = "signal_generate")]
pub(crate) fn signal_generate(ctx: BtfTracePointContext) -> i32 {
    let signal = ctx.arg::<u64>(0) as u32;
    if may_end(signal) {
        remember(&ctx, signal);
    }
    0
}

fn remember(ctx: &BtfTracePointContext, signal: u32) {
    let info: u64 = ctx.arg(1);
    let target = Address::new(ctx.arg(2));
    let group: u64 = ctx.arg(3);
    let result: u64 = ctx.arg(4);
    if signal == SIGKILL && info == FROM_KERNEL {
        let kill = KernelKill {
            task: target.bits(),
            ktime_ns: now_ns(),
            tid: u64::from(task::tid(target)),
        };
        let _ = KERNEL_KILLS.insert(task::current_ids().1, kill, 0);
    }
    if result as u32 as u64 != DELIVERED {
        return;
    }
    let fatal = signal == SIGKILL || task::has_default_action(target, signal);
    if !fatal && signal != SIGTERM {
        return;
    }
    let code = match info {
        0 => 0,
        FROM_KERNEL => SI_KERNEL,
        pointer => {
            Address::new(pointer as *const u8).get(config!(layout.siginfo_code)).unwrap_or(0)
        }
    };
    let mut sent = Sent {
        target_start_ns: task::start_ns(target),
        ktime_ns: now_ns(),
        signal,
        code,
        group: u32::from(group as u32 != 0),
        delivered: 0,
        sender: Task::NONE,
    };
    task::describe(task::current(), &mut sent.sender);
    let tgid = task::tgid(target);
    if signal == SIGTERM {
        let _ = TERM.insert(tgid, sent, 0);
    }
    if fatal && !is_being_killed(tgid, sent.target_start_ns) {
        let _ = FATAL.insert(tgid, sent, 0);
    }
    debug!(ctx, "signal {} to process {} by {}, code {}", signal, tgid, sent.sender.tgid, code);
}

/// Whether a SIGKILL is on its way to the process already: the first one is what ends it.
#[inline(always)]
fn is_being_killed(tgid: u32, start_ns: u64) -> bool {
    crate::kernel::map::read(&FATAL, &tgid)
        .is_some_and(|earlier| earlier.signal == SIGKILL && earlier.target_start_ns == start_ns)
}
