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
use uuid::Uuid;

use super::{
    Loss, News, Record,
    decode::{Raw, decode},
    overlap::Overlap,
    pins::state::{Meanwhile, Pins},
    retire::Old,
    tally::lost,
    traffic::{Counter, is_end, submitted},
    words::Assembler,
};
use crate::{attribute::environ::Allowlist, privileges, queue};

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

/// How often a reader whose ring goes on without it looks once more as it is told to stop.
const LAST_LOOKS: usize = 16;

/// What the reader tells of itself.
pub trait Observer: Send + Sync {
    /// The end of a process was read; the kernel side stamped it then, ns since boot.
    fn end_read(&self, ktime_ns: u64);
    /// A record could not be decoded. `why` is for the log.
    fn undecodable(&self, why: &dyn std::fmt::Display);
    /// The ring cannot be waited for any more: deaths are no longer seen.
    fn blind(&self, why: &dyn std::fmt::Display);
}

/// The kernel side's own log.
pub type KernelLog = EbpfLogger<&'static dyn log::Log>;

/// What the kernel side writes to.
pub struct Sources {
    /// The ring of records.
    pub ring: RingBuf<MapData>,
    /// The kernel side's own log, if asked for.
    pub log: Option<KernelLog>,
    /// Whether some records come without waking anybody.
    pub quiet: bool,
    /// What the ring belongs to, if it outlives the daemon.
    pub set: Option<Set>,
    /// Rings that are to be read to their end before.
    pub old: Vec<Old>,
    /// Told of what waited.
    pub pins: Arc<Pins>,
}

/// A set that is pinned.
pub struct Set {
    /// Which.
    pub id: Uuid,
    /// What went over its ring.
    pub traffic: Counter,
    /// Its ends that were dealt with, if somebody noted it.
    pub noted: Option<i64>,
    /// Whether nobody has read its ring before.
    pub fresh: bool,
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
        privileges::shed();
        let mut drain = Drain {
            sources,
            assembler: Assembler::new(allowlist.clone()),
            allowlist,
            overlap: Overlap::default(),
            records,
            observer,
            read: Meanwhile::default(),
            old_deaths: 0,
            passed: 0,
            settled: true,
        };
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

pub(super) struct Drain {
    sources: Sources,
    assembler: Assembler,
    pub(super) allowlist: Allowlist,
    pub(super) overlap: Overlap,
    pub(super) records: queue::Sender<Record>,
    pub(super) observer: Arc<dyn Observer>,
    /// What was read from the ring.
    read: Meanwhile,
    /// Ends of rings before it: those that were read, and those of them that went into the queue.
    old_deaths: u64,
    passed: u64,
    /// Whether it is known what an earlier reader of the ring had lost.
    settled: bool,
}

impl Drain {
    fn run(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        self.begin();
        let mut busy_until = Instant::now() + BUSY_FOR;
        loop {
            let (stopping, woken) = self.wait(stop, busy_until)?;
            let count = if self.settled { self.read() } else { self.settle() };
            if woken || count > 0 {
                busy_until = Instant::now() + BUSY_FOR;
            }
            if stopping {
                // What is pinned does not end: what comes after that, the next daemon reads.
                let last_looks = if self.sources.set.is_some() { LAST_LOOKS } else { usize::MAX };
                for _ in 0..last_looks {
                    if self.read() == 0 && self.has_room() {
                        break;
                    }
                    self.wait_for_room();
                }
                return Ok(());
            }
            self.wait_for_room();
        }
    }

