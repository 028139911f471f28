//! Rights: what the start needs is used on one thread, and no other thread ever has it.
//!
//! Capabilities and system call filters belong to threads, and a thread is made with those of its maker. So the very first thread makes one more, the
//! *opener*, and lets go of its own rights before it makes any other. What needs rights (loading and attaching the programs, ports below 1024, the group of
//! the socket, an `oom_score_adj` below 0) is handed to the opener, which ends when the daemon has started. The readers that it makes call [`shed`] first.
//!
//! What stays: capabilities for reading counters of the programs (CAP_BPF, which kernels before 5.19 want for that too) and for knowing who speaks to the
//! socket (CAP_SYS_PTRACE), and what `protect.keep` adds. Programs that are executed gain nothing (`no_new_privs`), and none can be: a filter refuses the system
//! calls that the daemon never makes and that would be of use to whoever took it over.

use std::fmt;
use std::str::FromStr;
use std::sync::{OnceLock, mpsc};
use std::thread;

use anyhow::Context as _;
use caps::{CapSet, Capability, CapsHashSet};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};
use serde::{Deserialize, Serialize, Serializer};

use crate::config::{Refused, values};
use crate::protect::ProtectConfig;

mod calls;

/// What stays, if it is there at the start.
const KEPT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE];

/// What threads are left with. Set once, by [`Opener::split`].
static LEFT: OnceLock<Left> = OnceLock::new();

/// A capability by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Kept(Capability);

impl FromStr for Kept {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        text.parse()
            .map(Self)
            .map_err(|_| Refused::new("must be the name of a capability, such as CAP_DAC_OVERRIDE"))
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(Kept);

/// What a thread may.
#[derive(Debug)]
struct Left {
    capabilities: CapsHashSet,
    /// `None` if none is wanted.
    filter: Option<Result<BpfProgram, String>>,
}

/// What the daemon is left with, for the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Capabilities.
    pub capabilities: Vec<String>,
    /// Whether system calls are filtered.
    pub filtered: bool,
}

/// The thread that has the rights of the start.
#[derive(Debug)]
pub struct Opener {
    jobs: mpsc::SyncSender<Job>,
    /// What could not be let go of, and why.
    pub lacks: Vec<String>,
    /// What is left.
    pub report: Report,
}

type Job = Box<dyn FnOnce() + Send>;

impl Opener {
    /// Makes it, and lets go of the calling thread's rights, and so of those of all threads that it makes. To be called while there is no other.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub fn split(config: &ProtectConfig) -> anyhow::Result<Self> {
        let permitted = caps::read(None, CapSet::Permitted).unwrap_or_default();
        let kept = KEPT.into_iter().chain(config.keep.iter().map(|kept| kept.0));
        let capabilities: CapsHashSet = kept.filter(|kept| permitted.contains(kept)).collect();
        let (jobs, queue) = mpsc::sync_channel::<Job>(1);
        thread::Builder::new()
            .name("killwatch-open".to_owned())
            .spawn(move || queue.into_iter().for_each(|job| job()))
            .context("the kernel gives no thread")?;
        let left = LEFT.get_or_init(|| Left { capabilities, filter: config.filter.then(filter) });
        let lacks = left.apply();
        let mut names: Vec<_> = left.capabilities.iter().map(ToString::to_string).collect();
        names.sort();
        let filtered = left.filter.is_some() && !lacks.iter().any(|lack| lack.starts_with(FILTER));
        Ok(Self { jobs, lacks, report: Report { capabilities: names, filtered } })
    }

    /// Does something there, within the runtime that this is called in.
    ///
    /// # Errors
    /// If that panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, result) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Handle::current();
        let job: Job = Box::new(move || {
            let _runtime = runtime.enter();
            // Whoever asked may be gone.
            let _ = done.send(job());
        });
        // Only one job is ever on its way, so there is room.
        self.jobs
            .try_send(job)
            .map_err(|_| anyhow::anyhow!("the thread that opens things is gone"))?;
        result.await.context("the thread that opens things ended early")
    }
}

/// Lets go of the calling thread's rights, if those of the daemon were split. What cannot be let go of was said as they were.
pub fn shed() {
    if let Some(left) = LEFT.get() {
        let _ = left.apply();
    }
}

