//! What the kernel says of a process while it lives.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};
use serde_json::Value;

use crate::cgroup::Hierarchy;
use crate::sender::ancestors_of;

/// A process as `/proc` shows it, read before it dies.
#[derive(Debug, Clone)]
pub struct Truth {
    /// Process id.
    pub pid: u32,
    /// Thread ids.
    pub tids: Vec<u32>,
    /// Process id in its own pid namespace.
    pub ns_pid: u32,
    /// Inode of that pid namespace.
    pub pid_ns: u64,
    /// Parent.
    pub ppid: u32,
    /// Name of the parent.
    pub parent_comm: String,
    /// Pid and name of its parent, of that one's, and so on.
    pub ancestors: Vec<(u32, String)>,
    /// Name.
    pub comm: String,
    /// Command line.
    pub cmdline: Vec<String>,
    /// Real user id.
    pub uid: u32,
    /// Preference as an OOM victim.
    pub oom_score_adj: i32,
    /// Start, since boot. Exact to 1/100 s, rounded down.
    pub started: Duration,
    /// Path of the cgroup that accounts its memory.
    pub cgroup: String,
    /// Id of that cgroup.
    pub cgroup_id: u64,
    /// When this was read, since boot.
    pub seen: Duration,
}

/// Time since boot, suspend included: the clock of the kernel's stamps.
#[must_use]
pub fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    // Neither is negative: both count from boot.
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

impl Truth {
    /// Reads it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn of(pid: u32) -> Result<Self> {
        let proc = Path::new("/proc").join(pid.to_string());
        let read = |name: &str| {
            let file = proc.join(name);
            std::fs::read(&file).with_context(|| format!("read {}", file.display()))
        };
        let status = String::from_utf8_lossy(&read("status")?).into_owned();
        let stat = String::from_utf8_lossy(&read("stat")?).into_owned();
        // The name before it may hold anything, a `)` too.
        let after_name = stat.rsplit_once(") ").context("a stat line without a name")?.1;
        let started: u64 = field(after_name.split_whitespace(), 19)?;
        let ppid = field(after_name.split_whitespace(), 1)?;
        let hierarchy = Hierarchy::find()?;
        let cgroup = hierarchy.path_of(&pid.to_string())?;
        let cgroup_dir = hierarchy.root.join(cgroup.trim_start_matches('/'));
        let mut tids: Vec<u32> = Vec::new();
        for entry in std::fs::read_dir(proc.join("task"))? {
            tids.push(entry?.file_name().to_string_lossy().parse()?);
        }
        Ok(Self {
            pid,
            tids,
            ns_pid: status_field(&status, "NSpid:", None)?,
            // Followed, the link leads to the namespace itself.
            pid_ns: std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(proc.join("ns/pid"))?),
            ppid,
            parent_comm: name_of(ppid)?,
            ancestors: ancestors_of(pid)?,
            comm: name_of(pid)?,
            cmdline: arguments(&read("cmdline")?),
            uid: status_field(&status, "Uid:", Some(0))?,
            oom_score_adj: String::from_utf8_lossy(&read("oom_score_adj")?).trim().parse()?,
            started: Duration::from_secs_f64(
                started as f64 / rustix::param::clock_ticks_per_second() as f64,
            ),
            cgroup,
            cgroup_id: std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(cgroup_dir)?),
            seen: since_boot(),
        })
    }
}

impl Truth {
    /// A child of this process that nobody could look at while it lived: written down from what it was given. It has its parent's name,
    /// place and user, and began after its parent was seen.
    #[must_use]
    pub fn of_child(&self, pid: u32, cmdline: Vec<String>) -> Self {
        let mut ancestors = vec![(self.pid, self.comm.clone())];
        ancestors.extend(self.ancestors.clone());
        Self {
            pid,
            tids: vec![pid],
            ns_pid: pid,
            ppid: self.pid,
            parent_comm: self.comm.clone(),
            ancestors,
            cmdline,
            started: self.seen,
            ..self.clone()
        }
    }

    /// Whether a record is of this process: not of one that had its pid before, so far as the record tells a start. The kernel log has none.
    #[must_use]
    pub fn is_told_in(&self, record: &Value) -> bool {
        let started = record.pointer("/victim/start_ktime_ns").and_then(Value::as_u64);
        record.pointer("/victim/pid").is_some_and(|pid| *pid == self.pid)
            && started.is_none_or(|at| Duration::from_nanos(at) >= self.started)
    }
}

/// Name of a process, that of its first thread.
///
/// # Errors
/// When it is gone.
pub fn name_of(pid: u32) -> Result<String> {
    let file = format!("/proc/{pid}/comm");
    let bytes = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    Ok(as_text(bytes.strip_suffix(b"\n").unwrap_or(&bytes)))
}

/// Parent of a process, 0 for the first one.
///
/// # Errors
/// When it is gone.
pub fn parent_of(pid: u32) -> Result<u32> {
    let file = format!("/proc/{pid}/stat");
    let stat = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    let stat = String::from_utf8_lossy(&stat);
    // The name before it may hold anything, a `)` too.
    let after_name = stat.rsplit_once(") ").context("a stat line without a name")?.1;
    field(after_name.split_whitespace(), 1)
}

/// Whether a process has a handler for a signal.
///
/// # Errors
/// When it is gone.
pub fn handles(pid: u32, signal: u32) -> Result<bool> {
    let file = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    Ok(caught.is_some_and(|mask| mask >> (signal - 1) & 1 == 1))
}

/// Bytes in the form that records give them: what is not UTF-8 is written `\xNN`.
fn as_text(bytes: &[u8]) -> String {
    bytes.utf8_chunks().fold(String::new(), |mut text, chunk| {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
        text
    })
}

fn arguments(bytes: &[u8]) -> Vec<String> {
    bytes
        .strip_suffix(b"\0")
        .map(|bytes| bytes.split(|byte| *byte == 0).map(as_text).collect())
        .unwrap_or_default()
}

fn field<'a, T: std::str::FromStr>(
    mut fields: impl Iterator<Item = &'a str>,
    index: usize,
) -> Result<T> {
    let text = fields.nth(index).with_context(|| format!("no field {index}"))?;
    text.parse().ok().with_context(|| format!("field {index} is {text:?}"))
}

/// A number of a line of `/proc/PID/status`: the one at `index`, or the last.
fn status_field(status: &str, key: &str, index: Option<usize>) -> Result<u32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .with_context(|| format!("no {key} in status"))?;
    let mut fields = line.split_whitespace();
    let found = match index {
        Some(index) => fields.nth(index),
        None => fields.next_back(),
    };
    found.and_then(|text| text.parse().ok()).with_context(|| format!("{key} says {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_process() {
        let truth = Truth::of(std::process::id()).unwrap();
        assert_eq!(truth.ppid, std::os::unix::process::parent_id());
        assert_eq!(truth.cmdline, std::env::args().collect::<Vec<_>>());
        assert!(truth.tids.contains(&truth.pid));
        assert!(truth.started <= truth.seen && truth.seen <= since_boot());
    }

    #[test]
    fn hostile_text_stays_itself() {
        assert_eq!(as_text(b") Z\n\"} 1"), ") Z\n\"} 1");
        assert_eq!(as_text(b"a\xff"), "a\\xff");
        assert_eq!(arguments(b"a\0\0b c\0"), ["a", "", "b c"]);
        assert_eq!(arguments(b""), [""; 0]);
    }
}
