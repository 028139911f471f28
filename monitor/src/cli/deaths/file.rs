//! The ledger's file, for when no daemon answers.

use std::path::Path;

use super::question::Question;
use super::record::Record;
use crate::audit::state::StatePath;
use crate::cli::complain;
use crate::config::AbsolutePath;
use crate::ledger::{Ledger, LedgerConfig, ReadError};

/// Where the daemon keeps it unless told otherwise.
pub(super) fn default_path() -> Option<AbsolutePath> {
    LedgerConfig::default().file(&StatePath::default())?.to_str()?.parse().ok()
}

/// The newest that are meant, oldest first.
///
/// # Errors
/// If it is not there, or cannot be read.
pub(super) fn newest(path: &Path, question: &Question) -> Result<Vec<Record>, ReadError> {
    let found = Ledger::read_file(path)?.newest(&question.filter, question.limit)?;
    if found.unreadable > 0 {
        complain(&format!("{}: {} damaged records were skipped", path.display(), found.unreadable));
    }
    let json = found.entries.iter().rev().map(|entry| String::from_utf8_lossy(&entry.json));
    Ok(json.map(Record::new).collect())
}
