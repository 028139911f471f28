//! The JSON form of an OTLP request for logs, as far as it is used here. No I/O, no clock.
//!
//! Own types and not `opentelemetry-proto`: that one brings prost messages of traces and metrics too, and its JSON needs further crates, for what
//! are five objects. The rules are those of <https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>: keys in lowerCamelCase, 64 bit
//! integers as strings, enumerations as numbers, and a key that has nothing to say is absent.

use std::borrow::Cow;

use serde::{Serialize, Serializer};

/// `ExportLogsServiceRequest`: here always of one resource and one scope.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Request<'a> {
    resource_logs: [ResourceLogs<'a>; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceLogs<'a> {
    resource: Resource<'a>,
    scope_logs: [ScopeLogs<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Resource<'a> {
    attributes: &'a [Attribute<'static>],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ScopeLogs<'a> {
    scope: Scope,
    log_records: &'a [Record<'a>],
}

#[derive(Debug, Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

impl<'a> Request<'a> {
    /// A request with these records of one resource.
    pub(super) fn new(resource: &'a [Attribute<'static>], records: &'a [Record<'a>]) -> Self {
        let scope = Scope { name: "killwatch", version: env!("CARGO_PKG_VERSION") };
        let scope_logs = [ScopeLogs { scope, log_records: records }];
        let resource = Resource { attributes: resource };
        Self { resource_logs: [ResourceLogs { resource, scope_logs }] }
    }
}

/// `LogRecord`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record<'a> {
    /// When it was, in ns since 1970.
    #[serde(serialize_with = "as_text")]
    pub(super) time_unix_nano: u64,
    /// When it was seen.
    #[serde(serialize_with = "as_text")]
    pub(super) observed_time_unix_nano: u64,
    /// How bad it is.
    pub(super) severity_number: u8,
    /// The same as a word.
    pub(super) severity_text: &'static str,
    /// What kind of event it is.
    pub(super) event_name: &'static str,
    /// A sentence for people.
    pub(super) body: Value<'a>,
    /// Its attributes, each key once.
    pub(super) attributes: Vec<Attribute<'a>>,
}

/// `KeyValue`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Attribute<'a> {
    /// Its key.
    pub(super) key: Cow<'a, str>,
    /// Its value.
    pub(super) value: Value<'a>,
}

/// `AnyValue`, those kinds of it that are used.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) enum Value<'a> {
    /// A text.
    #[serde(rename = "stringValue")]
    Text(Cow<'a, str>),
    /// True or false.
    #[serde(rename = "boolValue")]
    Flag(bool),
    /// A whole number.
    #[serde(rename = "intValue", serialize_with = "as_text")]
    Whole(i64),
    /// Another number, which must be finite: JSON has none that is not.
    #[serde(rename = "doubleValue")]
    Double(f64),
    /// Several.
    #[serde(rename = "arrayValue")]
    Array(Array<'a>),
}

/// `ArrayValue`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Array<'a> {
    /// What is in it.
    pub(super) values: Vec<Value<'a>>,
}

impl<'a> Value<'a> {
    /// A text.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Self::Text(text.into())
    }
}

/// A 64 bit integer as JSON must have it: readers that take numbers for doubles would round it.
fn as_text<S: Serializer, N: std::fmt::Display>(
    number: &N,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
