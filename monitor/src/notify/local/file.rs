//! Whole lines to a file or a stream, whatever fails in between.
//!
//! A line that was written in part is ended by a newline before anything else is written, also by the next run: a reader sees a
//! line that is no JSON, never half a record with another glued to it. A line counts as written only with its newline.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::rotate::{Rotation, rotate};

/// Where lines go.
pub(super) struct Lines {
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    /// Device and inode of the open file.
    identity: Option<(u64, u64)>,
    /// When it is moved away; `None` for never.
    rotation: Option<Rotation>,
    /// Bytes of the open file, as far as it is known.
    size: u64,
    /// Whether the last line lacks its end.
    torn: bool,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").field("path", &self.path).field("torn", &self.torn).finish()
    }
}

/// What became of some lines.
#[derive(Debug)]
pub(super) struct Written {
    /// Lines that were written whole, from the first on.
    pub(super) lines: usize,
    /// Why not all.
    pub(super) error: Option<io::Error>,
}

impl Lines {
    /// Lines to standard output.
    pub(super) fn stdout() -> Self {
        Self::to(Box::new(io::stdout()))
    }

    /// Lines to any writer.
    pub(super) fn to(out: Box<dyn Write + Send>) -> Self {
        Self { path: None, out, identity: None, rotation: None, size: 0, torn: false }
    }

    /// Lines to the end of a file, made with mode 0640 if there is none. Only a regular file is ever rotated.
    ///
    /// # Errors
    /// If it cannot be opened or read.
    pub(super) fn file(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        let mut file =
            OpenOptions::new().append(true).read(true).create(true).mode(0o640).open(path)?;
        let torn = ends_torn(&mut file)?;
        let metadata = file.metadata()?;
        Ok(Self {
            path: Some(path.to_owned()),
            out: Box::new(file),
            identity: Some((metadata.dev(), metadata.ino())),
            rotation: rotation.filter(|_| metadata.is_file()),
            size: metadata.len(),
            torn,
        })
    }

    /// Writes lines, each given without its newline, until one fails. May block.
    pub(super) fn write(&mut self, lines: &[Bytes]) -> Written {
        if let Err(error) = self.follow_rotation() {
            return Written { lines: 0, error: Some(error) };
        }
        for (written, line) in lines.iter().enumerate() {
            if let Err(error) = self.make_room(line).and_then(|()| self.line(line)) {
                return Written { lines: written, error: Some(error) };
            }
        }
        Written { lines: lines.len(), error: None }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<()> {
        let mut whole = Vec::with_capacity(line.len() + 2);
        if self.torn {
            whole.push(b'\n');
        }
        whole.extend_from_slice(line);
        whole.push(b'\n');
        self.put(&whole)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        // Stays set if anything fails from here on: what reached the file is not known then.
        self.torn = true;
        self.size = self.size.saturating_add(bytes.len() as u64);
        self.out.write_all(bytes)?;
        self.out.flush()?;
        self.torn = false;
        Ok(())
    }

    /// Moves the file away if the line would make it too long. A torn line is ended first, where it is.
    fn make_room(&mut self, line: &[u8]) -> io::Result<()> {
        let (Some(path), Some(rotation)) = (self.path.clone(), self.rotation) else {
            return Ok(());
        };
        let size = self.size.saturating_add(line.len() as u64 + 1 + u64::from(self.torn));
        if self.size == 0 || size <= rotation.max_bytes {
            return Ok(());
        }
        if self.torn {
            self.put(b"\n")?;
        }
        rotate(&path, rotation.keep)?;
        *self = Self::file(&path, Some(rotation))?;
        Ok(())
    }

    /// Opens the file anew if its name stands for another one now, or for none: logrotate, or another process that writes here, has moved it away.
    fn follow_rotation(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let current = std::fs::metadata(path).ok();
        if current.as_ref().map(|m| (m.dev(), m.ino())) != self.identity {
            *self = Self::file(path, self.rotation)?;
        } else if let Some(current) = current {
            self.size = current.len();
        }
        Ok(())
    }
}

/// Whether a file holds something after its last newline.
fn ends_torn(file: &mut File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != *b"\n")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk of a given size.
    struct Disk {
        bytes: Arc<Mutex<Vec<u8>>>,
        room: Arc<Mutex<usize>>,
    }

