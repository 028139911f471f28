//! A walk over one hierarchy: what was there before the daemon, and what lost events left out.
//!
//! Cgroups come and go under the walk; one that vanishes is skipped. Symbolic links are not followed. What the walk holds is
//! bounded by the number of cgroups it may report and by the bytes of their paths.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirEntryExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Bytes of path text that a walk may report: whoever may make cgroups may name each of them with 4 KiB.
const MAX_PATH_BYTES: usize = 16 << 20;

/// A cgroup that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Inode of its directory: its id in this hierarchy.
    pub id: u64,
    /// Path from the root of the hierarchy, `/` being the root itself.
    pub path: Vec<u8>,
}

/// How a walk went. Counts of cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Reported.
    pub found: usize,
    /// Gone before they could be opened.
    pub vanished: usize,
    /// Not readable: permission, or deeper than a path may be long. What lies below them is not reported.
    pub unreadable: usize,
    /// Whether there were more than may be reported.
    pub full: bool,
}

impl Outcome {
    /// Whether a cgroup that the walk did not report is certainly not there.
    #[must_use]
    pub const fn complete(&self) -> bool {
        !self.full && self.unreadable == 0
    }
}

/// Walks a hierarchy, a cgroup before its children.
#[derive(Debug)]
pub struct Walk {
    root: PathBuf,
    /// Seen in their parent, not opened yet.
    pending: Vec<Found>,
    /// How many more may be put on `pending`.
    left: usize,
    /// How many more bytes of paths.
    left_bytes: usize,
    outcome: Outcome,
}

impl Walk {
    /// Starts at `root`, where a hierarchy is mounted, and reports at most `max` cgroups, the root included.
    ///
    /// # Errors
    /// If the root cannot be looked at.
    pub fn new(root: &Path, max: NonZeroUsize) -> io::Result<Self> {
        let id = fs::metadata(root)?.ino();
        Ok(Self {
            root: root.to_path_buf(),
            pending: vec![Found { id, path: b"/".to_vec() }],
            left: max.get() - 1,
            left_bytes: MAX_PATH_BYTES,
            outcome: Outcome::default(),
        })
    }

    /// How it went so far; final once the iterator has ended.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn read(&mut self, path: &[u8]) -> io::Result<()> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let base = if relative.is_empty() { b"" } else { path };
        for entry in fs::read_dir(self.root.join(std::ffi::OsStr::from_bytes(relative)))? {
            let entry = entry?;
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let path = [base, b"/", entry.file_name().as_bytes()].concat();
            let (Some(left), Some(left_bytes)) =
                (self.left.checked_sub(1), self.left_bytes.checked_sub(path.len()))
            else {
                self.outcome.full = true;
                break;
            };
            (self.left, self.left_bytes) = (left, left_bytes);
            self.pending.push(Found { id: entry.ino(), path });
        }
        Ok(())
    }
}

impl Iterator for Walk {
    type Item = Found;

    fn next(&mut self) -> Option<Found> {
        loop {
            let found = self.pending.pop()?;
            match self.read(&found.path) {
                Ok(()) => {}
                Err(error) if vanished(&error) => {
                    self.outcome.vanished += 1;
                    // What it reported before it went is going too: it can be removed only once it has no children.
                    continue;
                }
                // It is there, only closed to us.
                Err(_) => self.outcome.unreadable += 1,
            }
            self.outcome.found += 1;
            return Some(found);
        }
    }
}

/// A removed cgroup: gone by name, or removed while its directory was open.
fn vanished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn max(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).unwrap()
    }

    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("a/b/c")).unwrap();
        fs::create_dir_all(root.path().join("d e")).unwrap();
        fs::write(root.path().join("a/memory.max"), "max").unwrap();
        std::os::unix::fs::symlink(root.path(), root.path().join("a/loop")).unwrap();
        root
    }

    #[test]
    fn finds_every_directory_by_inode_and_follows_no_link() {
        let root = tree();
        let mut walk = Walk::new(root.path(), max(100)).unwrap();
        let found: BTreeMap<Vec<u8>, u64> =
            walk.by_ref().map(|found| (found.path, found.id)).collect();
        let paths: Vec<&[u8]> = found.keys().map(Vec::as_slice).collect();
        assert_eq!(paths, [b"/".as_slice(), b"/a", b"/a/b", b"/a/b/c", b"/d e"]);
        for (path, id) in &found {
            let full = root.path().join(std::ffi::OsStr::from_bytes(&path[1..]));
            assert_eq!(fs::metadata(full).unwrap().ino(), *id);
        }
        assert_eq!(walk.outcome(), Outcome { found: 5, ..Outcome::default() });
        assert!(walk.outcome().complete());
    }

    #[test]
    fn stops_at_its_bound_and_says_so() {
        let root = tree();
        let mut walk = Walk::new(root.path(), max(3)).unwrap();
        assert_eq!(walk.by_ref().count(), 3);
        assert!(walk.outcome().full && !walk.outcome().complete());
        let mut exact = Walk::new(root.path(), max(5)).unwrap();
        assert_eq!(exact.by_ref().count(), 5);
        assert!(exact.outcome().complete());
    }

    #[test]
    fn stops_when_its_paths_are_too_long() {
        let root = tree();
        let mut walk = Walk::new(root.path(), max(100)).unwrap();
        // Room for `/a` and `/d e`, whichever comes first, and not for `/a/b`.
        walk.left_bytes = b"/a".len() + b"/d e".len();
        assert_eq!(walk.by_ref().count(), 3);
        assert!(walk.outcome().full && !walk.outcome().complete());
    }

    #[test]
    fn a_directory_may_vanish_under_it() {
        let root = tree();
        let mut walk = Walk::new(root.path(), max(100)).unwrap();
        assert_eq!(walk.next().unwrap().path, b"/");
        fs::remove_dir_all(root.path().join("a")).unwrap();
        fs::remove_dir(root.path().join("d e")).unwrap();
        assert_eq!(walk.next(), None);
        assert_eq!(walk.outcome(), Outcome { found: 1, vanished: 2, ..Outcome::default() });
        assert!(walk.outcome().complete());
    }

    #[test]
    fn a_root_that_is_not_there_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        assert!(Walk::new(&root.path().join("no"), max(1)).is_err());
    }

    #[test]
    fn walks_this_hosts_own_cgroups() {
        // Containers without a cgroup file system have nothing to walk.
        let Ok(mounts) = super::super::mounts::Mounts::detect(Path::new("/proc"), None) else {
            return;
        };
        let mut walk = Walk::new(&mounts.memory.root, max(1 << 20)).unwrap();
        let found: Vec<Found> = walk.by_ref().collect();
        assert_eq!(found.first().map(|root| root.path.as_slice()), Some(b"/".as_slice()));
        assert_eq!(found.len(), walk.outcome().found);
        let ids: std::collections::BTreeSet<u64> = found.iter().map(|cgroup| cgroup.id).collect();
        assert_eq!(ids.len(), found.len(), "an id is one cgroup");
    }
}
