//! Takes away what a container engine and its containers may leave: their supervisors, sockets, mounts, cgroups.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

/// How long a process or a cgroup may take to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// What supervises containers.
const SUPERVISORS: &[&str] = &["containerd-shim", "conmon", "podman", "runc"];

/// Clears away all that is of the engine whose files are in `dir` and whose containers' cgroups are below `cgroup`. It does not run any more.
pub(crate) fn clear(dir: &Path, cgroup: &str) -> Result<()> {
    // They stand outside of the directory, and each shim's bundle tells where.
    let sockets = sockets_of_shims(dir);
    end_processes(|pid| is_supervisor_of(pid, dir), "supervisors")?;
    let groups = cgroups(cgroup)?;
    end_processes(|pid| is_below(pid, cgroup), "processes of containers")?;
    for socket in sockets {
        gone(std::fs::remove_file(&socket), &socket)?;
    }
    unmount_below(dir)?;
    groups.iter().try_for_each(|group| remove_cgroup(group))
}

fn sockets_of_shims(dir: &Path) -> Vec<PathBuf> {
    let below = |dir: PathBuf| {
        let entries = std::fs::read_dir(dir).into_iter().flatten();
        entries.filter_map(Result::ok).map(|entry| entry.path())
    };
    let bundles = below(dir.join("state/io.containerd.runtime.v2.task")).flat_map(below);
    let addresses =
        bundles.filter_map(|bundle| std::fs::read_to_string(bundle.join("address")).ok());
    let sockets =
        addresses.filter_map(|address| address.trim().strip_prefix("unix://").map(PathBuf::from));
    sockets.filter(|socket| socket.starts_with("/run/containerd/s")).collect()
}

/// A supervisor is told where the files of its engine are.
fn is_supervisor_of(pid: i32, dir: &Path) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = String::from_utf8_lossy(&words);
    let mut words = words.split('\0');
    let program = words.next().and_then(|program| Path::new(program).file_name()?.to_str());
    program.is_some_and(|program| SUPERVISORS.iter().any(|known| program.starts_with(known)))
        && words.any(|word| Path::new(word).starts_with(dir))
}

fn is_below(pid: i32, cgroup: &str) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines().any(|line| {
        line.splitn(3, ':').nth(2).is_some_and(|path| Path::new(path).starts_with(cgroup))
    })
}

/// Kills until there are no more.
fn end_processes(is_meant: impl Fn(i32) -> bool, what: &str) -> Result<()> {
    wait_until(PATIENCE, &format!("the {what} to end"), || {
        let mut found = false;
        for entry in std::fs::read_dir("/proc").context("list /proc")?.filter_map(Result::ok) {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            if let Some(target) = Pid::from_raw(pid).filter(|_| is_meant(pid)) {
                found = true;
                // It may be gone already; whether it is shows at the next look.
                let _ = kill_process(target, Signal::KILL);
            }
        }
        Ok((!found).then_some(()))
    })
}

/// The innermost first.
fn unmount_below(dir: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let places: Vec<&Path> = places.filter(|place| place.starts_with(dir)).collect();
    places.iter().rev().try_for_each(|place| {
        unmount(*place, UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", place.display()))
    })
}

/// The directories of a cgroup in all hierarchies.
fn cgroups(cgroup: &str) -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("read the mounts")?;
    let hierarchies = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        kind.starts_with("cgroup").then(|| Path::new(place))
    });
    let groups = hierarchies.map(|root| root.join(cgroup.trim_start_matches('/')));
    Ok(groups.filter(|group| group.exists()).collect())
}

/// Removes a cgroup and all below as soon as the kernel lets them go.
fn remove_cgroup(group: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("list {}", group.display()))?,
    };
    for entry in entries {
        let entry = entry.context("list a cgroup")?;
        if entry.file_type().context("look at a cgroup")?.is_dir() {
            remove_cgroup(&entry.path())?;
        }
    }
    wait_until(PATIENCE, &format!("{} can be removed", group.display()), || {
        match std::fs::remove_dir(group) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(None),
            removed => gone(removed, group).map(Some),
        }
    })
}

/// Nothing to take away is well too.
fn gone(removed: std::io::Result<()>, what: &Path) -> Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("remove {}", what.display())),
    }
}
