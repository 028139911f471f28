//! The directory with the sets: its lock, what is in it, and how a set comes to be and goes.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Access, FlockOperation, StatFs, access, flock, fstatfs, statfs},
    io::Errno,
};
use thiserror::Error;

use super::name::{Named, SetName};

/// `BPF_FS_MAGIC` (include/uapi/linux/magic.h).
const BPF_FS: u32 = 0xcafe_4a11;
/// Entries of the directory that are looked at. One set is there, and a second while one replaces the other.
const MAX_ENTRIES: usize = 64;
/// Entries of a set that are looked at.
const MAX_FILES: usize = 256;
/// How long to try for the lock: `killwatch doctor` has it for a moment, and a daemon that was killed until it is gone. And how often.
const LOCKED_WITHIN: Duration = Duration::from_millis(500);
const LOCK_AGAIN: Duration = Duration::from_millis(20);
/// Begins the name of a pinned link.
pub const LINK: &str = "link_";
/// Begins the name of a pinned program.
pub const PROGRAM: &str = "program_";

/// Why nothing can be pinned.
#[derive(Debug, Error)]
pub enum PinError {
    /// Not there, and could not be made.
    #[error(
        "{path} cannot be used: {error}; mount a BPF file system there (mount -t bpf bpf /sys/fs/bpf), or set probe.pin to `none`"
    )]
    Unusable {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// Of another kind.
    #[error(
        "{path} is not in a BPF file system; mount one (mount -t bpf bpf /sys/fs/bpf), or name another directory with probe.pin"
    )]
    NoBpfFs {
        /// The directory.
        path: PathBuf,
    },
    /// Locked.
    #[error("another killwatch runs with what is pinned in {path}")]
    Taken {
        /// The directory.
        path: PathBuf,
    },
}

/// The directory, locked for this process.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Holds the lock.
    _lock: File,
}

/// What is in the directory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Whole sets, the oldest first.
    pub sets: Vec<SetName>,
    /// Sets that were left half-made.
    pub unfinished: Vec<PathBuf>,
    /// What is not ours.
    pub strangers: Vec<PathBuf>,
}

impl Directory {
    /// Takes the directory, and makes it if only it is missing.
    ///
    /// # Errors
    /// If it cannot be made or written to, is in no BPF file system, or is taken.
    pub fn open(path: &Path) -> Result<Self, PinError> {
        let unusable = |error| PinError::Unusable { path: path.to_owned(), error };
        if !path.exists() {
            let above = path.parent().unwrap_or(path);
            // Nothing is left behind where nothing can be pinned.
            if !is_bpf_fs(statfs(above).map_err(|error| unusable(error.into()))?) {
                return Err(PinError::NoBpfFs { path: path.to_owned() });
            }
            match DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(unusable(error));
                }
                _ => {}
            }
        }
        Self::open_existing(path)
    }

    /// Takes a directory that is there.
    ///
    /// # Errors
    /// As [`Self::open`], and if it is not there.
    pub fn open_existing(path: &Path) -> Result<Self, PinError> {
        let unusable = |error| PinError::Unusable { path: path.to_owned(), error };
        let lock = File::open(path).map_err(unusable)?;
        if !is_bpf_fs(fstatfs(&lock).map_err(|error| unusable(error.into()))?) {
            return Err(PinError::NoBpfFs { path: path.to_owned() });
        }
        let deadline = Instant::now() + LOCKED_WITHIN;
        while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if error != Errno::WOULDBLOCK {
                return Err(unusable(error.into()));
            }
            if Instant::now() >= deadline {
                return Err(PinError::Taken { path: path.to_owned() });
            }
            thread::park_timeout(LOCK_AGAIN);
        }
        let inode = |meta: fs::Metadata| (meta.dev(), meta.ino());
        let locked = lock.metadata().map(inode).map_err(unusable)?;
        // `killwatch detach` may have removed it between opening and locking.
        if fs::metadata(path).map(inode).map_err(unusable)? != locked {
            return Err(PinError::Taken { path: path.to_owned() });
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn contents(&self) -> io::Result<Contents> {
        let mut contents = Contents::default();
        for entry in fs::read_dir(&self.path)?.take(MAX_ENTRIES) {
            let entry = entry?;
            let path = entry.path();
            match entry.file_name().to_str().map(Named::parse) {
                Some(Named::Set(set)) => contents.sets.push(set),
                Some(Named::Unfinished) => contents.unfinished.push(path),
                Some(Named::Stranger) | None => contents.strangers.push(path),
            }
        }
        contents.sets.sort_by_key(|set| set.id);
        Ok(contents)
    }

    /// Where a set is.
    #[must_use]
    pub fn set(&self, set: &SetName) -> PathBuf {
        self.path.join(set.to_string())
    }

    /// Begins a set: a directory to pin to.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn begin(&self, set: &SetName) -> io::Result<PathBuf> {
        let path = self.path.join(set.unfinished());
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Gives a set that is whole its name.
    ///
    /// # Errors
    /// If it cannot be renamed; it counts as half-made then.
    pub fn finish(&self, set: &SetName) -> io::Result<PathBuf> {
        let whole = self.set(set);
        fs::rename(self.path.join(set.unfinished()), &whole)?;
        Ok(whole)
    }
}

