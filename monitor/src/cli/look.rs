//! How a page may look where it goes: how wide, with which characters, in colour or not. Decided once, from the terminal and the environment.

use std::ffi::OsString;
use std::io::IsTerminal as _;

use unicode_width::UnicodeWidthStr as _;

/// Width where nothing says one.
const WIDTH: usize = 80;
/// A page is not made for less.
const NARROWEST: usize = 40;
/// Nor for more than this.
const WIDEST: usize = 1000;

/// How a page may look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns that may be used, 40 to 1000. Names are not cut to it.
    pub(crate) width: usize,
    /// Whether sentences are folded to it: on a terminal, which else breaks words.
    pub(crate) folds: bool,
    /// Whether characters beyond ASCII are shown as such.
    pub(crate) unicode: bool,
    /// Whether colours may be used.
    pub(crate) color: bool,
}

impl Look {
    /// For a file: 80 columns of UTF-8, without colours.
    pub(crate) const PLAIN: Self = Self { width: WIDTH, folds: false, unicode: true, color: false };

    /// Of standard output.
    pub(super) fn of_stdout() -> Self {
        let terminal = std::io::stdout().is_terminal();
        Self::of(terminal, columns(), |name| std::env::var_os(name))
    }

    fn of(
        terminal: bool,
        columns: Option<usize>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let told = set("COLUMNS").and_then(|value| value.to_str()?.parse().ok());
        let width = told.filter(|columns| *columns > 0).or(columns).unwrap_or(WIDTH);
        // As setlocale(3) looks them up. Without any, the locale is C.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let locale = locale.map(|locale| locale.to_string_lossy().to_ascii_lowercase());
        let utf8 = |locale: String| locale.contains("utf-8") || locale.contains("utf8");
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: width.clamp(NARROWEST, WIDEST),
            folds: terminal,
            unicode: locale.is_some_and(utf8),
            color: terminal && !dumb && set("NO_COLOR").is_none(),
        }
    }

    /// `text` in a colour of the terminal (ECMA-48 SGR), if there are colours.
    pub(super) fn painted(self, text: &str, code: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A sentence, folded between words if sentences are; what follows the first line is indented. A word that is longer than a line stays whole.
    pub(super) fn folded(self, text: &str, indent: usize) -> String {
        if !self.folds || indent + text.width() <= self.width {
            return text.to_owned();
        }
        let (mut folded, mut column) = (String::with_capacity(text.len()), indent);
        for (place, word) in text.split(' ').enumerate() {
            let wide = word.width();
            if place > 0 && column + 1 + wide > self.width {
                folded.push('\n');
                folded.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else if place > 0 {
                folded.push(' ');
                column += 1;
            }
            folded.push_str(word);
            column += wide;
        }
        folded
    }

    /// `text` in characters that may be shown. Nothing of it is lost: what may not be shown is written as its number.
    pub(super) fn spelled(self, text: String) -> String {
        if self.unicode || text.is_ascii() {
            return text;
        }
        text.chars().fold(String::with_capacity(text.len()), |mut ascii, c| {
            match c {
                '…' => ascii.push_str("..."),
                c if c.is_ascii() => ascii.push(c),
                c => ascii.extend(c.escape_unicode()),
            }
            ascii
        })
    }
}

/// Columns of the terminal; `None` if standard output is none.
pub(super) fn columns() -> Option<usize> {
    let out = std::io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(terminal: bool, columns: Option<usize>, variables: &[(&str, &str)]) -> Look {
        Look::of(terminal, columns, |name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn widths() {
        let width = |columns, told| look(true, columns, &[("COLUMNS", told)]).width;
        assert_eq!((width(Some(120), ""), width(Some(120), "60")), (120, 60));
        assert_eq!((width(None, ""), width(None, "0"), width(None, "wide")), (80, 80, 80));
        assert_eq!((width(Some(10), ""), width(None, "99999999")), (40, 1000));
    }

    #[test]
    fn characters_by_the_locale() {
        let unicode = |variables: &[(&str, &str)]| look(false, None, variables).unicode;
        assert!(unicode(&[("LANG", "de_DE.UTF-8")]) && unicode(&[("LC_CTYPE", "C.utf8")]));
        assert!(!unicode(&[]) && !unicode(&[("LANG", "C")]) && !unicode(&[("LANG", "")]));
        assert!(!unicode(&[("LC_ALL", "C"), ("LANG", "C.UTF-8")]), "LC_ALL goes before all");
        assert!(unicode(&[("LC_ALL", ""), ("LANG", "C.UTF-8")]), "an empty one is none");
    }

    #[test]
    fn colours_on_a_terminal_that_has_them_and_is_not_told_otherwise() {
        let color = |terminal, variables: &[(&str, &str)]| look(terminal, None, variables).color;
        assert!(color(true, &[]) && color(true, &[("NO_COLOR", "")]));
        assert!(!color(false, &[]) && !color(true, &[("NO_COLOR", "1")]));
        assert!(!color(true, &[("TERM", "dumb")]));
        assert_eq!(Look::PLAIN.painted("a", "1"), "a");
        assert_eq!(Look { color: true, ..Look::PLAIN }.painted("a", "1"), "\x1b[1ma\x1b[0m");
    }

    #[test]
    fn sentences_fold_between_words_and_keep_them_all() {
        let narrow = Look { width: 40, folds: true, ..Look::PLAIN };
        let text = "the kernel sent SIGKILL and marked it as its OOM victim, in one go";
        assert_eq!(
            narrow.folded(text, 4),
            "the kernel sent SIGKILL and marked\n    it as its OOM victim, in one go"
        );
        let long = format!("a {} b", "x".repeat(90));
        assert_eq!(narrow.folded(&long, 0), format!("a\n{}\nb", "x".repeat(90)));
        assert_eq!(Look::PLAIN.folded(text, 4), text);
    }

    #[test]
    fn ascii_loses_nothing() {
        let ascii = Look { unicode: false, ..Look::PLAIN };
        assert_eq!(ascii.spelled("größe … \n".into()), "gr\\u{f6}\\u{df}e ... \n");
        assert_eq!(Look::PLAIN.spelled("größe".into()), "größe");
    }
}
