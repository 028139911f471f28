//! From kill(2) to the record in the API's answer: signal, exit, ring, record, one request.

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::daemon::Api;
use crate::process::{self, Owned};
use crate::stop::Stop;

const KILLS: usize = 200;
/// How long one record may take to come.
const LIMIT: Duration = Duration::from_secs(5);

/// Times of all kills, in ms. Polling adds the time of one request at most.
#[derive(Debug, Serialize, PartialEq)]
pub(crate) struct Latency {
    /// How many.
    pub(crate) kills: usize,
    /// Half were faster.
    pub(crate) p50_ms: f64,
    /// 99 of 100 were faster.
    pub(crate) p99_ms: f64,
    /// The slowest.
    pub(crate) max_ms: f64,
}

/// Kills processes one after another and asks the API for each without a pause.
pub(crate) fn measure(api: &Api, stop: &Stop) -> Result<Latency> {
    let mut times = Vec::with_capacity(KILLS);
    for _ in 0..KILLS {
        times.push(one(api)?);
        stop.pause(Duration::from_millis(1))?;
    }
    summarize(times).context("nothing was measured")
}

/// ns from just before kill(2) to the answer that has the record.
fn one(api: &Api) -> Result<u64> {
    let exe = env::current_exe().context("cannot tell where this program is")?;
    let child = Command::new(exe)
        .arg("pause")
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start a process to kill")?;
    let mut victim = Owned { child, grace: Duration::ZERO };
    let pid = victim.child.id();
    let killed = boot_ns()?;
    process::signal(&victim.child, Signal::KILL);
    let deadline = Instant::now() + LIMIT;
    while api.death_of(pid)?.is_none() {
        if Instant::now() >= deadline {
            bail!("no record of process {pid} within {} s", LIMIT.as_secs());
        }
    }
    let answered = boot_ns()?;
    victim.child.wait().context("cannot wait for the killed process")?;
    Ok(answered.saturating_sub(killed))
}

fn boot_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::Boottime);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).context("a clock before the boot")
}

fn summarize(mut times: Vec<u64>) -> Option<Latency> {
    times.sort_unstable();
    let at = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
        times.get(index).map(|ns| Duration::from_nanos(*ns).as_secs_f64() * 1000.0)
    };
    Some(Latency { kills: times.len(), p50_ms: at(50)?, p99_ms: at(99)?, max_ms: at(100)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (1..=200).rev().map(|ms| ms * 1_000_000).collect();
        assert_eq!(
            summarize(times),
            Some(Latency { kills: 200, p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 })
        );
        assert_eq!(summarize(Vec::new()), None);
    }
}
