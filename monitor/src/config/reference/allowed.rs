//! What may stand under a key, in the daemon's own words: a value that nothing takes is put there, and the refusal is turned round.

use serde_json::{Value, json};

use crate::config::file;

/// Values of which everything refuses one.
const WRONG: [&str; 2] = ["\u{1}", "(\u{1}/\n"];

/// The least that a kind of sink needs.
const LEAST: &[(&str, &str)] = &[
    ("stdout", "{}"),
    ("file", r#"{"path": "/d"}"#),
    ("journald", "{}"),
    ("webhook", r#"{"url": "http://h"}"#),
    ("alertmanager", r#"{"urls": ["http://h"]}"#),
    ("otlp", r#"{"endpoint": "http://h"}"#),
    ("kubernetes_events", "{}"),
];

/// An item of each list, and an entry of each map, of which there may be too many. `#` is another number in each.
const ITEMS: &[(&str, &str)] = &[
    ("web.listen_address", r#""127.0.0.1:1""#),
    ("environ.allow", r#""A""#),
    ("workload.labels", r#""a""#),
    ("workload.annotations", r#""a""#),
    ("verdict.userspace_oom_killers", r#""a""#),
    ("protect.keep", r#""CAP_SYSLOG""#),
    ("jobs.rules", r##"{"rule": "r#", "id": [{"tag": "a"}]}"##),
    ("sinks", r#"{"journald": {}}"#),
    ("filter.causes", r#""killed""#),
    ("filter.namespaces", r#""a""#),
    ("alertmanager.urls", r#""http://h""#),
    ("alertmanager.labels", r##"{"l#": "v"}"##),
    ("otlp.resource_attributes", r##"{"a#": "v"}"##),
    ("http.headers", r##"{"x-#": "v"}"##),
];

/// Puts a value under a key such as `a.b.c`.
fn at(key: &str, value: Value) -> Value {
    key.rsplit('.').fold(value, |value, name| json!({ name: value }))
}

/// Puts `more` into `value`, object by object.
fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, more) in from {
                merge(into.entry(key).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more,
    }
}

/// A configuration in which `value` stands under a key: of the top level, or (`sink` has its kind) of a sink.
pub(super) fn config_with(sink: Option<&str>, key: &str, value: Value) -> Value {
    let Some(kind) = sink else { return at(key, value) };
    let (_, least) = LEAST.iter().find(|(name, _)| *name == kind).unwrap();
    let mut item = at(kind, serde_json::from_str(least).unwrap());
    merge(&mut item, at(key, value));
    json!({ "log_sink": "none", "sinks": [item] })
}

/// How it is refused; `None` if it is not.
pub(super) fn refusal(config: &Value) -> Option<String> {
    let parsed = file::parse(config.to_string().as_bytes());
    let checked = parsed.and_then(|config| config.named_sinks().map(|_| ()));
    let text = checked.err()?;
    Some(text.rsplit_once(" (line ").map_or(text.clone(), |(text, _)| text.to_owned()))
}

/// What may stand under a key, in words.
pub(super) fn allowed(sink: Option<&str>, key: &str) -> String {
    let refused = |shape: fn(&str) -> Value| {
        let mut tried = WRONG.iter().map(|wrong| config_with(sink, key, shape(wrong)));
        tried.find_map(|config| refusal(&config)).unwrap_or_else(|| panic!("{key} takes anything"))
    };
    let scalar = refused(|wrong| wrong.into());
    if scalar.ends_with("expected sequence start") {
        let each = refused(|wrong| json!([wrong]));
        // An item with keys of its own.
        let has_keys = ["expected mapping start", "invalid type: string"];
        let has_keys = has_keys.iter().any(|words| each.contains(words));
        let each = if has_keys { String::new() } else { format!(", each {}", in_words(&each)) };
        return format!("a list{}{each}", how_many(sink, key));
    }
    if scalar.ends_with("expected mapping start") {
        let entry = in_words(&refused(|wrong| json!({ wrong: wrong })));
        return format!("a map{}: {entry}", how_many(sink, key));
    }
    in_words(&scalar)
}

/// A refusal, turned round.
fn in_words(refusal: &str) -> String {
    assert!(!refusal.contains("unknown field"), "{refusal}");
    if let Some((_, names)) = refusal.split_once("expected one of ") {
        let names: Vec<String> = names.split(", ").map(|name| format!("`{name}`")).collect();
        return names.join(", ");
    }
    if refusal.ends_with("invalid boolean") {
        return "`true`, `false`".into();
    }
    let (_, must) = refusal.split_once(": must ").unwrap_or_else(|| panic!("{refusal}"));
    let must = must.strip_suffix("; there is no value for \"unlimited\"").unwrap_or(must);
    let words = must.strip_prefix("be ").or_else(|| must.strip_prefix("have ")).unwrap_or(must);
    let whole = |range: &str| range.split(", such as").next().unwrap_or_default().to_owned();
    if let Some(range) = words.strip_prefix("a number of bytes from ") {
        let range = whole(range);
        let (min, max) = range.split_once(" to ").unwrap();
        return format!("a size from {} to {}", size(min), size(max));
    }
    match words.strip_prefix("a time span with its unit from ") {
        Some(range) => format!("a time span from {}", whole(range)),
        None if words.starts_with("a power of two") => whole(words),
        None => words.to_owned(),
    }
}

/// How many items there may be, if that is bounded by more than the file's length.
fn how_many(sink: Option<&str>, key: &str) -> String {
    let name = key.strip_prefix("webhook.").unwrap_or(key);
    let Some((_, item)) = ITEMS.iter().find(|(known, _)| *known == name) else {
        return String::new();
    };
    let items =
        (0..2_000).map(|n| serde_json::from_str(&item.replace('#', &n.to_string())).unwrap());
    let items: Vec<Value> = items.collect();
    let is_map = item.starts_with('{') && !matches!(key, "sinks" | "jobs.rules");
    let many = if is_map {
        items
            .into_iter()
            .reduce(|mut all, one| {
                merge(&mut all, one);
                all
            })
            .unwrap()
    } else {
        Value::from(items)
    };
    let text =
        refusal(&config_with(sink, key, many)).unwrap_or_else(|| panic!("{key} has no bound"));
    let (_, bound) = text.rsplit_once("must have ").unwrap_or_else(|| panic!("{key}: {text}"));
    let bound = bound.split(',').next().unwrap_or(bound);
    format!(" of {}", bound.trim_end_matches(|c: char| c.is_alphabetic() || c == ' '))
}

/// Bytes as a configuration may have them.
pub(super) fn size(bytes: &str) -> String {
    let bytes: u64 = bytes.parse().unwrap();
    let units = [("TiB", 1u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.iter().find(|(_, unit)| bytes.is_multiple_of(*unit));
    unit.map_or(bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}
