//! The files of cgroups, below where their hierarchy is mounted. What is read again and again is kept open; a cgroup that is gone answers with an error then,
//! also if another has taken its place.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::pread;

use super::parse::{self, Kinds};
use crate::cgroup::mounts::{Hierarchy, Version};
use crate::death::{CgroupMemory, Pressure};

/// Longest file that is read: `memory.stat` has 2 to 3 KiB.
const MAX_FILE: usize = 16 << 10;
/// Cgroups whose processes are looked for: to read one takes about 30 µs.
const MOST_CGROUPS: usize = 1024;
/// Levels that are looked at for a limit.
const LEVELS: usize = 32;

/// Names of the files of one version.
#[derive(Debug)]
struct Names {
    usage: &'static str,
    limit: &'static str,
    peak: &'static str,
    /// In which order: name of the file, and what of it is told.
    events: &'static [(&'static str, Option<&'static str>)],
    swap: Option<&'static str>,
    kernel: Option<&'static str>,
    pressure: Option<&'static str>,
}

const V2: Names = Names {
    usage: "memory.current",
    limit: "memory.max",
    peak: "memory.peak",
    events: &[("memory.events", None)],
    swap: Some("memory.swap.current"),
    kernel: None,
    pressure: Some("memory.pressure"),
};

const V1: Names = Names {
    usage: "memory.usage_in_bytes",
    limit: "memory.limit_in_bytes",
    peak: "memory.max_usage_in_bytes",
    events: &[("memory.failcnt", Some("max")), ("memory.oom_control", None)],
    swap: None,
    kernel: Some("memory.kmem.usage_in_bytes"),
    pressure: None,
};

/// One hierarchy's files.
#[derive(Debug)]
pub(super) struct Files {
    root: OwnedFd,
    path: PathBuf,
    names: &'static Names,
    /// v2: `memory.events` tells by poll(2) that it changed.
    pub(super) notifies: bool,
    buffer: Vec<u8>,
}

/// What stands in files of their own. Bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Beside {
    pub(super) swap: Option<u64>,
    pub(super) kernel: Option<u64>,
    pub(super) peak: Option<u64>,
    /// How often it was at its limit.
    pub(super) at_limit: Option<u64>,
    pub(super) pressure: Option<Pressure>,
}

