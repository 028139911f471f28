//! What the API's answer to an Event means. No I/O, no clock.

use std::time::Duration;

use serde::Deserialize;

use crate::containers::kubernetes::api::Written;
use crate::notify::deliver::Failure;
use crate::text::one_line;

/// Longest wait that the API may ask for.
const MAX_AFTER: Duration = Duration::from_secs(3600);
/// Characters of the API's own words that are told.
const MAX_WORDS: usize = 300;

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// To make an Event.
    Create,
    /// To change one.
    Patch,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    /// It is there.
    Done,
    /// The Event to change is gone: Events are kept for an hour unless the API is set up otherwise.
    EventGone,
    /// Something is in the way.
    Failed(Failure),
}

/// The API's `Status`, as far as it matters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    reason: String,
    message: String,
    details: Option<Details>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    kind: String,
    causes: Option<Vec<StatusCause>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
}

impl Status {
    fn is_of_dying_namespace(&self) -> bool {
        let causes = self.details.as_ref().and_then(|details| details.causes.as_ref());
        causes.is_some_and(|causes| causes.iter().any(|c| c.reason == "NamespaceTerminating"))
            // What servers before Kubernetes 1.17 say.
            || self.message.contains("because it is being terminated")
    }

    fn is_of_missing_namespace(&self) -> bool {
        let kind = self.details.as_ref().map_or("", |details| details.kind.as_str());
        self.reason == "NotFound" && kind == "namespaces"
    }
}

