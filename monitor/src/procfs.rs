//! What `/proc` says of a process: small files, read whole, parsed without trust. Names in them come from strangers.
//!
//! The parsers are pure. A process may end between two reads, and its number may be given anew: whoever joins two answers holds them to
//! one start ([`Stat::start_ticks`]).

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A longer file is not read on.
const MAX_BYTES: u64 = 64 << 10;
/// Steps from a process to its ancestors that are taken at most.
const MAX_STEPS: usize = 64;

/// A process as its number and its start name it, for as long as this boot lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Process {
    /// Process id, in the pid namespace of the daemon.
    pub pid: u32,
    /// Start in clock ticks since boot, as `/proc/PID/stat` shows it.
    pub start_ticks: u64,
}

impl Process {
    /// The same from a start in ns since boot.
    #[must_use]
    pub fn of_ns(pid: u32, start_ns: u64) -> Self {
        Self { pid, start_ticks: start_ns / tick_ns() }
    }
}

/// ns of a clock tick of `/proc/PID/stat`.
#[must_use]
pub fn tick_ns() -> u64 {
    1_000_000_000 / rustix::param::clock_ticks_per_second().max(1)
}

/// A process file system.
#[derive(Debug, Clone)]
pub struct Proc {
    root: PathBuf,
}

impl Default for Proc {
    fn default() -> Self {
        Self::at("/proc")
    }
}

/// Fields of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// State: `R`, `S`, `D`, `Z`…
    pub state: char,
    /// Parent; 0 for none, or one outside the namespace.
    pub ppid: u32,
    /// Start in clock ticks since boot.
    pub start_ticks: u64,
}

/// Fields of `/proc/PID/status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Effective user id.
    pub euid: u32,
    /// Real user id.
    pub uid: u32,
    /// Its number in each pid namespace, from that of this `/proc` to its own.
    pub ns_pids: Vec<u32>,
    /// Effective capabilities, in its own user namespace.
    pub effective: u64,
}

/// What `/proc/PID/status` says of the memory of a process. Bytes; `None` for a process without any, as one that is ending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Memory {
    /// Its name.
    pub comm: String,
    /// Resident.
    pub rss: Option<u64>,
    /// Of it, anonymous.
    pub anon: Option<u64>,
    /// Of it, shared memory and tmpfs.
    pub shmem: Option<u64>,
    /// In swap.
    pub swap: Option<u64>,
}

impl Proc {
    /// The one mounted at `root`.
    #[must_use]
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `/proc/PID/stat`; `None` if the process is gone.
    #[must_use]
    pub fn stat(&self, pid: u32) -> Option<Stat> {
        stat(&self.read(pid, "stat").ok()?)
    }

    /// `/proc/PID/status`; `None` if the process is gone.
    #[must_use]
    pub fn status(&self, pid: u32) -> Option<Status> {
        status(&self.read(pid, "status").ok()?)
    }

    /// Pages that it has resident; `None` if it is gone.
    #[must_use]
    pub fn resident_pages(&self, pid: u32) -> Option<u64> {
        let text = self.read(pid, "statm").ok()?;
        std::str::from_utf8(&text).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
    }

    /// Its name and its memory; `None` if it is gone.
    #[must_use]
    pub fn memory(&self, pid: u32) -> Option<Memory> {
        memory(&self.read(pid, "status").ok()?)
    }

    /// The kernel's preference for it as an OOM victim.
    #[must_use]
    pub fn oom_score_adj(&self, pid: u32) -> Option<i32> {
        std::str::from_utf8(&self.read(pid, "oom_score_adj").ok()?).ok()?.trim().parse().ok()
    }

    /// Path of its cgroup in a hierarchy, as it is written in records.
    #[must_use]
    pub fn cgroup(&self, pid: u32, hierarchy: u32) -> Option<String> {
        cgroup(&self.read(pid, "cgroup").ok()?, hierarchy)
    }

