//! `sinks:` as it is written: a list, each item one kind with its settings, and what all kinds have in common.
//!
//! An item is read key by key and not by serde's `flatten`, which would lose both the place of a mistake and the bounded numbers' own syntax.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::LogSink;
use super::filter::FilterConfig;
use super::kind::Kind;
use crate::config::{AbsolutePath, Count, Period, Refused, values};

/// More sinks are refused: each has a task, and label values of its own.
pub const MAX_SINKS: usize = 16;
/// Name of the sink that `log_sink` stands for.
pub const LOG: &str = "log";

/// How long deaths of one workload and cause are gathered; 0 for not at all.
pub type Group = Period<0, 300_000, 86_400_000>;
/// Messages a second at most.
pub type Rate = Count<1, 100, 10_000>;

/// The keys that all kinds have.
const COMMON: [&str; 4] = ["name", "filter", "group", "rate"];
/// All keys of an item: the kinds and the common ones.
const FIELDS: &[&str] = &{
    let mut fields = [""; Kind::KEYS.len() + COMMON.len()];
    let mut i = 0;
    while i < fields.len() {
        fields[i] = if i < Kind::KEYS.len() { Kind::KEYS[i] } else { COMMON[i - Kind::KEYS.len()] };
        i += 1;
    }
    fields
};

/// One item of `sinks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkConfig {
    /// What it speaks to.
    pub kind: Kind,
    /// What it is called in the log, the status and the metrics, and what its place in the ledger is kept under. By default its kind, with `-` for `_`; `kind-2` for the second of it.
    pub name: Option<SinkName>,
    /// What it is told.
    pub filter: FilterConfig,
    /// How long deaths of one workload and cause are gathered; `0s` for not at all. By default as [`SinkConfig::group`] says.
    pub group: Option<Group>,
    /// Messages a second at most. By default as [`SinkConfig::rate`] says.
    pub rate: Option<Rate>,
}

impl SinkConfig {
    /// A sink with nothing set but what it speaks to.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self { kind, name: None, filter: FilterConfig::default(), group: None, rate: None }
    }

    /// How long deaths of one workload and cause are gathered; `None` for not at all. What is local gets each death by default.
    #[must_use]
    pub fn group(&self) -> Option<Duration> {
        let default = (!self.kind.is_local()).then(|| Group::default().get());
        self.group.map_or(default, |group| Some(group.get())).filter(|group| !group.is_zero())
    }

    /// Messages a second at most. What is local has no default bound but the ceiling.
    #[must_use]
    pub fn rate(&self) -> usize {
        let default = if self.kind.is_local() { 10_000 } else { Rate::default().get() };
        self.rate.map_or(default, Rate::get)
    }
}

/// Name of a sink: 1 to 32 of `a-z0-9-`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub struct SinkName(String);

impl SinkName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SinkName {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=32).contains(&text.len()) && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new("must be 1 to 32 of `a-z`, `0-9` and `-`"))
    }
}

impl fmt::Display for SinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

values::through_from_str!(SinkName);

/// Gives each sink its name: its own, else its kind, `kind-2` for the second of that kind and so on; and `log` to the one that `log_sink` stands for.
///
/// # Errors
/// If there are too many, a name is there twice, or two write to the same output.
pub fn named(sinks: &[SinkConfig], log: &LogSink) -> Result<Vec<(String, SinkConfig)>, String> {
    if sinks.len() > MAX_SINKS {
        let n = sinks.len();
        return Err(format!(
            "sinks: a list of {n} is not allowed: must have 0 to {MAX_SINKS} items"
        ));
    }
    let of_log = Kind::of_log_sink(log).map(|kind| ("log_sink".to_owned(), SinkConfig::of(kind)));
    let places = sinks.iter().enumerate().map(|(i, sink)| (format!("sinks[{i}]"), sink.clone()));
    let mut of_kind: HashMap<&'static str, usize> = HashMap::new();
    // What is taken, and by whom.
    let mut names: HashMap<String, String> = HashMap::new();
    let mut outputs: HashMap<Output, String> = HashMap::new();
    let mut named = Vec::new();
    for (place, sink) in of_log.into_iter().chain(places) {
        let name = if place == "log_sink" {
            LOG.to_owned()
        } else {
            let nth = of_kind.entry(sink.kind.key()).or_default();
            *nth += 1;
            let kind = sink.kind.key().replace('_', "-");
            let default = if *nth == 1 { kind } else { format!("{kind}-{nth}") };
            sink.name.as_ref().map_or(default, |name| name.as_str().to_owned())
        };
        if let Some(other) = names.insert(name.clone(), place.clone()) {
            return Err(format!(
                "{place}.name: \"{name}\" is the name of {other} already: each sink needs its own"
            ));
        }
        if let Some(output) = sink.kind.output()
            && let Some(other) = outputs.insert(output.clone(), place.clone())
        {
            let remedy = if other == "log_sink" { "; set `log_sink: none`" } else { "" };
            let key = sink.kind.key();
            return Err(format!("{place}.{key}: {other} writes to {output} already{remedy}"));
        }
        named.push((name, sink));
    }
    Ok(named)
}

/// What only one sink may write to: two would tear each other's lines, or rotate them away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Output {
    /// Standard output.
    Stdout,
    /// A file.
    File(std::path::PathBuf),
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

impl From<&AbsolutePath> for Output {
    fn from(path: &AbsolutePath) -> Self {
        Self::File(path.to_path_buf())
    }
}

impl<'de> Deserialize<'de> for SinkConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not `deserialize_map`: whatever else stands there is told what a sink looks like.
        deserializer.deserialize_any(Item)
    }
}

struct Item;

impl<'de> Visitor<'de> for Item {
    type Value = SinkConfig;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sink: its kind and its settings, such as `stdout: {}`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<SinkConfig, A::Error> {
        let (mut kind, mut name, mut group, mut rate) = (None::<Kind>, None, None, None);
        let mut filter = FilterConfig::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value()?),
                "filter" => filter = map.next_value()?,
                "group" => group = Some(map.next_value()?),
                "rate" => rate = Some(map.next_value()?),
                other => {
                    let Some(known) = Kind::KEYS.iter().find(|key| **key == other) else {
                        return Err(de::Error::unknown_field(other, FIELDS));
                    };
                    if let Some(first) = &kind {
                        return Err(de::Error::custom(format!(
                            "a sink has one kind, not both `{}` and `{known}`: begin a new item with `-`",
                            first.key()
                        )));
                    }
                    kind = Some(Kind::read(known, &mut map)?);
                }
            }
        }
        let kind = kind.ok_or_else(|| {
            de::Error::custom(format!("a sink needs a kind: one of {}", Kind::KEYS.join(", ")))
        })?;
        Ok(SinkConfig { kind, name, filter, group, rate })
    }
}

impl Serialize for SinkConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.kind.write(&mut map)?;
        if let Some(name) = &self.name {
            map.serialize_entry("name", name)?;
        }
        if self.filter != FilterConfig::default() {
            map.serialize_entry("filter", &self.filter)?;
        }
        if let Some(group) = &self.group {
            map.serialize_entry("group", group)?;
        }
        if let Some(rate) = &self.rate {
            map.serialize_entry("rate", rate)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests;
