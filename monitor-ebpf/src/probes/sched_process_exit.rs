//! `sched:sched_process_exit (task[, group_dead])`: runs as the dying thread, for every thread that ends. Reports a process that ended abnormally, as its
//! last thread goes.

use aya_ebpf::{EbpfContext, macros::btf_tracepoint, programs::BtfTracePointContext};
use aya_log_ebpf::debug;
use killwatch_ebpf::wire::{COMM_LEN, Exit, Kind, Sent, is_abnormal};

use crate::{
    kernel::{
        config::config,
        map,
        read::{Address, Trusted},
        ring::{Program, Writer},
        task,
    },
    maps::{FATAL, ProcessKey, REPORTED, TERM},
};

/// `RLIMIT_CPU`, `RLIMIT_FSIZE` and `RLIMIT_RTTIME` (include/uapi/asm-generic/resource.h).
const CPU: usize = 0;
const FILE_SIZE: usize = 1;
const REAL_TIME: usize = 15;
/// `BPF_NOEXIST`: the insertion fails with [`EXISTS`] if the key is there.
const IF_NEW: u64 = 1;
/// `-EEXIST`. Another error (no free node, a lock that is held) is no reason to keep silent: the daemon drops repetitions too.
const EXISTS: i32 = -17;

#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Trusted::new(ctx.arg(0));
    let signal = task.follow(config!(layout.task_signal));
    // The common case, a thread or process that ends in peace, leaves here: four loads and no call.
    let own_status: u32 = task.load(config!(layout.task_exit_code));
    let group_status: u32 = signal.load(config!(layout.signal_group_exit_code));
    let quiet = own_status | group_status == 0;
    // In a second step, for the verifier lets nobody mix a pointer with numbers.
    let marked = !signal.follow(config!(layout.signal_oom_mm)).is_null();
    if quiet && !marked {
        return 0;
    }
    let last = if config!(exit_has_group_dead) == 1 {
        ctx.arg::<u64>(1) as u8 != 0
    } else {
        signal.load::<u32>(config!(layout.signal_live)) == 0
    };
    if last {
        report(&ctx, task.address(), signal.address(), marked, Program::ProcessExit);
    }
    0
}

/// Reports the end of a process, once, whichever thread or program gets here first.
#[inline(always)]
pub(super) fn report(
    ctx: &impl EbpfContext,
    task: Address,
    signal: Address,
    marked: bool,
    program: Program,
) {
    let status = task::status(signal, task::leader(task));
    if !(is_abnormal(status) || marked) {
        return;
    }
    let tgid = task::tgid(task);
    let start_ns = task::start_ns(task);
    if (config!(exit_has_group_dead) != 1 || config!(quiet) == 1)
        && REPORTED.insert(ProcessKey { start_ns, tgid: u64::from(tgid) }, 1, IF_NEW) == Err(EXISTS)
    {
        return;
    }
    let Some(ring) = Writer::open(program) else { return };
    let Some(mut exit) = ring.reserve::<Exit>(Kind::Exit) else { return };
    task::describe(task, &mut exit.victim);
    exit.parent_comm =
        task::parent(task).map_or([0; COMM_LEN], |parent| task::comm(task::leader(parent)));
    exit.status = status;
    exit.marked = u32::from(marked);
    (exit.ns_pid, exit.pid_ns) = task::ns_pid(task);
    exit.oom_score_adj =
        signal.get::<i16>(config!(layout.signal_oom_score_adj)).map_or(i32::MIN, i32::from);
    exit.seccomp = task.get(config!(layout.task_seccomp_mode)).unwrap_or(u32::MAX);
    exit.cpu_ns = task::cpu_ns(signal, task);
    exit.cpu_limit = task::limits(signal, CPU);
    exit.file_size_limit = task::limits(signal, FILE_SIZE);
    exit.realtime_limit = task::limits(signal, REAL_TIME);
    // Written through the reference: a copy would not fit the stack.
    take(&FATAL, tgid, start_ns, &mut exit.fatal);
    take(&TERM, tgid, start_ns, &mut exit.term);
    exit.submit_from_a_crowd();
    debug!(ctx, "process {} ended with status {}", tgid, status);
}

/// Moves what `map` holds for this process to `to`; all zero if there is nothing.
#[inline(always)]
fn take(map: &aya_ebpf::maps::LruHashMap<u32, Sent>, tgid: u32, start_ns: u64, to: &mut Sent) {
    if let Some(sent) = map::read(map, &tgid)
        && sent.target_start_ns == start_ns
    {
        *to = *sent;
        // Whoever reuses the entry writes its first field first: if that still stands, so did all that was copied.
        if map::again(&sent.target_start_ns) == start_ns {
            let _ = map.remove(tgid);
            return;
        }
    }
    *to = Sent::NONE;
}