    /// Whether user and group ids in its user namespace are the host's own. `None` if that cannot be read.
    #[must_use]
    pub fn ids_are_the_hosts(&self, pid: u32) -> Option<bool> {
        self.read(pid, "uid_map").ok().map(|map| is_whole_map(&map))
    }

    /// Inode of a namespace of the process, such as `pid` or `user`.
    ///
    /// # Errors
    /// If it may not be looked at (ptrace(2), PTRACE_MODE_READ), or the process is gone.
    pub fn namespace(&self, process: &str, kind: &str) -> io::Result<u64> {
        // Followed, the link leads to the namespace itself.
        Ok(self.root.join(process).join("ns").join(kind).metadata()?.ino())
    }

    /// The process that has this number now.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<Process> {
        Some(Process { pid, start_ticks: self.stat(pid)?.start_ticks })
    }

    /// Whether a process runs: it is listed under its start, and more of it than a status that waits for its parent.
    #[must_use]
    pub fn runs(&self, process: Process) -> bool {
        let Some(stat) = self.stat_of(process) else { return false };
        let tasks = self.root.join(process.pid.to_string()).join("task");
        let threads = || std::fs::read_dir(tasks).map_or(0, |tasks| tasks.take(2).count());
        !matches!(stat.state, 'Z' | 'X') || threads() > 1
    }

    /// The parent of a process. `None` if either is gone, or the first process is reached.
    #[must_use]
    pub fn parent(&self, child: Process) -> Option<Process> {
        let ppid = self.stat_of(child)?.ppid;
        let parent = self.process(ppid).filter(|_| ppid != 0)?;
        // If it is still the parent, it was as its start was read.
        (self.stat_of(child)?.ppid == ppid).then_some(parent)
    }

    /// Whether `process` descends from `ancestor`, at most [`MAX_STEPS`] steps.
    #[must_use]
    pub fn descends(&self, process: Process, ancestor: Process) -> bool {
        let mut next = self.parent(process);
        for _ in 0..MAX_STEPS {
            match next {
                Some(found) if found == ancestor => return true,
                Some(found) => next = self.parent(found),
                None => return false,
            }
        }
        false
    }

    /// Numbers of all processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> + use<> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
    }

    fn stat_of(&self, process: Process) -> Option<Stat> {
        self.stat(process.pid).filter(|stat| stat.start_ticks == process.start_ticks)
    }

    fn read(&self, pid: u32, name: &str) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.root.join(pid.to_string()).join(name))?
            .take(MAX_BYTES)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Reads `/proc/PID/stat` (proc_pid_stat(5)).
#[must_use]
pub fn stat(bytes: &[u8]) -> Option<Stat> {
    // The name may hold anything, a `)` and bytes that are no text too.
    let end = bytes.windows(2).rposition(|pair| pair == b") ")?;
    let fields = std::str::from_utf8(bytes.get(end + 2..)?).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    Some(Stat {
        state: fields.next()?.chars().next()?,
        ppid: fields.next()?.parse().ok()?,
        start_ticks: fields.nth(17)?.parse().ok()?,
    })
}

/// Reads `/proc/PID/status` (proc_pid_status(5)). The kernel escapes a newline in the name, so no name looks like a line of its own.
#[must_use]
pub fn status(bytes: &[u8]) -> Option<Status> {
    let field = |key: &str| {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let line = lines.find_map(|line| line.strip_prefix(key.as_bytes()))?;
        std::str::from_utf8(line).ok()
    };
    let mut uids = field("Uid:")?.split_ascii_whitespace();
    let (uid, euid) = (uids.next()?.parse().ok()?, uids.next()?.parse().ok()?);
    let numbers = field("NSpid:")?.split_ascii_whitespace().map(str::parse);
    let ns_pids: Vec<u32> =
        numbers.collect::<Result<_, _>>().ok().filter(|p: &Vec<_>| !p.is_empty())?;
    let effective = u64::from_str_radix(field("CapEff:")?.trim(), 16).ok()?;
    Some(Status { euid, uid, ns_pids, effective })
}

