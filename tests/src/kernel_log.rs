//! What the kernel writes into its log while a scenario plays.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::wait::wait_until;

/// The kernel's log from a moment on.
#[derive(Debug)]
pub struct KernelLog(File);

impl KernelLog {
    /// From now on.
    ///
    /// # Errors
    /// When this process may not read it.
    pub fn from_now() -> Result<Self> {
        let mut file = File::options()
            .read(true)
            .custom_flags(i32::try_from(rustix::fs::OFlags::NONBLOCK.bits())?)
            .open("/dev/kmsg")
            .context("open /dev/kmsg")?;
        file.seek(SeekFrom::End(0)).context("go to the end of /dev/kmsg")?;
        Ok(Self(file))
    }

    /// Waits until the OOM killer says that it killed one of these, and says which.
    ///
    /// # Errors
    /// When it says nothing in time.
    pub fn oom_victim_among(&mut self, pids: &[u32]) -> Result<u32> {
        let what = format!("the kernel to say which of {pids:?} it killed");
        wait_until(Duration::from_secs(5), &what, || {
            let Some(line) = self.next_record()? else { return Ok(None) };
            Ok(killed(&line).filter(|pid| pids.contains(pid)))
        })
    }

    /// One record; none if there is none yet.
    fn next_record(&mut self) -> Result<Option<String>> {
        let mut record = [0; 8192];
        match self.0.read(&mut record) {
            Ok(len) => Ok(record.get(..len).map(|text| String::from_utf8_lossy(text).into_owned())),
            // The second: what was next has been overwritten.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::BrokenPipe) => {
                Ok(None)
            }
            Err(error) => Err(error).context("read /dev/kmsg"),
        }
    }
}

/// The pid of the kernel's line for each kill (`__oom_kill_process`, mm/oom_kill.c).
fn killed(line: &str) -> Option<u32> {
    line.split_once("Killed process ")?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_pid_in_the_kernels_line() {
        let line =
            "3,1042,99,-;Memory cgroup out of memory: Killed process 4711 (victim) total-vm:1kB";
        assert_eq!(killed(line), Some(4711));
        assert_eq!(killed("6,1,1,-;oom_reaper: reaped process 4711 (victim)"), None);
    }
}
