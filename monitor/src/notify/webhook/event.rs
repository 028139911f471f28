//! A message as a CloudEvent (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>).

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use uuid::Uuid;

use super::{Template, lean};
use crate::alert::{Alert, AlertKind};
use crate::death::Workload;
use crate::ledger::Item;
use crate::notify::deliver::Message;
use crate::notify::http::links::Linked;
use crate::text::one_line;

/// No event is longer: bytes. What receivers are to take at least, as the specification says.
pub const MAX_EVENT: usize = 64 << 10;
/// Nor is what it is about: bytes.
const MAX_SUBJECT: usize = 512;
/// A longer address is left out: bytes.
const MAX_URL: usize = 2048;

/// Of the strings of an event that is too long, no more is kept: bytes, tried in this order.
const CUTS: [usize; 3] = [1024, 256, 64];

/// What a segment of a path has as it is (RFC 3986, `unreserved`).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// An event but for its data.
#[derive(Serialize)]
struct Envelope {
    specversion: &'static str,
    id: Uuid,
    source: String,
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: Timestamp,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    runbookurl: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dashboardurl: Option<String>,
}

impl Envelope {
    fn of(message: &Message, linked: &Linked) -> Self {
        let facts = facts(message);
        let death = match message {
            Message::Entry(entry) => entry.death(),
            Message::Summary(_) => None,
        };
        let link = |url: Option<String>| url.filter(|url| url.len() <= MAX_URL);
        Self {
            specversion: "1.0",
            id: facts.id,
            source: format!("/killwatch/{}", utf8_percent_encode(facts.node, SEGMENT)),
            r#type: format!("io.killwatch.{}.v{}", facts.kind, facts.schema),
            subject: facts.subject.map(|text| plain(&text)),
            time: facts.time,
            datacontenttype: "application/json",
            runbookurl: link(death.and_then(|death| linked.runbook(death))),
            dashboardurl: link(death.and_then(|death| linked.dashboard(death))),
        }
    }

    fn around(&self, data: &RawValue) -> serde_json::Result<Vec<u8>> {
        // Not by `flatten`, which would make a value of the data first.
        let mut json = serde_json::to_vec(self)?;
        if json.pop() == Some(b'}') {
            json.extend_from_slice(b",\"data\":");
            json.extend_from_slice(data.get().as_bytes());
            json.push(b'}');
        }
        Ok(json)
    }
}

/// What a message says of itself.
struct Facts<'a> {
    id: Uuid,
    node: &'a str,
    kind: &'static str,
    schema: u32,
    time: Timestamp,
    subject: Option<String>,
}

fn facts(message: &Message) -> Facts<'_> {
    match message {
        Message::Entry(entry) => match &entry.item {
            Item::Death(death) => Facts {
                id: death.id,
                node: &death.node,
                kind: "death",
                schema: death.schema,
                time: death.time,
                subject: subject(&death.workload),
            },
            Item::Alert(alert) => Facts {
                id: alert.id,
                node: &alert.node,
                kind: "alert",
                schema: alert.schema,
                time: alert.time,
                subject: of_alert(alert),
            },
        },
        Message::Summary(summary) => Facts {
            id: summary.id,
            node: &summary.node,
            kind: "summary",
            schema: summary.schema,
            time: summary.time,
            subject: subject(&summary.workload),
        },
    }
}

/// The message's id, the same however often it is sent.
pub(super) fn id(message: &Message) -> Uuid {
    facts(message).id
}

/// One event as JSON, at most [`MAX_EVENT`] bytes.
///
/// # Errors
/// If it has no JSON form.
pub(super) fn encode(
    message: &Message,
    template: Template,
    linked: &Linked,
) -> Result<Vec<u8>, String> {
    try_encode(message, template, linked)
        .map_err(|error| format!("the record cannot be written as JSON: {error}"))
}

fn try_encode(
    message: &Message,
    template: Template,
    linked: &Linked,
) -> serde_json::Result<Vec<u8>> {
    let envelope = Envelope::of(message, linked);
    if template == Template::Full {
        let json = match message {
            // The very bytes of the ledger: whatever a later version wrote into them arrives.
            Message::Entry(entry) => envelope.around(serde_json::from_slice(&entry.json)?)?,
            Message::Summary(summary) => envelope.around(&to_raw_value(&**summary)?)?,
        };
        if json.len() <= MAX_EVENT {
            return Ok(json);
        }
    }
    let mut data = lean::of(message)?;
    let mut json = envelope.around(&to_raw_value(&data)?)?;
    for max in CUTS {
        if json.len() <= MAX_EVENT {
            break;
        }
        lean::cut(&mut data, max);
        json = envelope.around(&to_raw_value(&data)?)?;
    }
    Ok(json)
}

/// The workload, by the name that people know it by.
fn subject(workload: &Workload) -> Option<String> {
    let pod = workload.pod.as_ref().map(|pod| match &workload.namespace {
        Some(namespace) => format!("{namespace}/{pod}"),
        None => pod.clone(),
    });
    pod.or_else(|| workload.unit.clone())
        .or_else(|| workload.container.clone())
        .or_else(|| workload.cgroup.clone())
        .filter(|subject| !subject.is_empty())
}

fn of_alert(alert: &Alert) -> Option<String> {
    match &alert.kind {
        AlertKind::PoisonJob(poison) => {
            poison.job.id.clone().or_else(|| poison.job.name.clone()).filter(|job| !job.is_empty())
        }
        AlertKind::NearLimit(near) => subject(&near.workload),
    }
}

/// A text as an attribute may have it: no control characters, no noncharacters, not too long.
fn plain(text: &str) -> String {
    let noncharacter = |c: char| {
        matches!(u32::from(c) & 0xffff, 0xfffe | 0xffff) || ('\u{fdd0}'..='\u{fdef}').contains(&c)
    };
    let mut plain = one_line(text).replace(noncharacter, "\u{fffd}");
    plain.truncate(plain.floor_char_boundary(MAX_SUBJECT));
    plain
}
