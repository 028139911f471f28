//! What an Event says. No I/O, no clock.
//!
//! The bounds are those of the API server (pkg/apis/core/validation/events.go): it refuses an Event that exceeds one of them, and a change of
//! anything but the series.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::containers::pods::is_name;
use crate::death::{Cause, Workload};

/// Who reports, as the API wants it: a qualified name.
const CONTROLLER: &str = "killwatch.io/killwatch";
/// Longest note, in bytes.
const MAX_NOTE: usize = 1024;
/// Longest name of the reporting instance, in bytes.
const MAX_INSTANCE: usize = 128;
/// A pod's uid is 36 bytes, or the 32 of a static pod's hash.
const MAX_UID: usize = 64;

/// A pod that an Event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its namespace.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// Its uid, as its node knows it.
    pub(super) uid: String,
    /// The container in it.
    pub(super) container: Option<String>,
}

/// Whether a workload is a pod.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// It is this one.
    Pod(Pod),
    /// It is none, or its names are not known.
    None,
    /// It is named as no pod can be.
    Impossible,
}

impl Subject {
    /// The pod of a workload.
    pub(super) fn of(workload: &Workload) -> Self {
        let (Some(namespace), Some(name), Some(uid)) =
            (&workload.namespace, &workload.pod, &workload.pod_uid)
        else {
            return Self::None;
        };
        // The names go into a path, and come from whoever labels containers.
        if !is_name(namespace) || !is_name(name) || !is_name(uid) || uid.len() > MAX_UID {
            return Self::Impossible;
        }
        let container = workload.container.clone().filter(|container| is_name(container));
        Self::Pod(Pod {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            container,
        })
    }
}

/// An Event.
#[derive(Debug)]
pub(super) struct Event<'a> {
    /// Its own id, from which its name comes.
    pub(super) id: Uuid,
    /// The pod that it is about.
    pub(super) pod: &'a Pod,
    /// The node.
    pub(super) node: &'a str,
    /// When it was.
    pub(super) time: Timestamp,
    /// Why, as one word.
    pub(super) reason: &'static str,
    /// What was done.
    pub(super) action: &'static str,
    /// What people are told.
    pub(super) note: String,
    /// How often it was seen and when last, if more than once.
    pub(super) series: Option<(u64, Timestamp)>,
}

impl Event<'_> {
    /// It as the API wants it.
    pub(super) fn json(&self) -> Value {
        let mut regarding = json!({
            "apiVersion": "v1", "kind": "Pod",
            "namespace": self.pod.namespace, "name": self.pod.name, "uid": self.pod.uid,
        });
        if let Some(container) = &self.pod.container {
            // As the kubelet has it. Whether it is an init container is not known here.
            regarding["fieldPath"] = format!("spec.containers{{{container}}}").into();
        }
        let mut event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": name(self.id), "namespace": self.pod.namespace},
            "eventTime": micro(self.time),
            "reportingController": CONTROLLER,
            "reportingInstance": cut(self.node, MAX_INSTANCE),
            "action": self.action, "reason": self.reason, "type": "Warning",
            "note": note(&self.note),
            "regarding": regarding,
            "related": {"apiVersion": "v1", "kind": "Node", "name": self.node},
        });
        // The API refuses a series of fewer than two.
        if let Some((count, last)) = self.series.filter(|(count, _)| *count >= 2) {
            event["series"] = series(count, last);
        }
        event
    }
}

/// What makes a series of an Event, as a merge patch.
pub(super) fn patch(count: u64, last: Timestamp) -> Value {
    json!({"series": series(count.max(2), last)})
}

fn series(count: u64, last: Timestamp) -> Value {
    // The API counts in 32 bits.
    json!({"count": count.min(i32::MAX as u64), "lastObservedTime": micro(last)})
}

/// The name of the Event of a death, an alert or a summary.
pub(super) fn name(id: Uuid) -> String {
    format!("killwatch.{id}")
}

/// Where Events of a namespace are made.
pub(super) fn path(namespace: &str) -> String {
    format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events")
}

/// Why a pod's process died, as one word: what `kubectl get events` shows, and what people filter by.
pub(super) const fn reason(cause: Cause) -> &'static str {
    match cause {
        Cause::OomMemcg
        | Cause::OomGlobal
        | Cause::OomCpuset
        | Cause::OomMempolicy
        | Cause::OomCollateral => "OOMKilled",
        Cause::OomUserspace => "UserspaceOOMKilled",
        Cause::StopTimeout => "StopTimedOut",
        Cause::Killed => "Killed",
        Cause::PidnsTeardown => "PidNamespaceEnded",
        Cause::Abort => "Aborted",
        Cause::Crash => "Crashed",
        Cause::Rlimit => "ResourceLimitHit",
        Cause::Relayed => "ChildDied",
        Cause::Unknown => "DiedUnexplained",
    }
}

