//! The sinks that write a message as one line of JSON: to standard output, or to a file.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::file::{Lines, Written};
use super::rotate::Rotation;
use crate::config::values::Size;
use crate::config::{AbsolutePath, Count};
use crate::notify::deliver::{Deliver, Failure, Message, Outcome};

/// Lines that are written at a time.
const BATCH: usize = 256;

/// Lines of JSON to standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {}

/// Lines of JSON to a file that is rotated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file; made with mode 0640 if there is none.
    pub path: AbsolutePath,
    /// Bytes from which on it is moved to `path.1` and begun anew. A longer line has a file of its own.
    #[serde(default)]
    pub max_bytes: Size<{ 64 << 10 }, { 64 << 20 }, { 1 << 40 }>,
    /// Files that are kept beside it: `path.1`, the newest, to `path.KEEP`.
    #[serde(default)]
    pub keep: Count<0, 5, 100>,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// The end of a file, which somebody else may rotate.
    Plain(AbsolutePath),
    /// The end of a file that is rotated here.
    Rotated(FileConfig),
}

impl Target {
    fn open(&self) -> Result<Lines, String> {
        let (path, rotation) = match self {
            Self::Stdout => return Ok(Lines::stdout()),
            Self::Plain(path) => (path, None),
            Self::Rotated(file) => {
                let rotation = Rotation { max_bytes: file.max_bytes.get(), keep: file.keep.get() };
                (&file.path, Some(rotation))
            }
        };
        Lines::file(path, rotation).map_err(|error| format!("cannot open {path}: {error}"))
    }
}

/// Writes on a thread that may block. At most one at a time: what a stuck disk holds up is waited for, and never written a second time.
#[derive(Debug)]
pub struct LineSink {
    target: Target,
    /// `None` while they are written, or if that thread panicked.
    lines: Option<Lines>,
    writing: Option<Writing>,
}

#[derive(Debug)]
struct Writing {
    thread: JoinHandle<(Lines, Written)>,
    /// The first of the messages, by which the caller's next attempt is known to be about the same.
    first: Option<Uuid>,
}

impl LineSink {
    /// Opens the file, if it is one.
    ///
    /// # Errors
    /// If that fails.
    pub fn open(target: Target) -> Result<Self, String> {
        let lines = target.open()?;
        Ok(Self { target, lines: Some(lines), writing: None })
    }

    #[cfg(test)]
    pub(in crate::notify) fn to(out: Box<dyn std::io::Write + Send>) -> Self {
        Self { target: Target::Stdout, lines: Some(Lines::to(out)), writing: None }
    }

    fn begin(&mut self, messages: &[Message]) -> Result<Writing, String> {
        let mut lines = match self.lines.take() {
            Some(lines) => lines,
            None => self.target.open()?,
        };
        let json: Vec<Bytes> = messages.iter().map(Message::json).collect();
        let thread = tokio::task::spawn_blocking(move || {
            let written = lines.write(&json);
            (lines, written)
        });
        Ok(Writing { thread, first: messages.first().map(Message::id) })
    }
}

impl Deliver for LineSink {
    fn batch(&self) -> usize {
        BATCH
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        let later =
            |why| Outcome { accepted: 0, failure: Some(Failure::Later { why, after: None }) };
        if self.writing.is_none() {
            match self.begin(messages) {
                Ok(writing) => self.writing = Some(writing),
                Err(why) => return later(why),
            }
        }
        let Some(writing) = &mut self.writing else { return later("nothing is written".into()) };
        // If this is cancelled, the next call finds it as it was.
        let ended = (&mut writing.thread).await;
        let same = writing.first == messages.first().map(Message::id);
        self.writing = None;
        match ended {
            Ok((lines, written)) => {
                self.lines = Some(lines);
                let accepted = if same { written.lines } else { 0 };
                let failure = written
                    .error
                    .map(|error| Failure::Later { why: error.to_string(), after: None });
                Outcome { accepted, failure }
            }
            Err(error) => later(format!("the thread that writes ended: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
