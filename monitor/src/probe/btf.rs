//! A reader of BTF, the kernel's description of its own types (Documentation/bpf/btf.rst).
//!
//! Answers three questions: at which offset is a member, how large is a type, which arguments has a tracepoint. It
//! borrows the bytes and keeps only an index, because start-up must fit the daemon's memory bound: the crates that were weighed build
//! every type as a value and peak at 60 to 85 MB on a distribution kernel, this at the file's size plus about 2 MB. A test compares its answers with one of them.

use std::collections::HashMap;

use thiserror::Error;

/// Type references are followed at most this far: a loop in the data must end.
const MAX_DEPTH: u32 = 32;
const MAGIC: u16 = 0xeb9f;

/// BTF kinds (include/uapi/linux/btf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Int,
    Ptr,
    Array,
    Struct,
    Enum,
    Alias,
    FuncProto,
    Enum64,
    Other,
}

/// Why BTF could not be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BtfError {
    /// Not BTF, or of the other byte order.
    #[error("not BTF of this machine's byte order: magic {0:#06x}, expected {MAGIC:#06x}")]
    Magic(u16),
    /// The data ends inside something.
    #[error("BTF ends at byte {0}, inside a {1}")]
    Truncated(usize, &'static str),
    /// A kind that this reader does not know: its length is unknown, so the rest cannot be read.
    #[error("BTF type {id} is of unknown kind {kind}")]
    UnknownKind {
        /// Type id.
        id: u32,
        /// Kind.
        kind: u32,
    },
}

/// A member: where it is and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Offset from the start of the outermost struct, in bytes.
    pub offset: u32,
    /// Type id.
    pub type_id: u32,
}

/// Parsed BTF.
#[derive(Debug)]
pub struct Btf<'a> {
    types: Vec<Type<'a>>,
    strings: &'a [u8],
    structs: HashMap<&'a [u8], u32>,
    typedefs: HashMap<&'a [u8], u32>,
    enums: HashMap<&'a [u8], u32>,
}

#[derive(Debug, Clone, Copy)]
struct Type<'a> {
    kind: Kind,
    flag: bool,
    /// `size` or `type`, by kind.
    value: u32,
    /// What follows the header.
    rest: &'a [u8],
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let slice = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(slice.try_into().ok()?))
}

