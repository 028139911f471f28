//! Drains the ring into the queue behind it, and does nothing else that could block: no network, no disk, no lock.

use std::{os::fd::AsFd, sync::Arc};

use aya::maps::{MapData, RingBuf};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::CancellationToken;

use super::{Record, decode::decode, words::Assembler};
use crate::{attribute::environ::Allowlist, queue};

/// What the reader counts.
pub trait Counts: Send + Sync {
    /// A record could not be decoded. `why` is for the log.
    fn undecodable(&self, why: &dyn std::fmt::Display);
}

/// Records between two chances for others to run on this thread.
const BATCH: usize = 256;

/// Reads until `stop` is cancelled, then once more what is there.
///
/// # Errors
/// If the ring cannot be polled.
pub async fn run(
    ring: RingBuf<MapData>,
    allowlist: Arc<Allowlist>,
    records: queue::Sender<Record>,
    counts: Arc<dyn Counts>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let mut assembler = Assembler::new(allowlist);
    let mut ring = AsyncFd::new(Ring(ring))?;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            ready = ring.readable_mut() => {
                let mut ready = ready?;
                while drain(ready.get_inner_mut(), &mut assembler, &records, &*counts) {
                    tokio::task::yield_now().await;
                }
                ready.clear_ready();
            }
        }
    }
    while drain(ring.get_mut(), &mut assembler, &records, &*counts) {}
    Ok(())
}

/// Reads at most one batch and says whether there may be more.
fn drain(
    ring: &mut Ring,
    assembler: &mut Assembler,
    records: &queue::Sender<Record>,
    counts: &dyn Counts,
) -> bool {
    for _ in 0..BATCH {
        let Some(item) = ring.0.next() else { return false };
        match decode(&item) {
            Ok(raw) => assembler.push(raw, |record| records.offer(record)),
            Err(error) => counts.undecodable(&error),
        }
    }
    true
}

/// The ring as something to poll.
struct Ring(RingBuf<MapData>);

impl std::os::fd::AsRawFd for Ring {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0.as_fd())
    }
}
