//! Bytes from the kernel as text. They come from whoever runs on the node and may hold anything.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

/// Bytes up to the first zero, as text. What is UTF-8 stays as it is, control characters included; every other byte is written
/// `\xNN`, so that two different names never look the same.
#[must_use]
pub fn from_c(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    from_bytes(&bytes[..end])
}

/// Like [`from_c`], zeros included.
#[must_use]
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Text that is safe on one line of a terminal: control characters and newlines escaped.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// Whether a character takes a place of its own and does nothing but that: no control character, none without a width (Unicode annex 11), none that
/// changes the order of what follows or ends a line (annex 9; U+2028 and U+2029).
#[must_use]
pub fn is_plain(c: char) -> bool {
    let turns = matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.width().is_some_and(|width| width > 0) && !turns && !c.is_control()
}

/// Text that does nothing but take places: what is not [plain](is_plain) shows as its number.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if is_plain(c) {
            plain.push(c);
        } else {
            plain.extend(c.escape_default());
        }
    }
    plain
}

/// Bytes in IEC units, one decimal: `32.0 MiB`.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut units = UNITS.iter();
    let mut unit = units.next().unwrap_or(&"KiB");
    while value >= 1023.95
        && let Some(larger) = units.next()
    {
        value /= 1024.0;
        unit = larger;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_shows_as_its_number() {
        assert_eq!(plain("a\u{202e}\0b\n"), r"a\u{202e}\u{0}b\n");
        assert_eq!(plain("größe 漢"), "größe 漢");
    }

    #[test]
    fn keeps_utf8_and_marks_the_rest() {
        assert_eq!(from_c(b") Z\n\"} 1\0junk"), ") Z\n\"} 1");
        assert_eq!(from_c(b"a\xffb\xc3\xa9"), "a\\xffbé");
        assert_eq!(from_c(&[b'x'; 16]), "x".repeat(16));
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(one_line("a\n\x1b[31mb"), "a\\n\\u{1b}[31mb");
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(32 << 20), "32.0 MiB");
        assert_eq!(bytes((1 << 20) - 1), "1.0 MiB");
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
    }
}