impl Files {
    pub(super) fn open(hierarchy: &Hierarchy) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = openat(rustix::fs::CWD, &hierarchy.root, flags, Mode::empty())?;
        let (names, notifies) = match hierarchy.version {
            Version::V1 => (&V1, false),
            Version::V2 => (&V2, true),
        };
        let buffer = vec![0; MAX_FILE];
        Ok(Self { root, path: hierarchy.root.clone(), names, notifies, buffer })
    }

    /// The file that has the usage, to be kept.
    pub(super) fn usage_file(&self, cgroup: &str) -> io::Result<OwnedFd> {
        self.file(cgroup, self.names.usage)
    }

    /// The file that has the kinds, to be kept.
    pub(super) fn stat_file(&self, cgroup: &str) -> io::Result<OwnedFd> {
        self.file(cgroup, "memory.stat")
    }

    /// The file that tells of events, to be kept.
    pub(super) fn events_file(&self, cgroup: &str) -> io::Result<OwnedFd> {
        self.file(cgroup, "memory.events")
    }

    /// A number from a file that is kept.
    pub(super) fn number(&mut self, file: &OwnedFd) -> io::Result<u64> {
        parse::number(self.read(file)?).ok_or(io::ErrorKind::InvalidData.into())
    }

    /// The kinds, from a file that is kept.
    pub(super) fn kinds(&mut self, stat: &OwnedFd) -> io::Result<Kinds> {
        Ok(Kinds::parse(self.read(stat)?))
    }

    /// Reads a file that is kept, so that poll(2) waits for the next change of it.
    pub(super) fn acknowledge(&mut self, file: &OwnedFd) {
        // A cgroup that is gone is noticed as its usage is read.
        let _ = self.read(file);
    }

    /// What stands beside the usage and the kinds.
    pub(super) fn beside(&mut self, cgroup: &str) -> Beside {
        let names = self.names;
        let mut of = |name: Option<&str>| parse::number(self.once(cgroup, name?).ok()?);
        Beside {
            swap: of(names.swap),
            kernel: of(names.kernel),
            peak: of(Some(names.peak)),
            at_limit: self.events(cgroup).get("max").copied(),
            pressure: names.pressure.and_then(|name| self.pressure(cgroup, name)),
        }
    }

    /// A cgroup's own limit; `Some(None)` if it has none. `None` if that cannot be read, as of the root.
    pub(super) fn own_limit(&mut self, cgroup: &str) -> Option<Option<u64>> {
        let name = self.names.limit;
        parse::limit(self.once(cgroup, name).ok()?)
    }

    /// The tightest limit above a cgroup, and where it stands.
    pub(super) fn limit_above(&mut self, cgroup: &str) -> Option<(u64, String)> {
        let mut tightest: Option<(u64, String)> = None;
        let mut level = cgroup;
        for _ in 0..LEVELS {
            let Some((above, _)) = level.rsplit_once('/').filter(|(above, _)| !above.is_empty())
            else {
                break;
            };
            if let Some(Some(limit)) = self.own_limit(above)
                && tightest.as_ref().is_none_or(|(least, _)| limit < *least)
            {
                tightest = Some((limit, above.to_owned()));
            }
            level = above;
        }
        tightest
    }

    /// All that is told of a cgroup at a kill.
    pub(super) fn story(&mut self, cgroup: &str) -> io::Result<CgroupMemory> {
        let usage = {
            let name = self.names.usage;
            parse::number(self.once(cgroup, name)?).ok_or(io::ErrorKind::InvalidData)?
        };
        let kinds = Kinds::parse(self.once(cgroup, "memory.stat")?);
        let Beside { swap, kernel, peak, pressure, .. } = self.beside(cgroup);
        Ok(CgroupMemory {
            cgroup: cgroup.to_owned(),
            usage_bytes: Some(usage),
            working_set_bytes: kinds.working_set(usage),
            unreclaimable_bytes: kinds.unreclaimable(usage),
            anon_bytes: kinds.anon,
            file_bytes: kinds.file(),
            inactive_file_bytes: kinds.inactive_file,
            dirty_bytes: kinds
                .dirty
                .map(|dirty| dirty.saturating_add(kinds.writeback.unwrap_or(0))),
            shmem_bytes: kinds.shmem,
            kernel_bytes: kinds.all_kernel().or(kernel),
            slab_bytes: kinds.slab,
            sock_bytes: kinds.sock,
            unevictable_bytes: kinds.unevictable,
            swap_bytes: kinds.swap.or(swap),
            peak_bytes: peak,
            pressure,
            events: self.events(cgroup),
            delay_ms: None,
        })
    }

    /// How often what happened at its limits, by the kernel's names.
    fn events(&mut self, cgroup: &str) -> BTreeMap<String, u64> {
        let mut events = BTreeMap::new();
        for (name, as_one) in self.names.events {
            let Ok(text) = self.once(cgroup, name) else { continue };
            match as_one {
                Some(key) => events.extend(parse::number(text).map(|n| ((*key).to_owned(), n))),
                None => {
                    // The kernel's own names; a file of strangers it is not.
                    let named = parse::keyed(text).filter_map(|(key, value)| {
                        Some((std::str::from_utf8(key).ok()?.to_owned(), value))
                    });
                    events.extend(named.take(16));
                }
            }
        }
        events
    }

    /// Processes of a cgroup and of all below it, at most `max` of them and of [`MOST_CGROUPS`] cgroups, and whether those are all.
    pub(super) fn processes(&self, cgroup: &str, max: usize) -> (Vec<u32>, bool) {
        let relative = cgroup.trim_start_matches('/');
        let mut pending = vec![self.path.join(relative)];
        let (mut pids, mut looked_at) = (Vec::new(), 0);
        while let Some(directory) = pending.pop() {
            let text = std::fs::read(directory.join("cgroup.procs")).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            pids.extend(text.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            looked_at += 1;
            if pids.len() >= max || looked_at >= MOST_CGROUPS {
                pids.truncate(max);
                return (pids, false);
            }
            let below = std::fs::read_dir(&directory).into_iter().flatten().flatten();
            let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            pending.extend(below.take(MOST_CGROUPS).map(|entry| entry.path()));
        }
        (pids, true)
    }

    fn pressure(&mut self, cgroup: &str, name: &str) -> Option<Pressure> {
        parse::pressure(self.once(cgroup, name).ok()?)
    }

    fn file(&self, cgroup: &str, name: &str) -> io::Result<OwnedFd> {
        let path = Path::new(cgroup.trim_start_matches('/')).join(name);
        Ok(openat(&self.root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
    }

    fn once(&mut self, cgroup: &str, name: &str) -> io::Result<&[u8]> {
        let file = self.file(cgroup, name)?;
        self.read(&file)
    }

    fn read(&mut self, file: impl AsFd) -> io::Result<&[u8]> {
        // One read of these files tells all; the offset stays where it is.
        let length = pread(file, &mut self.buffer, 0)?;
        Ok(self.buffer.get(..length).unwrap_or_default())
    }
}
