//! The page for a ticket: GitHub's Markdown of the same sections. Pure.
//!
//! No text of a stranger is markup. What is special is written with a backslash; what a forge makes of a bare text (names after `@`, numbers after `#`,
//! addresses) is broken by a piece of code, and what would not be seen shows as its number.

use std::fmt::Write as _;

use super::{Item, Rows, Section, draw, headline, sections};
use crate::cli::look::Look;
use crate::death::Death;
use crate::text::is_plain;

/// Width of the plot: what a ticket shows without scrolling.
const WIDTH: usize = 76;

/// The page, its last line ended by a newline.
pub(crate) fn markdown(death: &Death) -> String {
    let mut page = format!("## {}\n", safe(&headline(death)));
    for Section { title, items } in sections(death) {
        // Writing to a String cannot fail.
        let _ = write!(page, "\n### {title}\n\n");
        page.push_str(&section(&items));
    }
    let _ = write!(page, "\nRecord `{}`\n", death.id);
    page
}

fn section(items: &[Item]) -> String {
    let mut text = String::new();
    let mut in_list = false;
    for item in items {
        let is_list = matches!(item, Item::Line(_) | Item::Value(..));
        // A list ends by an empty line, and so does what comes before one.
        if is_list != in_list && !text.is_empty() {
            text.push('\n');
        }
        in_list = is_list;
        // Writing to a String cannot fail.
        let _ = match item {
            Item::Line(line) => {
                writeln!(text, "- {}", safe(line.strip_prefix("- ").unwrap_or(line)))
            }
            Item::Value(name, value) => writeln!(text, "- **{name}**: {}", safe(value)),
            Item::Plot(plot) => {
                let look = Look { width: WIDTH, ..Look::PLAIN };
                writeln!(text, "```text\n{}\n```", draw::draw(plot, look).join("\n"))
            }
            Item::Table(rows) => write!(text, "{}", table(rows)),
        };
    }
    text
}

fn table(rows: &Rows) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(rows.columns.iter().map(|name| (*name).to_owned()).collect());
    text.push_str(&line(rows.columns.iter().map(|_| "---".to_owned()).collect()));
    for row in &rows.rows {
        text.push_str(&line(row.iter().map(|cell| cell_of(cell)).collect()));
    }
    text
}

fn cell_of(text: &str) -> String {
    safe(text.trim_start())
}

/// Text in a line of Markdown that is nothing but text.
pub(crate) fn safe(text: &str) -> String {
    // A space at an end is no text, and four at the begin are code.
    let text = text.trim_matches(' ');
    let mut safe = String::with_capacity(text.len() + 8);
    let mut in_code = false;
    for (at, c) in text.char_indices() {
        let code = would_lead_elsewhere(text, at, c);
        if code != in_code {
            safe.push('`');
            in_code = code;
        }
        match c {
            c if code => safe.push(c),
            c if is_special(c) || is_mark_of_list(text, at, c) => {
                safe.push('\\');
                safe.push(c);
            }
            c if is_plain(c) => safe.push(c),
            c => {
                for c in c.escape_default() {
                    safe.extend(is_special(c).then_some('\\'));
                    safe.push(c);
                }
            }
        }
    }
    if in_code {
        safe.push('`');
    }
    safe
}

const fn is_special(c: char) -> bool {
    matches!(
        c,
        '\\' | '`'
            | '*'
            | '_'
            | '['
            | ']'
            | '<'
            | '>'
            | '|'
            | '~'
            | '!'
            | '$'
            | '&'
            | '{'
            | '}'
            | '^'
    )
}

/// Whether a character at the begin of a line would make it an item of a list, or a rule.
fn is_mark_of_list(text: &str, at: usize, c: char) -> bool {
    let next = text.get(at + c.len_utf8()..).and_then(|rest| rest.chars().next());
    let ends = next.is_none_or(char::is_whitespace);
    match c {
        '-' | '+' | '=' => at == 0 && (ends || next == Some(c)),
        '.' | ')' => ends && text.get(..at).is_some_and(is_number),
        _ => false,
    }
}

/// Whether a character would make a bare text name somebody, another ticket, or an address.
fn would_lead_elsewhere(text: &str, at: usize, c: char) -> bool {
    match c {
        '@' | '#' => true,
        ':' => text.get(at..).is_some_and(|rest| rest.starts_with("://")),
        '.' => is_address(text, at),
        _ => false,
    }
}

