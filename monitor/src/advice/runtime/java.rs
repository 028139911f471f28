//! The JVM: its heap against the limit.

use crate::death::{Cause, Victim};
use crate::flags::{JavaHeap, is_program, java_heap};
use crate::text::bytes;

use super::super::case::{Case, Found, float, whole};
use super::three_quarters;

pub(super) fn is(victim: &Victim) -> bool {
    is_program(victim, &["java"])
}

pub(super) fn look(case: &Case<'_>) -> Option<Found> {
    if case.death.cause == Cause::Abort {
        // With -XX:+CrashOnOutOfMemoryError: the verdict's own sentence has all that there is.
        return None;
    }
    let (limit, seen) = (case.limit()?, java_heap(&case.death.victim)?);
    let (heap, is) = match seen.value {
        JavaHeap::Bytes(heap) => (heap, bytes(heap)),
        JavaHeap::Percent(part) => {
            let heap = whole(float(limit) * part / 100.0);
            (heap, format!("{} of the limit", bytes(heap)))
        }
    };
    let fits = three_quarters(limit);
    if heap > fits {
        let is_larger = if heap >= limit { "not less than" } else { "more than 75 % of" };
        return Some(Found {
            evidence: format!(
                "{} lets the Java heap grow to {is}, {is_larger} the limit of {}",
                seen.phrase(),
                bytes(limit)
            ),
            advice: format!(
                "The JVM needs more than its heap (metaspace, code, thread stacks, direct buffers, the collector): let the heap have at most {} (-XX:MaxRAMPercentage=75, or less with many \
                 threads), so that it ends with an OutOfMemoryError instead of a kill; or raise the limit to {} for the heap that it has now.",
                bytes(fits),
                bytes((heap / 3).saturating_add(heap))
            ),
        });
    }
    let held = case.held().filter(|held| *held / 5 * 4 > heap && *held >= limit / 2)?;
    Some(Found {
        evidence: format!(
            "it held {}, though {} bounds the heap to {is}",
            bytes(held),
            seen.phrase()
        ),
        advice: format!(
            "At least {} of it lay outside of the Java heap: look at direct buffers (-XX:MaxDirectMemorySize), metaspace (-XX:MaxMetaspaceSize) and the number of threads; \
             -XX:NativeMemoryTracking=summary and jcmd show which.",
            bytes(held - heap)
        ),
    })
}

#[cfg(test)]
mod tests {
    use crate::advice::sample::{MIB, fires, oom, started};
    use crate::death::Rule;

    fn java(held: u64, arguments: &[&str], options: &str) -> Option<super::Found> {
        let mut death = started(oom(1024), arguments, &[("JAVA_TOOL_OPTIONS", options)]);
        death.memory.anon_bytes = Some(held * MIB);
        fires(&death, Rule::Runtime)
    }

    #[test]
    fn a_heap_that_leaves_no_room_for_the_rest() {
        let found = java(1000, &["java", "-Xmx1g", "-jar", "a.jar"], "").unwrap();
        assert_eq!(
            found.evidence,
            "-Xmx1g (on the command line) lets the Java heap grow to 1.0 GiB, not less than the limit of 1.0 GiB"
        );
        assert!(
            found.advice.contains("at most 768.0 MiB") && found.advice.contains("to 1.3 GiB"),
            "{found:?}"
        );
        let found = java(1000, &["java", "-jar", "a.jar"], "-XX:MaxRAMPercentage=90").unwrap();
        assert!(
            found.evidence.starts_with("-XX:MaxRAMPercentage=90 (in JAVA_TOOL_OPTIONS)"),
            "{found:?}"
        );
        assert!(found.evidence.contains("921.6 MiB of the limit, more than 75 %"), "{found:?}");
    }

    #[test]
    fn what_is_outside_of_the_heap() {
        let found = java(1000, &["/opt/jdk/bin/java", "-Xmx512m"], "").unwrap();
        assert!(found.advice.starts_with("At least 488.0 MiB of it lay outside"), "{found:?}");
        assert_eq!(java(600, &["java", "-Xmx512m"], ""), None, "it was about the heap's size");
        assert_eq!(java(1000, &["java"], ""), None, "nothing was seen");
        assert_eq!(java(1000, &["javac", "-Xmx4g"], ""), None);
    }
}
