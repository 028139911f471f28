//! The name of a set says what is in it, and what the next daemon does with it. Pure.
//!
//! `set-v3-5f0c…-0199…`: the version of the records on its ring, what was loaded, and which set this is. The form is for good: every version must
//! be able to read the names of every other.

use std::fmt;

use killwatch_ebpf::wire::VERSION;
use uuid::Uuid;

/// Begins the name of a set that is whole.
const WHOLE: &str = "set-";
/// Begins the name of one that is being made.
const UNFINISHED: &str = "new-";

/// What is in a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetName {
    /// Version of the records on its ring.
    pub version: u16,
    /// [`Identity::object`] of who made it.
    pub object: u64,
    /// Tells it from all others, of this host and of its earlier boots.
    pub id: Uuid,
}

/// What a name in the directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// A whole set.
    Set(SetName),
    /// One that is being made, or was left half-made.
    Unfinished,
    /// Nothing of ours.
    Stranger,
}

/// What a daemon would load, and so what it can go on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Version of the records that it reads.
    pub version: u16,
    /// Stands for the object and all that it is told at load.
    pub object: u64,
    /// Whether it can go on with what another has loaded.
    pub may_take_over: bool,
}

/// What becomes of a set that an earlier daemon left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// It is as this daemon would make it: go on with it.
    TakeOver,
    /// Other programs, whose records are understood: read its ring to the end when the new ones are at work, and detach it.
    Replace,
    /// Records of another version: count them, and detach it.
    Abandon,
}

impl Identity {
    /// Of an object and what it is told at load. `may_take_over` is false where something goes with the daemon that loaded it.
    #[must_use]
    pub fn of(parts: &[&[u8]], may_take_over: bool) -> Self {
        Self { version: VERSION, object: fingerprint(parts), may_take_over }
    }

    /// What becomes of `found`.
    #[must_use]
    pub fn plan(&self, found: &SetName) -> Plan {
        if found.version != self.version {
            Plan::Abandon
        } else if found.object == self.object && self.may_take_over {
            Plan::TakeOver
        } else {
            Plan::Replace
        }
    }

    /// The name of a new set of this kind.
    #[must_use]
    pub fn name(&self) -> SetName {
        SetName { version: self.version, object: self.object, id: Uuid::now_v7() }
    }
}

impl SetName {
    /// Its name while it is made.
    #[must_use]
    pub fn unfinished(&self) -> String {
        format!("{UNFINISHED}{}", self.id.simple())
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{WHOLE}v{}-{:016x}-{}", self.version, self.object, self.id.simple())
    }
}

impl Named {
    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Self {
        if name.starts_with(UNFINISHED) {
            return Self::Unfinished;
        }
        let set = || {
            let mut parts = name.strip_prefix(WHOLE)?.strip_prefix('v')?.split('-');
            let (version, object, id) = (parts.next()?, parts.next()?, parts.next()?);
            let set = SetName {
                version: version.parse().ok()?,
                object: u64::from_str_radix(object, 16).ok()?,
                id: Uuid::try_parse(id).ok()?,
            };
            // One name for one set: no sign, no zero too many, no capitals.
            (set.to_string() == name).then_some(set)
        };
        set().map_or(Self::Stranger, Self::Set)
    }
}

/// FNV-1a over all parts and their lengths. Nobody but root can write here, so it need not withstand an attack; it must be the same for ever.
fn fingerprint(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut feed = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for part in parts {
        feed(&(part.len() as u64).to_le_bytes());
        feed(part);
    }
    hash
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(version: u16, object: u64) -> SetName {
        SetName { version, object, id: Uuid::from_u128(7) }
    }

    #[test]
    fn a_name_is_for_good() {
        let name = "set-v3-00000000000000ff-00000000000000000000000000000007";
        assert_eq!(set(3, 255).to_string(), name);
        assert_eq!(Named::parse(name), Named::Set(set(3, 255)));
        assert_eq!(Named::parse(&set(3, 255).unfinished()), Named::Unfinished);
        for stranger in [
            "",
            "set-",
            "set-v3",
            "killwatch",
            "set-v+3-00000000000000ff-00000000000000000000000000000007",
            "set-v3-ff-00000000000000000000000000000007",
            "set-v3-00000000000000FF-00000000000000000000000000000007",
            "set-v70000-00000000000000ff-00000000000000000000000000000007",
            "set-v3-00000000000000ff-00000000000000000000000000000007-",
            "set-v3-00000000000000ff-00000000-0000-0000-0000-000000000007",
        ] {
            assert_eq!(Named::parse(stranger), Named::Stranger, "{stranger}");
        }
    }

    #[test]
    fn what_becomes_of_a_set() {
        let own = Identity { version: 3, object: 9, may_take_over: true };
        assert_eq!(own.plan(&set(3, 9)), Plan::TakeOver);
        assert_eq!(own.plan(&set(3, 8)), Plan::Replace);
        assert_eq!(own.plan(&set(2, 9)), Plan::Abandon);
        assert_eq!(own.plan(&set(4, 8)), Plan::Abandon);
        let log = Identity { may_take_over: false, ..own };
        assert_eq!(log.plan(&set(3, 9)), Plan::Replace);
        assert_eq!(log.plan(&set(4, 9)), Plan::Abandon);
    }

    #[test]
    fn whatever_is_loaded_differently_is_another() {
        let of = |parts: &[&[u8]]| Identity::of(parts, true).object;
        assert_eq!(of(&[b"object", b"config"]), of(&[b"object", b"config"]));
        assert_ne!(of(&[b"object", b"config"]), of(&[b"objectc", b"onfig"]));
        assert_ne!(of(&[b"object", b"config"]), of(&[b"object", b"confih"]));
        // The number itself must not change from build to build.
        assert_eq!(of(&[]), 0xcbf2_9ce4_8422_2325);
        assert_eq!(of(&[b"a"]), 0x529a_4ddc_8ff5_6bbf);
    }

    proptest! {
        #[test]
        fn any_name_is_read(name in "\\PC{0,80}") {
            if let Named::Set(set) = Named::parse(&name) {
                prop_assert_eq!(set.to_string(), name);
            }
        }

        #[test]
        fn what_is_written_is_read(version: u16, object: u64, id: u128) {
            let set = SetName { version, object, id: Uuid::from_u128(id) };
            prop_assert_eq!(Named::parse(&set.to_string()), Named::Set(set));
        }
    }
}
