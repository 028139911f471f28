//! Who is told of a death. Each sink has a driver, a task that reads the ledger behind a cursor of its own: however slow a sink is, it holds up nobody,
//! and what the ledger had to drop in the meantime is counted. [`deliver`] is the seam between the two.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use crate::config::{AbsolutePath, Config, Refused, values};
use crate::metrics::Metrics;

pub mod alertmanager;
pub mod config;
pub mod deliver;
pub mod driver;
pub mod filter;
mod group;
pub mod health;
pub mod http;
pub mod kind;
pub mod kubernetes_events;
pub mod links;
pub mod local;
#[cfg(feature = "otlp")]
pub mod otlp;
mod outbox;
mod retry;
pub mod secret;
mod sentence;
pub mod summary;
#[cfg(feature = "otlp")]
#[cfg(test)]
mod wave;
pub mod webhook;

pub use config::SinkConfig;
use driver::{Driver, House, Terms};
use health::Health;
use kind::{Context, Open};
pub use links::Links;

/// Opens every sink of a configuration. To be called within the runtime, before the daemon says that it is ready.
///
/// # Errors
/// Which one cannot be used, and why, in one line.
pub fn open(
    config: &Config,
    house: &House,
    metrics: &Metrics,
) -> Result<Vec<Driver<Open>>, String> {
    let context = Context {
        node: config.node.as_str().to_owned(),
        links: Arc::new(config.links.clone()),
        kubernetes: config.kubernetes.clone(),
    };
    let sinks = config.named_sinks()?;
    let drivers = sinks.into_iter().map(|(name, sink)| {
        let open = sink.kind.open(&context, &metrics.sink(&name));
        let open = open.map_err(|why| format!("the sink `{name}` cannot be used: {why}"))?;
        let health = Health::new(&name, sink.kind.key(), metrics.sink(&name));
        let terms =
            Terms { filter: (&sink.filter).into(), group: sink.group(), rate: sink.rate(), name };
        Ok(Driver::new(open, terms, house.clone(), health))
    });
    drivers.collect()
}

/// Where each death is written as one line of JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LogSink {
    /// Nowhere.
    None,
    /// Standard output.
    #[default]
    Stdout,
    /// The end of a file.
    File(AbsolutePath),
}

impl LogSink {
    fn refused() -> Refused {
        Refused::new(
            "must be `none`, `stdout`, or the path of a file, with a `/` in it, such as ./deaths.jsonl",
        )
    }
}

impl FromStr for LogSink {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "none" => Ok(Self::None),
            "stdout" => Ok(Self::Stdout),
            // A name without a slash would more likely be a misspelt word than a file.
            path if path.contains('/') => {
                let absolute = std::path::absolute(path).ok();
                let absolute = absolute.and_then(|path| path.to_str()?.parse().ok());
                absolute.map(Self::File).ok_or_else(Self::refused)
            }
            _ => Err(Self::refused()),
        }
    }
}

impl fmt::Display for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl Serialize for LogSink {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(LogSink);
