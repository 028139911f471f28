//! Bytes from the ring → values. Pure, and never panics: the ring is trusted less than the verifier.

use killwatch_ebpf::wire::{
    CgroupGone, CgroupPath, CountedAgain, Exit, Header, Kind, LargeChunk, LastWords, Mark,
    SmallChunk, Text, VERSION,
};
use thiserror::Error;
use zerocopy::FromBytes;

use crate::cgroup::CgroupId;

/// A record as the kernel side wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Raw<'a> {
    /// An OOM kill.
    Mark(Box<Mark>),
    /// The kernel counted a victim a second time.
    CountedAgain(Box<CountedAgain>),
    /// The victim's own view as its signal arrived.
    LastWords(Box<LastWords>),
    /// A piece of its texts.
    Chunk(ChunkRef<'a>),
    /// The end.
    Exit(Box<Exit>),
    /// A cgroup was made.
    CgroupMade(CgroupPathRef<'a>),
    /// A cgroup has another path.
    CgroupRenamed(CgroupPathRef<'a>),
    /// A cgroup was removed.
    CgroupGone(CgroupId, u64),
}

/// A piece of text, borrowed from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkRef<'a> {
    /// Process id.
    pub tgid: u32,
    /// Start of the process, ns since boot.
    pub start_ns: u64,
    /// Which text.
    pub text: Text,
    /// Where the piece begins in it.
    pub offset: u32,
    /// The bytes; empty if they could not be read.
    pub bytes: &'a [u8],
}

/// A cgroup's path, borrowed from the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupPathRef<'a> {
    /// The cgroup.
    pub id: CgroupId,
    /// The path.
    pub path: &'a [u8],
    /// Whether the kernel had no room for all of it.
    pub truncated: bool,
}

/// Why a record was not understood.
#[derive(Debug, Clone, Copy, Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Shorter than its header.
    #[error("a record of {0} bytes is shorter than its header")]
    Short(usize),
    /// Written by another version of the kernel side.
    #[error("a record of layout version {0}, this daemon reads {VERSION}")]
    Version(u16),
    /// Not one of ours.
    #[error("a record of unknown kind {0}")]
    Kind(u16),
    /// Its length does not fit its kind.
    #[error("a record of kind {kind} has {len} bytes")]
    Length {
        /// Kind.
        kind: u16,
        /// Length.
        len: usize,
    },
    /// A field holds what it cannot.
    #[error("a record of kind {kind} has {value} as its {field}")]
    Field {
        /// Kind.
        kind: u16,
        /// Field.
        field: &'static str,
        /// Value.
        value: u32,
    },
}

/// Decodes one record.
///
/// # Errors
/// If the bytes are not a record of this version. The record is then to be counted and skipped.
pub fn decode(bytes: &[u8]) -> Result<Raw<'_>, DecodeError> {
    let (header, _) =
        Header::ref_from_prefix(bytes).map_err(|_| DecodeError::Short(bytes.len()))?;
    if header.version != VERSION {
        return Err(DecodeError::Version(header.version));
    }
    let kind = header.kind;
    match kind {
        k if k == Kind::Mark as u16 => Ok(Raw::Mark(boxed(kind, bytes)?)),
        k if k == Kind::LastWords as u16 => Ok(Raw::LastWords(boxed(kind, bytes)?)),
        k if k == Kind::Exit as u16 => Ok(Raw::Exit(boxed(kind, bytes)?)),
        k if k == Kind::SmallChunk as u16 => {
            let c: &SmallChunk = view(kind, bytes)?;
            chunk(kind, c.tgid, c.start_ns, c.text, c.offset, c.len, &c.data).map(Raw::Chunk)
        }
        k if k == Kind::LargeChunk as u16 => {
            let c: &LargeChunk = view(kind, bytes)?;
            chunk(kind, c.tgid, c.start_ns, c.text, c.offset, c.len, &c.data).map(Raw::Chunk)
        }
        k if k == Kind::CgroupMade as u16 => path(kind, bytes).map(Raw::CgroupMade),
        k if k == Kind::CgroupRenamed as u16 => path(kind, bytes).map(Raw::CgroupRenamed),
        k if k == Kind::CountedAgain as u16 => boxed(kind, bytes).map(Raw::CountedAgain),
        k if k == Kind::CgroupGone as u16 => {
            let gone: &CgroupGone = view(kind, bytes)?;
            Ok(Raw::CgroupGone(
                CgroupId { hierarchy: gone.hierarchy, id: gone.id },
                gone.header.ktime_ns,
            ))
        }
        other => Err(DecodeError::Kind(other)),
    }
}

fn view<T>(kind: u16, bytes: &[u8]) -> Result<&T, DecodeError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable,
{
    T::ref_from_bytes(bytes).map_err(|_| DecodeError::Length { kind, len: bytes.len() })
}

