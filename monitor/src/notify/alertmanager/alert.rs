//! A message as an alert: labels, which say who it is, and annotations, which tell a person about it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use reqwest::Url;
use serde::Serialize;
use uuid::Uuid;

use crate::alert::{self, AlertKind, NearLimit, PoisonJob};
use crate::death::{Cause, Death, Job, Workload};
use crate::ledger::Item;
use crate::notify::deliver::Message;
use crate::notify::http::links::Linked;
use crate::notify::sentence;
use crate::notify::summary::Summary;
use crate::text::one_line;

/// Labels that the daemon makes.
pub(super) const LABELS: &[&str] = &[
    "alertname",
    "cause",
    "cgroup",
    "container",
    "container_id",
    "job_id",
    "job_name",
    "namespace",
    "node",
    "pod",
    "severity",
    "unit",
];
/// A label's value is cut to this: bytes. Names of Kubernetes have 253 at most.
pub(super) const MAX_VALUE: usize = 256;
/// So is an annotation's.
const MAX_TEXT: usize = 1024;
/// A longer address is left out: bytes.
const MAX_URL: usize = 2048;

/// Labels: who an alert is.
pub(super) type Labels = BTreeMap<String, String>;

/// An alert, but for when it ends.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alert {
    pub(super) labels: Labels,
    pub(super) annotations: BTreeMap<&'static str, String>,
    pub(super) starts_at: Timestamp,
    pub(super) generator_url: Option<String>,
    /// The message's id.
    pub(super) id: Uuid,
}

/// An alert as it is sent (`postableAlert` of Alertmanager's `api/v2/openapi.yaml`).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Post {
    labels: Labels,
    annotations: BTreeMap<&'static str, String>,
    starts_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    ends_at: Option<Timestamp>,
    #[serde(rename = "generatorURL", skip_serializing_if = "Option::is_none")]
    generator_url: Option<String>,
}

impl Alert {
    /// As it is sent, with an end. An end before the start is not allowed, and comes of a clock that was set back.
    pub(super) fn post(&self, ends: Option<Timestamp>) -> Post {
        Post {
            labels: self.labels.clone(),
            annotations: self.annotations.clone(),
            starts_at: ends.map_or(self.starts_at, |ends| self.starts_at.min(ends)),
            ends_at: ends,
            generator_url: self.generator_url.clone(),
        }
    }
}

/// Makes alerts.
#[derive(Debug)]
pub(super) struct Maker {
    /// Further labels.
    pub(super) labels: Labels,
    /// Addresses that go with a death.
    pub(super) linked: Linked,
}

impl Maker {
    /// The alert of a message. A summary's is that of the death that it follows, if that is known still.
    pub(super) fn make(&self, message: &Message, follows: Option<&Alert>) -> Alert {
        match message {
            Message::Entry(entry) => match &entry.item {
                Item::Death(death) => self.of_death(death),
                Item::Alert(alert) => {
                    let mut made = match &alert.kind {
                        AlertKind::PoisonJob(poison) => self.of_poison(poison, &alert.node),
                        AlertKind::NearLimit(near) => self.of_near_limit(near, alert),
                    };
                    (made.starts_at, made.id) = (alert.time, alert.id);
                    made
                }
            },
            Message::Summary(summary) => match follows {
                Some(first) => prolonged(first, summary),
                None => self.of_summary(summary),
            },
        }
    }

    fn of_death(&self, death: &Death) -> Alert {
        let url = |url: Option<String>| url.filter(|url| url.len() <= MAX_URL);
        let dashboard = url(self.linked.dashboard(death));
        let what = format!("process {} (pid {})", death.victim.comm, death.victim.pid);
        let evidence = death.evidence.join("; ");
        let description = format!("{} on {}, {what}: {evidence}", who(&death.workload), death.node);
        let mut annotations = BTreeMap::from([
            ("summary", told(death.cause).summary.to_owned()),
            ("description", text(&description)),
            ("advice", text(&death.advice)),
            ("death_id", death.id.to_string()),
        ]);
        annotations.extend(url(self.linked.runbook(death)).map(|url| ("runbook_url", url)));
        annotations.extend(dashboard.clone().map(|url| ("dashboard_url", url)));
        Alert {
            labels: self.labels_of(death.cause, &death.node, &death.workload, death.job.as_ref()),
            annotations,
            starts_at: death.time,
            generator_url: dashboard.filter(|url| is_url(url)),
            id: death.id,
        }
    }

