//! What is told of a death, an alert or a summary: one record of a log each. No I/O, no clock.

use jiff::Timestamp;
use uuid::Uuid;

use super::attributes::Attributes;
use super::wire::{Record, Value};
use crate::alert::{Alert, AlertKind};
use crate::death::Death;
use crate::ledger::Item;
use crate::notify::deliver::Message;
use crate::notify::sentence;
use crate::notify::summary::Summary;

/// How bad something is: `SeverityNumber`, and the word for it.
type Severity = (u8, &'static str);
const WARN: Severity = (13, "WARN");
const ERROR: Severity = (17, "ERROR");
const FATAL: Severity = (21, "FATAL");

/// The record of a message.
pub(super) fn record(message: &Message) -> Record<'_> {
    match message {
        Message::Entry(entry) => match &entry.item {
            Item::Death(death) => of_death(death),
            Item::Alert(alert) => of_alert(alert),
        },
        Message::Summary(summary) => of_summary(summary),
    }
}

fn of_death(death: &Death) -> Record<'_> {
    let mut attributes = Attributes::default();
    attributes.text("killwatch.id", Some(death.id.to_string()));
    attributes.number("killwatch.schema", Some(death.schema));
    attributes.death(death);
    let body = sentence::of_death(death);
    made("killwatch.death", ERROR, (death.id, death.time), body, attributes)
}

fn of_alert(alert: &Alert) -> Record<'_> {
    let mut attributes = Attributes::default();
    attributes.text("killwatch.id", Some(alert.id.to_string()));
    attributes.number("killwatch.schema", Some(alert.schema));
    attributes.text("killwatch.alert", Some(alert.kind.name()));
    let severity = match &alert.kind {
        AlertKind::PoisonJob(poison) => {
            attributes.job(&poison.job);
            attributes.number("killwatch.window_seconds", Some(poison.window_seconds));
            attributes.number("killwatch.count", Some(poison.deaths.len()));
            let ids = poison.deaths.iter().map(|death| death.id.to_string());
            attributes.texts("killwatch.deaths", ids);
            // The last one's, as in the sentence.
            let last = poison.deaths.last();
            attributes.text("killwatch.cause", last.map(|death| death.cause.as_str()));
            FATAL
        }
        AlertKind::NearLimit(near) => {
            attributes.workload(&near.workload);
            if let Some(job) = &near.job {
                attributes.job(job);
            }
            attributes.number("killwatch.memory.usage", Some(near.usage_bytes));
            attributes.number("killwatch.memory.unreclaimable", Some(near.unreclaimable_bytes));
            attributes.number("killwatch.memory.limit", Some(near.limit_bytes));
            attributes.text("killwatch.memory.limit_cgroup", Some(near.limit_cgroup.as_str()));
            attributes.fraction("killwatch.memory.share", Some(near.share));
            attributes.fraction("killwatch.memory.growth_per_minute", near.growth_bytes_per_minute);
            attributes.fraction("killwatch.memory.seconds_left", near.seconds_left);
            WARN
        }
    };
    let body = sentence::of_alert(alert);
    made("killwatch.alert", severity, (alert.id, alert.time), body, attributes)
}

fn of_summary(summary: &Summary) -> Record<'_> {
    let mut attributes = Attributes::default();
    attributes.text("killwatch.id", Some(summary.id.to_string()));
    attributes.number("killwatch.schema", Some(summary.schema));
    attributes.text("killwatch.cause", Some(summary.summary.as_str()));
    attributes.number("killwatch.count", Some(summary.count));
    attributes.text("killwatch.first", Some(summary.first.to_string()));
    attributes.text("killwatch.follows", Some(summary.follows.to_string()));
    attributes.texts("killwatch.jobs", summary.jobs.iter().map(String::as_str));
    attributes.texts("killwatch.deaths", summary.deaths.iter().map(Uuid::to_string));
    attributes.workload(&summary.workload);
    let body = sentence::of_summary(summary);
    made("killwatch.summary", ERROR, (summary.id, summary.time), body, attributes)
}

fn made<'a>(
    event_name: &'static str,
    (severity_number, severity_text): Severity,
    (id, time): (Uuid, Timestamp),
    body: String,
    attributes: Attributes<'a>,
) -> Record<'a> {
    let time = u64::try_from(time.as_nanosecond()).unwrap_or_default();
    Record {
        time_unix_nano: time,
        observed_time_unix_nano: observed(id).map_or(time, |observed| observed.max(time)),
        severity_number,
        severity_text,
        event_name,
        body: Value::text(body),
        attributes: attributes.into_vec(),
    }
}

/// When an id of version 7 was made, to the millisecond, in ns since 1970: that was as killwatch learnt of what it names. So a record that is sent
/// again is the same to the byte.
fn observed(id: Uuid) -> Option<u64> {
    let made = Some(id).filter(|id| id.get_version_num() == 7)?.get_timestamp()?;
    let (seconds, nanos) = made.to_unix();
    seconds.checked_mul(1_000_000_000)?.checked_add(u64::from(nanos))
}
