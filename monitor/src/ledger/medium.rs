//! The file under the ledger: opening it, setting it aside, reading it while no daemon runs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use redb::backends::FileBackend;
use redb::{Builder, Database, StorageBackend};

use super::store::{StoreError, guarded};

/// Memory for pages of the file.
const CACHE: usize = 1 << 20;
/// A file up to this size is read and checked as a whole when it is opened; a larger one would hold up the start.
const CHECKED: u64 = 256 << 20;
/// Files that are kept set aside.
const SET_ASIDE: usize = 3;

/// Where the ledger is kept.
pub(super) trait Medium: Send {
    /// Opens what is there, or makes it.
    fn open(&mut self) -> Result<Database, StoreError>;

    /// Gives what is there another name, so that the next [`Self::open`] makes it anew. Says what was done.
    fn set_aside(&mut self) -> Result<String, StoreError>;
}

/// A file by its path.
pub(super) struct AtPath(pub(super) PathBuf);

impl Medium for AtPath {
    fn open(&mut self) -> Result<Database, StoreError> {
        let path = &self.0;
        if let Some(directory) = path.parent() {
            match fs::DirBuilder::new().mode(0o755).create(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(of(&error));
                }
                _ => {}
            }
        }
        match fs::metadata(path) {
            // To open a pipe would wait for its other end.
            Ok(found) if !found.is_file() => {
                return Err(StoreError::Unusable("it is no file".to_owned()));
            }
            _ => {}
        }
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o640);
        let file = options.open(path).map_err(|error| of(&error))?;
        let len = file.metadata().map_err(|error| of(&error))?.len();
        let is_new = len == 0;
        let db = guarded(|| open(FileBackend::new(file)?, !is_new && len <= CHECKED))?;
        if is_new {
            sync_directory(path).map_err(|error| of(&error))?;
        }
        Ok(db)
    }

    fn set_aside(&mut self) -> Result<String, StoreError> {
        let name = |n: usize| {
            let mut name = self.0.clone().into_os_string();
            name.push(format!(".set-aside-{n}"));
            PathBuf::from(name)
        };
        let free = (1..=SET_ASIDE).find(|n| fs::symlink_metadata(name(*n)).is_err());
        let to = name(free.unwrap_or(SET_ASIDE));
        fs::rename(&self.0, &to).map_err(|error| of(&error))?;
        Ok(match free {
            Some(_) => format!("set aside as {}", to.display()),
            None => format!("set aside as {}, in place of the one before", to.display()),
        })
    }
}

/// Opens a database, or makes one where nothing is. `check`: reads all of it, to find damage before it is met.
pub(super) fn open(backend: impl StorageBackend, check: bool) -> Result<Database, StoreError> {
    let mut db = Builder::new().set_cache_size(CACHE).create_with_backend(backend)?;
    if check && !db.check_integrity()? {
        tracing::error!(
            "the ledger was damaged, and is repaired: what was written last may be lost"
        );
    }
    Ok(db)
}

fn of(error: &io::Error) -> StoreError {
    StoreError::Disk(error.to_string())
}

/// Makes the name of a new file durable too.
fn sync_directory(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}
