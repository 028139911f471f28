//! What a user may set of the socket.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use crate::config::{AbsolutePath, Refused, values};

/// Longest path of a Unix socket (unix(7): 108 bytes with a zero at the end).
const MAX_PATH: usize = 107;

/// The socket for workers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApiConfig {
    /// Unix socket where workers tag themselves and ask for deaths.
    pub socket: SocketPath,
    /// Permissions of the socket: who may connect.
    pub socket_mode: SocketMode,
    /// Group of the socket; the daemon's own unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub socket_group: Option<SocketGroup>,
}

/// Path of a Unix socket, or nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum SocketPath {
    /// There is none.
    None,
    /// Here.
    At(AbsolutePath),
}

impl Default for SocketPath {
    fn default() -> Self {
        Self::At(AbsolutePath::of_known("/run/killwatch/killwatch.sock"))
    }
}

impl FromStr for SocketPath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let path = || text.parse().ok().filter(|_| text.len() <= MAX_PATH && !text.ends_with('/'));
        match text {
            "none" => Ok(Self::None),
            _ => path().map(Self::At).ok_or_else(|| {
                Refused::new(format!(
                    "must be `none`, or the path of a socket that begins with `/`, at most {MAX_PATH} bytes"
                ))
            }),
        }
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::At(path) => path.fmt(f),
        }
    }
}

impl Serialize for SocketPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Permissions of the socket, in octal: to connect one needs to be allowed to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct SocketMode(u32);

impl SocketMode {
    /// The permissions.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o666)
    }
}

impl FromStr for SocketMode {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let octal = text.bytes().all(|b| (b'0'..=b'7').contains(&b));
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o777);
        mode.map(Self).ok_or_else(|| {
            Refused::new("must be permissions in octal from 0 to 0777, such as 0660")
        })
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0{:03o}", self.0)
    }
}

impl Serialize for SocketMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A group: its name in `/etc/group`, or its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct SocketGroup(String);

impl SocketGroup {
    /// Its number, by the text of `/etc/group` (group(5)) if it is a name.
    #[must_use]
    pub fn number(&self, groups: &str) -> Option<u32> {
        self.0.parse().ok().or_else(|| {
            groups.lines().find_map(|line| {
                let mut fields = line.split(':');
                (fields.next()? == self.0).then(|| fields.nth(1)?.parse().ok())?
            })
        })
    }
}

impl FromStr for SocketGroup {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        // The largest number means "none" to the kernel.
        let number_ok = || text.parse::<u64>().map_or(true, |n| n < u64::from(u32::MAX));
        if (1..=64).contains(&text.len()) && text.bytes().all(plain) && number_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(Refused::new("must be the name of a group, or its number"))
    }
}

impl fmt::Display for SocketGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

values::through_from_str!(SocketPath, SocketMode, SocketGroup);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_by_name_and_number() {
        let groups = "root:x:0:\nworkers:x:1007:a,b\nbroken\n:x:5:\nodd:x:\n";
        let number = |text: &str| text.parse::<SocketGroup>().unwrap().number(groups);
        assert_eq!(
            (number("root"), number("workers"), number("55")),
            (Some(0), Some(1007), Some(55))
        );
        assert_eq!((number("nobody"), number("odd"), number("broken")), (None, None, None));
        for bad in ["", "a:b", "a b", "4294967295", "99999999999"] {
            assert!(bad.parse::<SocketGroup>().is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        for (text, mode) in [("0660", 0o660), ("666", 0o666), ("0", 0), ("0777", 0o777)] {
            assert_eq!(text.parse::<SocketMode>().unwrap().get(), mode);
        }
        for bad in ["", "8", "+7", "1777", "0o660", "rw"] {
            assert!(bad.parse::<SocketMode>().is_err(), "{bad}");
        }
        assert_eq!(SocketMode::default().to_string(), "0666");
    }

    #[test]
    fn a_path_that_the_kernel_could_not_hold_is_refused() {
        let path = |len: usize| format!("/{}", "x".repeat(len - 1));
        assert!(path(MAX_PATH).parse::<SocketPath>().is_ok());
        for bad in [path(MAX_PATH + 1), "run.sock".into(), "/run/".into(), String::new()] {
            assert!(bad.parse::<SocketPath>().is_err(), "{bad}");
        }
    }
}
