//! What to do, from the cause and this death's numbers. A sentence or two.

use super::{Facts, Verdict, heap, signals};
use crate::{
    death::{Cause, KillerKind, MemoryStory, Related, Via},
    text::bytes,
};

const HOST: &str = "The host itself ran out of memory: give its workloads limits that add up to less than its RAM, or move some away. \
            The victim was chosen by size and oom_score_adj; it need not be the one that took the memory.";
const NODES: &str = "The NUMA nodes that it may use ran out of memory while others may have had some: \
            widen its cpuset or memory policy, or give it less work.";

/// Advice for a kill of the OOM killer that only the kernel log told of.
#[must_use]
pub fn of_logged(cause: Cause, memory: &MemoryStory) -> String {
    match (cause, &memory.limit_cgroup, memory.limit_bytes) {
        (Cause::OomMemcg, Some(cgroup), Some(limit)) => format!(
            "It hit the limit of {cgroup}, {}: raise that limit ({}), or make the work smaller.",
            bytes(limit),
            limit_names(memory.limit_counter.is_some())
        ),
        (Cause::OomMemcg, Some(cgroup), None) => {
            format!("It hit the limit of {cgroup}: raise that limit ({}), or make the work smaller.", limit_names(false))
        }
        (Cause::OomMemcg, None, _) => "A memory cgroup was at its limit, its own or one above: raise that limit, or use less memory below it.".to_owned(),
        (Cause::OomCpuset | Cause::OomMempolicy, ..) => NODES.to_owned(),
        _ => HOST.to_owned(),
    }
}

/// What sets the limit of a cgroup, by its names in the kernel, in Kubernetes and in systemd.
pub(crate) const fn limit_names(memsw: bool) -> &'static str {
    if memsw {
        "memory.memsw.limit_in_bytes; docker --memory-swap"
    } else {
        "memory.max; resources.limits.memory; MemoryMax="
    }
}

/// Advice for one death.
#[must_use]
pub fn advise(facts: &Facts<'_>, verdict: &Verdict) -> String {
    match verdict.cause {
        Cause::OomMemcg => memcg(facts, verdict),
        Cause::OomGlobal => HOST.to_owned(),
        Cause::OomCpuset | Cause::OomMempolicy => NODES.to_owned(),
        Cause::OomUserspace => format!(
            "The userspace OOM killer {} chose it before the kernel had to: its log says why. Give the workload a limit of its own, or less work; to \
            spare it, see the killer's settings (ManagedOOMPreference=, --avoid).",
            verdict.killer.comm.as_deref().unwrap_or("(name not known)")
        ),
        Cause::OomCollateral => format!(
            "It fell with {}, whose memory it shares: see that record for the limit that was hit.",
            related(verdict)
        ),
        Cause::StopTimeout => stopped(verdict),
        Cause::Killed => killed(verdict),
        Cause::PidnsTeardown => format!(
            "Nothing is wrong with it: its container or sandbox ended, for {} did. Look at that one.",
            related(verdict)
        ),
        Cause::Abort => abort(facts),
        Cause::Rlimit => rlimit(verdict),
        Cause::Crash if verdict.forbidden => "Its seccomp profile forbids a system call that it made: the kernel's audit log \
            names the call; allow it in the profile, or do without it. More memory does not help."
            .to_owned(),
        Cause::Crash => "A fault in the program or a library of it: get a core dump (ulimit -c, coredumpctl) or run it under a debugger. More memory does \
            not help."
            .to_owned(),
        Cause::Relayed => format!("Look at the child's death instead: {}.", related(verdict)),
        Cause::Unknown => unknown(facts, verdict),
    }
}

fn memcg(facts: &Facts<'_>, verdict: &Verdict) -> String {
    let hit = verdict.limit.and_then(|hit| Some((hit, facts.memory.levels.get(hit.level)?)));
    let Some((hit, level)) = hit else {
        return "A memory cgroup above it was at its limit: raise that limit, or use less memory below it.".to_owned();
    };
    let limit = hit.usage_and_limit(level).1.map_or_else(|| "(not known)".to_owned(), bytes);
    // File pages are left out: a library's are charged to whoever touched it first. The kernel's counts of a process are rough, so they
    // may exceed what is charged.
    let own = facts.memory.anon_bytes.zip(facts.memory.shmem_bytes);
    let own = own.map(|(anon, shmem)| anon.saturating_add(shmem).min(level.usage_bytes));
    let path = level.cgroup.as_deref().unwrap_or("(path not known)");
    let whose = if hit.level == 0 {
        "its own cgroup's limit".to_owned()
    } else {
        format!("the limit of {path}, above its own cgroup,")
    };
    let names = limit_names(hit.memsw);
    let share = match own {
        // Less than half of what is charged: others took the rest.
        Some(own) if own < level.usage_bytes / 2 => format!(
            " The victim held only {} of the {} in use: look for what else runs there, or lies in its tmpfs and page cache.",
            bytes(own),
            bytes(level.usage_bytes)
        ),
        Some(own) => format!(" The victim held {} of it.", bytes(own)),
        None => String::new(),
    };
    format!(
        "It hit {whose} of {limit}: raise that limit ({names}), or make the work smaller.{share}"
    )
}

