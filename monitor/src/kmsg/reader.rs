//! Reads `/dev/kmsg` from now on, on a thread of its own that does nothing else.
//!
//! The kernel keeps the log in a ring of its own: what it had to overwrite before it was read is a counted gap.

use std::{
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    fs::{OFlags, SeekFrom, seek},
};

use super::{
    parse,
    story::{Cgroup, Event, Source, Story, WAIT_US},
};
use crate::{privileges, probe::Record, queue};

/// Longer than any record: PRINTK_MESSAGE_MAX is 2 KiB (kernel/printk/printk_ringbuffer.h and internal.h), each byte escaped in four at worst.
const RECORD: usize = 16 << 10;
/// Records that are read before the reader looks whether it is to stop.
const BATCH: usize = 4096;
/// Of a file in `/proc`.
const PROC_BYTES: u64 = 16 << 10;

/// What the reader tells of itself.
pub trait Observer: Send + Sync {
    /// Messages of the kernel were overwritten before they were read.
    fn overwritten(&self, messages: u64);
    /// The log cannot be read any more: deaths are no longer seen.
    fn blind(&self, why: &dyn std::fmt::Display);
}

/// The log, opened.
#[derive(Debug)]
pub struct Log {
    file: File,
    /// Where the hierarchy of the memory controller is mounted.
    root: PathBuf,
    proc: PathBuf,
    /// Number of that hierarchy; 0 is v2.
    hierarchy: u32,
}

/// The running thread. Dropping it lets the thread run on; call [`Self::stop`].
#[derive(Debug)]
pub struct Reader {
    thread: JoinHandle<()>,
    wake: Arc<OwnedFd>,
}

impl Log {
    /// Opens the log behind its last message. `root` is where the memory controller's hierarchy is mounted, `hierarchy` its number.
    ///
    /// # Errors
    /// If it cannot be opened: it takes root, or CAP_SYSLOG where `kernel.dmesg_restrict` is set.
    pub fn open(path: &Path, root: PathBuf, hierarchy: u32) -> io::Result<Self> {
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        let file = File::options().read(true).custom_flags(flags).open(path)?;
        seek(&file, SeekFrom::End(0))?;
        Ok(Self { file, root, proc: "/proc".into(), hierarchy })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// If the kernel gives no thread or no event descriptor.
    pub fn spawn(
        self,
        records: queue::Sender<Record>,
        observer: Arc<dyn Observer>,
    ) -> io::Result<Reader> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stopped = Arc::clone(&wake);
        let thread = thread::Builder::new().name("killwatch-kmsg".to_owned()).spawn(move || {
            privileges::shed();
            let mut drain =
                Drain { log: self, story: Story::default(), next: None, records, observer };
            if let Err(error) = drain.run(stopped.as_fd()) {
                drain.observer.blind(&error);
            }
        })?;
        Ok(Reader { thread, wake })
    }

    /// The id of a cgroup that is there.
    fn id(&self, path: &[u8]) -> Option<u64> {
        let path = std::str::from_utf8(path).ok()?.trim_start_matches('/');
        Some(self.root.join(path).metadata().ok()?.ino())
    }

    /// The cgroup of a process that is dying, if it is still there under this name.
    fn of_process(&self, pid: u32, comm: &[u8]) -> Option<Vec<u8>> {
        let read = |name: &str| {
            let mut bytes = Vec::new();
            let file = File::open(self.proc.join(format!("{pid}/{name}"))).ok()?;
            file.take(PROC_BYTES).read_to_end(&mut bytes).ok().map(|_| bytes)
        };
        let cgroups = read("cgroup")?;
        // After the cgroup: had the number gone to another process in between, the name would differ.
        (read("comm")?.strip_suffix(b"\n")? == comm).then_some(())?;
        // On v1 a process that has given its cgroups back shows the root.
        let path = parse::cgroup_of(&cgroups, self.hierarchy);
        path.filter(|path| self.hierarchy == 0 || path != b"/")
    }
}

impl Reader {
    /// Makes the thread read what is there once more and end, and waits for that.
    pub fn stop(self) {
        // A counter that cannot take one more has woken the thread already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        // A panic of the thread was reported as it happened.
        let _ = self.thread.join();
    }
}

struct Drain {
    log: Log,
    story: Story,
    /// Number of the next message, once one was read.
    next: Option<u64>,
    records: queue::Sender<Record>,
    observer: Arc<dyn Observer>,
}

