//! `signal:signal_generate (sig, info, task, group, result)`: runs as the sender, for every signal. Remembers who sent what may end a process.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use killwatch_ebpf::wire::{CountedAgain, Kind, Origin, Sent, ignored, sender};

use super::signals::{SIGKILL, SIGTERM, may_end};
use crate::{
    kernel::{
        config::config,
        map,
        read::Address,
        ring::{Program, Writer, now_ns},
        task,
    },
    maps::{DRAFT, FATAL, KERNEL_KILLS, KernelKill, MARKED, Marked, TERM},
};

/// `SEND_SIG_PRIV`: the kernel sent it (include/linux/sched/signal.h). `SEND_SIG_NOINFO` is 0.
const FROM_KERNEL: u64 = 1;
/// `TRACE_SIGNAL_DELIVERED`, `TRACE_SIGNAL_IGNORED` and `TRACE_SIGNAL_LOSE_INFO` (include/trace/events/signal.h): the last is a delivery too, without room for
/// its `siginfo`.
const DELIVERED: u32 = 0;
const IGNORED: u32 = 1;
const LOSE_INFO: u32 = 4;

/// The OOM killer kills who shares a victim's memory, and a whole group, right after the mark; between two of them it may write to a slow console.
const MAX_MARK_AGE_NS: u64 = 10_000_000_000;

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
    let result = ctx.arg::<u64>(4) as u32;
    let delivered = result == DELIVERED || result == LOSE_INFO;
    let group = u32::from(group as u32 != 0);
    let by_kernel = signal == SIGKILL && info == FROM_KERNEL;
    let marked = if by_kernel && group == 1 { last_marked(target) } else { None };
    let shares = marked.is_some_and(|marked| shares_memory(marked, target));
    // Who shares a victim's memory is killed with it, and may be marked later without a kill of its own. A kill of its own comes second.
    if by_kernel && !(shares && delivered) {
        kernel_kill(target);
    }
    if marked.is_some() && !shares && task::is_marked(target) {
        counted_again(target);
    }
    // The kernel looks for the memory at all threads of the target, this at the first one: if that is gone, it may be the victim's.
    let shared = marked.filter(|marked| {
        task::tgid(target) != marked.tgid && (shares || task::mm(target).is_none())
    });
    let term = signal == SIGTERM && (delivered || result == IGNORED);
    let fatal = delivered && (signal == SIGKILL || task::has_default_action(target, signal));
    if !(term || fatal) {
        return;
    }
    let Some(sent) = map::own(&DRAFT) else { return };
    sent.target_start_ns = task::start_ns(target);
    sent.ktime_ns = now_ns();
    sent.signal = signal;
    sent.group = group;
    sent.delivered = 0;
    sent.ignored = if result != IGNORED {
        ignored::NO
    } else if task::has_default_action(target, signal) {
        ignored::NO_HANDLER
    } else {
        ignored::BY_CHOICE
    };
    (sent.origin, sent.code) = match info {
        0 => (Origin::NoInfo as u32, 0),
        FROM_KERNEL => (Origin::Kernel as u32, 0),
        pointer => {
            let code = Address::new(pointer as *const u8).get(config!(layout.siginfo_code));
            (Origin::Info as u32, code.unwrap_or(0))
        }
    };
    sent.shared_start_ns = shared.map_or(0, |marked| marked.start_ns);
    sent.shared_tgid = shared.map_or(0, |marked| marked.tgid);
    sent.shared_comm = shared.map_or([0; 16], |marked| marked.comm);
    sent.shared_seen = u32::from(shares);
    describe_sender(target, sent);
    let (tgid, sender_tgid) = (task::tgid(target), sent.sender.tgid);
    // What comes when it is settled what ends the process changes nothing.
    if !is_settled(target, tgid, sent) {
        if term {
            let _ = TERM.insert(tgid, &*sent, 0);
        }
        if fatal {
            let _ = FATAL.insert(tgid, &*sent, 0);
            if config!(quiet) == 1
                && let Some(ring) = Writer::open(Program::SignalGenerate)
            {
                ring.wake();
            }
        }
    }
    debug!(ctx, "signal {} to process {} by {}", signal, tgid, sender_tgid);
}

/// Remembers a SIGKILL of the kernel's for the mark that may follow.
#[inline(always)]
fn kernel_kill(target: Address) {
    let (_, tid) = task::current_ids();
    let kill =
        KernelKill { task: target.bits(), ktime_ns: now_ns(), tid: u64::from(task::tid(target)) };
    let _ = KERNEL_KILLS.insert(tid, kill, 0);
}

/// The OOM victim that was marked in this thread just before, if there is one. The end of a pid namespace kills too, but nobody for a victim's memory.
#[inline(always)]
fn last_marked(target: Address) -> Option<&'static Marked> {
    let current = task::current();
    let (_, tid) = task::current_ids();
    map::read(&MARKED, &tid).filter(|marked| {
        now_ns().saturating_sub(marked.ktime_ns) < MAX_MARK_AGE_NS
            && !(task::is_exiting(current) && task::is_init_of(current, target))
    })
}

/// Whether the target is another process with the same memory.
#[inline(always)]
fn shares_memory(marked: &Marked, target: Address) -> bool {
    task::tgid(target) != marked.tgid && task::mm(target).is_some_and(|mm| mm.bits() == marked.mm)
}

/// A process that the OOM killer marked gets its SIGKILL once more, and counts once more.
#[inline(always)]
fn counted_again(target: Address) {
    let ring = Writer::open(Program::SignalGenerate);
    if let Some(mut again) = ring.and_then(|ring| ring.reserve::<CountedAgain>(Kind::CountedAgain))
    {
        task::describe(target, &mut again.victim);
        again.submit();
    }
}

#[inline(always)]
fn describe_sender(target: Address, sent: &mut Sent) {
    let current = task::current();
    task::describe(current, &mut sent.sender);
    task::ancestors(current, &mut sent.ancestors);
    (sent.sender_state, sent.sender_status) = (0, 0);
    if task::traces(current, target) {
        sent.sender_state = sender::TRACER;
    }
    if task::is_exiting(current) {
        sent.sender_state |= sender::EXITING;
        sent.sender_status = task::signal(current).map_or(0, |own| task::status(own, current));
        if task::lives_on(current) {
            sent.sender_state |= sender::THREAD_ONLY;
        }
        if task::is_init_of(current, target) {
            sent.sender_state |= sender::NAMESPACE_INIT;
        }
    }
}

/// Whether it is settled already what ends the process: the first SIGKILL, or another signal that it is dying of.
#[inline(always)]
fn is_settled(target: Address, tgid: u32, sent: &Sent) -> bool {
    let Some(earlier) = map::read(&FATAL, &tgid) else { return false };
    if earlier.target_start_ns != sent.target_start_ns {
        return false;
    }
    let dying_of = task::dying_of(target);
    earlier.signal == SIGKILL || earlier.signal == dying_of && dying_of != sent.signal
}
