//! The ledger's file, for when no daemon answers.

use std::path::Path;

use super::question::Question;
use super::record::Record;
use crate::cli::complain;
use crate::ledger::{Ledger, ReadError};

/// The newest that are meant, oldest first. Of damaged records their number is said.
///
/// # Errors
/// If it is not there, a daemon has it, or it cannot be read.
pub(super) fn newest(path: &Path, question: &Question) -> Result<Vec<Record>, ReadError> {
    let found = Ledger::read_file(path)?.newest(&question.filter, question.limit)?;
    if found.unreadable > 0 {
        complain(&format!("{} damaged records are left out", found.unreadable));
    }
    let json = |entry: &crate::ledger::Entry| String::from_utf8_lossy(&entry.json).into_owned();
    Ok(found.entries.iter().rev().map(|entry| Record::new(json(entry))).collect())
}
