//! Which limit made the kernel kill.
//!
//! Where the kernel's own word could be had (the hook on `oom_kill_process`), it decides. Otherwise the levels of the victim's cgroup path do: the
//! kernel charges from the cgroup upwards and stops at the first level that has no room, so the lowest level at its limit is the one that
//! was hit, if the task that allocated stands below it too. With no level at its limit, the host was out of memory.

use killwatch_ebpf::wire::MAX_LEVELS;

use super::OomFacts;
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
    /// The level whose limit was hit: its place in the levels.
    pub level: Option<usize>,
    /// In words.
    pub evidence: Vec<String>,
}

/// Finds the limit.
#[must_use]
pub fn find(memory: &MemoryStory, kill: &OomFacts) -> Finding {
    let (cause, level, said) = match kill.constraint {
        Some(Constraint::Memcg) => (Cause::OomMemcg, kill.level, "the kernel named this limit"),
        Some(Constraint::None) => {
            (Cause::OomGlobal, None, "the kernel named no constraint: the host is out of memory")
        }
        Some(Constraint::Cpuset) => {
            (Cause::OomCpuset, None, "the kernel named the cpuset as the constraint")
        }
        Some(Constraint::MemoryPolicy) => {
            (Cause::OomMempolicy, None, "the kernel named a memory policy as the constraint")
        }
        None => match full_level(memory, kill) {
            Some(level) => (
                Cause::OomMemcg,
                Some(level),
                "it is the lowest level of the path that is at its limit",
            ),
            None if memory.levels.len() >= MAX_LEVELS => (
                Cause::OomGlobal,
                None,
                "none of the lowest cgroups of its path is at its limit; those further up were not looked at",
            ),
            None => (
                Cause::OomGlobal,
                None,
                "no cgroup on its path is at its limit, so the host is out of memory",
            ),
        },
    };
    let mut evidence = Vec::new();
    if let Some(found) = level.and_then(|place| memory.levels.get(place)) {
        evidence.push(format!(
            "cgroup {} used {} of its limit of {}",
            found.cgroup.as_deref().unwrap_or("(path not known)"),
            bytes(found.usage_bytes),
            bytes(found.limit_bytes.unwrap_or(0)),
        ));
    } else if let Some(allowed) = kill.allowed_bytes {
        evidence.push(format!("the constraint allows {} in all", bytes(allowed)));
    }
    evidence.push(said.to_owned());
    if kill.sysrq {
        evidence.push("a person asked for it, by sysrq-f".to_owned());
    }
    Finding { cause, level, evidence }
}

/// The lowest level at its limit, preferring those that the allocating task shares: a limit that was lowered under its usage is hit by whoever
/// lowered it, from outside.
fn full_level(memory: &MemoryStory, kill: &OomFacts) -> Option<usize> {
    let full = |level: &LevelUse| {
        level
            .limit_bytes
            .is_some_and(|limit| level.usage_bytes.saturating_add(SLACK_BYTES) >= limit)
    };
    let shared = |level: &LevelUse| match (&level.cgroup, &kill.trigger.cgroup) {
        (Some(level), Some(trigger)) => is_below(trigger, level),
        _ => true,
    };
    memory
        .levels
        .iter()
        .position(|level| full(level) && shared(level))
        .or_else(|| memory.levels.iter().position(full))
}

/// Whether `path` is `ancestor` or below it.
fn is_below(path: &str, ancestor: &str) -> bool {
    let ancestor = ancestor.trim_end_matches('/');
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
