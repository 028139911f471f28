//! systemd's journal, by its native protocol: one datagram an entry, fields of `KEY=value`.
//!
//! The protocol: <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. A value with a newline has its length before it, so no text can make a field of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::UnixDatagram;

use crate::alert::{Alert, AlertKind};
use crate::death::{Death, State};
use crate::ledger::Item;
use crate::notify::deliver::{Deliver, Failure, Message, Outcome};
use crate::notify::sentence;
use crate::notify::summary::Summary;
use crate::text::one_line;

/// Where the journal listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// Longest datagram. The kernel's own bound, `net.core.wmem_default`, is 208 KiB; a larger entry would need a memfd.
const MAX_BYTES: usize = 128 << 10;
/// Longest wait for room in the socket.
const PATIENCE: Duration = Duration::from_secs(5);
/// Entries at a time.
const BATCH: usize = 32;
/// `MESSAGE_ID` of a death, of a summary and of an alert: `journalctl MESSAGE_ID=…` finds them all.
const DEATH_ID: &str = "6e1f9c0e2d4b4f3f9a0c7b1d5e8a2c01";
const SUMMARY_ID: &str = "6e1f9c0e2d4b4f3f9a0c7b1d5e8a2c02";
const ALERT_ID: &str = "6e1f9c0e2d4b4f3f9a0c7b1d5e8a2c03";

/// systemd's journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournaldConfig {}

/// Writes to the journal.
#[derive(Debug)]
pub struct Journald {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journald {
    /// Opens a socket of our own, and looks whether the journal's is there.
    ///
    /// # Errors
    /// If it is not. To be called within the runtime.
    pub fn open(_config: &JournaldConfig) -> Result<Self, String> {
        Self::at(Path::new(SOCKET))
    }

    fn at(path: &Path) -> Result<Self, String> {
        let there = path.display();
        std::fs::metadata(path).map_err(|error| {
            format!("{there}: {error}; is systemd-journald there, and in a container, is the socket mounted?")
        })?;
        let socket = UnixDatagram::unbound().map_err(|error| format!("no socket: {error}"))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    async fn send(&self, entry: &[u8]) -> io::Result<()> {
        let sent = self.socket.send_to(entry, &self.path);
        let sent = tokio::time::timeout(PATIENCE, sent).await;
        sent.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map(|_| ())
    }
}

impl Deliver for Journald {
    fn batch(&self) -> usize {
        BATCH
    }

