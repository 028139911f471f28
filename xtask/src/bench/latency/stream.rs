//! A reader of the daemon's stream of deaths, which notes when each is there.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{boot_ns, ms, number_after};

/// A record, as it arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) at: u64,
    pub(super) ktime_ns: u64,
    pub(super) pid: Option<u32>,
    /// When the OOM killer decided, if it did.
    pub(super) decided_ns: Option<u64>,
}

impl Seen {
    /// How long it was on its way.
    pub(super) fn ms(&self) -> f64 {
        ms(self.at, self.ktime_ns)
    }
}

/// The reader, on a thread of its own. It ends with the daemon, or with this.
pub(super) struct Stream {
    socket: UnixStream,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Stream {
    /// From now on.
    pub(super) fn open(socket: &Path) -> Result<Self> {
        let mut stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(b"GET /v1/deaths/stream HTTP/1.1\r\nhost: killwatch\r\n\r\n")?;
        let mut lines = BufReader::with_capacity(1 << 20, stream.try_clone()?);
        let mut line = String::new();
        lines.read_line(&mut line).context("the stream does not answer")?;
        ensure!(line.contains(" 200 "), "the stream says {}", line.trim());
        // Its first words say that it is there: what dies from now on is told.
        while !line.contains("from here on") {
            line.clear();
            ensure!(lines.read_line(&mut line)? > 0, "the stream ended before it began");
        }
        let seen = Arc::new(Mutex::new(Vec::new()));
        thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut line = String::new();
                while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                    parse(&line).into_iter().for_each(|one| locked(&seen).push(one));
                    line.clear();
                }
            }
        });
        Ok(Self { socket: stream, seen })
    }

    /// Deaths so far.
    pub(super) fn count(&self) -> usize {
        locked(&self.seen).len()
    }

    /// The death of that process, if it is there.
    pub(super) fn of(&self, pid: u32) -> Option<Seen> {
        locked(&self.seen).iter().rev().find(|one| one.pid == Some(pid)).copied()
    }

    /// All of them.
    pub(super) fn close(self) -> Vec<Seen> {
        // Fails only if it is gone, which is what is wanted.
        let _ = self.socket.shutdown(std::net::Shutdown::Both);
        std::mem::take(&mut *locked(&self.seen))
    }
}

fn locked(seen: &Mutex<Vec<Seen>>) -> MutexGuard<'_, Vec<Seen>> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Of a record only what is needed is looked for: to read all of it would take longer than it was on its way.
fn parse(line: &str) -> Option<Seen> {
    let data = line.strip_prefix("data: ")?;
    let ktime_ns = number_after(data, "\"ktime_ns\":")?;
    let pid = number_after(data, "\"victim\":{\"pid\":").and_then(|pid| pid.try_into().ok());
    let decided_ns = number_after(data, "\"incident_ktime_ns\":");
    Some(Seen { at: boot_ns(), ktime_ns, pid, decided_ns })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_line_what_counts_is_found() {
        let line = "data: {\"id\":\"x\",\"ktime_ns\":99,\"victim\":{\"pid\":7,\"tgid\":7},\"oom\":{\"incident_ktime_ns\":90}}\n";
        let seen = parse(line).unwrap();
        assert_eq!((seen.ktime_ns, seen.pid, seen.decided_ns), (99, Some(7), Some(90)));
        assert!(parse("id: 3\n").is_none() && parse("data: {}\n").is_none());
    }
}
