//! `oom:mark_victim (task, uid)`, in older kernels `(pid)`: runs as the task that made the kernel look for a victim.
//!
//! The mark alone is no kill: it is also put on tasks that are dying anyway. A kill is a SIGKILL from the kernel, followed by the mark
//! of the same task in the same thread.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use killwatch_ebpf::wire::{Decision, Kind, Mark};

use super::{last_words, signals::SIGKILL};
use crate::{
    kernel::{
        cgroup,
        config::config,
        map, memory,
        read::{Address, first_argument},
        ring::{self, Program, Writer},
        task,
    },
    maps::{DECISIONS, FATAL, KERNEL_KILLS, MARKED, Marked},
};

/// Signal and mark are a few instructions apart, with preemption off. An older kill by the same thread is another matter.
const MAX_DELAY_NS: u64 = 100_000_000;

/// A decision takes as long as its group kill with its log lines on a slow console; an older one is another's.
const MAX_DECISION_AGE_NS: u64 = 10_000_000_000;

#[btf_tracepoint(function = "mark_victim")]
pub(crate) fn mark_victim(ctx: BtfTracePointContext) -> i32 {
    // The task in newer kernels, its thread id in older ones.
    let marked = first_argument(&ctx);
    let (_, trigger_tid) = task::current_ids();
    let Some(kill) = map::read(&KERNEL_KILLS, &trigger_tid) else { return 0 };
    let (task, tid, ktime_ns) = (kill.task, kill.tid, kill.ktime_ns);
    let same =
        if config!(mark_has_task) == 1 { task == marked } else { tid == u64::from(marked as u32) };
    if !same || ring::now_ns().saturating_sub(ktime_ns) > MAX_DELAY_NS {
        return 0;
    }
    let _ = KERNEL_KILLS.remove(trigger_tid);
    let victim = Address::new(task as *const u8);
    let marked = Marked {
        mm: task::mm(victim).map_or(0, Address::bits),
        start_ns: task::start_ns(victim),
        ktime_ns: ring::now_ns(),
        tgid: task::tgid(victim),
        comm: task::comm(task::leader(victim)),
        _pad: 0,
    };
    let (mm, tgid, start_ns) = (marked.mm, marked.tgid, marked.start_ns);
    let _ = MARKED.insert(trigger_tid, marked, 0);
    let Some(ring) = Writer::open(Program::MarkVictim) else { return 0 };
    report(&ctx, ring, victim, trigger_tid);
    if task::mm(task::current()).is_some_and(|own| own.bits() == mm) {
        speak_for(ring, victim, tgid, start_ns);
    }
    0
}

/// Reads a victim's words by way of the trigger, which has the same memory.
#[inline(always)]
fn speak_for(ring: Writer, victim: Address, tgid: u32, start_ns: u64) {
    let threads = task::threads(victim);
    let Some(sent) = map::change(&FATAL, &tgid) else { return };
    if sent.signal != SIGKILL || sent.delivered != 0 || sent.target_start_ns != start_ns {
        return;
    }
    sent.delivered = 1;
    last_words::send(ring, victim, SIGKILL, threads);
}

#[inline(always)]
fn report(ctx: &BtfTracePointContext, ring: Writer, victim: Address, trigger_tid: u32) {
    let Some(mut mark) = ring.reserve::<Mark>(Kind::Mark) else { return };
    task::describe(victim, &mut mark.victim);
    task::describe(task::current(), &mut mark.trigger);
    mark.memory = memory::describe(task::mm(victim));
    mark.decision = match map::read(&DECISIONS, &trigger_tid) {
        Some(decision)
            if ring::now_ns().saturating_sub(decision.ktime_ns) < MAX_DECISION_AGE_NS =>
        {
            *decision
        }
        _ => Decision::UNKNOWN,
    };
    mark.level_count = match task::css_set(victim).and_then(cgroup::memory_state) {
        Some(state) => cgroup::levels(state, &mut mark.levels),
        None => 0,
    };
    mark._pad = 0;
    let (victim, trigger) = (mark.victim.tgid, mark.trigger.tgid);
    mark.submit();
    debug!(ctx, "OOM kill of process {}, triggered by {}", victim, trigger);
}
