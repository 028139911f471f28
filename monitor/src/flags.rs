//! What a command line and the environment say of a runtime's memory: flags of V8 and of the JVM, sizes, who a program is. Pure.
//!
//! Of the environment only what is on the allowlist is known, so that a flag that is not found here was *not seen*, which is not the same as not set.

use crate::attribute::environ::MAX_VALUE;
use crate::death::Victim;

const MIB: u64 = 1 << 20;

/// A value of an environment that is this long may have been cut: its last word is not to be trusted. A character and its `\xNN` stay whole,
/// so a cut one may be three bytes shorter than the bound.
const MAYBE_CUT: usize = MAX_VALUE - 3;

/// A flag or a variable as it was seen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen<T> {
    /// As it was written.
    pub(crate) text: String,
    /// The variable that it stood in; on the command line otherwise.
    pub(crate) variable: Option<&'static str>,
    /// What it says.
    pub(crate) value: T,
}

impl<T> Seen<T> {
    /// It and where it stood, for a sentence.
    pub(crate) fn phrase(&self) -> String {
        match self.variable {
            Some(name) => format!("{} (in {name})", self.text),
            None => format!("{} (on the command line)", self.text),
        }
    }
}

/// How a JVM's heap is bounded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum JavaHeap {
    /// To so many bytes.
    Bytes(u64),
    /// To a part of the memory that it sees, in percent.
    Percent(f64),
}

/// Whether the victim is one of these programs, by its own name or by the file that it was started as. Both are the program's own word.
pub(crate) fn is_program(victim: &Victim, names: &[&str]) -> bool {
    let first = victim.cmdline.as_ref().and_then(|arguments| arguments.first());
    let file = first.and_then(|path| path.rsplit('/').next());
    names.iter().any(|name| victim.comm == *name || file == Some(*name))
}

/// V8's bound of the old generation, `--max-old-space-size`, in bytes: from the command line, else from NODE_OPTIONS. The last one counts.
pub(crate) fn v8_heap(victim: &Victim) -> Option<Seen<u64>> {
    let arguments = victim.cmdline.iter().flatten().map(String::as_str);
    last_v8_heap(arguments, None)
        .or_else(|| last_v8_heap(words(victim, "NODE_OPTIONS"), Some("NODE_OPTIONS")))
}

/// The JVM's bound of its heap. The later of these wins, as in the JVM itself: JAVA_TOOL_OPTIONS, JDK_JAVA_OPTIONS, the command line,
/// _JAVA_OPTIONS; and a size wins over a percentage, wherever they stand.
pub(crate) fn java_heap(victim: &Victim) -> Option<Seen<JavaHeap>> {
    let from = |name: &'static str| words(victim, name).map(move |word| (Some(name), word));
    let line = victim.cmdline.iter().flatten().map(|word| (None, word.as_str()));
    let all = from("JAVA_TOOL_OPTIONS")
        .chain(from("JDK_JAVA_OPTIONS"))
        .chain(line)
        .chain(from("_JAVA_OPTIONS"));
    let (mut size, mut percent) = (None, None);
    for (variable, word) in all {
        let seen = |value| Some(Seen { text: word.to_owned(), variable, value });
        let bytes = word.strip_prefix("-Xmx").or_else(|| word.strip_prefix("-XX:MaxHeapSize="));
        if let Some(bytes) = bytes.and_then(java_size) {
            size = seen(JavaHeap::Bytes(bytes));
        }
        let part = word.strip_prefix("-XX:MaxRAMPercentage=").and_then(|part| part.parse().ok());
        if let Some(part) = part.filter(|part: &f64| *part > 0.0 && *part <= 100.0) {
            percent = seen(JavaHeap::Percent(part));
        }
    }
    size.or(percent)
}

/// The words of a variable, without one that may have been cut.
pub(crate) fn words<'a>(victim: &'a Victim, name: &str) -> impl Iterator<Item = &'a str> {
    let value = victim.environ.get(name).map_or("", String::as_str);
    let whole = match value.rsplit_once(char::is_whitespace) {
        Some((whole, _)) if value.len() >= MAYBE_CUT => whole,
        None if value.len() >= MAYBE_CUT => "",
        _ => value,
    };
    whole.split_whitespace()
}

/// `_` and `-` are the same to V8.
fn last_v8_heap<'a>(
    arguments: impl Iterator<Item = &'a str>,
    variable: Option<&'static str>,
) -> Option<Seen<u64>> {
    let mut last = None;
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
            let bytes = mib.checked_mul(MIB).filter(|bytes| *bytes > 0);
            let text = format!("--max-old-space-size={mib}");
            last = bytes.map(|value| Seen { text, variable, value });
        }
    }
    last
}