    fn of_summary(&self, summary: &Summary) -> Alert {
        let job = match &*summary.jobs {
            [id] => Some(Job { id: Some(id.clone()), ..Job::default() }),
            _ => None,
        };
        let alert = Alert {
            labels: self.labels_of(summary.summary, &summary.node, &summary.workload, job.as_ref()),
            annotations: BTreeMap::from([
                ("summary", told(summary.summary).summary.to_owned()),
                ("description", text(&format!("{} on {}", who(&summary.workload), summary.node))),
                ("death_id", summary.follows.to_string()),
            ]),
            starts_at: summary.first,
            generator_url: None,
            id: summary.follows,
        };
        prolonged(&alert, summary)
    }

    fn of_poison(&self, poison: &PoisonJob, node: &str) -> Alert {
        let job = &poison.job;
        let name = job.id.as_ref().or(job.name.as_ref()).map_or("without a name", String::as_str);
        let (count, window) = (poison.deaths.len(), poison.window_seconds);
        let description =
            format!("Job {name} on {node} was killed {count} times within {window} s.");
        let mut labels = self.labels.clone();
        put(&mut labels, "alertname", Some("KillwatchPoisonJob"));
        put(&mut labels, "severity", Some("critical"));
        put(&mut labels, "node", Some(node));
        put_job(&mut labels, Some(job));
        let last = poison.deaths.last();
        let mut annotations = BTreeMap::from([
            ("summary", "A job is killed again and again.".to_owned()),
            ("description", text(&description)),
            (
                "advice",
                "Take the job out of its queue until it is known why it is killed.".to_owned(),
            ),
            ("count", count.to_string()),
        ]);
        annotations.extend(last.map(|death| ("death_id", death.id.to_string())));
        // Time and id are the alert's own, which the caller knows.
        Alert {
            labels,
            annotations,
            starts_at: Timestamp::UNIX_EPOCH,
            generator_url: None,
            id: Uuid::nil(),
        }
    }

    fn of_near_limit(&self, near: &NearLimit, alert: &alert::Alert) -> Alert {
        let mut labels = self.labels.clone();
        put(&mut labels, "alertname", Some("KillwatchContainerNearLimit"));
        put(&mut labels, "severity", Some("warning"));
        put(&mut labels, "node", Some(&alert.node));
        put_workload(&mut labels, &near.workload);
        put_job(&mut labels, near.job.as_ref());
        let annotations = BTreeMap::from([
            ("summary", "A container is close to its memory limit.".to_owned()),
            ("description", text(&sentence::of_alert(alert))),
            (
                "advice",
                "Look at what grows, and raise the limit or take work away before it is killed."
                    .to_owned(),
            ),
        ]);
        // Time and id are the alert's own, which the caller knows.
        Alert {
            labels,
            annotations,
            starts_at: Timestamp::UNIX_EPOCH,
            generator_url: None,
            id: Uuid::nil(),
        }
    }

    fn labels_of(
        &self,
        cause: Cause,
        node: &str,
        workload: &Workload,
        job: Option<&Job>,
    ) -> Labels {
        let Told { name, severity, .. } = told(cause);
        let mut labels = self.labels.clone();
        put(&mut labels, "alertname", Some(name));
        put(&mut labels, "severity", Some(severity));
        put(&mut labels, "node", Some(node));
        put(&mut labels, "cause", Some(cause.as_str()));
        put_workload(&mut labels, workload);
        put_job(&mut labels, job);
        labels
    }
}

/// The alert once more, with how many deaths followed.
fn prolonged(alert: &Alert, summary: &Summary) -> Alert {
    let mut more = alert.clone();
    let (count, first, last) = (summary.count, summary.first, summary.time);
    more.annotations.insert("count", count.to_string());
    let was = more.annotations.get("description").map_or("", String::as_str);
    let was = was.split(FOLLOWED).next().unwrap_or_default();
    let followed = format!("{FOLLOWED}{count} more of it from {first} to {last}.");
    let room = MAX_TEXT.saturating_sub(followed.len());
    let start = was.get(..was.floor_char_boundary(room)).unwrap_or_default();
    more.annotations.insert("description", format!("{start}{followed}"));
    more
}

/// Begins what a summary says behind what the death said.
const FOLLOWED: &str = " | Then ";

/// How a cause is told.
struct Told {
    name: &'static str,
    severity: &'static str,
    summary: &'static str,
}

