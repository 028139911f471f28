//! Values with bounds. Each reads itself from text, the same for flags, environment and file, and says what is allowed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Serialize, Serializer};

/// What is allowed, where something else was given: "must be …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Refused {
    /// `allowed` completes "this value …", such as `must be 1 to 10`.
    pub fn new(allowed: impl Into<String>) -> Self {
        Self(allowed.into())
    }

    /// The same with the value, for a file, whose reader does not say it.
    #[must_use]
    pub fn with_value(self, value: &str) -> Self {
        let short: String = value.chars().take(100).collect();
        Self(format!("{short:?} is not allowed: {}", self.0))
    }
}

/// Lets serde read types through their `FromStr`, so that a value has one syntax everywhere.
macro_rules! through_from_str {
    ($($name:ty),+) => {$(
        impl TryFrom<String> for $name {
            type Error = $crate::config::Refused;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse().map_err(|refused: $crate::config::Refused| refused.with_value(&text))
            }
        }
    )+};
}
pub(crate) use through_from_str;

/// A whole number from `MIN` to `MAX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Count<const MIN: usize, const DEFAULT: usize, const MAX: usize>(usize);

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> Count<MIN, DEFAULT, MAX> {
    /// The number.
    #[must_use]
    pub const fn get(self) -> usize {
        self.0
    }

    fn checked(number: Option<usize>) -> Result<Self, Refused> {
        number.filter(|n| (MIN..=MAX).contains(n)).map(Self).ok_or_else(|| {
            Refused::new(format!(
                "must be a whole number from {MIN} to {MAX}; there is no value for \"unlimited\""
            ))
        })
    }
}

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> Default
    for Count<MIN, DEFAULT, MAX>
{
    fn default() -> Self {
        const { assert!(MIN <= DEFAULT && DEFAULT <= MAX, "the default must be allowed") };
        Self(DEFAULT)
    }
}

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> FromStr
    for Count<MIN, DEFAULT, MAX>
{
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        Self::checked(digits(text).and_then(|n| usize::try_from(n).ok()))
    }
}

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> TryFrom<String>
    for Count<MIN, DEFAULT, MAX>
{
    type Error = Refused;

    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse().map_err(|refused: Refused| refused.with_value(&text))
    }
}

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> TryFrom<usize>
    for Count<MIN, DEFAULT, MAX>
{
    type Error = Refused;

    fn try_from(number: usize) -> Result<Self, Refused> {
        Self::checked(Some(number))
    }
}

impl<const MIN: usize, const DEFAULT: usize, const MAX: usize> Serialize
    for Count<MIN, DEFAULT, MAX>
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0 as u64)
    }
}

/// A number of bytes from `MIN` to `MAX`, written as `67108864` or `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Size<const MIN: u64, const DEFAULT: u64, const MAX: u64>(u64);

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Size<MIN, DEFAULT, MAX> {
    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Default for Size<MIN, DEFAULT, MAX> {
    fn default() -> Self {
        const { assert!(MIN <= DEFAULT && DEFAULT <= MAX, "the default must be allowed") };
        Self(DEFAULT)
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> FromStr for Size<MIN, DEFAULT, MAX> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        size(text).filter(|n| (MIN..=MAX).contains(n)).map(Self).ok_or_else(|| {
            Refused::new(format!(
                "must be a number of bytes from {MIN} to {MAX}, such as {DEFAULT} or 64MiB; there is no value for \"unlimited\""
            ))
        })
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> TryFrom<String>
    for Size<MIN, DEFAULT, MAX>
{
    type Error = Refused;

    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse().map_err(|refused: Refused| refused.with_value(&text))
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Serialize for Size<MIN, DEFAULT, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

/// Size of the kernel's ring: a power of two from 64 KiB to 64 MiB, which is a multiple of every page size that Linux has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "u32")]
pub struct RingBytes(u32);

impl RingBytes {
    /// Bytes.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for RingBytes {
    /// Each of its pages counts twice in what the daemon holds resident; what it is emptied into holds four times as much.
    fn default() -> Self {
        Self(2 << 20)
    }
}

impl From<RingBytes> for u32 {
    fn from(bytes: RingBytes) -> Self {
        bytes.0
    }
}

impl FromStr for RingBytes {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let bytes = size(text).and_then(|n| u32::try_from(n).ok());
        let allowed = |n: &u32| n.is_power_of_two() && (64 << 10..=64 << 20).contains(n);
        bytes.filter(allowed).map(Self).ok_or_else(|| {
            Refused::new("must be a power of two from 64KiB to 64MiB, such as 2MiB or 2097152 (the kernel's ring can have no other size)")
        })
    }
}

/// A time span from `MIN` to `MAX` milliseconds, written as `5s`, `500ms` or `1h 30m`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Period<const MIN: u64, const DEFAULT: u64, const MAX: u64>(Duration);

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Period<MIN, DEFAULT, MAX> {
    /// The time span.
    #[must_use]
    pub const fn get(self) -> Duration {
        self.0
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Default for Period<MIN, DEFAULT, MAX> {
    fn default() -> Self {
        const { assert!(MIN <= DEFAULT && DEFAULT <= MAX, "the default must be allowed") };
        Self(Duration::from_millis(DEFAULT))
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> FromStr for Period<MIN, DEFAULT, MAX> {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let range = Duration::from_millis(MIN)..=Duration::from_millis(MAX);
        let period =
            text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok());
        period.filter(|p| range.contains(p)).map(Self).ok_or_else(|| {
            Refused::new(format!(
                "must be a time span with its unit from {} to {}, such as 5s or 500ms",
                span(MIN),
                span(MAX)
            ))
        })
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> TryFrom<String>
    for Period<MIN, DEFAULT, MAX>
{
    type Error = Refused;

    fn try_from(text: String) -> Result<Self, Refused> {
        text.parse().map_err(|refused: Refused| refused.with_value(&text))
    }
}

impl<const MIN: u64, const DEFAULT: u64, const MAX: u64> Serialize for Period<MIN, DEFAULT, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&span(u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A path from the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct AbsolutePath(PathBuf);

impl AbsolutePath {
    /// A path that is known to be absolute as the program is written.
    pub(crate) fn of_known(path: &'static str) -> Self {
        Self(PathBuf::from(path))
    }
}

impl std::ops::Deref for AbsolutePath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl FromStr for AbsolutePath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if text.starts_with('/') && !text.contains('\0') {
            return Ok(Self(PathBuf::from(text)));
        }
        Err(Refused::new("must be a path that begins with `/`"))
    }
}

through_from_str!(RingBytes, AbsolutePath);

impl fmt::Display for AbsolutePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Digits and nothing else: no sign, no blank, no `0x`.
fn digits(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Bytes from `4096`, `64KiB`, `4MiB` or `1GiB`. `KB` and `K` are refused: people mean 1000 and 1024 by them.
fn size(text: &str) -> Option<u64> {
    let units = [("KiB", 1u64 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .unwrap_or((text, 1));
    digits(number.trim_end_matches(' '))?.checked_mul(unit)
}

fn span(millis: u64) -> String {
    match millis {
        n if n > 0 && n.is_multiple_of(3_600_000) => format!("{}h", n / 3_600_000),
        n if n > 0 && n.is_multiple_of(60_000) => format!("{}m", n / 60_000),
        n if n > 0 && n.is_multiple_of(1_000) => format!("{}s", n / 1_000),
        n => format!("{n}ms"),
    }
}