/// Reads what `/proc/PID/status` says of its memory.
#[must_use]
pub fn memory(bytes: &[u8]) -> Option<Memory> {
    let field = |key: &str| {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(key.as_bytes()))
    };
    let kib = |key: &str| {
        let digits = std::str::from_utf8(field(key)?).ok()?.trim().strip_suffix(" kB")?;
        digits.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
    };
    // The kernel escapes newlines and backslashes in the name.
    let comm = crate::text::from_bytes(field("Name:")?.trim_ascii_start());
    let (rss, anon) = (kib("VmRSS:"), kib("RssAnon:"));
    Some(Memory { comm, rss, anon, shmem: kib("RssShmem:"), swap: kib("VmSwap:") })
}

/// The path in the line of one hierarchy of `/proc/PID/cgroup` (cgroups(7)): `4:memory:/a/b`, `0::/a`. `None` if it leads out of what this
/// process can see.
#[must_use]
pub fn cgroup(bytes: &[u8], hierarchy: u32) -> Option<String> {
    let wanted = hierarchy.to_string();
    bytes.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (id, path) = (parts.next()?, parts.nth(1)?);
        let is_known =
            path.starts_with(b"/") && !path.split(|b| *b == b'/').any(|part| part == b"..");
        (id == wanted.as_bytes() && is_known).then(|| crate::text::from_bytes(path))
    })
}

