//! What the daemon knows of itself. Filled by the app as it starts, read by the API.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::guard::{Guard, GuardReport};
use crate::audit::{Account, Numbers};
use crate::cli::doctor::Finding;
use crate::containers::Registry;
use crate::containers::pods::Pods;
use crate::containers::registry::SourceReport;
use crate::notify::health::{Health, Report};
use crate::privileges;
use crate::probe::ProbeReport;
use crate::probe::pins::state::Pins;
use crate::source::Kind;
use crate::text::one_line;

/// The state of the daemon. Not ready until [`Status::set_sight`] has named a source of deaths.
#[derive(Debug)]
pub struct Status {
    run: Uuid,
    node: String,
    boot_id: Option<String>,
    cgroup_mode: OnceLock<String>,
    sight: OnceLock<Sight>,
    account: Account,
    pins: OnceLock<Arc<Pins>>,
    names: OnceLock<(Arc<Registry>, Arc<Pods>)>,
    sinks: OnceLock<Vec<Arc<Health>>>,
    findings: OnceLock<Vec<Finding>>,
    guard: OnceLock<Arc<Guard>>,
    rights: OnceLock<privileges::Report>,
    blind: OnceLock<String>,
    stopping: AtomicBool,
}

/// How deaths are seen.
#[derive(Debug, Clone)]
pub struct Sight {
    /// From where; `None` if they are not.
    pub source: Option<Kind>,
    /// How the probes fared.
    pub probes: Vec<ProbeReport>,
    /// What is lacking, a reason each.
    pub lacks: Vec<String>,
}

/// Why the daemon is not ready: a reason a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotReady(Vec<String>);

