//! The socket's place in the file system: made, taken over from a daemon that is gone, and taken away at the end.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, chmod, chown};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::UnixListener;

use super::config::{ApiConfig, SocketPath};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("api.socket: cannot listen on {}: {cause}; --api.socket names another place, or `none`", path.display())]
pub struct SocketError {
    /// Where it was to be.
    pub path: PathBuf,
    /// Why.
    pub cause: io::Error,
}

/// A socket that listens. Its file goes with it, if it is still its own.
#[derive(Debug)]
pub struct Bound {
    pub(super) listener: UnixListener,
    file: OwnFile,
}

/// A file, known by its inode.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let own = |found: fs::Metadata| (found.dev(), found.ino()) == (self.device, self.inode);
        if fs::symlink_metadata(&self.path).is_ok_and(own) {
            // Whoever starts next takes over what is left behind.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Bound {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

/// Makes the socket, and its directory if that is missing. `None` if there is to be none. To be called within the runtime.
///
/// # Errors
/// If it cannot be made, or another daemon listens there.
pub fn open(config: &ApiConfig) -> Result<Option<Bound>, SocketError> {
    let SocketPath::At(path) = &config.socket else { return Ok(None) };
    let path = path.to_path_buf();
    match make(&path, config) {
        Ok(bound) => Ok(Some(bound)),
        Err(cause) => Err(SocketError { path, cause }),
    }
}

fn make(path: &Path, config: &ApiConfig) -> io::Result<Bound> {
    let group = match &config.socket_group {
        None => None,
        Some(group) => {
            let groups = fs::read_to_string("/etc/group").unwrap_or_default();
            let unknown =
                || io::Error::other(format!("api.socket_group: there is no group {group}"));
            Some(Gid::from_raw(group.number(&groups).ok_or_else(unknown)?))
        }
    };
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    }
    make_way(path)?;
    let socket = socket()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let made = fs::symlink_metadata(path)?;
    let file = OwnFile { path: path.to_owned(), device: made.dev(), inode: made.ino() };
    chmod(path, Mode::from_raw_mode(config.socket_mode.get()))?;
    chown(path, None, group)?;
    // Only now: nobody connects before the permissions stand.
    listen(&socket, BACKLOG)?;
    let listener = UnixListener::from_std(socket.into())?;
    Ok(Bound { listener, file })
}

/// Takes away what a daemon left that is gone.
fn make_way(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::other("there is something that is no socket"));
        }
        Ok(_) => {}
    }
    match connect(&socket()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => fs::remove_file(path),
        // Full is alive too.
        Ok(()) | Err(Errno::AGAIN) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another daemon listens there"))
        }
        Err(error) => Err(error.into()),
    }
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn config(path: &Path) -> ApiConfig {
        ApiConfig { socket: path.to_str().unwrap().parse().unwrap(), ..ApiConfig::default() }
    }

    #[tokio::test]
    async fn makes_its_directory_and_goes_with_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/killwatch.sock");
        let bound = open(&config(&path)).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o666);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
        assert!(
            open(&ApiConfig { socket: SocketPath::None, ..ApiConfig::default() })
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn takes_over_from_the_dead_and_not_from_the_living() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "a socket that nobody listens on");
        let mode = ApiConfig { socket_mode: "0600".parse().unwrap(), ..config(&path) };
        let first = open(&mode).unwrap().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let error = open(&config(&path)).unwrap_err().to_string();
        let begins = format!(
            "api.socket: cannot listen on {}: another daemon listens there",
            path.display()
        );
        assert!(error.starts_with(&begins), "{error}");
        UnixStream::connect(&path).expect("the first is as it was");
        // Replaced by hand: what is there at the end is another's.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "a file").unwrap();
        drop(first);
        assert!(path.exists());
        let error = open(&config(&path)).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
    }

    #[tokio::test]
    async fn a_group_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k.sock");
        let group = Some("no-such-group-here".parse().unwrap());
        let error =
            open(&ApiConfig { socket_group: group, ..config(&path) }).unwrap_err().to_string();
        assert!(
            error.contains("api.socket_group: there is no group no-such-group-here"),
            "{error}"
        );
        assert!(!path.exists());
    }
}