const fn told(cause: Cause) -> Told {
    let (name, severity, summary) = match cause {
        Cause::OomMemcg => (
            "KillwatchContainerOOMKilled",
            "warning",
            "The kernel's OOM killer killed a process at its memory limit.",
        ),
        Cause::OomGlobal => (
            "KillwatchHostOOMKilled",
            "critical",
            "The host ran out of memory and the kernel's OOM killer killed a process.",
        ),
        Cause::OomCpuset => (
            "KillwatchHostOOMKilled",
            "critical",
            "The memory nodes of a cpuset were full and the kernel's OOM killer killed a process.",
        ),
        Cause::OomMempolicy => (
            "KillwatchHostOOMKilled",
            "critical",
            "The memory nodes of a policy were full and the kernel's OOM killer killed a process.",
        ),
        Cause::OomUserspace => (
            "KillwatchUserspaceOOMKilled",
            "warning",
            "An OOM killer in user space killed a process.",
        ),
        Cause::OomCollateral => (
            "KillwatchContainerOOMKilled",
            "warning",
            "The kernel's OOM killer killed a process that shared a victim's memory.",
        ),
        Cause::StopTimeout => (
            "KillwatchStopTimeout",
            "warning",
            "A process was killed because it did not stop in time.",
        ),
        Cause::Killed => (
            "KillwatchProcessKilled",
            "warning",
            "A process was ended by a signal from another one.",
        ),
        Cause::PidnsTeardown => (
            "KillwatchProcessKilled",
            "warning",
            "A process was killed because the first process of its container ended.",
        ),
        Cause::Abort => ("KillwatchProcessCrashed", "warning", "A process aborted."),
        Cause::Crash => ("KillwatchProcessCrashed", "warning", "A process crashed."),
        Cause::Rlimit => {
            ("KillwatchResourceLimitHit", "warning", "A process was ended by a resource limit.")
        }
        Cause::Relayed => {
            ("KillwatchProcessDied", "info", "A process passed on the end of its child.")
        }
        Cause::Unknown => ("KillwatchProcessDied", "info", "A process ended abnormally."),
    };
    Told { name, severity, summary }
}

/// The workload, as a description opens with it.
fn who(workload: &Workload) -> String {
    let container = workload.container.as_deref();
    match (&workload.namespace, &workload.pod, container, &workload.unit, &workload.cgroup) {
        (Some(namespace), Some(pod), Some(container), ..) => {
            format!("Pod {namespace}/{pod} ({container})")
        }
        (Some(namespace), Some(pod), None, ..) => format!("Pod {namespace}/{pod}"),
        (None, Some(pod), ..) => format!("Pod {pod}"),
        (_, None, Some(container), ..) => format!("Container {container}"),
        (.., Some(unit), _) => format!("Unit {unit}"),
        (.., Some(cgroup)) => format!("Cgroup {cgroup}"),
        _ => "A process".to_owned(),
    }
}

fn put_workload(labels: &mut Labels, workload: &Workload) {
    put(labels, "namespace", workload.namespace.as_deref());
    put(labels, "pod", workload.pod.as_deref());
    put(labels, "container", workload.container.as_deref());
    put(labels, "unit", workload.unit.as_deref());
    // Without any name, alerts of different workloads would be one.
    let named = workload.pod.is_some() || workload.container.is_some() || workload.unit.is_some();
    match (&workload.container_id, &workload.cgroup) {
        _ if named => {}
        (Some(id), _) => put(labels, "container_id", Some(id)),
        (None, cgroup) => put(labels, "cgroup", cgroup.as_deref()),
    }
}

fn put_job(labels: &mut Labels, job: Option<&Job>) {
    let Some(job) = job else { return };
    put(labels, "job_id", job.id.as_deref());
    if job.id.is_none() {
        put(labels, "job_name", job.name.as_deref());
    }
}

fn put(labels: &mut Labels, name: &str, value: Option<&str>) {
    // To Alertmanager a label without a value is none.
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        labels.insert(name.to_owned(), cut(value, MAX_VALUE));
    }
}

fn text(text: &str) -> String {
    cut(text, MAX_TEXT)
}

/// On one line, at most `max` bytes.
fn cut(text: &str, max: usize) -> String {
    let mut line = one_line(text);
    if line.len() > max {
        line.truncate(line.floor_char_boundary(max - '…'.len_utf8()));
        line.push('…');
    }
    line
}

fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}
