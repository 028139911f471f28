//! What a receiver's answer means, where OTLP differs from other HTTP. No I/O, no clock.
//!
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp-response>: of the errors of a server only 429, 502, 503 and 504 may be sent again; a partial
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
    /// It is not to be sent again, though other receivers would be tried again.
    Final,
    /// It was not taken, and what that means is the same as for other receivers. Credentials or an address that want mending are among these: the specification
    /// would drop what comes meanwhile.
    AsOthers,
}

/// Judges an answer by its status and its body, which may have been cut off.
pub(super) fn judge(status: u16, body: &[u8]) -> Answered {
    match status {
        200..=299 => Answered::Taken { rejected: rejected(body) },
        408 | 425 | 500 | 501 | 505..=599 => Answered::Final,
        _ => Answered::AsOthers,
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
    fn of_a_servers_errors_only_those_are_tried_again_that_the_specification_names() {
        let are = |answered| {
            let all = (100..600).filter(move |status| judge(*status, b"{}") == answered);
            all.collect::<Vec<u16>>()
        };
        assert_eq!(are(Answered::Taken { rejected: 0 }), (200..300).collect::<Vec<_>>());
        let others = are(Answered::AsOthers);
        assert!([302, 400, 401, 404, 410, 413, 429].iter().all(|status| others.contains(status)));
        let server: Vec<_> = others.into_iter().filter(|status| *status >= 500).collect();
        assert_eq!(server, [502, 503, 504]);
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
