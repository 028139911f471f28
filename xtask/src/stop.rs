//! Ctrl-C, SIGTERM and SIGHUP as an error that unwinds, so that whatever was made is cleaned up on the way.

use std::fmt;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// The error of a chore that was asked to stop.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Receives the wish to stop. Waiting is done here, so that every wait can be interrupted.
pub(crate) struct Stop(Receiver<()>);

impl Stop {
    /// Takes over the signals. Once a process.
    pub(crate) fn install() -> Result<Self> {
        let (sender, receiver) = sync_channel(1);
        // A full channel means that a stop is on its way already.
        ctrlc::set_handler(move || {
            let _ = sender.try_send(());
        })
        .context("cannot handle signals")?;
        Ok(Self(receiver))
    }

    /// Waits so long; an error if asked to stop.
    pub(crate) fn pause(&self, duration: Duration) -> Result<()> {
        match self.0.recv_timeout(duration) {
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Err(Interrupted.into()),
        }
    }

    /// Asks `probe` every 5 ms until it has an answer; an error when `limit` passes first.
    pub(crate) fn until<T>(
        &self,
        what: &str,
        limit: Duration,
        mut probe: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(answer) = probe()? {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                bail!("{what}: not within {} s", limit.as_secs());
            }
            self.pause(Duration::from_millis(5))?;
        }
    }
}
