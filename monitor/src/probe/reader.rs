//! Drains the ring into the queue behind it, on a thread of its own that does nothing else: no network, no disk, no lock. While the queue is full it
//! leaves records on the ring, which is larger, and whose losses the kernel side counts.
//!
//! A thread and not a task, so that nothing that the rest of the house does can stand between the kernel and the queue, and so
//! that the scheduler sees it as what it is: asleep nearly always, and urgent when not.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::{Record, decode::decode, words::Assembler};
use crate::{attribute::environ::Allowlist, queue};

/// Records that are read before the reader looks whether it is to stop.
const BATCH: usize = 4096;

/// Room in the queue without which nothing more is read: more than what comes of one record from the ring. And how long to sleep when there is none.
const ROOM: usize = 8;
const ROOM_BYTES: usize = 256 << 10;
const FULL: Duration = Duration::from_millis(1);

/// With records that wake nobody: how long to sleep when nothing goes on, and while something does, and how long that counts so after a record. A fatal signal
/// wakes; what comes of it follows within the last, or waits for the first.
const IDLE: Duration = Duration::from_millis(100);
const BUSY: Duration = Duration::from_millis(1);
const BUSY_FOR: Duration = Duration::from_millis(50);

/// What the reader tells of itself.
pub trait Observer: Send + Sync {
    /// A record could not be decoded. `why` is for the log.
    fn undecodable(&self, why: &dyn std::fmt::Display);
    /// The ring cannot be waited for any more: deaths are no longer seen.
    fn blind(&self, why: &dyn std::fmt::Display);
}

/// What the kernel side writes to.
pub struct Sources {
    /// The ring of records.
    pub ring: RingBuf<MapData>,
    /// The kernel side's own log, if asked for.
    pub log: Option<EbpfLogger<&'static dyn log::Log>>,
    /// Whether some records come without waking anybody.
    pub quiet: bool,
}

/// The running thread. Dropping it lets the thread run on; call [`Self::stop`].
#[derive(Debug)]
pub struct Reader {
    thread: JoinHandle<()>,
    wake: Arc<OwnedFd>,
}

/// Starts the thread.
///
/// # Errors
/// If the kernel gives no thread or no event descriptor.
pub fn spawn(
    sources: Sources,
    allowlist: Allowlist,
    records: queue::Sender<Record>,
    observer: Arc<dyn Observer>,
) -> io::Result<Reader> {
    let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let stopped = Arc::clone(&wake);
    let thread = thread::Builder::new().name("killwatch-ring".to_owned()).spawn(move || {
        let mut drain = Drain { sources, assembler: Assembler::new(allowlist), records, observer };
        if let Err(error) = drain.run(stopped.as_fd()) {
            drain.observer.blind(&error);
        }
    })?;
    Ok(Reader { thread, wake })
}

impl Reader {
    /// Makes the thread read what is there once more and end, and waits for that: as long as the rest of the house takes to make room for it.
    pub fn stop(self) {
        // A counter that cannot take one more has woken the thread already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        // A panic of the thread was reported as it happened.
        let _ = self.thread.join();
    }
}

struct Drain {
    sources: Sources,
    assembler: Assembler,
    records: queue::Sender<Record>,
    observer: Arc<dyn Observer>,
}

impl Drain {
    fn run(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let mut busy_until = Instant::now();
        loop {
            let (stopping, woken) = self.wait(stop, busy_until)?;
            let count = self.read();
            if woken || count > 0 {
                busy_until = Instant::now() + BUSY_FOR;
            }
            if stopping {
                while self.read() > 0 || !self.has_room() {
                    self.wait_for_room();
                }
                return Ok(());
            }
            self.wait_for_room();
        }
    }

    /// Whether what comes of one more record from the ring fits into the queue.
    fn has_room(&self) -> bool {
        self.records.has_room(ROOM, ROOM_BYTES)
    }

    /// What the rest is too slow for waits on the ring: the kernel side counts what does not fit there.
    fn wait_for_room(&self) {
        while !self.has_room() {
            thread::park_timeout(FULL);
        }
    }

    /// Sleeps until there is something to read or time to look, and says whether it is time to stop, and whether anything woke it.
    fn wait(&self, stop: BorrowedFd<'_>, busy_until: Instant) -> io::Result<(bool, bool)> {
        let sleep = match (self.sources.quiet, Instant::now() < busy_until) {
            (false, _) => None,
            (true, true) => Timespec::try_from(BUSY).ok(),
            (true, false) => Timespec::try_from(IDLE).ok(),
        };
        let mut fds = vec![
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&self.sources.ring, PollFlags::IN),
        ];
        if let Some(log) = &self.sources.log {
            fds.push(PollFd::new(log, PollFlags::IN));
        }
        loop {
            match poll(&mut fds, sleep.as_ref()) {
                Ok(woken) => {
                    let stopping = fds.first().is_some_and(|stop| !stop.revents().is_empty());
                    return Ok((stopping, woken > 0));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads at most [`BATCH`] records and says how many.
    fn read(&mut self) -> usize {
        let mut count = 0;
        while count < BATCH
            && self.has_room()
            && let Some(item) = self.sources.ring.next()
        {
            count += 1;
            match decode(&item) {
                Ok(raw) => self.assembler.push(raw, |record| self.records.offer(record)),
                Err(error) => self.observer.undecodable(&error),
            }
        }
        if let Some(log) = &mut self.sources.log {
            log.flush();
        }
        count
    }
}
