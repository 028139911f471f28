//! Who is at the other end, by what the kernel says, and what it may see and do.
//!
//! * The kernel tells the process that connected, and its user (`SO_PEERCRED`, unix(7)). From then on that process is meant, known by its
//!   number and start, whoever else may hold the connection.
//! * That the number still was that process's as its start was read: the kernel holds a handle on it (`SO_PEERPIDFD`, from Linux 6.5 on)
//!   which says that it lives, after the read. Before 6.5 the connection must not be hung up, and the user must be the same.
//! * *Privileged* is who may look at any process of this host by the kernel's own rule (ptrace(2)): uid 0 and CAP_SYS_PTRACE, in the user
//!   namespace and the pid namespace of the daemon.
//! * All others see the deaths in their own cgroup and below. Neither the root cgroup nor a slice is anybody's own. Who runs on the host
//!   itself, and in no container, sees those of its user too; for a number is another user in each container.

use std::io;
use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, sockopt::PeerPidfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::attribute::path;
use crate::ledger::{NsPid, Viewer};
use crate::procfs::{Proc, Process, Status};
use crate::tags::Owner;

/// Number of CAP_SYS_PTRACE (include/uapi/linux/capability.h).
const SYS_PTRACE: u64 = 1 << 19;
/// Inodes of the first namespaces (include/linux/proc_ns.h).
const FIRST_CGROUP_NS: u64 = 0xEFFF_FFFB;
const FIRST_PID_NS: u64 = 0xEFFF_FFFC;
/// Processes that a search by a number in another pid namespace looks at.
const MAX_SEARCH: usize = 65_536;

/// What the daemon must know of this host to know its peers.
#[derive(Debug, Clone)]
pub struct Host {
    /// The process file system.
    pub proc: Proc,
    /// Number of the hierarchy that records name cgroups in.
    hierarchy: u32,
    /// Whether the daemon's process ids are those that the kernel tells deaths by.
    in_first_pid_ns: bool,
    /// Whether `/proc/PID/cgroup` shows paths from the root, as records have them.
    paths_are_whole: bool,
}

/// Why a peer is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// It is in a pid namespace that the daemon cannot see into.
    #[error(
        "the daemon cannot see your process: it runs in another pid namespace; it must share that of the host"
    )]
    NotSeen,
    /// It is gone, or changed.
    #[error("your process ended, or changed its user, as it was looked at; connect again")]
    Gone,
}

/// A process at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The process.
    pub process: Process,
    /// Its effective user id as it connected.
    pub uid: u32,
    /// Whether it sees everything.
    pub privileged: bool,
    /// Its number in each pid namespace, from the daemon's to its own.
    ns_pids: Vec<u32>,
    /// Inode of its own pid namespace, if it is another than the daemon's and may be looked at.
    pid_ns: Option<u64>,
    container: Option<String>,
    viewer: Viewer,
}

/// A process that a peer names by a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// In the daemon's own pid namespace.
    Here(u32),
    /// In another.
    There(NsPid),
    /// In another that the daemon may not look at.
    Hidden,
}

impl Host {
    /// The host that this process runs on. `hierarchy`: number of the one that records name cgroups in.
    #[must_use]
    pub fn new(proc: Proc, hierarchy: u32) -> Self {
        let own = |kind: &str| proc.namespace("self", kind).ok();
        let in_first_pid_ns = own("pid") == Some(FIRST_PID_NS);
        let paths_are_whole = own("cgroup") == Some(FIRST_CGROUP_NS);
        Self { proc, hierarchy, in_first_pid_ns, paths_are_whole }
    }

    /// One that nothing stands in the way on.
    #[cfg(test)]
    pub(super) fn of_test(proc: Proc, hierarchy: u32) -> Self {
        Self { proc, hierarchy, in_first_pid_ns: true, paths_are_whole: true }
    }

