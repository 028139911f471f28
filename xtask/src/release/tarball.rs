//! Archives that are the same whenever they are made: entries in the order in which they are put, of root, with one time.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// An archive in the making.
pub(super) struct Tarball {
    builder: Builder<Vec<u8>>,
    epoch: u64,
    directories: BTreeSet<String>,
}

impl Tarball {
    /// An empty one. Everything in it is from `epoch`.
    pub(super) fn new(epoch: u64) -> Self {
        Self { builder: Builder::new(Vec::new()), epoch, directories: BTreeSet::new() }
    }

    /// Adds a file, and the directories that it is in.
    pub(super) fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let path = path.trim_start_matches('/');
        if let Some(parent) = Path::new(path).parent() {
            self.directory(parent.to_str().context("a path")?)?;
        }
        self.put(path, EntryType::Regular, mode, bytes)
    }

    /// Adds a directory, and those that it is in, unless they are there.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let mut whole = String::new();
        for part in parts {
            whole.push_str(part);
            whole.push('/');
            if self.directories.insert(whole.clone()) {
                self.put(&whole, EntryType::Directory, 0o755, &[])?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &str, kind: EntryType, mode: u32, bytes: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(self.epoch);
        header.set_size(bytes.len() as u64);
        let put = self.builder.append_data(&mut header, path, bytes);
        put.with_context(|| format!("cannot pack {path}"))
    }

    /// The whole of it.
    pub(super) fn finish(self) -> Result<Vec<u8>> {
        self.builder.into_inner().context("cannot finish an archive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_first() {
        let mut tarball = Tarball::new(7);
        tarball.file("/a/b/c", 0o644, b"text").unwrap();
        tarball.file("/a/d", 0o755, b"").unwrap();
        tarball.directory("a/b").unwrap();
        let bytes = tarball.finish().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let path = entry.path().unwrap().display().to_string();
                (path, header.mode().unwrap(), header.mtime().unwrap(), header.uid().unwrap())
            })
            .collect();
        let expected = [("a/", 0o755), ("a/b/", 0o755), ("a/b/c", 0o644), ("a/d", 0o755)];
        assert_eq!(entries, expected.map(|(path, mode)| (path.to_owned(), mode, 7, 0)));
    }
}
