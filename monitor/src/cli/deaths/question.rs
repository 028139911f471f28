//! Which deaths are asked for, and how that is written in a URL. Pure.

use std::fmt::Write as _;

use crate::ledger::Filter;

/// Which deaths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Question {
    /// Conditions; the viewer is whoever runs this.
    pub(super) filter: Filter,
    /// At most so many, the newest.
    pub(super) limit: usize,
}

impl Question {
    /// The request for at most `limit` of them: the newest, or the oldest `after` a place.
    pub(super) fn path(&self, limit: usize, after: Option<u64>) -> String {
        let filter = &self.filter;
        let mut path = format!("/api/v1/deaths?limit={limit}");
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(value) = value {
                // Writing to a String cannot fail.
                let _ = write!(path, "&{key}={}", encoded(value));
            }
        };
        add("after", after.map(|after| after.to_string()).as_deref());
        add("since", filter.since.map(|time| time.to_string()).as_deref());
        add("until", filter.until.map(|time| time.to_string()).as_deref());
        add("job", filter.job.as_deref());
        add("pod", filter.pod.as_deref());
        add("container", filter.container.as_deref());
        filter.causes.iter().for_each(|cause| add("cause", Some(cause.as_str())));
        path
    }
}

/// Percent-encoded: all but the unreserved characters of RFC 3986.
pub(in crate::cli) fn encoded(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::Cause;

    #[test]
    fn a_question_in_a_url() {
        let filter = Filter {
            since: Some("2026-01-31T12:00:00Z".parse().unwrap()),
            until: Some("2026-01-31T12:00:00.5Z".parse().unwrap()),
            causes: vec![Cause::Crash, Cause::OomMemcg],
            job: Some("a b&c=ü%\n".into()),
            pod: Some("shop/web".into()),
            container: Some("containerd://abc".into()),
            ..Filter::default()
        };
        let question = Question { filter, limit: 7 };
        assert_eq!(
            question.path(5, Some(42)),
            "/api/v1/deaths?limit=5&after=42&since=2026-01-31T12%3A00%3A00Z\
             &until=2026-01-31T12%3A00%3A00.5Z&job=a%20b%26c%3D%C3%BC%25%0A&pod=shop%2Fweb\
             &container=containerd%3A%2F%2Fabc&cause=crash&cause=oom_memcg"
        );
        assert_eq!(Question::default().path(1, None), "/api/v1/deaths?limit=1");
    }
}