/// A size as the JVM reads it: digits and a unit of 1024.
fn java_size(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text)?;
    let unit = match unit {
        "" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => MIB,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).filter(|bytes| *bytes > 0)
}

/// The digits that a text begins with, as a number, and what follows.
pub(crate) fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Some((digits.parse().ok()?, unit))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::death::sample;

    fn v8(arguments: &[&str]) -> Option<u64> {
        last_v8_heap(arguments.iter().copied(), None).map(|seen| seen.value)
    }

    fn victim(arguments: &[&str], environ: &[(&str, &str)]) -> Victim {
        let mut victim = sample::oom_memcg().victim;
        victim.cmdline = Some(arguments.iter().map(|word| (*word).to_owned()).collect());
        victim.environ = environ.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        victim
    }

    #[test]
    fn reads_v8s_flag_in_each_form() {
        assert_eq!(v8(&["node", "--max-old-space-size=64", "a.js"]), Some(64 * MIB));
        assert_eq!(v8(&["--max_old_space_size=1", "--max-old-space-size", "2"]), Some(2 * MIB));
        assert_eq!(v8(&["--max-old-space-size=0"]), None);
        assert_eq!(v8(&["--max-old-space-size", "x", "--max-old-space-sizes=3"]), None);
        assert_eq!(v8(&["--max-old-space-size=99999999999999999999"]), None);
    }

    #[test]
    fn a_number_that_was_cut_is_no_number() {
        let long = |end: &str| format!("{} {end}", "x".repeat(MAX_VALUE - end.len() - 1));
        let cut = victim(&["node"], &[("NODE_OPTIONS", &long("--max-old-space-size=40"))]);
        assert_eq!(v8_heap(&cut), None);
        let whole = victim(&["node"], &[("NODE_OPTIONS", "--max-old-space-size=40")]);
        let seen = v8_heap(&whole).unwrap();
        assert_eq!(
            (seen.value, &*seen.phrase()),
            (40 * MIB, "--max-old-space-size=40 (in NODE_OPTIONS)")
        );
    }

    #[test]
    fn of_a_jvms_flags_the_one_that_the_jvm_takes() {
        let heap = |arguments: &[&str], environ: &[(&str, &str)]| {
            java_heap(&victim(arguments, environ)).map(|seen| (seen.phrase(), seen.value))
        };
        let line = |text: &str| format!("{text} (on the command line)");
        assert_eq!(
            heap(&["java", "-Xmx1g", "-Xmx512m"], &[("JAVA_TOOL_OPTIONS", "-Xmx2g")]),
            Some((line("-Xmx512m"), JavaHeap::Bytes(512 * MIB)))
        );
        assert_eq!(
            heap(&["java", "-Xmx1g"], &[("_JAVA_OPTIONS", "-Xss1m -Xmx3G")]),
            Some(("-Xmx3G (in _JAVA_OPTIONS)".to_owned(), JavaHeap::Bytes(3 << 30)))
        );
        assert_eq!(
            heap(&["java", "-XX:MaxRAMPercentage=80.5"], &[]),
            Some((line("-XX:MaxRAMPercentage=80.5"), JavaHeap::Percent(80.5)))
        );
        assert_eq!(
            heap(&["java", "-Xmx64k"], &[("_JAVA_OPTIONS", "-XX:MaxRAMPercentage=80")]),
            Some((line("-Xmx64k"), JavaHeap::Bytes(64 << 10)))
        );
        for nothing in ["-Xmx", "-Xmx0", "-Xmx5q", "-Xmx99999999999t", "-XX:MaxRAMPercentage=NaN"] {
            assert_eq!(heap(&["java", nothing], &[]), None, "{nothing}");
        }
    }

    proptest! {
        #[test]
        fn any_arguments_are_survived(
            arguments in proptest::collection::vec("(--max[-_]old[-_]space[-_]size|-Xmx|-XX:MaxRAMPercentage)?=?.{0,9}", 0..6),
            environ in ".{0,300}",
        ) {
            let mut victim = victim(&[], &[("NODE_OPTIONS", &environ), ("_JAVA_OPTIONS", &environ)]);
            victim.cmdline = Some(arguments);
            let _ = (v8_heap(&victim), java_heap(&victim), is_program(&victim, &["node"]));
        }
    }
}