const FILTER: &str = "system calls are not filtered";

impl Left {
    /// Leaves the calling thread with this. What of it the kernel refused.
    fn apply(&self) -> Vec<String> {
        let mut lacks = Vec::new();
        let mut tried = |what: &str, result: Result<(), String>| {
            lacks.extend(result.err().map(|why| format!("{what}: {why}")));
        };
        tried(
            "no_new_privs cannot be set",
            rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string()),
        );
        // Before the rest: it takes one of them. Without it the bounding set stays, of which nothing can be had with no_new_privs.
        if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).unwrap_or(false) {
            for capability in caps::read(None, CapSet::Bounding).unwrap_or_default() {
                if !self.capabilities.contains(&capability) {
                    let dropped = caps::drop(None, CapSet::Bounding, capability);
                    tried("the bounding set stays", dropped.map_err(|error| error.to_string()));
                }
            }
        }
        // Kernels without ambient capabilities have none to clear.
        let _ = caps::clear(None, CapSet::Ambient);
        for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
            let wanted = match set {
                CapSet::Inheritable => CapsHashSet::new(),
                _ => self.capabilities.clone(),
            };
            let kept = caps::set(None, set, &wanted).map_err(|error| error.to_string());
            tried("capabilities stay", kept);
        }
        let filtered = match &self.filter {
            None => Ok(()),
            Some(Ok(program)) => {
                seccompiler::apply_filter(program).map_err(|error| error.to_string())
            }
            Some(Err(why)) => Err(why.clone()),
        };
        tried(FILTER, filtered);
        lacks
    }
}

/// Refuses what the daemon never does.
fn filter() -> Result<BpfProgram, String> {
    let make = || -> Result<BpfProgram, Box<dyn std::error::Error>> {
        let mut rules: std::collections::BTreeMap<_, _> =
            calls::REFUSED.iter().map(|call| (*call, Vec::new())).collect();
        let command = |command: u64| {
            let is = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, command)?;
            SeccompRule::new(vec![is])
        };
        let commands: Result<Vec<_>, _> = calls::BPF_REFUSED.into_iter().map(command).collect();
        rules.insert(calls::BPF, commands?);
        let refuse = SeccompAction::Errno(calls::EPERM);
        let arch = std::env::consts::ARCH.try_into()?;
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
    };
    make().map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_thread_that_shed_its_rights_has_what_stays_and_starts_nothing() {
        let before = caps::read(None, CapSet::Effective).unwrap();
        if !before.contains(&Capability::CAP_SYS_PTRACE) {
            eprintln!("SKIPPED: a_thread_that_shed_its_rights_…: this process has no capabilities");
            return;
        }
        let left = Left {
            capabilities: CapsHashSet::from([Capability::CAP_SYS_PTRACE]),
            filter: Some(filter()),
        };
        thread::spawn(move || {
            assert!(Command::new("true").status().is_ok());
            assert_eq!(left.apply(), Vec::<String>::new());
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Bounding] {
                assert_eq!(caps::read(None, set).unwrap(), left.capabilities, "{set:?}");
            }
            // It may be done again, and by a thread of this one.
            assert_eq!(left.apply(), Vec::<String>::new());
            let error = Command::new("true").status().unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
            thread::spawn(move || {
                assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), left.capabilities);
                let own = rustix::process::getpid();
                assert!(rustix::process::test_kill_process(own).is_err(), "not even itself");
                let text = std::fs::read_to_string("/proc/thread-self/status").unwrap();
                assert!(
                    text.contains("NoNewPrivs:\t1\n") && text.contains("Seccomp:\t2\n"),
                    "{text}"
                );
            })
            .join()
            .unwrap();
        })
        .join()
        .unwrap();
        assert_eq!(caps::read(None, CapSet::Effective).unwrap(), before, "others keep theirs");
    }

    #[test]
    fn names_of_capabilities() {
        assert_eq!("CAP_SYS_ADMIN".parse::<Kept>().unwrap().to_string(), "CAP_SYS_ADMIN");
        for bad in ["", "SYS_ADMIN", "CAP_EVERYTHING", "all"] {
            assert!(bad.parse::<Kept>().is_err(), "{bad}");
        }
    }
}
