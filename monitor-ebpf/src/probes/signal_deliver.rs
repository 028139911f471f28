//! `signal:signal_deliver (sig, info, action)`: runs as the victim, its memory still mapped. The last moment at which its environment, command
//! line and memory can be read.
//!
//! Every thread of a process passes here, also when a sibling merely called `exit_group` or `exec`; so it counts only for a process
//! to which `signal_generate` saw a fatal signal, and only once.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use super::{
    last_words,
    signals::{SIGKILL, may_end},
};
use crate::{
    kernel::{
        map,
        ring::{Program, Writer},
        task,
    },
    maps::FATAL,
};

#[btf_tracepoint(function = "signal_deliver")]
pub(crate) fn signal_deliver(ctx: BtfTracePointContext) -> i32 {
    let signal = ctx.arg::<u64>(0) as u32;
    if may_end(signal) {
        speak(signal);
    }
    0
}

#[inline(always)]
fn speak(signal: u32) {
    let (tgid, _) = task::current_ids();
    let Some(sent) = map::change(&FATAL, &tgid) else { return };
    // Whatever ends a whole process without a core dump arrives at its threads as SIGKILL (complete_signal, kernel/signal.c).
    if (sent.signal != signal && signal != SIGKILL) || sent.delivered != 0 {
        return;
    }
    let victim = task::current();
    if sent.target_start_ns != task::start_ns(victim) {
        return;
    }
    let Some(ring) = Writer::open(Program::SignalDeliver) else { return };
    let threads = task::threads(victim);
    sent.delivered = 1;
    last_words::send(ring, victim, sent.signal, threads);
}
