//! What a user may set of the ledger, and where its file is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::audit::state::StatePath;
use crate::config::values::Size;
use crate::config::{AbsolutePath, Count, Period, Refused, values};

/// Name of the file in `state.path`.
const FILE: &str = "ledger.redb";

/// Where deaths are kept, and how much.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// File that deaths are kept in.
    pub path: LedgerPath,
    /// Deaths and alerts to keep; the oldest goes first.
    pub max_deaths: Count<1, 10_000, 1_000_000>,
    /// Bytes of their JSON. The file is larger by about half, and does not shrink while the daemon runs.
    pub max_bytes: Size<{ 1 << 20 }, { 64 << 20 }, { 16 << 30 }>,
    /// How long after its time a death is kept.
    pub max_age: Period<60_000, 2_592_000_000, 31_622_400_000>,
    /// Bytes of JSON that may be in memory because they are not in the file: all that is kept without one, else what waits for a disk that
    /// is slow, full or broken. The memory is about three times that, since each death is held as a value too.
    pub max_memory: Size<{ 1 << 20 }, { 4 << 20 }, { 1 << 30 }>,
}

/// The file, by default `ledger.redb` in `state.path`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LedgerPath {
    /// In `state.path`; none if that is `none`.
    #[default]
    Auto,
    /// None: deaths are in memory only.
    None,
    /// This one.
    File(AbsolutePath),
}

impl LedgerConfig {
    /// The file, if there is to be one.
    #[must_use]
    pub fn file(&self, state: &StatePath) -> Option<PathBuf> {
        match (&self.path, state) {
            (LedgerPath::File(path), _) => Some(path.to_path_buf()),
            (LedgerPath::Auto, StatePath::Directory(directory)) => Some(directory.join(FILE)),
            (LedgerPath::None, _) | (LedgerPath::Auto, StatePath::None) => None,
        }
    }
}

impl FromStr for LedgerPath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let path = || text.parse().ok().filter(|_| !text.ends_with('/'));
        match text {
            "auto" => Ok(Self::Auto),
            "none" => Ok(Self::None),
            _ => path().map(Self::File).ok_or_else(|| {
                Refused::new(
                    "must be `auto` (ledger.redb in state.path), `none`, or the path of a file that begins with `/`",
                )
            }),
        }
    }
}

impl fmt::Display for LedgerPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl Serialize for LedgerPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(LedgerPath);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_it_is() {
        let file = |path: &str, state: &str| {
            let config = LedgerConfig { path: path.parse().unwrap(), ..LedgerConfig::default() };
            config.file(&state.parse().unwrap()).map(|path| path.display().to_string())
        };
        assert_eq!(file("auto", "/s").as_deref(), Some("/s/ledger.redb"));
        assert_eq!(file("auto", "none"), None);
        assert_eq!(file("none", "/s"), None);
        assert_eq!(file("/l", "none").as_deref(), Some("/l"));
        for bad in ["", "l", "/l/", "None"] {
            assert!(bad.parse::<LedgerPath>().is_err(), "{bad}");
        }
    }
}
