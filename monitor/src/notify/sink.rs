//! What a sink is: something that a few notices are handed to at a time, and that says what became of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use uuid::Uuid;

use crate::death::Death;
use crate::ledger::Entry;

/// What a receiver is told. Each has an id by which receivers deduplicate: what is sent again has the same.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A death.
    Death(Arc<Entry>),
    /// More deaths like one that was told before.
    Summary(Arc<Summary>),
    /// An alert.
    Alert(Arc<Entry>),
}

/// Deaths of one workload by one cause within a while, after the first.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Made of the first death's id and the last's, so that it is the same again after a restart.
    pub id: Uuid,
    /// The death that was told at once.
    pub first: Arc<Death>,
    /// The latest one.
    pub last: Arc<Death>,
    /// How many, the first one included.
    pub count: u64,
    /// When the first of them died.
    pub from: Timestamp,
    /// When the last of them died.
    pub to: Timestamp,
    /// Ids of the jobs they worked on, at most [`Summary::MAX_JOBS`], each once, in order of their deaths.
    pub jobs: Vec<String>,
    /// Jobs beyond these.
    pub more_jobs: u64,
}

impl Summary {
    /// Jobs that are named.
    pub const MAX_JOBS: usize = 20;
}

/// What became of some notices.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Notices, from the first on, that are dealt with and are not sent again.
    pub done: usize,
    /// How many of these the receiver refused for good.
    pub refused: usize,
    /// Why it refused the last of these.
    pub why_refused: Option<String>,
    /// Why not all are done.
    pub failure: Option<Failure>,
}

/// Why notices are not dealt with: they are sent again.
#[derive(Debug)]
pub struct Failure {
    /// What happened, for a person. No secret, no answer of the receiver beyond its status and some printable characters.
    pub why: String,
    /// How long the receiver asks to be left alone.
    pub after: Option<Duration>,
}

/// A receiver, or a file.
pub trait Sink: Send {
    /// Hands over notices, oldest first. Ends in a bounded time, whatever the receiver does; may be dropped before, and then none of them counts as done.
    fn send(&mut self, notices: &[Notice]) -> impl Future<Output = Outcome> + Send;

    /// When the sink has something to do by itself, such as to send an alert again that goes on.
    fn due(&self) -> Option<Instant> {
        None
    }

    /// Does it.
    fn turn(&mut self) -> impl Future<Output = Result<(), Failure>> + Send {
        async { Ok(()) }
    }
}