/// Whether the dot at `at` ends a `www`.
fn is_address(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let tail = before.len().checked_sub(3).and_then(|from| before.get(from..));
    tail.is_some_and(|tail| tail.eq_ignore_ascii_case("www"))
}

/// Whether it is what a numbered list begins with.
fn is_number(text: &str) -> bool {
    let text = text.trim_start();
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use pulldown_cmark::{Event, Options, Parser, Tag};

    use super::*;
    use crate::death::sample;
    use crate::text::plain;

    /// What a reader sees of a text that stands in a line, and whether anything of it is markup.
    fn seen(markdown: &str) -> (String, bool) {
        let (mut text, mut is_markup) = (String::new(), false);
        let options = Options::all() - Options::ENABLE_SMART_PUNCTUATION;
        for event in Parser::new_ext(markdown, options) {
            match event {
                Event::Text(part) | Event::Code(part) => text.push_str(&part),
                Event::Start(Tag::Paragraph) | Event::End(_) => {}
                _ => is_markup = true,
            }
        }
        (text, is_markup)
    }

    proptest! {
        #[test]
        fn a_reader_sees_the_text_and_nothing_else(
            text in "\\PC{0,40}|.{0,40}|[-+*_~`#@!:.|<>&$^\\[\\](){}\\\\ 0-9a-c\n\t]{0,30}",
        ) {
            let (shown, is_markup) = seen(&format!("x{}", safe(&text)));
            prop_assert!(!is_markup, "{}", safe(&text));
            let wanted = plain(text.trim_matches(' '));
            prop_assert_eq!(shown, format!("x{wanted}"));
            let (alone, is_markup) = seen(&safe(&text));
            prop_assert!(!is_markup, "{}", safe(&text));
            prop_assert_eq!(alone, wanted);
        }
    }

    #[test]
    fn a_page_of_hostile_names_has_no_more_markup_than_one_of_plain_ones() {
        let kinds = |death: &Death| -> Vec<String> {
            Parser::new_ext(&markdown(death), Options::all())
                .filter(|event| {
                    !matches!(event, Event::Text(_) | Event::Code(_) | Event::SoftBreak)
                })
                .map(|event| format!("{event:?}"))
                .collect()
        };
        let mut death = sample::memory::leak();
        let expected = kinds(&death);
        for text in [
            "a | b",
            "</td><script>",
            "```\n# x",
            "![x](y)",
            "[x]: y",
            "<!--",
            "*a* **b**",
            "\\",
            "|",
            "`",
            "@x #1 https://x www.x.y",
        ] {
            death.victim.comm = text.into();
            death.workload.image = Some(text.into());
            death.advice = text.into();
            for process in &mut death.memory.processes {
                process.comm = text.into();
                process.tags = [("k".to_owned(), text.to_owned())].into();
            }
            for finding in &mut death.findings {
                (finding.evidence, finding.advice) = (text.into(), text.into());
            }
            assert_eq!(kinds(&death), expected, "{text}");
        }
    }

    #[test]
    fn nothing_of_a_stranger_is_markup() {
        for (text, said) in [
            ("plain-text (1.5) ok", "plain-text (1.5) ok"),
            ("*a*_b_`c`", r"\*a\*\_b\_\`c\`"),
            ("<script>&amp;", r"\<script\>\&amp;"),
            ("[x](javascript:1)![y](z)", r"\[x\](javascript:1)\!\[y\](z)"),
            ("a@b #1 @@", "a`@`b `#`1 `@@`"),
            ("https://evil.example", "https`:`//evil.example"),
            ("www.evil.example", "www`.`evil.example"),
            ("@://", "`@:`//"),
            ("| cell", r"\| cell"),
            ("- item", r"\- item"),
            ("--- rule", r"\--- rule"),
            ("12. item", r"12\. item"),
            ("3.5 MiB, -2 or +3", "3.5 MiB, -2 or +3"),
            ("    code", "code"),
            ("a\nb\u{202e}c", r"a\\nb\\u\{202e\}c"),
        ] {
            assert_eq!(safe(text), said, "{text}");
        }
    }
}