/// Whether `/proc/PID/uid_map` (user_namespaces(7)) maps every id to itself.
fn is_whole_map(bytes: &[u8]) -> bool {
    let Ok(map) = std::str::from_utf8(bytes) else { return false };
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A `/proc` made by hand.
    pub(crate) struct Fake {
        dir: tempfile::TempDir,
    }

    impl Fake {
        pub(crate) fn new() -> Self {
            Self { dir: tempfile::tempdir().unwrap() }
        }

        pub(crate) fn proc(&self) -> Proc {
            Proc::at(self.dir.path())
        }

        pub(crate) fn runs(&self, pid: u32, ppid: u32, start_ticks: u64) -> Process {
            self.is(pid, 'S', ppid, start_ticks)
        }

        pub(crate) fn is(&self, pid: u32, state: char, ppid: u32, start_ticks: u64) -> Process {
            let dir = self.dir.path().join(pid.to_string());
            std::fs::create_dir_all(dir.join(format!("task/{pid}"))).unwrap();
            let stat = format!(
                "{pid} (a) Z 1\n) 9) {state} {ppid} 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {start_ticks} 20\n"
            );
            std::fs::write(dir.join("stat"), stat).unwrap();
            Process { pid, start_ticks }
        }

        /// `/proc/PID/status` of one that has these numbers, the last in its own namespace.
        pub(crate) fn has_status(&self, ns_pids: &[u32], uid: u32, euid: u32, effective: u64) {
            let pid = ns_pids[0];
            let numbers: Vec<_> = ns_pids.iter().map(u32::to_string).collect();
            let text = format!(
                "Name:\tx\nUid:\t{uid}\t{euid}\t{euid}\t{euid}\nNSpid:\t{}\nCapEff:\t{effective:016x}\n",
                numbers.join("\t")
            );
            self.has(pid, "status", &text);
        }

        /// A file of a process that lives.
        pub(crate) fn has(&self, pid: u32, file: &str, text: &str) {
            std::fs::write(self.dir.path().join(pid.to_string()).join(file), text).unwrap();
        }

        /// `process` is in the namespace of this kind and name.
        pub(crate) fn is_in(&self, process: &str, kind: &str, name: &str) {
            let namespace = self.dir.path().join(format!("ns-{kind}-{name}"));
            std::fs::write(&namespace, "").unwrap();
            let links = self.dir.path().join(process).join("ns");
            std::fs::create_dir_all(&links).unwrap();
            let _ = std::fs::remove_file(links.join(kind));
            std::os::unix::fs::symlink(namespace, links.join(kind)).unwrap();
        }

        pub(crate) fn gone(&self, pid: u32) {
            std::fs::remove_dir_all(self.dir.path().join(pid.to_string())).unwrap();
        }
    }

    #[test]
    fn knows_this_process() {
        let (proc, pid) = (Proc::default(), std::process::id());
        let stat = proc.stat(pid).unwrap();
        assert_eq!(stat.ppid, std::os::unix::process::parent_id());
        let status = proc.status(pid).unwrap();
        assert_eq!(status.ns_pids.first(), Some(&pid));
        assert_eq!(status.euid, rustix::process::geteuid().as_raw());
        let process = proc.process(pid).unwrap();
        assert!(proc.runs(process) && proc.pids().any(|other| other == pid));
        let parent = proc.parent(process).unwrap();
        assert!(proc.descends(process, parent) && !proc.descends(parent, process));
        assert!(!proc.descends(process, Process { start_ticks: 1, ..parent }));
        assert_eq!(
            proc.namespace("self", "pid").unwrap(),
            proc.namespace(&pid.to_string(), "pid").unwrap()
        );
    }

    #[test]
    fn a_name_is_no_line_and_no_field() {
        let fake = Fake::new();
        fake.runs(7, 3, 500);
        assert_eq!(fake.proc().stat(7), Some(Stat { state: 'S', ppid: 3, start_ticks: 500 }));
        let text =
            "Name:\tCapEff:\\n0\nUid:\t1\t2\t3\t4\nNSpid:\t70\t7\nCapEff:\t0000000000080000\n";
        let expected = Status { uid: 1, euid: 2, ns_pids: vec![70, 7], effective: 1 << 19 };
        assert_eq!(status(text.as_bytes()), Some(expected));
        assert_eq!(status(b"Uid:\t1\t2\t3\t4\nNSpid:\t\nCapEff:\t0\n"), None);
    }

    #[test]
    fn cgroups_of_each_hierarchy() {
        let text = b"12:memory:/a/b:c\n4:cpu,cpuacct:/x\n0::/user.slice\xff\n";
        assert_eq!(cgroup(text, 12).as_deref(), Some("/a/b:c"));
        assert_eq!(cgroup(text, 0).as_deref(), Some("/user.slice\\xff"));
        assert_eq!(cgroup(text, 1), None);
        assert_eq!(cgroup(b"0::/../../a\n", 0), None, "outside of our cgroup namespace");
        assert_eq!(cgroup(b"0::/..a/b..\n", 0).as_deref(), Some("/..a/b.."));
    }

    #[test]
    fn a_map_of_a_container_is_not_the_hosts() {
        assert!(is_whole_map(b"         0          0 4294967295\n"));
        assert!(!is_whole_map(b"         0     100000      65536\n"));
        assert!(!is_whole_map(b""));
    }

    #[test]
    fn a_number_given_anew_is_no_ancestor() {
        let fake = Fake::new();
        let (root, child) = (fake.runs(2, 1, 10), fake.runs(3, 2, 20));
        fake.runs(1, 0, 0);
        let leaf = fake.runs(4, 3, 30);
        assert!(fake.proc().descends(leaf, root) && fake.proc().descends(leaf, child));
        assert!(!fake.proc().descends(leaf, leaf), "nobody descends from itself");
        fake.runs(2, 1, 40);
        assert!(!fake.proc().descends(leaf, root));
        fake.gone(3);
        assert!(!fake.proc().descends(leaf, Process { pid: 2, start_ticks: 40 }));
    }

    #[test]
    fn a_circle_ends() {
        let fake = Fake::new();
        fake.runs(5, 6, 1);
        let process = fake.runs(6, 5, 1);
        assert!(!fake.proc().descends(process, Process { pid: 9, start_ticks: 1 }));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400), hierarchy in 0_u32..20) {
            let _ = (stat(&bytes), status(&bytes), is_whole_map(&bytes));
            if let Some(path) = cgroup(&bytes, hierarchy) {
                prop_assert!(path.starts_with('/'));
            }
        }
    }
}
