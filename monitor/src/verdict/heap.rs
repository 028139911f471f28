//! Whether an abort looks like a heap that was exhausted: runtimes abort when their own limit is reached, the cgroup's untouched.

use super::facts::Facts;
use crate::{death::LevelUse, text::bytes};

const MIB: u64 = 1 << 20;

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
    if let Some(limit) = v8_limit(facts) {
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
    if is_program(facts, &["node", "nodejs", "electron"]) && held >= 512 * MIB {
        return Some(Exhausted {
            evidence: format!(
                "it is Node, held {} of memory, and no --max-old-space-size was seen: V8 aborts when its default heap limit is reached",
                bytes(held)
            ),
            remedy: "V8's default heap was most likely full: set --max-old-space-size (and a container limit above it), or find what the heap is full of (--heapsnapshot-near-heap-limit).".into(),
        });
    }
    let limit = java_limit(facts)?;
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

/// `--max-old-space-size` in bytes: from the command line, else from NODE_OPTIONS. The last one counts; `_` and `-` are the same to V8.
fn v8_limit(facts: &Facts<'_>) -> Option<u64> {
    let cmdline = facts.victim.cmdline.iter().flatten().map(String::as_str);
    let options = facts.victim.environ.get("NODE_OPTIONS");
    let options = options.iter().flat_map(|options| options.split_whitespace());
    last_v8_limit(cmdline).or_else(|| last_v8_limit(options))
}

fn last_v8_limit<'a>(arguments: impl Iterator<Item = &'a str>) -> Option<u64> {
    let mut limit = None;
    let mut named = false;
    for argument in arguments {
        let value = if std::mem::take(&mut named) {
            Some(argument)
        } else {
            let flag = argument.replace('_', "-");
            named = flag == "--max-old-space-size";
            argument
                .split_once('=')
                .filter(|_| flag.starts_with("--max-old-space-size="))
                .map(|(_, value)| value)
        };
        if let Some(mib) = value.and_then(|value| value.trim_matches('"').parse::<u64>().ok()) {
            limit = mib.checked_mul(MIB).filter(|bytes| *bytes > 0);
        }
    }
    limit
}

/// `-Xmx` in bytes.
fn java_limit(facts: &Facts<'_>) -> Option<u64> {
    let arguments = facts.victim.cmdline.as_ref()?;
    let size = arguments.iter().rev().find_map(|argument| argument.strip_prefix("-Xmx"))?;
    let (digits, unit) = match size.char_indices().find(|(_, c)| !c.is_ascii_digit()) {
        Some((end, _)) => size.split_at(end),
        None => (size, ""),
    };
    let unit = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => MIB,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0)
}

fn is_program(facts: &Facts<'_>, names: &[&str]) -> bool {
    let first = facts.victim.cmdline.as_ref().and_then(|arguments| arguments.first());
    let file = first.and_then(|path| path.rsplit('/').next());
    names.iter().any(|name| facts.victim.comm == *name || file == Some(*name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn v8(arguments: &[&str]) -> Option<u64> {
        last_v8_limit(arguments.iter().copied())
    }

    #[test]
    fn reads_v8s_flag_in_each_form() {
        assert_eq!(v8(&["node", "--max-old-space-size=64", "a.js"]), Some(64 * MIB));
        assert_eq!(v8(&["--max_old_space_size=1", "--max-old-space-size", "2"]), Some(2 * MIB));
        assert_eq!(v8(&["--max-old-space-size=0"]), None);
        assert_eq!(v8(&["--max-old-space-size", "x", "--max-old-space-sizes=3"]), None);
        assert_eq!(v8(&["--max-old-space-size=99999999999999999999"]), None);
    }

    proptest! {
        #[test]
        fn any_arguments_are_survived(arguments in proptest::collection::vec("(--max[-_]old[-_]space[-_]size)?=?.{0,9}", 0..6)) {
            let _ = last_v8_limit(arguments.iter().map(String::as_str));
        }
    }
}
