//! Remembers who died of what and whose child it was, so that a death can be traced to the one that it follows from.

use std::collections::VecDeque;

use crate::{
    death::{Death, Related, Role},
    join::ProcessId,
};

/// Deaths that are remembered; the oldest goes first.
const MAX: usize = 4096;

/// Recent deaths.
#[derive(Debug, Default)]
pub struct Kin(VecDeque<Dead>);

#[derive(Debug)]
struct Dead {
    process: ProcessId,
    parent: ProcessId,
    /// When, ns since boot.
    ktime_ns: u64,
    /// With the role left to the one who asks.
    related: Related,
}

impl Kin {
    /// `process`, a child of `parent`, has this record.
    pub fn died(&mut self, process: ProcessId, parent: ProcessId, death: &Death) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        let related = Related {
            role: Role::Child,
            pid: death.victim.pid,
            comm: death.victim.comm.clone(),
            status: death.victim.status,
            id: Some(death.id),
            cause: Some(death.cause),
        };
        self.0.push_back(Dead { process, parent, ktime_ns: death.ktime_ns, related });
    }

    /// The last child of `parent` that ended with `status` (its exit code, or 128 + signal), and when, ns since boot.
    #[must_use]
    pub fn child(&self, parent: ProcessId, status: u8) -> Option<(&Related, u64)> {
        let is_it = |dead: &&Dead| dead.parent == parent && dead.related.status == Some(status);
        self.0.iter().rev().find(is_it).map(|dead| (&dead.related, dead.ktime_ns))
    }

    /// The parent that a process had as it died.
    #[must_use]
    pub fn parent(&self, process: ProcessId) -> Option<ProcessId> {
        self.0.iter().rev().find(|dead| dead.process == process).map(|dead| dead.parent)
    }

    /// The death of a process, as what it is to another.
    #[must_use]
    pub fn of(&self, process: ProcessId, role: Role) -> Option<Related> {
        let dead = self.0.iter().rev().find(|dead| dead.process == process)?;
        Some(dead.related.clone().with_role(role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::sample;

    #[test]
    fn finds_the_last_and_is_bounded() {
        let mut kin = Kin::default();
        let parent = ProcessId { tgid: 1, start_ns: 2 };
        let mut death = sample::killed();
        for pid in 0..10_000 {
            death.victim.pid = pid;
            kin.died(ProcessId { tgid: pid, start_ns: 3 }, parent, &death);
        }
        assert_eq!(kin.0.len(), MAX);
        assert_eq!(kin.child(parent, 137).unwrap().0.pid, 9999);
        assert_eq!(kin.child(parent, 139), None);
        assert_eq!(kin.parent(ProcessId { tgid: 9998, start_ns: 3 }), Some(parent));
        assert_eq!(kin.parent(ProcessId { tgid: 9998, start_ns: 4 }), None);
        assert_eq!(kin.child(ProcessId { tgid: 1, start_ns: 3 }, 137), None);
        let init = kin.of(ProcessId { tgid: 9998, start_ns: 3 }, Role::NamespaceInit).unwrap();
        assert_eq!((init.role, init.pid, init.id), (Role::NamespaceInit, 9998, Some(death.id)));
        assert_eq!(kin.of(ProcessId { tgid: 1, start_ns: 3 }, Role::NamespaceInit), None);
    }
}
