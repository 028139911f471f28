//! Which limit made the kernel kill.
//!
//! Where the kernel's own word could be had (the hook on `oom_kill_process`), it decides. Otherwise the levels of the victim's cgroup path do: the
//! kernel charges from the cgroup upwards and stops at the first level that has no room, so the lowest level at its limit is the one that
//! was hit, if the task that allocated stands below it too. With no level at its limit, the host was out of memory.

use killwatch_ebpf::wire::MAX_LEVELS;

use super::facts::OomFacts;
use crate::{
    death::{Cause, Constraint, LevelUse, MemoryStory},
    text::bytes,
};

/// A level counts as full this close to its limit: one failed allocation (32 KiB at most) and what other CPUs freed in the meantime.
const SLACK_BYTES: u64 = 512 << 10;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The cause.
    pub cause: Cause,
    /// The limit that was hit.
    pub hit: Option<Hit>,
    /// In words.
    pub evidence: Vec<String>,
    /// What of it the kernel did not say.
    pub inferred: Option<String>,
}

/// A limit that was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Place of its cgroup in the levels.
    pub level: usize,
    /// Whether it is v1's limit of memory and swap together.
    pub memsw: bool,
}

impl Hit {
    /// Bytes used and allowed, by the counter that was at its limit.
    #[must_use]
    pub fn usage_and_limit(self, level: &LevelUse) -> (u64, Option<u64>) {
        if self.memsw {
            (level.memsw_bytes.unwrap_or(level.usage_bytes), level.memsw_limit_bytes)
        } else {
            (level.usage_bytes, level.limit_bytes)
        }
    }
}

/// Finds the limit.
#[must_use]
pub fn find(memory: &MemoryStory, kill: &OomFacts) -> Finding {
    let found = full_level(memory, kill);
    let (cause, hit, said, inferred) = match kill.constraint {
        Some(Constraint::Memcg) => {
            // The kernel names the cgroup; which of its two limits it was, v1's usage tells.
            let hit = kill.level.map(|level| {
                let memsw = memory.levels.get(level).is_some_and(is_memsw_full);
                Hit { level, memsw }
            });
            (Cause::OomMemcg, hit, "the kernel named this limit", None)
        }
        Some(Constraint::None) => (
            Cause::OomGlobal,
            None,
            "the kernel named no constraint: the host is out of memory",
            None,
        ),
        Some(Constraint::Cpuset) => {
            (Cause::OomCpuset, None, "the kernel named the cpuset as the constraint", None)
        }
        Some(Constraint::MemoryPolicy) => {
            (Cause::OomMempolicy, None, "the kernel named a memory policy as the constraint", None)
        }
        None if found.is_some() => (
            Cause::OomMemcg,
            found,
            "it is the lowest level of the path that is at its limit",
            Some("which limit was hit: this kernel does not say it, the usage of each level does"),
        ),
        None if memory.levels.len() >= MAX_LEVELS => (
            Cause::OomGlobal,
            None,
            "none of the lowest cgroups of its path is at its limit; those further up were not looked at",
            Some("that no limit further up was hit"),
        ),
        None => (
            Cause::OomGlobal,
            None,
            "no cgroup on its path is at its limit, so the host is out of memory",
            Some(
                "that the host was out of memory: this kernel does not say it, no level was at its limit",
            ),
        ),
    };
    let mut evidence = Vec::new();
    let level = hit.and_then(|hit| Some((hit, memory.levels.get(hit.level)?)));
    if let Some((hit, level)) = level {
        let (usage, limit) = hit.usage_and_limit(level);
        evidence.push(format!(
            "cgroup {} used {} of its limit of {}{}",
            level.cgroup.as_deref().unwrap_or("(path not known)"),
            bytes(usage),
            limit.map_or_else(|| "(not known)".to_owned(), bytes),
            if hit.memsw { " for memory and swap together" } else { "" },
        ));
        evidence.extend(swap(level));
    } else if let Some(allowed) = kill.allowed_bytes {
        evidence.push(format!("the constraint allows {} in all", bytes(allowed)));
    }
    evidence.push(said.to_owned());
    if kill.sysrq {
        evidence.push("a person asked for it, by sysrq-f".to_owned());
    }
    Finding { cause, hit, evidence, inferred: inferred.map(str::to_owned) }
}

/// What was swapped out, and why not more: v2 only.
fn swap(level: &LevelUse) -> Option<String> {
    let used = level.swap_bytes?;
    Some(match level.swap_limit_bytes {
        Some(0) => "it may not swap (memory.swap.max is 0)".to_owned(),
        Some(limit) => format!("it had {} of {} of swap in use", bytes(used), bytes(limit)),
        None if used == 0 => return None,
        None => format!("it had {} of swap in use, without a limit", bytes(used)),
    })
}

/// The lowest level at its limit, preferring those that the allocating task shares: a limit that was lowered under its usage is hit by whoever
/// lowered it, from outside.
fn full_level(memory: &MemoryStory, kill: &OomFacts) -> Option<Hit> {
    let shared = |level: &LevelUse| match (&level.cgroup, &kill.trigger.cgroup) {
        (Some(level), Some(trigger)) => is_below(trigger, level),
        _ => true,
    };
    let first = |wanted: &dyn Fn(&LevelUse) -> bool| {
        let level = memory.levels.iter().position(|level| wanted(level) && is_full(level))?;
        let memsw = memory.levels.get(level).is_some_and(is_memsw_full);
        Some(Hit { level, memsw })
    };
    // Who lowers a limit on v2 leaves more in use than it allows.
    first(&shared).or_else(|| {
        first(&|level| level.limit_bytes.is_some_and(|limit| level.usage_bytes > limit))
    })
}

fn is_full(level: &LevelUse) -> bool {
    is_at(Some(level.usage_bytes), level.limit_bytes) || is_memsw_full(level)
}

/// Where both of v1's limits are the same, the one on memory and swap together is met first (try_charge, mm/memcontrol.c). Without swap in use it adds
/// nothing, and is not worth telling of.
fn is_memsw_full(level: &LevelUse) -> bool {
    let swaps = level.memsw_bytes.is_some_and(|both| both > level.usage_bytes + SLACK_BYTES);
    let tighter = level.memsw_limit_bytes.is_some() && level.limit_bytes.is_none();
    (swaps || tighter) && is_at(level.memsw_bytes, level.memsw_limit_bytes)
}

fn is_at(usage: Option<u64>, limit: Option<u64>) -> bool {
    usage.zip(limit).is_some_and(|(usage, limit)| usage.saturating_add(SLACK_BYTES) >= limit)
}

/// Whether `path` is `ancestor` or below it.
fn is_below(path: &str, ancestor: &str) -> bool {
    let ancestor = ancestor.trim_end_matches('/');
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
