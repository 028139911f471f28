//! Who sent a fatal signal.

use anyhow::Result;
use serde_json::{Value, json};

use crate::truth::{Truth, parent_of};

/// Ancestors that a record tells of at most.
const ANCESTORS: usize = 6;

/// Who sent a fatal signal, and how.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Process id.
    pub pid: u32,
    /// Name.
    pub comm: String,
    /// Real user id.
    pub uid: u32,
    /// Its parent.
    pub ppid: u32,
    /// Path of the cgroup that accounts its memory.
    pub cgroup: String,
    /// Pid and name of its parent, of that one's, and so on.
    pub ancestors: Vec<(u32, String)>,
    /// The way that the signal came.
    pub via: &'static str,
}

impl From<&Truth> for Sender {
    fn from(truth: &Truth) -> Self {
        Self {
            pid: truth.pid,
            comm: truth.comm.clone(),
            uid: truth.uid,
            ppid: truth.ppid,
            cgroup: truth.cgroup.clone(),
            ancestors: truth.ancestors.clone(),
            via: "kill",
        }
    }
}

impl Sender {
    /// The same, by another way.
    #[must_use]
    pub const fn via(mut self, via: &'static str) -> Self {
        self.via = via;
        self
    }

    /// Its ancestors as a record has them.
    #[must_use]
    pub fn told_ancestors(&self) -> Value {
        let told = self.ancestors.iter().take(ANCESTORS);
        told.map(|(pid, comm)| json!({ "pid": pid, "comm": comm })).collect()
    }
}

/// A process's ancestors up to the first process, its parent first.
///
/// # Errors
/// When one of them is gone.
pub fn ancestors_of(pid: u32) -> Result<Vec<(u32, String)>> {
    let mut ancestors = Vec::new();
    let mut next = parent_of(pid)?;
    while next != 0 {
        ancestors.push((next, crate::truth::name_of(next)?));
        next = parent_of(next)?;
    }
    Ok(ancestors)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ancestors_lead_from_the_parent_to_the_first_process() {
        let ancestors = ancestors_of(std::process::id()).unwrap();
        assert_eq!(ancestors.first().unwrap().0, std::os::unix::process::parent_id());
        assert_eq!(parent_of(ancestors.last().unwrap().0).unwrap(), 0);
    }
}