    impl Write for Disk {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            let mut room = self.room.lock().unwrap();
            let n = buf.len().min(*room);
            if n == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= n;
            self.bytes.lock().unwrap().extend_from_slice(&buf[..n]);
            Ok(n)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines() -> Vec<Bytes> {
        [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#]
            .iter()
            .map(|l| Bytes::from_static(l.as_bytes()))
            .collect()
    }

    #[test]
    fn whatever_the_room_every_line_is_whole_once_or_no_record() {
        for room in 0..24 {
            let (bytes, left) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(room)));
            let disk = Disk { bytes: Arc::clone(&bytes), room: Arc::clone(&left) };
            let mut out = Lines::to(Box::new(disk));
            let outcome = out.write(&lines());
            assert_eq!(outcome.lines, room / 8, "with room for {room} bytes");
            *left.lock().unwrap() = 1000;
            assert_eq!(out.write(&lines()[outcome.lines..]).lines, 3 - outcome.lines);

            let text = String::from_utf8(bytes.lock().unwrap().clone()).unwrap();
            let records: Vec<_> = text
                .lines()
                .filter(|l| serde_json::from_str::<serde_json::Value>(l).is_ok())
                .collect();
            let mut unique = records.clone();
            unique.dedup();
            assert_eq!(
                unique,
                [r#"{"a":1}"#, r#"{"b":2}"#, r#"{"c":3}"#],
                "with room for {room} bytes: {text}"
            );
            assert!(records.len() <= 4, "only a line that lacked nothing but its end comes twice");
        }
    }

    #[test]
    fn a_torn_end_of_the_last_run_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deaths.jsonl");
        std::fs::write(&path, "{\"whole\":1}\n{\"half").unwrap();
        assert_eq!(Lines::file(&path, None).unwrap().write(&lines()[..1]).lines, 1);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"whole\":1}\n{\"half\n{\"a\":1}\n");
    }

    #[test]
    fn follows_logrotate_and_is_not_world_readable() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("deaths.jsonl"), dir.path().join("deaths.jsonl.1"));
        let mut out = Lines::file(&path, None).unwrap();
        out.write(&lines()[..1]);
        std::fs::rename(&path, &moved).unwrap();
        out.write(&lines()[1..2]);
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "{\"a\":1}\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"b\":2}\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o007, 0);
    }

    #[test]
    fn a_file_that_is_full_is_moved_with_whole_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deaths.jsonl");
        let read = |n: &str| {
            std::fs::read_to_string(dir.path().join(format!("deaths.jsonl{n}"))).unwrap_or_default()
        };
        std::fs::write(&path, "{\"half").unwrap();
        let rotation = Rotation { max_bytes: 16, keep: 2 };
        let mut out = Lines::file(&path, Some(rotation)).unwrap();
        for _ in 0..2 {
            assert_eq!(out.write(&lines()).lines, 3);
        }
        assert_eq!(read(""), "{\"c\":3}\n");
        assert_eq!(read(".1"), "{\"a\":1}\n{\"b\":2}\n");
        assert_eq!(read(".2"), "{\"b\":2}\n{\"c\":3}\n", "the torn one is pushed off the end");
        // A line that is too long for any file has one of its own.
        let long = Bytes::from(vec![b'x'; 50]);
        assert_eq!(out.write(&[long.clone(), lines()[0].clone()]).lines, 2);
        assert_eq!((read("").as_str(), read(".1").len()), ("{\"a\":1}\n", 51));
    }

    #[test]
    fn another_process_that_writes_or_rotates_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deaths.jsonl");
        let rotation = Some(Rotation { max_bytes: 16, keep: 1 });
        let mut ours = Lines::file(&path, rotation).unwrap();
        let mut theirs = Lines::file(&path, rotation).unwrap();
        ours.write(&lines()[..1]);
        theirs.write(&lines()[1..]);
        ours.write(&lines()[..1]);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"c\":3}\n{\"a\":1}\n");
    }
}