    /// What stands in the way of holding a peer to its deaths: the kernel tells these in the first pid namespace.
    #[must_use]
    pub fn lack(&self) -> Option<&'static str> {
        (!self.in_first_pid_ns).then_some("the daemon runs in a pid namespace of its own, and cannot know a peer's process as the kernel does; it must share that of the host")
    }

    /// Who connected. Reads small files of `/proc`, which may wait for a lock of the kernel's.
    ///
    /// # Errors
    /// If that cannot be said for certain.
    pub fn peer(&self, socket: impl AsFd, pid: Option<i32>, uid: u32) -> Result<Peer, Unknown> {
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid != 0);
        let pid = pid.ok_or(Unknown::NotSeen)?;
        let handle = Handle::of(&socket)?;
        let peer = self.read(pid, uid).ok_or(Unknown::Gone)?;
        if handle.is_over(&socket) { Err(Unknown::Gone) } else { Ok(peer) }
    }

    /// What `/proc` says of a process of this user.
    fn read(&self, pid: u32, uid: u32) -> Option<Peer> {
        let process = self.proc.process(pid)?;
        let status = self.proc.status(pid).filter(|status| status.euid == uid)?;
        let cgroup = self.proc.cgroup(pid, self.hierarchy);
        let container = cgroup.as_deref().and_then(|path| path::identify(path).container);
        let container = container.map(|container| container.bare_id);
        let is_here = status.ns_pids.len() == 1;
        let ids_are_ours = self.shares_users(pid);
        let privileged = uid == 0 && is_here && ids_are_ours && status.effective & SYS_PTRACE != 0;
        let own_uid = is_here && ids_are_ours && container.is_none();
        let viewer = Viewer {
            uid: own_uid.then_some(uid),
            cgroup: cgroup.filter(|path| self.paths_are_whole && is_somebodys(path)),
        };
        let pid_ns =
            (!is_here).then(|| self.proc.namespace(&pid.to_string(), "pid").ok()).flatten();
        let Status { ns_pids, .. } = status;
        // Still the process that was first looked at.
        (self.proc.process(pid)? == process).then_some(Peer {
            process,
            uid,
            privileged,
            ns_pids,
            pid_ns,
            container,
            viewer,
        })
    }

    /// Whether user ids mean the same to the process and the daemon.
    fn shares_users(&self, pid: u32) -> bool {
        let ours = self.proc.namespace("self", "user");
        match (self.proc.namespace(&pid.to_string(), "user"), ours) {
            (Ok(theirs), Ok(ours)) => theirs == ours,
            // What it needs CAP_SYS_PTRACE to look at. The map anybody may read.
            _ => self.proc.ids_are_the_hosts(pid) == Some(true),
        }
    }

    /// Whether a peer may see a process that lives.
    #[must_use]
    pub fn sees(&self, peer: &Peer, process: Process) -> bool {
        if peer.privileged || peer.process == process {
            return true;
        }
        let uid = self.proc.status(process.pid).map(|status| status.uid);
        let cgroup = self.proc.cgroup(process.pid, self.hierarchy);
        peer.viewer.sees(uid, cgroup.as_deref()) && self.proc.process(process.pid) == Some(process)
    }

    /// The number that a peer knows a process by; `None` if it has none in the peer's pid namespace.
    #[must_use]
    pub fn number(&self, peer: &Peer, process: Process) -> Option<u32> {
        if peer.is_here() {
            return Some(process.pid);
        }
        let status = self.proc.status(process.pid)?;
        status.ns_pids.get(peer.level()).copied()
    }

    /// The process that a peer means by a number: in its own pid namespace, where it must be the peer itself or descend from it, or be in
    /// that very namespace. May look at all processes.
    #[must_use]
    pub fn find(&self, peer: &Peer, pid: u32) -> Option<Process> {
        if peer.is_here() {
            return self.proc.process(pid);
        }
        if peer.ns_pids.last() == Some(&pid) {
            return Some(peer.process);
        }
        let level = peer.level();
        let has_number = |other: &u32| {
            let status = self.proc.status(*other);
            status.is_some_and(|status| status.ns_pids.get(level) == Some(&pid))
        };
        let is_there = |process: &Process| {
            let inode = || self.proc.namespace(&process.pid.to_string(), "pid").ok();
            self.proc.descends(*process, peer.process)
                || peer.pid_ns.is_some() && inode() == peer.pid_ns
        };
        let candidates = self.proc.pids().take(MAX_SEARCH).filter(has_number);
        candidates.filter_map(|other| self.proc.process(other)).find(is_there)
    }
}

impl Peer {
    /// Whether it is in the daemon's pid namespace.
    fn is_here(&self) -> bool {
        self.ns_pids.len() == 1
    }

    /// How many pid namespaces its own is below the daemon's.
    fn level(&self) -> usize {
        self.ns_pids.len().saturating_sub(1)
    }

    /// Which deaths a number of it is about.
    #[must_use]
    pub fn names(&self, pid: u32) -> Named {
        match self.pid_ns {
            _ if self.is_here() => Named::Here(pid),
            Some(ns) => Named::There(NsPid { ns, pid }),
            None => Named::Hidden,
        }
    }

    /// Which deaths it may see; `None` is all.
    #[must_use]
    pub fn viewer(&self) -> Option<Viewer> {
        (!self.privileged).then(|| self.viewer.clone())
    }

    /// On whose account its requests go.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { uid: self.uid, container: self.container.clone() }
    }
}

/// Whether a cgroup is somebody's own: neither the root nor a slice, which only group what is of many.
fn is_somebodys(path: &str) -> bool {
    let leaf = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    !leaf.is_empty() && !leaf.ends_with(".slice")
}

/// The kernel's handle on the process that connected.
enum Handle {
    Kept(std::os::fd::OwnedFd),
    /// The kernel has none to give.
    None,
}

impl Handle {
    fn of(socket: &impl AsFd) -> Result<Self, Unknown> {
        use nix::errno::Errno;
        match getsockopt(socket, PeerPidfd) {
            Ok(handle) => Ok(Self::Kept(handle)),
            Err(Errno::ENOPROTOOPT | Errno::ENOSYS | Errno::EPERM) => Ok(Self::None),
            Err(_) => Err(Unknown::Gone),
        }
    }

    /// Whether the process is over; without a handle, whether nobody holds the connection any more.
    fn is_over(&self, socket: &impl AsFd) -> bool {
        match self {
            // A pidfd can be read once its process has ended (pidfd_open(2)).
            Self::Kept(handle) => has(handle, PollFlags::IN),
            Self::None => has(socket, PollFlags::HUP),
        }
    }
}

/// Whether a descriptor shows this right now. What cannot be told counts as so.
fn has(fd: &impl AsFd, what: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd, what)];
    loop {
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
            Ok(_) => return fds.iter().any(|fd| fd.revents().intersects(what)),
        }
    }
}

impl From<Unknown> for io::Error {
    fn from(unknown: Unknown) -> Self {
        Self::other(unknown)
    }
}

#[cfg(test)]
#[path = "peer_tests.rs"]
mod tests;
