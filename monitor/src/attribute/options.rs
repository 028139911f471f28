//! Of the variables that hold a JVM's options only what is about memory is kept. The rest may hold what is nobody's business: a password in `-D…`, a
//! token in an agent's options, a command in `-XX:OnOutOfMemoryError=…`. Pure.

use super::environ::MAX_VALUE;

/// Bytes of such a value that are looked at: what matters may stand behind a long agent.
pub(super) const MAX_READ: usize = 4096;

/// The variables.
const NAMES: [&str; 3] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"];

/// Whether a variable holds a JVM's options.
pub(super) fn are(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Those about memory, one blank between each, at most [`MAX_VALUE`] bytes; `None` if there are none. Of a value that was `cut` the last word may be a part of
/// one, and is left out.
pub(super) fn about_memory(value: &[u8], cut: bool) -> Option<String> {
    let mut words: Vec<&[u8]> = value.split(u8::is_ascii_whitespace).collect();
    if cut {
        words.pop();
    }
    let mut kept = String::new();
    for word in words.into_iter().filter_map(|word| std::str::from_utf8(word).ok()) {
        if is_about_memory(word) && kept.len() + 1 + word.len() <= MAX_VALUE {
            if !kept.is_empty() {
                kept.push(' ');
            }
            kept.push_str(word);
        }
    }
    Some(kept).filter(|kept| !kept.is_empty())
}

/// Sizes, percentages and switches: nothing in them can be a text of somebody's own.
fn is_about_memory(word: &str) -> bool {
    let is_number = |text: &str| {
        let text = text.strip_suffix(|c: char| "kKmMgGtT".contains(c)).unwrap_or(text);
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.')
    };
    let is_name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if let Some(flag) = word.strip_prefix("-XX:") {
        return match (flag.strip_prefix(['+', '-']), flag.split_once('=')) {
            (Some(switch), _) => is_name(switch),
            (None, Some((name, value))) => is_name(name) && is_number(value),
            (None, None) => false,
        };
    }
    ["-Xmx", "-Xms", "-Xmn", "-Xss"]
        .iter()
        .any(|flag| word.strip_prefix(flag).is_some_and(is_number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_kept() {
        let value = b"-Ddb.password=hunter2 -Xmx512m -javaagent:/a.jar=token=hunter2  -XX:MaxRAMPercentage=75.0\n-XX:+UseG1GC \
            -XX:OnOutOfMemoryError=hunter2 -Xms0x -Xmx\xff -XX:+a=hunter2 @hunter2 -XX: -XX:HeapDumpPath=/hunter2 -Xlog:gc -Xss1M";
        assert_eq!(
            about_memory(value, false).unwrap(),
            "-Xmx512m -XX:MaxRAMPercentage=75.0 -XX:+UseG1GC -Xss1M"
        );
        assert_eq!(about_memory(b"-Da=b hunter2", false), None);
        assert_eq!(about_memory(b"", true), None);
    }

    #[test]
    fn half_a_word_is_none() {
        assert_eq!(about_memory(b"-Xms1g -Xmx1", true).unwrap(), "-Xms1g");
        let long = "-Xmx1g ".repeat(100);
        assert!(about_memory(long.as_bytes(), false).unwrap().len() <= MAX_VALUE);
    }
}
