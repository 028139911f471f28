//! What of the kernel side outlives the daemon: its ring, its counters, its programs and their links, pinned in a BPF file system.
//!
//! In one directory there is a subdirectory for each *set*: all that one load of the kernel side made. Its name says what it is ([`name`]), so that
//! any later version can tell whether it understands it. What must hold:
//!
//! * Who holds the lock of the directory (flock(2) on the directory itself, which goes with its process) is the only one that reads rings and
//!   changes anything here. Whoever comes second works unpinned.
//! * A set is made under another name and renamed when it is whole, so that one that was left half-made is known as such, and is removed.
//! * Of a set that is taken away its links go first: what no longer writes can then be read to its end.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize, Serializer};

use crate::config::{AbsolutePath, Refused, values};

pub mod dir;
pub mod name;
pub mod state;

pub use dir::{Directory, PinError};
pub use name::{Identity, Plan, SetName};

/// Where the kernel side is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum PinPath {
    /// Nowhere: it ends with the daemon.
    None,
    /// In this directory of a BPF file system, which is made if only it is missing.
    Directory(AbsolutePath),
}

impl PinPath {
    /// The directory, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::None => None,
            Self::Directory(path) => Some(path.to_path_buf()),
        }
    }
}

impl Default for PinPath {
    fn default() -> Self {
        Self::Directory(AbsolutePath::of_known("/sys/fs/bpf/killwatch"))
    }
}

impl FromStr for PinPath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "none" => Ok(Self::None),
            // The kernel keeps names with a dot for itself (bpf_lookup, kernel/bpf/inode.c).
            path => match path.parse() {
                Ok(directory) if !path.trim_end_matches('/').is_empty() && !path.contains('.') => {
                    Ok(Self::Directory(directory))
                }
                _ => Err(Refused::new(
                    "must be `none`, or the path of a directory in a BPF file system: it begins with `/` and has no `.` in it",
                )),
            },
        }
    }
}

impl fmt::Display for PinPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Directory(path) => path.fmt(f),
        }
    }
}

impl Serialize for PinPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(PinPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_may_be() {
        assert_eq!("none".parse(), Ok(PinPath::None));
        assert_eq!(PinPath::default().to_string(), "/sys/fs/bpf/killwatch");
        assert_eq!("/x/y".parse::<PinPath>().unwrap().directory(), Some("/x/y".into()));
        for refused in ["", "x", "/", "//", "/x.y", "/x/../y", "None"] {
            assert!(refused.parse::<PinPath>().is_err(), "{refused:?}");
        }
    }
}
