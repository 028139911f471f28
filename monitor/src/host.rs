//! Facts about this host. No decisions: those are `doctor`'s and the plan's.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use caps::{CapSet, Capability};

use crate::procfs::{Proc, Process};

/// Where the facts are read.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The proc file system.
    pub proc: PathBuf,
    /// The sys file system.
    pub sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { proc: "/proc".into(), sys: "/sys".into() }
    }
}

/// What is so on this host. `None` is "could not be read".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Kernel release, such as `6.1.0-49-cloud-amd64`.
    pub kernel: String,
    /// Machine, such as `x86_64`.
    pub machine: String,
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// Whether the kernel describes its types: the size of its BTF in bytes, or why not.
    pub btf: Result<u64, String>,
    /// Lockdown mode: `none`, `integrity`, `confidentiality`.
    pub lockdown: Option<String>,
    /// Capabilities in effect, of those that matter here.
    pub capabilities: Vec<(Capability, bool)>,
    /// Bytes of a page.
    pub page_size: u64,
    /// Whether the kernel moves memory to the node where it is used, and to see where makes pages unreadable until they are touched.
    pub numa_balancing: bool,
}

/// Capabilities that some part of killwatch may use.
const CAPABILITIES: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SYS_RESOURCE,
];

impl Facts {
    /// Gathers them.
    #[must_use]
    pub fn gather(roots: &Roots) -> Self {
        let uname = rustix::system::uname();
        let effective = caps::read(None, CapSet::Effective).unwrap_or_default();
        Self {
            kernel: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            boot_id: read_line(&roots.proc.join("sys/kernel/random/boot_id")).ok(),
            btf: fs::metadata(roots.sys.join("kernel/btf/vmlinux"))
                .map(|file| file.len())
                .map_err(|e| e.to_string()),
            lockdown: read_line(&roots.sys.join("kernel/security/lockdown"))
                .ok()
                .and_then(|modes| chosen(&modes).map(str::to_owned)),
            capabilities: CAPABILITIES.map(|cap| (cap, effective.contains(&cap))).to_vec(),
            page_size: rustix::param::page_size() as u64,
            numa_balancing: read_line(&roots.proc.join("sys/kernel/numa_balancing"))
                .is_ok_and(|mode| mode != "0"),
        }
    }

    /// Whether a capability is in effect.
    #[must_use]
    pub fn has(&self, capability: Capability) -> bool {
        self.capabilities.contains(&(capability, true))
    }

    /// Major and minor version of the kernel.
    #[must_use]
    pub fn version(&self) -> Option<(u32, u32)> {
        version(&self.kernel)
    }
}

/// Major and minor version in a kernel release, such as `6.1.0-49-cloud-amd64`.
#[must_use]
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Whether a process, known by its id and its start in ns since boot, still runs: it is listed, and more of it than a status that waits for its parent. False
/// where the process file system shows another pid namespace than the first.
#[must_use]
pub fn process_runs(proc: &Path, pid: u32, start_ns: u64) -> bool {
    Proc::at(proc).runs(Process::of_ns(pid, start_ns))
}

fn read_line(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map(|text| text.lines().next().unwrap_or_default().trim().to_owned())
}

/// The mode in brackets of `[none] integrity confidentiality`.
fn chosen(modes: &str) -> Option<&str> {
    modes.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_fake_host() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/random/boot_id", "abc-def\n");
        write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
        write("proc/sys/kernel/numa_balancing", "1\n");
        let roots = Roots { proc: root.path().join("proc"), sys: root.path().join("sys") };
        let facts = Facts::gather(&roots);
        assert_eq!(facts.boot_id.as_deref(), Some("abc-def"));
        assert_eq!(facts.lockdown.as_deref(), Some("integrity"));
        assert!(facts.numa_balancing);
        assert!(facts.btf.is_err());
    }

    #[test]
    fn a_process_runs_until_only_its_status_is_left() {
        let root = tempfile::tempdir().unwrap();
        let stat = |state: &str, ticks: u64| {
            fs::create_dir_all(root.path().join("7/task/7")).unwrap();
            let fields = format!(
                "7 (a) Z\n) 1) {state} 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 {ticks} 20\n"
            );
            fs::write(root.path().join("7/stat"), fields).unwrap();
        };
        let start_ns = 5_007_000_000;
        let runs = || process_runs(root.path(), 7, start_ns);
        assert!(!runs(), "nothing there");
        stat("D", 500);
        assert!(runs());
        stat("D", 501);
        assert!(!runs(), "another process with that pid");
        stat("Z", 500);
        assert!(!runs());
        fs::create_dir(root.path().join("7/task/8")).unwrap();
        assert!(runs(), "its first thread is gone, another is not");
        fs::write(root.path().join("7/stat"), "7 (a").unwrap();
        assert!(!runs());
    }

    #[test]
    fn versions() {
        let mut facts = Facts::gather(&Roots::default());
        for (release, expected) in
            [("6.1.0-49-cloud-amd64", Some((6, 1))), ("5.10.234+", Some((5, 10))), ("next", None)]
        {
            release.clone_into(&mut facts.kernel);
            assert_eq!(facts.version(), expected, "{release}");
        }
    }
}