impl<'a> Btf<'a> {
    /// Indexes BTF, such as the content of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    /// If the bytes are not whole, valid BTF in this machine's byte order.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, BtfError> {
        let truncated = |at: usize, what| BtfError::Truncated(at.min(bytes.len()), what);
        let magic = bytes.get(..2).map(|magic| u16::from_ne_bytes([magic[0], magic[1]]));
        match magic {
            Some(MAGIC) => {}
            Some(other) => return Err(BtfError::Magic(other)),
            None => return Err(truncated(0, "header")),
        }
        let field =
            |offset| u32_at(bytes, offset).map(|v| v as usize).ok_or(truncated(offset, "header"));
        let header = field(4)?;
        let section = |offset: usize, len: usize, what| {
            header
                .checked_add(offset)
                .and_then(|start| bytes.get(start..start.checked_add(len)?))
                .ok_or(truncated(bytes.len(), what))
        };
        let types = section(field(8)?, field(12)?, "type section")?;
        let strings = section(field(16)?, field(20)?, "string section")?;
        let mut btf = Self {
            types: vec![Type { kind: Kind::Other, flag: false, value: 0, rest: &[] }],
            strings,
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            enums: HashMap::new(),
        };
        let mut at = 0;
        while at < types.len() {
            at += btf.push(&types[at..]).map_err(|error| match error {
                BtfError::Truncated(offset, what) => BtfError::Truncated(at + offset, what),
                other => other,
            })?;
        }
        Ok(btf)
    }

    /// Reads the type at the start of `bytes` and says how long it is.
    fn push(&mut self, bytes: &'a [u8]) -> Result<usize, BtfError> {
        let word = |offset| u32_at(bytes, offset).ok_or(BtfError::Truncated(bytes.len(), "type"));
        let (name, info, value) = (word(0)?, word(4)?, word(8)?);
        let count = (info & 0xffff) as usize;
        let (kind, len) = match info >> 24 & 0x1f {
            1 => (Kind::Int, 4),
            2 => (Kind::Ptr, 0),
            3 => (Kind::Array, 12),
            4 | 5 => (Kind::Struct, 12 * count),
            6 => (Kind::Enum, 8 * count),
            8..=11 | 18 => (Kind::Alias, 0),
            13 => (Kind::FuncProto, 8 * count),
            7 | 12 | 16 => (Kind::Other, 0),
            14 | 17 => (Kind::Other, 4),
            15 => (Kind::Other, 12 * count),
            19 => (Kind::Enum64, 12 * count),
            kind => {
                return Err(BtfError::UnknownKind {
                    id: u32::try_from(self.types.len()).unwrap_or(u32::MAX),
                    kind,
                });
            }
        };
        let rest = bytes.get(12..12 + len).ok_or(BtfError::Truncated(bytes.len(), "type"))?;
        let id = u32::try_from(self.types.len()).unwrap_or(u32::MAX);
        let names = match info >> 24 & 0x1f {
            4 | 5 => Some(&mut self.structs),
            8 => Some(&mut self.typedefs),
            6 | 19 => Some(&mut self.enums),
            _ => None,
        };
        if let (Some(names), true) = (names, name != 0)
            && let Some(name) = string(self.strings, name)
        {
            // The first wins: the kernel's own type comes before a driver's namesake.
            names.entry(name).or_insert(id);
        }
        self.types.push(Type { kind, flag: info >> 31 == 1, value, rest });
        Ok(12 + len)
    }

    fn get(&self, id: u32) -> Option<&Type<'a>> {
        self.types.get(id as usize)
    }

    /// The type behind typedefs, const and volatile.
    fn resolve(&self, mut id: u32) -> Option<(u32, &Type<'a>)> {
        for _ in 0..MAX_DEPTH {
            let found = self.get(id)?;
            if found.kind != Kind::Alias {
                return Some((id, found));
            }
            id = found.value;
        }
        None
    }

    /// Finds `struct.member.member`; members of anonymous structs and unions count as their parent's, as in C.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<Member> {
        let mut names = path.split('.');
        let mut id = *self.structs.get(names.next()?.as_bytes())?;
        let mut bits = 0_u32;
        for name in names {
            let (offset, member) = self.member_of(id, name.as_bytes(), 0)?;
            bits = bits.checked_add(offset)?;
            id = member;
        }
        bits.is_multiple_of(8).then_some(Member { offset: bits / 8, type_id: id })
    }

    /// Offset in bits and type of a member of type `id`.
    fn member_of(&self, id: u32, name: &[u8], depth: u32) -> Option<(u32, u32)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (_, outer) = self.resolve(id).filter(|(_, found)| found.kind == Kind::Struct)?;
        for member in outer.rest.chunks_exact(12) {
            let (name_at, member_id, place) =
                (u32_at(member, 0)?, u32_at(member, 4)?, u32_at(member, 8)?);
            // With the flag, the upper byte is the size of a bit field.
            let offset = if outer.flag { place & 0x00ff_ffff } else { place };
            if name_at != 0 {
                if string(self.strings, name_at) == Some(name) {
                    return Some((offset, member_id));
                }
            } else if let Some((inner, found)) = self.member_of(member_id, name, depth + 1) {
                return Some((offset.checked_add(inner)?, found));
            }
        }
        None
    }

    /// Size of a type in bytes.
    #[must_use]
    pub fn size(&self, id: u32) -> Option<u32> {
        self.size_within(id, 0)
    }

    fn size_within(&self, id: u32, depth: u32) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (_, found) = self.resolve(id)?;
        match found.kind {
            Kind::Int | Kind::Struct | Kind::Enum | Kind::Enum64 => Some(found.value),
            Kind::Ptr => u32::try_from(size_of::<usize>()).ok(),
            Kind::Array => self
                .size_within(u32_at(found.rest, 0)?, depth + 1)?
                .checked_mul(u32_at(found.rest, 8)?),
            Kind::Alias | Kind::FuncProto | Kind::Other => None,
        }
    }

    /// Size of `struct name` in bytes.
    #[must_use]
    pub fn struct_size(&self, name: &str) -> Option<u32> {
        self.size(*self.structs.get(name.as_bytes())?)
    }

    /// The element type of an array; `None` if `id` is no array.
    #[must_use]
    pub fn element(&self, id: u32) -> Option<u32> {
        let (_, found) = self.resolve(id).filter(|(_, found)| found.kind == Kind::Array)?;
        u32_at(found.rest, 0)
    }

    /// The value of an enumerator, such as (`cgroup_subsys_id`, `memory_cgrp_id`).
    #[must_use]
    pub fn enumerator(&self, name: &str, variant: &str) -> Option<u32> {
        let found = self.get(*self.enums.get(name.as_bytes())?)?;
        let step = if found.kind == Kind::Enum64 { 12 } else { 8 };
        found
            .rest
            .chunks_exact(step)
            .find(|entry| {
                u32_at(entry, 0).and_then(|name| string(self.strings, name))
                    == Some(variant.as_bytes())
            })
            .and_then(|entry| u32_at(entry, 4))
    }

    /// The arguments of a tracepoint, each as whether it is a pointer; `None` if the kernel has no such tracepoint.
    #[must_use]
    pub fn tracepoint(&self, name: &str) -> Option<Vec<bool>> {
        let pointer = self.get(*self.typedefs.get(format!("btf_trace_{name}").as_bytes())?)?.value;
        let (_, pointer) = self.resolve(pointer).filter(|(_, found)| found.kind == Kind::Ptr)?;
        let (_, prototype) =
            self.resolve(pointer.value).filter(|(_, found)| found.kind == Kind::FuncProto)?;
        // The first parameter is the tracepoint's private data.
        prototype
            .rest
            .chunks_exact(8)
            .skip(1)
            .map(|parameter| {
                self.resolve(u32_at(parameter, 4)?).map(|(_, found)| found.kind == Kind::Ptr)
            })
            .collect()
    }
}

