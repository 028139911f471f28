//! What a sink is told, and what it answers: the seam between the driver, which knows the ledger, time and retries, and the sinks, which know
//! their receiver's language. A sink keeps no queue and never retries by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::summary::Summary;
use crate::ledger::{Entry, Item};

/// One thing that a receiver is told.
#[derive(Debug, Clone)]
pub enum Message {
    /// A death or an alert, as it stands in the ledger.
    Entry(Arc<Entry>),
    /// How many deaths of one workload and cause followed the one that was told at once.
    Summary(Arc<Summary>),
}

impl Message {
    /// Its id, by which receivers deduplicate.
    #[must_use]
    pub fn id(&self) -> Uuid {
        match self {
            Self::Entry(entry) => match &entry.item {
                Item::Death(death) => death.id,
                Item::Alert(alert) => alert.id,
            },
            Self::Summary(summary) => summary.id,
        }
    }

    /// When what it tells of happened; of a summary, the last of it.
    #[must_use]
    pub fn time(&self) -> Timestamp {
        match self {
            Self::Entry(entry) => match &entry.item {
                Item::Death(death) => death.time,
                Item::Alert(alert) => alert.time,
            },
            Self::Summary(summary) => summary.time,
        }
    }

    /// Its JSON, one line without the newline: of an entry, the ledger's very bytes.
    #[must_use]
    pub fn json(&self) -> Bytes {
        match self {
            Self::Entry(entry) => entry.json.clone(),
            // It has nothing that JSON could not hold: text, numbers, lists of them.
            Self::Summary(summary) => serde_json::to_vec(&**summary).unwrap_or_default().into(),
        }
    }
}

/// How far a sink came with a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Messages from the start of the batch that the receiver has accepted. They are never sent again.
    pub accepted: usize,
    /// Why it ended there; `None` if all were accepted.
    pub failure: Option<Failure>,
}

/// Why a receiver did not take a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It will never take the message that follows the accepted ones: the driver skips that one, counts it and goes on.
    Refused(String),
    /// It may take it later: not before `after`, if the receiver said so.
    Later {
        /// What happened, without secrets.
        why: String,
        /// What the receiver asked for (`Retry-After`).
        after: Option<Duration>,
    },
    /// It wants nothing any more (HTTP 410): the driver stops this sink until the next start.
    Gone(String),
}

/// Speaks to one receiver.
pub trait Deliver: Send {
    /// Messages that one call should have at most.
    fn batch(&self) -> usize;

    /// Tells the receiver of these, oldest first, within a deadline of its own. Cancellation may leave a message sent that nobody counted.
    fn deliver(&mut self, messages: &[Message]) -> impl Future<Output = Outcome> + Send;

    /// When the sink wants [`Deliver::upkeep`] next, such as to send an alert that still holds once more.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// What it wanted that for. An error is logged and counted like a failed delivery, and nothing else.
    fn upkeep(&mut self) -> impl Future<Output = Result<(), String>> + Send {
        async { Ok(()) }
    }
}

impl Outcome {
    /// All `messages` were accepted.
    #[must_use]
    pub fn all(messages: &[Message]) -> Self {
        Self { accepted: messages.len(), failure: None }
    }
}