/// What a look from outside shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Nothing is pinned, and something can be.
    Free,
    /// A daemon runs with what is pinned.
    Taken,
    /// So many sets are there, and no daemon.
    Left(usize),
}

/// Looks at the directory, and leaves it as it is.
///
/// # Errors
/// Why nothing can be pinned there.
pub fn look(path: &Path) -> Result<Look, PinError> {
    let unusable = |error| PinError::Unusable { path: path.to_owned(), error };
    let is_there = path.exists();
    let place = if is_there { path } else { path.parent().unwrap_or(path) };
    if !is_bpf_fs(statfs(place).map_err(|error| unusable(error.into()))?) {
        return Err(PinError::NoBpfFs { path: path.to_owned() });
    }
    access(place, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| unusable(error.into()))?;
    if !is_there {
        return Ok(Look::Free);
    }
    let lock = File::open(path).map_err(unusable)?;
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => return Ok(Look::Taken),
        Err(error) => return Err(unusable(error.into())),
        Ok(()) => {}
    }
    let directory = Directory { path: path.to_owned(), _lock: lock };
    match directory.contents().map_err(unusable)?.sets.len() {
        0 => Ok(Look::Free),
        sets => Ok(Look::Left(sets)),
    }
}

/// The width of the number differs from machine to machine.
fn is_bpf_fs(stat: StatFs) -> bool {
    u32::try_from(stat.f_type).is_ok_and(|kind| kind == BPF_FS)
}

/// Removes the links of a set: its programs run no more, a moment later.
///
/// # Errors
/// If one cannot be removed.
pub fn remove_links(set: &Path) -> io::Result<()> {
    remove_files(set, |name| name.starts_with(LINK)).map(drop)
}

/// Removes a set, and says how many programs were attached. What is gone already is no error.
///
/// # Errors
/// If something cannot be removed.
pub fn remove(set: &Path) -> io::Result<usize> {
    let links = remove_files(set, |name| name.starts_with(LINK))?;
    remove_files(set, |_| true)?;
    fs::remove_dir(set).or_else(gone)?;
    Ok(links)
}

fn remove_files(set: &Path, is_meant: impl Fn(&str) -> bool) -> io::Result<usize> {
    let entries = match fs::read_dir(set) {
        Err(error) => return gone(error).map(|()| 0),
        Ok(entries) => entries,
    };
    let entries: Vec<_> = entries.take(MAX_FILES).collect::<io::Result<_>>()?;
    let mut removed = 0;
    for entry in entries {
        if entry.file_name().to_str().is_some_and(&is_meant) {
            fs::remove_file(entry.path()).or_else(gone)?;
            removed += 1;
        }
    }
    Ok(removed)
}

fn gone(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// One that is in no BPF file system: what is done with files is the same.
    fn directory(path: &Path) -> Directory {
        Directory { path: path.to_owned(), _lock: File::open(path).unwrap() }
    }

    fn set(id: u128) -> SetName {
        SetName { version: 3, object: 1, id: Uuid::from_u128(id) }
    }

    #[test]
    fn a_set_is_whole_or_known_as_half_made() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(dir.path());
        let half = directory.begin(&set(2)).unwrap();
        fs::write(half.join("RECORDS"), "").unwrap();
        let contents = directory.contents().unwrap();
        assert_eq!((contents.sets.len(), &contents.unfinished[..]), (0, &[half.clone()][..]));
        fs::write(half.join("link_mark_victim"), "").unwrap();
        let whole = directory.finish(&set(2)).unwrap();
        directory.begin(&set(1)).unwrap();
        directory.finish(&set(1)).unwrap();
        fs::write(dir.path().join("mine"), "").unwrap();
        let contents = directory.contents().unwrap();
        assert_eq!(contents.sets, [set(1), set(2)]);
        assert_eq!(contents.strangers, [dir.path().join("mine")]);
        assert!(contents.unfinished.is_empty());
        remove_links(&whole).unwrap();
        assert!(whole.join("RECORDS").exists() && !whole.join("link_mark_victim").exists());
        assert_eq!(remove(&whole).unwrap(), 0);
        assert_eq!(remove(&whole).unwrap(), 0);
        assert_eq!(directory.contents().unwrap().sets, [set(1)]);
    }

    #[test]
    fn removing_says_what_was_attached() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["RECORDS", "link_a", "link_b", "program_a"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        assert_eq!(remove(dir.path()).unwrap(), 2);
        assert!(!dir.path().exists());
    }

    #[test]
    fn another_file_system_is_refused_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        assert!(matches!(Directory::open(&path), Err(PinError::NoBpfFs { .. })));
        assert!(!path.exists());
        let deep = dir.path().join("a/b");
        assert!(matches!(Directory::open(&deep), Err(PinError::Unusable { .. })));
        assert!(Directory::open_existing(&path).is_err());
    }
}