fn stopped(verdict: &Verdict) -> String {
    let Some(stop) = &verdict.stop else { return "It did not end when asked to.".to_owned() };
    if stop.init_without_handler {
        return format!(
            "SIGTERM never reached it: the first process of a pid namespace gets only signals that it has a handler for. Let a small init start it \
            (tini, docker --init, shareProcessNamespace) or handle SIGTERM, and it need not wait {:.1} s for its SIGKILL.",
            stop.grace_seconds
        );
    }
    format!(
        "It did not end within the {:.1} s that it was given: end sooner on SIGTERM, or give it more (terminationGracePeriodSeconds, docker stop -t, TimeoutStopSec=).",
        stop.grace_seconds
    )
}

fn killed(verdict: &Verdict) -> String {
    let killer = &verdict.killer;
    let asks = match (killer.via, &killer.comm, killer.pid) {
        (Some(Via::ParentDeathSignal), ..) => {
            return format!(
                "It ended because its parent did, as it had asked for: look at {}.",
                related(verdict)
            );
        }
        (Some(Via::TracerExit), Some(comm), Some(pid)) => {
            return format!("It ended with the debugger or tracer {comm} (pid {pid}).");
        }
        (Some(Via::Timer), ..) => {
            return "A timer that it set itself rang and it had no handler: look in the program for alarm or setitimer.".to_owned();
        }
        (_, Some(comm), Some(pid)) if killer.kind == KillerKind::Process => format!(
            "This was no lack of memory: ask why {comm} (pid {pid}, uid {}) sent the signal; its own log should say.",
            killer.uid.unwrap_or(u32::MAX)
        ),
        _ if killer.kind == KillerKind::Itself && killer.via == Some(Via::Kernel) => {
            return "Whoever read what it writes has gone: handle SIGPIPE or the error that comes instead, and look why the reader went.".to_owned();
        }
        _ if killer.kind == KillerKind::Itself => {
            return "It sent the signal to itself: look in the program for the place that does so."
                .to_owned();
        }
        _ => {
            return "This was no lack of memory: look at what else ended in that moment."
                .to_owned();
        }
    };
    let chain: Vec<&str> = killer.ancestors.iter().map(|ancestor| ancestor.comm.as_str()).collect();
    match chain.as_slice() {
        [] => asks,
        chain => format!("{asks} It was started by {}.", chain.join(", that by ")),
    }
}

fn abort(facts: &Facts<'_>) -> String {
    match heap::exhausted(facts) {
        Some(heap) => heap.remedy,
        None => "It gave up by itself: its last lines on stderr say why. Language runtimes abort when their own heap limit is reached \
            (for Node, see --max-old-space-size), with the cgroup's limit untouched."
            .to_owned(),
    }
}

fn rlimit(verdict: &Verdict) -> String {
    let Some(limit) = &verdict.rlimit else {
        return "Raise the resource limit that it hit.".to_owned();
    };
    let value = limit
        .soft
        .or(limit.hard)
        .map_or_else(String::new, |value| format!(" of {value} {}", limit.unit));
    let (shell, unit) = match limit.resource.as_str() {
        "RLIMIT_CPU" => ("-t", "LimitCPU="),
        "RLIMIT_RTTIME" => ("-R", "LimitRTTIME="),
        _ => ("-f", "LimitFSIZE="),
    };
    format!(
        "It hit {}{value}: raise that (ulimit {shell}, {unit}), or have it do less.",
        limit.resource
    )
}

/// The process that the death follows from.
fn related(verdict: &Verdict) -> String {
    match &verdict.related {
        Some(Related { comm, pid, id: Some(id), .. }) => format!("{comm} (pid {pid}), record {id}"),
        Some(Related { comm, pid, id: None, .. }) => format!("{comm} (pid {pid})"),
        None => "another process".to_owned(),
    }
}

fn unknown(facts: &Facts<'_>, verdict: &Verdict) -> String {
    match facts.victim.exit_code {
        Some(code) if code <= 128 => "It was about to exit by itself as the OOM killer came by; what ran the host or its cgroup out of memory is another matter.".to_owned(),
        Some(code) => format!(
            "The exit code {code} was chosen by the program: look there for what it means. It is no proof of {}.",
            signals::name(code.wrapping_sub(128))
        ),
        None if verdict.killer.kind == KillerKind::Kernel => "The kernel ended it for a reason that leaves no trace here: look at its log (dmesg), and at what else ended in that moment.".to_owned(),
        None => "Check `killwatch doctor` and killwatch_kernel_records_lost_total for what could not be seen here.".to_owned(),
    }
}
