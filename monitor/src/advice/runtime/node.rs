//! Node: V8's old generation against the limit.

use crate::death::{Cause, Victim};
use crate::flags::{is_program, v8_heap};
use crate::text::bytes;

use super::super::case::{Case, Found};
use super::{MIB, three_quarters};

/// A program that held this much had a heap that was worth a limit.
const MUCH: u64 = 512 * MIB;

pub(super) fn is(victim: &Victim) -> bool {
    is_program(victim, &["node", "nodejs", "node-MainThread", "electron"])
}

pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    if case.death.cause == Cause::Abort { aborted(case) } else { killed(case) }
}

/// 137: the heap may grow past the cgroup's limit, or something other than the heap did.
fn killed(case: &Case<'_>) -> Option<Found> {
    let (victim, limit) = (&case.death.victim, case.limit()?);
    let fits = three_quarters(limit);
    let Some(heap) = v8_heap(victim) else {
        // A flag that was cut off is not one that is missing.
        let whole = victim.cmdline.is_some() && !victim.cmdline_truncated;
        let held = case.held().filter(|held| whole && *held >= limit / 2)?;
        return Some(Found {
            evidence: format!(
                "it is Node and held {} under a limit of {}; no --max-old-space-size was seen on the command line or in NODE_OPTIONS",
                bytes(held),
                bytes(limit)
            ),
            advice: format!(
                "Without the flag V8 takes its bound from the memory that it sees, which may be the host's: set --max-old-space-size={} (75 % of the limit, e.g. in NODE_OPTIONS), so that V8 \
                 collects in time, or ends with a message of its own (134) instead of a kill (137).",
                fits / MIB
            ),
        });
    };
    if heap.value > fits {
        let than = if heap.value >= limit { "the whole limit" } else { "75 % of the limit" };
        return Some(Found {
            evidence: format!(
                "{} lets V8's heap grow to {}, more than {than} of {}",
                heap.phrase(),
                bytes(heap.value),
                bytes(limit)
            ),
            advice: format!(
                "Up to its bound V8 need not give anything back, and the kernel killed it (137) at the cgroup's first: set --max-old-space-size to at most {} (75 % of the limit), the rest being for buffers, code and stacks; or raise the \
                 limit to {} for the heap that it has now.",
                fits / MIB,
                bytes((heap.value / 3).saturating_add(heap.value))
            ),
        });
    }
    let held = case.held().filter(|held| *held / 5 * 4 > heap.value && *held >= limit / 2)?;
    Some(Found {
        evidence: format!(
            "it held {}, though {} bounds V8's heap to {}",
            bytes(held),
            heap.phrase(),
            bytes(heap.value)
        ),
        advice: format!(
            "At least {} of it lay outside of V8's old generation: look for Buffers and native add-ons (process.memoryUsage().external), and for worker threads, each of which has a heap of its \
             own.",
            bytes(held - heap.value)
        ),
    })
}

/// 134: V8's own limit.
fn aborted(case: &Case<'_>) -> Option<Found> {
    let (victim, limit, held) = (&case.death.victim, case.room()?, case.held()?);
    let fits = three_quarters(limit);
    let used = case.used().or_else(|| Some(case.history()?.usage.last()?.bytes));
    let room = used.map_or_else(String::new, |used| {
        format!(", of which {} was free", bytes(limit.saturating_sub(used)))
    });
    let (of_what, heap) = match v8_heap(victim) {
        Some(heap) if held >= three_quarters(heap.value) => {
            (format!("{}, a heap of {}", heap.phrase(), bytes(heap.value)), Some(heap.value))
        }
        None if held >= MUCH => ("no --max-old-space-size was seen".to_owned(), None),
        _ => return None,
    };
    let advice = if heap.is_some_and(|heap| heap >= fits) {
        format!(
            "V8 gave up at its own bound (134 = SIGABRT), which is as large as the cgroup's limit of {} allows: raise the limit first and then --max-old-space-size, to 75 % of it, or find what the \
             heap is full of (--heapsnapshot-near-heap-limit).",
            bytes(limit)
        )
    } else {
        format!(
            "V8 gave up at its own bound (134 = SIGABRT), not the cgroup's: --max-old-space-size may be raised to {} (75 % of the limit), or find what the heap is full of \
             (--heapsnapshot-near-heap-limit).",
            fits / MIB
        )
    };
    Some(Found {
        evidence: format!(
            "it aborted holding {}; {of_what}; the cgroup's limit is {}{room}",
            bytes(held),
            bytes(limit)
        ),
        advice,
    })
}

