//! Which run of a systemd unit it was: systemd keeps the invocation id of each unit that is up as a link in `/run/systemd/units`.
//!
//! `journalctl _SYSTEMD_INVOCATION_ID=…` then shows what just this run had logged. Only the system's own manager is asked: a user's directory
//! may be a file system of the user's own, which can let a reader wait for ever.

use std::fs;
use std::path::{Path, PathBuf};

use crate::death::Workload;

/// Where the system manager keeps its links.
const UNITS: &str = "/run/systemd/units";

/// Reads invocation ids.
#[derive(Debug, Clone)]
pub struct Invocations {
    /// `None`: not asked.
    units: Option<PathBuf>,
}

impl Invocations {
    /// Reads them if `enabled`.
    #[must_use]
    pub fn new(enabled: bool) -> Self {
        Self { units: enabled.then(|| PathBuf::from(UNITS)) }
    }

    /// Reads them from this directory.
    #[cfg(test)]
    pub(crate) fn at(units: &Path) -> Self {
        Self { units: Some(units.to_owned()) }
    }

    /// Adds the invocation id of the workload's unit, if it is one of the host's system manager and is up.
    pub fn name(&self, workload: &mut Workload) {
        if let Some(id) = self.units.as_deref().and_then(|units| of(units, workload)) {
            workload.sources.insert("invocation_id".to_owned(), "systemd".to_owned());
            workload.invocation_id = Some(id);
        }
    }
}

fn of(units: &Path, workload: &Workload) -> Option<String> {
    // A container's units are those of a manager of its own, and so are a user's.
    let own = workload.container_id.is_some()
        || workload.cgroup.as_ref().is_some_and(|path| path.contains("/user@"));
    let unit = workload.unit.as_ref().filter(|unit| !own && !unit.contains('/'))?;
    let id = fs::read_link(units.join(format!("invocation:{unit}"))).ok()?.into_os_string();
    let id = id.into_string().ok()?;
    // sd-id128(3): 32 hex digits.
    (id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())).then_some(id)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn named(units: &Path, cgroup: &str, container: Option<&str>) -> Option<String> {
        let mut workload = crate::attribute::workload(Some(cgroup), None);
        workload.container_id = container.map(str::to_owned);
        Invocations::at(units).name(&mut workload);
        assert_eq!(
            workload.invocation_id.is_some(),
            workload.sources.contains_key("invocation_id")
        );
        workload.invocation_id
    }

    #[test]
    fn reads_the_link_of_a_system_unit() {
        let units = tempfile::tempdir().unwrap();
        let id = "0123456789abcdef0123456789abcdef";
        symlink(id, units.path().join("invocation:web.service")).unwrap();
        symlink("../../etc/passwd", units.path().join("invocation:odd.service")).unwrap();
        symlink(id, units.path().join("link")).unwrap();
        let of = |cgroup: &str| named(units.path(), cgroup, None);
        assert_eq!(of("/system.slice/web.service").as_deref(), Some(id));
        assert_eq!(of("/system.slice/web.service/worker").as_deref(), Some(id));
        assert_eq!(of("/system.slice/other.service"), None);
        assert_eq!(of("/system.slice/odd.service"), None, "not an id");
        assert_eq!(
            of(r"/system.slice/x\x2f..\x2flink.service"),
            None,
            "names stay in the directory"
        );
        assert_eq!(of("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service"), None);
        assert_eq!(named(units.path(), "/system.slice/web.service", Some("lxc://a")), None);
        assert_eq!(named(&units.path().join("none"), "/system.slice/web.service", None), None);
    }
}
