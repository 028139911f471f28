//! What container runtimes and the Kubernetes API say of who runs here: names, labels, owners.
//!
//! A runtime is asked as a container's cgroup is made, so its answer is there long before a death needs it. Each source is a task of its own
//! ([`worker`]); what it learns goes into one [`Registry`]. Nothing in the way of a death waits for a source: the pipeline looks into the registry, and
//! holds a death back for at most `containers.deadline` while a source that answers at the moment is being asked.
//!
//! What a source says is a stranger's: answers are bounded in size, number and time, and texts are cut ([`Info`]).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::config::{AbsolutePath, Period, Refused, values};

mod book;
pub mod cri;
pub mod docker;
pub mod kubernetes;
pub mod pods;
pub(crate) mod registry;
pub mod sources;
pub mod systemd;
pub mod worker;

pub use book::Lookup;
pub use registry::{Handle, Registry, Size, SourceReport, SourceState};

/// Longest name, label or annotation that is kept, in bytes; the rest is cut off.
pub const MAX_TEXT: usize = 256;
/// Labels, and annotations, that are kept of one container.
pub const MAX_LABELS: usize = 64;

/// Which runtimes are asked, and how long a death may wait for them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ContainersConfig {
    /// Longest that a death waits for the names of its container, and then for what was seen of its memory.
    pub deadline: Period<1, 250, 5_000>,
    /// How often each source is asked for all its containers, beside what events ask for.
    pub poll: Period<1_000, 30_000, 3_600_000>,
    /// How long a container that is gone keeps its names, and a pod its owners: its death may still be on its way. Each takes about 1 KiB as long.
    pub keep_gone: Period<1_000, 300_000, 3_600_000>,
    /// Where runtimes that speak CRI are asked: containerd, CRI-O, cri-dockerd. `auto` is their well-known sockets.
    pub cri: Sockets,
    /// Where Docker is asked.
    pub docker: Sockets,
    /// Where Podman is asked.
    pub podman: Sockets,
    /// Whether systemd's invocation ids are read.
    pub systemd: Switch,
}

impl ContainersConfig {
    fn keep_gone_ns(&self) -> u64 {
        u64::try_from(self.keep_gone.get().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// On, unless turned off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// Used where it is there.
    #[default]
    Auto,
    /// Not used.
    Off,
}

/// Where a runtime is asked: `auto` (its well-known sockets), `off`, or paths joined by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Sockets {
    /// The well-known ones.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// These.
    At(Vec<AbsolutePath>),
}

impl Sockets {
    /// Most paths.
    pub const MAX: usize = 8;

    /// The paths, `known` being the well-known ones.
    #[must_use]
    pub fn paths(&self, known: &[&str]) -> Vec<PathBuf> {
        match self {
            Self::Auto => known.iter().map(PathBuf::from).collect(),
            Self::Off => Vec::new(),
            Self::At(paths) => paths.iter().map(|path| Path::to_path_buf(path)).collect(),
        }
    }
}

impl FromStr for Sockets {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let refused = || {
            Refused::new(format!(
                "must be `auto`, `off`, or 1 to {} paths of sockets that begin with `/`, joined by commas",
                Self::MAX
            ))
        };
        match text {
            "auto" => Ok(Self::Auto),
            "off" => Ok(Self::Off),
            paths => {
                let paths: Result<Vec<AbsolutePath>, _> =
                    paths.split(',').map(str::parse).collect();
                let paths = paths.map_err(|_| refused())?;
                if paths.len() > Self::MAX { Err(refused()) } else { Ok(Self::At(paths)) }
            }
        }
    }
}

impl fmt::Display for Sockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Off => f.write_str("off"),
            Self::At(paths) => {
                let paths: Vec<String> = paths.iter().map(ToString::to_string).collect();
                f.write_str(&paths.join(","))
            }
        }
    }
}

impl From<Sockets> for String {
    fn from(sockets: Sockets) -> Self {
        sockets.to_string()
    }
}

values::through_from_str!(Sockets);

/// What a runtime says of a container, or of a pod's sandbox. Every text is at most [`MAX_TEXT`] bytes; of labels and annotations only those are
/// kept that a rule or the user asks for ([`Wanted`]).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// Its bare id.
    pub id: String,
    /// The source that said so: `cri`, `docker`, `podman`.
    pub source: &'static str,
    /// The runtime by the name that Kubernetes puts before `://`, such as `containerd`.
    pub runtime: Option<String>,
    /// Name of the container.
    pub name: Option<String>,
    /// Name of its pod.
    pub pod: Option<String>,
    /// Namespace of its pod.
    pub namespace: Option<String>,
    /// Uid of its pod.
    pub pod_uid: Option<String>,
    /// Bare id of its pod's sandbox.
    pub sandbox_id: Option<String>,
    /// Its image.
    pub image: Option<String>,
    /// How often it had been started anew.
    pub attempt: Option<u32>,
    /// Labels of the pod, over those of the container.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the pod, over those of the container.
    pub annotations: BTreeMap<String, String>,
}

impl book::Weigh for Info {
    fn bytes(&self) -> usize {
        let texts = [
            Some(&self.id),
            self.runtime.as_ref(),
            self.name.as_ref(),
            self.pod.as_ref(),
            self.namespace.as_ref(),
            self.pod_uid.as_ref(),
            self.sandbox_id.as_ref(),
            self.image.as_ref(),
        ];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let maps = self.labels.iter().chain(&self.annotations);
        size_of::<Self>()
            + texts
            + maps.map(|(key, value)| 64 + key.len() + value.len()).sum::<usize>()
    }
}

/// Keys of labels and annotations that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Labels.
    pub labels: std::collections::BTreeSet<String>,
    /// Annotations.
    pub annotations: std::collections::BTreeSet<String>,
}

impl Wanted {
    /// Those of `labels` that are kept, cut to their bounds.
    #[must_use]
    pub fn labels<'a>(
        &self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, String> {
        keep(&self.labels, labels)
    }

    /// Those of `annotations` that are kept, cut to their bounds.
    #[must_use]
    pub fn annotations<'a>(
        &self,
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> BTreeMap<String, String> {
        keep(&self.annotations, annotations)
    }
}

fn keep<'a>(
    wanted: &std::collections::BTreeSet<String>,
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter().filter(|(key, _)| wanted.contains(*key));
    pairs.take(MAX_LABELS).map(|(key, value)| (key.to_owned(), cut(value))).collect()
}

/// A text, cut to [`MAX_TEXT`] bytes at a character's end.
#[must_use]
pub fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A text that is not empty, cut.
#[must_use]
pub fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| cut(text))
}
