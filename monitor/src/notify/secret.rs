//! Secrets from files: read for each request, so that a rotated one is taken up at once, and shown to nobody.
//!
//! A file that is gone for a moment, as while its directory is swapped, costs nothing: what was read last stays in force.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use crate::config::AbsolutePath;

/// A secret's file may be this long: bytes.
pub const MAX_BYTES: u64 = 64 << 10;

/// Something that is in no log, error or status.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A file with a secret, and what stood in it last.
#[derive(Debug)]
pub struct SecretFile {
    path: AbsolutePath,
    last: Option<Secret>,
    warned: bool,
}

impl SecretFile {
    /// Nothing is read yet.
    #[must_use]
    pub fn new(path: AbsolutePath) -> Self {
        Self { path, last: None, warned: false }
    }

    /// What stands in the file, without the newline at its end; what stood there last, if it cannot be read now. That is warned of once.
    ///
    /// # Errors
    /// One line, if it could never be read.
    pub async fn get(&mut self) -> Result<Secret, String> {
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let read = read.unwrap_or_else(|_| Err("the daemon is stopping".to_owned()));
        match (read, &self.last) {
            (Ok(secret), _) => {
                self.warned = false;
                self.last = Some(secret.clone());
                Ok(secret)
            }
            (Err(why), Some(last)) => {
                if !std::mem::replace(&mut self.warned, true) {
                    let path = &self.path;
                    tracing::warn!(%path, %why, "a secret cannot be read: the last one stays in force");
                }
                Ok(last.clone())
            }
            (Err(why), None) => Err(format!(
                "{}: {why}: the secret is to be in this file, readable for the daemon",
                self.path
            )),
        }
    }
}

/// Reads a secret. May block.
fn read(path: &Path) -> Result<Secret, String> {
    let mut bytes = read_file(path, MAX_BYTES).map_err(|error| error.to_string())?;
    while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        bytes.pop();
    }
    if bytes.is_empty() {
        return Err("it is empty".to_owned());
    }
    Ok(Secret(bytes.into()))
}

/// Reads a regular file of at most `max` bytes. May block, but not on a pipe that nobody writes to.
///
/// # Errors
/// If it cannot be opened or read, is no regular file, or is longer.
pub(crate) fn read_file(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max {
        return Err(io::Error::other(format!("longer than {max} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of(path: &Path) -> SecretFile {
        SecretFile::new(path.to_str().unwrap().parse().unwrap())
    }

    #[tokio::test]
    async fn a_rotated_secret_is_taken_up_and_a_vanished_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let mut file = of(&path);
        let why = file.get().await.unwrap_err();
        assert!(why.contains("token") && why.contains("No such file"), "{why}");

        fs::write(&path, "one \n").unwrap();
        assert_eq!(file.get().await.unwrap().bytes(), b"one ", "only the newline is no part of it");
        fs::write(&path, "two\r\n\n").unwrap();
        assert_eq!(file.get().await.unwrap().bytes(), b"two");
        fs::remove_file(&path).unwrap();
        assert_eq!(file.get().await.unwrap().bytes(), b"two");
        assert!(file.warned);
        fs::write(&path, "\n").unwrap();
        assert_eq!(file.get().await.unwrap().bytes(), b"two", "an empty file is being written");
        fs::write(&path, "three").unwrap();
        assert_eq!(file.get().await.unwrap().bytes(), b"three");
        assert!(!file.warned, "the next time it is gone is warned of again");
        assert!(!format!("{file:?}").contains("three"));
    }

    #[tokio::test]
    async fn what_is_no_secrets_file() {
        let dir = tempfile::tempdir().unwrap();
        assert!(of(dir.path()).get().await.unwrap_err().contains("not a regular file"));
        let pipe = dir.path().join("pipe");
        nix_mkfifo(&pipe);
        assert!(of(&pipe).get().await.unwrap_err().contains("not a regular file"));
        let long = dir.path().join("long");
        fs::write(&long, vec![b'x'; usize::try_from(MAX_BYTES).unwrap() + 1]).unwrap();
        assert!(of(&long).get().await.unwrap_err().contains("longer than 65536 bytes"));
        fs::write(&long, vec![b'x'; usize::try_from(MAX_BYTES).unwrap()]).unwrap();
        assert_eq!(of(&long).get().await.unwrap().bytes().len() as u64, MAX_BYTES);
    }

    fn nix_mkfifo(path: &Path) {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
}
