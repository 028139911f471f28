//! A reader of BTF, the kernel's description of its own types (Documentation/bpf/btf.rst).
//!
//! Answers three questions: at which offset is a member, how large is a type, which arguments has a tracepoint. It
//! borrows the bytes and keeps only an index, because start-up must fit the daemon's memory bound: the crates that were weighed build
//! every type as a value and peak at 60 to 85 MB on a distribution kernel, this at the file's size plus about 2 MB: of a type it keeps where it is. A test compares its answers with one of them.

use std::collections::HashMap;
use std::iter;

use thiserror::Error;

/// Type references are followed at most this far: a loop in the data must end.
const MAX_DEPTH: u32 = 32;
/// Bytes of a type, about: a distribution kernel's are 26.
const MEAN_TYPE: usize = 24;
const MAGIC: u16 = 0xeb9f;

/// Numbers of kinds that are asked for by themselves.
const FORWARD: u32 = 7;
const TYPEDEF: u32 = 8;
const FUNCTION: u32 = 12;

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
    section: &'a [u8],
    /// Where in the section each type begins, from number 1 on.
    types: Vec<u32>,
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

/// What every type begins with.
struct Head {
    kind: Kind,
    /// The kind as the kernel numbers it.
    number: u32,
    name: u32,
    flag: bool,
    value: u32,
    /// Bytes of the whole type.
    len: usize,
}

impl Head {
    /// That of the type at the start of `bytes`, whose number is `id`.
    fn read(bytes: &[u8], id: u32) -> Result<Self, BtfError> {
        let word = |offset| u32_at(bytes, offset).ok_or(BtfError::Truncated(bytes.len(), "type"));
        let (name, info, value) = (word(0)?, word(4)?, word(8)?);
        let count = (info & 0xffff) as usize;
        let number = info >> 24 & 0x1f;
        let (kind, more) = match number {
            1 => (Kind::Int, 4),
            2 => (Kind::Ptr, 0),
            3 => (Kind::Array, 12),
            4 | 5 => (Kind::Struct, 12 * count),
            6 => (Kind::Enum, 8 * count),
            TYPEDEF..=11 | 18 => (Kind::Alias, 0),
            13 => (Kind::FuncProto, 8 * count),
            FORWARD | FUNCTION | 16 => (Kind::Other, 0),
            14 | 17 => (Kind::Other, 4),
            15 => (Kind::Other, 12 * count),
            19 => (Kind::Enum64, 12 * count),
            kind => {
                return Err(BtfError::UnknownKind { id, kind });
            }
        };
        Ok(Self { kind, number, name, flag: info >> 31 == 1, value, len: 12 + more })
    }
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
            section: types,
            types: Vec::with_capacity(types.len() / MEAN_TYPE),
            strings,
            structs: HashMap::new(),
            typedefs: HashMap::new(),
            enums: HashMap::new(),
        };
        let mut at = 0;
        while let Some(bytes) = types.get(at..).filter(|bytes| !bytes.is_empty()) {
            at += btf.push(at, bytes).map_err(|error| match error {
                BtfError::Truncated(offset, what) => BtfError::Truncated(at + offset, what),
                other => other,
            })?;
        }
        Ok(btf)
    }

    /// Notes the type at the start of `bytes`, which is `at` in the section, and says how long it is.
    fn push(&mut self, at: usize, bytes: &'a [u8]) -> Result<usize, BtfError> {
        let id = u32::try_from(self.types.len() + 1).unwrap_or(u32::MAX);
        let head = Head::read(bytes, id)?;
        if bytes.len() < head.len {
            return Err(BtfError::Truncated(bytes.len(), "type"));
        }
        let names = match head.number {
            4 | 5 => Some(&mut self.structs),
            TYPEDEF => Some(&mut self.typedefs),
            6 | 19 => Some(&mut self.enums),
            _ => None,
        };
        if let (Some(names), true) = (names, head.name != 0)
            && let Some(name) = string(self.strings, head.name)
        {
            // The first wins: the kernel's own type comes before a driver's namesake.
            names.entry(name).or_insert(id);
        }
        // A section's length is a u32 itself.
        self.types.push(u32::try_from(at).unwrap_or(u32::MAX));
        Ok(head.len)
    }

    /// BTF in which of all types only functions and typedefs of these names are left, each under its number; in place of the others stands one that takes little
    /// room. Who wants their numbers alone need not read the rest.
    #[must_use]
    pub fn only(&self, wanted: &[&str]) -> Vec<u8> {
        let (mut types, mut strings) = (Vec::new(), vec![0_u8]);
        let mut others = 0;
        for head in (1..=self.types.len()).filter_map(|id| self.head(u32::try_from(id).ok()?)) {
            let known = |name: &&[u8]| wanted.iter().any(|wanted| wanted.as_bytes() == *name);
            let name = string(self.strings, head.name).filter(known);
            let Some(name) = name.filter(|_| matches!(head.number, TYPEDEF | FUNCTION)) else {
                others += 1;
                continue;
            };
            types.extend(iter::repeat_n([0, FORWARD << 24, 0], others).flatten());
            let place = u32::try_from(strings.len()).unwrap_or_default();
            types.extend([place, head.number << 24, head.value]);
            strings.extend(name);
            strings.push(0);
            others = 0;
        }
        let len = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let (type_len, string_len) = (len(4 * types.len()), len(strings.len()));
        let version_and_flags = [MAGIC.to_ne_bytes(), [1, 0]].concat();
        let words = [24, 0, type_len, type_len, string_len].into_iter().chain(types);
        version_and_flags
            .into_iter()
            .chain(words.flat_map(u32::to_ne_bytes))
            .chain(strings)
            .collect()
    }

    fn bytes(&self, id: u32) -> Option<&'a [u8]> {
        let at = *self.types.get(id.checked_sub(1)? as usize)?;
        self.section.get(at as usize..)
    }

    fn head(&self, id: u32) -> Option<Head> {
        Head::read(self.bytes(id)?, id).ok()
    }

    fn get(&self, id: u32) -> Option<Type<'a>> {
        let head = self.head(id)?;
        let rest = self.bytes(id)?.get(12..head.len)?;
        Some(Type { kind: head.kind, flag: head.flag, value: head.value, rest })
    }

    /// The type behind typedefs, const and volatile.
    fn resolve(&self, mut id: u32) -> Option<(u32, Type<'a>)> {
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
mod tests;
