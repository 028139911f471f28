//! Moves a file that has grown too long out of the way: `path` becomes `path.1`, that becomes `path.2` and so on.
//!
//! Each step is one rename(2), the oldest first. Whatever step a crash comes between, no file but the one beyond `keep` is ever lost: a gap in the
//! numbers is filled before anything is pushed off the end.

use std::io;
use std::path::{Path, PathBuf};

/// When and how far a file is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rotation {
    /// A file that would grow beyond so many bytes is moved first.
    pub(super) max_bytes: u64,
    /// Files that are kept beside the one that is written to.
    pub(super) keep: usize,
}

/// Moves `path` and the files before it one further.
pub(super) fn rotate(path: &Path, keep: usize) -> io::Result<()> {
    if keep == 0 {
        return std::fs::remove_file(path);
    }
    let gap = (1..=keep).find(|n| !exists(&numbered(path, *n))).unwrap_or(keep);
    for n in (1..gap).rev() {
        std::fs::rename(numbered(path, n), numbered(path, n + 1))?;
    }
    std::fs::rename(path, numbered(path, 1))
}

fn numbered(path: &Path, n: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{n}"));
    name.into()
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files of a directory with what is in them, in order.
    fn files(dir: &Path) -> Vec<(String, String)> {
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut files: Vec<_> = names
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, std::fs::read_to_string(entry.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn the_oldest_goes_and_gaps_are_filled_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        for text in ["a", "b", "c"] {
            std::fs::write(&path, text).unwrap();
            rotate(&path, 2).unwrap();
        }
        assert_eq!(files(dir.path()), pairs(&[("d.1", "c"), ("d.2", "b")]));
        // As a crash between two steps leaves it.
        std::fs::rename(dir.path().join("d.1"), dir.path().join("d.3")).unwrap();
        std::fs::write(&path, "e").unwrap();
        rotate(&path, 3).unwrap();
        assert_eq!(files(dir.path()), pairs(&[("d.1", "e"), ("d.2", "b"), ("d.3", "c")]));
    }

    #[test]
    fn none_is_kept_if_none_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d");
        std::fs::write(&path, "a").unwrap();
        rotate(&path, 0).unwrap();
        assert_eq!(files(dir.path()), []);
    }
}
