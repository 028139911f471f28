//! A small disk of a test's own: a tmpfs that can be filled, and written to or not.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_remount, unmount};
use tempfile::TempDir;

/// It is filled in pieces of this size, then byte by page.
const PIECE: usize = 4096;

/// A mounted one. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    dir: TempDir,
    options: String,
}

impl Disk {
    /// One with room for so many bytes.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn of(bytes: u64) -> Result<Self> {
        let dir = TempDir::with_prefix("killwatch-disk-").context("make a directory")?;
        let options = format!("size={bytes},mode=0755");
        let data = std::ffi::CString::new(options.clone()).context("options")?;
        mount("tmpfs", dir.path(), "tmpfs", MountFlags::empty(), &*data)
            .with_context(|| format!("mount a tmpfs on {}", dir.path().display()))?;
        Ok(Self { dir, options })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    /// When something else than the want of room ends it.
    pub fn fill(&self) -> Result<()> {
        let mut ballast = File::create(self.ballast()).context("make the ballast")?;
        loop {
            match ballast.write_all(&[0; PIECE]) {
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                written => written.context("fill the disk")?,
            }
        }
    }

    /// Gives it back.
    ///
    /// # Errors
    /// When it was not taken.
    pub fn free(&self) -> Result<()> {
        std::fs::remove_file(self.ballast()).context("remove the ballast")
    }

    /// Nothing can be written any more, or can again. Nobody may have a file of it open for writing.
    ///
    /// # Errors
    /// When somebody has.
    pub fn set_read_only(&self, read_only: bool) -> Result<()> {
        let flags = if read_only { MountFlags::RDONLY } else { MountFlags::empty() };
        let data = std::ffi::CString::new(self.options.clone()).context("options")?;
        mount_remount(self.path(), flags, &*data).context("remount the disk")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A daemon that still has it open keeps it until its end; its name is free at once.
        let unmounted = unmount(self.dir.path(), UnmountFlags::DETACH);
        debug_assert!(unmounted.is_ok() || unmounted == Err(Errno::INVAL), "{unmounted:?}");
    }
}