/// A time as the API reads it: with six digits of a second, no more and no fewer.
fn micro(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// A note that fits.
fn note(text: &str) -> String {
    if text.len() <= MAX_NOTE {
        return text.to_owned();
    }
    const MARK: &str = "…";
    cut(text, MAX_NOTE - MARK.len()).to_owned() + MARK
}

/// The start of a text, at most `max` bytes, up to the end of a character.
fn cut(text: &str, max: usize) -> &str {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    fn pod() -> Pod {
        match Subject::of(&sample::in_a_pod().workload) {
            Subject::Pod(pod) => pod,
            other => panic!("{other:?}"),
        }
    }

    fn event(pod: &Pod) -> Event<'_> {
        let death = sample::in_a_pod();
        Event {
            id: death.id,
            pod,
            node: "node-1",
            time: death.time,
            reason: reason(death.cause),
            action: "Killed",
            note: "worker (pid 4242) was killed.".to_owned(),
            series: None,
        }
    }

    #[test]
    fn a_whole_event() {
        let text = serde_json::to_string_pretty(&event(&pod()).json()).unwrap() + "\n";
        crate::golden::check_named("kubernetes_event.json", &text);
    }

    #[test]
    fn the_bounds_of_the_api_hold() {
        let (pod, node) = (pod(), "n".repeat(253));
        for (filler, bytes) in [("x", 1024), ("é", 1023), ("€", 1023), ("🦀", 1023)] {
            let note = filler.repeat(2000);
            let event = Event { node: &node, note, ..event(&pod) }.json();
            assert_eq!(event["note"].as_str().unwrap().len(), bytes, "{filler}");
            assert_eq!(event["reportingInstance"].as_str().unwrap().len(), 128);
            assert_eq!(event["related"]["name"], node.as_str());
        }
        let exact = "x".repeat(1024);
        assert_eq!(Event { note: exact.clone(), ..event(&pod) }.json()["note"], exact.as_str());
        for cause in Cause::ALL {
            let reason = reason(*cause);
            assert!(reason.starts_with(|c: char| c.is_ascii_uppercase()) && reason.len() <= 128);
            assert!(reason.bytes().all(|b| b.is_ascii_alphanumeric()), "{reason}");
        }
        assert!(is_name(&name(Uuid::max())));
    }

    #[test]
    fn times_have_six_digits() {
        for (time, text) in [
            ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000Z"),
            ("2026-01-31T12:00:00.123456789Z", "2026-01-31T12:00:00.123456Z"),
            ("2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.500000Z"),
        ] {
            assert_eq!(micro(time.parse().unwrap()), text);
        }
    }

    #[test]
    fn a_series_is_two_or_more() {
        let (pod, last) = (pod(), "2026-01-31T12:05:00Z".parse().unwrap());
        let with = |count| Event { series: Some((count, last)), ..event(&pod) }.json();
        assert_eq!(with(1).get("series"), None);
        assert_eq!(with(2)["series"]["count"], 2);
        assert_eq!(with(2)["series"]["lastObservedTime"], "2026-01-31T12:05:00.000000Z");
        assert_eq!(patch(u64::MAX, last)["series"]["count"], i32::MAX);
    }

    #[test]
    fn what_no_pod_is_named_has_no_event() {
        let known = sample::in_a_pod().workload;
        assert_eq!(Subject::of(&sample::killed().workload), Subject::None);
        let nameless = Workload { pod: None, ..known.clone() };
        assert_eq!(Subject::of(&nameless), Subject::None);
        assert_eq!(Subject::of(&Workload { pod_uid: None, ..known.clone() }), Subject::None);
        for nasty in ["", "..", "a/b", "../kube-system", "a?b", "a b", "é", ") Z\n", "a%2f"] {
            let nasty = Some(nasty.to_owned());
            for workload in [
                Workload { namespace: nasty.clone(), ..known.clone() },
                Workload { pod: nasty.clone(), ..known.clone() },
                Workload { pod_uid: nasty.clone(), ..known.clone() },
            ] {
                assert_eq!(Subject::of(&workload), Subject::Impossible, "{nasty:?}");
            }
            let contained = Workload { container: nasty, ..known.clone() };
            assert!(
                matches!(Subject::of(&contained), Subject::Pod(pod) if pod.container.is_none())
            );
        }
    }
}
