//! Running other programs: shown, timed, with an environment that fits, and ended by pid only.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::context::Ctx;

/// Announces a step, does it, says how long it took.
pub(crate) fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {what}");
    let start = Instant::now();
    let result = work()?;
    eprintln!("    done in {}", seconds(start.elapsed()));
    Ok(result)
}

/// A duration as a person reads it: `0.3 s`, `12 s`, `3 min 5 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    match duration.as_secs() {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        whole @ 10..120 => format!("{whole} s"),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

/// The command line for messages.
fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Runs it on this terminal; a status other than 0 is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Runs it and returns what it printed on stdout; stderr goes to this terminal. A status other than 0 is an error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot run `{}`", show(command)))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", show(command), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether it runs and succeeds; prints nothing.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    quiet.status().is_ok_and(|status| status.success())
}

/// First file of that name in `PATH` and in the directories that root's `PATH` has.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"].map(PathBuf::from);
    env::split_paths(&path).chain(system).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// The cargo that runs this program, for a build in this workspace with the host's toolchain.
pub(crate) fn cargo(ctx: &Ctx) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&ctx.root);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_package_variable) {
            command.env_remove(&name);
        }
    }
    command
}

/// A cargo of another toolchain: nothing that the outer cargo or rustup set for theirs reaches it.
pub(crate) fn foreign_cargo(cargo: &Path, rustc: &Path) -> Command {
    let mut command = Command::new(cargo);
    for (name, _) in env::vars_os() {
        if name
            .to_str()
            .is_some_and(|name| is_package_variable(name) || is_toolchain_variable(name))
        {
            command.env_remove(&name);
        }
    }
    command.env("RUSTC", rustc);
    command
}

/// Set by `cargo run` for this package; other builds would be rebuilt for them.
fn is_package_variable(name: &str) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
        || matches!(name, "CARGO_PRIMARY_PACKAGE" | "OUT_DIR" | "TARGET")
}

/// Chooses a toolchain or its flags. What says where crates come from, and how it is shown, stays.
fn is_toolchain_variable(name: &str) -> bool {
    let kept = [
        "CARGO_HOME",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_TERM_",
    ];
    if kept.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    // LD_LIBRARY_PATH: cargo puts the outer toolchain's libraries there.
    name.starts_with("CARGO")
        || name.starts_with("RUST") && name != "RUST_BACKTRACE"
        || name == "LD_LIBRARY_PATH"
}

/// Sends a signal to a child that is still ours to wait for. One that is gone already is no error.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // Only ESRCH is possible for an own child: it has ended, which is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

/// Waits for a child for at most so long.
pub(crate) fn wait_for(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < deadline => thread::park_timeout(Duration::from_millis(5)),
            _ => return None,
        }
    }
}

/// A child that does not outlive this value: asked to end, then made to.
pub(crate) struct Owned {
    /// The process.
    pub(crate) child: Child,
    /// How long it has to end after SIGTERM.
    pub(crate) grace: Duration,
}

impl Drop for Owned {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        signal(&self.child, Signal::TERM);
        if wait_for(&mut self.child, self.grace).is_none() {
            signal(&self.child, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_keeps_where_crates_come_from() {
        for kept in [
            "CARGO_HOME",
            "CARGO_REGISTRIES_CRATES_IO_PROTOCOL",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_TIMEOUT",
            "PATH",
            "HOME",
        ] {
            assert!(!is_toolchain_variable(kept), "{kept}");
        }
        for gone in [
            "CARGO",
            "RUSTC",
            "RUSTFLAGS",
            "RUSTUP_TOOLCHAIN",
            "CARGO_BUILD_TARGET",
            "CARGO_ENCODED_RUSTFLAGS",
            "LD_LIBRARY_PATH",
        ] {
            assert!(is_toolchain_variable(gone), "{gone}");
        }
    }

    #[test]
    fn durations_read_well() {
        assert_eq!(seconds(Duration::from_millis(340)), "0.3 s");
        assert_eq!(seconds(Duration::from_secs(75)), "75 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 5 s");
    }

    #[test]
    fn owned_child_ends_with_its_owner() {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id();
        drop(Owned { child, grace: Duration::from_secs(5) });
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }
}
