//! A moment as a person or a program names it: a time, or how long ago. Pure.

use jiff::{Span, SpanRelativeTo, Timestamp};

/// What is allowed: completes "this value …".
pub const ALLOWED: &str =
    "must be a time such as 2026-01-31T12:00:00Z, or a time span such as 90s, 2h or 3d";

/// The moment that a text names: RFC 3339, or a span before `now`, whose days have 24 hours. Months and years are no spans: they
/// differ in length.
#[must_use]
pub fn parse(text: &str, now: Timestamp) -> Option<Timestamp> {
    let ago = || {
        // `12:00:00` would be twelve hours, and is meant as a time of the day.
        let text = Some(text).filter(|text| !text.contains(':'))?;
        let span = text.parse::<Span>().ok()?.to_duration(SpanRelativeTo::days_are_24_hours());
        let span = span.ok().filter(|span| !span.is_negative())?;
        now.checked_sub(span).ok()
    };
    text.parse().ok().or_else(ago)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "2026-01-31T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn times_and_spans() {
        for (text, time) in [
            ("2026-01-31T10:00:00Z", "2026-01-31T10:00:00Z"),
            ("2026-01-31T12:00:00+02:00", "2026-01-31T10:00:00Z"),
            ("0s", "2026-01-31T12:00:00Z"),
            ("90s", "2026-01-31T11:58:30Z"),
            ("500ms", "2026-01-31T11:59:59.5Z"),
            ("15m", "2026-01-31T11:45:00Z"),
            ("2h", "2026-01-31T10:00:00Z"),
            ("1h 30m", "2026-01-31T10:30:00Z"),
            ("3d", "2026-01-28T12:00:00Z"),
            ("1w", "2026-01-24T12:00:00Z"),
            ("PT2H", "2026-01-31T10:00:00Z"),
        ] {
            assert_eq!(parse(text, now()), Some(time.parse().unwrap()), "{text}");
        }
        for bad in [
            "",
            "90",
            "-2h",
            "2h ago",
            "2 fortnights",
            "1y",
            "3mo",
            "yesterday",
            "2026-01-31",
            "12:00:00",
            "99999999d",
            "s",
        ] {
            assert_eq!(parse(bad, now()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_moment_or_none(text in "\\PC{0,40}|-?[0-9]{1,20} ?[a-z]{1,4}") {
            if let Some(moment) = parse(&text, now())
                && text.ends_with(['s', 'm', 'h', 'd']) {
                prop_assert!(moment <= now());
            }
        }
    }
}
