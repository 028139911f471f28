//! Whether an abort looks like a heap that was exhausted: runtimes abort when their own limit is reached, the cgroup's untouched.

use super::facts::Facts;
use crate::flags::{self, JavaHeap};
use crate::{death::LevelUse, text::bytes};

const MIB: u64 = 1 << 20;
/// Programs that are V8 and hold more than its heap.
const NODE: &[&str] = &["node", "nodejs", "electron"];

/// What speaks for an exhausted heap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exhausted {
    /// The facts.
    pub(super) evidence: String,
    /// What to change.
    pub(super) remedy: String,
}

/// Looks at the runtime, its heap flags, and the memory held against the flags and the cgroup's limit.
pub(super) fn exhausted(facts: &Facts<'_>) -> Option<Exhausted> {
    let held = facts.memory.anon_bytes?;
    runtime(facts, held).or_else(|| cgroup(facts.tightest?, held))
}

fn runtime(facts: &Facts<'_>, held: u64) -> Option<Exhausted> {
    if let Some(limit) = flags::v8_heap(facts.victim).map(|seen| seen.value) {
        // The heap's limit counts the old generation only; a program whose heap is full holds some more than that.
        return (held >= limit / 4 * 3).then(|| Exhausted {
            evidence: format!(
                "it held {} of memory, and V8's heap was limited to {} by --max-old-space-size: V8 aborts when its heap is full",
                bytes(held),
                bytes(limit)
            ),
            remedy: format!(
                "V8's heap of {} was most likely full: raise --max-old-space-size (and the container's limit with it), or find what the heap is full of (--heapsnapshot-near-heap-limit).",
                bytes(limit)
            ),
        });
    }
    if flags::is_program(facts.victim, NODE) && held >= 512 * MIB {
        return Some(Exhausted {
            evidence: format!(
                "it is Node, held {} of memory, and no --max-old-space-size was seen: V8 aborts when its default heap limit is reached",
                bytes(held)
            ),
            remedy: "V8's default heap was most likely full: set --max-old-space-size (and a container limit above it), or find what the heap is full of (--heapsnapshot-near-heap-limit).".into(),
        });
    }
    let JavaHeap::Bytes(limit) = flags::java_heap(facts.victim)?.value else { return None };
    (held >= limit / 4 * 3).then(|| Exhausted {
        evidence: format!(
            "it held {} of memory, and the Java heap was limited to {} by -Xmx: with -XX:+CrashOnOutOfMemoryError the JVM aborts when it is full",
            bytes(held),
            bytes(limit)
        ),
        remedy: format!(
            "The Java heap of {} was most likely full: raise -Xmx, or take a heap dump (-XX:+HeapDumpOnOutOfMemoryError).",
            bytes(limit)
        ),
    })
}

/// An allocator that gets no memory from the kernel aborts too; with a cgroup nearly full, the kernel may refuse before it kills.
fn cgroup(tightest: &LevelUse, held: u64) -> Option<Exhausted> {
    let limit = tightest.limit_bytes?;
    let full = tightest.usage_bytes >= limit / 10 * 9;
    (full && held >= limit / 2).then(|| {
        let path = tightest.cgroup.as_deref().unwrap_or("(path not known)");
        Exhausted {
            evidence: format!(
                "it held {} of memory, and cgroup {path} used {} of its limit of {}",
                bytes(held),
                bytes(tightest.usage_bytes),
                bytes(limit)
            ),
            remedy: format!(
                "Its cgroup's limit of {} was nearly reached: an allocation may have failed. Raise that limit, or make the work smaller.",
                bytes(limit)
            ),
        }
    })
}
