//! The kinds of sinks: the one place where a new one is added. Its settings, how it is opened, and how it is spoken to are its own file's.

use std::sync::Arc;

use serde::de::MapAccess;
use serde::ser::SerializeMap;
use tokio::time::Instant;

use super::LogSink;
use super::alertmanager::{Alertmanager, AlertmanagerConfig};
use super::config::Output;
use super::deliver::{Deliver, Message, Outcome};
use super::http::links::Linked;
#[cfg(feature = "kubernetes")]
use super::kubernetes_events::{KubernetesEvents, KubernetesEventsConfig};
use super::links::Links;
use super::local::journald::{Journald, JournaldConfig};
use super::local::lines::{FileConfig, LineSink, StdoutConfig, Target};
#[cfg(feature = "otlp")]
use super::otlp::{Otlp, OtlpConfig};
use super::webhook::{Webhook, WebhookConfig};
use crate::containers::kubernetes::KubernetesConfig;
use crate::metrics::SinkSeries;

/// What a sink speaks to, with its settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Lines of JSON to standard output.
    Stdout(StdoutConfig),
    /// Lines of JSON to a file that is rotated.
    File(FileConfig),
    /// Lines of JSON to a file that somebody else rotates: `log_sink`.
    PlainFile(crate::config::AbsolutePath),
    /// systemd's journal.
    Journald(JournaldConfig),
    /// CloudEvents over HTTP.
    Webhook(WebhookConfig),
    /// All instances of an Alertmanager.
    Alertmanager(AlertmanagerConfig),
    /// Log records of OpenTelemetry.
    #[cfg(feature = "otlp")]
    Otlp(OtlpConfig),
    /// Events on pods.
    #[cfg(feature = "kubernetes")]
    KubernetesEvents(KubernetesEventsConfig),
}

/// What sinks are given as they are opened.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the node.
    pub node: String,
    /// Where a receiver's user finds more.
    pub links: Arc<Links>,
    /// Where the Kubernetes API is.
    pub kubernetes: KubernetesConfig,
}

impl Context {
    fn linked(&self) -> Linked {
        let (runbook, dashboard) = (Arc::clone(&self.links), Arc::clone(&self.links));
        Linked {
            runbook: Some(Arc::new(move |death| runbook.runbook(death))),
            dashboard: Some(Arc::new(move |death| dashboard.dashboard(death))),
        }
    }
}

