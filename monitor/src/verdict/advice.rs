//! What to do, from the cause and this death's numbers. A sentence or two.

use super::{Facts, Verdict, signals};
use crate::{
    death::{Cause, KillerKind},
    text::bytes,
};

/// Advice for one death.
#[must_use]
pub fn advise(facts: &Facts<'_>, verdict: &Verdict) -> String {
    match verdict.cause {
        Cause::OomMemcg => memcg(facts, verdict),
        Cause::OomGlobal => "The host itself ran out of memory: give its workloads limits that add up to less than its RAM, or move some away. \
            The victim was chosen by size and oom_score_adj; it need not be the one that took the memory."
            .to_owned(),
        Cause::OomCpuset | Cause::OomMempolicy => "The NUMA nodes that it may use ran out of memory while others may have had some: \
            widen its cpuset or memory policy, or give it less work."
            .to_owned(),
        Cause::Killed => killed(verdict),
        Cause::Abort => "It gave up by itself: its last lines on stderr say why. Language runtimes abort when their own heap limit is reached \
            (for Node, see --max-old-space-size), with the cgroup's limit untouched."
            .to_owned(),
        Cause::Crash => "A fault in the program or a library of it: get a core dump (ulimit -c, coredumpctl) or run it under a debugger. More memory does \
            not help."
            .to_owned(),
        Cause::Relayed => match facts.child {
            Some(child) => format!(
                "Look at the child's death instead: {} (pid {}), record {}.",
                child.comm, child.pid, child.id
            ),
            None => "Look at the child's death instead.".to_owned(),
        },
        Cause::Unknown => unknown(facts),
    }
}

fn memcg(facts: &Facts<'_>, verdict: &Verdict) -> String {
    let hit = verdict.limit.and_then(|place| Some((place, facts.memory.levels.get(place)?)));
    let Some((place, level)) = hit else {
        return "A memory cgroup above it was at its limit: raise that limit, or use less memory below it.".to_owned();
    };
    let limit = bytes(level.limit_bytes.unwrap_or(0));
    // File pages are left out: a library's are charged to whoever touched it first. The kernel's counts of a process are rough, so they
    // may exceed what is charged.
    let own = facts.memory.anon_bytes.zip(facts.memory.shmem_bytes);
    let own = own.map(|(anon, shmem)| anon.saturating_add(shmem).min(level.usage_bytes));
    let path = level.cgroup.as_deref().unwrap_or("(path not known)");
    let whose = if place == 0 {
        "its own cgroup's limit".to_owned()
    } else {
        format!("the limit of {path}, above its own cgroup,")
    };
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
        "It hit {whose} of {limit}: raise that limit (memory.max; resources.limits.memory; MemoryMax=), or make the work smaller.{share}"
    )
}

fn killed(verdict: &Verdict) -> String {
    let killer = &verdict.killer;
    match (killer.kind, &killer.comm, killer.pid) {
        (KillerKind::Process, Some(comm), Some(pid)) => format!(
            "This was no lack of memory: ask why {comm} (pid {pid}, uid {}) sent the signal; its own log should say.",
            killer.uid.unwrap_or(u32::MAX)
        ),
        _ => "It sent the signal to itself: look in the program for the place that does so."
            .to_owned(),
    }
}

fn unknown(facts: &Facts<'_>) -> String {
    match facts.victim.exit_code {
        Some(code) if code <= 128 => "It was about to exit by itself as the OOM killer came by; what ran the host or its cgroup out of memory is another matter.".to_owned(),
        Some(code) => format!(
            "The exit code {code} was chosen by the program: look there for what it means. It is no proof of {}.",
            signals::name(code.wrapping_sub(128))
        ),
        None => "Check `killwatch doctor` and killwatch_kernel_records_lost_total for what could not be seen here.".to_owned(),
    }
}