    /// Reads what is on the rings of earlier daemons, and says whose ring comes then.
    fn begin(&mut self) {
        let (mut waited, mut done_with) = (Meanwhile::default(), Vec::new());
        for old in std::mem::take(&mut self.sources.old) {
            done_with.push(old.path.clone());
            let (read, passed) = self.retire(old);
            waited.records += read.records;
            waited.deaths += read.deaths;
            self.passed += passed;
        }
        let Some(set) = &self.sources.set else {
            self.tell(News::Begins { set: Uuid::nil(), base: None, done_with });
            return;
        };
        let (id, fresh) = (set.id, set.fresh);
        let base = set.noted.map(|noted| noted.saturating_sub_unsigned(self.passed));
        self.tell(News::Begins { set: id, base, done_with });
        if fresh {
            self.sources.pins.set_meanwhile(waited);
        } else {
            // Counted together with what waits here.
            self.settled = false;
            self.read = waited;
            self.old_deaths = waited.deaths;
        }
    }

    /// Reads, and finds out what an earlier reader had read and lost, if nothing was in the making at that.
    fn settle(&mut self) -> usize {
        let look = |drain: &Self| drain.sources.set.as_ref().and_then(|set| set.traffic.read());
        let before = look(self);
        let count = self.read();
        // What did not fit into the queue is still there.
        let is_empty = count < BATCH && self.has_room();
        let (Some(before), Some(after)) = (before, look(self)) else { return count };
        let Some(all) = submitted(before, after).filter(|_| is_empty) else { return count };
        self.settled = true;
        self.sources.pins.set_meanwhile(self.read);
        let set = self.sources.set.as_ref().map(|set| (set.id, set.noted));
        let Some((id, noted)) = set else { return count };
        let own = self.read.deaths - self.old_deaths;
        match lost(all, own, noted) {
            Some(killed) => self.tell(News::Lost(Loss::Killed, killed)),
            // Nobody knows; from here on it is known.
            None => {
                let before = i64::try_from(all.saturating_sub(own)).unwrap_or(i64::MAX);
                let base = Some(before.saturating_sub_unsigned(self.passed));
                self.tell(News::Begins { set: id, base, done_with: Vec::new() });
            }
        }
        count
    }

    /// Whether what comes of one more record from the ring fits into the queue.
    fn has_room(&self) -> bool {
        self.records.has_room(ROOM, ROOM_BYTES)
    }

    /// What the rest is too slow for waits on the ring: the kernel side counts what does not fit there.
    pub(super) fn wait_for_room(&self) {
        while !self.has_room() {
            thread::park_timeout(FULL);
        }
    }

    /// Sleeps until there is something to read or time to look, and says whether it is time to stop, and whether anything woke it.
    fn wait(&self, stop: BorrowedFd<'_>, busy_until: Instant) -> io::Result<(bool, bool)> {
        let looks = self.sources.quiet || !self.settled;
        let sleep = match (looks, Instant::now() < busy_until) {
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
        let (mut count, mut ready) = (0, Vec::new());
        while count < BATCH
            && self.has_room()
            && let Some(item) = self.sources.ring.next()
        {
            count += 1;
            let is_end = is_end(&item);
            self.read.records += 1;
            self.read.deaths += u64::from(is_end);
            match decode(&item) {
                Ok(raw) if self.overlap.repeats(&raw) => {
                    if is_end {
                        ready.push(Record::Ring(News::Repeated));
                    }
                }
                Ok(raw) => {
                    note_end(&*self.observer, &raw);
                    self.assembler.push(raw, |record| ready.push(record));
                }
                Err(error) => self.observer.undecodable(&error),
            }
            // It leaves the ring before anybody hears of it: a daemon that is killed in between has lost it, and the next one counts that. The other way
            // around the next one would tell it again.
            drop(item);
            for record in ready.drain(..) {
                self.records.offer(record);
            }
        }
        if let Some(log) = &mut self.sources.log {
            log.flush();
        }
        count
    }
}

/// Says when an end was, to whoever measures how long it took to get here.
pub(super) fn note_end(observer: &dyn Observer, raw: &Raw<'_>) {
    if let Raw::Exit(exit) = raw {
        observer.end_read(exit.header.ktime_ns);
    }
}
