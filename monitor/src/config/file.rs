//! The configuration file: YAML, of bounded size, with no key that is not known.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::Config;
use crate::yaml;

/// A file that is longer is not read: no honest configuration comes near.
pub const MAX_BYTES: u64 = 1 << 20;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is longer than [`MAX_BYTES`].
    #[error("{}: longer than {MAX_BYTES} bytes, which a configuration file may not be", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// The file holds something that is not allowed.
    #[error("{}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key, the value, what is allowed and where it stands.
        problem: String,
    },
    /// File, environment and flags together hold something that is not allowed.
    #[error("{0}")]
    Combination(String),
}

/// Reads a file.
///
/// # Errors
/// If it cannot be read, is too long, or holds a key or a value that is not allowed.
pub fn read(path: &Path) -> Result<Config, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable { path: path.to_owned(), cause };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(unreadable)?
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned() });
    }
    parse(&bytes).map_err(|problem| ConfigError::Invalid { path: path.to_owned(), problem })
}

/// Reads YAML. A file that is empty or holds comments only is the default configuration.
///
/// # Errors
/// A line that names the key, the value, what is allowed, and where it stands.
pub fn parse(text: &[u8]) -> Result<Config, String> {
    let config: Config = yaml::read(text)?;
    config.check()?;
    Ok(config)
}