fn boxed<T>(kind: u16, bytes: &[u8]) -> Result<Box<T>, DecodeError>
where
    T: FromBytes + zerocopy::KnownLayout + zerocopy::Immutable + Copy,
{
    view::<T>(kind, bytes).map(|record| Box::new(*record))
}

fn chunk(
    kind: u16,
    tgid: u32,
    start_ns: u64,
    text: u32,
    offset: u32,
    len: u32,
    data: &[u8],
) -> Result<ChunkRef<'_>, DecodeError> {
    let text = match text {
        t if t == Text::Args as u32 => Text::Args,
        t if t == Text::Env as u32 => Text::Env,
        value => return Err(DecodeError::Field { kind, field: "text", value }),
    };
    let bytes =
        data.get(..len as usize).ok_or(DecodeError::Field { kind, field: "len", value: len })?;
    Ok(ChunkRef { tgid, start_ns, text, offset, bytes })
}

fn path(kind: u16, bytes: &[u8]) -> Result<CgroupPathRef<'_>, DecodeError> {
    let record: &CgroupPath = view(kind, bytes)?;
    let len = record.len as usize;
    let path = record.path.get(..len).ok_or(DecodeError::Field {
        kind,
        field: "len",
        value: record.len,
    })?;
    Ok(CgroupPathRef {
        id: CgroupId { hierarchy: record.hierarchy, id: record.id },
        path,
        // The kernel's own buffer for the path has the same length and a zero at its end.
        truncated: len + 1 >= record.path.len(),
    })
}

#[cfg(test)]
mod tests {
    use killwatch_ebpf::wire::{PATH_LEN, SMALL_CHUNK};
    use proptest::prelude::*;
    use zerocopy::{FromZeros as _, IntoBytes as _};

    use super::*;

    fn header(kind: Kind, len: usize) -> Header {
        Header {
            kind: kind as u16,
            version: VERSION,
            len: u32::try_from(len).unwrap(),
            ktime_ns: 5,
        }
    }

    #[test]
    fn decodes_each_kind() {
        let mut exit = Exit::new_zeroed();
        exit.header = header(Kind::Exit, size_of::<Exit>());
        exit.status = 9;
        assert_eq!(decode(exit.as_bytes()), Ok(Raw::Exit(Box::new(exit))));

        let mut mark = Mark::new_zeroed();
        mark.header = header(Kind::Mark, size_of::<Mark>());
        assert_eq!(decode(mark.as_bytes()), Ok(Raw::Mark(Box::new(mark))));

        let mut made = CgroupPath::new_zeroed();
        made.header = header(Kind::CgroupMade, size_of::<CgroupPath>());
        (made.id, made.hierarchy, made.len) = (7, 4, 2);
        made.path[..2].copy_from_slice(b"/a");
        let expected =
            CgroupPathRef { id: CgroupId { hierarchy: 4, id: 7 }, path: b"/a", truncated: false };
        assert_eq!(decode(made.as_bytes()), Ok(Raw::CgroupMade(expected)));
        made.len = u32::try_from(PATH_LEN).unwrap() - 1;
        assert!(matches!(decode(made.as_bytes()), Ok(Raw::CgroupMade(path)) if path.truncated));

        let mut small = SmallChunk::new_zeroed();
        small.header = header(Kind::SmallChunk, size_of::<SmallChunk>());
        (small.text, small.len) = (Text::Env as u32, 3);
        small.data[..3].copy_from_slice(b"A=b");
        assert!(matches!(decode(small.as_bytes()), Ok(Raw::Chunk(chunk)) if chunk.bytes == b"A=b"));
        small.len = u32::try_from(SMALL_CHUNK).unwrap() + 1;
        let error = DecodeError::Field { kind: 3, field: "len", value: small.len };
        assert_eq!(decode(small.as_bytes()), Err(error));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        assert_eq!(decode(&[1, 2]), Err(DecodeError::Short(2)));
        let mut exit = Exit::new_zeroed();
        exit.header = header(Kind::Exit, 0);
        exit.header.version = VERSION + 1;
        assert_eq!(decode(exit.as_bytes()), Err(DecodeError::Version(VERSION + 1)));
        exit.header.version = VERSION;
        exit.header.kind = 99;
        assert_eq!(decode(exit.as_bytes()), Err(DecodeError::Kind(99)));
        exit.header.kind = Kind::Mark as u16;
        assert!(matches!(decode(exit.as_bytes()), Err(DecodeError::Length { .. })));
    }

    proptest! {
        #[test]
        fn survives_any_bytes(kind in 0_u16..12, mut bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
            if bytes.len() >= 4 {
                bytes[..2].copy_from_slice(&kind.to_ne_bytes());
                bytes[2..4].copy_from_slice(&VERSION.to_ne_bytes());
            }
            // The ring hands out aligned memory; copies on the heap are aligned to 8 as well or refused.
            let _ = decode(&bytes);
        }
    }
}
