//! Remembers who died of what and whose child it was, so that an exit code of 128+n can be traced to the death that it stands for.

use std::collections::VecDeque;

use crate::{death::Child, join::ProcessId};

/// Deaths that are remembered; the oldest goes first.
const MAX: usize = 4096;

/// Recent deaths by parent.
#[derive(Debug, Default)]
pub struct Kin(VecDeque<Dead>);

#[derive(Debug)]
struct Dead {
    parent: ProcessId,
    /// What a shell would show: 128 + n.
    status: u8,
    child: Child,
}

impl Kin {
    /// A child of `parent` ended with `status` (its exit code, or 128 + signal).
    pub fn died(&mut self, parent: ProcessId, status: u8, child: Child) {
        if self.0.len() >= MAX {
            self.0.pop_front();
        }
        self.0.push_back(Dead { parent, status, child });
    }

    /// The last child of `parent` that ended with `status`.
    #[must_use]
    pub fn child(&self, parent: ProcessId, status: u8) -> Option<&Child> {
        self.0
            .iter()
            .rev()
            .find(|dead| dead.status == status && dead.parent == parent)
            .map(|dead| &dead.child)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::death::Cause;

    #[test]
    fn finds_the_last_and_is_bounded() {
        let mut kin = Kin::default();
        let parent = ProcessId { tgid: 1, start_ns: 2 };
        for pid in 0..10_000 {
            kin.died(
                parent,
                137,
                Child { id: uuid::Uuid::nil(), pid, comm: "c".into(), cause: Cause::Killed },
            );
        }
        assert_eq!(kin.0.len(), MAX);
        assert_eq!(kin.child(parent, 137).unwrap().pid, 9999);
        assert_eq!(kin.child(parent, 139), None);
        assert_eq!(kin.child(ProcessId { tgid: 1, start_ns: 3 }, 137), None);
    }
}
