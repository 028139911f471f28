//! What a process holds resident while something else goes on.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

const EVERY: Duration = Duration::from_millis(10);

/// Resident memory in MiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Resident {
    pub(crate) first: f64,
    pub(crate) peak: f64,
    pub(crate) last: f64,
}

/// Looks again and again, on a thread of its own.
pub(crate) struct Sampler {
    thread: JoinHandle<Option<Resident>>,
    enough: Arc<AtomicBool>,
}

impl Sampler {
    /// From now on.
    pub(crate) fn start(pid: u32) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let enough = Arc::clone(&enough);
            move || {
                let first = resident(pid)?;
                let mut seen = Resident { first, peak: first, last: first };
                while !enough.load(Ordering::Relaxed) {
                    thread::park_timeout(EVERY);
                    seen.last = resident(pid)?;
                    seen.peak = seen.peak.max(seen.last);
                }
                Some(seen)
            }
        });
        Self { thread, enough }
    }

    /// What was seen.
    pub(crate) fn stop(self) -> Result<Resident> {
        self.enough.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let seen = self.thread.join().map_err(|_| anyhow!("the sampler of memory panicked"))?;
        seen.context("the daemon's memory cannot be read")
    }
}

/// `VmRSS` of `/proc/PID/status` in MiB.
fn resident(pid: u32) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_seen() {
        let sampler = Sampler::start(std::process::id());
        let held = vec![1_u8; 8 << 20];
        let seen = sampler.stop().unwrap();
        assert!(seen.peak >= seen.first && seen.peak >= seen.last && seen.first > 0.5, "{seen:?}");
        drop(held);
    }
}