#[cfg(test)]
mod tests {
    use crate::advice::sample::{MIB, fires, history, oom, started};
    use crate::death::{Cause, Death, Rule, sample};

    fn killed(held: u64, arguments: &[&str], options: &str) -> Option<super::Found> {
        let mut death = started(oom(512), arguments, &[("NODE_OPTIONS", options)]);
        death.memory.anon_bytes = Some(held * MIB);
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn a_heap_that_may_outgrow_the_limit() {
        let found =
            killed(500, &["/usr/bin/node", "--max-old-space-size=4096", "a.js"], "").unwrap();
        assert_eq!(
            found.evidence,
            "--max-old-space-size=4096 (on the command line) lets V8's heap grow to 4.0 GiB, more than the whole limit of 512.0 MiB"
        );
        assert!(found.advice.contains("at most 384 (75 % of the limit)"), "{found:?}");
        let found = killed(500, &["node", "a.js"], "--max_old_space_size=400").unwrap();
        assert!(
            found.evidence.starts_with("--max-old-space-size=400 (in NODE_OPTIONS)"),
            "{found:?}"
        );
        assert!(found.evidence.contains("75 % of the limit"), "{found:?}");
        assert!(found.advice.contains("raise the limit to 533.3 MiB"), "{found:?}");
    }

    #[test]
    fn what_is_outside_of_the_heap() {
        let found = killed(450, &["node", "--max-old-space-size=128", "a.js"], "").unwrap();
        assert!(found.advice.contains("At least 322.0 MiB of it lay outside"), "{found:?}");
        assert_eq!(killed(140, &["node", "--max-old-space-size=128", "a.js"], ""), None);
    }

    #[test]
    fn no_flag_is_told_only_if_the_whole_line_was_seen() {
        let found = killed(450, &["node", "a.js"], "").unwrap();
        assert!(found.advice.contains("--max-old-space-size=384"), "{found:?}");
        assert_eq!(killed(100, &["node", "a.js"], ""), None);
        let mut death = started(oom(512), &["node", "a.js"], &[]);
        death.memory.anon_bytes = Some(450 * MIB);
        death.victim.cmdline_truncated = true;
        assert_eq!(fires(&death, Rule::Runtime), None);
        assert_eq!(
            killed(450, &["sleep", "--max-old-space-size=4096"], ""),
            None,
            "it is not Node"
        );
    }

    /// An abort in a cgroup that may use 512 MiB and used 300.
    fn aborted(held: u64, arguments: &[&str]) -> Option<super::Found> {
        let mut death: Death = started(sample::by_itself(Cause::Abort, 6), arguments, &[]);
        death.memory.anon_bytes = Some(held * MIB);
        let mut story = history(&oom(512), &[(1.0, 300)]);
        story.limit_bytes = Some(512 * MIB);
        death.memory.history = Some(story);
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn an_abort_at_v8s_own_bound_with_room_in_the_cgroup() {
        let found = aborted(270, &["node", "--max-old-space-size=256", "a.js"]).unwrap();
        assert!(
            found.evidence.ends_with("limit is 512.0 MiB, of which 212.0 MiB was free"),
            "{found:?}"
        );
        assert!(found.advice.contains("may be raised to 384"), "{found:?}");
        let found = aborted(450, &["node", "--max-old-space-size=450", "a.js"]).unwrap();
        assert!(found.advice.contains("raise the limit first"), "{found:?}");
        assert_eq!(
            aborted(60, &["node", "--max-old-space-size=256", "a.js"]),
            None,
            "it was not full"
        );
        assert!(aborted(600, &["node", "a.js"]).is_some());
        assert_eq!(aborted(60, &["node", "a.js"]), None);
    }
}
