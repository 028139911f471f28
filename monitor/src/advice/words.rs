//! Numbers and names in a sentence, none longer than it may be: they come from strangers, and from arithmetic on what strangers caused.

use crate::death::ProcessMemory;
use crate::text::bytes;

use super::case::holds;

/// Longest path that is shown whole, bytes.
const MAX_PATH: usize = 200;
/// Longest name or value, bytes.
const MAX_WORD: usize = 64;
/// Tags of a process that are shown.
const MAX_TAGS: usize = 2;

/// At most `max` bytes, `…` at the end if there were more.
pub(super) fn cut(mut text: String, max: usize) -> String {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

/// A name of a stranger's choice.
pub(super) fn word(text: &str) -> String {
    cut(text.to_owned(), MAX_WORD)
}

/// The path of a cgroup: of a long one the end, which tells it from others.
pub(super) fn place(path: &str) -> String {
    if path.len() <= MAX_PATH {
        return path.to_owned();
    }
    let end = path.get(path.ceil_char_boundary(path.len() - MAX_PATH)..).unwrap_or_default();
    format!("…{end}")
}

/// A process: its name, pid, what it holds, and what it said of itself.
pub(super) fn process(process: &ProcessMemory) -> String {
    let mut text =
        format!("{} (pid {}, {}", word(&process.comm), process.pid, bytes(holds(process)));
    for (key, value) in process.tags.iter().take(MAX_TAGS) {
        text += &format!(", {}={}", word(key), word(value));
    }
    text + ")"
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

/// A span of time, in the unit that people would use.
pub(super) fn span(seconds: f64) -> String {
    let seconds = seconds.clamp(0.0, 1e9);
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_long_is_cut_between_characters() {
        assert_eq!(cut("é".repeat(10), 9), "ééé…");
        assert_eq!(place("/a"), "/a");
        assert!(place(&format!("/{}/end", "é".repeat(200))).ends_with("/end"));
        assert!(place(&"é".repeat(200)).len() <= MAX_PATH + 3);
    }

    #[test]
    fn spans_are_in_a_unit_that_fits() {
        for (seconds, text) in [
            (0.25, "0.2 s"),
            (59.6, "60 s"),
            (300.0, "5 min"),
            (9000.0, "2 h"),
            (1e300, "11574 days"),
            (f64::NEG_INFINITY, "0.0 s"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }

    #[test]
    fn lists_end_in_and() {
        let of = |n: usize| list(&["a".to_owned(), "b".to_owned(), "c".to_owned()][..n]);
        assert_eq!([of(0), of(1), of(2), of(3)], ["", "a", "a and b", "a, b and c"]);
    }
}
