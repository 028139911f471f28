//! What the daemon knows of itself. Filled by the app as it starts, read by the API.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use crate::audit::Account;
use crate::probe::{ProbeReport, ProbeState};
use crate::text::one_line;

/// The state of the daemon. Not ready until [`Status::set_probes`] was told that all required probes are attached.
#[derive(Debug)]
pub struct Status {
    node: String,
    boot_id: Option<String>,
    cgroup_mode: OnceLock<String>,
    probes: OnceLock<Vec<ProbeReport>>,
    account: Account,
    stopping: AtomicBool,
}

/// Why the daemon is not ready: a reason a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady(Vec<String>);

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|reason| writeln!(f, "{reason}"))
    }
}

impl Status {
    /// The state at the start.
    #[must_use]
    pub fn new(node: String, boot_id: Option<String>) -> Self {
        Self {
            node,
            boot_id,
            cgroup_mode: OnceLock::new(),
            probes: OnceLock::new(),
            account: Account::default(),
            stopping: AtomicBool::new(false),
        }
    }

    /// How the probes fared. Only the first call counts.
    pub fn set_probes(&self, probes: Vec<ProbeReport>) {
        let _ = self.probes.set(probes);
    }

    /// Which cgroup hierarchies account memory on this host. Only the first call counts.
    pub fn set_cgroup_mode(&self, mode: String) {
        let _ = self.cgroup_mode.set(mode);
    }

    /// Where the audit of OOM kills puts its numbers.
    #[must_use]
    pub fn account(&self) -> Account {
        self.account.clone()
    }

    /// The daemon is on its way out.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether deaths are seen.
    ///
    /// # Errors
    /// The reasons why not.
    pub fn ready(&self) -> Result<(), NotReady> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the daemon is shutting down".to_owned());
        }
        match self.probes.get() {
            None => reasons.push("the probes are not attached yet".to_owned()),
            Some(probes) => {
                let missing =
                    probes.iter().filter(|p| p.required && p.state != ProbeState::Attached);
                reasons.extend(missing.map(|probe| {
                    let why = probe
                        .why
                        .as_deref()
                        .map_or_else(String::new, |why| format!(": {}", one_line(why)));
                    format!("the probe {} ({}) is not attached{why}", probe.name, probe.hook)
                }));
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(NotReady(reasons)) }
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ready = self.ready();
        let numbers = self.account.numbers();
        let mut status = serializer.serialize_struct("Status", 9)?;
        status.serialize_field("version", env!("CARGO_PKG_VERSION"))?;
        status.serialize_field("node", &self.node)?;
        field(&mut status, "boot_id", self.boot_id.as_ref())?;
        status.serialize_field("ready", &ready.is_ok())?;
        field(&mut status, "not_ready", ready.err().map(|not| not.0).as_ref())?;
        field(&mut status, "cgroup_mode", self.cgroup_mode.get())?;
        field(&mut status, "probes", self.probes.get())?;
        status.serialize_field("oom_kills", &numbers)?;
        field(&mut status, "missed", numbers.missed.map(|_| &numbers.places))?;
        status.end()
    }
}

/// A value that is not known is absent.
fn field<S: serde::ser::SerializeStruct>(
    status: &mut S,
    key: &'static str,
    value: Option<&impl Serialize>,
) -> Result<(), S::Error> {
    match value {
        Some(value) => status.serialize_field(key, value),
        None => status.skip_field(key),
    }
}