/// Judges what the API answered to an Event in `namespace`.
pub(super) fn judge(asked: Asked, namespace: &str, written: &Written) -> Came {
    let status: Status = serde_json::from_slice(&written.body).unwrap_or_default();
    let words: String = one_line(&status.message).chars().take(MAX_WORDS).collect();
    let said = if words.is_empty() { String::new() } else { format!(": {words}") };
    let code = written.status;
    let later = |why: String| {
        let after = written.retry_after.map(|after| Duration::from_secs(after).min(MAX_AFTER));
        Came::Failed(Failure::Later { why, after })
    };
    let refused = |why: String| Came::Failed(Failure::Refused(why));
    match (code, asked) {
        (200..=299, _) => Came::Done,
        (404, Asked::Patch) => Came::EventGone,
        // The name is the death's own, so what is there is this Event.
        (409, Asked::Create) if status.reason != "Conflict" => Came::Done,
        (403, _) if status.is_of_dying_namespace() => {
            refused(format!("the namespace {namespace} is being deleted"))
        }
        (404, Asked::Create) if status.is_of_missing_namespace() => {
            refused(format!("the namespace {namespace} is gone"))
        }
        (401, _) => later(format!(
            "401: the Kubernetes API does not know these credentials; a token may have run out{said}"
        )),
        (403, _) => later(format!(
            "403: not allowed in the namespace {namespace}; the daemon's role needs the rule \
             {{apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}}{said}"
        )),
        (404, Asked::Create) => later(format!(
            "404: what answers has no events.k8s.io/v1, which Kubernetes has from 1.19 on: is the address that of its API?{said}"
        )),
        // A timeout of the server's own, a conflict, too many requests, and whatever is wrong with the server.
        (408 | 409 | 429 | 500..=599, _) => {
            later(format!("the Kubernetes API answered {code}{said}"))
        }
        // The request does not follow anybody elsewhere.
        (300..=399, _) => later(format!(
            "the Kubernetes API answered {code}, which leads elsewhere: is the address that of the API?"
        )),
        _ => refused(format!("the Kubernetes API answered {code}{said}")),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::{Value, json};

    use super::*;

    fn of(asked: Asked, status: u16, body: &Value) -> Came {
        let written = Written { status, retry_after: Some(7), body: body.to_string().into() };
        judge(asked, "shop", &written)
    }

    fn why(came: Came) -> String {
        match came {
            Came::Failed(Failure::Later { why, after }) => {
                assert_eq!(after, Some(Duration::from_secs(7)));
                format!("later: {why}")
            }
            Came::Failed(Failure::Refused(why)) => format!("refused: {why}"),
            other => panic!("{other:?}"),
        }
    }

    fn status(reason: &str, message: &str) -> Value {
        json!({"kind": "Status", "reason": reason, "message": message})
    }

    #[test]
    fn what_is_there_is_there() {
        for status in [200, 201, 202] {
            assert_eq!(of(Asked::Create, status, &json!({"kind": "Event"})), Came::Done);
            assert_eq!(of(Asked::Patch, status, &json!({"kind": "Event"})), Came::Done);
        }
        let there = status("AlreadyExists", r#"events.events.k8s.io "killwatch.x" already exists"#);
        assert_eq!(of(Asked::Create, 409, &there), Came::Done);
        let conflict = status("Conflict", "the object has been modified");
        assert!(why(of(Asked::Create, 409, &conflict)).starts_with("later: "));
        assert!(why(of(Asked::Patch, 409, &conflict)).starts_with("later: "));
    }

    #[test]
    fn rights_that_are_missing_are_named() {
        let no = status("Forbidden", r#"User "system:serviceaccount:k:k" cannot create resource"#);
        let said = why(of(Asked::Create, 403, &no));
        assert!(said.starts_with("later: 403"), "{said}");
        assert!(said.contains("events.k8s.io") && said.contains("[create, patch]"), "{said}");
        assert!(said.contains("system:serviceaccount:k:k") && said.contains("shop"), "{said}");
        assert!(why(of(Asked::Patch, 401, &json!({}))).starts_with("later: 401"));
    }

    #[test]
    fn a_namespace_that_goes_takes_no_events() {
        let mut going = status("Forbidden", "events.events.k8s.io \"x\" is forbidden");
        going["details"] = json!({"causes": [{"reason": "NamespaceTerminating", "message": "…"}]});
        assert!(why(of(Asked::Create, 403, &going)).starts_with("refused: "));
        let old = "unable to create new content in namespace shop because it is being terminated";
        assert!(why(of(Asked::Create, 403, &status("Forbidden", old))).starts_with("refused: "));
        let mut gone = status("NotFound", r#"namespaces "shop" not found"#);
        gone["details"] = json!({"kind": "namespaces", "name": "shop"});
        assert!(why(of(Asked::Create, 404, &gone)).starts_with("refused: "));
        // Another server, or another API: nothing that the namespace could help.
        assert!(why(of(Asked::Create, 404, &json!("404 page not found"))).starts_with("later: "));
        assert_eq!(of(Asked::Patch, 404, &gone), Came::EventGone);
    }

    #[test]
    fn every_status_has_a_meaning() {
        for code in 100..600 {
            for asked in [Asked::Create, Asked::Patch] {
                for body in ["", "{}", "[]", "null", "{\"details\":null,\"message\":7}", "\u{0}"] {
                    let body = Bytes::from(body);
                    let came =
                        judge(asked, "ns", &Written { status: code, retry_after: None, body });
                    let done =
                        (200..300).contains(&code) || (code == 409 && asked == Asked::Create);
                    assert_eq!(came == Came::Done, done, "{code}");
                    if matches!(code, 429 | 500..=599) {
                        assert!(matches!(came, Came::Failed(Failure::Later { .. })), "{code}");
                    }
                    if matches!(code, 400 | 413 | 422) {
                        assert!(matches!(came, Came::Failed(Failure::Refused(_))), "{code}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_the_api_says_is_short_and_its_wait_bounded() {
        let long = status("Invalid", &"é\n".repeat(9000));
        assert!(why(of(Asked::Create, 422, &long)).chars().count() < 400);
        let body = Bytes::from_static(b"{}");
        let written = Written { status: 429, retry_after: Some(u64::MAX), body };
        let came = judge(Asked::Create, "ns", &written);
        let Came::Failed(Failure::Later { after, .. }) = came else { panic!("{came:?}") };
        assert_eq!(after, Some(MAX_AFTER));
    }
}