    async fn deliver(&mut self, messages: &[Message]) -> Outcome {
        for (accepted, message) in messages.iter().enumerate() {
            let mut sent = self.send(&encode(message, true)).await;
            if sent.as_ref().is_err_and(too_long) {
                sent = self.send(&encode(message, false)).await;
            }
            if let Err(error) = sent {
                let why = format!("{}: {error}", self.path.display());
                let failure = if too_long(&error) {
                    Failure::Refused(why)
                } else {
                    Failure::Later { why, after: None }
                };
                return Outcome { accepted, failure: Some(failure) };
            }
        }
        Outcome::all(messages)
    }
}

fn too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// One entry. Without the JSON if that is not wanted or would make it too long; the field that says so stands in its place.
fn encode(message: &Message, whole: bool) -> Vec<u8> {
    let mut entry = Entry::default();
    entry.field("SYSLOG_IDENTIFIER", "killwatch");
    entry.field("KILLWATCH_ID", &message.id().to_string());
    match message {
        Message::Entry(of) => match &of.item {
            Item::Death(death) => entry.death(death),
            Item::Alert(alert) => entry.alert(alert),
        },
        Message::Summary(summary) => entry.summary(summary),
    }
    let json = message.json();
    if whole && entry.0.len() + json.len() + 64 <= MAX_BYTES {
        entry.bytes("KILLWATCH_JSON", &json);
    } else {
        entry.field("KILLWATCH_JSON_OMITTED_BYTES", &json.len().to_string());
    }
    entry.0
}

#[derive(Default)]
struct Entry(Vec<u8>);

impl Entry {
    fn bytes(&mut self, key: &str, value: &[u8]) {
        self.0.extend_from_slice(key.as_bytes());
        if value.contains(&b'\n') {
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn field(&mut self, key: &str, value: &str) {
        // Texts are bounded where records are made; this holds whatever changes there.
        let end = value.floor_char_boundary(4096);
        self.bytes(key, value.get(..end).unwrap_or_default().as_bytes());
    }

    fn some(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.field(key, value);
        }
    }

    fn death(&mut self, death: &Death) {
        let (comm, pid) = (one_line(&death.victim.comm), death.victim.pid);
        let gone = if death.state == State::Stuck { "is stuck" } else { "died" };
        let advice = one_line(&death.advice);
        self.field(
            "MESSAGE",
            &format!("{comm} ({pid}) {gone}: {}. {advice}", death.cause.as_str()),
        );
        self.field("MESSAGE_ID", DEATH_ID);
        // LOG_ERR for what a lack of memory ended, else LOG_WARNING: syslog(3).
        self.field("PRIORITY", if death.cause.is_kernel_oom() { "3" } else { "4" });
        self.field("KILLWATCH_CAUSE", death.cause.as_str());
        self.field("KILLWATCH_NODE", &death.node);
        self.field("KILLWATCH_PID", &pid.to_string());
        self.field("KILLWATCH_COMM", &death.victim.comm);
        self.some("KILLWATCH_KILLER_COMM", death.killer.comm.as_deref());
        self.workload(&death.workload);
        self.some("KILLWATCH_JOB_ID", death.job.as_ref().and_then(|job| job.id.as_deref()));
    }

    fn summary(&mut self, summary: &Summary) {
        let cause = summary.summary.as_str();
        self.field(
            "MESSAGE",
            &format!("{} more died: {cause}, after {}", summary.count, summary.follows),
        );
        self.field("MESSAGE_ID", SUMMARY_ID);
        self.field("PRIORITY", "4");
        self.field("KILLWATCH_CAUSE", cause);
        self.field("KILLWATCH_NODE", &summary.node);
        self.field("KILLWATCH_COUNT", &summary.count.to_string());
        self.workload(&summary.workload);
    }

    fn alert(&mut self, alert: &Alert) {
        self.field("MESSAGE_ID", ALERT_ID);
        self.field("KILLWATCH_ALERT", alert.kind.name());
        self.field("KILLWATCH_NODE", &alert.node);
        match &alert.kind {
            AlertKind::PoisonJob(poison) => {
                let job = poison.job.id.as_deref().or(poison.job.name.as_deref());
                let (job, deaths) = (one_line(job.unwrap_or("a job")), poison.deaths.len());
                self.field("MESSAGE", &format!("{job} is killed again and again: {deaths} deaths"));
                self.field("PRIORITY", "3");
                self.some("KILLWATCH_JOB_ID", poison.job.id.as_deref());
            }
            AlertKind::NearLimit(near) => {
                self.field("MESSAGE", &sentence::of_alert(alert));
                self.field("PRIORITY", "4");
                self.some("KILLWATCH_JOB_ID", near.job.as_ref().and_then(|job| job.id.as_deref()));
                self.workload(&near.workload);
            }
        }
    }

    fn workload(&mut self, workload: &crate::death::Workload) {
        self.some("KILLWATCH_NAMESPACE", workload.namespace.as_deref());
        self.some("KILLWATCH_POD", workload.pod.as_deref());
        self.some("KILLWATCH_CONTAINER", workload.container.as_deref());
        self.some("KILLWATCH_CONTAINER_ID", workload.container_id.as_deref());
        self.some("KILLWATCH_UNIT", workload.unit.as_deref());
        self.some("KILLWATCH_CGROUP", workload.cgroup.as_deref());
    }
}

#[cfg(test)]
mod tests;