impl Kind {
    /// The keys that stand for a kind.
    pub const KEYS: &'static [&'static str] = &[
        "stdout",
        "file",
        "journald",
        "webhook",
        "alertmanager",
        #[cfg(feature = "otlp")]
        "otlp",
        #[cfg(feature = "kubernetes")]
        "kubernetes_events",
    ];

    /// The key that stands for it.
    #[must_use]
    pub const fn key(&self) -> &'static str {
        match self {
            Self::Stdout(_) => "stdout",
            Self::File(_) | Self::PlainFile(_) => "file",
            Self::Journald(_) => "journald",
            Self::Webhook(_) => "webhook",
            Self::Alertmanager(_) => "alertmanager",
            #[cfg(feature = "otlp")]
            Self::Otlp(_) => "otlp",
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(_) => "kubernetes_events",
        }
    }

    /// Whether it stays on this host: then it is told of each death, as fast as it can take them, unless set otherwise.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Stdout(_) | Self::File(_) | Self::PlainFile(_) | Self::Journald(_))
    }

    /// Reads the settings of the kind `key`, one of [`Kind::KEYS`].
    pub(super) fn read<'de, A: MapAccess<'de>>(key: &str, map: &mut A) -> Result<Self, A::Error> {
        Ok(match key {
            "stdout" => Self::Stdout(map.next_value()?),
            "file" => Self::File(map.next_value()?),
            "journald" => Self::Journald(map.next_value()?),
            "webhook" => Self::Webhook(map.next_value()?),
            "alertmanager" => Self::Alertmanager(map.next_value()?),
            #[cfg(feature = "otlp")]
            "otlp" => Self::Otlp(map.next_value()?),
            #[cfg(feature = "kubernetes")]
            "kubernetes_events" => Self::KubernetesEvents(map.next_value()?),
            other => return Err(serde::de::Error::unknown_field(other, Self::KEYS)),
        })
    }

    /// Writes its key and its settings. Secrets hide themselves.
    pub(super) fn write<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
        match self {
            Self::Stdout(config) => map.serialize_entry(self.key(), config),
            Self::File(config) => map.serialize_entry(self.key(), config),
            Self::PlainFile(path) => map.serialize_entry(self.key(), path),
            Self::Journald(config) => map.serialize_entry(self.key(), config),
            Self::Webhook(config) => map.serialize_entry(self.key(), config),
            Self::Alertmanager(config) => map.serialize_entry(self.key(), config),
            #[cfg(feature = "otlp")]
            Self::Otlp(config) => map.serialize_entry(self.key(), config),
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(config) => map.serialize_entry(self.key(), config),
        }
    }

    /// Whether its settings go together.
    ///
    /// # Errors
    /// What does not, in one line.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Webhook(config) => config.check(),
            Self::Alertmanager(config) => config.check(),
            #[cfg(feature = "otlp")]
            Self::Otlp(config) => config.check(),
            _ => Ok(()),
        }
    }

    /// What `log_sink` stands for.
    pub(super) fn of_log_sink(sink: &LogSink) -> Option<Self> {
        match sink {
            LogSink::None => None,
            LogSink::Stdout => Some(Self::Stdout(StdoutConfig {})),
            LogSink::File(path) => Some(Self::PlainFile(path.clone())),
        }
    }

    /// What no other sink may write to.
    pub(super) fn output(&self) -> Option<Output> {
        match self {
            Self::Stdout(_) => Some(Output::Stdout),
            Self::File(config) => Some((&config.path).into()),
            Self::PlainFile(path) => Some(path.into()),
            _ => None,
        }
    }

    /// Opens it.
    ///
    /// # Errors
    /// Why it cannot be used, in one line without secrets.
    #[cfg_attr(
        not(any(feature = "kubernetes", feature = "otlp")),
        expect(unused_variables, reason = "counted by sinks that are left out")
    )]
    pub fn open(&self, context: &Context, series: &SinkSeries) -> Result<Open, String> {
        Ok(match self {
            Self::Stdout(_) => Open::Lines(LineSink::open(Target::Stdout)?),
            Self::File(config) => Open::Lines(LineSink::open(Target::Rotated(config.clone()))?),
            Self::PlainFile(path) => Open::Lines(LineSink::open(Target::Plain(path.clone()))?),
            Self::Journald(config) => Open::Journald(Journald::open(config)?),
            Self::Webhook(config) => {
                Open::Webhook(Box::new(Webhook::new(config, context.linked())?))
            }
            Self::Alertmanager(config) => {
                Open::Alertmanager(Box::new(Alertmanager::new(config, context.linked())?))
            }
            #[cfg(feature = "otlp")]
            Self::Otlp(config) => {
                Open::Otlp(Box::new(Otlp::new(config, &context.node, series.skipped.clone())?))
            }
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(config) => {
                Open::KubernetesEvents(Box::new(KubernetesEvents::new(
                    config,
                    &context.kubernetes,
                    &context.node,
                    series.not_applicable.clone(),
                )))
            }
        })
    }
}

/// A sink that is open.
#[derive(Debug)]
pub enum Open {
    /// Standard output or a file.
    Lines(LineSink),
    /// systemd's journal.
    Journald(Journald),
    /// CloudEvents over HTTP.
    Webhook(Box<Webhook>),
    /// All instances of an Alertmanager.
    Alertmanager(Box<Alertmanager>),
    /// Log records of OpenTelemetry.
    #[cfg(feature = "otlp")]
    Otlp(Box<Otlp>),
    /// Events on pods.
    #[cfg(feature = "kubernetes")]
    KubernetesEvents(Box<KubernetesEvents>),
}

impl Deliver for Open {
    fn batch(&self) -> usize {
        match self {
            Self::Lines(sink) => sink.batch(),
            Self::Journald(sink) => sink.batch(),
            Self::Webhook(sink) => sink.batch(),
            Self::Alertmanager(sink) => sink.batch(),
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => sink.batch(),
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(sink) => sink.batch(),
        }
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        match self {
            Self::Lines(sink) => sink.deliver(messages).await,
            Self::Journald(sink) => sink.deliver(messages).await,
            Self::Webhook(sink) => sink.deliver(messages).await,
            Self::Alertmanager(sink) => sink.deliver(messages).await,
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => sink.deliver(messages).await,
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(sink) => sink.deliver(messages).await,
        }
    }

    fn due(&self) -> Option<Instant> {
        match self {
            Self::Lines(sink) => sink.due(),
            Self::Journald(sink) => sink.due(),
            Self::Webhook(sink) => sink.due(),
            Self::Alertmanager(sink) => sink.due(),
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => sink.due(),
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(sink) => sink.due(),
        }
    }

    async fn upkeep(&mut self) -> Result<(), String> {
        match self {
            Self::Lines(sink) => sink.upkeep().await,
            Self::Journald(sink) => sink.upkeep().await,
            Self::Webhook(sink) => sink.upkeep().await,
            Self::Alertmanager(sink) => sink.upkeep().await,
            #[cfg(feature = "otlp")]
            Self::Otlp(sink) => sink.upkeep().await,
            #[cfg(feature = "kubernetes")]
            Self::KubernetesEvents(sink) => sink.upkeep().await,
        }
    }
}
