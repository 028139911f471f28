//! When a receiver wants to be asked again: the header `Retry-After` (RFC 9110, 10.2.3).

use std::time::{Duration, SystemTime};

use jiff::Timestamp;

/// The longest wait that a receiver may ask for. A longer one is cut to it: no receiver keeps a sink silent for good.
pub const MAX: Duration = Duration::from_secs(3600);

/// How long to wait from `now` on, for the text of the header: seconds, or a date in any of HTTP's three forms. `None` if it is neither; a date that is
/// past is no wait.
#[must_use]
pub fn parse(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim_matches([' ', '\t']);
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // Only a number beyond any cap does not fit.
        return Some(text.parse().map_or(MAX, Duration::from_secs).min(MAX));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::from(now)).unwrap_or_default().min(MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn now() -> Timestamp {
        "1994-11-06T08:49:37Z".parse().unwrap()
    }

    #[test]
    fn seconds_and_dates() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (text, wait) in [
            ("0", seconds(0)),
            (" 120\t", seconds(120)),
            ("99999999999999999999999999", Some(MAX)),
            ("3601", Some(MAX)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", seconds(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", seconds(60)),
            ("Sun Nov  6 08:50:37 1994", seconds(60)),
            ("Sun, 06 Nov 1994 08:49:36 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:50:37 CET", None),
            ("Sun, 31 Feb 1994 08:50:37 GMT", None),
        ] {
            assert_eq!(parse(text, now()), wait, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_bounded(text in ".{0,64}", now in -1_000_000_000i64..4_000_000_000) {
            let now = Timestamp::from_second(now).unwrap();
            prop_assert!(parse(&text, now).is_none_or(|wait| wait <= MAX));
        }

        #[test]
        fn any_number_is_taken(seconds: u64) {
            let wait = parse(&seconds.to_string(), now());
            prop_assert_eq!(wait, Some(Duration::from_secs(seconds).min(MAX)));
        }

        #[test]
        fn any_date_is_the_time_until_it(from in 0u64..4_000_000_000, ahead in 0u64..10_000) {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(from + ahead);
            let now = Timestamp::from_second(i64::try_from(from).unwrap()).unwrap();
            let wait = parse(&httpdate::fmt_http_date(at), now);
            prop_assert_eq!(wait, Some(Duration::from_secs(ahead).min(MAX)));
        }
    }
}
