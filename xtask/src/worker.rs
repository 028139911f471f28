//! Hidden commands: the processes that `demo` and `bench` have killed.

use std::io::Read as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// Arguments of `hog`.
#[derive(clap::Args)]
pub(crate) struct HogArgs {
    /// Gives up after so much, so that a limit that does not hold cannot hurt the host
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    ceiling_mib: u32,
    /// MiB a second; else as fast as it goes
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: Option<u32>,
}

/// Waits for a byte on stdin (it is in its cgroup by then), then allocates and touches memory until it is killed.
pub(crate) fn hog(args: &HogArgs) -> Result<()> {
    let mut go = [0];
    std::io::stdin().read_exact(&mut go).context("no go-ahead on stdin")?;
    let mut held: Vec<Vec<u8>> = Vec::new();
    let begin = Instant::now();
    for mib in 0..args.ceiling_mib {
        let due = args.rate.map(|rate| Duration::from_secs_f64(f64::from(mib) / f64::from(rate)));
        while let Some(left) = due.and_then(|due| due.checked_sub(begin.elapsed())) {
            std::thread::park_timeout(left);
        }
        held.push(vec![1; 1 << 20]);
    }
    let touched: usize = held.iter().map(Vec::len).sum();
    bail!("still alive after {} MiB: no limit holds here", touched >> 20);
}

/// Waits until stdin closes, or death.
pub(crate) fn pause() -> Result<()> {
    std::io::stdin().read_to_end(&mut Vec::new()).context("cannot wait on stdin")?;
    Ok(())
}
