//! The rules, as data.

use crate::death::{Cause, Finding, Rule};

use super::case::{Case, Found};
use super::words::cut;
use super::{MAX_FINDINGS, MAX_SENTENCE, growth, kinds, need, others, runtime};

/// A rule.
pub(super) struct Row {
    pub(super) rule: Rule,
    /// The heavier comes first.
    pub(super) weight: u8,
    /// The causes for which it is asked.
    pub(super) causes: &'static [Cause],
    /// Keys of the record without which it cannot fire, one of each group. Held by a test that takes them away.
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "it is for the test, and for who reads the table")
    )]
    pub(super) needs: &'static [&'static [&'static str]],
    /// Rules that explain the same better: with one of them it says nothing.
    pub(super) unless: &'static [Rule],
    /// Looks for it.
    pub(super) look: fn(&Case<'_>) -> Option<Found>,
}

const AT_A_LIMIT: &[Cause] = &[Cause::OomMemcg];
const OF_ANY_OOM: &[Cause] = &[Cause::OomMemcg, Cause::OomGlobal, Cause::OomUserspace];
const KINDS: &[&[&str]] = &[&["memory.usage_bytes"], &["memory.cgroup", "memory.history"]];

/// The heaviest first.
pub(super) const TABLE: &[Row] = &[
    Row {
        rule: Rule::Sibling,
        weight: 100,
        causes: AT_A_LIMIT,
        needs: &[&["memory.usage_bytes"], &["memory.processes"]],
        unless: &[],
        look: others::sibling,
    },
    Row {
        rule: Rule::Runtime,
        weight: 90,
        causes: &[Cause::OomMemcg, Cause::Abort],
        needs: &[&["victim.cmdline", "victim.environ"], &["memory.limit_bytes", "memory.history"]],
        unless: &[],
        look: runtime::find,
    },
    Row {
        rule: Rule::Tmpfs,
        weight: 85,
        causes: AT_A_LIMIT,
        needs: KINDS,
        unless: &[],
        look: kinds::tmpfs,
    },
    Row {
        rule: Rule::KernelMemory,
        weight: 80,
        causes: AT_A_LIMIT,
        needs: KINDS,
        unless: &[],
        look: kinds::kernel,
    },
    Row {
        rule: Rule::PageCache,
        weight: 75,
        causes: AT_A_LIMIT,
        needs: KINDS,
        unless: &[],
        look: kinds::page_cache,
    },
    Row {
        rule: Rule::TooManyWorkers,
        weight: 70,
        causes: AT_A_LIMIT,
        needs: &[&["memory.usage_bytes"], &["memory.processes"]],
        unless: &[],
        look: others::too_many_workers,
    },
    Row {
        rule: Rule::Leak,
        weight: 65,
        causes: OF_ANY_OOM,
        needs: &[&["memory.history"]],
        unless: &[Rule::Spike],
        look: growth::leak,
    },
    Row {
        rule: Rule::ParentLimit,
        weight: 60,
        causes: AT_A_LIMIT,
        needs: &[&["memory.levels"], &["memory.limit_cgroup"], &["memory.limit_bytes"]],
        unless: &[],
        look: others::parent_limit,
    },
    Row {
        rule: Rule::LimitTooSmall,
        weight: 55,
        causes: AT_A_LIMIT,
        needs: &[&["memory.limit_bytes"]],
        // More would be used up as well, or is not what is missing.
        unless: &[Rule::Leak, Rule::Sibling],
        look: need::limit_too_small,
    },
    Row {
        rule: Rule::Spike,
        weight: 50,
        causes: AT_A_LIMIT,
        needs: &[&["memory.history"], &["memory.limit_bytes"], &["memory.usage_bytes"]],
        unless: &[],
        look: growth::spike,
    },
    Row {
        rule: Rule::NoSwap,
        weight: 10,
        causes: &[Cause::OomMemcg, Cause::OomGlobal],
        needs: &[&["memory.anon_bytes", "memory.cgroup"], &["memory.host", "memory.levels"]],
        unless: &[
            Rule::Sibling,
            Rule::Runtime,
            Rule::Tmpfs,
            Rule::KernelMemory,
            Rule::PageCache,
            Rule::TooManyWorkers,
            Rule::Leak,
            Rule::ParentLimit,
            Rule::LimitTooSmall,
            Rule::Spike,
        ],
        look: kinds::no_swap,
    },
];

/// What the rules find, the weightiest first, at most [`MAX_FINDINGS`].
pub(super) fn find(case: &Case<'_>) -> Vec<Finding> {
    let asked = TABLE.iter().filter(|row| row.causes.contains(&case.death.cause));
    let mut found: Vec<(&Row, Found)> =
        asked.filter_map(|row| Some((row, (row.look)(case)?))).collect();
    let fired: Vec<Rule> = found.iter().map(|(row, _)| row.rule).collect();
    found.retain(|(row, _)| !row.unless.iter().any(|other| fired.contains(other)));
    found.sort_by_key(|(row, _)| std::cmp::Reverse(row.weight));
    found.truncate(MAX_FINDINGS);
    found
        .into_iter()
        .map(|(row, found)| Finding {
            rule: row.rule,
            evidence: cut(found.evidence, MAX_SENTENCE),
            advice: cut(found.advice, MAX_SENTENCE),
        })
        .collect()
}
