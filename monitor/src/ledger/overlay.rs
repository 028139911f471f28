//! A file that is read, and to which what is written stays in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

/// Bytes of a piece that was written.
const PIECE: u64 = 4096;
/// Bytes that may be written at most. A repair writes the head and the map of free pages.
const MAX_WRITTEN: u64 = 64 << 20;

/// A file, and what would have been written to it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// Bytes of the file that still count.
    of_file: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(super) fn new(file: File, len: u64) -> Self {
        let written = Written { len, of_file: len, pieces: BTreeMap::new() };
        Self { file, written: Mutex::new(written) }
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The piece at a place as it is in the file, zeros after its end.
    fn of_file(&self, at: u64, of_file: u64) -> io::Result<Vec<u8>> {
        let mut piece = vec![0; usize::try_from(PIECE).unwrap_or(0)];
        let there = usize::try_from(of_file.saturating_sub(at).min(PIECE)).unwrap_or(0);
        if let Some(there) = piece.get_mut(..there) {
            self.file.read_exact_at(there, at)?;
        }
        Ok(piece)
    }
}

/// The pieces that `len` bytes from `offset` on touch: each one's place, the first byte in it, and how many.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let end = offset.saturating_add(len as u64);
    let first = offset / PIECE * PIECE;
    (0..).map(move |n: u64| first + n * PIECE).take_while(move |at| *at < end).map(move |at| {
        let from = offset.max(at);
        let to = end.min(at + PIECE);
        let small = |n: u64| usize::try_from(n).unwrap_or(0);
        (at, small(from - at), small(to - from))
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut rest = out;
        for (at, from, len) in pieces(offset, rest.len()) {
            let (part, after) = rest.split_at_mut_checked(len).unwrap_or_default();
            let whole;
            let piece = match written.pieces.get(&at) {
                Some(piece) => piece,
                None => {
                    whole = self.of_file(at, written.of_file)?;
                    &whole
                }
            };
            if let Some(piece) = piece.get(from..from + len) {
                part.copy_from_slice(piece);
            }
            rest = after;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written();
        written.of_file = written.of_file.min(len);
        written.pieces.split_off(&len.next_multiple_of(PIECE));
        if let Some(mut last) = written.pieces.last_entry().filter(|last| last.key() + PIECE > len)
        {
            let from = usize::try_from(len - last.key()).unwrap_or(0);
            last.get_mut().iter_mut().skip(from).for_each(|byte| *byte = 0);
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        if written.pieces.len() as u64 * PIECE > MAX_WRITTEN {
            return Err(io::Error::other(
                "it needs a repair that is too large to be made in memory: start killwatch, which repairs it",
            ));
        }
        let mut rest = data;
        for (at, from, len) in pieces(offset, rest.len()) {
            let (part, after) = rest.split_at_checked(len).unwrap_or_default();
            let of_file = written.of_file;
            let mut piece = match written.pieces.remove(&at) {
                Some(piece) => piece,
                None => self.of_file(at, of_file)?,
            };
            if let Some(piece) = piece.get_mut(from..from + len) {
                piece.copy_from_slice(part);
            }
            written.pieces.insert(at, piece);
            rest = after;
        }
        written.len = written.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u64..20_000, prop::collection::vec(any::<u8>(), 0..9000)).prop_map(|(at, data)| Step::Write(at, data)),
            1 => (0u64..30_000).prop_map(Step::SetLen),
        ]
    }

    proptest! {
        /// It reads like a file that was written to, and leaves its own as it was.
        #[test]
        fn an_overlay_is_like_a_file(len in 0usize..20_000, steps in prop::collection::vec(step(), 0..8)) {
            let before: Vec<u8> = (0..=250).cycle().take(len).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&before).unwrap();
            let overlay = Overlay::new(file.try_clone().unwrap(), len as u64);
            let mut model = before.clone();
            for step in steps {
                match step {
                    Step::Write(at, data) => {
                        overlay.write(at, &data).unwrap();
                        let at = usize::try_from(at).unwrap();
                        let end = at + data.len();
                        if model.len() < end {
                            model.resize(end, 0);
                        }
                        model[at..end].copy_from_slice(&data);
                    }
                    Step::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(usize::try_from(len).unwrap(), 0);
                    }
                }
                prop_assert_eq!(StorageBackend::len(&overlay).unwrap(), model.len() as u64);
                let mut all = vec![1; model.len()];
                overlay.read(0, &mut all).unwrap();
                prop_assert!(all == model);
                let third = model.len() / 3;
                let mut part = vec![1; third];
                overlay.read(third as u64, &mut part).unwrap();
                prop_assert!(part == model[third..2 * third]);
            }
            prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            let mut after = vec![0; len];
            file.read_exact_at(&mut after, 0).unwrap();
            prop_assert!(after == before && file.metadata().unwrap().len() == len as u64);
        }
    }
}
