//! What strangers wrote, as it may stand in a page. Pure.
//!
//! Nothing of it is markup: maud escapes what HTML knows. Nothing of it is hidden or turns its neighbours around either: a character that takes no
//! place of its own, or changes the order of others, is shown as its number, and each text stands in a `<bdi>`, so that one of a language that is
//! written from the right stays within itself.

use maud::{Escaper, Markup, PreEscaped, Render, html};
use std::fmt::Write as _;

use crate::text::is_plain;

/// A text of whomever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown<'a>(pub(super) &'a str);

impl Render for Shown<'_> {
    fn render_to(&self, page: &mut String) {
        html! { bdi { (Marked(self.0)) } }.render_to(page);
    }
}

/// Its characters, those that would not be seen as their numbers.
struct Marked<'a>(&'a str);

impl Render for Marked<'_> {
    fn render_to(&self, page: &mut String) {
        for part in self.0.split_inclusive(|c| !is_plain(c)) {
            let strange = part.chars().next_back().filter(|c| !is_plain(*c));
            let plain = strange.map_or(part, |c| part.strip_suffix(c).unwrap_or(part));
            // Writing to a String cannot fail.
            let _ = Escaper::new(page).write_str(plain);
            if let Some(c) = strange {
                numbered(c).render_to(page);
            }
        }
    }
}

fn numbered(c: char) -> Markup {
    // It is backslash, letters, digits and braces.
    html! { span .strange title="a character that would not be seen" { (PreEscaped(c.escape_default().to_string())) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text_and_what_is_hidden_shows() {
        let shown = Shown("<b a=\"'&\">\u{202e}\n\u{200b}é").render().into_string();
        let strange = |c: &str| {
            format!(
                "<span class=\"strange\" title=\"a character that would not be seen\">{c}</span>"
            )
        };
        assert_eq!(
            shown,
            format!(
                "<bdi>&lt;b a=&quot;'&amp;&quot;&gt;{}{}{}é</bdi>",
                strange(r"\u{202e}"),
                strange(r"\n"),
                strange(r"\u{200b}")
            )
        );
    }
}