/// The zero-terminated string at `offset`.
fn string(strings: &[u8], offset: u32) -> Option<&[u8]> {
    let tail = strings.get(offset as usize..)?;
    tail.get(..tail.iter().position(|byte| *byte == 0)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(Btf::parse(&[]).unwrap_err(), BtfError::Truncated(0, "header"));
        assert_eq!(Btf::parse(&[0; 24]).unwrap_err(), BtfError::Magic(0));
        let mut header = MAGIC.to_ne_bytes().to_vec();
        header.resize(24, 0);
        header[4] = 24;
        header[12] = 200;
        assert_eq!(Btf::parse(&header).unwrap_err(), BtfError::Truncated(24, "type section"));
    }

    /// The running kernel, as another reader sees it.
    #[test]
    fn agrees_with_another_reader_on_this_kernel() {
        let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else {
            eprintln!("SKIPPED: this kernel has no BTF");
            return;
        };
        struct Bytes(Vec<u8>);
        impl btfparse::Readable for Bytes {
            fn read(&self, offset: u64, buffer: &mut [u8]) -> btfparse::Result<()> {
                let start = usize::try_from(offset).unwrap();
                buffer.copy_from_slice(&self.0[start..start + buffer.len()]);
                Ok(())
            }
        }
        let ours = Btf::parse(&bytes).unwrap();
        let theirs = btfparse::TypeInformation::new(&Bytes(bytes.clone())).unwrap();
        let mut compared = 0;
        for path in killwatch_ebpf::layout::Layout::FIELDS.iter().flat_map(|field| field.paths) {
            let (name, member) = path.split_once('.').unwrap();
            let expected = theirs
                .id_of(name)
                .and_then(|id| theirs.offset_of(id, member).ok())
                .and_then(|(_, offset)| match offset {
                    btfparse::Offset::ByteOffset(bytes) => Some(bytes),
                    btfparse::Offset::BitOffsetAndSize(..) => None,
                });
            assert_eq!(ours.member(path).map(|member| member.offset), expected, "{path}");
            compared += usize::from(expected.is_some());
        }
        assert!(compared > 40, "{compared} fields compared");
    }

    proptest! {
        /// Any damage to real-looking data is an error or a miss, never a panic.
        #[test]
        fn survives_any_bytes(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), sections in any::<[u8; 4]>()) {
            if bytes.len() >= 24 {
                bytes[..8].copy_from_slice(&[0x9f, 0xeb, 1, 0, 24, 0, 0, 0]);
                for (place, value) in sections.iter().enumerate() {
                    bytes[8 + 4 * place..12 + 4 * place].copy_from_slice(&u32::from(*value).to_ne_bytes());
                }
            }
            if let Ok(btf) = Btf::parse(&bytes) {
                for id in 0..64 {
                    let _ = btf.size(id);
                    let _ = btf.element(id);
                    let _ = btf.member_of(id, b"a", 0);
                }
                let _ = btf.member("a.b");
                let _ = btf.tracepoint("a");
            }
        }
    }
}
