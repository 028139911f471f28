//! Which program is the daemon, and how it is run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use crate::wait::in_vm;

/// How a daemon is run.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// Command before its own that becomes it, such as `victim incapable --`.
    pub wrapper: Vec<OsString>,
    /// Flags after those that every daemon of the tests has.
    pub flags: Vec<OsString>,
}

impl Launch {
    pub(crate) fn command(&self) -> Command {
        let mut command = match self.wrapper.split_first() {
            None => Command::new(binary()),
            Some((wrapper, arguments)) => {
                let mut command = Command::new(wrapper);
                command.args(arguments).arg(binary());
                command
            }
        };
        // The machine's own runtimes and cluster are none of the tests' business. A flag goes over this.
        for source in ["CONTAINERS_CRI", "CONTAINERS_DOCKER", "CONTAINERS_PODMAN", "KUBERNETES"] {
            command.env(format!("KILLWATCH_{source}"), "off");
        }
        // There is time enough on an emulated machine, only less of it.
        if in_vm() {
            command.env("KILLWATCH_CONTAINERS_DEADLINE", "4s");
        }
        // Each is alone with its kernel side, which ends with it. A flag goes over this, too.
        command.env("KILLWATCH_PROBE_PIN", "none");
        command
    }
}

/// Path of the program that is tested.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("KILLWATCH_BIN").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/release/killwatch")),
        PathBuf::from,
    )
}