impl Drain {
    fn run(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let (stopping, quiet) = self.wait(stop)?;
            while self.read()? == BATCH && stopping {}
            if quiet || stopping {
                let event = self.story.release();
                self.tell(event);
            }
            if stopping {
                return Ok(());
            }
        }
    }

    /// Sleeps until there is something to read. Says whether it is time to stop, and whether nothing came while a victim waited.
    fn wait(&self, stop: BorrowedFd<'_>) -> io::Result<(bool, bool)> {
        let mut fds = [
            PollFd::from_borrowed_fd(stop, PollFlags::IN),
            PollFd::new(&self.log.file, PollFlags::IN),
        ];
        let nanos = i64::try_from(WAIT_US * 1000).unwrap_or(i64::MAX);
        let wait = self.story.is_waiting().then_some(Timespec { tv_sec: 0, tv_nsec: nanos });
        loop {
            match poll(&mut fds, wait.as_ref()) {
                Ok(ready) => {
                    let [stop, _] = &fds;
                    return Ok((!stop.revents().is_empty(), ready == 0));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads at most [`BATCH`] records and says how many.
    fn read(&mut self) -> io::Result<usize> {
        let mut buffer = [0; RECORD];
        for count in 0..BATCH {
            match rustix::io::read(&self.log.file, &mut buffer) {
                Ok(length) => self.take(buffer.get(..length).unwrap_or_default()),
                // What was to be read next was overwritten; the next read begins with what is left, and its number says how much it was.
                Err(rustix::io::Errno::PIPE) => {
                    let event = self.story.interrupted();
                    self.tell(event);
                }
                Err(rustix::io::Errno::AGAIN) => return Ok(count),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(BATCH)
    }

    fn take(&mut self, record: &[u8]) {
        let Some(entry) = parse::entry(record) else { return };
        let missed = self.next.map_or(0, |next| entry.sequence.saturating_sub(next));
        if missed > 0 {
            self.observer.overwritten(missed);
        }
        self.next = Some(entry.sequence.saturating_add(1));
        let line = Some(&entry.text).filter(|_| entry.by_kernel).and_then(|text| parse::line(text));
        if let Some(line) = line {
            let event = self.story.line(line, entry.time_us);
            self.tell(event);
        }
    }

    fn tell(&self, event: Option<Event>) {
        let Some(mut event) = event else { return };
        let (Event::Kill(kill) | Event::CountedAgain(kill)) = &mut event;
        let sure = kill.cgroup.as_ref().is_some_and(|cgroup| cgroup.from == Source::Decision);
        if !sure && let Some(path) = self.log.of_process(kill.killed.tid, &kill.killed.comm) {
            kill.cgroup = Some(Cgroup { path, id: None, from: Source::Proc });
        }
        if let Some(cgroup) = &mut kill.cgroup {
            cgroup.id = self.log.id(&cgroup.path);
        }
        self.records.offer(Record::Logged(event));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl Observer for Heard {
        fn overwritten(&self, messages: u64) {
            self.0.lock().unwrap().push(messages.to_string());
        }

        fn blind(&self, why: &dyn std::fmt::Display) {
            self.0.lock().unwrap().push(why.to_string());
        }
    }

    fn drain(log: Log) -> (Drain, Arc<Heard>, queue::Receiver<Record>) {
        let (sender, receiver) = queue::bounded(16, 1 << 20, queue::OnFull::DropNewest);
        let heard = Arc::new(Heard::default());
        let observer: Arc<dyn Observer> = Arc::clone(&heard) as _;
        (
            Drain { log, story: Story::default(), next: None, records: sender, observer },
            heard,
            receiver,
        )
    }

    fn log(dir: &Path) -> Log {
        std::fs::create_dir_all(dir.join("proc/7")).unwrap();
        std::fs::create_dir_all(dir.join("cgroup/a")).unwrap();
        std::fs::write(dir.join("kmsg"), "old\n").unwrap();
        let mut log = Log::open(&dir.join("kmsg"), dir.join("cgroup"), 4).unwrap();
        log.proc = dir.join("proc");
        log
    }

    const KILL: &str = "Out of memory: Killed process 7 (x) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB, UID:0 pgtables:1kB oom_score_adj:0";

    #[tokio::test]
    async fn asks_proc_where_the_log_does_not_say_the_cgroup() {
        let dir = tempfile::tempdir().unwrap();
        let (mut drain, heard, mut records) = drain(log(dir.path()));
        for (comm, known) in [("x\n", true), ("another\n", false)] {
            std::fs::write(dir.path().join("proc/7/comm"), comm).unwrap();
            std::fs::write(dir.path().join("proc/7/cgroup"), "4:memory:/a\n0::/b\n").unwrap();
            drain.take(format!("3,1,5,-;{KILL}").as_bytes());
            let event = drain.story.release();
            drain.tell(event);
            let Some(Record::Logged(Event::Kill(kill))) = records.recv().await else { panic!() };
            let id = std::fs::metadata(dir.path().join("cgroup/a")).unwrap().ino();
            let cgroup = Cgroup { path: b"/a".to_vec(), id: Some(id), from: Source::Proc };
            assert_eq!(kill.cgroup, known.then_some(cgroup));
        }
        assert!(heard.0.lock().unwrap().is_empty());
    }

    #[test]
    fn a_hole_in_the_numbers_is_a_gap_and_a_processs_line_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (mut drain, heard, _records) = drain(log(dir.path()));
        drain.take(b"6,10,5,-;hello");
        drain.take(b"6,14,6,-;hello");
        drain.take(format!("12,15,7,-;{KILL}").as_bytes());
        assert_eq!(*heard.0.lock().unwrap(), ["3"]);
        assert!(!drain.story.is_waiting());
    }
}
