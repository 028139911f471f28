//! What is accounted for, kept in a small file for the next start of the daemon in the same boot.
//!
//! One file of JSON, replaced as a whole: written beside, synced, renamed, the directory synced. The directory is locked while a daemon
//! runs, so that two of them never write one file. What is there and cannot be used is set aside under another name: never deleted, and
//! never an error.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fmt};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize, Serializer};

use super::book::{Book, Own};
use crate::config::{AbsolutePath, Refused, values};

/// Name of the file.
const FILE: &str = "oom-kills.json";
/// While it is written.
const UNFINISHED: &str = "oom-kills.json.new";
/// Where a file goes that cannot be used. One is kept: the last.
const SET_ASIDE: &str = "oom-kills.json.unusable";
/// A longer file is not of ours, and none is written: about four times what `cgroup.max` cgroups with paths of usual length need.
const MAX_BYTES: u64 = 16 << 20;
/// Version of the file's form.
const FORMAT: u32 = 1;

/// The state that outlives the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StateConfig {
    /// Directory for what outlives the daemon: the ledger's file, and which OOM kills were told. By default systemd's `$STATE_DIRECTORY`, if that is set.
    pub path: StatePath,
}

/// A directory, or nowhere. By default systemd's `$STATE_DIRECTORY`, else `/var/lib/killwatch`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum StatePath {
    /// Nowhere.
    None,
    /// In this directory, which is made if only it is missing.
    Directory(AbsolutePath),
}

impl Default for StatePath {
    fn default() -> Self {
        let of_systemd = env::var("STATE_DIRECTORY").ok();
        // systemd joins several with a colon.
        let first = of_systemd.as_deref().and_then(|paths| paths.split(':').next()?.parse().ok());
        Self::Directory(first.unwrap_or_else(|| AbsolutePath::of_known("/var/lib/killwatch")))
    }
}

impl FromStr for StatePath {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        match text {
            "none" => Ok(Self::None),
            path => path.parse().map(Self::Directory).map_err(|_| {
                Refused::new("must be `none`, or the path of a directory that begins with `/`")
            }),
        }
    }
}

impl fmt::Display for StatePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Directory(path) => path.fmt(f),
        }
    }
}

impl Serialize for StatePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

values::through_from_str!(StatePath);

/// The file's form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    format: u32,
    boot_id: String,
    host: u64,
    cgroups: Vec<SavedCgroup>,
    gone: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedCgroup {
    id: u64,
    path: String,
    kills: u64,
}

/// The directory, locked for this process.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    boot_id: String,
    /// Holds the lock.
    lock: File,
}

/// What [`Store::load`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Loaded {
    /// A file of this boot.
    Book(Book),
    /// None, or one of an earlier boot.
    Nothing,
    /// One that cannot be used, and was set aside. Why.
    Unusable(String),
}

impl Store {
    /// Takes the directory, and makes it if only it is missing.
    ///
    /// # Errors
    /// If it cannot be made or locked, or another daemon has it.
    pub fn open(directory: &Path, boot_id: &str) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o755).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let lock = File::open(directory)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => io::Error::other("another killwatch uses it"),
            error => error.into(),
        })?;
        let store = Self { directory: directory.to_owned(), boot_id: boot_id.to_owned(), lock };
        // A directory that can be read and not written would have the same kills reported anew with each start.
        drop(store.create()?);
        Ok(store)
    }

    /// Reads what an earlier daemon left.
    ///
    /// # Errors
    /// If there is a file that can neither be read nor set aside.
    pub fn load(&self) -> io::Result<Loaded> {
        let path = self.directory.join(FILE);
        let mut bytes = Vec::new();
        let read =
            File::open(&path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        let why = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Loaded::Nothing),
            Err(error) => error.to_string(),
            Ok(_) if bytes.len() as u64 > MAX_BYTES => format!("longer than {MAX_BYTES} bytes"),
            Ok(_) => match parse(&bytes) {
                Ok(saved) if saved.boot_id == self.boot_id => return Ok(Loaded::Book(book(saved))),
                Ok(_) => return Ok(Loaded::Nothing),
                Err(why) => why,
            },
        };
        fs::rename(&path, self.directory.join(SET_ASIDE))?;
        Ok(Loaded::Unusable(why))
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// If it cannot be written; the old one stands then.
    pub fn save(&self, book: &Book) -> io::Result<()> {
        let cgroup = |(id, own): (&u64, &Own)| SavedCgroup {
            id: *id,
            path: own.path.to_string(),
            kills: own.kills,
        };
        let mut saved = Saved {
            format: FORMAT,
            boot_id: self.boot_id.clone(),
            host: book.host,
            cgroups: book.own.iter().map(cgroup).collect(),
            gone: book.gone.clone(),
        };
        let mut bytes = serde_json::to_vec(&saved)?;
        if bytes.len() as u64 > MAX_BYTES {
            // The host's number is what keeps a kill from being told twice; where the others were is known no more.
            (saved.cgroups, saved.gone) = (Vec::new(), BTreeMap::new());
            bytes = serde_json::to_vec(&saved)?;
        }
        let mut file = self.create()?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(self.directory.join(UNFINISHED), self.directory.join(FILE))?;
        self.lock.sync_all()
    }

    fn create(&self) -> io::Result<File> {
        let mut options = File::options();
        options.write(true).create(true).truncate(true).mode(0o640);
        options.open(self.directory.join(UNFINISHED))
    }
}

