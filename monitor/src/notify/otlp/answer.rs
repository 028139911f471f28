//! What a receiver's answer means. No I/O, no clock.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>: what may be sent again is 429, 502, 503 and 504, and nothing else; a partial
//! success is a success.

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answered {
    /// It was taken.
    Taken {
        /// Records that were not: they are lost, by the receiver's word.
        rejected: u64,
    },
    /// It may be taken later.
    Later,
    /// It is to be sent to another address.
    Elsewhere,
    /// The receiver wants nothing any more.
    Gone,
    /// It is larger than the receiver takes, or something in it is wrong: what it consists of may be taken.
    Refused,
}

/// Judges an answer by its status and its body, which may have been cut off.
pub(super) fn judge(status: u16, body: &[u8]) -> Answered {
    match status {
        200..=299 => Answered::Taken { rejected: rejected(body) },
        300..=399 => Answered::Elsewhere,
        429 | 502 | 503 | 504 => Answered::Later,
        410 => Answered::Gone,
        _ => Answered::Refused,
    }
}

/// `ExportLogsServiceResponse`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    #[serde(alias = "partial_success")]
    partial_success: Option<Partial>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Partial {
    #[serde(alias = "rejected_log_records")]
    rejected_log_records: Option<Number>,
}

/// A string by the rules; numbers are met too.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(u64),
    Text(String),
    Nonsense(IgnoredAny),
}

/// How many records were rejected. What cannot be read says nothing: the status has said that it was taken.
fn rejected(body: &[u8]) -> u64 {
    let read: Response = serde_json::from_slice(body).unwrap_or_default();
    match read.partial_success.and_then(|partial| partial.rejected_log_records) {
        Some(Number::Whole(number)) => number,
        Some(Number::Text(text)) => text.parse().unwrap_or_default(),
        Some(Number::Nonsense(_)) | None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_sent_again_is_what_the_specification_says() {
        let are = |answered| {
            let all = (100..600).filter(move |status| judge(*status, b"{}") == answered);
            all.collect::<Vec<u16>>()
        };
        assert_eq!(are(Answered::Later), [429, 502, 503, 504]);
        assert_eq!(are(Answered::Taken { rejected: 0 }), (200..300).collect::<Vec<_>>());
        assert_eq!(are(Answered::Gone), [410]);
        assert_eq!(are(Answered::Elsewhere), (300..400).collect::<Vec<_>>());
    }

    #[test]
    fn a_partial_success_is_read_in_each_form_that_is_met() {
        for body in [
            r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":" too\nold "}}"#,
            r#"{"partialSuccess":{"errorMessage":"old","rejectedLogRecords":3,"new":[{}]},"x":1}"#,
            r#"{"partial_success":{"rejected_log_records":"3","error_message":"old"}}"#,
        ] {
            assert_eq!(judge(200, body.as_bytes()), Answered::Taken { rejected: 3 }, "{body}");
        }
    }

    #[test]
    fn what_says_nothing_rejects_nothing() {
        for body in [
            "",
            "{}",
            "null",
            r#"{"partialSuccess":null}"#,
            r#"{"partialSuccess":{}}"#,
            r#"{"partialSuccess":{"errorMessage":"a warning"}}"#,
            r#"{"partialSuccess":{"rejectedLogRecords":"-1","errorMessage":""}}"#,
            r#"{"partialSuccess":{"rejectedLogRecords":[1],"errorMessage":null}}"#,
            r#"{"partialSuccess":7}"#,
            "\u{a}\u{4}\u{8}\u{3}",
            r#"{"partialSuccess":{"rejectedLogRecords":"3"#,
        ] {
            assert_eq!(judge(200, body.as_bytes()), Answered::Taken { rejected: 0 }, "{body}");
        }
    }
}
