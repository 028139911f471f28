//! What of the kernel side outlives the daemon, for people: log, status.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use serde::{Serialize, Serializer};

/// How the kernel side stands to the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It ends with the daemon.
    Unpinned,
    /// It outlives the daemon.
    Pinned,
    /// The same, and it is what an earlier daemon has loaded.
    TakenOver,
    /// The same, and it has taken the place of what an earlier daemon had loaded.
    Replaced,
}

/// What waited to be read as the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Meanwhile {
    /// Records.
    pub records: u64,
    /// Of these, ends of processes.
    pub deaths: u64,
}

/// What is said of it.
#[derive(Debug)]
pub struct Pins {
    how: How,
    directory: Option<PathBuf>,
    why: Option<String>,
    meanwhile: OnceLock<Meanwhile>,
}

impl Pins {
    /// It ends with the daemon, and why.
    #[must_use]
    pub const fn unpinned(why: String) -> Self {
        Self { how: How::Unpinned, directory: None, why: Some(why), meanwhile: OnceLock::new() }
    }

    /// It is pinned in this directory.
    #[must_use]
    pub fn new(how: How, directory: &Path) -> Self {
        let directory = Some(directory.to_owned());
        Self { how, directory, why: None, meanwhile: OnceLock::new() }
    }

    /// How it stands to the daemon.
    #[must_use]
    pub const fn how(&self) -> How {
        self.how
    }

    /// Why it is not pinned.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        self.why.as_deref()
    }

    /// What waited has been read. Only the first call counts.
    pub fn set_meanwhile(&self, meanwhile: Meanwhile) {
        let _ = self.meanwhile.set(meanwhile);
    }
}

impl Serialize for Pins {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Form<'a> {
            state: How,
            #[serde(skip_serializing_if = "Option::is_none")]
            directory: Option<std::borrow::Cow<'a, str>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            why: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            meanwhile: Option<Meanwhile>,
        }
        Form {
            state: self.how,
            directory: self.directory.as_deref().map(Path::to_string_lossy),
            why: self.why.as_deref().map(crate::text::one_line),
            meanwhile: self.meanwhile.get().copied(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_absent() {
        let json = |pins: &Pins| serde_json::to_string(pins).unwrap();
        let pins = Pins::unpinned("no\nplace".to_owned());
        assert_eq!(json(&pins), r#"{"state":"unpinned","why":"no\\nplace"}"#);
        let pins = Pins::new(How::TakenOver, Path::new("/p"));
        assert_eq!(json(&pins), r#"{"state":"taken_over","directory":"/p"}"#);
        pins.set_meanwhile(Meanwhile { records: 5, deaths: 2 });
        pins.set_meanwhile(Meanwhile::default());
        assert_eq!(
            json(&pins),
            r#"{"state":"taken_over","directory":"/p","meanwhile":{"records":5,"deaths":2}}"#
        );
    }
}