impl NotReady {
    /// The reasons.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.0
    }
}

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
            run: Uuid::now_v7(),
            node,
            boot_id,
            cgroup_mode: OnceLock::new(),
            sight: OnceLock::new(),
            blind: OnceLock::new(),
            account: Account::default(),
            pins: OnceLock::new(),
            names: OnceLock::new(),
            sinks: OnceLock::new(),
            findings: OnceLock::new(),
            guard: OnceLock::new(),
            rights: OnceLock::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// Names this run of the daemon: another one may count deaths anew.
    #[must_use]
    pub const fn run(&self) -> Uuid {
        self.run
    }

    /// How deaths are seen. Only the first call counts.
    pub fn set_sight(&self, sight: Sight) {
        let lacks = sight.lacks.iter().map(|lack| one_line(lack)).collect();
        let _ = self.sight.set(Sight { lacks, ..sight });
    }

    /// Deaths are seen no more. Only the first call counts.
    pub fn set_blind(&self, why: &dyn fmt::Display) {
        let _ = self.blind.set(one_line(&why.to_string()));
    }

    /// What of the kernel side outlives the daemon. Only the first call counts.
    pub fn set_pins(&self, pins: Arc<Pins>) {
        let _ = self.pins.set(pins);
    }

    /// Where the sources of names tell how they fare. Only the first call counts.
    pub fn set_names(&self, registry: Arc<Registry>, pods: Arc<Pods>) {
        let _ = self.names.set((registry, pods));
    }

    /// Where the sinks tell how they fare. Only the first call counts.
    pub fn set_sinks(&self, sinks: Vec<Arc<Health>>) {
        let _ = self.sinks.set(sinks);
    }

    /// Which cgroup hierarchies account memory on this host. Only the first call counts.
    pub fn set_cgroup_mode(&self, mode: String) {
        let _ = self.cgroup_mode.set(mode);
    }

    /// What the host lacks, found before the start. Only the first call counts.
    pub(crate) fn set_findings(&self, findings: Vec<Finding>) {
        let _ = self.findings.set(findings);
    }

    /// What the host lacks, and what it has.
    pub(crate) fn findings(&self) -> &[Finding] {
        self.findings.get().map_or(&[], Vec::as_slice)
    }

    /// Who may look. Only the first call counts.
    pub fn set_guard(&self, guard: Arc<Guard>) {
        let _ = self.guard.set(guard);
    }

    /// What the daemon may still do. Only the first call counts.
    pub fn set_rights(&self, rights: privileges::Report) {
        let _ = self.rights.set(rights);
    }

    /// What the daemon may still do, once it has started.
    #[must_use]
    pub fn rights(&self) -> Option<&privileges::Report> {
        self.rights.get()
    }

    /// What is asked of whoever looks.
    #[must_use]
    pub fn guard(&self) -> Option<GuardReport> {
        self.guard.get().map(|guard| guard.report())
    }

    /// The node's name.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.node
    }

    /// How deaths are seen; `None` until that is known.
    #[must_use]
    pub fn sight(&self) -> Option<&Sight> {
        self.sight.get()
    }

    /// What of the kernel side outlives the daemon.
    #[must_use]
    pub fn pins(&self) -> Option<&Pins> {
        self.pins.get().map(|pins| &**pins)
    }

    /// How the sources of names fare.
    #[must_use]
    pub fn sources(&self) -> Vec<SourceReport> {
        let (registry, pods) = match self.names.get() {
            Some((registry, pods)) => (registry.reports(), Some(pods.report())),
            None => (Vec::new(), None),
        };
        registry.into_iter().chain(pods).collect()
    }

    /// How the sinks fare.
    #[must_use]
    pub fn sinks(&self) -> Vec<Report> {
        let sinks = self.sinks.get().map_or(&[][..], Vec::as_slice);
        sinks.iter().map(|sink| sink.report()).collect()
    }

    /// The count of OOM kills.
    #[must_use]
    pub fn numbers(&self) -> Numbers {
        self.account.numbers()
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

    /// Whether deaths are seen, and what is lacking to see and tell them all.
    ///
    /// # Errors
    /// The reasons why they are not.
    pub fn ready(&self) -> Result<&[String], NotReady> {
        let mut reasons = Vec::new();
        if self.stopping.load(Ordering::Relaxed) {
            reasons.push("the daemon is shutting down".to_owned());
        }
        reasons.extend(self.blind.get().map(|why| format!("deaths are seen no more: {why}")));
        match self.sight.get() {
            None => reasons.push("the daemon is starting".to_owned()),
            Some(Sight { source: None, lacks, .. }) => reasons.extend_from_slice(lacks),
            Some(sight) if reasons.is_empty() => return Ok(&sight.lacks),
            Some(_) => {}
        }
        Err(NotReady(reasons))
    }

    /// Whether something is lacking.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.blind.get().is_some() || self.sight.get().is_some_and(|sight| !sight.lacks.is_empty())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ready = self.ready();
        let numbers = self.account.numbers();
        let mut status = serializer.serialize_struct("Status", 15)?;
        status.serialize_field("version", env!("CARGO_PKG_VERSION"))?;
        status.serialize_field("node", &self.node)?;
        field(&mut status, "boot_id", self.boot_id.as_ref())?;
        status.serialize_field("ready", &ready.is_ok())?;
        field(&mut status, "not_ready", ready.err().map(|not| not.0).as_ref())?;
        field(&mut status, "cgroup_mode", self.cgroup_mode.get())?;
        let sight = self.sight.get();
        field(&mut status, "source", sight.and_then(|sight| sight.source).as_ref())?;
        let lacks = sight.map(|sight| &sight.lacks).filter(|lacks| !lacks.is_empty());
        field(&mut status, "degraded", lacks)?;
        field(&mut status, "probes", sight.map(|sight| &sight.probes))?;
        field(&mut status, "pins", self.pins())?;
        field(&mut status, "sources", self.names.get().map(|_| self.sources()).as_ref())?;
        field(&mut status, "sinks", self.sinks.get().map(|_| self.sinks()).as_ref())?;
        field(&mut status, "rights", self.rights())?;
        field(&mut status, "web", self.guard().as_ref())?;
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
