//! The sink that writes each death as one line of JSON to standard output or a file.
//!
//! The ledger's cursor moves when a line is written whole. What fails is tried again, later each time up to 5 s; what the
//! ledger drops meanwhile is counted as skipped. On shutdown what is left is written within the deadline, or counted as skipped.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::LogSink;
use super::lines::{Lines, Outcome};
use crate::ledger::Ledger;
use crate::ops::Ops;

/// Name of this sink in metrics and in the log.
pub const NAME: &str = "log";
/// First wait after a failure; it doubles up to [`SLOWEST`].
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait between attempts.
const SLOWEST: Duration = Duration::from_secs(5);
/// Deaths that are written at a time.
const BATCH: usize = 256;

/// The sink and its place in the ledger.
pub struct Worker {
    lines: Option<Lines>,
    ledger: Arc<Ledger>,
    ops: Arc<Ops>,
    cursor: u64,
    failing: Option<io::ErrorKind>,
}

impl Worker {
    /// Opens the sink; `None` if none is configured. To be called before the daemon says that it is ready.
    ///
    /// # Errors
    /// If the file cannot be opened.
    pub fn open(sink: &LogSink, ledger: Arc<Ledger>, ops: Arc<Ops>) -> io::Result<Option<Self>> {
        let lines = match sink {
            LogSink::None => return Ok(None),
            LogSink::Stdout => Lines::stdout(),
            LogSink::File(path) => Lines::file(path)?,
        };
        Ok(Some(Self::new(lines, ledger, ops)))
    }

    fn new(lines: Lines, ledger: Arc<Ledger>, ops: Arc<Ops>) -> Self {
        ops.sink_written(NAME, 0);
        Self { lines: Some(lines), ledger, ops, cursor: 0, failing: None }
    }

    /// Writes until `stop` is cancelled, then what the ledger still holds, for at most `deadline`. Cancel when nothing will be
    /// appended any more.
    pub async fn run(mut self, stop: CancellationToken, deadline: Duration) {
        let mut changed = self.ledger.changed();
        let end = async {
            stop.cancelled().await;
            tokio::time::sleep_until(Instant::now() + deadline).await;
        };
        let in_time = tokio::select! {
            () = self.work(&mut changed, &stop) => true,
            () = end => false,
        };
        let left = changed.borrow().saturating_sub(self.cursor);
        if !in_time && left > 0 {
            self.ops.sink_skipped(NAME, left);
        }
    }

    async fn work(&mut self, changed: &mut watch::Receiver<u64>, stop: &CancellationToken) {
        let mut wait = FIRST;
        loop {
            changed.mark_unchanged();
            let batch = self.ledger.read_after(self.cursor, BATCH);
            if batch.skipped > 0 {
                self.ops.sink_skipped(NAME, batch.skipped);
                self.cursor += batch.skipped;
            }
            if batch.entries.is_empty() {
                if stop.is_cancelled() {
                    return;
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    () = stop.cancelled() => {}
                }
                continue;
            }
            let json = batch.entries.iter().map(|entry| entry.json.clone()).collect();
            let Some(outcome) = self.write(json).await else {
                return;
            };
            let written = outcome.written as u64;
            self.cursor += written;
            self.ops.sink_written(NAME, written);
            wait = match outcome.error {
                None => {
                    if self.failing.take().is_some() {
                        self.ops.sink_recovered(NAME);
                    }
                    FIRST
                }
                Some(error) => {
                    let first = self.failing.replace(error.kind()) != Some(error.kind());
                    self.ops.sink_failed(NAME, &error, first);
                    let stopping = stop.is_cancelled();
                    tokio::select! {
                        () = tokio::time::sleep(if stopping { FIRST } else { wait }) => {}
                        () = stop.cancelled(), if !stopping => {}
                    }
                    (wait * 2).min(SLOWEST)
                }
            };
        }
    }

    /// Writes on a thread that may block. `None` if that thread panicked, or the runtime is at its end.
    async fn write(&mut self, json: Vec<bytes::Bytes>) -> Option<Outcome> {
        let mut lines = self.lines.take()?;
        let (lines, outcome) = tokio::task::spawn_blocking(move || {
            let outcome = lines.write(&json);
            (lines, outcome)
        })
        .await
        .ok()?;
        self.lines = Some(lines);
        Some(outcome)
    }
}

#[cfg(test)]
mod tests;
