//! The ledger's file, for when no daemon answers.

use std::path::Path;

use super::question::Question;
use super::record::Record;
use crate::config::AbsolutePath;

/// Where the daemon keeps it unless told otherwise.
pub(super) fn default_path() -> Option<AbsolutePath> {
    None
}

/// The newest that are meant, oldest first.
///
/// # Errors
/// If it is not there, or cannot be read.
pub(super) fn newest(_path: &Path, _question: &Question) -> anyhow::Result<Vec<Record>> {
    anyhow::bail!("this killwatch keeps deaths in memory only")
}
