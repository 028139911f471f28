//! Who is told of a death, one sink per file. A sink reads the ledger behind a cursor of its own: however slow it is, it holds
//! up nobody, and what the ledger had to drop in the meantime it counts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::config::{AbsolutePath, Refused, values};

pub mod alertmanager;
pub mod deliver;
pub mod http;
pub mod kubernetes_events;
mod lines;
pub mod log;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod secret;
#[cfg(any(feature = "kubernetes", feature = "otlp"))]
mod sentence;
pub mod summary;
pub mod webhook;

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