fn parse(bytes: &[u8]) -> Result<Saved, String> {
    let saved: Saved = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if saved.format == FORMAT { Ok(saved) } else { Err(format!("its format is {}", saved.format)) }
}

fn book(saved: Saved) -> Book {
    let own = saved.cgroups.into_iter();
    let own = own.map(|cgroup| (cgroup.id, Own { path: cgroup.path.into(), kills: cgroup.kills }));
    let gone = saved.gone.into_iter().take(super::book::MAX_GONE);
    Book { host: saved.host, own: own.collect(), gone: gone.collect() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_book() -> Book {
        let own = Own { path: "/a \"b\"\u{1b}".into(), kills: 3 };
        Book { host: 7, own: [(42, own)].into(), gone: [("/c".to_owned(), 2)].into() }
    }

    #[test]
    fn what_is_saved_is_loaded_in_the_same_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let store = Store::open(&path, "boot-1").unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Nothing);
        store.save(&some_book()).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Book(some_book()));
        let error = Store::open(&path, "boot-1").unwrap_err();
        assert!(error.to_string().contains("another killwatch"), "{error}");
        drop(store);
        assert_eq!(Store::open(&path, "boot-2").unwrap().load().unwrap(), Loaded::Nothing);
        assert_eq!(
            Store::open(&path, "boot-1").unwrap().load().unwrap(),
            Loaded::Book(some_book())
        );
    }

    #[test]
    fn what_cannot_be_used_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let long = " ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1);
        let other = r#"{"format":2,"boot_id":"boot","host":1,"cgroups":[],"gone":{}}"#;
        for (text, why) in [
            ("", "EOF"),
            ("{\"host\": -1}", "invalid value"),
            (other, "its format is 2"),
            (&long, "longer than"),
        ] {
            fs::write(dir.path().join(FILE), text).unwrap();
            let Loaded::Unusable(said) = store.load().unwrap() else { panic!("{text:.40}") };
            assert!(said.contains(why), "{said}");
            assert_eq!(fs::read(dir.path().join(SET_ASIDE)).unwrap(), text.as_bytes());
            assert_eq!(store.load().unwrap(), Loaded::Nothing);
        }
    }

    #[test]
    fn a_file_that_would_be_too_long_keeps_the_hosts_number() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), "boot").unwrap();
        let path = format!("/{}", "x".repeat(4000));
        let own = |id| (id, Own { path: path.as_str().into(), kills: 1 });
        let book = Book { host: 5000, own: (0..5000).map(own).collect(), gone: BTreeMap::new() };
        store.save(&book).unwrap();
        assert_eq!(store.load().unwrap(), Loaded::Book(Book { host: 5000, ..Book::default() }));
    }

    #[test]
    fn a_directory_that_is_not_there_with_its_parent_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Store::open(&dir.path().join("a/b"), "boot").is_err());
    }

    #[test]
    fn where_it_may_be() {
        assert_eq!("none".parse(), Ok(StatePath::None));
        assert_eq!("/x".parse::<StatePath>().unwrap().to_string(), "/x");
        assert!("x".parse::<StatePath>().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
